//! What operators do to tasks: requeue and drop. Every such act is in the audit.

use reunion_model::{TaskId, TaskState};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::Result;
use crate::sql::{Tx, args};
use crate::tasks::{Move, TaskFilter, read_state};

/// What a requeue did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requeued {
    /// Tasks of unknown outcome that are sent again now, on the operator's word.
    pub unknown: u64,
    /// Tasks that were to be tried later and are tried at once.
    pub not_sent: u64,
    /// Tasks that match and cannot be requeued: they are done, or are being sent.
    pub left_alone: u64,
}

/// The code of tasks that an operator dropped.
const DROPPED: &str = "dropped";

impl Ledger {
    /// Lets tasks be sent again: those of unknown outcome, which may reach a member twice, and those
    /// that wait for their next try. All others that match are left alone.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn requeue(&self, filter: &TaskFilter, who: &str, now_us: i64) -> Result<Requeued> {
        let mut tx = self.store.write("requeue tasks").await?;
        let matching = tx.matching(filter).await?;
        let of = |state| matching.iter().filter(move |(_, found)| *found == state).map(|(task_id, _)| args![*task_id]);
        // Due at once, by the clock of a rehearsal too.
        let sql = "update tasks set retry = 1, not_before_us = 0 where state = 'unknown' and task_id in (values {values})";
        let unknown = tx.bulk(sql, &args![], of(TaskState::Unknown)).await?;
        // Those of a dispatch that waits for its next push are pushed with it, now.
        let sql = "update dispatches set retry_at_us = 0 where state = 'failed' \
             and dispatch_id in (select dispatch_id from tasks where task_id in (values {values}))";
        tx.bulk(sql, &args![], of(TaskState::Unknown)).await?;
        let sql = "update tasks set not_before_us = 0 where state = 'not_sent' and task_id in (values {values})";
        let not_sent = tx.bulk(sql, &args![], of(TaskState::NotSent)).await?;
        tx.audit(now_us, who, "tasks requeue", &filter.to_string(), &format!("{unknown} unknown, {not_sent} not sent")).await?;
        tx.commit().await?;
        Ok(Requeued { unknown, not_sent, left_alone: matching.len() as u64 - unknown - not_sent })
    }

    /// Cancels tasks that have not been sent. All others that match are left alone. Returns how many
    /// were cancelled.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn drop_tasks(&self, filter: &TaskFilter, who: &str, now_us: i64) -> Result<u64> {
        let mut tx = self.store.write("drop tasks").await?;
        let moves = tx
            .matching(filter)
            .await?
            .into_iter()
            .map(|(task_id, _)| Move { message: Some(format!("by {who}")), ..Move::because(task_id, DROPPED) });
        let dropped = tx.move_tasks(TaskState::Cancelled, false, moves.collect(), now_us).await?;
        tx.audit(now_us, who, "tasks drop", &filter.to_string(), &format!("{dropped} cancelled")).await?;
        tx.commit().await?;
        Ok(dropped)
    }
}

impl Tx {
    /// The tasks that match a filter, and their states. They stay as they are until the end.
    async fn matching(&mut self, filter: &TaskFilter) -> Result<Vec<(TaskId, TaskState)>> {
        let (condition, args) = filter.sql();
        let lock = self.for_update();
        let sql = format!("select t.task_id, t.state from tasks t where {condition} order by t.task_id{}{lock}", filter.limit());
        self.rows(AssertSqlSafe(sql), args, |row| Ok((row.id(0)?, read_state(row, 1)?))).await
    }
}
