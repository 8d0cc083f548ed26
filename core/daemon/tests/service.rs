//! The daemon as a process: it becomes ready, sends what an earlier run could not, lets other commands work
//! beside it, and ends when it is asked to.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing that a test waits for takes so long.
const WAIT_MAX: Duration = Duration::from_secs(60);
const KEY: &str = "6b65792d6f662d746865742d74657374732d6f662d7265756e696f6e2d303031";
const MEMBERS: &str = "\
card,mobile,name,shop\r
C1,13900001201,王小明,东门店\r
C2,13900001202,李雷,东门店\r
C3,13800000000,无名,西门店\r
C4,13900001201/13900001203,韩梅,西门店\r
";

/// A shop whose work lists cannot be written at first: a file stands where their folder should.
struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // The plugins lie beside the tests; in another build the folder above has them too.
        let built = Path::new(env!("CARGO_BIN_EXE_reunion")).parent().expect("the build's folder").to_owned();
        let config = format!(
            r#"
timezone = "Asia/Shanghai"
[state]
dir = "state"
key = {{ file = "state.key" }}
[plugins]
path = [{:?}, {:?}]
[sources.pos]
plugin = "file"
mode = "snapshot"
columns = {{ record_id = "card", phone = "mobile", store = "shop" }}
[sources.pos.with]
path = "members.csv"
settle_secs = 0
[campaigns.hello]
audience = "store is not null"
channel = "list"
holdout = 0
[channels.list]
plugin = "file"
retry_secs = 1
[channels.list.with]
path = "out/{{store}}/{{date}}-{{run}}.csv"
[pipelines.daily]
sources = ["pos"]
campaigns = ["hello"]
schedule = "0 0 1 1 *"
"#,
            built.join("deps"),
            built
        );
        let write = |name: &str, text: &str| {
            use std::io::Write;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.path().join(name)).expect("a file");
            file.write_all(text.as_bytes()).expect("a file");
        };
        write("reunion.toml", &config);
        fs::create_dir(folder.path().join("conf.d")).expect("a folder");
        write("state.key", KEY);
        write("members.csv", MEMBERS);
        write("out", "in the way");
        let shop = Self { folder };
        // `once` does not wait for what it could not send.
        shop.drain_secs(0);
        shop
    }

    fn drain_secs(&self, secs: u64) {
        fs::write(self.path("conf.d/limits.toml"), format!("[limits]\ndrain_secs = {secs}\n")).expect("a config");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reunion"));
        command.args(["--config", self.path("reunion.toml").to_str().expect("UTF-8"), "--format", "json"]).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; its exit code and its document.
    fn ask(&self, args: &[&str]) -> (Option<i32>, Value) {
        let output = self.command(args).output().expect("the program runs");
        assert_no_phones(&output, args);
        let text = String::from_utf8_lossy(&output.stdout);
        let document = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), document)
    }

    /// Starts the daemon and waits until it says that it is ready.
    fn start(&self) -> Daemon {
        self.drain_secs(60);
        let socket = self.path("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).expect("a socket");
        let (sender, says) = channel();
        // Read as they come: the daemon waits for whoever does not listen. Ends with the test's process.
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(length) = notified.recv(&mut bytes) {
                let lines = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if sender.send(lines).is_err() {
                    return;
                }
            }
        });
        let mut command = self.command(&["run"]);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let daemon = Daemon { child, says };
        daemon.says("READY=1");
        daemon
    }

    /// The work lists that were written, whole.
    fn lists(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for item in fs::read_dir(folder).into_iter().flatten() {
                let path = item.expect("an entry").path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "csv") {
                    found.push(fs::read_to_string(path).expect("a list"));
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("out"), &mut found);
        found
    }

    fn tasks(&self, state: &str) -> usize {
        let (code, tasks) = self.ask(&["tasks", "ls", "--state", state]);
        assert_eq!(code, Some(0));
        tasks.as_array().expect("a list").len()
    }
}

/// Only `query` may show whole numbers.
#[track_caller]
fn assert_no_phones(output: &Output, args: &[&str]) {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    for phone in ["13900001201", "13900001202", "13900001203", "13800000000"] {
        assert!(!said.contains(phone) || args.contains(&"query"), "{args:?} shows a phone:\n{said}");
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Daemon {
    child: Child,
    /// What it told the service manager.
    says: Receiver<String>,
}

impl Daemon {
    /// Waits until the service manager is told so.
    #[track_caller]
    fn says(&self, wanted: &str) {
        loop {
            let told = self.says.recv_timeout(WAIT_MAX);
            let told = told.unwrap_or_else(|error| panic!("the daemon did not say {wanted}: {error}"));
            if told.lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    /// Asks it to end; its exit code, and what it logged.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("it is there");
        self.says("STOPPING=1");
        let mut log = String::new();
        self.child.stderr.take().expect("its log").read_to_string(&mut log).expect("a log");
        let code = self.child.wait().expect("its end").code();
        (code, log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_could_not_be_sent_is_sent_once_it_can() {
    let shop = Shop::new();
    let (code, report) = shop.ask(&["once"]);
    assert_eq!(code, Some(4), "{report:#}");
    assert_eq!((&report["campaigns"]["hello"]["planned"], &report["channels"]["list"]["sent"]), (&2.into(), &0.into()), "{report:#}");

    let daemon = shop.start();
    daemon.says("WATCHDOG=1");
    fs::remove_file(shop.path("out")).expect("the way is free");
    wait_until("both tasks are accepted", || shop.tasks("accepted") == 2);
    let (code, log) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("13900001201"), "{log}");

    let lists = shop.lists();
    assert_eq!(lists.len(), 1, "one store, one list");
    for phone in ["13900001201", "13900001202"] {
        assert_eq!(lists[0].matches(phone).count(), 1, "each stands in it once");
    }
    let (code, status) = shop.ask(&["status"]);
    assert_eq!((code, &status["held_by"]), (Some(0), &Value::Null), "the daemon is gone");
    assert_eq!(status["outbox"][0]["due"], 0);
}

#[test]
fn other_commands_work_beside_it() {
    let shop = Shop::new();
    fs::remove_file(shop.path("out")).expect("the way is free");
    assert_eq!(shop.ask(&["once"]).0, Some(0));
    let daemon = shop.start();

    let (code, refused) = shop.ask(&["once"]);
    assert_eq!(code, Some(3), "{refused:#}");
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&format!("process {}", daemon.child.id())), "{message}");
    assert_eq!(shop.ask(&["rollback"]).0, Some(3));
    assert_eq!(shop.ask(&["sources", "retire", "fax"]).0, Some(3));

    let (code, status) = shop.ask(&["status"]);
    assert_eq!((code, status["held_by"]["pid"].as_u64()), (Some(0), Some(daemon.child.id().into())));
    assert_eq!(shop.ask(&["plan"]).0, Some(0));
    assert_eq!(shop.ask(&["check", "--connect"]).0, Some(0));
    let (code, rows) = shop.ask(&["query", "select count(*) as n from members"]);
    assert_eq!((code, &rows[0]["n"]), (Some(0), &2.into()));
    let (code, added) = shop.ask(&["suppress", "add", "139 0000 1201", "--reason", "asked"]);
    assert_eq!((code, &added["added"]), (Some(0), &true.into()));
    let (code, explained) = shop.ask(&["explain", "13900001201"]);
    assert_eq!((code, &explained["contact"]["suppressions"][0]["reason"]), (Some(0), &"asked".into()), "{explained:#}");
    assert_eq!(shop.ask(&["suppress", "rm", "13900001201"]).1["lifted"], 1);
    assert_eq!(shop.ask(&["tasks", "drop", "--state", "planned"]).1["cancelled"], 0);

    let (code, log) = daemon.end(Signal::INT);
    assert_eq!(code, Some(0), "{log}");
    let (code, second) = shop.ask(&["once"]);
    assert_eq!((code, &second["campaigns"]["hello"]["planned"]), (Some(0), &0.into()), "{second:#}");
}

#[test]
fn every_phone_is_explained() {
    let shop = Shop::new();
    fs::remove_file(shop.path("out")).expect("the way is free");
    assert_eq!(shop.ask(&["once"]).0, Some(0));
    let quarantined = |who: &str| -> Vec<String> {
        let (code, explained) = shop.ask(&["explain", who]);
        assert_eq!(code, Some(0), "{explained:#}");
        let records = explained["records"].as_array().expect("a list").iter();
        records.map(|row| format!("{} {}", row["record_id"].as_str().unwrap_or("?"), row["quarantined"].as_str().unwrap_or("-"))).collect()
    };
    assert_eq!(quarantined("13800000000"), ["C3 phone_placeholder"]);
    assert_eq!(quarantined("13900001201"), ["C1 -", "C4 phone_multiple"]);
    assert_eq!(quarantined("13900001203"), ["C4 phone_multiple"]);
    assert_eq!(quarantined("13912345678"), [""; 0]);
    assert_eq!(shop.ask(&["explain", "no number"]).0, Some(2));
    assert_eq!(shop.ask(&["explain", "00ff00ff00ff00ff00ff00ff00ff00ff"]).0, Some(2));

    let (_, explained) = shop.ask(&["explain", "13900001202"]);
    let member = explained["members"][0]["member_id"].as_str().expect("a member").to_owned();
    assert_eq!(shop.ask(&["explain", &member]).1["members"][0]["tasks"][0]["state"], "accepted");
    // The member leaves the source: its task is explained all the same.
    fs::write(shop.path("members.csv"), MEMBERS.replace("13900001202", "13900001204")).expect("an export");
    assert_eq!(shop.ask(&["once", "--accept", "pos"]).0, Some(0));
    let (code, gone) = shop.ask(&["explain", "13900001202"]);
    assert_eq!((code, &gone["members"], &gone["records"]), (Some(0), &Value::Array(vec![]), &Value::Array(vec![])), "{gone:#}");
    assert_eq!(gone["contact"]["tasks"][0]["state"], "accepted");

    let (code, wrong) = shop.ask(&["query", "select nmae from members"]);
    assert_eq!(code, Some(2));
    assert!(wrong["error"]["causes"][0].as_str().is_some_and(|cause| cause.contains("did you mean `name`")), "{wrong:#}");
    let unknown = "00ff00ff00ff00ff00ff00ff00ff00ff";
    for args in [&["tasks", "show", unknown][..], &["tasks", "drop", unknown], &["tasks", "requeue", unknown], &["suppress", "add", "12"]] {
        assert_eq!(shop.ask(args).0, Some(2), "{args:?}");
    }
    for args in
        [&["rollback", "--to", "99"][..], &["rollback", "--to", "2"], &["verify", "--generation", "99"], &["campaigns", "retire", "hi"]]
    {
        assert_eq!(shop.ask(args).0, Some(2), "{args:?}");
    }
}

#[test]
fn the_decisions_of_each_pipeline_stand_until_it_runs_again() {
    let shop = Shop::new();
    fs::remove_file(shop.path("out")).expect("the way is free");
    let other = "[campaigns.again]\naudience = \"store is not null\"\nchannel = \"list\"\nholdout = 0\n\
                 [pipelines.other]\nsources = [\"pos\"]\ncampaigns = [\"again\"]\n";
    fs::write(shop.path("conf.d/other.toml"), other).expect("a config");
    assert_eq!(shop.ask(&["suppress", "add", "13900001202"]).0, Some(0));
    let decisions = || {
        let (_, explained) = shop.ask(&["explain", "13900001202"]);
        let decisions = explained["members"][0]["decisions"].as_array().expect("a list").clone();
        let mut told: Vec<String> = decisions.iter().map(|of| format!("{} {}", of["campaign"], of["decision"]).replace('"', "")).collect();
        told.sort();
        told
    };
    assert_eq!(shop.ask(&["once", "--pipeline", "daily"]).0, Some(0));
    assert_eq!(decisions(), ["again not_run", "hello suppressed"]);
    assert_eq!(shop.ask(&["once", "--pipeline", "other"]).0, Some(0));
    assert_eq!(decisions(), ["again suppressed", "hello suppressed"]);
    assert_eq!(shop.ask(&["suppress", "rm", "13900001202"]).0, Some(0));
    assert_eq!(shop.ask(&["once", "--pipeline", "daily"]).0, Some(0));
    assert_eq!(decisions(), ["again suppressed"], "the one has a task now, the other was not asked again");
}

#[test]
fn a_plan_knows_how_old_the_data_is_that_it_reads() {
    let shop = Shop::new();
    fs::remove_file(shop.path("out")).expect("the way is free");
    fs::write(shop.path("conf.d/testing.toml"), "[testing]\nclock = true\n").expect("a config");
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72)).to_string();
    let deferred = |command: &str| {
        let (code, report) = shop.ask(&[command, "--now", &later]);
        assert_eq!(code, Some(0), "{report:#}");
        report["campaigns"]["hello"]["deferred"]["stale"].clone()
    };
    assert_eq!(deferred("plan"), 2, "older than max_age_hours by then");
    assert_eq!(deferred("once"), 2);
}
