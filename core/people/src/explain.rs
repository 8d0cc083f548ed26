//! Why a member is what it is: which of its records have a key in common, and for each of its values the records that it
//! came from and the rule that chose it.
//!
//! What is given are the member's usable records: for each batch the name of its source, as the rules name it and as ties
//! are decided by, with all columns that the source has.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use reunion_model::record::RECORD_ID;
use reunion_model::schema::{ColumnType, Rule, Survivorship};

use crate::cast::text;
use crate::golden::{Choice, GoldenError, GoldenPlan, Rows, choose_column};
use crate::table::NONE;

const UPDATED_AT: &str = "updated_at";

/// A record, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of its source, as it was given.
    pub source: String,
    /// Its id there. Some sources take the phone for one.
    pub record_id: String,
    /// When it last changed at the source, RFC 3339 in UTC; `None` where the source does not say.
    pub updated_at: Option<String>,
}

/// One column of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The column.
    pub column: String,
    /// Its value as text, `None` for null. Personal data where the column is.
    pub value: Option<String>,
    /// The rule that chose it.
    pub rule: Rule,
    /// The records that it came from: the winner, and of a rule that counts values those that agree with it; of a sum or
    /// a union all that have a value, though it be too large for the column. None where no record has a value that
    /// counts. The most recent first.
    pub from: Vec<Origin>,
}

/// The columns of one member and where they came from.
///
/// # Errors
/// Where a column has another type than the plan says.
pub fn explain(plan: &GoldenPlan, records: &[(&str, RecordBatch)]) -> Result<Vec<Explained>, GoldenError> {
    let rows = by_recency(records)?;
    if rows.refs.is_empty() {
        return Ok(Vec::new());
    }
    let origins = origins(&rows)?;
    plan.columns()
        .iter()
        .map(|column| {
            let Choice { array, winners, .. } = choose_column(plan, column, &rows)?;
            let value = text(&array)?;
            let value = value.is_valid(0).then(|| value.value(0).to_owned());
            let winner = winners.as_ref().and_then(|winners| winners.first()).filter(|winner| **winner != NONE);
            let values = values(&rows, &column.name)?;
            let counts = |at: &usize| match column.rule.survivorship {
                Survivorship::Sum | Survivorship::Union => values[*at].is_some(),
                Survivorship::MostFrequent | Survivorship::Any | Survivorship::All => value.is_some() && values[*at] == value,
                _ => winner.is_some_and(|winner| *winner as usize == *at),
            };
            let from = (0..origins.len()).filter(counts).map(|at| origins[at].clone()).collect();
            Ok(Explained { column: column.name.clone(), value, rule: column.rule.clone(), from })
        })
        .collect()
}

/// A record of a member, and the keys that it has in common with others of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The record.
    pub record: Origin,
    /// In the order of the keys.
    pub by: Vec<SharedKey>,
}

/// What a record has in common with others of its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedKey {
    /// The columns that are equal together.
    pub columns: Vec<String>,
    /// Their values as text. Personal data.
    pub values: Vec<String>,
    /// How many of the member's records have them.
    pub records: usize,
}

/// The member's records, the most recent first, each with what it shares with another by these keys: columns whose
/// values have to be equal together.
///
/// # Errors
/// Where a column has a type that no key has.
pub fn joined(keys: &[Vec<String>], records: &[(&str, RecordBatch)]) -> Result<Vec<Joined>, GoldenError> {
    let rows = by_recency(records)?;
    let mut joined: Vec<Joined> = origins(&rows)?.into_iter().map(|record| Joined { record, by: Vec::new() }).collect();
    for columns in keys {
        let parts = columns.iter().map(|column| values(&rows, column)).collect::<Result<Vec<_>, _>>()?;
        let of_record = |at: usize| parts.iter().map(|part| part[at].as_deref()).collect::<Option<Vec<&str>>>();
        let mut counts: HashMap<Vec<&str>, usize> = HashMap::new();
        for values in (0..joined.len()).filter_map(of_record) {
            *counts.entry(values).or_default() += 1;
        }
        for (at, of) in joined.iter_mut().enumerate() {
            let Some(values) = of_record(at) else { continue };
            let records = counts[&values];
            if records > 1 {
                let values = values.into_iter().map(str::to_owned).collect();
                of.by.push(SharedKey { columns: columns.clone(), values, records });
            }
        }
    }
    Ok(joined)
}

/// The values of a column as text, in the order of the rows.
pub(crate) fn values(rows: &Rows, column: &str) -> Result<Vec<Option<String>>, GoldenError> {
    let of_batch = |batch: &Option<&RecordBatch>| -> Result<Option<StringArray>, GoldenError> {
        let array = batch.and_then(|batch| batch.column_by_name(column));
        Ok(array.map(text).transpose()?)
    };
    let batches = rows.batches.iter().map(of_batch).collect::<Result<Vec<_>, _>>()?;
    let value = |(batch, row): &(u32, u32)| {
        let values = batches[*batch as usize].as_ref().filter(|values| values.is_valid(*row as usize))?;
        Some(values.value(*row as usize).to_owned())
    };
    Ok(rows.refs.iter().map(value).collect())
}

pub(crate) fn origins(rows: &Rows) -> Result<Vec<Origin>, GoldenError> {
    let updated = values(rows, UPDATED_AT)?;
    let origin = |((batch, row), updated_at): (&(u32, u32), Option<String>)| Origin {
        source: rows.sources[*batch as usize].to_owned(),
        record_id: rows.batches[*batch as usize].map_or("", |records| record_id(records, *row as usize)).to_owned(),
        updated_at,
    };
    Ok(rows.refs.iter().zip(updated).map(origin).collect())
}

fn record_id(records: &RecordBatch, row: usize) -> &str {
    let ids = records.column_by_name(RECORD_ID).and_then(|ids| ids.as_string_opt::<i32>());
    ids.map_or("", |ids| ids.value(row))
}

/// All records as those of one member, the most recent first.
pub(crate) fn by_recency<'a>(records: &'a [(&str, RecordBatch)]) -> Result<Rows<'a>, GoldenError> {
    let mut order = Vec::new();
    for (at, (source, batch)) in records.iter().enumerate() {
        let updated = batch.column_by_name(UPDATED_AT);
        if let Some(found) = updated.filter(|array| *array.data_type() != ColumnType::Timestamp.arrow()) {
            let (found, expected) = (found.data_type().clone(), ColumnType::Timestamp.arrow());
            return Err(GoldenError::Type { column: UPDATED_AT.to_owned(), found, expected });
        }
        let updated = updated.map(|array| array.as_primitive::<TimestampMicrosecondType>());
        for row in 0..batch.num_rows() {
            let moment = updated.filter(|moments| moments.is_valid(row)).map(|moments| moments.value(row));
            order.push((std::cmp::Reverse(moment), *source, record_id(batch, row), (at as u32, row as u32)));
        }
    }
    order.sort();
    let refs = order.into_iter().map(|(.., place)| place).collect::<Vec<_>>();
    let starts = if refs.is_empty() { vec![0] } else { vec![0, refs.len() as u32] };
    Ok(Rows {
        batches: records.iter().map(|(_, batch)| Some(batch)).collect(),
        sources: records.iter().map(|(source, _)| *source).collect(),
        refs: refs.into(),
        starts: starts.into(),
    })
}
