//! One component inside its plugin: made, called by one thread at a time, stopped, destroyed.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use reunion_abi::{self as abi, Buf, Error, Str};
use serde::de::DeserializeOwned;
use serde_json::Value;

use reunion_model::limits::CONTROL_BYTES_MAX;
use reunion_model::plugin::{ErrorClass, PluginError};

use crate::call::CallFrame;
use crate::library::Loaded;
use crate::{CallOptions, log, text};

/// A handle of the plugin's.
struct Handle(*mut abi::Instance);

// SAFETY: by contract an instance may be called from any thread, one at a time, which `Turn` sees to;
// cancel at any time.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

pub(crate) struct Instance {
    handle: Handle,
    pub(crate) plugin: Arc<Loaded>,
    component: String,
    cancelled: Arc<AtomicBool>,
    /// A call or its stream is running; polls apart, as they may run beside.
    busy: AtomicBool,
    polling: AtomicBool,
    /// What the plugin said when the component failed for good.
    failed: Arc<OnceLock<String>>,
}

impl Instance {
    /// Makes the component. `cancelled` and `failed` are shared by all instances of one component.
    pub(crate) fn create(
        plugin: &Arc<Loaded>,
        component: &str,
        config: &Value,
        cancelled: Arc<AtomicBool>,
        failed: Arc<OnceLock<String>>,
    ) -> Result<Arc<Self>, PluginError> {
        let (config, host) = (config.to_string(), log::host_of(component));
        let (mut handle, mut error) = (ptr::null_mut(), Error::empty());
        let create = plugin.functions.create;
        // SAFETY: all pointers are valid for the call; the host lives as long as the process.
        let status = unsafe { create(host, Str::borrow(component), Str::borrow(&config), &raw mut handle, &raw mut error) };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { outcome(status, &error) }?;
        if handle.is_null() {
            return Err(plugin.violation("create answered ok without an instance"));
        }
        Ok(Arc::new(Self {
            handle: Handle(handle),
            plugin: Arc::clone(plugin),
            component: component.to_owned(),
            cancelled,
            busy: AtomicBool::new(false),
            polling: AtomicBool::new(false),
            failed,
        }))
    }

    /// The turn to make one call.
    pub(crate) fn begin(self: &Arc<Self>, options: &CallOptions) -> Result<Active, PluginError> {
        self.begin_beside(options, false)?.ok_or_else(|| self.busy())
    }

    /// The same, or nothing where another call is running.
    pub(crate) fn begin_if_idle(self: &Arc<Self>, options: &CallOptions) -> Result<Option<Active>, PluginError> {
        self.begin_beside(options, false)
    }

    /// The turn to poll beside another call, for plugins that can.
    pub(crate) fn begin_poll(self: &Arc<Self>, options: &CallOptions) -> Result<Active, PluginError> {
        self.begin_beside(options, true)?.ok_or_else(|| self.busy())
    }

    fn busy(&self) -> PluginError {
        let message = format!("component {} is busy: another call on it, or its stream, has not ended", self.component);
        PluginError::new(ErrorClass::Unavailable, message)
    }

    fn begin_beside(self: &Arc<Self>, options: &CallOptions, poll: bool) -> Result<Option<Active>, PluginError> {
        if let Some(failure) = self.failed.get() {
            let message = format!("component {} has failed and is not used any more: {failure}", self.component);
            return Err(PluginError::new(ErrorClass::Internal, message));
        }
        if self.cancelled.load(Ordering::Acquire) {
            return Err(PluginError::new(ErrorClass::Cancelled, format!("component {} was stopped", self.component)));
        }
        let active = |turn| Active { frame: CallFrame::new(options, Arc::clone(&self.cancelled)), turn };
        Ok(Turn::take(self, poll).map(active))
    }

    /// Stops what runs. The flag that all instances of the component share is set already.
    pub(crate) fn cancel(&self) {
        // SAFETY: the handle is not destroyed, and cancel is allowed at any time.
        unsafe { (self.plugin.functions.cancel)(self.handle.0) }
    }

    pub(crate) fn handle(&self) -> *mut abi::Instance {
        self.handle.0
    }

    /// The outcome of a call. An internal error ends the component.
    ///
    /// # Safety
    /// Where the status is not 0, the error must be filled in by the contract.
    pub(crate) unsafe fn outcome(&self, status: i32, error: &Error) -> Result<(), PluginError> {
        // SAFETY: the caller's promise.
        unsafe { outcome(status, error) }.map_err(|error| self.remember(error))
    }

    /// The plugin broke this rule. That ends the component.
    pub(crate) fn violation(&self, rule: &str) -> PluginError {
        self.remember(self.plugin.violation(rule))
    }

    fn remember(&self, error: PluginError) -> PluginError {
        if error.class == ErrorClass::Internal {
            // The first failure is the one that explains the others.
            let _ = self.failed.set(error.message.clone());
        }
        error
    }

    /// The JSON document in a buffer that the plugin filled.
    pub(crate) fn document<D: DeserializeOwned>(&self, json: &Buf, what: &str) -> Result<D, PluginError> {
        // SAFETY: filled in by the contract, and given back when it is dropped.
        let bytes = unsafe { json.as_slice() };
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(self.violation(&format!("{what} has {} bytes, and {CONTROL_BYTES_MAX} are the limit", bytes.len())));
        }
        serde_json::from_slice(bytes)
            .map_err(|error| self.violation(&format!("{what} is not what it should be: {}", text::tidy(&error.to_string()))))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: every call and stream holds the instance, so they have all ended.
        unsafe { (self.plugin.functions.destroy)(self.handle.0) }
    }
}

/// A call that is being made: what is passed along, and the turn.
pub(crate) struct Active {
    // Dropped before the turn: the next call has a frame of its own.
    pub(crate) frame: Box<CallFrame>,
    turn: Turn,
}

impl Active {
    pub(crate) fn instance(&self) -> &Instance {
        &self.turn.instance
    }
}

/// The right to call an instance.
struct Turn {
    instance: Arc<Instance>,
    poll: bool,
}

impl Turn {
    fn take(instance: &Arc<Instance>, poll: bool) -> Option<Self> {
        let free = !Self::flag(instance, poll).swap(true, Ordering::AcqRel);
        free.then(|| Self { instance: Arc::clone(instance), poll })
    }

    fn flag(instance: &Instance, poll: bool) -> &AtomicBool {
        if poll { &instance.polling } else { &instance.busy }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        Self::flag(&self.instance, self.poll).store(false, Ordering::Release);
    }
}

/// # Safety
/// Where the status is not 0, the error must be filled in by the contract.
pub(crate) unsafe fn outcome(status: i32, error: &Error) -> Result<(), PluginError> {
    if status == abi::OK {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let [message, hint, key] = unsafe { [text::shown(error.message), text::shown(error.hint), text::shown(error.key)] };
    let there = |text: String| Some(text).filter(|text| !text.is_empty());
    Err(PluginError {
        class: ErrorClass::from_code(status),
        message: there(message).unwrap_or_else(|| format!("the plugin answered with status {status} and no message")),
        hint: there(hint),
        key: there(key),
        vendor_code: Some(error.vendor_code).filter(|code| *code != 0),
        retry_after_ms: Some(error.retry_after_ms).filter(|delay| *delay != 0),
    })
}
