//! What the daemon calls: a component, wherever it runs.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use reunion_model::TaskId;
use reunion_model::plugin::{ChannelTraits, DispatchInfo, Finding, HttpRequest, Item, PluginError, ReadRequest};
use reunion_model::task::{Outcome, Verdict};

/// What goes along with a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOptions {
    /// Validate and answer as if; contact nobody.
    pub dry_run: bool,
    /// Milliseconds since the Unix epoch after which the answer is of no use.
    pub deadline_unix_ms: Option<u64>,
    /// The run that the call is for.
    pub run_id: String,
}

/// Stops a component from any thread: what runs on it ends within a second, and every later call on it
/// is answered with cancelled. For good: who goes on makes the component anew.
#[derive(Clone)]
pub struct Canceller(Arc<dyn Fn() + Send + Sync>);

impl Canceller {
    pub(crate) fn new(cancel: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(cancel))
    }

    /// Stops the component. Returns at once.
    pub fn cancel(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

/// A component that reads.
pub trait SourceConnector: Send + Sync {
    /// Reaches the source and changes nothing.
    ///
    /// # Errors
    /// The plugin's own, or internal where it broke the contract. So everywhere below.
    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError>;

    /// The columns that a read would give.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn schema(&self, options: &CallOptions) -> Result<SchemaRef, PluginError>;

    /// Begins to read. No other call is possible until the stream is dropped.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn read(&self, options: &CallOptions, request: &ReadRequest, state: Option<&Value>) -> Result<Box<dyn ItemStream>, PluginError>;

    /// Stops it.
    fn canceller(&self) -> Canceller;
}

/// The items of a read, in order: begin, then batches, rejected rows and states, then end.
pub trait ItemStream: Send {
    /// The next item; `None` after the end. An error ends the stream and is repeated.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn next(&mut self) -> Result<Option<Item>, PluginError>;
}

/// A component that hands tasks out.
pub trait ChannelConnector: Send + Sync {
    /// What it does under its config.
    fn traits(&self) -> &ChannelTraits;

    /// Reaches the channel and contacts nobody.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError>;

    /// Hands over the tasks of one dispatch, of [`reunion_model::task::task_schema`]. Until the stream is
    /// dropped, no more other pushes are possible than [`ChannelTraits::pushes_at_once`] allows.
    ///
    /// # Errors
    /// Where nothing was taken as far as the plugin knows; the tasks' fate is that of tasks without a
    /// receipt all the same. See [`SourceConnector::check`].
    fn push(&self, options: &CallOptions, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Box<dyn ReceiptStream>, PluginError>;

    /// Asks what became of tasks. May run beside a push. No other poll is possible until the stream is
    /// dropped.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn poll(&self, options: &CallOptions, state: Option<&Value>) -> Result<Box<dyn PollStream>, PluginError>;

    /// Has the channel answer a request from outside. May run beside everything else; no more of them at the same
    /// time than [`reunion_model::limits::CALLBACKS_AT_ONCE_MAX`]. The events are to be stored before the answer is sent.
    ///
    /// # Errors
    /// Invalid config where its manifest does not say that it takes any; unavailable where there are too many at
    /// the same time; and see [`SourceConnector::check`].
    fn callback(&self, options: &CallOptions, request: &HttpRequest) -> Result<Callback, PluginError>;

    /// Stops it.
    fn canceller(&self) -> Canceller;
}

/// What a channel said of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The task.
    pub task: TaskId,
    /// Any but delivered.
    pub verdict: Verdict,
    /// There with not sent, and only then: the delay before the next try.
    pub retry_after_ms: Option<u64>,
    /// The vendor's own code.
    pub code: Option<String>,
    /// One line, without phone numbers.
    pub message: Option<String>,
}

/// The receipts of a push, each as soon as it is known. At most one for a task.
pub trait ReceiptStream: Send {
    /// More receipts; `None` after the end. An error ends the stream and is repeated.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn next(&mut self) -> Result<Option<Vec<Receipt>>, PluginError>;

    /// The tasks that have no receipt so far, in the dispatch's order. After the end, or an error, their
    /// fate is unknown.
    fn unanswered(&self) -> Vec<TaskId>;
}

/// What a channel answers to a request from outside, checked: it can be sent as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Callback {
    /// 200 to 599.
    pub status: u16,
    /// Names, which are tokens, and values of printable ASCII. None of the connection's.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the request told of tasks.
    pub events: Vec<Event>,
}

/// Without what it holds.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("status", &self.status).field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// What a channel reports of a task later on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same whenever the same event is reported.
    pub event_id: String,
    /// The task.
    pub task: TaskId,
    /// What became of it.
    pub outcome: Outcome,
    /// When it happened, microseconds UTC, where known.
    pub at_us: Option<i64>,
    /// The clerk's own text. May hold personal data.
    pub note: Option<String>,
}

/// One item of a poll.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// What became of tasks.
    Events(Vec<Event>),
    /// Rows that could not be read, of [`reunion_model::plugin::rejected_schema`].
    Rejected(RecordBatch),
    /// A resume state that covers exactly the items before it.
    State(Value),
}

/// The items of a poll.
pub trait PollStream: Send {
    /// The next item; `None` after the end. An error ends the stream and is repeated.
    ///
    /// # Errors
    /// See [`SourceConnector::check`].
    fn next(&mut self) -> Result<Option<Polled>, PluginError>;
}
