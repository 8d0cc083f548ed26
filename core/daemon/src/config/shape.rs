//! Checks a document against the table of keys, fills in the defaults, and resolves paths.

use indexmap::IndexMap;

use super::diagnostics::{Diagnostic, Diagnostics, did_you_mean, nearest};
use super::document::{Document, Entry, Node, Place, Table, Value};
use super::keys::{self, Key, Kind, NameRule, Need};
use super::types;

/// Bytes of a name that the operator gives.
const NAME_BYTES_MAX: usize = 64;

/// Checks every key of the document and fills in the defaults.
pub fn check(document: &mut Document) -> Diagnostics {
    let mut root = std::mem::take(&mut document.root);
    let mut shape = Shape { findings: Diagnostics::new(document.files.clone()), document };
    shape.table("", "", &mut root, Place::default());
    let findings = shape.findings;
    document.root = root;
    findings
}

struct Shape<'a> {
    document: &'a Document,
    findings: Diagnostics,
}

impl Shape<'_> {
    /// Checks the keys of a table. `pattern` is its path in the table of keys, `path` its path in the
    /// document, `place` where its name stands.
    fn table(&mut self, pattern: &'static str, path: &str, table: &mut Table, place: Place) {
        for (name, entry) in table.iter_mut() {
            match keys::children(pattern).find(|key| key.name() == name) {
                Some(key) => self.value(key, &join(path, name), entry),
                None => self.unknown(pattern, path, name, entry.key),
            }
        }
        for key in keys::children(pattern).filter(|key| !key.is_named_by_operator()) {
            if table.contains_key(key.name()) {
                continue;
            }
            match key.need {
                Need::Optional => {}
                Need::Required => self.findings.push(missing(key, path, place)),
                Need::Default(text) => {
                    let mut entry = Entry { key: place, node: Node { at: place, value: default_value(text) } };
                    self.value(key, &join(path, key.name()), &mut entry);
                    table.insert(key.name().to_owned(), entry);
                }
            }
        }
    }

    fn unknown(&mut self, pattern: &'static str, path: &str, name: &str, place: Place) {
        let names: Vec<_> = keys::children(pattern).map(Key::name).collect();
        let takes_with = names.contains(&"with");
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if takes_with => format!("keys of the plugin stand in [{path}.with]; known here: {}", names.join(", ")),
            None => did_you_mean(name, "known keys", names),
        };
        let table = if path.is_empty() { "the config".to_owned() } else { format!("[{path}]") };
        self.findings.push(Diagnostic::error(place, format!("unknown key `{name}` in {table}")).label("unknown").help(help));
    }

    /// Checks the value of a key.
    fn value(&mut self, key: &'static Key, path: &str, entry: &mut Entry) {
        let place = entry.node.at;
        match (key.kind, &mut entry.node.value) {
            (Kind::Table | Kind::TableOrText(_), Value::Table(table)) => self.table(key.path, path, table, entry.key),
            (Kind::Choice, Value::Table(table)) => {
                self.table(key.path, path, table, entry.key);
                if table.len() != 1 {
                    let names: Vec<_> = keys::children(key.path).map(Key::name).collect();
                    let finding = Diagnostic::error(entry.key, format!("`{path}` has {} keys", table.len()));
                    self.findings.push(finding.label(format!("expected one of {}", names.join(", "))));
                }
            }
            (Kind::TableOrText(_), Value::Text(text)) if text.is_empty() => self.empty(key, path, place),
            (Kind::TableOrText(name), value @ Value::Text(_)) => {
                let text = std::mem::replace(value, Value::Table(Table::new()));
                let mut inner = Entry { key: entry.key, node: Node { at: place, value: text } };
                if let Some(child) = keys::children(key.path).find(|child| child.name() == name) {
                    self.value(child, path, &mut inner);
                }
                *value = Value::Table(IndexMap::from([(name.to_owned(), inner)]));
            }
            (Kind::Map(rule), Value::Table(table)) => self.map(key, rule, path, table),
            (Kind::With, Value::Table(_)) | (Kind::Boolean, Value::Boolean(_)) => {}
            (Kind::Text, Value::Text(text)) => {
                if text.trim().is_empty() {
                    self.empty(key, path, place);
                }
            }
            (Kind::Path, Value::Text(text)) => self.path(key, path, text, place),
            (Kind::Paths, value @ Value::Text(_)) => {
                let only = std::mem::replace(value, Value::Array(Vec::new()));
                *value = Value::Array(vec![Node { at: place, value: only }]);
                self.value(key, path, entry);
            }
            (Kind::Paths | Kind::Texts | Kind::Words(_), Value::Array(items)) => self.list(key, path, items),
            (Kind::Combinations, Value::Array(items)) => self.combinations(key, path, items),
            (Kind::Word(words), Value::Text(text)) => self.word(path, words, text, place),
            (Kind::Integer(min, max), Value::Integer(value)) => {
                if !(min..=max).contains(value) {
                    self.refuse(key, place, format!("`{path}` is {value}"));
                }
            }
            (Kind::Number(min, max), value @ (Value::Integer(_) | Value::Float(_))) => {
                let number = match value {
                    Value::Integer(whole) => *whole as f64,
                    Value::Float(number) => *number,
                    _ => f64::NAN,
                };
                if !(min..=max).contains(&number) {
                    let finding = refusal(key, place, format!("`{path}` is {number}"));
                    let percent = (1.0..=100.0 * max).contains(&number);
                    self.findings.push(if percent { finding.help(format!("{number} % is written {}", number / 100.0)) } else { finding });
                }
            }
            (Kind::Zone, Value::Text(text)) => self.parsed::<types::Zone>(key, path, text, place),
            (Kind::Cron, Value::Text(text)) => self.parsed::<types::Schedule>(key, path, text, place),
            (Kind::Sweep, Value::Text(text)) => self.parsed::<types::Sweep>(key, path, text, place),
            (Kind::Clock, Value::Text(text)) => self.parsed::<types::Clock>(key, path, text, place),
            (Kind::Ledger, Value::Text(text)) => self.parsed::<types::Ledger>(key, path, text, place),
            (Kind::Address, Value::Text(text)) => self.parsed::<types::Address>(key, path, text, place),
            (_, value) => {
                let found = value.kind();
                let place = if matches!(value, Value::Table(_)) { entry.key } else { place };
                self.refuse(key, place, format!("`{path}` is {found}"));
            }
        }
    }

    fn map(&mut self, key: &'static Key, rule: NameRule, path: &str, table: &mut Table) {
        let Some(child) = keys::children(key.path).next() else { return };
        for (name, entry) in table.iter_mut() {
            if let Some(expected) = broken_rule(rule, name) {
                self.findings.push(Diagnostic::error(entry.key, format!("`{name}` is no name for a key of [{path}]")).label(expected));
            }
            self.value(child, &join(path, name), entry);
        }
    }

    fn list(&mut self, key: &'static Key, path: &str, items: &mut [Node]) {
        let mut seen: Vec<String> = Vec::new();
        for (at, item) in items.iter_mut().enumerate() {
            let path = format!("{path}[{at}]");
            let Value::Text(text) = &mut item.value else {
                let message = format!("`{path}` is {}", item.value.kind());
                self.findings.push(Diagnostic::error(item.at, message).label(format!("expected {}", key.kind.expected_item())));
                continue;
            };
            match key.kind {
                Kind::Words(words) => self.word(&path, words, text, item.at),
                Kind::Paths => self.path(key, &path, text, item.at),
                _ if text.trim().is_empty() => self.empty(key, &path, item.at),
                _ => {}
            }
            if seen.contains(text) {
                self.findings.push(Diagnostic::error(item.at, format!("`{text}` stands twice in `{}`", key_of(&path))).label("again"));
            }
            seen.push(text.clone());
        }
    }

    /// Each item becomes a list of texts.
    fn combinations(&mut self, key: &'static Key, path: &str, items: &mut [Node]) {
        let mut seen: Vec<Vec<String>> = Vec::new();
        for (at, item) in items.iter_mut().enumerate() {
            let path = format!("{path}[{at}]");
            if let Value::Text(_) = item.value {
                let only = std::mem::replace(&mut item.value, Value::Array(Vec::new()));
                item.value = Value::Array(vec![Node { at: item.at, value: only }]);
            }
            let Value::Array(texts) = &mut item.value else {
                let message = format!("`{path}` is {}", item.value.kind());
                self.findings.push(Diagnostic::error(item.at, message).label(format!("expected {}", key.kind.expected_item())));
                continue;
            };
            if texts.is_empty() {
                self.empty(key, &path, item.at);
            }
            self.list(key, &path, texts);
            let text = |node: &Node| if let Value::Text(text) = &node.value { Some(text.clone()) } else { None };
            let Some(mut texts) = texts.iter().map(text).collect::<Option<Vec<_>>>() else { continue };
            texts.sort_unstable();
            if seen.contains(&texts) {
                self.findings.push(Diagnostic::error(item.at, format!("`{path}` asks for what one before it does")).label("again"));
            }
            seen.push(texts);
        }
    }

    fn path(&mut self, key: &'static Key, path: &str, text: &mut String, place: Place) {
        if text.is_empty() {
            self.empty(key, path, place);
        } else {
            *text = absolute(self.document, place, text);
        }
    }

    fn word(&mut self, path: &str, words: &[&str], text: &str, place: Place) {
        if !words.contains(&text) {
            let expected = format!("expected {}", keys::one_of(words));
            let finding = Diagnostic::error(place, format!("`{path}` is \"{text}\"")).label(expected);
            let near = nearest(text, words.iter().copied());
            self.findings.push(if let Some(near) = near { finding.help(format!("did you mean \"{near}\"?")) } else { finding });
        }
    }

    fn parsed<T: std::str::FromStr<Err = String>>(&mut self, key: &'static Key, path: &str, text: &str, place: Place) {
        if let Err(error) = text.parse::<T>() {
            let finding = refusal(key, place, format!("`{path}` cannot be used: {error}"));
            let near = if key.kind == Kind::Zone { nearest_zone(text) } else { None };
            self.findings.push(if let Some(near) = near { finding.help(format!("did you mean \"{near}\"?")) } else { finding });
        }
    }

    fn empty(&mut self, key: &'static Key, path: &str, place: Place) {
        let expected = format!("expected {}", key.kind.expected_item());
        self.findings.push(Diagnostic::error(place, format!("`{path}` is empty")).label(expected));
    }

    fn refuse(&mut self, key: &'static Key, place: Place, message: String) {
        self.findings.push(refusal(key, place, message));
    }
}

fn refusal(key: &'static Key, place: Place, message: String) -> Diagnostic {
    let finding = Diagnostic::error(place, message).label(format!("expected {}", key.kind.expected()));
    // Someone may have written the key itself there, or a password.
    if matches!(key.kind, Kind::Choice | Kind::Ledger) { finding.secret() } else { finding }
}

fn missing(key: &'static Key, path: &str, place: Place) -> Diagnostic {
    let what = match key.kind {
        Kind::Table if path.is_empty() => format!("the table [{}] is missing", join(path, key.name())),
        _ if path.is_empty() => format!("`{}` is missing", key.name()),
        _ => format!("`{}` is missing in [{path}]", key.name()),
    };
    let doc = key.doc.split_once(". ").map_or(key.doc, |(first, _)| first).trim_end_matches('.');
    let mut rest = doc.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_lowercase).collect();
    Diagnostic::error(place, what).help(format!("add `{}`: {first}{}", key.name(), rest.as_str()))
}

/// What a name should be, where it is not.
fn broken_rule(rule: NameRule, name: &str) -> Option<String> {
    let lower = |byte: u8| byte.is_ascii_lowercase();
    let plain = |byte: u8| lower(byte) || byte.is_ascii_digit() || byte == b'_';
    let starts = name.bytes().next().is_some_and(lower);
    let (fits, expected) = match rule {
        NameRule::Component => {
            (starts && name.bytes().all(|byte| plain(byte) || byte == b'-'), "letters a to z, digits, - and _, a letter first")
        }
        NameRule::Identifier => (starts && name.bytes().all(plain), "letters a to z, digits and _, a letter first, since rules use it"),
        NameRule::Column => (!name.trim().is_empty() && !name.contains(char::is_control), "a name without control characters"),
        NameRule::Word => (true, ""),
    };
    let short = name.len() <= NAME_BYTES_MAX || rule == NameRule::Word;
    match (fits, short) {
        (true, true) => None,
        (false, _) => Some(format!("expected {expected}")),
        (true, false) => Some(format!("expected at most {NAME_BYTES_MAX} bytes")),
    }
}

/// The path relative to the file that names it.
pub fn absolute(document: &Document, place: Place, text: &str) -> String {
    // `join` keeps what is absolute, and both parts are UTF-8 unless the folder's name is not.
    let joined = document.folder(place).join(text);
    joined.to_str().map_or_else(|| text.to_owned(), str::to_owned)
}

fn nearest_zone(text: &str) -> Option<String> {
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
    nearest(text, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The value that a default of the table of keys writes.
pub fn default_value(text: &str) -> Value {
    let value = text.parse::<toml::Value>().expect("the defaults in the table of keys are TOML");
    from_toml(value)
}

fn from_toml(value: toml::Value) -> Value {
    let node = |value| Node { at: Place::default(), value: from_toml(value) };
    match value {
        toml::Value::String(text) => Value::Text(text),
        toml::Value::Integer(value) => Value::Integer(value),
        toml::Value::Float(value) => Value::Float(value),
        toml::Value::Boolean(value) => Value::Boolean(value),
        toml::Value::Datetime(value) => Value::Text(value.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(node).collect()),
        toml::Value::Table(table) => {
            Value::Table(table.into_iter().map(|(name, value)| (name, Entry { key: Place::default(), node: node(value) })).collect())
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn key_of(path: &str) -> &str {
    path.rsplit_once('[').map_or(path, |(key, _)| key)
}
