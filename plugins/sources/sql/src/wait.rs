//! Waiting for a database: not for ever, and not for nobody.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reunion_sdk::{Call, ErrorClass, PluginError};

use crate::config::Config;
use crate::failure::too_long;

/// How often whoever waits looks whether to stop.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether nobody wants more.
#[derive(Debug, Clone)]
pub struct Stop {
    call: Call,
    gone: Arc<AtomicBool>,
}

impl Stop {
    /// Of a call.
    pub fn of(call: &Call) -> Self {
        Self { call: call.clone(), gone: Arc::default() }
    }

    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// From now on nobody wants more.
    pub fn give_up(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// An error where the work is to stop.
    ///
    /// # Errors
    /// Cancelled, or timeout.
    pub fn check(&self) -> Result<(), PluginError> {
        if self.gone.load(Ordering::Acquire) {
            return Err(PluginError::new(ErrorClass::Cancelled, "nobody takes what is read"));
        }
        self.call.check()
    }
}

/// What is waited for, and how long it may take.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// Whether nobody wants more.
    pub stop: &'a Stop,
    /// So many seconds at most.
    pub secs: u64,
    /// The key of the config that says so.
    pub key: &'static str,
    /// What is done.
    pub doing: &'a str,
}

/// How long what a pull asks before it reads may take.
pub fn looking<'a>(config: &Config, stop: &'a Stop) -> Wait<'a> {
    Wait { stop, secs: config.statement_timeout_secs, key: "statement_timeout_secs", doing: "looking at the query" }
}

/// Runs what waits for a database.
///
/// # Errors
/// Those of the work.
pub fn run<T>(work: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| PluginError::new(ErrorClass::Internal, format!("no runtime: {error}")))?;
    let result = runtime.block_on(work);
    // A name that is being looked up cannot be called off; nobody waits for it.
    runtime.shutdown_background();
    result
}

impl Wait<'_> {
    /// Waits for an answer.
    ///
    /// # Errors
    /// Where the call is to stop, or it takes too long.
    pub async fn on<T>(&self, answer: impl Future<Output = T>) -> Result<T, PluginError> {
        let mut answer = std::pin::pin!(answer);
        let give_up = tokio::time::Instant::now() + Duration::from_secs(self.secs);
        loop {
            if let Ok(answer) = tokio::time::timeout(LOOK_EVERY, &mut answer).await {
                return Ok(answer);
            }
            self.stop.check()?;
            if tokio::time::Instant::now() >= give_up {
                self.stop.give_up();
                return Err(too_long(self.doing, self.secs, self.key));
            }
        }
    }
}
