//! Segments: what a pull has read so far, made durable piece by piece.
//!
//! A segment is two files: the rows that are new or changed, and the keys of the rows that were there
//! and are unchanged. The ledger commits both together with the resume state that covers exactly them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use reunion_keys::KeyRing;
use reunion_model::limits::SEGMENT_ROWS_MAX;
use reunion_model::record::RECORD_KEY;
use reunion_model::{PullId, RecordKey};
use serde::{Deserialize, Serialize};

use crate::durable::{SEGMENT, create_folder, parent, sync_folder};
use crate::layout::segment_path;
use crate::parquet_file::FileWriter;
use crate::{FileEntry, GenerationError, People};

/// A segment on disk. It is JSON in the ledger and in manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFile {
    /// The source.
    pub source: String,
    /// The pull.
    pub pull: PullId,
    /// Its place in the pull, from 0.
    pub seq: u64,
    /// Rows that are new or changed; none where there were none.
    pub rows: Option<FileEntry>,
    /// Keys of rows that are unchanged; none where there were none.
    pub seen: Option<FileEntry>,
}

impl SegmentFile {
    /// The files of the segment.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.rows.iter().chain(&self.seen)
    }

    /// Rows that are new or changed.
    pub fn row_count(&self) -> u64 {
        self.rows.as_ref().map_or(0, |file| file.rows)
    }

    /// Rows that are unchanged.
    pub fn seen_count(&self) -> u64 {
        self.seen.as_ref().map_or(0, |file| file.rows)
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }
}

/// Writes one segment. Dropped before [`SegmentWriter::finish`], it leaves nothing.
pub struct SegmentWriter {
    keys: Arc<KeyRing>,
    people: PathBuf,
    schema: SchemaRef,
    segment: SegmentFile,
    fence: u64,
    rows: Option<FileWriter>,
    seen: Option<FileWriter>,
}

impl SegmentWriter {
    pub(crate) fn create(
        people: &People,
        source: &str,
        pull: PullId,
        seq: u64,
        fence: u64,
        schema: SchemaRef,
    ) -> Result<Self, GenerationError> {
        if !crate::table::is_key(&schema, RECORD_KEY) {
            return Err(GenerationError::KeyColumn { table: format!("records/{source}"), column: RECORD_KEY.to_owned() });
        }
        let segment = SegmentFile { source: source.to_owned(), pull, seq, rows: None, seen: None };
        let folder = people.state().people();
        create_folder(parent(&folder.join(segment_path(source, pull, seq, "", fence))))?;
        Ok(Self { keys: Arc::clone(people.keys()), people: folder, schema, segment, fence, rows: None, seen: None })
    }

    /// Adds rows that are new or changed. Gives the place of the first of them in the segment.
    ///
    /// # Errors
    /// [`GenerationError::SegmentFull`] beyond [`SEGMENT_ROWS_MAX`] rows, and the disk's.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<u64, GenerationError> {
        let first_row = self.rows.as_ref().map_or(0, FileWriter::rows);
        if batch.num_rows() == 0 {
            return Ok(first_row);
        }
        room(&self.rows, batch.num_rows())?;
        let writer = match &mut self.rows {
            Some(writer) => writer,
            none => none.insert(FileWriter::create(
                &self.keys,
                &self.people,
                segment_path(&self.segment.source, self.segment.pull, self.segment.seq, "", self.fence),
                &SEGMENT,
                &self.schema,
                batch,
            )?),
        };
        writer.write(batch)?;
        Ok(first_row)
    }

    /// Adds keys of rows that were pulled and are unchanged.
    ///
    /// # Errors
    /// As [`SegmentWriter::write`].
    pub fn seen(&mut self, keys: &[RecordKey]) -> Result<(), GenerationError> {
        if keys.is_empty() {
            return Ok(());
        }
        room(&self.seen, keys.len())?;
        let batch = key_batch(RECORD_KEY, keys.iter().map(|key| key.0));
        let writer = match &mut self.seen {
            Some(writer) => writer,
            none => none.insert(FileWriter::create(
                &self.keys,
                &self.people,
                segment_path(&self.segment.source, self.segment.pull, self.segment.seq, "-seen", self.fence),
                &SEGMENT,
                &batch.schema(),
                &batch,
            )?),
        };
        writer.write(&batch)
    }

    /// Rows and seen keys so far: when it comes near [`SEGMENT_ROWS_MAX`], finish the segment.
    pub fn rows(&self) -> u64 {
        [&self.rows, &self.seen].into_iter().flatten().map(FileWriter::rows).sum()
    }

    /// Bytes so far, about.
    pub fn bytes_estimate(&self) -> u64 {
        [&self.rows, &self.seen].into_iter().flatten().map(FileWriter::bytes_estimate).sum()
    }

    /// Makes the segment durable: files synced and named, folder synced.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self) -> Result<SegmentFile, GenerationError> {
        let mut segment = self.segment;
        segment.rows = self.rows.map(FileWriter::finish).transpose()?;
        segment.seen = self.seen.map(FileWriter::finish).transpose()?;
        let folders: BTreeSet<_> = segment.files().map(|file| parent(&self.people.join(&file.path)).to_owned()).collect();
        for folder in folders {
            sync_folder(&folder, &SEGMENT)?;
        }
        Ok(segment)
    }
}

fn room(writer: &Option<FileWriter>, more: usize) -> Result<(), GenerationError> {
    let rows = writer.as_ref().map_or(0, FileWriter::rows) + more as u64;
    if rows > SEGMENT_ROWS_MAX as u64 { Err(GenerationError::SegmentFull { rows_max: SEGMENT_ROWS_MAX }) } else { Ok(()) }
}

/// A batch of nothing but keys.
pub(crate) fn key_batch(column: &str, keys: impl ExactSizeIterator<Item = [u8; 16]>) -> RecordBatch {
    let mut bytes = Vec::with_capacity(keys.len() * 16);
    keys.for_each(|key| bytes.extend_from_slice(&key));
    let schema = Schema::new(vec![Field::new(column, DataType::FixedSizeBinary(16), false)]);
    let array: ArrayRef = Arc::new(FixedSizeBinaryArray::new(16, Buffer::from_vec(bytes), None));
    RecordBatch::try_new(Arc::new(schema), vec![array]).expect("one column of its own type")
}
