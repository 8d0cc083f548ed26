//! Receipts that are wrong, missing, or there twice.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, StructArray, UInt64Array};
use arrow::compute::concat_batches;
use reunion_sdk::export::reunion_abi::Item;
use reunion_sdk::receipt_schema;

use crate::raw;

/// What a batch of receipts holds, the item given back.
fn read(item: Item) -> RecordBatch {
    let Item { schema, array, .. } = item;
    // SAFETY: the SDK has just made both.
    let data = unsafe { arrow::ffi::from_ffi(array, &schema) };
    StructArray::from(data.expect("a batch that the SDK made")).into()
}

fn with_column(receipts: &RecordBatch, name: &str, column: ArrayRef) -> Vec<Item> {
    let mut columns = receipts.columns().to_vec();
    columns[receipt_schema().index_of(name).expect("a column of receipts")] = column;
    vec![raw::batch(&RecordBatch::try_new(receipt_schema(), columns).expect("as many rows"))]
}

/// The first receipt is for a task that is in no dispatch.
pub(crate) fn wrong(item: Item) -> Vec<Item> {
    let receipts = read(item);
    let foreign = "f".repeat(32);
    let ids = receipts.column(0).as_string::<i32>().iter().enumerate();
    let ids: StringArray = ids.map(|(at, id)| if at == 0 { Some(foreign.as_str()) } else { id }).collect();
    with_column(&receipts, "task_id", Arc::new(ids))
}

/// The first receipt comes again at the end of its batch.
pub(crate) fn double(item: Item) -> Vec<Item> {
    let receipts = read(item);
    let twice = concat_batches(&receipts.schema(), [&receipts, &receipts.slice(0, 1)]);
    vec![raw::batch(&twice.expect("the same columns"))]
}

/// There are none.
pub(crate) fn missing(_: Item) -> Vec<Item> {
    Vec::new()
}

/// Nothing was sent, and nothing says when to try again.
pub(crate) fn not_sent_without_delay(item: Item) -> Vec<Item> {
    let receipts = read(item);
    let rows = receipts.num_rows();
    let verdicts: ArrayRef = Arc::new(StringArray::from(vec!["not_sent"; rows]));
    let mut columns = receipts.columns().to_vec();
    columns[2] = Arc::new(UInt64Array::new_null(rows));
    let receipts = RecordBatch::try_new(receipt_schema(), columns).expect("as many rows");
    with_column(&receipts, "verdict", verdicts)
}
