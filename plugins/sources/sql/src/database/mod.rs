//! One session with a database: what it is asked, and how its answers become batches.

mod mysql;
mod postgres;
mod sqlite;

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{ErrorClass, PluginError};
use sqlx::{AssertSqlSafe, Connection};

use crate::columns::Column;
use crate::config::{Config, Dialect};
use crate::failure::failed;
use crate::value::{CursorKind, Value, text_is_after};
use crate::wait::{Stop, Wait};

/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session. It reads, and can do nothing else.
pub enum Session {
    /// PostgreSQL.
    Postgres(sqlx::PgConnection),
    /// MySQL or MariaDB.
    Mysql(sqlx::MySqlConnection),
    /// SQLite.
    Sqlite(sqlx::SqliteConnection),
}

/// Who takes batches; an error ends the statement.
pub type Sink<'a> = dyn FnMut(RecordBatch) -> Result<(), PluginError> + Send + 'a;

/// The source's own clock, as its cursor shows it.
#[derive(Debug, Clone)]
pub enum Clock {
    /// Compared as a value.
    At(Value),
    /// Compared as a text.
    Text {
        /// By the calendar of the session's timezone.
        local: DateTime,
        /// The same moment.
        utc: Timestamp,
    },
    /// The cursor is no time.
    None,
}

impl Clock {
    /// Whether a cursor is of a time that has not come yet.
    pub fn is_before(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::At(now), value) => value > now,
            (Self::Text { local, utc }, Value::Text(text)) => text_is_after(text, *local, *utc),
            _ => false,
        }
    }
}

impl Session {
    /// Connects, to read only.
    ///
    /// # Errors
    /// Where the server is not reached, or refuses.
    pub async fn connect(config: &Config, dialect: Dialect, stop: &Stop) -> Result<Self, PluginError> {
        let wait = Wait { stop, secs: config.connect_timeout_secs, key: "connect_timeout_secs", doing: "connecting" };
        wait.on(async {
            match dialect {
                Dialect::Postgres => postgres::connect(config).await.map(Self::Postgres),
                Dialect::Mysql => mysql::connect(config).await.map(Self::Mysql),
                Dialect::Sqlite => sqlite::connect(config, stop).await.map(Self::Sqlite),
            }
        })
        .await?
    }

    /// The columns that a query gives.
    ///
    /// # Errors
    /// Where the database does not understand it, or a column is of a type of no use.
    pub async fn columns(&mut self, query: &str, marks: &[&str], wait: Wait<'_>) -> Result<Vec<Column>, PluginError> {
        wait.on(async {
            match self {
                Self::Postgres(connection) => postgres::columns(connection, query).await,
                Self::Mysql(connection) => mysql::columns(connection, query).await,
                Self::Sqlite(connection) => sqlite::columns(connection, query, marks).await,
            }
        })
        .await?
    }

    /// A number that a statement gives.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn number(&mut self, sql: &str, wait: Wait<'_>) -> Result<i64, PluginError> {
        let sql = AssertSqlSafe(sql.to_owned());
        let number = wait.on(async {
            match self {
                Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await,
                Self::Mysql(connection) => sqlx::query_scalar(sql).fetch_one(connection).await,
                Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await,
            }
        });
        number.await?.map_err(|error| failed(wait.doing, &error))
    }

    /// The source's clock, as a cursor of this kind shows it.
    ///
    /// # Errors
    /// Where the database refuses, or the timezone is none.
    pub async fn clock(&mut self, kind: CursorKind, config: &Config, wait: Wait<'_>) -> Result<Clock, PluginError> {
        let (postgres, mysql, value): (_, _, fn(i64) -> Value) = match kind {
            CursorKind::Moment => (
                "select (extract(epoch from localtimestamp) * 1000000)::bigint",
                "select timestampdiff(microsecond, '1970-01-01 00:00:00', now(6))",
                Value::Moment,
            ),
            CursorKind::Instant => (
                "select (extract(epoch from now()) * 1000000)::bigint",
                "select timestampdiff(microsecond, '1970-01-01 00:00:00', utc_timestamp(6))",
                Value::Instant,
            ),
            CursorKind::Day => {
                ("select (current_date - date '1970-01-01')::bigint", "select cast(datediff(curdate(), '1970-01-01') as signed)", |day| {
                    Value::Day(day.try_into().unwrap_or(i32::MAX))
                })
            }
            CursorKind::Integer => return Ok(Clock::None),
            CursorKind::Text => return text_clock(config),
        };
        // In SQLite every time is a text.
        let sql = if matches!(self, Self::Postgres(_)) { postgres } else { mysql };
        Ok(Clock::At(value(self.number(sql, wait).await?)))
    }

    /// Says goodbye, so that the server does not note a client that vanished. What goes wrong with that harms
    /// nobody.
    pub async fn close(self) {
        let close = async {
            match self {
                Self::Postgres(connection) => connection.close().await,
                Self::Mysql(connection) => connection.close().await,
                Self::Sqlite(connection) => connection.close().await,
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    }

    /// Runs a statement whose rows have these columns, and hands on their batches.
    ///
    /// # Errors
    /// Where the database refuses or breaks off, the call is to stop, or the sink wants no more.
    pub async fn read(&mut self, sql: &str, columns: &[Column], wait: Wait<'_>, sink: &mut Sink<'_>) -> Result<(), PluginError> {
        match self {
            Self::Postgres(connection) => postgres::read(connection, sql, columns, wait, sink).await,
            Self::Mysql(connection) => mysql::read(connection, sql, columns, wait, sink).await,
            Self::Sqlite(connection) => sqlite::read(connection, sql, columns, wait, sink).await,
        }
    }
}

/// Texts have no clock of the server's that they could be compared with in SQL: this machine's stands in.
fn text_clock(config: &Config) -> Result<Clock, PluginError> {
    let zone = match &config.session_timezone {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).map_err(|_| {
            PluginError::new(ErrorClass::InvalidConfig, format!("{name:?} is no timezone"))
                .key("session_timezone")
                .hint("write a name such as \"Asia/Shanghai\"")
        })?,
    };
    let utc = Timestamp::now();
    Ok(Clock::Text { local: Zoned::new(utc, zone).datetime(), utc })
}

/// Says in the log what became of values that are none of their column's type.
fn note_unfit(rows: &crate::columns::Rows) {
    for (column, count) in rows.unfit() {
        tracing::warn!(column, count, "values that are none of the column's type are missing");
    }
}
