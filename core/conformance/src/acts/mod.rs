//! What a child tries.

mod callback;
mod cancel;
mod channel;
mod config;
mod create;
mod lifetime;
mod manifest;
mod sizes;
mod source;

use serde_json::Value;

use crate::act::Act;
use crate::report::Outcome;
use crate::stage::{Stage, Stop};

/// What an act that was played to its end gives: a note, and data for the parent.
pub use manifest::library_name;

type Played = Result<(String, Value), Stop>;

/// Does the act of the request.
pub fn perform(stage: &Stage) -> (Outcome, Value) {
    let played = match &stage.request.act {
        Act::Manifest => manifest::manifest(stage),
        Act::ManifestConfined(to) => manifest::confined(stage, *to),
        Act::Sizes { has_config } => sizes::sizes(stage, *has_config),
        Act::Create => create::create(stage),
        Act::CreateConfined(to) => create::confined(stage, *to),
        Act::Configs => config::configs(stage),
        Act::Check => create::check(stage),
        Act::Read(mode) => source::read(stage, *mode),
        Act::ReadUntil { mode, state } => source::read_until(stage, *mode, *state),
        Act::ReadFrom { mode, state } => source::read_from(stage, *mode, state),
        Act::Cancel(trial) => cancel::cancel(stage, *trial),
        Act::Push { dispatch, how } => channel::push(stage, *dispatch, *how),
        Act::Poll(trial) => channel::poll(stage, *trial),
        Act::Callback(trial) => callback::callback(stage, *trial),
        Act::Panic => sizes::panic(stage),
        Act::Remains(trial) => lifetime::remains(stage, *trial),
        Act::Memory(trial) => lifetime::memory(stage, *trial),
        Act::Globals(trial) => lifetime::globals(stage, *trial),
    };
    match played {
        Ok((note, data)) => (Outcome::noted(note), data),
        Err(outcome) => (*outcome, Value::Null),
    }
}

/// Played to its end, with nothing to add.
fn passed() -> Played {
    Ok((String::new(), Value::Null))
}
