//! `verify`: every byte of a generation against its manifest.

use serde_json::json;

use crate::app::App;
use crate::cli::Exit;
use crate::failure::Failure;
use crate::state::reference;

/// Runs the command.
pub fn verify(app: &App, generation: Option<u64>) -> Result<Exit, Failure> {
    let state = app.state()?;
    let known = state.ask(state.ledger.generations(1_000))?;
    let wanted = match generation {
        None => known.first(),
        Some(number) => known.iter().find(|known| known.generation == number),
    };
    let Some(wanted) = wanted else {
        let numbers: Vec<String> = known.iter().map(|known| known.generation.to_string()).collect();
        let help =
            if numbers.is_empty() { "`reunion once` makes the first".to_owned() } else { format!("there are {}", numbers.join(", ")) };
        return Err(Failure::usage("there is no such generation").help(help));
    };
    let damages = state.people.verify(&reference(wanted)).map_err(|error| {
        Failure::guard(format!("generation {} cannot be read", wanted.generation))
            .because(error)
            .help("restore it from a backup, or go back with `reunion rollback`")
    })?;
    let lines: Vec<String> = damages.iter().map(ToString::to_string).collect();
    app.print(&json!({ "generation": wanted.generation, "damages": lines }), |_| match lines.len() {
        0 => format!("generation {} is whole", wanted.generation),
        count => format!("generation {} has {count} damaged files:\n  {}", wanted.generation, lines.join("\n  ")),
    })?;
    Ok(if lines.is_empty() { Exit::Done } else { Exit::Refused })
}
