//! `verify`: every byte of a generation against its manifest, and what else lies beside it.

use reunion_generations::{Damage, SegmentFile, Verified, Verifier};
use reunion_ledger::Head;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::failure::{Doing, Failure};
use crate::state::{State, reference};

/// Generations that the ledger is asked for; it keeps fewer.
const GENERATIONS_MAX: u32 = 1_000;

/// Runs the command.
pub fn verify(app: &App, generation: Option<u64>, all: bool) -> Result<Exit, Failure> {
    let state = app.state()?;
    let known = state.ask(state.ledger.generations(GENERATIONS_MAX))?;
    let mut verifier = Verifier::new(&state.people);
    let mut result = if all && !known.is_empty() {
        json!({ "generations": known.iter().map(|head| document(head, verifier.generation(&reference(head)))).collect::<Vec<_>>() })
    } else {
        let head = chosen(&known, generation)?;
        let verified = verifier.generation(&reference(head)).map_err(|error| unreadable(&known, head).because(error))?;
        document(head, Ok(verified))
    };
    let waiting = waiting(&state)?;
    let damages = verifier.segments(waiting.iter()).doing(|| "the rows that wait for a generation cannot be read".to_owned())?;
    result["waiting"] = json!({ "segments": waiting.len(), "damages": lines(&damages) });
    let foreign = state.people.foreign().doing(|| "the state cannot be listed".to_owned())?;
    result["foreign"] = foreign.iter().map(|path| path.display().to_string()).collect();
    let is_whole = damages.is_empty() && generations(&result).iter().all(|of| is_whole(of));
    app.print(&result, text)?;
    Ok(if is_whole { Exit::Done } else { Exit::Refused })
}

/// The generation that is asked for, or the head.
fn chosen(known: &[Head], generation: Option<u64>) -> Result<&Head, Failure> {
    let found = match generation {
        None => known.first(),
        Some(number) => known.iter().find(|known| known.generation == number),
    };
    found.ok_or_else(|| {
        let numbers: Vec<String> = known.iter().map(|known| known.generation.to_string()).collect();
        let help =
            if numbers.is_empty() { "`reunion once` makes the first".to_owned() } else { format!("there are {}", numbers.join(", ")) };
        Failure::usage("there is no such generation").help(help)
    })
}

fn unreadable(known: &[Head], head: &Head) -> Failure {
    let failure = Failure::guard(format!("generation {} cannot be read", head.generation));
    if known.len() > 1 {
        failure.help("restore it from a backup, or go back with `reunion rollback`: `reunion verify --all` says where to")
    } else {
        failure.help("restore it from a backup: there is no other generation to go back to")
    }
}

/// Rows that were pulled and are in no generation yet.
fn waiting(state: &State) -> Result<Vec<SegmentFile>, Failure> {
    let segments = state.ask(state.ledger.pending_segments())?.into_iter();
    let parsed = segments.map(|segment| {
        let doing = || format!("segment {} of pull {} is not understood", segment.seq, segment.pull_id);
        serde_json::from_value(segment.document.clone()).doing(doing)
    });
    parsed.collect()
}

fn document(head: &Head, verified: Result<Verified, reunion_generations::GenerationError>) -> Value {
    match verified {
        Ok(Verified { manifest, files, bytes, damages }) => json!({
            "generation": head.generation, "manifest": manifest.display().to_string(), "files": files, "bytes": bytes, "damages": lines(&damages),
        }),
        Err(error) => json!({ "generation": head.generation, "error": error.to_string() }),
    }
}

fn lines(damages: &[Damage]) -> Vec<String> {
    damages.iter().map(ToString::to_string).collect()
}

/// The generations of a result, which has one or a list.
fn generations(result: &Value) -> Vec<&Value> {
    result["generations"].as_array().map_or_else(|| vec![result], |all| all.iter().collect())
}

fn is_whole(generation: &Value) -> bool {
    generation["damages"].as_array().is_some_and(Vec::is_empty)
}

fn text(result: &Value) -> String {
    let generations = generations(result);
    let mut lines: Vec<String> = generations.iter().flat_map(|generation| of_generation(generation)).collect();
    if let Some(whole) = generations.iter().find(|generation| is_whole(generation)).filter(|_| !is_whole(generations[0])) {
        lines.push(format!("restore what is damaged from a backup, or go back: `reunion rollback --to {}`", whole["generation"]));
    } else if !is_whole(generations[0]) {
        lines.push(
            "restore what is damaged from a backup, or go back with `reunion rollback`: `reunion verify --all` says where to".to_owned(),
        );
    }
    let damages = words(&result["waiting"]["damages"]);
    if !damages.is_empty() {
        lines.push(format!("of the rows that wait for a generation {}:", files(damages.len(), "is", "are")));
        lines.extend(damages.iter().map(|line| format!("  {line}")));
        lines.push("the next run reads a snapshot anew; an incremental source is read anew by `reunion once --sweep SOURCE`".to_owned());
    }
    let foreign = words(&result["foreign"]);
    if !foreign.is_empty() {
        let count = if foreign.len() == 1 { "1 file is".to_owned() } else { format!("{} files are", foreign.len()) };
        lines.push(format!("{count} not Reunion's, and left alone:"));
        lines.extend(foreign.iter().map(|path| format!("  {path}")));
    }
    lines.join("\n")
}

fn of_generation(generation: &Value) -> Vec<String> {
    let number = &generation["generation"];
    if let Some(error) = generation["error"].as_str() {
        return vec![format!("generation {number} cannot be read: {error}")];
    }
    let damages = words(&generation["damages"]);
    if damages.is_empty() {
        let mebibytes = generation["bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
        return vec![format!("generation {number} is whole: {} files, {mebibytes:.1} MiB", generation["files"])];
    }
    let head = format!("generation {number}: {}:", files(damages.len(), "is", "are"));
    std::iter::once(head).chain(damages.iter().map(|line| format!("  {line}"))).collect()
}

fn files(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 file {one} damaged") } else { format!("{count} files {many} damaged") }
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(generation: u64) -> Value {
        json!({ "generation": generation, "manifest": "/s/m.json", "files": 12, "bytes": 1_234_567, "damages": [] })
    }

    fn result(generations: Value, damages: Value, foreign: Value) -> Value {
        let mut result = generations;
        result["waiting"] = json!({ "segments": 1, "damages": damages });
        result["foreign"] = foreign;
        result
    }

    #[test]
    fn what_is_whole_is_said_in_a_line() {
        insta::assert_snapshot!(text(&result(whole(7), json!([]), json!([]))), @"generation 7 is whole: 12 files, 1.2 MiB");
    }

    #[test]
    fn what_is_damaged_comes_with_what_to_do() {
        let mut damaged = whole(7);
        damaged["damages"] = json!(["/s/a.parquet is missing", "/s/b.parquet was changed since it was committed"]);
        insta::assert_snapshot!(text(&result(damaged.clone(), json!([]), json!([]))), @"
        generation 7: 2 files are damaged:
          /s/a.parquet is missing
          /s/b.parquet was changed since it was committed
        restore what is damaged from a backup, or go back with `reunion rollback`: `reunion verify --all` says where to
        ");
        let torn = json!({ "generation": 6, "error": "generation 6 has no manifest" });
        let all = json!({ "generations": [damaged, torn, whole(5)] });
        insta::assert_snapshot!(text(&result(all, json!(["/s/c.parquet is missing"]), json!(["/s/notes.txt"]))), @"
        generation 7: 2 files are damaged:
          /s/a.parquet is missing
          /s/b.parquet was changed since it was committed
        generation 6 cannot be read: generation 6 has no manifest
        generation 5 is whole: 12 files, 1.2 MiB
        restore what is damaged from a backup, or go back: `reunion rollback --to 5`
        of the rows that wait for a generation 1 file is damaged:
          /s/c.parquet is missing
        the next run reads a snapshot anew; an incremental source is read anew by `reunion once --sweep SOURCE`
        1 file is not Reunion's, and left alone:
          /s/notes.txt
        ");
    }
}
