//! The config: one file, and `conf.d/*.toml` beside it.
//!
//! [`Document`] reads the files and remembers where each value stands; [`shape`] checks it against the
//! one table of [`keys`] and fills in the defaults; serde makes [`types`] of it; [`meaning`] checks what
//! one key alone cannot tell. All that is wrong is said at once, each finding at its line.

mod columns;
mod diagnostics;
mod document;
pub mod keys;
mod master_key;
mod meaning;
pub mod reference;
mod shape;
pub mod types;

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

pub use columns::{MemberColumn, RecordId, SourceColumn, SourceColumns};
pub use diagnostics::{Diagnostics, Location, Severity};
pub use document::Document;
use document::{Node, Value};
pub use types::*;

/// A config that can be used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where days begin and end.
    pub timezone: Zone,
    /// Where everything is kept.
    pub state: State,
    /// The plugins.
    pub plugins: Plugins,
    /// Where members come from.
    pub sources: IndexMap<String, Source>,
    /// What the rules of phone numbers cannot know.
    pub phone: Phone,
    /// Who is who.
    pub identity: Identity,
    /// Kinds of members, in the order in which they may name each other.
    pub tags: IndexMap<String, Tag>,
    /// Who is contacted.
    pub campaigns: IndexMap<String, Campaign>,
    /// How.
    pub channels: IndexMap<String, Channel>,
    /// What runs together.
    pub pipelines: IndexMap<String, Pipeline>,
    /// How much and how long.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// For rehearsals.
    pub testing: Testing,
    #[serde(skip)]
    document: Document,
    #[serde(skip)]
    warnings: Diagnostics,
}

/// What a component is: the table that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// `[sources.…]`.
    Source,
    /// `[channels.…]`.
    Channel,
}

impl Component {
    /// The name of the table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Channel => "channels",
        }
    }
}

impl Config {
    /// Reads the config at this path, with `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// All that is wrong with it, as far as it can be told at once.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let mut document = Document::read(path)?;
        let mut findings = shape::check(&mut document);
        if findings.has_errors() {
            findings.sort();
            return Err(findings);
        }
        let root = Value::Table(document.root.clone());
        let mut config = Self::deserialize(&root)
            .map_err(|error| Diagnostics::nowhere(format!("the config does not fit the program's own types: {error}"), None))?;
        config.document = document;
        let mut findings = meaning::check(&config);
        findings.sort();
        if findings.has_errors() {
            return Err(findings);
        }
        config.warnings = findings;
        Ok(config)
    }

    /// What is allowed and probably not meant.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// Where the value at this path of keys stands; of a key that is not there, the nearest table above it.
    pub fn locate(&self, key: &[&str]) -> Location {
        diagnostics::location(&self.document.files, self.document.locate(key))
    }

    /// The files that the config was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.document.files.iter().map(|file| file.path.as_path())
    }

    /// A SHA-256 over all files, in hex: two configs with one digest say the same.
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = self.document.files.iter().fold(Sha256::new(), |digest, file| {
            digest.chain_update((file.text.len() as u64).to_be_bytes()).chain_update(file.text.as_bytes())
        });
        hex::encode(digest.finalize())
    }

    /// The `with` table of a component as JSON, in the order of the file. Texts whose JSON Schema says
    /// `"format": "path"` are made absolute, relative to the file that names them. Empty for a component
    /// that is not there.
    pub fn with_values(&self, component: Component, name: &str, schema: &serde_json::Value) -> serde_json::Value {
        let node = self.document.get(&[component.table(), name, "with"]);
        node.map_or_else(|| serde_json::json!({}), |node| self.json(node, schema))
    }

    fn json(&self, node: &Node, schema: &serde_json::Value) -> serde_json::Value {
        match &node.value {
            Value::Text(text) if schema["format"] == "path" => shape::absolute(&self.document, node.at, text).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Boolean(value) => (*value).into(),
            Value::Array(items) => items.iter().map(|item| self.json(item, &schema["items"])).collect(),
            Value::Table(table) => {
                let entries = table.iter().map(|(name, entry)| {
                    let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    (name.clone(), self.json(&entry.node, schema))
                });
                entries.collect::<serde_json::Map<_, _>>().into()
            }
        }
    }

    /// An error at a key of a component's `with` table, as a plugin or its schema blames it: dotted.
    pub fn blame(
        &self,
        component: Component,
        name: &str,
        key: Option<&str>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostics {
        let key = key.filter(|key| !key.is_empty());
        let path = [component.table(), name].into_iter().chain(key.map(|_| "with")).chain(key.into_iter().flat_map(|key| key.split('.')));
        Diagnostics::at(self, &path.collect::<Vec<_>>(), message, help)
    }
}
