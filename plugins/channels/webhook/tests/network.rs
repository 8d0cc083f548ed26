//! The way to the receiver: certificates and proxies.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::Arc;

use base64::Engine;
use common::receiver::{Reply, Server};
use common::{channel, push, verdicts};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reunion_sdk::Call;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio_rustls::TlsAcceptor;

/// An authority's certificate as PEM, and what shows one for `localhost` that it signed.
fn authority() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[test]
fn only_a_known_authority_is_trusted() {
    let (pem, acceptor) = authority();
    let server = Server::start_tls(acceptor, |_| Reply::status(200));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    fs::write(&path, pem).unwrap();
    let (receipts, error) = push(&channel(&server.url(), json!({"tls_ca": path})), &Call::for_tests(), 10);
    assert_eq!((verdicts(&receipts), error), (vec![("accepted".into(), 10)], None));

    let stranger = channel(&server.url(), json!({"retry_window_secs": 0}));
    let (receipts, error) = push(&stranger, &Call::for_tests(), 10);
    assert_eq!(verdicts(&receipts), [("busy".into(), 10)], "nothing was sent");
    assert!(error.unwrap().message.contains("UnknownIssuer"));
}

#[test]
fn requests_go_through_the_proxy_that_the_config_names() {
    let proxy = Server::start(|request| {
        let who = base64::engine::general_purpose::STANDARD.encode("reunion:hunter2");
        let known = request.header("proxy-authorization") == format!("Basic {who}");
        let status = if request.uri != "http://crm.invalid/hook" {
            400
        } else if known {
            200
        } else {
            407
        };
        Reply::status(status)
    });
    let address = proxy.url().replace("http://", "http://reunion@").replace("/hook", "");
    let keys = json!({"plain_http": true, "proxy": address, "proxy_password": "hunter2"});
    let (receipts, error) = push(&channel("http://crm.invalid/hook", keys), &Call::for_tests(), 10);
    assert_eq!((verdicts(&receipts), error), (vec![("accepted".into(), 10)], None));
    let (receipts, error) =
        push(&channel("http://crm.invalid/hook", json!({"plain_http": true, "proxy": address})), &Call::for_tests(), 10);
    assert_eq!(verdicts(&receipts), [("busy".into(), 10)]);
    assert_eq!(error.unwrap().key.as_deref(), Some("proxy_password"));
}
