//! Dispatches: groups of tasks that a channel is given whole.
//!
//! A group is the tasks of one channel that one run planned with one group key. Claiming moves a
//! complete group to `sending` under a dispatch id, in an order that never changes afterwards, so that
//! the same dispatch can be given again after a crash. One process holds a dispatch at a time.
//!
//! Several groups are claimed in one transaction, each as if it were alone: what a transaction costs is
//! far more than what a dispatch of ten tasks does.

use std::collections::{HashMap, HashSet};

use reunion_model::{ContactId, DispatchId, Gate, MemberId, RunId, TaskId, TaskState, Verdict};
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

/// What a claim came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimed {
    /// One for each group of which something was left to send, by run and group key.
    pub dispatches: Vec<Dispatch>,
    /// The groups that may have more tasks than one dispatch takes: to be claimed once more.
    pub more: Vec<Group>,
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

    /// How many tasks the channel was given since `from_us`, less those that it did not take.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn given_since(&self, channel: &str, from_us: i64) -> Result<u64> {
        let mut tx = self.store.read("count what a channel was given").await?;
        let put_off = Verdict::ALL.into_iter().filter(|verdict| verdict.is_put_off()).map(|verdict| format!("'{}'", verdict.name()));
        let sql = format!(
            "select count(*) from dispatches d join dispatch_tasks l on l.dispatch_id = d.dispatch_id \
             where d.channel = $1 and d.claimed_us >= $2 and coalesce(l.verdict, '') not in ({})",
            put_off.collect::<Vec<_>>().join(", ")
        );
        Ok(tx.row(AssertSqlSafe(sql), args![channel, from_us], |row| row.unsigned(0)).await?.unwrap_or_default())
    }

    /// The tasks of a channel that are due, by id, to be gated before they are claimed.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn due_tasks(&self, channel: &str, now_us: i64) -> Result<Vec<OpenTask>> {
        let mut tx = self.store.read("read the tasks that are due").await?;
        let sql = format!("{OPEN_TASK} where t.channel = $1 and t.not_before_us <= $2 and {}", claimable());
        let mut tasks = tx.rows(AssertSqlSafe(sql), args![channel, now_us], read_open_task).await?;
        // Sorted here: in the order of an index the database would look each row up by itself.
        tasks.sort_unstable_by_key(|task| task.task_id);
        Ok(tasks)
    }

    /// Moves what is due of each group to `sending`, at most `tasks_max` tasks, as one dispatch that this
    /// process holds. Whoever is on the suppression list by then is taken back in the same transaction.
    /// A group gets none where nothing is left of it, or another process was first.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where the run that planned a group is missing, [`LedgerError::Sealed`].
    pub async fn claim_dispatches(&self, channel: &str, groups: &[Group], now_us: i64, tasks_max: usize) -> Result<Claimed> {
        let mut claimed = Claimed::default();
        if groups.is_empty() {
            return Ok(claimed);
        }
        let mut tx = self.store.write("claim dispatches").await?;
        let (mut suppressed, mut empty) = (Vec::new(), Vec::new());
        let opened = self.open_dispatches(&mut tx, channel, groups, now_us).await?;
        let candidates = self.candidates(&mut tx, channel, &opened, now_us, tasks_max).await?;
        for ((group, mut dispatch), candidates) in opened.into_iter().zip(candidates) {
            if !candidates.is_empty() && candidates.len() >= tasks_max {
                claimed.more.push(group.clone());
            }
            for candidate in candidates {
                match candidate.suppressed {
                    true => suppressed.push(candidate),
                    false => dispatch.tasks.push(candidate.task),
                }
            }
            if dispatch.tasks.is_empty() { empty.push(dispatch.dispatch_id) } else { claimed.dispatches.push(dispatch) }
        }
        tx.take_back(&suppressed, now_us).await?;
        tx.bulk("delete from dispatches where dispatch_id in (values {values})", &args![], empty.into_iter().map(|id| args![id])).await?;
        let mut moves = Vec::new();
        let mut rows = Vec::new();
        for Dispatch { dispatch_id, tasks, .. } in &claimed.dispatches {
            for (position, task) in tasks.iter().enumerate() {
                moves.push((*dispatch_id, task.task_id));
                rows.push(args![*dispatch_id, position, task.task_id]);
            }
        }
        tx.start_sending(moves, now_us).await?;
        tx.bulk("insert into dispatch_tasks (dispatch_id, position, task_id) values {values}", &args![], rows).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Opens the next dispatch of each group, still without tasks; none for a group of which another
    /// process does so at the same time.
    async fn open_dispatches<'a>(
        &self,
        tx: &mut Tx,
        channel: &str,
        groups: &'a [Group],
        now_us: i64,
    ) -> Result<Vec<(&'a Group, Dispatch)>> {
        // In one order everywhere, so that two claims never wait for each other.
        let mut groups: Vec<_> = groups.iter().collect();
        groups.sort_unstable_by_key(|group| (group.run_id, &group.key));
        let sql = "select v.column1, r.clock_us, coalesce(max(d.ordinal), 0) + 1 from (values {values}) as v \
             left join runs r on r.run_id = v.column2 \
             left join dispatches d on d.channel = $1 and d.run_id = v.column2 and d.group_key = v.column3 \
             group by v.column1, r.clock_us";
        let rows = groups.iter().enumerate().map(|(at, group)| args![at, group.run_id, &group.key]);
        let read = |row: &Row| Ok((row.unsigned(0)? as usize, (row.int_or_null(1)?, row.small(2)?)));
        let next: HashMap<_, _> = tx.bulk_rows(sql, &args![channel], rows, read).await?.into_iter().collect();
        let mut opened = Vec::with_capacity(groups.len());
        for (at, group) in groups.into_iter().enumerate() {
            let (clock_us, ordinal) = next.get(&at).copied().unwrap_or_default();
            let missing = || LedgerError::NotFound { what: "run", name: group.run_id.to_string() };
            opened.push((group, self.next_dispatch(channel, group, clock_us.ok_or_else(missing)?, ordinal)));
        }
        let sql = format!(
            "insert into dispatches (dispatch_id, channel, run_id, group_key, ordinal, state, holder, held_until_us, pushes, claimed_us) \
             select v.column1, $1, v.column2, v.column3, v.column4, 'open', $2, {} + $3, 1, $4 from (values {{values}}) as v where 1 = 1 \
             on conflict do nothing returning dispatch_id",
            tx.clock()
        );
        let shared = args![channel, self.me, LEASE_TTL.as_micros() as i64, now_us];
        let rows = opened.iter().map(|(_, new)| args![new.dispatch_id, new.run_id, &new.group, new.ordinal]);
        let mut inserted: HashSet<DispatchId> = tx.bulk_rows(&sql, &shared, rows, |row| row.id(0)).await?.into_iter().collect();
        opened.retain(|(_, new)| inserted.remove(&new.dispatch_id));
        Ok(opened)
    }

    fn next_dispatch(&self, channel: &str, group: &Group, run_clock_us: i64, ordinal: u32) -> Dispatch {
        let parts: [&[u8]; 4] = [channel.as_bytes(), &group.run_id.0, group.key.as_bytes(), &ordinal.to_be_bytes()];
        Dispatch {
            dispatch_id: DispatchId(self.keys.lookup().id("dispatch", &parts)),
            channel: channel.to_owned(),
            run_id: group.run_id,
            run_clock_us,
            group: group.key.clone(),
            ordinal,
            pushes: 1,
            tasks: Vec::new(),
        }
    }

    /// The tasks that may be claimed for each dispatch, in its order, at most so many.
    async fn candidates(
        &self,
        tx: &mut Tx,
        channel: &str,
        opened: &[(&Group, Dispatch)],
        now_us: i64,
        tasks_max: usize,
    ) -> Result<Vec<Vec<Candidate>>> {
        let (claimable, order, lock) = (claimable(), tx.by_bytes(), tx.for_update_skip_locked());
        let order = format!("t.campaign{order}, t.store{order} nulls first, t.task_id");
        // Numbered without a lock, which allows no numbers; so what is locked is looked at once more. A cross
        // join, so that SQLite looks up each group rather than going over all that waits.
        let sql = format!(
            "select {TASK}, t.state, cast(case when exists (select 1 from suppressions s where s.contact = t.contact \
             and s.lifted_seq is null and (s.until_us is null or s.until_us > $2)) then 1 else 0 end as bigint), c.dispatch \
             from (select t.task_id, v.column1 as dispatch, row_number() over (partition by v.column1 order by {order}) as position \
             from (values {{values}}) as v cross join tasks t where t.channel = $1 and t.run_id = v.column2 \
             and t.group_key = v.column3 and t.not_before_us <= $2 and {claimable}) c \
             join tasks t on t.task_id = c.task_id where c.position <= $3 and t.not_before_us <= $2 and {claimable} \
             order by c.dispatch, c.position{lock}"
        );
        let rows = opened.iter().enumerate().map(|(at, (_, dispatch))| args![at, dispatch.run_id, &dispatch.group]);
        let read = |row: &Row| {
            let candidate = Candidate { task: self.read_dispatch_task(row)?, state: read_state(row, 8)?, suppressed: row.flag(9)? };
            Ok((row.unsigned(10)? as usize, candidate))
        };
        let found = tx.bulk_rows(&sql, &args![channel, now_us, tasks_max], rows, read).await?;
        let mut candidates: Vec<Vec<Candidate>> = opened.iter().map(|_| Vec::new()).collect();
        found.into_iter().for_each(|(at, candidate)| candidates[at].push(candidate));
        Ok(candidates)
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
    /// Moves tasks to `sending`, each under its dispatch.
    pub async fn start_sending(&mut self, tasks: Vec<(DispatchId, TaskId)>, now_us: i64) -> Result<()> {
        let moves = tasks.into_iter().map(|(dispatch_id, task_id)| Move { dispatch_id: Some(dispatch_id), ..Move::new(task_id) });
        self.move_tasks(TaskState::Sending, true, moves.collect(), now_us).await?;
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
