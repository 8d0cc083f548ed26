//! The trait, called as the SDK calls it.

use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, Items, ReadMode, ReadRequest, Source};
use reunion_source_my_plugin::{Component, Config};
use serde_json::{Value, json};

fn component() -> Component {
    Component::create("test", Config { rows: 5, batch_rows: 2 }).unwrap()
}

fn read(call: &Call, state: Option<Value>) -> Items {
    let mode = ReadMode::Snapshot;
    let request = ReadRequest { resume: state.is_some(), ..ReadRequest::new(mode) };
    component().read(call, request, state).unwrap()
}

/// The items in short.
fn shown(items: Items) -> Vec<String> {
    let item = |item: Item| match item {
        Item::Begin { resumed } => format!("begin {resumed}"),
        Item::Batch(batch) => format!("{} rows", batch.num_rows()),
        Item::Rejected(batch) => format!("{} rejected", batch.num_rows()),
        Item::State(state) => state.to_string(),
        Item::End { .. } => "end".to_owned(),
        Item::Unchanged { .. } => "unchanged".to_owned(),
    };
    items.map(|next| item(next.unwrap())).collect()
}

#[test]
fn members_are_read() {
    let items = shown(read(&Call::for_tests(), None));
    let states = [r#"{"row":2}"#, r#"{"row":4}"#, r#"{"row":5}"#];
    let rows = ["2 rows", "2 rows", "1 rows"];
    let parts = rows.into_iter().zip(states).flat_map(|(rows, state)| [rows, state]);
    assert_eq!(items, ["begin false"].into_iter().chain(parts).chain(["end"]).collect::<Vec<_>>());
}

#[test]
fn a_read_goes_on_at_its_state() {
    let items = shown(read(&Call::for_tests(), Some(json!({"row": 4}))));
    assert_eq!(items, ["begin true", "1 rows", r#"{"row":5}"#, "end"]);
    let items = shown(read(&Call::for_tests(), Some(json!({"row": 6}))));
    assert_eq!(items[0], "begin false");
}

#[test]
fn a_read_stops_when_it_is_told_to() {
    let (call, canceller) = TestCall::default().start();
    let mut items = read(&call, None);
    assert_eq!(items.next(), Some(Ok(Item::Begin { resumed: false })));
    canceller.cancel();
    assert_eq!(items.next().unwrap().unwrap_err().class, ErrorClass::Cancelled);
    assert!(items.next().is_none());
}
