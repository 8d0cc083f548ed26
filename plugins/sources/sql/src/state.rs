//! What a pull leaves for the next one, and for itself if it breaks off.

use reunion_sdk::ReadMode;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::config::Config;
use crate::value::Value;

const STATE_VERSION: u32 = 2;

/// The resume state. Where it has a value for each cursor, these are the one of `cursor_column`, or one for each
/// query of `changed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// A hash of what is read from where: of another one nothing here means anything.
    query: String,
    /// For each cursor the greatest that pulls which have ended came by, none of them of the future. Empty before
    /// the first has ended.
    pub watermarks: Vec<Option<Value>>,
    /// The pull that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Progress>,
}

/// How far a pull came.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How it reads.
    pub mode: ReadMode,
    /// When it began, in microseconds UTC.
    pub started_us: i64,
    /// For each cursor from where it reads; none from the least. Empty where everything is read.
    pub from: Vec<Option<Value>>,
    /// For each cursor the greatest so far that is not of the future.
    pub high: Vec<Option<Value>>,
    /// The last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
}

/// A row in the order in which rows are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its cursor; none for rows without one, which come last, and where the order is that of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Value>,
    /// Its id.
    pub id: Value,
}

impl State {
    /// Of what is read from where this fingerprint says.
    pub fn new(fingerprint: &str, watermarks: Vec<Option<Value>>, pull: Option<Progress>) -> Self {
        Self { version: STATE_VERSION, query: fingerprint.to_owned(), watermarks, pull }
    }

    /// What an earlier pull left, if it read the same.
    pub fn of(document: serde_json::Value, fingerprint: &str) -> Option<Self> {
        let state = serde_json::from_value::<Self>(document).ok()?;
        (state.version == STATE_VERSION && state.query == fingerprint).then_some(state)
    }
}

/// Stands for what is read from where.
pub fn fingerprint(config: &Config) -> String {
    let Config { url, file, query, id_column, cursor_column, changed, orders, .. } = config;
    let text = serde_json::to_vec(&(url, file, query, id_column, cursor_column, changed, orders)).expect("texts are JSON");
    format!("{:032x}", xxh3_128(&text))
}
