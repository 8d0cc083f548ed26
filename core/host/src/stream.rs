//! A plugin's stream, pulled and checked item by item.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use reunion_abi::{self as abi, control, import_batch, item_kind};
use reunion_model::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, COLUMNS_MAX};
use reunion_model::plugin::{Item, PluginError};

use crate::contract;
use crate::instance::{Active, Instance};

/// What a stream may yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Begin, then batches, rejected rows and states, then end.
    Read,
    /// Batches, then end.
    Push,
    /// Batches, rejected rows and states, then end.
    Poll,
}

impl StreamKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Poll => "poll",
        }
    }
}

/// How far a stream is.
enum Progress {
    /// Nothing has come yet.
    Fresh,
    Running,
    Ended,
    Failed(PluginError),
}

pub(crate) struct Pull {
    // Dropped first: the plugin releases the stream while the call is still valid and the turn taken.
    stream: abi::Stream,
    active: Active,
    kind: StreamKind,
    progress: Progress,
    /// The schema of the batch before, shared by the next where it is the same.
    known: Option<SchemaRef>,
}

// SAFETY: by contract a stream may be pulled from any thread, one at a time, and `&mut` is that.
unsafe impl Send for Pull {}

impl Pull {
    /// The stream that a call has filled in.
    pub(crate) fn new(stream: abi::Stream, active: Active, kind: StreamKind) -> Result<Self, PluginError> {
        if stream.next.is_none() || stream.release.is_none() {
            return Err(active.instance().violation(&format!("{} answered ok without a stream", kind.name())));
        }
        Ok(Self { stream, active, kind, progress: Progress::Fresh, known: None })
    }

    pub(crate) fn instance(&self) -> &Instance {
        self.active.instance()
    }

    /// The next item; `None` after the end. An error is repeated.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, PluginError> {
        match &self.progress {
            Progress::Ended => return Ok(None),
            Progress::Failed(error) => return Err(error.clone()),
            Progress::Fresh | Progress::Running => {}
        }
        let item = self.pull().and_then(|item| self.in_order(item));
        match item {
            Ok(item) => {
                self.progress = if matches!(item, Item::End { .. }) { Progress::Ended } else { Progress::Running };
                Ok(Some(item))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Ends the stream with this error, which every later call repeats.
    pub(crate) fn fail(&mut self, error: PluginError) -> PluginError {
        self.progress = Progress::Failed(error.clone());
        error
    }

    fn pull(&mut self) -> Result<Item, PluginError> {
        let (mut item, mut error) = (abi::Item::empty(), abi::Error::empty());
        let next = self.stream.next.expect("checked when the stream was made");
        // SAFETY: the stream is open, and the call is valid as long as it is.
        let status = unsafe { next(&raw mut self.stream, &raw mut item, &raw mut error) };
        let instance = self.active.instance();
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { instance.outcome(status, &error) }?;
        match item.kind {
            item_kind::BEGIN => {
                instance.document(&item.control, "the begin marker").map(|control::Begin { resumed }| Item::Begin { resumed })
            }
            item_kind::BATCH => self.batch(item).map(Item::Batch),
            item_kind::REJECTED => self.rejected(item).map(Item::Rejected),
            item_kind::STATE => instance.document::<Value>(&item.control, "the state").map(Item::State),
            item_kind::END => instance.document(&item.control, "the end marker").map(|control::End { as_of_us }| Item::End { as_of_us }),
            other => Err(instance.violation(&format!("an item of kind {other}, which this host does not know"))),
        }
    }

    fn batch(&mut self, item: abi::Item) -> Result<RecordBatch, PluginError> {
        let batch = self.import(item, "a batch")?;
        self.known = Some(batch.schema());
        Ok(batch)
    }

    fn rejected(&self, item: abi::Item) -> Result<RecordBatch, PluginError> {
        let batch = self.import(item, "a batch of rejected rows")?;
        contract::rejected(&batch).map_err(|rule| self.instance().violation(&rule))
    }

    fn import(&self, item: abi::Item, what: &str) -> Result<RecordBatch, PluginError> {
        let abi::Item { schema, array, .. } = item;
        // SAFETY: filled in by the plugin by the rules of the Arrow C Data interface.
        let batch = unsafe { import_batch(&schema, array, BATCH_ROWS_MAX, self.known.as_ref()) };
        let batch = batch.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            self.instance().violation(&format!("{what} that cannot be taken: {error}{cause}"))
        })?;
        if batch.num_columns() > COLUMNS_MAX {
            return Err(self.instance().violation(&format!("{what} of {} columns, and {COLUMNS_MAX} are the limit", batch.num_columns())));
        }
        let bytes: usize =
            batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX / COLUMNS_MAX)).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(self.instance().violation(&format!("{what} of {bytes} bytes, and {BATCH_BYTES_MAX} are the limit")));
        }
        Ok(batch)
    }

    fn in_order(&self, item: Item) -> Result<Item, PluginError> {
        let fresh = matches!(self.progress, Progress::Fresh);
        let rule = match (self.kind, &item) {
            (StreamKind::Read, Item::Begin { .. }) if fresh => return Ok(item),
            (StreamKind::Read, _) if fresh => "a read that does not begin with its begin marker",
            (_, Item::Begin { .. }) => "a begin marker that is not the first item of a read",
            (StreamKind::Push, Item::Rejected(_) | Item::State(_)) => "a push that yields something else than receipts",
            _ => return Ok(item),
        };
        Err(self.instance().violation(rule))
    }
}
