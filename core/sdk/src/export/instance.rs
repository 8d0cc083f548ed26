//! One component behind its C handle: panics, poison, cancel.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reunion_abi::{self as abi, Host, Instance};
use reunion_model::plugin::{ErrorClass, Finding, Manifest, PluginError, PluginKind};

use crate::{Call, Channel, Source, config, log};

/// What a source and a channel have in common.
pub trait PluginType: 'static {
    /// The author's type.
    type Component: Send + Sync + 'static;
    /// Source or channel.
    const KIND: PluginKind;
    /// See the traits.
    fn manifest() -> Manifest;
    /// See the traits.
    fn create(component: &str, config_json: &str) -> Result<Self::Component, PluginError>;
    /// See the traits.
    fn check(component: &Self::Component, call: &Call) -> Result<Vec<Finding>, PluginError>;
}

/// A [`Source`] as a [`PluginType`].
pub struct OfSource<S>(PhantomData<S>);
/// A [`Channel`] as a [`PluginType`].
pub struct OfChannel<C>(PhantomData<C>);

macro_rules! plugin_type {
    ($of:ident, $bound:ident, $kind:expr) => {
        impl<T: $bound> PluginType for $of<T> {
            type Component = T;
            const KIND: PluginKind = $kind;

            fn manifest() -> Manifest {
                T::manifest()
            }

            fn create(component: &str, config_json: &str) -> Result<T, PluginError> {
                T::create(component, config::read(config_json)?)
            }

            fn check(component: &T, call: &Call) -> Result<Vec<Finding>, PluginError> {
                component.check(call)
            }
        }
    };
}
plugin_type!(OfSource, Source, PluginKind::Source);
plugin_type!(OfChannel, Channel, PluginKind::Channel);

/// What outlives a single call on a component; its streams hold it too.
pub(super) struct Shared {
    host: &'static Host,
    pub(super) stopped: Arc<AtomicBool>,
    poisoned: AtomicBool,
}

/// What the C handle points to.
pub(super) struct Loaded<T> {
    pub(super) component: T,
    pub(super) shared: Arc<Shared>,
}

impl Shared {
    pub(super) fn new(host: &'static Host) -> Self {
        Self { host, stopped: Arc::default(), poisoned: AtomicBool::new(false) }
    }

    /// Runs the author's code: events go to the host, a panic becomes an error and the end of the
    /// component.
    pub(super) fn run<R>(&self, body: impl FnOnce() -> Result<R, PluginError>) -> Result<R, PluginError> {
        if self.poisoned.load(Ordering::Acquire) {
            let message = "the component panicked in an earlier call and is not used any more";
            return Err(PluginError::new(ErrorClass::Internal, message).hint("report the panic to the plugin's author"));
        }
        log::with_host(self.host, || catch_unwind(AssertUnwindSafe(body))).unwrap_or_else(|panic| {
            self.poisoned.store(true, Ordering::Release);
            Err(panicked(panic))
        })
    }

    /// Runs code of the author's that nobody asks for an answer, such as a destructor.
    pub(super) fn run_quietly(&self, body: impl FnOnce()) {
        let ran = log::with_host(self.host, || catch_unwind(AssertUnwindSafe(body)));
        if let Err(panic) = ran {
            self.poisoned.store(true, Ordering::Release);
            drop(panicked(panic));
        }
    }
}

/// The error that a panic becomes.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> PluginError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = PluginError::new(ErrorClass::Internal, format!("panicked: {}", text.unwrap_or("no message")));
    // Its destructor could panic in turn, with nobody left to catch that.
    std::mem::forget(panic);
    error.hint("report this to the plugin's author")
}

/// Runs one call on the component behind a handle and turns its outcome into a status.
///
/// # Safety
/// `instance` must come from the `create` of `T` and not be destroyed; `error` must be valid.
pub(super) unsafe fn call<T>(
    instance: *mut Instance,
    error: *mut abi::Error,
    body: impl FnOnce(&Loaded<T>) -> Result<(), PluginError>,
) -> i32 {
    // SAFETY: the caller's promise.
    let loaded = unsafe { &*instance.cast::<Loaded<T>>() };
    // SAFETY: the caller's promise.
    unsafe { finish(error, loaded.shared.run(|| body(loaded))) }
}

/// The status of an outcome, its error written out.
///
/// # Safety
/// `error` must be valid.
pub(super) unsafe fn finish(error: *mut abi::Error, outcome: Result<(), PluginError>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        // SAFETY: the caller's promise.
        Err(failure) => unsafe { write_error(error, failure) },
    }
}

/// Writes an error out where there is room for it, and answers its status.
///
/// # Safety
/// `error` must be null, or valid with `size` set to the bytes that it has.
pub(super) unsafe fn write_error(error: *mut abi::Error, failure: PluginError) -> i32 {
    let PluginError { class, message, hint, key, vendor_code, retry_after_ms } = failure;
    // SAFETY: the caller's promise; the members are touched only where the struct is large enough.
    unsafe {
        if !error.is_null() && (*error).size >= abi::Error::SIZE_1_0 {
            let texts = [message, hint.unwrap_or_default(), key.unwrap_or_default()];
            (*error).fill(vendor_code.unwrap_or(0), retry_after_ms.unwrap_or(0), texts);
        }
    }
    class.code()
}
