//! The way to the receiver: one request, with a limit on everything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reunion_sdk::{Authority, ErrorClass, PluginError};
use rustls::{ClientConfig, RootCertStore};

use crate::answer::Answer;
use crate::config::Checked;

/// Bytes of an answer. One receipt for each of a thousand tasks takes far less.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The longest wait that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// A connection that was idle for longer is not used again: servers close them about then, and a request that
/// crosses a close has an uncertain fate.
const IDLE_MAX: Duration = Duration::from_secs(10);

const HTTP_DATE: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// A client of one receiver.
pub struct Client {
    http: reqwest::Client,
    config: Arc<Checked>,
}

/// Why there is no answer. The text holds no URL, which may hold a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection was made, so nothing was sent.
    NotReached(String),
    /// The request went out, and its answer did not come or could not be read.
    Uncertain(String),
}

impl Client {
    /// Reads the authority's certificate and makes the client. No connection yet.
    ///
    /// # Errors
    /// Invalid config, where a certificate cannot be read.
    pub fn new(config: Arc<Checked>) -> Result<Self, PluginError> {
        let failed = |error: &dyn std::fmt::Display| PluginError::new(ErrorClass::InvalidConfig, format!("no client can be made: {error}"));
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("reunion/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .timeout(config.timeout)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(config.concurrency_max)
            // A redirect would take phone numbers to where the operator never sent them.
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tls_backend_preconfigured(tls(config.tls_ca.as_deref())?);
        if let Some(proxy) = &config.proxy {
            let mut made = reqwest::Proxy::all(proxy.url.clone()).map_err(|error| failed(&error.without_url()).key("proxy"))?;
            if let Some(password) = &proxy.password {
                made = made.basic_auth(proxy.url.username(), password.reveal());
            }
            http = http.proxy(made);
        }
        let http = http.build().map_err(|error| failed(&error.without_url()))?;
        Ok(Self { http, config })
    }

    /// Posts a body under this id.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn post(&self, id: &str, body: Vec<u8>) -> Result<Answer, NoAnswer> {
        let request = self.http.post(self.config.url.clone()).headers(self.headers(id, &body)).body(body);
        let mut response = request.send().await.map_err(|error| no_answer(&error.without_url()))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(NoAnswer::Uncertain(format!("the answer has more than {} MiB", ANSWER_BYTES_MAX >> 20))),
                Ok(None) => return Ok(Answer { status, retry_after, body }),
                Err(error) => return Err(no_answer(&error.without_url())),
            }
        }
    }

    fn headers(&self, id: &str, body: &[u8]) -> HeaderMap {
        let at_secs = jiff::Timestamp::now().as_second();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut set = |name: &'static str, value: &str| {
            headers.insert(name, HeaderValue::from_str(value).expect("ids, digits and base64 can stand in a header"));
        };
        set("webhook-id", id);
        set("webhook-timestamp", &at_secs.to_string());
        set("idempotency-key", id);
        if let Some(signer) = &self.config.signer {
            set("webhook-signature", &signer.sign(id, at_secs, body));
        }
        if let Some(mut value) = self.config.authorization.as_ref().and_then(|value| HeaderValue::from_str(value.reveal()).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }
}

/// Trusts the authorities of the system, or the one that the config names.
fn tls(ca: Option<&Path>) -> Result<ClientConfig, PluginError> {
    let roots = ca.map_or_else(|| Ok(of_the_system()), |path| Authority::read(path, "tls_ca").map(|authority| authority.roots))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What the system has and cannot be read is not trusted; the handshake says what is missing.
fn of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// What is known of a request that has no answer.
fn no_answer(error: &reqwest::Error) -> NoAnswer {
    let cause = innermost(error);
    if error.is_connect() {
        NoAnswer::NotReached(format!("no connection: {cause}"))
    } else if error.is_timeout() {
        NoAnswer::Uncertain("no answer in time".into())
    } else {
        NoAnswer::Uncertain(format!("the connection broke: {cause}"))
    }
}

/// The error at the end of the chain: the others only say what was tried.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The header `Retry-After`: seconds, or a date of HTTP.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match value.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            let at = HTTP_DATE.parse_timestamp(value).ok()?;
            Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    Some(delay.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_wait_is_read_in_both_forms_and_bounded() {
        let read = |value: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).expect("a header"))]));
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it has passed");
        assert_eq!(read("999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(read("Fri, 31 Dec 9998 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!((read("soon"), read("-5"), retry_after(&HeaderMap::new())), (None, None, None));
    }

    #[test]
    fn a_certificate_that_is_none_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let missing = tls(Some(&dir.path().join("ca.pem"))).expect_err("no file");
        assert!(missing.message.contains("there is no such file"), "{missing}");
        let path = dir.path().join("empty.pem");
        fs::write(&path, "no certificate").expect("written");
        let error = tls(Some(&path)).expect_err("no certificate");
        assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("tls_ca")));
    }
}
