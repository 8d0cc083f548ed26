//! Tasks to a receiver that is often busy, breaks, loses connections and is killed, while `once` is killed too:
//! none is lost, and none is taken twice.
//!
//! `REUNION_TASKS` is how many tasks there are; without it as many as a test may take.

#![allow(clippy::unwrap_used)]

#[path = "../../plugins/channels/webhook/tests/common/receiver.rs"]
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use receiver::{Reply, Server};
use reunion_integration_tests::harness::{OPENING, Retailer, binary, count, export, row};
use tempfile::TempDir;

/// Enough for a kill of each kind to find the run at work.
const TASKS: usize = 8_000;
const CONFIG: &str = r#"[sources.pos]
plugin = "file"
mode = "snapshot"
[sources.pos.with]
path = "pos.csv"
settle_secs = 0
[tags.dormant]
when = "days_since_last_order > 180"
[campaigns.warm-add]
audience = "phone_only and dormant"
channel = "crm"
holdout = 0.0
per_run_max = 100000
per_store_per_day_max = 100000
message = "{{ name }}"
[channels.crm]
plugin = "webhook"
attempts_max = 100
retry_secs = 1
[channels.crm.with]
url = "URL"
batch_tasks_max = 20
[pipelines.daily]
sources = ["pos"]
campaigns = ["warm-add"]
"#;

fn tasks_max() -> usize {
    std::env::var("REUNION_TASKS").ok().and_then(|count| count.parse().ok()).unwrap_or(TASKS)
}

fn retailer(members: usize, url: &str) -> Retailer {
    let mut retailer = Retailer::new(&format!("{OPENING}{CONFIG}").replace("URL", url));
    retailer.write(
        "pos.csv",
        &export((0..members).map(|at| row(&format!("C{at}"), &format!("139{}", 12_000_000 + at), "王", &format!("S{}", at % 40)))),
    );
    retailer
}

/// The receiver of accidents, on the same port and with the same memory whenever it starts.
struct Crm {
    folder: TempDir,
    url: String,
    is_idempotent: bool,
    process: Child,
}

impl Crm {
    fn start(is_idempotent: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, url) = Self::process(&folder, "127.0.0.1:0", is_idempotent);
        Self { folder, url, is_idempotent, process }
    }

    fn process(folder: &TempDir, listen: &str, is_idempotent: bool) -> (Child, String) {
        let mut command = Command::new(binary().with_file_name("faulty_receiver"));
        command.args(["--listen", listen, "--journal"]).arg(folder.path().join("journal")).args(is_idempotent.then_some("--idempotent"));
        command.args(["--busy-percent", "5", "--broken-percent", "2", "--lost-before-percent", "1", "--lost-after-percent", "1"]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        (process, url.trim().to_owned())
    }

    fn kill_and_start(&mut self) {
        self.kill();
        let listen = self.url.trim_start_matches("http://").trim_end_matches("/hook");
        self.process = Self::process(&self.folder, listen, self.is_idempotent).0;
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The tasks that it took, as often as it took them.
    fn taken(&self) -> Vec<String> {
        let journal = fs::read_to_string(self.folder.path().join("journal")).unwrap();
        journal.lines().map(str::to_owned).collect()
    }
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `once` until nothing is left to be sent; it is killed five times and the receiver twice on the way.
fn run_through_kills(retailer: &Retailer, crm: &mut Crm, tasks: usize) {
    let start = || retailer.spawn(&["once", "--now", &retailer.now()]);
    let mut once = start();
    for victim in ["once", "receiver", "once", "once", "receiver", "once", "once"] {
        let enough = crm.taken().len() + tasks / 20;
        while crm.taken().len() < enough {
            assert!(once.try_wait().unwrap().is_none(), "it ended before the {victim} was killed");
            std::thread::sleep(Duration::from_millis(1));
        }
        if victim == "receiver" {
            crm.kill_and_start();
            continue;
        }
        once.kill().unwrap();
        assert_eq!(once.wait().unwrap().signal(), Some(9));
        once = start();
    }
    once.wait_with_output().unwrap();
    for _ in 0..20 {
        if retailer.once_with(&[]).code == 0 {
            return;
        }
    }
    panic!("tasks are left to be sent: {:?}", states(retailer));
}

/// The ids of tasks by their state.
fn states(retailer: &Retailer) -> BTreeMap<String, BTreeSet<String>> {
    let mut states = BTreeMap::<String, BTreeSet<String>>::new();
    for task in retailer.query("select task_id as id, state from tasks") {
        let [id, state] = ["id", "state"].map(|name| task[name].as_str().unwrap().to_owned());
        states.entry(state).or_default().insert(id);
    }
    states
}

#[test]
fn a_receiver_that_takes_no_task_twice_has_each_exactly_once() {
    let tasks = tasks_max();
    let mut crm = Crm::start(true);
    let mut retailer = retailer(tasks, &crm.url);
    retailer.edit_config("batch_tasks_max", "idempotent = true\nbatch_tasks_max");
    run_through_kills(&retailer, &mut crm, tasks);
    let states = states(&retailer);
    assert_eq!(states.keys().collect::<Vec<_>>(), ["accepted"]);
    let mut taken = crm.taken();
    taken.sort_unstable();
    assert_eq!(taken.len(), tasks);
    assert!(taken.iter().eq(&states["accepted"]), "what it took is what the ledger says");
}

#[test]
fn one_that_would_take_a_task_twice_gets_it_once_at_most() {
    let tasks = tasks_max();
    let mut crm = Crm::start(false);
    let retailer = retailer(tasks, &crm.url);
    run_through_kills(&retailer, &mut crm, tasks);
    let states = states(&retailer);
    let taken: BTreeSet<_> = crm.taken().into_iter().collect();
    assert_eq!(taken.len(), crm.taken().len(), "none was taken twice");
    assert_eq!(states.keys().collect::<Vec<_>>(), ["accepted", "unknown"]);
    let (accepted, unknown) = (&states["accepted"], &states["unknown"]);
    assert_eq!(accepted.len() + unknown.len(), tasks);
    assert!(accepted.is_subset(&taken), "what is accepted was taken");
    assert!(taken.iter().all(|id| accepted.contains(id) || unknown.contains(id)));
    let silent = retailer.query("select count(*) as n from tasks where state = 'unknown' and message is null");
    assert_eq!(silent[0]["n"], 0, "each says why");
}

#[test]
fn a_day_has_its_limit_and_the_rest_waits_for_the_next() {
    let seen = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&seen);
    let server = Server::start(move |request| {
        *counted.lock().unwrap() += request.task_ids().len();
        Reply::status(200)
    });
    let mut retailer = retailer(100, &server.url());
    retailer.edit_config("retry_secs = 1\n", "retry_secs = 1\nper_day_max = 35\n");
    for sent in [35, 0] {
        let report = retailer.once();
        assert_eq!((count(&report, "/channels/crm/sent"), *seen.lock().unwrap()), (sent, 35), "{report:#}");
    }
    retailer.pass_days(1);
    retailer.touch("pos.csv");
    retailer.once();
    assert_eq!(*seen.lock().unwrap(), 70);
    assert_eq!(states(&retailer)["planned"].len(), 30);
}
