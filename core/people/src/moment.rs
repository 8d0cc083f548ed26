//! Text to moments and days: RFC 3339 with `T` or a space, nought to nine digits of a second's
//! fraction, and an optional offset; a day alone is its midnight. No allocation.

use std::cell::Cell;

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, civil, fmt::strtime};

pub(crate) const DAY_SECS: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// A timezone that remembers the offset that it gave last, with the span in which that offset holds.
/// Columns of local times are read at the cost of two comparisons a cell.
pub(crate) struct Zone<'a> {
    tz: &'a TimeZone,
    /// From and to (local seconds) between which the offset (seconds) holds.
    held: Cell<(i64, i64, i64)>,
}

impl<'a> Zone<'a> {
    pub(crate) fn new(tz: &'a TimeZone) -> Self {
        Self { tz, held: Cell::new((0, 0, 0)) }
    }

    /// The moment of a local time, both in seconds since the epoch. A time that a clock change skips
    /// or repeats is read as RFC 5545 does. `None` outside the years that a timestamp can hold.
    pub(crate) fn to_utc(&self, local_secs: i64) -> Option<i64> {
        let (from, to, offset) = self.held.get();
        if (from..to).contains(&local_secs) {
            return Some(local_secs - offset);
        }
        let local = Offset::UTC.to_datetime(Timestamp::from_second(local_secs).ok()?);
        let moment = self.tz.to_ambiguous_timestamp(local).compatible().ok()?;
        let offset = local_secs - moment.as_second();
        // A day's margin keeps hours that are skipped or repeated out of the span.
        let before = self.tz.preceding(moment).next().map(|change| change.timestamp().as_second() + offset + DAY_SECS);
        let after = self.tz.following(moment).next().map(|change| change.timestamp().as_second() + offset - DAY_SECS);
        self.held.set((before.unwrap_or(i64::MIN), after.unwrap_or(i64::MAX), offset));
        Some(moment.as_second())
    }

    /// The local day, in days since the epoch, of a moment in microseconds.
    pub(crate) fn day_of(&self, moment_us: i64) -> Option<i32> {
        let moment = Timestamp::from_microsecond(moment_us).ok()?;
        let local_secs = moment_us.div_euclid(MICROS) + i64::from(self.tz.to_offset(moment).seconds());
        i32::try_from(local_secs.div_euclid(DAY_SECS)).ok()
    }
}

/// `N` ASCII digits at `at`; sets `bad` where one is none.
#[inline(always)]
fn digits<const N: usize>(text: &[u8], at: usize, bad: &mut bool) -> u32 {
    let mut value = 0;
    for byte in &text[at..at + N] {
        let digit = byte.wrapping_sub(b'0');
        *bad |= digit > 9;
        value = value * 10 + u32::from(digit);
    }
    value
}

/// Days since the epoch of `2026-03-25` at the start of the text.
#[inline]
fn leading_date(text: &[u8]) -> Option<i32> {
    let head: &[u8; 10] = text.first_chunk()?;
    let mut bad = head[4] != b'-' || head[7] != b'-';
    let year = digits::<4>(head, 0, &mut bad) as i32;
    let month = digits::<2>(head, 5, &mut bad);
    let day = digits::<2>(head, 8, &mut bad);
    if bad || year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_of_month(year, month) {
        return None;
    }
    // Years that begin in March put the leap day last; 719,468 days lie between year 0 and the epoch.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let century = year / 400;
    let of_century = year - century * 400;
    let of_year = (153 * month as i32 + 2) / 5 + day as i32 - 1;
    Some(century * 146_097 + of_century * 365 + of_century / 4 - of_century / 100 + of_year - 719_468)
}

fn days_of_month(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch of a day, or of the day that a moment's text names.
#[inline]
pub(crate) fn parse_date(text: &[u8]) -> Option<i32> {
    let days = leading_date(text)?;
    match text.len() {
        10 => Some(days),
        _ => clock_and_offset(&text[10..]).map(|_| days),
    }
}

/// Microseconds since the epoch. A text without an offset is local to the zone.
#[inline]
pub(crate) fn parse_timestamp(text: &[u8], zone: &Zone) -> Option<i64> {
    let midnight = i64::from(leading_date(text)?) * DAY_SECS;
    if text.len() == 10 {
        return zone.to_utc(midnight)?.checked_mul(MICROS);
    }
    let (secs, micros, offset) = clock_and_offset(&text[10..])?;
    let local = midnight + i64::from(secs);
    let utc = match offset {
        Some(offset) => local - i64::from(offset),
        None => zone.to_utc(local)?,
    };
    Some(utc * MICROS + i64::from(micros))
}

/// `T10:11:12.123456+08:00`: seconds of the day, microseconds, and the offset in seconds.
#[inline]
fn clock_and_offset(text: &[u8]) -> Option<(u32, u32, Option<i32>)> {
    let head: &[u8; 9] = text.first_chunk()?;
    let mut bad = !matches!(head[0], b'T' | b't' | b' ') || head[3] != b':' || head[6] != b':';
    let hour = digits::<2>(head, 1, &mut bad);
    let minute = digits::<2>(head, 4, &mut bad);
    let second = digits::<2>(head, 7, &mut bad);
    if bad || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[9..];
    let mut micros = 0;
    if let [b'.', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&length) {
            return None;
        }
        // Beyond microseconds nothing is kept.
        micros = fraction[..length].iter().chain([b'0'; 6].iter()).take(6).fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        rest = &fraction[length..];
    }
    Some((hour * 3600 + minute * 60 + second, micros, parse_offset(rest)?))
}

/// Nothing, `Z`, `+08:00`, `+0800` or `+08`, a space before it allowed. The outer `None` is no offset.
#[inline]
fn parse_offset(text: &[u8]) -> Option<Option<i32>> {
    let text = match text {
        [] => return Some(None),
        [b' ', rest @ ..] => rest,
        _ => text,
    };
    if let [b'Z' | b'z'] = text {
        return Some(Some(0));
    }
    let (sign, rest) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let mut bad = false;
    let (hours, minutes) = match rest.len() {
        2 => (digits::<2>(rest, 0, &mut bad), 0),
        4 => (digits::<2>(rest, 0, &mut bad), digits::<2>(rest, 2, &mut bad)),
        5 if rest[2] == b':' => (digits::<2>(rest, 0, &mut bad), digits::<2>(rest, 3, &mut bad)),
        _ => return None,
    };
    (!bad && hours <= 23 && minutes <= 59).then_some(Some(sign * (hours * 3600 + minutes * 60) as i32))
}

/// A moment by a declared format, in microseconds.
pub(crate) fn format_timestamp(format: &str, text: &str, zone: &Zone) -> Option<i64> {
    let parts = strtime::parse(format, text).ok()?;
    if let Ok(moment) = parts.to_timestamp() {
        return Some(moment.as_microsecond());
    }
    let local = parts.to_datetime().or_else(|_| parts.to_date().map(|day| day.at(0, 0, 0, 0))).ok()?;
    let moment = Offset::UTC.to_timestamp(local).ok()?.as_microsecond();
    zone.to_utc(moment.div_euclid(MICROS))?.checked_mul(MICROS)?.checked_add(moment.rem_euclid(MICROS))
}

/// A day by a declared format, in days since the epoch.
pub(crate) fn format_date(format: &str, text: &str) -> Option<i32> {
    let day = strtime::parse(format, text).ok()?.to_date().ok()?;
    let epoch = civil::date(1970, 1, 1);
    Some(day.since(epoch).ok()?.get_days())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shanghai() -> TimeZone {
        TimeZone::get("Asia/Shanghai").unwrap()
    }

    fn read(text: &str) -> Option<i64> {
        parse_timestamp(text.as_bytes(), &Zone::new(&shanghai()))
    }

    #[test]
    fn every_default_form_is_read() {
        let expected = Some("2026-03-25T10:11:12.123456Z".parse::<Timestamp>().unwrap().as_microsecond());
        for text in [
            "2026-03-25T10:11:12.123456Z",
            "2026-03-25 10:11:12.123456Z",
            "2026-03-25 10:11:12.123456 Z",
            "2026-03-25 10:11:12.123456789+00:00",
            "2026-03-25T18:11:12.123456+08:00",
            "2026-03-25 18:11:12.123456 +0800",
            "2026-03-25 18:11:12.123456+08",
            "2026-03-25 18:11:12.123456",
            "2026-03-25t05:11:12.123456-05:00",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read("2026-03-25"), Some("2026-03-24T16:00:00Z".parse::<Timestamp>().unwrap().as_microsecond()));
        assert_eq!(parse_date(b"2026-03-25 23:00:00"), parse_date(b"2026-03-25"));
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "2026",
            "2026-3-5",
            "2026-02-30",
            "2026-13-01",
            "2026-03-25x",
            "2026-03-25 25:00:00",
            "2026-03-25 10:11",
            "2026-03-25 10:11:12.",
            "2026-03-25 10:11:12.1234567890",
            "2026-03-25 10:11:12+8",
            "0000-01-01",
            "20260325",
            "2026-03-25T10:11:12Zx",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn declared_formats_are_read() {
        let zone = shanghai();
        let zone = Zone::new(&zone);
        assert_eq!(format_timestamp("%Y/%m/%d %H:%M", "2026/03/25 18:11", &zone), read("2026-03-25 18:11:00"));
        assert_eq!(format_timestamp("%Y%m%d", "20260325", &zone), read("2026-03-25"));
        assert_eq!(format_timestamp("%s", "1790000000", &zone), Some(1_790_000_000_000_000));
        assert_eq!(format_date("%Y%m%d", "19700102"), Some(1));
        assert_eq!(format_date("%d.%m.%Y", "31.12.1969"), Some(-1));
        assert_eq!(format_date("%Y%m%d", "nonsense"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn agrees_with_jiff(secs in -62_000_000_000_i64..200_000_000_000, zone in prop::sample::select(vec!["Asia/Shanghai", "America/New_York", "UTC"])) {
            let tz = TimeZone::get(zone).unwrap();
            let cached = Zone::new(&tz);
            let moment = Timestamp::from_second(secs).unwrap();
            prop_assert_eq!(parse_timestamp(moment.to_string().as_bytes(), &cached), Some(moment.as_microsecond()));
            for shift in [0, 1, 3600, 40 * DAY_SECS] {
                let local = Timestamp::from_second(secs + shift).unwrap();
                let local = Offset::UTC.to_datetime(local);
                let expected = tz.to_ambiguous_timestamp(local).compatible().unwrap().as_microsecond();
                let text = local.to_string().replace('T', " ");
                prop_assert_eq!(parse_timestamp(text.as_bytes(), &cached), Some(expected), "{}", text);
            }
            let day = tz.to_datetime(moment).date();
            prop_assert_eq!(cached.day_of(moment.as_microsecond()), parse_date(day.to_string().as_bytes()));
        }
    }
}
