//! Evaluating rules over all members, piece by piece on all cores.
//!
//! A piece is a run of rows of one batch. Each rule gives one boolean per row whatever the pieces are, so
//! the result depends neither on them nor on the number of threads. Where a rule fails on some value, the
//! piece is halved until the rows that fail are alone: they count as null, and the others have their result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;
use reunion_model::MemberId;
use reunion_model::schema::MEMBER_ID;
use reunion_model::threads::cores;

use crate::engine::present;
use crate::rules::{BoundRule, BoundRules, BoundTag};
use crate::tags::{Entries, TagDelta, TagState, tag_keys, tag_rows};
use crate::{EvaluateError, parallel};

/// Rows of a piece: its columns fit the second-level cache.
const PIECE_ROWS_MAX: usize = 32_768;

/// What the rules say of the members.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Each tag, in the order of the config.
    pub tags: Vec<TagResult>,
    /// Each audience, in the order of the config.
    pub audiences: Vec<AudienceResult>,
    /// What changes in the stored tags.
    pub delta: TagDelta,
}

/// Who has a tag.
#[derive(Debug, Clone)]
pub struct TagResult {
    /// The tag.
    pub name: String,
    /// For each batch of members, who has it. No nulls.
    pub has: Vec<BooleanArray>,
    /// For each batch of members, since when, microseconds UTC; null for members without it. Only where it
    /// was asked for.
    pub since: Option<Vec<TimestampMicrosecondArray>>,
    /// How many.
    pub counts: TagCounts,
}

/// The figures of one tag: `members` is what it was before, members that were merged counted once, and
/// `gained` less `lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TagCounts {
    /// Members that have it now.
    pub members: u64,
    /// Of these, those that did not have it before.
    pub gained: u64,
    /// Members that had it and do not have it now, or are gone.
    pub lost: u64,
    /// Members for whom the rule gave null, which counts as false.
    pub null: u64,
}

/// Who is in a campaign's audience.
#[derive(Debug, Clone)]
pub struct AudienceResult {
    /// The campaign.
    pub campaign: String,
    /// For each batch of members, who is in it. No nulls.
    pub is_in: Vec<BooleanArray>,
    /// Members in it.
    pub members: u64,
    /// Members for whom the rule gave null, which counts as false.
    pub null: u64,
}

impl BoundRules {
    /// Evaluates all rules over all members.
    ///
    /// `members` have `member_id` and at least [`crate::Rules::columns_used`], derived columns among them,
    /// as [`crate::derive()`] gives them. `previous` is the state of tags before this run. `with_since` names
    /// the tags whose [`TagResult::since`] is wanted.
    ///
    /// # Errors
    /// Where a column is missing or of another type than at compile time.
    pub fn evaluate(&self, members: &[RecordBatch], previous: &TagState, with_since: &[&str]) -> Result<Evaluated, EvaluateError> {
        let inputs = members.iter().map(|batch| self.inputs(batch)).collect::<Result<Vec<_>, _>>()?;
        let mut pieces = Vec::new();
        for (batch, input) in inputs.iter().enumerate() {
            let starts = (0..input.rows).step_by(PIECE_ROWS_MAX);
            pieces.extend(starts.map(|start| Piece { batch, start, rows: PIECE_ROWS_MAX.min(input.rows - start) }));
        }
        let known: Vec<Known> = self.tags.iter().map(|tag| Known::of(previous.entries(&tag.name))).collect();
        let work = |at: usize| self.piece(&inputs[pieces[at].batch], &pieces[at], &known, with_since);
        let results = parallel::map(pieces.len(), cores(), work)?;
        self.assemble(&inputs, &pieces, results, previous, &known)
    }

    fn inputs<'a>(&self, batch: &'a RecordBatch) -> Result<Inputs<'a>, EvaluateError> {
        let missing = |column: &str, expected: &DataType, found: Option<&DataType>| EvaluateError::Column {
            column: column.to_owned(),
            expected: expected.to_string(),
            found: found.map_or("missing".to_owned(), DataType::to_string),
        };
        let id_type = DataType::FixedSizeBinary(16);
        let ids = batch.column_by_name(MEMBER_ID).filter(|ids| ids.data_type() == &id_type);
        let ids = ids.ok_or_else(|| missing(MEMBER_ID, &id_type, batch.column_by_name(MEMBER_ID).map(|ids| ids.data_type())))?;
        let mut columns = Vec::with_capacity(self.columns.len());
        for field in &self.columns {
            let column = batch.column_by_name(field.name()).ok_or_else(|| missing(field.name(), field.data_type(), None))?;
            if &self.clock.presented_type(field.name(), column.data_type()) != field.data_type() {
                return Err(missing(field.name(), field.data_type(), Some(column.data_type())));
            }
            columns.push(column);
        }
        Ok(Inputs { rows: batch.num_rows(), ids: ids.as_fixed_size_binary(), columns })
    }

    fn piece(&self, inputs: &Inputs<'_>, piece: &Piece, known: &[Known<'_>], with_since: &[&str]) -> Result<PieceResult, EvaluateError> {
        let ids = inputs.ids.slice(piece.start, piece.rows);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 2 * self.tags.len());
        for (column, field) in inputs.columns.iter().zip(&self.columns) {
            columns.push(present(&column.slice(piece.start, piece.rows), field.data_type())?);
        }
        let mut result = PieceResult::default();
        for (tag, known) in self.tags.iter().zip(known) {
            let (has, null) = decide(&tag.rule, &columns, piece.rows)?;
            let wants_since = with_since.contains(&tag.name.as_str());
            let followed = known.follow(&ids, &has, self.clock.at_us(), tag.since_is_used || wants_since);
            if tag.is_used {
                columns.push(Arc::new(BooleanArray::new(has.clone(), None)));
            }
            if tag.since_is_used
                && let Some(since) = &followed.since
            {
                columns.push(present(&(Arc::new(since.clone()) as ArrayRef), &self.clock.moment_type())?);
            }
            let since = followed.since.filter(|_| wants_since);
            result.tags.push(PieceTag { has, null, gained: followed.gained, since });
        }
        for rule in &self.audiences {
            result.audiences.push(decide(rule, &columns, piece.rows)?);
        }
        Ok(result)
    }

    fn assemble(
        &self,
        inputs: &[Inputs<'_>],
        pieces: &[Piece],
        results: Vec<PieceResult>,
        previous: &TagState,
        known: &[Known<'_>],
    ) -> Result<Evaluated, EvaluateError> {
        let by_batch = |bits: &dyn Fn(&PieceResult) -> BooleanBuffer| {
            let mut batches: Vec<Vec<BooleanBuffer>> = vec![Vec::new(); inputs.len()];
            for (piece, result) in pieces.iter().zip(&results) {
                batches[piece.batch].push(bits(result));
            }
            batches.into_iter().map(join).collect::<Vec<BooleanArray>>()
        };
        let mut delta = TagDelta::default();
        let mut tags = Vec::new();
        for (at, (tag, known)) in self.tags.iter().zip(known).enumerate() {
            let has = by_batch(&|result| result.tags[at].has.clone());
            let mut upserts = Vec::new();
            let mut gained = 0;
            for (piece, result) in pieces.iter().zip(&results) {
                gained += result.tags[at].gained.len() as u64;
                let ids = inputs[piece.batch].ids;
                upserts.extend(result.tags[at].gained.iter().map(|row| (id_at(ids, piece.start + *row as usize), self.clock.at_us())));
            }
            let lost = known.settle(&mut upserts, tag, &mut delta)?;
            if !upserts.is_empty() {
                delta.upserts.push(tag_rows(&tag.name, &upserts)?);
            }
            let members = has.iter().map(|has| has.true_count() as u64).sum();
            let null = results.iter().map(|result| result.tags[at].null).sum();
            let since = since_by_batch(inputs, pieces, &results, at)?;
            tags.push(TagResult { name: tag.name.clone(), has, since, counts: TagCounts { members, gained, lost, null } });
        }
        // Tags that are no rules any more.
        for name in previous.names() {
            if let (Some(entries), true) = (previous.entries(name), self.tags.iter().all(|tag| tag.name != name)) {
                let mut members = entries.moved.clone();
                members.extend(entries.own_rows());
                delta.removals.push(tag_keys(name, &members)?);
            }
        }
        let mut audiences = Vec::new();
        for (at, rule) in self.audiences.iter().enumerate() {
            let is_in = by_batch(&|result| result.audiences[at].0.clone());
            let members = is_in.iter().map(|is_in| is_in.true_count() as u64).sum();
            let null = results.iter().map(|result| result.audiences[at].1).sum();
            let crate::RuleName::Audience(campaign) = &rule.name else { return Err(EvaluateError::Shape { rule: rule.name.clone() }) };
            audiences.push(AudienceResult { campaign: campaign.clone(), is_in, members, null });
        }
        Ok(Evaluated { tags, audiences, delta })
    }
}

/// What the rules read of one batch.
struct Inputs<'a> {
    rows: usize,
    ids: &'a FixedSizeBinaryArray,
    columns: Vec<&'a ArrayRef>,
}

struct Piece {
    batch: usize,
    start: usize,
    rows: usize,
}

#[derive(Default)]
struct PieceResult {
    tags: Vec<PieceTag>,
    audiences: Vec<(BooleanBuffer, u64)>,
}

struct PieceTag {
    has: BooleanBuffer,
    null: u64,
    /// Rows of the piece that did not have the tag before.
    gained: Vec<u32>,
    since: Option<TimestampMicrosecondArray>,
}

/// Who had one tag before, and which of them still match.
struct Known<'a> {
    entries: Option<&'a Entries>,
    still: Vec<AtomicU64>,
}

struct Followed {
    gained: Vec<u32>,
    since: Option<TimestampMicrosecondArray>,
}

impl<'a> Known<'a> {
    fn of(entries: Option<&'a Entries>) -> Self {
        let words = entries.map_or(0, |entries| entries.len().div_ceil(64));
        Self { entries, still: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Looks up who matched before among those who match now.
    fn follow(&self, ids: &FixedSizeBinaryArray, has: &BooleanBuffer, clock_us: i64, wants_since: bool) -> Followed {
        let mut gained = Vec::new();
        let mut since = if wants_since { vec![0; ids.len()] } else { Vec::new() };
        // Members mostly come in the order in which they got the tag.
        let mut next = 0;
        for row in has.set_indices() {
            let before = self.entries.and_then(|entries| Some((entries, entries.find_near(id_at(ids, row), next)?)));
            let since_us = match before {
                Some((entries, at)) => {
                    next = at + 1;
                    self.still[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
                    entries.since_us[at]
                }
                None => {
                    gained.push(row as u32);
                    clock_us
                }
            };
            if wants_since {
                since[row] = since_us;
            }
        }
        let since = wants_since.then(|| {
            let array = TimestampMicrosecondArray::new(since.into(), Some(NullBuffer::new(has.clone())));
            array.with_data_type(reunion_model::schema::timestamp_type())
        });
        Followed { gained, since }
    }

    /// Adds what changes for those who had the tag before; gives how many lost it.
    fn settle(&self, upserts: &mut Vec<(u128, i64)>, tag: &BoundTag, delta: &mut TagDelta) -> Result<u64, EvaluateError> {
        let Some(entries) = self.entries else { return Ok(0) };
        let mut removals = entries.moved.clone();
        let mut lost = 0;
        for at in 0..entries.len() {
            if self.still[at / 64].load(Ordering::Relaxed) & (1 << (at % 64)) == 0 {
                lost += 1;
                removals.extend(entries.has_own_row[at].then_some(entries.members[at]));
            } else if entries.differs[at] {
                upserts.push((entries.members[at], entries.since_us[at]));
            }
        }
        if !removals.is_empty() {
            delta.removals.push(tag_keys(&tag.name, &removals)?);
        }
        Ok(lost)
    }
}

fn id_at(ids: &FixedSizeBinaryArray, row: usize) -> u128 {
    MemberId::from_slice(ids.value(row)).map_or(0, MemberId::as_u128)
}

/// For each row whether the rule holds, and for how many it gave null.
fn decide(rule: &BoundRule, columns: &[ArrayRef], rows: usize) -> Result<(BooleanBuffer, u64), EvaluateError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&rule.schema), columns.to_vec(), &options)?;
    let mut values = Vec::new();
    evaluate(rule.expr.as_ref(), &batch, &mut values);
    let values: Vec<&dyn Array> = values.iter().map(|array| array.as_ref()).collect();
    let values = match values.as_slice() {
        [] => return Ok((BooleanBuffer::new_unset(rows), 0)),
        [one] => one.slice(0, one.len()),
        several => concat(several)?,
    };
    let shape = || EvaluateError::Shape { rule: rule.name.clone() };
    let booleans = values.as_boolean_opt().filter(|booleans| booleans.len() == rows).ok_or_else(shape)?;
    Ok(match booleans.nulls() {
        Some(nulls) => (booleans.values() & nulls.inner(), nulls.null_count() as u64),
        None => (booleans.values().clone(), 0),
    })
}

/// Appends the rule's values, null for the rows on which it fails.
fn evaluate(expr: &dyn PhysicalExpr, batch: &RecordBatch, values: &mut Vec<ArrayRef>) {
    let rows = batch.num_rows();
    match expr.evaluate(batch).and_then(|value| value.into_array(rows)) {
        Ok(array) if array.data_type() == &DataType::Null => values.push(Arc::new(BooleanArray::new_null(rows))),
        Ok(array) => values.push(array),
        Err(_) if rows <= 1 => values.push(Arc::new(BooleanArray::new_null(rows))),
        Err(_) => {
            evaluate(expr, &batch.slice(0, rows / 2), values);
            evaluate(expr, &batch.slice(rows / 2, rows - rows / 2), values);
        }
    }
}

fn join(parts: Vec<BooleanBuffer>) -> BooleanArray {
    match parts.as_slice() {
        [one] => BooleanArray::new(one.clone(), None),
        parts => {
            let mut joined = arrow::array::BooleanBufferBuilder::new(parts.iter().map(BooleanBuffer::len).sum());
            parts.iter().for_each(|part| joined.append_buffer(part));
            BooleanArray::new(joined.finish(), None)
        }
    }
}

fn since_by_batch(
    inputs: &[Inputs<'_>],
    pieces: &[Piece],
    results: &[PieceResult],
    tag: usize,
) -> Result<Option<Vec<TimestampMicrosecondArray>>, EvaluateError> {
    let mut batches: Vec<Vec<&dyn Array>> = vec![Vec::new(); inputs.len()];
    for (piece, result) in pieces.iter().zip(results) {
        match &result.tags[tag].since {
            Some(since) => batches[piece.batch].push(since),
            None => return Ok(None),
        }
    }
    let empty = TimestampMicrosecondArray::from(Vec::<i64>::new()).with_data_type(reunion_model::schema::timestamp_type());
    let joined = batches.into_iter().map(|parts| match parts.as_slice() {
        [] => Ok(empty.clone()),
        parts => Ok(concat(parts)?.as_primitive().clone()),
    });
    joined.collect::<Result<Vec<_>, EvaluateError>>().map(Some)
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
