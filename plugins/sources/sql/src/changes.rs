//! The ids of members that may have changed, as several queries give them.

use std::collections::BTreeSet;
use std::ops::Bound;

use reunion_sdk::arrow::array::Array;
use reunion_sdk::limits::BATCH_ROWS_MAX;

use crate::value::Value;

/// Beyond so many the query is read whole: one statement for all rows costs a server less than one for each
/// few thousand of them.
pub const IDS_MAX: usize = 100_000;
const IDS_BYTES_MAX: usize = 16 << 20;
/// Of one statement, so that its rows are about a batch.
const CHUNK_IDS: usize = BATCH_ROWS_MAX;
/// Of one statement's ids. SQLite takes a million bytes by default, and text takes two digits a byte for MySQL.
const CHUNK_BYTES: usize = 256 << 10;

/// Which members may have changed.
#[derive(Debug)]
pub enum Changes {
    /// Anybody.
    Everything,
    /// Those of these ids.
    Ids {
        /// Each once.
        ids: BTreeSet<Value>,
        /// Of their texts.
        bytes: usize,
    },
}

impl Changes {
    /// Nobody yet.
    pub fn none() -> Self {
        Self::Ids { ids: BTreeSet::new(), bytes: 0 }
    }

    /// Adds the ids of this column; beyond what there is room for it is everything.
    pub fn add(&mut self, column: &dyn Array) {
        for id in (0..column.len()).filter_map(|row| Value::at(column, row)) {
            let Self::Ids { ids, bytes } = self else { return };
            let id_bytes = id.text_bytes();
            if ids.insert(id) {
                *bytes += id_bytes;
            }
            if ids.len() > IDS_MAX || *bytes > IDS_BYTES_MAX {
                *self = Self::Everything;
            }
        }
    }

    /// The next ids behind this one, as many as one statement takes; none where everything is read.
    pub fn behind(&self, last: Option<&Value>) -> Vec<Value> {
        let Self::Ids { ids, .. } = self else { return Vec::new() };
        let mut bytes = 0;
        ids.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .take(CHUNK_IDS)
            .take_while(|id| {
                let has_room = bytes < CHUNK_BYTES;
                bytes += id.text_bytes();
                has_room
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use reunion_sdk::arrow::array::{Int64Array, StringArray};

    use super::*;

    fn chunks(changes: &Changes) -> Vec<Vec<Value>> {
        let mut chunks: Vec<Vec<Value>> = Vec::new();
        loop {
            let next = changes.behind(chunks.last().and_then(|chunk| chunk.last()));
            if next.is_empty() {
                return chunks;
            }
            chunks.push(next);
        }
    }

    #[test]
    fn ids_are_united_and_cut_into_statements() {
        let mut changes = Changes::none();
        assert!(chunks(&changes).is_empty());
        changes.add(&Int64Array::from(vec![Some(3), None, Some(1), Some(3)]));
        changes.add(&Int64Array::from_iter_values(2..20_000));
        let sizes: Vec<_> = chunks(&changes).iter().map(Vec::len).collect();
        assert_eq!(sizes, [8192, 8192, 19_999 - 2 * 8192]);
        let all: Vec<_> = chunks(&changes).into_iter().flatten().collect();
        assert_eq!(all, (1..20_000).map(Value::Integer).collect::<Vec<_>>());
        let mut long = Changes::none();
        long.add(&StringArray::from_iter_values((0..10).map(|at| format!("{at}{}", "x".repeat(100 << 10)))));
        assert_eq!(chunks(&long).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    }

    #[test]
    fn too_many_ids_are_everything() {
        let mut changes = Changes::none();
        changes.add(&Int64Array::from_iter_values(0..IDS_MAX as i64));
        changes.add(&Int64Array::from_iter_values(0..IDS_MAX as i64));
        assert!(matches!(&changes, Changes::Ids { ids, .. } if ids.len() == IDS_MAX));
        changes.add(&Int64Array::from(vec![-1]));
        assert!(matches!(changes, Changes::Everything));
        assert!(changes.behind(None).is_empty());
        let mut long = Changes::none();
        long.add(&StringArray::from_iter_values((0..20).map(|at| format!("{at:02}{}", "x".repeat(1 << 20)))));
        assert!(matches!(long, Changes::Everything));
    }
}
