//! `tracing` events of the plugin, forwarded to the host.
//!
//! A library has its own copy of `tracing`, which nobody listens to. The SDK listens, once, and hands
//! each event to the host of the component that is being called; an event of a thread that the plugin
//! started itself goes to the component that was made last.

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use reunion_abi::{Host, Str, log_level};

thread_local! {
    static CURRENT: Cell<*const Host> = const { Cell::new(ptr::null()) };
}

/// Hosts live as long as the process, so that this never dangles.
static LATEST: AtomicPtr<Host> = AtomicPtr::new(ptr::null_mut());
static LEVEL_MAX: AtomicI32 = AtomicI32::new(log_level::INFO);

/// Listens to `tracing` and to panics from now on. `host` is where events outside of calls go.
pub(crate) fn install(host: &'static Host) {
    static ONCE: Once = Once::new();
    LATEST.store(ptr::from_ref(host).cast_mut(), Ordering::Release);
    LEVEL_MAX.store(host.log_level_max, Ordering::Release);
    ONCE.call_once(|| {
        // Where the author has set a subscriber of their own, theirs stays.
        if tracing::subscriber::set_global_default(Forwarder).is_ok() {
            // The SDK's own tests still want to see why they fail.
            let before = cfg!(test).then(panic::take_hook);
            panic::set_hook(Box::new(move |panic| {
                let place = panic.location().map(ToString::to_string);
                tracing::error!(location = place.unwrap_or_default(), "the plugin panicked");
                if let Some(before) = &before {
                    before(panic);
                }
            }));
        }
    });
}

/// Runs `body`, with its events going to this host.
pub(crate) fn with_host<T>(host: &'static Host, body: impl FnOnce() -> T) -> T {
    struct Restore(*const Host);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(host));
    body()
}

struct Forwarder;

fn level_number(level: Level) -> i32 {
    match level {
        Level::ERROR => log_level::ERROR,
        Level::WARN => log_level::WARN,
        Level::INFO => log_level::INFO,
        Level::DEBUG => log_level::DEBUG,
        Level::TRACE => log_level::TRACE,
    }
}

impl Subscriber for Forwarder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // Asked each time: a host that is made later may want more.
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_number(*metadata.level()) <= LEVEL_MAX.load(Ordering::Acquire)
    }

    fn event(&self, event: &Event<'_>) {
        let current = CURRENT.try_with(Cell::get).unwrap_or(ptr::null());
        let host = if current.is_null() { LATEST.load(Ordering::Acquire).cast_const() } else { current };
        if host.is_null() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let json = Value::Object(fields.further).to_string();
        let metadata = event.metadata();
        // SAFETY: the host lives as long as the process and may be called from any thread; the texts
        // outlive the call.
        unsafe {
            if let Some(log) = (*host).log {
                log(
                    host,
                    level_number(*metadata.level()),
                    Str::borrow(metadata.target()),
                    Str::borrow(&fields.message),
                    Str::borrow(&json),
                );
            }
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Spans do not cross the boundary.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    further: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => drop(self.further.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}
