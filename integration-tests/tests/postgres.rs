//! A ledger in PostgreSQL: the same results, and a lease that two processes share.

#[path = "../../core/ledger/tests/common/postgres.rs"]
mod postgres;

use std::io::{BufRead, BufReader};

use reunion_integration_tests::generator::{Plan, make};
use reunion_integration_tests::harness::{Retailer, assert_sums, comparable, count, export, row};
use serde_json::{Value, json};

fn move_to_postgres(retailer: &mut Retailer, lease_wait_secs: u64) {
    retailer.set_ledger(&postgres::server().database(), lease_wait_secs);
}

#[test]
fn runs_come_to_the_same_on_both_databases() {
    let plan = Plan { rows: 1_000, seed: 31, stores: 4, changed: 0.0, unreadable: true };
    let (mut sqlite, _) = Retailer::generated(&plan);
    let (mut postgres, _) = Retailer::generated(&plan);
    move_to_postgres(&mut postgres, 5);
    for retailer in [&mut sqlite, &mut postgres] {
        retailer.edit_config("per_run_max = 100000", "per_run_max = 25");
    }
    for changed in [0.0, 0.0, 0.05] {
        for retailer in [&mut sqlite, &mut postgres] {
            retailer.write_exports(&make(&Plan { changed, ..plan }), true);
        }
        let (one, other) = (sqlite.once(), postgres.once());
        assert_sums(&other);
        assert_eq!(comparable(&one), comparable(&other));
        assert_eq!(one["channels"], other["channels"]);
        assert_eq!(sqlite.picture(), postgres.picture());
    }
    assert!(!postgres.path("state/ledger.sqlite").exists());
    postgres.json(&["rollback"]);
    sqlite.json(&["rollback"]);
    assert_eq!(comparable(&postgres.once()), comparable(&sqlite.once()));
    assert_eq!(sqlite.picture(), postgres.picture());
}

#[test]
fn the_lease_is_held_by_one_and_outlives_nobody() {
    let mut retailer = Retailer::by_hand(&export([row("C1", "13800138001", "甲", "S1")]));
    move_to_postgres(&mut retailer, 0);
    let mut daemon = retailer.spawn(&["run"]);
    let mut log = BufReader::new(daemon.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains("ready") {
        assert!(log.read_line(&mut said).expect("the log can be read") > 0, "it ended before it was ready\n{said}");
    }
    let pid = daemon.id();
    retailer.once_with(&[]).exits(3).says(&[&format!("process {pid} on ")]);
    assert_eq!(retailer.json(&["status"])["held_by"]["pid"], json!(pid));
    // Killed, it gives way by itself once its lease is over, and a taker may wait for that.
    daemon.kill().expect("it runs");
    daemon.wait().expect("it ends");
    retailer.edit_config("lease_wait_secs = 0", "lease_wait_secs = 60");
    assert_eq!(count(&retailer.once(), "/channels/store-list/sent"), 1);
    assert_eq!(retailer.json(&["status"])["held_by"], Value::Null);
}

#[test]
fn a_daemon_that_was_overtaken_takes_the_lease_back_when_a_run_is_due() {
    let mut retailer = Retailer::by_hand(&export([row("C1", "13800138001", "甲", "S1")]));
    move_to_postgres(&mut retailer, 60);
    retailer.edit_config("[pipelines.daily]\n", "[pipelines.daily]\nschedule = \"* * * * *\"\n");
    let mut daemon = retailer.spawn(&["run"]);
    let mut log = BufReader::new(daemon.stderr.take().expect("it is piped"));
    let mut said = String::new();
    let mut until = |wanted: &str| {
        while !said.contains(wanted) {
            assert!(log.read_line(&mut said).expect("the log can be read") > 0, "it ended before it said {wanted:?}\n{said}");
        }
    };
    until("ready");
    // As a machine that sleeps, or a network that is away for longer than a lease lives.
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &daemon.id().to_string()]).status().expect("kill is there").success());
    };
    signal("-STOP");
    retailer.once();
    signal("-CONT");
    until("taking it back");
    until("a run ended");
    signal("-TERM");
    assert!(daemon.wait().expect("it ends").success());
    assert_eq!(retailer.json(&["status"])["held_by"], Value::Null);
}

#[test]
fn a_server_that_does_not_answer_is_named_and_its_password_is_not() {
    let mut retailer = Retailer::by_hand(&export([row("C1", "13800138001", "甲", "S1")]));
    retailer.edit_config("dir = \"state\"\n", "dir = \"state\"\nledger = \"postgres://reunion@127.0.0.1:1/reunion\"\n");
    retailer.once_with(&[]).exits(1).says(&["the ledger cannot be opened", "127.0.0.1"]);
    retailer.edit_config("reunion@127", "reunion:hunter2@127");
    let refused = retailer.once_with(&[]);
    assert!(refused.code == 1 || refused.code == 2, "{refused:?}");
    assert!(!refused.stderr.contains("hunter2") && !refused.stdout.contains("hunter2"), "{refused:?}");
}
