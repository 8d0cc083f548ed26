//! `status`: the last runs, where sources stand, what waits, and whether the plugins are there.

use std::fmt::Write as _;

use reunion_host::{Health, HealthState, Part};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::components;
use crate::config::Component;
use crate::failure::Failure;
use crate::run::short;
use crate::state::{State, may_be_alive, moment, now_us};

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
    let sources = app.config.sources.keys().map(|name| source(app, &state, name)).collect::<Result<Vec<_>, _>>()?;
    let outbox = app.config.channels.keys().map(|name| outbox(app, &state, name)).collect::<Result<Vec<_>, _>>()?;
    let queues: Vec<Value> = state
        .ask(state.ledger.task_counts(None))?
        .iter()
        .map(|count| json!({ "channel": count.channel, "campaign": count.campaign, "state": count.state, "tasks": count.tasks }))
        .collect();
    let holder = state.ask(state.ledger.holder())?.filter(may_be_alive);
    let plugins: Vec<Value> =
        [(Component::Source, app.config.sources.keys().collect::<Vec<_>>()), (Component::Channel, app.config.channels.keys().collect())]
            .into_iter()
            .flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)))
            .flat_map(|(kind, name)| [Some(plugin(app, kind, name, Part::Work)), callbacks(app, kind, name)])
            .flatten()
            .collect();
    let result = json!({
        "generation": head.as_ref().map(|head| head.generation),
        "committed": head.as_ref().map(|head| moment(head.committed_us, zone)),
        "held_by": holder.map(|holder| json!({ "host": holder.host, "pid": holder.pid, "since": moment(holder.since_us, zone) })),
        "runs": runs, "sources": sources, "outbox": outbox, "tasks": queues, "plugins": plugins,
    });
    app.print(&result, text)?;
    Ok(Exit::Done)
}

/// The worker of a channel that is for requests from outside, where there was one.
fn callbacks(app: &App, kind: Component, name: &str) -> Option<Value> {
    let part = Part::Callbacks;
    let is_there = app.config.http.listen.is_some() && app.plugins.health(components::plugin_kind(kind), name, part).is_some();
    is_there.then(|| plugin(app, kind, name, part))
}

/// A part of a component's plugin: whether it can be used, and how its worker is, or what became of it.
fn plugin(app: &App, kind: Component, name: &str, part: Part) -> Value {
    let of = match part {
        Part::Work => "",
        Part::Callbacks => ", callbacks",
    };
    let component = format!("{}.{name}{of}", kind.table());
    let settings = components::settings(&app.config, &app.plugins, kind, name);
    let health = app.plugins.health(components::plugin_kind(kind), name, part);
    let state = health.as_ref().map_or_else(|| "not started yet".to_owned(), in_words);
    match settings {
        Err(trouble) => {
            let error = trouble.findings(&app.config, kind, name).to_string();
            json!({ "component": component, "ok": false, "state": state, "error": error, "health": health })
        }
        Ok(settings) => {
            let manifest = settings.plugin.manifest();
            let ok = !health.as_ref().is_some_and(|health| matches!(health.state, HealthState::Failed { .. }));
            let (plugin, version) = (&manifest.name, &manifest.version);
            json!({ "component": component, "plugin": plugin, "version": version, "ok": ok, "state": state, "health": health })
        }
    }
}

/// How a component is: `failed: signal 11, restarts 3/5, next try in 40 s`.
fn in_words(health: &Health) -> String {
    match &health.state {
        HealthState::Running { pid: Some(pid), .. } => format!("running, process {pid}"),
        HealthState::Running { pid: None, .. } => "running in the daemon's process".to_owned(),
        HealthState::Ended => "not needed now".to_owned(),
        HealthState::Failed { why, next_try_us } => {
            let next_secs = next_try_us.saturating_sub(now_us()).max(0).unsigned_abs().div_ceil(1_000_000);
            let next = if next_secs == 0 { "tried again when it is needed".to_owned() } else { format!("next try in {next_secs} s") };
            format!("failed: {why}, restarts {}/{}, {next}", health.restarts, health.restarts_max)
        }
    }
}

/// Where a source stands. Its cursor says no more than what the source calls a position, and is for programs.
fn source(app: &App, state: &State, name: &str) -> Result<Value, Failure> {
    let zone = &app.config.timezone;
    let known = state.ask(state.ledger.source_state(name))?;
    let last = known.last.as_ref();
    let as_of_us = last.map(|pull| pull.as_of_us.unwrap_or(pull.started_us));
    let max_age_us = i64::from(app.config.sources[name].max_age_hours) * 3_600_000_000;
    Ok(json!({
        "source": name,
        "last_read": last.map(|pull| moment(pull.ended_us.unwrap_or(pull.started_us), zone)),
        "data_of": as_of_us.map(|at| moment(at, zone)),
        "stale": as_of_us.is_some_and(|at| now_us().saturating_sub(at) > max_age_us),
        "interrupted": known.open.is_some(),
        "waiting": known.pending.len(),
        "cursor": last.and_then(|pull| pull.state.clone()),
    }))
}

/// What a channel has to send: due now, under way, and when there is more.
fn outbox(app: &App, state: &State, channel: &str) -> Result<Value, Failure> {
    let due = state.ask(state.ledger.due(channel, now_us()))?;
    let tasks: u64 = due.groups.iter().map(|group| group.tasks).sum();
    let next = due.next_us.map(|at| moment(at, &app.config.timezone));
    Ok(json!({ "channel": channel, "due": tasks, "dispatches": due.in_flight, "next": next }))
}

fn text(status: &Value) -> String {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
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
            &["source", "last read", "data of", "stale", "interrupted", "waiting"],
            &["source", "last_read", "data_of", "stale", "interrupted", "waiting"],
        ),
        ("outbox", &["outbox", "due", "under way", "next"], &["channel", "due", "dispatches", "next"]),
        ("tasks", &["channel", "campaign", "state", "tasks"], &["channel", "campaign", "state", "tasks"]),
        ("plugins", &["component", "plugin", "version", "state", "error"], &["component", "plugin", "version", "state", "error"]),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(status: &Value) -> String {
        text(status).lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn an_empty_state_says_what_to_do() {
        let empty = json!({ "generation": null, "held_by": null, "runs": [], "sources": [], "outbox": [], "tasks": [], "plugins": [] });
        insta::assert_snapshot!(lines(&empty), @"no generation yet: `reunion once` makes the first");
    }

    #[test]
    fn everything_is_in_columns() {
        let status = json!({
            "generation": 7, "committed": "2026-09-21T22:30:00+08:00",
            "held_by": { "host": "till-1", "pid": 42, "since": "2026-09-21T22:00:00+08:00" },
            "runs": [{ "run_id": "0123456789abcdef0123456789abcdef", "pipeline": "daily", "started": "2026-09-21T22:30:00+08:00",
                       "finished": null, "state": "running", "exit": null, "generation": null }],
            "sources": [{ "source": "pos", "last_read": "2026-09-21T22:30:00+08:00", "data_of": "2026-09-21T20:00:00+08:00", "stale": false,
                          "interrupted": true, "waiting": 0, "cursor": { "files": 1 } }],
            "outbox": [{ "channel": "list", "due": 3, "dispatches": 0, "next": "2026-09-22T09:00:00+08:00" }],
            "tasks": [{ "channel": "list", "campaign": "warm-add", "state": "planned", "tasks": 3 }],
            "plugins": [{ "component": "sources.pos", "plugin": "file", "version": "0.1.0", "ok": true, "state": "failed: signal 11 (segmentation fault), restarts 3/5, next try in 4 s" }],
        });
        insta::assert_snapshot!(lines(&status));
    }
}
