//! Source plugin `points`: members out of the export of a loyalty programme, a JSON object in each line.
//!
//! [`export`] opens the file and cuts it into lines, [`rows`] makes rows of them, and [`pull`] hands those out with
//! resume states.

mod config;
mod export;
mod pull;
mod rows;

use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{ABI_VERSION, Call, Capabilities, Finding, Items, Manifest, Needs, PluginError, PluginKind, ReadRequest, Source};
use serde_json::Value;

pub use config::Config;
use export::Export;
use pull::Pull;

/// One component of the operator's config.
#[derive(Debug)]
pub struct Points {
    config: Config,
}

impl Source for Points {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "points".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Reads members out of the export of a loyalty programme, a JSON object in each line.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities {
                modes: vec!["snapshot".into()],
                columns: rows::schema().fields().iter().map(|field| field.name().clone()).collect(),
                has_record_id: true,
                ..Capabilities::default()
            },
            needs: Some(Needs { network: false, config_paths: true }),
        }
    }

    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        Ok(Self { config })
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        call.check()?;
        let export = Export::open(&self.config)?;
        let empty = (export.id().size == 0).then(|| Finding::warning("the export is empty"));
        Ok(empty.into_iter().collect())
    }

    fn schema(&self, _call: &Call) -> Result<SchemaRef, PluginError> {
        Ok(rows::schema())
    }

    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        let state = state.filter(|_| request.resume);
        Ok(Box::new(Pull::begin(call.clone(), &self.config, state)?))
    }
}

reunion_sdk::export_source!(Points);
