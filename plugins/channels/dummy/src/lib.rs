//! A channel that reaches nobody. It exists to test the plugin boundary: its config decides what each
//! task is answered with, and where the channel fails, panics, or waits to be cancelled.

mod config;

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use serde_json::{Value, json};

use reunion_sdk::{
    ABI_VERSION, Call, Capabilities, Channel, ChannelTraits, DispatchInfo, EventsBuilder, Finding, Item, Items, Manifest, Needs, Outcome,
    PluginError, PluginKind, Reach, Receipts, ReceiptsBuilder, Verdict,
};

use config::{Config, Stage};

/// Longer than any test waits; a cancel ends it.
const LONG: Duration = Duration::from_secs(600);

/// The component.
#[derive(Debug)]
pub struct Dummy {
    config: Config,
}

impl Channel for Dummy {
    type Config = Config;

    fn manifest() -> Manifest {
        let classes = ["invalid_config", "unauthorized", "invalid_data", "rate_limited", "unavailable", "timeout", "cancelled", "internal"];
        Manifest {
            name: "dummy".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Channel,
            summary: "Reaches nobody, to test the plugin boundary.".into(),
            config_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "verdicts": {
                        "type": "array",
                        "items": {"enum": ["accepted", "delivered", "rejected", "not_sent", "busy", "unknown"]},
                        "default": ["accepted"],
                        "description": "the verdicts that the tasks get in turn; delivered breaks the contract"
                    },
                    "batch_rows": {"type": "integer", "minimum": 1, "default": 100, "description": "receipts of one batch"},
                    "silent": {"type": "integer", "minimum": 0, "default": 0, "description": "tasks at the end that get no receipt"},
                    "repeat": {"type": "boolean", "default": false, "description": "the first receipt comes twice, which breaks the contract"},
                    "events": {"type": "integer", "minimum": 0, "default": 0, "description": "events of a poll"},
                    "fail_in": {"enum": ["check", "push", "receipts", "poll"], "description": "where to fail"},
                    "fail_with": {"enum": classes, "description": "the class of the failure; a panic where it is not there"},
                    "wait_in_poll": {"type": "boolean", "default": false, "description": "a poll waits to be cancelled"},
                    "pushes_at_once": {"type": "integer", "minimum": 0, "default": 0, "description": "dispatches that may be pushed at the same time"}
                }
            }),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities { polls: true, ..Capabilities::default() },
            needs: Some(Needs::default()),
        }
    }

    fn create(_: &str, config: Config) -> Result<Self, PluginError> {
        Ok(Self { config })
    }

    fn traits(&self) -> ChannelTraits {
        let pushes_at_once = self.config.pushes_at_once;
        ChannelTraits { idempotent: true, reach: Reach::Files, pushes_at_once, ..ChannelTraits::default() }
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        self.config.reach(Stage::Check)?;
        call.check()?;
        Ok(vec![Finding::info("nobody is reached")])
    }

    fn push(&self, call: &Call, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Receipts, PluginError> {
        self.config.reach(Stage::Push)?;
        tracing::info!(dispatch = dispatch.dispatch_id, tasks = tasks.num_rows(), dry_run = call.dry_run(), "pushed");
        let ids = tasks.column(0).as_string::<i32>().clone();
        let answered = ids.len().saturating_sub(self.config.silent);
        let config = self.config.clone();
        let batches = (0..answered).step_by(config.batch_rows.max(1)).map(move |from| {
            if from > 0 {
                config.reach(Stage::Receipts)?;
            }
            Ok(receipts(&config, &ids, from..answered.min(from + config.batch_rows)))
        });
        Ok(Box::new(batches))
    }

    fn poll(&self, call: &Call, state: Option<Value>) -> Result<Items, PluginError> {
        self.config.reach(Stage::Poll)?;
        if self.config.wait_in_poll {
            call.wait(LONG)?;
        }
        let seen = state.and_then(|state| state.get("seen")?.as_u64()).unwrap_or(0) as usize;
        let mut events = EventsBuilder::new();
        for at in seen..self.config.events {
            let outcome = Outcome::ALL[at % Outcome::ALL.len()];
            events.push(&format!("e{at}"), &format!("{at:032x}"), outcome, (at % 2 == 0).then_some(at as i64), Some("a note"));
        }
        let items = [Item::Batch(events.finish()), Item::State(json!({"seen": self.config.events})), Item::End { as_of_us: None }];
        Ok(Box::new(items.into_iter().map(Ok)))
    }
}

fn receipts(config: &Config, ids: &StringArray, rows: std::ops::Range<usize>) -> RecordBatch {
    let mut receipts = ReceiptsBuilder::new();
    for row in rows {
        let id = ids.value(row);
        match config.verdicts[row % config.verdicts.len().max(1)] {
            Verdict::Accepted => receipts.accepted(id),
            Verdict::Rejected => receipts.rejected(id, Some("40003"), "no such clerk"),
            Verdict::NotSent => receipts.not_sent(id, 500, None, "the clerk is away"),
            Verdict::Busy => receipts.busy(id, 500, None, "at its limit"),
            Verdict::Unknown => receipts.unknown(id, None, "the line broke"),
            // No receipt can say delivered; a wrong one is made by hand, for the host to refuse.
            Verdict::Delivered => receipts.rejected("delivered", None, "not a task"),
        }
        if config.repeat && row == 0 {
            receipts.accepted(id);
        }
    }
    receipts.finish()
}

reunion_sdk::export_channel!(Dummy);
