//! Results of queries for programs (JSON) and for people (a text table).

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use unicode_width::UnicodeWidthStr;

/// The largest amount, in its smallest unit, whose decimal digits a JSON reader's 64-bit float keeps.
const EXACT_MAX: u128 = 999_999_999_999_999;
/// Columns of text that one cell of a table for people takes; the rest is cut off.
const CELL_WIDTH_MAX: usize = 60;

/// The rows as JSON objects, one key for each column.
///
/// Numbers are numbers; a decimal too, unless it has more than 15 digits, in which case it is a string, so
/// that no reader rounds it. Moments are RFC 3339 in UTC, days and times ISO 8601, ids hex digits. What JSON
/// has no form for (a float that is no number) is null; lists and structures are their text.
///
/// # Errors
/// Where a value has no text form, which no type of ours lacks.
pub fn to_json_rows(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>, ArrowError> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        let schema = batch.schema();
        let columns = batch.columns().iter().map(|column| Cells::of(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = schema.fields().iter().zip(&columns);
            let cells = cells.map(|(field, cells)| Ok((field.name().clone(), cells.json(row)?)));
            rows.push(cells.collect::<Result<Map<_, _>, ArrowError>>()?);
        }
    }
    Ok(rows)
}

/// One column, with the way to write its cells.
struct Cells<'a> {
    array: &'a dyn Array,
    text: ArrayFormatter<'a>,
}

impl<'a> Cells<'a> {
    fn of(array: &'a dyn Array) -> Result<Self, ArrowError> {
        static OPTIONS: FormatOptions<'static> = FormatOptions::new();
        Ok(Self { array, text: ArrayFormatter::try_new(array, &OPTIONS)? })
    }

    fn json(&self, row: usize) -> Result<Value, ArrowError> {
        let array = self.array;
        if array.is_null(row) || array.data_type().is_null() {
            return Ok(Value::Null);
        }
        Ok(match array.data_type() {
            DataType::Boolean => array.as_boolean().value(row).into(),
            DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
            DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
            DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
            DataType::Float32 => number(f64::from(array.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => number(array.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(..) if array.as_primitive::<Decimal128Type>().value(row).unsigned_abs() <= EXACT_MAX => {
                self.text(row)?.parse().map_or(Value::Null, number)
            }
            DataType::Timestamp(unit, _) => match moment(array, *unit, row) {
                Some(moment) => moment.to_string().into(),
                None => self.text(row)?.into(),
            },
            _ => self.text(row)?.into(),
        })
    }

    fn text(&self, row: usize) -> Result<String, ArrowError> {
        self.text.value(row).try_to_string()
    }
}

fn number(value: f64) -> Value {
    // A whole amount is written without a point.
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX as f64 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The moment; `None` where it lies outside of the calendar. Without a timezone it is taken for UTC.
fn moment(array: &dyn Array, unit: TimeUnit, row: usize) -> Option<Timestamp> {
    match unit {
        TimeUnit::Second => Timestamp::from_second(array.as_primitive::<TimestampSecondType>().value(row)),
        TimeUnit::Millisecond => Timestamp::from_millisecond(array.as_primitive::<TimestampMillisecondType>().value(row)),
        TimeUnit::Microsecond => Timestamp::from_microsecond(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => Timestamp::from_nanosecond(i128::from(array.as_primitive::<TimestampNanosecondType>().value(row))),
    }
    .ok()
}

/// The rows as a table for people: columns as wide as their widest cell on a terminal, where a Chinese
/// character takes two places; numbers to the right; moments in their column's timezone; null empty.
///
/// # Errors
/// Where a value has no text form, which no type of ours lacks.
pub fn to_text_table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let Some(first) = batches.first() else { return Ok(String::new()) };
    let schema = first.schema();
    let mut lines: Vec<Vec<String>> = vec![schema.fields().iter().map(|field| field.name().clone()).collect()];
    for batch in batches {
        let columns = batch.columns().iter().map(|column| Cells::of(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cell = |cells: &Cells<'_>| if cells.array.is_null(row) { Ok(String::new()) } else { Ok(cut(&cells.text(row)?)) };
            lines.push(columns.iter().map(cell).collect::<Result<_, ArrowError>>()?);
        }
    }
    let widths: Vec<usize> = (0..schema.fields().len()).map(|at| lines.iter().map(|line| line[at].width()).max().unwrap_or(0)).collect();
    let right: Vec<bool> = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
    let mut table = String::new();
    for (number, line) in lines.iter().enumerate() {
        push_line(&mut table, line.iter().zip(&widths).zip(&right).map(|((cell, width), right)| pad(cell, *width, *right)));
        if number == 0 {
            push_line(&mut table, widths.iter().map(|width| "-".repeat(*width)));
        }
    }
    Ok(table)
}

fn push_line(table: &mut String, cells: impl Iterator<Item = String>) {
    let line = cells.collect::<Vec<_>>().join("  ");
    table.push_str(line.trim_end());
    table.push('\n');
}

fn pad(cell: &str, width: usize, right: bool) -> String {
    let spaces = " ".repeat(width.saturating_sub(cell.width()));
    if right { spaces + cell } else { cell.to_owned() + &spaces }
}

/// The cell on one line, control characters shown as spaces, cut off where it is too wide.
fn cut(cell: &str) -> String {
    let mut cell: String = cell.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    if cell.width() > CELL_WIDTH_MAX {
        while cell.width() >= CELL_WIDTH_MAX {
            cell.pop();
        }
        cell.push('…');
    }
    cell
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array, NullArray, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let amounts = vec![Some(1_250), Some(-7), Some(123_456_789_012_345_678), None];
        let moments = vec![Some(1_767_225_600_000_000), Some(0), None, Some(1)];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(FixedSizeBinaryArray::try_from_iter([[0_u8; 2], [255; 2], [1; 2], [2; 2]].iter()).expect("ids"))),
            ("name", Arc::new(StringArray::from(vec![Some("张三丰"), Some("Ann"), None, Some("a\nb")]))),
            ("spent", Arc::new(Decimal128Array::from(amounts).with_precision_and_scale(18, 2).expect("a decimal"))),
            ("at", Arc::new(TimestampMicrosecondArray::from(moments).with_timezone("Asia/Shanghai"))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), None, Some(20_000), Some(-1)]))),
            ("count", Arc::new(Int64Array::from(vec![Some(1), Some(20), None, Some(-300)]))),
            ("yes", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
            ("share", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 3.0, 1e300]))),
            ("none", Arc::new(NullArray::new(4))),
        ];
        let schema =
            Schema::new(columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).expect("a batch")
    }

    #[test]
    fn rows_are_json_objects() {
        let rows = to_json_rows(&[batch()]).expect("JSON");
        let lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).expect("JSON")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"at":"2026-01-01T00:00:00Z","count":1,"day":"1970-01-01","id":"0000","name":"张三丰","none":null,"share":0.5,"spent":12.5,"yes":true}
        {"at":"1970-01-01T00:00:00Z","count":20,"day":null,"id":"ffff","name":"Ann","none":null,"share":null,"spent":-0.07,"yes":false}
        {"at":null,"count":null,"day":"2024-10-04","id":"0101","name":null,"none":null,"share":3,"spent":"1234567890123456.78","yes":null}
        {"at":"1970-01-01T00:00:00.000001Z","count":-300,"day":"1969-12-31","id":"0202","name":"a\nb","none":null,"share":1e+300,"spent":null,"yes":true}
        "#);
    }

    #[test]
    fn tables_for_people_are_aligned() {
        insta::assert_snapshot!(to_text_table(&[batch()]).expect("a table"), @r#"
        id    name                  spent  at                                day         count  yes    share  none
        ----  ------  -------------------  --------------------------------  ----------  -----  -----  -----  ----
        0000  张三丰                12.50  2026-01-01T08:00:00+08:00         1970-01-01      1  true     0.5
        ffff  Ann                   -0.07  1970-01-01T08:00:00+08:00                        20  false    NaN
        0101          1234567890123456.78                                    2024-10-04                  3.0
        0202  a b                          1970-01-01T08:00:00.000001+08:00  1969-12-31   -300  true   1e300
        "#);
        assert_eq!(to_text_table(&[]).ok().as_deref(), Some(""));
        assert_eq!(cut(&"长".repeat(100)).width(), 59);
    }
}
