//! What comes of dispatches: receipts as they arrive, the end of pushes, and what a crash left behind.

use std::collections::{HashMap, HashSet};

use reunion_model::{DispatchId, TaskId, TaskState, Verdict};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::dispatch::Dispatch;
use crate::error::{LedgerError, Result};
use crate::lease::LEASE_TTL;
use crate::sql::{Row, Tx, args};
use crate::tasks::Move;

/// What a channel said of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The task.
    pub task_id: TaskId,
    /// What became of it.
    pub verdict: Verdict,
    /// With `not_sent` and `busy`: not to be tried again before this delay.
    pub retry_after_ms: Option<u64>,
    /// The vendor's own code.
    pub code: Option<String>,
    /// One line without personal data.
    pub message: Option<String>,
}

/// What was made of receipts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Receipts that were stored.
    pub stored: u64,
    /// Tasks that are not waiting for a receipt in this dispatch: not part of it, or had theirs.
    pub ignored: Vec<TaskId>,
}

/// A dispatch whose push has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The dispatch.
    pub dispatch_id: DispatchId,
    /// Its receipts that were not recorded as they arrived.
    pub receipts: Vec<Receipt>,
    /// When it is given to the channel again as it is if some of its tasks are unknown, which only a
    /// channel that is idempotent allows.
    pub retry_at_us: Option<i64>,
}

/// What was made of pushes that have ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// What was made of their receipts.
    pub recorded: Recorded,
    /// Tasks whose outcome nobody knows.
    pub unknown: u64,
    /// Dispatches that this process does not hold any more. Nothing was written of them.
    pub lost: Vec<DispatchId>,
}

/// What was left to be done of earlier dispatches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Dispatches that this process holds now and pushes again, same id and order.
    pub dispatches: Vec<Dispatch>,
    /// Tasks that may have been sent and are not sent again, because the channel is not idempotent.
    pub unknown: u64,
}

/// The code of a task that was tried too often.
const ATTEMPTS_MAX: &str = "attempts_max";
/// The message of a task that got no receipt.
const NO_RECEIPT: &str = "the channel gave no receipt";

impl Ledger {
    /// Stores receipts as they arrive and moves their tasks. A task that was given to the channel
    /// `attempts_max` times and was not sent is rejected.
    ///
    /// # Errors
    /// [`LedgerError::DispatchLost`] where this process does not hold the dispatch any more.
    pub async fn record_receipts(&self, dispatch_id: DispatchId, receipts: &[Receipt], attempts_max: u32, now_us: i64) -> Result<Recorded> {
        let mut tx = self.store.write("record receipts").await?;
        if tx.hold_dispatches(&[dispatch_id], self.me).await?.is_empty() {
            return Err(LedgerError::DispatchLost { dispatch: dispatch_id.to_string() });
        }
        let recorded = tx.record(&[(dispatch_id, receipts)], attempts_max, now_us).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    /// Ends pushes: stores the receipts that are left, as [`Ledger::record_receipts`] does, and closes the
    /// dispatches, all in one transaction. Tasks without a receipt are `unknown` from now on. What another
    /// process has taken over is left to it.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn settle_dispatches(&self, pushed: &[Pushed], attempts_max: u32, now_us: i64) -> Result<Settled> {
        let mut settled = Settled::default();
        if pushed.is_empty() {
            return Ok(settled);
        }
        let mut tx = self.store.write("settle dispatches").await?;
        let ids: Vec<_> = pushed.iter().map(|pushed| pushed.dispatch_id).collect();
        let held = tx.hold_dispatches(&ids, self.me).await?;
        let (held, lost): (Vec<_>, Vec<_>) = pushed.iter().partition(|pushed| held.contains(&pushed.dispatch_id));
        let receipts: Vec<_> = held.iter().map(|pushed| (pushed.dispatch_id, pushed.receipts.as_slice())).collect();
        settled.recorded = tx.record(&receipts, attempts_max, now_us).await?;
        let ended: Vec<_> = held.iter().map(|pushed| (pushed.dispatch_id, pushed.retry_at_us)).collect();
        settled.unknown = tx.give_up(&ended, now_us).await?;
        tx.commit().await?;
        settled.lost = lost.into_iter().map(|pushed| pushed.dispatch_id).collect();
        Ok(settled)
    }

    /// Takes over the channel's dispatches that nobody holds any more, and those that failed and are to
    /// be tried again by `now_us`. One that this process holds is one that it could not settle, so it must
    /// not be pushing anything in this channel now. Where the channel is idempotent they are to be pushed
    /// again as they are; where it is not, their tasks become `unknown`.
    ///
    /// With SQLite the state's file lock says that their holder is gone; with PostgreSQL a holder that
    /// has not renewed for [`LEASE_TTL`] is.
    ///
    /// # Errors
    /// [`LedgerError::Store`], [`LedgerError::Sealed`].
    pub async fn resume_dispatches(&self, channel: &str, idempotent: bool, now_us: i64) -> Result<Resumed> {
        let mut tx = self.store.write("resume dispatches").await?;
        let expired = if tx.is_postgres() { format!("t.held_until_us < {}", tx.clock()) } else { "1 = 1".into() };
        let sql = format!(
            "select t.dispatch_id from dispatches t where t.channel = $1 and ((t.state = 'open' and (t.holder = $2 or {expired})) \
             or (t.state = 'failed' and t.retry_at_us <= $3)) order by t.dispatch_id{}",
            tx.for_update_skip_locked()
        );
        let left = tx.rows(AssertSqlSafe(sql), args![channel, self.me, now_us], |row| row.id::<DispatchId>(0)).await?;
        let mut resumed = Resumed::default();
        for dispatch_id in left {
            if idempotent {
                tx.open_again(dispatch_id, self.me, now_us).await?;
                resumed.dispatches.push(self.load_dispatch(&mut tx, dispatch_id).await?);
            } else {
                resumed.unknown += tx.give_up(&[(dispatch_id, None)], now_us).await?;
            }
        }
        tx.commit().await?;
        Ok(resumed)
    }

    /// Says that this process is still at work on the dispatches that it holds. To be called every
    /// [`crate::LEASE_RENEW`] while it pushes; does nothing with SQLite.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn renew_dispatches(&self) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut tx = self.store.write("renew dispatches").await?;
        // In the order in which they are settled, so that neither waits for the other.
        let sql = format!(
            "update dispatches set held_until_us = {} + $2 where dispatch_id in \
             (select dispatch_id from dispatches where state = 'open' and holder = $1 order by dispatch_id{})",
            tx.clock(),
            tx.for_update()
        );
        tx.execute(AssertSqlSafe(sql), args![self.me, LEASE_TTL.as_micros() as i64]).await?;
        tx.commit().await
    }
}

/// The state that a receipt moves its task to, and what is noted of it.
fn outcome(receipt: &Receipt, attempts: u32, attempts_max: u32, now_us: i64) -> (TaskState, Move) {
    let mut moved = Move { code: receipt.code.clone(), message: receipt.message.clone(), ..Move::new(receipt.task_id) };
    match receipt.verdict {
        Verdict::NotSent if attempts >= attempts_max => {
            moved.code = Some(ATTEMPTS_MAX.into());
            (TaskState::Rejected, moved)
        }
        Verdict::NotSent | Verdict::Busy => {
            let delay_us = receipt.retry_after_ms.unwrap_or_default().saturating_mul(1000);
            moved.not_before_us = Some(now_us.saturating_add_unsigned(delay_us));
            moved.is_free = receipt.verdict == Verdict::Busy;
            (TaskState::NotSent, moved)
        }
        verdict => (verdict.state(), moved),
    }
}

impl Tx {
    /// Those of the dispatches that are open and held by `me`, which stays so to the end.
    async fn hold_dispatches(&mut self, dispatches: &[DispatchId], me: [u8; 16]) -> Result<HashSet<DispatchId>> {
        let sql = format!(
            "select dispatch_id from dispatches where dispatch_id in (values {{values}}) and state = 'open' and holder = $1 \
             order by dispatch_id{}",
            self.for_update()
        );
        let held = self.bulk_rows(&sql, &args![me], dispatches.iter().map(|id| args![*id]), |row| row.id(0)).await?;
        Ok(held.into_iter().collect())
    }

    /// Stores receipts of dispatches that are held, and moves their tasks.
    async fn record(&mut self, receipts: &[(DispatchId, &[Receipt])], attempts_max: u32, now_us: i64) -> Result<Recorded> {
        let answered = receipts.iter().filter(|(_, receipts)| !receipts.is_empty()).map(|(dispatch_id, _)| *dispatch_id);
        let mut waiting = self.waiting(answered.collect()).await?;
        let mut recorded = Recorded::default();
        let mut stored = Vec::new();
        let mut moves: HashMap<TaskState, Vec<Move>> = HashMap::new();
        for (dispatch_id, receipt) in receipts.iter().flat_map(|(id, receipts)| receipts.iter().map(|receipt| (*id, receipt))) {
            let Some((position, attempts)) = waiting.remove(&(dispatch_id, receipt.task_id)) else {
                recorded.ignored.push(receipt.task_id);
                continue;
            };
            let (state, moved) = outcome(receipt, attempts, attempts_max, now_us);
            moves.entry(state).or_default().push(moved);
            stored.push((dispatch_id, position, receipt));
        }
        for (state, moves) in moves {
            if state == TaskState::Delivered {
                self.move_tasks(TaskState::Accepted, false, moves.clone(), now_us).await?;
            }
            self.move_tasks(state, false, moves, now_us).await?;
        }
        recorded.stored = stored.len() as u64;
        let sql = "update dispatch_tasks set verdict = v.column3, retry_after_ms = v.column4, code = v.column5, message = v.column6, \
             at_us = $1 from (values {values}) as v \
             where dispatch_tasks.dispatch_id = v.column1 and dispatch_tasks.position = v.column2";
        let rows = stored.into_iter().map(|(dispatch_id, position, receipt)| {
            let Receipt { verdict, retry_after_ms, code, message, .. } = receipt.clone();
            args![dispatch_id, position, verdict.name(), retry_after_ms, code, message]
        });
        self.bulk(sql, &args![now_us], rows).await?;
        Ok(recorded)
    }

    /// The tasks of dispatches that wait for a receipt, each with its position and attempts.
    async fn waiting(&mut self, dispatches: Vec<DispatchId>) -> Result<HashMap<(DispatchId, TaskId), (u64, u32)>> {
        let sql = format!(
            "select l.dispatch_id, l.task_id, l.position, t.attempts from dispatch_tasks l join tasks t on t.task_id = l.task_id \
             where l.dispatch_id in (values {{values}}) and l.verdict is null \
             and coalesce(t.dispatch_id, l.dispatch_id) = l.dispatch_id and t.state = 'sending' order by t.task_id{}",
            self.for_update()
        );
        let read = |row: &Row| Ok(((row.id(0)?, row.id(1)?), (row.unsigned(2)?, row.small(3)?)));
        Ok(self.bulk_rows(&sql, &args![], dispatches.into_iter().map(|id| args![id]), read).await?.into_iter().collect())
    }

    /// Moves what has no receipt to `unknown` and ends each dispatch, or puts it off until its moment.
    /// Returns how many of their tasks are unknown now.
    async fn give_up(&mut self, ended: &[(DispatchId, Option<i64>)], now_us: i64) -> Result<u64> {
        let ids: Vec<_> = ended.iter().map(|(dispatch_id, _)| *dispatch_id).collect();
        let mut unknown = self.tasks_of(&ids, "('unknown')").await?;
        let sending = self.tasks_of(&ids, "('sending')").await?;
        let moves = sending.iter().map(|(_, task_id)| Move { message: Some(NO_RECEIPT.into()), ..Move::new(*task_id) });
        self.move_tasks(TaskState::Unknown, false, moves.collect(), now_us).await?;
        unknown.extend(sending);
        let to_retry: HashSet<_> = unknown.iter().map(|(dispatch_id, _)| *dispatch_id).collect();
        let rows = ended.iter().map(|(dispatch_id, retry_at_us)| {
            let retry_at_us = retry_at_us.filter(|_| to_retry.contains(dispatch_id));
            args![*dispatch_id, if retry_at_us.is_some() { "failed" } else { "closed" }, retry_at_us]
        });
        let sql = "update dispatches set state = v.column2, retry_at_us = v.column3, closed_us = $1, held_until_us = null \
             from (values {values}) as v where dispatches.dispatch_id = v.column1";
        self.bulk(sql, &args![now_us], rows).await?;
        Ok(unknown.len() as u64)
    }

    /// Opens a dispatch again for `me`, to be pushed as it was.
    async fn open_again(&mut self, dispatch_id: DispatchId, me: [u8; 16], now_us: i64) -> Result<()> {
        let sql = format!(
            "update dispatches set state = 'open', holder = $2, held_until_us = {} + $3, retry_at_us = null, closed_us = null, \
             pushes = pushes + 1 where dispatch_id = $1",
            self.clock()
        );
        self.execute(AssertSqlSafe(sql), args![dispatch_id, me, LEASE_TTL.as_micros() as i64]).await?;
        let again = self.tasks_of(&[dispatch_id], "('not_sent', 'unknown')").await?;
        let sql = "update dispatch_tasks set verdict = null, retry_after_ms = null, code = null, message = null, at_us = null \
             where dispatch_id = $1 and task_id in (select task_id from tasks where dispatch_id = $1 and state in ('not_sent', 'unknown'))";
        self.execute(sql, args![dispatch_id]).await?;
        self.start_sending(again, now_us).await
    }

    /// The tasks whose last dispatch is one of these and which are in one of these states.
    async fn tasks_of(&mut self, dispatches: &[DispatchId], states: &str) -> Result<Vec<(DispatchId, TaskId)>> {
        let sql = format!(
            "select dispatch_id, task_id from tasks where dispatch_id in (values {{values}}) and state in {states} \
             order by task_id{}",
            self.for_update()
        );
        self.bulk_rows(&sql, &args![], dispatches.iter().map(|id| args![*id]), |row| Ok((row.id(0)?, row.id(1)?))).await
    }
}
