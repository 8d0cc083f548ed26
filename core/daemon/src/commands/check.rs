//! `check`: whether a run would start, and with `--connect` whether it would reach everything.

use std::collections::BTreeMap;

use reunion_host::CallOptions;
use reunion_model::plugin::Finding;
use reunion_model::schema::COLUMNS;
use reunion_rules::rule_schema;
use serde_json::json;

use crate::app::App;
use crate::cli::Exit;
use crate::components;
use crate::config::{Component, Diagnostics, SourceColumns};
use crate::failure::Failure;
use crate::run::campaigns;

/// Runs the command.
pub fn check(app: &App, connect: bool) -> Result<Exit, Failure> {
    let config = &app.config;
    let mut findings = Diagnostics::default();
    let mut notes = Vec::new();
    for name in config.sources.keys() {
        if let Err(errors) = components::settings(config, &app.plugins, Component::Source, name) {
            findings.extend(errors);
        }
    }
    let channels = components::channels(config, &app.plugins).map_err(|errors| findings.extend(errors));
    if findings.has_errors() {
        return Err(findings.into());
    }
    let channels = channels.unwrap_or_default();
    config.master_key()?;
    let mut known = BTreeMap::new();
    if connect {
        for name in config.sources.keys() {
            known.insert(name.clone(), reach_source(app, name, &mut findings, &mut notes)?);
        }
        for (name, channel) in &channels {
            match channel.check(&call()) {
                Ok(found) => note(Component::Channel, name, &found, &mut notes),
                Err(error) => findings.extend(components::blame(config, Component::Channel, name, &error)),
            }
        }
    }
    // Without connecting, a column that is neither canonical nor mapped may still be one of a source's own.
    let sources: Vec<(&str, &SourceColumns)> =
        known.iter().filter_map(|(name, columns)| Some((name.as_str(), columns.as_ref()?))).collect();
    let golden = config.member_columns(&sources)?;
    let declared = config.sources.values().flat_map(|source| source.columns.iter());
    let declared =
        declared.filter(|(to, _)| reunion_model::schema::canonical(to).is_none() && !matches!(to.as_str(), "phone" | "record_id"));
    let declared = declared.map(|(to, column)| (to.as_str(), column.kind.unwrap_or(reunion_model::schema::ColumnType::Text)));
    let mut columns: Vec<_> = golden.iter().map(|column| (column.name.as_str(), column.kind)).collect();
    for (name, kind) in declared.chain(COLUMNS.iter().map(|column| (column.name, column.kind))) {
        if columns.iter().all(|(known, _)| *known != name) {
            columns.push((name, kind));
        }
    }
    let schema = rule_schema(columns);
    let whole = connect && sources.len() == config.sources.len();
    if let Err(errors) = campaigns::compile(config, &schema) {
        // A column that no source was asked for may still be there.
        let (unsure, wrong): (Vec<_>, Vec<_>) = errors.into_iter().partition(|error| !whole && error.unknown_column.is_some());
        findings.extend(campaigns::rule_errors(config, wrong));
        findings.extend(campaigns::rule_errors(config, unsure).as_warnings());
    }
    if let Err(errors) = campaigns::campaigns(config, &channels, &schema) {
        findings.extend(errors);
    }
    if findings.has_errors() {
        return Err(findings.into());
    }
    let warnings = findings.to_json();
    app.print(&json!({ "ok": true, "connected": connect, "warnings": warnings, "notes": notes }), |_| {
        let mut text = String::new();
        if !findings.is_empty() {
            text.push_str(&findings.render(false));
            text.push_str("\n\n");
        }
        for note in &notes {
            text.push_str(note);
            text.push('\n');
        }
        let counts = (config.sources.len(), config.campaigns.len(), config.channels.len());
        text.push_str(&format!("the config is right: {} sources, {} campaigns, {} channels", counts.0, counts.1, counts.2));
        if !connect {
            text.push_str("; `check --connect` reaches them too");
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Asks a source for its columns; none where it cannot be reached, which is a finding.
fn reach_source(app: &App, name: &str, findings: &mut Diagnostics, notes: &mut Vec<String>) -> Result<Option<SourceColumns>, Failure> {
    let config = &app.config;
    let connector = components::source(config, &app.plugins, name)?;
    match connector.check(&call()) {
        Ok(found) => note(Component::Source, name, &found, notes),
        Err(error) => {
            findings.extend(components::blame(config, Component::Source, name, &error));
            return Ok(None);
        }
    }
    match connector.schema(&call()) {
        Ok(schema) => match config.source_columns(name, &schema) {
            Ok(columns) => Ok(Some(columns)),
            Err(errors) => {
                findings.extend(errors);
                Ok(None)
            }
        },
        Err(error) => {
            findings.extend(components::blame(config, Component::Source, name, &error));
            Ok(None)
        }
    }
}

fn note(kind: Component, name: &str, found: &[Finding], notes: &mut Vec<String>) {
    let table = kind.table();
    notes.extend(found.iter().map(|finding| format!("[{table}.{name}] {}", finding.message)));
}

fn call() -> CallOptions {
    CallOptions { dry_run: true, deadline_unix_ms: None, run_id: "check".to_owned() }
}
