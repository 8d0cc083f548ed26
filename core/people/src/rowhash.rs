//! Hashes of rows over an encoding of our own that does not depend on how batches are cut.
//!
//! Each value is a marker (0: null, 1: a value) and its bytes, texts with their length before them.
//! The caller sorts the columns and gives a prefix that stands for their names and types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use reunion_keys::Lookup;
use reunion_model::schema::ColumnType;

use crate::cast::text;
use crate::table::on_all_cores;

/// Rows that are laid out at a time: their bytes stay in the second-level cache.
const ROWS: usize = 2048;
/// Rows that are worth a thread. A batch of a source has fewer.
const SHARE_ROWS: usize = 1 << 16;

/// The prefix for columns of these names and types, in this order.
pub(crate) fn prefix<'a>(lookup: &Lookup, columns: impl Iterator<Item = (&'a str, ColumnType)>) -> [u8; 16] {
    let names = columns.flat_map(|(name, kind)| [name, kind.name()]).map(str::as_bytes).collect::<Vec<_>>();
    lookup.id("columns of a row", &names)
}

/// A column of a source as [`row_hashes`] takes it: the same values, in one of the types that it knows.
pub(crate) fn hashable(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8 | DataType::Boolean | DataType::Int64 | DataType::UInt64 | DataType::Date32 | DataType::Decimal128(..) => {
            Ok(Arc::clone(column))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(Arc::clone(column)),
        DataType::Dictionary(_, values) => hashable(&cast(column, values)?),
        kind if kind.is_integer() => cast(column, &DataType::Int64),
        _ => Ok(Arc::new(text(column)?)),
    }
}

/// One hash for each row of `columns`, which are of the types that [`ColumnType`] has, or `UInt64`.
pub(crate) fn row_hashes(lookup: &Lookup, prefix: [u8; 16], columns: &[ArrayRef], rows: usize) -> Vec<u128> {
    let shares = (0..rows).step_by(SHARE_ROWS).collect::<Vec<_>>();
    let hashes = on_all_cores(&shares, 1, |from| share_hashes(lookup, prefix, columns, *from, (from + SHARE_ROWS).min(rows)));
    hashes.concat()
}

fn share_hashes(lookup: &Lookup, prefix: [u8; 16], columns: &[ArrayRef], from: usize, to: usize) -> Vec<u128> {
    let mut hashes = Vec::with_capacity(to - from);
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(ROWS);
    for from in (from..to).step_by(ROWS) {
        let count = ROWS.min(to - from);
        let window = columns.iter().map(|column| column.slice(from, count)).collect::<Vec<_>>();
        lay_out(prefix, &window, count, &mut bytes, &mut ends);
        let mut start = 0;
        hashes.extend(ends.iter().map(|end| lookup.row_hash(&bytes[std::mem::replace(&mut start, *end)..*end])));
    }
    hashes
}

/// Writes the rows one after the other; `ends` holds where each one ends.
fn lay_out(prefix: [u8; 16], columns: &[ArrayRef], rows: usize, bytes: &mut Vec<u8>, ends: &mut Vec<usize>) {
    let fixed = 16 + columns.iter().map(|column| fixed_width(column.data_type())).sum::<usize>();
    ends.clear();
    ends.resize(rows, fixed);
    for column in columns.iter().filter(|column| column.data_type() == &DataType::Utf8) {
        let texts = column.as_string::<i32>();
        for (row, end) in ends.iter_mut().enumerate() {
            *end += if texts.is_null(row) { 0 } else { texts.value_length(row) as usize };
        }
    }
    let mut cursors = Vec::with_capacity(rows);
    let mut total = 0;
    for end in ends.iter_mut() {
        cursors.push(total);
        total += *end;
        *end = total;
    }
    bytes.clear();
    bytes.resize(total, 0);
    for cursor in &mut cursors {
        bytes[*cursor..*cursor + 16].copy_from_slice(&prefix);
        *cursor += 16;
    }
    for column in columns {
        write_column(column, bytes, &mut cursors);
    }
}

/// Bytes of every value of a column: the marker and what follows it, for texts the length alone.
fn fixed_width(kind: &DataType) -> usize {
    1 + match kind {
        DataType::Utf8 => 4,
        DataType::Boolean => 1,
        kind => kind.primitive_width().expect("a column of ours is text, boolean or primitive"),
    }
}

fn write_column(column: &ArrayRef, bytes: &mut [u8], cursors: &mut [usize]) {
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            for (row, cursor) in cursors.iter_mut().enumerate() {
                let valid = texts.is_valid(row);
                let text = if valid { texts.value(row).as_bytes() } else { &[] };
                bytes[*cursor] = u8::from(valid);
                bytes[*cursor + 1..*cursor + 5].copy_from_slice(&(text.len() as u32).to_le_bytes());
                bytes[*cursor + 5..*cursor + 5 + text.len()].copy_from_slice(text);
                *cursor += 5 + text.len();
            }
        }
        DataType::Boolean => {
            let values = column.as_boolean();
            for (row, cursor) in cursors.iter_mut().enumerate() {
                let valid = values.is_valid(row);
                bytes[*cursor] = u8::from(valid);
                bytes[*cursor + 1] = u8::from(valid && values.value(row));
                *cursor += 2;
            }
        }
        DataType::Int64 => write_fixed::<Int64Type, 8>(column, bytes, cursors, i64::to_le_bytes),
        DataType::UInt64 => write_fixed::<UInt64Type, 8>(column, bytes, cursors, u64::to_le_bytes),
        DataType::Timestamp(..) => write_fixed::<TimestampMicrosecondType, 8>(column, bytes, cursors, i64::to_le_bytes),
        DataType::Date32 => write_fixed::<Date32Type, 4>(column, bytes, cursors, i32::to_le_bytes),
        DataType::Decimal128(..) => write_fixed::<Decimal128Type, 16>(column, bytes, cursors, i128::to_le_bytes),
        other => unreachable!("a column of ours is never of type {other}"),
    }
}

fn write_fixed<T: ArrowPrimitiveType, const N: usize>(
    column: &ArrayRef,
    bytes: &mut [u8],
    cursors: &mut [usize],
    write: impl Fn(T::Native) -> [u8; N],
) {
    let values = column.as_primitive::<T>();
    for (row, cursor) in cursors.iter_mut().enumerate() {
        let valid = values.is_valid(row);
        let value = if valid { values.value(row) } else { T::Native::default() };
        bytes[*cursor] = u8::from(valid);
        bytes[*cursor + 1..*cursor + 1 + N].copy_from_slice(&write(value));
        *cursor += 1 + N;
    }
}
