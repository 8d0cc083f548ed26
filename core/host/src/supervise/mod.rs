//! The daemon's side of workers: starts them, calls them, watches them, ends them, and starts them again.
//!
//! A component is one plugin's instance under one name. Its worker may come and go; what calls the component sees
//! a call that failed, and the next one finds a new worker, after a delay that grows with each failure.

mod component;
mod connectors;
mod health;
mod link;
mod process;
mod spawner;
mod watch;

use std::time::Duration;

use reunion_model::plugin::PluginKind;

pub(crate) use component::Component;
pub(crate) use connectors::{RemoteChannel, RemoteSource};
pub(crate) use health::Supervisor;
pub use health::{Health, HealthState};
pub use process::COMMAND;
pub(crate) use process::{ScanError, scan};

/// What a component's worker is for. Each has a process of its own, and a history of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Part {
    /// Reading, pushing and polling.
    #[default]
    Work,
    /// Requests from outside: whatever one of them does to it, no push is touched.
    Callbacks,
}

impl Part {
    /// What names it, behind the component's own name; no component's name has a dot.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Work => "",
            Self::Callbacks => ".callbacks",
        }
    }
}

/// Where a component's plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// In a process of its own: whatever it does, the daemon lives.
    #[default]
    Process,
    /// In the daemon's process, on threads of its own: a crash of it is the daemon's.
    InProcess,
}

/// What a component may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of its process and what that has started.
    pub memory_bytes_max: u64,
    /// Files that it may have open.
    pub open_files_max: u64,
    /// How long an answer, or the next item of a stream, may take.
    pub answer_within: Duration,
    /// How often within an hour it is started again after it failed.
    pub restarts_per_hour_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes_max: 1 << 30, open_files_max: 1024, answer_within: Duration::from_secs(3600), restarts_per_hour_max: 5 }
    }
}

/// A component, as the config has it.
#[derive(Debug, Clone)]
pub struct ComponentSpec {
    /// Source or channel.
    pub kind: PluginKind,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub isolation: Isolation,
    /// What it may take.
    pub limits: Limits,
    /// The only library that may be loaded for it: the sha256 of the file, in hex.
    pub sha256: Option<String>,
    /// What its worker is for.
    pub part: Part,
}

impl ComponentSpec {
    /// A component with the limits that hold where nothing is said.
    pub fn new(kind: PluginKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), isolation: Isolation::default(), limits: Limits::default(), sha256: None, part: Part::default() }
    }
}
