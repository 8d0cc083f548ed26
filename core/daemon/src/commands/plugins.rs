//! `plugins ls|show|new|verify`.

mod new;
mod templates;
mod verify;

use std::fmt::Write as _;

use reunion_host::{Listed, confine};
use reunion_model::plugin::{Needs, PluginKind};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Exit, Format, PluginsCommand};
use crate::failure::{Doing, Failure};

use super::table;

/// Runs the command.
pub fn plugins(app: &App, command: PluginsCommand) -> Result<Exit, Failure> {
    match command {
        PluginsCommand::Ls { rescan } => ls(app, rescan),
        PluginsCommand::Show { name, kind } => show(app, &name, kind),
        PluginsCommand::New(args) => new::new(&args, app.format),
        PluginsCommand::Verify { library, config, send } => verify::verify(&library, config.as_deref(), send, app.format),
    }
}

/// The commands that need no config of the program; `None` for the others.
pub fn without_config(command: &PluginsCommand, format: Format) -> Option<Result<Exit, Failure>> {
    match command {
        PluginsCommand::New(args) => Some(new::new(args, format)),
        PluginsCommand::Verify { library, config, send } => Some(verify::verify(library, config.as_deref(), *send, format)),
        _ => None,
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

fn ls(app: &App, rescan: bool) -> Result<Exit, Failure> {
    if rescan {
        app.plugins.forget_quarantine().doing(|| "what is remembered of libraries that crashed cannot be forgotten".to_owned())?;
    }
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
                row["needs"] = serde_json::to_value(&manifest.needs).unwrap_or_default();
                row["confinement"] = serde_json::to_value(confine::offered_to(manifest.needs.as_ref())).unwrap_or_default();
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
            let _ = writeln!(text, "needs: {}", needs(manifest.needs.as_ref()));
            if manifest.capabilities.callback {
                let _ = writeln!(text, "takes requests from outside, at /callback/ and the channel's name: see [http] of the config");
            }
            let _ = writeln!(text, "in a process of its own, {}\n", confine::offered_to(manifest.needs.as_ref()));
            text.push_str(&manifest.sample);
        }
    }
    text
}

/// What a plugin says that it needs of the machine.
fn needs(needs: Option<&Needs>) -> &'static str {
    match needs {
        None => "it does not say, so it is kept from no file and no network",
        Some(Needs { network: false, config_paths: false }) => "nothing of this machine",
        Some(Needs { network: false, config_paths: true }) => "the files that its config names",
        Some(Needs { network: true, config_paths: false }) => "the network",
        Some(Needs { network: true, config_paths: true }) => "the network, and the files that its config names",
    }
}
