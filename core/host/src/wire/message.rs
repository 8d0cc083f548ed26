//! The control documents between the daemon and a worker.

use std::path::PathBuf;

use reunion_model::plugin::{ChannelTraits, DispatchInfo, HttpRequest, PluginKind, ReadRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::CallOptions;
use crate::confine::{Plan, Report};

/// The library to look at.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scan {
    pub(crate) kind: PluginKind,
    pub(crate) name: String,
    pub(crate) library: PathBuf,
}

/// What to load and make. Holds the component's secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) kind: PluginKind,
    /// The plugin.
    pub(crate) name: String,
    pub(crate) library: PathBuf,
    /// The component.
    pub(crate) component: String,
    /// Its config with the schema's defaults.
    pub(crate) config: Value,
    /// Log events above this level are not wanted.
    pub(crate) log_level_max: i32,
    /// What the process may do; nothing to be done about it in the daemon's own.
    pub(crate) plan: Option<Plan>,
}

/// The first message to a worker.
pub(crate) enum Request {
    Scan(Scan),
    Start(Box<Start>),
}

/// The component is made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Of a channel.
    pub(crate) traits: Option<ChannelTraits>,
    /// How the process is confined.
    pub(crate) confined: Option<Report>,
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallMessage {
    pub(crate) options: CallOptions,
    pub(crate) what: What,
}

/// What is called.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Check,
    Schema,
    Read {
        request: ReadRequest,
        state: Option<Value>,
    },
    /// The tasks came before.
    Push {
        dispatch: DispatchInfo,
    },
    Poll {
        state: Option<Value>,
    },
    /// The body came before.
    Callback {
        request: HttpRequest,
    },
}

/// The answer to a request from outside. Its body and events came before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerMessage {
    pub(crate) status: i32,
    pub(crate) headers: Vec<(String, String)>,
}

/// A log event of the plugin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogMessage {
    pub(crate) level: i32,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) fields: String,
}
