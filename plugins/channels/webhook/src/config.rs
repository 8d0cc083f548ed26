//! The `with` table.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reunion_sdk::{ErrorClass, PluginError, Reach, Secret, holds_password};
use serde::Deserialize;
use serde_json::json;

use crate::signature::{self, Signer};

/// The `with` table of a channel with `plugin = "webhook"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the tasks are posted.
    pub url: String,
    /// What requests are signed with: `whsec_` and 24 to 64 bytes in base64.
    #[serde(default)]
    pub signing_secret: Option<Secret>,
    /// The header `Authorization`.
    #[serde(default)]
    pub authorization: Option<Secret>,
    /// The receiver takes no task twice.
    #[serde(default)]
    pub idempotent: bool,
    /// An answer that has no receipts is none.
    #[serde(default)]
    pub receipts_required: bool,
    /// The consent that members must have given: `sms`, `call` or `message`.
    #[serde(default)]
    pub consent: Option<String>,
    /// Tasks of one request.
    #[serde(default = "default_batch_tasks_max")]
    pub batch_tasks_max: usize,
    /// Requests at the same time.
    #[serde(default = "default_concurrency_max")]
    pub concurrency_max: usize,
    /// Requests of one minute.
    #[serde(default)]
    pub requests_per_minute_max: Option<NonZeroU32>,
    /// Requests that may follow each other at once, after a pause.
    #[serde(default = "default_requests_burst_max")]
    pub requests_burst_max: NonZeroU32,
    /// How long a connection may take to be made.
    #[serde(default = "default_connect_timeout_secs")]
    pub connect_timeout_secs: u64,
    /// How long a request may take, connection and answer included.
    #[serde(default = "default_timeout_secs")]
    pub timeout_secs: u64,
    /// For how long one request is tried before its tasks are put off.
    #[serde(default = "default_retry_window_secs")]
    pub retry_window_secs: u64,
    /// The authority that signed the receiver's certificate, as PEM; by default those of the system.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Phone numbers may cross a network in the clear.
    #[serde(default)]
    pub plain_http: bool,
    /// The proxy that requests go through.
    #[serde(default)]
    pub proxy: Option<String>,
    /// The password of the user in `proxy`.
    #[serde(default)]
    pub proxy_password: Option<Secret>,
}

const BATCH_TASKS_MAX: usize = 1_000;
const CONCURRENCY_MAX: usize = 32;
const DAY_SECS: u64 = 86_400;

fn default_batch_tasks_max() -> usize {
    100
}

fn default_concurrency_max() -> usize {
    4
}

fn default_requests_burst_max() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn default_connect_timeout_secs() -> u64 {
    5
}

fn default_timeout_secs() -> u64 {
    15
}

fn default_retry_window_secs() -> u64 {
    30
}

/// A config whose values make sense, in the form in which they are used.
pub struct Checked {
    pub url: Url,
    pub signer: Option<Signer>,
    pub authorization: Option<Secret>,
    pub idempotent: bool,
    pub receipts_required: bool,
    pub consent: Option<String>,
    pub batch_tasks_max: usize,
    pub concurrency_max: usize,
    /// A minute's and a burst's.
    pub requests_max: Option<(NonZeroU32, NonZeroU32)>,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub retry_window: Duration,
    pub tls_ca: Option<PathBuf>,
    pub proxy: Option<Proxy>,
}

/// A proxy, and who Reunion is there.
pub struct Proxy {
    pub url: Url,
    pub password: Option<Secret>,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

fn wrong(key: &str, message: impl Into<String>, hint: impl Into<String>) -> PluginError {
    PluginError::new(ErrorClass::InvalidConfig, message).key(key).hint(hint)
}

impl Config {
    /// The JSON Schema of the table.
    pub fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "required": ["url"],
            "additionalProperties": false,
            "properties": {
                "url": {"type": "string", "minLength": 1, "description": "Where the tasks are posted, https://…. Without a password."},
                "signing_secret": Secret::schema("Where the secret is that requests are signed with, both ways: whsec_ and 24 to 64 bytes in base64, as Standard Webhooks has it. Without it no reports are taken at /callback/<channel>."),
                "authorization": Secret::schema("Where the value of the header Authorization is, such as `Bearer …`."),
                "idempotent": {"type": "boolean", "default": false, "description": "The receiver remembers the task ids that it has taken and takes none twice. Only then is a task sent again whose fate is not known."},
                "receipts_required": {"type": "boolean", "default": false, "description": "An answer without receipts says nothing. By default a 2xx answer without receipts says that all tasks were taken."},
                "consent": {"type": "string", "enum": ["sms", "call", "message"], "description": "The consent that members must have given, where the receiver contacts them itself."},
                "batch_tasks_max": {"type": "integer", "minimum": 1, "maximum": BATCH_TASKS_MAX, "default": default_batch_tasks_max(), "description": "Tasks of one request."},
                "concurrency_max": {"type": "integer", "minimum": 1, "maximum": CONCURRENCY_MAX, "default": default_concurrency_max(), "description": "Requests at the same time."},
                "requests_per_minute_max": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "description": "Requests of one minute, evenly spread. Without it there is no limit. per_day_max of the channel limits the tasks of a day."},
                "requests_burst_max": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": default_requests_burst_max(), "description": "Of these, requests that may follow each other at once after a pause."},
                "connect_timeout_secs": {"type": "integer", "minimum": 1, "maximum": 60, "default": default_connect_timeout_secs(), "description": "How long a connection may take to be made."},
                "timeout_secs": {"type": "integer", "minimum": 2, "maximum": 300, "default": default_timeout_secs(), "description": "How long a request may take, with its connection and answer. Whether its tasks were taken is not known afterwards."},
                "retry_window_secs": {"type": "integer", "minimum": 0, "maximum": 600, "default": default_retry_window_secs(), "description": "For how long a request is tried again and again. Then its tasks are put off."},
                "tls_ca": {"type": "string", "format": "path", "minLength": 1, "description": "The authority that signed the receiver's certificate, a PEM file. By default those of the system."},
                "plain_http": {"type": "boolean", "default": false, "description": "Allows http:// to another machine, on which phone numbers can be read on the way."},
                "proxy": {"type": "string", "minLength": 1, "description": "The proxy that requests go through, http://user@host:port. Variables of the environment are not looked at."},
                "proxy_password": Secret::schema("Where the password of the user in proxy is.")
            }
        })
    }

    /// The config in the form in which it is used.
    ///
    /// # Errors
    /// Invalid config, with the key to blame. Never repeats a URL, which may hold a key.
    pub fn check(self) -> Result<Checked, PluginError> {
        let url = address("url", &self.url, "https://erp.example/reunion")?;
        if url.scheme() == "http" && !self.plain_http && !is_loopback(&url) {
            let hint = "write https://, or set plain_http = true where the network is your own";
            return Err(wrong("url", "`url` would send phone numbers to another machine in the clear", hint));
        }
        let proxy = match &self.proxy {
            Some(proxy) => Some(Proxy { url: address("proxy", proxy, "http://proxy.example:3128")?, password: self.proxy_password }),
            None if self.proxy_password.is_some() => return Err(wrong("proxy_password", "there is no `proxy`", "set `proxy` too")),
            None => None,
        };
        if self.connect_timeout_secs >= self.timeout_secs {
            let message =
                format!("connect_timeout_secs is {}, not less than timeout_secs ({})", self.connect_timeout_secs, self.timeout_secs);
            return Err(wrong("connect_timeout_secs", message, "a request is more than its connection: raise timeout_secs"));
        }
        let signer = self.signing_secret.map(|secret| Signer::new(secret.reveal())).transpose().map_err(|message| {
            let hint = format!("`echo {}$(openssl rand -base64 32)` makes one", signature::PREFIX);
            wrong("signing_secret", message, hint)
        })?;
        let authorization = self.authorization;
        if authorization.as_ref().is_some_and(|value| value.reveal().parse::<reqwest::header::HeaderValue>().is_err()) {
            return Err(wrong("authorization", "the secret is not the value of a header", "it is one line of printable characters"));
        }
        Ok(Checked {
            url,
            signer,
            authorization,
            idempotent: self.idempotent,
            receipts_required: self.receipts_required,
            consent: self.consent,
            batch_tasks_max: self.batch_tasks_max.clamp(1, BATCH_TASKS_MAX),
            concurrency_max: self.concurrency_max.clamp(1, CONCURRENCY_MAX),
            requests_max: self.requests_per_minute_max.map(|per_minute| (per_minute, self.requests_burst_max)),
            connect_timeout: Duration::from_secs(self.connect_timeout_secs),
            timeout: Duration::from_secs(self.timeout_secs.min(DAY_SECS)),
            retry_window: Duration::from_secs(self.retry_window_secs),
            tls_ca: self.tls_ca,
            proxy,
        })
    }
}

impl Checked {
    /// How far the channel reaches.
    pub fn reach(&self) -> Reach {
        if self.proxy.is_none() && is_loopback(&self.url) { Reach::Loopback } else { Reach::Network }
    }

    /// The receiver, in words that may be shown: its path and query may hold a key.
    pub fn receiver(&self) -> &str {
        self.url.host_str().unwrap_or("the receiver")
    }
}

fn address(key: &str, text: &str, example: &str) -> Result<Url, PluginError> {
    if holds_password(text) {
        return Err(wrong(key, format!("`{key}` holds a password, and whoever reads the config would read it"), "take it out of the URL"));
    }
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| wrong(key, format!("`{key}` is no address of http:// or https://"), format!("write {example}")))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: serde_json::Value) -> Config {
        let mut table = json!({"url": "https://erp.example/reunion"});
        table.as_object_mut().expect("a table").extend(entries.as_object().expect("a table").clone());
        serde_json::from_value(table).expect("a config")
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_key() {
        let cases = [
            (json!({"url": "erp.example"}), "url"),
            (json!({"url": "ftp://erp.example"}), "url"),
            (json!({"url": "https://me:hunter2@erp.example"}), "url"),
            (json!({"url": "http://erp.example/x"}), "url"),
            (json!({"url": "http://10.1.2.3/x"}), "url"),
            (json!({"proxy": "proxy.example"}), "proxy"),
            (json!({"proxy": "http://me:hunter2@proxy.example"}), "proxy"),
            (json!({"proxy_password": "hunter2"}), "proxy_password"),
            (json!({"connect_timeout_secs": 9, "timeout_secs": 9}), "connect_timeout_secs"),
            (json!({"signing_secret": "hunter2"}), "signing_secret"),
            (json!({"authorization": "Bearer\nhunter2"}), "authorization"),
        ];
        for (entries, key) in cases {
            let error = config(entries.clone()).check().expect_err("refused");
            assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some(key)), "{entries}");
            assert!(error.hint.is_some() && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_near() {
        for (entries, reach) in [
            (json!({"url": "http://127.0.0.1:8080/x"}), Reach::Loopback),
            (json!({"url": "http://[::1]/x"}), Reach::Loopback),
            (json!({"url": "https://localhost/x"}), Reach::Loopback),
            (json!({"url": "http://localhost/x", "proxy": "http://proxy.example"}), Reach::Network),
            (json!({"url": "http://localhost.example/x", "plain_http": true}), Reach::Network),
            (json!({}), Reach::Network),
        ] {
            assert_eq!(config(entries.clone()).check().map(|checked| checked.reach()), Ok(reach), "{entries}");
        }
    }

    #[test]
    fn the_sample_can_be_used_as_it_is() {
        let sample: toml::Table = toml::from_str(include_str!("../sample.toml")).expect("a table");
        let with = sample["channels"]["crm"]["with"].clone();
        let config = with.as_table().expect("a table").iter().filter(|(key, _)| *key != "signing_secret");
        let config: Config = config.map(|(key, value)| (key.clone(), value.clone())).collect::<toml::Table>().try_into().expect("a config");
        assert_eq!(config.check().map(|checked| checked.reach()), Ok(Reach::Network));
    }
}
