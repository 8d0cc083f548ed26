//! Dispatches: groups of tasks that a channel is given whole.
//!
//! A group is the tasks of one channel that one run planned with one group key. Claiming moves a
//! complete group to `sending` under a dispatch id, in an order that never changes afterwards, so that
//! the same dispatch can be given again after a crash. One process holds a dispatch at a time.

use reunion_model::{ContactId, DispatchId, Gate, MemberId, RunId, TaskId, TaskState};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::{LedgerError, Result};
use crate::lease::LEASE_TTL;
use crate::sql::{Row, Tx, args};
use crate::tasks::{Move, OPEN_TASK, OpenTask, Payload, names, read_open_task, read_state};

/// Tasks that go to their channel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// The run that planned them.
    pub run_id: RunId,
    /// Their group key.
    pub key: String,
    /// How many there are now.
    pub tasks: u64,
}

/// What a channel has to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Groups that have tasks to be sent now.
    pub groups: Vec<Group>,
    /// The earliest moment at which more falls due, as far as is known.
    pub next_us: Option<i64>,
    /// Dispatches that are being pushed, here or by another process.
    pub in_flight: u64,
}

/// A group that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// Its id, a keyed hash of what it is made of.
    pub dispatch_id: DispatchId,
    /// The channel.
    pub channel: String,
    /// The run that planned its tasks.
    pub run_id: RunId,
    /// The clock of that run.
    pub run_clock_us: i64,
    /// The group key.
    pub group: String,
    /// 1 for the run's first dispatch of this group, 2 for the next.
    pub ordinal: u32,
    /// How often it was given to the channel, this time included.
    pub pushes: u32,
    /// Its tasks in its order: by campaign, store and id.
    pub tasks: Vec<DispatchTask>,
}

/// A task as it is given to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchTask {
    /// Its id.
    pub task_id: TaskId,
    /// The campaign.
    pub campaign: String,
    /// The contact point.
    pub contact: ContactId,
    /// The member.
    pub member: MemberId,
    /// The member's store.
    pub store: Option<String>,
    /// The clerk.
    pub staff: Option<String>,
    /// To be done by.
    pub due_us: Option<i64>,
    /// What the channel is told.
    pub payload: Payload,
}

/// A task that may be claimed, as it was found.
struct Candidate {
    task: DispatchTask,
    state: TaskState,
    suppressed: bool,
}

const TASK: &str = "t.task_id, t.campaign, t.contact, t.member, t.store, t.staff, t.due_us, t.payload";

/// The tasks `t` that may be claimed: in the outbox, tried before, or requeued though their outcome is
/// unknown; and not part of a dispatch that is still to be pushed. Its first line is the condition of
/// the index.
fn claimable() -> String {
    let outbox = names(TaskState::ALL.into_iter().filter(|state| state.is_open()));
    format!(
        "t.state in ('planned', 'not_sent', 'unknown') \
         and (t.state in ({outbox}) or t.retry = 1) \
         and not exists (select 1 from dispatches d where d.dispatch_id = t.dispatch_id and d.state <> 'closed')"
    )
}

impl Ledger {
    /// What a channel has to send at `now_us`, and when there is more.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn due(&self, channel: &str, now_us: i64) -> Result<Due> {
        let mut tx = self.store.read("see what is due").await?;
        let (claimable, order) = (claimable(), tx.by_bytes());
        let sql = format!(
            "select t.run_id, t.group_key, count(*) from tasks t where t.channel = $1 and {claimable} and t.not_before_us <= $2 \
             group by t.run_id, t.group_key order by t.run_id, t.group_key{order}"
        );
        let read = |row: &Row| Ok(Group { run_id: row.id(0)?, key: row.text(1)?, tasks: row.unsigned(2)? });
        let groups = tx.rows(AssertSqlSafe(sql), args![channel, now_us], read).await?;
        let sql = format!("select min(t.not_before_us) from tasks t where t.channel = $1 and {claimable} and t.not_before_us > $2");
        let task = tx.row(AssertSqlSafe(sql), args![channel, now_us], |row| row.int_or_null(0)).await?.flatten();
        let sql = "select min(case when state = 'failed' then retry_at_us end), count(case when state = 'open' then 1 end) \
             from dispatches where channel = $1 and state <> 'closed'";
        let unfinished = tx.row(sql, args![channel], |row| Ok((row.int_or_null(0)?, row.unsigned(1)?))).await?;
        let (retry, in_flight) = unfinished.unwrap_or_default();
        Ok(Due { groups, next_us: [task, retry].into_iter().flatten().min(), in_flight })
    }

    /// The tasks of a group that are due, to be gated before it is claimed.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn group_tasks(&self, channel: &str, group: &Group, now_us: i64) -> Result<Vec<OpenTask>> {
        let mut tx = self.store.read("read a group of tasks").await?;
        let sql = format!(
            "{OPEN_TASK} where t.channel = $1 and t.run_id = $2 and t.group_key = $3 and t.not_before_us <= $4 and {} order by t.task_id",
            claimable()
        );
        tx.rows(AssertSqlSafe(sql), args![channel, group.run_id, &group.key, now_us], read_open_task).await
    }

    /// Moves what is due of a group to `sending`, at most `tasks_max` tasks, as one dispatch that this
    /// process holds. Whoever is on the suppression list by then is taken back in the same transaction.
    /// None where nothing is left, or another process was first.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where the run that planned the group is missing, [`LedgerError::Sealed`].
    pub async fn claim_dispatch(&self, channel: &str, group: &Group, now_us: i64, tasks_max: usize) -> Result<Option<Dispatch>> {
        let mut tx = self.store.write("claim a dispatch").await?;
        let Some(dispatch_id) = self.insert_dispatch(&mut tx, channel, group, now_us).await? else { return Ok(None) };
        let candidates = self.candidates(&mut tx, channel, group, now_us, tasks_max).await?;
        let (suppressed, to_send): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.suppressed);
        tx.take_back(&suppressed, now_us).await?;
        if to_send.is_empty() {
            tx.execute("delete from dispatches where dispatch_id = $1", args![dispatch_id]).await?;
            tx.commit().await?;
            return Ok(None);
        }
        let moves = to_send.iter().map(|candidate| Move::new(candidate.task.task_id)).collect();
        tx.start_sending(dispatch_id, moves, now_us).await?;
        let rows = to_send.iter().enumerate().map(|(position, candidate)| args![dispatch_id, position, candidate.task.task_id]);
        tx.bulk("insert into dispatch_tasks (dispatch_id, position, task_id) values {values}", &args![], rows).await?;
        let mut dispatch = tx.dispatch(dispatch_id).await?;
        tx.commit().await?;
        dispatch.tasks = to_send.into_iter().map(|candidate| candidate.task).collect();
        Ok(Some(dispatch))
    }

    /// Opens the next dispatch of a group; none where another process does so at the same time.
    async fn insert_dispatch(&self, tx: &mut Tx, channel: &str, group: &Group, now_us: i64) -> Result<Option<DispatchId>> {
        let sql = "select coalesce(max(ordinal), 0) + 1 from dispatches where channel = $1 and run_id = $2 and group_key = $3";
        let ordinal = tx.row(sql, args![channel, group.run_id, &group.key], |row| row.small(0)).await?.unwrap_or(1);
        let parts: [&[u8]; 4] = [channel.as_bytes(), &group.run_id.0, group.key.as_bytes(), &ordinal.to_be_bytes()];
        let dispatch_id = DispatchId(self.keys.lookup().id("dispatch", &parts));
        let sql = format!(
            "insert into dispatches (dispatch_id, channel, run_id, group_key, ordinal, state, holder, held_until_us, pushes, claimed_us) \
             values ($1, $2, $3, $4, $5, 'open', $6, {} + $7, 1, $8) on conflict do nothing",
            tx.clock()
        );
        let ttl = LEASE_TTL.as_micros() as i64;
        let values = args![dispatch_id, channel, group.run_id, &group.key, ordinal, self.me, ttl, now_us];
        Ok((tx.execute(AssertSqlSafe(sql), values).await? > 0).then_some(dispatch_id))
    }

    async fn candidates(&self, tx: &mut Tx, channel: &str, group: &Group, now_us: i64, tasks_max: usize) -> Result<Vec<Candidate>> {
        let (claimable, order, lock) = (claimable(), tx.by_bytes(), tx.for_update_skip_locked());
        let sql = format!(
            "select {TASK}, t.state, cast(case when exists (select 1 from suppressions s where s.contact = t.contact \
             and s.lifted_seq is null and (s.until_us is null or s.until_us > $4)) then 1 else 0 end as bigint) \
             from tasks t where t.channel = $1 and t.run_id = $2 and t.group_key = $3 and t.not_before_us <= $4 and {claimable} \
             order by t.campaign{order}, t.store{order} nulls first, t.task_id limit $5{lock}"
        );
        let values = args![channel, group.run_id, &group.key, now_us, tasks_max];
        tx.rows(AssertSqlSafe(sql), values, |row| {
            Ok(Candidate { task: self.read_dispatch_task(row)?, state: read_state(row, 8)?, suppressed: row.flag(9)? })
        })
        .await
    }

    /// A dispatch with its tasks in its order.
    pub(crate) async fn load_dispatch(&self, tx: &mut Tx, dispatch_id: DispatchId) -> Result<Dispatch> {
        let mut dispatch = tx.dispatch(dispatch_id).await?;
        let sql = format!(
            "select {TASK} from dispatch_tasks l join tasks t on t.task_id = l.task_id where l.dispatch_id = $1 order by l.position"
        );
        dispatch.tasks = tx.rows(AssertSqlSafe(sql), args![dispatch_id], |row| self.read_dispatch_task(row)).await?;
        Ok(dispatch)
    }

    fn read_dispatch_task(&self, row: &Row) -> Result<DispatchTask> {
        let task_id = row.id(0)?;
        Ok(DispatchTask {
            task_id,
            campaign: row.text(1)?,
            contact: row.id(2)?,
            member: row.id(3)?,
            store: row.text_or_null(4)?,
            staff: row.text_or_null(5)?,
            due_us: row.int_or_null(6)?,
            payload: self.open_payload(task_id, &row.bytes(7)?)?,
        })
    }
}

impl Tx {
    /// Moves tasks to `sending` under a dispatch.
    pub async fn start_sending(&mut self, dispatch_id: DispatchId, moves: Vec<Move>, now_us: i64) -> Result<()> {
        let set = ", dispatch_id = $3, sent_us = $2, attempts = attempts + 1, retry = 0";
        self.move_tasks_setting(TaskState::Sending, true, moves, now_us, set, args![dispatch_id]).await?;
        Ok(())
    }

    /// Takes back tasks that were found suppressed. One whose outcome is unknown may have reached the
    /// member: it stays as it is, and is not sent again.
    async fn take_back(&mut self, suppressed: &[Candidate], now_us: i64) -> Result<()> {
        let gated: Vec<_> = suppressed.iter().map(|candidate| (candidate.task.task_id, Gate::Suppressed)).collect();
        self.refuse(&gated, now_us).await?;
        let unknown = suppressed.iter().filter(|candidate| candidate.state == TaskState::Unknown);
        let rows = unknown.map(|candidate| args![candidate.task.task_id]);
        self.bulk("update tasks set retry = 0 where task_id in (values {values})", &args![], rows).await?;
        Ok(())
    }

    /// A dispatch without its tasks.
    async fn dispatch(&mut self, dispatch_id: DispatchId) -> Result<Dispatch> {
        let sql = "select d.channel, d.run_id, r.clock_us, d.group_key, d.ordinal, d.pushes \
             from dispatches d join runs r on r.run_id = d.run_id where d.dispatch_id = $1";
        let read = |row: &Row| {
            Ok(Dispatch {
                dispatch_id,
                channel: row.text(0)?,
                run_id: row.id(1)?,
                run_clock_us: row.int(2)?,
                group: row.text(3)?,
                ordinal: row.small(4)?,
                pushes: row.small(5)?,
                tasks: Vec::new(),
            })
        };
        let found = self.row(sql, args![dispatch_id], read).await?;
        found.ok_or_else(|| LedgerError::NotFound { what: "run of dispatch", name: dispatch_id.to_string() })
    }
}
