//! Requests from outside: such as nobody who means well sends.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use reunion_host::{CallOptions, Callback, ChannelConnector};
use reunion_model::limits::{CALLBACK_BODY_BYTES_MAX, CALLBACK_HEADERS_MAX, CALLBACKS_AT_ONCE_MAX};
use reunion_model::plugin::{ErrorClass, HttpRequest, PluginError};
use serde_json::Value;

use super::Played;
use super::channel::{begin_push, hear};
use super::create::STOPS_WITHIN;
use crate::act::{Dispatch, Trial};
use crate::phones::shown;
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// How long a sender waits.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Tasks of the dispatch that is pushed meanwhile.
const TASKS: usize = 100;
/// An invented number, which must not come out again.
const PHONE: &str = "13900001201";
/// Lists within lists: a parser that recurses has no stack left.
const NESTED: usize = 200_000;
/// Moments at which requests are cancelled.
const CANCELS: [u64; 3] = [0, 20, 100];

/// What came of requests.
#[derive(Default)]
struct Tally {
    answered: usize,
    /// How many could not be answered now, by the class of the error.
    failed: BTreeMap<&'static str, usize>,
}

/// Answers requests that make no sense, one by one, at the same time and beside a push; those whose deadline has passed;
/// and those that are cancelled.
pub fn callback(stage: &Stage, trial: Trial) -> Played {
    stage.heard.know(PHONE);
    let requests = requests();
    let mut tally = Tally::default();
    let channel = stage.channel()?;
    for (what, request) in &requests {
        stage.calling(format!("a request {what} was answered"));
        let first = one(stage, channel.as_ref(), what, request, &mut tally)?;
        let again = one(stage, channel.as_ref(), what, request, &mut tally)?;
        if let (Some(first), Some(again)) = (first, again)
            && first != again
        {
            let seen = format!("a request {what} was answered with {first}, and the same again with {again}");
            return Err(failed(seen, rules::CALLBACK_AGAIN));
        }
    }
    late(stage, channel.as_ref(), &requests)?;
    beside_push(stage, channel.as_ref(), trial, &requests, &mut tally)?;
    stage.stopping("destroy ran after requests");
    drop(channel);
    for after_ms in CANCELS {
        cancelled(stage, Duration::from_millis(after_ms), &requests)?;
    }
    let mut note = format!("{} answers; beside a push too", tally.answered);
    for (class, count) in &tally.failed {
        note.push_str(&format!("; {count} times {class}"));
    }
    Ok((note, Value::Null))
}

fn options(stage: &Stage) -> CallOptions {
    stage.options_within(ANSWERS_WITHIN)
}

/// One request; the status of its answer, or nothing where it could not be answered now.
fn one(stage: &Stage, channel: &dyn ChannelConnector, what: &str, request: &HttpRequest, tally: &mut Tally) -> Result<Option<u16>, Stop> {
    let from = Instant::now();
    let answer = channel.callback(&options(stage), request);
    let took = from.elapsed();
    if took > ANSWERS_WITHIN + STOPS_WITHIN {
        let seen =
            format!("a request {what} took {:.1} s, and its deadline passed after {} s", took.as_secs_f64(), ANSWERS_WITHIN.as_secs());
        return Err(failed(seen, rules::STOP));
    }
    judge(stage, what, answer, tally)
}

/// The status of an answer, or nothing where there could be none now.
fn judge(stage: &Stage, what: &str, answer: Result<Callback, PluginError>, tally: &mut Tally) -> Result<Option<u16>, Stop> {
    match answer {
        Ok(answer) => {
            tally.answered += 1;
            sensible(what, &answer)?;
            Ok(Some(answer.status))
        }
        Err(error) => {
            *tally.failed.entry(refused(stage, what, &error)?).or_insert(0) += 1;
            Ok(None)
        }
    }
}

/// An answer that the sender of nonsense may be given.
fn sensible(what: &str, answer: &Callback) -> Result<(), Stop> {
    if answer.status >= 500 {
        let seen = format!("a request {what} was answered with {}, upon which its sender would try again and again", answer.status);
        return Err(failed(seen, rules::CALLBACK));
    }
    if !answer.events.is_empty() {
        return Err(failed(format!("a request {what}, which nobody has signed, gave {} events", answer.events.len()), rules::CALLBACK));
    }
    Ok(())
}

/// The class of an error that may come in place of an answer.
fn refused(stage: &Stage, what: &str, error: &PluginError) -> Result<&'static str, Stop> {
    stage.heard.error(error);
    if error.class.is_transient() {
        return Ok(error.class.name());
    }
    let rule = if error.class == ErrorClass::Internal { rules::ERRORS } else { rules::CALLBACK };
    let rule = if error.message.contains("broke the contract") { rules::CALLBACK_ANSWER } else { rule };
    Err(failed(format!("a request {what} was answered with the error {}: {}", error.class.name(), shown(&error.message)), rule))
}

/// A deadline that has passed.
fn late(stage: &Stage, channel: &dyn ChannelConnector, requests: &[(&'static str, HttpRequest)]) -> Result<(), Stop> {
    stage.stopping("a request ran whose deadline had passed");
    let past = CallOptions { deadline_unix_ms: Some(1), ..stage.options() };
    let from = Instant::now();
    let answer = channel.callback(&past, &requests[0].1);
    let took = from.elapsed();
    if took > STOPS_WITHIN {
        let seen = format!("a request whose deadline had passed took {:.1} s where one second is allowed", took.as_secs_f64());
        return Err(failed(seen, rules::STOP));
    }
    match answer {
        Err(error) if !error.class.is_transient() => {
            refused(stage, "whose deadline had passed", &error)?;
            Ok(())
        }
        // What was known before the clock was looked at may be said.
        _ => Ok(()),
    }
}

/// As many requests at the same time as there may be, while a dispatch is pushed.
fn beside_push(
    stage: &Stage,
    channel: &dyn ChannelConnector,
    trial: Trial,
    requests: &[(&'static str, HttpRequest)],
    tally: &mut Tally,
) -> Result<(), Stop> {
    stage.calling("requests were answered beside a push");
    let mut stream = begin_push(stage, channel, trial, Dispatch { number: trial.first_dispatch, tasks: TASKS })?;
    let options = stage.options();
    let ask = || requests.iter().map(|(what, request)| (*what, channel.callback(&options, request))).collect::<Vec<_>>();
    let (pushed, answers) = thread::scope(|scope| {
        let asking: Vec<_> = (0..CALLBACKS_AT_ONCE_MAX).map(|_| scope.spawn(ask)).collect();
        let pushed = loop {
            match stream.next() {
                Ok(Some(receipts)) => hear(&receipts, &stage.heard),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (pushed, asking.into_iter().map(|thread| thread.join()).collect::<Result<Vec<_>, _>>())
    });
    pushed.map_err(|error| stage.refused("a push beside requests", &error, rules::RECEIPTS))?;
    for (what, answer) in answers.map_err(|_| skipped("a thread that asks broke off"))?.into_iter().flatten() {
        judge(stage, what, answer, tally)?;
    }
    Ok(())
}

/// Requests one after the other until they are cancelled.
fn cancelled(stage: &Stage, after: Duration, requests: &[(&'static str, HttpRequest)]) -> Result<(), Stop> {
    let channel = stage.channel()?;
    stage.stopping(format!("requests ran and were cancelled after {} ms", after.as_millis()));
    let canceller = channel.canceller();
    let (ended, took) = thread::scope(|scope| {
        let cancels = scope.spawn(move || {
            thread::sleep(after);
            canceller.cancel();
            Instant::now()
        });
        let limit = Instant::now() + after + 2 * STOPS_WITHIN;
        let ended = requests.iter().cycle().find_map(|(_, request)| match channel.callback(&options(stage), request) {
            Err(error) if !error.class.is_transient() => Some(Ok(error)),
            _ if Instant::now() > limit => Some(Err(())),
            _ => None,
        });
        let at = Instant::now();
        (ended, cancels.join().map(|from| at.saturating_duration_since(from)))
    });
    let took = took.map_err(|_| skipped("the thread that cancels broke off"))?;
    if took > STOPS_WITHIN {
        let seen = format!("a request ended {:.1} s after it was cancelled, where one second is allowed", took.as_secs_f64());
        return Err(failed(seen, rules::STOP));
    }
    match ended {
        Some(Ok(error)) if error.class == ErrorClass::Cancelled => {}
        Some(Ok(error)) => return refused(stage, "that was cancelled", &error).map(drop),
        _ => return Err(failed("requests are still answered after a cancel", rules::STOP)),
    }
    stage.stopping("destroy ran after requests were cancelled");
    let from = Instant::now();
    drop(channel);
    let took = from.elapsed();
    let seen = || format!("destroy took {:.1} s where one second is allowed", took.as_secs_f64());
    if took > STOPS_WITHIN { Err(failed(seen(), rules::DESTROY)) } else { Ok(()) }
}

/// Requests that make no sense, and in what way.
fn requests() -> Vec<(&'static str, HttpRequest)> {
    let json = || vec![("content-type".to_owned(), "application/json".to_owned())];
    let get = |query: &str| HttpRequest { method: "GET".into(), query: query.into(), ..HttpRequest::default() };
    let post = |body: &[u8]| HttpRequest { method: "POST".into(), headers: json(), body: body.to_vec(), ..HttpRequest::default() };
    let at = |path: &str| HttpRequest { path: path.into(), ..post(b"{}") };
    let with_headers = |headers: Vec<(String, String)>| HttpRequest { headers, ..post(b"{}") };
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let nested = [b"[".repeat(NESTED), b"]".repeat(NESTED)].concat();
    let entities = r#"<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d SYSTEM "file:///etc/passwd">]><x>&c;&d;</x>"#;
    let said = format!(r#"{{"phone":"{PHONE}","type":"events","data":{{"events":[{{"task_id":"{PHONE}"}}]}}}}"#);
    vec![
        ("without anything", get("")),
        ("with an empty query", get("&&==&")),
        ("with the query of a check that is none", get("msg_signature=0&timestamp=0&nonce=0&echostr=AAAA")),
        ("with a query that is badly encoded", get("echostr=%&timestamp=%zz&nonce=%ff%fe")),
        ("with a long query", get(&"a=b&".repeat(4_000))),
        ("with a phone number in its query", get(&format!("mobile={PHONE}"))),
        ("of the method HEAD", HttpRequest { method: "HEAD".into(), ..HttpRequest::default() }),
        ("of a method that there is not", HttpRequest { method: "BREW".into(), ..post(b"{}") }),
        ("of the method DELETE", HttpRequest { method: "DELETE".into(), ..HttpRequest::default() }),
        ("with an empty body", post(b"")),
        ("with an empty object", post(b"{}")),
        ("with a list", post(b"[1, null, {}]")),
        ("with JSON that is cut off", post(br#"{"type": "events", "data": {"events": [{"task_id": "#)),
        ("with lists in lists", post(&nested)),
        ("with a number that is too large", post(br#"{"timestamp": 1e400, "data": -99999999999999999999999999}"#)),
        ("with a body that is no text", post(&[0xff, 0xfe, 0x00, 0x80, 0xc0])),
        ("with a phone number in its body", post(said.as_bytes())),
        ("with XML", post(b"<xml><ToUserName>x</ToUserName><Encrypt>AAAA</Encrypt></xml>")),
        ("with XML that refers to itself and to files", post(entities.as_bytes())),
        ("with a form", HttpRequest { headers: pairs(&[("content-type", "application/x-www-form-urlencoded")]), ..post(b"a=%&b=%zz&&=") }),
        ("with as many zeros as a body may have", post(&vec![0; CALLBACK_BODY_BYTES_MAX])),
        ("with as much text as a body may have", post(&vec![b'"'; CALLBACK_BODY_BYTES_MAX])),
        ("to a path with dots", at("/../../../etc/passwd")),
        ("to a path that is badly encoded", at("/%2e%2e/%00/%ff%zz")),
        ("to a long path", at(&"/a".repeat(8_000))),
        ("to a path with a phone number", at(&format!("/{PHONE}"))),
        ("without headers", with_headers(Vec::new())),
        ("with many headers", with_headers(vec![("webhook-signature".to_owned(), "v1,AAAA".to_owned()); CALLBACK_HEADERS_MAX])),
        (
            "with a signature that is none",
            with_headers(pairs(&[("webhook-id", ""), ("webhook-timestamp", "-1"), ("webhook-signature", "v1,")])),
        ),
        (
            "of long ago",
            with_headers(pairs(&[
                ("webhook-id", "a"),
                ("webhook-timestamp", "9223372036854775808"),
                ("webhook-signature", "v1,AAAA v2,= , v1"),
            ])),
        ),
        (
            "with credentials that are none",
            with_headers(pairs(&[("authorization", "Basic !!!!"), ("cookie", ";;=;"), ("content-length", "-5")])),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_within_the_limits_and_told_apart() {
        use reunion_model::limits::CALLBACK_HEAD_BYTES_MAX;
        let requests = requests();
        let names: std::collections::BTreeSet<_> = requests.iter().map(|(what, _)| what).collect();
        assert_eq!(names.len(), requests.len());
        for (what, request) in requests {
            let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            assert!(request.path.len() + request.query.len() + headers <= CALLBACK_HEAD_BYTES_MAX, "{what}");
            assert!(request.headers.len() <= CALLBACK_HEADERS_MAX && request.body.len() <= CALLBACK_BODY_BYTES_MAX, "{what}");
        }
    }

    #[test]
    fn what_nonsense_may_be_answered_with() {
        let answer = |status| Callback { status, headers: Vec::new(), body: Vec::new(), events: Vec::new() };
        for status in [200, 204, 400, 401, 404, 405, 413] {
            assert!(sensible("x", &answer(status)).is_ok(), "{status}");
        }
        assert!(sensible("x", &answer(500)).is_err());
    }
}
