//! What the streams of a component mean: its items as rows, receipts and events, wherever they come from.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};

use reunion_abi::control;
use reunion_model::TaskId;
use reunion_model::limits::DISPATCH_TASKS_MAX;
use reunion_model::plugin::{ErrorClass, Item, PluginError, ReadRequest};
use reunion_model::task::task_schema;

use crate::{ItemStream, PollStream, Polled, Receipt, ReceiptStream, contract};

/// The items of one call, checked one by one and in their order.
pub(crate) trait Items: Send {
    /// The next item; `None` after the end. An error ends the stream and is repeated.
    fn next(&mut self) -> Result<Option<Item>, PluginError>;

    /// Ends the stream: it broke this rule.
    fn violation(&mut self, rule: &str) -> PluginError;
}

/// What a stream may yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Begin, then batches, rejected rows and states, then end; or right after begin that nothing has changed,
    /// where that was asked for.
    Read {
        /// It was.
        may_be_unchanged: bool,
    },
    /// Batches, then end.
    Push,
    /// Batches, rejected rows and states, then end.
    Poll,
}

impl StreamKind {
    pub(crate) const fn read(request: &ReadRequest) -> Self {
        Self::Read { may_be_unchanged: request.may_be_unchanged }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Push => "push",
            Self::Poll => "poll",
        }
    }
}

/// How far a stream is, and what it ended with.
pub(crate) struct Progress {
    kind: StreamKind,
    at: At,
}

enum At {
    /// Nothing has come yet.
    Fresh,
    /// Only the begin marker of a read that does not go on from another.
    Begun,
    Running,
    Ended,
    Failed(PluginError),
}

impl Progress {
    pub(crate) const fn new(kind: StreamKind) -> Self {
        Self { kind, at: At::Fresh }
    }

    /// What a stream that is over answers; `None` for one that is not.
    pub(crate) fn over(&self) -> Option<Result<Option<Item>, PluginError>> {
        match &self.at {
            At::Ended => Some(Ok(None)),
            At::Failed(error) => Some(Err(error.clone())),
            At::Fresh | At::Begun | At::Running => None,
        }
    }

    /// The rule that this item breaks by coming now, if it does.
    pub(crate) fn broken_rule(&self, item: &Item) -> Option<&'static str> {
        let fresh = matches!(self.at, At::Fresh);
        match (self.kind, item) {
            (StreamKind::Read { .. }, Item::Begin { .. }) if fresh => None,
            (StreamKind::Read { .. }, _) if fresh => Some("a read that does not begin with its begin marker"),
            (_, Item::Begin { .. }) => Some("a begin marker that is not the first item of a read"),
            (StreamKind::Read { may_be_unchanged: true }, Item::Unchanged { .. }) if matches!(self.at, At::Begun) => None,
            (StreamKind::Read { may_be_unchanged: true }, Item::Unchanged { .. }) => Some("rows, and then that nothing has changed"),
            (_, Item::Unchanged { .. }) => Some("that nothing has changed, where it was asked for all rows"),
            (StreamKind::Push, Item::Rejected(_) | Item::State(_)) => Some("a push that yields something else than receipts"),
            _ => None,
        }
    }

    /// An item has come.
    pub(crate) fn came(&mut self, item: &Item) {
        self.at = match item {
            Item::Begin { resumed: false } => At::Begun,
            Item::End { .. } | Item::Unchanged { .. } => At::Ended,
            _ => At::Running,
        };
    }

    /// The stream ends with this error, which every later call repeats.
    pub(crate) fn fail(&mut self, error: PluginError) -> PluginError {
        self.at = At::Failed(error.clone());
        error
    }
}

/// What an end marker says.
pub(crate) const fn end(control::End { as_of_us, unchanged }: control::End) -> Item {
    if unchanged { Item::Unchanged { as_of_us } } else { Item::End { as_of_us } }
}

/// The rows of a read.
pub(crate) struct Rows<I>(pub(crate) I);

impl<I: Items> ItemStream for Rows<I> {
    fn next(&mut self) -> Result<Option<Item>, PluginError> {
        self.0.next()
    }
}

/// The ids of a dispatch's tasks, in their order.
pub(crate) fn task_ids(tasks: &RecordBatch) -> Result<Vec<TaskId>, PluginError> {
    if tasks.schema() != task_schema() {
        return Err(misused("the tasks do not have the columns of tasks"));
    }
    if tasks.num_rows() > DISPATCH_TASKS_MAX {
        return Err(misused(&format!("a dispatch of {} tasks, and {DISPATCH_TASKS_MAX} are the limit", tasks.num_rows())));
    }
    let ids = tasks.column(0).as_string::<i32>();
    let id = |row| ids.value(row).parse().map_err(|_| misused(&format!("the task in row {row} has an id that is none")));
    (0..ids.len()).map(id).collect()
}

/// A defect of the caller's.
pub(crate) fn misused(message: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, message)
}

/// The receipts of a push.
pub(crate) struct Receipts<I> {
    items: I,
    order: Vec<TaskId>,
    /// Those of `order` that have no receipt.
    waiting: HashSet<TaskId>,
}

impl<I> Receipts<I> {
    /// Those of a push of these tasks.
    pub(crate) fn new(items: I, order: Vec<TaskId>) -> Self {
        let waiting = order.iter().copied().collect();
        Self { items, order, waiting }
    }
}

impl<I: Items> ReceiptStream for Receipts<I> {
    fn next(&mut self) -> Result<Option<Vec<Receipt>>, PluginError> {
        let Some(Item::Batch(batch)) = self.items.next()? else { return Ok(None) };
        let receipts = contract::receipts(&batch).and_then(|receipts| {
            // All are looked at before any counts, so that a refused batch counts as not there.
            let mut answered = HashSet::with_capacity(receipts.len());
            match receipts.iter().find(|receipt| !self.waiting.contains(&receipt.task) || !answered.insert(receipt.task)) {
                Some(receipt) => Err(format!("a receipt for task {} that is not in the dispatch or has one already", receipt.task)),
                None => Ok(receipts),
            }
        });
        let receipts = receipts.map_err(|rule| self.items.violation(&rule))?;
        for receipt in &receipts {
            self.waiting.remove(&receipt.task);
        }
        Ok(Some(receipts))
    }

    fn unanswered(&self) -> Vec<TaskId> {
        self.order.iter().copied().filter(|task| self.waiting.contains(task)).collect()
    }
}

/// The events of a poll.
pub(crate) struct Polls<I>(pub(crate) I);

impl<I: Items> PollStream for Polls<I> {
    fn next(&mut self) -> Result<Option<Polled>, PluginError> {
        match self.0.next()? {
            Some(Item::Batch(batch)) => {
                contract::events(&batch).map(|events| Some(Polled::Events(events))).map_err(|rule| self.0.violation(&rule))
            }
            Some(Item::Rejected(rows)) => Ok(Some(Polled::Rejected(rows))),
            Some(Item::State(state)) => Ok(Some(Polled::State(state))),
            Some(Item::Begin { .. } | Item::End { .. } | Item::Unchanged { .. }) | None => Ok(None),
        }
    }
}
