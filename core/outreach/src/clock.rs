//! The run's clock in the config's timezone.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// The moment `at_us` (microseconds UTC) as it reads on a clock in `timezone`. A moment beyond what a
/// calendar can hold is its first or last one.
pub fn local(at_us: i64, timezone: &TimeZone) -> Zoned {
    let limit = if at_us < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(at_us).unwrap_or(limit).to_zoned(timezone.clone())
}

/// The day of that moment in `timezone`.
pub fn day(at_us: i64, timezone: &TimeZone) -> Date {
    local(at_us, timezone).date()
}

/// The first moment of a day, microseconds UTC.
pub fn start_of_day(day: Date, timezone: &TimeZone) -> i64 {
    let midnight = day.to_datetime(jiff::civil::Time::midnight());
    timezone
        .to_ambiguous_timestamp(midnight)
        .compatible()
        .map_or_else(|_| if day.year() < 1970 { i64::MIN } else { i64::MAX }, |moment| moment.as_microsecond())
}

/// The day so many days later, or earlier where `days` is negative.
pub fn add_days(day: Date, days: i64) -> Date {
    day.saturating_add(days.clamp(-3_000_000, 3_000_000).days())
}

/// The last second of the day that lies `days` after that of `at_us`: when a task is due.
pub fn end_of_day_after(at_us: i64, days: u32, timezone: &TimeZone) -> i64 {
    let next = add_days(day(at_us, timezone), i64::from(days) + 1);
    start_of_day(next, timezone).saturating_sub(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_cut_in_the_timezone() {
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        assert_eq!(day(at("2026-03-24T16:30:00Z"), &shanghai).to_string(), "2026-03-25");
        assert_eq!(start_of_day("2026-03-25".parse().unwrap(), &shanghai), at("2026-03-24T16:00:00Z"));
        assert_eq!(end_of_day_after(at("2026-03-24T16:30:00Z"), 3, &shanghai), at("2026-03-28T15:59:59Z"));
        assert_eq!(add_days("2026-03-01".parse().unwrap(), -1).to_string(), "2026-02-28");
    }

    #[test]
    fn impossible_clocks_do_not_panic() {
        for at_us in [i64::MIN, i64::MAX] {
            let _ = end_of_day_after(at_us, u32::MAX, &TimeZone::UTC);
            let _ = start_of_day(add_days(day(at_us, &TimeZone::UTC), i64::MIN), &TimeZone::UTC);
        }
    }
}
