//! The channel: well-behaved through the host, and what the host refuses of it in process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;

use serde_json::{Value, json};

use reunion_host::{CallOptions, Callback, Polled};
use reunion_misbehaving::{Deed, Misbehaviour, PHONE};
use reunion_sdk::{ErrorClass, HttpRequest, Outcome, PluginError, PluginKind, Reach, Verdict};

use support::{channel, push, task};

fn pushed(config: &Value, count: usize) -> (usize, usize, Option<PluginError>) {
    let (receipts, unanswered, error) = push(config, count, &CallOptions::default());
    assert!(receipts.iter().all(|receipt| receipt.verdict == Verdict::Accepted), "{config}");
    (receipts.len(), unanswered.len(), error)
}

fn poll(config: &Value) -> Result<Vec<Polled>, PluginError> {
    let channel = channel(config).unwrap();
    let mut stream = channel.poll(&CallOptions::default(), None)?;
    let mut all = Vec::new();
    while let Some(polled) = stream.next()? {
        all.push(polled);
    }
    Ok(all)
}

/// Tells the channel that these members were added.
fn callback(config: &Value, tasks: &[usize]) -> Result<Callback, PluginError> {
    let body: String = tasks.iter().map(|at| format!("task {}\n", task(*at))).collect();
    let request = HttpRequest { method: "POST".into(), body: body.into_bytes(), ..HttpRequest::default() };
    channel(config).unwrap().callback(&CallOptions::default(), &request)
}

#[test]
fn a_request_from_outside_is_answered() {
    let answer = callback(&json!({}), &[3, 4]).unwrap();
    let events: Vec<_> = answer.events.iter().map(|event| (event.task, event.outcome)).collect();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"2 events".as_slice()));
    assert_eq!(events, [(task(3), Outcome::Added), (task(4), Outcome::Added)]);
    assert_eq!(answer.headers, [("content-type".to_owned(), "text/plain".to_owned())]);
    assert_eq!(callback(&json!({}), &[]).unwrap().status, 400);
    let get = HttpRequest { method: "GET".into(), ..HttpRequest::default() };
    assert_eq!(channel(&json!({})).unwrap().callback(&CallOptions::default(), &get).unwrap().status, 405);
}

#[test]
fn an_answer_that_nobody_can_send_on_is_refused() {
    let told = [
        ("huge_answer", "an answer has a body of 2097152 bytes, and 1048576 are the limit"),
        ("odd_answer", "an answer has a status that is not within 200 to 599"),
        ("split_answer", "an answer has a value of the header x-phone that is not of printable ASCII"),
        ("framed_answer", "an answer has the header Content-Length, which is the host's to set"),
        ("many_events", "a batch of 8193 rows, and 8192 are the limit"),
        ("half_events", "the events of an answer cannot be taken"),
    ];
    let answers = Misbehaviour::of(PluginKind::Channel).filter(|one| matches!(one.deed, Deed::Answer(_))).map(|one| one.name);
    assert_eq!(answers.collect::<Vec<_>>(), told.map(|(name, _)| name), "none is forgotten");
    for (name, rule) in told {
        let error = callback(&json!({"do": name, "at": "callback"}), &[1]).unwrap_err();
        assert!(error.class == ErrorClass::Internal && error.message.contains(rule) && !error.message.contains(PHONE), "{name}: {error}");
    }
}

#[test]
fn without_a_command_it_is_well_behaved() {
    for count in [0, 1, 250] {
        assert_eq!(pushed(&json!({}), count), (count, 0, None));
    }
    assert_eq!(poll(&json!({})), Ok(Vec::new()));
    let told = json!({"idempotent": true, "consent": "sms", "reach": "network", "dispatch_tasks_max": 7});
    let channel = channel(&told).unwrap();
    let traits = channel.traits();
    assert_eq!((traits.idempotent, traits.consent.as_deref(), traits.reach), (true, Some("sms"), Reach::Network));
    assert_eq!((traits.dispatch_tasks_max, channel.check(&CallOptions::default())), (7, Ok(Vec::new())));
}

/// Those that end no process and are seen at the boundary, and what is said of each.
const REFUSED: &[(&str, &str)] = &[
    ("garbage_length_negative", "a length or an offset that is negative or too large"),
    ("garbage_length_huge", "a length or an offset that is negative or too large"),
    ("garbage_types", "The datatype \"Int64\" expects 2 buffers"),
    ("garbage_children", "another number of columns than its schema"),
    ("garbage_null_buffers", "buffer at position 1 is null"),
    ("garbage_no_buffers", "the Arrow data cannot be read"),
    ("garbage_offsets", "of Utf8 is larger than values length 0"),
    ("garbage_offsets_negative", "Error converting offset[0] (-5) to usize"),
    ("garbage_offsets_range", "the column `task_id` is not valid"),
    ("garbage_utf8", "the column `task_id` is not valid"),
    ("released_array", "the Arrow struct was not filled in"),
    ("too_many_rows", "a batch of 8193 rows, and 8192 are the limit"),
    ("too_many_bytes", "bytes, and 67108864 are the limit"),
    ("begin_twice", "a begin marker that is not the first item of a read"),
    ("huge_state", "the state has 2097"),
    ("unchanged", "that nothing has changed, where it was asked for all rows"),
    ("wrong_receipts", "is not in the dispatch or has one already"),
    ("double_receipts", "is not in the dispatch or has one already"),
    ("not_sent_without_delay", "a receipt says not_sent without retry_after_ms"),
];

/// Those after which nobody can go on in this process: a test of their own runs them in another one.
const FATAL: &[&str] = &["garbage_length", "garbage_offsets_end"];

#[test]
fn what_is_garbage_is_refused_after_the_receipts_that_were_told() {
    for (name, rule) in REFUSED {
        let config = json!({"batch_rows": 10, "do": name, "at": "receipt", "after_rows": 25});
        let (receipts, unanswered, error) = pushed(&config, 40);
        let error = error.unwrap_or_else(|| panic!("{name} is taken"));
        assert_eq!((receipts, unanswered, error.class), (25, 15, ErrorClass::Internal), "{name}");
        assert!(error.message.starts_with("the channel plugin misbehaving 0.1.0 broke the contract: "), "{name}: {error}");
        assert!(error.message.contains(rule), "{name}: {error}");
    }
}

#[test]
fn no_garbage_is_forgotten() {
    let is_tried = |name: &str| REFUSED.iter().any(|(tried, _)| *tried == name) || FATAL.contains(&name);
    let at_items = Misbehaviour::of(PluginKind::Channel).filter(|one| matches!(one.deed, Deed::Items(..)));
    let forgotten: Vec<_> = at_items.map(|one| one.name).filter(|name| !is_tried(name)).collect();
    assert_eq!(forgotten, ["no_begin", "double_end", "item_after_end", "missing_receipts"], "not here, or with a test of its own");
}

#[test]
fn tasks_that_get_no_receipt_are_told_apart() {
    let config = json!({"batch_rows": 10, "do": "missing_receipts", "at": "receipt", "after_rows": 25});
    let (receipts, unanswered, error) = push(&config, 40, &CallOptions::default());
    assert_eq!((receipts.len(), unanswered, error), (25, (25..40).map(task).collect(), None));
}

#[test]
fn what_follows_the_end_is_not_asked_for() {
    for name in ["double_end", "item_after_end"] {
        assert_eq!(pushed(&json!({"do": name, "at": "end"}), 5), (5, 0, None), "{name}");
        assert_eq!(poll(&json!({"do": name, "at": "poll"})), Ok(Vec::new()), "{name}");
    }
}

#[test]
fn a_poll_is_refused_too() {
    for (name, rule) in [
        ("begin_twice", "a begin marker that is not the first item of a read"),
        ("huge_state", "the state has 2097"),
        ("unchanged", "that nothing has changed, where it was asked for all rows"),
        ("released_stream", "poll answered ok without a stream"),
        ("stream_without_next", "poll answered ok without a stream"),
    ] {
        let error = poll(&json!({"do": name, "at": "poll"})).unwrap_err();
        assert!(error.message.contains(rule), "{name}: {error}");
    }
    let (_, unanswered, error) = pushed(&json!({"do": "released_stream", "at": "push"}), 5);
    assert!(unanswered == 5 && error.unwrap().message.ends_with("push answered ok without a stream"));
}

#[test]
fn a_panic_and_an_error_come_where_they_were_told() {
    for (name, class) in [("panic", ErrorClass::Internal), ("huge_error", ErrorClass::InvalidData)] {
        let told = |at: &str| json!({"batch_rows": 10, "do": name, "at": at, "after_rows": 25});
        let errors = [
            channel(&told("create")).err(),
            channel(&told("check")).unwrap().check(&CallOptions::default()).err(),
            pushed(&told("push"), 40).2,
            pushed(&told("receipt"), 40).2,
            pushed(&told("end"), 40).2,
            poll(&told("poll")).err(),
            callback(&told("callback"), &[1]).err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.class, class, "{name}: {error}");
            assert!(error.message.len() < 5_000 && !error.to_string().contains(PHONE), "{name}");
        }
    }
    assert_eq!(channel(&json!({"do": "panic", "at": "describe"})).err().unwrap().class, ErrorClass::Internal);
    // What a push has open is let go of with its end marker.
    let (receipts, unanswered, error) = pushed(&json!({"do": "panic", "at": "release"}), 5);
    assert_eq!((receipts, unanswered, error.unwrap().class), (5, 0, ErrorClass::Internal));
    assert_eq!(pushed(&json!({"do": "panic", "at": "destroy"}), 5), (5, 0, None));
}

#[test]
fn tasks_are_counted_when_they_are_sent_and_not_in_a_dry_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counter");
    let config = json!({"batch_rows": 10, "counter_file": file, "do": "panic", "at": "receipt", "after_rows": 20});
    let dry = CallOptions { dry_run: true, ..CallOptions::default() };
    assert_eq!(push(&config, 30, &dry).0.len(), 20);
    assert!(!file.exists());
    // The tasks of the batch whose receipts never come have been sent.
    assert_eq!(pushed(&config, 40).0, 20);
    let sent = (0..30).map(|at| format!("task {}\n", task(at)));
    assert_eq!(fs::read_to_string(&file).unwrap(), ["call push\n".to_owned()].into_iter().chain(sent).collect::<String>());
    // Told at the push, nothing is.
    fs::remove_file(&file).unwrap();
    assert_eq!(pushed(&json!({"counter_file": file, "do": "panic", "at": "push"}), 5).0, 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "call push\n");
}
