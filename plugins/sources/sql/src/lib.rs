//! Source plugin `sql`: members out of PostgreSQL, MySQL, MariaDB and SQLite.
//!
//! [`config`] is what the operator says, [`query`] and [`orders`] the statements that are made of it, [`database`] a
//! session with each of the databases, [`shape`] the columns that it gives, and [`pull`] one reading, with the resume
//! states of [`state`].

mod changes;
mod check;
mod columns;
mod config;
mod database;
mod failure;
mod orders;
mod pull;
mod query;
mod shape;
mod state;
mod value;
mod wait;

use std::sync::Arc;

use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{Call, Capabilities, Finding, Items, Manifest, Needs, PluginError, PluginKind, ReadRequest, Source};
use serde_json::Value;

pub use config::Config;
use config::Dialect;

/// A database as a source.
#[derive(Debug)]
pub struct SqlSource {
    config: Arc<Config>,
    dialect: Dialect,
}

impl Source for SqlSource {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "sql".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: reunion_sdk::ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Reads members out of PostgreSQL, MySQL, MariaDB and SQLite.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities { modes: vec!["snapshot".into(), "incremental".into()], ..Capabilities::default() },
            needs: Some(Needs { network: true, config_paths: true }),
        }
    }

    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        let dialect = config.validate()?;
        Ok(Self { config: Arc::new(config), dialect })
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        check::check(call, &self.config, self.dialect)
    }

    fn schema(&self, call: &Call) -> Result<SchemaRef, PluginError> {
        check::schema(call, &self.config, self.dialect)
    }

    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        Ok(Box::new(pull::Pull::begin(call.clone(), Arc::clone(&self.config), self.dialect, request, state)?))
    }
}

reunion_sdk::export_source!(SqlSource);
