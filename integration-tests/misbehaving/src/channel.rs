//! The channel: accepts every task, unless it is told otherwise. Nobody is reached; a task counts as sent when its
//! line is in the counter's file.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use reunion_sdk::{
    ABI_VERSION, Call, Capabilities, Channel, ChannelTraits, DispatchInfo, EventsBuilder, Finding, HttpAnswer, HttpRequest, Item, Items,
    Manifest, Outcome, PluginError, PluginKind, Reach, Receipts, ReceiptsBuilder,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::beside::{self, Early};
use crate::raw::Which;
use crate::told::{Keys, Stage, Told, Watch};

/// The `with` table.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    consent: Option<String>,
    #[serde(default = "reach")]
    reach: Reach,
    #[serde(default)]
    dispatch_tasks_max: usize,
    #[serde(default = "batch_rows")]
    batch_rows: usize,
    #[serde(default)]
    batch_wait_ms: u64,
    #[serde(flatten)]
    keys: Keys,
}

fn reach() -> Reach {
    Reach::Files
}

fn batch_rows() -> usize {
    100
}

/// The component.
#[derive(Debug)]
pub struct MisbehavingChannel {
    config: Config,
    told: Arc<Told>,
}

impl Channel for MisbehavingChannel {
    type Config = Config;

    fn manifest() -> Manifest {
        beside::reach(Early::Manifest);
        let own = json!({
            "idempotent": {"type": "boolean", "default": false, "description": "says that pushing a task again does not reach the member again"},
            "consent": {"enum": ["sms", "call", "message"], "description": "the consent that it needs"},
            "reach": {"enum": ["files", "loopback", "network"], "default": "files", "description": "how far it says that it reaches"},
            "dispatch_tasks_max": {"type": "integer", "minimum": 0, "default": 0, "description": "tasks of one dispatch; 0: any number"},
            "batch_rows": {"type": "integer", "minimum": 1, "maximum": 8192, "default": 100, "description": "receipts of one batch"},
            "batch_wait_ms": {"type": "integer", "minimum": 0, "default": 0, "description": "how long the tasks of each batch take"}
        });
        Manifest {
            name: "misbehaving".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Channel,
            summary: "Accepts every task, and misbehaves on command.".into(),
            config_schema: Keys::schema(PluginKind::Channel, &[], own),
            sample: "idempotent = true\ndo = \"sigsegv\"\nat = \"receipt\"\nafter_rows = 500\n".into(),
            // Asked, so that it can misbehave there; it never has anything to say.
            capabilities: Capabilities { polls: true, callback: true, ..Capabilities::default() },
            // A bad plugin is not to be confined by its own word.
            needs: None,
        }
    }

    fn create(_: &str, config: Config) -> Result<Self, PluginError> {
        let told = config.keys.clone().told(PluginKind::Channel)?;
        told.reach(Stage::Create, None)?;
        Ok(Self { config, told })
    }

    fn traits(&self) -> ChannelTraits {
        self.told.reach_quietly(Stage::Describe, None);
        let Config { idempotent, consent, reach, dispatch_tasks_max, .. } = self.config.clone();
        ChannelTraits { idempotent, consent, reach, dispatch_tasks_max, ..ChannelTraits::default() }
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        self.told.called(Stage::Check, call)?;
        call.check()?;
        Ok(Vec::new())
    }

    fn push(&self, call: &Call, _: &DispatchInfo, tasks: RecordBatch) -> Result<Receipts, PluginError> {
        self.told.called(Stage::Push, call)?;
        let ids = tasks.column(0).as_string::<i32>().clone();
        Ok(Box::new(Sending { config: self.config.clone(), watch: Watch::new(&self.told, call), ids, sent: 0, has_ended: false }))
    }

    fn poll(&self, call: &Call, _: Option<Value>) -> Result<Items, PluginError> {
        self.told.called(Stage::Poll, call)?;
        Ok(Box::new(std::iter::once(Ok(Item::End { as_of_us: None }))))
    }

    fn callback(&self, call: &Call, request: &HttpRequest) -> Result<HttpAnswer, PluginError> {
        if request.method != "POST" {
            return Ok(HttpAnswer::status(405).header("allow", "POST"));
        }
        let body = String::from_utf8_lossy(&request.body);
        let ids: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("task ")).collect();
        if ids.is_empty() {
            return Ok(HttpAnswer::status(400));
        }
        self.told.called(Stage::Callback, call)?;
        let mut events = EventsBuilder::new();
        ids.iter().for_each(|id| events.push(&format!("added {id}"), id, Outcome::Added, None, None));
        Ok(HttpAnswer::status(200).body("text/plain", format!("{} events", events.len())).events(events.finish()))
    }
}

impl Drop for MisbehavingChannel {
    fn drop(&mut self) {
        self.told.reach_quietly(Stage::Destroy, None);
    }
}

/// One push.
struct Sending {
    config: Config,
    watch: Watch,
    ids: StringArray,
    sent: usize,
    has_ended: bool,
}

impl Sending {
    /// Sends the next tasks, and has their receipts.
    fn batch(&mut self) -> Result<RecordBatch, PluginError> {
        self.watch.call().wait(Duration::from_millis(self.config.batch_wait_ms))?;
        let before = self.sent;
        let end = self.ids.len().min(before + self.config.batch_rows.max(1));
        let ids: Vec<_> = self.watch.told().cut(before..end).map(|row| self.ids.value(row)).collect();
        if !self.watch.call().dry_run() {
            let lines: String = ids.iter().map(|id| format!("task {id}\n")).collect();
            self.watch.told().counter.append(&lines)?;
        }
        let mut receipts = ReceiptsBuilder::new();
        ids.iter().for_each(|id| receipts.accepted(id));
        self.sent += ids.len();
        self.watch.item(Stage::Receipt, Which::Batch, before)?;
        Ok(receipts.finish())
    }
}

impl Iterator for Sending {
    type Item = Result<RecordBatch, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        if self.sent < self.ids.len() {
            let batch = self.batch();
            self.has_ended = batch.is_err();
            return Some(batch);
        }
        self.has_ended = true;
        self.watch.item(Stage::End, Which::End, self.sent).err().map(Err)
    }
}
