//! Batches and schemas as Arrow IPC: each a stream of its own, of a schema and no more than one batch.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

/// What a schema takes, about.
const SCHEMA_BYTES: usize = 4 << 10;

/// A batch, to be sent.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let bytes: usize = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes + bytes / 16 + SCHEMA_BYTES), batch.schema_ref())?;
    writer.write(batch)?;
    writer.into_inner()
}

/// A schema, to be sent.
pub(crate) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    StreamWriter::try_new(Vec::with_capacity(SCHEMA_BYTES), schema)?.into_inner()
}

/// The batch that was sent, checked as Arrow checks it. Its columns lie in the payload.
pub(crate) fn decode(payload: Vec<u8>) -> Result<RecordBatch, String> {
    guarded(|| {
        let (mut decoder, mut bytes) = (StreamDecoder::new(), Buffer::from_vec(payload));
        let batch = decoder.decode(&mut bytes).map_err(|error| error.to_string())?;
        let batch = batch.ok_or_else(|| "it holds none".to_owned())?;
        match decoder.decode(&mut bytes) {
            Ok(None) if bytes.is_empty() => Ok(batch),
            Ok(_) => Err("it holds more than one".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// The schema that was sent.
pub(crate) fn decode_schema(payload: Vec<u8>) -> Result<SchemaRef, String> {
    guarded(|| {
        let (mut decoder, mut bytes) = (StreamDecoder::new(), Buffer::from_vec(payload));
        decoder.decode(&mut bytes).map_err(|error| error.to_string())?;
        decoder.schema().ok_or_else(|| "it holds none".to_owned())
    })
}

/// A panic over what a worker sent is the worker's fault.
fn guarded<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err("Arrow cannot make sense of it".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatchOptions, StringArray};
    use proptest::prelude::*;

    fn batch() -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("张三"), None, Some("")]));
        RecordBatch::try_from_iter_with_nullable([
            ("name", text, true),
            ("points", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef, false),
        ])
        .expect("a batch")
    }

    #[test]
    fn batches_and_schemas_arrive_as_they_were() {
        let bare = RecordBatch::try_new_with_options(Schema::empty().into(), vec![], &RecordBatchOptions::new().with_row_count(Some(5)));
        for batch in [batch(), batch().slice(1, 2), batch().slice(0, 0), bare.expect("rows without columns")] {
            assert_eq!(decode(encode(&batch).expect("encoded")).as_ref(), Ok(&batch));
            assert_eq!(decode_schema(encode_schema(batch.schema_ref()).expect("encoded")).as_ref(), Ok(batch.schema_ref()));
        }
    }

    #[test]
    fn what_holds_no_batch_or_two_is_refused() {
        let encoded = encode(&batch()).expect("encoded");
        assert_eq!(decode(encode_schema(batch().schema_ref()).expect("encoded")), Err("it holds none".to_owned()));
        assert_eq!(decode(Vec::new()), Err("it holds none".to_owned()));
        let twice: Vec<u8> = encoded.iter().chain(&encoded).copied().collect();
        assert!(decode(twice).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever bytes are changed, there is a batch whose values can be read, or an error.
        #[test]
        fn no_bytes_panic(changes in proptest::collection::vec((0_usize..1000, any::<u8>()), 1..6)) {
            let mut bytes = encode(&batch()).expect("encoded");
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(batch) = decode(bytes) {
                let text = format!("{batch:?}");
                prop_assert!(text.len() > 1);
            }
        }
    }
}
