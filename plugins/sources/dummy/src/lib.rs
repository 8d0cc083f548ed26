//! A source of made-up rows. It exists to test the plugin boundary: its config decides how many rows
//! there are, and where it fails, panics, or waits to be cancelled.

mod config;
mod rows;

use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};

use reunion_sdk::{ABI_VERSION, Call, Capabilities, Finding, Items, Manifest, Needs, PluginError, PluginKind, ReadRequest, Source};

use config::{Config, Stage};

/// The component.
#[derive(Debug)]
pub struct Dummy {
    config: Config,
}

impl Source for Dummy {
    type Config = Config;

    fn manifest() -> Manifest {
        let classes = ["invalid_config", "unauthorized", "invalid_data", "rate_limited", "unavailable", "timeout", "cancelled", "internal"];
        let failures: Vec<_> = ["panic", "silence"].into_iter().chain(classes).collect();
        Manifest {
            name: "dummy".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Makes rows up, to test the plugin boundary.".into(),
            config_schema: json!({
                "type": "object",
                "required": ["rows"],
                "additionalProperties": false,
                "properties": {
                    "rows": {"type": "integer", "minimum": 0, "description": "rows of a read"},
                    "batch_rows": {"type": "integer", "minimum": 1, "default": 1000, "description": "rows of one batch"},
                    "batches_per_state": {"type": "integer", "minimum": 0, "default": 0, "description": "batches before each resume state; 0: none"},
                    "rejected": {"type": "integer", "minimum": 0, "default": 0, "description": "rejected rows at the end"},
                    "fail_in": {"enum": ["create", "check", "schema", "read", "stream"], "description": "where to fail"},
                    "fail_with": {"enum": failures, "default": "panic", "description": "how to fail"},
                    "wait_at_row": {"type": "integer", "minimum": 0, "description": "the row before which a read waits to be cancelled"}
                }
            }),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities {
                modes: vec!["snapshot".into(), "incremental".into()],
                columns: rows::schema().fields().iter().map(|field| field.name().clone()).collect(),
                has_record_id: true,
                ..Capabilities::default()
            },
            needs: Some(Needs::default()),
        }
    }

    fn create(component: &str, config: Config) -> Result<Self, PluginError> {
        config.reach(Stage::Create)?;
        tracing::debug!(component, rows = config.rows, "made");
        Ok(Self { config })
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        self.config.reach(Stage::Check)?;
        call.check()?;
        let empty = (self.config.rows == 0).then(|| Finding::warning("there are no rows"));
        Ok(empty.into_iter().chain([Finding::info(format!("run {:?}, dry {}", call.run_id(), call.dry_run()))]).collect())
    }

    fn schema(&self, _: &Call) -> Result<SchemaRef, PluginError> {
        self.config.reach(Stage::Schema)?;
        Ok(rows::schema())
    }

    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        self.config.reach(Stage::Read)?;
        let from = state.filter(|_| request.resume).and_then(|state| state.get("row")?.as_u64());
        Ok(Box::new(rows::Rows::new(self.config.clone(), call.clone(), from.map(|row| row as usize))))
    }
}

reunion_sdk::export_source!(Dummy);
