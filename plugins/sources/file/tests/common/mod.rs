//! What the tests of all formats do with files.

use std::fs;

use reunion_sdk::arrow::array::{Array, AsArray};
use reunion_sdk::arrow::util::display::array_value_to_string;
use reunion_sdk::{Call, Item, Items, PluginError, ReadMode, ReadRequest, Source, limits};
use reunion_source_file::FileSource;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A source that reads `path` in the folder.
pub fn source(folder: &TempDir, path: &str, with: Value) -> FileSource {
    let mut table = json!({"path": folder.path().join(path), "settle_secs": 0});
    table.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    FileSource::create("till", serde_json::from_value(table).unwrap()).unwrap()
}

/// Writes a file.
pub fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.path().join(name), bytes).unwrap();
}

/// What a read gave, rows as their cells.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Pulled {
    pub resumed: bool,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    pub rejected: Vec<String>,
    pub state: Option<Value>,
    pub as_of_us: Option<i64>,
    pub unchanged: bool,
    pub ended: bool,
}

impl Pulled {
    pub fn add(&mut self, item: Item) {
        assert!(!self.ended);
        match item {
            Item::Begin { resumed } => self.resumed = resumed,
            Item::Batch(batch) => {
                assert!(batch.num_rows() <= limits::BATCH_ROWS_MAX && batch.num_rows() > 0);
                self.columns = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                let cell = |column: usize, row: usize| {
                    let column = batch.column(column);
                    column.is_valid(row).then(|| array_value_to_string(column, row).unwrap())
                };
                if batch.num_rows() > 1000 {
                    self.rows.extend((0..batch.num_rows()).map(|_| Vec::new()));
                } else {
                    self.rows.extend((0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|column| cell(column, row)).collect()));
                }
            }
            Item::Rejected(batch) => {
                let texts = |column: usize| batch.column(column).as_string::<i32>().iter().map(|text| text.unwrap().to_owned());
                self.rejected.extend(texts(0).zip(texts(1)).map(|(location, reason)| format!("{location} {reason}")));
            }
            Item::State(state) => self.state = Some(state),
            Item::End { as_of_us } => (self.ended, self.as_of_us) = (true, as_of_us),
            Item::Unchanged { as_of_us } => (self.ended, self.unchanged, self.as_of_us) = (true, true, as_of_us),
        }
    }

    pub fn ids(&self) -> String {
        self.rows.iter().map(|row| row[0].as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")
    }
}

/// Begins a read.
pub fn begin(source: &FileSource, mode: ReadMode, resume: bool, state: Option<Value>) -> Result<Items, PluginError> {
    source.read(&Call::for_tests(), ReadRequest { resume, ..ReadRequest::new(mode) }, state)
}

/// All that a read gives.
pub fn read_with(source: &FileSource, mode: ReadMode, resume: bool, state: Option<Value>) -> Result<Pulled, PluginError> {
    let mut pulled = Pulled::default();
    for item in begin(source, mode, resume, state)? {
        pulled.add(item?);
    }
    assert!(pulled.ended);
    Ok(pulled)
}

/// All that a read of everything gives.
pub fn snapshot(source: &FileSource) -> Result<Pulled, PluginError> {
    read_with(source, ReadMode::Snapshot, false, None)
}

/// The rows, a bar between two cells.
pub fn lines(pulled: &Pulled) -> Vec<String> {
    pulled.rows.iter().map(|row| row.iter().map(|cell| cell.as_deref().unwrap_or("-")).collect::<Vec<_>>().join("|")).collect()
}

/// All of these files.
pub fn pull(folder: &TempDir, name: &str, with: Value) -> Pulled {
    snapshot(&source(folder, name, with)).unwrap()
}

/// Why these files cannot be read.
pub fn error(folder: &TempDir, name: &str, with: Value) -> String {
    snapshot(&source(folder, name, with)).expect_err("an error").to_string()
}
