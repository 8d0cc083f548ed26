//! One process that is the daemon to plugins that do everything wrong, again and again and under load, is afterwards
//! what it was before: no worker and no zombie is left, and it has no more memory, threads or open files.
//!
//! `REUNION_MISBEHAVE_TIMES` is how often all of it is done, after as many rounds as it takes to have been everywhere.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_host::{CallOptions, ChannelConnector, ComponentSpec, Limits, Plugin, Plugins, SourceConnector, memory};
use reunion_integration_tests::harness::binary;
use reunion_misbehaving::{Misbehaviour, Stage};
use reunion_model::TaskId;
use reunion_model::plugin::{DispatchInfo, Item, PluginKind, ReadMode, ReadRequest};
use reunion_model::task::task_schema;
use serde_json::{Value, json};

const REQUEST: ReadRequest = ReadRequest { mode: ReadMode::Snapshot, resume: false, overlap_secs: 0 };
/// Rounds before the process counts as warm.
const WARM_ROUNDS: usize = 2;
/// Components that misbehave at the same time.
const AT_ONCE: usize = 4;
/// What a process may have more of after all rounds than when it was warm: its allocator keeps some.
const GROWTH_KIB_MAX: u64 = 8 << 10;
const ROWS: usize = 2_000;
const TASKS: u8 = 40;

/// A component, and what it is told.
type Case = (PluginKind, &'static str, Stage);

fn cases() -> Vec<Case> {
    let stages: [(PluginKind, &[Stage]); 2] =
        [(PluginKind::Source, &[Stage::Item, Stage::Destroy]), (PluginKind::Channel, &[Stage::Receipt, Stage::Poll])];
    let of = |(kind, stages): (PluginKind, &'static [Stage])| {
        Misbehaviour::of(kind).flat_map(move |one| {
            let possible = one.stages(kind);
            stages.iter().filter(move |stage| possible.contains(stage)).map(move |stage| (kind, one.name, *stage))
        })
    };
    stages.into_iter().flat_map(of).collect()
}

/// What this process has: memory that is resident, threads, open files.
#[derive(Debug, Clone, Copy)]
struct Taken {
    resident_kib: u64,
    threads: usize,
    files: usize,
}

impl Taken {
    fn now() -> Self {
        memory::give_back();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let resident_kib = line("VmRSS:").trim_end_matches("kB").trim().parse().unwrap();
        let files = fs::read_dir("/proc/self/fd").unwrap().count();
        Self { resident_kib, threads: line("Threads:").parse().unwrap(), files }
    }
}

/// Processes that this one has started and that are still on the system's list.
fn children() -> Vec<String> {
    let own = std::process::id();
    let is_child = |stat: &str| stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()) == Some(own);
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| is_child(stat)).collect()
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "in vain: {what}; {:#?}", children());
        thread::sleep(Duration::from_millis(20));
    }
}

struct Daemon {
    plugins: Plugins,
    source: Plugin,
    channel: Plugin,
    folder: tempfile::TempDir,
    made: AtomicUsize,
}

impl Daemon {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let beside: PathBuf = binary().parent().unwrap().to_owned();
        let plugins = Plugins::apart(vec![beside], binary(), Some(folder.path().join("plugins")), true);
        let find = |kind| plugins.find(kind, "misbehaving").unwrap();
        let (source, channel) = (find(PluginKind::Source), find(PluginKind::Channel));
        Self { plugins, source, channel, folder, made: AtomicUsize::new(0) }
    }

    /// A component that may be started again at once, and is known by the case alone.
    fn spec(&self, (kind, name, stage): &Case) -> ComponentSpec {
        let limits =
            Limits { answer_within: Duration::from_secs(1), memory_bytes_max: 256 << 20, restarts_per_hour_max: 1000, ..Limits::default() };
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        ComponentSpec { limits, ..ComponentSpec::new(*kind, format!("{name}-{}-{number}", stage.name())) }
    }

    /// Makes the component, has it misbehave, and lets go of it. What it answers is for other tests.
    fn go_through(&self, case: &Case) {
        let (kind, name, stage) = case;
        match kind {
            PluginKind::Source => {
                let config =
                    json!({"rows": ROWS, "batch_rows": 500, "batches_per_state": 1, "do": name, "at": stage.name(), "after_rows": 900});
                if let Ok(source) = self.plugins.source(&self.source, self.spec(case), config) {
                    read(source.as_ref());
                }
            }
            PluginKind::Channel => {
                let counter = self.folder.path().join(format!("counter-{}", self.made.load(Ordering::Relaxed)));
                let config = json!({"batch_rows": 10, "do": name, "at": stage.name(), "after_rows": 15, "counter_file": counter});
                if let Ok(channel) = self.plugins.channel(&self.channel, self.spec(case), config) {
                    give(channel.as_ref(), &counter);
                }
            }
        }
    }
}

/// Reads to the end, whatever that is; the rows.
fn read(source: &dyn SourceConnector) -> usize {
    let Ok(mut stream) = source.read(&CallOptions::default(), &REQUEST, None) else { return 0 };
    let mut rows = 0;
    while let Ok(Some(item)) = stream.next() {
        if let Item::Batch(batch) = item {
            rows += batch.num_rows();
        }
    }
    rows
}

/// Gives tasks and polls. No task is sent more than once, and what is answered for was sent.
fn give(channel: &dyn ChannelConnector, counter: &Path) {
    let dispatch = DispatchInfo { dispatch_id: "d".into(), run: "r".into(), ordinal: 1, date: "2026-03-25".into() };
    let mut accepted = Vec::new();
    if let Ok(mut receipts) = channel.push(&CallOptions::default(), &dispatch, tasks()) {
        while let Ok(Some(more)) = receipts.next() {
            accepted.extend(more.into_iter().filter(|receipt| receipt.verdict == reunion_model::task::Verdict::Accepted));
        }
    }
    if let Ok(mut polled) = channel.poll(&CallOptions::default(), None) {
        while let Ok(Some(_)) = polled.next() {}
    }
    let text = fs::read_to_string(counter).unwrap_or_default();
    let mut sent: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("task ")).collect();
    sent.sort_unstable();
    assert!(sent.windows(2).all(|pair| pair[0] != pair[1]), "a task was sent twice: {text}");
    for receipt in accepted {
        assert!(sent.binary_search(&receipt.task.to_string().as_str()).is_ok(), "{} counts as sent, and was not", receipt.task);
    }
}

fn tasks() -> RecordBatch {
    let text = |text: &dyn Fn(u8) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..TASKS).map(text))) };
    let due = TimestampMicrosecondArray::from(vec![None; usize::from(TASKS)]).with_timezone("UTC");
    let columns = vec![
        text(&|task| TaskId([task; 16]).to_string()),
        text(&|_| "warm-add".into()),
        text(&|_| "S01".into()),
        text(&|_| "小王".into()),
        text(&|_| "张三".into()),
        text(&|task| format!("139000013{task:02}")),
        text(&|_| "很久没来".into()),
        text(&|_| "您好".into()),
        Arc::new(due),
    ];
    RecordBatch::try_new(task_schema(), columns).unwrap()
}

#[test]
fn nothing_is_left_of_plugins_that_do_everything_wrong() {
    let times: usize = std::env::var("REUNION_MISBEHAVE_TIMES").map_or(1, |times| times.parse().unwrap());
    let (daemon, cases) = (Daemon::new(), cases());
    assert!(cases.len() > 100, "{}", cases.len());
    let load: Value = json!({"rows": 100_000, "batch_rows": 8192});
    let good = daemon.plugins.find(PluginKind::Source, "dummy").unwrap();
    let (over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut taken = Vec::new();
    thread::scope(|scope| {
        let (daemon, over, reads) = (&daemon, &over, &reads);
        scope.spawn(move || {
            let source = daemon.plugins.source(&good, ComponentSpec::new(PluginKind::Source, "good"), load).unwrap();
            while !over.load(Ordering::Acquire) {
                assert_eq!(read(source.as_ref()), 100_000, "the others are none of its business");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..WARM_ROUNDS + times {
            let waiting = Mutex::new(cases.iter());
            thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| {
                        loop {
                            let Some(case) = waiting.lock().unwrap().next() else { return };
                            daemon.go_through(case);
                        }
                    });
                }
            });
            // The one of the load, and no other.
            wait_for("all workers are gone", || children().len() == 1);
            wait_for("their threads have ended", || Taken::now().threads < 20);
            taken.push(Taken::now());
        }
        over.store(true, Ordering::Release);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    wait_for("the last worker is gone", || children().is_empty());
    let (warm, last) = (taken[WARM_ROUNDS - 1], taken[taken.len() - 1]);
    assert!(last.resident_kib <= warm.resident_kib + GROWTH_KIB_MAX, "it grows: {taken:#?}");
    assert!(last.files <= warm.files && last.threads <= warm.threads, "it keeps files or threads: {taken:#?}");
}
