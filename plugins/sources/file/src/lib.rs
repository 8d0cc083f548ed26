//! Source plugin `file`: members out of text, workbooks, Parquet and dBASE files.
//!
//! [`listing`] finds the files and waits until they are still; [`format`](mod@format) tells what each of
//! them is; [`text`], [`sheet`], [`parquet`] and [`dbf`] make a [`table`] of it; and [`pull`] reads all of
//! them in order, with resume states.

mod chunk;
mod config;
mod dbf;
mod format;
mod header;
mod listing;
mod number;
mod parquet;
mod pull;
mod sheet;
mod table;
mod text;

use std::sync::Arc;

use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{Call, Capabilities, Finding, FindingLevel, Items, Manifest, Needs, PluginError, PluginKind, ReadRequest, Source};
use serde_json::Value;

pub use config::{Config, Format, Header};
pub use text::encoding::Declared as Encoding;

/// Files as a source.
#[derive(Debug)]
pub struct FileSource {
    config: Arc<Config>,
}

impl Source for FileSource {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "file".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: reunion_sdk::ABI_VERSION,
            kind: PluginKind::Source,
            summary: "Reads members out of CSV, Excel, Parquet and dBASE files.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities { modes: vec!["snapshot".into(), "incremental".into()], ..Capabilities::default() },
            needs: Some(Needs { network: false, config_paths: true }),
        }
    }

    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        config.validate()?;
        Ok(Self { config: Arc::new(config) })
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        let entries = listing::list(&self.config)?;
        let mut findings = Vec::new();
        let mut find = |level, message| findings.push(Finding { level, message });
        if entries.is_empty() {
            find(FindingLevel::Warning, "no file matches `path`".to_owned());
        }
        let columns = pull::columns(call, &entries, &self.config)?;
        if !entries.is_empty() && columns.fields().is_empty() {
            find(FindingLevel::Warning, "there is nothing in the files".to_owned());
        }
        for entry in &entries {
            for passed_over in pull::passed_over(call, entry, &self.config, &columns)? {
                find(FindingLevel::Warning, format!("{}: {passed_over}", entry.name));
            }
        }
        Ok(findings)
    }

    fn schema(&self, call: &Call) -> Result<SchemaRef, PluginError> {
        let entries = listing::list_when_still(call, &self.config)?;
        pull::columns(call, &entries, &self.config)
    }

    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        Ok(Box::new(pull::Pull::begin(call.clone(), Arc::clone(&self.config), pull::Pace::default(), request, state)?))
    }
}

reunion_sdk::export_source!(FileSource);
