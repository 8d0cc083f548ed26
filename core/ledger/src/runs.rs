//! Runs: one execution of a pipeline each.

use reunion_model::RunId;
use serde_json::Value;

use crate::error::{LedgerError, Result};
use crate::seal::{document, parse};
use crate::sql::{Args, Row, args};
use crate::{Lease, Ledger};

/// A run that begins.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, random.
    pub run_id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's clock, which rules and gates go by.
    pub clock_us: i64,
    /// When it began, by the machine's clock.
    pub started_us: i64,
    /// The head that it began with.
    pub base: Option<u64>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// At work.
    Running,
    /// Came to its end, good or bad.
    Finished,
    /// Its process ended before it did.
    Interrupted,
}

impl RunState {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Finished, Self::Interrupted].into_iter().find(|state| state.name() == name)
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub run_id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's clock.
    pub clock_us: i64,
    /// When it began.
    pub started_us: i64,
    /// When it ended.
    pub finished_us: Option<i64>,
    /// The head that it began with.
    pub base: Option<u64>,
    /// The generation that it committed.
    pub generation: Option<u64>,
    /// Where it is.
    pub state: RunState,
    /// What the program answered.
    pub exit_code: Option<i32>,
    /// Its counts; there from the commit of its generation on.
    pub report: Option<Value>,
}

const COLUMNS: &str = "select run_id, pipeline, clock_us, started_us, finished_us, base, generation, state, exit_code, report from runs";

impl Ledger {
    /// Notes that a run begins.
    ///
    /// # Errors
    /// [`LedgerError::FenceLost`].
    pub async fn begin_run(&self, lease: &Lease, run: &NewRun) -> Result<()> {
        let mut tx = self.store.write("begin a run").await?;
        tx.hold(lease).await?;
        let sql =
            "insert into runs (run_id, pipeline, clock_us, started_us, fence, base, state) values ($1, $2, $3, $4, $5, $6, 'running')";
        tx.execute(sql, args![run.run_id, &run.pipeline, run.clock_us, run.started_us, lease.fence, run.base]).await?;
        tx.commit().await
    }

    /// Notes how a run ended. Needs no lease, so that a run that lost it can still say so.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], [`LedgerError::TooLarge`].
    pub async fn finish_run(&self, run_id: RunId, exit_code: i32, report: &Value, finished_us: i64) -> Result<()> {
        let mut tx = self.store.write("finish a run").await?;
        let sql = "update runs set state = 'finished', exit_code = $2, report = $3, finished_us = $4 where run_id = $1";
        let written = tx.execute(sql, args![run_id, exit_code, document("a run's report", report)?, finished_us]).await?;
        if written == 0 {
            return Err(LedgerError::NotFound { what: "run", name: run_id.to_string() });
        }
        tx.commit().await
    }

    /// The last runs, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn runs(&self, limit: u32) -> Result<Vec<Run>> {
        self.select_runs(" order by started_us desc, run_id limit $1", args![limit]).await
    }

    /// One run.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn run(&self, run_id: RunId) -> Result<Option<Run>> {
        Ok(self.select_runs(" where run_id = $1", args![run_id]).await?.pop())
    }

    async fn select_runs(&self, rest: &str, args: Args) -> Result<Vec<Run>> {
        let mut tx = self.store.read("list runs").await?;
        tx.rows(sqlx::AssertSqlSafe(format!("{COLUMNS}{rest}")), args, read_run).await
    }
}

fn read_run(row: &Row) -> Result<Run> {
    Ok(Run {
        run_id: row.id(0)?,
        pipeline: row.text(1)?,
        clock_us: row.int(2)?,
        started_us: row.int(3)?,
        finished_us: row.int_or_null(4)?,
        base: row.unsigned_or_null(5)?,
        generation: row.unsigned_or_null(6)?,
        state: row.word(7, "a run's state", RunState::from_name)?,
        exit_code: row.int_or_null(8)?.map(|code| code as i32),
        report: row.text_or_null(9)?.map(|text| parse("a run's report", &text)).transpose()?,
    })
}
