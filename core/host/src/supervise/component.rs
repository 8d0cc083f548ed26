//! A component and its worker: started when it is needed, again after it failed, anew when its library is another.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reunion_abi::log_level;
use reunion_model::limits::CANCEL_WITHIN_MS;
use reunion_model::plugin::{ChannelTraits, ErrorClass, PluginError};
use serde_json::Value;

use crate::confine::{self, Place, Plan};
use crate::library::{Plugin, Stamp};
use crate::log;
use crate::quarantine;
use crate::search::Plugins;
use crate::wire::{Frame, Kind, LogMessage, Ready, Start};
use crate::worker;

use super::health::{End, History, LeftAlone};
use super::link::{Lines, Link, Replies};
use super::process::Process;
use super::{ComponentSpec, Isolation, watch};

/// How long a plugin may take to be loaded and to make its component, which does no I/O.
const START_WITHIN: Duration = Duration::from_secs(30);
/// What a worker has beyond the time of the contract to do what it was told: the way there and back.
pub(super) const GRACE: Duration = Duration::from_millis(CANCEL_WITHIN_MS + 500);
/// How often a call that waits looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One component.
pub(crate) struct Component {
    spec: ComponentSpec,
    plugins: Plugins,
    config: Value,
    history: Arc<History>,
    now: Mutex<Now>,
    cancelled: Arc<Cancelled>,
}

/// Whether the component was stopped, for good.
#[derive(Default)]
struct Cancelled {
    flag: AtomicBool,
    at: Mutex<Option<Instant>>,
}

/// The plugin and the worker of this moment.
struct Now {
    plugin: Plugin,
    worker: Option<Arc<Worker>>,
    /// A library that took the plugin's place and cannot be used.
    refused: Option<Stamp>,
}

/// A worker that has made its component.
pub(super) struct Worker {
    pub(super) link: Arc<Link>,
    pid: Option<u32>,
    /// An answer of it was an internal error: it gets no further calls, and ends with the last that it has.
    spent: AtomicBool,
    /// Where the paths of its config led when it was confined.
    places: Vec<Place>,
    stamp: Stamp,
    traits: Option<ChannelTraits>,
    plugin: Plugin,
    history: Arc<History>,
    confined: Option<String>,
}

impl Component {
    /// Makes the component, which starts its worker. `config` has its secrets in it, and need not be complete.
    ///
    /// # Errors
    /// Invalid config where the config does not fit, or the plugin says so; unavailable where it failed just now.
    pub(crate) fn make(plugins: &Plugins, plugin: &Plugin, spec: ComponentSpec, config: Value) -> Result<Arc<Self>, PluginError> {
        plugin.is_of(&spec.name, spec.kind)?;
        plugin.complete(&config)?;
        let history = plugins.supervisor().history(spec.kind, &spec.name, spec.part, spec.limits.restarts_per_hour_max);
        let now = Mutex::new(Now { plugin: plugin.clone(), worker: None, refused: None });
        let component = Arc::new(Self { spec, plugins: plugins.clone(), config, history, now, cancelled: Arc::default() });
        component.worker()?;
        Ok(component)
    }

    /// What the channel does under its config, as its worker says now.
    pub(super) fn traits(&self) -> Option<ChannelTraits> {
        self.lock().worker.as_ref().and_then(|worker| worker.traits.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker that lives; a new one where there is none, or where the library is another now.
    pub(super) fn worker(&self) -> Result<Arc<Worker>, PluginError> {
        if self.is_cancelled() {
            return Err(self.stopped());
        }
        let mut now = self.lock();
        let living = now.worker.as_ref().filter(|worker| worker.takes_calls()).map(Arc::clone);
        let found = Stamp::of(now.plugin.path()).ok();
        let is_other = found.is_some_and(|found| found != now.plugin.stamp() && now.refused != Some(found));
        if is_other && self.spec.isolation == Isolation::Process {
            now.refused = None;
            match self.plugins.find_pinned(self.spec.kind, &now.plugin.manifest().name, self.spec.sha256.as_deref()) {
                Ok(plugin) if plugin.complete(&self.config).is_ok() => now.plugin = plugin,
                other => {
                    let why =
                        other.map_or_else(|error| error.to_string(), |_| "its keys do not fit the component's config any more".to_owned());
                    tracing::warn!(component = self.spec.name, "the library that took the plugin's place is not used: {why}");
                    now.refused = found;
                }
            }
        }
        match living {
            // The calls that a worker is answering keep it until they have their answers.
            Some(worker) if worker.stamp != now.plugin.stamp() => {
                tracing::info!(component = self.spec.name, version = now.plugin.manifest().version, "its plugin's library is another now");
            }
            Some(worker) if worker.places != self.places(&now.plugin) => {
                tracing::debug!(component = self.spec.name, "the folders of its config are others now");
            }
            Some(worker) => return Ok(worker),
            None => {}
        }
        now.worker = None;
        self.history.may_start().map_err(|left_alone| self.left_alone(&left_alone))?;
        let worker = Arc::new(self.start(&now.plugin)?);
        now.worker = Some(Arc::clone(&worker));
        Ok(worker)
    }

    fn start(&self, plugin: &Plugin) -> Result<Worker, PluginError> {
        let started = self.connect(plugin).and_then(|(link, replies)| {
            let answer = replies.frames.recv_timeout(START_WITHIN);
            answer.map(|frame| (Arc::clone(&link), frame)).map_err(|_| {
                // Either it is gone, and says how, or it hangs.
                if link.is_alive() {
                    link.fault(&format!("was not ready within {} seconds", START_WITHIN.as_secs()));
                }
                self.broke(&link.why_ended())
            })
        });
        let (link, frame) = started?;
        match (frame.kind, ready(&frame)) {
            (Kind::Ready, Some(Ready { traits, confined })) => {
                let confined = confined.map(|confined| confined.to_string());
                let pid = link.pid();
                self.history.started(pid, plugin, confined.clone());
                let (plugin, history) = (plugin.clone(), Arc::clone(&self.history));
                let places = self.places(&plugin);
                Ok(Worker { link, pid, spent: AtomicBool::new(false), places, stamp: plugin.stamp(), traits, plugin, history, confined })
            }
            (Kind::Failed, _) => {
                link.goodbye(GRACE);
                Err(self.error_of(&frame).map_or_else(|error| error, |error| self.judge(error, plugin, None)))
            }
            _ => {
                link.fault("answered its start with something else");
                Err(self.broke(&link.why_ended()))
            }
        }
    }

    /// Starts a worker, and tells it what to do.
    fn connect(&self, plugin: &Plugin) -> Result<(Arc<Link>, Replies), PluginError> {
        let config = plugin.complete(&self.config)?;
        let start = Start {
            kind: self.spec.kind,
            name: plugin.manifest().name.clone(),
            library: plugin.path().to_owned(),
            component: self.spec.name.clone(),
            plan: Some(self.plan(plugin, &config)),
            config,
            log_level_max: log::level_max(),
        };
        let connected = match self.spec.isolation {
            Isolation::Process => self.connect_process(&start, plugin),
            Isolation::InProcess => self.connect_thread(start, plugin),
        };
        connected.map_err(|error| {
            PluginError::new(ErrorClass::Unavailable, format!("the worker of {} cannot be started: {error}", self.spec.name))
        })
    }

    /// Where the paths of its config lead now.
    fn places(&self, plugin: &Plugin) -> Vec<Place> {
        match self.spec.isolation {
            Isolation::Process => confine::places(&self.plan(plugin, &self.config)),
            Isolation::InProcess => Vec::new(),
        }
    }

    /// What the worker may do.
    fn plan(&self, plugin: &Plugin, config: &Value) -> Plan {
        let plan = Plan::new(plugin.manifest(), config, plugin.path(), self.spec.limits.open_files_max);
        let private = self.plugins.supervisor().dir().and_then(Path::parent).map(Path::to_owned);
        Plan { temp: self.temp(), make_folders: self.plugins.makes_folders(), private: private.into_iter().collect(), ..plan }
    }

    /// The folder for its temporary files; `None` where none can be made.
    fn temp(&self) -> Option<PathBuf> {
        let dir = self.plugins.supervisor().dir()?;
        let temp = dir.join(format!("{}-{}.tmp", self.spec.kind.name(), self.spec.name));
        quarantine::make_folder(dir).and_then(|()| quarantine::make_folder(&temp)).ok().map(|()| temp)
    }

    fn connect_process(&self, start: &Start, plugin: &Plugin) -> std::io::Result<(Arc<Link>, Replies)> {
        let name = self.spec.name.clone();
        let lines = Arc::new(Lines::new());
        let printed = Arc::clone(&lines);
        let line = move |line: &str| {
            let message = LogMessage { level: log_level::WARN, target: "stderr".into(), message: line.to_owned(), fields: String::new() };
            printed.write(&name, message);
        };
        let temp = start.plan.as_ref().and_then(|plan| plan.temp.as_deref());
        let worker = self.plugins.worker().ok_or_else(|| std::io::Error::other("this program cannot be a worker"))?;
        let (process, stream) = Process::start(worker, temp, line)?;
        let bytes_max = self.spec.limits.memory_bytes_max;
        let is_limited = process.limit_memory(&format!("worker-{}-{}", self.spec.kind.name(), self.spec.name), bytes_max);
        let (link, replies) = Link::new(self.spec.name.clone(), lines, stream, Some(process), self.on_end(plugin))?;
        link.send(&[(Kind::Start, 0, &serde_json::to_vec(start)?)]);
        if !is_limited {
            watch::memory(&link, bytes_max);
        }
        Ok((link, replies))
    }

    /// The same over a pair of sockets, to a thread of this process.
    fn connect_thread(&self, start: Start, plugin: &Plugin) -> std::io::Result<(Arc<Link>, Replies)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (link, replies) = Link::new(self.spec.name.clone(), Arc::new(Lines::new()), ours, None, self.on_end(plugin))?;
        let plugin = plugin.clone();
        thread::Builder::new()
            .name("plugin".into())
            .spawn(move || worker::on_this_thread(theirs, &plugin, &start.component, &start.config))?;
        Ok((link, replies))
    }

    /// What is done when the worker ends without being told to.
    fn on_end(&self, plugin: &Plugin) -> impl FnOnce(&str) + Send + 'static {
        let (history, plugin, component) = (Arc::clone(&self.history), plugin.clone(), self.spec.name.clone());
        move |why: &str| {
            let left_alone = history.failed(why, &plugin, None);
            let (restarts, max, delay_secs) = (left_alone.restarts, left_alone.restarts_max, left_alone.delay.as_secs());
            tracing::warn!(component, "its plugin failed: {why}; restarts {restarts}/{max}, next try in {delay_secs} s");
        }
    }

    /// What a worker answered in place of what it was asked for.
    pub(super) fn error_of(&self, frame: &Frame) -> Result<PluginError, PluginError> {
        serde_json::from_slice(&frame.payload).map_err(|_| self.broke("sent an error that is none"))
    }

    /// An internal error is the end of the instance: the next call finds another one.
    fn judge(&self, error: PluginError, plugin: &Plugin, confined: Option<String>) -> PluginError {
        if error.class == ErrorClass::Internal {
            let left_alone = self.history.failed(&error.message, plugin, confined);
            tracing::warn!(
                component = self.spec.name,
                "its plugin failed: {}; restarts {}/{}, next try in {} s",
                error.message,
                left_alone.restarts,
                left_alone.restarts_max,
                left_alone.delay.as_secs()
            );
        }
        error
    }

    /// An answer of this worker was an error.
    pub(super) fn failed(&self, worker: &Worker, error: PluginError) -> PluginError {
        // What ended without being told to has been written down already.
        let is_first = error.class == ErrorClass::Internal && worker.link.is_alive() && !worker.spent.swap(true, Ordering::AcqRel);
        if is_first { self.judge(error, &worker.plugin, worker.confined.clone()) } else { error }
    }

    /// The plugin broke this rule of the contract.
    pub(super) fn violation(&self, worker: &Worker, rule: &str) -> PluginError {
        self.failed(worker, worker.plugin.violation(rule))
    }

    /// The worker is gone, and this is why.
    pub(super) fn broke(&self, why: &str) -> PluginError {
        let message = format!("the plugin of {} {} failed: {why}", self.spec.kind.name(), self.spec.name);
        PluginError::new(ErrorClass::Internal, message).hint("it is started again; if that happens often, report it to the plugin's author")
    }

    fn left_alone(&self, left_alone: &LeftAlone) -> PluginError {
        let LeftAlone { why, restarts, restarts_max, delay } = left_alone;
        let message = format!("it failed: {why}; restarts {restarts}/{restarts_max}");
        // Rounded up: who comes back then is not refused again.
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        PluginError::new(ErrorClass::Unavailable, message).retry_after_ms(delay_ms)
    }

    pub(super) fn stopped(&self) -> PluginError {
        PluginError::new(ErrorClass::Cancelled, format!("component {} was stopped", self.spec.name))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.flag.load(Ordering::Acquire)
    }

    /// Stops it, for good.
    pub(super) fn cancel(&self) {
        *self.cancelled.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.cancelled.flag.store(true, Ordering::Release);
        // Who is starting one sees the flag when it is started.
        let worker = self.now.try_lock().ok().and_then(|now| now.worker.clone());
        if let Some(worker) = worker {
            worker.link.send(&[(Kind::Cancel, 0, &[])]);
        }
    }

    /// The next frame of a call.
    ///
    /// # Errors
    /// Timeout where it takes longer than an answer may; cancelled where the component was stopped; internal where
    /// the worker ended.
    pub(super) fn next(&self, worker: &Worker, replies: &Replies, deadline: Option<Instant>) -> Result<Frame, PluginError> {
        let asked = Instant::now();
        loop {
            match replies.frames.recv_timeout(LOOK_EVERY) {
                Ok(frame) => return Ok(frame),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) if self.is_cancelled() => return Err(self.stopped()),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(self.broke(&worker.link.why_ended())),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if self.is_cancelled() {
                let since = *self.cancelled.at.lock().unwrap_or_else(PoisonError::into_inner);
                // A call that began while it was cancelled has not been told yet.
                worker.link.send(&[(Kind::Cancel, 0, &[])]);
                if since.is_some_and(|since| now.saturating_duration_since(since) > GRACE) {
                    worker.link.fault(&format!("did not stop within {CANCEL_WITHIN_MS} ms of being told to"));
                    return Err(self.stopped());
                }
                continue;
            }
            let within = self.spec.limits.answer_within;
            let late = if now.saturating_duration_since(asked) > within {
                Some(format!("no answer within {} seconds", within.as_secs()))
            } else {
                deadline.filter(|deadline| now > *deadline + GRACE).map(|_| "no answer by the call's deadline".to_owned())
            };
            if let Some(late) = late {
                worker.link.fault(&late);
                let error = self.broke(&late);
                return Err(PluginError { class: ErrorClass::Timeout, ..error });
            }
        }
    }
}

fn ready(frame: &Frame) -> Option<Ready> {
    serde_json::from_slice(&frame.payload).ok()
}

impl Worker {
    /// Whether it can be given a call.
    fn takes_calls(&self) -> bool {
        self.link.is_alive() && !self.spent.load(Ordering::Acquire)
    }
}

impl Drop for Worker {
    /// After the last call that it answers.
    fn drop(&mut self) {
        let is_alive = self.link.is_alive();
        let is_known = !is_alive || self.spent.load(Ordering::Acquire);
        let why = if is_alive { self.link.goodbye(GRACE) } else { None };
        let end = match (is_known, why) {
            (true, _) => End::Known,
            (false, None) => End::Well,
            (false, Some(why)) => End::Badly(why),
        };
        self.history.ended(self.pid, end, &self.plugin, self.confined.take());
    }
}
