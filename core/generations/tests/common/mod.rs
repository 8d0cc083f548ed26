//! What the tests of this crate share: a state in a temporary folder, and rows to put in it.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use reunion_generations::{Batches, ManifestMeta, People, SegmentFile, StateDir, open_or_create_keys};
use reunion_keys::MasterKey;
use reunion_model::{PullId, RunId};
use tempfile::TempDir;

/// A state that vanishes with the test.
pub struct State {
    pub folder: TempDir,
    pub people: People,
}

pub fn master() -> MasterKey {
    MasterKey::from_hex(&"1f".repeat(32)).unwrap()
}

impl State {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path()).unwrap();
        let keys = open_or_create_keys(&state, &master()).unwrap();
        Self { folder, people: People::new(state, Arc::new(keys)) }
    }

    /// The files under `people` as paths relative to it.
    pub fn files(&self) -> Vec<String> {
        let people = self.people.state().people();
        let (mut folders, mut files) = (vec![people.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&people).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        files.sort();
        files
    }

    pub fn segment(&self, pull: u8, seq: u64, fence: u64, rows: &[(u64, i64)]) -> SegmentFile {
        let mut writer = self.people.segment("pos", PullId([pull; 16]), seq, fence, record_schema()).unwrap();
        writer.write(&records(rows)).unwrap();
        writer.finish().unwrap()
    }
}

pub fn meta() -> ManifestMeta {
    ManifestMeta {
        clock_us: 1_764_000_000_000_000,
        run_id: RunId([7; 16]),
        fact_seq: 3,
        sources: BTreeMap::from([("pos".to_owned(), serde_json::json!({"cursor": "13800138000"}))]),
        pulls: BTreeMap::new(),
        schema: serde_json::json!({}),
        config_digest: "0".repeat(64),
    }
}

/// Sixteen bytes that look like a hash.
pub fn key(number: u64) -> [u8; 16] {
    let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(number) << 64) | u128::from(low)).to_be_bytes()
}

fn key_array(numbers: impl Iterator<Item = u64>) -> ArrayRef {
    let bytes: Vec<u8> = numbers.flat_map(key).collect();
    Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
}

pub fn record_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record_key", DataType::FixedSizeBinary(16), false),
        Field::new("value", DataType::Int64, false),
        Field::new("phone", DataType::Utf8, true),
    ]))
}

/// Rows of a key and a value; the phone follows from the key.
pub fn records(rows: &[(u64, i64)]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    let phones: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("1390000{:04}", row.0 % 10_000))));
    RecordBatch::try_new(record_schema(), vec![key_array(rows.iter().map(|row| row.0)), values, phones]).unwrap()
}

/// Key and value of every row. Fails where a key comes twice.
pub fn contents(batches: Batches) -> BTreeMap<[u8; 16], i64> {
    let mut found = BTreeMap::new();
    let rows = batches.rows();
    for part in batches {
        let batch = part.unwrap().batch;
        let keys = batch.column_by_name("record_key").unwrap().as_fixed_size_binary();
        let values = batch.column_by_name("value").unwrap().as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            assert!(found.insert(keys.value(row).try_into().unwrap(), values.value(row)).is_none(), "a key stands twice");
        }
    }
    assert_eq!(rows, found.len() as u64);
    found
}
