//! The channel plugin `my-plugin`. It puts a file into a folder for each task, named by the task's id:
//! `folder.rs` is the place for your own way of handing a task over.

mod config;
mod folder;
mod push;

use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{
    ABI_VERSION, Call, Capabilities, Channel, ChannelTraits, DispatchInfo, Finding, Manifest,
    Needs, PluginError, PluginKind, Reach, Receipts,
};

pub use config::Config;
use folder::Folder;
use push::Push;

/// One component of the operator's config.
#[derive(Debug)]
pub struct Component {
    config: Config,
}

impl Channel for Component {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "my-plugin".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            kind: PluginKind::Channel,
            summary: "Puts a file into a folder for each task.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities::default(),
            // What it needs of the machine: the host keeps it to what stands here.
            needs: Some(Needs { network: false, config_paths: true }),
        }
    }

    /// No I/O and no threads: it runs in every check of a config. What a schema cannot say is refused
    /// here, with the key to blame: `PluginError::new(ErrorClass::InvalidConfig, "…").key("dir")`.
    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        Ok(Self { config })
    }

    /// What it does under its config. `idempotent` is true because a task's file has the task's name:
    /// whoever takes files out of the folder has to remember the names, or this has to go.
    fn traits(&self) -> ChannelTraits {
        ChannelTraits { idempotent: true, reach: Reach::Files, ..ChannelTraits::default() }
    }

    /// Reaches the channel, and contacts nobody.
    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        call.check()?;
        Folder::open(&self.config.dir).map(|_| Vec::new())
    }

    fn push(
        &self,
        call: &Call,
        _dispatch: &DispatchInfo,
        tasks: RecordBatch,
    ) -> Result<Receipts, PluginError> {
        call.check()?;
        let folder = Folder::open(&self.config.dir)?;
        Ok(Box::new(Push::new(call.clone(), folder, tasks)))
    }
}

reunion_sdk::export_channel!(Component);
