//! `sources` and `campaigns` `rename|retire`: what became of a component that left the config.

use reunion_ledger::{ComponentKind, ComponentState};
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
    let known = state.ask(state.ledger.components())?;
    let is_known = |name: &str| match known.iter().any(|known| known.kind == kind && known.name == name && known.retired_us.is_none()) {
        true => Ok(()),
        false => Err(unknown(kind, name, &known)),
    };
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
            is_known(&from)?;
            if known.iter().any(|known| known.kind == kind && known.name == to) {
                return Err(Failure::usage(format!("the state knows a {what} `{to}` already"))
                    .help("give it a name that no earlier one had, in the config and here"));
            }
            state.ask(state.ledger.rename(&hold.lease, kind, &from, &to, &operator(), now_us()))?;
            app.print(&json!({ "kind": what, "renamed": from, "to": to }), |_| format!("the {what} `{from}` is `{to}` from now on"))?;
        }
        ComponentCommand::Retire { name } => {
            if in_config(&name) {
                return Err(Failure::usage(format!("the config still has the {what} `{name}`")).help("take it out of the config first"));
            }
            is_known(&name)?;
            state.ask(state.ledger.retire(&hold.lease, kind, &name, &operator(), now_us()))?;
            app.print(&json!({ "kind": what, "retired": name }), |_| match kind {
                ComponentKind::Source => format!("the source `{name}` is retired; the next run takes its rows out of the members"),
                ComponentKind::Campaign => format!("the campaign `{name}` is retired, and its open tasks were taken back"),
            })?;
        }
    }
    Ok(Exit::Done)
}

/// The state has no component of this name; those that it has are named.
fn unknown(kind: ComponentKind, name: &str, known: &[ComponentState]) -> Failure {
    let live = known.iter().filter(|known| known.kind == kind && known.retired_us.is_none());
    let names: Vec<String> = live.map(|known| format!("`{}`", known.name)).collect();
    let help = if names.is_empty() { "no run has committed any yet".to_owned() } else { format!("it knows {}", names.join(", ")) };
    Failure::usage(format!("the state knows no {} `{name}`", kind.name())).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_with_those_that_are_there() {
        let state = |kind, name: &str, retired_us| ComponentState {
            kind,
            name: name.to_owned(),
            origin: name.to_owned(),
            seed: None,
            since_us: 0,
            retired_us,
        };
        let known = [
            state(ComponentKind::Source, "till", None),
            state(ComponentKind::Source, "fax", Some(1)),
            state(ComponentKind::Campaign, "warm-add", None),
        ];
        let failure = unknown(ComponentKind::Source, "tlil", &known);
        insta::assert_snapshot!(failure.render(false), @r"
        error: the state knows no source `tlil`
          help: it knows `till`
        ");
        assert_eq!(failure.exit(), Exit::Usage);
        insta::assert_snapshot!(unknown(ComponentKind::Campaign, "x", &[]).render(false), @r"
        error: the state knows no campaign `x`
          help: no run has committed any yet
        ");
    }
}
