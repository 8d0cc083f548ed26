//! The errors of databases as the contract has them: without data of the rows, which servers put into theirs.

use reunion_sdk::{ErrorClass, PluginError};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

const TEXT_CHARS_MAX: usize = 400;

/// What went wrong while this was done.
pub fn failed(doing: &str, error: &sqlx::Error) -> PluginError {
    let new = |class, text: &str| PluginError::new(class, format!("{doing}: {text}"));
    match error {
        sqlx::Error::Database(error) => of_database(doing, error.as_ref()),
        sqlx::Error::Io(error) => match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(error) => of_tls(doing, error),
            None => {
                let hint = "see whether the server runs and lets this machine in";
                new(ErrorClass::Unavailable, &short(&error.to_string())).key("url").hint(hint)
            }
        },
        sqlx::Error::Tls(error) => new(ErrorClass::InvalidConfig, &short(&error.to_string()))
            .key("tls.mode")
            .hint("let the server offer TLS, or ask less by tls.mode"),
        sqlx::Error::Configuration(error) => new(ErrorClass::InvalidConfig, &short(&error.to_string())).key("url"),
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed => {
            new(ErrorClass::Unavailable, "the server broke off or answered something else than was asked")
        }
        // What does not decode may be shown with the value that it is about.
        _ => new(ErrorClass::Internal, "the answer could not be understood"),
    }
}

/// A pull or a connection that took too long.
pub fn too_long(doing: &str, secs: u64, key: &str) -> PluginError {
    PluginError::new(ErrorClass::Timeout, format!("{doing} took longer than {secs} s")).key(key)
}

fn short(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(TEXT_CHARS_MAX).collect()
}

/// A handshake that came to nothing, or a session whose bytes were changed on their way.
fn of_tls(doing: &str, error: &rustls::Error) -> PluginError {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    use rustls::Error::{AlertReceived, InvalidCertificate, PeerIncompatible};
    let (class, key, hint) = match error {
        InvalidCertificate(UnknownIssuer) => {
            (ErrorClass::InvalidConfig, "tls.ca", "set tls.ca to the authority that signed the server's certificate")
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            let hint = "name the server in `url` as its certificate does, or ask for no name: tls.mode = \"verify-ca\"";
            (ErrorClass::InvalidConfig, "tls.mode", hint)
        }
        InvalidCertificate(_) => {
            (ErrorClass::InvalidConfig, "tls.mode", "give the server another certificate, or ask for none: tls.mode = \"require\"")
        }
        PeerIncompatible(_) | AlertReceived(_) => {
            let hint = "let the server speak TLS 1.2 or newer, or do without encryption: tls.mode = \"off\"";
            (ErrorClass::InvalidConfig, "tls.mode", hint)
        }
        _ => (ErrorClass::Unavailable, "url", "see what stands between this machine and the server"),
    };
    PluginError::new(class, format!("{doing}: {}", short(&error.to_string()))).key(key).hint(hint)
}

/// What the operator has to do, as far as the database's code says it.
enum Blame {
    Login,
    Entry,
    Rights,
    Database,
    Query,
    Data,
    Timeout,
    Later,
    Unknown,
}

fn of_database(doing: &str, error: &dyn DatabaseError) -> PluginError {
    let code = error.code().map(String::from).unwrap_or_default();
    let (blame, vendor_code) = if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        (of_postgres(&code), None)
    } else if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        (of_mysql(error.number()), Some(i32::from(error.number())))
    } else {
        (of_sqlite(code.parse().unwrap_or_default()), code.parse().ok())
    };
    let (class, key, hint, is_shown) = match blame {
        Blame::Login => {
            let hint =
                "give the user of `url` this password, or set another; some servers refuse this way who comes with tls.mode = \"off\"";
            (ErrorClass::Unauthorized, Some("password"), hint, false)
        }
        Blame::Entry => (
            ErrorClass::Unauthorized,
            Some("url"),
            "let the server admit the user of `url` from this machine, and with this tls.mode",
            true,
        ),
        Blame::Rights => (ErrorClass::Unauthorized, Some("query"), "let the user of `url` read what the query names", true),
        Blame::Database => (ErrorClass::InvalidConfig, Some("url"), "see whether the database is there and is the one that is meant", true),
        Blame::Query => {
            (ErrorClass::InvalidConfig, Some("query"), "run the query by the database's own client, with a value for $cursor", true)
        }
        // The server's text shows the value.
        Blame::Data => (ErrorClass::InvalidData, Some("query"), "look for casts in the query that not every row stands", false),
        Blame::Timeout => (ErrorClass::Timeout, Some("statement_timeout_secs"), "raise it, or make the query cheaper", false),
        Blame::Later => (ErrorClass::Unavailable, None, "", true),
        // A text that nobody knows, which may be of a function that the query calls.
        Blame::Unknown => (ErrorClass::Unavailable, None, "", false),
    };
    let text = if is_shown { short(error.message()) } else { "the server refused".to_owned() };
    let code = if code.is_empty() { code } else { format!(" (code {code})") };
    let mut failure = PluginError::new(class, format!("{doing}: {text}{code}"));
    (failure.key, failure.vendor_code) = (key.map(str::to_owned), vendor_code);
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

fn of_postgres(sqlstate: &str) -> Blame {
    match sqlstate {
        "42501" => Blame::Rights,
        "57014" => Blame::Timeout,
        "3D000" => Blame::Database,
        "28000" => Blame::Entry,
        state if state.starts_with("28") => Blame::Login,
        state if state.starts_with("42") || state.starts_with("0A") => Blame::Query,
        state if state.starts_with("22") || state.starts_with("21") || state.starts_with("23") => Blame::Data,
        state if ["08", "40", "53", "55", "57", "58"].iter().any(|class| state.starts_with(class)) => Blame::Later,
        _ => Blame::Unknown,
    }
}

fn of_mysql(number: u16) -> Blame {
    match number {
        1045 | 1698 => Blame::Login,
        1044 | 1142 | 1143 | 1370 => Blame::Rights,
        3159 => Blame::Entry,
        1049 => Blame::Database,
        1052 | 1054 | 1055 | 1060 | 1064 | 1109 | 1146 | 1222 | 1247 | 1248 | 1267 | 1305 | 1356 | 1582 => Blame::Query,
        1242 | 1264 | 1292 | 1365 | 1366 | 1406 | 1690 => Blame::Data,
        1317 | 1969 | 3024 => Blame::Timeout,
        1040 | 1053 | 1077 | 1129 | 1130 | 1152..=1161 | 1203 | 1205 | 1213 | 1226 | 1927 | 2002..=2013 => Blame::Later,
        _ => Blame::Unknown,
    }
}

fn of_sqlite(code: i32) -> Blame {
    // The lower byte is the code, the rest says more of it.
    match code & 0xff {
        1 => Blame::Query,
        3 | 23 => Blame::Rights,
        11 | 14 | 26 => Blame::Database,
        20 => Blame::Data,
        9 => Blame::Timeout,
        5 | 6 | 10 | 13 | 15 | 17 => Blame::Later,
        _ => Blame::Unknown,
    }
}

/// Whether the same statement may succeed on another connection.
pub fn is_lost(error: &PluginError) -> bool {
    error.class == ErrorClass::Unavailable
}
