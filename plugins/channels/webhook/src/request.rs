//! The requests: tasks as JSON, in the envelope that Standard Webhooks recommends.

use reunion_sdk::arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_sdk::arrow::datatypes::TimestampMicrosecondType;
use reunion_sdk::{DispatchInfo, ErrorClass, PluginError, task_schema};
use serde::Serialize;

/// The tasks of one dispatch.
pub struct Tasks {
    columns: [StringArray; 8],
    due: TimestampMicrosecondArray,
}

impl Tasks {
    /// Of a batch of [`task_schema`].
    ///
    /// # Errors
    /// Invalid data where the columns are others.
    pub fn new(batch: &RecordBatch) -> Result<Self, PluginError> {
        if batch.schema() != task_schema() {
            return Err(PluginError::new(ErrorClass::InvalidData, "the tasks do not have the columns of tasks"));
        }
        let columns = std::array::from_fn(|column| batch.column(column).as_string::<i32>().clone());
        Ok(Self { columns, due: batch.column(8).as_primitive::<TimestampMicrosecondType>().clone() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// The id of a task.
    pub fn id(&self, row: usize) -> &str {
        self.columns[0].value(row)
    }

    fn task(&self, row: usize) -> Task<'_> {
        let [task_id, campaign, store, staff, name, phone, reason, message] =
            std::array::from_fn(|column| self.columns[column].is_valid(row).then(|| self.columns[column].value(row)));
        let due = self.due.is_valid(row).then(|| jiff::Timestamp::from_microsecond(self.due.value(row)).ok()).flatten();
        Task { task_id, campaign, store, staff, name, phone, reason, message, due: due.map(|due| due.to_string()) }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    /// When the request was made, RFC 3339.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    dispatch: Option<&'a DispatchInfo>,
    tasks: Vec<Task<'a>>,
}

#[derive(Serialize)]
struct Task<'a> {
    task_id: Option<&'a str>,
    campaign: Option<&'a str>,
    store: Option<&'a str>,
    staff: Option<&'a str>,
    name: Option<&'a str>,
    phone: Option<&'a str>,
    reason: Option<&'a str>,
    message: Option<&'a str>,
    due: Option<String>,
}

/// The body that hands over some tasks of a dispatch.
pub fn of_tasks(dispatch: &DispatchInfo, tasks: &Tasks, rows: impl Iterator<Item = usize>, now: jiff::Timestamp) -> Vec<u8> {
    body("tasks", Data { dispatch: Some(dispatch), tasks: rows.map(|row| tasks.task(row)).collect() }, now)
}

/// The body that only asks whether the receiver is there and knows us: it has no tasks.
pub fn of_check(now: jiff::Timestamp) -> Vec<u8> {
    body("check", Data { dispatch: None, tasks: Vec::new() }, now)
}

fn body(r#type: &'static str, data: Data<'_>, now: jiff::Timestamp) -> Vec<u8> {
    let envelope = Envelope { r#type, timestamp: format!("{now:.3}"), data };
    serde_json::to_vec(&envelope).expect("an envelope has text keys only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reunion_sdk::arrow::array::{ArrayRef, new_null_array};
    use std::sync::Arc;

    #[test]
    fn a_request_says_everything_of_its_tasks() {
        let schema = task_schema();
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "store" | "message" => new_null_array(field.data_type(), 2),
            "due" => Arc::new(TimestampMicrosecondArray::from(vec![Some(1_774_454_399_000_000), None]).with_timezone("UTC")) as ArrayRef,
            name => Arc::new(StringArray::from(vec![format!("{name} 1"), format!("{name} 2")])) as ArrayRef,
        });
        let tasks = Tasks::new(&RecordBatch::try_new(schema.clone(), columns.collect()).expect("tasks")).expect("tasks");
        let dispatch = DispatchInfo { dispatch_id: "d1".into(), run: "ab12".into(), ordinal: 1, date: "2026-03-25".into() };
        let body = of_tasks(&dispatch, &tasks, 0..1, jiff::Timestamp::UNIX_EPOCH);
        let expected = r#"{"type":"tasks","timestamp":"1970-01-01T00:00:00.000Z","data":{"dispatch_id":"d1","run":"ab12","ordinal":1,"date":"2026-03-25","tasks":[{"task_id":"task_id 1","campaign":"campaign 1","store":null,"staff":"staff 1","name":"name 1","phone":"phone 1","reason":"reason 1","message":null,"due":"2026-03-25T15:59:59Z"}]}}"#;
        assert_eq!(String::from_utf8_lossy(&body), expected);
        assert_eq!((tasks.len(), tasks.id(1)), (2, "task_id 2"));
    }

    #[test]
    fn a_check_has_no_tasks() {
        let body = String::from_utf8(of_check(jiff::Timestamp::UNIX_EPOCH)).expect("text");
        assert_eq!(body, r#"{"type":"check","timestamp":"1970-01-01T00:00:00.000Z","data":{"tasks":[]}}"#);
    }
}
