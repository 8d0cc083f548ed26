//! Columns of sixteen bytes, as they lie in files.
//!
//! Parquet has a type for values of a fixed length, but its writer makes an object of its own of each such value,
//! which took as long as all else that it does. So they are written as binary values of any length, of which it
//! copies the bytes, and the field says that they are sixteen. Whoever reads the files sees the same bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

const BYTES: i32 = 16;
/// Metadata of a field in a file: how many bytes each of its values has.
const WIDTH: &str = "width";

/// Whether a column has sixteen bytes a value.
pub(crate) fn is_sixteen(kind: &DataType) -> bool {
    *kind == DataType::FixedSizeBinary(BYTES)
}

/// The schema of a file with these columns.
pub(crate) fn in_file(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match is_sixteen(field.data_type()) {
        false => Arc::clone(field),
        true => {
            let metadata = [(WIDTH.to_owned(), BYTES.to_string())].into();
            Arc::new(Field::new(field.name(), DataType::Binary, field.is_nullable()).with_metadata(metadata))
        }
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The columns of a file with this schema: the other way round.
pub(crate) fn from_file(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match field.metadata().get(WIDTH) {
        None => Arc::clone(field),
        Some(_) => Arc::new(Field::new(field.name(), DataType::FixedSizeBinary(BYTES), field.is_nullable())),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Rows as `schema`, which is [`in_file`], has them. Nothing is copied.
pub(crate) fn to_write(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let starts = ScalarBuffer::from_iter((0..=batch.num_rows() as i32).map(|row| row * BYTES));
    let starts = OffsetBuffer::new(starts);
    with_columns(batch, schema, |array, kind| match array.as_fixed_size_binary_opt().filter(|_| *kind == DataType::Binary) {
        None => Ok(Arc::clone(array)),
        Some(values) => {
            let bytes = values.values().slice_with_length(values.offset() * BYTES as usize, values.len() * BYTES as usize);
            Ok(Arc::new(BinaryArray::try_new(starts.clone(), bytes, values.nulls().cloned())?))
        }
    })
}

/// Rows that were read, as `schema`, which is [`from_file`], has them.
pub(crate) fn as_read(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    with_columns(batch, schema, |array, kind| match array.as_binary_opt::<i32>().filter(|_| is_sixteen(kind)) {
        None => Ok(Arc::clone(array)),
        Some(values) => Ok(Arc::new(FixedSizeBinaryArray::try_new(BYTES, bytes_of(values)?, values.nulls().cloned())?)),
    })
}

/// The bytes of all values, sixteen for each, also where one is null.
fn bytes_of(values: &BinaryArray) -> Result<Buffer, ArrowError> {
    let mut lengths = values.offsets().lengths();
    if values.null_count() == 0 && lengths.all(|length| length == BYTES as usize) {
        let start = values.value_offsets()[0] as usize;
        return Ok(values.values().slice_with_length(start, values.len() * BYTES as usize));
    }
    let mut bytes = Vec::with_capacity(values.len() * BYTES as usize);
    for value in values {
        let value = value.unwrap_or(&[0; BYTES as usize]);
        if value.len() != BYTES as usize {
            return Err(ArrowError::ParseError(format!("a value of {} bytes stands where each has {BYTES}", value.len())));
        }
        bytes.extend_from_slice(value);
    }
    Ok(Buffer::from_vec(bytes))
}

fn with_columns(
    batch: &RecordBatch,
    schema: &SchemaRef,
    column: impl Fn(&ArrayRef, &DataType) -> Result<ArrayRef, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(array, field)| column(array, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(values: Vec<Option<[u8; 16]>>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(arrow::array::Int32Array::from_iter_values(0..values.len() as i32));
        let values = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), BYTES).unwrap();
        let fields = vec![Field::new("id", DataType::FixedSizeBinary(BYTES), true), Field::new("n", DataType::Int32, false)];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(values), numbers]).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let all = batch(vec![Some([1; 16]), None, Some([3; 16]), Some([4; 16])]);
        for part in [all.clone(), all.slice(2, 2), all.slice(1, 2), all.slice(0, 0)] {
            let schema = in_file(part.schema_ref());
            assert_eq!(from_file(&schema), part.schema());
            let written = to_write(&part, &schema).unwrap();
            assert_eq!(written.column(0).data_type(), &DataType::Binary);
            assert_eq!(as_read(&written, part.schema_ref()).unwrap(), part);
        }
    }

    #[test]
    fn a_value_of_another_length_is_refused() {
        let part = batch(vec![Some([1; 16]), Some([2; 16])]);
        let values = BinaryArray::from_vec(vec![&[1; 16], &[2; 15]]);
        let columns: Vec<ArrayRef> = vec![Arc::new(values), Arc::clone(part.column(1))];
        let read = RecordBatch::try_new(in_file(part.schema_ref()), columns).unwrap();
        let error = as_read(&read, part.schema_ref()).unwrap_err();
        assert_eq!(error.to_string(), "Parser error: a value of 15 bytes stands where each has 16");
    }
}
