//! Log events of plugins, passed on to `tracing` under the target `plugin::<component>`.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use reunion_abi::{self as abi, Host, Str, log_level};
use tracing::level_filters::LevelFilter;
use tracing_core::callsite::{self, Callsite};
use tracing_core::field::{FieldSet, Value};
use tracing_core::metadata::Kind;
use tracing_core::subscriber::Interest;
use tracing_core::{Event, Level, Metadata, dispatcher, identify_callsite};

use crate::text;
use crate::wire::LogMessage;

/// One place in the code from which events of one component and level come, as `tracing` sees it. The
/// macros of `tracing` want targets that are known when they are compiled; a component's is not.
struct Site(OnceLock<Metadata<'static>>);

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {
        // Whether an event is wanted is asked each time.
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("set before the site is registered")
    }
}

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// Where log events of plugins go in a worker: to the daemon.
struct Elsewhere {
    level_max: i32,
    send: Box<dyn Fn(LogMessage) + Send + Sync>,
}

static ELSEWHERE: OnceLock<Elsewhere> = OnceLock::new();

/// Sends the events of all plugins of this process, up to this level, elsewhere from now on.
pub(crate) fn send_to(level_max: i32, send: Box<dyn Fn(LogMessage) + Send + Sync>) {
    // There is one worker in a process.
    let _ = ELSEWHERE.set(Elsewhere { level_max, send });
}

/// What is said of events that were dropped, because there were too many.
pub(crate) fn dropped(events: u64) -> LogMessage {
    let message = format!("{events} log events of the plugin were dropped: it writes more than can be kept");
    LogMessage { level: log_level::WARN, target: String::new(), message, fields: String::new() }
}

/// What a component's `Host` points to.
struct Component {
    /// One for each of `LEVELS`.
    sites: [&'static Site; 5],
}

/// The host as this component sees it. Made once for each name and kept as long as the process, because
/// a plugin's threads may log until the very end.
pub(crate) fn host_of(component: &str) -> &'static Host {
    static HOSTS: LazyLock<Mutex<HashMap<String, &'static Host>>> = LazyLock::new(Mutex::default);
    let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(host) = hosts.get(component) {
        return host;
    }
    let target: &'static str = Box::leak(format!("plugin::{component}").into_boxed_str());
    let private: &'static Component = Box::leak(Box::new(Component { sites: LEVELS.map(|level| site(target, level)) }));
    let host: &'static Host = Box::leak(Box::new(Host {
        size: Host::SIZE_1_0,
        minor: abi::MINOR,
        private_data: ptr::from_ref(private).cast::<c_void>().cast_mut(),
        log: Some(log),
        log_level_max: level_max(),
        reserved: 0,
    }));
    hosts.insert(component.to_owned(), host);
    host
}

fn site(target: &'static str, level: Level) -> &'static Site {
    let site: &'static Site = Box::leak(Box::new(Site(OnceLock::new())));
    let fields = FieldSet::new(&["message", "module", "fields"], identify_callsite!(site));
    let metadata = Metadata::new("plugin", target, level, None, None, None, fields, Kind::EVENT);
    drop(site.0.set(metadata));
    callsite::register(site);
    site
}

/// The most talkative level that anybody listens to, now that the component is made.
pub(crate) fn level_max() -> i32 {
    if let Some(elsewhere) = ELSEWHERE.get() {
        return elsewhere.level_max;
    }
    LevelFilter::current().into_level().map_or(0, |level| LEVELS.iter().position(|known| *known == level).map_or(0, |at| at as i32 + 1))
}

unsafe extern "C" fn log(host: *const Host, level: i32, target: Str, message: Str, fields_json: Str) {
    // SAFETY: a plugin passes the host that it was given, which `host_of` made.
    let component = unsafe { &*(*host).private_data.cast::<Component>() };
    // SAFETY: by contract the texts are valid for this call.
    let texts = || unsafe { [text::shown(message), text::shown(target), text::shown(fields_json)] };
    let event = || {
        let [message, target, fields] = texts();
        LogMessage { level, target, message, fields }
    };
    match ELSEWHERE.get() {
        Some(elsewhere) if level <= elsewhere.level_max => (elsewhere.send)(event()),
        Some(_) => {}
        None => component.write(level, event),
    }
}

/// Writes an event of this component that a worker has sent.
pub(crate) fn write(component: &str, event: LogMessage) {
    let LogMessage { level, target, message, fields } = event;
    // The worker has tidied the texts; a plugin that writes to its socket has not.
    let tidied = || LogMessage { level, target: text::tidy(&target), message: text::tidy(&message), fields: text::tidy(&fields) };
    // SAFETY: `host_of` made it, with this private data, and it is never freed.
    unsafe { &*host_of(component).private_data.cast::<Component>() }.write(level, tidied);
}

impl Component {
    fn write(&self, level: i32, event: impl FnOnce() -> LogMessage) {
        let site = self.sites[(level.clamp(log_level::ERROR, log_level::TRACE) - 1) as usize];
        let Some(metadata) = site.0.get() else { return };
        let mut event = Some(event);
        dispatcher::get_default(|dispatch| {
            if !dispatch.enabled(metadata) {
                return;
            }
            let Some(LogMessage { target: module, message, fields, .. }) = event.take().map(|event| event()) else { return };
            let fields = if fields == "{}" { "" } else { &fields };
            let values: [Option<&dyn Value>; 3] = [
                Some(&message),
                (!module.is_empty()).then_some(&module as &dyn Value),
                (!fields.is_empty()).then_some(&fields as &dyn Value),
            ];
            dispatch.event(&Event::new(metadata, &metadata.fields().value_set_all(&values)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing::field::{Field, Visit};
    use tracing::span;

    /// Keeps what arrives: level, target, and the fields one after the other.
    struct Kept(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    impl tracing::Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::INFO
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
            event.record(&mut line);
            self.0.lock().expect("a test").push(line.0);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn events_carry_the_component_and_no_phone() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Kept(Arc::clone(&lines)), || {
            let host = host_of("pos");
            assert!(ptr::eq(host, host_of("pos")), "one for each name");
            let write = |level, message, fields| {
                // SAFETY: static texts.
                unsafe { (host.log.expect("there"))(host, level, Str::borrow("dummy"), Str::borrow(message), Str::borrow(fields)) }
            };
            write(log_level::WARN, "no answer for 13800138000", "{}");
            write(log_level::INFO, "read", r#"{"rows":5}"#);
            write(log_level::DEBUG, "not wanted", "");
            write(-7, "a level that is none", "");
        });
        assert_eq!(
            *lines.lock().expect("a test"),
            [
                r#"WARN plugin::pos message="no answer for 138****8000" module="dummy""#,
                r#"INFO plugin::pos message="read" module="dummy" fields="{\"rows\":5}""#,
                r#"ERROR plugin::pos message="a level that is none" module="dummy""#,
            ]
        );
    }
}
