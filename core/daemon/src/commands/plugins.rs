//! `plugins ls|show`.

use std::fmt::Write as _;

use reunion_host::Listed;
use reunion_model::plugin::PluginKind;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Exit, PluginsCommand};
use crate::failure::Failure;

use super::table;

/// Runs the command.
pub fn plugins(app: &App, command: PluginsCommand) -> Result<Exit, Failure> {
    match command {
        PluginsCommand::Ls => ls(app),
        PluginsCommand::Show { name, kind } => show(app, &name, kind),
    }
}

fn row(listed: &Listed) -> Value {
    let manifest = listed.manifest.as_ref();
    json!({
        "name": listed.name,
        "kind": listed.kind,
        "version": manifest.map(|manifest| manifest.version.clone()).ok(),
        "abi": manifest.map(|manifest| manifest.abi).ok(),
        "summary": manifest.map(|manifest| manifest.summary.clone()).ok(),
        "path": listed.path,
        "shadowed_by": listed.shadowed_by,
        "error": manifest.err().map(ToString::to_string),
    })
}

fn ls(app: &App) -> Result<Exit, Failure> {
    let found = app.plugins.list();
    let rows: Vec<Value> = found.iter().map(row).collect();
    app.print(&rows, |_| {
        let mut table = table(&["plugin", "kind", "version", "", "library"]);
        for listed in &found {
            let (version, note) = match (&listed.manifest, &listed.shadowed_by) {
                (Ok(manifest), None) => (manifest.version.clone(), manifest.summary.clone()),
                (Ok(manifest), Some(first)) => (manifest.version.clone(), format!("not used: {} comes first", first.display())),
                (Err(error), _) => (String::new(), error.to_string()),
            };
            table.add_row([listed.name.clone(), listed.kind.name().to_owned(), version, note, listed.path.display().to_string()]);
        }
        let dirs: Vec<String> = app.plugins.dirs().iter().map(|dir| dir.display().to_string()).collect();
        format!("{table}\n\nlooked in: {}", dirs.join(", "))
    })?;
    Ok(Exit::Done)
}

fn show(app: &App, name: &str, kind: Option<PluginKind>) -> Result<Exit, Failure> {
    let wanted = |listed: &&Listed| listed.name == name && kind.is_none_or(|kind| listed.kind == kind) && listed.shadowed_by.is_none();
    let listed = app.plugins.list();
    let found: Vec<&Listed> = listed.iter().filter(wanted).collect();
    if found.is_empty() {
        return Err(Failure::usage(format!("there is no plugin `{name}`")).help("`reunion plugins ls` lists those that are installed"));
    }
    let rows: Vec<Value> = found
        .iter()
        .map(|listed| {
            let mut row = row(listed);
            if let Ok(manifest) = &listed.manifest {
                row["config_schema"] = manifest.config_schema.clone();
                row["sample"] = manifest.sample.clone().into();
                row["capabilities"] = serde_json::to_value(&manifest.capabilities).unwrap_or_default();
            }
            row
        })
        .collect();
    app.print(&rows, |_| found.iter().map(|listed| text(listed)).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}

fn text(listed: &Listed) -> String {
    let mut text = format!("{} {}  {}\n", listed.kind.name(), listed.name, listed.path.display());
    match &listed.manifest {
        Err(error) => {
            let _ = writeln!(text, "  cannot be used: {error}");
        }
        Ok(manifest) => {
            let _ = writeln!(text, "{} (version {}, ABI {}.{})\n", manifest.summary, manifest.version, manifest.abi[0], manifest.abi[1]);
            text.push_str(&manifest.sample);
        }
    }
    text
}
