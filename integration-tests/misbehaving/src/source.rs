//! The source: made-up members, unless it is told otherwise.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use reunion_sdk::{ABI_VERSION, Call, Capabilities, Finding, Item, Items, Manifest, PluginError, PluginKind, ReadRequest, Source};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::beside::{self, Early};
use crate::raw::Which;
use crate::told::{Keys, Stage, Told, Watch};

/// 2026-01-01T00:00:00Z.
const NEW_YEAR_US: i64 = 1_767_225_600_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// Rows whose last orders are an hour apart, each the later by its number; beyond them it begins anew.
const HOURS: usize = 8_760;
const STORES: usize = 20;

/// The `with` table.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    rows: usize,
    #[serde(default = "batch_rows")]
    batch_rows: usize,
    #[serde(default)]
    batches_per_state: usize,
    #[serde(default)]
    batch_wait_ms: u64,
    #[serde(flatten)]
    keys: Keys,
}

fn batch_rows() -> usize {
    1_000
}

/// The component.
#[derive(Debug)]
pub struct MisbehavingSource {
    config: Config,
    told: Arc<Told>,
}

/// The phone of the member in a row: obviously invented, and no other row's below a million. Those before the first
/// one are mostly zeroes, which nobody takes for a number.
pub fn phone(row: usize) -> String {
    format!("1390{:07}", (10_000 + row) % 10_000_000)
}

fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("record_id", DataType::Utf8, false),
        Field::new("phone", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("store", DataType::Utf8, true),
        Field::new("order_count", DataType::Int64, true),
        Field::new("total_spent", DataType::Decimal128(18, 2), true),
        Field::new("last_order_at", timestamp.clone(), true),
        Field::new("updated_at", timestamp, true),
    ]))
}

fn batch(rows: Range<usize>) -> RecordBatch {
    let number = |row: usize| row as i64;
    let texts = |text: fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.clone().map(text))) };
    let times = |time: &dyn Fn(usize) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.clone().map(time)).with_timezone("UTC"))
    };
    let spent = Decimal128Array::from_iter_values(rows.clone().map(|row| number(row % 50_000).into()));
    let columns = vec![
        texts(|row| format!("r{row}")),
        texts(phone),
        texts(|row| format!("会员{row}")),
        texts(|row| format!("S{:02}", row % STORES + 1)),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| number(row % 10)))),
        Arc::new(spent.with_precision_and_scale(18, 2).expect("the column's type")),
        times(&|row| NEW_YEAR_US - number(HOURS - row % HOURS) * HOUR_US),
        times(&|row| NEW_YEAR_US - number(HOURS - row % HOURS) * HOUR_US),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of the schema")
}

impl Source for MisbehavingSource {
    type Config = Config;

    fn manifest() -> Manifest {
        beside::reach(Early::Manifest);
        let own = json!({
            "rows": {"type": "integer", "minimum": 0, "description": "rows of a read"},
            "batch_rows": {"type": "integer", "minimum": 1, "maximum": 8192, "default": 1000, "description": "rows of one batch"},
            "batches_per_state": {"type": "integer", "minimum": 0, "default": 0, "description": "batches before each resume state; 0: none"},
            "batch_wait_ms": {"type": "integer", "minimum": 0, "default": 0, "description": "how long each batch takes"}
        });
        Manifest {
            name: "misbehaving".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Makes rows up, and misbehaves on command.".into(),
            config_schema: Keys::schema(PluginKind::Source, &["rows"], own),
            sample: "rows = 1000\ndo = \"sigsegv\"\nat = \"item\"\nafter_rows = 500\n".into(),
            capabilities: Capabilities {
                modes: vec!["snapshot".into(), "incremental".into()],
                columns: schema().fields().iter().map(|field| field.name().clone()).collect(),
                has_record_id: true,
                ..Capabilities::default()
            },
            // A bad plugin is not to be confined by its own word.
            needs: None,
        }
    }

    fn create(_: &str, config: Config) -> Result<Self, PluginError> {
        let told = config.keys.clone().told(PluginKind::Source)?;
        told.reach(Stage::Create, None)?;
        Ok(Self { config, told })
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        self.told.called(Stage::Check, call)?;
        call.check()?;
        Ok(Vec::new())
    }

    fn schema(&self, call: &Call) -> Result<SchemaRef, PluginError> {
        self.told.called(Stage::Schema, call)?;
        Ok(schema())
    }

    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        self.told.called(Stage::Read, call)?;
        let from = state.filter(|_| request.resume).and_then(|state| usize::try_from(state.get("row")?.as_u64()?).ok());
        // Where there are fewer rows now, the state is of other data.
        let from = from.filter(|row| *row <= self.config.rows);
        Ok(Box::new(Rows {
            config: self.config.clone(),
            watch: Watch::new(&self.told, call),
            row: from.unwrap_or(0),
            batches: 0,
            next: Some(Next::Begin { resumed: from.is_some() }),
        }))
    }
}

impl Drop for MisbehavingSource {
    fn drop(&mut self) {
        self.told.reach_quietly(Stage::Destroy, None);
    }
}

/// What comes next.
enum Next {
    Begin { resumed: bool },
    Rows,
    State,
    End,
}

/// One read.
struct Rows {
    config: Config,
    watch: Watch,
    row: usize,
    batches: usize,
    /// Nothing after the end, or an error.
    next: Option<Next>,
}

impl Rows {
    fn item(&mut self, next: Next) -> Result<Item, PluginError> {
        let (at, which) = match next {
            Next::Begin { .. } => (Stage::Item, Which::Begin),
            Next::Rows => (Stage::Item, Which::Batch),
            Next::State => (Stage::Item, Which::AfterBegin),
            Next::End => (Stage::End, Which::End),
        };
        self.watch.item(at, which, self.row)?;
        match next {
            Next::Begin { resumed } => {
                self.next = Some(self.after_rows());
                Ok(Item::Begin { resumed })
            }
            Next::Rows => self.rows(),
            Next::State => {
                self.next = Some(self.after_rows());
                Ok(Item::State(json!({"row": self.row})))
            }
            Next::End => Ok(Item::End { as_of_us: Some(NEW_YEAR_US) }),
        }
    }

    fn rows(&mut self) -> Result<Item, PluginError> {
        self.watch.call().wait(Duration::from_millis(self.config.batch_wait_ms))?;
        let end = self.config.rows.min(self.row + self.config.batch_rows.max(1));
        let rows = self.watch.told().cut(self.row..end);
        self.row = rows.end;
        self.batches += 1;
        let is_state = self.config.batches_per_state > 0 && self.batches.is_multiple_of(self.config.batches_per_state);
        self.next = Some(if is_state { Next::State } else { self.after_rows() });
        Ok(Item::Batch(batch(rows)))
    }

    fn after_rows(&self) -> Next {
        if self.row < self.config.rows { Next::Rows } else { Next::End }
    }
}

impl Iterator for Rows {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next.take()?;
        Some(self.item(next))
    }
}
