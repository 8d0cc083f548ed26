//! The same calls through the Rust traits and through the built library.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::thread;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use serde_json::{Value, json};

use reunion_host::{CallOptions, LoadError, Plugin, Plugins, SourceConnector};
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, Manifest, PluginError, PluginKind, ReadMode, ReadRequest, Source, limits};
use reunion_source_dummy::Dummy;

const FRESH: ReadRequest = ReadRequest::new(ReadMode::Snapshot);
const RESUME: ReadRequest = ReadRequest { resume: true, ..ReadRequest::new(ReadMode::Snapshot) };

/// Cargo builds the library beside this test.
fn plugins() -> Plugins {
    let exe = std::env::current_exe().unwrap();
    let deps: PathBuf = exe.parent().unwrap().into();
    Plugins::new(vec![deps])
}

fn plugin() -> Plugin {
    plugins().find(PluginKind::Source, "dummy").unwrap()
}

fn library(config: &Value) -> Box<dyn SourceConnector> {
    plugin().source("test", config).unwrap()
}

fn rust(config: &Value) -> Dummy {
    Dummy::create("test", serde_json::from_value(config.clone()).unwrap()).unwrap()
}

fn read_library(config: &Value, request: &ReadRequest, state: Option<&Value>) -> Result<Vec<Item>, PluginError> {
    let source = library(config);
    let mut stream = source.read(&CallOptions::default(), request, state)?;
    let mut items = Vec::new();
    while let Some(item) = stream.next()? {
        items.push(item);
    }
    assert_eq!(stream.next(), Ok(None), "nothing comes after the end");
    Ok(items)
}

fn read_rust(config: &Value, request: ReadRequest, state: Option<Value>) -> Result<Vec<Item>, PluginError> {
    rust(config).read(&Call::for_tests(), request, state)?.collect()
}

fn rows(items: &[Item]) -> RecordBatch {
    let batches: Vec<_> = items.iter().filter_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None }).collect();
    concat_batches(&batches[0].schema(), batches).unwrap()
}

#[test]
fn items_are_the_same_on_both_sides() {
    for config in [
        json!({"rows": 0}),
        json!({"rows": 1}),
        json!({"rows": 2500, "batch_rows": 1000, "batches_per_state": 2}),
        json!({"rows": 40, "batch_rows": 7, "batches_per_state": 1, "rejected": 5}),
        json!({"rows": 100_003, "batch_rows": 8192, "rejected": 100}),
    ] {
        assert_eq!(read_library(&config, &FRESH, None), read_rust(&config, FRESH, None), "{config}");
    }
}

#[test]
fn a_batch_that_is_too_large_is_cut() {
    let config = json!({"rows": 120_000, "batch_rows": 120_000});
    let [library, rust] = [read_library(&config, &FRESH, None).unwrap(), read_rust(&config, FRESH, None).unwrap()];
    assert_eq!(rows(&library), rows(&rust));
    assert_eq!(library.len(), 2 + 120_000_usize.div_ceil(limits::BATCH_ROWS_MAX));
}

#[test]
fn a_read_goes_on_where_its_state_says() {
    let config = json!({"rows": 100, "batch_rows": 30, "batches_per_state": 1});
    let state = json!({"row": 60});
    let [library, rust] = [read_library(&config, &RESUME, Some(&state)).unwrap(), read_rust(&config, RESUME, Some(state.clone())).unwrap()];
    assert_eq!(library, rust);
    assert_eq!((&library[0], rows(&library).num_rows()), (&Item::Begin { resumed: true }, 40));
    let fresh = read_library(&config, &FRESH, Some(&state)).unwrap();
    assert_eq!((&fresh[0], rows(&fresh).num_rows()), (&Item::Begin { resumed: false }, 100));
}

#[test]
fn manifest_findings_and_schema_are_the_same_on_both_sides() {
    // The library says the least version of the interface that it needs.
    let manifest = Manifest { abi: [1, 0], ..Dummy::manifest() };
    assert_eq!(plugin().manifest(), &manifest);
    let listed = plugins().list();
    let found: Vec<&Manifest> = listed.iter().filter(|one| one.name == "dummy").filter_map(|one| one.manifest.as_ref().ok()).collect();
    assert!(found.contains(&&manifest));

    let config = json!({"rows": 0});
    let options = CallOptions { dry_run: true, run_id: "run-1".into(), ..CallOptions::default() };
    let call = TestCall { dry_run: true, run_id: "run-1".into(), ..TestCall::default() }.start().0;
    assert_eq!(library(&config).check(&options), rust(&config).check(&call));
    assert_eq!(library(&config).schema(&options), rust(&config).schema(&call));
}

#[test]
fn errors_are_the_same_on_both_sides() {
    for class in ErrorClass::ALL {
        let config = |stage: &str| json!({"rows": 5, "fail_in": stage, "fail_with": class});
        let [check, schema, read, stream] = ["check", "schema", "read", "stream"].map(config);
        let call = Call::for_tests();
        let options = CallOptions::default();
        assert_eq!(library(&check).check(&options), rust(&check).check(&call));
        assert_eq!(library(&schema).schema(&options), rust(&schema).schema(&call));
        assert_eq!(read_library(&read, &FRESH, None), read_rust(&read, FRESH, None));
        assert_eq!(read_library(&stream, &FRESH, None), read_rust(&stream, FRESH, None));
        let create = config("create");
        let error = Dummy::create("test", serde_json::from_value(create.clone()).unwrap()).unwrap_err();
        assert_eq!(plugin().source("test", &create).err(), Some(error));
    }
}

#[test]
fn a_config_that_does_not_fit_names_the_key() {
    let error = |config: Value| plugin().source("test", &config).err().unwrap();
    let unknown = error(json!({"rows": 1, "batch_row": 5}));
    assert_eq!((unknown.class, unknown.key.as_deref()), (ErrorClass::InvalidConfig, Some("batch_row")));
    assert_eq!(unknown.hint.as_deref(), Some("did you mean \"batch_rows\"?"));
    assert!(error(json!({})).message.contains("\"rows\" is missing"));
    assert_eq!(error(json!({"rows": -1})).key.as_deref(), Some("rows"));
    assert!(plugin().channel("test", &json!({})).err().unwrap().message.contains("is a source plugin"));
}

#[test]
fn a_panic_ends_the_component_and_nothing_else() {
    for stage in ["create", "check", "schema", "read", "stream"] {
        let config = json!({"rows": 5, "fail_in": stage});
        let Ok(source) = plugin().source("test", &config) else {
            assert_eq!(stage, "create");
            continue;
        };
        let options = CallOptions::default();
        let read = || {
            let mut stream = source.read(&options, &FRESH, None)?;
            while stream.next()?.is_some() {}
            assert_eq!(stage, "never");
            Ok(())
        };
        let first = match stage {
            "check" => source.check(&options).map(drop),
            "schema" => source.schema(&options).map(drop),
            _ => read(),
        };
        let first = first.unwrap_err();
        assert_eq!((first.class, first.message.as_str()), (ErrorClass::Internal, "panicked: the dummy was told to panic"), "{stage}");
        for later in [source.check(&options).map(drop), source.schema(&options).map(drop), source.read(&options, &FRESH, None).map(drop)] {
            assert!(later.unwrap_err().message.contains("has failed and is not used any more: panicked"), "{stage}");
        }
    }
    assert!(read_library(&json!({"rows": 5}), &FRESH, None).is_ok(), "other components of the plugin go on");
}

#[test]
fn a_stream_that_stops_without_its_end_is_no_complete_read() {
    let config = json!({"rows": 5, "fail_in": "stream", "fail_with": "silence"});
    let source = library(&config);
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    let error = loop {
        match stream.next() {
            Ok(item) => assert!(item.is_some(), "the stream must not seem to have ended"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Internal, "the stream ended without its end marker"));
    assert_eq!(stream.next(), Err(error), "an error is repeated");
}

#[test]
fn cancel_ends_a_read_that_waits() {
    let source = library(&json!({"rows": 100, "batch_rows": 10, "wait_at_row": 20}));
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    for _ in 0..3 {
        assert!(stream.next().unwrap().is_some(), "begin and two batches");
    }
    let canceller = source.canceller();
    let waiting = thread::spawn(move || stream.next());
    canceller.cancel();
    assert_eq!(waiting.join().unwrap().unwrap_err().class, ErrorClass::Cancelled);
    assert_eq!(source.check(&CallOptions::default()).unwrap_err().class, ErrorClass::Cancelled, "for good");
    drop(source);
    canceller.cancel();
}

#[test]
fn a_deadline_ends_a_read_that_waits() {
    let source = library(&json!({"rows": 100, "wait_at_row": 0}));
    let options = CallOptions { deadline_unix_ms: Some(1), ..CallOptions::default() };
    let mut stream = source.read(&options, &FRESH, None).unwrap();
    assert_eq!(stream.next().unwrap_err().class, ErrorClass::Timeout);
}

#[test]
fn a_component_is_called_by_one_at_a_time() {
    let source = library(&json!({"rows": 10}));
    let options = CallOptions::default();
    let stream = source.read(&options, &FRESH, None).unwrap();
    assert_eq!(source.check(&options).unwrap_err().class, ErrorClass::Unavailable);
    drop(stream);
    assert!(source.check(&options).is_ok());
}

#[test]
fn a_stream_may_outlive_its_connector_and_end_early() {
    let source = library(&json!({"rows": 10}));
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    drop(source);
    assert_eq!(stream.next(), Ok(Some(Item::Begin { resumed: false })));
}

#[test]
fn another_name_is_not_found() {
    assert!(matches!(plugins().find(PluginKind::Channel, "nothing"), Err(LoadError::NotFound { .. })));
}
