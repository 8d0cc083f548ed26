//! The batches whose columns the contract fixes: checked, and read.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt64Type};

use reunion_model::plugin::rejected_schema;
use reunion_model::task::{Outcome, Verdict, event_schema, receipt_schema};
use reunion_model::{Reason, TaskId};

use crate::text;
use crate::{Event, Receipt};

/// The batch with exactly this schema. Names and types must be right; whether a column was declared
/// nullable does not matter as long as nothing is null that may not be.
fn conform(batch: &RecordBatch, schema: SchemaRef, what: &str) -> Result<RecordBatch, String> {
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>();
    let (given, wanted) = (names(&batch.schema()), names(&schema));
    if given != wanted {
        return Err(format!("{what} have the columns [{}], and should have [{}]", given.join(", "), wanted.join(", ")));
    }
    RecordBatch::try_new(schema, batch.columns().to_vec()).map_err(|error| format!("{what}: {error}"))
}

fn text_column<'a>(batch: &'a RecordBatch, name: &str) -> &'a StringArray {
    batch.column_by_name(name).expect("a column of the schema").as_string()
}

fn optional(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn task(column: &StringArray, row: usize, what: &str) -> Result<TaskId, String> {
    column.value(row).parse().map_err(|_| format!("{what} has a task_id in row {row} that is no task's: 32 hex digits are"))
}

/// Rejected rows of [`rejected_schema`], every reason of which is known.
pub(crate) fn rejected(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let batch = conform(batch, rejected_schema(), "rejected rows")?;
    if let Some(unknown) = text_column(&batch, "reason").iter().flatten().find(|code| Reason::from_code(code).is_none()) {
        return Err(format!("rejected rows have the reason {:?}, which is none", text::tidy(unknown)));
    }
    let detail = text_column(&batch, "detail");
    let tidy: StringArray = detail.iter().map(|detail| detail.map(text::tidy)).collect();
    let mut columns = batch.columns().to_vec();
    columns[2] = Arc::new(tidy);
    RecordBatch::try_new(batch.schema(), columns).map_err(|error| error.to_string())
}

/// The receipts in a batch.
pub(crate) fn receipts(batch: &RecordBatch) -> Result<Vec<Receipt>, String> {
    let batch = conform(batch, receipt_schema(), "receipts")?;
    let [ids, verdicts, codes, messages] = ["task_id", "verdict", "code", "message"].map(|name| text_column(&batch, name));
    let delays = batch.column(2).as_primitive::<UInt64Type>();
    let row = |row: usize| {
        let word = verdicts.value(row);
        let verdict = Verdict::from_name(word).filter(|verdict| *verdict != Verdict::Delivered);
        let verdict = verdict.ok_or_else(|| format!("a receipt has the verdict {:?}, which none can have", text::tidy(word)))?;
        let delay = delays.is_valid(row).then(|| delays.value(row));
        if verdict.is_put_off() && delay.is_none() {
            return Err(format!("a receipt says {} without retry_after_ms", verdict.name()));
        }
        Ok(Receipt {
            task: task(ids, row, "a receipt")?,
            verdict,
            retry_after_ms: delay.filter(|_| verdict.is_put_off()),
            code: optional(codes, row).map(|code| text::tidy(&code)),
            message: optional(messages, row).map(|message| text::tidy(&message)),
        })
    };
    (0..batch.num_rows()).map(row).collect()
}

/// The events in a batch.
pub(crate) fn events(batch: &RecordBatch) -> Result<Vec<Event>, String> {
    let batch = conform(batch, event_schema(), "events")?;
    let [event_ids, ids, outcomes, notes] = ["event_id", "task_id", "outcome", "note"].map(|name| text_column(&batch, name));
    let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
    let row = |row: usize| {
        let word = outcomes.value(row);
        let outcome = Outcome::from_name(word);
        Ok(Event {
            event_id: event_ids.value(row).to_owned(),
            task: task(ids, row, "an event")?,
            outcome: outcome.ok_or_else(|| format!("an event has the outcome {:?}, which is none", text::tidy(word)))?,
            at_us: times.is_valid(row).then(|| times.value(row)),
            note: optional(notes, row),
        })
    };
    (0..batch.num_rows()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, UInt64Array};

    fn batch(verdict: &str, delay: Option<u64>, task: Option<&str>) -> RecordBatch {
        let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        RecordBatch::try_from_iter_with_nullable([
            ("task_id", text(task), true),
            ("verdict", text(Some(verdict)), true),
            ("retry_after_ms", Arc::new(UInt64Array::from(vec![delay])) as ArrayRef, true),
            ("code", text(Some("40003")), true),
            ("message", text(Some("no clerk for 13800138000")), true),
        ])
        .expect("a batch")
    }

    #[test]
    fn receipts_are_read_without_phones() {
        let id = TaskId([7; 16]);
        let receipts = receipts(&batch("not_sent", Some(5), Some(&id.to_string()))).expect("right");
        let message = Some("no clerk for 138****8000".to_owned());
        assert_eq!(
            receipts,
            [Receipt { task: id, verdict: Verdict::NotSent, retry_after_ms: Some(5), code: Some("40003".into()), message }]
        );
    }

    #[test]
    fn what_no_receipt_can_say_is_refused() {
        let id = TaskId([7; 16]).to_string();
        let all = [
            receipts(&batch("delivered", None, Some(&id))),
            receipts(&batch("not_sent", None, Some(&id))),
            receipts(&batch("accepted", None, Some("17"))),
            receipts(&batch("accepted", None, None)),
            receipts(&batch("accepted", None, Some(&id)).project(&[0, 1]).expect("columns")),
        ];
        let rules: Vec<_> = all.into_iter().map(|rule| rule.expect_err("refused")).collect();
        insta::assert_snapshot!(rules.join("\n"), @r#"
        a receipt has the verdict "delivered", which none can have
        a receipt says not_sent without retry_after_ms
        a receipt has a task_id in row 0 that is no task's: 32 hex digits are
        receipts: Invalid argument error: Column 'task_id' is declared as non-nullable but contains null values
        receipts have the columns [task_id Utf8, verdict Utf8], and should have [task_id Utf8, verdict Utf8, retry_after_ms UInt64, code Utf8, message Utf8]
        "#);
    }
}
