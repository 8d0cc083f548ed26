//! The `with` table.

use std::fmt;
use std::path::PathBuf;

use reunion_sdk::{ErrorClass, PluginError, holds_password};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The `with` table of a source with `plugin = "sql"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://`, `mysql://` or `sqlite://`, without a password.
    pub url: String,
    /// The password, as the host found it where the config says.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The query, with `$cursor` where an incremental pull begins.
    pub query: String,
    /// The column of the query that tells rows apart.
    #[serde(default)]
    pub id_column: Option<String>,
    /// The column of the query that grows with each change of a row.
    #[serde(default)]
    pub cursor_column: Option<String>,
    /// What becomes of rows whose cursor is null.
    #[serde(default)]
    pub null_cursor: NullCursor,
    /// The timezone of the session; by default the server's own.
    #[serde(default)]
    pub session_timezone: Option<String>,
    /// How a connection is encrypted.
    #[serde(default)]
    pub tls: Tls,
    /// How long a connection may take to be made.
    #[serde(default = "default_connect_timeout_secs")]
    pub connect_timeout_secs: u64,
    /// How long one statement may take.
    #[serde(default = "default_statement_timeout_secs")]
    pub statement_timeout_secs: u64,
    /// How often one pull connects anew after it lost the server.
    #[serde(default = "default_reconnects_max")]
    pub reconnects_max: u32,
}

/// A text that is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What becomes of rows whose cursor is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullCursor {
    /// They are read in every pull, where the query gives them.
    #[default]
    Read,
    /// They end the pull.
    Refuse,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// How much is asked of the server.
    #[serde(default)]
    pub mode: TlsMode,
    /// The authority that signed the server's certificate, as PEM; by default those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// How much is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// No encryption.
    Off,
    /// Encryption where the server offers it.
    #[default]
    Prefer,
    /// Encryption, with whoever answers.
    Require,
    /// Encryption, with a certificate that a known authority signed.
    VerifyCa,
    /// That, for the name that the URL has.
    VerifyFull,
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

/// What stands in a query where an incremental pull begins.
pub const CURSOR: &str = "$cursor";
const QUERY_BYTES_MAX: usize = 64 << 10;
const WEEK_SECS: u64 = 604_800;

fn default_connect_timeout_secs() -> u64 {
    15
}

fn default_statement_timeout_secs() -> u64 {
    3600
}

fn default_reconnects_max() -> u32 {
    3
}

fn wrong(key: &str, message: impl Into<String>, hint: impl Into<String>) -> PluginError {
    PluginError::new(ErrorClass::InvalidConfig, message).key(key).hint(hint)
}

impl Config {
    /// Which database the URL is of.
    pub fn dialect(&self) -> Option<Dialect> {
        let scheme = self.url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => Some(Dialect::Postgres),
            "mysql" | "mariadb" => Some(Dialect::Mysql),
            "sqlite" => Some(Dialect::Sqlite),
            _ => None,
        }
    }

    /// What the schema cannot say.
    ///
    /// # Errors
    /// Invalid config, with the key to blame. Never repeats the URL, which may hold a password.
    pub fn validate(&self) -> Result<Dialect, PluginError> {
        let forms = "write postgres://user@host/database, mysql://user@host/database or sqlite:///var/lib/till.db";
        let dialect = self.dialect().ok_or_else(|| wrong("url", "`url` names no database that this plugin knows", forms))?;
        if holds_password(&self.url) {
            let hint = "take it out of the URL and say password = { env = \"…\" }, { file = \"…\" } or { credential = \"…\" }";
            return Err(wrong("url", "`url` holds a password, and whoever reads the config would read it", hint));
        }
        if dialect == Dialect::Sqlite && self.password.is_some() {
            return Err(wrong("password", "an SQLite file has no password", "remove `password`"));
        }
        if self.query.trim().is_empty() {
            return Err(wrong("query", "`query` is empty", "write the select that gives the members, a row each"));
        }
        if self.query.len() > QUERY_BYTES_MAX {
            return Err(wrong("query", format!("`query` has more than {QUERY_BYTES_MAX} bytes"), "make it a view in the database"));
        }
        if self.query.contains(CURSOR) && self.cursor_column.is_none() {
            let hint = "set cursor_column to the column that $cursor is compared with";
            return Err(wrong("query", "`query` has $cursor, and no `cursor_column` says what it is", hint));
        }
        if self.cursor_column.is_some() && self.id_column.is_none() {
            let hint = "set id_column to the column that tells rows apart";
            return Err(wrong("id_column", "`cursor_column` needs an `id_column`: many rows may have one time", hint));
        }
        Ok(dialect)
    }

    /// The JSON Schema of the table.
    pub fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "required": ["url", "query"],
            "properties": {
                "url": {"type": "string", "minLength": 1, "description": "postgres://user@host/database, mysql://user@host/database (MariaDB too), or sqlite:///path/of/file. Without a password."},
                "password": {
                    "type": "object",
                    "format": "secret",
                    "properties": {
                        "env": {"type": "string", "minLength": 1, "description": "A variable of the environment."},
                        "file": {"type": "string", "format": "path", "minLength": 1, "description": "A file that nobody but its owner reads."},
                        "credential": {"type": "string", "minLength": 1, "description": "A systemd credential."}
                    },
                    "description": "Where the password is."
                },
                "query": {"type": "string", "minLength": 1, "description": "A select that gives one row for each member. $cursor stands for the moment, day, number or text from which an incremental pull reads."},
                "id_column": {"type": "string", "minLength": 1, "description": "The column of the query that tells rows apart. With it rows are read in an order, so that a pull that lost the server goes on where it was."},
                "cursor_column": {"type": "string", "minLength": 1, "description": "The column of the query that grows whenever a row changes: a time, a day, a number or a text. Incremental sources need it."},
                "null_cursor": {"type": "string", "enum": ["read", "refuse"], "default": "read", "description": "Rows without a value in cursor_column: read (in every pull, if the query gives them) or refuse (the pull fails)."},
                "session_timezone": {"type": "string", "minLength": 1, "description": "The timezone of the session, such as Asia/Shanghai or, for MySQL, +08:00. By default the server's own. Times without a timezone are compared with the server's clock in it."},
                "tls": {
                    "type": "object",
                    "properties": {
                        "mode": {"type": "string", "enum": ["off", "prefer", "require", "verify-ca", "verify-full"], "default": "prefer", "description": "How much is asked of the server."},
                        "ca": {"type": "string", "format": "path", "minLength": 1, "description": "The authority that signed the server's certificate, a PEM file. By default those of the system."}
                    },
                    "description": "How the connection is encrypted."
                },
                "connect_timeout_secs": {"type": "integer", "minimum": 1, "maximum": 600, "default": default_connect_timeout_secs(), "description": "How long a connection may take to be made."},
                "statement_timeout_secs": {"type": "integer", "minimum": 1, "maximum": WEEK_SECS, "default": default_statement_timeout_secs(), "description": "How long one statement may take. The server is told, where it can be."},
                "reconnects_max": {"type": "integer", "minimum": 0, "maximum": 100, "default": default_reconnects_max(), "description": "How often one pull connects anew after it lost the server. Needs id_column."}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: serde_json::Value) -> Config {
        let mut table = json!({"url": "postgres://reader@erp/pos", "query": "select 1"});
        table.as_object_mut().expect("a table").extend(entries.as_object().expect("a table").clone());
        serde_json::from_value(table).expect("a config")
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_key() {
        let cases = [
            (json!({"url": "oracle://x"}), "url"),
            (json!({"url": "postgres://reader:hunter2@erp/pos"}), "url"),
            (json!({"url": "mysql://erp/pos?password=hunter2"}), "url"),
            (json!({"url": "mysql://erp/pos?a=b&password=hunter2"}), "url"),
            (json!({"url": "sqlite:///x.db", "password": "hunter2"}), "password"),
            (json!({"query": "  "}), "query"),
            (json!({"query": "x".repeat(70_000)}), "query"),
            (json!({"query": "select 1 where x > $cursor"}), "query"),
            (json!({"cursor_column": "changed_at"}), "id_column"),
        ];
        for (entries, key) in cases {
            let error = config(entries.clone()).validate().expect_err("refused");
            assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some(key)), "{entries}");
            assert!(error.hint.is_some() && !error.to_string().contains("hunter2"), "{error}");
        }
        for (url, dialect) in [
            ("postgresql://a@[::1]:5432/x?sslmode=disable", Dialect::Postgres),
            ("mariadb://a@b/x", Dialect::Mysql),
            ("sqlite:///x.db", Dialect::Sqlite),
        ] {
            assert_eq!(config(json!({"url": url})).validate(), Ok(dialect), "{url}");
        }
    }

    #[test]
    fn the_sample_can_be_used_as_it_is() {
        let sample: Config = toml::from_str(include_str!("../sample.toml")).expect("a config");
        assert_eq!(sample.validate(), Ok(Dialect::Postgres));
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = config(json!({"password": "hunter2"}));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.password.map(|password| password.reveal().to_owned()).as_deref(), Some("hunter2"));
    }
}
