//! Columns of a source to columns of ours: from text by our own parsers, from typed columns exactly.
//!
//! A cell that does not cast is null and counted. So is a moment or day that systems write for
//! "never": a moment before 1971-01-02 UTC, the day 1970-01-01, and days up to 1900-01-01.
//! Amounts with more than two places are rounded half away from zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Decimal128Array, Float64Array, PrimitiveArray, StringArray, StringBuilder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use jiff::tz::TimeZone;
use reunion_model::Consent;
use reunion_model::schema::{ColumnType, DECIMAL_PRECISION, DECIMAL_SCALE};

use crate::moment::{DAY_SECS, Zone, format_date, format_timestamp, parse_date, parse_timestamp};
use crate::phone::is_invisible;

/// 1971-01-02 UTC: what lies before is an epoch that someone shifted, not a moment in a shop.
const NEVER_BEFORE_US: i64 = 366 * DAY_SECS * 1_000_000;
/// 1900-01-01 in days.
const NEVER_DAY_MAX: i32 = -25_567;
const AMOUNT_MAX: i128 = 10_i128.pow(DECIMAL_PRECISION as u32) - 1;

/// Cells of one column that became null.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Nulled {
    /// Rows whose cell is not of the column's type, ascending.
    pub(crate) not_cast: Vec<u32>,
    /// Cells with a date that means "never".
    pub(crate) never: u64,
    /// Cells looked at so far.
    cells: u32,
}

/// What a cell became.
enum Cell<T> {
    Value(T),
    Empty,
    NotCast,
    Never,
}

impl<T> From<Option<T>> for Cell<T> {
    #[inline]
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NotCast, Self::Value)
    }
}

/// How one column is cast.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) kind: ColumnType,
    /// Amounts come in hundredths of the unit.
    pub(crate) fen: bool,
    pub(crate) format: Option<String>,
    pub(crate) timezone: TimeZone,
    pub(crate) values: BTreeMap<String, String>,
    /// The words of a consent column.
    pub(crate) consent: bool,
}

impl Cast {
    /// Whether a column of this type can be read at all.
    pub(crate) fn takes(from: &DataType) -> bool {
        from.is_primitive()
            || matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Null)
            || matches!(from, DataType::Dictionary(_, value) if Self::takes(value))
    }

    /// The column in our type.
    ///
    /// # Errors
    /// Where Arrow cannot cast a column that [`Cast::takes`] let through: a defect.
    pub(crate) fn apply(&self, input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
        let decoded;
        let input = if let DataType::Dictionary(_, value) = input.data_type() {
            decoded = cast(input, value)?;
            &decoded
        } else {
            input
        };
        if is_text(input.data_type()) || !self.values.is_empty() || self.consent || self.kind == ColumnType::Text || self.format.is_some() {
            return self.parsed(&self.mapped(text(input)?));
        }
        match self.kind {
            ColumnType::Integer => integers(input),
            ColumnType::Decimal => self.amounts(input),
            ColumnType::Timestamp => self.moments(input),
            ColumnType::Date => self.days(input),
            ColumnType::Boolean => booleans(input),
            ColumnType::Text => Ok((Arc::new(text(input)?), Nulled::default())),
        }
    }

    /// A source's own words replaced by ours.
    fn mapped(&self, cells: StringArray) -> StringArray {
        if self.values.is_empty() {
            return cells;
        }
        cells.iter().map(|cell| cell.map(|cell| self.values.get(trim(cell)).map_or(cell, String::as_str))).collect()
    }

    fn parsed(&self, cells: &StringArray) -> Result<(ArrayRef, Nulled), ArrowError> {
        let zone = Zone::new(&self.timezone);
        Ok(match self.kind {
            ColumnType::Text if self.consent => consents(cells),
            ColumnType::Text => (trimmed(cells), Nulled::default()),
            ColumnType::Integer => parse::<Int64Type>(cells, |cell| parse_integer(cell.as_bytes()).into()),
            ColumnType::Decimal => {
                let places = self.places();
                let (array, nulled) = parse::<Decimal128Type>(cells, |cell| parse_amount(cell.as_bytes(), places).into());
                (amount_type(array.as_primitive::<Decimal128Type>().clone())?, nulled)
            }
            ColumnType::Timestamp => {
                let (array, nulled) = match &self.format {
                    None => parse::<TimestampMicrosecondType>(cells, |cell| moment(parse_timestamp(cell.as_bytes(), &zone))),
                    Some(format) => parse::<TimestampMicrosecondType>(cells, |cell| moment(format_timestamp(format, cell, &zone))),
                };
                (utc(&array), nulled)
            }
            ColumnType::Date => match &self.format {
                None => parse::<Date32Type>(cells, |cell| day(parse_date(cell.as_bytes()))),
                Some(format) => parse::<Date32Type>(cells, |cell| day(format_date(format, cell))),
            },
            ColumnType::Boolean => {
                let mut values = BooleanBuilder::with_capacity(cells.len());
                let nulled = each(cells, |cell| parse_boolean(cell).into(), |value| values.append_option(value));
                (Arc::new(values.finish()), nulled)
            }
        })
    }

    /// Places after the point of the source's unit, counted in ours: 4 for an amount in fen.
    fn places(&self) -> i32 {
        i32::from(DECIMAL_SCALE) + if self.fen { -2 } else { 0 }
    }

    fn amounts(&self, input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
        let places = self.places();
        let fit = |value: Option<i128>| value.filter(|value| value.abs() <= AMOUNT_MAX).into();
        let (array, nulled) = match input.data_type() {
            DataType::Decimal128(_, scale) => {
                let scale = i32::from(*scale);
                map::<Decimal128Type, Decimal128Type>(input.as_primitive(), |value| fit(rescale(value, scale, places)))
            }
            DataType::Float32 | DataType::Float64 => {
                let factor = 10_f64.powi(places);
                map::<arrow::datatypes::Float64Type, Decimal128Type>(floats(input)?.as_primitive(), |value| {
                    let amount = (value * factor).round();
                    // Beyond 2^53 a float no longer tells one fen from the next.
                    fit((amount.abs() <= 9_007_199_254_740_992.0).then_some(amount as i128))
                })
            }
            from if from.is_integer() => map::<Int64Type, Decimal128Type>(cast(input, &DataType::Int64)?.as_primitive(), |value| {
                fit(rescale(i128::from(value), 0, places))
            }),
            _ => return Ok(all_null(ColumnType::Decimal, input)),
        };
        Ok((amount_type(array)?, nulled))
    }

    fn moments(&self, input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
        let zone = Zone::new(&self.timezone);
        let (array, nulled) = match input.data_type() {
            DataType::Timestamp(unit, tz) => {
                let raw = micros(input, *unit);
                let local = tz.is_none();
                map::<Int64Type, TimestampMicrosecondType>(&raw, |value| match value {
                    i64::MIN => Cell::NotCast,
                    value if local => {
                        moment(zone.to_utc(value.div_euclid(1_000_000)).map(|secs| secs * 1_000_000 + value.rem_euclid(1_000_000)))
                    }
                    value => moment(Some(value)),
                })
            }
            DataType::Date32 => map::<Date32Type, TimestampMicrosecondType>(input.as_primitive(), |days| {
                moment(zone.to_utc(i64::from(days) * DAY_SECS).map(|secs| secs * 1_000_000))
            }),
            _ => return Ok(all_null(ColumnType::Timestamp, input)),
        };
        Ok((Arc::new(array.with_timezone("UTC")), nulled))
    }

    fn days(&self, input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
        let zone = Zone::new(&self.timezone);
        let (array, nulled) = match input.data_type() {
            DataType::Date32 => map::<Date32Type, Date32Type>(input.as_primitive(), |days| day(Some(days))),
            DataType::Timestamp(unit, tz) => {
                let local = tz.is_none();
                map::<Int64Type, Date32Type>(&micros(input, *unit), |value| match value {
                    i64::MIN => Cell::NotCast,
                    value if local => day(i32::try_from(value.div_euclid(DAY_SECS * 1_000_000)).ok()),
                    value => day(zone.day_of(value)),
                })
            }
            _ => return Ok(all_null(ColumnType::Date, input)),
        };
        Ok((Arc::new(array), nulled))
    }
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn cast(input: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(input, to, &CastOptions { safe: true, ..Default::default() })
}

fn floats(input: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    cast(input, &DataType::Float64)
}

/// The cells as text; whole floats without a point, since spreadsheets keep phone numbers as floats.
pub(crate) fn text(input: &ArrayRef) -> Result<StringArray, ArrowError> {
    let array = match input.data_type() {
        DataType::Utf8 => return Ok(input.as_string::<i32>().clone()),
        DataType::Float32 | DataType::Float64 => {
            let floats = floats(input)?;
            let cells = floats.as_primitive::<arrow::datatypes::Float64Type>();
            return Ok(float_texts(cells));
        }
        DataType::Timestamp(unit, tz) => {
            // Arrow writes a zone's name only with its database at hand, so the zone is dropped first.
            let raw = micros(input, *unit);
            let moments = PrimitiveArray::<TimestampMicrosecondType>::new(raw.values().clone(), raw.nulls().cloned());
            let moments = if tz.is_some() { moments.with_timezone("+00:00") } else { moments };
            cast(&(Arc::new(moments) as ArrayRef), &DataType::Utf8)?
        }
        _ => cast(input, &DataType::Utf8)?,
    };
    Ok(array.as_string::<i32>().clone())
}

fn float_texts(cells: &Float64Array) -> StringArray {
    let mut texts = StringBuilder::new();
    for cell in cells {
        match cell {
            Some(value) if value.fract() == 0.0 && value.abs() < 9e15 => texts.append_value((value as i64).to_string()),
            Some(value) => texts.append_value(value.to_string()),
            None => texts.append_null(),
        }
    }
    texts.finish()
}

/// Without whitespace and invisible characters at both ends.
#[inline]
pub(crate) fn trim(text: &str) -> &str {
    if is_trimmed(text) { text } else { text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c) || c == '\0') }
}

/// Whether a text is not empty and has nothing to trim; may answer no where there is nothing.
#[inline]
fn is_trimmed(text: &str) -> bool {
    // Lead bytes of the characters that are trimmed: C2, E1, E2, E3 and EF.
    let plain = |byte: u8| matches!(byte, 0x21..=0x7e | 0xc3..=0xe0 | 0xe4..=0xee | 0xf0..=0xf4);
    match text.as_bytes() {
        [] => false,
        [first, .., last] if *last < 0x80 => plain(*first) && plain(*last),
        [only] => plain(*only),
        [first, .., third, _, _] if *third >= 0xc0 => plain(*first) && plain(*third),
        _ => false,
    }
}

/// Trimmed texts, empty ones null. A column that is clean already is shared, not copied.
fn trimmed(cells: &StringArray) -> ArrayRef {
    if cells.iter().all(|cell| cell.is_none_or(is_trimmed)) {
        return Arc::new(cells.clone());
    }
    let mut texts = StringBuilder::with_capacity(cells.len(), cells.value_data().len().min(cells.len() * 32));
    for cell in cells {
        texts.append_option(cell.map(trim).filter(|text| !text.is_empty()));
    }
    Arc::new(texts.finish())
}

fn consents(cells: &StringArray) -> (ArrayRef, Nulled) {
    let mut words = StringBuilder::with_capacity(cells.len(), cells.len() * 9);
    let nulled = each(cells, |cell| consent(cell).into(), |word| words.append_option(word.map(Consent::name)));
    (Arc::new(words.finish()), nulled)
}

fn consent(cell: &str) -> Option<Consent> {
    match cell {
        "true" | "1" => Some(Consent::Granted),
        "false" | "0" => Some(Consent::Withdrawn),
        word => Consent::from_word(word),
    }
}

/// Calls `push` with each cell's value, and counts what did not become one.
#[inline]
fn each<T>(cells: &StringArray, read: impl Fn(&str) -> Cell<T>, mut push: impl FnMut(Option<T>)) -> Nulled {
    let mut nulled = Nulled::default();
    for cell in cells {
        let text = cell.map_or("", trim);
        let outcome = if text.is_empty() { Cell::Empty } else { read(text) };
        push(nulled.count(outcome));
    }
    nulled
}

impl Nulled {
    #[inline]
    fn count<T>(&mut self, cell: Cell<T>) -> Option<T> {
        let row = self.cells;
        self.cells += 1;
        match cell {
            Cell::Value(value) => return Some(value),
            Cell::Empty => {}
            Cell::NotCast => self.not_cast.push(row),
            Cell::Never => self.never += 1,
        }
        None
    }
}

#[inline]
fn parse<T: ArrowPrimitiveType>(cells: &StringArray, read: impl Fn(&str) -> Cell<T::Native>) -> (ArrayRef, Nulled) {
    let mut values = Vec::with_capacity(cells.len());
    let mut valid = Vec::with_capacity(cells.len());
    let nulled = each(cells, read, |value| {
        valid.push(value.is_some());
        values.push(value.unwrap_or_default());
    });
    (Arc::new(primitive::<T>(values, valid)), nulled)
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, valid: Vec<bool>) -> PrimitiveArray<T> {
    let nulls = NullBuffer::new(BooleanBuffer::from(valid));
    PrimitiveArray::new(ScalarBuffer::from(values), Some(nulls).filter(|nulls| nulls.null_count() > 0))
}

fn map<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    cells: &PrimitiveArray<F>,
    read: impl Fn(F::Native) -> Cell<T::Native>,
) -> (PrimitiveArray<T>, Nulled) {
    let mut nulled = Nulled::default();
    let cells = cells.iter().map(|cell| nulled.count(cell.map_or(Cell::Empty, &read)));
    let (valid, values) = cells.map(|value| (value.is_some(), value.unwrap_or_default())).unzip();
    (primitive(values, valid), nulled)
}

fn all_null(kind: ColumnType, input: &ArrayRef) -> (ArrayRef, Nulled) {
    let array = arrow::array::new_null_array(&kind.arrow(), input.len());
    let nulled = losses(input, &array);
    (array, nulled)
}

/// The cells that an Arrow cast has made null.
fn losses(input: &ArrayRef, cast: &ArrayRef) -> Nulled {
    let mut nulled = Nulled::default();
    if cast.null_count() > input.null_count() {
        nulled.not_cast.extend((0..input.len() as u32).filter(|row| input.is_valid(*row as usize) && cast.is_null(*row as usize)));
    }
    nulled
}

#[inline]
fn moment(value: Option<i64>) -> Cell<i64> {
    match value {
        Some(value) if value < NEVER_BEFORE_US => Cell::Never,
        value => value.into(),
    }
}

#[inline]
fn day(value: Option<i32>) -> Cell<i32> {
    match value {
        Some(0) => Cell::Never,
        Some(value) if value <= NEVER_DAY_MAX => Cell::Never,
        value => value.into(),
    }
}

fn utc(array: &ArrayRef) -> ArrayRef {
    Arc::new(array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone("UTC"))
}

fn amount_type(array: Decimal128Array) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(array.with_precision_and_scale(DECIMAL_PRECISION, DECIMAL_SCALE)?))
}

/// The moments in microseconds; one out of range is `i64::MIN`.
fn micros(input: &ArrayRef, unit: TimeUnit) -> PrimitiveArray<Int64Type> {
    fn of<T: ArrowPrimitiveType<Native = i64>>(input: &ArrayRef, convert: impl Fn(i64) -> Option<i64>) -> PrimitiveArray<Int64Type> {
        input.as_primitive::<T>().unary(|value| convert(value).unwrap_or(i64::MIN))
    }
    match unit {
        TimeUnit::Second => of::<TimestampSecondType>(input, |value| value.checked_mul(1_000_000)),
        TimeUnit::Millisecond => of::<TimestampMillisecondType>(input, |value| value.checked_mul(1_000)),
        TimeUnit::Microsecond => of::<TimestampMicrosecondType>(input, Some),
        TimeUnit::Nanosecond => of::<TimestampNanosecondType>(input, |value| Some(value.div_euclid(1_000))),
    }
}

fn integers(input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
    let (array, nulled) = match input.data_type() {
        DataType::Float32 | DataType::Float64 => map::<arrow::datatypes::Float64Type, Int64Type>(floats(input)?.as_primitive(), |value| {
            (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64).into()
        }),
        DataType::Decimal128(_, scale) => {
            let unit = 10_i128.pow(u32::from(scale.unsigned_abs()));
            let negative = *scale < 0;
            map::<Decimal128Type, Int64Type>(input.as_primitive(), |value| {
                let whole = if negative { value.checked_mul(unit) } else { (value % unit == 0).then(|| value / unit) };
                whole.and_then(|value| i64::try_from(value).ok()).into()
            })
        }
        DataType::Boolean => {
            let array = cast(input, &DataType::Int64)?;
            return Ok((array, Nulled::default()));
        }
        from if from.is_integer() => {
            let array = cast(input, &DataType::Int64)?;
            let nulled = losses(input, &array);
            return Ok((array, nulled));
        }
        _ => return Ok(all_null(ColumnType::Integer, input)),
    };
    Ok((Arc::new(array), nulled))
}

fn booleans(input: &ArrayRef) -> Result<(ArrayRef, Nulled), ArrowError> {
    match input.data_type() {
        DataType::Boolean => Ok((Arc::clone(input), Nulled::default())),
        from if from.is_integer() => {
            let cells = cast(input, &DataType::Int64)?;
            let mut nulled = Nulled::default();
            let cells = cells.as_primitive::<Int64Type>().iter().map(|cell| {
                nulled.count(match cell {
                    None => Cell::Empty,
                    Some(0) => Cell::Value(false),
                    Some(1) => Cell::Value(true),
                    Some(_) => Cell::NotCast,
                })
            });
            Ok((Arc::new(cells.collect::<BooleanArray>()), nulled))
        }
        _ => Ok(all_null(ColumnType::Boolean, input)),
    }
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number; a fraction of zeros, as spreadsheets write it, is allowed.
fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, whole, fraction) = parts(text)?;
    if fraction.iter().any(|digit| *digit != b'0') {
        return None;
    }
    let mut value = 0_i64;
    for digit in whole {
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// An amount with `places` digits kept, as a whole number of the smallest unit.
fn parse_amount(text: &[u8], places: i32) -> Option<i128> {
    let (negative, whole, fraction) = parts(text)?;
    let value = if whole.len() + fraction.len() <= 18 {
        // The sum of at most eighteen digits fits in 64 bits, which is several times as fast.
        let number = whole.iter().chain(fraction).fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        rescale(i128::from(number), fraction.len() as i32, places)?
    } else {
        let fraction = &fraction[..fraction.len().min(18)];
        let mut number = 0_i128;
        for digit in whole.iter().chain(fraction) {
            number = number.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        rescale(number, fraction.len() as i32, places)?
    };
    (value <= AMOUNT_MAX).then_some(if negative { -value } else { value })
}

/// Sign, digits before and digits after the point of a plain decimal.
fn parts(text: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = point.map_or((text, [].as_slice()), |at| (&text[..at], &text[at + 1..]));
    let good = !(whole.is_empty() && fraction.is_empty()) && whole.iter().chain(fraction).all(u8::is_ascii_digit);
    good.then_some((negative, whole, fraction))
}

/// `value` with `from` places as one with `to`, rounded half away from zero.
fn rescale(value: i128, from: i32, to: i32) -> Option<i128> {
    let shift = 10_i128.checked_pow(from.abs_diff(to))?;
    if to >= from {
        return value.checked_mul(shift);
    }
    let half = if value < 0 { -(shift / 2) } else { shift / 2 };
    Some(value.checked_add(half)? / shift)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int32Array, Int64Array, StringViewArray, TimestampMillisecondArray, TimestampSecondArray};
    use proptest::prelude::*;

    use super::*;

    fn cast_as(kind: ColumnType) -> Cast {
        Cast { kind, fen: false, format: None, timezone: TimeZone::get("Asia/Shanghai").unwrap(), values: BTreeMap::new(), consent: false }
    }

    /// The cast column as text, and what became null.
    fn run(cast: &Cast, input: impl Array + 'static) -> (Vec<String>, u64, u64) {
        let (array, nulled) = cast.apply(&(Arc::new(input) as ArrayRef)).unwrap();
        assert_eq!(array.data_type(), &cast.kind.arrow());
        let shown = text(&array).unwrap().iter().map(|cell| cell.unwrap_or("null").to_owned()).collect();
        (shown, nulled.not_cast.len() as u64, nulled.never)
    }

    #[test]
    fn text_is_trimmed_of_every_kind_of_space() {
        let cells = StringArray::from(vec![
            Some(" a "),
            Some("\u{3000}张三\u{a0}"),
            Some("\u{feff}"),
            Some(""),
            None,
            Some("李\u{200b}"),
            Some("四"),
        ]);
        assert_eq!(
            run(&cast_as(ColumnType::Text), cells),
            (["a", "张三", "null", "null", "null", "李", "四"].map(String::from).into(), 0, 0)
        );
    }

    #[test]
    fn clean_text_is_shared() {
        let cells: ArrayRef = Arc::new(StringArray::from(vec![Some("S0001"), None, Some("张三"), Some("é x")]));
        let (array, _) = cast_as(ColumnType::Text).apply(&cells).unwrap();
        assert_eq!(array.as_string::<i32>().value_data().as_ptr(), cells.as_string::<i32>().value_data().as_ptr());
    }

    #[test]
    fn amounts_are_exact() {
        let cells = StringArray::from(vec![
            "1",
            "1.5",
            "-0.005",
            "0.004",
            "1234567.89",
            "1e3",
            "1,000",
            "",
            "9999999999999999.99",
            "10000000000000000",
            "+.5",
            ".",
        ]);
        let (shown, not_cast, _) = run(&cast_as(ColumnType::Decimal), cells);
        assert_eq!(
            shown,
            ["1.00", "1.50", "-0.01", "0.00", "1234567.89", "null", "null", "null", "9999999999999999.99", "null", "0.50", "null"]
        );
        assert_eq!(not_cast, 4);
        let fen = Cast { fen: true, ..cast_as(ColumnType::Decimal) };
        assert_eq!(run(&fen, StringArray::from(vec!["15413", "15413.5", "1"])).0, ["154.13", "154.14", "0.01"]);
        assert_eq!(run(&fen, Int64Array::from(vec![Some(15413), None])).0, ["154.13", "null"]);
        assert_eq!(
            run(&cast_as(ColumnType::Decimal), Float64Array::from(vec![0.1 + 0.2, f64::NAN, 1e300])),
            (["0.30", "null", "null"].map(String::from).into(), 2, 0)
        );
        let wide = Decimal128Array::from(vec![123_456_789]).with_precision_and_scale(38, 5).unwrap();
        assert_eq!(run(&cast_as(ColumnType::Decimal), wide).0, ["1234.57"]);
    }

    #[test]
    fn integers_come_from_text_floats_and_decimals() {
        let integer = cast_as(ColumnType::Integer);
        assert_eq!(
            run(&integer, StringArray::from(vec!["12", "-3", "4.0", "4.5", "x", "9223372036854775808", "-9223372036854775808"])),
            (["12", "-3", "4", "null", "null", "null", "-9223372036854775808"].map(String::from).into(), 3, 0)
        );
        assert_eq!(run(&integer, Float64Array::from(vec![2.0, 2.5])), (["2", "null"].map(String::from).into(), 1, 0));
        let decimal = Decimal128Array::from(vec![200, 250]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(run(&integer, decimal), (["2", "null"].map(String::from).into(), 1, 0));
        assert_eq!(run(&integer, StringViewArray::from(vec!["7"])).0, ["7"]);
    }

    #[test]
    fn moments_of_every_unit_and_zone_agree() {
        let cast = cast_as(ColumnType::Timestamp);
        let expected = vec!["2026-09-21T14:13:20Z".to_owned()];
        assert_eq!(run(&cast, StringArray::from(vec!["2026-09-21 22:13:20"])).0, expected);
        assert_eq!(run(&cast, TimestampSecondArray::from(vec![1_790_000_000]).with_timezone("+08:00")).0, expected);
        assert_eq!(run(&cast, TimestampMillisecondArray::from(vec![1_790_000_000_000 + 8 * 3_600_000])).0, expected);
        assert_eq!(run(&cast, TimestampSecondArray::from(vec![i64::MAX])).1, 1);
        assert_eq!(run(&cast, Int64Array::from(vec![1_790_000_000])).1, 1);
        let format = Cast { format: Some("%s".into()), ..cast_as(ColumnType::Timestamp) };
        assert_eq!(run(&format, Int64Array::from(vec![1_790_000_000])).0, expected);
        assert_eq!(run(&cast, Date32Array::from(vec![20_000])).0, ["2024-10-03T16:00:00Z"]);
    }

    #[test]
    fn dates_that_mean_never_are_null_and_counted() {
        let cells =
            || StringArray::from(vec!["1970-01-01 08:00:00", "1900-01-01", "1970-01-01T00:00:00Z", "1971-01-03 00:00:00", "0001-01-01"]);
        assert_eq!(run(&cast_as(ColumnType::Timestamp), cells()).2, 4);
        let (shown, not_cast, never) = run(&cast_as(ColumnType::Date), cells());
        assert_eq!((shown[3].as_str(), not_cast, never), ("1971-01-03", 0, 4));
        let birthdays = StringArray::from(vec!["1955-04-01", "1990-01-01", "1969-12-31"]);
        assert_eq!(run(&cast_as(ColumnType::Date), birthdays).2, 0);
    }

    #[test]
    fn booleans_and_consents_have_their_words() {
        let boolean = cast_as(ColumnType::Boolean);
        assert_eq!(
            run(&boolean, StringArray::from(vec!["true", "FALSE", "1", "0", "yes"])),
            (["true", "false", "true", "false", "null"].map(String::from).into(), 1, 0)
        );
        assert_eq!(run(&boolean, Int32Array::from(vec![1, 0, 2])).1, 1);
        let consent = Cast { consent: true, ..cast_as(ColumnType::Text) };
        assert_eq!(
            run(&consent, StringArray::from(vec!["true", "拒绝", "unknown", "perhaps"])),
            (["granted", "withdrawn", "unknown", "null"].map(String::from).into(), 1, 0)
        );
        assert_eq!(run(&consent, BooleanArray::from(vec![Some(true), Some(false), None])).0, ["granted", "withdrawn", "null"]);
        let own = Cast { values: [("Y".into(), "granted".into())].into(), consent: true, ..cast_as(ColumnType::Text) };
        assert_eq!(run(&own, StringArray::from(vec![" Y "])).0, ["granted"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn amounts_survive_text(value in -999_999_999_999_i64..999_999_999_999) {
            let text = format!("{}{}.{:02}", if value < 0 { "-" } else { "" }, value.unsigned_abs() / 100, value.unsigned_abs() % 100);
            prop_assert_eq!(parse_amount(text.as_bytes(), 2), Some(i128::from(value)));
            prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn no_cell_panics(cell in "\\PC{0,40}", kind in 0_usize..6) {
            let _ = run(&cast_as(ColumnType::ALL[kind]), StringArray::from(vec![cell]));
        }

        #[test]
        fn quick_trim_agrees_with_the_slow_one(cell in "[ a\u{a0}\u{3000}\u{200b}\u{feff}张é1😀]{0,5}") {
            let slow = cell.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
            prop_assert_eq!(trim(&cell), slow);
            prop_assert!(!is_trimmed(&cell) || (slow == cell && !cell.is_empty()));
        }
    }
}
