//! What a worker process may do: it takes from itself all that its plugin does not need, before the plugin's
//! library is loaded, for good. Linux; what a kernel does not offer is left out and reported.
//!
//! [`die_with_parent`] is the first thing that a worker calls. [`confine`] comes once it has its instructions,
//! **while it has one thread**: Landlock binds the thread that asks for it and those that it starts later, so
//! that a thread that was there before would stay free. Files and sockets that are open by then stay usable,
//! the worker's own socket among them.
//!
//! `docs/decisions/0015-confinement.md` says why these measures, and what they do not cover.

mod files;
mod landlock;
mod plan;
mod process;
mod report;
mod seccomp;

use std::io;
use std::path::PathBuf;

use reunion_model::plugin::Needs;

pub use plan::Plan;
pub use process::die_with_parent;
pub use report::{Entry, Measure, Report, State};

/// Where a path of a config leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The nearest folder on the way that is there, with its device and inode.
    there: (PathBuf, Option<(u64, u64)>),
    /// Device and inode of the folder itself, or of what is in its place.
    folder: Option<(u64, u64)>,
    /// The folder that a link leads to.
    linked: Option<PathBuf>,
}

/// Where the paths of a plan lead now. A worker that was confined when they led elsewhere cannot follow: it is for
/// good. Empty for a plugin whose files are not confined.
pub fn places(plan: &Plan) -> Vec<Place> {
    if plan.needs.as_ref().is_some_and(|needs| needs.config_paths) { files::places(plan) } else { Vec::new() }
}

/// What the running kernel offers beyond what every Linux does. Made by [`Kernel::detect`]; another one stands
/// for an older kernel in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The version of Landlock's ABI, at least 1, or why there is none.
    pub landlock: Result<i32, String>,
    /// Filters for system calls, or why there are none.
    pub seccomp: Result<(), String>,
}

impl Kernel {
    /// Asks the running kernel. Changes nothing.
    pub fn detect() -> Self {
        Self { landlock: landlock::detect(), seccomp: seccomp::detect() }
    }
}

/// Takes from this process, for good, what the plan does not leave it. For processes of one thread: see the
/// module. What the kernel does not offer is in the report, and no error.
///
/// # Errors
/// Of the system, where a measure that is offered fails. The process may be half confined then and must not load
/// the plugin.
pub fn confine(plan: &Plan) -> io::Result<Report> {
    confine_on(plan, &Kernel::detect())
}

/// The same with what `kernel` says is there, which may be less than there is.
///
/// # Errors
/// As [`confine`].
pub fn confine_on(plan: &Plan, kernel: &Kernel) -> io::Result<Report> {
    let mut report = Report::of(plan.needs.as_ref(), kernel);
    report.applied = true;
    // Before dumps are off: from then on files of /proc/self belong to root.
    if let Err(error) = process::kill_before_others() {
        report.set(Measure::OutOfMemory, State::NotOffered { why: format!("/proc/self/oom_score_adj cannot be written: {error}") });
    }
    process::no_new_privileges()?;
    if let Err(error) = process::drop_powers() {
        report.set(Measure::NewPrivileges, State::InPart { why: format!("those of root are kept: {error}") });
    }
    process::no_dumps()?;
    process::limit_open_files(plan.open_files_max)?;
    if let Ok(abi) = kernel.landlock {
        let hold = match &plan.needs {
            Some(needs) => {
                let reach = files::within_reach(plan, needs);
                report.notes = reach.notes;
                landlock::keep_to(&reach.given, needs, abi)?
            }
            None => landlock::stand_apart(abi)?,
        };
        if hold == landlock::Hold::Less {
            report.weaken("the kernel says that it enforces less of Landlock than it offers");
        }
    }
    if kernel.seccomp.is_ok() {
        seccomp::refuse(&seccomp::Refused::of(plan.needs.as_ref(), kernel))?;
    }
    Ok(report)
}

/// All that this kernel offers, for a plugin that needs nothing. Changes nothing.
pub fn offered() -> Report {
    offered_to(Some(&Needs::default()))
}

/// What this kernel would enforce on a plugin with these needs; `None`: its manifest does not say. Changes
/// nothing.
pub fn offered_to(needs: Option<&Needs>) -> Report {
    Report::of(needs, &Kernel::detect())
}
