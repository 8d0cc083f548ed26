//! For the tests of plugins: calls that no host made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Call;

/// A call to be made up.
#[derive(Debug, Clone, Default)]
pub struct TestCall {
    /// See [`Call::dry_run`].
    pub dry_run: bool,
    /// See [`Call::deadline_unix_ms`].
    pub deadline_unix_ms: Option<u64>,
    /// See [`Call::run_id`].
    pub run_id: String,
}

impl TestCall {
    /// The call, and what cancels it.
    pub fn start(self) -> (Call, Canceller) {
        let stopped = Arc::new(AtomicBool::new(false));
        (Call::new(Arc::clone(&stopped), self.dry_run, self.deadline_unix_ms, self.run_id), Canceller(stopped))
    }
}

/// Cancels a test's call, from any thread.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// From now on the call is cancelled.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Call {
    /// A call that nobody cancels, without a deadline, not a dry run.
    pub fn for_tests() -> Self {
        TestCall::default().start().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorClass;
    use std::time::Duration;

    #[test]
    fn a_call_stops_when_it_is_cancelled_or_late() {
        let (call, canceller) = TestCall::default().start();
        assert_eq!(call.wait(Duration::ZERO), Ok(()));
        canceller.cancel();
        assert_eq!(call.wait(Duration::from_secs(3600)).map_err(|error| error.class), Err(ErrorClass::Cancelled));
        let late = TestCall { deadline_unix_ms: Some(1), ..TestCall::default() }.start().0;
        assert_eq!(late.check().map_err(|error| error.class), Err(ErrorClass::Timeout));
        assert_eq!(late.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn a_call_that_is_over_is_cancelled() {
        let call = Call::for_tests();
        assert!(!call.cancelled());
        call.end();
        assert!(call.clone().cancelled());
    }
}
