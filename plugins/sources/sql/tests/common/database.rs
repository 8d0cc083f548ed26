//! The databases that tests read: each with a way to change it that does not go through the plugin.

#[path = "mariadb.rs"]
pub mod mariadb;
#[path = "../../../../../core/ledger/tests/common/postgres.rs"]
pub mod postgres;
#[path = "sqlite.rs"]
mod sqlite;

use std::path::PathBuf;

/// A database.
pub enum Database {
    Sqlite { path: PathBuf, _folder: Option<tempfile::TempDir> },
    Postgres(String),
    Mariadb { name: String, url: String },
}

impl Database {
    /// One of each kind.
    pub fn all() -> Vec<Self> {
        vec![Self::sqlite(), Self::postgres(), Self::mariadb()]
    }

    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::Sqlite { path: folder.path().join("till.db"), _folder: Some(folder) }
    }

    pub fn postgres() -> Self {
        Self::Postgres(postgres::server().database())
    }

    pub fn mariadb() -> Self {
        let (name, url) = mariadb::server().database("root");
        Self::Mariadb { name, url }
    }

    /// The key of the config that says where it is, and its value.
    pub fn place(&self) -> (&'static str, String) {
        match self {
            Self::Sqlite { path, .. } => ("file", path.display().to_string()),
            Self::Postgres(url) | Self::Mariadb { url, .. } => ("url", url.clone()),
        }
    }

    /// Runs statements. The types `{text}` and `{time}` are those of the database.
    pub fn execute(&self, sql: &str) {
        let (text, time) = match self {
            Self::Sqlite { .. } => ("text", "text"),
            Self::Postgres(_) => ("text", "timestamp"),
            Self::Mariadb { .. } => ("varchar(64)", "datetime(6)"),
        };
        let sql = sql.replace("{text}", text).replace("{time}", time);
        match self {
            Self::Sqlite { path, .. } => sqlite::execute(path, &sql),
            Self::Postgres(url) => postgres::server().execute(url, &sql),
            Self::Mariadb { name, .. } => mariadb::server().execute(name, &sql),
        }
    }
}
