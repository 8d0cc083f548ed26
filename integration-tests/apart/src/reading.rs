//! One read: two tasks of a runtime of its own, one that turns pages and one that makes batches of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{channel, Receiver, Sender};
use tokio::time::{sleep, timeout};

use crate::abi::{self, Buf};
use crate::config::{Config, Stage};
use crate::guard::Failure;
use crate::rows;

/// How long a wait may go without looking whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Within the second that the end of a stream may take.
const THREADS_END_WITHIN: Duration = Duration::from_millis(500);
const PAGES_AHEAD: usize = 2;
const ITEMS_AHEAD: usize = 4;

/// An item on its way to the host.
pub enum Item {
    Begin { resumed: bool },
    Batch(RecordBatch),
    State { row: usize },
    End,
}

impl Item {
    /// Fills in an item of the host's, which is empty.
    pub fn write(self, out: &mut abi::Item) -> Result<(), Failure> {
        let (kind, control) = match self {
            Self::Begin { resumed } => (abi::ITEM_BEGIN, format!(r#"{{"resumed": {resumed}}}"#)),
            Self::State { row } => (abi::ITEM_STATE, format!(r#"{{"row": {row}}}"#)),
            Self::End => (abi::ITEM_END, r#"{"as_of_us": null}"#.to_owned()),
            Self::Batch(batch) => {
                (out.schema, out.array) = rows::export(batch)?;
                out.kind = abi::ITEM_BATCH;
                return Ok(());
            }
        };
        out.kind = kind;
        // The empty one that was there has nothing to release.
        out.control = Buf::of(control);
        Ok(())
    }
}

pub struct Reading {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    items: Receiver<Item>,
    config: Arc<Config>,
}

impl Reading {
    pub fn start(config: Arc<Config>, from: Option<usize>) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("apart").enable_time().build();
        let runtime = runtime.map_err(|error| Failure::internal(format!("no threads can be had: {error}")))?;
        let (pages_in, pages) = channel(PAGES_AHEAD);
        let (items_in, items) = channel(ITEMS_AHEAD);
        runtime.spawn(turn_pages(Arc::clone(&config), from.unwrap_or(0), pages_in));
        runtime.spawn(make_items(Arc::clone(&config), from.is_some(), pages, items_in));
        Ok(Self { runtime: Some(runtime), items, config })
    }

    /// The next item, waited for as long as `go_on` has nothing against it.
    pub fn next(&mut self, go_on: impl Fn() -> Result<(), Failure>) -> Result<Item, Failure> {
        self.config.reach(Stage::Next);
        let runtime = self.runtime.as_ref().ok_or_else(|| Failure::internal("the read is over"))?;
        loop {
            go_on()?;
            match runtime.block_on(async { timeout(LOOK_EVERY, self.items.recv()).await }) {
                Ok(Some(item)) => return Ok(item),
                // A task that has panicked has let go of its end of the line.
                Ok(None) => return Err(Failure::internal("the read ended without its end: a task has panicked")),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(THREADS_END_WITHIN);
        }
    }
}

async fn turn_pages(config: Arc<Config>, from: usize, pages: Sender<Range<usize>>) {
    let mut row = from;
    while row < config.rows {
        sleep(config.page_wait).await;
        let end = config.rows.min(row.saturating_add(config.page_rows));
        // Where nobody takes it the read is over.
        if pages.send(row..end).await.is_err() {
            return;
        }
        row = end;
    }
}

async fn make_items(config: Arc<Config>, resumed: bool, mut pages: Receiver<Range<usize>>, items: Sender<Item>) {
    if items.send(Item::Begin { resumed }).await.is_err() {
        return;
    }
    let mut turned = 0_usize;
    while let Some(page) = pages.recv().await {
        config.reach(Stage::Task);
        turned += 1;
        let row = page.end;
        let batch = rows::batch(page).expect("the columns of the schema");
        let is_state = config.pages_per_state > 0 && turned.is_multiple_of(config.pages_per_state);
        let state = is_state.then_some(Item::State { row });
        for item in [Some(Item::Batch(batch)), state].into_iter().flatten() {
            if items.send(item).await.is_err() {
                return;
            }
        }
    }
    let _ = items.send(Item::End).await;
}
