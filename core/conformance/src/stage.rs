//! Where an act plays: the child's request, the way to the parent, what the plugin has said so far, and instances.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reunion_host::{CallOptions, ChannelConnector, Plugin, Plugins, SourceConnector};
use reunion_model::plugin::{ErrorClass, PluginError};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};

use crate::act::{Request, Word};
use crate::phones::{Heard, shown};
use crate::report::Outcome;
use crate::rules;

/// The name of the component that the suite makes.
pub const COMPONENT: &str = "verify";
/// How long a call may take that the suite gives a deadline to.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(40);
/// How long something may take that has nothing to wait for, before the process is killed.
pub const STEP_TIME_MAX: Duration = Duration::from_secs(10);
/// How long something may take that is to end within a second, before the process is killed: long enough to be told
/// from something that ends too late.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Where an act plays.
pub struct Stage {
    /// What to try, and on what.
    pub request: Request,
    /// What the plugin has said.
    pub heard: Arc<Heard>,
    lines: Mutex<File>,
    plugin: OnceCell<Plugin>,
}

/// What an act ends with before its end.
pub type Stop = Box<Outcome>;

impl Stage {
    pub(crate) fn new(request: Request, lines: File) -> Self {
        let heard = Arc::new(Heard::default());
        // Only fails where there is one already, and a child has none.
        let _ = tracing::subscriber::set_global_default(Listener(Arc::clone(&heard)));
        Self { request, heard, lines: Mutex::new(lines), plugin: OnceCell::new() }
    }

    fn say(&self, word: &Word) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nobody listens any more, nobody misses it.
        let _ = serde_json::to_vec(word).map(|mut line| {
            line.push(b'\n');
            lines.write_all(&line)
        });
    }

    /// Tells what is done from now on, in words that fit after "while": something that takes no time.
    pub fn doing(&self, what: impl Into<String>) {
        self.doing_within(what, STEP_TIME_MAX);
    }

    /// The same of a call that has the deadline of [`Stage::options`].
    pub fn calling(&self, what: impl Into<String>) {
        self.doing_within(what, CALL_TIME_MAX + STEP_TIME_MAX);
    }

    /// The same of something that is to end within a second.
    pub fn stopping(&self, what: impl Into<String>) {
        self.doing_within(what, STOP_TIME_MAX);
    }

    fn doing_within(&self, what: impl Into<String>, time: Duration) {
        self.say(&Word::Doing { what: what.into(), within_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) });
    }

    /// Tells that it is where it was to stay, and stays there until the parent ends it.
    pub fn stay(&self, data: Value) -> ! {
        self.say(&Word::Stays(data));
        loop {
            std::thread::sleep(Duration::from_secs(3_600));
        }
    }

    /// Tells what came of it.
    pub fn done(&self, outcome: Outcome, data: Value) {
        self.say(&Word::Done { outcome, data, phones: self.heard.findings() });
    }

    /// The plugin, loaded when it is first asked for.
    ///
    /// # Errors
    /// Where the host refuses it.
    pub fn plugin(&self) -> Result<&Plugin, Stop> {
        if let Some(plugin) = self.plugin.get() {
            return Ok(plugin);
        }
        self.doing("the library was loaded");
        let found = Plugins::new(vec![self.request.folder.clone()]).find(self.request.kind, &self.request.name);
        let plugin = found.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let place = self.request.folder.display().to_string();
            failed(format!("the host refuses the library: {error}{cause}").replace(&format!("{place}/"), ""), rules::ENTRY)
        })?;
        Ok(self.plugin.get_or_init(|| plugin))
    }

    /// A source of the request's config.
    ///
    /// # Errors
    /// Where create fails.
    pub fn source(&self) -> Result<Box<dyn SourceConnector>, Stop> {
        let plugin = self.plugin()?;
        self.doing("create ran");
        plugin.source(COMPONENT, &self.request.config).map_err(|error| self.refused("create", &error, rules::CREATE))
    }

    /// A channel of the request's config.
    ///
    /// # Errors
    /// Where create fails.
    pub fn channel(&self) -> Result<Box<dyn ChannelConnector>, Stop> {
        let plugin = self.plugin()?;
        self.doing("create ran");
        plugin.channel(COMPONENT, &self.request.config).map_err(|error| self.refused("create", &error, rules::CREATE))
    }

    /// What goes along with a call that may take its time.
    pub fn options(&self) -> CallOptions {
        self.options_within(CALL_TIME_MAX)
    }

    /// What goes along with a call that is to end within this time.
    pub fn options_within(&self, time: Duration) -> CallOptions {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let deadline = u64::try_from((now + time).as_millis()).unwrap_or(u64::MAX);
        CallOptions { dry_run: false, deadline_unix_ms: Some(deadline), run_id: self.request.run.clone() }
    }

    /// What an error means that nothing was done to provoke: a defect, or a config under which nothing can be tried.
    pub fn refused(&self, what: &str, error: &PluginError, rule: &str) -> Stop {
        self.heard.error(error);
        let said = format!("{what} answered {}: {}", error.class.name(), shown(&error.message));
        match error.class {
            ErrorClass::Internal => failed(said, if error.message.contains("broke the contract") { rule } else { rules::ERRORS }),
            ErrorClass::Cancelled => failed(format!("{said}, and nobody had cancelled it"), rules::STOP),
            ErrorClass::Timeout => skipped(format!("{said}; give it a config with less to do")),
            _ => {
                let hint = error.hint.as_deref().map(|hint| format!(" ({})", shown(hint))).unwrap_or_default();
                skipped(format!("{said}{hint}; give it a config with which that works"))
            }
        }
    }
}

/// An act that ends because the plugin breaks this rule.
pub fn failed(seen: impl Into<String>, rule: &str) -> Stop {
    Box::new(Outcome::failed(seen, rule))
}

/// An act that ends because something cannot be tried.
pub fn skipped(why: impl Into<String>) -> Stop {
    Box::new(Outcome::skipped(why))
}

/// Takes the log events of plugins.
struct Listener(Arc<Heard>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("plugin")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // What is written at the levels of debugging ends in logs too.
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.text("a log line", &line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The fields of an event, one after the other.
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.0.push_str(value);
        self.0.push('\n');
    }

    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{value:?}\n"));
    }
}
