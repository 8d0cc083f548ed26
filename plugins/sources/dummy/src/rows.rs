//! The rows, and the stream of them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::json;

use reunion_sdk::{Call, Item, PluginError, Reason, RejectedBuilder};

use crate::config::{Config, Failure, Stage};

/// 2026-01-01T00:00:00Z.
const NEW_YEAR_US: i64 = 1_767_225_600_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// Longer than any test waits; a cancel ends it.
const LONG: Duration = Duration::from_secs(600);

/// The columns: each type that sources mostly have, two of them with nulls.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record_id", DataType::Utf8, false),
        Field::new("phone", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("order_count", DataType::Int64, false),
        Field::new("total_spent", DataType::Decimal128(18, 2), false),
        Field::new("last_order_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

fn batch(rows: std::ops::Range<usize>) -> RecordBatch {
    let count = |row: usize| row as i64;
    let phones = rows.clone().map(|row| (row % 7 != 0).then(|| format!("139{:08}", row % 100_000_000)));
    let spent = Decimal128Array::from_iter_values(rows.clone().map(|row| count(row % 50_000).into()));
    let at = rows.clone().map(|row| (row % 5 != 0).then(|| NEW_YEAR_US + count(row) * HOUR_US));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("r{row}")))),
        Arc::new(phones.collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("会员{row}")))),
        Arc::new(Int64Array::from_iter_values(rows.map(|row| count(row % 10)))),
        Arc::new(spent.with_precision_and_scale(18, 2).expect("the columns' type")),
        Arc::new(at.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of the schema")
}

/// What comes next.
enum Next {
    Begin,
    Rows,
    State,
    Rejected,
    End,
    Nothing,
}

/// One read.
pub struct Rows {
    config: Config,
    call: Call,
    row: usize,
    resumed: bool,
    batches: usize,
    next: Next,
}

impl Rows {
    /// A read from this row on, or from the first.
    pub fn new(config: Config, call: Call, from: Option<usize>) -> Self {
        Self { config, call, row: from.unwrap_or(0), resumed: from.is_some(), batches: 0, next: Next::Begin }
    }

    fn rows(&mut self) -> Result<Item, PluginError> {
        if self.config.wait_at_row.is_some_and(|row| row <= self.row) {
            self.call.wait(LONG)?;
        }
        let end = self.config.rows.min(self.row + self.config.batch_rows.max(1));
        let batch = batch(self.row..end);
        self.row = end;
        self.batches += 1;
        let state = self.config.batches_per_state > 0 && self.batches.is_multiple_of(self.config.batches_per_state);
        self.next = if state { Next::State } else { self.after_rows() };
        Ok(Item::Batch(batch))
    }

    fn after_rows(&self) -> Next {
        match self.config.rejected {
            _ if self.row < self.config.rows => Next::Rows,
            0 => Next::End,
            _ => Next::Rejected,
        }
    }

    fn rejected(&self) -> Item {
        let mut rows = RejectedBuilder::new();
        for row in 0..self.config.rejected {
            rows.push(&format!("dummy:{row}"), Reason::ALL[row % Reason::ALL.len()], (row % 2 == 0).then_some("made up"));
        }
        Item::Rejected(rows.finish())
    }
}

impl Iterator for Rows {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Begin => {
                tracing::info!(resumed = self.resumed, "reading");
                self.next = self.after_rows();
                Ok(Item::Begin { resumed: self.resumed })
            }
            Next::Rows => self.rows(),
            Next::State => {
                self.next = self.after_rows();
                Ok(Item::State(json!({"row": self.row})))
            }
            Next::Rejected => {
                self.next = Next::End;
                Ok(self.rejected())
            }
            Next::End if self.config.fail_in == Some(Stage::Stream) && self.config.fail_with == Failure::Silence => return None,
            Next::End => self.config.reach(Stage::Stream).map(|()| Item::End { as_of_us: Some(NEW_YEAR_US) }),
            Next::Nothing => return None,
        };
        Some(item)
    }
}
