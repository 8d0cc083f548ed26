//! Answers to requests from outside that the SDK would not hand out.

use reunion_sdk::export::reunion_abi::{Buf, FFI_ArrowSchema, HttpAnswer, export_batch};
use reunion_sdk::{EventsBuilder, Outcome};

use crate::PHONE;

/// Twice what a body may have.
const BODY_BYTES: usize = 2 << 20;
/// One more than a batch may have.
const EVENTS: usize = 8193;

/// A body of 2 MiB.
pub(crate) fn huge(answer: &mut HttpAnswer) {
    answer.body = Buf::from_vec(vec![b'x'; BODY_BYTES]);
}

/// A status that there is not.
pub(crate) fn odd(answer: &mut HttpAnswer) {
    answer.status = 99;
}

/// A header in which another one is hidden, and a phone number.
pub(crate) fn split(answer: &mut HttpAnswer) {
    let headers = serde_json::json!([["x-phone", format!("{PHONE}\r\nset-cookie: a=b")]]);
    answer.headers_json = Buf::from_vec(headers.to_string().into_bytes());
}

/// A header that says how long the body is, and is wrong.
pub(crate) fn framed(answer: &mut HttpAnswer) {
    answer.headers_json = Buf::from_vec(br#"[["Content-Length", "5"]]"#.to_vec());
}

/// More events than a batch may have.
pub(crate) fn many_events(answer: &mut HttpAnswer) {
    let mut events = EventsBuilder::new();
    (0..EVENTS).for_each(|at| events.push(&at.to_string(), &format!("{at:032x}"), Outcome::Added, None, None));
    let (schema, rows) = export_batch(&events.finish()).expect("a batch of plain types");
    (answer.schema, answer.events) = (schema, rows);
}

/// Rows without their schema.
pub(crate) fn half_events(answer: &mut HttpAnswer) {
    let mut events = EventsBuilder::new();
    events.push("e1", &"7".repeat(32), Outcome::Added, None, None);
    let (_, rows) = export_batch(&events.finish()).expect("a batch of plain types");
    (answer.schema, answer.events) = (FFI_ArrowSchema::empty(), rows);
}
