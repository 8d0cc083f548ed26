//! The databases that the tests read: each with a way to change it that does not go through the plugin.

#[path = "../../../../../core/ledger/tests/common/postgres.rs"]
mod postgres;

pub mod mariadb;
mod sqlite;

use std::path::PathBuf;

use reunion_sdk::arrow::array::{Array, ArrayRef, RecordBatch};
use reunion_sdk::arrow::compute::cast;
use reunion_sdk::arrow::datatypes::DataType;
use reunion_sdk::{Call, Item, PluginError, ReadMode, ReadRequest, Source};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

/// A database.
pub enum Database {
    Sqlite { path: PathBuf, _folder: Option<tempfile::TempDir> },
    Postgres(String),
    Mariadb { name: String, url: String },
}

impl Database {
    /// One of each kind.
    pub fn all() -> Vec<Self> {
        vec![Self::sqlite(), Self::postgres(), Self::mariadb()]
    }

    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::Sqlite { path: folder.path().join("till.db"), _folder: Some(folder) }
    }

    pub fn postgres() -> Self {
        Self::Postgres(postgres::server().database())
    }

    pub fn mariadb() -> Self {
        let (name, url) = mariadb::server().database("root");
        Self::Mariadb { name, url }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { path, .. } => format!("sqlite://{}", path.display()),
            Self::Postgres(url) | Self::Mariadb { url, .. } => url.clone(),
        }
    }

    /// Runs statements. The types `{text}` and `{time}` are those of the database.
    pub fn execute(&self, sql: &str) {
        let (text, time) = match self {
            Self::Sqlite { .. } => ("text", "text"),
            Self::Postgres(_) => ("text", "timestamp"),
            Self::Mariadb { .. } => ("varchar(64)", "datetime(6)"),
        };
        let sql = sql.replace("{text}", text).replace("{time}", time);
        match self {
            Self::Sqlite { path, .. } => sqlite::execute(path, &sql),
            Self::Postgres(url) => postgres::server().execute(url, &sql),
            Self::Mariadb { name, .. } => mariadb::server().execute(name, &sql),
        }
    }

    /// A source on it.
    pub fn source(&self, with: Value) -> SqlSource {
        let mut table = json!({"url": self.url()});
        table.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        SqlSource::create("pos", serde_json::from_value(table).unwrap()).unwrap()
    }
}

/// What a read gave, rows as texts.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pulled {
    pub resumed: bool,
    pub rows: Vec<String>,
    pub states: Vec<Value>,
    pub as_of_us: Option<i64>,
    pub ended: bool,
}

impl Pulled {
    pub fn state(&self) -> Option<Value> {
        self.states.last().cloned()
    }

    pub fn add(&mut self, item: Item) {
        match item {
            Item::Begin { resumed } => self.resumed = resumed,
            Item::Batch(batch) => self.rows.extend(texts(&batch)),
            Item::State(state) => self.states.push(state),
            Item::End { as_of_us } => (self.ended, self.as_of_us) = (true, as_of_us),
            Item::Rejected(_) => panic!("nothing is rejected"),
        }
    }
}

/// Each row with bars between its values.
pub fn texts(batch: &RecordBatch) -> Vec<String> {
    let text = |column: &ArrayRef| match column.data_type() {
        // Arrow knows no names of timezones here.
        DataType::Timestamp(unit, Some(_)) => cast(&cast(column, &DataType::Timestamp(*unit, None)).unwrap(), &DataType::Utf8).unwrap(),
        _ => cast(column, &DataType::Utf8).unwrap(),
    };
    let columns: Vec<_> = batch.columns().iter().map(text).collect();
    let cell = |column: &dyn Array, row: usize| {
        let texts = column.as_any().downcast_ref::<reunion_sdk::arrow::array::StringArray>().unwrap();
        if texts.is_null(row) { "-".to_owned() } else { texts.value(row).to_owned() }
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column.as_ref(), row)).collect::<Vec<_>>().join("|")).collect()
}

pub fn request(mode: ReadMode, resume: bool) -> ReadRequest {
    ReadRequest { mode, resume, overlap_secs: 900 }
}

pub fn read_with(source: &SqlSource, request: ReadRequest, state: Option<Value>) -> Result<Pulled, PluginError> {
    let mut pulled = Pulled::default();
    for item in source.read(&Call::for_tests(), request, state)? {
        pulled.add(item?);
    }
    assert!(pulled.ended);
    Ok(pulled)
}

pub fn snapshot(source: &SqlSource) -> Result<Pulled, PluginError> {
    read_with(source, request(ReadMode::Snapshot, false), None)
}
