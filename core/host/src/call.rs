//! A call as the plugin sees it.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reunion_abi::{self as abi, Str};

use crate::CallOptions;

/// The struct that is passed to the plugin, with what it points to. Lives until the call has returned
/// and its stream is released.
pub(crate) struct CallFrame {
    passed: abi::Call,
    // What `passed` points to.
    _run_id: String,
    stops: Box<Stops>,
}

/// What stops a call.
struct Stops {
    /// The component's.
    cancelled: Arc<AtomicBool>,
    /// Nobody wants this call's answer any more.
    released: Arc<AtomicBool>,
}

// SAFETY: the pointers lead to what the frame owns; the flags may be read from any thread.
unsafe impl Send for CallFrame {}

impl CallFrame {
    /// Boxed, so that the struct stays where it is.
    pub(crate) fn new(options: &CallOptions, cancelled: Arc<AtomicBool>) -> Box<Self> {
        let run_id = options.run_id.clone();
        let stops = Box::new(Stops { cancelled, released: Arc::default() });
        let passed = abi::Call {
            size: abi::Call::SIZE_1_0,
            flags: if options.dry_run { abi::CALL_DRY_RUN } else { 0 },
            deadline_unix_ms: options.deadline_unix_ms.unwrap_or(0),
            // The bytes of a string stay where they are when it is moved.
            run_id: Str::borrow(&run_id),
            cancelled: Some(is_cancelled),
            private_data: ptr::from_ref(&*stops).cast_mut().cast(),
        };
        Box::new(Self { passed, _run_id: run_id, stops })
    }

    /// Set by whoever wants the answer no more.
    pub(crate) fn released(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stops.released)
    }

    pub(crate) fn passed(&self) -> *const abi::Call {
        &raw const self.passed
    }
}

unsafe extern "C" fn is_cancelled(call: *const abi::Call) -> i32 {
    // SAFETY: by contract a plugin asks only while the call is valid, and then so are the flags.
    let stops = unsafe { &*(*call).private_data.cast::<Stops>() };
    i32::from(stops.cancelled.load(Ordering::Acquire) || stops.released.load(Ordering::Acquire))
}
