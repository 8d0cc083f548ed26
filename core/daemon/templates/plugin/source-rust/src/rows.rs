//! The rows, and the stream of them: `batch` is the place for your own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use reunion_sdk::arrow::array::{ArrayRef, RecordBatch, StringArray};
use reunion_sdk::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use reunion_sdk::{Call, Item, PluginError};
use serde_json::{Value, json};

use crate::config::Config;

/// The columns. Names that the rest of Reunion knows need no mapping in a config.
pub fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![text("record_id"), text("phone"), text("name")]))
}

/// Row 17 is the same in every read.
fn batch(rows: Range<u64>) -> RecordBatch {
    let column = |cell: fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.clone().map(cell)))
    };
    let columns = vec![
        column(|row| format!("M{row}")),
        column(|row| format!("1390000{:04}", row % 10_000)),
        column(|row| format!("Member {row}")),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of the schema")
}

/// One read: the items of the stream, in their order.
pub struct Rows {
    call: Call,
    rows: u64,
    batch_rows: u64,
    /// The row that comes next.
    row: u64,
    /// What is handed out before more is read.
    queue: VecDeque<Item>,
    is_over: bool,
}

impl Rows {
    /// Begins, or goes on where a read was cut off. In doubt it begins anew.
    pub fn begin(call: Call, config: &Config, state: Option<Value>) -> Self {
        let row = state.and_then(|state| state.get("row")?.as_u64());
        let row = row.filter(|row| *row <= config.rows);
        Self {
            call,
            rows: config.rows,
            batch_rows: config.batch_rows.max(1),
            row: row.unwrap_or(0),
            queue: VecDeque::from([Item::Begin { resumed: row.is_some() }]),
            is_over: false,
        }
    }

    /// Puts a batch and the state that covers it into the queue, or the end. A row that cannot be
    /// read goes into a `RejectedBuilder`, and is handed out as `Item::Rejected`.
    fn advance(&mut self) -> Result<(), PluginError> {
        // At least every 250 ms of work.
        self.call.check()?;
        if self.row == self.rows {
            // Only where everything was seen: a row that a snapshot lacks counts as deleted.
            self.queue.push_back(Item::End { as_of_us: None });
            self.is_over = true;
            return Ok(());
        }
        let end = self.rows.min(self.row + self.batch_rows);
        self.queue.push_back(Item::Batch(batch(self.row..end)));
        self.queue.push_back(Item::State(json!({ "row": end })));
        self.row = end;
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.queue.is_empty()
            && !self.is_over
            && let Err(error) = self.advance()
        {
            self.is_over = true;
            return Some(Err(error));
        }
        self.queue.pop_front().map(Ok)
    }
}
