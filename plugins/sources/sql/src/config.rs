//! The `with` table.

use std::path::PathBuf;

use reunion_sdk::{ErrorClass, PluginError, Secret, holds_password};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The `with` table of a source with `plugin = "sql"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://` or `mysql://`, without a password.
    #[serde(default)]
    pub url: Option<String>,
    /// The file of SQLite, in place of a URL.
    #[serde(default)]
    pub file: Option<PathBuf>,
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
    /// Queries of an id and a cursor each, with `$cursor`: which members changed, where several tables say it.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The rows of orders that figures of the members are computed from.
    #[serde(default)]
    pub orders: Option<Orders>,
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

/// Rows of orders, and the names of their columns.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// One row for each order, or for each line of one.
    pub query: String,
    /// The member, as `id_column` has it.
    pub member: String,
    /// What tells orders apart.
    pub order_id: String,
    /// When.
    pub at: String,
    /// How much of money.
    pub amount: String,
    /// What was bought.
    #[serde(default)]
    pub category: Option<String>,
    /// Of a return: the order that it gives back.
    #[serde(default)]
    pub returns: Option<String>,
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
    /// The authority that signed the server's certificate, as PEM, beside those of the system.
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
const CHANGED_MAX: usize = 32;
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

/// The key of this query of `changed`.
pub fn changed_key(at: usize) -> String {
    format!("changed.{at}")
}

fn check_query(key: &str, query: &str, hint: &str) -> Result<(), PluginError> {
    if query.trim().is_empty() {
        return Err(wrong(key, format!("`{key}` is empty"), hint));
    }
    if query.len() > QUERY_BYTES_MAX {
        return Err(wrong(key, format!("`{key}` has more than {QUERY_BYTES_MAX} bytes"), "make it a view in the database"));
    }
    Ok(())
}

impl Config {
    /// Which database it is.
    fn dialect(&self) -> Result<Dialect, PluginError> {
        let forms = "write postgres://user@host/database or mysql://user@host/database, or set `file` to a file of SQLite";
        let url = match (&self.url, &self.file) {
            (None, Some(_)) => return Ok(Dialect::Sqlite),
            (Some(url), None) => url,
            (None, None) => return Err(wrong("url", "neither `url` nor `file` says where the members are", forms)),
            (Some(_), Some(_)) => return Err(wrong("file", "`url` and `file` are both set", "remove one of them")),
        };
        if holds_password(url) {
            let hint = "take it out of the URL and say password = { env = \"…\" }, { file = \"…\" } or { credential = \"…\" }";
            return Err(wrong("url", "`url` holds a password, and whoever reads the config would read it", hint));
        }
        match url.split(':').next().unwrap_or_default() {
            "postgres" | "postgresql" => Ok(Dialect::Postgres),
            "mysql" | "mariadb" => Ok(Dialect::Mysql),
            _ => Err(wrong("url", "`url` names no database that this plugin knows", forms)),
        }
    }

    /// What the schema cannot say.
    ///
    /// # Errors
    /// Invalid config, with the key to blame. Never repeats the URL, which may hold a password.
    pub fn validate(&self) -> Result<Dialect, PluginError> {
        let dialect = self.dialect()?;
        if dialect == Dialect::Sqlite && self.password.is_some() {
            return Err(wrong("password", "an SQLite file has no password", "remove `password`"));
        }
        if self.tls.ca.is_some() && !matches!(self.tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            let hint = "set tls.mode to \"verify-full\" or \"verify-ca\", or remove `tls.ca`";
            return Err(wrong("tls.ca", "`tls.ca` is set, and `tls.mode` asks for no certificate that it signed", hint));
        }
        check_query("query", &self.query, "write the select that gives the members, a row each")?;
        self.validate_changed()?;
        self.validate_orders()?;
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

    fn validate_changed(&self) -> Result<(), PluginError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let twice = "let `changed` say which members changed, or `cursor_column` and $cursor in `query`";
        if self.cursor_column.is_some() {
            return Err(wrong("cursor_column", "`cursor_column` and `changed` both say what changed", twice));
        }
        if self.query.contains(CURSOR) {
            return Err(wrong("query", "`query` has $cursor, and `changed` says what changed", twice));
        }
        if self.null_cursor == NullCursor::Refuse {
            let hint = "remove `null_cursor`; rows without a cursor are looked at if a query of `changed` gives them";
            return Err(wrong("null_cursor", "`null_cursor` is about `cursor_column`, and there is none", hint));
        }
        if self.id_column.is_none() {
            let hint = "set id_column to the column of `query` whose values the queries of `changed` give";
            return Err(wrong("id_column", "`changed` needs an `id_column`", hint));
        }
        if self.changed.len() > CHANGED_MAX {
            return Err(wrong("changed", format!("`changed` has more than {CHANGED_MAX} queries"), "unite some of them by `union all`"));
        }
        for (at, query) in self.changed.iter().enumerate() {
            let (key, hint) = (changed_key(at), "write select id, changed_at from … where changed_at >= $cursor");
            check_query(&key, query, hint)?;
            if !query.contains(CURSOR) {
                return Err(wrong(&key, "a query of `changed` has no $cursor", hint));
            }
        }
        Ok(())
    }

    fn validate_orders(&self) -> Result<(), PluginError> {
        let Some(orders) = &self.orders else { return Ok(()) };
        check_query("orders.query", &orders.query, "write the select that gives the orders, or their lines, a row each")?;
        if orders.query.contains(CURSOR) {
            let hint = "leave it out: sums need all orders of a member. Name the members whose orders changed in `changed`";
            return Err(wrong("orders.query", "the query of `orders` has $cursor", hint));
        }
        if self.id_column.is_none() {
            let hint = "set id_column to the column of `query` that orders name their member by";
            return Err(wrong("id_column", "`orders` needs an `id_column`", hint));
        }
        Ok(())
    }

    /// The JSON Schema of the table.
    pub fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "required": ["query"],
            "properties": {
                "url": {"type": "string", "minLength": 1, "description": "postgres://user@host/database or mysql://user@host/database (MariaDB too). Without a password."},
                "file": {"type": "string", "format": "path", "access": "write", "minLength": 1, "description": "The file of SQLite, in place of a URL."},
                "password": Secret::schema("Where the password is."),
                "query": {"type": "string", "minLength": 1, "description": "A select that gives one row for each member. $cursor stands for the moment, day, number or text from which an incremental pull reads."},
                "id_column": {"type": "string", "minLength": 1, "description": "The column of the query that tells rows apart. With it rows are read in an order, so that a pull that lost the server goes on where it was."},
                "cursor_column": {"type": "string", "minLength": 1, "description": "The column of the query that grows whenever a row changes: a time, a day, a number or a text. Incremental sources need it, or changed."},
                "null_cursor": {"type": "string", "enum": ["read", "refuse"], "default": "read", "description": "Rows without a value in cursor_column: read (in every pull, if the query gives them) or refuse (the pull fails)."},
                "changed": {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "default": [],
                    "description": "Where several tables say that a member changed: a select for each, of two columns, the value of id_column and a cursor, with $cursor. An incremental pull unites their ids and reads the query for these alone; the query then has no $cursor."
                },
                "orders": {
                    "type": "object",
                    "required": ["query", "member", "order_id", "at", "amount"],
                    "properties": {
                        "query": {"type": "string", "minLength": 1, "description": "A select that gives one row for each order that was paid, or for each of its lines, and for each return."},
                        "member": {"type": "string", "minLength": 1, "description": "The column with the member, as id_column has it."},
                        "order_id": {"type": "string", "minLength": 1, "description": "The column that tells orders apart; lines of one order have one value."},
                        "at": {"type": "string", "minLength": 1, "description": "The column with the time of the order."},
                        "amount": {"type": "string", "minLength": 1, "description": "The column with the amount; below zero for what was given back."},
                        "category": {"type": "string", "minLength": 1, "description": "The column with what was bought. With it there is a favourite_category."},
                        "returns": {"type": "string", "minLength": 1, "description": "The column that has, in rows of returns alone, the order_id of the order that is given back."}
                    },
                    "description": "Rows of orders, from which first_order_at, last_order_at, last_order_amount, order_count, total_spent, max_order_amount and favourite_category of each member are computed, returns taken off."
                },
                "session_timezone": {"type": "string", "minLength": 1, "description": "The timezone of the session, such as Asia/Shanghai or, for MySQL, +08:00. By default the server's own. Times without a timezone are compared with the server's clock in it."},
                "tls": {
                    "type": "object",
                    "properties": {
                        "mode": {"type": "string", "enum": ["off", "prefer", "require", "verify-ca", "verify-full"], "default": "prefer", "description": "How much is asked of the server."},
                        "ca": {"type": "string", "format": "path", "minLength": 1, "description": "For verify-ca and verify-full: the authority that signed the server's certificate, a PEM file, beside those of the system."}
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

    fn changed(entries: serde_json::Value) -> serde_json::Value {
        let mut table = json!({"id_column": "id", "changed": ["select id, at from t where at >= $cursor"]});
        table.as_object_mut().expect("a table").extend(entries.as_object().expect("a table").clone());
        table
    }

    fn orders(query: &str) -> serde_json::Value {
        json!({"query": query, "member": "member", "order_id": "id", "at": "at", "amount": "amount"})
    }

    #[test]
    fn what_cannot_be_meant_is_refused_at_its_key() {
        let cases = [
            (json!({"url": "oracle://x"}), "url"),
            (json!({"url": "postgres://reader:hunter2@erp/pos"}), "url"),
            (json!({"url": "mysql://erp/pos?password=hunter2"}), "url"),
            (json!({"url": "mysql://erp/pos?a=b&password=hunter2"}), "url"),
            (json!({"url": "sqlite:///x.db"}), "url"),
            (json!({"url": null}), "url"),
            (json!({"file": "/x.db"}), "file"),
            (json!({"url": null, "file": "/x.db", "password": "hunter2"}), "password"),
            (json!({"tls": {"ca": "/ca.pem"}}), "tls.ca"),
            (json!({"tls": {"ca": "/ca.pem", "mode": "require"}}), "tls.ca"),
            (json!({"query": "  "}), "query"),
            (json!({"query": "x".repeat(70_000)}), "query"),
            (json!({"query": "select 1 where x > $cursor"}), "query"),
            (json!({"cursor_column": "changed_at"}), "id_column"),
            (changed(json!({"cursor_column": "changed_at"})), "cursor_column"),
            (changed(json!({"query": "select 1 where x > $cursor"})), "query"),
            (changed(json!({"null_cursor": "refuse"})), "null_cursor"),
            (changed(json!({"id_column": null})), "id_column"),
            (changed(json!({"changed": vec!["select 1, $cursor"; 33]})), "changed"),
            (changed(json!({"changed": ["select 1, $cursor", "select 1, 2"]})), "changed.1"),
            (changed(json!({"changed": [" "]})), "changed.0"),
            (json!({"orders": orders("select 1")}), "id_column"),
            (json!({"id_column": "id", "orders": orders("")}), "orders.query"),
            (json!({"id_column": "id", "orders": orders("select 1 where at >= $cursor")}), "orders.query"),
        ];
        for (entries, key) in cases {
            let error = config(entries.clone()).validate().expect_err("refused");
            assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some(key)), "{entries}");
            assert!(error.hint.is_some() && !error.to_string().contains("hunter2"), "{error}");
        }
        for (place, dialect) in [
            (json!({"url": "postgresql://a@[::1]:5432/x?sslmode=disable"}), Dialect::Postgres),
            (json!({"url": "mariadb://a@b/x"}), Dialect::Mysql),
            (json!({"url": null, "file": "/x.db"}), Dialect::Sqlite),
        ] {
            assert_eq!(config(place.clone()).validate(), Ok(dialect), "{place}");
        }
        assert!(config(changed(json!({"orders": orders("select 1")}))).validate().is_ok());
    }

    #[test]
    fn the_sample_can_be_used_as_it_is() {
        let sample: Config = toml::from_str(include_str!("../sample.toml")).expect("a config");
        assert_eq!(sample.validate(), Ok(Dialect::Postgres));
    }
}
