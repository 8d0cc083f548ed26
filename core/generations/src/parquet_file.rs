//! One encrypted Parquet file: how it is written fast, and read a row group at a time.
//!
//! Uniform encryption (the footer key for everything), AES-256-GCM; the footer's key metadata is the
//! version of the data key as four bytes, so that a file says which key it needs. Any reader that
//! knows Parquet encryption can read it with the key that `reunion key export` gives.

use std::collections::HashSet;
use std::fs::File;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchReader};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, concat_batches, max, min};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use reunion_keys::KeyRing;
use reunion_model::limits::BATCH_ROWS_MAX;

use crate::durable::{NewFile, Points, failed};
use crate::sixteen::{self, is_sixteen};
use crate::{DiskError, FileEntry, GenerationError};

/// Rows of a row group, of which only a file's last has fewer. It is also the batch that readers are given: large
/// enough for kernels, small enough that a few of them in flight stay far below the limit on memory.
pub const GROUP_ROWS: usize = 1 << 15;
/// Rows of a page: it is encoded, compressed and encrypted one after the other, and stays in the cache meanwhile.
const PAGE_ROWS: usize = 1 << 14;
/// Rows of the first batch that decide which columns get a dictionary.
const SAMPLE_ROWS: usize = 2048;

/// What integers that lie close differ by at the most.
const CLOSE_MAX: u64 = 1 << 24;

/// Batches that wait for the encoder, at the most.
const WAITING_MAX: usize = 2;

/// Writes one file. A thread of its own encodes, compresses and encrypts, beside whoever makes the rows.
/// Dropped before [`FileWriter::finish`], it leaves nothing.
pub(crate) struct FileWriter {
    /// None once the encoder was told to end.
    batches: Option<SyncSender<RecordBatch>>,
    encoder: Option<JoinHandle<Result<NewFile, ParquetError>>>,
    bytes: Arc<AtomicU64>,
    path: PathBuf,
    /// The path that manifests use.
    name: String,
    /// The version of the data key.
    data_key: u32,
    rows: u64,
}

impl FileWriter {
    /// Begins the file `name` under `people`. The first batch, which is not written by this, decides the
    /// encodings.
    pub(crate) fn create(
        keys: &KeyRing,
        people: &Path,
        name: String,
        points: &'static Points,
        schema: &SchemaRef,
        first: &RecordBatch,
    ) -> Result<Self, GenerationError> {
        let path = people.join(&name);
        let file = NewFile::create(&path, points)?;
        let properties = properties(keys, first).map_err(GenerationError::writing(&path))?;
        let schema = sixteen::in_file(schema);
        let arrow = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(GenerationError::writing(&path))?;
        let (batches, waiting) = sync_channel(WAITING_MAX);
        let bytes = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&bytes);
        let encoder = std::thread::spawn(move || encode(arrow, &schema, waiting, &written));
        Ok(Self { batches: Some(batches), encoder: Some(encoder), bytes, path, name, data_key: keys.current(), rows: 0 })
    }

    /// Adds rows. Full row groups go to the disk at once. What the disk refuses is said here or later.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), GenerationError> {
        let taken = self.batches.as_ref().is_some_and(|batches| batches.send(batch.clone()).is_ok());
        if !taken {
            return self.end().map(|_| ());
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Rows written.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes that the file has or will have, about.
    pub(crate) fn bytes_estimate(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends the file, syncs it and gives it its name. The folder is the caller's to sync.
    pub(crate) fn finish(mut self) -> Result<FileEntry, GenerationError> {
        let file = self.end()?;
        debug_assert_eq!(file.path(), self.path);
        let (bytes, checksum) = file.commit()?;
        Ok(FileEntry { path: std::mem::take(&mut self.name), rows: self.rows, bytes, checksum, data_key: Some(self.data_key) })
    }

    /// Waits for the encoder; the file with all that was written, or why it could not be.
    fn end(&mut self) -> Result<NewFile, GenerationError> {
        self.batches = None;
        let gone = || Err(ParquetError::General("the file was given up after an error".to_owned()));
        let ended = self.encoder.take().map_or_else(gone, |encoder| encoder.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.map_err(GenerationError::writing(&self.path))
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(encoder) = self.encoder.take() {
            // What it has written goes with it.
            let _ = encoder.join();
        }
    }
}

fn encode(
    mut arrow: ArrowWriter<NewFile>,
    schema: &SchemaRef,
    batches: Receiver<RecordBatch>,
    bytes: &AtomicU64,
) -> Result<NewFile, ParquetError> {
    for batch in batches {
        // In pieces that stay in the cache: the encoder makes copies of what it is given.
        for row in (0..batch.num_rows()).step_by(BATCH_ROWS_MAX) {
            let piece = batch.slice(row, BATCH_ROWS_MAX.min(batch.num_rows() - row));
            arrow.write(&sixteen::to_write(&piece, schema)?)?;
        }
        bytes.store((arrow.bytes_written() + arrow.in_progress_size()) as u64, Ordering::Relaxed);
    }
    arrow.into_inner()
}

fn properties(keys: &KeyRing, first: &RecordBatch) -> Result<WriterProperties, ParquetError> {
    let version = keys.current();
    let key = keys.file_key(version).expect("the current data key is there");
    let encryption = FileEncryptionProperties::builder(key.to_vec()).with_footer_key_metadata(version.to_be_bytes().to_vec()).build()?;
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("reunion ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(BATCH_ROWS_MAX)
        .with_file_encryption_properties(encryption);
    for (field, column) in first.schema_ref().fields().iter().zip(first.columns()) {
        let path = ColumnPath::from(field.name().as_str());
        match field.data_type() {
            DataType::Utf8 if repeats(column) => builder = builder.set_column_dictionary_enabled(path, true),
            DataType::Utf8 => {}
            // Ids and hashes do not repeat, and numbers are small beside them: what they would shrink by is
            // not worth the time.
            kind => {
                if is_sixteen(kind) {
                    // Their lengths, which are all the same, take next to nothing so.
                    builder = builder.set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
                } else if lie_close(column)? {
                    builder = builder.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
                }
                builder = builder.set_column_compression(path, Compression::UNCOMPRESSED);
            }
        }
    }
    Ok(builder.build())
}

/// Whether a text column says few things many times over, so that a dictionary pays.
fn repeats(column: &dyn Array) -> bool {
    let texts = column.as_string::<i32>();
    let sample = texts.iter().take(SAMPLE_ROWS).flatten();
    let (mut seen, mut count) = (HashSet::new(), 0);
    for text in sample {
        count += 1;
        seen.insert(text);
    }
    seen.len() * 4 <= count
}

/// Whether a column has long integers that are so near to one another that the steps between them take a small part of
/// what they take.
fn lie_close(column: &ArrayRef) -> Result<bool, ParquetError> {
    let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
    // As they lie in a file.
    let numbers = match column.data_type() {
        DataType::Int64 | DataType::UInt64 | DataType::Timestamp(..) => cast(&sample, &DataType::Int64)?,
        DataType::Decimal128(digits, _) if *digits <= 18 => {
            Arc::new(sample.as_primitive::<Decimal128Type>().unary::<_, Int64Type>(|value| value as i64))
        }
        _ => return Ok(false),
    };
    let numbers = numbers.as_primitive::<Int64Type>();
    Ok(min(numbers).zip(max(numbers)).is_some_and(|(least, most)| most.abs_diff(least) < CLOSE_MAX))
}

/// Gives readers the key that a file's footer asks for.
struct Retriever(Arc<KeyRing>);

impl KeyRetriever for Retriever {
    fn retrieve_key(&self, metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
        let version = metadata.try_into().map(u32::from_be_bytes);
        let version = version.map_err(|_| ParquetError::General("the footer names no version of the data key".to_owned()))?;
        let key = self.0.file_key(version).map(|key| key.to_vec());
        key.ok_or_else(|| {
            ParquetError::General(format!("the file needs version {version} of the data key, which this state does not have"))
        })
    }
}

/// A file whose footer was read. Cheap to share between threads: each read opens the file anew.
pub(crate) struct FileReader {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
}

impl FileReader {
    /// Opens a file and reads its footer.
    pub(crate) fn open(keys: &Arc<KeyRing>, people: &Path, name: &str) -> Result<Self, GenerationError> {
        let path = people.join(name);
        let file = open(&path)?;
        let retriever: Arc<dyn KeyRetriever> = Arc::new(Retriever(Arc::clone(keys)));
        let load = || {
            let decryption = FileDecryptionProperties::with_key_retriever(retriever).build()?;
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_file_decryption_properties(decryption))
        };
        let metadata = load().map_err(GenerationError::reading(&path))?;
        Ok(Self { path, schema: sixteen::from_file(metadata.schema()), metadata })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of each row group.
    pub(crate) fn group_rows(&self) -> impl Iterator<Item = usize> {
        self.metadata.metadata().row_groups().iter().map(|group| usize::try_from(group.num_rows()).unwrap_or_default())
    }

    /// One row group, or these few rows of it: the columns at these places in the file's schema.
    pub(crate) fn read_group(&self, group: usize, columns: &[usize], few: Option<&BooleanBuffer>) -> Result<RecordBatch, GenerationError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(open(&self.path)?, self.metadata.clone());
        if let Some(few) = few {
            let selection = RowSelection::from_boolean_buffer(few.clone());
            builder = builder.with_row_selection(selection).with_row_selection_policy(RowSelectionPolicy::Selectors);
        }
        let reader = builder.with_row_groups(vec![group]).with_batch_size(GROUP_ROWS).with_projection(mask).build();
        let reader = reader.map_err(GenerationError::reading(&self.path))?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>();
        let damaged = |error| GenerationError::reading(&self.path)(ParquetError::from(error));
        let batch = match <[RecordBatch; 1]>::try_from(batches.map_err(damaged)?) {
            Ok([batch]) => Ok(batch),
            Err(batches) => concat_batches(&schema, &batches),
        };
        batch.and_then(|batch| sixteen::as_read(&batch, &sixteen::from_file(&schema))).map_err(damaged)
    }
}

fn open(path: &Path) -> Result<File, DiskError> {
    File::open(path).map_err(failed("open", path))
}
