//! The built library, through the host: a list is written and its results come back.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;

use reunion_host::{CallOptions, Plugins, Polled};
use reunion_sdk::arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use reunion_sdk::{Channel, DispatchInfo, ErrorClass, Outcome, PluginKind, Verdict, task_schema};
use serde_json::json;

const TASKS: usize = 20_000;

/// `TASKS` tasks of one store.
fn tasks() -> RecordBatch {
    let schema = task_schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "task_id" => Arc::new((0..TASKS).map(|task| Some(format!("{task:032x}"))).collect::<StringArray>()) as ArrayRef,
        "campaign" | "store" | "phone" => Arc::new(StringArray::from(vec![Some("13900001201"); TASKS])) as ArrayRef,
        _ => new_null_array(field.data_type(), TASKS),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

#[test]
fn a_list_goes_out_and_comes_back_through_the_library() {
    let dir = tempfile::tempdir().unwrap();
    // Cargo puts the library that it builds with this test beside the test.
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let plugin = Plugins::new(vec![beside]).find(PluginKind::Channel, "file").unwrap();
    assert_eq!(plugin.manifest().config_schema, reunion_channel_file::FileChannel::manifest().config_schema);
    let config = json!({ "path": dir.path().join("{run}.csv"), "return_dir": dir.path(), "settle_secs": 0 });
    let channel = plugin.channel("store-list", &config).unwrap();
    assert!(channel.traits().idempotent);

    let dispatch = DispatchInfo { dispatch_id: "d1".into(), run: "ab12".into(), ordinal: 1, date: "2026-03-25".into() };
    let mut receipts = channel.push(&CallOptions::default(), &dispatch, tasks()).unwrap();
    let mut accepted = 0;
    while let Some(batch) = receipts.next().unwrap() {
        assert!(batch.iter().all(|receipt| receipt.verdict == Verdict::Accepted));
        accepted += batch.len();
    }
    assert_eq!((accepted, receipts.unanswered()), (TASKS, vec![]));
    drop(receipts);

    let path = dir.path().join("ab12.csv");
    let list = fs::read_to_string(&path).unwrap();
    fs::write(&path, list.replace(",,\r\n", ",refused,\r\n")).unwrap();
    let mut items = channel.poll(&CallOptions::default(), None).unwrap();
    let (mut events, mut state) = (0, None);
    while let Some(item) = items.next().unwrap() {
        match item {
            Polled::Events(batch) => events += batch.iter().filter(|event| event.outcome == Outcome::Refused).count(),
            Polled::Rejected(rows) => panic!("{rows:?}"),
            Polled::State(document) => state = Some(document),
        }
    }
    assert_eq!(events, TASKS);
    drop(items);
    let again = channel.poll(&CallOptions::default(), state.as_ref()).unwrap().next().unwrap();
    assert_eq!(again, None, "a list is read once");
}

#[test]
fn a_config_that_makes_no_sense_is_refused_with_its_key() {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let plugin = Plugins::new(vec![beside]).find(PluginKind::Channel, "file").unwrap();
    let error = plugin.channel("store-list", &json!({ "path": "/out/{shop}.csv" })).err().unwrap();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("path")));
}
