//! The batches whose columns the contract fixes: checked, and read.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt64Type};

use reunion_model::limits::{
    BATCH_ROWS_MAX, CALLBACK_BODY_BYTES_MAX, CALLBACK_EVENTS_BYTES_MAX, CALLBACK_HEAD_BYTES_MAX, CALLBACK_HEADERS_MAX,
};
use reunion_model::plugin::rejected_schema;
use reunion_model::task::{Outcome, Verdict, event_schema, receipt_schema};
use reunion_model::{Reason, TaskId};

use crate::text;
use crate::{Callback, Event, Receipt};

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

/// Headers that say how an answer travels: those are the host's.
const HEADERS_OF_THE_HOST: [&str; 8] =
    ["connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// An answer to a request as the plugin gave it, or as it came from a worker.
#[derive(Default)]
pub(crate) struct RawAnswer {
    pub(crate) status: i32,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) events: Option<RecordBatch>,
}

/// The answer to a request.
pub(crate) fn callback(answer: RawAnswer) -> Result<Callback, String> {
    let RawAnswer { status, headers, body, events } = answer;
    let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    let status = status.ok_or("an answer has a status that is not within 200 to 599")?;
    if body.len() > CALLBACK_BODY_BYTES_MAX {
        return Err(format!("an answer has a body of {} bytes, and {CALLBACK_BODY_BYTES_MAX} are the limit", body.len()));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > CALLBACK_HEADERS_MAX || bytes > CALLBACK_HEAD_BYTES_MAX {
        let found = format!("{} headers of {bytes} bytes", headers.len());
        return Err(format!("an answer has {found}, and {CALLBACK_HEADERS_MAX} of {CALLBACK_HEAD_BYTES_MAX} are the limit"));
    }
    headers.iter().try_for_each(|(name, value)| header(name, value))?;
    let events = events.as_ref().map(events_of_a_callback).transpose()?.unwrap_or_default();
    Ok(Callback { status, headers, body, events })
}

/// What is wrong with a header, if anything is. The name may be shown, and the value not.
fn header(name: &str, value: &str) -> Result<(), String> {
    let shown = text::tidy(&text::cut(name));
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_of_token) {
        return Err("an answer has a header whose name is none".to_owned());
    }
    if HEADERS_OF_THE_HOST.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Err(format!("an answer has the header {shown}, which is the host's to set"));
    }
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(format!("an answer has a value of the header {shown} that is not of printable ASCII"));
    }
    Ok(())
}

fn events_of_a_callback(batch: &RecordBatch) -> Result<Vec<Event>, String> {
    let size = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX);
    let bytes = batch.columns().iter().fold(0, |sum: usize, column| sum.saturating_add(size(column)));
    if batch.num_rows() > BATCH_ROWS_MAX || bytes > CALLBACK_EVENTS_BYTES_MAX {
        let found = format!("{} events of {bytes} bytes", batch.num_rows());
        return Err(format!("an answer has {found}, and {BATCH_ROWS_MAX} of {CALLBACK_EVENTS_BYTES_MAX} are the limit"));
    }
    events(batch)
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

    fn events_of(outcome: &str, rows: usize, note: &str) -> RecordBatch {
        use arrow::array::TimestampMicrosecondArray;
        let text = |value: &str| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![None; rows]).with_timezone("UTC"));
        let id = TaskId([7; 16]).to_string();
        let columns = vec![text("e1"), text(&id), text(outcome), at, text(note)];
        RecordBatch::try_new(event_schema(), columns).expect("the columns of events")
    }

    #[test]
    fn an_answer_that_can_be_sent_is_taken_as_it_is() {
        let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        let events = Some(events_of("added", 1, "13900001201"));
        let answer = callback(RawAnswer { status: 200, headers: headers.clone(), body: b"ok".to_vec(), events }).expect("right");
        assert_eq!((answer.status, &answer.headers, answer.body.as_slice()), (200, &headers, b"ok".as_slice()));
        assert_eq!((answer.events.len(), answer.events[0].outcome), (1, Outcome::Added));
        assert_eq!(format!("{answer:?}"), "Callback { status: 200, events: 1, .. }");
    }

    #[test]
    fn what_no_answer_can_be_is_refused_without_its_values() {
        let ok = || RawAnswer { status: 200, ..RawAnswer::default() };
        let header = |name: &str, value: &str| RawAnswer { headers: vec![(name.to_owned(), value.to_owned())], ..ok() };
        let events = |outcome: &str, rows: usize, note: &str| RawAnswer { events: Some(events_of(outcome, rows, note)), ..ok() };
        let all = [
            RawAnswer { status: 101, ..ok() },
            RawAnswer { status: -1, ..ok() },
            RawAnswer { body: vec![0; CALLBACK_BODY_BYTES_MAX + 1], ..ok() },
            RawAnswer { headers: vec![("x".to_owned(), "y".to_owned()); CALLBACK_HEADERS_MAX + 1], ..ok() },
            header("x", &"y".repeat(40_000)),
            header("", "y"),
            header("x y", "13900001201"),
            header("x", "13900001201\r\nset-cookie: a"),
            header("x", "王"),
            header("Content-Length", "5"),
            events("gone", 1, ""),
            events("added", BATCH_ROWS_MAX + 1, ""),
            events("added", 50, &"n".repeat(100_000)),
        ];
        let all = all.map(callback);
        let rules: Vec<_> = all.into_iter().map(|rule| rule.expect_err("refused")).collect();
        insta::assert_snapshot!(rules.join("\n"), @r#"
        an answer has a status that is not within 200 to 599
        an answer has a status that is not within 200 to 599
        an answer has a body of 1048577 bytes, and 1048576 are the limit
        an answer has 65 headers of 130 bytes, and 64 of 32768 are the limit
        an answer has 1 headers of 40001 bytes, and 64 of 32768 are the limit
        an answer has a header whose name is none
        an answer has a header whose name is none
        an answer has a value of the header x that is not of printable ASCII
        an answer has a value of the header x that is not of printable ASCII
        an answer has the header Content-Length, which is the host's to set
        an event has the outcome "gone", which is none
        an answer has 8193 events of 517200 bytes, and 8192 of 4194304 are the limit
        an answer has 50 events of 5003173 bytes, and 8192 of 4194304 are the limit
        "#);
    }
}
