//! What DataFusion finds wrong with a rule or a query, in plain words.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::scan::{Complaint, Scan, offset};

/// An error of DataFusion's in plain words. `columns` are the names that could have been meant.
pub(crate) fn translate(error: &DataFusionError, text: &str, scan: &Scan, columns: &[&str]) -> Complaint {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => translate(inner, text, scan, columns),
        DataFusionError::Shared(inner) => translate(inner, text, scan, columns),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => translate(first, text, scan, columns),
            None => Complaint::new("the text cannot be used"),
        },
        DataFusionError::SQL(error, _) => grammar(error, text),
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => unknown_column(&field.flat_name(), &field.name, scan, columns),
            SchemaError::AmbiguousReference { field } => {
                Complaint::new(format!("`{}` could be a column of more than one table", field.name))
                    .suggest("write the table's name before it, with a point between")
                    .at(scan.find(&field.name))
            }
            other => Complaint::new(one_line(&other.to_string())),
        },
        DataFusionError::Plan(message) => plan(message, scan),
        other => Complaint::new(one_line(other.message().as_ref())),
    }
}

fn unknown_column(full: &str, name: &str, scan: &Scan, columns: &[&str]) -> Complaint {
    let written = scan.as_written(name).unwrap_or(name);
    let mut complaint = Complaint::new(format!("there is no column `{}`", full.replace('"', ""))).at(scan.find(name));
    complaint.unknown_column = Some(name.to_owned());
    if let Some(exact) = columns.iter().find(|column| column.eq_ignore_ascii_case(written) && **column != name) {
        return complaint.suggest(format!("capital letters need double quotes: write \"{exact}\""));
    }
    match nearest(name, columns.iter().copied()) {
        Some(near) => complaint.suggest(format!("did you mean `{near}`?")),
        None if scan.is_double_quoted(name) => complaint.suggest(format!("text stands in single quotes: write '{name}'")),
        None => complaint,
    }
}

fn plan(message: &str, scan: &Scan) -> Complaint {
    let quoted = |prefix: &str| message.split(prefix).nth(1).and_then(|rest| rest.split('\'').next());
    if let Some(name) = quoted("Invalid function '") {
        let complaint = Complaint::new(format!("there is no function {name}()")).at(scan.find(name));
        return match quoted("Did you mean '").filter(|near| strsim::damerau_levenshtein(name, near) <= name.len().div_ceil(3)) {
            Some(near) => complaint.suggest(format!("did you mean {near}()?")),
            None => complaint,
        };
    }
    if let Some(table) = quoted("table '") {
        let table = table.rsplit('.').next().unwrap_or(table);
        return Complaint::new(format!("there is no table `{table}`")).at(scan.find(table));
    }
    Complaint::new(one_line(message))
}

/// `sql parser error: Expected: an expression, found: EOF at Line: 1, Column: 7`
fn grammar(error: &ParserError, text: &str) -> Complaint {
    let message = match error {
        ParserError::RecursionLimitExceeded => return Complaint::new("brackets are nested too deep: the limit is 50"),
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let (message, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let place = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(offset(text, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })));
    let found = place.map(|at| (at, text[at..].split_whitespace().next().map_or(0, str::len)));
    let expected = message.split_once("Expected: ").map(|(_, rest)| rest.rsplit_once(", found: ").map_or(rest, |(expected, _)| expected));
    let complaint = match (expected, message.rsplit_once("found: ").map(|(_, found)| found)) {
        (Some("end of expression"), Some("=>")) => Complaint::new("`=>` is not SQL").suggest("write >="),
        (Some("end of expression"), Some(found)) => Complaint::new(format!("`{found}` stands where the rule should end")),
        (Some(expected), Some(found)) if expected.starts_with("[NOT] NULL") => {
            let found = if found == "EOF" { "nothing".to_owned() } else { format!("`{found}`") };
            Complaint::new(format!("{found} stands after `is`")).suggest("write is null, is not null, is true or is false")
        }
        (Some(expected), Some("EOF")) => Complaint::new(format!("the text ends where {expected} should follow")),
        (Some(expected), Some(found)) => Complaint::new(format!("`{found}` stands where {expected} should be")),
        _ => Complaint::new(one_line(message)),
    };
    complaint.at(found.or(Some((text.trim_end().len(), 0))))
}

/// The nearest of these names, where one is near.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let limit = name.chars().count().div_ceil(3).min(4);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    names
        .into_iter()
        .map(|candidate| (distance(&candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// The first line, without the engine's own prefixes and dumps, in the operator's words where they are known.
pub(crate) fn one_line(message: &str) -> String {
    let mut line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("the text cannot be used");
    let prefixes = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "This feature is not implemented: ",
        "Internal error: ",
    ];
    while let Some(rest) = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)) {
        line = rest;
    }
    let line = line.split(". This issue was likely caused by a bug").next().unwrap_or(line);
    // What follows an opening brace is the engine's own structures.
    let line = line.split(" {").next().unwrap_or(line).trim_end_matches('.');
    plain(line).unwrap_or_else(|| line.to_owned())
}

/// The engine's commonest sentences in plain words.
fn plain(line: &str) -> Option<String> {
    let between = |before: &str, after: &str| line.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    if let Some((value, rest)) = between("Cannot cast string '", "' to value of ") {
        let needed = if rest.starts_with("Timestamp") || rest.starts_with("Date") { "a time" } else { "a number" };
        return Some(format!("'{value}' is text, where {needed} is needed"));
    }
    if let Some((value, _)) = between("Invalid input syntax for type interval: \"", "\"") {
        return Some(format!("'{value}' is no length of time: write one such as '180 days' or '2 hours'"));
    }
    if let Some((column, _)) =
        between("must be in GROUP BY", "must appear").and_then(|(text, _)| text.split_once("column \"")?.1.split_once('"'))
    {
        return Some(format!("`{column}` must stand in group by or within an aggregate, as in max({column})"));
    }
    if line.starts_with("Unary operator 'NOT' requires a boolean") {
        return Some("`not` works on conditions".to_owned());
    }
    if line.starts_with("Substring without for/from") {
        return Some("substr needs a place, as in substr(name, 1, 2)".to_owned());
    }
    if line.starts_with("The context currently only supports a single SQL statement") {
        return Some("there is more than one statement, and a query is one".to_owned());
    }
    if let Some((kinds, _)) = between("Cannot coerce arithmetic expression ", " to valid types") {
        let kinds = kinds.replace("Utf8", "text").replace("Int64", "number").replace("Boolean", "true or false");
        return Some(format!("values of these kinds cannot be computed with: {kinds}"));
    }
    (line == "Divide by zero error").then(|| "a number is divided by zero: write nullif(…, 0) around the divisor".to_owned())
}

/// The text with each long run of digits masked, since a value that failed may be a phone number.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(|char: char| char.is_ascii_digit()) {
        let (before, digits) = rest.split_at(begin);
        let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
        masked.push_str(before);
        match end {
            ..7 => masked.push_str(&digits[..end]),
            _ => masked.extend([&digits[..3], "****", &digits[end - 4..end]]),
        }
        rest = &digits[end..];
    }
    masked + rest
}
