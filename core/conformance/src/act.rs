//! What the suite's two kinds of process say to each other, and the child's side of it.
//!
//! The parent writes one [`Request`] to the child's standard input. The child writes a [`Word`] a line to what was its
//! standard output, and the last one says what came of the act. Where it never comes, the plugin has ended the process,
//! and the last thing that was being done is to blame.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use reunion_host::probe;
use reunion_model::plugin::{PluginKind, ReadMode};
use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::acts;
use crate::confine::Confinement;
use crate::report::Outcome;
use crate::rows::Rows;
use crate::stage::Stage;

/// Bytes of a request: a config, and a resume state.
const REQUEST_BYTES_MAX: u64 = 8 << 20;

/// What a child is to try, and on what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The library's file.
    pub library: PathBuf,
    /// A folder in which it has the name that a host looks for.
    pub folder: PathBuf,
    /// By its manifest. A source before that is known.
    pub kind: PluginKind,
    /// By its manifest. Empty before that is known.
    pub name: String,
    /// The component's `with` table, with its secrets in it.
    pub config: Value,
    /// Eight hex digits of this trial, in the ids of everything that is pushed.
    pub run: String,
    /// What to try.
    pub act: Act,
}

/// What to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The manifest's text, and what is wrong with it.
    Manifest,
    /// The manifest's text, and nothing else may be done for it.
    ManifestConfined(Confinement),
    /// Tables and structs of other sizes; those that need an instance too, where there is a config.
    Sizes {
        /// Whether there is a config that fits.
        has_config: bool,
    },
    /// Makes an instance.
    Create,
    /// Makes an instance, and nothing else may be done for it.
    CreateConfined(Confinement),
    /// Configs that are wrong.
    Configs,
    /// Checks, in time and with a deadline that has passed. Data: the [`ChannelTraits`](reunion_model::plugin::ChannelTraits).
    Check,
    /// Reads everything, twice. Data: a [`WholeRead`].
    Read(ReadMode),
    /// Reads up to this state, one item further, and stays there. Progress: a [`PartRead`].
    ReadUntil {
        /// How.
        mode: ReadMode,
        /// The number of the state, from 1.
        state: u64,
    },
    /// Goes on where an earlier read was cut off. Data: a [`RestRead`].
    ReadFrom {
        /// How.
        mode: ReadMode,
        /// Its latest state.
        state: Value,
    },
    /// Cancels calls that run, and lets go of streams that are not read to their end.
    Cancel(Trial),
    /// Pushes one dispatch. Data: [`Answered`].
    Push {
        /// Which.
        dispatch: Dispatch,
        /// How it is done.
        how: HowToPush,
    },
    /// Polls twice, and beside a push where the plugin allows it.
    Poll(Trial),
    /// Answers requests from outside that make no sense, beside a push too.
    Callback(Trial),
    /// Makes an instance panic, where that can be done.
    Panic,
    /// Uses an instance and looks at what is left after it.
    Remains(Trial),
    /// Uses many instances one after the other.
    Memory(Trial),
    /// Uses an instance and looks at what belongs to the process.
    Globals(Trial),
}

/// How an instance may be used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Trial {
    /// How a source is read.
    pub mode: ReadMode,
    /// How long a whole read or push took, in milliseconds.
    pub whole_ms: u64,
    /// Whether a push may be no dry run.
    pub sends: bool,
    /// The number of the first dispatch that nobody else uses; there is room for a hundred.
    pub first_dispatch: u32,
}

/// A dispatch of invented tasks. The same numbers are the same dispatch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Dispatch {
    /// Its number.
    pub number: u32,
    /// How many tasks.
    pub tasks: usize,
}

/// How a dispatch is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HowToPush {
    /// To its end.
    Whole,
    /// To its end, as a dry run without the network.
    DryRun,
    /// Up to the stream, of which nothing is read; then it stays there.
    UntilStream,
    /// Up to the first receipts; then it stays there.
    UntilReceipts,
}

/// A read to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WholeRead {
    /// Its rows, the rejected ones too.
    pub rows: Rows,
    /// Resume states before the last row.
    pub states: u64,
    /// How long it took.
    pub millis: u64,
}

/// A read that was cut off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartRead {
    /// The rows that the state covers.
    pub rows: Rows,
    /// The state.
    pub state: Value,
}

/// A read that went on, or began anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestRead {
    /// Whether the rows up to the state still count.
    pub resumed: bool,
    /// The rows that came.
    pub rows: Rows,
}

/// What became of a dispatch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answered {
    /// How many tasks have a receipt of each verdict, by its name.
    pub verdicts: std::collections::BTreeMap<String, usize>,
    /// The ids of the tasks that were taken.
    pub accepted: Vec<String>,
    /// How long it took.
    pub millis: u64,
}

/// What a child says, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// What it does from now on, and how long that may take before it says the next word.
    Doing {
        /// In words that fit after "while".
        what: String,
        /// Milliseconds.
        within_ms: u64,
    },
    /// It is where it was to stay.
    Stays(Value),
    /// The end.
    Done {
        /// What came of it.
        outcome: Outcome,
        /// What the act was for.
        data: Value,
        /// Where the plugin said a phone number.
        phones: Vec<String>,
    },
}

/// What a child does: it reads one request from standard input, does the act, and says what came of it on what is
/// standard output when it is called. The exit code.
pub fn act() -> u8 {
    match prepare() {
        Ok(stage) => {
            let (outcome, data) = acts::perform(&stage);
            stage.done(outcome, data);
            0
        }
        Err(error) => {
            // Nobody but the suite starts a child, and it shows what is written here.
            let _ = writeln!(io::stderr(), "a case of the suite cannot be tried: {error}");
            1
        }
    }
}

fn prepare() -> io::Result<Stage> {
    let lines = probe::take_stdout()?;
    // A plugin that crashes leaves no image of the memory, which holds the config's secrets.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        return Err(io::Error::other("whoever started it has ended"));
    }
    let mut request = Vec::new();
    io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_end(&mut request)?;
    Ok(Stage::new(serde_json::from_slice(&request)?, lines))
}
