//! The trait, called as the SDK calls it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use reunion_channel_my_plugin::{Component, Config};
use reunion_sdk::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, Channel, DispatchInfo, ErrorClass, Receipts, task_schema};
use serde_json::{Value, json};

fn component(dir: &Path) -> Component {
    Component::create("test", Config { dir: dir.to_owned() }).unwrap()
}

/// Tasks numbered from 1.
fn tasks(count: usize) -> RecordBatch {
    let schema = task_schema();
    let text = |cell: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((1..=count).map(cell)))
    };
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "task_id" => text(&|task| format!("{task:032x}")),
        "campaign" => text(&|_| "warm-add".to_owned()),
        "phone" => text(&|task| format!("1390000{task:04}")),
        _ => new_null_array(field.data_type(), count),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

fn push(component: &Component, call: &Call, count: usize) -> Receipts {
    let dispatch = DispatchInfo {
        dispatch_id: "1".repeat(32),
        run: "0000000a".into(),
        ordinal: 1,
        date: "2026-03-25".into(),
    };
    component.push(call, &dispatch, tasks(count)).unwrap()
}

fn verdicts(batch: &RecordBatch) -> Vec<String> {
    batch.column(1).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
}

fn all_verdicts(receipts: Receipts) -> Vec<String> {
    receipts.flat_map(|batch| verdicts(&batch.unwrap())).collect()
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_task_becomes_a_file_however_often_it_is_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let component = component(dir.path());
    for _ in 0..2 {
        let receipts = push(&component, &Call::for_tests(), 150);
        assert_eq!(all_verdicts(receipts), ["accepted"; 150]);
        assert_eq!(files(dir.path()), 150);
    }
    let id = format!("{:032x}", 2);
    let file = fs::read(dir.path().join(format!("{id}.json"))).unwrap();
    let expected = json!({"task_id": id, "campaign": "warm-add", "phone": "13900000002"});
    assert_eq!(serde_json::from_slice::<Value>(&file).unwrap(), expected);
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (call, _) = TestCall { dry_run: true, ..TestCall::default() }.start();
    assert_eq!(all_verdicts(push(&component(dir.path()), &call, 1)), ["accepted"]);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn what_is_known_is_handed_out_before_a_push_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (call, canceller) = TestCall::default().start();
    let mut receipts = push(&component(dir.path()), &call, 100);
    let known = receipts.next().unwrap().unwrap().num_rows();
    canceller.cancel();
    assert_eq!(receipts.next().unwrap().unwrap_err().class, ErrorClass::Cancelled);
    assert!(receipts.next().is_none());
    assert_eq!(files(dir.path()), known);
}

#[test]
fn a_folder_that_takes_nothing_puts_tasks_off() {
    let dir = tempfile::tempdir().unwrap();
    // A folder stands where the file is to be.
    fs::create_dir(dir.path().join(format!("{:032x}.json", 1))).unwrap();
    let receipts = push(&component(dir.path()), &Call::for_tests(), 2);
    assert_eq!(all_verdicts(receipts), ["busy", "accepted"]);
    assert_eq!(files(dir.path()), 2);
}

#[test]
fn a_folder_that_is_not_there_blames_its_key() {
    let error = component(Path::new("/nowhere/at/all")).check(&Call::for_tests()).unwrap_err();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("dir")));
}
