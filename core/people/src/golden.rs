//! Golden columns: a member's value in each column, chosen by the column's survivorship rule.
//!
//! Column by column: first the record that wins for every member, then one gather of the winners'
//! values. Nulls never win. Ties go to the more recent record: the greater updated_at, then the
//! smaller source, then the smaller record id.
//!
//! Consent is decided by purpose over its three columns together. Explicit events are withdrawals,
//! and grants with evidence; a grant without evidence says nothing. An undated withdrawal beats all.
//! Among the dated, the latest wins, and a withdrawal where two are of the same moment. An undated
//! grant loses to any withdrawal. A member without an explicit event is `unknown`.
//!
//! A sum that does not fit its column is null and counted, since one absurd amount must not stop a
//! run.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
    new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use reunion_keys::Lookup;
use reunion_model::record::{CONTENT_HASH, PHONE};
use reunion_model::schema::{COLUMNS, ColumnType, DECIMAL_PRECISION, DECIMAL_SCALE, Survivorship, canonical, timestamp_type};
use reunion_model::threads::{both, one_by_one};
use reunion_model::{Consent, MemberId, Purpose};

use crate::identity::Identified;
use crate::rowhash;
use crate::table::{NONE, sixteens};

/// One golden column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// How its value is chosen.
    pub rule: Survivorship,
}

impl GoldenColumn {
    /// A canonical column as the schema has it; `None` for any other name.
    pub fn canonical(name: &str) -> Option<Self> {
        canonical(name).map(|column| Self { name: name.to_owned(), kind: column.kind, rule: column.survivorship })
    }

    /// A further column: the most recent value.
    pub fn further(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, rule: Survivorship::MostRecent }
    }
}

/// The golden columns of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenPlan {
    columns: Vec<GoldenColumn>,
}

/// Golden columns that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A rule that makes no sense for the column's type.
    #[error("column \"{column}\" is {kind}, and the rule \"{}\" does not fit it", .rule.name())]
    Rule {
        /// The column.
        column: String,
        /// Its type.
        kind: ColumnType,
        /// The rule.
        rule: Survivorship,
    },
    /// One name twice.
    #[error("the golden column \"{0}\" is declared twice")]
    Twice(String),
    /// Records whose column has another type.
    #[error("the records of a source have \"{column}\" as {found}, and members have it as {expected}; a type is fixed at the first commit")]
    Type {
        /// The column.
        column: String,
        /// The type in the records.
        found: DataType,
        /// The type of the members' column.
        expected: DataType,
    },
    /// Records that were not read though a member needs them.
    #[error("record {row} of chunk {chunk} is needed and was not read")]
    NotRead {
        /// The chunk.
        chunk: u32,
        /// The row in it.
        row: u32,
    },
    /// A defect of ours.
    #[error("the members could not be put into columns")]
    Arrow(#[from] ArrowError),
}

/// The columns of the table of members before the golden ones.
fn member_fields() -> Vec<Field> {
    vec![
        Field::new("member_id", DataType::FixedSizeBinary(16), false),
        Field::new("founding", DataType::FixedSizeBinary(16), false),
        Field::new("founded_at", timestamp_type(), true),
        Field::new("epoch", DataType::Int32, false),
        Field::new(CONTENT_HASH, DataType::FixedSizeBinary(16), false),
        Field::new("record_count", DataType::Int64, false),
        Field::new("source_mask", DataType::UInt64, false),
        Field::new(PHONE, DataType::UInt64, false),
    ]
}

impl GoldenPlan {
    /// The plan of these columns, put in order: canonical ones as the schema has them, then further
    /// ones by name.
    ///
    /// # Errors
    /// Where a name stands twice or a rule does not fit its column.
    pub fn new(mut columns: Vec<GoldenColumn>) -> Result<Self, GoldenError> {
        let place = |name: &str| COLUMNS.iter().position(|column| column.name == name).unwrap_or(COLUMNS.len());
        columns.sort_by(|a, b| place(&a.name).cmp(&place(&b.name)).then_with(|| a.name.cmp(&b.name)));
        if let Some(twice) = columns.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(GoldenError::Twice(twice[0].name.clone()));
        }
        for GoldenColumn { name, kind, rule } in &columns {
            let fits = match rule {
                Survivorship::Consent => consent_part(name).is_some(),
                rule => rule.fits(*kind),
            };
            if !fits {
                return Err(GoldenError::Rule { column: name.clone(), kind: *kind, rule: *rule });
            }
        }
        Ok(Self { columns })
    }

    /// The golden columns, in order.
    pub fn columns(&self) -> &[GoldenColumn] {
        &self.columns
    }

    /// The table of members: `member_id`, `founding` (a record key), `founded_at`, `epoch`,
    /// `content_hash`, `record_count`, `source_mask` (bit `n` for the source at
    /// position `n` of the run's list), `phone`, and the golden columns.
    pub fn schema(&self) -> SchemaRef {
        let golden = self.columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true));
        Arc::new(Schema::new(member_fields().into_iter().chain(golden).collect::<Vec<_>>()))
    }
}

/// The records of one chunk, with all columns that the golden ones need.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The records.
    pub batch: RecordBatch,
    /// Which rows of the chunk they are, ascending; `None` where they are all of them.
    pub rows: Option<Vec<u32>>,
}

/// The dirty members with their golden columns.
#[derive(Debug, Clone)]
pub struct Golden {
    /// In the order of [`Identified::dirty`], as [`GoldenPlan::schema`] has them.
    pub members: RecordBatch,
    /// How many are new.
    pub new: u64,
    /// How many were there with other golden columns.
    pub changed: u64,
    /// Columns with sums that do not fit them, and how many.
    pub overflows: Vec<(String, u64)>,
}

/// The golden columns of the dirty members. `loaded` has one entry for each chunk; `None` is allowed
/// where [`Identified::rows_needed`] names no row.
///
/// # Errors
/// Where records that are needed were not read or have other types.
pub fn golden(plan: &GoldenPlan, lookup: &Lookup, identified: &Identified, loaded: &[Option<Loaded>]) -> Result<Golden, GoldenError> {
    let rows = Rows::of_dirty(identified, loaded)?;
    let (own, chosen) = both(|| own_columns(identified), || choose(plan, &rows, false));
    let (own, chosen) = (own?, chosen?);
    let all = &identified.members;
    let phones: ArrayRef = Arc::new(rows.phones()?);
    let hashed = std::iter::once(Arc::clone(&phones)).chain(chosen.arrays.iter().cloned()).collect::<Vec<_>>();
    let prefix = rowhash::prefix(lookup, plan.columns.iter().map(|column| (column.name.as_str(), column.kind)));
    let hashes = rowhash::row_hashes(lookup, prefix, &hashed, identified.dirty.len());
    let (mut new, mut changed) = (0, 0);
    for (member, hash) in identified.dirty.iter().zip(&hashes) {
        match all.previous_hash[*member as usize] {
            0 => new += 1,
            before => changed += u64::from(before != *hash),
        }
    }
    let [ids, founding, founded_at, epoch, record_count, source_mask] = own;
    let own = [ids, founding, founded_at, epoch, sixteens(hashes)?, record_count, source_mask];
    let members = RecordBatch::try_new(plan.schema(), own.into_iter().chain(hashed).collect())?;
    Ok(Golden { members, new, changed, overflows: chosen.overflows })
}

/// What identity says of the dirty members: id, founding record, its time, epoch, number of records, sources.
fn own_columns(identified: &Identified) -> Result<[ArrayRef; 6], ArrowError> {
    let all = &identified.members;
    let dirty = identified.dirty.iter().map(|member| *member as usize);
    let mask =
        |member: usize| all.records_of(member).iter().fold(0_u64, |mask, (chunk, _)| mask | 1 << (all.chunk_sources[*chunk as usize] % 64));
    let founded_at = dirty.clone().map(|member| all.founded_at[member]).collect::<TimestampMicrosecondArray>();
    Ok([
        sixteens(dirty.clone().map(|member| all.ids[member].as_u128()))?,
        sixteens(dirty.clone().map(|member| all.founding[member].as_u128()))?,
        Arc::new(founded_at.with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(dirty.clone().map(|member| all.epoch[member] as i32))),
        Arc::new(Int64Array::from_iter_values(dirty.clone().map(|member| all.records_of(member).len() as i64))),
        Arc::new(UInt64Array::from_iter_values(dirty.map(mask))),
    ])
}

/// The id of the member in each row of a table of members.
pub fn member_ids(members: &RecordBatch) -> Vec<MemberId> {
    let ids = members.column_by_name("member_id").and_then(|ids| ids.as_fixed_size_binary_opt());
    ids.map_or(Vec::new(), |ids| ids.iter().flatten().filter_map(MemberId::from_slice).collect())
}

/// The records of the members that are worked on.
pub(crate) struct Rows<'a> {
    /// `None` where no row of the chunk is needed.
    pub(crate) batches: Vec<Option<&'a RecordBatch>>,
    /// Chunk, and row in its batch: those of a member together, the most recent first.
    pub(crate) refs: Vec<(u32, u32)>,
    /// Where each member begins; one more than there are members.
    pub(crate) starts: Vec<u32>,
}

impl<'a> Rows<'a> {
    fn of_dirty(identified: &Identified, loaded: &'a [Option<Loaded>]) -> Result<Self, GoldenError> {
        let mut refs = Vec::with_capacity(identified.dirty.len());
        let mut starts = vec![0];
        for member in &identified.dirty {
            for (chunk, row) in identified.members.records_of(*member as usize) {
                let found = loaded.get(*chunk as usize).and_then(Option::as_ref).and_then(|loaded| match &loaded.rows {
                    None => ((*row as usize) < loaded.batch.num_rows()).then_some(*row),
                    Some(rows) => rows.binary_search(row).ok().map(|at| at as u32),
                });
                refs.push((*chunk, found.ok_or(GoldenError::NotRead { chunk: *chunk, row: *row })?));
            }
            starts.push(refs.len() as u32);
        }
        Ok(Self { batches: loaded.iter().map(|loaded| loaded.as_ref().map(|loaded| &loaded.batch)).collect(), refs, starts })
    }

    fn members(&self) -> usize {
        self.starts.len() - 1
    }

    /// Positions in `refs` of each member's records.
    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.starts.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize)
    }

    /// The column by chunk; `None` where the chunk does not have it.
    fn column(&self, name: &str, kind: ColumnType) -> Result<Vec<Option<&'a ArrayRef>>, GoldenError> {
        let expected = kind.arrow();
        let of = |batch: &Option<&'a RecordBatch>| match batch.and_then(|batch| batch.column_by_name(name)) {
            Some(array) if *array.data_type() != expected => {
                Err(GoldenError::Type { column: name.to_owned(), found: array.data_type().clone(), expected: expected.clone() })
            }
            array => Ok(array),
        };
        self.batches.iter().map(of).collect()
    }

    /// The phone of each member's most recent record. All records of members have one.
    fn phones(&self) -> Result<UInt64Array, GoldenError> {
        let phones =
            |batch: &Option<&'a RecordBatch>| batch.and_then(|batch| batch.column_by_name(PHONE)?.as_primitive_opt::<UInt64Type>());
        let columns = self.batches.iter().map(phones);
        let columns = columns.collect::<Vec<_>>();
        let phone = |range: std::ops::Range<usize>| {
            let (chunk, row) = self.refs[range.start];
            let missing = GoldenError::NotRead { chunk, row };
            columns[chunk as usize].map(|phones| phones.value(row as usize)).ok_or(missing)
        };
        Ok(UInt64Array::from(self.ranges().map(phone).collect::<Result<Vec<_>, _>>()?))
    }

    /// The winners' values, null where there is no winner.
    fn gather(&self, column: &[Option<&ArrayRef>], kind: ColumnType, winners: &[u32]) -> Result<ArrayRef, ArrowError> {
        let null = new_null_array(&kind.arrow(), 1);
        let sources = std::iter::once(null.as_ref()).chain(column.iter().map(|array| array.map_or(null.as_ref(), |array| array.as_ref())));
        let places = winners.iter().map(|winner| match self.refs.get(*winner as usize) {
            Some((chunk, row)) if column[*chunk as usize].is_some() => (*chunk as usize + 1, *row as usize),
            // No winner, or one from a source that lacks this column, as a word of consent may lack its time.
            _ => (0, 0),
        });
        interleave(&sources.collect::<Vec<_>>(), &places.collect::<Vec<_>>())
    }
}

/// The value of each member in each column, and the record that it came from.
pub(crate) struct Chosen {
    pub(crate) arrays: Vec<ArrayRef>,
    /// Position in the rows' `refs`, `NONE` where no record won; `None` for a column of sums, and for all
    /// where nobody asked.
    pub(crate) winners: Vec<Option<Vec<u32>>>,
    overflows: Vec<(String, u64)>,
}

/// What one column became.
struct Choice {
    array: ArrayRef,
    winners: Option<Vec<u32>>,
    overflows: u64,
}

/// Chooses the value of every column. Who won is for whoever has to explain it: for all members it is as
/// large as the members.
pub(crate) fn choose(plan: &GoldenPlan, rows: &Rows, explained: bool) -> Result<Chosen, GoldenError> {
    let threads_max = if rows.refs.len() < 10_000 { 1 } else { usize::MAX };
    let choices = one_by_one(&plan.columns, threads_max, |column| {
        let mut choice = choose_column(plan, column, rows)?;
        choice.winners = choice.winners.filter(|_| explained);
        Ok::<_, GoldenError>(choice)
    });
    let mut chosen = Chosen { arrays: Vec::new(), winners: Vec::new(), overflows: Vec::new() };
    for (column, choice) in plan.columns.iter().zip(choices) {
        let Choice { array, winners, overflows } = choice?;
        chosen.arrays.push(array);
        chosen.winners.push(winners);
        if overflows > 0 {
            chosen.overflows.push((column.name.clone(), overflows));
        }
    }
    Ok(chosen)
}

fn choose_column(plan: &GoldenPlan, column: &GoldenColumn, rows: &Rows) -> Result<Choice, GoldenError> {
    let values = rows.column(&column.name, column.kind)?;
    if column.rule == Survivorship::Sum {
        let (array, overflows) = match column.kind {
            ColumnType::Integer => sums::<Int64Type>(rows, &values, |sum| i64::try_from(sum).ok()),
            _ => sums::<Decimal128Type>(rows, &values, |sum| {
                Some(sum).filter(|sum| sum.unsigned_abs() < 10_u128.pow(DECIMAL_PRECISION.into()))
            }),
        };
        return Ok(Choice { array: array?, winners: None, overflows });
    }
    let winners = match column.rule {
        Survivorship::Consent => return choose_consent(plan, column, rows, &values),
        Survivorship::First => first(rows, &values)?,
        Survivorship::Min => extreme(rows, &values, column.kind, true),
        Survivorship::Max => extreme(rows, &values, column.kind, false),
        Survivorship::Longest => longest(rows, &values),
        Survivorship::Any => best(rows, &downcast(&values, |array| array.as_boolean_opt()), |array, row| array.value(row), |a, b| a & !b),
        Survivorship::MostRecent | Survivorship::Sum => most_recent(rows, &values),
    };
    Ok(Choice { array: rows.gather(&values, column.kind, &winners)?, winners: Some(winners), overflows: 0 })
}

/// The arrays of a column in their own type.
fn downcast<'a, T: Array>(column: &[Option<&'a ArrayRef>], to: impl Fn(&'a ArrayRef) -> Option<&'a T>) -> Vec<Option<&'a T>> {
    column.iter().map(|array| array.and_then(&to)).collect()
}

/// The first record in each member's order that has a value.
fn most_recent(rows: &Rows, column: &[Option<&ArrayRef>]) -> Vec<u32> {
    let nulls = column.iter().map(|array| array.map(|array| array.nulls())).collect::<Vec<_>>();
    let has = |at: usize| {
        let (chunk, row) = rows.refs[at];
        nulls[chunk as usize].is_some_and(|nulls| nulls.is_none_or(|nulls| nulls.is_valid(row as usize)))
    };
    rows.ranges().map(|mut range| range.find(|at| has(*at)).map_or(NONE, |at| at as u32)).collect()
}

/// The record with a value that was created first; a record without created_at comes last.
fn first(rows: &Rows, column: &[Option<&ArrayRef>]) -> Result<Vec<u32>, GoldenError> {
    let created = rows.column("created_at", ColumnType::Timestamp)?;
    let created = downcast(&created, |array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let created = |at: usize| {
        let (chunk, row) = rows.refs[at];
        let array = created[chunk as usize].filter(|array| array.is_valid(row as usize));
        array.map_or(i64::MAX, |array| array.value(row as usize))
    };
    let has = |at: &usize| {
        let (chunk, row) = rows.refs[*at];
        column[chunk as usize].is_some_and(|array| array.is_valid(row as usize))
    };
    // `min_by_key` keeps the first of equal ones, which is the more recent.
    Ok(rows.ranges().map(|range| range.filter(has).min_by_key(|at| created(*at)).map_or(NONE, |at| at as u32)).collect())
}

/// The record whose value no other is `better` than; of equal ones the most recent.
fn best<'a, A: Array, V: Copy>(
    rows: &Rows,
    column: &[Option<&'a A>],
    value: impl Fn(&'a A, usize) -> V,
    better: impl Fn(V, V) -> bool,
) -> Vec<u32> {
    let value_at = |at: usize| {
        let (chunk, row) = rows.refs[at];
        let array = column[chunk as usize].filter(|array| array.is_valid(row as usize))?;
        Some(value(array, row as usize))
    };
    let winner = |range: std::ops::Range<usize>| {
        let mut held: Option<(usize, V)> = None;
        for at in range {
            if let Some(value) = value_at(at)
                && held.is_none_or(|(_, held)| better(value, held))
            {
                held = Some((at, value));
            }
        }
        held.map_or(NONE, |(at, _)| at as u32)
    };
    rows.ranges().map(winner).collect()
}

fn extreme(rows: &Rows, column: &[Option<&ArrayRef>], kind: ColumnType, least: bool) -> Vec<u32> {
    fn of<T: ArrowPrimitiveType>(rows: &Rows, column: &[Option<&ArrayRef>], least: bool) -> Vec<u32>
    where
        T::Native: Ord,
    {
        best(
            rows,
            &downcast(column, |array| array.as_primitive_opt::<T>()),
            |array, row| array.value(row),
            |a, b| if least { a < b } else { a > b },
        )
    }
    match kind {
        ColumnType::Integer => of::<Int64Type>(rows, column, least),
        ColumnType::Decimal => of::<Decimal128Type>(rows, column, least),
        ColumnType::Timestamp => of::<TimestampMicrosecondType>(rows, column, least),
        ColumnType::Date => of::<Date32Type>(rows, column, least),
        ColumnType::Text => best(
            rows,
            &downcast(column, |array| array.as_string_opt::<i32>()),
            |array, row| array.value(row),
            |a, b| if least { a < b } else { a > b },
        ),
        // `Survivorship::fits` keeps these rules from booleans.
        ColumnType::Boolean => most_recent(rows, column),
    }
}

fn longest(rows: &Rows, column: &[Option<&ArrayRef>]) -> Vec<u32> {
    best(rows, &downcast(column, |array| array.as_string_opt::<i32>()), |array, row| array.value(row).chars().count(), |a, b| a > b)
}

/// The sums, null where there is nothing to add or the sum does not fit; and how many did not.
fn sums<T: ArrowPrimitiveType>(
    rows: &Rows,
    column: &[Option<&ArrayRef>],
    fit: impl Fn(i128) -> Option<T::Native>,
) -> (Result<ArrayRef, ArrowError>, u64)
where
    T::Native: Into<i128>,
{
    let column = downcast(column, |array| array.as_primitive_opt::<T>());
    let mut overflows = 0;
    let mut sum_of = |range: std::ops::Range<usize>| {
        let mut sum: Option<i128> = None;
        for (chunk, row) in &rows.refs[range] {
            if let Some(array) = column[*chunk as usize].filter(|array| array.is_valid(*row as usize)) {
                // Fewer than 2^32 values of at most 2^64 cannot overflow 128 bits.
                sum = Some(sum.unwrap_or(0) + array.value(*row as usize).into());
            }
        }
        let fitted = sum.and_then(&fit);
        overflows += u64::from(sum.is_some() && fitted.is_none());
        fitted
    };
    let array = rows.ranges().map(&mut sum_of).collect::<arrow::array::PrimitiveArray<T>>();
    let array: Result<ArrayRef, ArrowError> = match array.as_any().downcast_ref::<Decimal128Array>() {
        Some(decimals) => {
            decimals.clone().with_precision_and_scale(DECIMAL_PRECISION, DECIMAL_SCALE).map(|array| Arc::new(array) as ArrayRef)
        }
        None => Ok(Arc::new(array)),
    };
    (array, overflows)
}

/// Which of the three columns of a consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConsentPart {
    Word,
    At,
    Evidence,
}

/// The purpose and part of a consent column.
fn consent_part(name: &str) -> Option<(Purpose, ConsentPart)> {
    Purpose::ALL.into_iter().find_map(|purpose| {
        let part = match name.strip_prefix(purpose.name())? {
            "_consent" => ConsentPart::Word,
            "_consent_at" => ConsentPart::At,
            "_consent_evidence" => ConsentPart::Evidence,
            _ => return None,
        };
        Some((purpose, part))
    })
}

fn choose_consent(plan: &GoldenPlan, column: &GoldenColumn, rows: &Rows, values: &[Option<&ArrayRef>]) -> Result<Choice, GoldenError> {
    let misfit = || GoldenError::Rule { column: column.name.clone(), kind: column.kind, rule: column.rule };
    let (purpose, part) = consent_part(&column.name).ok_or_else(misfit)?;
    let winners = consent_winners(plan, purpose, rows)?;
    let array = match part {
        ConsentPart::Word => {
            let words = downcast(values, |array| array.as_string_opt::<i32>());
            let word = |winner: &u32| match rows.refs.get(*winner as usize) {
                Some((chunk, row)) => words[*chunk as usize].map_or(Consent::Unknown.name(), |words| words.value(*row as usize)),
                None => Consent::Unknown.name(),
            };
            Arc::new(StringArray::from_iter_values(winners.iter().map(word)))
        }
        ConsentPart::At | ConsentPart::Evidence => rows.gather(values, column.kind, &winners)?,
    };
    Ok(Choice { array, winners: Some(winners), overflows: 0 })
}

/// The record with the event that decides each member's consent.
fn consent_winners(plan: &GoldenPlan, purpose: Purpose, rows: &Rows) -> Result<Vec<u32>, GoldenError> {
    let name = purpose.name();
    if !plan.columns.iter().any(|column| column.name == format!("{name}_consent")) {
        return Ok(vec![NONE; rows.members()]);
    }
    let words = rows.column(&format!("{name}_consent"), ColumnType::Text)?;
    let words = downcast(&words, |array| array.as_string_opt::<i32>());
    let moments = rows.column(&format!("{name}_consent_at"), ColumnType::Timestamp)?;
    let moments = downcast(&moments, |array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let evidence = rows.column(&format!("{name}_consent_evidence"), ColumnType::Text)?;
    // Greater is stronger.
    let strength = |at: usize| {
        let (chunk, row) = rows.refs[at];
        let (chunk, row) = (chunk as usize, row as usize);
        let word = words[chunk].filter(|words| words.is_valid(row))?.value(row);
        let moment = moments[chunk].filter(|moments| moments.is_valid(row)).map(|moments| moments.value(row));
        let proved = evidence[chunk].is_some_and(|evidence| evidence.is_valid(row));
        match (word, moment) {
            ("withdrawn", None) => Some((2, 0, true)),
            ("withdrawn", Some(moment)) => Some((1, moment, true)),
            ("granted", Some(moment)) if proved => Some((1, moment, false)),
            ("granted", None) if proved => Some((0, 0, false)),
            _ => None,
        }
    };
    let winner = |range: std::ops::Range<usize>| {
        let mut held = None;
        for at in range {
            if let Some(strength) = strength(at)
                && held.is_none_or(|(_, held)| strength > held)
            {
                held = Some((at as u32, strength));
            }
        }
        held.map_or(NONE, |(at, _)| at)
    };
    Ok(rows.ranges().map(winner).collect())
}
