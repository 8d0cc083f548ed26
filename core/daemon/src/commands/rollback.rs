//! `rollback`: back to an earlier generation.

use serde_json::json;

use crate::app::App;
use crate::cli::Exit;
use crate::failure::Failure;
use crate::state::{now_us, reference};

use super::operator;

/// Runs the command.
pub fn rollback(app: &App, to: Option<u64>) -> Result<Exit, Failure> {
    let state = app.state()?;
    let hold = state.hold(&app.config)?;
    let known = state.ask(state.ledger.generations(1_000))?;
    let Some(head) = known.first() else {
        return Err(Failure::usage("there is no generation yet").help("run `reunion once` first"));
    };
    let Some(target) = (match to {
        Some(number) => known.iter().find(|generation| generation.generation == number),
        None => known.get(1),
    }) else {
        let numbers: Vec<String> = known.iter().map(|generation| generation.generation.to_string()).collect();
        return Err(Failure::usage("there is no such generation to go back to").help(format!("there are {}", numbers.join(", "))));
    };
    // What is gone back to must be there and whole.
    let damages = state.people.verify(&reference(target)).map_err(|error| {
        Failure::guard(format!("generation {} cannot be used", target.generation)).because(error).help("choose an earlier one")
    })?;
    if let Some(damage) = damages.first() {
        return Err(Failure::guard(format!("generation {} is damaged: {damage}", target.generation)).help("choose an earlier one"));
    }
    let done = state.ask(state.ledger.rollback(&hold.lease, target.generation, &operator(), now_us()))?;
    let result = json!({
        "from": done.from, "to": target.generation, "pulls_to_replay": done.pulls_to_replay, "tasks_cancelled": done.tasks_cancelled, "head_was": head.generation,
    });
    app.print(&result, |_| {
        format!(
            "generation {} is the head again; the next run takes in {} pulls anew, and {} open tasks were taken back",
            target.generation, done.pulls_to_replay, done.tasks_cancelled
        )
    })?;
    Ok(Exit::Done)
}
