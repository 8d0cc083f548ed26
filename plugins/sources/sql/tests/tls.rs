//! How connections are encrypted: servers with and without TLS, and what each `tls.mode` makes of them.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(dead_code, unused_imports, reason = "other tests need more of it")]
mod common;

use std::fs;
use std::path::Path;

use common::database::postgres::private::{self, Port};
use common::database::{mariadb, postgres};
use common::snapshot;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reunion_sdk::{ErrorClass, PluginError, Source};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

/// The password of the user `reader`.
const PASSWORD: &str = "hunter2";
/// The name that the servers' certificates have; `127.0.0.1` is another for the same.
const NAME: &str = "localhost";

/// A server: whether it has TLS.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Clear,
    Encrypted,
}

/// How a session is to come about, or what error is to say, as key and a part of the message.
enum Then {
    Clear,
    Encrypted,
    Refused(&'static str, &'static str),
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Ports without and with TLS, and a folder with `right.pem`, the authority of the latter, and what is none.
fn ports() -> (tempfile::TempDir, [Port; 2]) {
    let (right, wrong) = (authority("right"), authority("wrong"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &right).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("right.pem"), right.pem()).unwrap();
    fs::write(folder.path().join("wrong.pem"), wrong.pem()).unwrap();
    fs::write(folder.path().join("text.pem"), "no certificate").unwrap();
    fs::write(folder.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    fs::create_dir(folder.path().join("folder.pem")).unwrap();
    (folder, [Port::free(None), Port::free(Some([certificate.pem(), key.serialize_pem()]))])
}

/// What each mode comes to. `url` gives that of a server, by a host; `query` says the version of TLS, or nothing.
fn each_mode_holds(cas: &Path, url: impl Fn(At, &str) -> String, query: &str) {
    use At::{Clear, Encrypted};
    let name = NAME;
    let cases = [
        ("off", None, Clear, name, Then::Clear),
        ("off", None, Encrypted, name, Then::Clear),
        ("prefer", None, Clear, name, Then::Clear),
        ("prefer", None, Encrypted, "127.0.0.1", Then::Encrypted),
        ("require", None, Clear, name, Then::Refused("tls.mode", "server does not support TLS")),
        ("require", None, Encrypted, "127.0.0.1", Then::Encrypted),
        ("verify-ca", Some("right"), Clear, name, Then::Refused("tls.mode", "server does not support TLS")),
        ("verify-ca", Some("right"), Encrypted, name, Then::Encrypted),
        ("verify-ca", Some("right"), Encrypted, "127.0.0.1", Then::Encrypted),
        ("verify-ca", Some("wrong"), Encrypted, name, Then::Refused("tls.ca", "UnknownIssuer")),
        ("verify-ca", None, Encrypted, name, Then::Refused("tls.ca", "UnknownIssuer")),
        ("verify-full", Some("right"), Clear, name, Then::Refused("tls.mode", "server does not support TLS")),
        ("verify-full", Some("right"), Encrypted, name, Then::Encrypted),
        ("verify-full", Some("right"), Encrypted, "127.0.0.1", Then::Refused("tls.mode", "not valid for name \"127.0.0.1\"")),
        ("verify-full", Some("wrong"), Encrypted, name, Then::Refused("tls.ca", "UnknownIssuer")),
        ("verify-full", None, Encrypted, name, Then::Refused("tls.ca", "UnknownIssuer")),
        ("verify-full", Some("missing"), Encrypted, name, Then::Refused("tls.ca", "missing.pem cannot be used: there is no such file")),
        ("verify-full", Some("folder"), Encrypted, name, Then::Refused("tls.ca", "folder.pem cannot be used: is a directory")),
        ("verify-full", Some("text"), Encrypted, name, Then::Refused("tls.ca", "text.pem cannot be used: it holds no certificate")),
        ("verify-full", Some("broken"), Encrypted, name, Then::Refused("tls.ca", "broken.pem cannot be used: ")),
        ("require", Some("right"), Encrypted, name, Then::Refused("tls.ca", "`tls.mode` asks for no certificate")),
    ];
    for (mode, ca, at, host, then) in cases {
        let mut tls = json!({"mode": mode});
        if let Some(ca) = ca {
            tls["ca"] = json!(cas.join(format!("{ca}.pem")));
        }
        let case = format!("{mode} with {ca:?} at {host}, {at:?}");
        match (then, read(&url(at, host), query, tls)) {
            (Then::Clear, Ok(rows)) => assert_eq!(rows, [""], "{case}"),
            (Then::Encrypted, Ok(rows)) => assert!(rows.len() == 1 && rows[0].starts_with("TLSv1."), "{case}: {rows:?}"),
            (Then::Refused(key, text), Err(error)) => {
                assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some(key)), "{case}: {error}");
                assert!(error.message.contains(text) && error.hint.is_some(), "{case}: {error}");
                assert!(!format!("{error:?}").contains(PASSWORD), "{case}");
            }
            (_, result) => panic!("{case}: {result:?}"),
        }
    }
}

fn read(url: &str, query: &str, tls: Value) -> Result<Vec<String>, PluginError> {
    let with = json!({"url": url, "password": PASSWORD, "query": query, "tls": tls});
    Ok(snapshot(&SqlSource::create("pos", serde_json::from_value(with).unwrap())?)?.rows)
}

#[test]
fn postgresql_is_reached_as_the_mode_says() {
    let (cas, ports) = ports();
    let servers = ports.each_ref().map(|port| postgres::Server::start(Some(port)));
    for server in &servers {
        server.execute("postgres://localhost/postgres", &format!("create role reader login password '{PASSWORD}'"));
    }
    let url = |at: At, host: &str| format!("postgres://reader@{host}:{}/postgres", ports[at as usize].number);
    each_mode_holds(cas.path(), url, "select coalesce(version, '') as version from pg_stat_ssl where pid = pg_backend_pid()");
}

#[test]
fn mariadb_is_reached_as_the_mode_says() {
    let (cas, ports) = ports();
    let servers = ports.each_ref().map(|port| mariadb::Server::start(Some(port)));
    for server in &servers {
        server.execute("mysql", &format!("create user reader@localhost identified by '{PASSWORD}'"));
    }
    let url = |at: At, host: &str| format!("mysql://reader@{host}:{}/information_schema", ports[at as usize].number);
    each_mode_holds(cas.path(), url, "select variable_value from session_status where variable_name = 'Ssl_version'");
}

/// PostgreSQL takes a new setting up some time after it was told to.
fn refused(url: &str, mode: &str, folder: &Path) -> PluginError {
    let read = || read(url, "select 1 as a", json!({"mode": mode}));
    private::wait_until(|| read().is_err(), folder);
    read().unwrap_err()
}

#[test]
fn a_server_that_asks_for_another_mode_says_so() {
    let (folder, [_, port]) = ports();
    let server = postgres::Server::start(Some(&port));
    let (admin, url) = ("postgres://localhost/postgres", format!("postgres://reader@{NAME}:{}/postgres", port.number));
    server.execute(admin, "create role reader login");
    // The second line is that of psql, which takes the file's name from the first.
    server.execute(
        admin,
        "select current_setting('hba_file') as hba \\gset\n\
         copy (values ('local all all trust'), ('hostssl all all all trust')) to :'hba'; select pg_reload_conf()",
    );
    let error = refused(&url, "off", folder.path());
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::Unauthorized, Some("url")), "{error}");
    assert!(error.message.contains("no encryption") && error.hint.unwrap().contains("tls.mode"), "{}", error.message);
    assert_eq!(read(&url, "select 1 as a", json!({})).unwrap(), ["1"]);

    for setting in ["ssl_min_protocol_version = 'TLSv1'", "ssl_max_protocol_version = 'TLSv1.1'"] {
        server.execute(admin, &format!("alter system set {setting}"));
    }
    server.execute(admin, "select pg_reload_conf()");
    let error = refused(&url, "prefer", folder.path());
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("tls.mode")), "{error}");
    assert!(error.hint.unwrap().contains("TLS 1.2"));

    let port = Port::free(port.certificate);
    let server = mariadb::Server::start(Some(&port));
    server.execute("mysql", &format!("create user reader@localhost identified by '{PASSWORD}' require ssl"));
    let url = format!("mysql://reader@{NAME}:{}/information_schema", port.number);
    // It says no more than for a wrong password.
    let error = read(&url, "select 1 as a", json!({"mode": "off"})).unwrap_err();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::Unauthorized, Some("password")), "{error}");
    assert!(error.hint.unwrap().contains("tls.mode"));
    assert_eq!(read(&url, "select 1 as a", json!({})).unwrap(), ["1"]);
}
