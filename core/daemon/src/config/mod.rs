//! The config: one file, and `conf.d/*.toml` beside it.
//!
//! [`Document`] reads the files and remembers where each value stands; [`shape`] checks it against the
//! one table of [`keys`] and fills in the defaults; serde makes [`types`] of it; [`meaning`] checks what
//! one key alone cannot tell. All that is wrong is said at once, each finding at its line.

mod alone;
mod columns;
mod diagnostics;
mod document;
pub mod keys;
mod meaning;
pub mod reference;
mod secrets;
mod shape;
pub mod types;

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

pub use alone::Alone;
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
    /// `[guards]`.
    pub guards: Guards,
    /// Kinds of members, in the order in which they may name each other.
    pub tags: IndexMap<String, Tag>,
    /// Who is contacted.
    pub campaigns: IndexMap<String, Campaign>,
    /// How.
    pub channels: IndexMap<String, Channel>,
    /// What runs together.
    pub pipelines: IndexMap<String, Pipeline>,
    /// Requests from outside.
    pub http: Http,
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
        Self::from_document(Document::read(path)?)
    }

    fn from_document(mut document: Document) -> Result<Self, Diagnostics> {
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
        node.map_or_else(|| serde_json::json!({}), |node| json(&self.document, node, schema))
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
        let path = path.collect::<Vec<_>>();
        let findings = Diagnostics::at(self, &path, message, help);
        match self.document.get(&path).map(|node| &node.value) {
            Some(Value::Text(text)) if reunion_model::plugin::holds_password(text) => findings.hidden(),
            _ => findings,
        }
    }
}

/// A value of a `with` table as JSON: see [`Config::with_values`].
fn json(document: &Document, node: &Node, schema: &serde_json::Value) -> serde_json::Value {
    match &node.value {
        Value::Text(text) if schema["format"] == "path" => shape::absolute(document, node.at, text).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Integer(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Array(items) => items.iter().map(|item| json(document, item, &schema["items"])).collect(),
        Value::Table(table) => table_json(document, table, schema),
    }
}

fn table_json(document: &Document, table: &document::Table, schema: &serde_json::Value) -> serde_json::Value {
    let entries = table.iter().map(|(name, entry)| {
        let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        (name.clone(), json(document, &entry.node, schema))
    });
    entries.collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::document::SourceFile;
    use super::keys::{KEYS, Kind};
    use super::*;

    fn document(text: &str) -> Result<Document, Diagnostics> {
        Document::parse(vec![SourceFile { path: "/etc/reunion/reunion.toml".into(), text: text.to_owned() }])
    }

    /// Something that each kind of key takes.
    fn sample(kind: Kind) -> Option<String> {
        Some(match kind {
            Kind::Table | Kind::Choice | Kind::Map(_) | Kind::With | Kind::TableOrText(_) => return None,
            Kind::Text | Kind::Path => "\"x\"".to_owned(),
            Kind::Texts | Kind::Paths | Kind::Combinations => "[\"x\"]".to_owned(),
            Kind::Integer(min, _) => min.to_string(),
            Kind::Number(_, max) => max.to_string(),
            Kind::Boolean => "true".to_owned(),
            Kind::Word(words) => format!("{:?}", words[0]),
            Kind::Words(words) => format!("{words:?}"),
            Kind::Zone => "\"Asia/Tokyo\"".to_owned(),
            Kind::Cron => "\"0 6 * * *\"".to_owned(),
            Kind::Sweep => "\"never\"".to_owned(),
            Kind::Clock => "\"09:00\"".to_owned(),
            Kind::Ledger => "\"sqlite\"".to_owned(),
            Kind::Address => "\"[::1]:8470\"".to_owned(),
        })
    }

    #[test]
    fn every_key_that_is_documented_is_read_by_the_types() {
        for chosen in ["credential", "file", "env"] {
            let mut text = String::new();
            for key in KEYS.iter().filter(|key| key.parent() != "state.key" || key.name() == chosen) {
                let path = key.path.replace(['<', '>'], "");
                if let Some(value) = sample(key.kind) {
                    let _ = writeln!(text, "{path} = {value}");
                }
            }
            let mut document = document(&text).unwrap_or_else(|findings| panic!("{findings}"));
            let findings = shape::check(&mut document);
            assert!(findings.is_empty(), "{findings}");
            Config::deserialize(&Value::Table(document.root)).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn every_default_is_read_by_the_types() {
        let text = "[state]\nkey = { env = 'K' }\n[sources.a]\nplugin = 'file'\n[channels.a]\nplugin = 'file'\n\
                    [campaigns.a]\naudience = 'true'\nchannel = 'a'\nwindow = { from = '09:00', to = '10:00' }\n\
                    [pipelines.a]\nsources = ['a']\ncampaigns = ['a']\n";
        let config = document(text).and_then(Config::from_document).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
        let campaign = &config.campaigns["a"];
        assert_eq!((campaign.per_run_max, campaign.per_store_per_day_max, campaign.touches_max), (5000, 50, 1));
        assert_eq!((campaign.holdout, campaign.enabled), (0.10, true));
        assert_eq!((config.sources["a"].max_age_hours, config.limits.drain_secs), (48, 60));
        assert_eq!(config.locate(&["limits", "drain_secs"]).line, 1, "a default is shown at the nearest table that is there");
    }

    const WHOLE: &str = include_str!("../../testdata/config/design.good.toml");

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever is typed into a config, it is loaded or refused with findings that can be shown.
        #[test]
        fn no_text_panics(
            at in 0..WHOLE.len(), cut in 0_usize..40,
            typed in "[\"'\\[\\]{}=\\\\ \n\r.#a-z0-9\u{0}店\u{1F600}\t]{0,12}", key in 0_usize..3, offset in 0_usize..80, length in 0_usize..20,
        ) {
            let whole = |at: usize| (0..=at.min(WHOLE.len())).rev().find(|at| WHOLE.is_char_boundary(*at)).unwrap_or(0);
            let text = format!("{}{typed}{}", &WHOLE[..whole(at)], &WHOLE[whole(at + cut)..]);
            match document(&text).and_then(Config::from_document) {
                Ok(config) => {
                    let keys: [&[&str]; 3] = [&["campaigns", "warm-add", "audience"], &["tags", "dormant", "when"], &["sources", "pos", "with", "query"]];
                    let findings = Diagnostics::at_offset(&config, keys[key], offset, length, "here", None);
                    prop_assert!(!findings.render(false).is_empty());
                }
                Err(findings) => {
                    prop_assert!(findings.has_errors());
                    prop_assert!(!findings.render(true).is_empty());
                    let json = findings.to_json();
                    prop_assert!(json.as_array().is_some_and(|list| list.iter().all(|finding| finding["line"].as_u64() > Some(0))));
                }
            }
        }
    }
}
