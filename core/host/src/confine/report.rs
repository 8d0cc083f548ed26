//! Which measures hold, and why others do not.

use std::fmt;

use serde::{Deserialize, Serialize};

use reunion_model::plugin::Needs;

use super::Kernel;

/// Landlock's ABI versions from which something is there, and the Linux that brought them.
pub(super) const ABI_RENAME: i32 = 2;
pub(super) const ABI_TRUNCATE: i32 = 3;
const ABI_NETWORK: i32 = 4;
pub(super) const ABI_SCOPES: i32 = 6;

/// Something that is taken from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Programs that it starts get no rights that it has not itself, and it has none of root's over other
    /// processes, the machine and its own limits.
    NewPrivileges,
    /// Its memory is not written to disk when it crashes, nor read by other processes of its user.
    Dumps,
    /// It has a limit on open files.
    OpenFiles,
    /// The kernel kills it before the daemon when memory runs out.
    OutOfMemory,
    /// System calls that no plugin needs are refused.
    SystemCalls,
    /// It signals no process but itself and what it started.
    Signals,
    /// It neither reads nor changes the memory of processes that it did not start.
    MemoryOfOthers,
    /// It reaches no files but those that its config names, and the system's.
    Files,
    /// It has no network.
    Network,
    /// It reaches no abstract sockets of processes that it did not start.
    AbstractSockets,
}

impl Measure {
    /// The words for people: what is confined.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewPrivileges => "privileges",
            Self::Dumps => "dumps",
            Self::OpenFiles => "open files",
            Self::OutOfMemory => "killed first when memory runs out",
            Self::SystemCalls => "system calls",
            Self::Signals => "signals",
            Self::MemoryOfOthers => "memory of other processes",
            Self::Files => "files",
            Self::Network => "network",
            Self::AbstractSockets => "abstract sockets",
        }
    }
}

/// Whether a measure holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It does, or would.
    Enforced,
    /// It does, or would, but for what is said.
    InPart {
        /// What is missing, and what has it.
        why: String,
    },
    /// The kernel cannot, or is told not to.
    NotOffered {
        /// What is missing, and what has it.
        why: String,
    },
    /// The plugin needs what it would take, or does not say that it does not.
    NotAsked {
        /// Which of the two.
        why: String,
    },
}

/// One measure and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The measure.
    pub measure: Measure,
    /// Whether it holds.
    #[serde(flatten)]
    pub state: State,
}

/// Which measures hold in a worker, or would. [`fmt::Display`] is one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// A worker has done it; otherwise this is what the kernel offers.
    pub applied: bool,
    /// Every measure once.
    pub measures: Vec<Entry>,
    /// What became of paths of the config that could not be opened as they should, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn of(needs: Option<&Needs>, kernel: &Kernel) -> Self {
        let always = [Measure::NewPrivileges, Measure::Dumps, Measure::OpenFiles, Measure::OutOfMemory];
        let always = always.into_iter().map(|measure| (measure, State::Enforced));
        let others = [
            (Measure::SystemCalls, system_calls(kernel)),
            (Measure::Signals, signals(kernel)),
            (Measure::MemoryOfOthers, memory_of_others(needs, kernel)),
            (Measure::Files, files(needs, kernel)),
            (Measure::Network, network(needs, kernel)),
            (Measure::AbstractSockets, abstract_sockets(needs, kernel)),
        ];
        let measures = always.chain(others).map(|(measure, state)| Entry { measure, state }).collect();
        Self { applied: false, measures, notes: Vec::new() }
    }

    pub(super) fn set(&mut self, measure: Measure, state: State) {
        self.measures.iter_mut().filter(|entry| entry.measure == measure).for_each(|entry| entry.state = state.clone());
    }

    /// What Landlock may have a part in does not hold as it should.
    pub(super) fn weaken(&mut self, why: &str) {
        for measure in [Measure::Signals, Measure::MemoryOfOthers, Measure::Files, Measure::AbstractSockets] {
            if self.state(measure) == Some(&State::Enforced) {
                self.set(measure, State::InPart { why: why.into() });
            }
        }
    }

    /// Whether a measure holds, or would.
    pub fn state(&self, measure: Measure) -> Option<&State> {
        self.measures.iter().find(|entry| entry.measure == measure).map(|entry| &entry.state)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut groups, names) = ([const { Vec::new() }; 4], ["in part", "not offered", "not asked for"]);
        for Entry { measure, state } in &self.measures {
            let (group, why) = match state {
                State::Enforced => (0, None),
                State::InPart { why } => (1, Some(why)),
                State::NotOffered { why } => (2, Some(why)),
                State::NotAsked { why } => (3, Some(why)),
            };
            // One reason for several in a row is said once, after the last of them.
            let same = |last: &(Vec<&str>, Option<&String>)| why == last.1;
            let last: Option<&mut (Vec<&str>, Option<&String>)> = groups[group].last_mut();
            match last {
                Some(last) if same(last) => last.0.push(measure.name()),
                _ => groups[group].push((vec![measure.name()], why)),
            }
        }
        let first = if self.applied { "confined" } else { "can be confined" };
        let mut separator = "";
        for (name, group) in std::iter::once(first).chain(names).zip(groups).filter(|(_, group)| !group.is_empty()) {
            let texts = group.into_iter().map(|(names, why)| {
                let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                format!("{}{why}", names.join(", "))
            });
            write!(f, "{separator}{name}: {}", texts.collect::<Vec<_>>().join(", "))?;
            separator = "; ";
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

fn older(abi: i32, needed: i32, linux: &str) -> String {
    format!("Landlock here is of ABI {abi}, and {needed} is needed: Linux {linux}")
}

fn system_calls(kernel: &Kernel) -> State {
    kernel.seccomp.clone().map_or_else(|why| State::NotOffered { why }, |()| State::Enforced)
}

fn signals(kernel: &Kernel) -> State {
    match (&kernel.landlock, &kernel.seccomp) {
        (Ok(ABI_SCOPES..), _) => State::Enforced,
        (_, Ok(())) => State::InPart { why: "programs that it starts cannot signal even themselves; Linux 6.12 tells them apart".into() },
        (Ok(abi), Err(_)) => State::NotOffered { why: older(*abi, ABI_SCOPES, "6.12") },
        (Err(why), Err(_)) => State::NotOffered { why: why.clone() },
    }
}

/// By being in a domain of Landlock's: from ABI 2 on, or 1 where files are confined anyway.
fn memory_of_others(needs: Option<&Needs>, kernel: &Kernel) -> State {
    match (&kernel.landlock, &kernel.seccomp) {
        (Ok(abi), _) if *abi >= ABI_RENAME || needs.is_some() => State::Enforced,
        (_, Ok(())) => State::InPart { why: "by ptrace and process_vm_readv; /proc/PID/mem needs Landlock of Linux 5.19".into() },
        (Ok(abi), Err(_)) => State::NotOffered { why: older(*abi, ABI_RENAME, "5.19") },
        (Err(why), Err(_)) => State::NotOffered { why: why.clone() },
    }
}

fn unsaid() -> State {
    State::NotAsked { why: "the manifest has no `needs`".into() }
}

fn files(needs: Option<&Needs>, kernel: &Kernel) -> State {
    if needs.is_none() {
        return unsaid();
    }
    match (&kernel.landlock, &kernel.seccomp) {
        (Err(why), _) => State::NotOffered { why: why.clone() },
        (Ok(abi @ ..ABI_TRUNCATE), Err(_)) => {
            State::InPart { why: format!("files outside can be cut short; {}", older(*abi, ABI_TRUNCATE, "6.2")) }
        }
        (Ok(_), _) => State::Enforced,
    }
}

fn network(needs: Option<&Needs>, kernel: &Kernel) -> State {
    match needs {
        None => return unsaid(),
        Some(needs) if needs.network => return State::NotAsked { why: "the manifest says that it needs it".into() },
        Some(_) => {}
    }
    match (&kernel.seccomp, &kernel.landlock) {
        (Ok(()), _) => State::Enforced,
        (Err(why), Ok(ABI_NETWORK..)) => State::InPart { why: format!("TCP alone; {why}") },
        (Err(why), _) => State::NotOffered { why: why.clone() },
    }
}

fn abstract_sockets(needs: Option<&Needs>, kernel: &Kernel) -> State {
    match (needs, &kernel.landlock) {
        (None, _) => unsaid(),
        (Some(_), Ok(ABI_SCOPES..)) => State::Enforced,
        (Some(_), Ok(abi)) => State::NotOffered { why: older(*abi, ABI_SCOPES, "6.12") },
        (Some(_), Err(why)) => State::NotOffered { why: why.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(needs: Option<Needs>, landlock: Result<i32, &str>, seccomp: Result<(), &str>) -> String {
        let kernel = Kernel { landlock: landlock.map_err(str::to_owned), seccomp: seccomp.map_err(str::to_owned) };
        Report::of(needs.as_ref(), &kernel).to_string()
    }

    #[test]
    fn kernels_old_and_new_are_reported_in_a_line() {
        let nothing = || Some(Needs::default());
        let lines = [
            line(nothing(), Ok(7), Ok(())),
            line(nothing(), Ok(2), Ok(())),
            line(nothing(), Ok(4), Err("no filters")),
            line(nothing(), Err("no Landlock"), Ok(())),
            line(nothing(), Err("no Landlock"), Err("no filters")),
            line(Some(Needs { network: true, config_paths: true }), Ok(7), Ok(())),
            line(None, Ok(7), Ok(())),
            line(None, Ok(1), Err("no filters")),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_report_survives_its_way_back() {
        let kernel = Kernel { landlock: Ok(3), seccomp: Err("off".into()) };
        let report = Report { applied: true, notes: vec!["x".into()], ..Report::of(None, &kernel) };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(report.to_string().starts_with("confined: privileges, "), "{report}");
        assert!(text.contains(r#"{"measure":"system_calls","state":"not_offered","why":"off"}"#), "{text}");
    }
}
