//! A plugin's stream, pulled and checked item by item.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use reunion_abi::{self as abi, control, import_batch, item_kind};
use reunion_model::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, COLUMNS_MAX};
use reunion_model::plugin::{Item, PluginError};

use crate::answers::{self, Items, Progress, StreamKind};
use crate::contract;
use crate::instance::{Active, Instance};

pub(crate) struct Pull {
    // Dropped first: the plugin releases the stream while the call is still valid and the turn taken.
    stream: abi::Stream,
    active: Active,
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
        Ok(Self { stream, active, progress: Progress::new(kind), known: None })
    }

    /// What stops this stream alone: set by whoever wants the rest no more.
    pub(crate) fn released(&self) -> Arc<AtomicBool> {
        self.active.frame.released()
    }

    fn instance(&self) -> &Instance {
        self.active.instance()
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
            item_kind::END => instance.document(&item.control, "the end marker").map(answers::end),
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
}

impl Items for Pull {
    fn next(&mut self) -> Result<Option<Item>, PluginError> {
        if let Some(over) = self.progress.over() {
            return over;
        }
        let item = self.pull().and_then(|item| match self.progress.broken_rule(&item) {
            Some(rule) => Err(self.instance().violation(rule)),
            None => Ok(item),
        });
        match item {
            Ok(item) => {
                self.progress.came(&item);
                Ok(Some(item))
            }
            Err(error) => Err(self.progress.fail(error)),
        }
    }

    fn violation(&mut self, rule: &str) -> PluginError {
        let error = self.instance().violation(rule);
        self.progress.fail(error)
    }
}
