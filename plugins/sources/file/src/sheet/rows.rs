//! Makes Arrow columns of a sheet's cells.
//!
//! On a thread of its own, since what yields the cells of an .xlsx borrows the workbook; so a sheet is
//! unpacked beside what the host does with the rows before.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use calamine::DataRef;
use reunion_sdk::{ErrorClass, PluginError, Reason};
use xxhash_rust::xxh3::Xxh3;

use super::book::Book;
use super::cell::{self, Written};
use crate::chunk::{ChunkBuilder, Row};
use crate::config::Config;
use crate::table::{Chunk, Place, Projection, Rows};

/// Chunks that wait to be taken.
const CHUNKS_WAITING: usize = 2;

/// How a sheet becomes rows of the source.
pub struct Plan {
    /// The sheet.
    pub sheet: String,
    /// The file and the sheet, for messages.
    pub place: String,
    /// The config.
    pub config: Arc<Config>,
    /// The number of the row above the first.
    pub header_row: u64,
    /// The sheet's columns.
    pub names: Vec<String>,
    /// Those of them that are read.
    pub projection: Projection,
}

/// The rows of a sheet, numbered from its header on, empty ones left out.
pub struct SheetRows {
    /// None once nothing more is wanted.
    chunks: Option<Receiver<Message>>,
    worker: Option<JoinHandle<()>>,
    sheet: String,
    place: Place,
}

enum Message {
    /// Rows, and how many the sheet had up to their end.
    Chunk(Chunk, u64),
    /// All rows were sent. What there is to say of them.
    End(Vec<String>),
    Failed(PluginError),
}

impl SheetRows {
    /// Begins to read at `from`.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(book: Book, plan: Plan, from: Place) -> Result<Self, PluginError> {
        let (sender, chunks) = sync_channel(CHUNKS_WAITING);
        let sheet = plan.place.clone();
        let worker = thread::Builder::new()
            .name("sheet".into())
            .spawn(move || read(book, &plan, from.row, &sender))
            .map_err(|error| PluginError::new(ErrorClass::Internal, format!("{sheet}: no thread to read with: {error}")))?;
        Ok(Self { chunks: Some(chunks), worker: Some(worker), sheet, place: from })
    }
}

impl Rows for SheetRows {
    fn next_chunk(&mut self, _: &mut Xxh3) -> Result<Option<Chunk>, PluginError> {
        let message = self.chunks.as_ref().and_then(|chunks| chunks.recv().ok());
        match message {
            Some(Message::Chunk(chunk, row)) => {
                self.place.row = row;
                Ok(Some(chunk))
            }
            Some(Message::End(notices)) => {
                notices.iter().for_each(|notice| tracing::warn!(sheet = self.sheet, "{notice}"));
                Ok(None)
            }
            Some(Message::Failed(error)) => Err(error),
            None => Err(PluginError::new(ErrorClass::Internal, format!("{}: the reader broke off", self.sheet))),
        }
    }

    fn place(&self) -> Option<Place> {
        Some(self.place)
    }
}

impl Drop for SheetRows {
    fn drop(&mut self) {
        // The worker ends at the next chunk that nobody takes.
        self.chunks = None;
        if let Some(worker) = self.worker.take() {
            // What it panicked of was told by the hook.
            let _ = worker.join();
        }
    }
}

fn read(mut book: Book, plan: &Plan, skipped: u64, sender: &SyncSender<Message>) {
    let mut collector = Collector::new(plan, skipped, sender);
    let read = book.each_cell(&plan.sheet, &mut |row, column, value| Ok(collector.take(row, column as usize, value)));
    let message = match read {
        Ok(()) => Message::End(collector.finish()),
        Err(error) => Message::Failed(error),
    };
    // Whoever is gone needs no answer.
    let _ = sender.send(message);
}

/// Puts cells together to rows.
struct Collector<'p> {
    plan: &'p Plan,
    sender: &'p SyncSender<Message>,
    /// Which of the sheet's columns are read.
    is_read: Vec<bool>,
    /// The row whose cells arrive, counted from 0 in the sheet.
    at: Option<u32>,
    row: Row,
    /// Rows up to its beginning.
    rows: u64,
    /// Rows that were read before.
    skipped: u64,
    chunk: ChunkBuilder,
    is_too_wide: bool,
    /// Rows that have cells to the right of the header.
    too_wide: u64,
    /// Cells that hold an error.
    errors: u64,
    /// Somebody takes the chunks.
    is_wanted: bool,
}

impl<'p> Collector<'p> {
    fn new(plan: &'p Plan, skipped: u64, sender: &'p SyncSender<Message>) -> Self {
        let mut is_read = vec![false; plan.names.len()];
        plan.projection.places.iter().for_each(|place| is_read[*place] = true);
        Self {
            plan,
            sender,
            is_read,
            at: None,
            row: Row::new(plan.names.len()),
            rows: 0,
            skipped,
            chunk: ChunkBuilder::new(Arc::clone(&plan.config), plan.projection.clone()),
            is_too_wide: false,
            too_wide: 0,
            errors: 0,
            is_wanted: true,
        }
    }

    /// Takes the next cell; false where nothing more is wanted.
    fn take(&mut self, row: u32, column: usize, value: &DataRef<'_>) -> bool {
        if u64::from(row) < self.plan.header_row {
            return true;
        }
        if self.at != Some(row) {
            self.end_row();
            self.at = Some(row);
        }
        if self.rows >= self.skipped {
            self.take_cell(column, value);
        }
        self.is_wanted
    }

    fn take_cell(&mut self, column: usize, value: &DataRef<'_>) {
        let start = self.row.text.len();
        let written = cell::write(value, &mut self.row.text);
        let cell = start..self.row.text.len();
        let Some(is_read) = self.is_read.get(column) else {
            self.is_too_wide |= written != Written::Text || !cell.is_empty();
            self.row.text.truncate(start);
            return;
        };
        self.row.cells[column] = cell;
        match written {
            Written::Error if *is_read => self.errors += 1,
            Written::Rounded(rounded) if *is_read => {
                self.row.reject(Reason::RowDigitsLost, || format!("the column {:?} {}", self.plan.names[column], rounded.0));
            }
            _ => {}
        }
    }

    fn end_row(&mut self) {
        let Some(at) = self.at.take() else { return };
        self.rows += 1;
        if self.rows <= self.skipped {
            return;
        }
        self.too_wide += u64::from(std::mem::take(&mut self.is_too_wide));
        self.chunk.take(&mut self.row, || format!("{}:{}", self.plan.place, u64::from(at) + 1));
        if self.chunk.is_full() {
            self.send();
        }
    }

    fn send(&mut self) {
        self.is_wanted = self.sender.send(Message::Chunk(self.chunk.finish(), self.rows)).is_ok();
    }

    /// Ends the last row. What there is to say of all of them.
    fn finish(mut self) -> Vec<String> {
        self.end_row();
        if !self.chunk.is_empty() {
            self.send();
        }
        let mut notices = Vec::new();
        if self.errors > 0 {
            notices.push(format!("cells that hold an error such as #N/A are null: {}", self.errors));
        }
        if self.too_wide > 0 {
            notices.push(format!("cells to the right of the header are not read; rows that have any: {}", self.too_wide));
        }
        notices
    }
}
