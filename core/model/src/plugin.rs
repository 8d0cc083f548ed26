//! What a plugin says of itself and of each call: manifest, errors, and the items of a stream.
//!
//! These are the Rust forms of the documents and batches that cross the plugin boundary; the SDK
//! writes them and the host reads them.

use std::fmt;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginKind {
    /// Reads members out of somewhere.
    Source,
    /// Hands tasks to somewhere.
    Channel,
}

impl PluginKind {
    /// The name in manifests, library names and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Channel => "channel",
        }
    }
}

/// The static document that `reunion_manifest_v1` returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name that configs use: `plugin = "file"`.
    pub name: String,
    /// The plugin's own version, semver.
    pub version: String,
    /// Major and minor version of the ABI that it was built with.
    pub abi: [u32; 2],
    /// Source or channel.
    pub kind: PluginKind,
    /// One sentence on what it does.
    pub summary: String,
    /// JSON Schema (draft 2020-12) of the component's `with` table. The host checks `type`,
    /// `properties`, `required`, `additionalProperties`, `enum`, `minimum`, `maximum`,
    /// `minLength`, `items` and `oneOf`, and shows `description` and `default`. A text of the format `path` is
    /// made absolute, and may be written to where it has `"access": "write"`; an object of the format `secret` says where a text is, and the plugin gets the text.
    pub config_schema: serde_json::Value,
    /// The sample of its config, shown by `plugins show`.
    #[serde(default)]
    pub sample: String,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What it needs of the machine. A plugin that says so is kept to it, where the kernel can; one that does not
    /// is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
}

/// What a plugin needs of the machine beyond what every program needs: the system's libraries, certificates,
/// time zones. What is not named here it does not get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Needs {
    /// It opens network connections.
    pub network: bool,
    /// It reads and writes the files and folders that its config names in texts of the format `path`. Those whose
    /// schema says `"access": "write"` may be written; of a pattern or a template, all below its fixed part.
    pub config_paths: bool,
}

/// What a plugin can do whatever its config says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Source: the modes it can read in (`incremental`, `snapshot`).
    pub modes: Vec<String>,
    /// Source: the names of its columns do not depend on the config, and these are they.
    pub columns: Vec<String>,
    /// Source: its rows have no ids of their own unless the config maps one.
    pub has_record_id: bool,
    /// Channel: `poll` reports what became of tasks.
    pub polls: bool,
    /// `poll` may run while `push` runs on the same instance.
    pub concurrent_poll: bool,
    /// Channel: `callback` answers requests from outside. Since version 1.1 of the ABI; a host of 1.0 does not know the
    /// key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub callback: bool,
}

impl Capabilities {
    /// The least minor version of the ABI that has all of this.
    pub const fn minor_needed(&self) -> u32 {
        if self.callback { 1 } else { 0 }
    }
}

/// What a channel does under the config it was created with: the document that `describe` returns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelTraits {
    /// Task columns whose values must be equal within one dispatch, such as `store` for a list per
    /// store. Empty: any tasks go together.
    pub group_by: Vec<String>,
    /// Tasks of one dispatch at most; 0: no limit of the channel's own.
    pub dispatch_tasks_max: usize,
    /// Pushing a task that was pushed before does not reach the member again.
    pub idempotent: bool,
    /// The consent that it needs (`sms`, `call`, `message`), if any.
    pub consent: Option<String>,
    /// How far it reaches: `files`, `loopback` or `network`.
    pub reach: Reach,
    /// Task columns that must not be null, such as `store`.
    pub needs: Vec<String>,
    /// Dispatches that may be pushed at the same time, each on an instance of its own; 0 and 1: one after
    /// the other. Of use where a push waits for the disk: see `reach` and `idempotent`.
    pub pushes_at_once: usize,
}

/// How far a component reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Files of this machine.
    Files,
    /// Addresses of this machine.
    Loopback,
    /// Anything else.
    #[default]
    Network,
}

/// The dispatch that a push is for: the control document beside the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchInfo {
    /// The dispatch.
    pub dispatch_id: String,
    /// The run that planned its tasks, as in paths.
    pub run: String,
    /// 1 for the run's first dispatch of this group, 2 for the next.
    pub ordinal: u32,
    /// The day of the run's clock in the config's timezone, `2026-03-25`.
    pub date: String,
}

/// A request of HTTP from outside, as it came. It may hold personal data and secrets, in every part.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `GET`, `POST` or another, as it came.
    pub method: String,
    /// What follows the channel's own address, percent-encoded as it came: empty, or beginning with `/`.
    pub path: String,
    /// What follows the `?`, percent-encoded as it came; empty where there is none.
    pub query: String,
    /// Names, in lower case, and values. A name may be there more than once; its values are in the order in which they
    /// came.
    pub headers: Vec<(String, String)>,
    /// The body's bytes, as they came. Not part of the document; it travels beside it.
    #[serde(skip)]
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first value of this name in the query, decoded: `%2B` is a plus, and a plus a space. `None` where there is
    /// none, or it is no text.
    pub fn query_value(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(known, _)| percent_decoded(known).as_deref() == Some(name.as_bytes())).map(|(_, value)| value);
        String::from_utf8(percent_decoded(values.next()?)?).ok()
    }
}

/// Without what it holds.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest").field("method", &self.method).field("body_bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// A part of a query, decoded; `None` where a percent sign begins no byte.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    Some(decoded)
}

/// What a channel answers to an [`HttpRequest`].
#[derive(Clone, PartialEq, Default)]
pub struct HttpAnswer {
    /// 200 to 599.
    pub status: u16,
    /// Names and values. Those that say how the body travels are the host's.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the request told of tasks, as [`crate::task::event_schema`] has it. Stored before the answer is sent.
    pub events: Option<RecordBatch>,
}

impl HttpAnswer {
    /// This status and nothing else.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body of this type, such as `text/plain`.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self.header("content-type", content_type) }
    }

    /// With events.
    #[must_use]
    pub fn events(mut self, events: RecordBatch) -> Self {
        self.events = Some(events);
        self
    }
}

/// Without what it holds.
impl fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events.as_ref().map_or(0, RecordBatch::num_rows);
        f.debug_struct("HttpAnswer").field("status", &self.status).field("events", &events).finish_non_exhaustive()
    }
}

/// The class of an error. It decides what happens to the component, never what happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum ErrorClass {
    /// The config is wrong; the operator must act.
    InvalidConfig = 1,
    /// Credentials or rights are missing; the operator must act.
    Unauthorized = 2,
    /// What was read or given makes no sense; trying again does not help until it changes.
    InvalidData = 3,
    /// Too many calls; tried again after the error's delay.
    RateLimited = 20,
    /// Cannot be reached now; tried again later.
    Unavailable = 21,
    /// Took too long; tried again later.
    Timeout = 22,
    /// The host asked to stop.
    Cancelled = 40,
    /// A defect of the plugin; the instance is not used again.
    Internal = 60,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::InvalidConfig,
        Self::Unauthorized,
        Self::InvalidData,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The status code at the boundary.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The class of a status code other than 0; a code that is not known is a defect of the plugin.
    pub fn from_code(code: i32) -> Self {
        Self::ALL.into_iter().find(|class| class.code() == code).unwrap_or(Self::Internal)
    }

    /// The words for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidConfig => "invalid config",
            Self::Unauthorized => "unauthorized",
            Self::InvalidData => "invalid data",
            Self::RateLimited => "rate limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without anyone's doing.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Timeout)
    }
}

/// An error of a plugin. No field holds personal data or a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginError {
    /// Decides what happens to the component.
    pub class: ErrorClass,
    /// One line: what was seen.
    pub message: String,
    /// What to do, if it is known.
    pub hint: Option<String>,
    /// The key of the `with` table to blame, dotted.
    pub key: Option<String>,
    /// The vendor's own code.
    pub vendor_code: Option<i32>,
    /// Not before this delay, where the class is transient.
    pub retry_after_ms: Option<u64>,
}

impl PluginError {
    /// An error of this class that says this.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, key: None, vendor_code: None, retry_after_ms: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the config key to blame.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With the vendor's own code.
    #[must_use]
    pub fn vendor_code(mut self, code: i32) -> Self {
        self.vendor_code = Some(code);
        self
    }

    /// With the delay before which trying again is of no use.
    #[must_use]
    pub fn retry_after_ms(mut self, delay_ms: u64) -> Self {
        self.retry_after_ms = Some(delay_ms);
        self
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.name(), self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for PluginError {}

/// Whether a text may be a URL with a password in it: between the user and the host, or as an option. A config
/// is read by more people than a secret, and an error shows its line.
pub fn holds_password(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
    let user = authority.and_then(|authority| authority.rsplit_once('@'));
    user.is_some_and(|(user, _)| user.contains(':')) || text.contains("password=")
}

/// The run of a call that is to panic. No run is called so. The SDK honours it in place of the author's code, so that
/// the conformance suite sees what becomes of a component that panics; to other plugins it is a run like any other.
pub const PANIC_RUN: &str = "verify:panic";

/// One thing that `check` has to say though nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How much it matters.
    pub level: FindingLevel,
    /// One line, no personal data.
    pub message: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// Good to know.
    Info,
    /// Works now and may not do what is meant.
    Warning,
}

impl Finding {
    /// Something that is good to know.
    pub fn info(message: impl Into<String>) -> Self {
        Self { level: FindingLevel::Info, message: message.into() }
    }

    /// Something that may not do what is meant.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { level: FindingLevel::Warning, message: message.into() }
    }
}

/// What `read` is asked for: the control document beside the resume state. A plugin passes over what a newer
/// host adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// `incremental` or `snapshot`.
    pub mode: ReadMode,
    /// True where the state is of a pull that did not reach its end marker and is to be gone on with
    /// if what was read is still the same; false where a new pull begins and the state is that of the
    /// last one that ended.
    pub resume: bool,
    /// Incremental, for a source whose cursor is a time: how many seconds before the last cursor the pull
    /// begins, so that rows committed late are not missed.
    #[serde(default)]
    pub overlap_secs: u64,
    /// The host has every row of the snapshot that `state` is of: where a source knows that nothing has changed
    /// since, it may say so by [`Item::Unchanged`] and send none of them.
    #[serde(default)]
    pub may_be_unchanged: bool,
}

impl ReadRequest {
    /// A read that begins anew, with nothing further asked.
    pub const fn new(mode: ReadMode) -> Self {
        Self { mode, resume: false, overlap_secs: 0, may_be_unchanged: false }
    }
}

/// How a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// What is new or changed; a row that is not there is still there at the source.
    Incremental,
    /// Everything; a row that is not there was deleted at the source.
    Snapshot,
}

/// One item of a stream, in the order in which it counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// First of all: whether the pull goes on from the state that was given, or begins anew.
    Begin {
        /// True: the rows up to the given state still count.
        resumed: bool,
    },
    /// Rows, in the source's own columns and types.
    Batch(RecordBatch),
    /// Rows that could not be read, as [`rejected_schema`] has them.
    Rejected(RecordBatch),
    /// A resume state that covers exactly the items before it. Opaque to the host.
    State(serde_json::Value),
    /// Last of all: the pull is complete.
    End {
        /// When the data was true: a file's time, the start of a query. Null where not known.
        as_of_us: Option<i64>,
    },
    /// The second and last: everything is as it was when the pull ended that the given state is of. Only where
    /// [`ReadRequest::may_be_unchanged`] was asked.
    Unchanged {
        /// As in [`Item::End`].
        as_of_us: Option<i64>,
    },
}

/// The columns of rows that could not be read: `location` (`pos.csv:17`), `reason` (the code of a
/// [`crate::Reason`]), `detail` (one line for people, without personal data).
pub fn rejected_schema() -> arrow::datatypes::SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    std::sync::Arc::new(Schema::new(vec![
        Field::new("location", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, true),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_told() {
        for url in ["postgres://reader:x@erp/pos", "mysql://erp/pos?password=x", "https://a:b@[::1]:80/c?d", "x://a:@b"] {
            assert!(holds_password(url), "{url}");
        }
        for url in ["postgres://reader@erp:5432/pos", "sqlite:///a:b@c.db", "mysql://erp/pos?a=b:c@d", "select ':' || '@'"] {
            assert!(!holds_password(url), "{url}");
        }
    }

    #[test]
    fn classes_survive_their_codes() {
        for class in ErrorClass::ALL {
            assert_eq!(ErrorClass::from_code(class.code()), class);
        }
        assert_eq!(ErrorClass::from_code(-7), ErrorClass::Internal);
    }

    #[test]
    fn a_query_is_decoded() {
        let request = HttpRequest {
            query: "msg_signature=5c&echostr=P9n%2Bqx%3D%3D&name=a+b&name=c&flag&bad=%2&odd=%ff".into(),
            ..HttpRequest::default()
        };
        let value = |name: &str| request.query_value(name);
        assert_eq!(value("echostr").as_deref(), Some("P9n+qx=="));
        assert_eq!((value("name").as_deref(), value("flag").as_deref()), (Some("a b"), Some("")));
        assert_eq!((value("bad"), value("odd"), value("nonce")), (None, None, None));
    }

    #[test]
    fn a_request_shows_nothing_of_what_it_holds() {
        let secret = || "13900001201".to_owned();
        let headers = vec![("authorization".to_owned(), secret())];
        let request =
            HttpRequest { method: "POST".into(), path: secret(), query: secret(), headers: headers.clone(), body: secret().into() };
        let answer = HttpAnswer { headers, body: secret().into(), ..HttpAnswer::status(200) };
        assert_eq!(
            format!("{request:?} {answer:?}"),
            r#"HttpRequest { method: "POST", body_bytes: 11, .. } HttpAnswer { status: 200, events: 0, .. }"#
        );
        assert_eq!(request.header("authorization"), Some("13900001201"));
    }

    #[test]
    fn hosts_of_the_first_version_know_every_key_of_a_manifest_without_callbacks() {
        let keys = |capabilities: &Capabilities| serde_json::to_value(capabilities).expect("plain types").get("callback").cloned();
        assert_eq!((keys(&Capabilities::default()), Capabilities::default().minor_needed()), (None, 0));
        let callback = Capabilities { callback: true, ..Capabilities::default() };
        assert_eq!((keys(&callback), callback.minor_needed()), (Some(true.into()), 1));
    }

    #[test]
    fn a_manifest_with_an_unknown_key_is_refused() {
        let text = r#"{"name":"x","version":"1.0.0","abi":[1,0],"kind":"source","summary":"s","config_schema":{},"extra":1}"#;
        let error = serde_json::from_str::<Manifest>(text).expect_err("an unknown key");
        assert!(error.to_string().contains("extra"), "{error}");
    }
}
