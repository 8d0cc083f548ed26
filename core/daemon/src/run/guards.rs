//! Guards: what stops a run before its commit, because it is more likely a mistake at a source than the truth.
//!
//! A snapshot must not lose too many rows. And what identity makes of the rows must not differ too much from the runs
//! before: a key column that was filled with rubbish joins half of all members, and nothing else would tell.

use reunion_people::{Identified, Pull, Resolved};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

use super::setup::Setup;

/// Members before the run, below which nothing is compared: a few decide every share.
const MEMBERS_MIN: u64 = 1000;
/// Runs that are looked at for those that committed something.
const RUNS_LOOKED_AT: u32 = 200;

/// The guard of snapshots: one that is empty, or that would delete too much, is probably half a file. Gives the
/// sources whose snapshot was accepted.
///
/// # Errors
/// Which source it refuses, and why.
pub fn snapshots(setup: &Setup<'_>, sources: &[String], pulls: &[Pull], resolved: &Resolved<'_>) -> Result<Vec<String>, Failure> {
    let mut accepted = Vec::new();
    for (source, origin) in sources.iter().enumerate() {
        let schema = &setup.schemas[origin];
        let Some(pull) = pulls.iter().rfind(|pull| usize::from(pull.source) == source && pull.complete_snapshot && !schema.retired) else {
            continue;
        };
        let deletions = resolved.deletions()[source];
        let is_empty = pull.chunks.is_empty() && pull.seen.is_empty();
        let share = deletions.deleted as f64 / deletions.live_before.max(1) as f64;
        let share_max = setup.app.config.sources[&schema.name].deleted_share_max;
        if !is_empty && share <= share_max {
            continue;
        }
        if setup.accept.contains(&schema.name) {
            accepted.push(schema.name.clone());
            continue;
        }
        let message = if is_empty {
            format!("the source `{}` is empty; before it had {} rows", schema.name, deletions.live_before)
        } else {
            format!(
                "the source `{}` lost {} of its {} rows ({:.1} %), and deleted_share_max allows {:.1} %",
                schema.name,
                deletions.deleted,
                deletions.live_before,
                share * 100.0,
                share_max * 100.0
            )
        };
        let help = format!("see whether the export is whole; if the rows are really gone, accept it once: --accept {}", schema.name);
        return Err(Failure::guard(message).help(help));
    }
    Ok(accepted)
}

/// Whether a source has rows for the first time: that it brings new members and rows that cannot be used is no surprise.
pub fn reads_something_new(pulls: &[Pull], resolved: &Resolved<'_>) -> bool {
    let is_new = |pull: &Pull| !pull.chunks.is_empty() && resolved.deletions()[usize::from(pull.source)].live_before == 0;
    pulls.iter().any(is_new)
}

/// What a run made of its rows, as shares that can be compared with those of other runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// Members that were merged into others, of all that there were before.
    pub merged_share: f64,
    /// Members that were not there, of the same.
    pub new_share: f64,
    /// Rows in quarantine, of all rows.
    pub quarantined_share: f64,
    /// Rows of the largest member among those that changed.
    pub largest_member: u64,
    /// Members before the run.
    #[serde(skip)]
    members_before: u64,
}

/// One value that is compared.
struct Compared {
    /// Its name in `--accept`, and its key in `[guards]` but for the end.
    name: &'static str,
    now: f64,
    /// The greatest of the runs before.
    before: f64,
    /// How much more is allowed.
    margin: f64,
    what: &'static str,
    help: &'static str,
}

impl Guarded {
    /// Of what identity says.
    pub fn of(identified: &Identified, members_before: u64) -> Self {
        let new = identified.members.previous_hash.iter().filter(|hash| **hash == 0).count() as f64;
        let share = |count: f64, of: u64| if of == 0 { 0.0 } else { count / of as f64 };
        let (records, quarantined) = identified.records;
        Self {
            merged_share: share(identified.merges.len() as f64, members_before),
            new_share: share(new, members_before),
            quarantined_share: share(quarantined as f64, records),
            largest_member: identified.largest_member,
            members_before,
        }
    }

    /// Compares it with the last runs that committed something and whose guards nobody overruled. Gives the guards
    /// that would have refused and were accepted.
    ///
    /// # Errors
    /// Which guard refuses, and why.
    pub fn check(&self, setup: &Setup<'_>, brings_news: bool) -> Result<Vec<String>, Failure> {
        if self.members_before < MEMBERS_MIN {
            return Ok(Vec::new());
        }
        let Some(before) = last_runs(setup)? else { return Ok(Vec::new()) };
        let mut accepted = Vec::new();
        for compared in self.compared(setup, &before) {
            let expects_news = brings_news && matches!(compared.name, NEW | QUARANTINED);
            if compared.now <= compared.before + compared.margin || expects_news {
                continue;
            }
            if !setup.accept.iter().any(|name| name == compared.name) {
                return Err(compared.refusal());
            }
            accepted.push(compared.name.to_owned());
        }
        Ok(accepted)
    }

    fn compared(&self, setup: &Setup<'_>, before: &Self) -> [Compared; 4] {
        let margins = &setup.app.config.guards;
        [
            Compared {
                name: MERGED,
                now: self.merged_share,
                before: before.merged_share,
                margin: margins.merged_share_margin,
                what: "of the members would be merged into others",
                help: "a key column was probably filled with one value for many people, a key was added, or many were merged by `reunion members review`",
            },
            Compared {
                name: NEW,
                now: self.new_share,
                before: before.new_share,
                margin: margins.new_share_margin,
                what: "as many members as there are would be new",
                help: "see whether phones changed their form at a source, or a file of somebody else's was read",
            },
            Compared {
                name: QUARANTINED,
                now: self.quarantined_share,
                before: before.quarantined_share,
                margin: margins.quarantined_share_margin,
                what: "of all rows would be in quarantine",
                help: "a column was probably moved or masked at a source",
            },
            Compared {
                name: LARGEST,
                now: self.largest_member as f64,
                before: before.largest_member as f64,
                margin: margins.largest_member_margin as f64,
                what: "rows would be one member",
                help: "see which value joins them, and block it or lower its limits in [identity.limits]",
            },
        ]
    }
}

const MERGED: &str = "guards.merged_share";
const NEW: &str = "guards.new_share";
const QUARANTINED: &str = "guards.quarantined_share";
const LARGEST: &str = "guards.largest_member";

/// The names that `--accept` takes beside those of sources.
pub const NAMES: [&str; 4] = [MERGED, NEW, QUARANTINED, LARGEST];

impl Compared {
    fn refusal(&self) -> Failure {
        let shown = |value: f64| if self.name == LARGEST { format!("{value:.0}") } else { format!("{:.1} %", value * 100.0) };
        let message = format!(
            "{} {}; in the runs before it were {} at most, and [guards] allows {} more",
            shown(self.now),
            self.what,
            shown(self.before),
            shown(self.margin)
        );
        let Self { name, help, .. } = self;
        Failure::guard(message)
            .help(format!("{help}; `reunion plan --accept {name}` shows what it comes to; if it is right, take it once: --accept {name}"))
    }
}

/// The greatest values of the last runs; `None` where no run has any.
fn last_runs(setup: &Setup<'_>) -> Result<Option<Guarded>, Failure> {
    let runs = setup.state.ask(setup.state.ledger.runs(RUNS_LOOKED_AT))?;
    let committed = runs.into_iter().filter(|run| run.generation.is_some()).filter_map(|run| run.report);
    let of_report = |mut report: serde_json::Value| {
        let is_overruled =
            report["accepted"].as_array().is_some_and(|names| names.iter().any(|name| NAMES.iter().any(|guard| name == guard)));
        if is_overruled { None } else { serde_json::from_value::<Guarded>(report["guards"].take()).ok() }
    };
    let runs = committed.filter_map(of_report).take(setup.app.config.guards.runs as usize);
    Ok(runs.reduce(|one, other| Guarded {
        merged_share: one.merged_share.max(other.merged_share),
        new_share: one.new_share.max(other.new_share),
        quarantined_share: one.quarantined_share.max(other.quarantined_share),
        largest_member: one.largest_member.max(other.largest_member),
        members_before: 0,
    }))
}
