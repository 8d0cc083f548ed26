//! What every format gives: a table of columns, and its rows a chunk at a time.

use std::panic::{self, AssertUnwindSafe};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use reunion_sdk::PluginError;
use xxhash_rust::xxh3::Xxh3;

/// Where a read stands in a file, between two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// So much of the file decides the rows before. All of it, where a format cannot be told from its
    /// beginning.
    pub bytes: u64,
    /// The row that comes next, as the format counts: the line of a text, the number of a record.
    pub row: u64,
}

/// What became of the rows of a chunk. Rows without any value are in neither list.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Rows that were read.
    pub batches: Vec<RecordBatch>,
    /// Rows that could not be.
    pub rejected: Vec<RecordBatch>,
    /// How many rows both have.
    pub rows: usize,
    /// How many bytes of the file they took, where the format tells.
    pub bytes: usize,
}

/// How a file's rows become those of the source.
#[derive(Debug, Clone)]
pub struct Projection {
    /// The source's columns.
    pub schema: SchemaRef,
    /// The place in the file's rows of each of them.
    pub places: Vec<usize>,
}

/// A file that was looked at.
pub trait Table: Send {
    /// Its columns.
    fn fields(&self) -> &[Field];

    /// What of the file is not read, and why.
    fn notices(&self) -> &[String] {
        &[]
    }

    /// Where its first row stands.
    fn start(&self) -> Place;

    /// Its rows from a place on.
    ///
    /// # Errors
    /// Where the file cannot be read.
    fn rows(self: Box<Self>, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError>;
}

/// A file that is read.
pub trait Rows: Send {
    /// The next chunk; `None` at the end. What it takes of the file beyond [`Table::start`] is given to
    /// `digest`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    fn next_chunk(&mut self, digest: &mut Xxh3) -> Result<Option<Chunk>, PluginError>;

    /// Where to go on; `None` within a row that was rejected already.
    fn place(&self) -> Option<Place>;
}

/// A column of text, any value of which may be missing.
pub fn text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// Does what a library may panic of where a file is damaged, which `damaged` then says.
///
/// # Errors
/// Those of `work` and `damaged`.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, PluginError>, damaged: impl FnOnce() -> PluginError) -> Result<T, PluginError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged()))
}
