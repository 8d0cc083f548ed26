//! What a pull leaves for the next one, and for itself if it breaks off.

use reunion_sdk::ReadMode;
use reunion_sdk::arrow::array::{Array, ArrayRef, RecordBatch};
use reunion_sdk::arrow::util::display::array_value_to_string;
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
    /// Hashes of the rows of this place that were handed on: a statement that begins here gives them once more.
    /// Empty where they are too many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
}

/// Rows of one place that are remembered. Ids mostly have one.
const ROWS_MAX: usize = 1_000;

impl Place {
    /// The place of a row.
    pub fn new(cursor: Option<Value>, id: Value) -> Self {
        Self { cursor, id, rows: Vec::new() }
    }

    /// Whether a row of the other place stands here.
    pub fn is_at(&self, other: &Self) -> bool {
        (&self.cursor, &self.id) == (&other.cursor, &other.id)
    }

    /// Remembers rows that were handed on.
    pub fn remember(&mut self, rows: impl IntoIterator<Item = String>) {
        self.rows.extend(rows.into_iter().take(ROWS_MAX + 1));
        if self.rows.len() > ROWS_MAX {
            // They come once more, and count once.
            self.rows.clear();
        }
    }
}

/// Stands for a row: of one that is another in any column, another. None for a row that cannot be told from others.
pub fn row_hash(batch: &RecordBatch, row: usize) -> Option<String> {
    let cell = |column: &ArrayRef| match Value::at(column, row) {
        Some(value) => Some(serde_json::to_value(value).expect("a value is JSON")),
        None if column.is_null(row) => Some(serde_json::Value::Null),
        None => array_value_to_string(column, row).ok().map(Into::into),
    };
    let cells = batch.columns().iter().map(cell).collect::<Option<Vec<_>>>()?;
    Some(format!("{:032x}", xxh3_128(&serde_json::to_vec(&cells).expect("values are JSON"))))
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
