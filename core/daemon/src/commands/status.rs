//! `status`: the last runs, where sources stand, what waits, and whether the plugins are there.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::components;
use crate::config::Component;
use crate::failure::Failure;
use crate::run::short;
use crate::state::moment;

use super::table;

const RUNS_SHOWN: u32 = 10;

/// Runs the command.
pub fn status(app: &App) -> Result<Exit, Failure> {
    let state = app.state()?;
    let zone = &app.config.timezone;
    let head = state.ask(state.ledger.head())?;
    let runs: Vec<Value> = state
        .ask(state.ledger.runs(RUNS_SHOWN))?
        .iter()
        .map(|run| {
            json!({
                "run_id": run.run_id, "pipeline": run.pipeline, "state": run.state.name(), "exit": run.exit_code, "generation": run.generation,
                "started": moment(run.started_us, zone), "finished": run.finished_us.map(|at| moment(at, zone)),
            })
        })
        .collect();
    let mut sources = Vec::new();
    for name in app.config.sources.keys() {
        let known = state.ask(state.ledger.source_state(name))?;
        let read = known.last.as_ref().map(|pull| moment(pull.ended_us.unwrap_or(pull.started_us), zone));
        let as_of = known.last.as_ref().and_then(|pull| pull.as_of_us).map(|at| moment(at, zone));
        sources.push(json!({ "source": name, "last_read": read, "data_of": as_of, "interrupted": known.open.is_some(), "waiting": known.pending.len() }));
    }
    let queues: Vec<Value> = state
        .ask(state.ledger.task_counts(None))?
        .iter()
        .map(|count| json!({ "channel": count.channel, "campaign": count.campaign, "state": count.state, "tasks": count.tasks }))
        .collect();
    let holder = state.ask(state.ledger.holder())?;
    let plugins: Vec<Value> = [(Component::Source, app.config.sources.keys().collect::<Vec<_>>()), (Component::Channel, app.config.channels.keys().collect())]
        .into_iter()
        .flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)))
        .map(|(kind, name)| match components::settings(&app.config, &app.plugins, kind, name) {
            Ok(settings) => json!({ "component": format!("{}.{name}", kind.table()), "plugin": settings.plugin.manifest().name, "version": settings.plugin.manifest().version, "ok": true }),
            Err(error) => json!({ "component": format!("{}.{name}", kind.table()), "ok": false, "error": error.to_string() }),
        })
        .collect();
    let result = json!({
        "generation": head.as_ref().map(|head| head.generation),
        "committed": head.as_ref().map(|head| moment(head.committed_us, zone)),
        "held_by": holder.map(|holder| json!({ "host": holder.host, "pid": holder.pid, "since": moment(holder.since_us, zone) })),
        "runs": runs, "sources": sources, "tasks": queues, "plugins": plugins,
    });
    app.print(&result, text)?;
    Ok(Exit::Done)
}

fn text(status: &Value) -> String {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = match status["generation"].as_u64() {
        None => "no generation yet: `reunion once` makes the first\n".to_owned(),
        Some(number) => format!("generation {number}, committed {}\n", cell(&status["committed"])),
    };
    if let Some(pid) = status["held_by"]["pid"].as_u64() {
        let _ = writeln!(text, "held by process {pid} on {} since {}", cell(&status["held_by"]["host"]), cell(&status["held_by"]["since"]));
    }
    for (key, header, columns) in [
        (
            "runs",
            ["run", "pipeline", "started", "state", "exit", "generation"].as_slice(),
            ["run_id", "pipeline", "started", "state", "exit", "generation"].as_slice(),
        ),
        (
            "sources",
            &["source", "last read", "data of", "interrupted", "waiting"],
            &["source", "last_read", "data_of", "interrupted", "waiting"],
        ),
        ("tasks", &["channel", "campaign", "state", "tasks"], &["channel", "campaign", "state", "tasks"]),
        ("plugins", &["component", "plugin", "version", "error"], &["component", "plugin", "version", "error"]),
    ] {
        let rows = status[key].as_array().cloned().unwrap_or_default();
        if rows.is_empty() {
            continue;
        }
        let mut table = table(header);
        for row in rows {
            table.add_row(columns.iter().map(|column| {
                let cell = cell(&row[*column]);
                if *column == "run_id" { short(&cell).to_owned() } else { cell }
            }));
        }
        let _ = writeln!(text, "\n{table}");
    }
    text
}
