//! Hashes of rows over an encoding of our own that does not depend on how batches are cut.
//!
//! Each value is a marker (0: null, 1: a value) and its bytes, texts with their length before them.
//! The caller sorts the columns and gives a prefix that stands for their names and types.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use reunion_keys::Lookup;
use reunion_model::schema::ColumnType;
use reunion_model::threads::on_all_cores;

use crate::cast::text;

/// Bytes that most rows fit in, or by which the room for one grows.
const ROW_BYTES: usize = 1024;
/// Bytes of a short text.
const SHORT: usize = 32;
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
    let columns = columns.iter().map(Cells::of).collect::<Vec<_>>();
    let mut bytes = vec![0; ROW_BYTES];
    bytes[..16].copy_from_slice(&prefix);
    let mut hash = |row: usize| {
        let end = columns.iter().fold(16, |at, column| column.write(row, &mut bytes, at));
        lookup.row_hash(&bytes[..end])
    };
    (from..to).map(&mut hash).collect()
}

/// A column as its values are written, one after the other.
struct Cells<'a> {
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

enum Values<'a> {
    Text { offsets: &'a [i32], bytes: &'a [u8] },
    Boolean(&'a BooleanBuffer),
    Long(&'a [i64]),
    Unsigned(&'a [u64]),
    Day(&'a [i32]),
    Decimal(&'a [i128]),
}

impl<'a> Cells<'a> {
    fn of(column: &'a ArrayRef) -> Self {
        let values = match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                Values::Text { offsets: texts.value_offsets(), bytes: texts.value_data() }
            }
            DataType::Boolean => Values::Boolean(column.as_boolean().values()),
            DataType::Int64 => Values::Long(column.as_primitive::<Int64Type>().values()),
            DataType::UInt64 => Values::Unsigned(column.as_primitive::<UInt64Type>().values()),
            DataType::Timestamp(..) => Values::Long(column.as_primitive::<TimestampMicrosecondType>().values()),
            DataType::Date32 => Values::Day(column.as_primitive::<Date32Type>().values()),
            DataType::Decimal128(..) => Values::Decimal(column.as_primitive::<Decimal128Type>().values()),
            other => unreachable!("a column of ours is never of type {other}"),
        };
        Self { values, nulls: column.nulls() }
    }

    /// Writes the value of a row at this place of `row_bytes`, which grows where it has to; where it ends.
    #[inline]
    fn write(&self, row: usize, row_bytes: &mut Vec<u8>, at: usize) -> usize {
        let valid = self.nulls.is_none_or(|nulls| nulls.is_valid(row));
        match &self.values {
            Values::Text { offsets, bytes } => {
                let text = offsets[row] as usize..if valid { offsets[row + 1] } else { offsets[row] } as usize;
                write_text(valid, bytes, text, row_bytes, at)
            }
            Values::Boolean(values) => write_fixed(valid, [u8::from(valid && values.value(row))], row_bytes, at),
            Values::Long(values) => write_fixed(valid, if valid { values[row] } else { 0 }.to_le_bytes(), row_bytes, at),
            Values::Unsigned(values) => write_fixed(valid, if valid { values[row] } else { 0 }.to_le_bytes(), row_bytes, at),
            Values::Day(values) => write_fixed(valid, if valid { values[row] } else { 0 }.to_le_bytes(), row_bytes, at),
            Values::Decimal(values) => write_fixed(valid, if valid { values[row] } else { 0 }.to_le_bytes(), row_bytes, at),
        }
    }
}

#[inline]
fn write_fixed<const N: usize>(valid: bool, value: [u8; N], row_bytes: &mut Vec<u8>, at: usize) -> usize {
    let end = at + 1 + N;
    if row_bytes.len() < end {
        row_bytes.resize(end + ROW_BYTES, 0);
    }
    row_bytes[at] = u8::from(valid);
    row_bytes[at + 1..end].copy_from_slice(&value);
    end
}

#[inline]
fn write_text(valid: bool, bytes: &[u8], text: Range<usize>, row_bytes: &mut Vec<u8>, at: usize) -> usize {
    let (start, end) = (at + 5, at + 5 + text.len());
    if row_bytes.len() < end.max(start + SHORT) {
        row_bytes.resize(end + ROW_BYTES, 0);
    }
    row_bytes[at] = u8::from(valid);
    row_bytes[at + 1..start].copy_from_slice(&(text.len() as u32).to_le_bytes());
    match bytes.get(text.start..text.start + SHORT) {
        // A copy of a length that is known takes a few instructions, one of another length a call. What is
        // copied too much the next value writes over.
        Some(short) if text.len() <= SHORT => row_bytes[start..start + SHORT].copy_from_slice(short),
        _ => row_bytes[start..end].copy_from_slice(&bytes[text]),
    }
    end
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
    use proptest::prelude::*;
    use reunion_keys::{KeyRing, MasterKey};

    use super::*;

    /// The encoding as the head of this file has it, value by value.
    fn encoded(columns: &[ArrayRef], row: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for column in columns {
            let valid = column.is_valid(row);
            bytes.push(u8::from(valid));
            let value: Vec<u8> = match column.data_type() {
                DataType::Utf8 => {
                    let text = if valid { column.as_string::<i32>().value(row) } else { "" };
                    [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
                }
                DataType::Boolean => vec![u8::from(column.as_boolean().value(row))],
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_le_bytes().into(),
                DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_le_bytes().into(),
                DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row).to_le_bytes().into(),
                DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_le_bytes().into(),
                _ => column.as_primitive::<Decimal128Type>().value(row).to_le_bytes().into(),
            };
            // What stands under a null does not count.
            bytes.extend(if valid || column.data_type() == &DataType::Utf8 { value } else { vec![0; value.len()] });
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_hash_is_that_of_the_encoding_however_columns_are_cut(
            cells in prop::collection::vec(
                (prop::option::of(prop_oneof![8 => ".{0,40}", 1 => ".{2000}"]), prop::option::of(any::<i64>()), any::<bool>()), 1..40,
            ),
            offset in 0usize..8,
        ) {
            let (keys, _) = KeyRing::create(&MasterKey::from_hex(&"1".repeat(64)).unwrap()).unwrap();
            let lookup = keys.lookup();
            let number = |at: usize| cells[at].1;
            let all = || (0..cells.len()).map(number);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter(cells.iter().map(|cell| cell.0.as_deref()))),
                Arc::new(BooleanArray::from_iter(cells.iter().map(|cell| cell.1.map(|_| cell.2)))),
                Arc::new(Int64Array::from_iter(all())),
                Arc::new(UInt64Array::from_iter(all().map(|value| value.map(|value| value as u64)))),
                Arc::new(TimestampMicrosecondArray::from_iter(all()).with_timezone("UTC")),
                Arc::new(Date32Array::from_iter(all().map(|value| value.map(|value| value as i32)))),
                Arc::new(Decimal128Array::from_iter(all().map(|value| value.map(i128::from)))),
                Arc::new(StringArray::from_iter(cells.iter().rev().map(|cell| cell.0.as_deref()))),
            ];
            let prefix = [7; 16];
            let hashes = row_hashes(lookup, prefix, &columns, cells.len());
            let expected = |row| lookup.row_hash(&[&prefix[..], &encoded(&columns, row)].concat());
            prop_assert_eq!(&hashes, &(0..cells.len()).map(expected).collect::<Vec<_>>());
            let offset = offset.min(cells.len());
            let cut = columns.iter().map(|column| column.slice(offset, cells.len() - offset)).collect::<Vec<_>>();
            prop_assert_eq!(row_hashes(lookup, prefix, &cut, cells.len() - offset), &hashes[offset..]);
        }
    }
}
