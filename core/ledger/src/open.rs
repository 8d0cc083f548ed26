//! Opening a ledger, making its tables where they are missing.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reunion_keys::KeyRing;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr};

use crate::error::{LedgerError, Result};
use crate::lease::LEASE_TTL;
use crate::sql::{Store, args};

/// The schema's versions, oldest first. A version that was released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "start", include_str!("../migrations/1_start.sql")),
    (2, "forget", include_str!("../migrations/2_forget.sql")),
    (3, "decisions", include_str!("../migrations/3_decisions.sql")),
];

/// A writer of another process is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection of our own pool is waited for this long; a commit of 100,000 tasks may be ahead.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
const READERS_MAX: u32 = 4;
/// Rows that SQLite's thread may be ahead of whoever reads them: to wait for each other costs more than a row.
const ROWS_AHEAD: usize = 1024;
/// Pages of the write-ahead log, of 4 KiB, beyond which they are copied into the database: a page that many
/// transactions change is copied once.
const WAL_PAGES: u32 = 8192;
const POSTGRES_CONNECTIONS_MAX: u32 = 8;

/// Where a ledger is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of this machine. Its folder must be there.
    Sqlite(PathBuf),
    /// A PostgreSQL database by its URL.
    Postgres(String),
}

impl fmt::Display for Location {
    /// The path, or the URL with its password left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// The URL up to its host, without user, password and parameters, any of which may hold a secret.
fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// A process that was stopped, or whose machine sleeps, in the middle of a transaction would keep its locks for
/// as long, and everybody else waiting for them. No transaction of ours waits for anything but the database.
fn give_up_frozen() -> String {
    format!("set idle_in_transaction_session_timeout = {}", 2 * LEASE_TTL.as_millis())
}

/// The ledger. Cheap to clone; all clones share their connections and count as one holder of
/// dispatches.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) store: Store,
    pub(crate) keys: Arc<KeyRing>,
    /// Tells this opening of the ledger from every other.
    pub(crate) me: [u8; 16],
}

impl Ledger {
    /// Opens a ledger; an empty location becomes an empty ledger. A SQLite file is made with mode
    /// 0600, in WAL mode with `synchronous = FULL`.
    ///
    /// # Errors
    /// [`LedgerError::File`], [`LedgerError::Open`] and [`LedgerError::Migrate`].
    pub async fn open(location: &Location, keys: Arc<KeyRing>) -> Result<Self> {
        let opened = |source| LedgerError::Open { location: location.to_string(), source: Box::new(source) };
        let store = match location {
            Location::Sqlite(path) => open_sqlite(path, opened).await?,
            Location::Postgres(url) => {
                let options = PgConnectOptions::from_str(url).map_err(opened)?;
                let options = options.application_name("reunion").disable_statement_logging();
                // A pool tries again until its timeout; the first connection says at once what is wrong.
                options.connect().await.map_err(opened)?.close().await.map_err(opened)?;
                let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(AssertSqlSafe(give_up_frozen())).await.map(|_| ()) })
                });
                Store::Postgres(pool.connect_lazy_with(options))
            }
        };
        migrate(&store).await.map_err(|source| LedgerError::Migrate { location: location.to_string(), source: Box::new(source) })?;
        let me = instance(&keys);
        Ok(Self { store, keys, me })
    }

    /// Whether the ledger answers.
    ///
    /// # Errors
    /// [`LedgerError::Store`] where it does not.
    pub async fn health(&self) -> Result<()> {
        let mut tx = self.store.read("answer").await?;
        tx.row("select value from counters where name = $1", args!["facts"], |row| row.int(0)).await?;
        tx.commit().await
    }

    /// Whether other machines may work on the same ledger.
    pub fn is_shared(&self) -> bool {
        matches!(self.store, Store::Postgres(_))
    }

    /// Closes every connection once its transaction has ended.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

async fn open_sqlite(path: &Path, opened: impl Fn(sqlx::Error) -> LedgerError) -> Result<Store> {
    make_file(path).map_err(|source| LedgerError::File { path: path.to_owned(), source })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Statements that write many rows keep what they overwrite until they end: in a file that would be read
        // and written for each.
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", WAL_PAGES.to_string())
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging();
    // One writer: those of this process queue here, those of others at the file's lock.
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // On a full disk SQLite ends a transaction by itself, and the connection, which does not know,
            // would refuse every later one. The ping waits until a rollback has been tried.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
    };
    // 64 MiB of pages, so that the indexes stay in memory while a run's tasks are inserted.
    let write = pool(1).connect_with(options.clone().pragma("cache_size", "-65536")).await.map_err(&opened)?;
    let read = pool(READERS_MAX).connect_with(options).await.map_err(&opened)?;
    Ok(Store::Sqlite { write, read })
}

/// Makes the file for its owner alone, and its name durable, before SQLite sees it. The files that
/// SQLite puts beside it take its mode.
fn make_file(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

async fn migrate(store: &Store) -> std::result::Result<(), sqlx::migrate::MigrateError> {
    let is_sqlite = matches!(store, Store::Sqlite { .. });
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = if is_sqlite { sql.replace(" bytea", " blob") } else { (*sql).to_owned() };
        Migration::new(*version, (*name).into(), MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    match store {
        Store::Sqlite { write, .. } if is_current(write).await => migrator.run(write).await,
        // SQLite has no lock of its own for this: the first opener makes the tables, the others wait.
        Store::Sqlite { write, .. } => {
            let mut tx = write.begin_with("begin immediate").await?;
            migrator.run(&mut *tx).await?;
            Ok(tx.commit().await?)
        }
        Store::Postgres(pool) => migrator.run(pool).await,
    }
}

/// Whether there is nothing to bring up to date, so that opening need not wait for a writer.
async fn is_current(pool: &SqlitePool) -> bool {
    let last = sqlx::query_scalar::<_, Option<i64>>("select max(version) from _sqlx_migrations").fetch_one(pool).await;
    last.ok().flatten() >= MIGRATIONS.last().map(|(version, ..)| *version)
}

/// Sixteen bytes that no other opening has: a hash of process, time and a count.
fn instance(keys: &KeyRing) -> [u8; 16] {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let host = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = OPENED.fetch_add(1, Ordering::Relaxed);
    let parts: [&[u8]; 4] = [&host, &std::process::id().to_be_bytes(), &now.to_be_bytes(), &count.to_be_bytes()];
    keys.lookup().id("ledger instance", &parts)
}

#[cfg(test)]
mod tests {
    use reunion_keys::MasterKey;

    use super::*;

    #[tokio::test]
    async fn a_full_disk_does_no_harm_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, _) = KeyRing::create(&MasterKey::from_hex(&"1".repeat(64)).unwrap()).unwrap();
        let ledger = Ledger::open(&Location::Sqlite(folder.path().join("ledger.sqlite")), Arc::new(keys)).await.unwrap();
        let mut tx = ledger.store.write("fill the disk").await.unwrap();
        tx.execute("create table filler (bytes blob)", args![]).await.unwrap();
        tx.execute("pragma max_page_count = 1", args![]).await.unwrap();
        let error = tx.execute("insert into filler values (zeroblob(1000000))", args![]).await.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("full"), "{error}");
        drop(tx);
        let mut tx = ledger.store.write("go on").await.unwrap();
        tx.execute("create table filler (bytes blob)", args![]).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[test]
    fn a_location_shows_no_password() {
        let shown = |url: &str| Location::Postgres(url.into()).to_string();
        assert_eq!(shown("postgres://reunion:s3cret@db.internal/reunion?sslmode=require&password=x"), "postgres://db.internal/reunion");
        assert_eq!(shown("postgres://reunion:p@ss@db/reunion"), "postgres://db/reunion");
        assert_eq!(shown("postgres:///reunion?host=/run/postgresql"), "postgres:///reunion");
        assert_eq!(format!("{:?}", Location::Sqlite("/var/lib/x.db".into())), "Location(/var/lib/x.db)");
    }
}
