//! Tasks to receivers of every temper.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::receiver::{Reply, Request, Server};
use common::{channel, push, verdicts};
use reunion_channel_webhook::WebhookChannel;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, Channel, ErrorClass, Reach};
use serde_json::json;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver that answers the first requests as told, and takes all that follow; and how many it had.
fn at_first(replies: Vec<fn() -> Reply>) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = Server::start(move |_| {
        let at = counted.fetch_add(1, Ordering::SeqCst);
        replies.get(at).map_or_else(|| Reply::status(204), |reply| reply())
    });
    (server, count)
}

fn push_all(channel: &WebhookChannel, count: usize) -> (Vec<(String, usize)>, Option<ErrorClass>) {
    let (receipts, error) = push(channel, &Call::for_tests(), count);
    (verdicts(&receipts), error.map(|error| error.class))
}

#[test]
fn tasks_go_out_in_batches_and_each_gets_its_receipt() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let server = Server::start(move |request: Request| {
        assert_eq!((request.method.as_str(), request.uri.as_str(), request.header("content-type")), ("POST", "/hook", "application/json"));
        let ids = request.task_ids();
        seen.lock().unwrap().push(ids.len());
        let receipt = |id: &String| match usize::from_str_radix(id, 16).unwrap() % 3 {
            0 => json!({"task_id": id, "verdict": "accepted"}),
            1 => json!({"task_id": id, "verdict": "rejected", "code": "gone", "message": "no such clerk"}),
            _ => json!({"task_id": id, "verdict": "not_sent", "retry_after_secs": 60}),
        };
        let receipts: Vec<_> = ids.iter().map(receipt).collect();
        Reply::Answer(200, Vec::new(), json!({ "receipts": receipts }).to_string())
    });
    let (receipts, error) = push(&channel(&server.url(), json!({"batch_tasks_max": 40})), &Call::for_tests(), 300);
    assert_eq!((receipts.len(), error), (300, None));
    assert_eq!(receipts[0].1, "accepted");
    assert_eq!(receipts[1], (1, "rejected".into(), Some("gone".into()), Some("no such clerk".into())));
    assert_eq!(receipts[299].1, "not_sent");
    let mut bodies = bodies.lock().unwrap().clone();
    bodies.sort_unstable();
    assert_eq!(bodies, [20, 40, 40, 40, 40, 40, 40, 40]);
}

#[test]
fn a_library_of_the_standard_verifies_what_is_signed() {
    let ids = Arc::new(Mutex::new(HashMap::new()));
    let seen = Arc::clone(&ids);
    let server = Server::start(move |request: Request| {
        let genuine = standardwebhooks::Webhook::new(SECRET).unwrap().verify(&request.body, &request.headers).is_ok();
        assert_eq!(request.header("authorization"), "Bearer x");
        *seen.lock().unwrap().entry(request.header("idempotency-key").to_owned()).or_insert(0) += 1;
        Reply::status(if genuine { 200 } else { 401 })
    });
    let keys = json!({"signing_secret": SECRET, "authorization": "Bearer x", "batch_tasks_max": 2, "idempotent": true});
    let signed = channel(&server.url(), keys);
    assert_eq!(push_all(&signed, 5), (vec![("accepted".into(), 5)], None));
    assert_eq!(push_all(&signed, 5), (vec![("accepted".into(), 5)], None));
    let ids = ids.lock().unwrap();
    assert_eq!((ids.len(), ids.values().all(|times| *times == 2)), (3, true), "the same tasks have the same id: {ids:?}");
    assert!(ids.contains_key(&format!("{:032x}", 4)), "a task alone has its own");
}

#[test]
fn a_receiver_that_is_busy_is_asked_again_and_no_task_is_harmed() {
    let busy: fn() -> Reply = || Reply::Answer(429, vec![("retry-after", "1".into())], String::new());
    let (server, count) = at_first(vec![busy, || Reply::status(503)]);
    assert_eq!(push_all(&channel(&server.url(), json!({"concurrency_max": 1})), 300), (vec![("accepted".into(), 300)], None));
    assert_eq!(count.load(Ordering::SeqCst), 5);
}

#[test]
fn a_receiver_that_stays_busy_costs_no_attempt() {
    let server = Server::start(|_| Reply::Answer(429, vec![("retry-after", "600".into())], String::new()));
    let channel = channel(&server.url(), json!({}));
    for _ in 0..2 {
        let (receipts, error) = push(&channel, &Call::for_tests(), 1_000);
        assert_eq!(verdicts(&receipts), [("busy".into(), 1_000)]);
        assert_eq!(error.map(|error| (error.class, error.message)), Some((ErrorClass::RateLimited, "127.0.0.1: it answered 429".into())));
    }
}

#[test]
fn nobody_there_means_that_nothing_was_sent() {
    let url = Server::start(|_| Reply::status(200)).url();
    let (receipts, error) = push(&channel(&url, json!({"retry_window_secs": 1})), &Call::for_tests(), 250);
    assert_eq!(verdicts(&receipts), [("busy".into(), 250)]);
    let error = error.unwrap();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("no connection") && error.message.contains("refused"), "{error}");
}

#[test]
fn what_may_have_been_taken_is_unknown_or_sent_again() {
    for (reply, why) in [
        ((|| Reply::status(500)) as fn() -> Reply, "it answered 500"),
        (|| Reply::Close, "the connection broke"),
        (|| Reply::Hang, "no answer in time"),
        (|| Reply::Answer(200, Vec::new(), "x".repeat(5 << 20)), "the answer has more than 4 MiB"),
    ] {
        let keys = |idempotent: bool| json!({"idempotent": idempotent, "timeout_secs": 2, "connect_timeout_secs": 1, "concurrency_max": 1});
        let (server, count) = at_first(vec![reply]);
        let (receipts, error) = push(&channel(&server.url(), keys(false)), &Call::for_tests(), 150);
        assert_eq!(verdicts(&receipts), [("accepted".into(), 50), ("unknown".into(), 100)], "{why}");
        assert!(receipts[0].3.as_deref().unwrap().contains(why), "{:?}", receipts[0]);
        assert_eq!((error, count.load(Ordering::SeqCst)), (None, 2));

        let (server, count) = at_first(vec![reply]);
        assert_eq!(push_all(&channel(&server.url(), keys(true)), 150), (vec![("accepted".into(), 150)], None), "{why}");
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}

#[test]
fn what_stays_uncertain_is_left_to_the_next_push_of_its_dispatch() {
    let server = Server::start(|request| if request.task_ids()[0].ends_with("00") { Reply::status(500) } else { Reply::status(200) });
    let keys = json!({"idempotent": true, "retry_window_secs": 1});
    let (receipts, error) = push(&channel(&server.url(), keys), &Call::for_tests(), 250);
    assert_eq!(verdicts(&receipts), [("accepted".into(), 150)], "the first hundred have no receipt");
    assert_eq!(error.map(|error| error.class), Some(ErrorClass::Unavailable));
}

#[test]
fn one_bad_task_does_not_hold_up_its_batch() {
    let server = Server::start(|request| {
        let has = |end: &str| request.task_ids().iter().any(|id| id.ends_with(end));
        Reply::status(if has("07") || has("31") { 422 } else { 200 })
    });
    let (receipts, error) = push(&channel(&server.url(), json!({})), &Call::for_tests(), 100);
    assert_eq!((verdicts(&receipts), error), (vec![("accepted".into(), 98), ("rejected".into(), 2)], None));
    assert_eq!(receipts[7], (7, "rejected".into(), Some("422".into()), Some("the receiver refuses the task".into())));
    assert_eq!(receipts[0x31].1, "rejected");
}

#[test]
fn what_the_operator_has_to_mend_rejects_nothing() {
    for (status, class, key) in
        [(401, ErrorClass::Unauthorized, "authorization"), (404, ErrorClass::InvalidConfig, "url"), (302, ErrorClass::InvalidConfig, "url")]
    {
        let server =
            Server::start(move |_| Reply::Answer(status, vec![("location", "http://127.0.0.1:1/elsewhere".into())], String::new()));
        let channel = channel(&server.url(), json!({}));
        let (receipts, error) = push(&channel, &Call::for_tests(), 150);
        assert_eq!(verdicts(&receipts), [("busy".into(), 150)], "{status}");
        assert_eq!(error.map(|error| (error.class, error.key)), Some((class, Some(key.into()))), "{status}");
        let error = channel.check(&Call::for_tests()).unwrap_err();
        assert_eq!((error.class, error.key.as_deref()), (class, Some(key)));
    }
}

#[test]
fn a_receiver_that_forgets_a_task_leaves_it_unknown() {
    let server = Server::start(|request| {
        let receipts: Vec<_> = request.task_ids().iter().skip(1).map(|id| json!({"task_id": id, "verdict": "accepted"})).collect();
        Reply::Answer(200, Vec::new(), json!({ "receipts": receipts }).to_string())
    });
    assert_eq!(push_all(&channel(&server.url(), json!({})), 100), (vec![("accepted".into(), 99), ("unknown".into(), 1)], None));
    let again = push_all(&channel(&server.url(), json!({"idempotent": true})), 100);
    assert_eq!(again, (vec![("accepted".into(), 99)], Some(ErrorClass::InvalidData)), "it gets no receipt");
}

#[test]
fn a_cancel_ends_the_push_and_what_was_not_begun_is_not_lost() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&under_way);
    let server = Server::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Reply::Hang
    });
    let channel = channel(&server.url(), json!({"concurrency_max": 2, "timeout_secs": 300}));
    let (call, canceller) = TestCall::default().start();
    let pushing = std::thread::spawn(move || push(&channel, &call, 1_000));
    while under_way.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    canceller.cancel();
    let (receipts, error) = pushing.join().unwrap();
    assert_eq!(verdicts(&receipts), [("busy".into(), 800), ("unknown".into(), 200)]);
    assert_eq!(receipts[0].3.as_deref(), Some("the call was stopped before the answer"));
    assert_eq!(error.map(|error| error.class), Some(ErrorClass::Cancelled));
}

#[test]
fn a_dry_run_contacts_nobody() {
    let (server, count) = at_first(Vec::new());
    let (call, _) = TestCall { dry_run: true, ..TestCall::default() }.start();
    let (receipts, error) = push(&channel(&server.url(), json!({})), &call, 10);
    assert_eq!((verdicts(&receipts), error, count.load(Ordering::SeqCst)), (vec![("accepted".into(), 10)], None, 0));
}

#[test]
fn a_check_reaches_the_receiver_and_hands_over_nothing() {
    let server = Server::start(|request| {
        assert_eq!((request.header("webhook-id"), request.task_ids().len()), ("check", 0));
        Reply::status(if request.header("authorization") == "Bearer x" { 200 } else { 501 })
    });
    assert_eq!(channel(&server.url(), json!({"authorization": "Bearer x"})).check(&Call::for_tests()), Ok(vec![]));
    let findings = channel(&server.url(), json!({})).check(&Call::for_tests()).unwrap();
    let messages: Vec<_> = findings.into_iter().map(|finding| finding.message).collect();
    assert!(messages[0].contains("signing_secret") && messages[1].contains("501"), "{messages:?}");
}

#[test]
fn the_traits_follow_the_config() {
    let traits = |keys| channel("http://127.0.0.1:1/x", keys).traits();
    let risky = traits(json!({}));
    assert_eq!((risky.idempotent, risky.dispatch_tasks_max, risky.reach), (false, 1_000, Reach::Loopback));
    let safe = traits(json!({"idempotent": true, "consent": "message"}));
    assert_eq!((safe.idempotent, safe.dispatch_tasks_max, safe.consent.as_deref()), (true, 2_000, Some("message")));
    let slow = traits(json!({"requests_per_minute_max": 20, "batch_tasks_max": 1}));
    assert_eq!(slow.dispatch_tasks_max, 20, "a dispatch takes about a minute");
}
