//! Tasks: the outbox, the moves between their states, and their history.

use std::fmt;

use reunion_model::{ContactId, DispatchId, Gate, MemberId, Phone, RunId, TaskId, TaskState};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::{LedgerError, Result};
use crate::seal::PAYLOAD;
use crate::sql::{Arg, Args, Row, Tx, args, is_duplicate};

/// A task as it is planned.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub task_id: TaskId,
    /// The campaign.
    pub campaign: String,
    /// The contact point that it reaches.
    pub contact: ContactId,
    /// The member behind it.
    pub member: MemberId,
    /// 1 for the campaign's first touch of this contact point.
    pub touch: u32,
    /// 1 for the first task of this touch, one more for each that was cancelled or refused.
    pub try_number: u32,
    /// The channel.
    pub channel: String,
    /// The member's store.
    pub store: Option<String>,
    /// The clerk who serves the member.
    pub staff: Option<String>,
    /// Tasks of one dispatch have the same key: the values that the channel groups by, as one text.
    pub group: String,
    /// Not to be sent before.
    pub not_before_us: i64,
    /// To be done by.
    pub due_us: Option<i64>,
    /// The run that plans it.
    pub run_id: RunId,
    /// What the channel is told.
    pub payload: Payload,
}

/// The personal part of a task, sealed in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The member's name.
    pub name: Option<String>,
    /// The phone.
    pub phone: Phone,
    /// The rendered message.
    pub message: Option<String>,
    /// Why the member is contacted, for the clerk.
    pub reason: Option<String>,
}

/// A payload as it is sealed.
#[derive(Serialize, Deserialize)]
struct PayloadText {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    phone: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A task that may still be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTask {
    /// Its id.
    pub task_id: TaskId,
    /// The campaign.
    pub campaign: String,
    /// The contact point.
    pub contact: ContactId,
    /// The member.
    pub member: MemberId,
    /// The channel.
    pub channel: String,
    /// The member's store when it was planned.
    pub store: Option<String>,
    /// The touch.
    pub touch: u32,
    /// `planned`, `not_sent`, or `unknown` where an operator requeued it.
    pub state: TaskState,
}

/// A task as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub task_id: TaskId,
    /// The campaign.
    pub campaign: String,
    /// The contact point.
    pub contact: ContactId,
    /// The member; follows merges.
    pub member: MemberId,
    /// The touch.
    pub touch: u32,
    /// The try.
    pub try_number: u32,
    /// The channel.
    pub channel: String,
    /// The member's store when it was planned.
    pub store: Option<String>,
    /// The clerk when it was planned.
    pub staff: Option<String>,
    /// The run that planned it.
    pub run_id: RunId,
    /// The generation that it was planned with.
    pub generation: u64,
    /// The clock of that run.
    pub planned_us: i64,
    /// To be done by.
    pub due_us: Option<i64>,
    /// Not to be sent before.
    pub not_before_us: i64,
    /// Where it is.
    pub state: TaskState,
    /// An operator asked for it to be sent again though its outcome is unknown.
    pub requeued: bool,
    /// How often it was given to the channel.
    pub attempts: u32,
    /// Its last move.
    pub changed_us: i64,
    /// When it was last given to the channel.
    pub sent_us: Option<i64>,
    /// The last dispatch that it was in.
    pub dispatch_id: Option<DispatchId>,
    /// A gate's code, the vendor's code, or a word of ours: why it is where it is.
    pub code: Option<String>,
    /// One line on the same.
    pub message: Option<String>,
    /// What the clerk or vendor reported, as the name of an outcome.
    pub outcome: Option<String>,
}

/// One move of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at_us: i64,
    /// Where it moved to.
    pub state: TaskState,
    /// Why.
    pub code: Option<String>,
    /// One line on the same.
    pub message: Option<String>,
    /// The dispatch that it was in.
    pub dispatch_id: Option<DispatchId>,
}

/// A task with what is sealed of it, and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDetail {
    /// The task.
    pub task: Task,
    /// What the channel is told. Personal.
    pub payload: Payload,
    /// Its moves, oldest first, `planned` among them.
    pub history: Vec<Change>,
}

/// How many tasks of a channel and campaign are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCount {
    /// The channel.
    pub channel: String,
    /// The campaign.
    pub campaign: String,
    /// The state.
    pub state: TaskState,
    /// How many.
    pub tasks: u64,
}

/// Which tasks; what is not set does not matter.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// This one.
    pub task_id: Option<TaskId>,
    /// Of this campaign.
    pub campaign: Option<String>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Of this channel.
    pub channel: Option<String>,
    /// To this contact point.
    pub contact: Option<ContactId>,
    /// Of this member.
    pub member: Option<MemberId>,
    /// Planned by this run.
    pub run_id: Option<RunId>,
    /// Moved last at this time or later.
    pub since_us: Option<i64>,
    /// So many at most.
    pub limit: Option<u32>,
}

impl TaskFilter {
    /// The conditions on `t`, and the values of their placeholders.
    pub(crate) fn sql(&self) -> (String, Args) {
        let conditions: [(&str, Option<Arg>); 8] = [
            ("t.task_id =", self.task_id.map(Arg::from)),
            ("t.campaign =", self.campaign.as_ref().map(Arg::from)),
            ("t.state =", self.state.map(|state| Arg::from(state.name()))),
            ("t.channel =", self.channel.as_ref().map(Arg::from)),
            ("t.contact =", self.contact.map(Arg::from)),
            ("t.member =", self.member.map(Arg::from)),
            ("t.run_id =", self.run_id.map(Arg::from)),
            ("t.changed_us >=", self.since_us.map(Arg::from)),
        ];
        let mut sql = String::from("1 = 1");
        let mut args = Args::new();
        for (condition, arg) in conditions {
            if let Some(arg) = arg {
                args.push(arg);
                sql.push_str(&format!(" and {condition} ${}", args.len()));
            }
        }
        (sql, args)
    }

    pub(crate) fn limit(&self) -> String {
        self.limit.map_or_else(String::new, |limit| format!(" limit {limit}"))
    }
}

impl fmt::Display for TaskFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.task_id.map(|id| format!("task {id}")),
            self.campaign.as_ref().map(|name| format!("campaign {name}")),
            self.state.map(|state| format!("state {}", state.name())),
            self.channel.as_ref().map(|name| format!("channel {name}")),
            self.contact.map(|id| format!("contact {id}")),
            self.member.map(|id| format!("member {id}")),
            self.run_id.map(|id| format!("run {id}")),
            self.since_us.map(|since| format!("since {since}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&if parts.is_empty() { "all tasks".to_owned() } else { parts.join(", ") })
    }
}

/// The columns that [`read_task`] reads, in its order.
const TASK: &str = "select t.task_id, t.campaign, t.contact, t.member, t.touch, t.try_number, t.channel, t.store, t.staff, t.run_id, \
     t.generation, t.planned_us, t.due_us, t.not_before_us, t.state, t.retry, t.attempts, t.changed_us, t.sent_us, t.dispatch_id, \
     t.code, t.message, t.outcome";

/// The columns that [`read_open_task`] reads, in its order.
pub(crate) const OPEN_TASK: &str = "select t.task_id, t.campaign, t.contact, t.member, t.channel, t.store, t.touch, t.state from tasks t";

impl Ledger {
    /// Every task that a new generation has to gate again, planned or not sent and to be tried again, by id.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn open_tasks(&self) -> Result<Vec<OpenTask>> {
        let mut tx = self.store.read("list open tasks").await?;
        let open = names(TaskState::ALL.into_iter().filter(|state| state.is_open()));
        let mut tasks = tx.rows(AssertSqlSafe(format!("{OPEN_TASK} where t.state in ({open})")), args![], read_open_task).await?;
        // Sorted here: in the order of an index the database would look each row up by itself.
        tasks.sort_unstable_by_key(|task| task.task_id);
        Ok(tasks)
    }

    /// Takes tasks back because of a gate at the moment of sending: a planned one is refused, one that
    /// was tried before is cancelled. Those that have moved on are left alone. Returns how many moved.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn refuse(&self, tasks: &[(TaskId, Gate)], now_us: i64) -> Result<u64> {
        if tasks.is_empty() {
            return Ok(0);
        }
        let mut tx = self.store.write("refuse tasks").await?;
        let refused = tx.refuse(tasks, now_us).await?;
        tx.commit().await?;
        Ok(refused)
    }

    /// Puts tasks off that wait to be sent: not before the moment that each is given.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn postpone(&self, tasks: &[(TaskId, i64)]) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write("put tasks off").await?;
        let open = names(TaskState::ALL.into_iter().filter(|state| state.is_open()));
        let sql = format!(
            "update tasks set not_before_us = v.column2 from (values {{values}}) as v where tasks.task_id = v.column1 and tasks.state in ({open})"
        );
        tx.bulk(&sql, &args![], tasks.iter().map(|(task_id, until_us)| args![*task_id, *until_us])).await?;
        tx.commit().await
    }

    /// Tasks, newest move first.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<Task>> {
        let mut tx = self.store.read("list tasks").await?;
        let (condition, args) = filter.sql();
        let sql = format!("{TASK} from tasks t where {condition} order by t.changed_us desc, t.task_id{}", filter.limit());
        tx.rows(AssertSqlSafe(sql), args, read_task).await
    }

    /// One task with its payload and history.
    ///
    /// # Errors
    /// [`LedgerError::Store`], [`LedgerError::Sealed`].
    pub async fn task(&self, task_id: TaskId) -> Result<Option<TaskDetail>> {
        let mut tx = self.store.read("show a task").await?;
        let sql = format!("{TASK}, t.payload from tasks t where t.task_id = $1");
        let found = tx.row(AssertSqlSafe(sql), args![task_id], |row| Ok((read_task(row)?, row.bytes(23)?))).await?;
        let Some((task, payload)) = found else { return Ok(None) };
        let sql = "select at_us, state, code, message, dispatch_id from task_changes where task_id = $1 order by change";
        let planned = Change { at_us: task.planned_us, state: TaskState::Planned, code: None, message: None, dispatch_id: None };
        let mut history = vec![planned];
        history.extend(tx.rows(sql, args![task_id], read_change).await?);
        Ok(Some(TaskDetail { payload: self.open_payload(task_id, &payload)?, task, history }))
    }

    /// How many tasks each channel and campaign has in each state, of all runs or of one.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn task_counts(&self, run_id: Option<RunId>) -> Result<Vec<TaskCount>> {
        let mut tx = self.store.read("count tasks").await?;
        let (condition, args) = TaskFilter { run_id, ..TaskFilter::default() }.sql();
        let order = tx.by_bytes();
        let sql = format!(
            "select t.channel, t.campaign, t.state, count(*) from tasks t where {condition} group by t.channel, t.campaign, t.state \
             order by t.channel{order}, t.campaign{order}, t.state{order}"
        );
        tx.rows(AssertSqlSafe(sql), args, |row| {
            Ok(TaskCount { channel: row.text(0)?, campaign: row.text(1)?, state: read_state(row, 2)?, tasks: row.unsigned(3)? })
        })
        .await
    }

    pub(crate) fn seal_payload(&self, task: &NewTask) -> Result<Vec<u8>> {
        let Payload { name, phone, message, reason } = task.payload.clone();
        PAYLOAD.seal(&self.keys, &task.task_id.0, &PayloadText { name, phone: phone.e164_digits(), message, reason })
    }

    pub(crate) fn open_payload(&self, task_id: TaskId, sealed: &[u8]) -> Result<Payload> {
        let PayloadText { name, phone, message, reason } = PAYLOAD.open(&self.keys, &task_id.0, sealed)?;
        Ok(Payload { name, phone: Phone::from_e164_digits(phone), message, reason })
    }
}

/// A task that is to move, and what is to be noted of it.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub task_id: TaskId,
    pub code: Option<String>,
    pub message: Option<String>,
    /// Replaces the time before which it is not to be sent.
    pub not_before_us: Option<i64>,
    /// The dispatch that it is sent with, where it moves to `sending`.
    pub dispatch_id: Option<DispatchId>,
    /// Whether the try that ends does not count, where it moves to `not_sent`.
    pub is_free: bool,
}

impl Move {
    pub fn new(task_id: TaskId) -> Self {
        Self { task_id, code: None, message: None, not_before_us: None, dispatch_id: None, is_free: false }
    }

    pub fn because(task_id: TaskId, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..Self::new(task_id) }
    }
}

impl Tx {
    /// Moves those tasks to `to` that may move there, and notes it in their history. `retry` is that of
    /// [`TaskState::next`]; a task that may be sent again though its outcome is unknown. Returns how many
    /// tasks moved.
    pub async fn move_tasks(&mut self, to: TaskState, retry: bool, mut moves: Vec<Move>, at_us: i64) -> Result<u64> {
        // In one order everywhere, so that two transactions never wait for each other.
        moves.sort_unstable_by_key(|moved| moved.task_id);
        let from = names(TaskState::ALL.into_iter().filter(|from| from.next(retry).contains(&to)));
        let set = match to {
            TaskState::Cancelled | TaskState::Refused => ", taken_back = try_number",
            TaskState::Sending => ", dispatch_id = v.column5, sent_us = $2, attempts = attempts + 1, retry = 0",
            TaskState::NotSent => ", attempts = attempts - v.column6",
            _ => "",
        };
        // The state is compared as an expression, so that no index of a state is taken for the way to the
        // tasks: the way is their ids.
        let sql = format!(
            "update tasks set state = $1, changed_us = $2, changes = changes + 1, code = v.column2, message = v.column3, \
             not_before_us = coalesce(v.column4, not_before_us){set} \
             from (values {{values}}) as v where tasks.task_id = v.column1 and coalesce(tasks.state, '') in ({from})"
        );
        let ids: Vec<_> = moves.iter().map(|moved| moved.task_id).collect();
        let rows = moves.into_iter().map(|moved| {
            let Move { task_id, code, message, not_before_us, dispatch_id, is_free } = moved;
            args![task_id, code, message, not_before_us, dispatch_id, i64::from(is_free)]
        });
        let moved = self.bulk(&sql, &args![to.name(), at_us], rows).await?;
        // Of a task that did not move the last change is noted already. To say which ones moved, the database
        // would have to hand over a row for each, which costs more than to look.
        let sql = "insert into task_changes (task_id, change, at_us, state, code, message, dispatch_id) \
             select task_id, changes, changed_us, state, code, message, dispatch_id from tasks \
             where task_id in (values {values}) and changes > 0 on conflict do nothing";
        self.bulk(sql, &args![], ids.into_iter().map(|task_id| args![task_id])).await?;
        Ok(moved)
    }

    /// See [`Ledger::refuse`].
    pub async fn refuse(&mut self, tasks: &[(TaskId, Gate)], now_us: i64) -> Result<u64> {
        let moves: Vec<_> = tasks.iter().map(|(task_id, gate)| Move::because(*task_id, gate.code())).collect();
        let refused = self.move_tasks(TaskState::Refused, false, moves.clone(), now_us).await?;
        let cancelled = self.move_tasks(TaskState::Cancelled, false, moves, now_us).await?;
        Ok(refused + cancelled)
    }

    /// Puts tasks into the outbox.
    pub async fn plan(&mut self, tasks: &[NewTask], payloads: Vec<Vec<u8>>, generation: u64, clock_us: i64, now_us: i64) -> Result<()> {
        let sql = "insert into tasks (task_id, campaign, contact, member, touch, try_number, channel, store, staff, group_key, run_id, \
             not_before_us, due_us, payload, generation, planned_us, changed_us, state) values {values}";
        // The tasks of a group lie side by side, as they are claimed.
        let mut rows: Vec<_> = tasks.iter().zip(payloads).collect();
        rows.sort_unstable_by_key(|(task, _)| (&task.channel, &task.group, &task.campaign, &task.store, task.task_id));
        let rows = rows.into_iter().map(|(task, payload)| {
            args![
                task.task_id,
                &task.campaign,
                task.contact,
                task.member,
                task.touch,
                task.try_number,
                &task.channel,
                task.store.as_ref(),
                task.staff.as_ref(),
                &task.group,
                task.run_id,
                task.not_before_us,
                task.due_us,
                payload,
                generation,
                clock_us,
                now_us,
                TaskState::Planned.name(),
            ]
        });
        match self.bulk(sql, &args![], rows).await {
            Err(error) if is_duplicate(&error) => {
                Err(LedgerError::Exists { what: "task", name: "for one of the touches that are to be planned".into() })
            }
            result => result.map(|_| ()),
        }
    }
}

/// The names of states as a list of SQL.
pub(crate) fn names(states: impl Iterator<Item = TaskState>) -> String {
    states.map(|state| format!("'{}'", state.name())).collect::<Vec<_>>().join(",")
}

pub(crate) fn read_state(row: &Row, at: usize) -> Result<TaskState> {
    row.word(at, "a task's state", TaskState::from_name)
}

pub(crate) fn read_open_task(row: &Row) -> Result<OpenTask> {
    Ok(OpenTask {
        task_id: row.id(0)?,
        campaign: row.text(1)?,
        contact: row.id(2)?,
        member: row.id(3)?,
        channel: row.text(4)?,
        store: row.text_or_null(5)?,
        touch: row.small(6)?,
        state: read_state(row, 7)?,
    })
}

fn read_task(row: &Row) -> Result<Task> {
    Ok(Task {
        task_id: row.id(0)?,
        campaign: row.text(1)?,
        contact: row.id(2)?,
        member: row.id(3)?,
        touch: row.small(4)?,
        try_number: row.small(5)?,
        channel: row.text(6)?,
        store: row.text_or_null(7)?,
        staff: row.text_or_null(8)?,
        run_id: row.id(9)?,
        generation: row.unsigned(10)?,
        planned_us: row.int(11)?,
        due_us: row.int_or_null(12)?,
        not_before_us: row.int(13)?,
        state: read_state(row, 14)?,
        requeued: row.flag(15)?,
        attempts: row.small(16)?,
        changed_us: row.int(17)?,
        sent_us: row.int_or_null(18)?,
        dispatch_id: row.id_or_null(19)?,
        code: row.text_or_null(20)?,
        message: row.text_or_null(21)?,
        outcome: row.text_or_null(22)?,
    })
}

fn read_change(row: &Row) -> Result<Change> {
    Ok(Change {
        at_us: row.int(0)?,
        state: read_state(row, 1)?,
        code: row.text_or_null(2)?,
        message: row.text_or_null(3)?,
        dispatch_id: row.id_or_null(4)?,
    })
}
