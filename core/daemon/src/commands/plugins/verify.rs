//! `plugins verify`: the conformance suite on one library.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use comfy_table::ContentArrangement;
use reunion_conformance::{Outcome, Program, Report, Suite};
use serde_json::{Value, json};

use crate::app;
use crate::cli::{Exit, Format};
use crate::commands::table;
use crate::config::Alone;
use crate::failure::{Doing, Failure};

/// The hidden command that a case is.
const CASE: &str = "plugin-case";
/// Characters of a line of the table.
const WIDTH: u16 = 118;

/// Tries what the plugin in this library must do. `config` holds its `with` table.
pub fn verify(library: &Path, config: Option<&Path>, send: bool, format: Format) -> Result<Exit, Failure> {
    let path = std::env::current_exe().doing(|| "the program does not know where it is".to_owned())?;
    let program = Program { path, arguments: vec![CASE.to_owned()] };
    let suite = Suite::begin(program, library).doing(|| format!("{} cannot be tried", library.display()))?;
    let table = config.map(Alone::read).transpose()?;
    let config = match (table, suite.manifest()) {
        (Some(table), Some(manifest)) => Some(table.values(&manifest.config_schema)?),
        _ => None,
    };
    let plugin = suite.manifest().map(|manifest| json!({ "name": manifest.name, "kind": manifest.kind, "version": manifest.version }));
    let report = suite.run(config, send, |row| {
        // It takes a while.
        if io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "{} {}", row.case, row.outcome.word());
        }
    });
    let [passed, failed, skipped] = report.counts();
    let document = json!({
        "library": library,
        "plugin": plugin,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "cases": report.cases,
    });
    app::print(format, &document, |document| text(document, &report))?;
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn text(document: &Value, report: &Report) -> String {
    let mut table = table(&["case", "", "what is tried"]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    let mut reason = "";
    for row in &report.cases {
        let seen = match &row.outcome {
            Outcome::Passed { note } if note.is_empty() => row.tries.to_owned(),
            Outcome::Passed { note } => format!("{}: {note}", row.tries),
            Outcome::Failed { seen, rule } if rule.is_empty() => seen.clone(),
            Outcome::Failed { seen, rule } => format!("{seen}\nthe rule: {rule}"),
            Outcome::Skipped { why } if why == reason => "for the same reason".to_owned(),
            Outcome::Skipped { why } => why.clone(),
        };
        if let Outcome::Skipped { why } = &row.outcome {
            reason = why;
        }
        table.add_row([row.case, row.outcome.word(), &seen]);
    }
    let [passed, failed, skipped] = report.counts();
    let plugin = match document["plugin"].as_object() {
        Some(plugin) => format!("{} {} {}", text_of(&plugin["kind"]), text_of(&plugin["name"]), text_of(&plugin["version"])),
        None => text_of(&document["library"]),
    };
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n\n{plugin}: {passed} passed, {failed} failed, {skipped} skipped", lines.join("\n"))
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
