//! MySQL and MariaDB: read by their text protocol, whose values need no form of their own for each type.

use futures::StreamExt;
use reunion_sdk::{Authority, ErrorClass, PluginError};
use sqlx::mysql::{MySql, MySqlColumn, MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, Row, SqlSafeStr, Statement, Type, TypeInfo};

use super::{Sink, note_unfit};
use crate::columns::{Cells, Column, Kind, ROW_BYTES_MAX, Rows, no_type, too_large};
use crate::config::{Config, TlsMode};
use crate::failure::failed;
use crate::wait::Wait;

pub async fn connect(config: &Config) -> Result<MySqlConnection, PluginError> {
    let connecting = |error: sqlx::Error| failed("connecting", &error);
    let url = config.url.as_deref().unwrap_or_default().replacen("mariadb:", "mysql:", 1);
    // Times as the server's own clock shows them, unless the config says otherwise.
    let mut options = url.parse::<MySqlConnectOptions>().map_err(connecting)?.timezone(config.session_timezone.clone());
    // The driver would look an address of IPv6 up by a name that has its brackets.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    options = options.host(&host).charset("utf8mb4").statement_cache_capacity(0).disable_statement_logging();
    if let Some(password) = &config.password {
        options = options.password(password.reveal());
    }
    // What the URL says stands unless the config says otherwise.
    options = match config.tls.mode {
        TlsMode::Prefer => options,
        TlsMode::Off => options.ssl_mode(MySqlSslMode::Disabled),
        TlsMode::Require => options.ssl_mode(MySqlSslMode::Required),
        TlsMode::VerifyCa => options.ssl_mode(MySqlSslMode::VerifyCa),
        TlsMode::VerifyFull => options.ssl_mode(MySqlSslMode::VerifyIdentity),
    };
    // The driver reads the file only when a server has answered, takes one without a certificate for none at all, and its
    // errors name no key.
    if let Some(path) = &config.tls.ca {
        options = options.ssl_ca_from_pem(Authority::read(path, "tls.ca")?.pem);
    }
    let mut connection = options.connect().await.map_err(|error| match (&error, &config.session_timezone) {
        (sqlx::Error::Database(refused), Some(zone)) if refused.message().contains("time zone") => {
            let message = format!("the server knows no timezone {zone:?}");
            PluginError::new(ErrorClass::InvalidConfig, message)
                .key("session_timezone")
                .hint("write it as \"+08:00\", which every server knows")
        }
        _ => connecting(error),
    })?;
    let version: String = sqlx::query_scalar("select version()").fetch_one(&mut connection).await.map_err(connecting)?;
    let secs = config.statement_timeout_secs;
    let limit = match version.contains("MariaDB") {
        true => format!("set session max_statement_time = {secs}"),
        false => format!("set session max_execution_time = {}", secs.saturating_mul(1000)),
    };
    for sql in ["set session transaction read only".to_owned(), limit] {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(|error| failed("setting up the session", &error))?;
    }
    Ok(connection)
}

pub async fn columns(connection: &mut MySqlConnection, query: &str) -> Result<Vec<Column>, PluginError> {
    let prepared = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await;
    let prepared = prepared.map_err(|error| failed("looking at the query", &error))?;
    let column = |column: &MySqlColumn| {
        let name = column.type_info().name();
        // What is compared byte by byte is called binary too; text is what has a character set.
        let is_text = <str as Type<MySql>>::compatible(column.type_info());
        let kind = if is_text { Some(Kind::Text) } else { kind_of(name) };
        let kind = kind.ok_or_else(|| no_type(column.name(), name))?;
        Ok(Column { name: column.name().to_owned(), kind, as_text: false })
    };
    prepared.columns().iter().map(column).collect()
}

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        // A `tinyint(1)` may hold more than two values, and often does.
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" | "YEAR" => Kind::Integer,
        "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED" => Kind::Integer,
        "BIGINT UNSIGNED" => Kind::Unsigned,
        "FLOAT" | "DOUBLE" => Kind::Float,
        "DECIMAL" => Kind::Decimal,
        "DATETIME" | "TIMESTAMP" => Kind::Moment,
        "DATE" => Kind::Day,
        "ENUM" | "SET" | "JSON" | "TIME" | "NULL" => Kind::Text,
        _ => return None,
    })
}

pub async fn read(
    connection: &mut MySqlConnection,
    sql: &str,
    columns: &[Column],
    wait: Wait<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), PluginError> {
    let broken = |error: sqlx::Error| failed(wait.doing, &error);
    let mut stream = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(&mut *connection);
    let mut rows = Rows::new(columns);
    while let Some(row) = wait.on(stream.next()).await? {
        let row = row.map_err(broken)?;
        let mut text_bytes = 0;
        for (at, column) in columns.iter().enumerate() {
            let value: Option<&[u8]> = row.try_get_unchecked(at).map_err(broken)?;
            let cells = &mut rows.cells[at];
            match value {
                None => cells.null(),
                Some(value) => {
                    // The server converts texts to the session's character set.
                    let text = String::from_utf8_lossy(value);
                    text_bytes += if matches!(cells, Cells::Text(_)) { text.len() } else { 0 };
                    if text_bytes > ROW_BYTES_MAX {
                        return Err(too_large(&column.name));
                    }
                    if !cells.parse(&text) {
                        rows.is_unfit(at);
                    }
                }
            }
        }
        if let Some(batch) = rows.end_row(text_bytes) {
            sink(batch)?;
        }
    }
    note_unfit(&rows);
    rows.finish().map_or(Ok(()), sink)
}
