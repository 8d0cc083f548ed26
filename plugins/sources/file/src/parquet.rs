//! Parquet files: their columns keep their types.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use reunion_sdk::{Call, ErrorClass, PluginError, Reason, RejectedBuilder, limits};
use xxhash_rust::xxh3::Xxh3;

use crate::chunk::fault_of;
use crate::config::Config;
use crate::listing::{Entry, io_error, read_error};
use crate::table::{self, Chunk, Place, Projection, Rows, Table};

/// Bytes of a column within a row group, unpacked; a page of it is in memory.
const COLUMN_BYTES_MAX: i64 = 1 << 30;
/// Bytes of a batch that are aimed at.
const BATCH_BYTES: u64 = 8 << 20;

/// A Parquet file that was looked at.
struct Parquet {
    call: Call,
    entry: Entry,
    config: Arc<Config>,
    builder: ParquetRecordBatchReaderBuilder<File>,
    /// The columns that can be read, and the place of each in the file.
    fields: Vec<Field>,
    roots: Vec<usize>,
    notices: Vec<String>,
}

/// Looks at the footer of a Parquet file.
///
/// # Errors
/// Invalid data where it is damaged, or has no column that can be read.
pub fn open(call: &Call, file: File, entry: &Entry, config: &Arc<Config>) -> Result<Box<dyn Table>, PluginError> {
    guarded(&entry.name, || look(call, file, entry, config))
}

fn look(call: &Call, file: File, entry: &Entry, config: &Arc<Config>) -> Result<Box<dyn Table>, PluginError> {
    // The types of Arrow that a writer may have noted are many; those of Parquet are few and hold the same.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|error| failed(&entry.name, &error))?;
    let invalid = |message: String| PluginError::new(ErrorClass::InvalidData, format!("{} {message}", entry.name));
    let chunks = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    if chunks.clone().any(|chunk| chunk.uncompressed_size() > COLUMN_BYTES_MAX) {
        let message = format!("has more than {} MiB of one column in one row group", COLUMN_BYTES_MAX >> 20);
        return Err(invalid(message).hint("write it with smaller row groups"));
    }
    let (mut fields, mut roots, mut notices) = (Vec::new(), Vec::new(), Vec::new());
    for (root, field) in builder.schema().fields().iter().enumerate() {
        match unreadable(field.data_type()) {
            None => {
                fields.push(Field::new(field.name(), field.data_type().clone(), true));
                roots.push(root);
            }
            Some(what) => {
                notices.push(format!("the column {:?} holds {what}, which no column of a member can be, and is not read", field.name()));
            }
        }
    }
    if fields.len() > limits::COLUMNS_MAX {
        return Err(invalid(format!("has {} columns, more than {}", fields.len(), limits::COLUMNS_MAX)));
    }
    if let Some(twice) = (1..fields.len()).find(|at| fields[..*at].iter().any(|field| field.name() == fields[*at].name())) {
        return Err(
            invalid(format!("has two columns that are named {:?}", fields[twice].name())).hint("give each column a name of its own")
        );
    }
    if fields.is_empty() {
        return Err(invalid("has no column that can be read".into()).hint(notices.join("; ")));
    }
    Ok(Box::new(Parquet { call: call.clone(), entry: entry.clone(), config: Arc::clone(config), builder, fields, roots, notices }))
}

/// What columns of a type hold, where no member can have it.
fn unreadable(kind: &DataType) -> Option<&'static str> {
    match kind {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Map(..) => Some("lists"),
        DataType::Struct(_) => Some("records"),
        DataType::Utf8 | DataType::Boolean | DataType::Null => None,
        DataType::Interval(_) => Some("intervals"),
        kind if kind.is_primitive() => None,
        _ => Some("bytes"),
    }
}

fn failed(name: &str, error: &ParquetError) -> PluginError {
    match io_error(error).filter(|error| error.raw_os_error().is_some()) {
        Some(error) => read_error(name, error),
        None => broken(name, &error.to_string()),
    }
}

fn broken(name: &str, why: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("{name} is no whole Parquet file: {why}")).hint("write it again")
}

fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    table::guarded(work, || broken(name, "its parts do not fit together"))
}

impl Table for Parquet {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn notices(&self) -> &[String] {
        &self.notices
    }

    fn start(&self) -> Place {
        Place { bytes: self.entry.stat.size, row: 0 }
    }

    fn rows(self: Box<Self>, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError> {
        let name = self.entry.name.clone();
        tracing::debug!(file = name, row = from.row, "reading");
        guarded(&name, || (*self).read(projection, from))
    }
}

impl Parquet {
    fn read(self, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError> {
        let Self { call, entry, config, builder, roots, .. } = self;
        let roots: Vec<_> = projection.places.iter().map(|place| roots[*place]).collect();
        let mut sorted = roots.clone();
        sorted.sort_unstable();
        // A reader gives columns in the file's order.
        let places = roots.iter().map(|root| sorted.partition_point(|other| other < root)).collect();
        let groups = builder.metadata().row_groups();
        let bytes: u64 = groups.iter().map(|group| group.total_byte_size().unsigned_abs()).sum();
        let rows: u64 = groups.iter().map(|group| group.num_rows().unsigned_abs()).sum();
        let batch_rows = (BATCH_BYTES / (bytes / rows.max(1)).max(1)).clamp(1, limits::BATCH_ROWS_MAX as u64);
        let mask = ProjectionMask::roots(builder.parquet_schema(), sorted);
        let builder = builder.with_projection(mask).with_batch_size(batch_rows as usize).with_offset(from.row as usize);
        let reader = builder.build().map_err(|error| failed(&entry.name, &error))?;
        Ok(Box::new(ParquetRows { call, name: entry.name, config, reader, projection: Projection { places, ..projection }, place: from }))
    }
}

/// A Parquet file that is read.
struct ParquetRows {
    call: Call,
    name: String,
    config: Arc<Config>,
    reader: ParquetRecordBatchReader,
    /// With the places in the reader's batches.
    projection: Projection,
    place: Place,
}

impl Rows for ParquetRows {
    fn next_chunk(&mut self, _: &mut Xxh3) -> Result<Option<Chunk>, PluginError> {
        self.call.check()?;
        let reader = &mut self.reader;
        let batch = guarded(&self.name, || reader.next().transpose().map_err(|error| failed(&self.name, &ParquetError::from(error))))?;
        let Some(batch) = batch else { return Ok(None) };
        let columns = self.projection.places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.projection.schema), columns)
            .map_err(|error| failed(&self.name, &ParquetError::from(error)))?;
        let chunk = self.sort(batch)?;
        self.place.row += chunk.1 as u64;
        Ok(Some(chunk.0))
    }

    fn place(&self) -> Option<Place> {
        Some(self.place)
    }
}

impl ParquetRows {
    /// Sets rows aside that cannot be read, and passes over those without any value. How many there were, too.
    fn sort(&self, batch: RecordBatch) -> Result<(Chunk, usize), PluginError> {
        let rows = batch.num_rows();
        let mut is_good = has_value(&batch);
        let mut rejected = RejectedBuilder::new();
        if self.may_have_faults(&batch) {
            let mut text = String::new();
            for (row, is_good) in is_good.iter_mut().enumerate() {
                text.clear();
                texts(&batch).filter(|column| column.is_valid(row)).for_each(|column| text.push_str(column.value(row)));
                if let Some((reason, detail)) = fault_of(&text, &self.config) {
                    *is_good = false;
                    self.reject(&mut rejected, row, reason, &detail);
                }
            }
        }
        let batch = if is_good.contains(&false) {
            filter_record_batch(&batch, &BooleanArray::from(is_good)).map_err(|error| failed(&self.name, &ParquetError::from(error)))?
        } else {
            batch
        };
        let mut chunk = Chunk { rows: batch.num_rows() + rejected.len(), ..Chunk::default() };
        if batch.num_rows() > 0 {
            chunk.batches.push(batch);
        }
        if !rejected.is_empty() {
            chunk.rejected.push(rejected.finish());
        }
        Ok((chunk, rows))
    }

    fn reject(&self, rejected: &mut RejectedBuilder, row: usize, reason: Reason, detail: &str) {
        rejected.push(&format!("{}:{}", self.name, self.place.row + row as u64 + 1), reason, Some(detail));
    }

    /// Looks at the texts of all rows at once.
    fn may_have_faults(&self, batch: &RecordBatch) -> bool {
        let bytes: usize = texts(batch).map(|column| column.value_data().len()).sum();
        bytes > self.config.row_bytes_max || texts(batch).any(|column| memchr::memchr(0, column.value_data()).is_some())
    }
}

fn texts(batch: &RecordBatch) -> impl Iterator<Item = &arrow::array::StringArray> {
    batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>())
}

/// Which rows have any value.
fn has_value(batch: &RecordBatch) -> Vec<bool> {
    if batch.columns().iter().any(|column| column.logical_null_count() == 0) {
        return vec![true; batch.num_rows()];
    }
    (0..batch.num_rows()).map(|row| batch.columns().iter().any(|column| column.is_valid(row))).collect()
}
