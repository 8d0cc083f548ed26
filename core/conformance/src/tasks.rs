//! Invented tasks: the same number of a dispatch gives the same tasks, in whatever process.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_model::plugin::DispatchInfo;
use reunion_model::task::task_schema;

use crate::act::Dispatch;

/// 2026-03-25T01:00:00Z.
const DUE_US: i64 = 1_774_400_400_000_000;
const DATE: &str = "2026-03-25";

impl Dispatch {
    /// What goes along with its tasks.
    pub fn info(self, run: &str) -> DispatchInfo {
        DispatchInfo { dispatch_id: format!("{run}{:024x}", self.number), run: run.to_owned(), ordinal: self.number, date: DATE.to_owned() }
    }

    /// The ids of its tasks.
    pub fn task_ids(self, run: &str) -> Vec<String> {
        (0..self.tasks).map(|task| format!("{run}{:08x}{task:016x}", self.number)).collect()
    }

    /// The phone numbers of its tasks: no member's.
    pub fn phones(self) -> Vec<String> {
        (0..self.tasks).map(|task| format!("1390000{:04}", (self.number as usize * 131 + task) % 10_000)).collect()
    }

    /// Its tasks. All columns are there, and those that dispatches are grouped by are the same in all.
    pub fn batch(self, run: &str) -> Result<RecordBatch, arrow::error::ArrowError> {
        let schema = task_schema();
        let same = |text: &str| Arc::new(StringArray::from(vec![text; self.tasks])) as ArrayRef;
        let column = |name: &str| match name {
            "task_id" => Arc::new(StringArray::from(self.task_ids(run))) as ArrayRef,
            "phone" => Arc::new(StringArray::from(self.phones())),
            "due" => Arc::new(TimestampMicrosecondArray::from(vec![DUE_US; self.tasks]).with_timezone("UTC")),
            "campaign" => same("verify"),
            "store" => same("S0001"),
            "staff" => same("A01"),
            "name" => same("试一试"),
            "reason" => same("a trial of the conformance suite"),
            _ => same("这是一条测试。"),
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect();
        RecordBatch::try_new(schema, columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reunion_model::TaskId;

    #[test]
    fn a_dispatch_is_the_same_each_time_and_no_other() {
        let [one, two] = [1, 2].map(|number| Dispatch { number, tasks: 3 });
        assert_eq!(one.batch("0a1b2c3d").ok(), one.batch("0a1b2c3d").ok());
        assert!(one.task_ids("0a1b2c3d").iter().all(|id| id.parse::<TaskId>().is_ok() && !two.task_ids("0a1b2c3d").contains(id)));
        assert_eq!(one.info("0a1b2c3d").dispatch_id.len(), 32);
        assert!(
            one.batch("0a1b2c3d").is_ok_and(|batch| batch.num_rows() == 3 && batch.columns().iter().all(|column| column.null_count() == 0))
        );
    }
}
