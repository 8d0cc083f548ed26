//! What is wrong with a config, said where it is wrong.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::Config;
use super::document::{Place, SourceFile};

/// Whether a finding stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// It can, and this is probably not what was meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) message: String,
    /// Where; none for a file that could not be read.
    pub(super) place: Option<Place>,
    /// What was expected, in a few words beside the underlined place.
    pub(super) label: Option<String>,
    /// Another place that has to do with it, and what it is.
    pub(super) related: Option<(Place, String)>,
    pub(super) help: Option<String>,
    /// The place holds a secret: the line is named and not shown.
    pub(super) secret: bool,
}

impl Diagnostic {
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place: Some(place),
            label: None,
            related: None,
            help: None,
            secret: false,
        }
    }

    pub(super) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, message) }
    }

    pub(super) fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) fn related(self, place: Place, label: impl Into<String>) -> Self {
        Self { related: Some((place, label.into())), ..self }
    }
}

/// Findings, in the order in which they stand in the files.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    pub(super) files: Arc<Vec<SourceFile>>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(files: Arc<Vec<SourceFile>>) -> Self {
        Self { files, list: Vec::new() }
    }

    /// An error that belongs to no place in a file.
    pub fn nowhere(message: impl Into<String>, help: Option<String>) -> Self {
        let finding = Diagnostic { place: None, help, ..Diagnostic::error(Place::default(), message) };
        Self { files: Arc::default(), list: vec![finding] }
    }

    /// An error at this key of the config; where the file does not have the key, at the nearest table
    /// above it.
    pub fn at(config: &Config, key: &[&str], message: impl Into<String>, help: Option<String>) -> Self {
        let finding = Diagnostic { help, ..Diagnostic::error(config.document.locate(key), message) };
        Self { files: config.document.files.clone(), list: vec![finding] }
    }

    /// An error inside the text that stands at this key: `offset` and `length` count bytes of the text as
    /// the program sees it, after TOML's escapes are resolved.
    pub fn at_offset(
        config: &Config,
        key: &[&str],
        offset: usize,
        length: usize,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        let place = config.document.locate_offset(key, offset, length);
        Self { files: config.document.files.clone(), list: vec![Diagnostic { help, ..Diagnostic::error(place, message) }] }
    }

    /// The same findings, whose lines are named and not shown.
    #[must_use]
    pub(super) fn hidden(mut self) -> Self {
        self.list.iter_mut().for_each(|finding| finding.secret = true);
        self
    }

    /// The same findings as warnings.
    #[must_use]
    pub fn as_warnings(mut self) -> Self {
        for finding in &mut self.list {
            finding.severity = Severity::Warning;
        }
        self
    }

    /// Adds a finding, unless the same was said of the same place.
    pub(super) fn push(&mut self, finding: Diagnostic) {
        if !self.list.iter().any(|other| other.place == finding.place && other.message == finding.message) {
            self.list.push(finding);
        }
    }

    /// Adds the findings of another stage on the same config.
    pub fn extend(&mut self, other: Self) {
        if self.files.is_empty() {
            self.files = other.files;
        }
        self.list.extend(other.list);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them stops the program.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|finding| finding.place.map(|place| (place.file, place.start, place.end)));
    }

    /// The findings for people: what, where, the line with the place underlined, and what to do.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<_> = self.list.iter().map(|finding| renderer.render(&[self.group(finding)]).to_string()).collect();
        reports.join("\n\n")
    }

    fn group<'a>(&'a self, finding: &'a Diagnostic) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&finding.message);
        let mut group = match finding.place {
            None => Group::with_title(title),
            Some(place) if finding.secret => {
                let at = location(&self.files, place);
                let origin = Origin::path(at.file.display().to_string()).line(at.line).char_column(at.column);
                let expected = finding.label.as_ref().map(|label| Level::NOTE.message(label));
                title.element(origin).elements(expected)
            }
            Some(place) => {
                let primary = AnnotationKind::Primary.span(place.start..place.end).label(finding.label.as_deref());
                let mut snippet = self.snippet(place).annotation(primary);
                let mut other = None;
                if let Some((at, label)) = &finding.related {
                    let context = AnnotationKind::Context.span(at.start..at.end).label(label);
                    if at.file == place.file {
                        snippet = snippet.annotation(context);
                    } else {
                        other = Some(self.snippet(*at).annotation(context));
                    }
                }
                title.element(snippet).elements(other)
            }
        };
        if let Some(help) = &finding.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }

    fn snippet<'a, T: Clone>(&'a self, place: Place) -> Snippet<'a, T> {
        let file = &self.files[place.file];
        Snippet::source(&file.text).path(file.path.display().to_string())
    }

    /// The findings for machines, one object each.
    pub fn to_json(&self) -> serde_json::Value {
        let list = self.list.iter().map(|finding| {
            let location = finding.place.map(|place| location(&self.files, place));
            serde_json::json!({
                "severity": finding.severity,
                "message": finding.message,
                "file": location.as_ref().map(|at| at.file.display().to_string()),
                "line": location.as_ref().map(|at| at.line),
                "column": location.as_ref().map(|at| at.column),
                "expected": finding.label,
                "help": finding.help,
            })
        });
        list.collect()
    }
}

/// The findings without colour.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Where something stands, as people count: lines and columns from 1, a column for each character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

pub(super) fn location(files: &[SourceFile], place: Place) -> Location {
    let file = &files[place.file];
    let before = &file.text[..place.start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Location { file: file.path.clone(), line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Of these names the one that was probably meant.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = names.into_iter().map(|other| (strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase()), other));
    let allowed = (name.chars().count() / 3).max(1);
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, other)| other)
}

/// The help for a name that is none of these.
pub(super) fn did_you_mean<'a>(name: &str, what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None => format!("{what}: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["last_order_at", "order_count", "store"];
        assert_eq!(nearest("last_order_att", names), Some("last_order_at"));
        assert_eq!(nearest("stroe", names), Some("store"));
        assert_eq!(nearest("ordercount", names), Some("order_count"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(did_you_mean("x", "channels", []), "there are no channels");
    }
}
