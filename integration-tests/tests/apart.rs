//! A plugin that was built apart: with nothing of ours but the header, other versions of what both sides use, another
//! allocator and other settings of the compiler. Built here, and read in this process.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};

use reunion_host::{CallOptions, Plugins, SourceConnector};
use reunion_model::plugin::{ErrorClass, Item, PluginError, PluginKind, ReadMode, ReadRequest};

const FRESH: ReadRequest = ReadRequest::new(ReadMode::Snapshot);
const RESUME: ReadRequest = ReadRequest { resume: true, ..ReadRequest::new(ReadMode::Snapshot) };
/// As it is built: with panics that unwind, and with panics that abort.
const PROFILES: [&str; 2] = ["release", "aborting"];
/// Cancel takes a second at most; this is for a machine that does other things too.
const CANCELLED_WITHIN: Duration = Duration::from_secs(10);

/// The folder of the library. The first build of a profile takes half a minute or more.
fn built(profile: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap();
    // target/debug/deps/apart-…
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap().join("apart");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("apart");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace).args(["build", "--quiet", "--locked", "--profile", profile, "--target-dir"]).arg(&target);
    // The settings of the build that runs this test are not those of that one.
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join(profile)
}

fn source(profile: &str, config: &Value) -> Box<dyn SourceConnector> {
    let plugin = Plugins::new(vec![built(profile)]).find(PluginKind::Source, "apart").unwrap();
    assert_eq!((plugin.manifest().version.as_str(), plugin.manifest().abi), ("0.3.0", [1, 0]));
    plugin.source("test", config).unwrap()
}

fn read(source: &dyn SourceConnector, request: &ReadRequest, state: Option<&Value>) -> Result<Vec<Item>, PluginError> {
    let mut stream = source.read(&CallOptions::default(), request, state)?;
    let mut items = Vec::new();
    while let Some(item) = stream.next()? {
        items.push(item);
    }
    Ok(items)
}

fn rows(items: &[Item]) -> RecordBatch {
    let batches: Vec<_> = items.iter().filter_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None }).collect();
    concat_batches(&batches[0].schema(), batches).unwrap()
}

fn states(items: &[Item]) -> Vec<&Value> {
    items.iter().filter_map(|item| if let Item::State(state) = item { Some(state) } else { None }).collect()
}

/// These are the rows from `from` on, all of them.
fn assert_rows(batch: &RecordBatch, from: usize) {
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["record_id", "phone", "name", "order_count", "updated_at"]);
    let texts = [0, 1, 2].map(|at| batch.column(at).as_string::<i32>());
    let counts = batch.column(3).as_primitive::<Int64Type>();
    for (at, row) in (from..from + batch.num_rows()).enumerate() {
        let [id, phone, name] = texts.map(|column| column.is_valid(at).then(|| column.value(at)));
        assert_eq!((id, name), (Some(format!("r{row}").as_str()), Some(format!("会员{row}").as_str())));
        assert_eq!(phone.map(str::to_owned), (row % 7 != 0).then(|| format!("1390{:07}", 10_000 + row)));
        assert_eq!(counts.value(at), row as i64);
    }
}

#[test]
fn its_rows_and_states_arrive() {
    for profile in PROFILES {
        let source = source(profile, &json!({"rows": 25_000, "page_rows": 999, "pages_per_state": 4}));
        assert_eq!(source.check(&CallOptions::default()), Ok(Vec::new()));
        let items = read(source.as_ref(), &FRESH, None).unwrap();
        let all = rows(&items);
        assert_eq!(
            (items.first(), all.num_rows(), items.last()),
            (Some(&Item::Begin { resumed: false }), 25_000, Some(&Item::End { as_of_us: None }))
        );
        assert_rows(&all, 0);
        assert_eq!(all.schema(), source.schema(&CallOptions::default()).unwrap());
        let wanted: Vec<_> = (1..=6).map(|at| json!({"row": at * 4 * 999})).collect();
        assert_eq!(states(&items), wanted.iter().collect::<Vec<_>>(), "{profile}");
        // What came from the other allocator is given back to it, on any thread.
        thread::spawn(move || drop((items, all))).join().unwrap();
    }
}

#[test]
fn a_read_goes_on_where_its_state_says() {
    for profile in PROFILES {
        let source = source(profile, &json!({"rows": 5_000, "page_rows": 100, "pages_per_state": 1}));
        let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
        let mut before = Vec::new();
        while states(&before).len() < 7 {
            before.push(stream.next().unwrap().unwrap());
        }
        // It has read ahead by now; what counts is the state.
        drop(stream);
        let state = states(&before).last().copied().unwrap().clone();
        let after = read(source.as_ref(), &RESUME, Some(&state)).unwrap();
        assert_eq!((after.first(), &state), (Some(&Item::Begin { resumed: true }), &json!({"row": 700})));
        assert_rows(&rows(&before), 0);
        assert_rows(&rows(&after), 700);
        assert_eq!(rows(&before).num_rows() + rows(&after).num_rows(), 5_000, "{profile}");
        let anew = read(source.as_ref(), &FRESH, Some(&state)).unwrap();
        assert_eq!((anew.first(), rows(&anew).num_rows()), (Some(&Item::Begin { resumed: false }), 5_000));
    }
}

#[test]
fn cancel_ends_a_read_whose_tasks_wait() {
    for profile in PROFILES {
        let source = source(profile, &json!({"rows": 10, "page_wait_ms": 600_000}));
        let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
        assert_eq!(stream.next(), Ok(Some(Item::Begin { resumed: false })));
        let canceller = source.canceller();
        let waiting = thread::spawn(move || {
            let error = stream.next().unwrap_err();
            drop(stream);
            error
        });
        let began = Instant::now();
        canceller.cancel();
        assert_eq!(waiting.join().unwrap().class, ErrorClass::Cancelled, "{profile}");
        assert_eq!(source.check(&CallOptions::default()).unwrap_err().class, ErrorClass::Cancelled, "for good");
        assert!(began.elapsed() < CANCELLED_WITHIN, "{profile}: {:?}", began.elapsed());

        let late = self::source(profile, &json!({"rows": 10, "page_wait_ms": 600_000}));
        let options = CallOptions { deadline_unix_ms: Some(1), ..CallOptions::default() };
        let error = late.read(&options, &FRESH, None).err();
        assert_eq!(error.unwrap().class, ErrorClass::Timeout, "{profile}");
    }
}

#[test]
fn its_runtime_is_not_ours() {
    // Two copies of one tokio would refuse to block here.
    let ours = tokio::runtime::Runtime::new().unwrap();
    let items = ours.block_on(async { read(source("release", &json!({"rows": 1_000})).as_ref(), &FRESH, None) });
    assert_rows(&rows(&items.unwrap()), 0);
}

#[test]
fn several_are_read_at_once() {
    let readers = PROFILES.iter().chain(&PROFILES).map(|profile| {
        thread::spawn(move || {
            let source = source(profile, &json!({"rows": 50_000, "page_rows": 1_000}));
            assert_rows(&rows(&read(source.as_ref(), &FRESH, None).unwrap()), 0);
        })
    });
    readers.collect::<Vec<_>>().into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn it_contains_its_own_panics() {
    for at in ["check", "task", "next"] {
        let source = source("release", &json!({"rows": 10, "panic_at": at}));
        let options = CallOptions::default();
        let error = if at == "check" { source.check(&options).map(drop) } else { read(source.as_ref(), &FRESH, None).map(drop) };
        let error = error.unwrap_err();
        assert_eq!(error.class, ErrorClass::Internal, "{at}");
        assert!(error.message.contains("panicked"), "{at}: {error}");
        assert_eq!(source.check(&options).unwrap_err().class, ErrorClass::Internal, "{at}: it is not used again");
    }
    let source = source("release", &json!({"rows": 10}));
    assert!(read(source.as_ref(), &FRESH, None).is_ok(), "other components of the plugin go on");
}

#[test]
fn a_config_that_does_not_fit_names_its_key() {
    let plugin = Plugins::new(vec![built("release")]).find(PluginKind::Source, "apart").unwrap();
    let error = plugin.source("test", &json!({"rows": 10, "panic_at": "never"})).err().unwrap();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("panic_at")));
}
