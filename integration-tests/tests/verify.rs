//! `reunion plugins verify`: every plugin of ours passes, and so does one in plain C; each way to break the contract is
//! found by its case, in the words of a finding.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use reunion_integration_tests::harness::{Ended, binary, end};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

/// A library of this workspace.
fn library(kind: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join(format!("libreunion_{kind}_{name}.so"));
    assert!(library.exists(), "{} is not there: run `cargo build --workspace --all-targets` first", library.display());
    library
}

/// Tries a library under this `with` table.
fn verify(library: &Path, with: Option<&str>, arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["plugins", "verify"]).arg(library).args(arguments).current_dir(folder.path());
    if let Some(with) = with {
        fs::write(folder.path().join("with.toml"), with).unwrap();
        command.args(["--config", "with.toml"]);
    }
    let ended = end(command);
    for said in [&ended.stdout, &ended.stderr] {
        assert!(!said.contains("1390000"), "a phone number is shown\n{said}");
    }
    ended
}

/// The cases of a trial by their names, each an object with its `outcome`; with the exit code that belongs to them.
fn cases(library: &Path, with: &str, arguments: &[&str]) -> (Value, HashMap<String, Value>) {
    let ended = verify(library, Some(with), &[&["--format", "json"], arguments].concat());
    let document = ended.json();
    let failed = document["failed"].as_u64().unwrap();
    assert_eq!(ended.code, i32::from(failed > 0), "{document:#}");
    let cases = document["cases"].as_array().unwrap();
    let cases = cases.iter().map(|case| (case["case"].as_str().unwrap().to_owned(), case.clone())).collect();
    (document, cases)
}

/// Fails unless nothing failed and nothing but these cases was skipped.
#[track_caller]
fn passes(library: &Path, with: &str, skipped: &[&str]) -> HashMap<String, Value> {
    let (document, cases) = cases(library, with, &[]);
    for (name, case) in &cases {
        let expected = if skipped.contains(&name.as_str()) { "skipped" } else { "passed" };
        assert_eq!(case["outcome"], expected, "{name} of {}: {document:#}", library.display());
    }
    cases
}

fn note<'a>(cases: &'a HashMap<String, Value>, case: &str) -> &'a str {
    cases[case]["note"].as_str().unwrap()
}

#[test]
fn the_source_dummy_passes() {
    let cases = passes(&library("source", "dummy"), "rows = 5000\nbatch_rows = 500\nbatches_per_state = 2\nrejected = 3\n", &[]);
    assert_eq!(note(&cases, "read"), "5000 rows, 3 rejected, 5 states");
    assert_eq!(note(&cases, "resume"), "killed at 3 of 5 states");
}

#[test]
fn the_source_file_passes() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..4 {
        let row = |at: usize| format!("r{file}-{at},1390000{:04},会员{at},S{}\n", (file * 2_000 + at) % 10_000, at % 5);
        let rows: String = (0..2_000).map(row).collect();
        fs::write(folder.path().join(format!("pos-{file}.csv")), format!("record_id,phone,name,store\n{rows}")).unwrap();
    }
    let with = format!("path = \"{}/pos-*.csv\"\nsettle_secs = 0\n", folder.path().display());
    let cases = passes(&library("source", "file"), &with, &[]);
    assert_eq!(note(&cases, "resume"), "killed at 3 of 3 states");
}

#[test]
fn the_source_sql_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut database = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
        let rows = "with recursive number(n) as (select 1 union all select n + 1 from number where n < 70000)
            insert into member select n, printf('1390000%04d', n % 10000) from number";
        for statement in ["create table member (card integer primary key, mobile text)", rows] {
            sqlx::query(statement).execute(&mut database).await.unwrap();
        }
    });
    let with = format!("file = \"{}\"\nquery = \"select card, mobile from member\"\nid_column = \"card\"\n", path.display());
    let cases = passes(&library("source", "sql"), &with, &[]);
    assert_eq!(note(&cases, "resume"), "killed at 1 of 1 states");
}

#[test]
fn the_channel_dummy_passes() {
    let with = "verdicts = [\"accepted\", \"not_sent\", \"busy\", \"rejected\", \"unknown\"]\nevents = 8\n";
    let cases = passes(&library("channel", "dummy"), with, &[]);
    assert_eq!(note(&cases, "receipts"), "dispatches of 1, 2, 100, 1000 tasks");
    assert_eq!(note(&cases, "delays"), "8 of 20 tasks were put off");
}

#[test]
fn the_channel_file_passes() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("back")).unwrap();
    let here = folder.path().display();
    let with = format!("path = \"{here}/out/{{store}}/{{date}}-{{run}}.csv\"\nreturn_dir = \"{here}/back\"\nsettle_secs = 0\n");
    let cases = passes(&library("channel", "file"), &with, &["delays"]);
    assert_eq!(note(&cases, "twice"), "pushed twice, and killed five times");
    assert!(note(&cases, "poll").ends_with("beside a push too"), "{cases:#?}");
}

/// A receiver on this machine that takes every task, and knows how often it was given each.
struct Receiver {
    url: String,
    given: Arc<Mutex<HashMap<String, usize>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let given = Arc::<Mutex<HashMap<String, usize>>>::default();
        let tasks = Arc::clone(&given);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let tasks = Arc::clone(&tasks);
                // A connection that a killed process broke off is none of the receiver's business.
                thread::spawn(move || serve(&connection, &tasks).unwrap_or_default());
            }
        });
        Self { url, given }
    }
}

fn serve(connection: &TcpStream, tasks: &Mutex<HashMap<String, usize>>) -> std::io::Result<()> {
    let mut requests = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let ids: Vec<&str> = body["data"]["tasks"].as_array().into_iter().flatten().filter_map(|task| task["task_id"].as_str()).collect();
        for id in &ids {
            *tasks.lock().unwrap().entry((*id).to_owned()).or_default() += 1;
        }
        let receipts: Vec<Value> = ids.iter().map(|id| json!({"task_id": id, "verdict": "accepted"})).collect();
        let answer = json!({ "receipts": receipts }).to_string();
        let mut connection = connection;
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

#[test]
fn the_channel_webhook_passes() {
    let receiver = Receiver::start();
    let with = format!("url = \"{}\"\nidempotent = true\n", receiver.url);
    let cases = passes(&library("channel", "webhook"), &with, &["delays"]);
    assert!(note(&cases, "twice").ends_with("only the other side can tell"), "{cases:#?}");
    let given = receiver.given.lock().unwrap();
    assert!(given.len() > 2_000 && given.values().any(|times| *times > 1), "{} tasks", given.len());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let careful = format!("url = \"{}\"\nsigning_secret = {{ file = \"{}\" }}\n", receiver.url, secret.display());
    drop(given);
    passes(&library("channel", "webhook"), &careful, &["delays", "twice"]);
}

#[test]
fn nothing_goes_out_to_the_network_unless_it_is_said() {
    let (document, cases) = cases(&library("channel", "webhook"), "url = \"https://crm.invalid/hook\"\n", &[]);
    assert_eq!(document["failed"], 0, "{document:#}");
    for case in ["receipts", "delays", "twice"] {
        assert!(cases[case]["why"].as_str().unwrap().contains("--send"), "{case}: {document:#}");
    }
    assert_eq!(cases["dry_run"]["outcome"], "passed", "{document:#}");
}

/// The trial plugin, compiled with these definitions into a folder of its own.
fn compile(kind: &str, definitions: &[&str]) -> (TempDir, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join(format!("libreunion_{kind}_trial.so"));
    let channel = (kind == "channel").then_some("-DCHANNEL");
    let output = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"])
        .arg(&library)
        .args(channel)
        .args(definitions.iter().map(|definition| format!("-D{definition}")))
        .arg("-I")
        .arg(here.join("../core/abi/include"))
        .arg(here.join("verify/trial.c"))
        .output()
        .unwrap_or_else(|error| panic!("gcc is needed for this test: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::create_dir(folder.path().join("list")).unwrap();
    (folder, library)
}

fn trial_config(folder: &TempDir) -> String {
    format!("path = \"{}/list\"\n", folder.path().display())
}

#[test]
fn a_plugin_in_plain_c_passes() {
    for kind in ["source", "channel"] {
        let (folder, library) = compile(kind, &[]);
        // There are no panics in C.
        passes(&library, &trial_config(&folder), &["panic"]);
    }
}

/// What differs from one run to the next is made the same: numbers, ids and folders.
fn without_numbers(text: &str, folder: &TempDir) -> String {
    let text = text.replace(folder.path().to_str().unwrap(), "…");
    let is_id = |word: &str| word.len() >= 24 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(|word| {
        let (name, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
        if is_id(name) { format!("ID{end}") } else { word.to_owned() }
    });
    let mut masked = String::new();
    for c in words.collect::<String>().chars() {
        match c {
            '0'..='9' if masked.ends_with('#') => {}
            '0'..='9' => masked.push('#'),
            _ => masked.push(c),
        }
    }
    masked
}

/// A break, and what its trial found: the cases that failed, each with its finding and rule.
fn findings(kind: &str, number: u32) -> String {
    let (folder, library) = compile(kind, &[&format!("BREAK={number}")]);
    let (document, _) = cases(&library, &trial_config(&folder), &[]);
    let failed = document["cases"].as_array().unwrap().iter().filter(|case| case["outcome"] == "failed");
    let lines = failed.map(|case| {
        let [seen, rule] = ["seen", "rule"].map(|key| case[key].as_str().unwrap());
        format!("  {}: {} | {}\n", case["case"].as_str().unwrap(), without_numbers(seen, &folder), rule.split(':').next().unwrap())
    });
    format!("{kind} {number}\n{}", lines.collect::<String>())
}

#[test]
fn each_way_to_break_the_contract_is_found() {
    let of_channels = (40..=46).chain(50..=59).map(|number| ("channel", number));
    let breaks: Vec<(&str, u32)> = (1..=27).map(|number| ("source", number)).chain(of_channels).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); breaks.len()]));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((at, (kind, number))) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, breaks.get(at)?)))
                {
                    found.lock().unwrap()[at] = findings(kind, *number);
                }
            });
        }
    });
    insta::assert_snapshot!(found.into_inner().unwrap().concat());
}

#[test]
fn a_library_under_another_name_is_tried_all_the_same() {
    let (folder, library) = compile("source", &[]);
    let other = folder.path().join("trial.so");
    fs::rename(library, &other).unwrap();
    let (document, cases) = cases(&other, &trial_config(&folder), &[]);
    assert_eq!((&document["failed"], &cases["resume"]["outcome"]), (&json!(1), &json!("passed")), "{document:#}");
    let seen = cases["manifest"]["seen"].as_str().unwrap();
    assert_eq!(seen, r#"its library is called "trial.so", and a host looks for "libreunion_source_trial.so""#);
}

#[test]
fn what_cannot_be_tried_is_said() {
    let dummy = library("source", "dummy");
    let table = verify(&dummy, None, &[]).exits(0).stdout;
    assert!(
        table.contains("--config FILE") && table.contains("for the same reason") && table.contains("3 passed, 0 failed, 10 skipped"),
        "{table}"
    );
    verify(&dummy, Some("row = 5\n"), &[]).exits(2).says(&["there is no key \"row\"", "did you mean `rows`?", "with.toml:1:1"]);
    verify(Path::new("/nowhere/libreunion_source_x.so"), None, &[]).exits(1).says(&["cannot be tried", "No such file"]);
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libreunion_source_text.so");
    fs::write(&text, "no library").unwrap();
    let table = verify(&text, None, &[]).exits(1).stdout;
    assert!(table.contains("it cannot be loaded as a library"), "{table}");
}
