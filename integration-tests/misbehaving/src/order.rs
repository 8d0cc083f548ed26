//! Items that come in another order than they should, or are larger.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use reunion_sdk::export::reunion_abi::{Item, item_kind};
use serde_json::json;

use crate::raw::{batch, control};

/// Twice what a control document may have.
const STATE_BYTES: usize = 2 << 20;

fn begin() -> Item {
    control(item_kind::BEGIN, &json!({"resumed": false}))
}

fn end() -> Item {
    control(item_kind::END, &json!({"as_of_us": null}))
}

/// One column of text and this many rows: enough for what is refused, or never looked at.
pub(crate) fn rows(values: impl Iterator<Item = String>) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    RecordBatch::try_from_iter([("record_id", column)]).expect("one column")
}

/// The read begins with what should come second.
pub(crate) fn no_begin(_: Item) -> Vec<Item> {
    Vec::new()
}

/// A begin marker comes before the item.
pub(crate) fn begin_twice(item: Item) -> Vec<Item> {
    vec![begin(), item]
}

/// Who asks again after the end marker gets it again.
pub(crate) fn double_end(item: Item) -> Vec<Item> {
    vec![item, end()]
}

/// Who asks again after the end marker gets rows.
pub(crate) fn item_after_end(item: Item) -> Vec<Item> {
    vec![item, batch(&rows(std::iter::once("after the end".to_owned())))]
}

/// The read ends with the word that nothing has changed.
pub(crate) fn unchanged(_: Item) -> Vec<Item> {
    vec![control(item_kind::END, &json!({"as_of_us": null, "unchanged": true}))]
}

/// A resume state of 2 MiB comes before the item.
pub(crate) fn huge_state(item: Item) -> Vec<Item> {
    vec![control(item_kind::STATE, &json!({"row": 0, "padding": "x".repeat(STATE_BYTES)})), item]
}
