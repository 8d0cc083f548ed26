//! How components are: what failed, how often, and when it is tried again. Kept in memory for the daemon, and in a
//! small file for each component for those who ask it from outside.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reunion_model::plugin::PluginKind;
use serde::{Deserialize, Serialize};

use crate::quarantine;

use super::Part;

/// Failures older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(3600);
/// The delay after a first failure; it doubles with each further one.
const DELAY_FIRST: Duration = Duration::from_secs(1);
/// The longest delay, as long as there are restarts left.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// How a component is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its worker, or what became of it.
    pub state: HealthState,
    /// Restarts within the last hour.
    pub restarts: u32,
    /// How many there may be.
    pub restarts_max: u32,
    /// The library.
    pub library: PathBuf,
    /// The plugin's version.
    pub version: String,
    /// How its process is confined, in words.
    pub confined: Option<String>,
    /// Microseconds since the Unix epoch at which this was so.
    pub at_us: i64,
}

/// See [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum HealthState {
    /// Its worker runs: the process of this number, or a thread of the daemon's.
    Running {
        /// The process.
        pid: Option<u32>,
        /// The daemon, or command, that it works for.
        owner: u32,
    },
    /// Nobody needs it.
    Ended,
    /// It failed.
    Failed {
        /// What happened.
        why: String,
        /// When it may be tried again, microseconds since the Unix epoch.
        next_try_us: i64,
    },
}

impl Health {
    /// The file of a component's health.
    fn file(kind: PluginKind, name: &str, part: Part) -> String {
        format!("{}-{name}{}.json", kind.name(), part.suffix())
    }

    /// What was last known of a part of a component; `None` where nothing is.
    pub fn read(dir: &Path, kind: PluginKind, name: &str, part: Part) -> Option<Self> {
        let health: Self = serde_json::from_slice(&fs::read(dir.join(Self::file(kind, name, part))).ok()?).ok()?;
        let is_gone = |owner: u32| !Path::new("/proc").join(owner.to_string()).exists();
        match health.state {
            // Whoever would have written that it ended was killed.
            HealthState::Running { owner, .. } if is_gone(owner) => Some(Self { state: HealthState::Ended, ..health }),
            _ => Some(health),
        }
    }

    /// Best effort: a daemon whose disk is full has other troubles.
    fn write(&self, dir: &Path, kind: PluginKind, name: &str, part: Part) {
        let written = serde_json::to_vec(self).map_err(io::Error::from);
        let written = written.and_then(|json| quarantine::write(dir, &Self::file(kind, name, part), &json));
        if let Err(error) = written {
            tracing::debug!(component = name, "its health cannot be written down: {error}");
        }
    }
}

/// What is remembered of all components of this process.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    histories: Mutex<HashMap<(PluginKind, String, Part), Arc<History>>>,
    /// Where their health is written down.
    dir: Option<PathBuf>,
}

impl Supervisor {
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self { histories: Mutex::default(), dir }
    }

    /// The folder of the components' health.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// What is remembered of a part of a component: the same for every instance of it, one after the other.
    pub(super) fn history(&self, kind: PluginKind, name: &str, part: Part, restarts_max: u32) -> Arc<History> {
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            Arc::new(History {
                kind,
                name: name.to_owned(),
                part,
                restarts_max,
                dir: self.dir.clone(),
                failures: Mutex::default(),
                running: Mutex::default(),
            })
        };
        Arc::clone(histories.entry((kind, name.to_owned(), part)).or_insert_with(made))
    }
}

/// What is remembered of one part of a component.
#[derive(Debug)]
pub(super) struct History {
    kind: PluginKind,
    name: String,
    part: Part,
    restarts_max: u32,
    dir: Option<PathBuf>,
    failures: Mutex<Failures>,
    /// Processes of the workers that run; none for a worker that is a thread. A run and the outbox have one each.
    running: Mutex<Vec<Option<u32>>>,
}

/// Failures within the last hour, oldest first, and what the last one was.
#[derive(Debug, Default)]
struct Failures {
    at: VecDeque<Instant>,
    why: String,
}

impl Failures {
    fn forget(&mut self, now: Instant) {
        while self.at.front().is_some_and(|at| now.saturating_duration_since(*at) >= WINDOW) {
            self.at.pop_front();
        }
    }

    /// How long the component is to be left alone.
    fn delay(&self, now: Instant, restarts_max: u32) -> Duration {
        let (Some(first), Some(last), failures) = (self.at.front(), self.at.back(), self.at.len() as u32) else {
            return Duration::ZERO;
        };
        if failures > restarts_max {
            // Not before the oldest is forgotten.
            return WINDOW.saturating_sub(now.saturating_duration_since(*first));
        }
        let doubled = DELAY_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(DELAY_MAX);
        doubled.saturating_sub(now.saturating_duration_since(*last))
    }
}

/// How a worker has ended.
pub(super) enum End {
    /// As it was told to.
    Well,
    /// Otherwise, after it had been told to. All that it was asked for is done: it does not count as a failure, after
    /// which the component would be left alone.
    Badly(String),
    /// By a failure, which was written down when it happened.
    Known,
}

/// Why a component is left alone for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftAlone {
    pub(super) why: String,
    pub(super) restarts: u32,
    pub(super) restarts_max: u32,
    pub(super) delay: Duration,
}

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker may be started now; else why not.
    pub(super) fn may_start(&self) -> Result<(), LeftAlone> {
        let mut failures = self.lock();
        let now = Instant::now();
        failures.forget(now);
        let delay = failures.delay(now, self.restarts_max);
        if delay.is_zero() { Ok(()) } else { Err(self.left_alone(&failures, delay)) }
    }

    fn left_alone(&self, failures: &Failures, delay: Duration) -> LeftAlone {
        let restarts = (failures.at.len() as u32).min(self.restarts_max);
        LeftAlone { why: failures.why.clone(), restarts, restarts_max: self.restarts_max, delay }
    }

    /// A worker is there.
    pub(super) fn started(&self, pid: Option<u32>, plugin: &crate::Plugin, confined: Option<String>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        self.write(HealthState::Running { pid, owner: std::process::id() }, plugin, confined);
    }

    /// A worker has ended.
    pub(super) fn ended(&self, pid: Option<u32>, end: End, plugin: &crate::Plugin, confined: Option<String>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = running.iter().position(|known| *known == pid) {
            running.swap_remove(at);
        }
        let other = running.last().copied();
        drop(running);
        if let End::Badly(why) = &end {
            tracing::warn!(component = self.name, "its plugin failed when it was told to end: {why}");
        }
        match (other, end) {
            (_, End::Known) => {}
            (Some(pid), _) => self.write(HealthState::Running { pid, owner: std::process::id() }, plugin, confined),
            (None, End::Well) => self.write(HealthState::Ended, plugin, confined),
            (None, End::Badly(why)) => self.write(HealthState::Failed { why, next_try_us: now_us() }, plugin, confined),
        }
    }

    /// It failed.
    pub(super) fn failed(&self, why: &str, plugin: &crate::Plugin, confined: Option<String>) -> LeftAlone {
        let mut failures = self.lock();
        let now = Instant::now();
        failures.forget(now);
        failures.at.push_back(now);
        why.clone_into(&mut failures.why);
        let left_alone = self.left_alone(&failures, failures.delay(now, self.restarts_max));
        drop(failures);
        let next_try_us = now_us().saturating_add(i64::try_from(left_alone.delay.as_micros()).unwrap_or(i64::MAX));
        self.write(HealthState::Failed { why: why.to_owned(), next_try_us }, plugin, confined);
        left_alone
    }

    /// Writes down how it is now.
    fn write(&self, state: HealthState, plugin: &crate::Plugin, confined: Option<String>) {
        let Some(dir) = &self.dir else { return };
        let restarts = (self.lock().at.len() as u32).min(self.restarts_max);
        let (library, version) = (plugin.path().to_owned(), plugin.manifest().version.clone());
        let health = Health { state, restarts, restarts_max: self.restarts_max, library, version, confined, at_us: now_us() };
        health.write(dir, self.kind, &self.name, self.part);
    }
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_then_wait_for_the_hour_to_pass() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut failures = Failures::default();
        assert_eq!(failures.delay(start, 3), Duration::ZERO, "it never failed");
        let mut delays = Vec::new();
        for at in [0, 10, 20, 30] {
            failures.at.push_back(after(at));
            delays.push(failures.delay(after(at), 3).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 3570], "the fourth waits until the first is an hour old");
        assert_eq!(failures.delay(after(22), 4).as_secs(), 8, "a clock that is behind delays no longer");
        failures.forget(after(3600));
        assert_eq!((failures.at.len(), failures.delay(after(3600), 3)), (3, Duration::ZERO));
        failures.at.extend([after(3600); 20]);
        assert_eq!(failures.delay(after(3600), 100), DELAY_MAX);
    }
}
