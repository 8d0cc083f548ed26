//! The call that a plugin is working on: whether to stop, until when, and for what.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reunion_abi as abi;
use reunion_model::limits::ERROR_TEXT_BYTES_MAX;
use reunion_model::plugin::{ErrorClass, PluginError};

/// A handle on one call. Cheap to clone; streams and threads of the plugin keep one and look at it.
#[derive(Clone)]
pub struct Call(Arc<Inner>);

struct Inner {
    /// Of the component: set when the host stops it.
    stopped: Arc<AtomicBool>,
    /// The host's own view of the call, as long as it may be asked.
    host: Mutex<Option<HostCall>>,
    /// The call is over: its stream was released, or it never had one.
    over: AtomicBool,
    dry_run: bool,
    deadline_unix_ms: Option<u64>,
    run_id: String,
}

/// The host's struct, which lives until the call is over.
struct HostCall(*const abi::Call);

// SAFETY: the contract allows `cancelled` to be called from any thread.
unsafe impl Send for HostCall {}

/// How long a wait may go without looking whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Call {
    pub(crate) fn new(stopped: Arc<AtomicBool>, dry_run: bool, deadline_unix_ms: Option<u64>, run_id: String) -> Self {
        Self(Arc::new(Inner { stopped, host: Mutex::new(None), over: AtomicBool::new(false), dry_run, deadline_unix_ms, run_id }))
    }

    /// The call that the host describes.
    ///
    /// # Safety
    /// `call` must be valid, and stay so until [`Call::end`] was called.
    pub(crate) unsafe fn from_abi(call: *const abi::Call, stopped: Arc<AtomicBool>) -> Self {
        // SAFETY: the caller's promise.
        let given = unsafe { &*call };
        // SAFETY: the host keeps the text valid with the struct.
        let run_id = unsafe { given.run_id.to_text(ERROR_TEXT_BYTES_MAX) };
        let deadline = (given.deadline_unix_ms != 0).then_some(given.deadline_unix_ms);
        let this = Self::new(stopped, given.flags & abi::CALL_DRY_RUN != 0, deadline, run_id);
        *this.host() = Some(HostCall(call));
        this
    }

    /// Nothing that this call began is wanted any more, and the host's struct is not to be touched.
    pub(crate) fn end(&self) {
        *self.host() = None;
        self.0.over.store(true, Ordering::Release);
    }

    fn host(&self) -> std::sync::MutexGuard<'_, Option<HostCall>> {
        self.0.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the host wants the call to stop, or has let go of its stream.
    pub fn cancelled(&self) -> bool {
        if self.0.stopped.load(Ordering::Acquire) || self.0.over.load(Ordering::Acquire) {
            return true;
        }
        self.host().as_ref().is_some_and(|call| {
            // SAFETY: the lock is held, so `end` has not returned, and until then the struct is valid.
            unsafe { (*call.0).cancelled.is_some_and(|cancelled| cancelled(call.0) != 0) }
        })
    }

    /// An error of the right class where the call is to stop: cancelled, or past its deadline.
    ///
    /// # Errors
    /// Cancelled or timeout.
    pub fn check(&self) -> Result<(), PluginError> {
        if self.cancelled() {
            return Err(PluginError::new(ErrorClass::Cancelled, "the host cancelled the call"));
        }
        match self.time_left() {
            Some(left) if left.is_zero() => Err(PluginError::new(ErrorClass::Timeout, "the call's deadline has passed")),
            _ => Ok(()),
        }
    }

    /// Waits this long, or until the call is to stop.
    ///
    /// # Errors
    /// As [`Call::check`].
    pub fn wait(&self, duration: Duration) -> Result<(), PluginError> {
        let end = std::time::Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// How long the answer is of use; zero once the deadline has passed, `None` where there is none.
    pub fn time_left(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.deadline_unix_ms.map(|deadline| Duration::from_millis(deadline).saturating_sub(now))
    }

    /// When that is, in milliseconds since the Unix epoch.
    pub fn deadline_unix_ms(&self) -> Option<u64> {
        self.0.deadline_unix_ms
    }

    /// Validate and answer as if; contact nobody and leave nothing behind.
    pub fn dry_run(&self) -> bool {
        self.0.dry_run
    }

    /// The run that the call is for, to be put into the ids of outgoing requests. May be empty.
    pub fn run_id(&self) -> &str {
        &self.0.run_id
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("run_id", &self.0.run_id).field("dry_run", &self.0.dry_run).finish_non_exhaustive()
    }
}
