//! Pull: from a source's stream to segments.
//!
//! One thread reads the plugin's stream, one for each core looks which rows are known as they are and
//! normalises the others, and one takes what they came to in order, and writes.
//! A segment is made durable, then committed to the ledger together with the resume state that covers
//! exactly its rows. A dry run reads the same stream, keeps its rows in memory and commits nothing.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch};
use arrow::compute::{concat, concat_batches};
use arrow::error::ArrowError;
use reunion_generations::{GROUP_ROWS, SegmentFile, SegmentWriter};
use reunion_host::{CallOptions, ItemStream, SourceConnector};
use reunion_ledger::{Lease, Pull, Segment, SourceState};
use reunion_model::limits::{BATCHES_IN_FLIGHT_MAX, SEGMENT_ROWS_MAX};
use reunion_model::plugin::{Item, PluginError, ReadMode, ReadRequest};
use reunion_model::record::only;
use reunion_model::threads::cores;
use reunion_model::{PullId, RecordKey};
use reunion_people::{Known, NormaliseError, Normalised, Normaliser, Split};
use serde_json::Value;

use crate::failure::{Doing, Failure};
use crate::state::{State, now_us};

use super::progress::Progress;

/// Bytes of a segment, about, beyond which it is committed at the next resume state.
const SEGMENT_BYTES: u64 = 256 << 20;

/// Bytes that a buffer may have too many: what it is rounded up to.
const BUFFER_SLACK_BYTES: usize = 128;

/// What a pull is for.
pub struct PullPlan<'a> {
    /// The state.
    pub state: &'a State,
    /// The right to commit segments; none in a dry run.
    pub lease: Option<Lease>,
    /// The source's name in the config.
    pub source: &'a str,
    /// The name by which files and keys know it: the first that it had.
    pub origin: &'a str,
    /// How it is read.
    pub mode: ReadMode,
    /// How far before the last cursor an incremental pull begins.
    pub overlap_secs: u64,
    /// Where it stands.
    pub before: SourceState,
    /// Its rows, by now.
    pub known: &'a KnownRows<'a>,
    /// The head has every row of the last snapshot, made a record as it would be now.
    pub is_held: bool,
    /// How its rows become records.
    pub normaliser: &'a Normaliser,
    /// The columns of records that are kept in memory.
    pub kept_columns: &'a [String],
    /// Segments are committed at the least this often.
    pub commit_every: Duration,
    /// For the plugin.
    pub call: &'a CallOptions,
    /// What the operator sees of it.
    pub progress: &'a Progress,
}

/// The rows of a source by now, read when they are first asked for: a source may have nothing to compare with them.
pub struct KnownRows<'a> {
    read: &'a (dyn Fn() -> Result<Known, Failure> + Sync),
    known: OnceLock<Option<Known>>,
    failure: Mutex<Option<Failure>>,
}

impl<'a> KnownRows<'a> {
    /// What `read` gives.
    pub fn new(read: &'a (dyn Fn() -> Result<Known, Failure> + Sync)) -> Self {
        Self { read, known: OnceLock::new(), failure: Mutex::new(None) }
    }

    /// None where they cannot be read: [`KnownRows::failure`] says why.
    fn get(&self) -> Option<&Known> {
        let read = || (self.read)().map_err(|failure| *lock(&self.failure) = Some(failure)).ok();
        self.known.get_or_init(read).as_ref()
    }

    /// Why they cannot be read, once.
    fn failure(&self) -> Option<Failure> {
        lock(&self.failure).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows of one pull that no generation has taken in, from its first to its last.
pub struct PulledRows {
    /// The pull.
    pub pull_id: PullId,
    /// Whether a row that is not in it was deleted at the source.
    pub deletes: bool,
    /// Its segments.
    pub segments: Vec<SegmentFile>,
    /// What is left to be done for it to count.
    pub ending: Option<Ending>,
    /// What the segments hold, where it is still in memory.
    pub kept: Option<KeptRows>,
    /// Rows of a dry run, which are in no segment.
    pub batches: Vec<RecordBatch>,
    /// Keys of rows of a dry run that are unchanged.
    pub seen: Vec<RecordKey>,
}

impl PulledRows {
    /// A pull of which nothing is known yet.
    fn of(pull_id: PullId, mode: ReadMode) -> Self {
        let deletes = mode == ReadMode::Snapshot;
        Self { pull_id, deletes, segments: Vec::new(), ending: None, kept: None, batches: Vec::new(), seen: Vec::new() }
    }
}

/// The end of a pull of whose rows all that identity asks for is in memory: what makes it last, to be done beside it.
pub struct Ending {
    source: String,
    pull_id: PullId,
    mode: ReadMode,
    last: Option<LastRows>,
    state: Option<Value>,
    as_of_us: Option<i64>,
}

impl Ending {
    /// How many segments it adds to the pull.
    pub fn segments(&self) -> usize {
        usize::from(self.last.is_some())
    }

    /// Makes the last rows durable and ends the pull; the segment that they are in.
    ///
    /// # Errors
    /// Where the disk or the ledger refuses.
    pub fn settle(self, state: &State, lease: &Lease) -> Result<Option<SegmentFile>, Failure> {
        let Self { source, pull_id, mode, last, state: resume, as_of_us } = self;
        let last = last.map(|last| last.commit(state, lease, &source, pull_id, resume.as_ref())).transpose()?;
        if mode == ReadMode::Snapshot {
            // This pull says all that the ones before it said.
            for older in state.ask(state.ledger.source_state(&source))?.pending {
                state.ask(state.ledger.drop_pull(lease, older.pull_id))?;
            }
        }
        state.ask(state.ledger.end_pull(lease, pull_id, resume.as_ref(), as_of_us, now_us()))?;
        Ok(last)
    }
}

/// Rows of a pull that are in no segment yet.
struct LastRows {
    writer: SegmentWriter,
    seq: u32,
    /// How many of the pull's rows these are, whatever became of them.
    rows: u64,
}

impl LastRows {
    /// Makes them durable, with the state that covers them.
    fn commit(self, state: &State, lease: &Lease, source: &str, pull_id: PullId, resume: Option<&Value>) -> Result<SegmentFile, Failure> {
        let file = self.writer.finish().doing(|| format!("a segment of source {source} cannot be made durable"))?;
        let segment = Segment {
            pull_id,
            seq: self.seq,
            rows: self.rows,
            bytes: file.bytes(),
            files: file.files().map(|file| file.path.clone()).collect(),
            document: serde_json::to_value(&file).doing(|| "a segment cannot be described".to_owned())?,
        };
        state.ask(state.ledger.commit_segment(lease, &segment, resume.unwrap_or(&Value::Null)))?;
        Ok(file)
    }
}

/// What the segments of a pull hold.
#[derive(Default)]
pub struct KeptRows {
    /// Their rows, in order.
    pub chunks: Vec<Kept>,
    /// Keys of the rows that are unchanged, in order.
    pub seen: Vec<RecordKey>,
}

/// A row group of a segment, with the columns of [`PullPlan::kept_columns`].
pub struct Kept {
    /// The segment's place in its pull.
    pub segment: usize,
    /// The place of the first of them in the segment.
    pub first_row: u64,
    /// The rows.
    pub batch: RecordBatch,
}

/// What pulling a source came to.
pub struct Pulled {
    /// How it was read.
    pub mode: ReadMode,
    /// Pulls that ended and wait for a generation, oldest first.
    pub pulls: Vec<PulledRows>,
    /// Everything was read as it is, in this run.
    pub is_whole: bool,
    /// Nothing has changed since the last snapshot, and so nothing was sent.
    pub confirms: bool,
    /// When the newest of the data was true.
    pub as_of_us: Option<i64>,
    /// Where the next pull begins.
    pub cursor: Option<Value>,
    /// Values that did not fit their column's type, by column.
    pub unfit: BTreeMap<String, u64>,
    /// Why the source could not be read to its end.
    pub failed: Option<PluginError>,
}

/// Reads a source to its end.
///
/// # Errors
/// Where the disk or the ledger refuses. What the source itself does wrong is in the result.
pub fn pull(plan: &PullPlan<'_>, connector: &dyn SourceConnector) -> Result<Pulled, Failure> {
    let before = &plan.before;
    let open = before.open.as_ref().filter(|pull| pull.mode == plan.mode && has_same_columns(plan, pull));
    if let (Some(other), None, Some(lease)) = (&before.open, open, &plan.lease) {
        // Read in another mode or with other columns, its rows do not mean what they would mean now.
        plan.state.ask(plan.state.ledger.drop_pull(lease, other.pull_id))?;
    }
    let resume = open.and_then(|pull| pull.state.clone());
    let is_resumed = resume.is_some();
    let from = resume.or_else(|| before.last.as_ref().and_then(|pull| pull.state.clone()));
    let is_known = plan.is_held && from.is_some() && is_last_taken_in(before);
    let request = ReadRequest {
        mode: plan.mode,
        resume: is_resumed,
        overlap_secs: plan.overlap_secs,
        may_be_unchanged: is_known && plan.mode == ReadMode::Snapshot && !is_resumed,
    };
    let stream = match connector.read(plan.call, &request, from.as_ref()) {
        Ok(stream) => stream,
        Err(error) => return pulled(plan, None, Some(error)),
    };
    let mut puller = Puller::new(plan, open)?;
    let (items, taken) = sync_channel(BATCHES_IN_FLIGHT_MAX);
    let (batches, waiting) = sync_channel(BATCHES_IN_FLIGHT_MAX);
    // Gone with the last who takes from it, so that the reader never waits for nobody.
    let waiting = Arc::new(Mutex::new(waiting));
    let workers = (0..cores()).map(|_| Arc::clone(&waiting)).collect::<Vec<_>>();
    drop(waiting);
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || read(stream, batches, items));
        for waiting in workers {
            scope.spawn(move || normalise(plan, &waiting));
        }
        puller.take_all(taken)
    })?;
    pulled(plan, Some(puller), ended)
}

/// Whether the last pull was a snapshot that is in a generation, and none waits for one.
fn is_last_taken_in(before: &SourceState) -> bool {
    let is_taken_in = |last: &Pull| last.mode == ReadMode::Snapshot && last.consumed.is_some();
    before.pending.is_empty() && before.last.as_ref().is_some_and(is_taken_in)
}

/// Whether what a pull has read so far has the columns that it would have now. What cannot be read has not.
fn has_same_columns(plan: &PullPlan<'_>, pull: &Pull) -> bool {
    let is_without_rows = pull.segments.iter().all(|segment| segment.document["rows"].is_null());
    is_without_rows
        || super::sources::pull_schema(plan.state, plan.source, pull).is_ok_and(|schema| {
            let now = plan.normaliser.schema();
            let columns = |schema: &arrow::datatypes::Schema| {
                schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<BTreeMap<_, _>>()
            };
            columns(&schema) == columns(&now)
        })
}

/// A batch, and where what becomes of it is waited for.
type Work = (RecordBatch, SyncSender<Result<Split, NormaliseError>>);

/// One item of a stream, in its order.
enum Taken {
    /// What becomes of a batch, once somebody has worked on it.
    Batch(Receiver<Result<Split, NormaliseError>>),
    /// Any other item.
    Item(Item),
}

/// Hands on every item of a stream until it ends, fails, or nobody wants more.
fn read(mut stream: Box<dyn ItemStream>, batches: SyncSender<Work>, items: SyncSender<Result<Taken, PluginError>>) {
    while let Some(item) = stream.next().transpose() {
        let last = item.is_err();
        let taken = match item {
            Ok(Item::Batch(batch)) => {
                let (split, result) = sync_channel(1);
                if batches.send((batch, split)).is_err() {
                    return;
                }
                Ok(Taken::Batch(result))
            }
            item => item.map(Taken::Item),
        };
        if items.send(taken).is_err() || last {
            return;
        }
    }
}

/// Works on batches until there are no more.
fn normalise(plan: &PullPlan<'_>, waiting: &Mutex<Receiver<Work>>) {
    loop {
        let next = lock(waiting).recv();
        let Ok((batch, split)) = next else { return };
        // The puller finds out why.
        let Some(known) = plan.known.get() else { return };
        // Nobody waits for it where the pull was given up.
        let _ = split.send(plan.normaliser.split(&batch, known));
    }
}

fn pulled(plan: &PullPlan<'_>, mut puller: Option<Puller<'_>>, failed: Option<PluginError>) -> Result<Pulled, Failure> {
    let before = &plan.before;
    let unfit = puller.as_ref().map(|puller| puller.unfit.clone()).unwrap_or_default();
    let is_whole = puller.as_ref().is_some_and(|puller| puller.ended && !puller.resumed && plan.mode == ReadMode::Snapshot);
    let confirms = puller.as_ref().is_some_and(|puller| puller.confirms);
    let rows = |pull: &Pull| {
        let segments = pull.segments.iter().map(|segment| {
            serde_json::from_value(segment.document.clone())
                .doing(|| format!("segment {} of source {} is not understood", segment.seq, plan.source))
        });
        Ok(PulledRows { segments: segments.collect::<Result<_, Failure>>()?, ..PulledRows::of(pull.pull_id, pull.mode) })
    };
    if plan.lease.is_some() {
        // What the ledger says now is what the generation takes in.
        let after = plan.state.ask(plan.state.ledger.source_state(plan.source))?;
        let ending = puller.as_mut().and_then(|puller| puller.ending.take());
        let is_superseded = ending.is_some() && plan.mode == ReadMode::Snapshot;
        let pending = after.pending.iter().filter(|_| !is_superseded);
        let mut pulls = pending.map(rows).collect::<Result<Vec<PulledRows>, Failure>>()?;
        let (mut as_of_us, mut cursor) = after.last.map(|pull| (pull.as_of_us, pull.state)).unwrap_or_default();
        if let Some(ending) = ending {
            (as_of_us, cursor) = (ending.as_of_us, ending.state.clone());
            // Where somebody has taken the pull away meanwhile, its end says so.
            let open = after.open.as_ref().filter(|open| open.pull_id == ending.pull_id);
            let committed = open.map_or_else(|| Ok(PulledRows::of(ending.pull_id, ending.mode)), rows)?;
            pulls.push(PulledRows { ending: Some(ending), ..committed });
        }
        if let Some(puller) = puller.filter(|puller| !puller.resumed)
            && let Some(pull) = pulls.iter_mut().find(|pull| pull.pull_id == puller.pull_id)
        {
            pull.kept = Some(puller.kept.kept);
        }
        return Ok(Pulled { mode: plan.mode, pulls, is_whole, confirms, as_of_us, cursor, unfit, failed });
    }
    let mut pulls: Vec<PulledRows> = before.pending.iter().map(rows).collect::<Result<_, Failure>>()?;
    let (mut as_of_us, mut cursor) = before.last.as_ref().map(|pull| (pull.as_of_us, pull.state.clone())).unwrap_or_default();
    if let Some(puller) = puller.as_ref().filter(|puller| puller.confirms) {
        as_of_us = puller.as_of_us;
    } else if let Some(puller) = puller.filter(|puller| puller.ended) {
        if plan.mode == ReadMode::Snapshot {
            pulls.clear();
        }
        let open = before.open.as_ref().filter(|_| puller.resumed);
        let committed = open.map_or_else(|| Ok(PulledRows::of(puller.pull_id, plan.mode)), rows)?;
        pulls.push(PulledRows { batches: puller.batches, seen: puller.seen, ..committed });
        as_of_us = puller.as_of_us;
        cursor = puller.latest_state.or(cursor);
    }
    Ok(Pulled { mode: plan.mode, pulls, is_whole, confirms, as_of_us, cursor, unfit, failed })
}

/// Keeps of the rows of a pull what the next stage asks for, in the row groups of their segments.
struct Keeper<'a> {
    columns: &'a [String],
    kept: KeptRows,
    /// The last row group.
    segment: usize,
    first_row: u64,
    batches: Vec<RecordBatch>,
    rows: usize,
}

impl<'a> Keeper<'a> {
    fn new(columns: &'a [String]) -> Self {
        Self { columns, kept: KeptRows::default(), segment: 0, first_row: 0, batches: Vec::new(), rows: 0 }
    }

    fn seen(&mut self, keys: &[RecordKey]) {
        self.kept.seen.extend_from_slice(keys);
    }

    fn add(&mut self, segment: usize, mut first_row: u64, batch: &RecordBatch) -> Result<(), Failure> {
        let mut rest = only(batch, |column| self.columns.iter().any(|kept| kept == column));
        while rest.num_rows() > 0 {
            if self.batches.is_empty() {
                (self.segment, self.first_row) = (segment, first_row);
            }
            let rows = rest.num_rows().min(GROUP_ROWS - self.rows);
            self.batches.push(rest.slice(0, rows));
            rest = rest.slice(rows, rest.num_rows() - rows);
            self.rows += rows;
            first_row += rows as u64;
            if self.rows == GROUP_ROWS {
                self.join()?;
            }
        }
        Ok(())
    }

    /// The last rows are all of their row group.
    fn join(&mut self) -> Result<(), Failure> {
        let batches = std::mem::take(&mut self.batches);
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(());
        }
        let batch = match &batches[..] {
            [batch] => with_own_buffers(batch),
            batches => concat_batches(&batches[0].schema(), batches),
        };
        let batch = batch.doing(|| "pulled rows cannot be put together".to_owned())?;
        self.kept.chunks.push(Kept { segment: self.segment, first_row: self.first_row, batch });
        Ok(())
    }
}

/// The same rows without the buffers of the plugin's batch: that holds the cells of all its columns, and nothing of it
/// is freed while one of them is used.
fn with_own_buffers(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let own = |column: &ArrayRef| match is_part_of_more(&column.to_data()) {
        true => concat(&[column, &column.slice(0, 0)]),
        false => Ok(Arc::clone(column)),
    };
    RecordBatch::try_new(batch.schema(), batch.columns().iter().map(own).collect::<Result<_, _>>()?)
}

/// Whether a column keeps more memory than it needs. Memory from elsewhere has no capacity that is known.
fn is_part_of_more(column: &ArrayData) -> bool {
    let nulls = column.nulls().map(|nulls| nulls.buffer());
    column.buffers().iter().chain(nulls).any(|buffer| !(buffer.len()..=2 * buffer.len() + BUFFER_SLACK_BYTES).contains(&buffer.capacity()))
}

/// Takes the items of one stream.
struct Puller<'a> {
    plan: &'a PullPlan<'a>,
    pull_id: PullId,
    /// The open pull of an earlier run, until the stream says whether it goes on.
    open: Option<(PullId, u32)>,
    begun: bool,
    resumed: bool,
    ended: bool,
    confirms: bool,
    seq: u32,
    writer: Option<SegmentWriter>,
    /// Rows of the stream since the last commit.
    rows: u64,
    committed: Instant,
    latest_state: Option<Value>,
    as_of_us: Option<i64>,
    unfit: BTreeMap<String, u64>,
    kept: Keeper<'a>,
    ending: Option<Ending>,
    batches: Vec<RecordBatch>,
    seen: Vec<RecordKey>,
}

impl<'a> Puller<'a> {
    fn new(plan: &'a PullPlan<'a>, open: Option<&Pull>) -> Result<Self, Failure> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).doing(|| "the system gives no random numbers".to_owned())?;
        Ok(Self {
            plan,
            pull_id: PullId(random),
            open: open.map(|pull| (pull.pull_id, pull.segments.len() as u32)),
            begun: false,
            resumed: false,
            ended: false,
            confirms: false,
            seq: 0,
            writer: None,
            rows: 0,
            committed: Instant::now(),
            latest_state: None,
            as_of_us: None,
            unfit: BTreeMap::new(),
            kept: Keeper::new(plan.kept_columns),
            ending: None,
            batches: Vec::new(),
            seen: Vec::new(),
        })
    }

    /// Takes items until the stream ends; what it ended with, if that was an error. The receiver is gone then
    /// in any case: a reader must not wait for room in a queue that nobody empties.
    fn take_all(&mut self, items: Receiver<Result<Taken, PluginError>>) -> Result<Option<PluginError>, Failure> {
        for item in items {
            match item {
                Ok(Taken::Batch(split)) => {
                    let split = split.recv().map_err(|_| self.broke_off())?;
                    self.split(split)?;
                }
                Ok(Taken::Item(item)) => self.take(item)?,
                Err(error) => return Ok(Some(error)),
            }
        }
        Ok(None)
    }

    /// Why nothing comes of a batch.
    fn broke_off(&self) -> Failure {
        self.plan.known.failure().unwrap_or_else(|| Failure::other("normalising broke off; this is a defect"))
    }

    fn known(&self) -> Result<&'a Known, Failure> {
        self.plan.known.get().ok_or_else(|| self.broke_off())
    }

    fn split(&mut self, split: Result<Split, NormaliseError>) -> Result<(), Failure> {
        self.rows(split.doing(|| format!("the rows of source {} cannot be normalised", self.plan.source))?)
    }

    fn take(&mut self, item: Item) -> Result<(), Failure> {
        match item {
            Item::Begin { resumed } => self.begin(resumed),
            Item::Batch(batch) => self.split(self.plan.normaliser.split(&batch, self.known()?)),
            Item::Rejected(batch) => {
                let doing = || format!("the rejected rows of source {} cannot be stored", self.plan.source);
                let split = self.plan.normaliser.split_rejected(&batch, self.known()?).doing(doing)?;
                self.rows(split)
            }
            Item::State(state) => {
                self.latest_state = Some(state);
                let full = self
                    .writer
                    .as_ref()
                    .is_some_and(|writer| writer.rows() as usize > SEGMENT_ROWS_MAX / 2 || writer.bytes_estimate() > SEGMENT_BYTES);
                if full || self.committed.elapsed() >= self.plan.commit_every { self.commit() } else { Ok(()) }
            }
            Item::End { as_of_us } => self.end(as_of_us),
            Item::Unchanged { as_of_us } => self.confirm(as_of_us),
        }
    }

    fn begin(&mut self, resumed: bool) -> Result<(), Failure> {
        self.begun = true;
        self.resumed = resumed && self.open.is_some();
        if let (Some((pull_id, segments)), true) = (self.open, self.resumed) {
            (self.pull_id, self.seq) = (pull_id, segments);
            return Ok(());
        }
        let Some(lease) = &self.plan.lease else { return Ok(()) };
        let State { ledger, .. } = self.plan.state;
        if let Some((pull_id, _)) = self.open {
            tracing::info!(source = self.plan.source, "what was read before has changed since; reading from the beginning");
            self.plan.state.ask(ledger.drop_pull(lease, pull_id))?;
        }
        self.plan.state.ask(ledger.begin_pull(lease, self.plan.source, self.pull_id, self.plan.mode, now_us()))
    }

    fn count_unfit(&mut self, columns: impl Iterator<Item = (String, u64)>) {
        for (column, cells) in columns.filter(|(_, cells)| *cells > 0) {
            *self.unfit.entry(column).or_default() += cells;
        }
    }

    /// Takes rows that are new or changed, and those that are as they were.
    fn rows(&mut self, split: Split) -> Result<(), Failure> {
        let Split { changed: Normalised { records, nulls }, seen, unfit_seen } = split;
        let rows = records.num_rows() + seen.len();
        self.rows += rows as u64;
        self.plan.progress.read(rows);
        self.count_unfit(nulls.into_iter().map(|column| (column.column, column.not_cast)).chain(unfit_seen));
        if self.plan.lease.is_none() {
            self.seen.extend(seen);
            self.batches.extend((records.num_rows() > 0).then_some(records));
            return Ok(());
        }
        let doing = || format!("a segment of source {} cannot be written", self.plan.source);
        let writer = self.writer()?;
        let first_row = writer.write(&records).doing(doing)?;
        writer.seen(&seen).doing(doing)?;
        self.kept.seen(&seen);
        self.kept.add(self.seq as usize, first_row, &records)
    }

    fn writer(&mut self) -> Result<&mut SegmentWriter, Failure> {
        let PullPlan { state, lease, source, origin, normaliser, .. } = self.plan;
        if self.writer.is_none() {
            let fence = lease.as_ref().map_or(0, |lease| lease.fence);
            let made = state.people.segment(origin, self.pull_id, u64::from(self.seq), fence, normaliser.schema());
            self.writer = Some(made.doing(|| format!("a segment of source {source} cannot be begun"))?);
        }
        Ok(self.writer.as_mut().expect("made above"))
    }

    /// Makes what was read since the last commit durable, with the state that covers it.
    fn commit(&mut self) -> Result<(), Failure> {
        self.committed = Instant::now();
        let (Some(lease), Some(last)) = (&self.plan.lease, self.last_rows()?) else { return Ok(()) };
        last.commit(self.plan.state, lease, self.plan.source, self.pull_id, self.latest_state.as_ref())?;
        Ok(())
    }

    /// What was read since the last commit; what comes next goes to another segment.
    fn last_rows(&mut self) -> Result<Option<LastRows>, Failure> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        self.kept.join()?;
        let last = LastRows { writer, seq: self.seq, rows: std::mem::take(&mut self.rows) };
        self.seq += 1;
        Ok(Some(last))
    }

    fn confirm(&mut self, as_of_us: Option<i64>) -> Result<(), Failure> {
        (self.ended, self.confirms, self.as_of_us) = (true, true, as_of_us);
        let Some(lease) = &self.plan.lease else { return Ok(()) };
        self.plan.state.ask(self.plan.state.ledger.confirm_last_pull(lease, self.pull_id, as_of_us, now_us()))
    }

    fn end(&mut self, as_of_us: Option<i64>) -> Result<(), Failure> {
        (self.ended, self.as_of_us) = (true, as_of_us);
        let Some(lease) = &self.plan.lease else { return Ok(()) };
        let ending = Ending {
            source: self.plan.source.to_owned(),
            pull_id: self.pull_id,
            mode: self.plan.mode,
            last: self.last_rows()?,
            state: self.latest_state.clone(),
            as_of_us,
        };
        if !self.resumed {
            self.ending = Some(ending);
            return Ok(());
        }
        // The stages after this read its rows from its segments.
        ending.settle(self.plan.state, lease).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn rows(from: usize, count: usize) -> RecordBatch {
        let numbers = (from..from + count).map(|number| number as i64);
        let texts = StringArray::from_iter_values(numbers.clone().map(|number| number.to_string()));
        let columns: [(&str, ArrayRef); 2] = [("number", Arc::new(Int64Array::from_iter_values(numbers))), ("text", Arc::new(texts))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn rows_are_kept_in_the_row_groups_of_their_segments(
            segments in prop::collection::vec(prop::collection::vec(prop_oneof![0..9000_usize, 30_000..70_000_usize], 0..8), 0..3),
        ) {
            let kept_columns = ["number".to_owned()];
            let mut keeper = Keeper::new(&kept_columns);
            for (segment, batches) in segments.iter().enumerate() {
                let mut first_row = 0;
                for count in batches {
                    keeper.add(segment, first_row as u64, &rows(first_row, *count)).unwrap();
                    first_row += count;
                }
                keeper.join().unwrap();
            }
            let mut chunks = keeper.kept.chunks.into_iter();
            for (segment, batches) in segments.iter().enumerate() {
                let total = batches.iter().sum::<usize>();
                for first_row in (0..total).step_by(GROUP_ROWS) {
                    let kept = chunks.next().unwrap();
                    let group = first_row..total.min(first_row + GROUP_ROWS);
                    prop_assert_eq!((kept.segment, kept.first_row, kept.batch.num_columns()), (segment, first_row as u64, 1));
                    let numbers = kept.batch.column(0).as_primitive::<Int64Type>().values();
                    prop_assert!(numbers.iter().copied().eq(group.map(|number| number as i64)));
                }
            }
            prop_assert!(chunks.next().is_none());
        }
    }
}
