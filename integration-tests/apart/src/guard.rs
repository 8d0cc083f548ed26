//! One component, and what keeps its panics within this library.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{self, Call, Error, Host, Str};
use crate::config::Config;

/// An error on its way to the host.
#[derive(Debug)]
pub struct Failure {
    status: i32,
    message: String,
    key: &'static str,
}

impl Failure {
    pub fn new(status: i32, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), key: "" }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(abi::INTERNAL, message)
    }

    pub fn key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// # Safety
    /// By the header: valid, with its size set.
    pub unsafe fn write(self, error: *mut Error) -> i32 {
        // SAFETY: the caller's promise.
        let error = unsafe { &mut *error };
        if error.size as usize >= size_of::<Error>() {
            error.fill(self.message, self.key);
        }
        self.status
    }
}

pub struct Component {
    pub config: Arc<Config>,
    pub stopped: AtomicBool,
    host: &'static Host,
    panicked: AtomicBool,
}

impl Component {
    pub fn new(config: Config, host: &'static Host) -> Self {
        Self { config: Arc::new(config), stopped: AtomicBool::new(false), host, panicked: AtomicBool::new(false) }
    }

    /// An error where the call is to stop.
    pub fn go_on(&self, call: &Call) -> Result<(), Failure> {
        // SAFETY: the call is valid, and may be asked from any thread.
        if self.stopped.load(Ordering::Acquire) || unsafe { (call.cancelled)(call) } != 0 {
            return Err(Failure::new(abi::CANCELLED, "the host cancelled the call"));
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if call.deadline_unix_ms != 0 && u128::from(call.deadline_unix_ms) <= now_ms {
            return Err(Failure::new(abi::TIMEOUT, "the call's deadline has passed"));
        }
        Ok(())
    }

    /// Runs a call. A panic in it is an error, as is every call after one.
    ///
    /// # Safety
    /// `error` must be valid by the header.
    pub unsafe fn guarded(&self, error: *mut Error, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
        let outcome = if self.panicked.load(Ordering::Acquire) {
            Err(Failure::internal("panicked in an earlier call"))
        } else {
            catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
                self.panicked.store(true, Ordering::Release);
                Err(Failure::internal("panicked"))
            })
        };
        match outcome {
            Ok(()) => abi::OK,
            Err(failure) => {
                if failure.status == abi::INTERNAL {
                    self.panicked.store(true, Ordering::Release);
                }
                // SAFETY: the caller's promise.
                unsafe { failure.write(error) }
            }
        }
    }

    pub fn log(&self, message: &str) {
        if self.host.log_level_max >= abi::LOG_INFO {
            // SAFETY: the host may be used at any time, from any thread.
            unsafe { (self.host.log)(self.host, abi::LOG_INFO, Str::of("apart"), Str::of(message), Str::EMPTY) };
        }
    }
}
