//! The trait, called as the SDK calls it.

use std::fs;
use std::path::PathBuf;

use reunion_sdk::arrow::array::{Array, RecordBatch};
use reunion_sdk::arrow::util::display::array_value_to_string;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, Items, ReadMode, ReadRequest, Source};
use reunion_source_points::{Config, Points};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new(export: &[u8]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path(), export).unwrap();
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("points.jsonl")
    }

    fn source(&self, batch_rows: usize) -> Points {
        Points::create("points", Config { path: self.path(), line_bytes_max: 100, batch_rows }).unwrap()
    }
}

fn read(source: &Points, call: &Call, state: Option<Value>) -> Items {
    let request = ReadRequest { resume: state.is_some(), ..ReadRequest::new(ReadMode::Snapshot) };
    source.read(call, request, state).unwrap()
}

/// The rows of a batch as lines.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &dyn Array, row| array_value_to_string(column, row).unwrap();
    let line = |row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join(",");
    (0..batch.num_rows()).map(line).collect()
}

/// Rows and rejected rows as lines.
fn shown(items: &[Item]) -> Vec<String> {
    let batches = items.iter().filter_map(|item| match item {
        Item::Batch(batch) | Item::Rejected(batch) => Some(batch),
        _ => None,
    });
    batches.flat_map(lines).collect()
}

fn all(items: Items) -> Vec<Item> {
    items.map(Result::unwrap).collect()
}

#[test]
fn members_are_read_and_lines_that_are_none_are_set_aside() {
    let export = [
        r#"{"card": "P1", "mobile": "13900001201", "name": "张", "points": 120, "changed": "2026-01-02", "tier": "gold"}"#.as_bytes(),
        b"\r\n\n",
        r#"{"card": "P2", "mobile": null}"#.as_bytes(),
        b"\n",
        r#"{"card": "P3", "points": "13900001203"}"#.as_bytes(),
        b"\n\xff\n",
        "x".repeat(1000).as_bytes(),
        br#"
{"card": "P4""#,
    ]
    .concat();
    let folder = Folder::new(&export);
    // The first line has more bytes than the others may have.
    let source = Points::create("points", Config { path: folder.path(), line_bytes_max: 120, batch_rows: 100 }).unwrap();
    let items = all(read(&source, &Call::for_tests(), None));
    assert_eq!(
        shown(&items),
        [
            "P1,13900001201,张,120,2026-01-02",
            "P2,,,,",
            "points.jsonl:4,row_ragged,not the object that it should be, from character 38 on",
            "points.jsonl:5,row_bad_encoding,the line is not UTF-8",
            "points.jsonl:6,row_too_long,longer than line_bytes_max",
            "points.jsonl:7,row_truncated,not the object that it should be, from character 13 on",
        ]
    );
    assert_eq!(items.first(), Some(&Item::Begin { resumed: false }));
    assert!(matches!(items.last(), Some(Item::End { as_of_us: Some(_) })));
}

#[test]
fn a_read_goes_on_at_each_state() {
    let line = |row| if row % 7 == 3 { "-\n".to_owned() } else { format!("{{\"card\": \"P{row}\", \"points\": {row}}}\n") };
    let export: String = (0..20).map(line).collect();
    let folder = Folder::new(export.as_bytes());
    let source = folder.source(3);
    let whole = all(read(&source, &Call::for_tests(), None));
    for (at, item) in whole.iter().enumerate() {
        let Item::State(state) = item else { continue };
        let rest = all(read(&source, &Call::for_tests(), Some(state.clone())));
        assert_eq!(rest[0], Item::Begin { resumed: true });
        assert_eq!([shown(&whole[..at]), shown(&rest)].concat(), shown(&whole), "after {state}");
    }
}

#[test]
fn another_file_is_read_anew() {
    let folder = Folder::new(b"{}\n{}\n");
    let source = folder.source(1);
    let state = all(read(&source, &Call::for_tests(), None)).into_iter().find_map(|item| match item {
        Item::State(state) => Some(state),
        _ => None,
    });
    fs::write(folder.path(), b"{}\n{}\n{}\n").unwrap();
    for state in [state.unwrap(), json!({}), json!({"version": 2})] {
        let items = all(read(&source, &Call::for_tests(), Some(state)));
        assert_eq!((&items[0], shown(&items).len()), (&Item::Begin { resumed: false }, 3));
    }
}

#[test]
fn a_file_that_changes_has_no_end() {
    let folder = Folder::new(b"{}\n");
    let source = folder.source(1);
    let items = read(&source, &Call::for_tests(), None);
    fs::write(folder.path(), b"{}\n{}\n").unwrap();
    let error = items.filter_map(Result::err).next().unwrap();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::Unavailable, Some("path")));
}

#[test]
fn what_cannot_be_read_blames_the_path() {
    let folder = Folder::new(b"");
    let source = folder.source(1);
    assert_eq!(source.check(&Call::for_tests()).unwrap()[0].message, "the export is empty");
    fs::remove_file(folder.path()).unwrap();
    let error = source.check(&Call::for_tests()).unwrap_err();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidData, Some("path")));
    fs::create_dir(folder.path()).unwrap();
    assert_eq!(source.check(&Call::for_tests()).unwrap_err().class, ErrorClass::InvalidData);
}

#[test]
fn a_read_stops_when_it_is_told_to() {
    let folder = Folder::new(b"{}\n{}\n");
    let (call, canceller) = TestCall::default().start();
    let mut items = read(&folder.source(1), &call, None);
    assert!(items.next().unwrap().is_ok());
    canceller.cancel();
    assert_eq!(items.next().unwrap().unwrap_err().class, ErrorClass::Cancelled);
    assert!(items.next().is_none());
}
