//! One way to speak SQL to both databases.
//!
//! SQLite and PostgreSQL take the same text with `$1` placeholders for almost everything that the
//! ledger does, so every operation is written once. What differs is in this file: how a transaction
//! begins, how rows are locked, and how the clock of the database is read.

use futures::TryStreamExt;
use futures::future::BoxFuture;
use reunion_model::{ContactId, DecisionId, DispatchId, MemberId, PullId, RecordKey, RunId, TaskId, fault};
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Transaction};

use crate::error::{LedgerError, Result};

/// Rows of one statement that writes many. SQLite allows 32,766 parameters, PostgreSQL 65,535.
const ROWS_PER_STATEMENT: usize = 128;

/// The connections to one database.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// One connection writes, so that writers of this process queue instead of waking each other up.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Postgres(PgPool),
}

/// An open transaction; dropped without a commit, it never happened.
pub(crate) struct Tx {
    inner: Inner,
    doing: &'static str,
}

enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Store {
    /// Begins to write. On SQLite no other writer is let in from here to the commit. `doing` names
    /// the operation in errors.
    pub async fn write(&self, doing: &'static str) -> Result<Tx> {
        let inner = match self {
            Self::Sqlite { write, .. } => write.begin_with("begin immediate").await.map(Inner::Sqlite),
            Self::Postgres(pool) => pool.begin().await.map(Inner::Postgres),
        };
        Ok(Tx { inner: inner.map_err(|source| failed(doing, source))?, doing })
    }

    /// Begins to read: all statements see the state of one moment.
    pub async fn read(&self, doing: &'static str) -> Result<Tx> {
        let inner = match self {
            Self::Sqlite { read, .. } => read.begin().await.map(Inner::Sqlite),
            Self::Postgres(pool) => {
                pool.begin_with("begin transaction isolation level repeatable read read only").await.map(Inner::Postgres)
            }
        };
        Ok(Tx { inner: inner.map_err(|source| failed(doing, source))?, doing })
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// Makes everything in it durable.
    pub async fn commit(self) -> Result<()> {
        fault::point_of("ledger.before", self.doing);
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await,
            Inner::Postgres(tx) => tx.commit().await,
        }
        .map_err(|source| failed(self.doing, source))?;
        fault::point_of("ledger.after", self.doing);
        Ok(())
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.inner, Inner::Postgres(_))
    }

    /// Locks the rows read against change until the end; SQLite has locked everything already.
    pub fn for_share(&self) -> &'static str {
        if self.is_postgres() { " for share" } else { "" }
    }

    /// Locks the rows read against others who want to write them.
    pub fn for_update(&self) -> &'static str {
        if self.is_postgres() { " for update" } else { "" }
    }

    /// Locks the rows of the table `t`, leaving out those that another transaction has locked.
    pub fn for_update_skip_locked(&self) -> &'static str {
        if self.is_postgres() { " for update of t skip locked" } else { "" }
    }

    /// Orders texts by their bytes, whatever the database's language is.
    pub fn by_bytes(&self) -> &'static str {
        if self.is_postgres() { " collate \"C\"" } else { " collate binary" }
    }

    /// An aggregate of ids: all of them as one text, to be read by [`Row::ids`]. Rows are costly, since each
    /// goes from thread to thread or over the network.
    pub fn ids_of(&self, column: &str) -> String {
        if self.is_postgres() { format!("string_agg(encode({column}, 'hex'), '')") } else { format!("group_concat(hex({column}), '')") }
    }

    /// An expression for the database's own clock in microseconds: the one clock that several
    /// machines share. With SQLite it is the machine's.
    pub fn clock(&self) -> &'static str {
        if self.is_postgres() {
            "cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)"
        } else {
            "cast((julianday('now') - 2440587.5) * 86400000000 as bigint)"
        }
    }

    /// Runs a statement; the number of rows that it wrote.
    pub async fn execute(&mut self, sql: impl SqlSafeStr, args: Args) -> Result<u64> {
        let sql = sql.into_sql_str();
        let doing = self.doing;
        match &mut self.inner {
            Inner::Sqlite(tx) => sqlx::query_with::<Sqlite, _>(sql, sqlite(args)).execute(&mut **tx).await.map(|done| done.rows_affected()),
            Inner::Postgres(tx) => {
                sqlx::query_with::<Postgres, _>(sql, postgres(args)).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
        }
        .map_err(|source| failed(doing, source))
    }

    /// Runs a query and hands over row after row.
    //
    // This and what follows give boxed futures: where a closure's type is part of a future's type, the
    // compiler cannot tell that the future may move between threads.
    pub fn each<'a>(
        &'a mut self,
        sql: impl SqlSafeStr,
        args: Args,
        mut take: impl FnMut(Row) -> Result<()> + Send + 'a,
    ) -> BoxFuture<'a, Result<()>> {
        let sql: SqlStr = sql.into_sql_str();
        let doing = self.doing;
        Box::pin(async move {
            match &mut self.inner {
                Inner::Sqlite(tx) => {
                    let mut rows = sqlx::query_with::<Sqlite, _>(sql, sqlite(args)).fetch(&mut **tx);
                    while let Some(row) = rows.try_next().await.map_err(|source| failed(doing, source))? {
                        take(Row { row: AnyRow::Sqlite(row), doing })?;
                    }
                }
                Inner::Postgres(tx) => {
                    let mut rows = sqlx::query_with::<Postgres, _>(sql, postgres(args)).fetch(&mut **tx);
                    while let Some(row) = rows.try_next().await.map_err(|source| failed(doing, source))? {
                        take(Row { row: AnyRow::Postgres(row), doing })?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Every row, each read by `read`.
    pub fn rows<'a, T: Send + 'a>(
        &'a mut self,
        sql: impl SqlSafeStr,
        args: Args,
        mut read: impl FnMut(&Row) -> Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<Vec<T>>> {
        let sql = sql.into_sql_str();
        Box::pin(async move {
            let mut all = Vec::new();
            let taken = self.each(sql, args, |row| {
                all.push(read(&row)?);
                Ok(())
            });
            taken.await?;
            Ok(all)
        })
    }

    /// The first row, if there is one.
    pub fn row<'a, T: Send + 'a>(
        &'a mut self,
        sql: impl SqlSafeStr,
        args: Args,
        read: impl FnMut(&Row) -> Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<Option<T>>> {
        let rows = self.rows(sql, args, read);
        Box::pin(async move { Ok(rows.await?.into_iter().next()) })
    }

    /// Runs a statement for many rows at a time. In `sql`, `{values}` stands for the tuples, whose
    /// placeholders follow those of `shared`. The number of rows written.
    pub fn bulk<'a, I>(&'a mut self, sql: &'a str, shared: &'a Args, rows: I) -> BoxFuture<'a, Result<u64>>
    where
        I: IntoIterator<Item = Args, IntoIter: Send + 'a>,
    {
        let chunks = chunks(sql, shared, rows.into_iter(), self.is_postgres());
        Box::pin(async move {
            let mut written = 0;
            for (sql, args) in chunks {
                written += self.execute(AssertSqlSafe(sql), args).await?;
            }
            Ok(written)
        })
    }

    /// As [`Tx::bulk`], for a statement that returns rows.
    pub fn bulk_rows<'a, T, I>(
        &'a mut self,
        sql: &'a str,
        shared: &'a Args,
        rows: I,
        mut read: impl FnMut(&Row) -> Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<Vec<T>>>
    where
        T: Send + 'a,
        I: IntoIterator<Item = Args, IntoIter: Send + 'a>,
    {
        let chunks = chunks(sql, shared, rows.into_iter(), self.is_postgres());
        Box::pin(async move {
            let mut all = Vec::new();
            for (sql, args) in chunks {
                all.extend(self.rows(AssertSqlSafe(sql), args, &mut read).await?);
            }
            Ok(all)
        })
    }

    /// Raises a counter by `by` and returns its new value. The counter's row stays locked until the
    /// commit, so that whoever raises it later also commits later.
    pub async fn raise(&mut self, counter: &'static str, by: u64) -> Result<u64> {
        let sql = "update counters set value = value + $2 where name = $1 returning value";
        let value = self.row(sql, args![counter, by], |row| row.unsigned(0)).await?;
        value.ok_or_else(|| LedgerError::NotFound { what: "counter", name: counter.into() })
    }
}

/// The statements for all rows: full ones, which the database prepares once, and a last shorter one.
fn chunks(sql: &str, shared: &Args, mut rows: impl Iterator<Item = Args>, is_postgres: bool) -> impl Iterator<Item = (String, Args)> {
    std::iter::from_fn(move || {
        let rows: Vec<Args> = rows.by_ref().take(ROWS_PER_STATEMENT).collect();
        (!rows.is_empty()).then(|| if is_postgres { numbered(sql, shared, rows) } else { in_order(sql, shared, rows) })
    })
}

/// The statement for these rows with numbered placeholders, as PostgreSQL has them.
fn numbered(sql: &str, shared: &Args, rows: Vec<Args>) -> (String, Args) {
    let mut next = shared.len();
    let tuples = tuples(&rows, |tuples| {
        next += 1;
        tuples.push_str(&format!("${next}"));
    });
    (sql.replace("{values}", &tuples), shared.iter().cloned().chain(rows.into_iter().flatten()).collect())
}

/// The statement for these rows with placeholders in the order of their values. SQLite takes numbered
/// ones for names, and finding names costs the square of their number.
fn in_order(sql: &str, shared: &Args, rows: Vec<Args>) -> (String, Args) {
    let tuples = tuples(&rows, |tuples| tuples.push('?'));
    let mut rows = rows.into_iter().flatten();
    let (mut text, mut args) = (String::with_capacity(sql.len() + tuples.len()), Args::new());
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '{']) {
        text.push_str(&rest[..at]);
        if let Some(after) = rest[at..].strip_prefix("{values}") {
            text.push_str(&tuples);
            args.extend(rows.by_ref());
            rest = after;
        } else {
            let digits = rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest[at + 1..].split_at(digits);
            let number: usize = number.parse().expect("a statement's `$` has a number");
            text.push('?');
            args.push(shared[number - 1].clone());
            rest = after;
        }
    }
    text.push_str(rest);
    (text, args)
}

/// One tuple of placeholders for each row.
fn tuples(rows: &[Args], mut placeholder: impl FnMut(&mut String)) -> String {
    let mut tuples = String::new();
    for row in rows {
        tuples.push_str(if tuples.is_empty() { "(" } else { ",(" });
        for at in 0..row.len() {
            if at > 0 {
                tuples.push(',');
            }
            placeholder(&mut tuples);
        }
        tuples.push(')');
    }
    tuples
}

/// The values of a statement's placeholders.
pub(crate) type Args = Vec<Arg>;

/// The value of one placeholder. The variant tells PostgreSQL the type of a null.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// The values of a statement's placeholders, each of any type that the ledger stores.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::sql::Arg::from($value)),*] };
}
pub(crate) use args;

macro_rules! arg_from {
    ($($from:ty => $variant:ident($convert:expr),)+) => {$(
        impl From<$from> for Arg {
            fn from(value: $from) -> Self {
                let convert: fn($from) -> _ = $convert;
                Self::$variant(Some(convert(value)))
            }
        }

        impl From<Option<$from>> for Arg {
            fn from(value: Option<$from>) -> Self {
                let convert: fn($from) -> _ = $convert;
                Self::$variant(value.map(convert))
            }
        }
    )+};
}

arg_from! {
    i64 => Int(|value| value),
    // Counters and numbers that start at 0 and never come near 2^63.
    u64 => Int(|value| value as i64),
    u32 => Int(i64::from),
    i32 => Int(i64::from),
    usize => Int(|value| value as i64),
    bool => Int(i64::from),
    &str => Text(str::to_owned),
    &String => Text(String::clone),
    String => Text(|value| value),
    Vec<u8> => Bytes(|value| value),
    [u8; 16] => Bytes(|value| value.to_vec()),
    TaskId => Bytes(|value| value.0.to_vec()),
    MemberId => Bytes(|value| value.0.to_vec()),
    ContactId => Bytes(|value| value.0.to_vec()),
    DispatchId => Bytes(|value| value.0.to_vec()),
    RunId => Bytes(|value| value.0.to_vec()),
    PullId => Bytes(|value| value.0.to_vec()),
    DecisionId => Bytes(|value| value.0.to_vec()),
    &[RecordKey] => Bytes(|keys| keys.iter().flat_map(|key| key.0).collect()),
}

fn sqlite(args: Args) -> SqliteArguments {
    let mut bound = SqliteArguments::default();
    bind(&mut bound, args);
    bound
}

fn postgres(args: Args) -> PgArguments {
    let mut bound = PgArguments::default();
    bind(&mut bound, args);
    bound
}

fn bind<A: Arguments>(bound: &mut A, args: Args)
where
    Option<i64>: for<'q> sqlx::Encode<'q, A::Database> + sqlx::Type<A::Database>,
    Option<String>: for<'q> sqlx::Encode<'q, A::Database> + sqlx::Type<A::Database>,
    Option<Vec<u8>>: for<'q> sqlx::Encode<'q, A::Database> + sqlx::Type<A::Database>,
{
    bound.reserve(args.len(), 0);
    for arg in args {
        let added = match arg {
            Arg::Int(value) => bound.add(value),
            Arg::Text(value) => bound.add(value),
            Arg::Bytes(value) => bound.add(value),
        };
        added.expect("integers, texts and bytes below a gigabyte can always be encoded");
    }
}

/// One row of a result.
pub(crate) struct Row {
    row: AnyRow,
    doing: &'static str,
}

enum AnyRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub fn int(&self, at: usize) -> Result<i64> {
        self.int_or_null(at)?.ok_or_else(|| self.null(at))
    }

    pub fn int_or_null(&self, at: usize) -> Result<Option<i64>> {
        match &self.row {
            AnyRow::Sqlite(row) => row.try_get(at),
            AnyRow::Postgres(row) => row.try_get(at),
        }
        .map_err(|source| failed(self.doing, source))
    }

    pub fn unsigned(&self, at: usize) -> Result<u64> {
        unsigned(self.int(at)?)
    }

    pub fn unsigned_or_null(&self, at: usize) -> Result<Option<u64>> {
        self.int_or_null(at)?.map(unsigned).transpose()
    }

    pub fn small(&self, at: usize) -> Result<u32> {
        let value = self.int(at)?;
        u32::try_from(value).map_err(|_| LedgerError::Damaged { what: "a number", detail: format!("{value} is out of range") })
    }

    pub fn flag(&self, at: usize) -> Result<bool> {
        Ok(self.int(at)? != 0)
    }

    pub fn text(&self, at: usize) -> Result<String> {
        self.text_or_null(at)?.ok_or_else(|| self.null(at))
    }

    pub fn text_or_null(&self, at: usize) -> Result<Option<String>> {
        match &self.row {
            AnyRow::Sqlite(row) => row.try_get(at),
            AnyRow::Postgres(row) => row.try_get(at),
        }
        .map_err(|source| failed(self.doing, source))
    }

    /// A text of a closed set, read by `from_name`.
    pub fn word<T>(&self, at: usize, what: &'static str, from_name: impl Fn(&str) -> Option<T>) -> Result<T> {
        let word = self.text(at)?;
        from_name(&word).ok_or_else(|| LedgerError::Damaged { what, detail: format!("`{word}` is not known") })
    }

    pub fn bytes(&self, at: usize) -> Result<Vec<u8>> {
        self.bytes_or_null(at)?.ok_or_else(|| self.null(at))
    }

    pub fn bytes_or_null(&self, at: usize) -> Result<Option<Vec<u8>>> {
        match &self.row {
            AnyRow::Sqlite(row) => row.try_get(at),
            AnyRow::Postgres(row) => row.try_get(at),
        }
        .map_err(|source| failed(self.doing, source))
    }

    pub fn id<T: Id>(&self, at: usize) -> Result<T> {
        id(&self.bytes(at)?)
    }

    pub fn id_or_null<T: Id>(&self, at: usize) -> Result<Option<T>> {
        self.bytes_or_null(at)?.map(|bytes| id(&bytes)).transpose()
    }

    /// The ids of a value that [`Tx::ids_of`] made.
    pub fn ids<T: Id>(&self, at: usize) -> Result<Vec<T>> {
        let text = self.text(at)?;
        let damaged = |_| LedgerError::Damaged { what: "a list of ids", detail: format!("it has {} digits ({})", text.len(), self.doing) };
        let bytes = hex::decode(&text).map_err(damaged)?;
        bytes.chunks(16).map(id).collect()
    }

    /// The ids that stand one behind the other in a value.
    pub fn ids_in_a_row<T: Id>(&self, at: usize) -> Result<Vec<T>> {
        self.bytes(at)?.chunks(16).map(id).collect()
    }

    fn null(&self, at: usize) -> LedgerError {
        LedgerError::Damaged { what: "a row", detail: format!("its value {} is missing ({})", at + 1, self.doing) }
    }
}

fn unsigned(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| LedgerError::Damaged { what: "a number", detail: format!("{value} is negative") })
}

/// An id of sixteen bytes.
pub(crate) trait Id: Sized {
    fn from_bytes(bytes: [u8; 16]) -> Self;
}

macro_rules! ids {
    ($($name:ident)+) => {$(
        impl Id for $name {
            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }
    )+};
}

ids! { TaskId MemberId ContactId DispatchId RunId PullId DecisionId RecordKey }

impl Id for [u8; 16] {
    fn from_bytes(bytes: [u8; 16]) -> Self {
        bytes
    }
}

fn id<T: Id>(bytes: &[u8]) -> Result<T> {
    let length = bytes.len();
    let bytes = bytes.try_into().map_err(|_| LedgerError::Damaged { what: "an id", detail: format!("it has {length} bytes") })?;
    Ok(T::from_bytes(bytes))
}

pub(crate) fn failed(doing: &'static str, source: sqlx::Error) -> LedgerError {
    LedgerError::Store { doing, source: Box::new(source) }
}

/// Whether this is the violation of a unique key.
pub(crate) fn is_duplicate(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Store { source, .. }
        if source.as_database_error().is_some_and(|error| error.is_unique_violation()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_bulk_statement_carry_the_same_values() {
        let sql = "update t set a = $2, b = $1 from (values {values}) as v where c = $2";
        let (shared, rows) = (args![1, 2], vec![args![3, "x"], args![4, "y"]]);
        let (text, args) = numbered(sql, &shared, rows.clone());
        assert_eq!(text, "update t set a = $2, b = $1 from (values ($3,$4),($5,$6)) as v where c = $2");
        assert_eq!(format!("{args:?}"), format!("{:?}", args![1, 2, 3, "x", 4, "y"]));
        let (text, args) = in_order(sql, &shared, rows);
        assert_eq!(text, "update t set a = ?, b = ? from (values (?,?),(?,?)) as v where c = ?");
        assert_eq!(format!("{args:?}"), format!("{:?}", args![2, 1, 3, "x", 4, "y", 2]));
    }
}
