//! Changes an SQLite file for tests, as the program that it belongs to would.

use std::path::Path;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection};

/// Runs statements in a file, which is made where it is not there.
pub fn execute(path: &Path, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
        // Others may be writing.
        let options = options.busy_timeout(Duration::from_secs(60));
        let mut connection = options.connect().await.expect("the file opens");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("it runs");
        connection.close().await.expect("it closes");
    });
}
