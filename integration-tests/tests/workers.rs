//! Components in workers: the program `reunion` is the worker, this test the daemon that calls it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_host::{
    CallOptions, Callback, ChannelConnector, ComponentSpec, HealthState, Isolation, Limits, LoadError, Part, Plugins, Polled, Receipt,
    SourceConnector,
};
use reunion_integration_tests::harness::binary;
use reunion_model::TaskId;
use reunion_model::limits::{CALLBACK_BODY_BYTES_MAX, CALLBACK_HEADERS_MAX, CALLBACKS_AT_ONCE_MAX, CANCEL_WITHIN_MS};
use reunion_model::plugin::{DispatchInfo, ErrorClass, HttpRequest, Item, PluginError, PluginKind, ReadMode, ReadRequest};
use reunion_model::task::{Verdict, task_schema};
use serde_json::{Value, json};
use tempfile::TempDir;

const FRESH: ReadRequest = ReadRequest::new(ReadMode::Snapshot);
const RESUME: ReadRequest = ReadRequest { resume: true, ..ReadRequest::new(ReadMode::Snapshot) };
/// What a busy machine may take beyond what the contract allows.
const LENIENCY: Duration = Duration::from_secs(5);

/// Plugins in a folder of its own, and what is remembered of them.
struct Site {
    folder: TempDir,
    plugins: Plugins,
}

impl Site {
    /// Libraries of this build.
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), built())
    }

    /// A folder with a copy of one library, which can be replaced.
    fn with_copy(file_name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let libraries = folder.path().join("libraries");
        fs::create_dir(&libraries).unwrap();
        fs::copy(built().join(file_name), libraries.join(file_name)).unwrap();
        Self::at(folder, libraries)
    }

    fn at(folder: TempDir, libraries: PathBuf) -> Self {
        let plugins = Plugins::apart(vec![libraries], binary(), Some(folder.path().join("plugins")), true);
        Self { folder, plugins }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn source(&self, plugin: &str, config: Value, spec: ComponentSpec) -> Result<Box<dyn SourceConnector>, PluginError> {
        self.plugins.source(&self.plugins.find(PluginKind::Source, plugin).unwrap(), spec, config)
    }

    fn channel(&self, plugin: &str, config: Value, spec: ComponentSpec) -> Result<Box<dyn ChannelConnector>, PluginError> {
        self.plugins.channel(&self.plugins.find(PluginKind::Channel, plugin).unwrap(), spec, config)
    }

    fn state(&self, spec: &ComponentSpec) -> HealthState {
        self.plugins.health(spec.kind, &spec.name, spec.part).unwrap().state
    }

    /// The process of a component that runs.
    fn pid(&self, spec: &ComponentSpec) -> u32 {
        match self.state(spec) {
            HealthState::Running { pid: Some(pid), .. } => pid,
            other => panic!("it does not run: {other:?}"),
        }
    }
}

/// Where the libraries lie that were built with the program.
fn built() -> PathBuf {
    binary().parent().unwrap().to_owned()
}

fn source_spec() -> ComponentSpec {
    ComponentSpec::new(PluginKind::Source, "pos")
}

fn channel_spec() -> ComponentSpec {
    ComponentSpec::new(PluginKind::Channel, "list")
}

fn limited(spec: ComponentSpec, limits: Limits) -> ComponentSpec {
    ComponentSpec { limits, ..spec }
}

fn read(source: &dyn SourceConnector, request: &ReadRequest, state: Option<&Value>) -> Result<Vec<Item>, PluginError> {
    let mut stream = source.read(&CallOptions::default(), request, state)?;
    let mut items = Vec::new();
    while let Some(item) = stream.next()? {
        items.push(item);
    }
    Ok(items)
}

/// Items until the stream fails, and what it fails with.
fn read_until_it_fails(source: &dyn SourceConnector, request: &ReadRequest, state: Option<&Value>) -> (Vec<Item>, PluginError) {
    let mut stream = source.read(&CallOptions::default(), request, state).unwrap();
    let mut items = Vec::new();
    loop {
        match stream.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => panic!("it ended well: {} items", items.len()),
            Err(error) => return (items, error),
        }
    }
}

fn ids(items: &[Item]) -> Vec<String> {
    let batches = items.iter().filter_map(|item| if let Item::Batch(batch) = item { Some(batch) } else { None });
    let ids = |batch: &RecordBatch| -> Vec<String> {
        let ids: &StringArray = arrow::array::AsArray::as_string(batch.column_by_name("record_id").unwrap());
        ids.iter().flatten().map(str::to_owned).collect()
    };
    batches.flat_map(ids).collect()
}

fn tasks(count: u8) -> RecordBatch {
    let ids = StringArray::from_iter_values((0..count).map(|task| TaskId([task; 16]).to_string()));
    let text = |text: &'static str| Arc::new(StringArray::from_iter_values((0..count).map(|_| text)));
    let due = TimestampMicrosecondArray::from(vec![None; usize::from(count)]).with_timezone("UTC");
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(ids),
        text("warm-add"),
        text("S01"),
        text("小王"),
        text("张三"),
        text("13900001201"),
        text("很久没来"),
        text("您好"),
        Arc::new(due),
    ];
    RecordBatch::try_new(task_schema(), columns).unwrap()
}

fn dispatch() -> DispatchInfo {
    DispatchInfo { dispatch_id: "d1".into(), run: "run1".into(), ordinal: 1, date: "2026-03-25".into() }
}

/// All receipts, the tasks without one, and what the push failed with, if it did.
fn push(channel: &dyn ChannelConnector, count: u8) -> (Vec<Receipt>, Vec<TaskId>, Option<PluginError>) {
    let mut stream = match channel.push(&CallOptions::default(), &dispatch(), tasks(count)) {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), (0..count).map(|task| TaskId([task; 16])).collect(), Some(error)),
    };
    let mut receipts = Vec::new();
    loop {
        match stream.next() {
            Ok(Some(more)) => receipts.extend(more),
            Ok(None) => return (receipts, stream.unanswered(), None),
            Err(error) => return (receipts, stream.unanswered(), Some(error)),
        }
    }
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn items_are_the_same_wherever_the_plugin_runs() {
    let site = Site::new();
    let direct = Plugins::new(vec![built()]).find(PluginKind::Source, "dummy").unwrap();
    for (at, config) in [
        json!({"rows": 0}),
        json!({"rows": 2500, "batch_rows": 1000, "batches_per_state": 2}),
        json!({"rows": 40, "batch_rows": 7, "batches_per_state": 1, "rejected": 5}),
        json!({"rows": 100_003, "batch_rows": 8192, "rejected": 100}),
        json!({"rows": 120_000, "batch_rows": 120_000}),
    ]
    .into_iter()
    .enumerate()
    {
        let here = direct.source("direct", &config).unwrap();
        for isolation in [Isolation::Process, Isolation::InProcess] {
            let spec = ComponentSpec { isolation, ..ComponentSpec::new(PluginKind::Source, format!("s{at}")) };
            let there = site.source("dummy", config.clone(), spec).unwrap();
            assert_eq!(there.schema(&CallOptions::default()), here.schema(&CallOptions::default()));
            assert_eq!(there.check(&CallOptions::default()), here.check(&CallOptions::default()));
            for (request, state) in [(FRESH, None), (RESUME, Some(json!({"row": 20})))] {
                assert_eq!(read(there.as_ref(), &request, state.as_ref()), read(here.as_ref(), &request, state.as_ref()), "{config}");
            }
        }
    }
}

#[test]
fn errors_are_the_same_wherever_the_plugin_runs() {
    let site = Site::new();
    let direct = Plugins::new(vec![built()]).find(PluginKind::Source, "dummy").unwrap();
    for class in ErrorClass::ALL {
        for stage in ["check", "schema", "read", "stream"] {
            let config = json!({"rows": 5, "fail_in": stage, "fail_with": class});
            let here = direct.source("direct", &config).unwrap();
            let there = site.source("dummy", config, ComponentSpec::new(PluginKind::Source, format!("{stage}-{}", class.code()))).unwrap();
            let options = CallOptions::default();
            assert_eq!(there.check(&options).err(), here.check(&options).err());
            if class != ErrorClass::Internal || stage != "check" {
                assert_eq!(there.schema(&options).err(), here.schema(&options).err());
            }
            if class != ErrorClass::Internal || !["check", "schema"].contains(&stage) {
                assert_eq!(read(there.as_ref(), &FRESH, None).err(), read(here.as_ref(), &FRESH, None).err());
            }
        }
        let config = json!({"rows": 5, "fail_in": "create", "fail_with": class});
        let there = site.source("dummy", config.clone(), ComponentSpec::new(PluginKind::Source, format!("create-{}", class.code())));
        assert_eq!(there.err(), direct.source("direct", &config).err());
    }
}

#[test]
fn a_source_that_crashed_is_started_again_and_goes_on_from_its_state() {
    let site = Site::new();
    let once = site.path("once");
    let config = json!({
        "rows": 20_000, "batch_rows": 500, "batches_per_state": 2, "do": "sigsegv", "at": "item", "after_rows": 9_000, "once_file": once,
    });
    let spec = source_spec();
    let source = site.source("misbehaving", config, spec.clone()).unwrap();
    let first = site.pid(&spec);
    let (before, error) = read_until_it_fails(source.as_ref(), &FRESH, None);
    assert_eq!(error.class, ErrorClass::Internal);
    assert!(error.message.contains("signal 11 (segmentation fault)"), "{error}");
    assert!(!is_there(first), "it is gone from the system's list");
    let health = site.plugins.health(spec.kind, &spec.name, spec.part).unwrap();
    assert_eq!((health.restarts, health.restarts_max), (1, 5));
    assert!(matches!(&health.state, HealthState::Failed { why, .. } if why.starts_with("signal 11")), "{health:?}");

    // It is left alone for a moment, and says for how long.
    let refused = read(source.as_ref(), &FRESH, None).err().unwrap();
    assert_eq!(refused.class, ErrorClass::Unavailable);
    thread::sleep(Duration::from_millis(refused.retry_after_ms.unwrap()));

    // What came before the last state is not read again, and nothing after it is missing.
    let last = before.iter().rposition(|item| matches!(item, Item::State(_))).unwrap();
    let Item::State(state) = &before[last] else { unreachable!() };
    let after = read(source.as_ref(), &RESUME, Some(state)).unwrap();
    assert_eq!(after[0], Item::Begin { resumed: true });
    let mut all = ids(&before[..last]);
    all.extend(ids(&after));
    assert_eq!(all, (0..20_000).map(|row| format!("r{row}")).collect::<Vec<_>>());
    assert_ne!(site.pid(&spec), first);
}

#[test]
fn cancel_ends_a_read_a_push_and_a_poll_within_the_time_of_the_contract() {
    let site = Site::new();
    let soon = |began: Instant| {
        let took = began.elapsed();
        assert!(took < Duration::from_millis(CANCEL_WITHIN_MS) + LENIENCY, "{took:?}");
    };
    let source = site.source("dummy", json!({"rows": 10, "wait_at_row": 0}), source_spec()).unwrap();
    let canceller = source.canceller();
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    assert_eq!(stream.next(), Ok(Some(Item::Begin { resumed: false })));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| stream.next());
        thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        canceller.cancel();
        assert_eq!(waiting.join().unwrap().err().unwrap().class, ErrorClass::Cancelled);
        soon(began);
    });
    assert_eq!(source.check(&CallOptions::default()).err().unwrap().class, ErrorClass::Cancelled, "it was stopped for good");

    // One that does not stop is ended.
    for at in ["push", "poll", "callback"] {
        let config = json!({"do": "hang", "at": at});
        let spec = ComponentSpec::new(PluginKind::Channel, at);
        let channel = site.channel("misbehaving", config, spec.clone()).unwrap();
        let pid = site.pid(&spec);
        let canceller = channel.canceller();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| match at {
                "push" => push(channel.as_ref(), 3).2,
                "callback" => callback(channel.as_ref(), 1).err(),
                _ => channel.poll(&CallOptions::default(), None).and_then(|mut polled| polled.next()).err(),
            });
            thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            canceller.cancel();
            assert_eq!(waiting.join().unwrap().unwrap().class, ErrorClass::Cancelled);
            soon(began);
        });
        wait_until("the worker is gone", || !is_there(pid));
    }
}

#[test]
fn a_stream_that_is_let_go_of_leaves_the_component_free() {
    let site = Site::new();
    let source = site.source("dummy", json!({"rows": 1_000_000, "batch_rows": 1000, "batches_per_state": 1}), source_spec()).unwrap();
    for taken in [0, 1, 7] {
        let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
        for _ in 0..taken {
            assert!(stream.next().unwrap().is_some());
        }
        drop(stream);
        assert!(source.check(&CallOptions::default()).is_ok(), "after {taken} items");
    }
}

#[test]
fn a_slow_daemon_makes_no_worker_grow() {
    let site = Site::new();
    let spec = source_spec();
    let source = site.source("dummy", json!({"rows": 3_000_000, "batch_rows": 8192}), spec.clone()).unwrap();
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    for _ in 0..20 {
        stream.next().unwrap();
    }
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", site.pid(&spec))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap()
    };
    // It has sent what was asked for, and waits.
    thread::sleep(Duration::from_millis(500));
    let before = resident();
    thread::sleep(Duration::from_millis(1500));
    assert!(resident() < before + 2_048, "it goes on making rows that nobody takes: {before} kB, then {} kB", resident());
    assert!(before < 100_000, "{before} kB");
}

#[test]
fn polls_run_beside_a_push_and_pushes_beside_one_another() {
    let site = Site::new();
    let slow = json!({"batch_wait_ms": 400, "batch_rows": 1});
    let channel = site.channel("misbehaving", slow, channel_spec()).unwrap();
    thread::scope(|scope| {
        let pushing = scope.spawn(|| push(channel.as_ref(), 6));
        thread::sleep(Duration::from_millis(300));
        let mut polled = channel.poll(&CallOptions::default(), None).unwrap();
        while polled.next().unwrap().is_some() {}
        assert!(!pushing.is_finished(), "the poll did not wait for the push");
        let (receipts, unanswered, error) = pushing.join().unwrap();
        assert_eq!((receipts.len(), unanswered.len(), error), (6, 0, None));
    });

    let spec = ComponentSpec::new(PluginKind::Channel, "several");
    let channel = site.channel("dummy", json!({"pushes_at_once": 3, "events": 4}), spec).unwrap();
    thread::scope(|scope| {
        let pushes: Vec<_> = (0..3).map(|_| scope.spawn(|| push(channel.as_ref(), 200))).collect();
        for push in pushes {
            assert_eq!(push.join().unwrap().0.len(), 200);
        }
    });
    let mut polled = channel.poll(&CallOptions::default(), None).unwrap();
    let mut events = 0;
    while let Some(item) = polled.next().unwrap() {
        if let Polled::Events(more) = item {
            events += more.len();
        }
    }
    assert_eq!(events, 4);
}

/// Tells the misbehaving channel of so many members who were added.
fn callback(channel: &dyn ChannelConnector, members: u8) -> Result<Callback, PluginError> {
    let body: String = (0..members).map(|task| format!("task {}\n", TaskId([task; 16]))).collect();
    channel.callback(&CallOptions::default(), &HttpRequest { method: "POST".into(), body: body.into(), ..HttpRequest::default() })
}

#[test]
fn requests_from_outside_are_answered_beside_a_push_and_beside_one_another() {
    let site = Site::new();
    for (name, isolation) in [("apart", Isolation::Process), ("within", Isolation::InProcess)] {
        let spec = ComponentSpec { isolation, ..ComponentSpec::new(PluginKind::Channel, name) };
        let channel = site.channel("misbehaving", json!({"batch_wait_ms": 400, "batch_rows": 1}), spec).unwrap();
        thread::scope(|scope| {
            let pushing = scope.spawn(|| push(channel.as_ref(), 6));
            thread::sleep(Duration::from_millis(300));
            let asking: Vec<_> = (0..CALLBACKS_AT_ONCE_MAX)
                .map(|_| scope.spawn(|| (1..20).map(|members| callback(channel.as_ref(), members).unwrap()).collect::<Vec<_>>()))
                .collect();
            for asking in asking {
                let answers = asking.join().unwrap();
                assert!(
                    answers.iter().zip(1..).all(|(answer, members)| answer.status == 200 && answer.events.len() == members),
                    "{answers:?}"
                );
                assert_eq!(answers[4].body, b"5 events");
            }
            assert!(!pushing.is_finished(), "they did not wait for the push");
            let (receipts, unanswered, error) = pushing.join().unwrap();
            assert_eq!((receipts.len(), unanswered.len(), error), (6, 0, None));
        });
        // What is beyond the limits is not given to it.
        let request = |headers: usize, body: usize| HttpRequest {
            headers: vec![("x".into(), "y".into()); headers],
            body: vec![b'x'; body],
            ..HttpRequest::default()
        };
        let status = |request| channel.callback(&CallOptions::default(), &request).map(|answer| answer.status).map_err(|error| error.class);
        assert_eq!(status(request(CALLBACK_HEADERS_MAX, CALLBACK_BODY_BYTES_MAX)), Ok(405));
        assert_eq!(status(request(CALLBACK_HEADERS_MAX + 1, 0)), Err(ErrorClass::InvalidData));
        assert_eq!(status(request(0, CALLBACK_BODY_BYTES_MAX + 1)), Err(ErrorClass::InvalidData));
    }
    let other = site.channel("dummy", json!({}), ComponentSpec::new(PluginKind::Channel, "other")).unwrap();
    let error = other.callback(&CallOptions::default(), &HttpRequest::default()).unwrap_err();
    assert_eq!(error.class, ErrorClass::InvalidConfig, "its manifest does not say that it takes any: {error}");
}

#[test]
fn what_a_request_does_to_its_worker_touches_no_push() {
    let site = Site::new();
    let work = channel_spec();
    let asked = ComponentSpec { part: Part::Callbacks, ..channel_spec() };
    let config = json!({"do": "sigsegv", "at": "callback", "batch_wait_ms": 300, "batch_rows": 1});
    let [channel, callbacks] = [&work, &asked].map(|spec| site.channel("misbehaving", config.clone(), spec.clone()).unwrap());
    let pid = site.pid(&work);
    assert_ne!(pid, site.pid(&asked), "each has a process of its own");
    thread::scope(|scope| {
        let pushing = scope.spawn(|| push(channel.as_ref(), 8));
        thread::sleep(Duration::from_millis(300));
        let error = callback(callbacks.as_ref(), 1).unwrap_err();
        assert!(error.class == ErrorClass::Internal && error.message.contains("signal 11"), "{error}");
        let error = callback(callbacks.as_ref(), 1).unwrap_err();
        assert!(error.class == ErrorClass::Unavailable && error.retry_after_ms.is_some(), "{error}");
        assert!(!pushing.is_finished());
        assert_eq!(pushing.join().unwrap().0.len(), 8, "the push has lost nothing");
    });
    assert!(matches!(site.state(&asked), HealthState::Failed { .. }));
    assert_eq!(site.pid(&work), pid);
    let restarts = |spec: &ComponentSpec| site.plugins.health(spec.kind, &spec.name, spec.part).unwrap().restarts;
    assert_eq!((restarts(&work), restarts(&asked)), (0, 1));
}

#[test]
fn no_more_requests_are_answered_at_the_same_time_than_there_may_be_and_none_for_ever() {
    let site = Site::new();
    let channel = site.channel("misbehaving", json!({"do": "hang", "at": "callback"}), channel_spec()).unwrap();
    let ask = |within: Duration| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let options = CallOptions { deadline_unix_ms: Some((now + within).as_millis().try_into().unwrap()), ..CallOptions::default() };
        let body = format!("task {}", TaskId([1; 16])).into_bytes();
        channel.callback(&options, &HttpRequest { method: "POST".into(), body, ..HttpRequest::default() }).unwrap_err()
    };
    thread::scope(|scope| {
        let hanging: Vec<_> = (0..CALLBACKS_AT_ONCE_MAX).map(|_| scope.spawn(|| ask(Duration::from_secs(2)))).collect();
        thread::sleep(Duration::from_millis(500));
        let error = ask(Duration::from_secs(60));
        assert!(error.class == ErrorClass::Unavailable && error.message.contains("4 requests already"), "{error}");
        let began = Instant::now();
        let errors: Vec<_> = hanging.into_iter().map(|hanging| hanging.join().unwrap()).collect();
        // The first to be late ends the worker, and all others with it.
        assert!(errors.iter().any(|error| error.class == ErrorClass::Timeout), "{errors:?}");
        assert!(errors.iter().all(|error| error.message.contains("no answer by the call's deadline")), "{errors:?}");
        assert!(began.elapsed() < Duration::from_secs(4) + LENIENCY);
    });
}

#[test]
fn a_channel_that_crashed_leaves_in_doubt_what_it_was_given_and_nothing_else() {
    let site = Site::new();
    let config = json!({"do": "abort", "at": "receipt", "after_rows": 4, "batch_rows": 2, "counter_file": site.path("counter")});
    let channel = site.channel("misbehaving", config, channel_spec()).unwrap();
    let (receipts, unanswered, error) = push(channel.as_ref(), 9);
    assert!(receipts.iter().all(|receipt| receipt.verdict == Verdict::Accepted));
    assert_eq!((receipts.len(), unanswered.len()), (4, 5), "{error:?}");
    assert!(error.unwrap().message.contains("signal 6"));

    // Nobody is there to take the next: nobody was asked, and no task's fate is in doubt.
    let (receipts, unanswered, error) = push(channel.as_ref(), 9);
    assert_eq!((receipts.len(), unanswered.len(), error), (9, 0, None));
    assert!(receipts.iter().all(|receipt| receipt.verdict == Verdict::Busy && receipt.retry_after_ms.is_some_and(|delay| delay > 0)));
}

#[test]
fn one_that_fails_again_and_again_is_left_alone() {
    let site = Site::new();
    let spec = limited(source_spec(), Limits { restarts_per_hour_max: 1, ..Limits::default() });
    let source = site.source("misbehaving", json!({"rows": 10, "do": "exit", "at": "check"}), spec.clone()).unwrap();
    let error = source.check(&CallOptions::default()).err().unwrap();
    assert!(error.message.contains("exited with code 0"), "{error}");
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(source.check(&CallOptions::default()).err().unwrap().class, ErrorClass::Internal, "the one restart");
    let error = source.check(&CallOptions::default()).err().unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.ends_with("restarts 1/1"), "{error}");
    assert!(error.retry_after_ms.unwrap() > 3_000_000, "until the first failure is an hour old: {error:?}");
    // Another instance of the component, as the next run makes one, is no way around.
    let again = site.source("misbehaving", json!({"rows": 10}), spec.clone()).err().unwrap();
    assert_eq!(again.class, ErrorClass::Unavailable);
}

#[test]
fn one_that_takes_too_long_or_too_much_is_ended() {
    let site = Site::new();
    let cases = [
        ("hang", Limits { answer_within: Duration::from_secs(1), ..Limits::default() }, ErrorClass::Timeout, "no answer within 1 seconds"),
        (
            "hang_cpu",
            Limits { answer_within: Duration::from_secs(1), ..Limits::default() },
            ErrorClass::Timeout,
            "no answer within 1 seconds",
        ),
        (
            "allocate",
            Limits { memory_bytes_max: 200 << 20, ..Limits::default() },
            ErrorClass::Internal,
            "MiB of memory, and 200 are the limit",
        ),
    ];
    for (name, limits, class, message) in cases {
        let spec = limited(ComponentSpec::new(PluginKind::Source, name), limits);
        let source =
            site.source("misbehaving", json!({"rows": 10_000, "do": name, "at": "item", "after_rows": 3000}), spec.clone()).unwrap();
        let pid = site.pid(&spec);
        let (_, error) = read_until_it_fails(source.as_ref(), &FRESH, None);
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(message), "{error}");
        wait_until("it is gone", || !is_there(pid));
    }
    // A call's own deadline counts too.
    let source = site.source("misbehaving", json!({"rows": 1, "do": "hang", "at": "check"}), source_spec()).unwrap();
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let options = CallOptions { deadline_unix_ms: Some(u64::try_from(now_ms).unwrap() + 300), ..CallOptions::default() };
    let error = source.check(&options).err().unwrap();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert!(error.message.contains("deadline"), "{error}");
}

#[test]
fn in_the_daemons_process_a_hang_is_left_behind_and_a_panic_starts_anew() {
    let site = Site::new();
    let here = |name: &str, limits| ComponentSpec {
        isolation: Isolation::InProcess,
        ..limited(ComponentSpec::new(PluginKind::Source, name), limits)
    };
    let quick = Limits { answer_within: Duration::from_secs(1), ..Limits::default() };
    let source = site.source("misbehaving", json!({"rows": 1, "do": "hang", "at": "check"}), here("hangs", quick)).unwrap();
    assert_eq!(source.check(&CallOptions::default()).err().unwrap().class, ErrorClass::Timeout);

    let config = json!({"rows": 100, "do": "panic", "at": "item", "after_rows": 50, "batch_rows": 50, "once_file": site.path("once")});
    let source = site.source("misbehaving", config, here("panics", Limits::default())).unwrap();
    let (_, error) = read_until_it_fails(source.as_ref(), &FRESH, None);
    assert!(error.message.contains("panicked"), "{error}");
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(ids(&read(source.as_ref(), &FRESH, None).unwrap()).len(), 100);
}

#[test]
fn a_library_that_was_replaced_is_used_by_the_next_call() {
    let file = "libreunion_source_dummy.so";
    let site = Site::with_copy(file);
    let spec = source_spec();
    let source = site.source("dummy", json!({"rows": 5}), spec.clone()).unwrap();
    let first = site.pid(&spec);
    source.check(&CallOptions::default()).unwrap();
    assert_eq!(site.pid(&spec), first, "nothing was replaced");

    let replace = |bytes: &[u8]| {
        let part = site.path("part");
        fs::write(&part, bytes).unwrap();
        fs::rename(&part, site.path("libraries").join(file)).unwrap();
    };
    let library = fs::read(built().join(file)).unwrap();
    replace(&library);
    source.check(&CallOptions::default()).unwrap();
    let second = site.pid(&spec);
    assert_ne!(second, first, "a new worker has the new library");
    wait_until("the old one is gone", || !is_there(first));

    // One that cannot be used changes nothing.
    replace(b"no library");
    source.check(&CallOptions::default()).unwrap();
    assert_eq!((site.pid(&spec), is_there(second)), (second, true));
    // Where a stream is open, its worker stays until it ends.
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    replace(&library);
    source.check(&CallOptions::default()).unwrap();
    assert_ne!(site.pid(&spec), second);
    let mut rows = 0;
    while let Some(item) = stream.next().unwrap() {
        rows += usize::from(matches!(item, Item::Batch(_)));
    }
    assert_eq!(rows, 1);
    drop(stream);
    wait_until("the second is gone", || !is_there(second));
}

#[test]
fn a_library_is_pinned_by_what_it_holds() {
    let site = Site::new();
    let path = built().join("libreunion_source_dummy.so");
    let output = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
    let sha256 = String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    let find = |sha256: &str| site.plugins.find_pinned(PluginKind::Source, "dummy", Some(sha256));
    assert!(find(&sha256).is_ok() && find(&sha256.to_uppercase()).is_ok());
    let error = find(&"0".repeat(64)).err().unwrap();
    assert!(matches!(&error, LoadError::Pinned { found, .. } if *found == sha256), "{error}");
}

#[test]
fn a_library_that_crashes_when_it_is_looked_at_is_remembered() {
    let file = "libreunion_source_misbehaving.so";
    for (at, told) in ["sigsegv manifest", "abort entry", "exit load"].into_iter().enumerate() {
        let site = Site::with_copy(file);
        fs::write(site.path("libraries").join("misbehave"), told).unwrap();
        let find = || site.plugins.find(PluginKind::Source, "misbehaving");
        let why = ["signal 11", "signal 6", "exited with code 0"][at];
        let error = find().err().unwrap();
        assert!(matches!(&error, LoadError::Quarantined { quarantined, .. } if quarantined.why.starts_with(why)), "{error}");
        assert!(error.is_crash());

        // It is not looked at again, by anybody, though it would go well now.
        fs::remove_file(site.path("libraries").join("misbehave")).unwrap();
        assert!(matches!(find(), Err(LoadError::Quarantined { .. })));
        let others = Plugins::apart(site.plugins.dirs().to_vec(), binary(), Some(site.path("plugins")), true);
        assert!(matches!(others.find(PluginKind::Source, "misbehaving"), Err(LoadError::Quarantined { .. })));
        let listed = others.list();
        assert!(matches!(listed[0].manifest, Err(LoadError::Quarantined { .. })));
        site.plugins.forget_quarantine().unwrap();
        assert!(find().is_ok());
    }
}

#[test]
fn a_worker_knows_nothing_but_what_it_is_told() {
    let site = Site::new();
    let spec = source_spec();
    let config = json!({"rows": 1, "counter_file": site.path("a-secret-of-the-config")});
    let source = site.source("misbehaving", config, spec.clone()).unwrap();
    let pid = site.pid(&spec);
    let of = |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned();
    let environment = of("environ");
    let names: Vec<_> = environment.split('\0').filter_map(|entry| entry.split_once('=')).map(|(name, _)| name).collect();
    let allowed = ["LANG", "LC_ALL", "LC_CTYPE", "PATH", "RUST_BACKTRACE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    assert!(!of("cmdline").contains("secret") && !environment.contains("secret"));
    let status = of("status");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    // Its socket, its standard streams, and no file of the daemon's.
    let open: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect();
    let known = |path: &Path| path.starts_with("/dev/null") || path.to_string_lossy().starts_with("socket:");
    assert!(open.iter().all(|path| known(path)), "{open:?}");
    drop(source);
    wait_until("it is gone", || !is_there(pid));
    assert_eq!(site.state(&spec), HealthState::Ended);
}

#[test]
fn a_worker_dies_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("reunion.toml");
    let plugins = built();
    let text = format!(
        "[state]\ndir = 'state'\nkey = {{ env = 'KEY' }}\n[plugins]\npath = [{plugins:?}]\n[sources.pos]\nplugin = 'misbehaving'\n\
         [sources.pos.with]\nrows = 1\ndo = 'hang'\nat = 'schema'\n[pipelines.daily]\nsources = ['pos']\ncampaigns = []\n"
    );
    fs::write(&config, text).unwrap();
    let mut once = std::process::Command::new(binary());
    once.arg("--config").arg(&config).arg("once").env("KEY", "00".repeat(32));
    let mut daemon = once.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let health = folder.path().join("state/plugins/source-pos.json");
    let pid = || {
        let health: Value = serde_json::from_slice(&fs::read(&health).ok()?).ok()?;
        health["state"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    };
    wait_until("its worker runs", || pid().is_some());
    let pid = pid().unwrap();
    assert!(is_there(pid));
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("KEY="), "the daemon's secrets are its own");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until("the worker is gone", || !is_there(pid));
}
