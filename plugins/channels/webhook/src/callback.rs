//! What the receiver reports of tasks later on: a message as Standard Webhooks 1.0 has it, signed as ours are.
//!
//! Nothing of a message is believed before its signature is known to be right, and all of it is understood before any
//! of it counts.

use jiff::Timestamp;
use reunion_sdk::{EventsBuilder, HttpAnswer, HttpRequest, Outcome};
use serde_json::{Value, json};

use crate::signature::Signer;

/// A message that is older than this, or so far from the future, was recorded and is played back.
const CLOCKS_DIFFER_SECS_MAX: i64 = 300;
/// Events of one message.
const EVENTS_MAX: usize = 1_000;
/// Bytes of the id of a message, and of an event.
const ID_BYTES_MAX: usize = 200;
/// Characters of a note that are kept.
const NOTE_CHARS_MAX: usize = 500;

/// Answers a request. `now_secs` is the Unix time.
pub fn answer(request: &HttpRequest, signer: Option<&Signer>, now_secs: i64) -> HttpAnswer {
    taken(request, signer, now_secs).unwrap_or_else(|Refused(status, why)| {
        let answer = HttpAnswer::status(status).body("text/plain; charset=utf-8", format!("{why}\n"));
        if status == 405 { answer.header("allow", "POST") } else { answer }
    })
}

/// A status, and why, in words for whoever writes the receiver. They repeat nothing of the message.
struct Refused(u16, String);

fn refused<T>(status: u16, why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(status, why.into()))
}

fn taken(request: &HttpRequest, signer: Option<&Signer>, now_secs: i64) -> Result<HttpAnswer, Refused> {
    if !matches!(request.path.as_str(), "" | "/") {
        return refused(404, "there is nothing here");
    }
    if request.method != "POST" {
        return refused(405, "POST a message");
    }
    let Some(signer) = signer else { return refused(403, "no reports are taken: this channel has no signing_secret") };
    let id = genuine(request, signer, now_secs)?;
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else { return refused(400, "the body is no JSON") };
    if message["type"] != "events" {
        return refused(400, "type is not \"events\"");
    }
    let Some(reported) = message["data"]["events"].as_array() else { return refused(400, "data.events is no list") };
    if reported.len() > EVENTS_MAX {
        return refused(413, format!("data.events has {} events, and {EVENTS_MAX} are the limit", reported.len()));
    }
    let mut events = EventsBuilder::new();
    for (at, event) in reported.iter().enumerate() {
        let wrong = |why: &str| Refused(400, format!("data.events[{at}]{why}"));
        add(&mut events, id, at, event, now_secs).map_err(wrong)?;
    }
    let answer = HttpAnswer::status(200).body("application/json", json!({ "taken": events.len() }).to_string());
    Ok(if events.is_empty() { answer } else { answer.events(events.finish()) })
}

/// The id of a message that comes from the receiver, and just now.
fn genuine<'a>(request: &'a HttpRequest, signer: &Signer, now_secs: i64) -> Result<&'a str, Refused> {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    if !is_id(id) {
        return refused(401, "webhook-id is missing, or is no id");
    }
    let Ok(at_secs) = at.parse::<i64>() else { return refused(401, "webhook-timestamp is missing, or is no number of seconds") };
    if !signer.has_signed(id, at_secs, &request.body, header("webhook-signature")) {
        return refused(401, "no signature of webhook-signature is that of this message");
    }
    // Said only to who knows the secret.
    if now_secs.abs_diff(at_secs) > CLOCKS_DIFFER_SECS_MAX.unsigned_abs() {
        return refused(401, format!("webhook-timestamp is more than {CLOCKS_DIFFER_SECS_MAX} s off: see the clocks of both sides"));
    }
    Ok(id)
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Adds an event; what is wrong with it, if anything is, in words that follow its place.
fn add(events: &mut EventsBuilder, message: &str, at: usize, event: &Value, now_secs: i64) -> Result<(), &'static str> {
    let text = |key: &str| event[key].as_str();
    let task = text("task_id").filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let task = task.ok_or(".task_id is no id of a task")?;
    let outcome = text("outcome").and_then(Outcome::from_name);
    let outcome = outcome.ok_or(".outcome is none of added, refused, wrong_number, do_not_call")?;
    let at_us = match &event["at"] {
        Value::Null => None,
        at => Some(at.as_str().and_then(|at| at.parse::<Timestamp>().ok()).ok_or(".at is no time of RFC 3339")?.as_microsecond()),
    };
    if at_us.is_some_and(|at_us| at_us / 1_000_000 > now_secs + CLOCKS_DIFFER_SECS_MAX) {
        return Err(".at lies in the future");
    }
    let note = match &event["note"] {
        Value::Null => None,
        note => Some(note.as_str().ok_or(".note is no text")?.chars().take(NOTE_CHARS_MAX).collect::<String>()),
    };
    // The same whenever the message is sent again. An id of the receiver's own is never taken for one of ours.
    let id = match &event["event_id"] {
        Value::Null => format!("message {message} {at}"),
        id => format!("event {}", id.as_str().filter(|id| is_id(id)).ok_or(".event_id is no id")?),
    };
    events.push(&id, task, outcome, at_us, note.as_deref());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reunion_sdk::arrow::array::AsArray;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_774_454_399;
    const TASK: &str = "00112233445566778899aabbccddeeff";

    fn signer() -> Signer {
        Signer::new(SECRET).expect("a secret")
    }

    fn signed(at_secs: i64, body: &str) -> HttpRequest {
        let headers = [
            ("webhook-id", "m1".to_owned()),
            ("webhook-timestamp", at_secs.to_string()),
            ("webhook-signature", signer().sign("m1", at_secs, body.as_bytes())),
        ];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        HttpRequest { method: "POST".into(), headers, body: body.into(), ..HttpRequest::default() }
    }

    fn with_header(mut request: HttpRequest, name: &str, value: &str) -> HttpRequest {
        request.headers.iter_mut().filter(|(known, _)| known == name).for_each(|(_, given)| value.clone_into(given));
        request
    }

    fn message(events: &Value) -> String {
        json!({"type": "events", "timestamp": "2026-03-25T15:59:59Z", "data": {"events": events}}).to_string()
    }

    fn said(request: &HttpRequest) -> (u16, String) {
        let answer = answer(request, Some(&signer()), NOW);
        assert!(answer.events.is_none(), "{answer:?}");
        (answer.status, String::from_utf8(answer.body).expect("text").trim().to_owned())
    }

    #[test]
    fn a_report_is_taken_with_ids_that_are_the_same_again() {
        let events = json!([
            {"task_id": TASK, "outcome": "added", "at": "2026-03-25T16:10:00+08:00", "note": "加好了", "unknown": 1},
            {"task_id": TASK.to_uppercase(), "outcome": "do_not_call", "event_id": "e-7", "note": "长".repeat(900)},
        ]);
        let request = signed(NOW - CLOCKS_DIFFER_SECS_MAX, &message(&events));
        let answered = answer(&request, Some(&signer()), NOW);
        assert_eq!((answered.status, answered.body.as_slice()), (200, br#"{"taken":2}"#.as_slice()));
        let batch = answered.events.clone().expect("events");
        let texts =
            |column: usize| batch.column(column).as_string::<i32>().iter().map(|text| text.unwrap_or("").to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(0), ["message m1 0", "event e-7"]);
        assert_eq!(texts(2), ["added", "do_not_call"]);
        assert_eq!((texts(4)[0].as_str(), texts(4)[1].chars().count()), ("加好了", NOTE_CHARS_MAX));
        assert_eq!(answer(&request, Some(&signer()), NOW), answered, "the same again");
        assert_eq!(said(&signed(NOW, &message(&json!([])))), (200, r#"{"taken":0}"#.into()));
    }

    #[test]
    fn what_is_not_genuine_is_not_believed() {
        let body = message(&json!([{"task_id": TASK, "outcome": "added"}]));
        let good = || signed(NOW, &body);
        let other = Signer::new(&SECRET.replace("MfKQ", "AAAA")).expect("a secret").sign("m1", NOW, body.as_bytes());
        let mine = signer().sign("m1", NOW, body.as_bytes());
        let unsigned = HttpRequest { headers: Vec::new(), ..good() };
        let changed = HttpRequest { body: body.replace("added", "refused").into(), ..good() };
        for (request, why) in [
            (unsigned, "webhook-id is missing"),
            (changed, "no signature"),
            (with_header(good(), "webhook-id", "m2"), "no signature"),
            (with_header(good(), "webhook-id", &"m".repeat(ID_BYTES_MAX + 1)), "webhook-id"),
            (with_header(good(), "webhook-timestamp", "soon"), "webhook-timestamp"),
            (with_header(good(), "webhook-timestamp", &(NOW + 1).to_string()), "no signature"),
            (with_header(good(), "webhook-signature", &other), "no signature"),
            (with_header(good(), "webhook-signature", &mine.replace("v1,", "v2,")), "no signature"),
            (with_header(good(), "webhook-signature", "v1,"), "no signature"),
            (signed(NOW - CLOCKS_DIFFER_SECS_MAX - 1, &body), "more than 300 s off"),
            (signed(NOW + CLOCKS_DIFFER_SECS_MAX + 1, &body), "more than 300 s off"),
            (signed(i64::MIN, &body), "more than 300 s off"),
        ] {
            let (status, text) = said(&request);
            assert!(status == 401 && text.contains(why), "{status} {text}, and not {why}");
        }
        // Whoever changes the secret signs with both for a while.
        let both = with_header(good(), "webhook-signature", &format!("{other} {mine}"));
        assert_eq!(answer(&both, Some(&signer()), NOW).status, 200);
    }

    #[test]
    fn a_message_that_makes_no_sense_is_told_where() {
        let event = |event: Value| message(&json!([{"task_id": TASK, "outcome": "added"}, event]));
        let cases = [
            ("{".to_owned(), "the body is no JSON"),
            ("[]".to_owned(), r#"type is not "events""#),
            (json!({"type": "tasks", "data": {"events": []}}).to_string(), r#"type is not "events""#),
            (json!({"type": "events", "data": []}).to_string(), "data.events is no list"),
            (event(json!(null)), "data.events[1].task_id is no id of a task"),
            (event(json!({"task_id": "13900001201", "outcome": "added"})), "data.events[1].task_id is no id of a task"),
            (
                event(json!({"task_id": TASK, "outcome": "13900001201"})),
                "data.events[1].outcome is none of added, refused, wrong_number, do_not_call",
            ),
            (event(json!({"task_id": TASK, "outcome": "added", "at": 1774454399})), "data.events[1].at is no time of RFC 3339"),
            (event(json!({"task_id": TASK, "outcome": "added", "at": "9999-12-30T00:00:00Z"})), "data.events[1].at lies in the future"),
            (event(json!({"task_id": TASK, "outcome": "added", "note": {}})), "data.events[1].note is no text"),
            (event(json!({"task_id": TASK, "outcome": "added", "event_id": ""})), "data.events[1].event_id is no id"),
        ];
        for (body, why) in cases {
            assert_eq!(said(&signed(NOW, &body)), (400, why.to_owned()));
        }
        let many = message(&json!(vec![json!({"task_id": TASK, "outcome": "added"}); EVENTS_MAX + 1]));
        assert_eq!(said(&signed(NOW, &many)), (413, "data.events has 1001 events, and 1000 are the limit".into()));
    }

    #[test]
    fn other_requests_are_turned_away() {
        let good = || signed(NOW, &message(&json!([])));
        let status = |request: HttpRequest| said(&request).0;
        assert_eq!(status(HttpRequest { method: "GET".into(), ..good() }), 405);
        assert_eq!(status(HttpRequest { path: "/other".into(), ..good() }), 404);
        assert_eq!(status(HttpRequest { path: "/".into(), ..good() }), 200);
        assert_eq!(answer(&good(), None, NOW).status, 403);
    }
}
