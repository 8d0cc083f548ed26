//! The rows, in the Arrow of this library.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::guard::Failure;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR_US: i64 = 1_767_225_600_000_000;
const SECOND_US: i64 = 1_000_000;

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record_id", DataType::Utf8, false),
        Field::new("phone", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("order_count", DataType::Int64, false),
        Field::new("updated_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

/// The phones are obviously invented; every seventh row has none.
pub fn batch(rows: Range<usize>) -> Result<RecordBatch, ArrowError> {
    let number = |row: usize| row as i64;
    let phones = rows.clone().map(|row| (row % 7 != 0).then(|| format!("1390{:07}", (10_000 + row) % 10_000_000)));
    let times = rows.clone().map(|row| NEW_YEAR_US + number(row) * SECOND_US);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("r{row}")))),
        Arc::new(phones.collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("会员{row}")))),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(number))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn unexportable(error: ArrowError) -> Failure {
    Failure::internal(format!("rows cannot be handed on: {error}"))
}

pub fn exported_schema() -> Result<FFI_ArrowSchema, Failure> {
    FFI_ArrowSchema::try_from(schema().as_ref()).map_err(unexportable)
}

/// The rows as the host takes them.
pub fn export(batch: RecordBatch) -> Result<(FFI_ArrowSchema, FFI_ArrowArray), Failure> {
    let schema = exported_schema()?;
    Ok((schema, FFI_ArrowArray::new(&StructArray::from(batch).into_data())))
}
