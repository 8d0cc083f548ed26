//! Record batches through the Arrow C Data interface.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayData, RecordBatch, RecordBatchOptions, StringArray, StructArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};

/// Why a batch or schema from the other side cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The structs were not filled in, or were released already.
    #[error("the Arrow struct was not filled in")]
    Missing,
    /// Lengths, offsets or counts of children that cannot be.
    #[error("the Arrow struct has {0}")]
    Shape(&'static str),
    /// More rows than the caller allows.
    #[error("a batch of {rows} rows, and {rows_max} are the limit")]
    Rows {
        /// Rows of the batch.
        rows: usize,
        /// The limit.
        rows_max: usize,
    },
    /// Arrow's own checks failed.
    #[error("the Arrow data is not valid")]
    Invalid(#[source] ArrowError),
    /// They failed for one column.
    #[error("the column `{column}` is not valid")]
    Column {
        /// Its name.
        column: String,
        /// What is wrong.
        #[source]
        source: ArrowError,
    },
    /// A type that this version of Arrow does not read.
    #[error("the Arrow data cannot be read: {0}")]
    Unreadable(String),
}

/// A schema on its way to the other side, where `release` gives it back.
///
/// # Errors
/// Where the schema has a type that the interface has no name for.
pub fn export_schema(schema: &Schema) -> Result<FFI_ArrowSchema, BatchError> {
    FFI_ArrowSchema::try_from(schema).map_err(BatchError::Invalid)
}

/// A batch on its way to the other side. Nothing is copied.
///
/// # Errors
/// As [`export_schema`].
pub fn export_batch(batch: &RecordBatch) -> Result<(FFI_ArrowSchema, FFI_ArrowArray), BatchError> {
    let schema = export_schema(batch.schema_ref())?;
    let data = StructArray::from(batch.clone()).into_data();
    Ok((schema, FFI_ArrowArray::new(&data)))
}

/// The schema that the other side filled in.
///
/// # Errors
/// Where it was not filled in, is no struct, or has a type that Arrow does not read.
pub fn import_schema(schema: &FFI_ArrowSchema) -> Result<SchemaRef, BatchError> {
    // A struct that was never filled in has no format; arrow asserts rather than answering so.
    guarded(|| Schema::try_from(schema).map(Arc::new).map_err(BatchError::Invalid))
}

/// The batch that the other side filled in, checked: shape, offsets, UTF-8, nulls where none may be.
/// Nothing is copied; the batch gives the memory back when the last part of it is dropped.
///
/// The full check reads every offset and every byte of text once; without it a mistake in a plugin would
/// be undefined behaviour in the host. `known` is the schema of the batch before, shared where it is the same.
///
/// # Errors
/// Where anything of that does not hold. The memory is given back then too.
///
/// # Safety
/// The structs must be empty or filled in by the rules of the Arrow C Data interface: whatever the
/// lengths and offsets in them say must be readable until they are released.
pub unsafe fn import_batch(
    schema: &FFI_ArrowSchema,
    array: FFI_ArrowArray,
    rows_max: usize,
    known: Option<&SchemaRef>,
) -> Result<RecordBatch, BatchError> {
    let schema = import_schema(schema)?;
    let schema = known.filter(|known| **known == schema).cloned().unwrap_or(schema);
    if array.is_released() {
        return Err(BatchError::Missing);
    }
    guarded(move || {
        let (rows, columns) = (array.len(), schema.fields().len());
        if rows > rows_max {
            return Err(BatchError::Rows { rows, rows_max });
        }
        check_shape(&array)?;
        if array.num_children() != columns {
            return Err(BatchError::Shape("another number of columns than its schema"));
        }
        if rows == 0 && columns > 0 {
            // The offsets of an empty slice need not fit its buffers, and nothing reads them.
            return Ok(RecordBatch::new_empty(schema));
        }
        let fields = DataType::Struct(schema.fields().clone());
        // SAFETY: the caller's promise, and the shape was checked as far as it can be.
        let data = unsafe { from_ffi_and_data_type(array, fields) }.map_err(BatchError::Invalid)?;
        into_batch(data, schema)
    })
}

fn into_batch(data: ArrayData, schema: SchemaRef) -> Result<RecordBatch, BatchError> {
    data.validate_data().map_err(BatchError::Invalid)?;
    for (field, column) in schema.fields().iter().zip(data.child_data()) {
        check_column(column).map_err(|source| BatchError::Column { column: field.name().clone(), source })?;
    }
    if data.null_count() > 0 {
        return Err(BatchError::Shape("rows that are null as a whole"));
    }
    let (_, columns, _) = StructArray::from(data.clone()).into_parts();
    let options = RecordBatchOptions::new().with_row_count(Some(data.len()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(BatchError::Invalid)
}

/// The full check of a column. Text, most of what there is to check, costs a fraction of what Arrow's own check
/// does, which says what is wrong where something is.
fn check_column(column: &ArrayData) -> Result<(), ArrowError> {
    if *column.data_type() != DataType::Utf8 {
        return column.validate_full();
    }
    column.validate()?;
    column.validate_nulls()?;
    let [offsets, values] = column.buffers() else { return column.validate_values() };
    let offsets = offsets.typed_data::<i32>().get(column.offset()..=column.offset() + column.len());
    if offsets.is_some_and(|offsets| is_text(offsets, values)) { Ok(()) } else { column.validate_values() }
}

/// Whether values that begin at these offsets, and the last of which ends at the last, are UTF-8, each by itself.
fn is_text(offsets: &[i32], values: &[u8]) -> bool {
    let Ok(text) = simdutf8::basic::from_utf8(values) else { return false };
    let is_cut = |offset: &i32| usize::try_from(*offset).is_ok_and(|offset| text.is_char_boundary(offset));
    offsets.is_sorted() && offsets.iter().all(is_cut)
}

/// A column of text: `offsets` say where each value begins, and where the last one ends. As
/// [`StringArray::try_new`], at a fraction of its cost.
///
/// # Errors
/// Where a value is not UTF-8, lies outside of `values`, or the nulls are not as many as the values.
pub fn text_array(offsets: OffsetBuffer<i32>, values: Buffer, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let rows = offsets.len() - 1;
    if nulls.as_ref().is_some_and(|nulls| nulls.len() != rows) || !is_text(&offsets, &values) {
        // It says what is wrong.
        return StringArray::try_new(offsets, values, nulls);
    }
    // SAFETY: every value is UTF-8 within the bytes, and there are as many nulls.
    Ok(unsafe { StringArray::new_unchecked(offsets, values, nulls) })
}

/// Lengths beyond this are mistakes: 32-bit offsets cannot hold them.
const LENGTH_MAX: usize = i32::MAX as usize;

/// Checks what arrow takes on trust: a negative length, read as an unsigned one, would send it far
/// outside of the buffers.
fn check_shape(array: &FFI_ArrowArray) -> Result<(), BatchError> {
    if array.len() > LENGTH_MAX || array.offset() > LENGTH_MAX {
        return Err(BatchError::Shape("a length or an offset that is negative or too large"));
    }
    if array.num_buffers() > 1 << 16 || array.num_children() > 1 << 16 {
        return Err(BatchError::Shape("a number of buffers or children that is negative or too large"));
    }
    (0..array.num_children()).try_for_each(|at| check_shape(array.child(at)))
}

/// Arrow asserts where the interface is broken in ways that it does not report; here that is an error.
fn guarded<T>(body: impl FnOnce() -> Result<T, BatchError>) -> Result<T, BatchError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(BatchError::Unreadable(panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("an assertion of the Arrow reader failed").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::Field;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn batch() -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("phone", Arc::new(StringArray::from(vec![Some("13800138000"), None, Some("会员")]))),
            ("orders", Arc::new(Int64Array::from(vec![Some(1), Some(2), None]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
        ];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_slice_of_any_batch_arrives_as_it_was(
            cells in vec((option::of(".{0,6}"), option::of(any::<i64>())), 0..40),
            offset in 0usize..40,
            rows in 0usize..40,
        ) {
            let (texts, numbers): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
            let (texts, numbers) = (StringArray::from(texts), Int64Array::from(numbers));
            let columns: [(&str, ArrayRef); 2] = [("text", Arc::new(texts)), ("number", Arc::new(numbers))];
            let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("a batch");
            let offset = offset.min(batch.num_rows());
            let slice = batch.slice(offset, rows.min(batch.num_rows() - offset));
            prop_assert_eq!(round_trip(&slice, 40).expect("valid"), slice);
        }
    }

    fn round_trip(batch: &RecordBatch, rows_max: usize) -> Result<RecordBatch, BatchError> {
        let (schema, array) = export_batch(batch)?;
        // SAFETY: just exported.
        unsafe { import_batch(&schema, array, rows_max, None) }
    }

    #[test]
    fn a_batch_and_its_slices_arrive_as_they_were() {
        let batch = batch();
        for (offset, rows) in [(0, 3), (1, 2), (2, 1), (3, 0)] {
            let slice = batch.slice(offset, rows);
            assert_eq!(round_trip(&slice, 3).expect("valid"), slice, "{offset}");
        }
        let empty =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &RecordBatchOptions::new().with_row_count(Some(2)));
        assert_eq!(round_trip(&empty.expect("rows without columns"), 3).expect("valid").num_rows(), 2);
    }

    #[test]
    fn the_schema_is_shared_between_batches() {
        let batch = batch();
        let (schema, array) = export_batch(&batch).expect("exported");
        // SAFETY: just exported.
        let arrived = unsafe { import_batch(&schema, array, 3, Some(batch.schema_ref())) }.expect("valid");
        assert!(Arc::ptr_eq(arrived.schema_ref(), batch.schema_ref()));
    }

    #[test]
    fn too_many_rows_and_empty_structs_are_refused() {
        assert!(matches!(round_trip(&batch(), 2), Err(BatchError::Rows { rows: 3, rows_max: 2 })));
        let (schema, _) = export_batch(&batch()).expect("exported");
        // SAFETY: an empty array is allowed.
        let error = unsafe { import_batch(&schema, FFI_ArrowArray::empty(), 3, None) };
        assert!(matches!(error, Err(BatchError::Missing)));
        assert!(matches!(import_schema(&FFI_ArrowSchema::empty()), Err(BatchError::Unreadable(_))));
    }

    #[test]
    fn text_that_is_not_utf8_and_nulls_where_none_may_be_are_refused() {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2]));
        // SAFETY: deliberately wrong; only the check under test looks at the bytes.
        let bad = unsafe { StringArray::new_unchecked(offsets, Buffer::from(vec![0xff, 0xfe]), None) };
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8, false)]));
        let data = |array: ArrayRef, schema: &SchemaRef| {
            let parts = StructArray::from(vec![(Arc::new(schema.field(0).clone().with_nullable(true)), array)]);
            let array = FFI_ArrowArray::new(&parts.into_data());
            let schema = export_schema(schema).expect("exported");
            // SAFETY: exported above; the buffers are as long as they say.
            unsafe { import_batch(&schema, array, 10, None) }
        };
        assert!(matches!(data(Arc::new(bad), &schema), Err(BatchError::Column { column, .. }) if column == "x"));
        let with_null = StringArray::from(vec![None::<&str>]);
        assert!(data(Arc::new(with_null), &schema).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn text_is_taken_where_arrow_takes_it(
            pieces in vec(prop_oneof![4 => Just(b"a".to_vec()), 4 => Just("会".as_bytes().to_vec()), 1 => Just(vec![0xe5])], 0..6),
            cuts in vec(-1i32..20, 1..6),
            is_sorted in any::<bool>(),
            from in 0usize..4,
        ) {
            let (values, mut cuts) = (pieces.concat(), cuts);
            if is_sorted {
                cuts.sort_unstable();
            }
            let rows = cuts.len() - 1;
            let from = from.min(rows);
            let data = ArrayData::builder(DataType::Utf8).len(rows - from).offset(from);
            let data = data.add_buffer(Buffer::from_vec(cuts.clone())).add_buffer(Buffer::from_vec(values.clone()));
            // SAFETY: deliberately wrong at times; only the checks look at it.
            let data = unsafe { data.build_unchecked() };
            prop_assert_eq!(check_column(&data).map_err(|error| error.to_string()), data.validate_full().map_err(|error| error.to_string()));
            if is_sorted && cuts[0] >= 0 {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(cuts));
                let (ours, arrows) = (text_array(offsets.clone(), values.clone().into(), None), StringArray::try_new(offsets, values.into(), None));
                prop_assert_eq!(ours.map_err(|error| error.to_string()), arrows.map_err(|error| error.to_string()));
            }
        }
    }

    #[test]
    fn another_number_of_columns_than_the_schema_is_refused() {
        let (_, array) = export_batch(&batch()).expect("exported");
        let schema = export_schema(&Schema::new(vec![Field::new("x", DataType::Utf8, true)])).expect("exported");
        // SAFETY: exported above.
        assert!(matches!(unsafe { import_batch(&schema, array, 10, None) }, Err(BatchError::Shape(_))));
    }
}
