//! The scope of a run: the records that have to be decided anew, so that a run's cost follows what changed.
//!
//! Who is who depends on nothing but equal values of keys and what operators decided. So a record whose row is as it
//! was can only have another outcome where it shares a value with a record that changed, as that is now or was before,
//! or with one that was of a member with such a record, and so on, or where a decision speaks of it. [`narrow`] starts
//! from the records that came changed, came new or went, and those of decisions, and adds whoever can be reached until
//! nothing is added. What is left keeps its assignment, and identity works on the scope as if it were all there is.
//!
//! Reaching is a few passes over the keys of all records, which costs far less than to match them: most are
//! answered by one bit of a filter.

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::UInt64Type;
use reunion_keys::Lookup;
use reunion_model::record::{PHONE, REASON, RECORD_KEY};
use reunion_model::threads::{both, on_all_cores};
use reunion_model::{Reason, RecordKey};

use crate::identity::{IdentityConfig, KeyColumns, KeyRow, Rule};
use crate::matching::{KeySet, positions};
use crate::pull::{Chunk, PreviousAssignments, Pull, PullInput, RECORDS, SourceCounts, Starts};
use crate::table::{NONE, StateError, all_sixteen, byte_of, byte_reason, numbers_of, sixteens_of, texts_of};

/// Passes over all records, after which all of them are decided anew: a chain of members that is longer
/// than this is none that people make.
const PASSES_MAX: usize = 8;
/// Records that a thread looks at, at the least: for fewer it would cost more than it saves.
const RECORDS_PER_THREAD_MIN: usize = 1 << 15;

/// What is known of the records that stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// What the pulls said of them, by source.
    pub(crate) counts: Vec<SourceCounts>,
    /// How many there are, by source.
    pub(crate) live: Vec<u64>,
    /// Of all of these, how many are in quarantine.
    pub(crate) quarantined: u64,
}

/// What a run has to decide.
#[derive(Debug)]
pub struct Scope {
    /// For each previous chunk its rows in scope, ascending.
    pub rows: Vec<Vec<u32>>,
    /// The pulls, with the keys in scope.
    pub pulls: Vec<Pull>,
    /// The assignments of the records in scope.
    pub assignments: Vec<RecordBatch>,
    /// The members that records in scope had.
    pub members: Vec<RecordBatch>,
    /// Members outside of the scope.
    pub members_outside: u64,
    /// What is known of the others.
    pub settled: Settled,
}

/// The columns of records that [`narrow`] needs; a chunk may lack those that its source does not have.
pub fn key_columns(config: &IdentityConfig) -> Vec<String> {
    let own = [RECORD_KEY, REASON, PHONE].map(str::to_owned);
    own.into_iter().chain(config.key_columns().into_iter().filter(|key| key != PHONE)).collect()
}

/// Narrows a run to what can change. `None` where there is nothing before, or where more than `share_max` of
/// the records can, so that to leave out the others costs more than it saves.
///
/// Of the chunks no more than [`key_columns`] is looked at. `members` are those of the previous generation, of
/// which the ids are looked at. The config has to be the one with which the previous assignments were made.
/// `decided` are the records that decisions speak of which hold now, or held then.
///
/// # Errors
/// Where the batches are not what they should be.
pub fn narrow(
    input: &PullInput,
    members: &[RecordBatch],
    config: &IdentityConfig,
    decided: &[RecordKey],
    lookup: &Lookup,
    share_max: f64,
) -> Result<Option<Scope>, StateError> {
    if input.previous_chunks == 0 {
        return Ok(None);
    }
    let records = Records::new(input, config, lookup)?;
    let mut reach = Reach::new(&records);
    reach.start();
    reach.take_decided(decided);
    if !reach.spread() || reach.count as f64 > share_max * records.len() as f64 {
        return Ok(None);
    }
    Ok(Some(reach.scope(members)?))
}

/// The keys of all rows of all chunks laid end to end; a row's position is its number.
struct Rows {
    starts: Starts,
    keys: Vec<u128>,
    /// 0 where the row has no usable phone.
    phones: Vec<u64>,
    /// The values of every key but the phone alone; 0 is none.
    others: Vec<Vec<u128>>,
}

impl Rows {
    fn new(chunks: &[Chunk], config: &IdentityConfig, lookup: &Lookup) -> Result<Self, StateError> {
        let starts = Starts::new(chunks)?;
        let total = starts.total();
        let mut rows = Self { starts, keys: Vec::with_capacity(total), phones: Vec::with_capacity(total), others: Vec::new() };
        for Chunk { batch, .. } in chunks {
            rows.keys.extend(all_sixteen(sixteens_of(batch, RECORDS, RECORD_KEY)?));
            let phones = numbers_of::<UInt64Type>(batch, RECORDS, PHONE)?;
            let reasons = texts_of(batch, RECORDS, REASON)?;
            let is_plain = phones.null_count() == 0 && reasons.null_count() == reasons.len();
            if is_plain {
                rows.phones.extend_from_slice(phones.values());
            } else {
                let usable = phones.iter().zip(reasons).map(|(phone, reason)| phone.filter(|_| reason.is_none()).unwrap_or_default());
                rows.phones.extend(usable);
            }
        }
        let keys = KeyColumns::new(chunks, config, lookup)?;
        let all = (0..total as u32).collect::<Vec<_>>();
        let values = |rule: &Rule| {
            on_all_cores(&all, RECORDS_PER_THREAD_MIN, |at| {
                let (chunk, row) = rows.starts.locate(*at);
                keys.value(rule, KeyRow { chunk, row, phone: rows.phones[*at as usize] }).unwrap_or_default()
            })
        };
        let others = keys.rules.iter().filter(|rule| !rule.is_phone() && keys.may_join(rule)).map(values).collect();
        Ok(Self { others, ..rows })
    }
}

/// The records of the previous generation: a value for each of its assignments in every column.
struct Records<'a> {
    input: &'a PullInput<'a>,
    rows: Rows,
    before: PreviousAssignments,
    /// The record of each previous row; `NONE` where the row is none that lives.
    of_row: Vec<u32>,
    /// The row that counts; `NONE` where there is none.
    row: Vec<u32>,
    source: Vec<u16>,
    /// For each pull the records that it saw unchanged, as often as they came.
    seen: Vec<Vec<u32>>,
    /// How often pulls saw it unchanged.
    offers: Vec<u32>,
    /// Number of the last pull that saw it unchanged, from 1; 0: none.
    pull: Vec<u32>,
}

impl<'a> Records<'a> {
    fn new(input: &'a PullInput<'a>, config: &IdentityConfig, lookup: &Lookup) -> Result<Self, StateError> {
        let (before, rows) = both(|| PreviousAssignments::new(input.assignments), || Rows::new(input.chunks, config, lookup));
        let (before, rows) = (before?, rows?);
        let count = before.keys.len();
        let of_row = positions(&rows.keys[..rows.starts.of(input.previous_chunks) as usize], &before.keys);
        let (mut row, mut source) = (vec![NONE; count], vec![0; count]);
        for (chunk, Chunk { source: of_chunk, .. }) in input.chunks[..input.previous_chunks].iter().enumerate() {
            for at in rows.starts.of(chunk)..rows.starts.of(chunk + 1) {
                let record = of_row[at as usize];
                if record != NONE {
                    // Of several versions the last counts.
                    row[record as usize] = at;
                    source[record as usize] = *of_chunk;
                }
            }
        }
        let seen = input.pulls.iter().map(|pull| {
            let keys = pull.seen.iter().map(|key| key.as_u128()).collect::<Vec<_>>();
            positions(&keys, &before.keys)
        });
        let mut records =
            Self { input, seen: seen.collect(), of_row, row, source, offers: vec![0; count], pull: vec![0; count], rows, before };
        for ((number, seen), pull) in (1..).zip(&records.seen).zip(input.pulls) {
            let confirmed = (0..count as u32).filter(|record| pull.confirms && records.source[*record as usize] == pull.source);
            for record in seen.iter().copied().filter(|record| *record != NONE).chain(confirmed) {
                records.offers[record as usize] += 1;
                records.pull[record as usize] = number;
            }
        }
        Ok(records)
    }

    fn len(&self) -> usize {
        self.row.len()
    }
}

/// Who can be reached from what changed.
struct Reach<'a> {
    records: &'a Records<'a>,
    is_in: Vec<bool>,
    /// How many are in.
    count: usize,
    phones: KeySet,
    others: Vec<KeySet>,
    members: KeySet,
}

impl<'a> Reach<'a> {
    fn new(records: &'a Records<'a>) -> Self {
        let others = records.rows.others.iter().map(|_| KeySet::default()).collect();
        let is_in = vec![false; records.len()];
        Self { records, is_in, count: 0, phones: KeySet::default(), others, members: KeySet::default() }
    }

    /// Takes in what came changed or new, what is gone, and what only the pulls of this run can say.
    fn start(&mut self) {
        let Records { input, rows, before, row, source, offers, pull, .. } = self.records;
        let from = rows.starts.of(input.previous_chunks) as usize;
        for record in positions(&rows.keys[from..], &before.keys) {
            if record != NONE {
                self.take(record);
            }
        }
        for row in from..rows.keys.len() {
            self.take_values(row as u32);
        }
        let mut snapshot = vec![0; input.sources.len()];
        for (number, pull) in (1..).zip(input.pulls).filter(|(_, pull)| pull.complete_snapshot) {
            snapshot[usize::from(pull.source)] = number;
        }
        let ambiguous = byte_of(Reason::RecordKeyDuplicate);
        for record in 0..self.records.len() {
            let is_gone = row[record] == NONE || pull[record] < snapshot[usize::from(source[record])];
            if is_gone || (offers[record] > 0 && before.reasons[record] == ambiguous) {
                self.take(record as u32);
            }
        }
    }

    /// Takes in the records that decisions speak of. They are few, and who they lead to may have changed.
    fn take_decided(&mut self, decided: &[RecordKey]) {
        let keys = decided.iter().map(|key| key.as_u128()).collect::<Vec<_>>();
        for record in positions(&keys, &self.records.before.keys) {
            if record != NONE {
                self.take(record);
            }
        }
    }

    /// Takes in who shares a value with what is in, until nobody is added. Gives up where that takes long.
    fn spread(&mut self) -> bool {
        for _ in 0..PASSES_MAX {
            let reached = self.reached();
            if reached.is_empty() {
                return true;
            }
            reached.into_iter().for_each(|record| self.take(record));
        }
        false
    }

    /// Who is not in and shares a value with somebody who is.
    fn reached(&self) -> Vec<u32> {
        let shares = (0..self.records.len()).step_by(RECORDS_PER_THREAD_MIN).collect::<Vec<_>>();
        let reached = on_all_cores(&shares, 1, |from| {
            let to = (from + RECORDS_PER_THREAD_MIN).min(self.records.len());
            (*from..to).filter(|record| !self.is_in[*record] && self.is_reached(*record)).map(|record| record as u32).collect::<Vec<_>>()
        });
        reached.concat()
    }

    #[inline]
    fn is_reached(&self, record: usize) -> bool {
        let Records { rows, before, row, .. } = self.records;
        let (member, row) = (before.members[record], row[record] as usize);
        if member != 0 && self.members.contains(member) {
            return true;
        }
        rows.phones[row] != 0
            && (self.phones.contains(u128::from(rows.phones[row]))
                || rows.others.iter().zip(&self.others).any(|(values, known)| values[row] != 0 && known.contains(values[row])))
    }

    /// Takes a record in, with its values and its member.
    fn take(&mut self, record: u32) {
        let Records { before, row, .. } = self.records;
        if std::mem::replace(&mut self.is_in[record as usize], true) {
            return;
        }
        self.count += 1;
        let member = before.members[record as usize];
        if member != 0 {
            self.members.insert(member);
        }
        if row[record as usize] != NONE {
            self.take_values(row[record as usize]);
        }
    }

    fn take_values(&mut self, row: u32) {
        let (rows, row) = (&self.records.rows, row as usize);
        if rows.phones[row] == 0 {
            return;
        }
        self.phones.insert(u128::from(rows.phones[row]));
        for (values, known) in rows.others.iter().zip(&mut self.others) {
            if values[row] != 0 {
                known.insert(values[row]);
            }
        }
    }

    fn scope(self, members: &[RecordBatch]) -> Result<Scope, StateError> {
        let Self { records, is_in, members: wanted, .. } = &self;
        let Records { input, rows, of_row, seen, .. } = records;
        let has = |record: u32| record != NONE && is_in[record as usize];
        let of_chunk = |chunk: usize| {
            let start = rows.starts.of(chunk);
            (start..rows.starts.of(chunk + 1)).filter(|row| has(of_row[*row as usize])).map(|row| row - start).collect()
        };
        let rows = (0..input.previous_chunks).map(of_chunk).collect();
        let pulls = input.pulls.iter().zip(seen).map(|(pull, records)| {
            let seen = pull.seen.iter().zip(records).filter(|(_, record)| has(**record)).map(|(key, _)| *key).collect::<Vec<RecordKey>>();
            Pull { seen, ..pull.clone_without_seen() }
        });
        let pulls = pulls.collect();
        let mut from = 0;
        let assignments = input.assignments.iter().map(|batch| {
            let of_batch = (0..batch.num_rows()).filter(|row| is_in[from + row]).map(|row| row as u32).collect::<Vec<_>>();
            from += batch.num_rows();
            Ok(take_record_batch(batch, &UInt32Array::from(of_batch))?)
        });
        let assignments = assignments.collect::<Result<_, StateError>>()?;
        let mut members_outside = 0;
        let members = members.iter().map(|batch| {
            let ids = sixteens_of(batch, "members", "member_id")?;
            let of_batch = (0_u32..).zip(all_sixteen(ids)).filter(|(_, id)| wanted.contains(*id)).map(|(row, _)| row).collect::<Vec<_>>();
            members_outside += (batch.num_rows() - of_batch.len()) as u64;
            Ok(take_record_batch(batch, &UInt32Array::from(of_batch))?)
        });
        let members = members.collect::<Result<_, StateError>>()?;
        Ok(Scope { rows, pulls, assignments, members, members_outside, settled: self.settled() })
    }

    /// Counts what the pulls said of the records that stay as they are.
    fn settled(&self) -> Settled {
        let Records { input, before, source, offers, .. } = self.records;
        let sources = input.sources.len();
        let mut settled = Settled { counts: vec![SourceCounts::default(); sources], live: vec![0; sources], quarantined: 0 };
        for record in (0..self.records.len()).filter(|record| !self.is_in[*record]) {
            let source = usize::from(source[record]);
            settled.live[source] += 1;
            settled.quarantined += u64::from(before.reasons[record] != 0);
            let (counts, offers) = (&mut settled.counts[source], u64::from(offers[record]));
            if offers == 0 {
                continue;
            }
            counts.pulled += offers;
            counts.superseded += offers - 1;
            match byte_reason(before.reasons[record]) {
                Some(reason) => *counts.quarantined.entry(reason).or_default() += 1,
                None => counts.unchanged += 1,
            }
        }
        settled
    }
}
