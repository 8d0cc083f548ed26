//! Reading many files as one stream: row groups are decoded ahead on several threads and given out
//! in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::errors::ParquetError;
use reunion_model::threads::cores;

use crate::GenerationError;
use crate::parquet_file::FileReader;

/// Threads that decode. More would only add to the memory in flight.
const THREADS_MAX: usize = 4;
/// Where fewer than one row in so many is wanted, the others are passed over rather than decoded and dropped.
const FEW_SHARE: usize = 8;

/// Rows of one row group.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which file, by its place in what was asked for: the segment's, or the table's file.
    pub file: usize,
    /// The place in the file of the row group's first row, before dead rows were taken out.
    pub first_row: u64,
    /// The rows, in the schema of [`Batches::schema`].
    pub batch: RecordBatch,
}

/// A row group to be read.
struct Task {
    reader: Arc<FileReader>,
    group: usize,
    group_rows: usize,
    file: usize,
    first_row: u64,
    /// The rows to be read, where not all are.
    rows: Option<BooleanBuffer>,
    /// Places of the asked columns in the file.
    columns: Arc<[usize]>,
}

impl Task {
    fn run(&self, schema: &SchemaRef) -> Result<Part, GenerationError> {
        let few = self.rows.as_ref().filter(|rows| rows.count_set_bits() * FEW_SHARE < rows.len());
        let read = self.reader.read_group(self.group, &self.columns, few)?;
        let batch = match self.rows.as_ref().filter(|_| few.is_none()) {
            None => Ok(read),
            Some(rows) => filter_record_batch(&read, &BooleanArray::new(rows.clone(), None)),
        };
        let batch = batch.and_then(|batch| align(&batch, schema)).map_err(ParquetError::from);
        let batch = batch.map_err(|source| GenerationError::FileDamaged { path: self.reader.path().to_owned(), source })?;
        Ok(Part { file: self.file, first_row: self.first_row, batch })
    }

    fn row_count(&self) -> usize {
        self.rows.as_ref().map_or(self.group_rows, BooleanBuffer::count_set_bits)
    }

    /// Of the rows that are to be read those at these places among them, which ascend.
    fn only(self, places: &[u32]) -> Self {
        let mut kept = BooleanBufferBuilder::new(self.group_rows);
        kept.append_n(self.group_rows, false);
        match &self.rows {
            None => places.iter().for_each(|place| kept.set_bit(*place as usize, true)),
            Some(rows) => {
                let mut places = places.iter().map(|place| *place as usize).peekable();
                for (place, row) in rows.set_indices().enumerate() {
                    if places.next_if_eq(&place).is_some() {
                        kept.set_bit(row, true);
                    }
                }
            }
        }
        Self { rows: Some(kept.finish()), ..self }
    }
}

/// The asked columns of all files, or all columns.
fn schema(table: &str, inputs: &[Input], columns: Option<&[&str]>) -> Result<SchemaRef, GenerationError> {
    let union = union_schema(table, inputs.iter().map(|input| input.reader.schema()))?;
    let Some(asked) = columns else { return Ok(union) };
    let fields: Vec<_> = asked.iter().filter_map(|name| union.fields().find(name)).map(|(_, field)| Arc::clone(field)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// A task for each row group in which anything lives.
fn tasks(inputs: Vec<Input>, schema: &SchemaRef) -> Vec<Task> {
    let mut tasks = Vec::new();
    for input in inputs {
        let places = schema.fields().iter().filter_map(|field| input.reader.schema().index_of(field.name()).ok());
        let columns: Arc<[usize]> = places.collect();
        let mut first_row = 0;
        for (group, group_rows) in input.reader.group_rows().enumerate() {
            let live = input.live.as_ref().map(|live| live.slice(first_row, group_rows));
            let live_rows = live.as_ref().map_or(group_rows, BooleanBuffer::count_set_bits);
            if live_rows > 0 {
                tasks.push(Task {
                    reader: Arc::clone(&input.reader),
                    group,
                    group_rows,
                    file: input.file,
                    first_row: first_row as u64,
                    rows: live.filter(|_| live_rows < group_rows),
                    columns: Arc::clone(&columns),
                });
            }
            first_row += group_rows;
        }
    }
    tasks
}

/// A stream of batches, in the order of files and of rows in them. The n-th batch has the same rows
/// whatever columns were asked for.
pub struct Batches {
    schema: SchemaRef,
    rows: u64,
    source: Source,
}

enum Source {
    /// Too little to be worth a thread.
    Here {
        tasks: std::vec::IntoIter<Task>,
        schema: SchemaRef,
    },
    Threads(Threads),
}

struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    tasks: Vec<Task>,
    schema: SchemaRef,
    /// Tasks that may be ahead of the consumer.
    window: usize,
    queue: Mutex<Queue>,
    /// A result came in.
    ready: Condvar,
    /// A result was taken, or the consumer is gone.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    next_task: usize,
    taken: usize,
    done: BTreeMap<usize, std::thread::Result<Result<Part, GenerationError>>>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock, and a queue is whole between any two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            while !queue.closed && queue.next_task < self.tasks.len() && queue.next_task >= queue.taken + self.window {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.closed || queue.next_task >= self.tasks.len() {
                return;
            }
            let at = queue.next_task;
            queue.next_task += 1;
            drop(queue);
            let result = catch_unwind(AssertUnwindSafe(|| self.tasks[at].run(&self.schema)));
            self.lock().done.insert(at, result);
            self.ready.notify_one();
        }
    }
}

impl Threads {
    fn next(&mut self) -> Option<Result<Part, GenerationError>> {
        let shared = &self.shared;
        let mut queue = shared.lock();
        if queue.taken >= shared.tasks.len() {
            return None;
        }
        let at = queue.taken;
        let result = loop {
            match queue.done.remove(&at) {
                Some(result) => break result,
                None => queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        queue.taken += 1;
        drop(queue);
        shared.room.notify_all();
        Some(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its panics and hands them to the consumer.
            let _ = worker.join();
        }
    }
}

/// What is to be read of one file.
pub(crate) struct Input {
    pub(crate) reader: Arc<FileReader>,
    /// The place of the file in what was asked for.
    pub(crate) file: usize,
    /// The rows that live, where not all do.
    pub(crate) live: Option<BooleanBuffer>,
}

impl Batches {
    /// Reads these files: the asked columns, or all; those that no file has are left out.
    ///
    /// # Errors
    /// [`GenerationError::SchemaConflict`].
    pub(crate) fn new(table: &str, inputs: Vec<Input>, columns: Option<&[&str]>) -> Result<Self, GenerationError> {
        let schema = schema(table, &inputs, columns)?;
        Ok(Self::of(tasks(inputs, &schema), schema))
    }

    /// Reads some rows of these files: of the n-th batch of [`Batches::new`] those at the places that `wanted`
    /// has for n, ascending. A batch of which none is wanted is left out.
    ///
    /// # Errors
    /// [`GenerationError::SchemaConflict`].
    pub(crate) fn rows_at(table: &str, inputs: Vec<Input>, wanted: &BTreeMap<usize, Vec<u32>>) -> Result<Self, GenerationError> {
        let schema = schema(table, &inputs, None)?;
        let tasks = tasks(inputs, &schema).into_iter().enumerate();
        let of_wanted = |(nth, task): (usize, Task)| Some(task.only(wanted.get(&nth).filter(|places| !places.is_empty())?));
        Ok(Self::of(tasks.filter_map(of_wanted).collect(), schema))
    }

    fn of(tasks: Vec<Task>, schema: SchemaRef) -> Self {
        let rows = tasks.iter().map(|task| task.row_count() as u64).sum();
        Self { source: Source::start(tasks, &schema), schema, rows }
    }

    /// The columns of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of the whole stream.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Source {
    fn start(tasks: Vec<Task>, schema: &SchemaRef) -> Self {
        let threads = cores().min(THREADS_MAX).min(tasks.len());
        if threads < 2 {
            return Self::Here { tasks: tasks.into_iter(), schema: Arc::clone(schema) };
        }
        let shared = Arc::new(Shared {
            tasks,
            schema: Arc::clone(schema),
            window: threads + 1,
            queue: Mutex::default(),
            ready: Condvar::new(),
            room: Condvar::new(),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        let workers = (0..threads).map(start).collect();
        Self::Threads(Threads { shared, workers })
    }
}

impl Iterator for Batches {
    type Item = Result<Part, GenerationError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Here { tasks, schema } => tasks.next().map(|task| task.run(schema)),
            Source::Threads(threads) => threads.next(),
        }
    }
}

/// All columns of several schemas, in the order in which they first come; nullable where one of them
/// lacks the column or lets it be null.
pub(crate) fn union_schema<'a>(table: &str, schemas: impl Iterator<Item = &'a SchemaRef>) -> Result<SchemaRef, GenerationError> {
    let mut fields: Vec<Field> = Vec::new();
    for (nth, schema) in schemas.enumerate() {
        for known in &mut fields {
            if schema.field_with_name(known.name()).is_err() {
                known.set_nullable(true);
            }
        }
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || nth > 0)),
                Some(known) if known.data_type() == field.data_type() => known.set_nullable(known.is_nullable() || field.is_nullable()),
                Some(known) => {
                    return Err(GenerationError::SchemaConflict {
                        table: table.to_owned(),
                        column: field.name().clone(),
                        first: known.data_type().clone(),
                        second: field.data_type().clone(),
                    });
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The batch with exactly the columns of `schema`: by name, nulls for those that it lacks, and without
/// those that the schema does not name.
///
/// # Errors
/// Where a type differs, or a column that may not be null is missing.
pub fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| {
        let found = batch.column_by_name(field.name()).map(Arc::clone);
        found.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
    };
    let columns = schema.fields().iter().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}
