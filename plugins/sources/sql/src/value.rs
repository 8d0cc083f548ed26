//! Single values of the cursor and the id: where a pull stands, in resume states and in SQL.

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use reunion_sdk::arrow::array::{Array, AsArray};
use reunion_sdk::arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use serde::{Deserialize, Serialize};

use crate::config::Dialect;

/// A value of the cursor or the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A time without a timezone, in microseconds since 1970 of that calendar.
    Moment(i64),
    /// A time, in microseconds UTC.
    Instant(i64),
    /// A day since 1970.
    Day(i32),
    /// A number.
    Integer(i64),
    /// A number that is never negative.
    Unsigned(u64),
    /// A number with a fraction, as text.
    Decimal(String),
    /// A text.
    Text(String),
}

const DAY_US: i64 = 86_400_000_000;

/// What a cursor can be compared by, here as in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorKind {
    /// See [`Value::Moment`].
    Moment,
    /// See [`Value::Instant`].
    Instant,
    /// See [`Value::Day`].
    Day,
    /// See [`Value::Integer`] and [`Value::Unsigned`].
    Integer,
    /// See [`Value::Text`].
    Text,
}

impl CursorKind {
    /// Of a column of this type; none where it cannot be a cursor.
    pub fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Timestamp(_, None) => Some(Self::Moment),
            DataType::Timestamp(_, Some(_)) => Some(Self::Instant),
            DataType::Date32 => Some(Self::Day),
            DataType::Int64 | DataType::UInt64 => Some(Self::Integer),
            DataType::Utf8 => Some(Self::Text),
            _ => None,
        }
    }

    /// Below every value of the kind, as SQL: never null, so that a condition holds for all rows that have one.
    pub fn minimum(self, dialect: Dialect) -> String {
        match self {
            Self::Moment | Self::Instant if dialect == Dialect::Mysql => "'1000-01-01 00:00:00'".into(),
            Self::Moment => "'0001-01-01 00:00:00'::timestamp".into(),
            Self::Instant => "'0001-01-01 00:00:00+00'::timestamptz".into(),
            Self::Day if dialect == Dialect::Mysql => "'1000-01-01'".into(),
            Self::Day => "'0001-01-01'::date".into(),
            Self::Integer => "-9223372036854775807".into(),
            Self::Text => "''".into(),
        }
    }
}

/// Whether a column of this type can be an id.
pub fn is_id(kind: &DataType) -> bool {
    CursorKind::of(kind).is_some() || matches!(kind, DataType::Decimal128(..))
}

impl Value {
    /// The value at this row; none where it is null, or of a type that is no cursor and no id.
    pub fn at(column: &dyn Array, row: usize) -> Option<Self> {
        if column.is_null(row) {
            return None;
        }
        Some(match column.data_type() {
            DataType::Timestamp(_, None) => Self::Moment(column.as_primitive::<TimestampMicrosecondType>().value(row)),
            DataType::Timestamp(..) => Self::Instant(column.as_primitive::<TimestampMicrosecondType>().value(row)),
            DataType::Date32 => Self::Day(column.as_primitive::<Date32Type>().value(row)),
            DataType::Int64 => Self::Integer(column.as_primitive::<Int64Type>().value(row)),
            DataType::UInt64 => Self::Unsigned(column.as_primitive::<UInt64Type>().value(row)),
            DataType::Decimal128(..) => Self::Decimal(column.as_primitive::<Decimal128Type>().value_as_string(row)),
            DataType::Utf8 => Self::Text(column.as_string::<i32>().value(row).to_owned()),
            _ => return None,
        })
    }

    /// The bytes of its text, or of what a number is written with at the most.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Decimal(text) => text.len(),
            _ => 32,
        }
    }

    /// Whether it is what a cursor of this kind has.
    pub fn is_of(&self, kind: CursorKind) -> bool {
        match self {
            Self::Moment(_) => kind == CursorKind::Moment,
            Self::Instant(_) => kind == CursorKind::Instant,
            Self::Day(_) => kind == CursorKind::Day,
            Self::Integer(_) | Self::Unsigned(_) => kind == CursorKind::Integer,
            Self::Text(_) => kind == CursorKind::Text,
            Self::Decimal(_) => false,
        }
    }

    /// The value so many seconds before, where it is a time: a row that was committed late has an earlier time
    /// than rows that were read before it. Numbers and other texts stay as they are.
    #[must_use]
    pub fn before(&self, secs: u64) -> Self {
        let us = i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        match self {
            Self::Moment(at) => Self::Moment(at.saturating_sub(us)),
            Self::Instant(at) => Self::Instant(at.saturating_sub(us)),
            Self::Day(day) => {
                Self::Day(day.saturating_sub(us.saturating_add(DAY_US - 1).div_euclid(DAY_US).try_into().unwrap_or(i32::MAX)))
            }
            Self::Text(text) => Self::Text(earlier(text, secs).unwrap_or_else(|| text.clone())),
            other => other.clone(),
        }
    }

    /// The value as SQL, quoted and of its type.
    pub fn literal(&self, dialect: Dialect) -> String {
        let typed = |text: String, kind: &str| if dialect == Dialect::Postgres { format!("'{text}'::{kind}") } else { format!("'{text}'") };
        match self {
            Self::Moment(us) => typed(moment_text(*us), "timestamp"),
            Self::Instant(us) if dialect == Dialect::Postgres => format!("'{}+00'::timestamptz", moment_text(*us)),
            Self::Instant(us) => format!("'{}'", moment_text(*us)),
            Self::Day(day) => typed(day_text(*day), "date"),
            Self::Integer(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Decimal(number) => number.clone(),
            Self::Text(text) if dialect == Dialect::Mysql => {
                // Whether a backslash escapes depends on the server's mode, and hexadecimal digits need none.
                format!("_utf8mb4 x'{}'", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
            // PostgreSQL has no text with a zero byte in it.
            Self::Text(text) => format!("'{}'", text.replace('\'', "''").replace('\0', "")),
        }
    }
}

/// Nothing later is kept of a year beyond 9999, or earlier than year 1: neither database writes it so.
fn moment_text(us: i64) -> String {
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    let least = DateTime::constant(1, 1, 1, 0, 0, 0, 0);
    let at = epoch.checked_add(SignedDuration::from_micros(us)).unwrap_or(if us < 0 { least } else { DateTime::MAX }).max(least);
    at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

fn day_text(day: i32) -> String {
    let epoch = Date::constant(1970, 1, 1);
    let least = Date::constant(1, 1, 1);
    let span = SignedDuration::from_hours(i64::from(day) * 24);
    epoch.checked_add(span).unwrap_or(if day < 0 { least } else { Date::MAX }).max(least).to_string()
}

/// A text that is a time or a day, so much earlier and written alike; none for any other text.
fn earlier(text: &str, secs: u64) -> Option<String> {
    let span = SignedDuration::from_secs(i64::try_from(secs).ok()?);
    if text.len() == 10 {
        let day: Date = text.parse().ok()?;
        let days = secs.div_ceil(86_400);
        return Some(day.checked_sub(SignedDuration::from_hours(i64::try_from(days).ok()?.checked_mul(24)?)).ok()?.to_string());
    }
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    let between = text.get(10..11).filter(|between| matches!(*between, "T" | " "))?;
    let (bare, zone) = time.strip_suffix('Z').map_or((time, ""), |bare| (bare, "Z"));
    let at: DateTime = format!("{date}T{bare}").parse().ok()?;
    let at = at.checked_sub(span).ok()?;
    let digits = bare.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let fraction =
        if digits == 0 { String::new() } else { format!(".{:0<digits$}", &format!("{:09}", at.subsec_nanosecond())[..digits.min(9)]) };
    let clock = if bare.len() == 5 { at.strftime("%H:%M") } else { at.strftime("%H:%M:%S") };
    Some(format!("{}{between}{clock}{fraction}{zone}", at.date()))
}

/// Whether a text that is a time or a day is later than this clock: the same moment once as a calendar shows
/// it at the source, and once in UTC, which texts that end with Z have.
pub fn text_is_after(text: &str, local: DateTime, utc: Timestamp) -> bool {
    if text.len() == 10 {
        return text.parse::<Date>().is_ok_and(|day| day > local.date());
    }
    if text.ends_with('Z') {
        return text.replacen(' ', "T", 1).parse::<Timestamp>().is_ok_and(|at| at > utc);
    }
    text.replacen(' ', "T", 1).parse::<DateTime>().is_ok_and(|at| at > local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_quoted_and_of_their_type() {
        let literals = |value: Value| [Dialect::Postgres, Dialect::Mysql].map(|dialect| value.literal(dialect));
        assert_eq!(
            literals(Value::Moment(1_700_000_000_123_456)),
            ["'2023-11-14 22:13:20.123456'::timestamp", "'2023-11-14 22:13:20.123456'"]
        );
        assert_eq!(literals(Value::Instant(-1)), ["'1969-12-31 23:59:59.999999+00'::timestamptz", "'1969-12-31 23:59:59.999999'"]);
        assert_eq!(literals(Value::Day(-1)), ["'1969-12-31'::date", "'1969-12-31'"]);
        assert_eq!(literals(Value::Text("o'x\\\0".into())), ["'o''x\\'", "_utf8mb4 x'6f27785c00'"]);
        assert_eq!(literals(Value::Moment(i64::MIN))[0], "'0001-01-01 00:00:00.000000'::timestamp");
        assert_eq!(literals(Value::Day(i32::MAX))[1], "'9999-12-31'");
    }

    #[test]
    fn times_go_back_and_other_values_do_not() {
        let texts = [
            ("2026-03-01 00:00:10", 15, "2026-02-28 23:59:55"),
            ("2026-03-01T00:00:10.250Z", 15, "2026-02-28T23:59:55.250Z"),
            ("2026-03-01 00:00", 60, "2026-02-28 23:59"),
            ("2026-03-01", 1, "2026-02-28"),
            ("0x00000000000007D1", 900, "0x00000000000007D1"),
            ("2026-13-01 00:00:10", 15, "2026-13-01 00:00:10"),
        ];
        for (text, secs, expected) in texts {
            assert_eq!(Value::Text(text.into()).before(secs), Value::Text(expected.into()));
        }
        assert_eq!(Value::Day(10).before(1), Value::Day(9));
        assert_eq!(Value::Day(10).before(86_401), Value::Day(8));
        assert_eq!(Value::Moment(5_000_000).before(2), Value::Moment(3_000_000));
        assert_eq!(Value::Moment(i64::MIN).before(u64::MAX), Value::Moment(i64::MIN));
        assert_eq!(Value::Integer(7).before(900), Value::Integer(7));
    }

    #[test]
    fn a_text_is_compared_with_the_clock_that_it_goes_by() {
        let local = DateTime::constant(2026, 3, 1, 8, 0, 0, 0);
        let utc: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("2026-03-01 08:00:01", true),
            ("2026-03-01 08:00:00", false),
            ("2026-03-01T00:00:01Z", true),
            ("2026-03-01T00:00:00Z", false),
            ("2026-03-02", true),
            ("2026-03-01", false),
            ("zzz", false),
        ] {
            assert_eq!(text_is_after(text, local, utc), expected, "{text}");
        }
    }
}
