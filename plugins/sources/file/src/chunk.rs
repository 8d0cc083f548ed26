//! Makes chunks of rows whose cells are text.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use reunion_sdk::{Reason, RejectedBuilder, limits};

use crate::config::Config;
use crate::table::{Chunk, Projection};

/// Bytes of text after which a chunk is full.
const BYTES_MAX: usize = 8 << 20;

/// A row that is being read.
pub struct Row {
    /// Its cells' text, in the order in which they came.
    pub text: String,
    /// Where each of them stands in it; what is empty is null.
    pub cells: Vec<Range<usize>>,
    /// Why it cannot be read, the first reason that was found.
    fault: Option<(Reason, String)>,
}

impl Row {
    /// An empty row of so many cells.
    pub fn new(width: usize) -> Self {
        Self { text: String::new(), cells: vec![0..0; width], fault: None }
    }

    /// The row cannot be read.
    pub fn reject(&mut self, reason: Reason, detail: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(|| (reason, detail()));
    }
}

/// Sorts rows into those that were read and those that could not be.
pub struct ChunkBuilder {
    config: Arc<Config>,
    projection: Projection,
    columns: Vec<StringBuilder>,
    rejected: RejectedBuilder,
    rows: usize,
    bytes: usize,
}

impl ChunkBuilder {
    /// No rows yet.
    pub fn new(config: Arc<Config>, projection: Projection) -> Self {
        let columns = projection.places.iter().map(|_| StringBuilder::new()).collect();
        Self { config, projection, columns, rejected: RejectedBuilder::new(), rows: 0, bytes: 0 }
    }

    /// Takes a row, and leaves it empty. One without any value is passed over.
    pub fn take(&mut self, row: &mut Row, location: impl FnOnce() -> String) {
        let fault = row.fault.take().or_else(|| fault_of(&row.text, &self.config));
        if let Some((reason, detail)) = fault {
            self.reject(&location(), reason, &detail);
        } else if row.cells.iter().any(|cell| !cell.is_empty()) {
            self.push(row);
        }
        row.text.clear();
        row.cells.fill(0..0);
    }

    fn push(&mut self, row: &Row) {
        for (column, place) in self.columns.iter_mut().zip(&self.projection.places) {
            let text = &row.text[row.cells[*place].clone()];
            let is_null = text.is_empty() || self.config.nulls.iter().any(|null| null == text);
            column.append_option((!is_null).then_some(text));
        }
        self.rows += 1;
        self.bytes += row.text.len();
    }

    /// Sets a row aside.
    pub fn reject(&mut self, location: &str, reason: Reason, detail: &str) {
        self.rejected.push(location, reason, Some(detail));
    }

    /// Whether the rows so far are enough for a chunk.
    pub fn is_full(&self) -> bool {
        self.rows + self.rejected.len() >= limits::BATCH_ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows + self.rejected.len() == 0
    }

    /// The rows so far; none are left.
    pub fn finish(&mut self) -> Chunk {
        let mut chunk = Chunk { rows: self.rows + self.rejected.len(), ..Chunk::default() };
        if self.rows > 0 {
            let columns = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
            let batch = RecordBatch::try_new(Arc::clone(&self.projection.schema), columns);
            chunk.batches.push(batch.expect("the columns are those of the schema, all of one length"));
        }
        if !self.rejected.is_empty() {
            chunk.rejected.push(self.rejected.finish());
        }
        (self.rows, self.bytes) = (0, 0);
        chunk
    }
}

/// Why a row of this text cannot be read, if so.
pub fn fault_of(text: &str, config: &Config) -> Option<(Reason, String)> {
    if text.len() > config.row_bytes_max {
        return Some((Reason::RowTooLong, format!("longer than {} bytes", config.row_bytes_max)));
    }
    let has_nul = memchr::memchr(0, text.as_bytes()).is_some();
    has_nul.then(|| (Reason::RowNul, "the row holds a zero byte".to_owned()))
}
