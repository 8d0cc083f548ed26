//! Read-only SQL over tables that the caller gives.
//!
//! A query runs on a thread and a runtime of its own, within a bound of memory. Nothing is spilled to disk:
//! the tables hold personal data, and a scratch file of the engine's would not be encrypted.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, DataFusionError, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;

use reunion_model::threads::cores;

use crate::QueryError;
use crate::engine::{Clock, hex_function};
use crate::scan::{Complaint, Scan};
use crate::translate::{masked, nearest, one_line, translate};

/// Stack of the threads that plan and run a query.
const STACK_BYTES: usize = 64 << 20;

/// A table that a query may name.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows, each batch of that schema. Queries see ids and phones as text, and moments in the timezone.
    pub batches: Vec<RecordBatch>,
}

/// The clock of a query.
#[derive(Debug, Clone)]
pub struct QueryClock {
    /// What `now()` gives, microseconds UTC.
    pub at_us: i64,
    /// Where days are cut, an IANA name.
    pub timezone: String,
}

/// What a query may use.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// Rows of the result; more are an error, never cut off.
    pub rows_max: usize,
    /// Bytes of the engine's memory, the tables aside; and bytes of the result.
    pub memory_bytes_max: usize,
}

/// Runs one query: `select`, `with`, `values`, `explain`, `show tables` or `describe`. The result has at
/// least one batch, which tells the columns.
///
/// # Errors
/// Where the text is wrong, would change something, or needs more than the limits.
pub async fn query(sql: &str, tables: Vec<Table>, clock: QueryClock, limits: QueryLimits) -> Result<Vec<RecordBatch>, QueryError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let sql = sql.to_owned();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores()).thread_stack_size(STACK_BYTES).build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(run(&sql, tables, &clock, limits)),
            Err(error) => Err(QueryError::Engine(DataFusionError::IoError(error))),
        };
        // Where nobody waits any more, the result is not wanted.
        drop(send.send(result));
    };
    std::thread::Builder::new()
        .name("query".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map_err(|error| QueryError::Engine(DataFusionError::IoError(error)))?;
    receive.await.map_err(|_| QueryError::Stopped)?
}

async fn run(sql: &str, tables: Vec<Table>, clock: &QueryClock, limits: QueryLimits) -> Result<Vec<RecordBatch>, QueryError> {
    let scan = Scan::of(sql, "query")
        .map_err(|complaint| text(complaint.suggest_if_none("write a query, such as select count(*) from members")))?;
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let columns: Vec<String> = tables.iter().flat_map(|table| table.schema.fields().iter().map(|field| field.name().clone())).collect();
    let context = context(tables, clock, limits)?;

    let failed = |error: DataFusionError| {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        failure(&error, sql, &scan, &names, &columns, limits)
    };
    let plan = context.state().create_logical_plan(sql).await.map_err(failed)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(|_| QueryError::NotReadOnly)?;
    let mut stream = DataFrame::new(context.state(), plan).execute_stream().await.map_err(failed)?;

    let schema = stream.schema();
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        if rows > limits.rows_max {
            return Err(QueryError::RowsMax { rows_max: limits.rows_max });
        }
        if bytes > limits.memory_bytes_max {
            return Err(QueryError::MemoryMax { bytes_max: limits.memory_bytes_max });
        }
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

fn context(tables: Vec<Table>, clock: &QueryClock, limits: QueryLimits) -> Result<SessionContext, QueryError> {
    let clock = Clock::new(clock.at_us, &clock.timezone).map_err(|message| text(Complaint::new(message)))?;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(limits.memory_bytes_max, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(QueryError::Engine)?;
    let config = SessionConfig::new().with_information_schema(true).with_target_partitions(cores());
    let context = SessionContext::new_with_state(clock.session(config, Some(runtime)).map_err(QueryError::Engine)?);
    for table in tables {
        register(&context, table, &clock).map_err(QueryError::Engine)?;
    }
    Ok(context)
}

/// Registers the table as a view, so that only the columns that a query reads are shown in another type.
fn register(context: &SessionContext, table: Table, clock: &Clock) -> Result<(), DataFusionError> {
    let batches = table.batches.into_iter().filter(|batch| batch.num_rows() > 0).collect();
    // Nullability differs between files of one table; a query does not rely on it.
    let fields: Vec<Field> = table.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let retyped = |batch: RecordBatch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec());
    let batches = Vec::into_iter(batches).map(retyped).collect::<Result<Vec<_>, _>>()?;
    let rows = context.read_table(Arc::new(MemTable::try_new(Arc::clone(&schema), spread(batches))?))?;
    let hex = hex_function();
    let shown = schema.fields().iter().map(|field| {
        let column = Expr::Column(Column::from_name(field.name()));
        let shown = match (field.data_type(), clock.presented_type(field.name(), field.data_type())) {
            (stored, shown) if *stored == shown => column,
            (DataType::FixedSizeBinary(_), _) => hex.call(vec![column]),
            (_, shown) => cast(column, shown),
        };
        shown.alias(field.name())
    });
    let shown: Vec<Expr> = shown.collect();
    context.register_table(TableReference::bare(table.name), rows.select(shown)?.into_view())?;
    Ok(())
}

/// The batches in as many partitions as there are cores.
fn spread(batches: Vec<RecordBatch>) -> Vec<Vec<RecordBatch>> {
    let mut partitions = vec![Vec::new(); cores().min(batches.len()).max(1)];
    let count = partitions.len();
    for (at, batch) in batches.into_iter().enumerate() {
        partitions[at % count].push(batch);
    }
    partitions
}

fn text(complaint: Complaint) -> QueryError {
    QueryError::Text { message: complaint.message, suggestion: complaint.suggestion, span: complaint.span }
}

fn failure(error: &DataFusionError, sql: &str, scan: &Scan, tables: &[String], columns: &[&str], limits: QueryLimits) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => QueryError::MemoryMax { bytes_max: limits.memory_bytes_max },
        root @ (DataFusionError::ArrowError(..)
        | DataFusionError::Execution(_)
        | DataFusionError::Internal(_)
        | DataFusionError::External(_)) => QueryError::Failed(masked(&one_line(&root.message()))),
        _ => {
            let mut complaint = translate(error, sql, scan, columns);
            if let Some(name) = complaint.message.strip_prefix("there is no table `").and_then(|rest| rest.strip_suffix('`')) {
                let near = nearest(name, tables.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
                let all = || format!("there are {}", tables.iter().map(|table| format!("`{table}`")).collect::<Vec<_>>().join(", "));
                complaint.suggestion = Some(near.unwrap_or_else(all));
            }
            text(complaint)
        }
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
