//! The commands: each reads or changes one thing and says what came of it.

mod check;
mod explain;
pub mod key;
mod lines;
mod members;
pub mod plugins;
mod query;
mod registry;
mod rollback;
mod runs;
mod service;
mod status;
mod suppress;
mod tasks;
mod verify;
mod view;

pub use suppress::phone_rules;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::app::App;
use crate::cli::{Command, Exit};
use crate::failure::Failure;

/// Runs a command.
///
/// # Errors
/// Why it ended early.
pub fn execute(app: &App, command: Command) -> Result<Exit, Failure> {
    use reunion_ledger::ComponentKind::{Campaign, Source};
    match command {
        Command::Check { connect } => check::check(app, connect),
        Command::Plan(args) => runs::plan(app, &args),
        Command::Once(args) => runs::once(app, &args),
        Command::Run => service::run(app),
        Command::Status => status::status(app),
        Command::Explain { who } => explain::explain(app, &who),
        Command::Query { sql } => query::query(app, &sql),
        Command::Tasks(command) => tasks::tasks(app, command),
        Command::Plugins(command) => plugins::plugins(app, command),
        Command::Members(command) => members::members(app, command),
        Command::Suppress(command) => suppress::suppress(app, command),
        Command::Sources(command) => registry::change(app, Source, command),
        Command::Campaigns(command) => registry::change(app, Campaign, command),
        Command::Rollback { to } => rollback::rollback(app, to),
        Command::Key(command) => key::key(app, command),
        Command::Verify { generation, all } => verify::verify(app, generation, all),
        Command::PluginCase => Err(Failure::usage("a case of `plugins verify` is tried before there is a config")),
    }
}

/// Who gives an order: the user of the system, for the audit.
fn operator() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// A table without lines.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    table
}
