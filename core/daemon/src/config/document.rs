//! The text of a config: its files, its values with their places, and how several files become one.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use reunion_model::limits::CONTROL_BYTES_MAX;
use serde::Deserializer;
use serde::de::value::{Error as DeError, MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{IntoDeserializer, Visitor};
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostic, Diagnostics};

/// A stretch of bytes in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A file as it was read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The tables of all files as one, in the order in which they stand there.
pub type Table = IndexMap<String, Entry>;

/// A key of a table and what it holds.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: Place,
    /// Its value.
    pub node: Node,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where; for a default, the table that it belongs to.
    pub at: Place,
    /// What.
    pub value: Value,
}

/// A value of TOML. Times are the text that they were written as.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text, after its escapes were resolved.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A list.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Value {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A config before anything is known of its keys.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub(super) files: Arc<Vec<SourceFile>>,
    pub(super) root: Table,
}

impl Document {
    /// Reads the file at `path` and then `conf.d/*.toml` beside it, sorted by name.
    ///
    /// # Errors
    /// Every file that cannot be read, every syntax error, and every key that stands in two files.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let mut unreadable = Diagnostics::default();
        let mut files = Vec::new();
        let paths = match fragments(&path) {
            Ok(fragments) => std::iter::once(path).chain(fragments).collect(),
            Err(error) => {
                unreadable.extend(error);
                vec![path]
            }
        };
        for path in paths {
            match read_text(&path) {
                Ok(text) => files.push(SourceFile { path, text }),
                Err(error) => unreadable.extend(error),
            }
        }
        if unreadable.has_errors() { Err(unreadable) } else { Self::parse(files) }
    }

    /// Reads this file alone.
    ///
    /// # Errors
    /// Where it cannot be read, and every syntax error.
    pub fn read_alone(path: &Path) -> Result<Self, Diagnostics> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let text = read_text(&path)?;
        Self::parse(vec![SourceFile { path, text }])
    }

    /// The same of files that were read.
    ///
    /// # Errors
    /// Every syntax error, and every key that stands in two files.
    pub(super) fn parse(files: Vec<SourceFile>) -> Result<Self, Diagnostics> {
        let files = Arc::new(files);
        let mut findings = Diagnostics::new(files.clone());
        let mut root = Table::new();
        for (file, source) in files.iter().enumerate() {
            let (table, errors) = DeTable::parse_recoverable(&source.text);
            for error in errors {
                let place = clamp(file, &source.text, error.span().unwrap_or_default());
                findings.push(Diagnostic::error(place, format!("this is not TOML: {}", error.message())));
            }
            let table = Reader { file, findings: &mut findings }.table(table.get_ref());
            merge(&mut root, table, &mut findings);
        }
        if findings.has_errors() { Err(findings) } else { Ok(Self { files, root }) }
    }

    /// The entry at this path of keys; a number selects from a list.
    fn find(&self, key: &[&str]) -> (Option<&Entry>, Option<&Node>) {
        let mut entry = None;
        let mut node: Option<&Node> = None;
        for part in key {
            let table = match node.map(|node| &node.value) {
                None => &self.root,
                Some(Value::Table(table)) => table,
                Some(Value::Array(items)) => match part.parse::<usize>().ok().and_then(|at| items.get(at)) {
                    Some(item) => {
                        node = Some(item);
                        continue;
                    }
                    None => break,
                },
                Some(_) => break,
            };
            let Some(next) = table.get(*part) else { break };
            (entry, node) = (Some(next), Some(&next.node));
        }
        (entry, node)
    }

    /// The value at this path of keys, if it is there.
    pub fn get(&self, key: &[&str]) -> Option<&Node> {
        let mut node: Option<&Node> = None;
        for part in key {
            node = Some(match node.map(|node| &node.value) {
                None => &self.root.get(*part)?.node,
                Some(Value::Table(table)) => &table.get(*part)?.node,
                Some(Value::Array(items)) => items.get(part.parse::<usize>().ok()?)?,
                Some(_) => return None,
            });
        }
        node
    }

    /// Where the value at this path stands: a table is shown by its key, and a key that is not there by
    /// the nearest table above it.
    pub fn locate(&self, key: &[&str]) -> Place {
        match self.find(key) {
            (_, Some(Node { value, at })) if !matches!(value, Value::Table(_)) => *at,
            (Some(entry), _) => entry.key,
            _ => Place::default(),
        }
    }

    /// Where `length` bytes of the text at this path stand, counted from its byte `offset`.
    pub fn locate_offset(&self, key: &[&str], offset: usize, length: usize) -> Place {
        let place = self.locate(key);
        if !matches!(self.get(key), Some(Node { value: Value::Text(_), .. })) {
            return place;
        }
        let raw = &self.files[place.file].text[place.start..place.end];
        let range = raw_range(raw, offset..offset + length.max(1));
        Place { file: place.file, start: place.start + range.start, end: place.start + range.end }
    }

    /// The folder of the file that a place is in: what relative paths there are relative to.
    pub fn folder(&self, place: Place) -> &Path {
        self.files.get(place.file).and_then(|file| file.path.parent()).unwrap_or(Path::new("/"))
    }
}

/// `conf.d/*.toml` beside the file, sorted; hidden files are left out.
fn fragments(path: &Path) -> Result<Vec<PathBuf>, Diagnostics> {
    let folder = path.parent().unwrap_or(Path::new("/")).join("conf.d");
    let unreadable = |error: io::Error| Diagnostics::nowhere(format!("the folder {} cannot be read: {error}", folder.display()), None);
    let listing = match fs::read_dir(&folder) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for item in listing {
        let path = item.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_text(path: &Path) -> Result<String, Diagnostics> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => Some("name another file with --config".to_owned()),
            io::ErrorKind::PermissionDenied => Some("let the user that Reunion runs as read it".to_owned()),
            _ => None,
        };
        Diagnostics::nowhere(format!("the config {shown} cannot be read: {error}"), help)
    })?;
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(Diagnostics::nowhere(
            format!("the config {shown} has {} bytes, and {CONTROL_BYTES_MAX} are allowed", bytes.len()),
            None,
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        let help = "save the file as UTF-8 (editors on Windows may have written it as GBK)".to_owned();
        Diagnostics::nowhere(format!("the config {shown} is not UTF-8: line {line} has other bytes"), Some(help))
    })
}

/// A place that lies within the text and on whole characters, whatever the parser said.
fn clamp(file: usize, text: &str, span: Range<usize>) -> Place {
    let start = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let end = (span.end.min(text.len()).max(start)..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    Place { file, start, end }
}

/// Turns the parser's values into ours.
struct Reader<'a> {
    file: usize,
    findings: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file, start: span.start, end: span.end }
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries.into_iter().map(|(key, value)| {
            let node = Node { at: self.place(value.span()), value: self.value(value.get_ref(), value.span()) };
            (key.get_ref().to_string(), Entry { key: self.place(key.span()), node })
        });
        entries.collect()
    }

    fn value(&mut self, value: &DeValue<'_>, span: Range<usize>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(value) => Value::Text(value.to_string()),
            DeValue::Float(value) => Value::Float(value.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
                Ok(value) => Value::Integer(value),
                Err(_) => {
                    self.findings.push(Diagnostic::error(self.place(span), "the number does not fit in 64 bits"));
                    Value::Integer(0)
                }
            },
            DeValue::Array(items) => Value::Array(
                items.iter().map(|item| Node { at: self.place(item.span()), value: self.value(item.get_ref(), item.span()) }).collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

/// Adds the keys of a further file. Tables are merged; any other key may stand in one file only.
fn merge(into: &mut Table, from: Table, findings: &mut Diagnostics) {
    for (name, entry) in from {
        match into.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) => match (&mut slot.get_mut().node.value, entry.node.value) {
                (Value::Table(into), Value::Table(from)) => merge(into, from, findings),
                _ => findings.push(
                    Diagnostic::error(entry.key, format!("`{}` is set in two files", slot.key()))
                        .label("set again here")
                        .related(slot.get().key, "first set here")
                        .help("keep one of the two"),
                ),
            },
        }
    }
}

/// Which bytes of a text as it stands in the file, quotes and all, give these bytes of its value.
fn raw_range(raw: &str, wanted: Range<usize>) -> Range<usize> {
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let escapes = raw.starts_with('"');
    let end = raw.len().saturating_sub(quotes);
    let mut at = quotes;
    if quotes == 3 {
        at += if raw[at..].starts_with("\r\n") { 2 } else { usize::from(raw[at..].starts_with('\n')) };
    }
    let mut value_at = 0;
    let (mut start, mut stop) = (None, None);
    while at < end && stop.is_none() {
        let rest = &raw[at..end];
        let (raw_length, value_length) = if escapes && rest.starts_with('\\') { escape(rest) } else { plain(rest) };
        if value_at >= wanted.end {
            stop = Some(at);
        } else if start.is_none() && value_at + value_length > wanted.start {
            start = Some(at);
        }
        at += raw_length;
        value_at += value_length;
    }
    let stop = stop.unwrap_or(end).min(end);
    let start = start.unwrap_or(end).min(stop);
    start..stop
}

/// Length in the file and in the value of the character that a text begins with.
fn plain(rest: &str) -> (usize, usize) {
    let length = rest.chars().next().map_or(1, char::len_utf8);
    (length, length)
}

/// The same of the escape that a text begins with; a line's end that is escaped swallows the spaces
/// after it.
fn escape(rest: &str) -> (usize, usize) {
    let digits = match rest.as_bytes().get(1) {
        Some(b'u') => 4,
        Some(b'U') => 8,
        Some(b'x') => 2,
        Some(b' ' | b'\t' | b'\r' | b'\n') => return (1 + rest[1..].len() - rest[1..].trim_start().len(), 0),
        _ => return (rest.len().min(2), 1),
    };
    let code = rest.get(2..2 + digits).and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
    ((2 + digits).min(rest.len()), code.map_or(1, char::len_utf8))
}

/// Lets serde read a value.
impl<'de> Deserializer<'de> for &Value {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(|item| &item.value))),
            Value::Table(table) => visitor.visit_map(map_access(table)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, DeError> {
        match self {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(table) => visitor.visit_enum(MapAccessDeserializer::new(map_access(table))),
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, DeError> for &Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn map_access<'de>(table: &Table) -> MapDeserializer<'de, impl Iterator<Item = (&str, &Value)>, DeError> {
    MapDeserializer::new(table.iter().map(|(name, entry)| (name.as_str(), &entry.node.value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(raw: &str, wanted: Range<usize>) -> &str {
        &raw[raw_range(raw, wanted)]
    }

    #[test]
    fn an_offset_in_a_text_is_found_in_the_file() {
        assert_eq!(marked(r#""store = 1""#, 0..5), "store");
        assert_eq!(marked("'a \\ b'", 4..5), "b");
        assert_eq!(marked(r#""say \"hi\" now""#, 4..8), r#"\"hi\""#);
        assert_eq!(marked(r#""\u4e2dx""#, 3..4), "x");
        assert_eq!(marked("\"\"\"\nfirst\nsecond\"\"\"", 6..12), "second");
        assert_eq!(marked("\"\"\"a \\\n   b\"\"\"", 2..3), "b");
        assert_eq!(marked("\"短店\"", 3..6), "店");
        assert_eq!(marked("\"end\"", 9..12), "", "an offset past the end marks the end");
    }

    #[test]
    fn order_is_the_files() {
        let text = "[tags.z]\nwhen='1'\n[tags.a]\nwhen='2'\n[tags]\nm.when='3'\n";
        let document = Document::parse(vec![SourceFile { path: "/x.toml".into(), text: text.into() }]);
        let Ok(document) = document else { panic!("{}", document.expect_err("errors")) };
        let Some(Node { value: Value::Table(tags), .. }) = document.get(&["tags"]) else { panic!("a table") };
        assert_eq!(tags.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
    }
}
