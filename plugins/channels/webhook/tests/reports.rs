//! What receivers report of tasks, signed by a library of the standard.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod common;

use common::channel;
use reunion_sdk::arrow::array::AsArray;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, Channel, ErrorClass, HttpRequest};
use serde_json::json;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn report(secret: &str, id: &str) -> HttpRequest {
    let events = json!([{"task_id": "00112233445566778899aabbccddeeff", "outcome": "wrong_number"}]);
    let body = json!({"type": "events", "data": {"events": events}}).to_string();
    let at_secs = jiff::Timestamp::now().as_second();
    let signature = standardwebhooks::Webhook::new(secret).unwrap().sign(id, at_secs, body.as_bytes()).unwrap();
    let headers = [("webhook-id", id.to_owned()), ("webhook-timestamp", at_secs.to_string()), ("webhook-signature", signature)];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    HttpRequest { method: "POST".into(), headers, body: body.into(), ..HttpRequest::default() }
}

#[test]
fn what_a_library_of_the_standard_signs_is_taken() {
    assert!(channel("http://127.0.0.1:1/x", json!({})).callback(&Call::for_tests(), &report(SECRET, "m")).unwrap().status == 403);
    let channel = channel("http://127.0.0.1:1/x", json!({"signing_secret": SECRET}));
    let answer = channel.callback(&Call::for_tests(), &report(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek")).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, br#"{"taken":1}"#.as_slice()));
    let events = answer.events.unwrap();
    assert_eq!(events.column(0).as_string::<i32>().value(0), "message msg_p5jXN8AQM9LWM0D4loKWxJek 0");
    let stranger = report(&SECRET.replace("MfKQ", "AAAA"), "m");
    assert_eq!(channel.callback(&Call::for_tests(), &stranger).unwrap().status, 401);
}

#[test]
fn a_call_that_is_over_is_not_answered() {
    let channel = channel("http://127.0.0.1:1/x", json!({"signing_secret": SECRET}));
    let (call, canceller) = TestCall::default().start();
    canceller.cancel();
    assert_eq!(channel.callback(&call, &report(SECRET, "m")).unwrap_err().class, ErrorClass::Cancelled);
    let late = TestCall { deadline_unix_ms: Some(1), ..TestCall::default() }.start().0;
    assert_eq!(channel.callback(&late, &report(SECRET, "m")).unwrap_err().class, ErrorClass::Timeout);
}

#[test]
fn the_manifest_says_that_it_takes_them() {
    let manifest = reunion_channel_webhook::WebhookChannel::manifest();
    assert!(manifest.capabilities.callback);
}
