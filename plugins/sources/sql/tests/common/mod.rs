//! What the tests of the plugin have in common: databases, and what was read of them.

pub mod database;
pub mod writers;

use reunion_sdk::arrow::array::{Array, ArrayRef, RecordBatch};
use reunion_sdk::arrow::compute::cast;
use reunion_sdk::arrow::datatypes::DataType;
use reunion_sdk::{Call, Item, PluginError, ReadMode, ReadRequest, Source};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

pub use database::{Database, mariadb};

impl Database {
    /// A source on it.
    pub fn source(&self, with: Value) -> SqlSource {
        let (key, place) = self.place();
        let mut table = json!({key: place});
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
            Item::Rejected(_) | Item::Unchanged { .. } => panic!("nothing is rejected, and nothing known to be unchanged"),
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
    ReadRequest { resume, overlap_secs: 900, ..ReadRequest::new(mode) }
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
