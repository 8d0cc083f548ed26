//! One reading of a query, and the resume states that say how far it came.
//!
//! A thread of its own speaks with the database, and hands batches over while the host works on those before.
//! Rows are read in the order of the id, or of the cursor and the id, so that the last row says where to go on:
//! within a pull on another connection, and in the next run by the resume state. Without an id there is no order
//! and no going on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use reunion_sdk::arrow::array::{Array, ArrayRef, RecordBatch};
use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{Call, ErrorClass, Finding, Item, PluginError, ReadMode, ReadRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_128;

use crate::columns::{self, Column};
use crate::config::{CURSOR, Config, Dialect, NullCursor};
use crate::database::{Clock, Session};
use crate::failure::is_lost;
use crate::query::{Part, count_after, count_nulls, select, with_cursor};
use crate::value::{CursorKind, Value, is_id};
use crate::wait::{LOOK_EVERY, Stop, Wait};

/// Batches that are read ahead.
const AHEAD: usize = 2;
/// A resume state follows after so many rows.
const STATE_ROWS: usize = 64 << 10;
/// Before the first connection that is made anew, doubled before each further one.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(60);
const STATE_VERSION: u32 = 1;

/// The resume state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    /// A hash of what is read from where: of another one nothing here means anything.
    query: String,
    /// The greatest cursor that pulls which have ended came by, none of them of the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watermark: Option<Value>,
    /// The pull that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pull: Option<Progress>,
}

/// How far a pull came.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    mode: ReadMode,
    /// When it began, in microseconds UTC.
    started_us: i64,
    /// The cursor from which it reads; none for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Value>,
    /// The greatest cursor so far that is not of the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<Value>,
    /// The last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Place>,
}

/// A row in the order in which rows are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Its cursor; none for rows without one, which come last, and where the order is that of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Value>,
    id: Value,
}

/// The columns of the query, and which of them say where a pull stands.
struct Shape {
    columns: Vec<Column>,
    id: Option<usize>,
    cursor: Option<(usize, CursorKind)>,
}

impl Shape {
    /// Asks the database for the columns.
    async fn of(session: &mut Session, config: &Config, dialect: Dialect, wait: Wait<'_>) -> Result<Self, PluginError> {
        let (id, cursor) = (config.id_column.as_deref(), config.cursor_column.as_deref());
        let literal = match dialect {
            Dialect::Postgres | Dialect::Mysql => "null".to_owned(),
            // Whose columns are known by their values: below every number, and so below every text.
            Dialect::Sqlite => CursorKind::Integer.minimum(dialect),
        };
        let query = with_cursor(&config.query, &literal);
        let columns = session.columns(&query, &[id, cursor].into_iter().flatten().collect::<Vec<_>>(), wait).await?;
        if columns.is_empty() {
            return Err(PluginError::new(ErrorClass::InvalidConfig, "the query gives no columns").key("query").hint("write a select"));
        }
        if let Some(twice) = columns.iter().enumerate().find(|(at, column)| columns[..*at].iter().any(|other| other.name == column.name)) {
            let message = format!("the query gives two columns of the name {:?}", twice.1.name);
            return Err(PluginError::new(ErrorClass::InvalidConfig, message).key("query").hint("give one of them another name: … as …"));
        }
        let place = |key: &str, name: &str| {
            columns.iter().position(|column| column.name == name).ok_or_else(|| {
                let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
                PluginError::new(ErrorClass::InvalidConfig, format!("the query has no column {name:?}; it has {names}")).key(key)
            })
        };
        let of_no_use = |key: &str, at: usize, what: &str| {
            let Column { name, kind, .. } = &columns[at];
            PluginError::new(ErrorClass::InvalidConfig, format!("the column {name:?} is of the type {}, and {what}", kind.arrow())).key(key)
        };
        let id = id.map(|name| place("id_column", name)).transpose()?;
        if let Some(at) = id.filter(|at| !is_id(&columns[*at].kind.arrow())) {
            return Err(of_no_use("id_column", at, "an id is a text, a number or a time"));
        }
        let cursor = cursor.map(|name| {
            let at = place("cursor_column", name)?;
            let kind = CursorKind::of(&columns[at].kind.arrow());
            Ok((at, kind.ok_or_else(|| of_no_use("cursor_column", at, "a cursor is a time, a day, a whole number or a text"))?))
        });
        let cursor = cursor.transpose()?;
        Ok(Self { columns, id, cursor })
    }

    fn name(&self, at: usize) -> &str {
        &self.columns[at].name
    }
}

/// The columns that a read gives.
///
/// # Errors
/// Where the database is not reached, or does not understand the query.
pub fn schema(call: &Call, config: &Config, dialect: Dialect) -> Result<SchemaRef, PluginError> {
    run(async {
        let stop = Stop::of(call);
        let mut session = Session::connect(config, dialect, &stop).await?;
        let shape = Shape::of(&mut session, config, dialect, looking(config, &stop)).await?;
        session.close().await;
        Ok(columns::schema(&shape.columns))
    })
}

/// What there is to say of a source that can be read.
///
/// # Errors
/// As [`schema`].
pub fn check(call: &Call, config: &Config, dialect: Dialect) -> Result<Vec<Finding>, PluginError> {
    run(async {
        let stop = Stop::of(call);
        let mut session = Session::connect(config, dialect, &stop).await?;
        let wait = looking(config, &stop);
        let shape = Shape::of(&mut session, config, dialect, wait).await?;
        let mut findings = Vec::new();
        if let Some((at, kind)) = shape.cursor {
            let name = shape.name(at);
            let query = with_cursor(&config.query, &kind.minimum(dialect));
            let nulls = session.number(&count_nulls(dialect, &query, name), wait).await?;
            if nulls > 0 {
                let what = match config.null_cursor {
                    NullCursor::Read => "read in every pull",
                    NullCursor::Refuse => "for which null_cursor = \"refuse\" ends every pull",
                };
                findings.push(Finding::warning(format!("rows without a value in {name:?}: {nulls}, {what}")));
            }
            if let Clock::At(now) = session.clock(kind, config, wait).await? {
                let future = session.number(&count_after(dialect, &query, name, &now), wait).await?;
                if future > 0 {
                    let what = "read, and not counted for where the next pull begins";
                    findings.push(Finding::warning(format!("rows with a time in {name:?} that has not come yet: {future}, {what}")));
                }
            }
        }
        if shape.id.is_none() {
            findings.push(Finding::info("without id_column a pull that loses the server begins anew"));
        }
        session.close().await;
        Ok(findings)
    })
}

fn looking<'a>(config: &Config, stop: &'a Stop) -> Wait<'a> {
    Wait { stop, secs: config.statement_timeout_secs, key: "statement_timeout_secs", doing: "looking at the query" }
}

/// Runs what waits for a database.
fn run<T>(work: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| PluginError::new(ErrorClass::Internal, format!("no runtime: {error}")))?;
    let result = runtime.block_on(work);
    // A name that is being looked up cannot be called off; nobody waits for it.
    runtime.shutdown_background();
    result
}

/// A running read: a stream of items.
pub struct Pull {
    items: Option<Receiver<Result<Item, PluginError>>>,
    stop: Stop,
    reader: Option<JoinHandle<()>>,
    is_over: bool,
}

impl Pull {
    /// Begins, or goes on where `state` says if the query is still the same.
    ///
    /// # Errors
    /// Invalid config for what this mode needs.
    pub fn begin(
        call: Call,
        config: Arc<Config>,
        dialect: Dialect,
        request: ReadRequest,
        state: Option<Json>,
    ) -> Result<Self, PluginError> {
        if request.mode == ReadMode::Incremental && !config.query.contains(CURSOR) {
            let error = PluginError::new(ErrorClass::InvalidConfig, "an incremental source needs $cursor in its query").key("query");
            return Err(error.hint("write … where changed_at >= $cursor, and set cursor_column; or set mode = \"snapshot\""));
        }
        let (items, taken) = sync_channel(AHEAD);
        let stop = Stop::of(&call);
        let mut reader = Reader {
            fingerprint: fingerprint(&config),
            config,
            dialect,
            stop: stop.clone(),
            items,
            watermark: None,
            progress: Progress {
                mode: request.mode,
                started_us: jiff::Timestamp::now().as_microsecond(),
                from: None,
                high: None,
                at: None,
            },
            rows_since_state: 0,
            future: 0,
        };
        let is_resumed = reader.take_up(&request, state);
        let spawned = std::thread::Builder::new().name("sql".to_owned()).spawn(move || {
            if let Err(error) = run(reader.read(request.overlap_secs, is_resumed)) {
                // Gone with whoever was to hear of it.
                let _ = reader.items.send(Err(error));
            }
        });
        let spawned = spawned.map_err(|error| PluginError::new(ErrorClass::Internal, format!("no thread: {error}")))?;
        Ok(Self { items: Some(taken), stop, reader: Some(spawned), is_over: false })
    }
}

impl Iterator for Pull {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.items.as_ref()?.recv_timeout(LOOK_EVERY) {
                Ok(item) => {
                    self.is_over = matches!(item, Err(_) | Ok(Item::End { .. }));
                    return Some(item);
                }
                Err(RecvTimeoutError::Timeout) => {
                    // Not whether the reader gave up: why it did is still to come from it.
                    if let Err(error) = self.stop.call().check() {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_over = true;
                    return Some(Err(PluginError::new(ErrorClass::Internal, "the reading thread broke off")));
                }
            }
        }
        None
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.stop.give_up();
        self.items = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn fingerprint(config: &Config) -> String {
    let Config { url, query, id_column, cursor_column, .. } = config;
    let text = serde_json::to_vec(&(STATE_VERSION, url, query, id_column, cursor_column)).expect("texts are JSON");
    format!("{:032x}", xxh3_128(&text))
}

/// The thread that reads.
struct Reader {
    config: Arc<Config>,
    dialect: Dialect,
    stop: Stop,
    items: SyncSender<Result<Item, PluginError>>,
    fingerprint: String,
    /// Of the pulls before.
    watermark: Option<Value>,
    progress: Progress,
    rows_since_state: usize,
    future: u64,
}

impl Reader {
    /// Takes up what the state says, and whether it is of this pull and the pull goes on.
    fn take_up(&mut self, request: &ReadRequest, state: Option<Json>) -> bool {
        let state = state.and_then(|state| serde_json::from_value::<State>(state).ok());
        let Some(state) = state.filter(|state| state.version == STATE_VERSION && state.query == self.fingerprint) else {
            return false;
        };
        self.watermark = state.watermark;
        match state.pull.filter(|pull| request.resume && pull.mode == request.mode && pull.at.is_some()) {
            Some(progress) => {
                self.progress = progress;
                true
            }
            None => false,
        }
    }

    fn send(&self, item: Item) -> Result<(), PluginError> {
        self.items.send(Ok(item)).map_err(|_| PluginError::new(ErrorClass::Cancelled, "nobody takes what is read"))
    }

    fn state(&self, pull: Option<Progress>) -> Result<Item, PluginError> {
        let state = State { version: STATE_VERSION, query: self.fingerprint.clone(), watermark: self.watermark.clone(), pull };
        serde_json::to_value(state).map(Item::State).map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))
    }

    async fn read(&mut self, overlap_secs: u64, is_resumed: bool) -> Result<(), PluginError> {
        let (config, stop) = (Arc::clone(&self.config), self.stop.clone());
        let mut session = Session::connect(&config, self.dialect, &stop).await?;
        let wait = looking(&config, &stop);
        let shape = Shape::of(&mut session, &config, self.dialect, wait).await?;
        let clock = match shape.cursor {
            Some((_, kind)) => session.clock(kind, &config, wait).await?,
            None => Clock::None,
        };
        if !is_resumed && self.progress.mode == ReadMode::Incremental {
            let is_of_kind = |value: &&Value| shape.cursor.is_some_and(|(_, kind)| value.is_of(kind));
            self.progress.from = self.watermark.as_ref().filter(is_of_kind).map(|watermark| watermark.before(overlap_secs));
        }
        self.send(Item::Begin { resumed: is_resumed })?;
        let query = self.query(&shape);
        self.refuse_nulls(&mut session, &shape, &query).await?;
        let mut reconnects = 0;
        while let Err(error) = self.read_rest(&mut session, &shape, &query, &clock).await {
            if !is_lost(&error) || shape.id.is_none() || self.stop.check().is_err() {
                return Err(error);
            }
            session = self.connect_again(error, &mut reconnects).await?;
        }
        session.close().await;
        if self.future > 0 {
            tracing::warn!(rows = self.future, "rows have a time that has not come yet; they do not count for where the next pull begins");
        }
        self.watermark = self.watermark.take().max(self.progress.high.take());
        self.send(self.state(None)?)?;
        self.send(Item::End { as_of_us: Some(self.progress.started_us) })
    }

    /// The operator's query from where this pull reads.
    fn query(&self, shape: &Shape) -> String {
        let literal = match (&self.progress.from, shape.cursor) {
            (Some(from), _) => from.literal(self.dialect),
            (None, Some((_, kind))) => kind.minimum(self.dialect),
            (None, None) => String::new(),
        };
        with_cursor(&self.config.query, &literal)
    }

    async fn refuse_nulls(&self, session: &mut Session, shape: &Shape, query: &str) -> Result<(), PluginError> {
        let (NullCursor::Refuse, Some((cursor, _))) = (self.config.null_cursor, shape.cursor) else { return Ok(()) };
        let (name, wait) = (shape.name(cursor), looking(&self.config, &self.stop));
        let nulls = session.number(&count_nulls(self.dialect, query, name), wait).await?;
        if nulls == 0 {
            return Ok(());
        }
        let error = PluginError::new(ErrorClass::InvalidData, format!("rows without a value in {name:?}: {nulls}")).key("null_cursor");
        Err(error.hint("fill them in at the source, leave them out in the query, or set null_cursor = \"read\""))
    }

    async fn connect_again(&self, mut error: PluginError, reconnects: &mut u32) -> Result<Session, PluginError> {
        while *reconnects < self.config.reconnects_max {
            let pause = RECONNECT_AFTER.saturating_mul(1 << (*reconnects).min(16)).min(RECONNECT_AFTER_MAX);
            *reconnects += 1;
            tracing::warn!(reconnects = *reconnects, wait_secs = pause.as_secs(), "the server is lost: {}", error.message);
            let secs = RECONNECT_AFTER_MAX.as_secs() + 1;
            let wait = Wait { stop: &self.stop, secs, key: "reconnects_max", doing: "waiting for the server" };
            wait.on(tokio::time::sleep(pause)).await?;
            match Session::connect(&self.config, self.dialect, &self.stop).await {
                Ok(session) => return Ok(session),
                Err(again) if is_lost(&again) => error = again,
                Err(again) => return Err(again),
            }
        }
        Err(error)
    }

    /// Reads everything behind the last row.
    async fn read_rest(&mut self, session: &mut Session, shape: &Shape, query: &str, clock: &Clock) -> Result<(), PluginError> {
        let at = self.progress.at.clone();
        let Some(id) = shape.id.map(|id| shape.name(id)) else {
            return self.read_part(session, shape, query, clock, &Part::All).await;
        };
        let cursor = match (self.progress.mode, shape.cursor) {
            (ReadMode::Incremental, Some((cursor, _))) => shape.name(cursor),
            _ => {
                let from = at.as_ref().map(|at| &at.id);
                return self.read_part(session, shape, query, clock, &Part::ById { id, from }).await;
            }
        };
        let from = at.as_ref().map(|at| (at.cursor.as_ref(), &at.id));
        if !matches!(from, Some((None, _))) {
            let from = from.and_then(|(cursor, id)| Some((cursor?, id)));
            self.read_part(session, shape, query, clock, &Part::WithCursor { cursor, id, from }).await?;
        }
        let from = from.filter(|(cursor, _)| cursor.is_none()).map(|(_, id)| id);
        self.read_part(session, shape, query, clock, &Part::WithoutCursor { cursor, id, from }).await
    }

    async fn read_part(
        &mut self,
        session: &mut Session,
        shape: &Shape,
        query: &str,
        clock: &Clock,
        part: &Part<'_>,
    ) -> Result<(), PluginError> {
        let sql = select(self.dialect, query, &shape.columns, part);
        let stop = self.stop.clone();
        let wait = Wait { stop: &stop, secs: self.config.statement_timeout_secs, key: "statement_timeout_secs", doing: "reading" };
        session.read(&sql, &shape.columns, wait, &mut |batch| self.take(batch, shape, clock)).await
    }

    fn take(&mut self, batch: RecordBatch, shape: &Shape, clock: &Clock) -> Result<(), PluginError> {
        if let Some((cursor, _)) = shape.cursor {
            self.note_cursors(batch.column(cursor), clock);
        }
        let last = batch.num_rows() - 1;
        self.rows_since_state += batch.num_rows();
        let is_by_cursor = self.progress.mode == ReadMode::Incremental;
        let cursor = shape.cursor.filter(|_| is_by_cursor).and_then(|(cursor, _)| Value::at(batch.column(cursor), last));
        let place = shape.id.and_then(|id| Value::at(batch.column(id), last)).map(|id| Place { cursor, id });
        self.send(Item::Batch(batch))?;
        if place.is_none() {
            // A row without an id has no place: the one before keeps standing for where to go on.
            return Ok(());
        }
        self.progress.at = place;
        if self.rows_since_state < STATE_ROWS {
            return Ok(());
        }
        self.rows_since_state = 0;
        self.send(self.state(Some(self.progress.clone()))?)
    }

    /// Raises the greatest cursor, except by those of the future.
    fn note_cursors(&mut self, column: &ArrayRef, clock: &Clock) {
        let mut high = self.progress.high.take();
        for value in (0..column.len()).filter_map(|row| Value::at(column, row)) {
            if clock.is_before(&value) {
                self.future += 1;
            } else if high.as_ref().is_none_or(|high| value > *high) {
                high = Some(value);
            }
        }
        self.progress.high = high;
    }
}
