//! Numbers that programs have shortened.

use std::borrow::Cow;
use std::fmt::Write;

/// From here on a spreadsheet, which keeps 15 digits, has put zeros for the others.
const ROUNDED_FROM: f64 = 1e15;

/// Digits of a number are lost. Why, to follow the column's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounded(pub &'static str);

/// Appends a number in full, without noise behind the fifteen digits that spreadsheets show. False where it is
/// none.
///
/// # Errors
/// Where it has more digits than were kept.
pub fn append_in_full(number: f64, out: &mut String) -> Result<bool, Rounded> {
    if !number.is_finite() {
        return Ok(false);
    }
    let number = without_noise(number);
    let written = if number.fract() != 0.0 {
        write!(out, "{number}")
    } else if number.abs() < ROUNDED_FROM {
        write!(out, "{}", number as i64)
    } else {
        return Err(Rounded("holds a number of more than 15 digits, of which a spreadsheet keeps 15"));
    };
    written.expect("a string takes all");
    Ok(true)
}

fn without_noise(number: f64) -> f64 {
    // Whole numbers and amounts, which are most, need no detour by their digits.
    let is_amount = (number * 100.0).round() / 100.0 == number;
    if is_amount { number } else { format!("{number:.14e}").parse().unwrap_or(number) }
}

/// A text as it stands, unless it is a number in scientific notation: then that in full.
///
/// # Errors
/// Where its other digits are lost.
pub fn unshortened(text: &str) -> Result<Cow<'_, str>, Rounded> {
    // Few texts have the sign.
    let number = memchr::memchr(b'+', text.as_bytes()).and_then(|_| Scientific::parse(text.trim()));
    let Some(number) = number else { return Ok(Cow::Borrowed(text)) };
    number.digits().map(Cow::Owned).ok_or(Rounded("holds a number in scientific notation, the other digits of which are lost"))
}

/// A number as spreadsheets shorten it, such as 1.39E+10.
struct Scientific<'t> {
    sign: &'t str,
    whole: &'t str,
    fraction: &'t str,
    exponent: usize,
}

impl<'t> Scientific<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (mantissa, exponent) = text.split_once(['E', 'e'])?;
        let exponent = exponent.strip_prefix('+').filter(|digits| matches!(digits.len(), 2 | 3) && all_digits(digits))?;
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let is_number = whole.len() == 1 && all_digits(whole) && all_digits(fraction);
        let sign = &mantissa[..mantissa.len() - unsigned.len()];
        is_number.then(|| Some(Self { sign, whole, fraction, exponent: exponent.parse().ok()? })).flatten()
    }

    /// The number in full; `None` where it had more digits than are left.
    fn digits(&self) -> Option<String> {
        let (moved, rest) = self.fraction.split_at_checked(self.exponent)?;
        let point = if rest.is_empty() { "" } else { "." };
        Some([self.sign, self.whole, moved, point, rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_full(number: f64) -> Result<Option<String>, Rounded> {
        let mut text = String::new();
        Ok(append_in_full(number, &mut text)?.then_some(text))
    }

    #[test]
    fn numbers_are_written_in_full() {
        for (value, expected) in [
            (13_900_001_201.0, "13900001201"),
            (0.0, "0"),
            (-0.0, "0"),
            (-3.0, "-3"),
            (19.9, "19.9"),
            (0.1 + 0.2, "0.3"),
            (13_900_001_201.000_002, "13900001201"),
            (1e-7, "0.0000001"),
            (123_456_789_012_345.0, "123456789012345"),
        ] {
            assert_eq!(in_full(value).unwrap().unwrap(), expected);
        }
        assert!(in_full(6_222_021_234_567_890_000.0).is_err());
        for none in [f64::NAN, f64::INFINITY] {
            assert_eq!(in_full(none), Ok(None));
        }
    }

    #[test]
    fn scientific_notation_is_refused_where_digits_are_lost() {
        for lost in ["1.39E+10", "1E+11", " -1.39e+10 ", "6.22202E+18"] {
            assert!(unshortened(lost).is_err(), "{lost}");
        }
        for (text, expected) in [("1.3900001201E+10", "13900001201"), ("1.395E+02", "139.5"), ("-1.25E+02", "-125")] {
            assert_eq!(unshortened(text).unwrap(), expected);
        }
        for code in ["S1E5", "1E5", "12E+10", "1.39E10", "E+10", "1.3.9E+10", "C1.39E+10", "1.39E+1", "张E+10", ""] {
            assert_eq!(unshortened(code).unwrap(), code, "a code, or no such number");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_up_to_fifteen_digits_are_exact(whole in -999_999_999_999_999i64..=999_999_999_999_999) {
            prop_assert_eq!(in_full(whole as f64).unwrap().unwrap(), whole.to_string());
        }

        #[test]
        fn amounts_are_exact(fen in -99_999_999_999i64..=99_999_999_999) {
            let text = in_full(fen as f64 / 100.0).unwrap().unwrap();
            let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert_eq!(format!("{whole}{places:0<2}").parse::<i64>().unwrap(), fen);
        }

        #[test]
        fn a_number_that_was_shortened_and_lost_nothing_is_itself(whole in 10_000_000_000i64..99_999_999_999) {
            let digits = whole.to_string();
            let shortened = format!("{}.{}E+10", &digits[..1], &digits[1..]);
            prop_assert_eq!(unshortened(&shortened).unwrap(), digits);
        }
    }
}
