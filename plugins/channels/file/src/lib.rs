//! Channel plugin `file`: tasks as work lists, and work lists that come back with results.
//!
//! [`path`] says where a list goes, [`list`] what is in it, [`publish`] puts it there; [`poll`] looks
//! for lists that came back and [`returned`] reads one.

mod config;
mod list;
mod path;
mod poll;
mod publish;
mod returned;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{
    Call, Capabilities, Channel, ChannelTraits, DispatchInfo, ErrorClass, Finding, Item, Items, Manifest, Needs, PluginError, PluginKind,
    Reach, Receipts, ReceiptsBuilder,
};
use rustix::fs::{Access, access};
use serde_json::Value;

use config::Checked;
pub use config::{Config, PhoneFormat};
use list::Tasks;
use path::{PathValues, Variable};
use poll::Poll;
use publish::{Published, Publisher};

/// A list waits for the disk three times, and a disk makes several files durable in the time of one.
const PUSHES_AT_ONCE: usize = 8;

/// Work lists in files as a channel.
#[derive(Debug)]
pub struct FileChannel {
    config: Arc<Checked>,
    publisher: Publisher,
}

impl Channel for FileChannel {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "file".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: reunion_sdk::ABI_VERSION,
            kind: PluginKind::Channel,
            summary: "Writes tasks into work lists, and reads the results out of lists that come back.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities { polls: true, concurrent_poll: true, ..Capabilities::default() },
            needs: Some(Needs { network: false, config_paths: true }),
        }
    }

    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        Ok(Self { config: Arc::new(config.check()?), publisher: Publisher::default() })
    }

    fn traits(&self) -> ChannelTraits {
        let columns = Variable::ALL.into_iter().filter(|variable| variable.is_column() && self.config.path.uses(*variable));
        let group_by: Vec<String> = columns.map(|variable| variable.name().to_owned()).collect();
        let needs = group_by.iter().filter(|column| *column != Variable::Campaign.name()).cloned().collect();
        let consent = self.config.consent.clone();
        ChannelTraits {
            group_by,
            needs,
            consent,
            idempotent: true,
            reach: Reach::Files,
            pushes_at_once: PUSHES_AT_ONCE,
            ..ChannelTraits::default()
        }
    }

    fn check(&self, _call: &Call) -> Result<Vec<Finding>, PluginError> {
        let mut findings = Vec::new();
        writable(self.config.path.base())?;
        if ![Variable::Run, Variable::Dispatch].into_iter().any(|variable| self.config.path.uses(variable)) {
            findings.push(Finding::warning(
                "the path has neither {run} nor {dispatch}: two runs that give the same path cannot both write, and the second is refused",
            ));
        }
        if let Some(dir) = &self.config.return_dir {
            if !dir.is_dir() {
                findings.push(Finding::warning(format!("the return folder {} is not there", dir.display())));
            } else if let Err(error) = fs::read_dir(dir) {
                return Err(PluginError::new(ErrorClass::Unauthorized, format!("the return folder cannot be read: {}", error.kind()))
                    .key("return_dir"));
            }
        }
        Ok(findings)
    }

    fn push(&self, call: &Call, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Receipts, PluginError> {
        call.check()?;
        let tasks = Tasks::new(tasks)?;
        let values = self.values(dispatch, &tasks)?;
        let content = list::write(&tasks, &self.config)?;
        if !call.dry_run() && tasks.len() > 0 {
            self.put(&values, &tasks, &content)?;
        }
        let mut receipts = ReceiptsBuilder::new();
        (0..tasks.len()).for_each(|row| receipts.accepted(tasks.id(row)));
        Ok(Box::new(std::iter::once(Ok(receipts.finish()))))
    }

    fn poll(&self, call: &Call, state: Option<Value>) -> Result<Items, PluginError> {
        match &self.config.return_dir {
            Some(dir) => Ok(Box::new(Poll::begin(call.clone(), Arc::clone(&self.config), dir, state)?)),
            None => Ok(Box::new(std::iter::once(Ok(Item::End { as_of_us: None })))),
        }
    }
}

impl FileChannel {
    fn values<'a>(&self, dispatch: &'a DispatchInfo, tasks: &'a Tasks) -> Result<PathValues<'a>, PluginError> {
        let common = |variable: Variable| if self.config.path.uses(variable) { tasks.common(variable.name()) } else { Ok("") };
        Ok(PathValues {
            campaign: common(Variable::Campaign)?,
            store: common(Variable::Store)?,
            staff: common(Variable::Staff)?,
            date: &dispatch.date,
            run: &dispatch.run,
            dispatch: &dispatch.dispatch_id,
            ordinal: dispatch.ordinal,
        })
    }

    /// Puts the list in its place. One with the same tasks that is there already is as good: the push was
    /// killed before its receipts were stored.
    fn put(&self, values: &PathValues<'_>, tasks: &Tasks, content: &[u8]) -> Result<(), PluginError> {
        let path = self.config.path.render(values);
        let failed = |error: io::Error| unwritable(&self.config.path.describe(values), &error);
        if self.publisher.publish(&path, content).map_err(failed)? == Published::New {
            return Ok(());
        }
        let there = fs::read(&path).map_err(failed)?;
        let there: BTreeSet<_> = returned::read(&there, &self.config.results).task_ids.into_iter().collect();
        let ours: BTreeSet<_> = (0..tasks.len()).map(|row| tasks.id(row).to_owned()).collect();
        if there == ours {
            return self.publisher.settle(&path).map_err(failed);
        }
        let message = format!("{} is there already with other tasks", self.config.path.describe(values).display());
        Err(PluginError::new(ErrorClass::InvalidData, message)
            .key("path")
            .hint("nothing was overwritten; move that file away, or put {run} or {dispatch} into the path"))
    }
}

/// Whether the nearest folder that is there may be written to.
fn writable(folder: &Path) -> Result<(), PluginError> {
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else { return Ok(()) };
    if !there.is_dir() {
        return Err(PluginError::new(ErrorClass::InvalidConfig, format!("{} is no folder", there.display())).key("path"));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| unwritable(there, &error.into()))
}

fn unwritable(place: &Path, error: &io::Error) -> PluginError {
    let class = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => ErrorClass::Unauthorized,
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::AlreadyExists => ErrorClass::InvalidConfig,
        _ => ErrorClass::Unavailable,
    };
    PluginError::new(class, format!("{} cannot be written: {}", place.display(), error.kind())).key("path")
}

reunion_sdk::export_channel!(FileChannel);
