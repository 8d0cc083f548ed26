//! Pulls: which rows are new, changed, unchanged, superseded or deleted, and which version of each
//! record counts.
//!
//! The state holds records in *chunks*, oldest to newest; of a record that stands in several, the
//! version at the last position counts. While a source is read, [`Known`] tells rows that come as they were,
//! of which nothing is kept but that they were seen; the run gets the new chunks and the keys of those.
//!
//! Of equal record ids within one pull the greatest (updated_at, content hash) counts; of several
//! pulls in one run the latest that has the record. Where that is not the version at the last
//! position, [`Resolved`] says so, and the caller writes the row again at the end.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, FixedSizeBinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowNativeType, ArrowPrimitiveType, UInt64Type};
use hashbrown::HashMap;
use reunion_model::record::{CONTENT_HASH, PHONE, REASON, RECORD_ID, RECORD_KEY, ROW_HASH, UNFIT};
use reunion_model::{MemberId, Reason, RecordKey};
use serde::Serialize;

use crate::numbering::{Index, Keys, Numbering, number};
use crate::scope::Settled;
use crate::table::{
    NO_MOMENT, NONE, StateError, all_sixteen, byte_of, byte_reason, bytes_of_sixteen, moments_of, numbers_of, reason_byte, sixteen,
    sixteens_of, texts_of,
};

/// Members hold their sources as bits of one word.
pub const SOURCES_MAX: usize = 64;
pub(crate) const RECORDS: &str = "records";
const ASSIGNMENTS: &str = "assignments";

/// The rows of one source that live, by the hash of what the source gave: 38 bytes a record.
#[derive(Debug, Default)]
pub struct Known {
    /// The rows' hashes in the order in which they were stored, which is mostly that in which they come again.
    hashes: Vec<u128>,
    /// The place of each hash.
    places: Index,
    keys: Vec<RecordKey>,
    /// The columns that do not fit, of the few rows that have any.
    unfit: HashMap<u32, Box<str>>,
}

/// A row that is known.
pub(crate) struct KnownRow<'a> {
    /// Its record.
    pub(crate) key: RecordKey,
    /// Its columns that do not fit, with commas between them.
    pub(crate) unfit: Option<&'a str>,
}

impl Known {
    /// The columns of records that it is made of.
    pub const COLUMNS: [&str; 3] = [RECORD_KEY, ROW_HASH, UNFIT];

    /// What the live records of a source are, given as batches with at least [`Known::COLUMNS`]. Batches of
    /// a version that had no row hashes know nothing.
    ///
    /// # Errors
    /// Where a column has another type.
    pub fn new<'a>(batches: impl IntoIterator<Item = &'a RecordBatch> + Clone) -> Result<Self, StateError> {
        let count = batches.clone().into_iter().map(RecordBatch::num_rows).sum();
        let mut known = Self { hashes: Vec::with_capacity(count), keys: Vec::with_capacity(count), ..Self::default() };
        for batch in batches.into_iter().filter(|batch| batch.column_by_name(ROW_HASH).is_some()) {
            let (keys, hashes) = (sixteens_of(batch, RECORDS, RECORD_KEY)?, sixteens_of(batch, RECORDS, ROW_HASH)?);
            let unfit = texts_of(batch, RECORDS, UNFIT)?;
            for row in (0..batch.num_rows()).filter(|row| hashes.is_valid(*row)) {
                if unfit.is_valid(row) {
                    known.unfit.insert(known.keys.len() as u32, unfit.value(row).into());
                }
                known.hashes.push(sixteen(hashes, row));
                known.keys.push(RecordKey::from_u128(sixteen(keys, row)));
            }
        }
        // A hash that is there twice is of the same row, whose record it is in either place.
        known.places = Index::new(&known.hashes);
        Ok(known)
    }

    /// The row with this hash. `next` is where it probably is: behind the one that was asked for before.
    #[inline]
    pub(crate) fn find(&self, row_hash: u128, next: &mut usize) -> Option<KnownRow<'_>> {
        let is_next = self.hashes.get(*next) == Some(&row_hash);
        let at = if is_next { *next as u32 } else { self.places.find(&self.hashes, row_hash)? };
        *next = at as usize + 1;
        let unfit = if self.unfit.is_empty() { None } else { self.unfit.get(&at).map(AsRef::as_ref) };
        Some(KnownRow { key: self.keys[at as usize], unfit })
    }
}

/// Records of one source that lie together: a batch of a segment, of which only the columns that
/// [`crate::identity::index_columns`] names are needed.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Index of the source in [`PullInput::sources`].
    pub source: u16,
    /// The records.
    pub batch: RecordBatch,
}

/// One pull of a source that this run takes in.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// Index of the source in [`PullInput::sources`].
    pub source: u16,
    /// The chunks that it wrote, among the run's new ones.
    pub chunks: Range<usize>,
    /// Keys of the rows that it saw unchanged against the previous generation, as often as they came.
    pub seen: Vec<RecordKey>,
    /// It read everything and reached its end: a record that it did not see was deleted.
    pub complete_snapshot: bool,
    /// It found everything as it was, and brought nothing: every record of its source counts as seen.
    pub confirms: bool,
    /// Record ids are made of key columns ([`crate::Normaliser::is_keyed`]): different rows with one
    /// id cannot be told apart and go to quarantine.
    pub keyed: bool,
}

impl Pull {
    pub(crate) fn clone_without_seen(&self) -> Self {
        Self { chunks: self.chunks.clone(), seen: Vec::new(), ..*self }
    }
}

/// What [`Resolved::new`] works on.
#[derive(Debug, Clone, Copy)]
pub struct PullInput<'a> {
    /// Names of all sources with records. The position of a source is its bit in `source_mask`, so a
    /// state keeps the order and adds new sources at the end.
    pub sources: &'a [String],
    /// The previous generation's chunks and then the new ones, each oldest to newest.
    pub chunks: &'a [Chunk],
    /// How many of the chunks are the previous generation's.
    pub previous_chunks: usize,
    /// The pulls, oldest to newest.
    pub pulls: &'a [Pull],
    /// The previous generation's table of assignments ([`crate::identity::assignment_schema`]): every
    /// live record, once.
    pub assignments: &'a [RecordBatch],
    /// What is known of records that [`crate::scope::narrow`] has left out.
    pub settled: &'a Settled,
}

/// The counts of one source, as reports show them. Always
/// `pulled = new + changed + unchanged + superseded + sum(quarantined)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceCounts {
    /// Rows pulled.
    pub pulled: u64,
    /// Records that were not there.
    pub new: u64,
    /// Records that were there with other content.
    pub changed: u64,
    /// Records that were there as they are.
    pub unchanged: u64,
    /// Rows that another row of the same record was preferred to.
    pub superseded: u64,
    /// Records in quarantine, whatever they were before.
    pub quarantined: BTreeMap<Reason, u64>,
    /// Records that are gone from the source.
    pub deleted: u64,
    /// Records that were not pulled and went to quarantine, because others changed.
    pub requarantined: u64,
    /// Records that were not pulled and left quarantine, because others changed.
    pub released: u64,
}

/// What a source would lose, for the guard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deletions {
    /// Live records before the run, those in quarantine included.
    pub live_before: u64,
    /// Of these, how many are gone.
    pub deleted: u64,
}

/// The live version of every record, and what the pulls did.
#[derive(Debug)]
pub struct Resolved<'a> {
    pub(crate) input: PullInput<'a>,
    pub(crate) rows: Rows<'a>,
    /// The columns below have one value for each record.
    records: Records,
    pub(crate) source: Vec<u16>,
    /// The row that counts; `NONE` where the record is gone.
    pub(crate) live: Vec<u32>,
    /// Pulled in this run.
    pub(crate) pulled: Vec<bool>,
    /// New content, or not there before.
    pub(crate) changed: Vec<bool>,
    /// In the previous assignments.
    pub(crate) assigned: Vec<bool>,
    /// Previous member, as a number in `members`, or `NONE`.
    pub(crate) previous_member: Vec<u32>,
    pub(crate) previous_reason: Vec<u8>,
    /// Why the live row is not usable by itself; 0 where it is.
    pub(crate) reason: Vec<u8>,
    /// The members of the previous assignments, each once.
    pub(crate) members: Vec<u128>,
    /// Rows to be written again at the end, since a version that does not count stands behind them.
    pub(crate) restore: Vec<u32>,
    /// New rows whose record stands again further down.
    repeated: Vec<u32>,
    pub(crate) tombstones: Vec<Vec<RecordKey>>,
    /// With `pulled`, `superseded` and `deleted` filled in.
    pub(crate) counts: Vec<SourceCounts>,
    deletions: Vec<Deletions>,
}

/// Where the rows of each chunk begin, if all are laid end to end, and the end.
#[derive(Debug)]
pub(crate) struct Starts {
    of_chunk: Vec<u32>,
    /// The chunk in which each block of rows begins, and at the end the last chunk: of any row the chunk lies between
    /// two of them, which are mostly the same.
    of_block: Vec<u32>,
}

impl Starts {
    const BLOCK_ROWS: usize = 1 << 12;

    pub(crate) fn new(chunks: &[Chunk]) -> Result<Self, StateError> {
        let mut of_chunk = vec![0];
        let mut of_block = Vec::new();
        let mut total = 0;
        for (at, chunk) in (0_u32..).zip(chunks) {
            total += chunk.batch.num_rows();
            of_chunk.push(u32::try_from(total).ok().filter(|total| *total != NONE).ok_or(StateError::Rows)?);
            of_block.resize(total.div_ceil(Self::BLOCK_ROWS), at);
        }
        of_block.push(chunks.len().saturating_sub(1) as u32);
        Ok(Self { of_chunk, of_block })
    }

    /// Where this chunk begins, or after the last one the end.
    pub(crate) fn of(&self, chunk: usize) -> u32 {
        self.of_chunk[chunk]
    }

    pub(crate) fn total(&self) -> usize {
        self.of_chunk[self.of_chunk.len() - 1] as usize
    }

    /// The chunk of a row, and the row's place in it.
    #[inline]
    pub(crate) fn locate(&self, row: u32) -> (usize, usize) {
        let block = row as usize / Self::BLOCK_ROWS;
        let (first, last) = (self.of_block[block] as usize, self.of_block[block + 1] as usize);
        let chunk = first + self.of_chunk[first + 1..=last].partition_point(|start| *start <= row);
        (chunk, (row - self.of_chunk[chunk]) as usize)
    }
}

/// The numbers of a column, each a single look away.
#[derive(Debug)]
struct Values<'a, N: ArrowNativeType> {
    values: &'a [N],
    /// None where no value is missing.
    nulls: Option<&'a NullBuffer>,
}

impl<'a, N: ArrowNativeType> Values<'a, N> {
    fn of<T: ArrowPrimitiveType<Native = N>>(column: &'a PrimitiveArray<T>) -> Self {
        Self { values: column.values(), nulls: column.nulls().filter(|nulls| nulls.null_count() > 0) }
    }

    #[inline]
    fn get(&self, at: usize) -> Option<N> {
        self.nulls.is_none_or(|nulls| nulls.is_valid(at)).then(|| self.values[at])
    }
}

/// The columns of all chunks laid end to end; a row's position is its number.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    chunks: &'a [Chunk],
    starts: Starts,
    ids: Vec<&'a StringArray>,
    hashes: Vec<&'a FixedSizeBinaryArray>,
    keys: Vec<&'a [[u8; 16]]>,
    updated: Vec<Option<Values<'a, i64>>>,
    created: Vec<Option<Values<'a, i64>>>,
    phones: Vec<Values<'a, u64>>,
    pub(crate) reasons: Vec<u8>,
}

impl<'a> Rows<'a> {
    fn new(chunks: &'a [Chunk]) -> Result<Self, StateError> {
        let mut rows = Self {
            chunks,
            starts: Starts::new(chunks)?,
            ids: Vec::new(),
            hashes: Vec::new(),
            keys: Vec::new(),
            updated: Vec::new(),
            created: Vec::new(),
            phones: Vec::new(),
            reasons: Vec::new(),
        };
        rows.reasons.reserve_exact(rows.starts.total());
        for Chunk { batch, .. } in chunks {
            rows.ids.push(texts_of(batch, RECORDS, RECORD_ID)?);
            rows.hashes.push(sixteens_of(batch, RECORDS, CONTENT_HASH)?);
            rows.keys.push(bytes_of_sixteen(sixteens_of(batch, RECORDS, RECORD_KEY)?));
            rows.updated.push(moments_of(batch, RECORDS, "updated_at")?.map(Values::of));
            rows.created.push(moments_of(batch, RECORDS, "created_at")?.map(Values::of));
            rows.phones.push(Values::of(numbers_of::<UInt64Type>(batch, RECORDS, PHONE)?));
            push_reasons(&mut rows.reasons, texts_of(batch, RECORDS, REASON)?)?;
        }
        Ok(rows)
    }

    /// When a row was written last, in microseconds; `None` is before all.
    pub(crate) fn updated(&self, row: u32) -> Option<i64> {
        self.moment(&self.updated, row)
    }

    /// When a row was made, in microseconds.
    pub(crate) fn created(&self, row: u32) -> Option<i64> {
        self.moment(&self.created, row)
    }

    #[inline]
    fn moment(&self, moments: &[Option<Values<i64>>], row: u32) -> Option<i64> {
        let (chunk, at) = self.locate(row);
        moments[chunk].as_ref()?.get(at)
    }

    /// 0 for null.
    #[inline]
    pub(crate) fn phone(&self, row: u32) -> u64 {
        let (chunk, at) = self.locate(row);
        self.phone_at(chunk, at)
    }

    /// The same, of the row at this place of a chunk.
    #[inline]
    pub(crate) fn phone_at(&self, chunk: usize, at: usize) -> u64 {
        self.phones[chunk].get(at).unwrap_or_default()
    }

    fn chunk_start(&self, chunk: usize) -> u32 {
        self.starts.of(chunk)
    }

    /// The chunk of a row, and the row's place in it.
    #[inline]
    pub(crate) fn locate(&self, row: u32) -> (usize, usize) {
        self.starts.locate(row)
    }

    pub(crate) fn source(&self, row: u32) -> u16 {
        self.chunks[self.locate(row).0].source
    }

    /// The key of a row's record.
    pub(crate) fn key(&self, row: u32) -> u128 {
        let (chunk, at) = self.locate(row);
        u128::from_be_bytes(self.keys[chunk][at])
    }

    pub(crate) fn hash(&self, row: u32) -> u128 {
        let (chunk, at) = self.locate(row);
        sixteen(self.hashes[chunk], at)
    }

    pub(crate) fn record_id(&self, row: u32) -> &'a str {
        let (chunk, at) = self.locate(row);
        self.ids[chunk].value(at)
    }
}

impl<'a> Resolved<'a> {
    /// Decides which version of each record counts.
    ///
    /// # Errors
    /// Where the batches are not what they should be, or there are more than [`SOURCES_MAX`] sources.
    pub fn new(input: PullInput<'a>) -> Result<Self, StateError> {
        if input.sources.len() > SOURCES_MAX {
            return Err(StateError::Sources(input.sources.len()));
        }
        let rows = Rows::new(input.chunks)?;
        let mut resolver = Resolver::new(input, rows)?;
        resolver.place_previous();
        for (at, pull) in input.pulls.iter().enumerate() {
            resolver.take(at as u32 + 1, pull);
        }
        Ok(resolver.finish())
    }

    /// What each source would lose, in the order of the sources.
    pub fn deletions(&self) -> &[Deletions] {
        &self.deletions
    }

    /// Whether record `a` is to be preferred to `b` as the more recent of one member: the greater
    /// updated_at, then the smaller source, then the smaller record id.
    pub(crate) fn is_more_recent(&self, a: u32, b: u32) -> std::cmp::Ordering {
        let rows = &self.rows;
        rows.updated(b).cmp(&rows.updated(a)).then_with(|| self.by_name(a, b))
    }

    /// The order in which records found members: created_at, source, record id.
    pub(crate) fn founding_order(&self, a: u32, b: u32) -> std::cmp::Ordering {
        let created = |row: u32| self.rows.created(row).unwrap_or(NO_MOMENT);
        created(a).cmp(&created(b)).then_with(|| self.by_name(a, b))
    }

    fn by_name(&self, a: u32, b: u32) -> std::cmp::Ordering {
        let name = |row: u32| &self.input.sources[usize::from(self.rows.source(row))];
        name(a).cmp(name(b)).then_with(|| self.rows.record_id(a).cmp(self.rows.record_id(b)))
    }

    /// The key of a record.
    pub(crate) fn key(&self, record: u32) -> u128 {
        self.records.key(&self.rows, record as usize)
    }

    /// The previous member of this number.
    pub(crate) fn member(&self, number: u32) -> MemberId {
        MemberId::from_u128(self.members[number as usize])
    }

    /// New rows (chunk, row) whose record the pulls brought again further down, in ascending order.
    pub fn repeated(&self) -> impl Iterator<Item = (usize, usize)> {
        self.repeated.iter().map(|row| self.rows.locate(*row))
    }
}

/// The records of a run: those that are assigned, and those of new rows.
#[derive(Debug)]
struct Records {
    /// Where the key of each stands first: among those that are assigned, or behind them among the new rows.
    first: Vec<u32>,
    assigned: Vec<u128>,
    /// The first of the new rows.
    new_rows: u32,
}

impl Records {
    fn len(&self) -> usize {
        self.first.len()
    }

    fn key(&self, rows: &Rows, record: usize) -> u128 {
        let at = self.first[record];
        let of_row = || rows.key(at - self.assigned.len() as u32 + self.new_rows);
        self.assigned.get(at as usize).copied().unwrap_or_else(of_row)
    }
}

struct Resolver<'a> {
    input: PullInput<'a>,
    rows: Rows<'a>,
    records: Records,
    members: Vec<u128>,
    /// The record of each row, or a number beyond the records.
    record_of_row: Vec<u32>,
    /// The records that each pull saw unchanged, in its order.
    seen: Vec<Vec<u32>>,
    assigned: Vec<bool>,
    previous_member: Vec<u32>,
    previous_reason: Vec<u8>,
    source: Vec<u16>,
    /// The previous generation's version.
    previous: Vec<u32>,
    /// The version that counts so far.
    live: Vec<u32>,
    /// The version at the last position.
    last: Vec<u32>,
    /// Number of the last pull that had the record; 0: none.
    pull: Vec<u32>,
    /// Different rows of a keyed source had this record in the last pull.
    ambiguous: Vec<bool>,
    repeated: Vec<u32>,
    counts: Vec<SourceCounts>,
}

/// The previous assignments, a value for each record.
pub(crate) struct PreviousAssignments {
    pub(crate) keys: Vec<u128>,
    /// 0: none.
    pub(crate) members: Vec<u128>,
    pub(crate) reasons: Vec<u8>,
}

impl PreviousAssignments {
    pub(crate) fn new(batches: &[RecordBatch]) -> Result<Self, StateError> {
        let count = batches.iter().map(RecordBatch::num_rows).sum();
        let mut all = Self { keys: Vec::with_capacity(count), members: Vec::with_capacity(count), reasons: Vec::with_capacity(count) };
        for batch in batches {
            all.keys.extend(all_sixteen(sixteens_of(batch, ASSIGNMENTS, RECORD_KEY)?));
            let members = sixteens_of(batch, ASSIGNMENTS, "member_id")?;
            match members.nulls() {
                None => all.members.extend(all_sixteen(members)),
                Some(valid) => all.members.extend(all_sixteen(members).zip(valid).map(|(id, valid)| if valid { id } else { 0 })),
            }
            push_reasons(&mut all.reasons, texts_of(batch, ASSIGNMENTS, REASON)?)?;
        }
        Ok(all)
    }

    /// For each record the number of its member, or `NONE`; and the members.
    fn numbered(&self) -> (Vec<u32>, Vec<u128>) {
        let members = self.members.iter().copied().filter(|id| *id != 0).collect::<Vec<_>>();
        let Numbering { of, first } = number(&[Keys::Wide(&members)]);
        let mut numbers = of.into_iter();
        let number = self.members.iter().map(|id| if *id == 0 { NONE } else { numbers.next().unwrap_or(NONE) }).collect();
        (number, first.into_iter().map(|at| members[at as usize]).collect())
    }
}

/// A value for each source.
fn resized<T: Clone + Default>(known: &[T], sources: usize) -> Vec<T> {
    let mut all = known.to_vec();
    all.resize(sources, T::default());
    all
}

pub(crate) fn push_reasons(reasons: &mut Vec<u8>, texts: &StringArray) -> Result<(), StateError> {
    if texts.null_count() == texts.len() {
        reasons.resize(reasons.len() + texts.len(), 0);
        return Ok(());
    }
    for reason in texts {
        reasons.push(reason_byte(reason)?);
    }
    Ok(())
}

impl<'a> Resolver<'a> {
    fn new(input: PullInput<'a>, rows: Rows<'a>) -> Result<Self, StateError> {
        let assignments = PreviousAssignments::new(input.assignments)?;
        let (member, members) = assignments.numbered();
        let (previous, new) = rows.keys.split_at(input.previous_chunks);
        let previous_rows = rows.chunk_start(input.previous_chunks) as usize;
        let new_rows = rows.starts.total() - previous_rows;
        let seen = input.pulls.iter().flat_map(|pull| &pull.seen).map(|key| key.as_u128()).collect::<Vec<_>>();
        // Records are what is assigned and what is new. A previous row or a seen key that is neither is none.
        let known = assignments.keys.len() + new_rows;
        let of_rows = new.iter().chain(previous).map(|keys| Keys::Bytes(keys));
        let lists = std::iter::once(Keys::Wide(&assignments.keys)).chain(of_rows).chain([Keys::Wide(&seen)]).collect::<Vec<_>>();
        let Numbering { of, mut first } = number(&lists);
        drop(seen);
        let count = first.partition_point(|at| (*at as usize) < known);
        first.truncate(count);
        let (of_assigned, rest) = of.split_at(assignments.keys.len());
        let (of_new, rest) = rest.split_at(new_rows);
        let (of_previous, mut of_seen) = rest.split_at(previous_rows);
        let seen_by_pull = input.pulls.iter().map(|pull| {
            let (of_pull, others) = of_seen.split_at(pull.seen.len());
            of_seen = others;
            of_pull.to_vec()
        });
        let mut resolver = Self {
            input,
            records: Records { first, assigned: assignments.keys, new_rows: previous_rows as u32 },
            seen: seen_by_pull.collect(),
            record_of_row: [of_previous, of_new].concat(),
            rows,
            members,
            assigned: vec![false; count],
            previous_member: vec![NONE; count],
            previous_reason: vec![0; count],
            source: vec![0; count],
            previous: vec![NONE; count],
            live: vec![NONE; count],
            last: vec![NONE; count],
            pull: vec![0; count],
            ambiguous: vec![false; count],
            repeated: Vec::new(),
            counts: resized(&input.settled.counts, input.sources.len()),
        };
        for (at, record) in of_assigned.iter().enumerate() {
            let record = *record as usize;
            resolver.assigned[record] = true;
            resolver.previous_member[record] = member[at];
            resolver.previous_reason[record] = assignments.reasons[at];
        }
        Ok(resolver)
    }

    /// Finds the previous version of every live record: the last one in the previous chunks.
    fn place_previous(&mut self) {
        for (chunk, Chunk { source, .. }) in self.input.chunks[..self.input.previous_chunks].iter().enumerate() {
            for row in self.rows.chunk_start(chunk)..self.rows.chunk_start(chunk + 1) {
                let record = self.record_of_row[row as usize] as usize;
                if record < self.records.len() && self.assigned[record] {
                    self.source[record] = *source;
                    self.previous[record] = row;
                    self.live[record] = row;
                    self.last[record] = row;
                }
            }
        }
    }

    fn take(&mut self, number: u32, pull: &Pull) {
        if pull.confirms {
            self.confirm(number, pull);
        }
        for record in std::mem::take(&mut self.seen[number as usize - 1]) {
            // A key that was seen is one that was known; the version is the previous generation's.
            if let Some(row) = self.previous.get(record as usize).copied().filter(|row| *row != NONE) {
                self.offer(number, pull, record as usize, row);
            }
        }
        let first_row = self.rows.chunk_start(pull.chunks.start);
        for row in first_row..self.rows.chunk_start(pull.chunks.end) {
            let record = self.record_of_row[row as usize] as usize;
            let last = std::mem::replace(&mut self.last[record], row);
            if last == NONE {
                self.source[record] = pull.source;
            } else if last >= first_row {
                self.repeated.push(last);
            }
            self.offer(number, pull, record, row);
        }
    }

    /// Every record that the source has is as it was, and so is whether its rows can be told apart.
    fn confirm(&mut self, number: u32, pull: &Pull) {
        let duplicate = byte_of(Reason::RecordKeyDuplicate);
        for record in 0..self.records.len() {
            if self.source[record] == pull.source && self.assigned[record] && self.previous[record] != NONE {
                self.offer(number, pull, record, self.previous[record]);
                self.ambiguous[record] = self.previous_reason[record] == duplicate;
            }
        }
    }

    /// One pulled row of a record.
    fn offer(&mut self, number: u32, pull: &Pull, record: usize, row: u32) {
        let counts = &mut self.counts[usize::from(pull.source)];
        counts.pulled += 1;
        if self.pull[record] != number {
            counts.superseded += u64::from(self.pull[record] != 0);
            self.pull[record] = number;
            self.live[record] = row;
            self.ambiguous[record] = false;
            return;
        }
        counts.superseded += 1;
        let rank = |row: u32| (self.rows.updated(row), self.rows.hash(row));
        let (held, offered) = (rank(self.live[record]), rank(row));
        self.ambiguous[record] |= pull.keyed && held.1 != offered.1;
        if offered > held {
            self.live[record] = row;
        }
    }

    fn finish(mut self) -> Resolved<'a> {
        let sources = self.input.sources.len();
        let mut snapshot = vec![0; sources];
        for (at, pull) in self.input.pulls.iter().enumerate().filter(|(_, pull)| pull.complete_snapshot) {
            snapshot[usize::from(pull.source)] = at as u32 + 1;
        }
        let live = resized(&self.input.settled.live, sources);
        let mut deletions = live.into_iter().map(|live_before| Deletions { live_before, deleted: 0 }).collect::<Vec<_>>();
        let mut tombstones = vec![Vec::new(); sources];
        let mut restore = Vec::new();
        let count = self.records.len();
        let (mut reason, mut changed) = (vec![0; count], vec![false; count]);
        let duplicate = byte_of(Reason::RecordKeyDuplicate);
        for record in 0..count {
            let source = usize::from(self.source[record]);
            deletions[source].live_before += u64::from(self.assigned[record]);
            if self.pull[record] < snapshot[source] {
                self.counts[source].superseded += u64::from(self.pull[record] != 0);
                deletions[source].deleted += u64::from(self.assigned[record]);
                tombstones[source].push(RecordKey::from_u128(self.records.key(&self.rows, record)));
                self.live[record] = NONE;
            }
            let (live, previous) = (self.live[record], self.previous[record]);
            if live == NONE {
                continue;
            }
            if live != self.last[record] {
                restore.push(live);
            }
            reason[record] = match self.rows.reasons[live as usize] {
                // Only a pull can say that its rows can be told apart again.
                0 if self.ambiguous[record] || (self.pull[record] == 0 && self.previous_reason[record] == duplicate) => duplicate,
                reason => reason,
            };
            changed[record] = live != previous && (previous == NONE || self.rows.hash(live) != self.rows.hash(previous));
        }
        self.repeated.sort_unstable();
        for (counts, deletions) in self.counts.iter_mut().zip(&deletions) {
            counts.deleted = deletions.deleted;
        }
        Resolved {
            input: self.input,
            pulled: self.pull.iter().zip(&self.live).map(|(pull, live)| *pull != 0 && *live != NONE).collect(),
            rows: self.rows,
            records: self.records,
            source: self.source,
            live: self.live,
            changed,
            assigned: self.assigned,
            previous_member: self.previous_member,
            previous_reason: self.previous_reason,
            reason,
            members: self.members,
            restore,
            repeated: self.repeated,
            tombstones,
            counts: self.counts,
            deletions,
        }
    }
}

impl Resolved<'_> {
    /// Counts what became of every record, once it is known which ones are in quarantine.
    pub(crate) fn count(&mut self, reasons: &[u8]) {
        for (record, reason) in reasons.iter().enumerate().filter(|(record, _)| self.live[*record] != NONE) {
            let counts = &mut self.counts[usize::from(self.source[record])];
            match (byte_reason(*reason), self.pulled[record]) {
                (Some(reason), true) => *counts.quarantined.entry(reason).or_default() += 1,
                (None, true) if !self.assigned[record] => counts.new += 1,
                (None, true) if self.changed[record] => counts.changed += 1,
                (None, true) => counts.unchanged += 1,
                (Some(_), false) => counts.requarantined += u64::from(self.previous_reason[record] == 0),
                (None, false) => counts.released += u64::from(self.previous_reason[record] != 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_row_is_found_in_its_chunk(sizes in prop::collection::vec(prop_oneof![Just(0), Just(1), 0..20_usize, 1000..9000_usize], 0..30)) {
            let batch = |rows: &usize| {
                let numbers: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![0; *rows]));
                Chunk { source: 0, batch: RecordBatch::try_from_iter([("n", numbers)]).unwrap() }
            };
            let starts = Starts::new(&sizes.iter().map(batch).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(starts.total(), sizes.iter().sum::<usize>());
            let mut row = 0;
            for (chunk, rows) in sizes.iter().enumerate() {
                prop_assert_eq!(starts.of(chunk), row);
                for at in 0..*rows {
                    prop_assert_eq!(starts.locate(row), (chunk, at));
                    row += 1;
                }
            }
        }
    }
}
