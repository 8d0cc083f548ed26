//! One process that goes through every misbehaviour again and again, by the host's own interface, several at a time and
//! beside a source that is read all the while. After each round it has no child, no file and no thread more than before,
//! and in the end no more memory.
//!
//! Each round has every misbehaviour at one of its stages, the next round at the next one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_host::{CallOptions, ChannelConnector, ComponentSpec, Limits, Plugins, SourceConnector, memory};
use reunion_integration_tests::harness::binary;
use reunion_misbehaving::{Misbehaviour, Stage};
use reunion_model::TaskId;
use reunion_model::plugin::{DispatchInfo, ErrorClass, HttpRequest, Item, PluginError, PluginKind, ReadMode, ReadRequest};
use reunion_model::task::{Verdict, task_schema};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::processes::{self, Process};
use super::{side_by_side, times};

/// Without the variable: enough to see that a round leaves nothing behind, and few enough for a test.
const ROUNDS: usize = 3;
/// Rounds after which memory is what it is: caches are filled, and the largest pieces were taken once.
const WARM_UP_ROUNDS: usize = 5;
/// What a round's worth of other pieces in other order may move memory by.
const MEMORY_KIB_MORE_MAX: u64 = 8 << 10;
/// How long it may take until a round has left nothing behind. A thread looks ten times a second.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
const ROWS: usize = 60;
const TASKS: u8 = 12;
/// Set for the process that is measured.
const ALONE: &str = "REUNION_MISBEHAVE_ALONE";

#[test]
fn a_process_that_goes_through_all_of_it_again_and_again_is_left_as_it_was() {
    if std::env::var_os(ALONE).is_some() {
        return go_through(times(ROUNDS));
    }
    // What is counted is the process's, in which no other test may run: this one, alone in another.
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let name = "again::a_process_that_goes_through_all_of_it_again_and_again_is_left_as_it_was";
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").env("RUST_BACKTRACE", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    let _ = std::io::stderr().write_all(said.as_bytes());
}

/// One misbehaviour at one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deed {
    kind: &'static str,
    name: &'static str,
    stage: &'static str,
}

/// Each misbehaviour at the stage whose turn it is.
fn deeds(round: usize) -> Vec<Deed> {
    let of_kind = |kind: PluginKind| {
        let deed = move |one: &Misbehaviour| {
            // Half a minute each: the test of `early` has those.
            let is_slow = |stage: &Stage| matches!(stage, Stage::Create | Stage::Describe) && matches!(one.name, "hang" | "hang_cpu");
            let stages: Vec<_> = one.stages(kind).into_iter().filter(|stage| !is_slow(stage)).collect();
            let stage = stages.get(round % stages.len().max(1))?;
            Some(Deed { kind: kind.name(), name: one.name, stage: stage.name() })
        };
        Misbehaviour::of(kind).filter_map(deed).collect::<Vec<_>>()
    };
    [PluginKind::Source, PluginKind::Channel].map(of_kind).concat()
}

/// How much a process has.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: usize,
    threads: u64,
    memory_kib: u64,
}

impl Usage {
    fn now() -> Self {
        memory::give_back();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        // Without the one that lists them.
        let files = fs::read_dir("/proc/self/fd").unwrap().count() - 1;
        Self { files, threads: number("Threads:"), memory_kib: number("VmRSS:") }
    }

    /// What there is once what a round has started has ended.
    #[track_caller]
    fn settled(before: Option<Self>) -> Self {
        let own = std::process::id();
        processes::none_is("a worker is left, or was not taken off the list", |process: &Process| process.parent == own);
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let now = Self::now();
            let Some(before) = before else {
                // Whatever ends with the last worker has ended.
                thread::sleep(Duration::from_millis(500));
                return Self::now();
            };
            if now.files <= before.files && now.threads <= before.threads {
                return now;
            }
            assert!(Instant::now() < until, "{before:?} before, and {now:?} now");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Plugins in a folder of their own.
struct Site {
    folder: TempDir,
    plugins: Plugins,
    /// Components so far: each has a name that was never used before, and so has never failed.
    components: AtomicUsize,
}

fn go_through(rounds: usize) {
    // As the program begins.
    memory::keep();
    let folder = tempfile::tempdir().unwrap();
    let built = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let plugins = Plugins::apart(vec![built], binary(), Some(folder.path().join("plugins")), true);
    let site = Site { folder, plugins, components: AtomicUsize::new(0) };
    let outcomes = Mutex::new(BTreeMap::new());
    let mut usage = Vec::new();
    let mut reads = 0;
    let began = Instant::now();
    for round in 0..rounds {
        let done = AtomicBool::new(false);
        reads += thread::scope(|scope| {
            let load = scope.spawn(|| site.read_until(&done));
            side_by_side(deeds(round), |deed| {
                let outcome = site.does(deed);
                // The same each time.
                let before = outcomes.lock().unwrap().insert(deed, outcome);
                let differs = before.filter(|before| *before != outcome);
                assert_eq!(differs, None, "{deed:?} came to {outcome:?}, and to this before");
            });
            done.store(true, Ordering::Release);
            load.join().unwrap()
        });
        usage.push(Usage::settled(usage.first().copied()));
    }
    let warm = usage[WARM_UP_ROUNDS.min(rounds / 2)];
    let (first, last) = (usage[0], usage[rounds - 1]);
    let failures = outcomes.into_inner().unwrap().values().filter(|outcome| outcome.is_some()).count();
    let components = site.components.into_inner();
    let took = began.elapsed().as_secs();
    let _ = writeln!(
        std::io::stderr(),
        "{rounds} rounds, {components} components, {reads} reads beside them, {took} s; {failures} kinds of failures\n\
         after the first round {first:?}\nwhen warm {warm:?}\nafter the last {last:?}"
    );
    let memory: Vec<_> = usage.iter().map(|usage| usage.memory_kib).collect();
    assert!(last.memory_kib <= warm.memory_kib + MEMORY_KIB_MORE_MAX, "KiB after each round: {memory:?}");
}

impl Site {
    /// A component that has never been there.
    fn spec(&self, kind: PluginKind, deed: Option<Deed>) -> ComponentSpec {
        let number = self.components.fetch_add(1, Ordering::Relaxed);
        let secs = match deed.map(|deed| deed.name) {
            Some("hang" | "hang_cpu" | "flood_log") => 1,
            _ => 120,
        };
        let limits = Limits { memory_bytes_max: 300 << 20, answer_within: Duration::from_secs(secs), ..Limits::default() };
        ComponentSpec { limits, ..ComponentSpec::new(kind, format!("c{number}")) }
    }

    fn source(&self, plugin: &str, config: Value, deed: Option<Deed>) -> Result<Box<dyn SourceConnector>, PluginError> {
        let found = self.plugins.find(PluginKind::Source, plugin).unwrap();
        self.plugins.source(&found, self.spec(PluginKind::Source, deed), config)
    }

    /// Reads a source that is as it should be until it is told that it is enough; how often it did.
    fn read_until(&self, done: &AtomicBool) -> usize {
        const ROWS: usize = 20_000;
        let mut reads = 0;
        while !done.load(Ordering::Acquire) {
            let source = self.source("dummy", json!({"rows": ROWS, "batch_rows": 1000, "batches_per_state": 1}), None).unwrap();
            let (ids, error) = read(source.as_ref());
            assert_eq!((ids.len(), error), (ROWS, None));
            reads += 1;
            thread::sleep(Duration::from_millis(100));
        }
        reads
    }

    /// Makes a component, has it do that, and lets it go; what it failed with, if it did. `None` too for what depends on
    /// the machine.
    fn does(&self, deed: Deed) -> Option<ErrorClass> {
        let failed = match deed.kind {
            "source" => self.source_does(deed),
            _ => self.channel_does(deed),
        };
        failed.filter(|_| deed.name != "flood_log").map(|error| error.class)
    }

    fn config(deed: Deed, further: &Value) -> Value {
        let mut config = json!({"do": deed.name, "at": deed.stage});
        config.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        config
    }

    fn source_does(&self, deed: Deed) -> Option<PluginError> {
        let after_rows = if deed.name == "no_begin" { 0 } else { ROWS / 2 };
        let config = Self::config(deed, &json!({"rows": ROWS, "batch_rows": 10, "batches_per_state": 1, "after_rows": after_rows}));
        let called = self.source("misbehaving", config, Some(deed)).and_then(|source| {
            source.check(&CallOptions::default())?;
            source.schema(&CallOptions::default())?;
            Ok(source)
        });
        let (ids, error) = match called {
            Ok(source) => read(source.as_ref()),
            Err(error) => return Some(error),
        };
        let expected: Vec<_> = (0..ids.len()).map(|row| format!("r{row}")).collect();
        assert_eq!(ids, expected, "{deed:?}: what came before is as it should be");
        assert!(error.is_some() || ids.len() == ROWS, "{deed:?}: {} rows came, and no error", ids.len());
        error
    }

    fn channel_does(&self, deed: Deed) -> Option<PluginError> {
        let counter = self.folder.path().join(format!("counter-{}", self.components.load(Ordering::Relaxed)));
        let counter = PathBuf::from(format!("{}-{}-{}", counter.display(), deed.name, deed.stage));
        let config = Self::config(deed, &json!({"batch_rows": 4, "after_rows": 4, "counter_file": counter}));
        let found = self.plugins.find(PluginKind::Channel, "misbehaving").unwrap();
        let called = self.plugins.channel(&found, self.spec(PluginKind::Channel, Some(deed)), config).and_then(|channel| {
            channel.check(&CallOptions::default())?;
            let mut polled = channel.poll(&CallOptions::default(), None)?;
            while polled.next()?.is_some() {}
            drop(polled);
            let added = format!("task {}\n", task(1)).into_bytes();
            let request = HttpRequest { method: "POST".into(), body: added, ..HttpRequest::default() };
            let answer = channel.callback(&CallOptions::default(), &request)?;
            assert_eq!((answer.status, answer.events.len()), (200, 1), "{deed:?}");
            Ok(channel)
        });
        let error = called.and_then(|channel| push(channel.as_ref(), deed, &counter)).err();
        let _ = fs::remove_file(&counter);
        error
    }
}

/// The ids of all rows that came, and what the read failed with, if it did.
fn read(source: &dyn SourceConnector) -> (Vec<String>, Option<PluginError>) {
    const FRESH: ReadRequest = ReadRequest::new(ReadMode::Snapshot);
    let mut ids = Vec::new();
    let mut stream = match source.read(&CallOptions::default(), &FRESH, None) {
        Ok(stream) => stream,
        Err(error) => return (ids, Some(error)),
    };
    loop {
        match stream.next() {
            Ok(Some(Item::Batch(batch))) => {
                let column = batch.column_by_name("record_id").unwrap();
                ids.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
            }
            Ok(Some(_)) => {}
            Ok(None) => return (ids, None),
            Err(error) => return (ids, Some(error)),
        }
    }
}

/// Fails unless each task has a receipt or none, what is accepted was sent, and nothing was sent twice.
fn push(channel: &dyn ChannelConnector, deed: Deed, counter: &PathBuf) -> Result<(), PluginError> {
    let dispatch = DispatchInfo { dispatch_id: "d1".into(), run: "run1".into(), ordinal: 1, date: "2026-03-25".into() };
    let mut stream = channel.push(&CallOptions::default(), &dispatch, tasks())?;
    let mut accepted = Vec::new();
    let ended = loop {
        match stream.next() {
            Ok(Some(receipts)) => accepted.extend(receipts.iter().map(|receipt| {
                assert_eq!(receipt.verdict, Verdict::Accepted, "{deed:?}");
                receipt.task
            })),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let mut all = [accepted.clone(), stream.unanswered()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..TASKS).map(task).collect::<Vec<_>>(), "{deed:?}: each task has a receipt or none");
    let text = fs::read_to_string(counter).unwrap_or_default();
    let mut sent: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("task ")).collect();
    let count = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), count, "{deed:?}: nothing was sent twice");
    assert!(accepted.iter().all(|task| sent.contains(&task.to_string().as_str())), "{deed:?}: what is accepted was sent");
    ended
}

fn task(number: u8) -> TaskId {
    TaskId([number; 16])
}

fn tasks() -> RecordBatch {
    let text = |text: &'static str| -> ArrayRef { Arc::new(StringArray::from(vec![text; usize::from(TASKS)])) };
    let due = TimestampMicrosecondArray::from(vec![None; usize::from(TASKS)]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..TASKS).map(|number| task(number).to_string()))),
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
