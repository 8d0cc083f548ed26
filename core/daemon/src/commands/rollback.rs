//! `rollback`: back to an earlier generation.

use reunion_ledger::Head;
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
        return Err(no_target(head.generation, &known));
    };
    if target.generation == head.generation {
        return Err(no_target(head.generation, &known));
    }
    // What is gone back to must be there and whole.
    let choose = "`reunion verify --all` says which generations are whole: choose one with --to, or restore this one from a backup";
    let verified = state
        .people
        .verify(&reference(target))
        .map_err(|error| Failure::guard(format!("generation {} cannot be used", target.generation)).because(error).help(choose))?;
    if let Some(damage) = verified.damages.first() {
        return Err(Failure::guard(format!("generation {} is damaged: {damage}", target.generation)).help(choose));
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

fn no_target(head: u64, known: &[Head]) -> Failure {
    let earlier: Vec<String> = known.iter().skip(1).map(|generation| generation.generation.to_string()).collect();
    let help = match earlier.len() {
        0 => format!("generation {head} is the only one"),
        _ => format!("generation {head} is the head; before it there are {}", earlier.join(", ")),
    };
    Failure::usage("there is no such generation to go back to").help(help)
}
