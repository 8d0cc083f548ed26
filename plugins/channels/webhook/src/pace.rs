//! How fast requests may follow each other: what the config allows, and what the receiver bears. One for all
//! requests of a component, whatever dispatch they belong to.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reunion_sdk::PluginError;
use tokio::time::Instant;

/// The first pause after a failure; each further failure in a row doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest one.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// Of longer waits no greater part is added at random.
const JITTER_OF_MAX: Duration = Duration::from_secs(10);

/// The pace of one receiver.
#[derive(Debug)]
pub struct Pace {
    limiter: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
    pause: Mutex<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// Pauses without a request that went well between them.
    in_a_row: u32,
    /// What the receiver did.
    why: Option<PluginError>,
}

/// The receiver is to be left alone.
#[derive(Debug)]
pub struct LeftAlone {
    /// For so long from now.
    pub delay: Duration,
    /// Because of this.
    pub why: Option<PluginError>,
}

impl Pace {
    /// With a limit on requests: those of a minute, and of a burst.
    pub fn new(requests_max: Option<(NonZeroU32, NonZeroU32)>) -> Self {
        let limiter = requests_max.map(|(minute, burst)| RateLimiter::direct(Quota::per_minute(minute).allow_burst(burst)));
        Self { limiter, clock: DefaultClock::default(), pause: Mutex::new(Pause::none(Instant::now())) }
    }

    /// Waits for the turn to make a request.
    ///
    /// # Errors
    /// Where the receiver is to be left alone for longer than `until`.
    pub async fn turn(&self, until: Instant) -> Result<(), LeftAlone> {
        loop {
            let pause = self.state().end(Instant::now(), until)?;
            if let Some(end) = pause {
                tokio::time::sleep_until(end).await;
                continue;
            }
            match self.limiter.as_ref().map(RateLimiter::check) {
                Some(Err(early)) => tokio::time::sleep(early.wait_time_from(self.clock.now())).await,
                _ => return Ok(()),
            }
        }
    }

    /// The receiver takes nothing now because of this, for `at_least` so long if that is known.
    pub fn pause(&self, at_least: Option<Duration>, why: PluginError) {
        self.state().extend(Instant::now(), at_least, why);
    }

    /// The receiver answered as it should.
    pub fn went_well(&self) {
        self.state().in_a_row = 0;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    fn none(now: Instant) -> Self {
        Self { until: now, in_a_row: 0, why: None }
    }

    /// When it ends, where it has not, unless that lies beyond `until`.
    fn end(&self, now: Instant, until: Instant) -> Result<Option<Instant>, LeftAlone> {
        if self.until <= now {
            return Ok(None);
        }
        if self.until > until {
            return Err(LeftAlone { delay: self.until - now, why: self.why.clone() });
        }
        Ok(Some(self.until))
    }

    fn extend(&mut self, now: Instant, at_least: Option<Duration>, why: PluginError) {
        // Requests that were under way together fail together, which is one failure.
        if self.until <= now {
            self.in_a_row += 1;
        }
        let delay = match at_least {
            // A receiver that says "now" is not asked again and again without a breath.
            Some(delay) => (delay + jitter(delay.min(JITTER_OF_MAX) / 10)).max(backoff(self.in_a_row) / 8),
            None => backoff(self.in_a_row),
        };
        self.until = self.until.max(now + delay);
        self.why = Some(why);
    }
}

/// The pause after so many failures in a row: it doubles, and no two senders keep the same one.
pub fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(BACKOFF_MAX);
    doubled / 2 + jitter(doubled / 2)
}

/// A random part of it.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use reunion_sdk::ErrorClass;

    const SECOND: Duration = Duration::from_secs(1);

    fn busy() -> PluginError {
        PluginError::new(ErrorClass::RateLimited, "busy")
    }

    proptest! {
        #[test]
        fn pauses_grow_and_stay_bounded(failures in 1_u32..100) {
            let most = BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(20)).min(BACKOFF_MAX);
            let pause = backoff(failures);
            prop_assert!(pause >= most / 2 && pause <= most, "{pause:?}");
        }
    }

    #[tokio::test]
    async fn a_burst_goes_at_once_and_what_follows_waits() {
        let pace = Pace::new(NonZeroU32::new(60).zip(NonZeroU32::new(3)));
        let turn = || pace.turn(Instant::now() + SECOND).now_or_never();
        assert!((0..3).all(|_| matches!(turn(), Some(Ok(())))));
        assert!(turn().is_none(), "the fourth waits");
    }

    #[test]
    fn a_receiver_that_is_busy_is_left_alone() {
        let now = Instant::now();
        let mut pause = Pause::none(now);
        assert!(matches!(pause.end(now, now), Ok(None)));
        pause.extend(now, Some(60 * SECOND), busy());
        let end = pause.end(now, now + 90 * SECOND).expect("within the window").expect("a pause");
        assert!(end >= now + 60 * SECOND && end <= now + 61 * SECOND, "its own delay, and a little more");
        let LeftAlone { delay, why } = pause.end(now, now + 30 * SECOND).expect_err("longer than the window");
        assert_eq!((now + delay, why), (end, Some(busy())));
        pause.extend(now, Some(SECOND), busy());
        assert_eq!(pause.until, end, "a shorter one does not end it");
        assert!(matches!(pause.end(end, end), Ok(None)));
    }

    #[test]
    fn failures_that_come_together_are_one() {
        let now = Instant::now();
        let mut pause = Pause::none(now);
        (0..8).for_each(|_| pause.extend(now, None, busy()));
        assert_eq!(pause.in_a_row, 1);
        pause.extend(pause.until, Some(Duration::ZERO), busy());
        assert_eq!(pause.in_a_row, 2);
        assert!(pause.until > now + BACKOFF_MIN / 2, "a little longer than nothing");
    }
}
