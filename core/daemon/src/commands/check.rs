//! `check`: whether a run would start, and with `--connect` whether it would reach everything.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::Schema;
use reunion_host::CallOptions;
use reunion_model::plugin::{Finding, FindingLevel, PluginError};
use reunion_model::schema::{COLUMNS, ColumnType};
use reunion_outreach::Template;
use reunion_rules::rule_schema;
use serde_json::json;

use crate::app::App;
use crate::cli::Exit;
use crate::components;
use crate::config::{Component, Config, Diagnostics, SourceColumns};
use crate::failure::Failure;
use crate::run::campaigns;

/// How long a source or channel may take to answer. A file that is being written is one that takes longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Runs the command.
pub fn check(app: &App, connect: bool) -> Result<Exit, Failure> {
    let config = &app.config;
    let mut findings = Diagnostics::default();
    let mut notes = Vec::new();
    for name in config.sources.keys() {
        // To make one reaches nothing, and says what no schema can.
        if let Err(trouble) = components::source(config, &app.plugins, name) {
            findings.extend(trouble.findings(config, Component::Source, name));
        }
    }
    let channels = components::channels(config, &app.plugins).map_err(|errors| findings.extend(errors)).ok();
    for (name, error) in channels.iter().flat_map(|channels| &channels.failed) {
        findings.extend(components::blame(config, Component::Channel, name, error));
    }
    let channels = channels.map(|channels| channels.made);
    if let Err(errors) = config.master_key() {
        findings.extend(errors);
    }
    let mut known = BTreeMap::new();
    if connect && !findings.has_errors() {
        for name in config.sources.keys() {
            known.insert(name.clone(), reach_source(app, name, &mut findings, &mut notes)?);
        }
        for (name, channel) in channels.iter().flatten() {
            match channel.check(&call()) {
                Ok(found) => note(Component::Channel, name, &found, &mut notes),
                Err(error) => findings.extend(unreached(config, Component::Channel, name, &error)),
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
    let declared = declared.map(|(to, column)| (to.as_str(), column.kind.unwrap_or(ColumnType::Text)));
    let mut columns: Vec<_> = golden.iter().map(|column| (column.name.as_str(), column.kind)).collect();
    for (name, kind) in declared.chain(COLUMNS.iter().map(|column| (column.name, column.kind))) {
        if columns.iter().all(|(known, _)| *known != name) {
            columns.push((name, kind));
        }
    }
    let schema = rule_schema(columns.iter().copied());
    let whole = connect && sources.len() == config.sources.len();
    if let Err(errors) = campaigns::compile(config, &schema) {
        // A column that no source was asked for may still be there.
        let (unsure, wrong): (Vec<_>, Vec<_>) = errors.into_iter().partition(|error| !whole && error.unknown_column.is_some());
        findings.extend(campaigns::rule_errors(config, wrong));
        findings.extend(campaigns::rule_errors(config, unsure).as_warnings());
    }
    let schema = if whole { schema } else { with_columns_of_texts(config, &columns, &mut findings) };
    // What a campaign's channel asks of it is known once the channel is made.
    if let Some(Err(errors)) = channels.map(|channels| campaigns::campaigns(config, &channels, &schema)) {
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

/// The members' columns with those beside them that only campaigns' texts name: without connecting nobody
/// knows whether a source has them.
fn with_columns_of_texts(config: &Config, columns: &[(&str, ColumnType)], findings: &mut Diagnostics) -> Schema {
    let schema = rule_schema(columns.iter().copied());
    let mut further: Vec<String> = Vec::new();
    for (name, of) in &config.campaigns {
        for (key, text) in [("message", &of.message), ("reason", &of.reason)] {
            let errors = text.as_deref().and_then(|text| Template::compile(text, &schema).err()).unwrap_or_default();
            for error in errors {
                if let Some(column) = error.unknown_column.clone() {
                    further.push(column);
                    findings.extend(campaigns::template_error(config, &["campaigns", name, key], error).as_warnings());
                }
            }
        }
    }
    further.sort();
    further.dedup();
    rule_schema(columns.iter().copied().chain(further.iter().map(|column| (column.as_str(), ColumnType::Text))))
}

/// Asks a source for its columns; none where it cannot be reached, which is a finding.
fn reach_source(app: &App, name: &str, findings: &mut Diagnostics, notes: &mut Vec<String>) -> Result<Option<SourceColumns>, Failure> {
    let config = &app.config;
    let connector = match components::source(config, &app.plugins, name) {
        Ok(connector) => connector,
        Err(trouble) => {
            findings.extend(trouble.findings(config, Component::Source, name));
            return Ok(None);
        }
    };
    match connector.check(&call()) {
        Ok(found) => note(Component::Source, name, &found, notes),
        Err(error) => {
            findings.extend(unreached(config, Component::Source, name, &error));
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
            findings.extend(unreached(config, Component::Source, name, &error));
            Ok(None)
        }
    }
}

/// Why a component could not be reached. What may pass by itself, such as a file that is being written,
/// does not make the config wrong.
fn unreached(config: &Config, kind: Component, name: &str, error: &PluginError) -> Diagnostics {
    let blamed = components::blame(config, kind, name, error);
    if error.class.is_transient() { blamed.as_warnings() } else { blamed }
}

fn note(kind: Component, name: &str, found: &[Finding], notes: &mut Vec<String>) {
    let table = kind.table();
    let level = |finding: &Finding| match finding.level {
        FindingLevel::Info => "",
        FindingLevel::Warning => "warning: ",
    };
    notes.extend(found.iter().map(|finding| format!("{}[{table}.{name}] {}", level(finding), finding.message)));
}

fn call() -> CallOptions {
    let deadline = (SystemTime::now() + ANSWER_WITHIN).duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline_unix_ms = u64::try_from(deadline.as_millis()).ok();
    CallOptions { dry_run: true, deadline_unix_ms, run_id: "check".to_owned() }
}
