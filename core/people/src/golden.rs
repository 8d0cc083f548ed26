//! Golden columns: a member's value in each column, chosen by the column's survivorship rule.
//!
//! Column by column: first the record that wins for every member, then one gather of the winners'
//! values. Nulls never win. Ties go to the more recent record: the greater updated_at, then the
//! smaller source, then the smaller record id. Sums and unions have no winner: they are made of all values.
//!
//! Consent is decided by purpose over its three columns together. Explicit events are withdrawals,
//! and grants with evidence; a grant without evidence says nothing. An undated withdrawal beats all.
//! Among the dated, the latest wins, and a withdrawal where two are of the same moment. An undated
//! grant loses to any withdrawal. A member without an explicit event is `unknown`.
//!
//! A sum that does not fit its column is null and counted, since one absurd amount must not stop a
//! run; so is a union that is too long.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt64Array, new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use reunion_keys::Lookup;
use reunion_model::limits::{BATCH_ROWS_MAX, UNION_BYTES_MAX};
use reunion_model::phone::list;
use reunion_model::record::{CONTENT_HASH, PHONE, only};
use reunion_model::schema::{
    COLUMNS, ColumnType, DECIMAL_PRECISION, DECIMAL_SCALE, OTHER_PHONES, Rule, Survivorship, canonical, timestamp_type,
};
use reunion_model::threads::{in_order, one_by_one};
use reunion_model::{Consent, MemberId, Phone, Purpose};
use serde::{Deserialize, Serialize};

use crate::identity::{Identified, Members};
use crate::rowhash;
use crate::table::{NO_MOMENT, NONE, StateError, sixteens};

const CREATED_AT: &str = "created_at";
/// Members whose columns are made together, in blocks of [`BATCH_ROWS_MAX`].
const MEMBERS_AT_ONCE: usize = 1 << 18;

/// One golden column. Stored with each generation, so that what was made can be explained by the rules of then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// How its value is chosen. Sources stand in it by the names that the caller knows them by.
    pub rule: Rule,
}

impl GoldenColumn {
    /// A canonical column as the schema has it; `None` for any other name.
    pub fn canonical(name: &str) -> Option<Self> {
        canonical(name).map(|column| Self { name: name.to_owned(), kind: column.kind, rule: column.survivorship.into() })
    }

    /// A further column: the most recent value.
    pub fn further(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, rule: Survivorship::MostRecent.into() }
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
    /// Records whose columns are not what they should be.
    #[error(transparent)]
    State(#[from] StateError),
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
        Field::new(OTHER_PHONES, DataType::Utf8, true),
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
            let rule = rule.survivorship;
            let fits = match rule {
                Survivorship::Consent => consent_part(name).is_some(),
                rule => rule.fits(*kind),
            };
            if !fits {
                return Err(GoldenError::Rule { column: name.clone(), kind: *kind, rule });
            }
        }
        Ok(Self { columns })
    }

    /// The golden columns, in order.
    pub fn columns(&self) -> &[GoldenColumn] {
        &self.columns
    }

    /// The columns of records that have a part in making these, each once.
    pub fn columns_read(&self) -> Vec<&str> {
        let consent = COLUMNS.iter().filter(|column| column.survivorship == Survivorship::Consent).map(|column| column.name);
        let mut columns: Vec<_> =
            self.columns.iter().map(|column| column.name.as_str()).chain([PHONE, CREATED_AT]).chain(consent).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The table of members: `member_id`, `founding` (a record key), `founded_at`, `epoch`,
    /// `content_hash`, `record_count`, `source_mask` (bit `n` for the source at
    /// position `n` of the run's list), `other_phones`, `phone`, and the golden columns.
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

impl Loaded {
    /// All rows of a chunk, with these columns alone.
    pub fn whole(columns: &[&str], chunk: &RecordBatch) -> Self {
        Self { batch: only(chunk, |column| columns.contains(&column)), rows: None }
    }

    /// Adds further columns of the same rows.
    ///
    /// # Errors
    /// Where these are not as many rows.
    pub fn add(&mut self, further: &RecordBatch) -> Result<(), ArrowError> {
        let fields = [&self.batch, further].into_iter().flat_map(|batch| batch.schema_ref().fields()).cloned();
        let columns = [&self.batch, further].into_iter().flat_map(RecordBatch::columns).cloned();
        self.batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.collect())?;
        Ok(())
    }
}

/// What making the golden columns of the dirty members came to.
#[derive(Debug, Clone)]
pub struct Golden {
    /// How many are new.
    pub new: u64,
    /// How many were there with other golden columns.
    pub changed: u64,
    /// Columns with values, made of many, that do not fit them, and how many.
    pub overflows: Vec<(String, u64)>,
}

/// Makes the golden columns of the dirty members, and gives them in the order of [`Identified::dirty`], as
/// [`GoldenPlan::schema`] has them, in batches of at most [`BATCH_ROWS_MAX`]. `sources` are the names of the sources in
/// the order of the run, as the rules name them. `loaded` has one entry for each chunk; `None` is allowed where
/// [`Identified::rows_needed`] names no row. A chunk is freed once no further member needs it.
///
/// # Errors
/// Where records that are needed were not read or have other types.
pub fn golden(
    plan: &GoldenPlan,
    lookup: &Lookup,
    sources: &[String],
    identified: &Identified,
    mut loaded: Vec<Option<Loaded>>,
    mut give: impl FnMut(RecordBatch),
) -> Result<Golden, GoldenError> {
    let places = Places::of_dirty(identified, &loaded)?;
    let last_read = places.last_read(loaded.len());
    let source = |source: &u16| sources.get(usize::from(*source)).map_or("", String::as_str);
    let sources = identified.members.chunk_sources.iter().map(source).collect::<Vec<_>>();
    let prefix = rowhash::prefix(lookup, plan.columns.iter().map(|column| (column.name.as_str(), column.kind)));
    let schema = plan.schema();
    let mut golden = Golden { new: 0, changed: 0, overflows: Vec::new() };
    let mut overflows = vec![0; plan.columns.len()];
    for (nth, dirty) in identified.dirty.chunks(MEMBERS_AT_ONCE).enumerate() {
        let rows = Rows {
            batches: loaded.iter().map(|loaded| loaded.as_ref().map(|loaded| &loaded.batch)).collect(),
            sources: sources.clone(),
            refs: Cow::Borrowed(&places.refs),
            starts: Cow::Borrowed(places.starts_of(nth)),
        };
        let blocks = dirty.chunks(BATCH_ROWS_MAX).enumerate();
        let blocks = blocks.map(|(nth, dirty)| (dirty, rows.block(nth * BATCH_ROWS_MAX, dirty.len()))).collect::<Vec<_>>();
        let columns = choose(plan, &blocks)?;
        for (overflows, blocks) in overflows.iter_mut().zip(&columns) {
            *overflows += blocks.iter().map(|(_, overflows)| overflows).sum::<u64>();
        }
        let places = (0..blocks.len()).collect::<Vec<_>>();
        let finish = |nth: &usize| {
            let (dirty, rows) = &blocks[*nth];
            let chosen = columns.iter().map(|blocks| Arc::clone(&blocks[*nth].0));
            let hashed = std::iter::once(Arc::new(rows.phones()?) as ArrayRef).chain(chosen).collect::<Vec<_>>();
            let hashes = rowhash::row_hashes(lookup, prefix, &hashed, dirty.len());
            let counts = compare(&identified.members, dirty, &hashes);
            let [ids, founding, founded_at, epoch, record_count, source_mask] = own_columns(&identified.members, dirty)?;
            let own = [ids, founding, founded_at, epoch, sixteens(hashes)?, record_count, source_mask, Arc::new(rows.other_phones())];
            let members = RecordBatch::try_new(Arc::clone(&schema), own.into_iter().chain(hashed).collect())?;
            Ok::<_, GoldenError>((members, counts))
        };
        let mut failed = None;
        in_order(&places, finish, |finished| match finished {
            Ok((members, (new, changed))) => {
                golden.new += new;
                golden.changed += changed;
                give(members);
            }
            Err(error) => _ = failed.get_or_insert(error),
        });
        failed.map_or(Ok(()), Err)?;
        for (loaded, _) in loaded.iter_mut().zip(&last_read).filter(|(_, last_read)| **last_read <= nth) {
            *loaded = None;
        }
    }
    let overflows = plan.columns.iter().map(|column| column.name.clone()).zip(overflows);
    golden.overflows = overflows.filter(|(_, count)| *count > 0).collect();
    Ok(golden)
}

/// Of each column, for each block of members its values, and how many of them do not fit.
type Chosen = Vec<Vec<(ArrayRef, u64)>>;

/// Chooses the values of some blocks of members: a column of all, then the next. Of a member's records only the first
/// lie where the next member's do, and one column of the others stays in the cache.
fn choose(plan: &GoldenPlan, blocks: &[(&[u32], Rows)]) -> Result<Chosen, GoldenError> {
    let parts = plan.columns.iter().flat_map(|column| blocks.iter().map(move |(_, rows)| (column, rows))).collect::<Vec<_>>();
    let chosen =
        one_by_one(&parts, usize::MAX, |(column, rows)| choose_column(plan, column, rows).map(|choice| (choice.array, choice.overflows)));
    let mut chosen = chosen.into_iter();
    plan.columns.iter().map(|_| chosen.by_ref().take(blocks.len()).collect()).collect()
}

/// How many of some members are new, and how many had another hash.
fn compare(members: &Members, dirty: &[u32], hashes: &[u128]) -> (u64, u64) {
    let (mut new, mut changed) = (0, 0);
    for (member, hash) in dirty.iter().zip(hashes) {
        match members.previous_hash.get(*member as usize).copied().unwrap_or_default() {
            0 => new += 1,
            before => changed += u64::from(before != *hash),
        }
    }
    (new, changed)
}

/// What identity says of some members: id, founding record, its time, epoch, number of records, sources.
fn own_columns(all: &Members, dirty: &[u32]) -> Result<[ArrayRef; 6], ArrowError> {
    let dirty = dirty.iter().map(|member| *member as usize);
    let mask =
        |member: usize| all.records_of(member).iter().fold(0_u64, |mask, (chunk, _)| mask | 1 << (all.chunk_sources[*chunk as usize] % 64));
    let founded_at = dirty.clone().map(|member| Some(all.founded_at[member]).filter(|at| *at != NO_MOMENT));
    let founded_at = founded_at.collect::<TimestampMicrosecondArray>();
    Ok([
        sixteens(dirty.clone().map(|member| all.ids[member].as_u128()))?,
        sixteens(dirty.clone().map(|member| all.founding[member].as_u128()))?,
        Arc::new(founded_at.with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(dirty.clone().map(|member| all.epoch[member] as i32))),
        Arc::new(Int64Array::from_iter_values(dirty.clone().map(|member| all.records_of(member).len() as i64))),
        Arc::new(UInt64Array::from_iter_values(dirty.map(mask))),
    ])
}

/// Whether the table of members has a column of this name of its own, so that no source's column may have it.
pub fn is_own(name: &str) -> bool {
    name != PHONE && member_fields().iter().any(|field| field.name() == name)
}

/// The id of the member in each row of a table of members.
pub fn member_ids(members: &RecordBatch) -> Vec<MemberId> {
    let ids = members.column_by_name("member_id").and_then(|ids| ids.as_fixed_size_binary_opt());
    ids.map_or(Vec::new(), |ids| ids.iter().flatten().filter_map(MemberId::from_slice).collect())
}

/// Where the records of the dirty members are.
struct Places<'a> {
    /// As [`Rows::refs`].
    refs: Cow<'a, [(u32, u32)]>,
    /// As [`Rows::starts`], of all dirty members.
    starts: Cow<'a, [u32]>,
}

impl<'a> Places<'a> {
    fn of_dirty(identified: &'a Identified, loaded: &[Option<Loaded>]) -> Result<Self, GoldenError> {
        let Identified { members, dirty, .. } = identified;
        let place = |(chunk, row): &(u32, u32)| {
            let found = loaded.get(*chunk as usize).and_then(Option::as_ref).and_then(|loaded| match &loaded.rows {
                None => ((*row as usize) < loaded.batch.num_rows()).then_some(*row),
                Some(rows) => rows.binary_search(row).ok().map(|at| at as u32),
            });
            found.map(|row| (*chunk, row)).ok_or(GoldenError::NotRead { chunk: *chunk, row: *row })
        };
        if dirty.len() == members.len() && loaded.iter().flatten().all(|loaded| loaded.rows.is_none()) {
            members.records.iter().try_for_each(|record| place(record).map(drop))?;
            return Ok(Self { refs: Cow::Borrowed(&members.records), starts: Cow::Borrowed(&members.starts) });
        }
        let (mut refs, mut starts) = (Vec::with_capacity(dirty.len()), Vec::with_capacity(dirty.len() + 1));
        starts.push(0);
        for member in dirty {
            for record in members.records_of(*member as usize) {
                refs.push(place(record)?);
            }
            starts.push(refs.len() as u32);
        }
        Ok(Self { refs: refs.into(), starts: starts.into() })
    }

    /// Where the records begin of the members that are made together as the `nth`, and where they end.
    fn starts_of(&self, nth: usize) -> &[u32] {
        let from = nth * MEMBERS_AT_ONCE;
        &self.starts[from..=(from + MEMBERS_AT_ONCE).min(self.starts.len() - 1)]
    }

    /// For each chunk the last of these that need it.
    fn last_read(&self, chunks: usize) -> Vec<usize> {
        let mut last_read = vec![0; chunks];
        for nth in 0..(self.starts.len() - 1).div_ceil(MEMBERS_AT_ONCE) {
            let starts = self.starts_of(nth);
            let refs = &self.refs[starts[0] as usize..starts[starts.len() - 1] as usize];
            refs.iter().for_each(|(chunk, _)| last_read[*chunk as usize] = nth);
        }
        last_read
    }
}

/// The records of the members that are worked on.
pub(crate) struct Rows<'a> {
    /// `None` where no row of the chunk is needed.
    pub(crate) batches: Vec<Option<&'a RecordBatch>>,
    /// The name of each batch's source.
    pub(crate) sources: Vec<&'a str>,
    /// Chunk, and row in its batch: those of a member together, the most recent first.
    pub(crate) refs: Cow<'a, [(u32, u32)]>,
    /// Where each member begins; one more than there are members.
    pub(crate) starts: Cow<'a, [u32]>,
}

impl<'a> Rows<'a> {
    /// The records of so many members, from one on. Positions in `refs` stay what they are.
    fn block(&self, from: usize, members: usize) -> Rows<'_> {
        Rows {
            batches: self.batches.clone(),
            sources: self.sources.clone(),
            refs: Cow::Borrowed(&self.refs),
            starts: Cow::Borrowed(&self.starts[from..=from + members]),
        }
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

    fn phone_columns(&self) -> Vec<Option<&'a UInt64Array>> {
        let phones =
            |batch: &Option<&'a RecordBatch>| batch.and_then(|batch| batch.column_by_name(PHONE)?.as_primitive_opt::<UInt64Type>());
        self.batches.iter().map(phones).collect()
    }

    /// The other phones of each member's records, as [`list`] has them; null where there are none, as of nearly everybody.
    fn other_phones(&self) -> StringArray {
        let columns = self.phone_columns();
        let phone = |at: usize| {
            let (chunk, row) = self.refs[at];
            columns[chunk as usize].map(|phones| phones.value(row as usize))
        };
        let others = |range: std::ops::Range<usize>| {
            let own = if range.len() > 1 { phone(range.start) } else { return None };
            list(range.filter_map(phone).filter(|other| Some(*other) != own).map(Phone::from_e164_digits))
        };
        self.ranges().map(others).collect()
    }

    /// The phone of each member's most recent record. All records of members have one.
    fn phones(&self) -> Result<UInt64Array, GoldenError> {
        let columns = self.phone_columns();
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

/// The value of each member in one column, and the record that it came from.
pub(crate) struct Choice {
    pub(crate) array: ArrayRef,
    /// Position in the rows' `refs`, `NONE` where no record won; `None` for a column of sums or unions.
    pub(crate) winners: Option<Vec<u32>>,
    overflows: u64,
}

/// Chooses the values of a column.
pub(crate) fn choose_column(plan: &GoldenPlan, column: &GoldenColumn, rows: &Rows) -> Result<Choice, GoldenError> {
    let values = rows.column(&column.name, column.kind)?;
    let of_all = |(array, overflows): (Result<ArrayRef, ArrowError>, u64)| Ok(Choice { array: array?, winners: None, overflows });
    let winners = match column.rule.survivorship {
        Survivorship::Consent => return choose_consent(plan, column, rows, &values),
        Survivorship::Sum if column.kind == ColumnType::Integer => {
            return of_all(sums::<Int64Type>(rows, &values, |sum| i64::try_from(sum).ok()));
        }
        Survivorship::Sum => {
            let fit = |sum: i128| Some(sum).filter(|sum| sum.unsigned_abs() < 10_u128.pow(DECIMAL_PRECISION.into()));
            return of_all(sums::<Decimal128Type>(rows, &values, fit));
        }
        Survivorship::Union => return of_all(unions(rows, &values, column.rule.separator())),
        Survivorship::MostRecent => most_recent(rows, &values),
        Survivorship::MostFrequent => in_its_type(rows, &values, column.kind, MostFrequent),
        Survivorship::First => first(rows, &values)?,
        Survivorship::SourcePriority => by_source(rows, &values, &column.rule.sources),
        Survivorship::Min => in_its_type(rows, &values, column.kind, Extreme { least: true }),
        Survivorship::Max => in_its_type(rows, &values, column.kind, Extreme { least: false }),
        Survivorship::Longest => best(rows, &texts(&values), |array, row| array.value(row).chars().count(), |a, b| a > b),
        Survivorship::Any => in_its_type(rows, &values, column.kind, Extreme { least: false }),
        Survivorship::All => in_its_type(rows, &values, column.kind, Extreme { least: true }),
        Survivorship::MostRestrictive if column.kind == ColumnType::Boolean => {
            in_its_type(rows, &values, column.kind, Extreme { least: true })
        }
        Survivorship::MostRestrictive => best(rows, &texts(&values), |array, row| restriction(array.value(row)), |a, b| a > b),
    };
    Ok(Choice { array: rows.gather(&values, column.kind, &winners)?, winners: Some(winners), overflows: 0 })
}

/// The arrays of a column in their own type.
fn downcast<'a, T: Array>(column: &[Option<&'a ArrayRef>], to: impl Fn(&'a ArrayRef) -> Option<&'a T>) -> Vec<Option<&'a T>> {
    column.iter().map(|array| array.and_then(&to)).collect()
}

fn texts<'a>(column: &[Option<&'a ArrayRef>]) -> Vec<Option<&'a StringArray>> {
    downcast(column, |array| array.as_string_opt())
}

/// Whether the record at a position has a value.
fn has_value(rows: &Rows, column: &[Option<&ArrayRef>]) -> impl Fn(&usize) -> bool {
    let nulls = column.iter().map(|array| array.map(|array| array.nulls())).collect::<Vec<_>>();
    move |at: &usize| {
        let (chunk, row) = rows.refs[*at];
        nulls[chunk as usize].is_some_and(|nulls| nulls.is_none_or(|nulls| nulls.is_valid(row as usize)))
    }
}

/// The same, of a column in its own type.
fn has_value_at<A: Array>(rows: &Rows, column: &[Option<&A>], at: usize) -> bool {
    let (chunk, row) = rows.refs[at];
    column[chunk as usize].is_some_and(|array| array.is_valid(row as usize))
}

/// The first record in each member's order that has a value.
fn most_recent(rows: &Rows, column: &[Option<&ArrayRef>]) -> Vec<u32> {
    let has = has_value(rows, column);
    rows.ranges().map(|mut range| range.find(&has).map_or(NONE, |at| at as u32)).collect()
}

/// The record with a value that was created first; a record without created_at comes last.
fn first(rows: &Rows, column: &[Option<&ArrayRef>]) -> Result<Vec<u32>, GoldenError> {
    let created = rows.column(CREATED_AT, ColumnType::Timestamp)?;
    let created = downcast(&created, |array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let created = |at: &usize| {
        let (chunk, row) = rows.refs[*at];
        let array = created[chunk as usize].filter(|array| array.is_valid(row as usize));
        array.map_or(NO_MOMENT, |array| array.value(row as usize))
    };
    Ok(least_by(rows, column, created))
}

/// The record with a value whose source stands first in the list; a source that is not in it comes last.
fn by_source(rows: &Rows, column: &[Option<&ArrayRef>], order: &[String]) -> Vec<u32> {
    let rank = |source: &&str| order.iter().position(|name| name == source).unwrap_or(order.len());
    let ranks = rows.sources.iter().map(rank).collect::<Vec<_>>();
    least_by(rows, column, |at| ranks[rows.refs[*at].0 as usize])
}

/// The record with a value and the least rank; of equal ones the most recent.
fn least_by<K: Ord>(rows: &Rows, column: &[Option<&ArrayRef>], rank: impl Fn(&usize) -> K) -> Vec<u32> {
    let has = has_value(rows, column);
    // `min_by_key` keeps the first of equal ones.
    rows.ranges().map(|range| range.filter(&has).min_by_key(&rank).map_or(NONE, |at| at as u32)).collect()
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
        if range.len() == 1 {
            return if has_value_at(rows, column, range.start) { range.start as u32 } else { NONE };
        }
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

/// A choice that looks at the values themselves, of whatever type they are.
trait ByValue {
    fn choose<'a, A: Array, V: Copy + Ord>(self, rows: &Rows, column: &[Option<&'a A>], value: impl Fn(&'a A, usize) -> V) -> Vec<u32>;
}

fn in_its_type(rows: &Rows, column: &[Option<&ArrayRef>], kind: ColumnType, choice: impl ByValue) -> Vec<u32> {
    fn of<T: ArrowPrimitiveType>(rows: &Rows, column: &[Option<&ArrayRef>], choice: impl ByValue) -> Vec<u32>
    where
        T::Native: Ord,
    {
        choice.choose(rows, &downcast(column, |array| array.as_primitive_opt::<T>()), |array, row| array.value(row))
    }
    match kind {
        ColumnType::Integer => of::<Int64Type>(rows, column, choice),
        ColumnType::Decimal => of::<Decimal128Type>(rows, column, choice),
        ColumnType::Timestamp => of::<TimestampMicrosecondType>(rows, column, choice),
        ColumnType::Date => of::<Date32Type>(rows, column, choice),
        ColumnType::Text => choice.choose(rows, &texts(column), |array, row| array.value(row)),
        ColumnType::Boolean => choice.choose(rows, &downcast(column, |array| array.as_boolean_opt()), |array, row| array.value(row)),
    }
}

/// The least value or the greatest; false is less than true.
struct Extreme {
    least: bool,
}

impl ByValue for Extreme {
    fn choose<'a, A: Array, V: Copy + Ord>(self, rows: &Rows, column: &[Option<&'a A>], value: impl Fn(&'a A, usize) -> V) -> Vec<u32> {
        if self.least { best(rows, column, value, |a, b| a < b) } else { best(rows, column, value, |a, b| a > b) }
    }
}

/// The value that most records have, by the most recent of them.
struct MostFrequent;

impl ByValue for MostFrequent {
    fn choose<'a, A: Array, V: Copy + Ord>(self, rows: &Rows, column: &[Option<&'a A>], value: impl Fn(&'a A, usize) -> V) -> Vec<u32> {
        let value_at = |at: usize| {
            let (chunk, row) = rows.refs[at];
            let array = column[chunk as usize].filter(|array| array.is_valid(row as usize))?;
            Some((value(array, row as usize), at as u32))
        };
        let mut held: Vec<(V, u32)> = Vec::new();
        let winner = |range: std::ops::Range<usize>| {
            // Two that agree or differ: the first is the most recent in either case.
            if range.len() < 3 {
                return range.clone().find(|at| has_value_at(rows, column, *at)).map_or(NONE, |at| at as u32);
            }
            held.clear();
            held.extend(range.filter_map(value_at));
            if held.len() < 3 {
                return held.first().map_or(NONE, |(_, at)| *at);
            }
            // Equal values side by side, the most recent of each first.
            held.sort_unstable();
            let runs = held.chunk_by(|a, b| a.0 == b.0).map(|run| (run.len(), std::cmp::Reverse(run[0].1)));
            runs.max().map_or(NONE, |(_, at)| at.0)
        };
        rows.ranges().map(winner).collect()
    }
}

/// How far a word forbids: a refusal, anything else, a consent.
fn restriction(word: &str) -> u8 {
    match word {
        // What nearly all are needs no allocation.
        "withdrawn" => 2,
        "granted" => 0,
        word => match Consent::from_word(word) {
            Some(Consent::Withdrawn) => 2,
            Some(Consent::Granted) => 0,
            Some(Consent::Unknown) | None => 1,
        },
    }
}

/// The values of all records, each once, sorted and joined; null where there is none or the text is too long. And how
/// many were.
fn unions(rows: &Rows, column: &[Option<&ArrayRef>], separator: &str) -> (Result<ArrayRef, ArrowError>, u64) {
    let column = texts(column);
    let mut overflows = 0;
    let mut parts: Vec<&str> = Vec::new();
    let mut joined = String::new();
    let mut made = StringBuilder::with_capacity(rows.members(), 0);
    let mut bytes = 0;
    for range in rows.ranges() {
        parts.clear();
        for (chunk, row) in &rows.refs[range] {
            if let Some(array) = column[*chunk as usize].filter(|array| array.is_valid(*row as usize)) {
                parts.extend(array.value(*row as usize).split(separator).map(str::trim).filter(|part| !part.is_empty()));
            }
        }
        parts.sort_unstable();
        parts.dedup();
        joined.clear();
        for part in &parts {
            if !joined.is_empty() {
                joined.push_str(separator);
            }
            joined.push_str(part);
        }
        match joined.len() {
            0 => made.append_null(),
            length if length > UNION_BYTES_MAX => {
                overflows += 1;
                made.append_null();
            }
            length => {
                bytes += length;
                if i32::try_from(bytes).is_err() {
                    return (Err(ArrowError::OffsetOverflowError(bytes)), overflows);
                }
                made.append_value(&joined);
            }
        }
    }
    (Ok(Arc::new(made.finish())), overflows)
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
    let misfit = || GoldenError::Rule { column: column.name.clone(), kind: column.kind, rule: column.rule.survivorship };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_needed_until_its_last_member() {
        let members = 2 * MEMBERS_AT_ONCE + 5;
        let chunk = |member: usize| match member {
            0 => 0,
            member if member < MEMBERS_AT_ONCE => 1,
            member if member <= MEMBERS_AT_ONCE + 7 => 2,
            _ => 4,
        };
        let refs: Vec<_> = (0..members).map(|member| (chunk(member), 0)).chain([(1, 0)]).collect();
        // The last member has two records.
        let starts: Vec<_> = (0..members as u32).chain([members as u32 + 1]).collect();
        let places = Places { refs: refs.into(), starts: starts.into() };
        assert_eq!(places.last_read(5), [0, 2, 1, 0, 2]);
        assert_eq!([0, 1, 2].map(|nth| places.starts_of(nth).len()), [MEMBERS_AT_ONCE + 1, MEMBERS_AT_ONCE + 1, 6]);
        let none = Places { refs: Vec::new().into(), starts: vec![0].into() };
        assert_eq!(none.last_read(2), [0, 0]);
    }
}
