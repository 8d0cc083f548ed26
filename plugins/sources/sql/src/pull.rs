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

use reunion_sdk::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use reunion_sdk::arrow::compute::filter_record_batch;
use reunion_sdk::{Call, ErrorClass, Item, PluginError, ReadMode, ReadRequest};
use serde_json::Value as Json;

use crate::changes::{Changes, IDS_MAX};
use crate::config::{CURSOR, Config, Dialect, NullCursor, changed_key};
use crate::database::{Clock, Session};
use crate::failure::is_lost;
use crate::query::{Part, count_nulls, select, with_cursor};
use crate::shape::{Shape, about};
use crate::state::{Place, Progress, State, fingerprint, row_hash};
use crate::value::Value;
use crate::wait::{LOOK_EVERY, Stop, Wait, looking, run};

/// Batches that are read ahead.
const AHEAD: usize = 2;
/// A resume state follows after so many rows.
const STATE_ROWS: usize = 64 << 10;
/// Before the first connection that is made anew, doubled before each further one.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(60);

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
        if request.mode == ReadMode::Incremental && config.changed.is_empty() && !config.query.contains(CURSOR) {
            let error = PluginError::new(ErrorClass::InvalidConfig, "an incremental source needs $cursor in its query").key("query");
            let hint = "write … where changed_at >= $cursor, and set cursor_column; or set changed; or set mode = \"snapshot\"";
            return Err(error.hint(hint));
        }
        let (items, taken) = sync_channel(AHEAD);
        let stop = Stop::of(&call);
        let mut reader = Reader {
            fingerprint: fingerprint(&config),
            config,
            dialect,
            stop: stop.clone(),
            items,
            watermarks: Vec::new(),
            progress: Progress {
                mode: request.mode,
                started_us: jiff::Timestamp::now().as_microsecond(),
                from: Vec::new(),
                high: Vec::new(),
                at: None,
            },
            is_resumed: false,
            changes: None,
            again: None,
            rows_since_state: 0,
            future: 0,
        };
        reader.take_up(&request, state);
        let spawned = std::thread::Builder::new().name("sql".to_owned()).spawn(move || {
            if let Err(error) = run(reader.read(request.overlap_secs)) {
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

/// The thread that reads.
struct Reader {
    config: Arc<Config>,
    dialect: Dialect,
    stop: Stop,
    items: SyncSender<Result<Item, PluginError>>,
    fingerprint: String,
    /// For each cursor, of the pulls before. Empty before the first.
    watermarks: Vec<Option<Value>>,
    progress: Progress,
    is_resumed: bool,
    /// What changed, once that has been asked.
    changes: Option<Changes>,
    /// The place that the statement goes on from, while its rows come once more.
    again: Option<Place>,
    rows_since_state: usize,
    future: u64,
}

impl Reader {
    /// Takes up what the state says, if it is of these queries.
    fn take_up(&mut self, request: &ReadRequest, state: Option<Json>) {
        let Some(state) = state.and_then(|state| State::of(state, &self.fingerprint)) else { return };
        self.watermarks = state.watermarks;
        if let Some(progress) = state.pull.filter(|pull| request.resume && pull.mode == request.mode && pull.at.is_some()) {
            (self.progress, self.is_resumed) = (progress, true);
        }
    }

    fn send(&self, item: Item) -> Result<(), PluginError> {
        self.items.send(Ok(item)).map_err(|_| PluginError::new(ErrorClass::Cancelled, "nobody takes what is read"))
    }

    fn state(&self, pull: Option<Progress>) -> Result<Item, PluginError> {
        let state = State::new(&self.fingerprint, self.watermarks.clone(), pull);
        serde_json::to_value(state).map(Item::State).map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))
    }

    async fn read(&mut self, overlap_secs: u64) -> Result<(), PluginError> {
        let (config, stop) = (Arc::clone(&self.config), self.stop.clone());
        let mut session = Session::connect(&config, self.dialect, &stop).await?;
        let wait = looking(&config, &stop);
        let shape = Shape::of(&mut session, &config, self.dialect, wait).await?;
        let clocks = shape.clocks(&mut session, &config, wait).await?;
        if !self.is_resumed {
            self.begin(&shape, &clocks, overlap_secs);
        }
        self.progress.high.resize(shape.cursors.len(), None);
        self.send(Item::Begin { resumed: self.is_resumed })?;
        self.refuse_nulls(&mut session, &shape).await?;
        let mut reconnects = 0;
        while let Err(error) = self.read_rest(&mut session, &shape, &clocks).await {
            if !is_lost(&error) || shape.id.is_none() || self.stop.check().is_err() {
                return Err(error);
            }
            session = self.connect_again(error, &mut reconnects).await?;
        }
        session.close().await;
        if self.future > 0 {
            tracing::warn!(rows = self.future, "rows have a time that has not come yet; they do not count for where the next pull begins");
        }
        self.watermarks.resize(shape.cursors.len(), None);
        for (watermark, high) in self.watermarks.iter_mut().zip(&mut self.progress.high) {
            *watermark = watermark.take().max(high.take());
        }
        self.send(self.state(None)?)?;
        self.send(Item::End { as_of_us: Some(self.progress.started_us) })
    }

    /// Where a pull that begins reads from: the watermarks less the overlap, if they mean something.
    fn begin(&mut self, shape: &Shape, clocks: &[Clock], overlap_secs: u64) {
        let kinds = shape.cursors.iter().zip(clocks);
        let marks = || self.watermarks.iter().zip(kinds.clone()).filter_map(|(mark, kind)| Some((mark.as_ref()?, kind)));
        if marks().any(|(mark, (_, clock))| clock.is_before(mark)) {
            // What was changed since then has earlier times than what was read before.
            tracing::warn!("the source's clock was set back: it shows less than the newest time that was read; everything is read");
            self.watermarks.clear();
        } else if marks().any(|(mark, (kind, _))| !mark.is_of(*kind)) {
            self.watermarks.clear();
        }
        if self.progress.mode == ReadMode::Incremental {
            self.progress.from = self.watermarks.iter().map(|mark| Some(mark.as_ref()?.before(overlap_secs))).collect();
        }
    }

    /// From where this cursor is read, as SQL.
    fn literal(&self, shape: &Shape, at: usize) -> String {
        let from = self.progress.from.get(at).and_then(Option::as_ref).map(|from| from.literal(self.dialect));
        from.or_else(|| Some(shape.cursors.get(at)?.minimum(self.dialect))).unwrap_or_default()
    }

    /// The operator's query from where this pull reads, without the orders.
    fn query(&self, shape: &Shape) -> String {
        with_cursor(&self.config.query, &self.literal(shape, 0))
    }

    async fn refuse_nulls(&self, session: &mut Session, shape: &Shape) -> Result<(), PluginError> {
        let (NullCursor::Refuse, Some(cursor)) = (self.config.null_cursor, shape.cursor) else { return Ok(()) };
        let (name, wait) = (shape.name(cursor), looking(&self.config, &self.stop));
        let nulls = session.number(&count_nulls(self.dialect, &self.query(shape), name), wait).await?;
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
    async fn read_rest(&mut self, session: &mut Session, shape: &Shape, clocks: &[Clock]) -> Result<(), PluginError> {
        let Some(id) = shape.id.map(|id| shape.name(id)) else {
            return self.read_part(session, shape, clocks, &Part::All).await;
        };
        if !shape.changed.is_empty() && self.read_changed(session, shape, clocks, id).await? {
            return Ok(());
        }
        let at = self.progress.at.clone();
        let cursor = match (self.progress.mode, shape.cursor) {
            (ReadMode::Incremental, Some(cursor)) => shape.name(cursor),
            _ => {
                let from = at.as_ref().map(|at| &at.id);
                return self.read_part(session, shape, clocks, &Part::ById { id, from }).await;
            }
        };
        let from = at.as_ref().map(|at| (at.cursor.as_ref(), &at.id));
        if !matches!(from, Some((None, _))) {
            let from = from.and_then(|(cursor, id)| Some((cursor?, id)));
            self.read_part(session, shape, clocks, &Part::WithCursor { cursor, id, from }).await?;
        }
        let from = from.filter(|(cursor, _)| cursor.is_none()).map(|(_, id)| id);
        self.read_part(session, shape, clocks, &Part::WithoutCursor { cursor, id, from }).await
    }

    /// Reads the members that `changed` names behind the last one; whether these were all, and not everybody is
    /// to be read.
    async fn read_changed(&mut self, session: &mut Session, shape: &Shape, clocks: &[Clock], id: &str) -> Result<bool, PluginError> {
        if self.changes.is_none() {
            self.changes = Some(self.look_for_changes(session, shape, clocks).await?);
        }
        loop {
            let ids = match &self.changes {
                Some(changes @ Changes::Ids { .. }) => changes.behind(self.progress.at.as_ref().map(|at| &at.id)),
                _ => return Ok(false),
            };
            let Some(last) = ids.last().cloned() else { return Ok(true) };
            self.read_part(session, shape, clocks, &Part::OfIds { id, ids: &ids }).await?;
            self.progress.at = Some(Place::new(None, last));
            self.state_when_due()?;
        }
    }

    /// Asks every query of `changed` whom it names, and by which cursors. These are noted before any member is
    /// read: what changes later has a later one, or one within the overlap.
    async fn look_for_changes(&mut self, session: &mut Session, shape: &Shape, clocks: &[Clock]) -> Result<Changes, PluginError> {
        let is_whole = self.progress.from.is_empty();
        let mut changes = if is_whole { Changes::Everything } else { Changes::none() };
        if is_whole && self.is_resumed {
            return Ok(changes);
        }
        let (config, stop) = (Arc::clone(&self.config), self.stop.clone());
        let wait = Wait { doing: "looking for changes", ..looking(&config, &stop) };
        self.future = 0;
        for (at, mark) in shape.changed.iter().enumerate() {
            let query = with_cursor(&config.changed[at], &self.literal(shape, at));
            // Of everything the cursors alone are of use.
            let columns = if is_whole { &mark[1..] } else { &mark[..] };
            let sql = select(self.dialect, &query, columns, &Part::All);
            let mut note = |batch: RecordBatch| {
                changes.add(batch.column(0));
                // A pull that goes on read members before, and what they were since then is the next one's.
                if !self.is_resumed {
                    self.note_cursors(at, batch.column(columns.len() - 1), &clocks[at]);
                }
                Ok(())
            };
            session.read(&sql, columns, wait, &mut note).await.map_err(|error| about(&changed_key(at), error))?;
        }
        if !is_whole && matches!(changes, Changes::Everything) {
            tracing::info!(ids_max = IDS_MAX, "more members changed than are read one by one; everything is read");
            self.progress.from.clear();
            self.progress.at = None;
        }
        Ok(changes)
    }

    async fn read_part(&mut self, session: &mut Session, shape: &Shape, clocks: &[Clock], part: &Part<'_>) -> Result<(), PluginError> {
        let mut query = self.query(shape);
        if let (Some(figures), Some(id)) = (&shape.figures, shape.id) {
            let ids = if let Part::OfIds { ids, .. } = part { Some(*ids) } else { None };
            query = figures.joined(&query, shape.name(id), ids);
        }
        self.again = self.progress.at.clone().filter(|_| part.goes_on());
        let sql = select(self.dialect, &query, &shape.columns, part);
        let stop = self.stop.clone();
        let wait = Wait { stop: &stop, secs: self.config.statement_timeout_secs, key: "statement_timeout_secs", doing: "reading" };
        session.read(&sql, &shape.columns, wait, &mut |batch| self.take(batch, shape, clocks, part)).await
    }

    fn take(&mut self, batch: RecordBatch, shape: &Shape, clocks: &[Clock], part: &Part<'_>) -> Result<(), PluginError> {
        // What goes on reads later than what it goes on from. Rows before that place may have come or changed in
        // between, with cursors below those behind it: the next pull has to begin where this place was reached.
        if let Some(cursor) = shape.cursor.filter(|_| !part.goes_on()) {
            self.note_cursors(0, batch.column(cursor), &clocks[0]);
        }
        let place = |row: usize| {
            let value = |at: Option<usize>| at.and_then(|at| Value::at(batch.column(at), row));
            match part {
                Part::All | Part::OfIds { .. } => None,
                Part::ById { .. } => value(shape.id).map(|id| Place::new(None, id)),
                Part::WithCursor { .. } | Part::WithoutCursor { .. } => value(shape.id).map(|id| Place::new(value(shape.cursor), id)),
            }
        };
        let is_new = self.new_rows(&batch, place);
        let at = self.place_behind(&batch, place, &is_new);
        let new = if is_new.true_count() == batch.num_rows() { Ok(batch) } else { filter_record_batch(&batch, &is_new) };
        let new = new.map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))?;
        self.rows_since_state += new.num_rows();
        if new.num_rows() > 0 {
            self.send(Item::Batch(new))?;
        }
        if at.is_none() {
            // A row without an id has no place: the one before keeps standing for where to go on.
            return Ok(());
        }
        self.progress.at = at;
        self.state_when_due()
    }

    /// Which rows of a batch were not handed on before. Those of the place that a pull goes on from come once more:
    /// the first of all.
    fn new_rows(&mut self, batch: &RecordBatch, place: impl Fn(usize) -> Option<Place>) -> BooleanArray {
        let is_new = |row: usize| {
            let Some(again) = &mut self.again else { return true };
            if !place(row).is_some_and(|place| place.is_at(again)) {
                self.again = None;
                return true;
            }
            let hash = row_hash(batch, row);
            let known = again.rows.iter().position(|known| Some(known) == hash.as_ref());
            known.map(|at| again.rows.swap_remove(at)).is_none()
        };
        (0..batch.num_rows()).map(is_new).collect::<Vec<_>>().into()
    }

    /// Where the pull stands behind a batch; none where its last row has no place.
    fn place_behind(&self, batch: &RecordBatch, place: impl Fn(usize) -> Option<Place>, is_new: &BooleanArray) -> Option<Place> {
        let mut behind = place(batch.num_rows() - 1)?;
        let first = (0..batch.num_rows()).rev().take_while(|row| place(*row).is_some_and(|place| place.is_at(&behind))).last()?;
        match self.progress.at.as_ref().filter(|at| first == 0 && at.is_at(&behind)) {
            // The batch before had rows of this place too.
            Some(at) => {
                behind.remember(at.rows.iter().cloned());
                behind.remember((0..batch.num_rows()).filter(|row| is_new.value(*row)).filter_map(|row| row_hash(batch, row)));
            }
            None => behind.remember((first..batch.num_rows()).filter_map(|row| row_hash(batch, row))),
        }
        Some(behind)
    }

    fn state_when_due(&mut self) -> Result<(), PluginError> {
        if self.rows_since_state < STATE_ROWS {
            return Ok(());
        }
        self.rows_since_state = 0;
        self.send(self.state(Some(self.progress.clone()))?)
    }

    /// Raises the greatest of this cursor, except by those of the future.
    fn note_cursors(&mut self, at: usize, column: &ArrayRef, clock: &Clock) {
        let mut high = self.progress.high[at].take();
        for value in (0..column.len()).filter_map(|row| Value::at(column, row)) {
            if clock.is_before(&value) {
                self.future += 1;
            } else if high.as_ref().is_none_or(|high| value > *high) {
                high = Some(value);
            }
        }
        self.progress.high[at] = high;
    }
}
