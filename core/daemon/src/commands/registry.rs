//! `sources` and `campaigns` `rename|retire`: what became of a component that left the config.

use reunion_ledger::ComponentKind;
use serde_json::json;

use crate::app::App;
use crate::cli::{ComponentCommand, Exit};
use crate::failure::Failure;
use crate::state::now_us;

use super::operator;

/// Runs the command.
pub fn change(app: &App, kind: ComponentKind, command: ComponentCommand) -> Result<Exit, Failure> {
    let state = app.state()?;
    let hold = state.hold(&app.config)?;
    let in_config = |name: &str| match kind {
        ComponentKind::Source => app.config.sources.contains_key(name),
        ComponentKind::Campaign => app.config.campaigns.contains_key(name),
    };
    let what = kind.name();
    match command {
        ComponentCommand::Rename { from, to } => {
            if !in_config(&to) {
                return Err(Failure::usage(format!("the config has no {what} `{to}`")).help("rename it in the config first"));
            }
            if in_config(&from) {
                return Err(
                    Failure::usage(format!("the config still has the {what} `{from}`")).help("only one that left the config is renamed")
                );
            }
            state.ask(state.ledger.rename(&hold.lease, kind, &from, &to, &operator(), now_us()))?;
            app.print(&json!({ "kind": what, "renamed": from, "to": to }), |_| format!("the {what} `{from}` is `{to}` from now on"))?;
        }
        ComponentCommand::Retire { name } => {
            if in_config(&name) {
                return Err(Failure::usage(format!("the config still has the {what} `{name}`")).help("take it out of the config first"));
            }
            state.ask(state.ledger.retire(&hold.lease, kind, &name, &operator(), now_us()))?;
            app.print(&json!({ "kind": what, "retired": name }), |_| match kind {
                ComponentKind::Source => format!("the source `{name}` is retired; the next run takes its rows out of the members"),
                ComponentKind::Campaign => format!("the campaign `{name}` is retired, and its open tasks were taken back"),
            })?;
        }
    }
    Ok(Exit::Done)
}
