//! One read: the items of the stream, in their order.

use std::collections::VecDeque;

use reunion_sdk::{Call, ErrorClass, Item, PluginError, RejectedBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::export::{Export, FileId};
use crate::rows;

const STATE_VERSION: u32 = 1;
/// Of the lines of one batch, about: a batch may have 64 MiB.
const BATCH_BYTES: u64 = 4 << 20;

/// The resume state: how far a read came, and of which file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    file: FileId,
    line_bytes_max: usize,
    place: (u64, u64),
}

/// The items of one read.
pub struct Pull {
    call: Call,
    export: Export,
    line_bytes_max: usize,
    batch_rows: usize,
    /// What is handed out before more is read.
    queue: VecDeque<Item>,
    is_over: bool,
}

impl Pull {
    /// Begins, or goes on where `state` says if the file is still the same.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn begin(call: Call, config: &Config, state: Option<Value>) -> Result<Self, PluginError> {
        let mut export = Export::open(config)?;
        let state = state.and_then(|state| serde_json::from_value::<State>(state).ok());
        let place = state.and_then(|state| {
            let is_same = state.version == STATE_VERSION && state.file == export.id() && state.line_bytes_max == config.line_bytes_max;
            is_same.then_some(state.place)
        });
        if let Some(place) = place {
            export.go_to(place)?;
        }
        tracing::debug!(resumed = place.is_some(), "reading");
        let queue = VecDeque::from([Item::Begin { resumed: place.is_some() }]);
        Ok(Self { call, export, line_bytes_max: config.line_bytes_max, batch_rows: config.batch_rows, queue, is_over: false })
    }

    /// Puts a batch, its rejected lines, and the state that covers both into the queue; after the last, the end.
    fn advance(&mut self) -> Result<(), PluginError> {
        let (mut read, mut rejected) = (Vec::new(), RejectedBuilder::new());
        let mut is_at_end = false;
        let bytes_end = self.export.place().0 + BATCH_BYTES;
        while read.len() + rejected.len() < self.batch_rows && self.export.place().0 < bytes_end && !is_at_end {
            match self.export.next_line(&self.call)?.map(|line| rows::parse(&line)) {
                None => is_at_end = true,
                Some(Ok(row)) => read.extend(row),
                Some(Err((reason, detail))) => rejected.push(&self.export.shown_place(), reason, Some(&detail)),
            }
        }
        if !read.is_empty() {
            self.queue.push_back(Item::Batch(rows::batch(&read)));
        }
        if !rejected.is_empty() {
            self.queue.push_back(Item::Rejected(rejected.finish()));
        }
        self.queue.push_back(Item::State(self.state()?));
        if is_at_end {
            // It says that everything was seen.
            self.export.refuse_changed()?;
            self.queue.push_back(Item::End { as_of_us: Some(self.export.id().mtime_ns / 1000) });
            self.is_over = true;
        }
        Ok(())
    }

    fn state(&self) -> Result<Value, PluginError> {
        let state =
            State { version: STATE_VERSION, file: self.export.id(), line_bytes_max: self.line_bytes_max, place: self.export.place() };
        serde_json::to_value(state).map_err(|error| PluginError::new(ErrorClass::Internal, format!("the state: {error}")))
    }
}

impl Iterator for Pull {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.queue.is_empty() && !self.is_over {
            let advanced = self.call.check().and_then(|()| self.advance());
            if let Err(error) = advanced {
                self.is_over = true;
                self.queue.clear();
                return Some(Err(error));
            }
        }
        self.queue.pop_front().map(Ok)
    }
}
