//! Why a member's columns are what they are: for each value, the record that it came from and the
//! rule that chose it.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use reunion_model::record::RECORD_ID;
use reunion_model::schema::{ColumnType, Survivorship};

use crate::cast::text;
use crate::golden::{GoldenError, GoldenPlan, Rows, choose};
use crate::table::NONE;

/// One column of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The column.
    pub column: String,
    /// Its value as text, `None` for null. Personal data where the column is.
    pub value: Option<String>,
    /// The rule that chose it.
    pub rule: Survivorship,
    /// The records that it came from (source, record id): the winner, or all that a sum adds. None
    /// where no record has a value that counts.
    pub from: Vec<(String, String)>,
}

/// The columns of one member and where they came from. `records` are the member's usable records:
/// for each batch its source's name, with all columns of the plan that the source has.
///
/// # Errors
/// Where a column has another type than the plan says.
pub fn explain(plan: &GoldenPlan, records: &[(&str, RecordBatch)]) -> Result<Vec<Explained>, GoldenError> {
    let rows = by_recency(records)?;
    if rows.refs.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = choose(plan, &rows, true)?;
    let name = |at: usize| {
        let (batch, row) = rows.refs[at];
        let (source, records) = &records[batch as usize];
        ((*source).to_owned(), record_id(records, row as usize).to_owned())
    };
    plan.columns()
        .iter()
        .zip(chosen.arrays.iter().zip(&chosen.winners))
        .map(|(column, (array, winners))| {
            let from = match winners {
                Some(winners) => winners.iter().filter(|winner| **winner != NONE).map(|winner| name(*winner as usize)).collect(),
                None => (0..rows.refs.len()).filter(|at| has_value(&rows, *at, &column.name)).map(name).collect(),
            };
            let value = text(array)?;
            let value = value.is_valid(0).then(|| value.value(0).to_owned());
            Ok(Explained { column: column.name.clone(), value, rule: column.rule, from })
        })
        .collect()
}

fn record_id(records: &RecordBatch, row: usize) -> &str {
    use arrow::array::AsArray;
    let ids = records.column_by_name(RECORD_ID).and_then(|ids| ids.as_string_opt::<i32>());
    ids.map_or("", |ids| ids.value(row))
}

fn has_value(rows: &Rows, at: usize, column: &str) -> bool {
    let (batch, row) = rows.refs[at];
    let column = rows.batches[batch as usize].and_then(|batch| batch.column_by_name(column));
    column.is_some_and(|column| column.is_valid(row as usize))
}

/// All records as those of one member, the most recent first.
fn by_recency<'a>(records: &'a [(&str, RecordBatch)]) -> Result<Rows<'a>, GoldenError> {
    use arrow::array::AsArray;
    let mut order = Vec::new();
    for (at, (source, batch)) in records.iter().enumerate() {
        let updated = batch.column_by_name("updated_at");
        if let Some(found) = updated.filter(|array| *array.data_type() != ColumnType::Timestamp.arrow()) {
            let (found, expected) = (found.data_type().clone(), ColumnType::Timestamp.arrow());
            return Err(GoldenError::Type { column: "updated_at".to_owned(), found, expected });
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
    Ok(Rows { batches: records.iter().map(|(_, batch)| Some(batch)).collect(), refs, starts })
}
