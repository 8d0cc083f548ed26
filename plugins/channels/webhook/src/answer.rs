//! What an answer means for the tasks of its request.
//!
//! The contract with receivers stands in the README. What is certain is said; everything else is uncertain.

use std::collections::HashMap;
use std::time::Duration;

use reunion_sdk::ErrorClass;
use serde::Deserialize;

/// An answer, as far as it is looked at.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The body, or what it is not.
    pub body: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A word for each of its tasks, in their order.
    Words(Vec<Word>),
    /// The receiver takes nothing now, for this long if it says so.
    Busy(Option<Duration>),
    /// Nobody knows whether it took the tasks.
    Uncertain,
    /// It does not take this request, and took nothing of it.
    Refused,
    /// It takes no request as they are, until the operator has done something about the key.
    TurnedAway(ErrorClass, &'static str),
}

/// What the receiver says of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Taken.
    Accepted,
    /// Refused for good: its code, and its reason.
    Rejected(Option<String>, String),
    /// Not taken, and may be given again after this delay.
    NotSent(Duration, Option<String>, String),
    /// The answer does not say.
    Silent,
}

/// Characters of a code, and of a message.
const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 500;
/// Where a receiver takes a task later and does not say when.
const NOT_SENT_DELAY: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Body {
    receipts: Option<Vec<Receipt>>,
}

#[derive(Deserialize)]
struct Receipt {
    task_id: String,
    verdict: String,
    retry_after_secs: Option<u64>,
    code: Option<serde_json::Value>,
    message: Option<String>,
}

impl Answer {
    /// What it means for these tasks.
    pub fn meaning(&self, task_ids: &[&str], receipts_required: bool) -> Meaning {
        match self.status {
            200..=299 => self.words(task_ids, receipts_required),
            429 | 503 => Meaning::Busy(self.retry_after),
            401 | 403 => Meaning::TurnedAway(ErrorClass::Unauthorized, "authorization"),
            407 => Meaning::TurnedAway(ErrorClass::Unauthorized, "proxy_password"),
            300..=399 | 404 | 405 | 410 => Meaning::TurnedAway(ErrorClass::InvalidConfig, "url"),
            // Taken too slowly or too early: it says that it did nothing.
            408 | 425 => Meaning::Busy(self.retry_after),
            400..=499 => Meaning::Refused,
            _ => Meaning::Uncertain,
        }
    }

    fn words(&self, task_ids: &[&str], receipts_required: bool) -> Meaning {
        let all = |word: Word| Meaning::Words(vec![word; task_ids.len()]);
        let receipts = match serde_json::from_slice::<Body>(&self.body) {
            Ok(Body { receipts: Some(receipts) }) => receipts,
            // Receipts that cannot be read are no consent.
            Err(error) if error.is_data() && holds_receipts(&self.body) => return all(Word::Silent),
            _ if receipts_required => return all(Word::Silent),
            _ => return all(Word::Accepted),
        };
        let mut said: HashMap<String, Receipt> = receipts.into_iter().map(|receipt| (receipt.task_id.clone(), receipt)).collect();
        Meaning::Words(task_ids.iter().map(|id| said.remove(*id).map_or(Word::Silent, Receipt::word)).collect())
    }
}

fn holds_receipts(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body.get("receipts").is_some())
}

impl Receipt {
    fn word(self) -> Word {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let code = self.code.map(|code| cut(code.as_str().unwrap_or(&code.to_string()), CODE_CHARS_MAX));
        let message = match &self.message {
            Some(message) => cut(message, MESSAGE_CHARS_MAX),
            None => format!("the receiver says {}", self.verdict),
        };
        match self.verdict.as_str() {
            "accepted" => Word::Accepted,
            "rejected" => Word::Rejected(code, message),
            "not_sent" => Word::NotSent(self.retry_after_secs.map_or(NOT_SENT_DELAY, Duration::from_secs), code, message),
            _ => Word::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: Some(Duration::from_secs(7)), body: body.into() }
    }

    #[test]
    fn what_is_not_certain_is_not_said() {
        let meaning = |status| answer(status, "").meaning(&["a"], false);
        let busy = Meaning::Busy(Some(Duration::from_secs(7)));
        for status in [408, 425, 429, 503] {
            assert_eq!(meaning(status), busy, "{status}");
        }
        for status in [100, 500, 501, 502, 504, 507, 599] {
            assert_eq!(meaning(status), Meaning::Uncertain, "{status}");
        }
        for status in [400, 409, 413, 415, 422, 451] {
            assert_eq!(meaning(status), Meaning::Refused, "{status}");
        }
        for (status, key) in
            [(301, "url"), (307, "url"), (401, "authorization"), (403, "authorization"), (404, "url"), (407, "proxy_password")]
        {
            assert!(matches!(meaning(status), Meaning::TurnedAway(_, blamed) if blamed == key), "{status}");
        }
    }

    #[test]
    fn each_task_has_the_word_that_its_receipt_says() {
        let body = r#"{"receipts": [{"task_id": "c", "verdict": "not_sent", "retry_after_secs": 9, "code": 45009},
            {"task_id": "b", "verdict": "rejected", "code": "no_such_clerk", "message": "he left"}, {"task_id": "a", "verdict": "accepted"},
            {"task_id": "d", "verdict": "maybe"}, {"task_id": "x", "verdict": "accepted"}, {"task_id": "f", "verdict": "not_sent"}]}"#;
        let words = answer(200, body).meaning(&["a", "b", "c", "d", "e", "f"], false);
        let expected = [
            Word::Accepted,
            Word::Rejected(Some("no_such_clerk".into()), "he left".into()),
            Word::NotSent(Duration::from_secs(9), Some("45009".into()), "the receiver says not_sent".into()),
            Word::Silent,
            Word::Silent,
            Word::NotSent(NOT_SENT_DELAY, None, "the receiver says not_sent".into()),
        ];
        assert_eq!(words, Meaning::Words(expected.into()));
    }

    #[test]
    fn what_the_receiver_writes_is_cut() {
        let body = json!({"receipts": [{"task_id": "a", "verdict": "rejected", "code": "c".repeat(900), "message": "长".repeat(900)}]});
        let expected = Word::Rejected(Some("c".repeat(CODE_CHARS_MAX)), "长".repeat(MESSAGE_CHARS_MAX));
        assert_eq!(answer(200, &body.to_string()).meaning(&["a"], false), Meaning::Words(vec![expected]));
    }

    #[test]
    fn an_answer_without_receipts_takes_all_unless_they_are_required() {
        for body in ["", "ok", "{}", r#"{"status": "ok"}"#, "[1]", "\"receipts\""] {
            assert_eq!(answer(204, body).meaning(&["a", "b"], false), Meaning::Words(vec![Word::Accepted; 2]), "{body}");
            assert_eq!(answer(204, body).meaning(&["a", "b"], true), Meaning::Words(vec![Word::Silent; 2]), "{body}");
        }
        for body in [r#"{"receipts": "all"}"#, r#"{"receipts": [{"task_id": "a"}]}"#, r#"{"receipts": []}"#] {
            assert_eq!(answer(200, body).meaning(&["a"], false), Meaning::Words(vec![Word::Silent]), "{body}");
        }
    }
}
