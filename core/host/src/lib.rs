//! Finds plugins, and runs their components, each in a worker of its own.
//!
//! The rest of the daemon sees [`SourceConnector`] and [`ChannelConnector`] and does not know where a component
//! runs. There are three parts:
//!
//! - *in process*: a library is loaded, and its table of C functions called (`library`, `instance`, `call`, `stream`,
//!   `source`, `channel`). Everything that a plugin answers is checked before it goes on: the order of items, rows
//!   and bytes, schemas, UTF-8, receipts. What breaks the contract is an error that names the plugin and the rule;
//! - *the worker* (`worker`): a process that confines itself, has one such component, and answers calls over a socket
//!   (`wire`);
//! - *the daemon's side* (`supervise`): starts workers, calls them, watches them, and starts them again.
//!
//! All calls block. A component is called by one thread at a time and answers with an error if it is busy; a
//! [`Canceller`] works from any thread.
#![allow(unsafe_code)]

mod answers;
mod call;
pub mod cgroup;
mod channel;
pub mod confine;
mod connector;
mod contract;
mod instance;
mod library;
mod log;
pub mod memory;
pub mod probe;
mod quarantine;
pub mod schema;
mod search;
mod source;
mod stream;
mod supervise;
mod text;
pub mod usage;
mod wire;
mod worker;

pub use connector::{
    CallOptions, Callback, Canceller, ChannelConnector, Event, ItemStream, PollStream, Polled, Receipt, ReceiptStream, SourceConnector,
};
pub use library::{LoadError, Plugin};
pub use quarantine::Quarantined;
pub use search::{Listed, Plugins, file_name as library_name};
pub use supervise::{COMMAND as WORKER_COMMAND, ComponentSpec, Health, HealthState, Isolation, Limits, Part};
pub use worker::main as worker_main;
