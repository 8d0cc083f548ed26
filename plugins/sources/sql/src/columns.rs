//! The columns of a query as Arrow has them, and the builder of their batches.

use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use reunion_sdk::arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, UInt64Builder,
};
use reunion_sdk::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use reunion_sdk::limits::BATCH_ROWS_MAX;
use reunion_sdk::{ErrorClass, PluginError};

/// Digits behind the point that amounts keep; what a database has beyond them is rounded.
pub const DECIMAL_PLACES: i8 = 10;
const DECIMAL_DIGITS: u8 = 38;
/// Bytes of text that a batch is ended after.
const BATCH_TEXT_BYTES: usize = 8 << 20;
/// Bytes of one row, so that a batch stays below what may cross the plugin boundary.
pub const ROW_BYTES_MAX: usize = 16 << 20;

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A whole number that may be beyond those that have a sign.
    Unsigned,
    /// A number that is not exact.
    Float,
    /// A number with a fraction: 38 digits, ten of them behind the point.
    Decimal,
    /// A time without a timezone.
    Moment,
    /// A time.
    Instant,
    /// A day.
    Day,
}

impl Kind {
    /// The type in Arrow.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Unsigned => DataType::UInt64,
            Self::Float => DataType::Float64,
            Self::Decimal => DataType::Decimal128(DECIMAL_DIGITS, DECIMAL_PLACES),
            Self::Moment => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Instant => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Day => DataType::Date32,
        }
    }
}

/// A column of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// The database is asked for its values as text.
    pub as_text: bool,
}

/// An error for a column of a type that nothing can be made of.
pub fn no_type(name: &str, kind: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("the column {name:?} is of the type {kind}, which no column of a member can be"))
        .key("query")
        .hint("leave the column out of the query, or make it text or a number there")
}

/// An error for a row that has too many bytes with this column.
pub fn too_large(name: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("the column {name:?} makes a row of more than {} MiB", ROW_BYTES_MAX >> 20))
        .key("query")
        .hint("leave the column out of the query, or cut it short there: substring(… from 1 for 100)")
}

/// The schema of the batches.
pub fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, column.kind.arrow(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The values of one column so far.
pub enum Cells {
    /// See [`Kind::Text`].
    Text(StringBuilder),
    /// See [`Kind::Boolean`].
    Boolean(BooleanBuilder),
    /// See [`Kind::Integer`].
    Integer(Int64Builder),
    /// See [`Kind::Unsigned`].
    Unsigned(UInt64Builder),
    /// See [`Kind::Float`].
    Float(Float64Builder),
    /// See [`Kind::Decimal`].
    Decimal(Decimal128Builder),
    /// See [`Kind::Moment`] and [`Kind::Instant`].
    Moment(TimestampMicrosecondBuilder),
    /// See [`Kind::Day`].
    Day(Date32Builder),
}

impl Cells {
    fn of(kind: Kind) -> Self {
        let rows = BATCH_ROWS_MAX;
        match kind {
            Kind::Text => Self::Text(StringBuilder::with_capacity(rows, rows * 8)),
            Kind::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            Kind::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            Kind::Unsigned => Self::Unsigned(UInt64Builder::with_capacity(rows)),
            Kind::Float => Self::Float(Float64Builder::with_capacity(rows)),
            Kind::Decimal => Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(kind.arrow())),
            Kind::Moment | Kind::Instant => Self::Moment(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(kind.arrow())),
            Kind::Day => Self::Day(Date32Builder::with_capacity(rows)),
        }
    }

    /// Adds a missing value.
    pub fn null(&mut self) {
        match self {
            Self::Text(cells) => cells.append_null(),
            Self::Boolean(cells) => cells.append_null(),
            Self::Integer(cells) => cells.append_null(),
            Self::Unsigned(cells) => cells.append_null(),
            Self::Float(cells) => cells.append_null(),
            Self::Decimal(cells) => cells.append_null(),
            Self::Moment(cells) => cells.append_null(),
            Self::Day(cells) => cells.append_null(),
        }
    }

    /// Adds a value that the database writes as text. A text that is none of the column's type is null; whether
    /// it was one.
    pub fn parse(&mut self, text: &str) -> bool {
        let mut fits = true;
        match self {
            Self::Text(cells) => cells.append_value(text),
            Self::Boolean(cells) => cells.append_option(noted(text.parse().ok(), &mut fits)),
            Self::Integer(cells) => cells.append_option(noted(text.parse().ok(), &mut fits)),
            Self::Unsigned(cells) => cells.append_option(noted(text.parse().ok(), &mut fits)),
            Self::Float(cells) => cells.append_option(noted(text.parse().ok(), &mut fits)),
            Self::Decimal(cells) => cells.append_option(noted(decimal_of(text), &mut fits)),
            Self::Moment(cells) => cells.append_option(noted(moment_of(text), &mut fits)),
            Self::Day(cells) => cells.append_option(noted(day_of(text), &mut fits)),
        }
        fits
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(cells) => Arc::new(cells.finish()),
            Self::Boolean(cells) => Arc::new(cells.finish()),
            Self::Integer(cells) => Arc::new(cells.finish()),
            Self::Unsigned(cells) => Arc::new(cells.finish()),
            Self::Float(cells) => Arc::new(cells.finish()),
            Self::Decimal(cells) => Arc::new(cells.finish()),
            Self::Moment(cells) => Arc::new(cells.finish()),
            Self::Day(cells) => Arc::new(cells.finish()),
        }
    }
}

fn noted<T>(value: Option<T>, fits: &mut bool) -> Option<T> {
    *fits = value.is_some();
    value
}

/// `-12.345` in units of the tenth digit behind the point, rounded half away from zero.
fn decimal_of(text: &str) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let places = DECIMAL_PLACES as usize;
    let digit = |byte: u8| i128::from(byte - b'0');
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(places)) {
        value = value.checked_mul(10)?.checked_add(digit(byte))?;
    }
    value += i128::from(fraction.as_bytes().get(places).is_some_and(|byte| *byte >= b'5'));
    let limit = 10_i128.pow(DECIMAL_DIGITS.into());
    (value < limit).then_some(if negative { -value } else { value })
}

/// `2026-03-01 10:00:00.5`, a day alone being its midnight.
fn moment_of(text: &str) -> Option<i64> {
    let at: DateTime = text.parse().ok().or_else(|| text.parse::<Date>().ok().map(DateTime::from))?;
    i64::try_from(at.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_micros()).ok()
}

fn day_of(text: &str) -> Option<i32> {
    let day: Date = text.parse().ok()?;
    i32::try_from(day.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24).ok()
}

/// Rows on their way into batches.
pub struct Rows {
    schema: SchemaRef,
    /// The columns, to be filled row after row.
    pub cells: Vec<Cells>,
    rows: usize,
    text_bytes: usize,
    /// For each column how many values are none of its type, and are null.
    unfit: Vec<u64>,
}

impl Rows {
    /// No rows yet.
    pub fn new(columns: &[Column]) -> Self {
        let cells = columns.iter().map(|column| Cells::of(column.kind)).collect();
        Self { schema: schema(columns), cells, rows: 0, text_bytes: 0, unfit: vec![0; columns.len()] }
    }

    /// The name of a column.
    pub fn name(&self, column: usize) -> Option<&str> {
        self.schema.fields().get(column).map(|field| field.name().as_str())
    }

    /// A row is complete, whose texts have so many bytes. Gives the batch once it is full.
    pub fn end_row(&mut self, text_bytes: usize) -> Option<RecordBatch> {
        self.rows += 1;
        self.text_bytes += text_bytes;
        if self.rows >= BATCH_ROWS_MAX || self.text_bytes >= BATCH_TEXT_BYTES { self.finish() } else { None }
    }

    /// A value of this column is none of its type.
    pub fn is_unfit(&mut self, column: usize) {
        self.unfit[column] += 1;
    }

    /// The rows since the last batch, if there are any.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        if self.rows == 0 {
            return None;
        }
        (self.rows, self.text_bytes) = (0, 0);
        let columns = self.cells.iter_mut().map(Cells::finish).collect();
        Some(RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("every row has a value in every column"))
    }

    /// Names and numbers of the columns that had values of no use.
    pub fn unfit(&self) -> impl Iterator<Item = (&str, u64)> {
        self.schema.fields().iter().zip(&self.unfit).filter(|(_, count)| **count > 0).map(|(field, count)| (field.name().as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use reunion_sdk::arrow::array::{Array, AsArray};
    use reunion_sdk::arrow::datatypes::Decimal128Type;

    use super::*;

    #[test]
    fn amounts_are_exact_to_ten_places() {
        let cases = [
            ("12.3", Some(123_000_000_000)),
            ("-0.00000000005", Some(-1)),
            ("+7", Some(70_000_000_000)),
            (".5", Some(5_000_000_000)),
            ("9999999999999999999999999999", Some(99_999_999_999_999_999_999_999_999_990_000_000_000)),
            ("99999999999999999999999999999", None),
            ("9999999999999999999999999999.99999999999", None),
            ("NaN", None),
            ("", None),
            ("1e5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal_of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_null() {
        let columns = [
            Column { name: "at".into(), kind: Kind::Moment, as_text: false },
            Column { name: "day".into(), kind: Kind::Day, as_text: false },
        ];
        let mut rows = Rows::new(&columns);
        let texts = [
            ("1970-01-02 00:00:01.5", "1970-01-02"),
            ("1970-01-02", "1969-12-31"),
            ("0000-00-00 00:00:00", "0000-00-00"),
            ("2026-02-30 00:00:00", "x"),
        ];
        for (at, day) in texts {
            for (column, text) in [at, day].into_iter().enumerate() {
                if !rows.cells[column].parse(text) {
                    rows.is_unfit(column);
                }
            }
            assert!(rows.end_row(0).is_none());
        }
        assert_eq!(rows.unfit().collect::<Vec<_>>(), [("at", 2), ("day", 2)]);
        let batch = rows.finish().expect("rows");
        assert!(rows.finish().is_none());
        assert_eq!(
            batch.column(1).as_primitive::<reunion_sdk::arrow::datatypes::Date32Type>().iter().collect::<Vec<_>>(),
            [Some(1), Some(-1), None, None]
        );
        let moments = batch.column(0).as_primitive::<reunion_sdk::arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!(moments.iter().collect::<Vec<_>>(), [Some(86_401_500_000), Some(86_400_000_000), None, None]);
    }

    #[test]
    fn a_batch_ends_when_it_is_large() {
        let mut rows = Rows::new(&[Column { name: "a".into(), kind: Kind::Decimal, as_text: false }]);
        rows.cells[0].parse("1.5");
        let batch = rows.end_row(BATCH_TEXT_BYTES).expect("full");
        assert_eq!(batch.column(0).as_primitive::<Decimal128Type>().value_as_string(0), "1.5000000000");
        assert_eq!(batch.column(0).len(), 1);
    }
}
