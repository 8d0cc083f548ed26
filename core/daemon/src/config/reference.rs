//! The pages of `docs/reference`, made from the tables that the code itself uses.

use std::fmt::Write as _;

use clap::CommandFactory;
use reunion_model::schema::{COLUMNS, ColumnType, DERIVED, Survivorship};
use reunion_model::{Gate, GateKind, Reason, TaskState};

use super::keys::{KEYS, Key, Kind, Need};
use crate::cli::{Cli, Exit};

/// A page of `docs/reference`: its file's name and its text.
pub fn pages() -> [(&'static str, String); 4] {
    [("config.md", config()), ("columns.md", columns()), ("reasons.md", reasons()), ("commands.md", commands())]
}

const GENERATED: &str = "<!-- Generated from the code: UPDATE_DOCS=1 cargo test -p reunion-daemon --test config_reference -->\n";

fn config() -> String {
    let mut page = format!("# The config\n{GENERATED}");
    page += "
One TOML file, `/etc/reunion/reunion.toml` unless `--config` names another, and `conf.d/*.toml` beside it in
the order of their names. Their tables are merged; a key that stands in two files is an error. Keys that are
not on this page are errors too. Relative paths are relative to the file that names them. `config/reunion.toml`
is a sample with every part explained, and `reunion check` says what is wrong with a config.
";
    let top = KEYS.iter().filter(|key| key.parent().is_empty());
    page += "\n## Outside of tables\n\n";
    keys_table(&mut page, "", top.filter(|key| !is_table(key)));
    for table in KEYS.iter().filter(|key| is_table(key)) {
        let keys: Vec<_> = super::keys::children(table.path).filter(|key| !is_table(key)).collect();
        let children = super::keys::children(table.path).filter(|key| is_table(key) && key.is_named_by_operator()).count();
        if keys.is_empty() && children > 0 {
            let _ = write!(page, "\n## `[{}]`\n\n{}\n", table.path, table.doc);
            continue;
        }
        if keys.is_empty() && table.kind == Kind::With {
            continue;
        }
        let mark = if table.parent().is_empty() { "##" } else { "###" };
        let _ = write!(page, "\n{mark} `[{}]`\n\n{}\n\n", table.path, table.doc);
        let with = super::keys::children(table.path).filter(|key| key.kind == Kind::With);
        keys_table(&mut page, table.path, keys.into_iter().chain(with));
    }
    page
}

fn is_table(key: &Key) -> bool {
    matches!(key.kind, Kind::Table | Kind::Choice | Kind::Map(_) | Kind::With | Kind::TableOrText(_))
}

fn keys_table<'a>(page: &mut String, _table: &str, keys: impl Iterator<Item = &'a Key>) {
    page.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default = match key.need {
            Need::Required => "needed".to_owned(),
            Need::Optional => "none".to_owned(),
            Need::Default(text) => format!("`{text}`"),
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {} |", key.name(), cell(&key.kind.expected()), cell(key.doc));
    }
}

fn columns() -> String {
    let mut page = format!("# Columns\n{GENERATED}");
    page += "
## Columns of members that sources give

A source's column with one of these names becomes that column; any other is mapped by
`[sources.<name>.columns]`, or kept as a further column under its own name. Beside them a source gives
`record_id`, which tells its rows apart, and `phone`. The survivorship is how a member's value is chosen from
its rows: [below](#how-a-value-is-chosen).

| column | type | survivorship | meaning |
|---|---|---|---|
";
    for column in COLUMNS {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", column.name, column.kind, column.survivorship.name(), cell(column.doc));
    }
    page += "
## How a value is chosen

From the values of a member's rows, by a rule of this list. Nulls never win, and where all are null the value is.
A tie goes to the most recent row: the greater `updated_at`, then the smaller name of the source, then the smaller
`record_id`. None of it depends on the order of rows in an export. `[identity.survivorship]` sets the rule of a column:
`level = \"first\"`, or with what the rule needs, `name = { rule = \"source_priority\", sources = [\"crm\", \"pos\"] }` and
`labels = { rule = \"union\", separator = \",\" }`.

| survivorship | for | the value |
|---|---|---|
";
    for rule in Survivorship::CHOICES {
        let fits: Vec<_> = ColumnType::ALL.into_iter().filter(|kind| rule.fits(*kind)).map(ColumnType::name).collect();
        let fits = if fits.len() == ColumnType::ALL.len() { "all types".to_owned() } else { fits.join(", ") };
        let _ = writeln!(page, "| `{}` | {fits} | {} |", rule.name(), cell(rule.explain()));
    }
    let _ = writeln!(page, "| `consent` | the consent columns | {} |", cell(Survivorship::Consent.explain()));
    page += "
## Types

| type | what is read |
|---|---|
| `text` | UTF-8; spaces at both ends are removed, and empty text is null |
| `integer` | a whole number of 64 bits |
| `decimal` | an amount with two places, in yuan; `unit = \"fen\"` divides by 100 |
| `timestamp` | RFC 3339 with `T` or a space, up to 9 fraction digits and an optional offset; without one, in the column's, the source's or the config's `timezone` |
| `date` | `2026-03-25` |
| `boolean` | `true`, `false`, `1` or `0` |

A value that does not fit its type is null, and is counted.

## Columns that are computed in each run

They depend on the run's clock or on all members, and are never stored.

| column | type | meaning |
|---|---|---|
";
    for derived in DERIVED {
        let _ = writeln!(page, "| `{}` | {} | {} |", derived.name, derived.kind, cell(derived.doc));
    }
    page += "
Each tag `x` gives two more: `x`, a boolean that is never null, and `x_since`, the timestamp of the run since
which the member has had it.
";
    page
}

fn reasons() -> String {
    let mut page = format!("# Reasons, gates and states\n{GENERATED}");
    page += "\n## Why a row is in quarantine\n\n| reason | meaning |\n|---|---|\n";
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.code(), cell(reason.explain()));
    }
    page += "
## Why a member of an audience gets no task

The gates are checked in this order, and the first that says no counts. Permanent ones refuse; then the control
group is drawn; then temporary ones defer to a later run.

| gate | kind | meaning |
|---|---|---|
";
    for gate in Gate::ALL {
        let kind = match gate.kind() {
            GateKind::Permanent => "permanent",
            GateKind::Temporary => "temporary",
        };
        let _ = writeln!(page, "| `{}` | {kind} | {} |", gate.code(), cell(gate.explain()));
    }
    page += "
## Where a task is

| state | may move to |
|---|---|
";
    for state in TaskState::ALL {
        let ever = state.next(false);
        let names = state.next(true).iter().map(|next| match ever.contains(next) {
            true => format!("`{}`", next.name()),
            false => format!("`{}` (if the channel is idempotent, or by `tasks requeue`)", next.name()),
        });
        let names: Vec<_> = names.collect();
        let _ = writeln!(page, "| `{}` | {} |", state.name(), if names.is_empty() { "nothing".to_owned() } else { names.join(", ") });
    }
    page
}

fn commands() -> String {
    let mut page = format!("# Commands\n{GENERATED}\n| exit code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        let _ = writeln!(page, "| {} | {} |", exit.code(), exit.explain());
    }
    // Without the line of each command that `build` adds: `help` is no news on this page.
    let mut command = Cli::command().disable_help_subcommand(true).term_width(100);
    command.build();
    command_help(&mut page, &mut command, "reunion");
    page
}

fn command_help(page: &mut String, command: &mut clap::Command, path: &str) {
    let help = command.render_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for child in command.get_subcommands_mut().filter(|child| !child.is_hide_set()) {
        let path = format!("{path} {}", child.get_name());
        command_help(page, child, &path);
    }
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
