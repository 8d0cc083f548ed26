//! A receiver of webhooks that answers as it is told, or not at all.
#![allow(clippy::unwrap_used, dead_code)]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A request that arrived whole.
pub struct Request {
    pub method: String,
    /// The path, or the whole address where the receiver is a proxy.
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The ids of its tasks.
    pub fn task_ids(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["data"]["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// What the receiver does.
pub enum Reply {
    /// A status, with headers and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// It closes the connection.
    Close,
    /// It never answers.
    Hang,
}

impl Reply {
    /// A status alone.
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), String::new())
    }
}

/// A receiver that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Server {
    /// On a free port of this machine.
    pub fn start(reply: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0", None, reply)
    }

    /// With a certificate.
    pub fn start_tls(acceptor: TlsAcceptor, reply: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0", Some(acceptor), reply)
    }

    /// On this address.
    pub fn listen(address: &str, tls: Option<TlsAcceptor>, reply: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let (address, scheme) = (listener.local_addr().unwrap(), if tls.is_some() { "https" } else { "http" });
        runtime.spawn(accept(listener, tls, Arc::new(reply)));
        Self { address, scheme, runtime: Some(runtime) }
    }

    /// Its address, `https://localhost:…/hook` with a certificate.
    pub fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}/hook", self.scheme, self.address.port())
    }
}

async fn accept<R: Fn(Request) -> Reply + Send + Sync + 'static>(listener: TcpListener, tls: Option<TlsAcceptor>, reply: Arc<R>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let (tls, reply) = (tls.clone(), Arc::clone(&reply));
        tokio::spawn(async move {
            match tls {
                None => serve(stream, reply).await,
                // A client that does not trust the certificate goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, reply).await;
                    }
                }
            }
        });
    }
}

async fn serve<R: Fn(Request) -> Reply>(stream: impl AsyncRead + AsyncWrite + Unpin + Send, reply: Arc<R>) {
    let service = service_fn(|request: hyper::Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        match reply(Request { method: head.method.to_string(), uri: head.uri.to_string(), headers: head.headers, body }) {
            Reply::Answer(status, headers, body) => {
                let answer =
                    headers.iter().fold(hyper::Response::builder().status(status), |answer, (name, value)| answer.header(*name, value));
                Ok(answer.body(Full::<Bytes>::from(body).map_err(|never: Infallible| match never {})).unwrap())
            }
            Reply::Close => Err(io::Error::other("told to close")),
            Reply::Hang => std::future::pending().await,
        }
    });
    // An error is a connection that was told to close, or a client that went away.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}
