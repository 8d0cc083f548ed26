//! Builders of the batches whose columns the contract fixes.

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use reunion_model::Reason;
use reunion_model::plugin::rejected_schema;
use reunion_model::task::{Outcome, Verdict, event_schema, receipt_schema};

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema, columns).expect("the builder appends to every column of its schema")
}

/// Builds receipts, one for each task.
#[derive(Debug, Default)]
pub struct ReceiptsBuilder {
    task_id: StringBuilder,
    verdict: StringBuilder,
    retry_after_ms: UInt64Builder,
    code: StringBuilder,
    message: StringBuilder,
}

impl ReceiptsBuilder {
    /// No receipts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The channel took the task.
    pub fn accepted(&mut self, task_id: &str) {
        self.push(task_id, Verdict::Accepted, None, None, None);
    }

    /// It refuses the task for good. `code` is the vendor's; `message` is one line without personal data.
    pub fn rejected(&mut self, task_id: &str, code: Option<&str>, message: &str) {
        self.push(task_id, Verdict::Rejected, None, code, Some(message));
    }

    /// It did not take the task, which may be given again after this delay.
    pub fn not_sent(&mut self, task_id: &str, retry_after_ms: u64, code: Option<&str>, message: &str) {
        self.push(task_id, Verdict::NotSent, Some(retry_after_ms), code, Some(message));
    }

    /// It takes nothing now: it is at its limit, or down. The task may be given again after this delay, and the
    /// try does not count.
    pub fn busy(&mut self, task_id: &str, retry_after_ms: u64, code: Option<&str>, message: &str) {
        self.push(task_id, Verdict::Busy, Some(retry_after_ms), code, Some(message));
    }

    /// It may have taken the task.
    pub fn unknown(&mut self, task_id: &str, code: Option<&str>, message: &str) {
        self.push(task_id, Verdict::Unknown, None, code, Some(message));
    }

    fn push(&mut self, task_id: &str, verdict: Verdict, retry_after_ms: Option<u64>, code: Option<&str>, message: Option<&str>) {
        self.task_id.append_value(task_id);
        self.verdict.append_value(verdict.name());
        self.retry_after_ms.append_option(retry_after_ms);
        self.code.append_option(code);
        self.message.append_option(message);
    }

    /// The receipts so far, of [`receipt_schema`]; the builder is empty afterwards.
    pub fn finish(&mut self) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.task_id.finish()),
            Arc::new(self.verdict.finish()),
            Arc::new(self.retry_after_ms.finish()),
            Arc::new(self.code.finish()),
            Arc::new(self.message.finish()),
        ];
        batch(receipt_schema(), columns)
    }
}

/// Builds events: what became of tasks after they were accepted.
#[derive(Debug, Default)]
pub struct EventsBuilder {
    event_id: StringBuilder,
    task_id: StringBuilder,
    outcome: StringBuilder,
    at: TimestampMicrosecondBuilder,
    note: StringBuilder,
    rows: usize,
}

impl EventsBuilder {
    /// No events yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One event. `event_id` is the same whenever the same event is reported; `at_us` is when it
    /// happened, in microseconds UTC; `note` is the clerk's own text.
    pub fn push(&mut self, event_id: &str, task_id: &str, outcome: Outcome, at_us: Option<i64>, note: Option<&str>) {
        self.event_id.append_value(event_id);
        self.task_id.append_value(task_id);
        self.outcome.append_value(outcome.name());
        self.at.append_option(at_us);
        self.note.append_option(note);
        self.rows += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The events so far, of [`event_schema`]; the builder is empty afterwards.
    pub fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.task_id.finish()),
            Arc::new(self.outcome.finish()),
            Arc::new(self.at.finish().with_timezone("UTC")),
            Arc::new(self.note.finish()),
        ];
        batch(event_schema(), columns)
    }
}

/// Builds rejected rows: those that could not be read.
#[derive(Debug, Default)]
pub struct RejectedBuilder {
    location: StringBuilder,
    reason: StringBuilder,
    detail: StringBuilder,
    rows: usize,
}

impl RejectedBuilder {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One row, found at `location` (`pos.csv:17`); `detail` is one line without personal data.
    pub fn push(&mut self, location: &str, reason: Reason, detail: Option<&str>) {
        self.location.append_value(location);
        self.reason.append_value(reason.code());
        self.detail.append_option(detail);
        self.rows += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows so far, of [`rejected_schema`]; the builder is empty afterwards.
    pub fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![Arc::new(self.location.finish()), Arc::new(self.reason.finish()), Arc::new(self.detail.finish())];
        batch(rejected_schema(), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    #[test]
    fn receipts_have_the_columns_of_the_contract() {
        let mut receipts = ReceiptsBuilder::new();
        receipts.accepted("a");
        receipts.rejected("b", Some("40003"), "no such clerk");
        receipts.not_sent("c", 500, None, "busy");
        receipts.unknown("d", None, "the line broke");
        receipts.busy("e", 60_000, Some("429"), "at its limit");
        let batch = receipts.finish();
        assert_eq!(batch.schema(), receipt_schema());
        let verdicts: Vec<_> = batch.column(1).as_string::<i32>().iter().flatten().collect();
        assert_eq!(verdicts, ["accepted", "rejected", "not_sent", "unknown", "busy"]);
        assert_eq!(receipts.finish().num_rows(), 0);
    }

    #[test]
    fn events_and_rejected_rows_are_counted() {
        let mut events = EventsBuilder::new();
        assert!(events.is_empty());
        events.push("e1", "a", Outcome::Added, Some(1), None);
        assert_eq!((events.len(), events.finish().num_rows(), events.len()), (1, 1, 0));
        let mut rejected = RejectedBuilder::new();
        rejected.push("pos.csv:17", Reason::ALL[0], Some("what was seen"));
        assert_eq!((rejected.len(), rejected.is_empty(), rejected.finish().num_rows()), (1, false, 1));
    }
}
