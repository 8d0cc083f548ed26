//! The two plugins as the host sees them, loaded into this process.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use serde_json::Value;

use reunion_host::{CallOptions, ChannelConnector, Plugin, Plugins, Receipt, SourceConnector};
use reunion_model::TaskId;
use reunion_sdk::{DispatchInfo, Item, PluginError, PluginKind, ReadMode, ReadRequest, task_schema};

pub const FRESH: ReadRequest = ReadRequest::new(ReadMode::Snapshot);
pub const RESUME: ReadRequest = ReadRequest { resume: true, ..ReadRequest::new(ReadMode::Snapshot) };

/// Cargo builds the libraries beside the tests.
pub fn folder() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().into()
}

pub fn plugin(kind: PluginKind) -> Plugin {
    Plugins::new(vec![folder()]).find(kind, "misbehaving").unwrap()
}

pub fn source(config: &Value) -> Result<Box<dyn SourceConnector>, PluginError> {
    plugin(PluginKind::Source).source("test", config)
}

pub fn channel(config: &Value) -> Result<Box<dyn ChannelConnector>, PluginError> {
    plugin(PluginKind::Channel).channel("test", config)
}

/// What came, and the error that ended it, if one did.
pub fn read(config: &Value, request: &ReadRequest, state: Option<&Value>) -> (Vec<Item>, Option<PluginError>) {
    let source = source(config).unwrap();
    let mut stream = match source.read(&CallOptions::default(), request, state) {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut items = Vec::new();
    loop {
        match stream.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, None),
            Err(error) => return (items, Some(error)),
        }
    }
}

/// The record ids, in the order in which they came.
pub fn ids(items: &[Item]) -> Vec<String> {
    let batches = items.iter().filter_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None });
    batches.flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect()
}

pub fn states(items: &[Item]) -> Vec<&Value> {
    items.iter().filter_map(|item| if let Item::State(state) = item { Some(state) } else { None }).collect()
}

pub fn task(at: usize) -> TaskId {
    TaskId::from_u128(at as u128)
}

pub fn tasks(count: usize) -> RecordBatch {
    let schema = task_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "task_id" => Arc::new(StringArray::from_iter_values((0..count).map(|at| task(at).to_string()))),
            "campaign" => Arc::new(StringArray::from(vec!["warm-add"; count])),
            "phone" => Arc::new(StringArray::from_iter_values((0..count).map(reunion_misbehaving::phone))),
            _ => new_null_array(field.data_type(), count),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

pub fn dispatch() -> DispatchInfo {
    DispatchInfo { dispatch_id: "00".repeat(16), run: "r1".into(), ordinal: 1, date: "2026-03-25".into() }
}

/// The receipts, the tasks without one, and the error that ended it, if one did.
pub fn push(config: &Value, count: usize, options: &CallOptions) -> (Vec<Receipt>, Vec<TaskId>, Option<PluginError>) {
    let channel = channel(config).unwrap();
    let mut stream = match channel.push(options, &dispatch(), tasks(count)) {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), (0..count).map(task).collect(), Some(error)),
    };
    let mut receipts = Vec::new();
    let error = loop {
        match stream.next() {
            Ok(Some(more)) => receipts.extend(more),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    (receipts, stream.unanswered(), error)
}
