//! Requests from outside, to the daemon itself: what is reported of tasks is stored before the answer is sent, once,
//! however often it is sent; whatever else comes, from the network or from a plugin, costs nobody anything.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../../plugins/channels/webhook/tests/common/receiver.rs"]
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use receiver::{Reply, Request, Server};
use reunion_integration_tests::harness::{OPENING, Retailer, binary, end, export, faults, row};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Nothing that a test waits for takes so long.
const WAIT: Duration = Duration::from_secs(60);
const OUTCOMES: [&str; 4] = ["added", "refused", "wrong_number", "do_not_call"];
const CONFIG: &str = r#"
[limits]
drain_secs = 20
[http]
listen = "127.0.0.1:0"
[sources.pos]
plugin = "file"
[sources.pos.with]
path = "pos.csv"
settle_secs = 0
[campaigns.warm-add]
audience = "phone_only"
channel = "crm"
holdout = 0.0
per_store_per_day_max = 100000
[channels.crm]
plugin = "webhook"
attempts_max = 100
retry_secs = 1
[channels.crm.with]
url = "URL"
signing_secret = { file = "crm.secret" }
retry_window_secs = 0
[channels.list]
plugin = "file"
[channels.list.with]
path = "out/{store}/{date}-{run}.csv"
[pipelines.daily]
sources = ["pos"]
campaigns = ["warm-add"]
"#;

fn retailer(members: usize, url: &str, further: &str) -> Retailer {
    let mut retailer = Retailer::new(&format!("{OPENING}{CONFIG}{further}").replace("URL", url));
    // The daemon goes by the machine's clock.
    retailer.now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
    retailer.write_key("crm.secret", SECRET);
    let member = |at: usize| row(&format!("C{at}"), &format!("139{}", 12_000_000 + at), "王", "S1");
    retailer.write("pos.csv", &export((0..members).map(member)));
    retailer
}

/// The daemon, listening.
struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    fn start(retailer: &Retailer) -> Self {
        Self::start_as(retailer, &binary(), &[])
    }

    fn start_as(retailer: &Retailer, program: &Path, environment: &[(&str, &str)]) -> Self {
        let log = retailer.path("log");
        let file = File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(retailer.path("reunion.toml")).arg("run").envs(environment.iter().copied());
        let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let until = Instant::now() + WAIT;
        loop {
            let said = fs::read_to_string(&log).unwrap();
            let line = said.lines().find(|line| line.contains("taking requests from outside"));
            if let Some(address) = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()) {
                return Self { child, address, log };
            }
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < until, "{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn terminate(&self) {
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &self.child.id().to_string()]);
        end(kill).exits(0);
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    fn ended(mut self) -> Option<i32> {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, which it does as one that has nothing under way.
    #[track_caller]
    fn stop(self) {
        self.terminate();
        let log = self.log.clone();
        assert_eq!(self.ended(), Some(0), "{}", fs::read_to_string(log).unwrap());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was answered.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

/// Sends these bytes, and takes the answer; `None` where the connection ends without one.
fn send(address: SocketAddr, request: &[u8]) -> Option<Answered> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    // Who refuses a request need not have read all of it.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answered { status, head: head.to_lowercase(), body: body.trim().to_owned() })
}

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ask(address: SocketAddr, method: &str, target: &str, body: &[u8]) -> Answered {
    send(address, &request(method, target, &[], body)).unwrap()
}

/// A message to the channel `crm`, signed as the standard's own library does.
fn signed(id: &str, body: &str, age_secs: i64) -> Vec<u8> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let at = now - age_secs;
    let signature = standardwebhooks::Webhook::new(SECRET).unwrap().sign(id, at, body.as_bytes()).unwrap();
    let headers = [("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &signature)];
    request("POST", "/callback/crm", &headers, body.as_bytes())
}

/// What became of tasks, the first of them added, the next one refused, and so on.
fn message(tasks: &[String]) -> String {
    let event = |(at, task): (usize, &String)| json!({"task_id": task, "outcome": OUTCOMES[at % 4], "note": "13912000000"});
    json!({"type": "events", "data": {"events": tasks.iter().enumerate().map(event).collect::<Vec<_>>()}}).to_string()
}

fn report(address: SocketAddr, id: &str, tasks: &[String]) -> Option<Answered> {
    send(address, &signed(id, &message(tasks), 0))
}

/// The tasks: the state of each, and what came of it.
fn tasks(retailer: &Retailer) -> BTreeMap<String, (String, Option<String>)> {
    let rows = retailer.query("select task_id as id, state, outcome from tasks");
    let text = |row: &Value, name: &str| row[name].as_str().map(str::to_owned);
    rows.iter().map(|row| (text(row, "id").unwrap(), (text(row, "state").unwrap(), text(row, "outcome")))).collect()
}

/// The state that an outcome moves a task to.
fn settled(outcome: &str) -> &'static str {
    if outcome == "wrong_number" { "rejected" } else { "delivered" }
}

/// What the ledger says of these tasks is what was reported of them, once.
#[track_caller]
fn counts_once(retailer: &Retailer, reported: &[String]) {
    let all = tasks(retailer);
    for (at, task) in reported.iter().enumerate() {
        let outcome = OUTCOMES[at % 4];
        assert_eq!(all[task], (settled(outcome).to_owned(), Some(outcome.to_owned())), "{task}");
        let shown = retailer.json(&["tasks", "show", task]);
        let history: Vec<_> = shown["history"].as_array().unwrap().iter().filter_map(|change| change["state"].as_str()).collect();
        let times = history.iter().filter(|state| **state == settled(outcome)).count();
        assert_eq!(times, 1, "{task}: {history:?}");
    }
    let suppressed = retailer.json(&["suppress", "ls"]);
    assert_eq!(suppressed.as_array().unwrap().len(), reported.len() / 4 * 2, "{suppressed:#}");
}

/// A retailer whose tasks a receiver has taken.
fn with_tasks(members: usize, further: &str) -> (Retailer, Vec<String>) {
    let server = Server::start(|_| Reply::status(200));
    let retailer = retailer(members, &server.url(), further);
    retailer.once();
    let ids: Vec<_> = tasks(&retailer).into_keys().collect();
    assert_eq!(ids.len(), members);
    (retailer, ids)
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < until, "in vain: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_receiver_reports_on_tasks_before_it_has_answered_for_them() {
    const TASKS: usize = 40;
    /// What the receiver knows: where the daemon is, once it takes tasks, and what it was answered.
    #[derive(Default)]
    struct Crm {
        daemon: Option<SocketAddr>,
        reports: Vec<(Vec<String>, Answered, Duration)>,
    }
    let crm = Arc::new(Mutex::new(Crm::default()));
    let knows = Arc::clone(&crm);
    let server = Server::start(move |request: Request| {
        let ids = request.task_ids();
        let daemon = knows.lock().unwrap().daemon;
        let Some(daemon) = daemon else { return Reply::Answer(503, vec![("retry-after", "1".into())], String::new()) };
        let began = Instant::now();
        let answered = report(daemon, &format!("report-{}", ids[0]), &ids).unwrap();
        knows.lock().unwrap().reports.push((ids.clone(), answered, began.elapsed()));
        // The push goes on long after the report was taken.
        thread::sleep(Duration::from_secs(2));
        let receipts: Vec<_> = ids.iter().map(|id| json!({"task_id": id, "verdict": "accepted"})).collect();
        Reply::Answer(200, Vec::new(), json!({ "receipts": receipts }).to_string())
    });
    let retailer = retailer(TASKS, &server.url(), "");
    retailer.once_with(&[]).exits(4);
    assert!(tasks(&retailer).values().all(|(state, _)| state == "not_sent"), "the receiver has taken none");
    let daemon = Daemon::start(&retailer);
    crm.lock().unwrap().daemon = Some(daemon.address);
    wait_until("each task was given and reported on", || {
        crm.lock().unwrap().reports.iter().map(|(ids, ..)| ids.len()).sum::<usize>() >= TASKS
    });
    let reports = std::mem::take(&mut crm.lock().unwrap().reports);
    for (ids, answered, took) in &reports {
        assert_eq!((answered.status, answered.body.as_str()), (200, format!("{{\"taken\":{}}}", ids.len()).as_str()));
        assert!(*took < Duration::from_secs(2), "it waited for the push: {took:?}");
    }
    // It was stored before it was answered, and so before there was a receipt.
    let all = tasks(&retailer);
    assert!(all.values().all(|(state, outcome)| settled(outcome.as_deref().unwrap()) == state), "{all:?}");
    daemon.stop();
    for (ids, ..) in &reports {
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(tasks(&retailer)[id].1.as_deref(), Some(OUTCOMES[at % 4]), "the receipt that came later changes nothing");
        }
    }
    retailer.shows_no_phone(&fs::read_to_string(retailer.path("log")).unwrap());
}

#[test]
fn what_is_not_genuine_or_too_much_is_turned_away_and_nothing_of_it_is_kept() {
    let (retailer, ids) = with_tasks(4, "");
    let daemon = Daemon::start(&retailer);
    let at = daemon.address;
    let before = tasks(&retailer);
    let good = message(&ids);
    let stranger = String::from_utf8(signed("m1", &good, 0)).unwrap().replace("webhook-signature: v1,", "webhook-signature: v1,A");
    let changed = String::from_utf8(signed("m1", &good, 0)).unwrap().replace("wrong_number", "wrong-number");
    for forged in [stranger.as_bytes(), changed.as_bytes(), &signed("m1", &good, 400), &signed("m1", &good, -400)] {
        assert_eq!(send(at, forged).unwrap().status, 401);
    }
    assert_eq!(ask(at, "POST", "/callback/crm?token=HUNTER2&mobile=13912000001", b"13912000002").status, 401);
    assert_eq!(send(at, &signed("m1", r#"{"type":"events","data":{"events":[{"task_id":"x"}]}}"#, 0)).unwrap().status, 400);
    let wrong_method = ask(at, "GET", "/callback/crm", b"");
    assert!(wrong_method.status == 405 && wrong_method.head.contains("allow: post"), "{wrong_method:?}");

    // Nothing is told of channels that there are not, or that take no requests.
    let nothing = ask(at, "POST", "/callback/nobody", b"x");
    for target in ["/callback/list", "/callback/", "/callback", "/", "/callback/CRM", "/callback/%63rm"] {
        let other = ask(at, "POST", target, b"x");
        let without_date = |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
        assert_eq!((other.status, &other.body, without_date(&other.head)), (404, &nothing.body, without_date(&nothing.head)), "{target}");
    }

    // More than is allowed, said before or found on the way.
    let much = vec![b'x'; (1 << 20) + 1];
    assert_eq!(ask(at, "POST", "/callback/crm", &much).status, 413);
    let said = b"POST /callback/crm HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n";
    assert_eq!(send(at, said).unwrap().status, 413);
    let chunk = [format!("{:x}\r\n", much.len()).as_bytes(), &much, b"\r\n0\r\n\r\n"].concat();
    let chunked = b"POST /callback/crm HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(send(at, &[chunked.as_slice(), &chunk].concat()).unwrap().status, 413);
    let long = "x".repeat(40_000);
    assert!(matches!(send(at, &request("POST", "/callback/crm", &[("x-a", &long)], b"")).unwrap().status, 400 | 431));
    let many: Vec<_> = (0..100).map(|_| ("x-a", "1")).collect();
    assert!(matches!(send(at, &request("POST", "/callback/crm", &many, b"")).unwrap().status, 400 | 431));
    for garbage in [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"POST /callback/crm HTTP/1.1\r\nconnection: close\r\nhost: \xff\r\n\r\n",
    ] {
        assert!(send(at, garbage).is_none_or(|answer| answer.status == 400), "{garbage:?}");
    }
    // Slower than anybody is who means well.
    let slow = thread::spawn(move || {
        send(at, b"POST /callback/crm HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000\r\n\r\nhalf").unwrap().status
    });
    // Half a body, from somebody who then goes away.
    let mut half = TcpStream::connect(at).unwrap();
    half.write_all(b"POST /callback/crm HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf").unwrap();
    drop(half);

    let health = ask(at, "GET", "/health", b"");
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"ready":true}"#));
    assert_eq!(ask(at, "POST", "/health", b"").status, 405);
    assert_eq!(slow.join().unwrap(), 408);
    assert_eq!(tasks(&retailer), before, "nothing of it was kept");
    assert_eq!(report(at, "m1", &ids).unwrap().status, 200, "the real one is taken all the same");
    counts_once(&retailer, &ids);
    let log = daemon.log();
    assert!(!log.contains("HUNTER2") && !log.contains("token"), "{log}");
    retailer.shows_no_phone(&log);
    daemon.stop();
}

#[test]
fn a_message_counts_once_however_often_it_comes() {
    let (retailer, ids) = with_tasks(8, "");
    let daemon = Daemon::start(&retailer);
    // The same one from several senders at the same time, as a receiver does that has several processes.
    let answers = thread::scope(|scope| {
        let senders: Vec<_> = (0..6).map(|_| scope.spawn(|| report(daemon.address, "m1", &ids).unwrap())).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let replayed = signed("m1", &message(&ids), 200);
    assert_eq!(send(daemon.address, &replayed).unwrap().status, 200);
    counts_once(&retailer, &ids);
    // By the script that the documentation has, too, of a task that this channel never had.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/channels/webhook/examples/report.py");
    let url = format!("http://{}/callback/crm", daemon.address);
    let run = |arguments: &[&str], secret: &str| {
        let mut command = Command::new("python3");
        command.arg(&script).args(arguments).env("WEBHOOK_SECRET", secret);
        end(command)
    };
    let strange = "f".repeat(32);
    assert_eq!(run(&[&url, &strange, "added"], SECRET).exits(0).stdout.trim(), r#"{"taken":1}"#);
    assert_eq!(run(&[&url, &ids[0], OUTCOMES[0], "m1"], SECRET).exits(0).stdout.trim(), r#"{"taken":1}"#);
    run(&[&url, &ids[0], "gone"], SECRET).exits(1).says(&["400: data.events[0].outcome is none of"]);
    run(&[&url, &ids[0], "added"], &SECRET.replace("MfKQ", "AAAA")).exits(1).says(&["401"]);
    counts_once(&retailer, &ids);
    assert!(daemon.log().contains(&format!("task {strange} was returned, and there is no such task")), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_kill_between_what_was_stored_and_its_answer_costs_nothing() {
    let (retailer, ids) = with_tasks(4, "");
    for (point, is_stored) in [("callback.before", false), ("callback.after", true)] {
        let daemon = Daemon::start_as(&retailer, faults(), &[("REUNION_FAULT", &format!("{point}:1"))]);
        assert_eq!(report(daemon.address, "m1", &ids), None, "it was killed before it could answer");
        let mut daemon = daemon;
        assert_eq!(daemon.child.wait().unwrap().signal(), Some(9), "{point}");
        assert_eq!(tasks(&retailer).values().any(|(_, outcome)| outcome.is_some()), is_stored, "{point}");
    }
    let daemon = Daemon::start(&retailer);
    assert_eq!(report(daemon.address, "m1", &ids).unwrap().status, 200);
    counts_once(&retailer, &ids);
    daemon.stop();
}

/// Holds the ledger against all writers until it is dropped.
struct Busy {
    runtime: tokio::runtime::Runtime,
    connection: Option<SqliteConnection>,
}

impl Busy {
    fn hold(retailer: &Retailer) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = retailer.path("state/ledger.sqlite");
        let connection = runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(path).busy_timeout(WAIT);
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query("begin immediate").execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection: Some(connection) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut connection = self.connection.take().unwrap();
        self.runtime.block_on(async {
            sqlx::query("rollback").execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }
}

#[test]
fn a_ledger_that_is_busy_has_the_sender_come_again() {
    let (mut retailer, ids) = with_tasks(4, "");
    retailer.edit_config("[http]\n", "[http]\nanswer_secs_max = 1\n");
    let daemon = Daemon::start(&retailer);
    let busy = Busy::hold(&retailer);
    let began = Instant::now();
    let answered = report(daemon.address, "m1", &ids).unwrap();
    assert!(answered.status == 503 && answered.head.contains("retry-after: "), "{answered:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "the sender does not wait for ever");
    assert_eq!(ask(daemon.address, "GET", "/health", b"").status, 200, "it can be read");
    drop(busy);
    assert_eq!(report(daemon.address, "m1", &ids).unwrap().status, 200);
    counts_once(&retailer, &ids);
    assert!(daemon.log().contains("requests from outside are not answered: no answer within 1 s"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn what_is_under_way_has_its_answer_before_the_daemon_ends() {
    let (mut retailer, ids) = with_tasks(4, "");
    retailer.edit_config("[http]\n", "[http]\nanswer_secs_max = 30\n");
    let daemon = Daemon::start(&retailer);
    let address = daemon.address;
    // One that waits for nothing, as proxies have them.
    let idle = TcpStream::connect(address).unwrap();
    let busy = Busy::hold(&retailer);
    let answered = thread::scope(|scope| {
        let sender = scope.spawn(|| report(address, "m1", &ids).unwrap());
        thread::sleep(Duration::from_millis(500));
        daemon.terminate();
        thread::sleep(Duration::from_millis(1500));
        assert!(!sender.is_finished(), "it waits for the ledger");
        drop(busy);
        sender.join().unwrap()
    });
    assert_eq!(answered.status, 200);
    assert_eq!(daemon.ended(), Some(0));
    drop(idle);
    counts_once(&retailer, &ids);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// A channel that misbehaves when it is asked.
fn misbehaving(name: &str, told: &str) -> String {
    format!("[channels.{name}]\nplugin = \"misbehaving\"\n[channels.{name}.limits]\nmemory_mib_max = 300\n[channels.{name}.with]\n{told}\n")
}

#[test]
fn whatever_a_plugin_does_with_a_request_the_daemon_lives_and_the_sender_comes_again() {
    let deeds = [
        "sigsegv",
        "abort",
        "stack_overflow",
        "exit",
        "panic",
        "hang",
        "hang_cpu",
        "allocate",
        "huge_error",
        "huge_answer",
        "odd_answer",
        "split_answer",
        "framed_answer",
        "many_events",
        "half_events",
        "close_socket",
        "garbage_socket",
        "oversized_message",
        "kill_parent",
    ];
    let bad = |deed: &&str| misbehaving(deed, &format!("do = \"{deed}\"\nat = \"callback\"\nonce_file = \"once/{deed}\""));
    let further: String = deeds.iter().map(bad).collect::<String>() + &misbehaving("good", "");
    let (mut retailer, ids) = with_tasks(4, &further);
    fs::create_dir(retailer.path("once")).unwrap();
    retailer.edit_config("[http]\n", "[http]\nanswer_secs_max = 2\n");
    let daemon = Daemon::start(&retailer);
    let added = format!("task {}\n", "7".repeat(32));
    let post = |channel: &str| {
        let began = Instant::now();
        let answered = ask(daemon.address, "POST", &format!("/callback/{channel}"), added.as_bytes());
        assert!(began.elapsed() < Duration::from_secs(10), "{channel} took {:?}", began.elapsed());
        answered
    };
    thread::scope(|scope| {
        for deed in deeds {
            scope.spawn(move || {
                let answered = post(deed);
                // Nothing is done to who asked where the process lives on.
                let expected: &[u16] =
                    if deed == "kill_parent" || deed.ends_with("_socket") || deed == "oversized_message" { &[200, 503] } else { &[503] };
                assert!(expected.contains(&answered.status), "{deed}: {answered:?}");
                assert!(answered.status == 200 || answered.head.contains("retry-after: "), "{deed}: {answered:?}");
                assert!(!answered.head.contains("set-cookie") && !answered.body.contains("139"), "{deed}: {answered:?}");
                assert_eq!(post("good").status, 200, "beside {deed}");
            });
        }
    });
    assert_eq!(report(daemon.address, "m1", &ids).unwrap().status, 200);
    assert_eq!(ask(daemon.address, "GET", "/health", b"").status, 200);
    // Each is well again after its delay, in a new worker.
    let left = Mutex::new(deeds.iter().copied().collect::<BTreeSet<_>>());
    wait_until("each answers again", || {
        let mut left = left.lock().unwrap();
        left.retain(|deed| post(deed).status != 200);
        left.is_empty()
    });
    let status = retailer.json(&["status"]);
    let restarts = |component: &str| {
        let plugin = status["plugins"].as_array().unwrap().iter().find(|plugin| plugin["component"] == component).unwrap();
        plugin["health"]["restarts"].as_u64().unwrap_or(0)
    };
    assert_eq!((restarts("channels.sigsegv, callbacks"), restarts("channels.sigsegv")), (1, 0), "{status:#}");
    assert_eq!(restarts("channels.good, callbacks"), 0);
    let log = daemon.log();
    assert!(log.contains("signal 11 (segmentation fault)") && !log.contains("panicked at core"), "{log}");
    retailer.shows_no_phone(&log);
    assert!(!log.contains("13900001234"), "{log}");
    counts_once(&retailer, &ids);
    daemon.stop();
}

#[test]
fn an_address_that_is_taken_is_said_at_the_start() {
    let (mut retailer, _) = with_tasks(4, "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    retailer.edit_config("listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\""));
    retailer.run(&["run"]).exits(1).says(&[&format!("nothing can listen at {address}"), "[http] listen"]);
    // Other commands listen nowhere.
    retailer.once();
    retailer.edit_config(&format!("listen = \"{address}\""), "listen = \"localhost\"");
    retailer.run(&["check"]).exits(2).says(&["`http.listen` cannot be used", "127.0.0.1:8470"]);
}
