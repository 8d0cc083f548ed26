//! What a plugin author uses: two traits, one macro for each, and builders for the batches that a
//! plugin answers with.
//!
//! ```ignore
//! struct Till { path: PathBuf }
//!
//! impl reunion_sdk::Source for Till { /* … */ }
//!
//! reunion_sdk::export_source!(Till);
//! ```
//!
//! With `crate-type = ["cdylib", "rlib"]` that makes a plugin; its own tests call the trait. The SDK
//! does the rest: it fills the table of functions, reads the config, catches panics, forwards
//! `tracing` events to the host, and stops streams when the host says so.
//!
//! For the conformance suite, `reunion plugins verify`, a call of the run `verify:panic` panics in place of the
//! author's code. No other run is called so.
//!
//! Rules for authors: `create` does no I/O; no error, finding or log line holds personal data or a
//! secret; anything that takes long looks at [`Call::check`] at least every
//! [`limits::CANCEL_WITHIN_MS`]; nothing global of the process is changed (environment, working
//! folder, umask, locale, signal handlers).
#![allow(unsafe_code)]

#[cfg(feature = "tls")]
mod authority;
mod batches;
mod call;
mod config;
#[doc(hidden)]
pub mod export;
mod log;
mod secret;
pub mod testing;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use arrow;
#[cfg(feature = "tls")]
pub use authority::Authority;
pub use batches::{EventsBuilder, ReceiptsBuilder, RejectedBuilder};
pub use call::Call;
pub use reunion_abi::text_array;
pub use reunion_model::plugin::{
    Capabilities, ChannelTraits, DispatchInfo, ErrorClass, Finding, FindingLevel, HttpAnswer, HttpRequest, Item, Manifest, Needs,
    PluginError, PluginKind, Reach, ReadMode, ReadRequest, holds_password, rejected_schema,
};
pub use reunion_model::task::{Outcome, Verdict, event_schema, receipt_schema, task_schema};
pub use reunion_model::{Reason, limits};
pub use secret::Secret;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

/// The version of the ABI that this SDK was made for. In place of [`Manifest::abi`] it writes the least version that the
/// plugin needs, so that older hosts take it too.
pub const ABI_VERSION: [u32; 2] = [reunion_abi::MAJOR, reunion_abi::MINOR];

/// A stream of items. It may work lazily; it ends with [`Item::End`] or an error.
///
/// Batches may have any number of rows, as the SDK cuts them to [`limits::BATCH_ROWS_MAX`]; about that
/// many is best. Their columns may differ from one batch to the next.
pub type Items = Box<dyn Iterator<Item = Result<Item, PluginError>> + Send>;

/// A stream of receipts, of [`receipt_schema`], each batch handed on as soon as it is known. Ends with
/// the iterator, or with an error.
pub type Receipts = Box<dyn Iterator<Item = Result<RecordBatch, PluginError>> + Send>;

/// Reads members out of somewhere. One value is one component of the operator's config.
///
/// The host makes one call at a time, from any thread.
pub trait Source: Send + Sync + Sized + 'static {
    /// The component's `with` table.
    type Config: DeserializeOwned;

    /// What the plugin is. Pure; `abi` and `kind` are filled in by the SDK.
    fn manifest() -> Manifest;

    /// A component of this name with this config, which fits the manifest's schema, its defaults filled
    /// in. No I/O.
    ///
    /// # Errors
    /// Invalid config, for what a schema cannot say.
    fn create(component: &str, config: Self::Config) -> Result<Self, PluginError>;

    /// Reaches the source, checks rights, and changes nothing.
    ///
    /// # Errors
    /// Where a read would fail.
    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError>;

    /// The columns that a read would give.
    ///
    /// # Errors
    /// Where the source cannot be reached or understood.
    fn schema(&self, call: &Call) -> Result<SchemaRef, PluginError>;

    /// Reads. First [`Item::Begin`], then batches, rejected rows and resume states, last [`Item::End`]. Where nothing has
    /// changed, and [`ReadRequest::may_be_unchanged`], [`Item::Unchanged`] instead of all that follows the first.
    /// `state` is the latest one that the host has stored: see [`ReadRequest::resume`].
    ///
    /// # Errors
    /// Here or in the stream.
    fn read(&self, call: &Call, request: ReadRequest, state: Option<Value>) -> Result<Items, PluginError>;
}

/// Hands tasks to somewhere. One value is one component of the operator's config.
///
/// The host makes one call at a time, from any thread; `poll` beside `push` only where the manifest
/// says `concurrent_poll`. Values on which it calls `callback` are called with nothing else.
pub trait Channel: Send + Sync + Sized + 'static {
    /// The component's `with` table.
    type Config: DeserializeOwned;

    /// What the plugin is. Pure; `abi` and `kind` are filled in by the SDK.
    fn manifest() -> Manifest;

    /// A component of this name with this config, which fits the manifest's schema, its defaults filled
    /// in. No I/O.
    ///
    /// # Errors
    /// Invalid config, for what a schema cannot say.
    fn create(component: &str, config: Self::Config) -> Result<Self, PluginError>;

    /// What the channel does under this config. Pure.
    fn traits(&self) -> ChannelTraits;

    /// Reaches the channel, checks rights, and contacts nobody.
    ///
    /// # Errors
    /// Where a push would fail.
    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError>;

    /// Takes the tasks of one dispatch, of [`task_schema`], and answers one receipt for each. A task
    /// without a receipt counts as unknown, which is right for those whose fate nobody knows and
    /// expensive for all others.
    ///
    /// # Errors
    /// Here where nothing was sent, or in the stream.
    fn push(&self, call: &Call, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Receipts, PluginError>;

    /// Asks what became of tasks: batches of [`event_schema`], rejected rows, resume states, and
    /// [`Item::End`]. `state` is the latest one that the host has stored. A channel that never hears
    /// back keeps the default, which ends at once.
    ///
    /// # Errors
    /// Here or in the stream.
    fn poll(&self, _call: &Call, _state: Option<Value>) -> Result<Items, PluginError> {
        Ok(Box::new(std::iter::once(Ok(Item::End { as_of_us: None }))))
    }

    /// Answers a request of HTTP that anybody may have sent, within the call's deadline of a few seconds. Find out
    /// whether it is genuine before anything else; answer what is not, or makes no sense, with a status of 4xx. The events
    /// of the answer, of [`event_schema`] and no more than [`limits::BATCH_ROWS_MAX`], are stored before it is sent.
    /// Called only where the manifest says `callback`, on a value that is for requests alone.
    ///
    /// # Errors
    /// Where it cannot be answered now: the sender is told to try again.
    fn callback(&self, _call: &Call, _request: &HttpRequest) -> Result<HttpAnswer, PluginError> {
        Ok(HttpAnswer::status(404))
    }
}
