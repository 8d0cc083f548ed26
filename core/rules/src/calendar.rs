//! Days of the calendar in a timezone, for millions of moments.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_US: i64 = 86_400_000_000;
/// 1900-01-01: earlier moments take the offset of that day, when most zones begin.
const FIRST_S: i64 = -2_208_988_800;

/// Finds the local day of a moment without asking the zone's rules each time.
pub(crate) struct Calendar {
    /// When each offset begins, ascending; and the offset, both in microseconds.
    offsets: Vec<(i64, i64)>,
}

impl Calendar {
    /// The calendar of a timezone for moments up to `last_us`; later ones take the last offset.
    /// `None` where `last_us` is outside of the calendar.
    pub(crate) fn new(timezone: &TimeZone, last_us: i64) -> Option<Self> {
        let last = Timestamp::from_microsecond(last_us).ok()?;
        let first = Timestamp::from_second(FIRST_S).ok()?;
        let mut offsets = vec![(i64::MIN, i64::from(timezone.to_offset(first.min(last)).seconds()) * 1_000_000)];
        for transition in timezone.following(first).take_while(|transition| transition.timestamp() <= last) {
            offsets.push((transition.timestamp().as_microsecond(), i64::from(transition.offset().seconds()) * 1_000_000));
        }
        Some(Self { offsets })
    }

    /// The local day of a moment, as days since 1970-01-01.
    pub(crate) fn day(&self, at_us: i64) -> i64 {
        let last = self.offsets.len() - 1;
        // Nearly every moment lies after the last change of offset.
        let at = if at_us >= self.offsets[last].0 { last } else { self.offsets.partition_point(|offset| offset.0 <= at_us) - 1 };
        at_us.saturating_add(self.offsets[at].1).div_euclid(DAY_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    #[test]
    fn days_agree_with_the_zone_through_every_change_of_offset() {
        for name in ["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Apia", "Asia/Kathmandu"] {
            let zone = TimeZone::get(name).expect("a zone");
            let calendar = Calendar::new(&zone, us("2027-01-01T00:00:00Z")).expect("a calendar");
            for hours in (0..1_000_000).step_by(101) {
                let at = Timestamp::from_second(FIRST_S + hours * 3600).expect("in range");
                let expected = at.to_zoned(zone.clone()).date();
                let day = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(calendar.day(at.as_microsecond())));
                assert_eq!(day.ok(), Some(expected), "{name} {at}");
            }
        }
    }

    #[test]
    fn no_moment_panics() {
        let calendar = Calendar::new(&TimeZone::get("Asia/Shanghai").expect("a zone"), 0).expect("a calendar");
        for at in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX] {
            calendar.day(at);
        }
        assert!(Calendar::new(&TimeZone::UTC, i64::MAX).is_none());
    }
}
