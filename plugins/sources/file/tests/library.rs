//! The same reads through the trait and through the built library give the same items.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::fs;

use reunion_host::{CallOptions, Plugin, Plugins};
use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::arrow::compute::concat_batches;
use reunion_sdk::{Call, ErrorClass, Item, PluginKind, ReadMode, ReadRequest, Source};
use reunion_source_file::FileSource;
use rust_xlsxwriter::Workbook;
use serde_json::{Value, json};

/// Cargo puts the library that it builds with this test beside the test.
fn library() -> Plugin {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    Plugins::new(vec![beside]).find(PluginKind::Source, "file").unwrap()
}

/// Rows, rejected rows and all other items, as the SDK may cut batches.
fn sorted(items: Vec<Item>) -> (RecordBatch, Vec<RecordBatch>, Vec<Item>) {
    let (mut batches, mut rejected, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Batch(batch) => batches.push(batch),
            Item::Rejected(batch) => rejected.push(batch),
            other => others.push(other),
        }
    }
    (concat_batches(&batches[0].schema(), &batches).unwrap(), rejected, others)
}

fn through_trait(config: &Value, request: ReadRequest, state: Option<Value>) -> Vec<Item> {
    let source = FileSource::create("till", serde_json::from_value(config.clone()).unwrap()).unwrap();
    source.read(&Call::for_tests(), request, state).unwrap().map(Result::unwrap).collect()
}

fn through_library(config: &Value, request: &ReadRequest, state: Option<&Value>) -> Vec<Item> {
    let source = library().source("till", config).unwrap();
    let mut stream = source.read(&CallOptions::default(), request, state).unwrap();
    let mut items = Vec::new();
    while let Some(item) = stream.next().unwrap() {
        items.push(item);
    }
    items
}

#[test]
fn the_library_reads_what_the_trait_reads() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..100_000).map(|row| format!("C{row:06},139000012{:02},张三\n", row % 100)).collect();
    fs::write(folder.path().join("a.csv"), format!("card,phone,name\n{rows}short\n")).unwrap();
    fs::write(folder.path().join("b.csv"), encoding_rs::GB18030.encode("phone,name,card\n13900001201,李四,D1\n").0).unwrap();
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row_matrix(0, 0, [["phone", "name", "card"], ["13900001202", "王五", "E1"]]).unwrap();
    workbook.save(folder.path().join("c.xlsx")).unwrap();
    let config = json!({"path": folder.path().join("*"), "settle_secs": 0});
    let request = ReadRequest::new(ReadMode::Snapshot);
    let items = through_library(&config, &request, None);
    let state = items.iter().find_map(|item| if let Item::State(state) = item { Some(state.clone()) } else { None }).unwrap();
    let found = sorted(items);
    assert_eq!((found.0.num_rows(), found.1.len()), (100_002, 1));
    assert_eq!(found, sorted(through_trait(&config, request, None)));

    let request = ReadRequest { resume: true, ..ReadRequest::new(ReadMode::Snapshot) };
    let rest = sorted(through_library(&config, &request, Some(&state)));
    assert_eq!(rest.2[0], Item::Begin { resumed: true });
    assert!(rest.0.num_rows() < 100_002);
    assert_eq!(rest, sorted(through_trait(&config, request, Some(state))));
}

#[test]
fn errors_pass_the_boundary_whole() {
    let library = library();
    assert_eq!(library.manifest().capabilities.modes, ["snapshot", "incremental"]);
    let gone = library.source("till", &json!({"path": "/nonexistent/a.csv", "settle_secs": 0})).unwrap();
    let error = gone.check(&CallOptions::default()).unwrap_err();
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::InvalidData, "/nonexistent/a.csv is not there"));
    assert_eq!(error.key.as_deref(), Some("path"));
    let wrong = library.source("till", &json!({"path": "a", "header": "none"})).map(|_| ()).unwrap_err();
    assert_eq!((wrong.class, wrong.key.as_deref()), (ErrorClass::InvalidConfig, Some("columns")));
}
