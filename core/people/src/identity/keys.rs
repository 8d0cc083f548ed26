//! The values by which records are joined.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use reunion_keys::Lookup;
use reunion_model::record::PHONE;

use super::IdentityConfig;
use crate::pull::Chunk;
use crate::table::StateError;

/// The values of all keys, hashed.
pub(crate) struct KeyColumns {
    /// Every column but the phone that a rule names, each once.
    columns: Vec<KeyColumn>,
    /// The rules in their order.
    pub(crate) rules: Vec<Rule>,
    lookup: Lookup,
}

/// One column of keys.
struct KeyColumn {
    name: String,
    /// By chunk; `None` where the chunk lacks the column.
    chunks: Vec<Option<StringArray>>,
    blocked: HashSet<u128>,
}

/// Columns whose values must all be equal.
pub(crate) struct Rule {
    has_phone: bool,
    columns: Vec<usize>,
    /// Records that share a value, from which on it joins nobody: more than this.
    pub(crate) records_max: u32,
}

impl Rule {
    /// Whether it asks for the phone and nothing else.
    pub(crate) fn is_phone(&self) -> bool {
        self.has_phone && self.columns.is_empty()
    }
}

/// A row's place: its chunk, its row there, and its phone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRow {
    pub(crate) chunk: usize,
    pub(crate) row: usize,
    pub(crate) phone: u64,
}

impl KeyColumns {
    pub(crate) fn new(chunks: &[Chunk], config: &IdentityConfig, lookup: &Lookup) -> Result<Self, StateError> {
        let mut columns: Vec<KeyColumn> = Vec::new();
        let mut rules = Vec::new();
        for names in &config.keys {
            let mut rule = Rule { has_phone: false, columns: Vec::new(), records_max: u32::MAX };
            for name in names {
                if name == PHONE {
                    rule.has_phone = true;
                    continue;
                }
                rule.records_max = rule.records_max.min(config.limits_of(name).records_max);
                let at = match columns.iter().position(|column| column.name == *name) {
                    Some(at) => at,
                    None => {
                        columns.push(KeyColumn::new(name, chunks, config, lookup)?);
                        columns.len() - 1
                    }
                };
                rule.columns.push(at);
            }
            rules.push(rule);
        }
        Ok(Self { columns, rules, lookup: lookup.clone() })
    }

    /// Whether there may be a record with a value for this rule.
    pub(crate) fn may_join(&self, rule: &Rule) -> bool {
        let is_there = |column: &usize| self.columns[*column].chunks.iter().flatten().any(|texts| texts.null_count() < texts.len());
        rule.columns.iter().all(is_there)
    }

    /// What stands for a row's value of a rule; `None` where one of its columns has none, or one that is blocked.
    pub(crate) fn value(&self, rule: &Rule, row: KeyRow) -> Option<u128> {
        // Most rules have one column, whose hash is the value.
        let mut value = rule.has_phone.then_some(u128::from(row.phone));
        for column in &rule.columns {
            let own = self.column_value(*column, row)?;
            value = Some(value.map_or(own, |before| mixed(before, own)));
        }
        value.filter(|value| *value != 0)
    }

    fn column_value(&self, column: usize, row: KeyRow) -> Option<u128> {
        let column = &self.columns[column];
        let texts = column.chunks[row.chunk].as_ref().filter(|texts| texts.is_valid(row.row))?;
        let value = self.lookup.row_hash(texts.value(row.row).as_bytes());
        (!column.blocked.contains(&value)).then_some(value)
    }

    /// A row's value of one column, by its name.
    pub(crate) fn value_of(&self, name: &str, row: KeyRow) -> Option<u128> {
        if name == PHONE {
            return Some(u128::from(row.phone));
        }
        let column = self.columns.iter().position(|column| column.name == name)?;
        self.column_value(column, row)
    }
}

impl KeyColumn {
    fn new(name: &str, chunks: &[Chunk], config: &IdentityConfig, lookup: &Lookup) -> Result<Self, StateError> {
        let chunks = chunks.iter().map(|chunk| {
            let array = chunk.batch.column_by_name(name);
            array.map(|array| Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())).transpose()
        });
        let blocked = config.limits_of(name).blocked.iter().map(|value| lookup.row_hash(value.as_bytes())).collect();
        Ok(Self { name: name.to_owned(), chunks: chunks.collect::<Result<_, StateError>>()?, blocked })
    }
}

/// One value made of two, in which their order counts.
pub(super) fn mixed(one: u128, other: u128) -> u128 {
    (one.rotate_left(41) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}
