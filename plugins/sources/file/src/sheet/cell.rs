//! What a cell holds, as text.

use std::fmt::Write;

use calamine::{DataRef, ExcelDateTime};

use crate::number::{self, Rounded};

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Its text was appended; none where it is empty.
    Text,
    /// It holds an error such as #N/A.
    Error,
    /// Digits of what it held are lost.
    Rounded(Rounded),
}

/// The day after 9999-12-31, the last that a spreadsheet has a date for, by the epoch of 1904.
const DAYS_END: f64 = 2_957_004.0;

/// Appends a cell's text: numbers as they would stand in a text, days as `2024-01-31`, moments as
/// `2024-01-31 10:20:30`, true and false.
pub fn write(value: &DataRef<'_>, out: &mut String) -> Written {
    match value {
        DataRef::Empty => Written::Text,
        DataRef::String(text) => write_text(text, out),
        DataRef::SharedString(text) => write_text(text, out),
        DataRef::Int(number) => append(out, format_args!("{number}")),
        DataRef::Float(number) => write_number(*number, out),
        DataRef::Bool(value) => append(out, format_args!("{value}")),
        DataRef::DateTime(moment) => write_moment(moment, out),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => append(out, format_args!("{text}")),
        DataRef::Error(_) => Written::Error,
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) -> Written {
    out.write_fmt(text).expect("a string takes all");
    Written::Text
}

fn write_number(number: f64, out: &mut String) -> Written {
    match number::append_in_full(number, out) {
        Ok(true) => Written::Text,
        Ok(false) => Written::Error,
        Err(rounded) => Written::Rounded(rounded),
    }
}

fn write_text(text: &str, out: &mut String) -> Written {
    match number::unshortened(text) {
        Ok(text) => out.push_str(&text),
        Err(rounded) => return Written::Rounded(rounded),
    }
    Written::Text
}

fn write_moment(moment: &ExcelDateTime, out: &mut String) -> Written {
    let value = moment.as_f64();
    if moment.is_duration() {
        let seconds = (value * 86_400.0).round() as i64;
        let (sign, seconds) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
        return append(out, format_args!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    if !(0.0..DAYS_END).contains(&value) {
        // A spreadsheet shows no date for it: it is a number, such as 20240131, in a column of dates.
        return write_number(value, out);
    }
    let (year, month, day, hour, minute, second, milli) = moment.to_ymd_hms_milli();
    let is_time = value > 0.0 && value < 1.0;
    if !is_time {
        append(out, format_args!("{year:04}-{month:02}-{day:02}"));
    }
    if value.fract() != 0.0 {
        let gap = if is_time { "" } else { " " };
        append(out, format_args!("{gap}{hour:02}:{minute:02}:{second:02}"));
        if milli != 0 {
            append(out, format_args!(".{milli:03}"));
        }
    }
    Written::Text
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamine::{CellErrorType, ExcelDateTimeType};

    fn text(value: &DataRef<'_>) -> Result<String, Written> {
        let mut out = String::new();
        match write(value, &mut out) {
            Written::Text => Ok(out),
            other => Err(other),
        }
    }

    #[test]
    fn moments_follow_the_epoch_and_errors_are_told() {
        let of = |value, is_1904| text(&DataRef::DateTime(ExcelDateTime::new(value, ExcelDateTimeType::DateTime, is_1904))).unwrap();
        assert_eq!(of(45_322.0, false), "2024-01-31");
        assert_eq!(of(45_322.0 - 1462.0, true), "2024-01-31");
        assert_eq!(of(45_322.430_902_777_78, false), "2024-01-31 10:20:30");
        assert_eq!(of(45_322.5 + 0.25 / 86_400.0, false), "2024-01-31 12:00:00.250");
        assert_eq!(of(0.5, false), "12:00:00");
        assert_eq!(of(1.0, false), "1900-01-01");
        assert_eq!(of(20_240_131.0, false), "20240131", "a number in a column of dates");
        let span = DataRef::DateTime(ExcelDateTime::new(1.5, ExcelDateTimeType::TimeDelta, false));
        assert_eq!(text(&span).unwrap(), "36:00:00");
        assert_eq!(text(&DataRef::Error(CellErrorType::NA)), Err(Written::Error));
        assert_eq!(text(&DataRef::Bool(true)).unwrap(), "true");
        assert_eq!(text(&DataRef::Int(13_900_001_201)).unwrap(), "13900001201");
    }
}
