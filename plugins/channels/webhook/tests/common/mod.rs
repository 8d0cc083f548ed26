//! What several tests need.
#![allow(clippy::unwrap_used)]

pub mod receiver;

use std::sync::Arc;

use reunion_channel_webhook::WebhookChannel;
use reunion_sdk::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use reunion_sdk::{Call, Channel, DispatchInfo, PluginError, task_schema};
use serde_json::{Value, json};

/// `count` tasks with ids from 0 on.
pub fn tasks(count: usize) -> RecordBatch {
    let schema = task_schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "task_id" => Arc::new((0..count).map(|task| Some(format!("{task:032x}"))).collect::<StringArray>()) as ArrayRef,
        "campaign" | "store" | "phone" => Arc::new(StringArray::from(vec![Some("13900001201"); count])) as ArrayRef,
        _ => new_null_array(field.data_type(), count),
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

pub fn dispatch() -> DispatchInfo {
    DispatchInfo { dispatch_id: "d1".into(), run: "ab12".into(), ordinal: 1, date: "2026-03-25".into() }
}

/// The channel with these keys beside its URL.
pub fn channel(url: &str, entries: Value) -> WebhookChannel {
    let mut config = json!({ "url": url });
    config.as_object_mut().unwrap().extend(entries.as_object().unwrap().clone());
    WebhookChannel::create("crm", serde_json::from_value(config).unwrap()).unwrap()
}

/// A receipt: the number of its task, its verdict, code and message.
pub type Receipt = (usize, String, Option<String>, Option<String>);

/// Pushes so many tasks: the receipts by task, and how the push ended.
pub fn push(channel: &WebhookChannel, call: &Call, count: usize) -> (Vec<Receipt>, Option<PluginError>) {
    let (mut receipts, mut error) = (Vec::new(), None);
    for batch in channel.push(call, &dispatch(), tasks(count)).unwrap() {
        match batch {
            Ok(batch) => receipts.extend(read(&batch)),
            Err(end) => error = Some(end),
        }
    }
    receipts.sort();
    (receipts, error)
}

fn read(batch: &RecordBatch) -> Vec<Receipt> {
    let text = |column: usize, row: usize| batch.column(column).as_string_opt::<i32>().and_then(|texts| texts.iter().nth(row).flatten());
    let receipt = |row| {
        let id = usize::from_str_radix(text(0, row).unwrap(), 16).unwrap();
        (id, text(1, row).unwrap().to_owned(), text(3, row).map(Into::into), text(4, row).map(Into::into))
    };
    (0..batch.num_rows()).map(receipt).collect()
}

/// How many receipts have each verdict.
pub fn verdicts(receipts: &[Receipt]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    receipts.iter().for_each(|(_, verdict, ..)| *counts.entry(verdict.clone()).or_insert(0) += 1);
    counts.into_iter().collect()
}
