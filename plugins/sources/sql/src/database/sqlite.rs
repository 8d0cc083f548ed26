//! SQLite: a file, whose columns have no types of their own. What a column was declared as a whole number is
//! one, every other is text as it stands.

use std::path::Path;

use futures::StreamExt;
use reunion_sdk::{ErrorClass, PluginError};
use sqlx::sqlite::{SqliteColumn, SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, Row, SqlSafeStr, Statement, TypeInfo, ValueRef};

use super::Sink;
use crate::columns::{Cells, Column, Kind, ROW_BYTES_MAX, Rows, no_type, too_large};
use crate::config::{Config, Dialect};
use crate::failure::failed;
use crate::query::quoted;
use crate::wait::{Stop, Wait};

/// Steps of SQLite's machine, some milliseconds, after which it looks whether to stop.
const STEPS: i32 = 200_000;

pub async fn connect(config: &Config, stop: &Stop) -> Result<SqliteConnection, PluginError> {
    let connecting = |error: sqlx::Error| PluginError { key: Some("file".into()), ..failed("opening the file", &error) };
    let options = SqliteConnectOptions::new().filename(config.file.as_deref().unwrap_or(Path::new("")));
    let options =
        options.read_only(true).create_if_missing(false).busy_timeout(std::time::Duration::from_secs(config.connect_timeout_secs));
    let mut connection = options.disable_statement_logging().connect().await.map_err(connecting)?;
    // A statement runs in this process: nobody else ends it.
    let stop = stop.clone();
    connection.lock_handle().await.map_err(connecting)?.set_progress_handler(STEPS, move || stop.check().is_ok());
    Ok(connection)
}

pub async fn columns(connection: &mut SqliteConnection, query: &str, marks: &[&str]) -> Result<Vec<Column>, PluginError> {
    let looking = |error: sqlx::Error| failed("looking at the query", &error);
    let prepared = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await.map_err(looking)?;
    let column = |column: &SqliteColumn| {
        let kind = if matches!(column.type_info().name(), "INTEGER" | "BOOLEAN" | "INT4" | "BIGINT") { Kind::Integer } else { Kind::Text };
        Column { name: column.name().to_owned(), kind, as_text: false }
    };
    let mut columns: Vec<_> = prepared.columns().iter().map(column).collect();
    drop(prepared);
    // A number and a text are never equal, and every number is below every text: what ids and cursors really
    // are decides how they are written in SQL.
    for column in columns.iter_mut().filter(|column| marks.contains(&column.name.as_str())) {
        let name = quoted(Dialect::Sqlite, &column.name);
        let sql = format!("select typeof(q.{name}) from (\n{query}\n) as q where q.{name} is not null limit 1");
        let found: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.map_err(looking)?;
        match found.as_deref() {
            Some("integer") => column.kind = Kind::Integer,
            Some("text") => column.kind = Kind::Text,
            Some(other) => return Err(no_type(&column.name, other)),
            None => {}
        }
    }
    Ok(columns)
}

pub async fn read(
    connection: &mut SqliteConnection,
    sql: &str,
    columns: &[Column],
    wait: Wait<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), PluginError> {
    // A statement that was told to stop ends with an error of its own.
    let broken = |error: sqlx::Error| wait.stop.check().err().unwrap_or_else(|| failed(wait.doing, &error));
    let mut stream = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false).fetch(&mut *connection);
    let mut rows = Rows::new(columns);
    while let Some(row) = wait.on(stream.next()).await? {
        let row = row.map_err(broken)?;
        let mut text_bytes = 0;
        for (at, column) in columns.iter().enumerate() {
            let value = row.try_get_raw(at).map_err(broken)?;
            let cells = &mut rows.cells[at];
            if value.is_null() {
                cells.null();
                continue;
            }
            let found = value.type_info();
            match (cells, found.name()) {
                (Cells::Integer(cells), "INTEGER") => cells.append_value(row.try_get_unchecked(at).map_err(broken)?),
                (Cells::Integer(_), other) => return Err(mixed(column, other)),
                (Cells::Text(cells), "INTEGER") => cells.append_value(row.try_get_unchecked::<i64, _>(at).map_err(broken)?.to_string()),
                (Cells::Text(cells), "REAL") => cells.append_value(row.try_get_unchecked::<f64, _>(at).map_err(broken)?.to_string()),
                (Cells::Text(cells), "TEXT") => {
                    let text: &str = row.try_get_unchecked(at).map_err(broken)?;
                    text_bytes += text.len();
                    if text_bytes > ROW_BYTES_MAX {
                        return Err(too_large(&column.name));
                    }
                    cells.append_value(text);
                }
                (_, other) => return Err(no_type(&column.name, other)),
            }
        }
        if let Some(batch) = rows.end_row(text_bytes) {
            sink(batch)?;
        }
    }
    rows.finish().map_or(Ok(()), sink)
}

fn mixed(column: &Column, found: &str) -> PluginError {
    let name = &column.name;
    PluginError::new(ErrorClass::InvalidData, format!("the column {name:?} has whole numbers, and in one row a value of the type {found}"))
        .key("query")
        .hint(format!("read it as text: cast({name} as text) as {name}"))
}
