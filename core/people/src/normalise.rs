//! A source's batches to records: typed columns, a usable phone or the reason why there is none, a
//! record key and a content hash.
//!
//! A [`Normaliser`] is made once for a source and its schema, and says then what does not fit. It
//! holds no state between batches, so batches may be normalised on several threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StringBuilder, UInt64Array, UInt64Builder, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use jiff::tz::TimeZone;
use reunion_keys::Lookup;
use reunion_model::record::{self, PHONE, own_fields};
use reunion_model::schema::{ColumnType, canonical};
use reunion_model::{Purpose, Reason, RecordKey};

use crate::cast::{Cast, Nulled, text, trim};
use crate::phone::PhoneRules;
use crate::pull::{Known, RECORDS};
use crate::rowhash;
use crate::table::{StateError, sixteen, sixteens, texts_of};

/// How a source's rows become records.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// The source's name in the config.
    pub source: String,
    /// How its rows are told apart.
    pub record_id: RecordIdRule,
    /// Its columns, one for each column of ours. One with `to = "phone"` is the phone.
    pub columns: Vec<Mapping>,
    /// Of times without an offset.
    pub timezone: TimeZone,
}

/// How the rows of a source are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordIdRule {
    /// By this column of the source.
    Column(String),
    /// By the values of these columns (ours where a mapping has that name, else the source's): the id
    /// is a keyed hash of them.
    Key(Vec<String>),
}

/// One column of ours and where it comes from.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The canonical or further name.
    pub to: String,
    /// The source's name.
    pub from: String,
    /// Our type.
    pub kind: ColumnType,
    /// Of amounts.
    pub unit: Option<Unit>,
    /// Of moments and days, as `strptime` has it; needed where the text is not RFC 3339.
    pub format: Option<String>,
    /// Of times without an offset, where it is not the source's.
    pub timezone: Option<TimeZone>,
    /// The source's words and ours for them.
    pub values: BTreeMap<String, String>,
}

impl Mapping {
    /// The plain mapping of a column.
    pub fn new(to: impl Into<String>, from: impl Into<String>, kind: ColumnType) -> Self {
        Self { to: to.into(), from: from.into(), kind, unit: None, format: None, timezone: None, values: BTreeMap::new() }
    }
}

/// The unit of an amount at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// As we keep it.
    Yuan,
    /// A hundredth of it.
    Fen,
}

/// A plan that does not fit the source's columns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A column that the source does not have.
    #[error("source \"{name}\" has no column \"{column}\", which {needed_for} needs{}; it has {}", suggestion(.nearest), list(.available))]
    MissingColumn {
        /// The source.
        name: String,
        /// The column.
        column: String,
        /// What it is for: `"phone"`, or the record id.
        needed_for: String,
        /// The column of the source with the most similar name.
        nearest: Option<String>,
        /// All columns of the source.
        available: Vec<String>,
    },
    /// Two mappings for one column.
    #[error("source \"{name}\" maps two columns to \"{column}\"; keep one of them")]
    Twice {
        /// The source.
        name: String,
        /// The column of ours.
        column: String,
    },
    /// A name that the row's own columns have.
    #[error("source \"{name}\" maps a column to \"{column}\", a name that every record has already; give it another")]
    Taken {
        /// The source.
        name: String,
        /// The name.
        column: String,
    },
    /// A canonical column with another type than the canonical one.
    #[error("source \"{name}\" declares \"{column}\" as {declared}, and it is {expected} everywhere")]
    Kind {
        /// The source.
        name: String,
        /// The column.
        column: String,
        /// Its type in the plan.
        declared: ColumnType,
        /// Its type in the schema.
        expected: ColumnType,
    },
    /// A column of a type that holds no single values, such as a list.
    #[error("column \"{column}\" of source \"{name}\" has type {found}, which cannot be read as {kind}; select a plain column")]
    Type {
        /// The source.
        name: String,
        /// The source's column.
        column: String,
        /// Its type.
        found: String,
        /// The type that was asked for.
        kind: ColumnType,
    },
    /// A key without columns.
    #[error("source \"{name}\" has no record id and an empty `key`; name the columns that tell its rows apart")]
    EmptyKey {
        /// The source.
        name: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!("; did you mean \"{name}\"?"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no columns".to_owned() } else { names.join(", ") }
}

/// A batch that cannot be normalised.
#[derive(Debug, thiserror::Error)]
pub enum NormaliseError {
    /// A batch with other columns than the source's schema said.
    #[error("source \"{name}\" sent a batch whose columns differ from its schema: {detail}")]
    SchemaChanged {
        /// The source.
        name: String,
        /// The first difference.
        detail: String,
    },
    /// A reason for a rejected row that is not one of ours.
    #[error("source \"{name}\" rejects rows with the reason \"{code}\", which does not exist; the plugin is at fault")]
    UnknownReason {
        /// The source.
        name: String,
        /// The code.
        code: String,
    },
    /// A defect of ours.
    #[error("the rows of source \"{name}\" could not be put into columns")]
    Arrow {
        /// The source.
        name: String,
        /// What Arrow says.
        #[source]
        error: ArrowError,
    },
}

/// Cells of one column that became null though they held something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNulls {
    /// The name of our column.
    pub column: String,
    /// Cells that are not of the column's type.
    pub not_cast: u64,
    /// Dates that mean "never", such as 1970-01-01.
    pub never: u64,
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Normalised {
    /// One record for each row, in the rows' order, with [`Normaliser::schema`].
    pub records: RecordBatch,
    /// Only columns with at least one such cell.
    pub nulls: Vec<ColumnNulls>,
}

/// A batch parted by what is known.
#[derive(Debug, Clone)]
pub struct Split {
    /// Records for the rows that are new or not as they were, in the rows' order.
    pub changed: Normalised,
    /// Keys of the others, in the rows' order, a key as often as it came.
    pub seen: Vec<RecordKey>,
    /// Of those that were seen, the cells that do not fit their columns, by column.
    pub unfit_seen: BTreeMap<String, u64>,
}

/// Turns the batches of one source into records.
#[derive(Debug, Clone)]
pub struct Normaliser {
    source: String,
    lookup: Lookup,
    phones: PhoneRules,
    input: SchemaRef,
    output: SchemaRef,
    ids: Ids,
    /// Where the phone is, and the source's words for it.
    phone: Option<(usize, BTreeMap<String, String>)>,
    /// By the name of our column, sorted: name, index in the input, how to cast.
    columns: Vec<(String, usize, Cast)>,
    hash_prefix: [u8; 16],
    /// The columns of the input that are read.
    read: Vec<usize>,
    /// Stands for everything but the row that makes a record of it.
    row_prefix: [u8; 16],
}

#[derive(Debug, Clone)]
enum Ids {
    Column(usize),
    Key(Vec<KeyPart>),
}

#[derive(Debug, Clone)]
enum KeyPart {
    Phone,
    Input(usize),
}

impl Normaliser {
    /// The normaliser for a source with these columns.
    ///
    /// # Errors
    /// Where the plan and the columns do not fit.
    pub fn new(plan: SourcePlan, phones: PhoneRules, lookup: Lookup, input: &Schema) -> Result<Self, MappingError> {
        let SourcePlan { source, record_id, columns, timezone } = plan;
        let find = |column: &str, needed_for: &str| input.index_of(column).map_err(|_| missing_column(&source, column, needed_for, input));
        let mut phone = None;
        let mut casts: Vec<(String, usize, Cast)> = Vec::new();
        for mapping in columns {
            let at = find(&mapping.from, &format!("\"{}\"", mapping.to))?;
            let twice = casts.iter().any(|(name, ..)| *name == mapping.to) || (mapping.to == record::PHONE && phone.is_some());
            if twice {
                return Err(MappingError::Twice { name: source, column: mapping.to });
            }
            check_column(&source, &mapping, input.field(at))?;
            if mapping.to == record::PHONE {
                phone = Some((at, mapping.values));
                continue;
            }
            let cast = Cast {
                kind: mapping.kind,
                fen: mapping.unit == Some(Unit::Fen),
                format: mapping.format,
                timezone: mapping.timezone.unwrap_or_else(|| timezone.clone()),
                values: mapping.values,
                consent: Purpose::ALL.iter().any(|purpose| mapping.to.strip_suffix("_consent") == Some(purpose.name())),
            };
            casts.push((mapping.to, at, cast));
        }
        casts.sort_by(|a, b| a.0.cmp(&b.0));
        let ids = match record_id {
            RecordIdRule::Column(name) => {
                let at = find(&name, "the record id")?;
                check_readable(&source, input.field(at), ColumnType::Text)?;
                Ids::Column(at)
            }
            RecordIdRule::Key(names) if names.is_empty() => return Err(MappingError::EmptyKey { name: source }),
            RecordIdRule::Key(names) => {
                let part = |name: &String| {
                    if name == record::PHONE && phone.is_some() {
                        return Ok(KeyPart::Phone);
                    }
                    let mapped = casts.iter().find(|(to, ..)| to == name).map(|(_, at, _)| *at);
                    Ok(KeyPart::Input(mapped.map_or_else(|| find(name, "`key`"), Ok)?))
                };
                Ids::Key(names.iter().map(part).collect::<Result<_, MappingError>>()?)
            }
        };
        let typed = casts.iter().map(|(name, _, cast)| Field::new(name, cast.kind.arrow(), true));
        let output = Arc::new(Schema::new(own_fields().into_iter().chain(typed).collect::<Vec<_>>()));
        let hash_prefix = rowhash::prefix(&lookup, casts.iter().map(|(name, _, cast)| (name.as_str(), cast.kind)));
        let mut normaliser = Self {
            source,
            lookup,
            phones,
            input: Arc::new(input.clone()),
            output,
            ids,
            phone,
            columns: casts,
            hash_prefix,
            read: Vec::new(),
            row_prefix: [0; 16],
        };
        normaliser.read = normaliser.columns_read();
        normaliser.row_prefix = normaliser.terms();
        Ok(normaliser)
    }

    /// The columns of the input that say something about a record, each once, in an order that does not
    /// depend on the source's.
    fn columns_read(&self) -> Vec<usize> {
        let of_id = match &self.ids {
            Ids::Column(at) => vec![*at],
            Ids::Key(parts) => parts.iter().filter_map(|part| if let KeyPart::Input(at) = part { Some(*at) } else { None }).collect(),
        };
        let others = self.phone.iter().map(|(at, _)| *at).chain(self.columns.iter().map(|(_, at, _)| *at));
        let mut read: Vec<usize> = Vec::new();
        for at in of_id.into_iter().chain(others) {
            if !read.contains(&at) {
                read.push(at);
            }
        }
        read
    }

    /// A hash of everything that decides what becomes of a row: the source, the plan, the phone rules, and
    /// this program's version, so that what a new version reads better is read again.
    pub fn terms(&self) -> [u8; 16] {
        let place = |at: usize| format!("{} {}", self.input.field(at).name(), self.input.field(at).data_type());
        let columns = self.columns.iter().map(|(name, at, cast)| format!("{name} {} {cast:?}", place(*at))).collect::<Vec<_>>();
        let ids = match &self.ids {
            Ids::Column(at) => format!("column {}", place(*at)),
            Ids::Key(parts) => {
                let part = |part: &KeyPart| if let KeyPart::Input(at) = part { place(*at) } else { PHONE.to_owned() };
                format!("key {}", parts.iter().map(part).collect::<Vec<_>>().join(", "))
            }
        };
        let phone = self.phone.as_ref().map(|(at, words)| format!("{} {words:?}", place(*at)));
        let rest = format!("{ids}\n{phone:?}\n{:?}", self.phones);
        let parts = [env!("CARGO_PKG_VERSION"), &self.source, &rest].into_iter().chain(columns.iter().map(String::as_str));
        self.lookup.id("what makes a record of a row", &parts.map(str::as_bytes).collect::<Vec<_>>())
    }

    /// The columns of the records: the row's own, then ours by name.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    /// Whether ids are made of key columns, so that rows with equal ids cannot be told apart.
    pub fn is_keyed(&self) -> bool {
        matches!(self.ids, Ids::Key(_))
    }

    /// The records of a batch.
    ///
    /// # Errors
    /// Where the batch is not of the schema that the normaliser was made for.
    pub fn batch(&self, batch: &RecordBatch) -> Result<Normalised, NormaliseError> {
        self.check_schema(batch.schema_ref())?;
        let work = || self.normalise(batch, &self.row_hashes(batch)?);
        work().map_err(|error| self.arrow(error))
    }

    /// The records of those rows of a batch that are not known as they are.
    ///
    /// # Errors
    /// As [`Normaliser::batch`].
    pub fn split(&self, batch: &RecordBatch, known: &Known) -> Result<Split, NormaliseError> {
        self.check_schema(batch.schema_ref())?;
        self.part(batch, known).map_err(|error| self.arrow(error))
    }

    fn part(&self, batch: &RecordBatch, known: &Known) -> Result<Split, ArrowError> {
        let hashes = self.row_hashes(batch)?;
        let mut seen = Seen::default();
        let is_new = hashes.iter().map(|hash| !seen.take(known, *hash)).collect::<Vec<_>>();
        let changed = if seen.keys.is_empty() {
            self.normalise(batch, &hashes)?
        } else {
            let hashes = hashes.into_iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(hash, _)| hash).collect::<Vec<_>>();
            self.normalise(&filter_record_batch(batch, &BooleanArray::from(is_new))?, &hashes)?
        };
        Ok(Split { changed, seen: seen.keys, unfit_seen: seen.unfit })
    }

    /// A hash of each row as the source gave it, and of the terms on which it is read.
    fn row_hashes(&self, batch: &RecordBatch) -> Result<Vec<u128>, ArrowError> {
        let columns = self.read.iter().map(|at| rowhash::hashable(batch.column(*at))).collect::<Result<Vec<_>, _>>()?;
        Ok(rowhash::row_hashes(&self.lookup, self.row_prefix, &columns, batch.num_rows()))
    }

    /// Those of [`Normaliser::rejected`] rows that are not known as they are.
    ///
    /// # Errors
    /// As there.
    pub fn split_rejected(&self, batch: &RecordBatch, known: &Known) -> Result<Split, NormaliseError> {
        let records = self.rejected(batch)?;
        let mut seen = Seen::default();
        let hashes = records.column_by_name(record::ROW_HASH).expect("records have row hashes").as_fixed_size_binary();
        let is_new = (0..records.num_rows()).map(|row| Some(!seen.take(known, sixteen(hashes, row)))).collect::<BooleanArray>();
        let records = filter_record_batch(&records, &is_new).map_err(|error| self.arrow(error))?;
        Ok(Split { changed: Normalised { records, nulls: Vec::new() }, seen: seen.keys, unfit_seen: seen.unfit })
    }

    /// Records for rows that the source could not read, given as
    /// [`reunion_model::plugin::rejected_schema`] has them: the location is the record id, the detail
    /// is kept as `raw`.
    ///
    /// # Errors
    /// Where the batch is not of that schema, or a reason is none of [`Reason`].
    pub fn rejected(&self, batch: &RecordBatch) -> Result<RecordBatch, NormaliseError> {
        let expected = reunion_model::plugin::rejected_schema();
        if batch.schema_ref().fields() != expected.fields() {
            let detail = "rejected rows have the columns location, reason and detail".to_owned();
            return Err(NormaliseError::SchemaChanged { name: self.source.clone(), detail });
        }
        let [locations, codes, details] = [0, 1, 2].map(|at| batch.column(at).as_string::<i32>());
        let reason = |code: Option<&str>| {
            let code = code.unwrap_or_default();
            let unknown = || NormaliseError::UnknownReason { name: self.source.clone(), code: code.to_owned() };
            Reason::from_code(code).map(Some).ok_or_else(unknown)
        };
        let reasons = codes.iter().map(reason).collect::<Result<Vec<_>, _>>()?;
        let rows = batch.num_rows();
        let typed = self.columns.iter().map(|(_, _, cast)| new_null_array(&cast.kind.arrow(), rows)).collect();
        let outcome = Outcome { reasons, phones: UInt64Array::new_null(rows), raw: details.clone() };
        let prefix = self.lookup.id("a row that could not be read", &[&self.row_prefix]);
        let hashes = rowhash::row_hashes(&self.lookup, prefix, batch.columns(), rows);
        let unfit = StringArray::new_null(rows);
        self.assemble(locations.clone(), outcome, typed, &hashes, unfit, true).map_err(|error| self.arrow(error))
    }

    fn arrow(&self, error: ArrowError) -> NormaliseError {
        NormaliseError::Arrow { name: self.source.clone(), error }
    }

    fn check_schema(&self, schema: &SchemaRef) -> Result<(), NormaliseError> {
        if Arc::ptr_eq(schema, &self.input) || schema.fields() == self.input.fields() {
            return Ok(());
        }
        let differs = self.input.fields().iter().zip(schema.fields()).find(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type());
        let detail = match differs {
            Some((a, b)) => format!("\"{}\" {} came as \"{}\" {}", a.name(), a.data_type(), b.name(), b.data_type()),
            None if schema.fields().len() == self.input.fields().len() => return Ok(()),
            None => format!("{} columns came instead of {}", schema.fields().len(), self.input.fields().len()),
        };
        Err(NormaliseError::SchemaChanged { name: self.source.clone(), detail })
    }

    fn normalise(&self, batch: &RecordBatch, row_hashes: &[u128]) -> Result<Normalised, ArrowError> {
        let rows = batch.num_rows();
        let mut nulls = Vec::new();
        let mut unfit = Unfit::default();
        let mut typed = Vec::with_capacity(self.columns.len());
        for (name, at, cast) in &self.columns {
            let (array, Nulled { not_cast, never, .. }) = cast.apply(batch.column(*at))?;
            unfit.add(name, &not_cast);
            let not_cast = not_cast.len() as u64;
            if not_cast + never > 0 {
                nulls.push(ColumnNulls { column: name.clone(), not_cast, never });
            }
            typed.push(array);
        }
        let cells = match &self.phone {
            Some((at, words)) => Some((text(batch.column(*at))?, words)),
            None => None,
        };
        let mut outcome = match &cells {
            Some((cells, words)) => self.phones_of(cells, words),
            None => Outcome {
                reasons: vec![Some(Reason::PhoneMissing); rows],
                phones: UInt64Array::new_null(rows),
                raw: StringArray::new_null(rows),
            },
        };
        let ids = self.record_ids(batch, cells.as_ref().map(|(cells, _)| cells), &outcome.phones)?;
        outcome.refuse_missing(&ids);
        Ok(Normalised { records: self.assemble(ids, outcome, typed, row_hashes, unfit.column(rows), false)?, nulls })
    }

    fn phones_of(&self, cells: &StringArray, words: &BTreeMap<String, String>) -> Outcome {
        let mut reasons = vec![None; cells.len()];
        let mut phones = UInt64Builder::with_capacity(cells.len());
        let mut raw = StringBuilder::with_capacity(cells.len(), 0);
        for (cell, reason) in cells.iter().zip(&mut reasons) {
            let cell = cell.map_or("", |cell| if words.is_empty() { cell } else { words.get(trim(cell)).map_or(cell, String::as_str) });
            match self.phones.parse(cell) {
                Ok(phone) => {
                    phones.append_value(phone.e164_digits());
                    raw.append_null();
                }
                Err(why) => {
                    *reason = Some(why);
                    phones.append_null();
                    raw.append_option(Some(cell).filter(|_| why != Reason::PhoneMissing));
                }
            }
        }
        Outcome { reasons, phones: phones.finish(), raw: raw.finish() }
    }

    /// Ids, empty where there is none.
    fn record_ids(&self, batch: &RecordBatch, phone_cells: Option<&StringArray>, phones: &UInt64Array) -> Result<StringArray, ArrowError> {
        let parts = match &self.ids {
            Ids::Column(at) => {
                let cells = text(batch.column(*at))?;
                let clean = cells.null_count() == 0 && cells.iter().flatten().all(|cell| trim(cell).len() == cell.len());
                return Ok(if clean { cells } else { StringArray::from_iter_values(cells.iter().map(|cell| cell.map_or("", trim))) });
            }
            Ids::Key(parts) => parts,
        };
        let columns = parts.iter().map(|part| match (part, phone_cells) {
            // However a usable number is written, it is the same key.
            (KeyPart::Phone, Some(cells)) => Ok(phones
                .iter()
                .zip(cells)
                .map(|(phone, cell)| phone.map(|digits| digits.to_string()).or(cell.map(str::to_owned)))
                .collect()),
            (KeyPart::Phone, None) => Ok(StringArray::new_null(batch.num_rows())),
            (KeyPart::Input(at), _) => text(batch.column(*at)),
        });
        let columns = columns.collect::<Result<Vec<StringArray>, ArrowError>>()?;
        let mut ids = StringBuilder::with_capacity(batch.num_rows(), batch.num_rows() * 32);
        let mut values = Vec::with_capacity(columns.len());
        for row in 0..batch.num_rows() {
            values.clear();
            values.extend(columns.iter().map(|column| if column.is_valid(row) { trim(column.value(row)).as_bytes() } else { &[] }));
            let empty = values.iter().all(|value| value.is_empty());
            ids.append_value(if empty { String::new() } else { hex(&self.lookup.id("record by key", &values)) });
        }
        Ok(ids.finish())
    }

    /// Puts the columns together. The keys of rejected rows and of rows without an id are made of
    /// texts that no id can be: a location after U+0001, the row's hash after U+0002.
    fn assemble(
        &self,
        ids: StringArray,
        outcome: Outcome,
        typed: Vec<ArrayRef>,
        row_hashes: &[u128],
        unfit: StringArray,
        rejected: bool,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = outcome.reasons.len();
        let mut reasons = StringBuilder::with_capacity(rows, 0);
        outcome.reasons.iter().for_each(|reason| reasons.append_option(reason.map(Reason::code)));
        let own: [ArrayRef; 4] = [Arc::new(ids.clone()), Arc::new(reasons.finish()), Arc::new(outcome.phones), Arc::new(outcome.raw)];
        let said = own.iter().chain(&typed).cloned().collect::<Vec<_>>();
        let hashes = rowhash::row_hashes(&self.lookup, self.hash_prefix, &said, rows);
        let mut keys = Vec::with_capacity(rows);
        let mut buffer = Vec::new();
        for (row, hash) in hashes.iter().enumerate() {
            let key = match ids.value(row) {
                "" => self.lookup.record(&self.source, &format!("\u{2}{hash:032x}")),
                location if rejected => self.lookup.record(&self.source, &format!("\u{1}{location}")),
                id => self.lookup.record_in(&mut buffer, &self.source, id),
            };
            keys.push(key.as_u128());
        }
        let before = [sixteens(keys)?, sixteens(hashes)?];
        let after: [ArrayRef; 2] = [sixteens(row_hashes.iter().copied())?, Arc::new(unfit)];
        RecordBatch::try_new(self.schema(), before.into_iter().chain(own).chain(after).chain(typed).collect())
    }
}

/// Rows that are known as they are.
#[derive(Default)]
struct Seen {
    keys: Vec<RecordKey>,
    /// Where the next row probably is among those known.
    next: usize,
    unfit: BTreeMap<String, u64>,
}

impl Seen {
    /// Notes a row where it is known; whether it is.
    fn take(&mut self, known: &Known, row_hash: u128) -> bool {
        let Some(row) = known.find(row_hash, &mut self.next) else { return false };
        self.keys.push(row.key);
        count_unfit(&mut self.unfit, row.unfit);
        true
    }
}

/// How many cells of records do not fit, by column; of batches with [`record::UNFIT`].
///
/// # Errors
/// Where a batch lacks it.
pub fn unfit_values(records: &[RecordBatch]) -> Result<BTreeMap<String, u64>, StateError> {
    let mut counts = BTreeMap::new();
    for batch in records {
        texts_of(batch, RECORDS, record::UNFIT)?.iter().for_each(|columns| count_unfit(&mut counts, columns));
    }
    Ok(counts)
}

/// Counts the columns of a row that do not fit, given with commas between them.
fn count_unfit(counts: &mut BTreeMap<String, u64>, columns: Option<&str>) {
    for column in columns.iter().flat_map(|columns| columns.split(',')) {
        *counts.entry(column.to_owned()).or_default() += 1;
    }
}

/// The columns of each row whose cells do not fit.
#[derive(Default)]
struct Unfit(BTreeMap<u32, String>);

impl Unfit {
    fn add(&mut self, column: &str, rows: &[u32]) {
        for row in rows {
            let columns = self.0.entry(*row).or_default();
            if !columns.is_empty() {
                columns.push(',');
            }
            columns.push_str(column);
        }
    }

    fn column(self, rows: usize) -> StringArray {
        if self.0.is_empty() {
            return StringArray::new_null(rows);
        }
        (0..rows as u32).map(|row| self.0.get(&row)).collect()
    }
}

/// What became of the phones of a batch.
struct Outcome {
    reasons: Vec<Option<Reason>>,
    phones: UInt64Array,
    raw: StringArray,
}

impl Outcome {
    /// A row without an id is refused for that, whatever its phone.
    fn refuse_missing(&mut self, ids: &StringArray) {
        if ids.iter().all(|id| id != Some("")) {
            return;
        }
        for (reason, id) in self.reasons.iter_mut().zip(ids) {
            *reason = if id == Some("") { Some(Reason::RecordIdMissing) } else { *reason };
        }
        self.phones = self.phones.iter().zip(ids).map(|(phone, id)| phone.filter(|_| id != Some(""))).collect();
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn missing_column(source: &str, column: &str, needed_for: &str, input: &Schema) -> MappingError {
    let available = input.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let similar = |name: &String| strsim::jaro_winkler(&name.to_lowercase(), &column.to_lowercase());
    let nearest = available.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).filter(|name| similar(name) > 0.75).cloned();
    MappingError::MissingColumn {
        name: source.to_owned(),
        column: column.to_owned(),
        needed_for: needed_for.to_owned(),
        nearest,
        available,
    }
}

fn check_column(source: &str, mapping: &Mapping, field: &Field) -> Result<(), MappingError> {
    let (name, column) = (source.to_owned(), mapping.to.clone());
    if mapping.to == record::PHONE {
        return check_readable(source, field, ColumnType::Text);
    }
    if record::is_own(&column) {
        return Err(MappingError::Taken { name, column });
    }
    if let Some(expected) = canonical(&column).map(|column| column.kind).filter(|kind| *kind != mapping.kind) {
        return Err(MappingError::Kind { name, column, declared: mapping.kind, expected });
    }
    check_readable(source, field, mapping.kind)
}

fn check_readable(source: &str, field: &Field, kind: ColumnType) -> Result<(), MappingError> {
    if Cast::takes(field.data_type()) {
        return Ok(());
    }
    let found = match field.data_type() {
        DataType::List(_) | DataType::LargeList(_) => "list".to_owned(),
        other => other.to_string(),
    };
    Err(MappingError::Type { name: source.to_owned(), column: field.name().clone(), found, kind })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::lookup;

    fn plan(columns: &[(&str, &str, ColumnType)]) -> SourcePlan {
        SourcePlan {
            source: "pos".into(),
            record_id: RecordIdRule::Column("card".into()),
            columns: columns.iter().map(|(to, from, kind)| Mapping::new(*to, *from, *kind)).collect(),
            timezone: TimeZone::get("Asia/Shanghai").unwrap(),
        }
    }

    const COLUMNS: [(&str, &str, ColumnType); 5] = [
        ("phone", "mobile", ColumnType::Text),
        ("name", "name", ColumnType::Text),
        ("updated_at", "changed", ColumnType::Timestamp),
        ("total_spent", "spent", ColumnType::Decimal),
        ("welcome_note", "note", ColumnType::Text),
    ];

    fn texts(columns: &[(&str, Vec<Option<&str>>)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, cells)| (*name, Arc::new(StringArray::from(cells.clone())) as ArrayRef)))
            .unwrap()
    }

    fn sample() -> RecordBatch {
        texts(&[
            ("card", vec![Some("A1"), Some(" A2 "), Some("A3"), None, Some("A5")]),
            ("mobile", vec![Some("13912345678"), Some("+86 139 1234 5679"), Some("138****1234"), Some("13912345670"), None]),
            ("name", vec![Some("张三"), Some(" 李四 "), None, Some("x"), Some("")]),
            ("changed", vec![Some("2026-03-25 10:11:12Z"), Some("2026-03-25 18:11:12"), Some("soon"), None, Some("1970-01-01 08:00:00")]),
            ("spent", vec![Some("1.5"), Some("x"), Some("3"), None, Some("4.00")]),
            ("note", vec![None, Some("n"), None, None, None]),
            ("unused", vec![None, None, None, None, None]),
        ])
    }

    fn normaliser(plan: SourcePlan, input: &Schema) -> Normaliser {
        Normaliser::new(plan, PhoneRules::default(), lookup(), input).unwrap()
    }

    fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
        batch.column_by_name(name).unwrap()
    }

    fn column_texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
        text(column(batch, name)).unwrap().iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    #[test]
    fn a_batch_becomes_records() {
        let input = sample();
        let normaliser = normaliser(plan(&COLUMNS), &input.schema());
        let Normalised { records, nulls } = normaliser.batch(&input).unwrap();
        assert_eq!(records.schema(), normaliser.schema());
        let names = records.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        assert_eq!(
            names,
            [
                "record_key",
                "content_hash",
                "record_id",
                "reason",
                "phone",
                "raw",
                "row_hash",
                "unfit",
                "name",
                "total_spent",
                "updated_at",
                "welcome_note"
            ]
        );
        let some = |texts: [&str; 5]| texts.map(|text| (text != "-").then(|| text.to_owned())).to_vec();
        assert_eq!(column_texts(&records, "record_id"), some(["A1", "A2", "A3", "", "A5"]));
        assert_eq!(column_texts(&records, "reason"), some(["-", "-", "phone_masked", "record_id_missing", "phone_missing"]));
        assert_eq!(column_texts(&records, "phone"), some(["8613912345678", "8613912345679", "-", "-", "-"]));
        assert_eq!(column_texts(&records, "raw"), some(["-", "-", "138****1234", "-", "-"]));
        assert_eq!(column_texts(&records, "name"), some(["张三", "李四", "-", "x", "-"]));
        assert_eq!(column_texts(&records, "updated_at"), some(["2026-03-25T10:11:12Z", "2026-03-25T10:11:12Z", "-", "-", "-"]));
        assert_eq!(column_texts(&records, "total_spent"), some(["1.50", "-", "3.00", "-", "4.00"]));
        assert_eq!(column_texts(&records, "unfit"), some(["-", "total_spent", "updated_at", "-", "-"]));
        let count = |column: &str, not_cast, never| ColumnNulls { column: column.into(), not_cast, never };
        assert_eq!(nulls, [count("total_spent", 1, 0), count("updated_at", 1, 1)]);
        let key = lookup().record("pos", "A2");
        assert_eq!(column(&records, "record_key").as_fixed_size_binary().value(1), key.0);
    }

    #[test]
    fn hashes_do_not_depend_on_the_cut_or_the_order_of_columns() {
        let input = sample();
        let whole = normaliser(plan(&COLUMNS), &input.schema()).batch(&input).unwrap().records;
        let order = [6, 3, 2, 0, 1, 5, 4];
        let turned = input.project(&order).unwrap();
        let mut columns = COLUMNS;
        columns.reverse();
        let other = normaliser(plan(&columns), &turned.schema());
        for row in 0..input.num_rows() {
            let one = other.batch(&turned.slice(row, 1)).unwrap().records;
            assert_eq!(one, whole.slice(row, 1));
        }
    }

    #[test]
    fn every_column_counts_in_the_hash() {
        let input = sample();
        let normaliser = normaliser(plan(&COLUMNS), &input.schema());
        let hash = |batch: &RecordBatch| normaliser.batch(batch).unwrap().records.column(1).as_fixed_size_binary().value(0).to_vec();
        let before = hash(&input);
        for name in ["card", "mobile", "name", "changed", "spent", "note"] {
            let mut columns = input.columns().to_vec();
            let at = input.schema().index_of(name).unwrap();
            columns[at] = Arc::new(StringArray::from(vec!["13700000001"; 5]));
            let changed = RecordBatch::try_new(input.schema(), columns).unwrap();
            assert_ne!(hash(&changed), before, "{name}");
        }
    }

    #[test]
    fn typed_columns_give_the_same_records_as_text() {
        let cells = texts(&[("card", vec![Some("7")]), ("mobile", vec![Some("13912345678")])]);
        let typed = RecordBatch::try_from_iter([
            ("card", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
            ("mobile", Arc::new(Int64Array::from(vec![13_912_345_678]))),
        ])
        .unwrap();
        let records = |batch: &RecordBatch| {
            let mut records = normaliser(plan(&COLUMNS[..1]), &batch.schema()).batch(batch).unwrap().records;
            // Of what the source gave, which is not the same.
            records.remove_column(records.schema().index_of("row_hash").unwrap());
            records
        };
        assert_eq!(records(&cells), records(&typed));
    }

    #[test]
    fn rows_that_come_again_as_they_were_are_seen_and_not_read_again() {
        let input = sample();
        let reader = normaliser(plan(&COLUMNS), &input.schema());
        let whole = reader.batch(&input).unwrap();
        let known = Known::new([&whole.records]).unwrap();
        let again = reader.split(&input, &known).unwrap();
        let keys = column(&whole.records, "record_key").as_fixed_size_binary();
        assert_eq!(again.seen, keys.iter().flatten().filter_map(RecordKey::from_slice).collect::<Vec<_>>());
        assert_eq!(again.unfit_seen, [("total_spent".to_owned(), 1), ("updated_at".to_owned(), 1)].into());
        assert_eq!(again.changed.records.num_rows(), 0);
        // In another order, one of them changed, one twice.
        let mut columns = input.columns().to_vec();
        columns[2] = Arc::new(StringArray::from(vec![Some("张三"), Some(" 李四 "), Some("王五"), Some("x"), Some("")]));
        let other = RecordBatch::try_new(input.schema(), columns).unwrap();
        let order = arrow::array::UInt32Array::from(vec![4, 2, 0, 0, 3, 1]);
        let other = arrow::compute::take_record_batch(&other, &order).unwrap();
        let split = reader.split(&other, &known).unwrap();
        assert_eq!(column_texts(&split.changed.records, "record_id"), [Some("A3".to_owned())]);
        assert_eq!(split.changed.records, reader.batch(&other.slice(1, 1)).unwrap().records);
        let seen = [4, 0, 0, 3, 1].map(|row| RecordKey::from_slice(keys.value(row)).unwrap());
        assert_eq!(split.seen, seen);
        assert_eq!(split.unfit_seen, [("total_spent".to_owned(), 1)].into());
    }

    #[test]
    fn what_makes_a_record_of_a_row_counts_in_its_hash() {
        let input = sample();
        let reader = normaliser(plan(&COLUMNS), &input.schema());
        let known = Known::new([&reader.batch(&input).unwrap().records]).unwrap();
        let seen = |other: Normaliser, input: &RecordBatch| other.split(input, &known).unwrap().seen.len();
        assert_eq!(seen(normaliser(plan(&COLUMNS), &input.schema()), &input), 5);
        let words = |plan: &mut SourcePlan| _ = plan.columns[1].values.insert("x".into(), "y".into());
        let changes: [&dyn Fn(&mut SourcePlan); 5] = [
            &words,
            &|plan| plan.source = "till".into(),
            &|plan| plan.columns[3].unit = Some(Unit::Fen),
            &|plan| plan.columns[2].timezone = Some(TimeZone::UTC),
            &|plan| plan.record_id = RecordIdRule::Key(vec!["card".into()]),
        ];
        for change in changes {
            let mut plan = plan(&COLUMNS);
            change(&mut plan);
            assert_eq!(seen(normaliser(plan, &input.schema()), &input), 0);
        }
        let placeholders = PhoneRules::new(Some(&["13912345678".into()]), &[], &[]).unwrap();
        assert_eq!(seen(Normaliser::new(plan(&COLUMNS), placeholders, lookup(), &input.schema()).unwrap(), &input), 0);
        // A column that nobody reads does not count, nor where a column stands.
        let mut columns = input.columns().to_vec();
        columns[6] = Arc::new(StringArray::from(vec!["exported today"; 5]));
        let dated = RecordBatch::try_new(input.schema(), columns).unwrap();
        assert_eq!(seen(reader.clone(), &dated), 5);
        let turned = input.project(&[6, 5, 4, 3, 2, 1, 0]).unwrap();
        assert_eq!(seen(normaliser(plan(&COLUMNS), &turned.schema()), &turned), 5);
    }

    #[test]
    fn columns_of_every_type_are_hashed() {
        use arrow::array::{BooleanArray, Date32Array, DictionaryArray, Float64Array, Int8Array, LargeStringArray, TimestampSecondArray};
        let dictionary: DictionaryArray<Int32Type> = [Some("a"), Some("b")].into_iter().collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int8Array::from(vec![1, 2])),
            Arc::new(Float64Array::from(vec![1.0, 1.5])),
            Arc::new(LargeStringArray::from(vec!["a", "b"])),
            Arc::new(TimestampSecondArray::from(vec![1, 2]).with_timezone("UTC")),
            Arc::new(Date32Array::from(vec![1, 2])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(dictionary),
        ];
        for array in columns {
            let hashed = rowhash::hashable(&array).unwrap();
            let hashes = rowhash::row_hashes(&lookup(), [0; 16], &[hashed], 2);
            assert_ne!(hashes[0], hashes[1], "{}", array.data_type());
        }
    }

    #[test]
    fn rejected_rows_are_seen_too() {
        let reader = normaliser(plan(&COLUMNS), &sample().schema());
        let cells = ["pos.csv:17", "row_ragged", "3 cells"].map(|cell| Arc::new(StringArray::from(vec![cell])) as ArrayRef);
        let rejected = RecordBatch::try_new(reunion_model::plugin::rejected_schema(), cells.to_vec()).unwrap();
        let first = reader.split_rejected(&rejected, &Known::default()).unwrap();
        assert_eq!((first.changed.records.num_rows(), first.seen.len()), (1, 0));
        let again = reader.split_rejected(&rejected, &Known::new([&first.changed.records]).unwrap()).unwrap();
        assert_eq!((again.changed.records.num_rows(), again.seen.len()), (0, 1));
    }

    #[test]
    fn keyed_rows_have_the_id_of_their_values() {
        let input = texts(&[
            ("mobile", vec![Some("13912345678"), Some("+86 139 1234 5678"), Some("无"), None]),
            ("shop", vec![Some("S1"), Some("S1 "), Some("S1"), None]),
        ]);
        let keyed = |names: &[&str]| SourcePlan {
            record_id: RecordIdRule::Key(names.iter().map(ToString::to_string).collect()),
            ..plan(&COLUMNS[..1])
        };
        let normaliser = normaliser(keyed(&["phone", "shop"]), &input.schema());
        assert!(normaliser.is_keyed());
        let records = normaliser.batch(&input).unwrap().records;
        let ids = column(&records, "record_id").as_string::<i32>().clone();
        assert_eq!((ids.value(0), ids.value(0).len(), ids.value(3)), (ids.value(1), 32, ""));
        assert_ne!(ids.value(0), ids.value(2));
        assert_eq!(column(&records, "reason").as_string::<i32>().value(3), "record_id_missing");
        let error = Normaliser::new(keyed(&[]), PhoneRules::default(), lookup(), &input.schema()).unwrap_err();
        insta::assert_snapshot!(error, @r#"source "pos" has no record id and an empty `key`; name the columns that tell its rows apart"#);
    }

    #[test]
    fn a_source_without_phones_is_quarantined_row_by_row() {
        let input = texts(&[("card", vec![Some("A1")]), ("name", vec![Some("张三")])]);
        let records = normaliser(plan(&COLUMNS[1..2]), &input.schema()).batch(&input).unwrap().records;
        assert_eq!(column_texts(&records, "reason"), [Some("phone_missing".to_owned())]);
    }

    #[test]
    fn rejected_rows_become_records_of_their_place() {
        let input = sample();
        let normaliser = normaliser(plan(&COLUMNS), &input.schema());
        let rejected = |reason: &str| {
            let cells: [ArrayRef; 3] = [
                Arc::new(StringArray::from(vec!["pos.csv:17"])),
                Arc::new(StringArray::from(vec![reason])),
                Arc::new(StringArray::from(vec!["3 cells instead of 7"])),
            ];
            RecordBatch::try_new(reunion_model::plugin::rejected_schema(), cells.to_vec()).unwrap()
        };
        let records = normaliser.rejected(&rejected("row_ragged")).unwrap();
        assert_eq!(records.schema(), normaliser.schema());
        assert_eq!(column_texts(&records, "record_id"), [Some("pos.csv:17".to_owned())]);
        assert_eq!(column_texts(&records, "raw"), [Some("3 cells instead of 7".to_owned())]);
        assert_ne!(column(&records, "record_key").as_fixed_size_binary().value(0), lookup().record("pos", "pos.csv:17").0);
        let error = normaliser.rejected(&rejected("bad_mood")).unwrap_err();
        insta::assert_snapshot!(error, @r#"source "pos" rejects rows with the reason "bad_mood", which does not exist; the plugin is at fault"#);
    }

    #[test]
    fn plans_that_do_not_fit_say_why() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        let input = RecordBatch::try_from_iter([
            ("card", Arc::new(StringArray::from(vec!["1"])) as ArrayRef),
            ("mobile_no", Arc::new(StringArray::from(vec!["1"]))),
            ("tags", Arc::new(list)),
        ]);
        let schema = input.unwrap().schema();
        let refuse = |columns: &[(&str, &str, ColumnType)]| {
            Normaliser::new(plan(columns), PhoneRules::default(), lookup(), &schema).unwrap_err().to_string()
        };
        insta::assert_snapshot!(refuse(&[("phone", "mobile", ColumnType::Text)]), @r#"source "pos" has no column "mobile", which "phone" needs; did you mean "mobile_no"?; it has card, mobile_no, tags"#);
        insta::assert_snapshot!(refuse(&[("phone", "mobile_no", ColumnType::Text), ("phone", "card", ColumnType::Text)]), @r#"source "pos" maps two columns to "phone"; keep one of them"#);
        insta::assert_snapshot!(refuse(&[("record_key", "card", ColumnType::Text)]), @r#"source "pos" maps a column to "record_key", a name that every record has already; give it another"#);
        insta::assert_snapshot!(refuse(&[("points", "card", ColumnType::Text)]), @r#"source "pos" declares "points" as text, and it is decimal everywhere"#);
        insta::assert_snapshot!(refuse(&[("tags", "tags", ColumnType::Text)]), @r#"column "tags" of source "pos" has type list, which cannot be read as text; select a plain column"#);
    }

    #[test]
    fn a_batch_of_another_shape_is_refused() {
        let input = sample();
        let normaliser = normaliser(plan(&COLUMNS), &input.schema());
        let error = normaliser.batch(&input.project(&[0, 1]).unwrap()).unwrap_err();
        insta::assert_snapshot!(error, @r#"source "pos" sent a batch whose columns differ from its schema: 2 columns came instead of 7"#);
        let typed = RecordBatch::try_from_iter(
            input.schema().fields().iter().map(|field| (field.name().as_str(), Arc::new(Int64Array::from(vec![1])) as ArrayRef)),
        )
        .unwrap();
        let error = normaliser.batch(&typed).unwrap_err();
        insta::assert_snapshot!(error, @r#"source "pos" sent a batch whose columns differ from its schema: "card" Utf8 came as "card" Int64"#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_row_is_lost(cells in prop::collection::vec(("\\PC{0,6}", "\\PC{0,14}", "\\PC{0,12}"), 0..20), cut in 0_usize..20) {
            let of = |pick: fn(&(String, String, String)) -> &String| cells.iter().map(|row| Some(pick(row).as_str())).collect::<Vec<_>>();
            let input = texts(&[("card", of(|r| &r.0)), ("mobile", of(|r| &r.1)), ("name", of(|r| &r.2)), ("changed", of(|r| &r.2)), ("spent", of(|r| &r.1)), ("note", of(|r| &r.0))]);
            let normaliser = normaliser(plan(&COLUMNS), &input.schema());
            let whole = normaliser.batch(&input).unwrap().records;
            prop_assert_eq!(whole.num_rows(), cells.len());
            let (reasons, phones) = (column(&whole, "reason"), column(&whole, "phone"));
            prop_assert!((0..cells.len()).all(|row| reasons.is_null(row) == phones.is_valid(row)));
            let cut = cut.min(cells.len());
            let parts = [input.slice(0, cut), input.slice(cut, cells.len() - cut)].map(|part| normaliser.batch(&part).unwrap().records);
            prop_assert_eq!(arrow::compute::concat_batches(&whole.schema(), &parts).unwrap(), whole);
        }
    }
}
