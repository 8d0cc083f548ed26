//! The same calls through the Rust traits and through the built library.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::thread;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use serde_json::{Value, json};

use reunion_channel_dummy::Dummy;
use reunion_host::{CallOptions, ChannelConnector, Plugin, Plugins, Polled, Receipt};
use reunion_model::TaskId;
use reunion_model::limits::PUSHES_AT_ONCE_MAX;
use reunion_sdk::{Call, Channel, DispatchInfo, ErrorClass, Item, Manifest, PluginError, PluginKind, Verdict, receipt_schema, task_schema};

/// Cargo builds the library beside this test.
fn plugin() -> Plugin {
    let exe = std::env::current_exe().unwrap();
    Plugins::new(vec![exe.parent().unwrap().into()]).find(PluginKind::Channel, "dummy").unwrap()
}

fn library(config: &Value) -> Box<dyn ChannelConnector> {
    plugin().channel("test", config).unwrap()
}

fn rust(config: &Value) -> Dummy {
    Dummy::create("test", serde_json::from_value(config.clone()).unwrap()).unwrap()
}

fn id(at: usize) -> TaskId {
    TaskId::from_u128(at as u128)
}

fn tasks(count: usize) -> RecordBatch {
    let schema = task_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "task_id" => Arc::new(StringArray::from_iter_values((0..count).map(|at| id(at).to_string()))),
            "campaign" => Arc::new(StringArray::from(vec!["warm-add"; count])),
            "phone" => Arc::new(StringArray::from_iter_values((0..count).map(|at| format!("139{at:08}")))),
            _ => new_null_array(field.data_type(), count),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

fn dispatch() -> DispatchInfo {
    DispatchInfo { dispatch_id: "00".repeat(16), run: "r1".into(), ordinal: 1, date: "2026-03-25".into() }
}

type Pushed = (Vec<Receipt>, Vec<TaskId>, Option<PluginError>);

fn push_library(config: &Value, count: usize) -> Pushed {
    let channel = library(config);
    let mut stream = match channel.push(&CallOptions::default(), &dispatch(), tasks(count)) {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), (0..count).map(id).collect(), Some(error)),
    };
    let mut receipts = Vec::new();
    let error = loop {
        match stream.next() {
            Ok(Some(more)) => receipts.extend(more),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(stream.next().err(), error, "the end and an error are repeated");
    (receipts, stream.unanswered(), error)
}

fn push_rust(config: &Value, count: usize) -> Result<RecordBatch, PluginError> {
    let batches: Vec<_> = rust(config).push(&Call::for_tests(), &dispatch(), tasks(count))?.collect::<Result<_, _>>()?;
    Ok(concat_batches(&receipt_schema(), &batches).unwrap())
}

/// Receipts as one batch of the contract's columns, so that both sides can be compared.
fn as_batch(receipts: &[Receipt]) -> RecordBatch {
    let mut builder = reunion_sdk::ReceiptsBuilder::new();
    for Receipt { task, verdict, retry_after_ms, code, message } in receipts {
        let (task, message) = (task.to_string(), message.as_deref().unwrap_or_default());
        match verdict {
            Verdict::Accepted => builder.accepted(&task),
            Verdict::Rejected => builder.rejected(&task, code.as_deref(), message),
            Verdict::NotSent => builder.not_sent(&task, retry_after_ms.unwrap(), code.as_deref(), message),
            Verdict::Busy => builder.busy(&task, retry_after_ms.unwrap(), code.as_deref(), message),
            Verdict::Unknown => builder.unknown(&task, code.as_deref(), message),
            Verdict::Delivered => panic!("no receipt says delivered"),
        }
    }
    builder.finish()
}

#[test]
fn receipts_are_the_same_on_both_sides() {
    let mixed = json!({"verdicts": ["accepted", "rejected", "not_sent", "busy", "unknown"], "batch_rows": 7});
    for (config, count) in [(json!({}), 0), (json!({}), 1), (mixed, 50), (json!({"batch_rows": 100_000}), 100_000)] {
        let (receipts, unanswered, error) = push_library(&config, count);
        assert_eq!((unanswered, error), (vec![], None));
        assert_eq!(as_batch(&receipts), push_rust(&config, count).unwrap(), "{config}");
    }
}

#[test]
fn tasks_without_a_receipt_are_reported() {
    let (receipts, unanswered, error) = push_library(&json!({"silent": 2}), 5);
    assert_eq!((receipts.len(), unanswered, error), (3, vec![id(3), id(4)], None));
}

#[test]
fn an_error_keeps_the_receipts_before_it() {
    for class in ErrorClass::ALL {
        let config = json!({"batch_rows": 10, "fail_in": "receipts", "fail_with": class});
        let (receipts, unanswered, error) = push_library(&config, 25);
        assert_eq!((receipts.len(), unanswered.len()), (10, 15));
        assert_eq!(error, push_rust(&config, 25).err());
        let config = json!({"fail_in": "push", "fail_with": class});
        assert_eq!(push_library(&config, 5).2, push_rust(&config, 5).err());
    }
}

#[test]
fn a_panic_keeps_the_receipts_before_it() {
    let channel = library(&json!({"batch_rows": 10, "fail_in": "receipts"}));
    let options = CallOptions::default();
    let mut stream = channel.push(&options, &dispatch(), tasks(25)).unwrap();
    assert_eq!(stream.next().unwrap().map(|receipts| receipts.len()), Some(10));
    assert_eq!(stream.next().unwrap_err().message, "panicked: the dummy was told to panic");
    assert_eq!(stream.unanswered().len(), 15);
    drop(stream);
    assert_eq!(channel.check(&options).unwrap_err().class, ErrorClass::Internal);
}

#[test]
fn receipts_that_break_the_contract_count_as_not_there() {
    let (receipts, unanswered, error) = push_library(&json!({"repeat": true}), 3);
    assert_eq!((receipts.len(), unanswered.len()), (0, 3));
    let message = error.unwrap().message;
    assert!(message.contains("broke the contract: a receipt for task") && message.contains("has one already"), "{message}");
    let error = push_library(&json!({"verdicts": ["delivered"]}), 3).2.unwrap();
    assert!(error.message.contains("a task_id in row 0 that is no task's"), "{error}");
}

#[test]
fn tasks_that_are_none_are_refused_before_the_plugin_sees_them() {
    let channel = library(&json!({}));
    let wrong = tasks(1).project(&[0, 1]).unwrap();
    let error = channel.push(&CallOptions::default(), &dispatch(), wrong).err().unwrap();
    assert_eq!(error.class, ErrorClass::InvalidData);
}

#[test]
fn traits_and_findings_are_the_same_on_both_sides() {
    let config = json!({});
    // The library says the least version of the interface that it needs.
    assert_eq!(plugin().manifest(), &Manifest { abi: [1, 0], ..Dummy::manifest() });
    assert_eq!(library(&config).traits(), &rust(&config).traits());
    assert_eq!(library(&config).check(&CallOptions::default()), rust(&config).check(&Call::for_tests()));
}

#[test]
fn as_many_pushes_run_at_once_as_the_channel_allows() {
    let options = CallOptions::default();
    for (allowed, at_once) in [(0, 1), (1, 1), (3, 3), (100, PUSHES_AT_ONCE_MAX)] {
        let channel = library(&json!({"pushes_at_once": allowed}));
        let mut streams: Vec<_> = (0..at_once).map(|_| channel.push(&options, &dispatch(), tasks(2)).unwrap()).collect();
        let busy = channel.push(&options, &dispatch(), tasks(2)).err().unwrap();
        assert_eq!(busy.class, ErrorClass::Unavailable, "{allowed}");
        for stream in &mut streams {
            assert_eq!(stream.next().unwrap().map(|receipts| receipts.len()), Some(2));
        }
        streams.pop();
        drop(channel.push(&options, &dispatch(), tasks(2)).unwrap());
    }
}

#[test]
fn a_panic_in_one_push_ends_the_component_for_the_others() {
    let channel = library(&json!({"pushes_at_once": 2, "batch_rows": 1, "fail_in": "receipts"}));
    let options = CallOptions::default();
    let mut one = channel.push(&options, &dispatch(), tasks(2)).unwrap();
    let mut other = channel.push(&options, &dispatch(), tasks(2)).unwrap();
    assert!(other.next().unwrap().is_some());
    assert_eq!(other.next().unwrap_err().class, ErrorClass::Internal);
    assert!(one.next().unwrap().is_some(), "receipts that are known are handed out");
    drop((one, other));
    assert_eq!(channel.push(&options, &dispatch(), tasks(1)).err().unwrap().class, ErrorClass::Internal);
}

#[test]
fn a_poll_goes_on_where_its_state_says() {
    let config = json!({"events": 6});
    let channel = library(&config);
    for state in [None, Some(json!({"seen": 4}))] {
        let mut stream = channel.poll(&CallOptions::default(), state.as_ref()).unwrap();
        let Some(Polled::Events(events)) = stream.next().unwrap() else { panic!("events come first") };
        let seen = stream.next().unwrap();
        assert_eq!((seen, stream.next().unwrap()), (Some(Polled::State(json!({"seen": 6}))), None));
        let rust: Vec<_> = rust(&config).poll(&Call::for_tests(), state).unwrap().map(Result::unwrap).collect();
        let Item::Batch(batch) = &rust[0] else { panic!("events come first") };
        let ids = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(events.iter().map(|event| event.event_id.as_str()).collect::<Vec<_>>(), ids.iter().flatten().collect::<Vec<_>>());
    }
}

#[test]
fn a_poll_runs_beside_a_push_and_both_are_cancelled() {
    let channel = library(&json!({"wait_in_poll": true, "batch_rows": 1}));
    let options = CallOptions::default();
    let mut push = channel.push(&options, &dispatch(), tasks(3)).unwrap();
    assert!(push.next().unwrap().is_some());
    let canceller = channel.canceller();
    thread::scope(|scope| {
        let poll = scope.spawn(|| channel.poll(&options, None).map(drop));
        canceller.cancel();
        assert_eq!(poll.join().unwrap().unwrap_err().class, ErrorClass::Cancelled);
    });
    assert!(push.next().unwrap().is_some(), "receipts that are known are handed out");
    drop(push);
    assert_eq!(channel.poll(&options, None).err().unwrap().class, ErrorClass::Cancelled);
}
