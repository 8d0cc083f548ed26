//! Finds plugins, loads them, and runs their components.
//!
//! The rest of the daemon sees [`SourceConnector`] and [`ChannelConnector`] and does not know where a
//! component runs: here, in this process. Everything that a plugin answers is checked before it goes
//! on: the order of items, rows and bytes, schemas, UTF-8, receipts. What breaks the contract is an
//! error that names the plugin and the rule, and the end of that component; never of the host.
//!
//! All calls block. A component is called by one thread at a time and answers with an error if it is
//! busy; a [`Canceller`] works from any thread.
#![allow(unsafe_code)]

mod call;
mod channel;
mod connector;
mod contract;
mod instance;
mod library;
mod log;
pub mod memory;
pub mod schema;
mod search;
mod source;
mod stream;
mod text;

pub use connector::{
    CallOptions, Canceller, ChannelConnector, Event, ItemStream, PollStream, Polled, Receipt, ReceiptStream, SourceConnector,
};
pub use library::{LoadError, Plugin};
pub use search::{Listed, Plugins};
