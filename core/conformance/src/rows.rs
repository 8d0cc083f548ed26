//! Rows that were read, as a number that does not depend on their order: two reads of the same rows have the same.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};

/// A column whose values can be written out. Of a time in a timezone that is its number: names of zones are not known here.
fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap_or_else(|_| Arc::clone(column)),
        _ => Arc::clone(column),
    }
}

/// Some rows: how many, and the sum of their hashes. Adding is joining.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// How many.
    pub count: u64,
    sum: u64,
}

impl Rows {
    /// Adds the rows of a batch. A row is its columns by name, in whatever order, and their values.
    pub fn add(&mut self, batch: &RecordBatch) {
        let options = FormatOptions::default().with_display_error(true);
        let schema = batch.schema();
        let names: BTreeSet<(&str, usize)> = schema.fields().iter().enumerate().map(|(at, field)| (field.name().as_str(), at)).collect();
        let arrays: Vec<(&str, ArrayRef)> = names.into_iter().map(|(name, at)| (name, comparable(batch.column(at)))).collect();
        let formatter = |array| ArrayFormatter::try_new(array, &options).ok();
        let columns: Vec<_> = arrays.iter().filter_map(|(name, array)| Some((name, array, formatter(array.as_ref())?))).collect();
        for row in 0..batch.num_rows() {
            let mut hasher = DefaultHasher::new();
            for (name, _, values) in columns.iter().filter(|(_, column, _)| !column.is_null(row)) {
                hasher.write(name.as_bytes());
                hasher.write(&[0]);
                hasher.write(values.value(row).to_string().as_bytes());
                hasher.write(&[0xff]);
            }
            self.count += 1;
            self.sum = self.sum.wrapping_add(hasher.finish());
        }
    }

    /// These rows and those.
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum) }
    }

    /// In which way these rows are not the others; nothing where they are.
    pub fn difference(self, expected: Self) -> Option<String> {
        if self == expected {
            return None;
        }
        Some(match self.count.cmp(&expected.count) {
            std::cmp::Ordering::Less => format!("rows lost: {} of {}", expected.count - self.count, expected.count),
            std::cmp::Ordering::Greater => format!("rows that come twice: {}, beside all {}", self.count - expected.count, expected.count),
            std::cmp::Ordering::Equal => format!("they are {} rows, as many as there should be, and not the same ones", self.count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    fn rows(cells: &[(&str, Option<i64>)], turned: bool) -> Rows {
        let texts: ArrayRef = Arc::new(cells.iter().map(|(text, _)| Some(*text)).collect::<StringArray>());
        let numbers: ArrayRef = Arc::new(cells.iter().map(|(_, number)| *number).collect::<Int64Array>());
        let mut columns = vec![("text", texts, true), ("number", numbers, true)];
        if turned {
            columns.reverse();
        }
        let mut rows = Rows::default();
        rows.add(&RecordBatch::try_from_iter_with_nullable(columns).expect("a batch"));
        rows
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let all = rows(&[("a", Some(1)), ("b", None), ("b", None)], false);
        assert_eq!(all, rows(&[("b", None), ("a", Some(1)), ("b", None)], true));
        assert_eq!(all, rows(&[("b", None)], false).and(rows(&[("a", Some(1)), ("b", None)], false)));
        let said = |other: &[(&str, Option<i64>)]| rows(other, false).difference(all).unwrap_or_default();
        assert_eq!(said(&[("a", Some(1)), ("b", None)]), "rows lost: 1 of 3");
        assert_eq!(said(&[("a", Some(1)), ("b", None), ("b", None), ("b", None)]), "rows that come twice: 1, beside all 3");
        assert_eq!(
            said(&[("a", Some(1)), ("a", Some(1)), ("b", None)]),
            "they are 3 rows, as many as there should be, and not the same ones"
        );
        assert_eq!(all.difference(all), None);
    }
}
