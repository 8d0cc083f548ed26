//! The source plugin `my-plugin`. What it reads is made up: `rows.rs` is the place for your own.

mod config;
mod rows;

use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{
    ABI_VERSION, Call, Capabilities, Finding, Items, Manifest, Needs, PluginError, PluginKind,
    ReadRequest, Source,
};
use serde_json::Value;

pub use config::Config;
use rows::Rows;

/// One component of the operator's config.
#[derive(Debug)]
pub struct Component {
    config: Config,
}

impl Source for Component {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "my-plugin".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Makes members up.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities {
                modes: vec!["snapshot".into()],
                columns: vec!["record_id".into(), "phone".into(), "name".into()],
                has_record_id: true,
                ..Capabilities::default()
            },
            // It opens no connection and no file. Say so when yours does: the host keeps it to that.
            needs: Some(Needs { network: false, config_paths: false }),
        }
    }

    /// No I/O and no threads: it runs in every check of a config. What a schema cannot say is refused
    /// here, with the key to blame: `PluginError::new(ErrorClass::InvalidConfig, "…").key("rows")`.
    fn create(component: &str, config: Config) -> Result<Self, PluginError> {
        tracing::debug!(component, "made");
        Ok(Self { config })
    }

    /// Reaches the source and changes nothing.
    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        call.check()?;
        let empty = (self.config.rows == 0).then(|| Finding::warning("there are no rows"));
        Ok(empty.into_iter().collect())
    }

    fn schema(&self, _call: &Call) -> Result<SchemaRef, PluginError> {
        Ok(rows::schema())
    }

    fn read(
        &self,
        call: &Call,
        request: ReadRequest,
        state: Option<Value>,
    ) -> Result<Items, PluginError> {
        let state = state.filter(|_| request.resume);
        Ok(Box::new(Rows::begin(call.clone(), &self.config, state)))
    }
}

reunion_sdk::export_source!(Component);
