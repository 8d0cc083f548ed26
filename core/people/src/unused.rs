//! Values of keys that a member has and that do not join, or not everybody who has them: too many records have a value, it is
//! blocked, or something keeps apart who shares it.
//!
//! A [`Census`] asks all records who has the values of one member, in one pass over the columns of keys, and counts as
//! identity does: records that are set aside have no say.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use reunion_keys::Lookup;
use reunion_model::record::{PHONE, RECORD_KEY};
use reunion_model::{MemberId, RecordKey};

use crate::explain::{Origin, by_recency, origins, values};
use crate::golden::{GoldenError, Rows};
use crate::identity::{IdentityConfig, KeyColumns, KeyRow, Rule};
use crate::pull::{Chunk, RECORDS};
use crate::table::{StateError, numbers_of, sixteen, sixteens_of};

/// A value of a key that does not join all who have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// The columns that are equal together.
    pub columns: Vec<String>,
    /// Their values as text. Personal data.
    pub values: Vec<String>,
    /// The member's records that have it, the most recent first.
    pub records: Vec<Origin>,
    /// Why.
    pub why: Why,
}

/// Why a value of a key does not join all who have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The value of this column is blocked.
    Blocked {
        /// The column.
        column: String,
    },
    /// More records have it than may.
    TooCommon {
        /// How many have it.
        records: usize,
        /// How many may.
        max: u32,
        /// The column whose limit that is.
        column: String,
    },
    /// Something keeps the member apart from others who have it.
    Apart {
        /// The others, and how many of their records have it.
        members: BTreeMap<MemberId, usize>,
        /// Records that are set aside, since their phone is somebody else's now.
        former: usize,
    },
}

impl Why {
    /// Whether it joins nobody at all.
    pub fn is_nobodys(&self) -> bool {
        !matches!(self, Self::Apart { .. })
    }
}

/// What became of a record that joins others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is of this member.
    Member(MemberId),
    /// Its member was set aside, since its phone is somebody else's now.
    Former,
}

/// Who has the values of one member.
pub struct Census<'a> {
    config: &'a IdentityConfig,
    lookup: &'a Lookup,
    owned: Vec<Owned>,
    /// For each rule the place in `owned` of each value that is asked for.
    wanted: Vec<HashMap<u128, usize>>,
}

struct Owned {
    unused: Unused,
    rule: usize,
    /// All records that have it.
    found: Vec<RecordKey>,
}

impl<'a> Census<'a> {
    /// Of a member's records.
    ///
    /// # Errors
    /// Where a column has a type that no key has.
    pub fn new(config: &'a IdentityConfig, lookup: &'a Lookup, records: &[(&str, RecordBatch)]) -> Result<Self, GoldenError> {
        let mut census = Self { config, lookup, owned: Vec::new(), wanted: vec![HashMap::new(); config.keys.len()] };
        let rows = by_recency(records)?;
        let keys = KeyColumns::new(&chunks(records.iter().map(|(_, batch)| batch)), config, lookup)?;
        let origins = origins(&rows)?;
        for rule in 0..config.keys.len() {
            census.own(&rows, &keys, rule, &origins)?;
        }
        Ok(census)
    }

    /// Adds the values that the rows have for a rule.
    fn own(&mut self, rows: &Rows, keys: &KeyColumns, rule: usize, origins: &[Origin]) -> Result<(), GoldenError> {
        let columns = &self.config.keys[rule];
        let texts = columns.iter().map(|column| values(rows, column)).collect::<Result<Vec<_>, _>>()?;
        let phones = values(rows, PHONE)?;
        let mut places: HashMap<Vec<&str>, usize> = HashMap::new();
        for (at, (batch, row)) in rows.refs.iter().enumerate() {
            let Some(values) = texts.iter().map(|texts| texts[at].as_deref()).collect::<Option<Vec<_>>>() else { continue };
            let phone = phones[at].as_ref().and_then(|phone| phone.parse().ok()).unwrap_or_default();
            let row = KeyRow { chunk: *batch as usize, row: *row as usize, phone };
            let place = *places.entry(values.clone()).or_insert_with(|| {
                let blocked = columns.iter().find(|column| keys.value_of(column, row).is_none());
                if let Some(value) = keys.value(&keys.rules[rule], row) {
                    self.wanted[rule].insert(value, self.owned.len());
                }
                let why = match blocked {
                    Some(column) => Why::Blocked { column: column.clone() },
                    None => Why::Apart { members: BTreeMap::new(), former: 0 },
                };
                let values = values.iter().map(|value| (*value).to_owned()).collect();
                let unused = Unused { columns: columns.clone(), values, records: Vec::new(), why };
                self.owned.push(Owned { unused, rule, found: Vec::new() });
                self.owned.len() - 1
            });
            self.owned[place].unused.records.push(origins[at].clone());
        }
        Ok(())
    }

    /// The columns that [`Census::ask`] needs.
    pub fn columns(config: &IdentityConfig) -> Vec<String> {
        let keys = config.key_columns().into_iter().filter(|column| column != PHONE);
        [RECORD_KEY, PHONE].map(str::to_owned).into_iter().chain(keys).collect()
    }

    /// Asks these records, which may be any, each once.
    ///
    /// # Errors
    /// Where a column is missing or has another type than it should.
    pub fn ask(&mut self, records: &RecordBatch) -> Result<(), StateError> {
        let keys = KeyColumns::new(&chunks(std::iter::once(records)), self.config, self.lookup)?;
        let ids = sixteens_of(records, RECORDS, RECORD_KEY)?;
        let phones = numbers_of::<UInt64Type>(records, RECORDS, PHONE)?;
        let asks = |(rule, wanted): &(&Rule, &HashMap<u128, usize>)| !wanted.is_empty() && keys.may_join(rule);
        for (rule, wanted) in keys.rules.iter().zip(&self.wanted).filter(asks) {
            for row in (0..records.num_rows()).filter(|row| phones.is_valid(*row)) {
                let value = keys.value(rule, KeyRow { chunk: 0, row, phone: phones.value(row) });
                if let Some(place) = value.and_then(|value| wanted.get(&value)) {
                    self.owned[*place].found.push(RecordKey::from_u128(sixteen(ids, row)));
                }
            }
        }
        Ok(())
    }

    /// The records that have one of the values.
    pub fn found(&self) -> impl Iterator<Item = RecordKey> + '_ {
        self.owned.iter().flat_map(|owned| &owned.found).copied()
    }

    /// The values that do not join all who have them, in the order of the keys. `fate` says what became of a record;
    /// nothing of one that is set aside for another reason.
    pub fn unused(self, member: MemberId, fate: impl Fn(&RecordKey) -> Option<Fate>) -> Vec<Unused> {
        let config = self.config;
        let judge = |Owned { mut unused, rule, found }: Owned| {
            if !matches!(unused.why, Why::Blocked { .. }) {
                unused.why = why(config, &config.keys[rule], &found.iter().filter_map(&fate).collect::<Vec<_>>(), member)?;
            }
            Some(unused)
        };
        self.owned.into_iter().filter_map(judge).collect()
    }
}

/// Why a value of these columns does not join all these records; `None` where it does.
fn why(config: &IdentityConfig, columns: &[String], fates: &[Fate], own: MemberId) -> Option<Why> {
    let limits = columns.iter().filter(|column| *column != PHONE).map(|column| (config.limits_of(column).records_max, column));
    let limit = limits.min_by_key(|(max, _)| *max).filter(|(max, _)| fates.len() > *max as usize);
    if let Some((max, column)) = limit {
        return Some(Why::TooCommon { records: fates.len(), max, column: column.clone() });
    }
    let (mut members, mut former) = (BTreeMap::new(), 0);
    for fate in fates {
        match fate {
            Fate::Member(member) if *member == own => {}
            Fate::Member(member) => *members.entry(*member).or_default() += 1,
            Fate::Former => former += 1,
        }
    }
    (former > 0 || !members.is_empty()).then_some(Why::Apart { members, former })
}

/// The columns of which these records would have more values than one member may: the column, how many, and how many may be.
///
/// # Errors
/// Where a column has a type that no key has.
pub fn too_many_values<'a>(
    config: &IdentityConfig,
    lookup: &Lookup,
    records: impl IntoIterator<Item = &'a RecordBatch>,
) -> Result<Vec<(String, usize, u32)>, StateError> {
    let chunks = chunks(records);
    let keys = KeyColumns::new(&chunks, config, lookup)?;
    let mut found = Vec::new();
    for column in config.key_columns() {
        let Some(max) = config.limits_of(&column).values_max else { continue };
        let mut values = std::collections::BTreeSet::new();
        for (chunk, Chunk { batch, .. }) in chunks.iter().enumerate() {
            let phones = batch.column_by_name(PHONE).and_then(|phones| phones.as_primitive_opt::<UInt64Type>());
            let phone = |row| phones.filter(|phones| phones.is_valid(row)).map(|phones| phones.value(row)).unwrap_or_default();
            values.extend((0..batch.num_rows()).filter_map(|row| keys.value_of(&column, KeyRow { chunk, row, phone: phone(row) })));
        }
        if values.len() > max as usize {
            found.push((column, values.len(), max));
        }
    }
    Ok(found)
}

fn chunks<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<Chunk> {
    batches.into_iter().map(|batch| Chunk { source: 0, batch: batch.clone() }).collect()
}
