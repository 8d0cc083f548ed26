//! Requests from outside, over HTTP: what platforms and programs report to channels, and whether the daemon is ready.
//!
//! | path | answers |
//! |---|---|
//! | `/callback/<channel>` and below | the channel's plugin, after what the request told was stored: see [`callbacks`] |
//! | `/health` | 200 where the daemon is ready, and 503 where it is not |
//!
//! Everything about a request is bounded: its head, its body, how long each may take to arrive, how long an answer may
//! take, and how many there are at the same time. It is HTTP/1.1 without TLS; a reverse proxy stands before it. What a
//! request holds is never logged: not its path and query either, which may hold secrets.

mod callbacks;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reunion_ledger::Ledger;
use reunion_model::limits::{CALLBACK_BODY_BYTES_MAX, CALLBACK_HEAD_BYTES_MAX, CALLBACK_HEADERS_MAX};
use reunion_model::plugin::HttpRequest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::failure::{Doing, Failure};
use crate::state::State;

use callbacks::Callbacks;

/// Connections at the same time, each with one request. More wait until one ends.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, and a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long the body of a request may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A connection gets no further request after this time, so that nobody has one for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// How long the other side may take to read its answer, once nothing else is wanted of a connection.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a connection that are held in memory: a head, and a part of a body.
const BUFFER_BYTES: usize = 2 * CALLBACK_HEAD_BYTES_MAX;
/// How long the ledger may take to say that it is there.
const HEALTH_WITHIN: Duration = Duration::from_secs(1);
/// How long to wait where the system takes no connection, such as for want of files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// When a sender is asked to try again, where nothing else is known.
const RETRY_AFTER_SECS: u64 = 2;
/// The longest such wait.
const RETRY_AFTER_SECS_MAX: u64 = 3600;

type Answer = Response<Full<Bytes>>;

/// The server, as long as it runs.
pub struct Server {
    address: SocketAddr,
    runtime: Handle,
    closing: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Outlives all connections: its end waits for workers, which is nothing for a thread of the runtime.
    site: Arc<Site>,
}

/// What all connections have in common.
struct Site {
    callbacks: Callbacks,
    ledger: Ledger,
    answer_within: Duration,
    /// Whether the daemon is asked to end.
    is_stopping: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Server {
    /// Listens at this address. `is_stopping` says whether the daemon is asked to end: it is not ready then.
    ///
    /// # Errors
    /// What is wrong with the config, or where the address cannot be had.
    pub fn start(
        app: &App,
        state: &State,
        address: SocketAddr,
        is_stopping: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let callbacks = Callbacks::new(app, state)?;
        let listener = app.runtime.block_on(TcpListener::bind(address)).doing(|| format!("nothing can listen at {address}"));
        let listener = listener.map_err(|failure| failure.help("another program may; choose a free port with [http] listen"))?;
        let address = listener.local_addr().doing(|| format!("nothing can listen at {address}"))?;
        tracing::info!(%address, channels = callbacks.names(), "taking requests from outside");
        let site = Arc::new(Site {
            callbacks,
            ledger: state.ledger.clone(),
            answer_within: Duration::from_secs(app.config.http.answer_secs_max),
            is_stopping: Box::new(is_stopping),
        });
        let (closing, closed) = watch::channel(false);
        let serving = app.runtime.spawn(accept(listener, Arc::clone(&site), closed));
        Ok(Self { address, runtime: app.runtime.clone(), closing, serving, site })
    }

    /// Takes no further request, and ends when those under way have their answers.
    pub fn stop(self) {
        self.closing.send_replace(true);
        if let Err(error) = self.runtime.block_on(self.serving) {
            tracing::error!(address = %self.address, "the server of requests from outside broke off: {error}");
        }
        drop(self.site);
    }
}

/// Takes connections until it is told that it is enough, and then waits for those that there are.
async fn accept(listener: TcpListener, site: Arc<Site>, mut closing: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => {
                let (site, closing) = (Arc::clone(&site), closing.clone());
                tokio::spawn(async move {
                    serve(stream, site, closing).await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                tracing::debug!("a connection cannot be taken: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    // All of them are free when the last connection has ended, each of which has its limits.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    drop(connections.acquire_many(all).await);
}

/// Answers the requests of a connection, one after the other.
async fn serve(stream: TcpStream, site: Arc<Site>, mut closing: watch::Receiver<bool>) {
    // Answers are small: they wait for nothing to be sent with.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(BUFFER_BYTES);
    http.max_headers(CALLBACK_HEADERS_MAX).max_header_size(CALLBACK_HEAD_BYTES_MAX);
    let whole_request = HEAD_WITHIN + BODY_WITHIN + site.answer_within + READ_WITHIN;
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // An error is a client that went away, or that sent what is no HTTP and was told so.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => {}
        () = sleep(CONNECTION_AGE_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(whole_request, connection).await;
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    /// The name of a channel, and what follows it.
    Callback(&'a str, &'a str),
    Nowhere,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        if path == "/health" {
            return Self::Health;
        }
        match path.strip_prefix("/callback/") {
            Some(below) => {
                let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
                Self::Callback(name, rest)
            }
            None => Self::Nowhere,
        }
    }
}

impl Site {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        match Route::of(head.uri.path()) {
            Route::Health => self.health(&head.method).await,
            Route::Callback(name, rest) => {
                // A channel that takes no requests is not told from one that there is not.
                let Some(endpoint) = self.callbacks.endpoint(name) else { return nothing_here() };
                let Some(headers) = pairs(&head.headers) else { return said(StatusCode::BAD_REQUEST, "a header is no text") };
                let body = match collected(body).await {
                    Ok(body) => body,
                    Err(refused) => return refused,
                };
                let request = HttpRequest {
                    method: head.method.as_str().to_owned(),
                    path: rest.to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    headers,
                    body,
                };
                endpoint.answer(request, self.answer_within).await
            }
            Route::Nowhere => nothing_here(),
        }
    }

    /// Whether the daemon can do its work, and nothing else of it.
    async fn health(&self, method: &Method) -> Answer {
        if *method != Method::GET && *method != Method::HEAD {
            return with(said(StatusCode::METHOD_NOT_ALLOWED, "GET"), ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let why = if (self.is_stopping)() {
            Some("stopping")
        } else {
            match timeout(HEALTH_WITHIN, self.ledger.health()).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some("the ledger does not answer"),
            }
        };
        let (status, body) = match why {
            None => (StatusCode::OK, serde_json::json!({ "ready": true })),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "ready": false, "why": why })),
        };
        with(answer(status, format!("{body}\n").into()), CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }
}

/// The headers as plugins are given them; `None` where one is no text.
fn pairs(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = std::str::from_utf8(value.as_bytes()).ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    headers.iter().map(pair).collect()
}

/// The body, or the answer where it cannot be had.
async fn collected(body: Incoming) -> Result<Vec<u8>, Answer> {
    let too_large = || said(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    if body.size_hint().lower() > CALLBACK_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match timeout(BODY_WITHIN, Limited::new(body, CALLBACK_BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(said(StatusCode::BAD_REQUEST, "the body is not whole")),
        Err(_) => Err(with(said(StatusCode::REQUEST_TIMEOUT, "the body took too long"), CONNECTION, HeaderValue::from_static("close"))),
    }
}

/// An answer of ours.
fn answer(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

/// A line for whoever looks at what the sender was told.
fn said(status: StatusCode, text: &str) -> Answer {
    with(answer(status, format!("{text}\n").into()), CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn nothing_here() -> Answer {
    said(StatusCode::NOT_FOUND, "there is nothing here")
}

/// The answer where none can be given now, after which the sender tries again.
fn not_now(after_ms: Option<u64>) -> Answer {
    let after_secs = after_ms.map_or(RETRY_AFTER_SECS, |ms| ms.div_ceil(1000)).clamp(1, RETRY_AFTER_SECS_MAX);
    with(said(StatusCode::SERVICE_UNAVAILABLE, "not now; try again"), RETRY_AFTER, HeaderValue::from(after_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_channels_and_what_follows_stays_as_it_came() {
        for (path, route) in [
            ("/health", Route::Health),
            ("/callback/crm", Route::Callback("crm", "")),
            ("/callback/crm/", Route::Callback("crm", "/")),
            ("/callback/crm/a/%2e%2e/b", Route::Callback("crm", "/a/%2e%2e/b")),
            ("/callback//crm", Route::Callback("", "/crm")),
            ("/callback/", Route::Callback("", "")),
            ("/callback", Route::Nowhere),
            ("/callbacks/crm", Route::Nowhere),
            ("/health/", Route::Nowhere),
            ("/", Route::Nowhere),
            ("*", Route::Nowhere),
            ("", Route::Nowhere),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn who_is_turned_away_is_told_when_to_come_back() {
        let after = |ms: Option<u64>| not_now(ms).headers()[RETRY_AFTER].to_str().expect("a number").to_owned();
        assert_eq!([None, Some(1), Some(1_001), Some(u64::MAX), Some(0)].map(after), ["2", "1", "2", "3600", "1"]);
    }

    #[test]
    fn headers_are_text_or_nothing() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_bytes("王".as_bytes()).expect("a value"));
        let pair = |value: &str| ("x-a".to_owned(), value.to_owned());
        assert_eq!(pairs(&headers), Some(vec![pair("1"), pair("王")]));
        headers.append("x-b", HeaderValue::from_bytes(b"\xff").expect("a value"));
        assert_eq!(pairs(&headers), None);
    }
}
