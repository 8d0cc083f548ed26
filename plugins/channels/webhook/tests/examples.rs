//! The receivers that the documentation shows are run as they stand, by the built library.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use reunion_channel_webhook::WebhookChannel;
use reunion_host::{CallOptions, Plugins};
use reunion_sdk::{Channel, DispatchInfo, ErrorClass, PluginKind, Verdict};
use serde_json::json;

#[allow(dead_code)]
mod common;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TASKS: usize = 2_500;

/// A receiver that was started, with its URL.
struct Example {
    process: Child,
    url: String,
}

impl Example {
    fn start(mut command: Command) -> Self {
        let mut process = command.env("WEBHOOK_SECRET", SECRET).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut url).unwrap();
        // What it prints of tasks is not of interest here, and must not fill the pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Self { process, url: url.trim().to_owned() }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The folder in which cargo puts tests, and the libraries beside them.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn takes_each_task_and_knows_who_asks(example: &Example) {
    let plugin = Plugins::new(vec![beside()]).find(PluginKind::Channel, "webhook").unwrap();
    assert_eq!(plugin.manifest().config_schema, WebhookChannel::manifest().config_schema);
    let config = json!({"url": example.url, "signing_secret": SECRET, "idempotent": true, "receipts_required": true});
    let channel = plugin.channel("crm", &config).unwrap();
    assert_eq!(channel.check(&CallOptions::default()), Ok(vec![]));
    // What is pushed again is taken as it was, so that a push whose receipts were lost can be repeated.
    for _ in 0..2 {
        let dispatch = DispatchInfo { dispatch_id: "d1".into(), run: "ab12".into(), ordinal: 1, date: "2026-03-25".into() };
        let mut receipts = channel.push(&CallOptions::default(), &dispatch, common::tasks(TASKS)).unwrap();
        let mut accepted = 0;
        while let Some(batch) = receipts.next().unwrap() {
            accepted += batch.iter().filter(|receipt| receipt.verdict == Verdict::Accepted).count();
        }
        assert_eq!((accepted, receipts.unanswered()), (TASKS, vec![]));
    }
    let stranger = json!({"url": example.url, "signing_secret": SECRET.replace("MfKQ", "AAAA")});
    let error = plugin.channel("crm", &stranger).unwrap().check(&CallOptions::default()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Unauthorized);
}

#[test]
fn the_receiver_in_python() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/receiver.py")).arg("127.0.0.1:0").arg(dir.path().join("taken.db"));
    takes_each_task_and_knows_who_asks(&Example::start(command));
}

#[test]
fn the_receiver_in_rust() {
    let dir = tempfile::tempdir().unwrap();
    let program = beside().parent().unwrap().join("examples/receiver");
    let mut command = Command::new(program);
    command.arg("127.0.0.1:0").arg(dir.path().join("taken.db"));
    takes_each_task_and_knows_who_asks(&Example::start(command));
}
