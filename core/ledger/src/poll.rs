//! Events: what became of tasks after they were accepted, as channels report it.

use std::collections::BTreeSet;

use reunion_model::task::Outcome;
use reunion_model::{ContactId, Phone, TaskId, TaskState};
use serde_json::Value;

use crate::Ledger;
use crate::error::Result;
use crate::facts::NewSuppression;
use crate::seal::{NOTE, POLL};
use crate::sql::{Row, Tx, args};
use crate::tasks::{Move, read_state};

/// What a channel reports of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for the same event, however often it arrives.
    pub event_id: String,
    /// The task.
    pub task_id: TaskId,
    /// What came of it.
    pub outcome: Outcome,
    /// When it happened, where the channel knows.
    pub at_us: Option<i64>,
    /// The clerk's own words.
    pub note: Option<String>,
}

/// What was made of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Polled {
    /// Events that are stored now.
    pub new: u64,
    /// Events that were stored before.
    pub repeated: u64,
    /// Links that are known now.
    pub linked: u64,
    /// Suppressions that hold now.
    pub suppressed: u64,
    /// Tasks that this channel never had. Nothing was stored of them.
    pub unknown_tasks: Vec<TaskId>,
    /// Tasks that the ledger says were never sent, or were settled otherwise before. What the event says
    /// of the member was stored, and the task left as it was.
    pub unexpected: Vec<TaskId>,
}

/// The task that an event is about.
struct Subject {
    state: TaskState,
    contact: ContactId,
    phone: Phone,
    outcome_us: Option<i64>,
}

impl Ledger {
    /// Where a channel's next poll goes on.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`], [`crate::LedgerError::Sealed`].
    pub async fn poll_state(&self, channel: &str) -> Result<Option<Value>> {
        let mut tx = self.store.read("read a poll state").await?;
        let sealed = tx.row("select state from poll_states where channel = $1", args![channel], |row| row.bytes(0)).await?;
        sealed.map(|sealed| POLL.open(&self.keys, channel.as_bytes(), &sealed)).transpose()
    }

    /// Stores events together with the state that the next poll goes on from. Each event counts once,
    /// moves its task, and leaves its facts: a link where the member was added, a suppression where the
    /// number is wrong or the member does not want to be contacted.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`], [`crate::LedgerError::Sealed`].
    pub async fn commit_poll(&self, channel: &str, events: &[Event], state: Option<&Value>, now_us: i64) -> Result<Polled> {
        let sealed = state.map(|state| POLL.seal(&self.keys, channel.as_bytes(), state)).transpose()?;
        let mut tx = self.store.write("commit a poll").await?;
        // Facts are numbered first and tasks locked after, in one order, as everywhere.
        tx.raise("facts", 0).await?;
        let mut polled = Polled::default();
        let mut unknown = BTreeSet::new();
        let mut events: Vec<_> = events.iter().collect();
        events.sort_by_key(|event| (event.task_id, event.at_us, &event.event_id));
        for event in events {
            match self.subject(&mut tx, channel, event.task_id).await? {
                Some(subject) => self.take_event(&mut tx, channel, event, subject, now_us, &mut polled).await?,
                None => drop(unknown.insert(event.task_id)),
            }
        }
        polled.unknown_tasks = unknown.into_iter().collect();
        if let Some(sealed) = sealed {
            let sql = "insert into poll_states (channel, state) values ($1, $2) on conflict (channel) do update set state = excluded.state";
            tx.execute(sql, args![channel, sealed]).await?;
        }
        tx.commit().await?;
        Ok(polled)
    }

    async fn subject(&self, tx: &mut Tx, channel: &str, task_id: TaskId) -> Result<Option<Subject>> {
        let sql = format!("select state, contact, outcome_us, payload from tasks where task_id = $1 and channel = $2{}", tx.for_update());
        let read = |row: &Row| {
            let phone = self.open_payload(task_id, &row.bytes(3)?)?.phone;
            Ok(Subject { state: read_state(row, 0)?, contact: row.id(1)?, phone, outcome_us: row.int_or_null(2)? })
        };
        tx.row(sqlx::AssertSqlSafe(sql), args![task_id, channel], read).await
    }

    async fn take_event(
        &self,
        tx: &mut Tx,
        channel: &str,
        event: &Event,
        subject: Subject,
        now_us: i64,
        polled: &mut Polled,
    ) -> Result<()> {
        let Event { event_id, task_id, outcome, at_us, note } = event;
        let note = note.as_ref().map(|note| NOTE.seal(&self.keys, event_id.as_bytes(), note)).transpose()?;
        let sql = "insert into channel_events (channel, event_id, task_id, outcome, at_us, received_us, note) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
        if tx.execute(sql, args![channel, event_id, *task_id, outcome.name(), *at_us, now_us, note]).await? == 0 {
            polled.repeated += 1;
            return Ok(());
        }
        polled.new += 1;
        let happened_us = at_us.unwrap_or(now_us);
        match outcome {
            Outcome::Added => polled.linked += u64::from(tx.link(subject.contact, channel, happened_us, *task_id).await?),
            Outcome::WrongNumber | Outcome::DoNotCall => {
                let suppression = NewSuppression {
                    phone: subject.phone,
                    reason: outcome.name().into(),
                    source: channel.into(),
                    since_us: happened_us,
                    until_us: None,
                    set_by: format!("channel {channel}"),
                };
                polled.suppressed += u64::from(tx.suppress(subject.contact, &suppression).await?);
            }
            Outcome::Refused => {}
        }
        if !tx.settle(*task_id, subject.state, *outcome, now_us).await? {
            polled.unexpected.push(*task_id);
        }
        if subject.outcome_us.is_none_or(|earlier| earlier <= happened_us) {
            let sql = "update tasks set outcome = $2, outcome_us = $3 where task_id = $1";
            tx.execute(sql, args![*task_id, outcome.name(), happened_us]).await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Moves a task to where an outcome says that it is, by legal moves. False where it cannot be there.
    async fn settle(&mut self, task_id: TaskId, state: TaskState, outcome: Outcome, now_us: i64) -> Result<bool> {
        let goal = match outcome {
            Outcome::WrongNumber => TaskState::Rejected,
            Outcome::Added | Outcome::Refused | Outcome::DoNotCall => TaskState::Delivered,
        };
        // A report of what a task did proves that it was accepted, even where the receipt was lost.
        let path: &[TaskState] = match (state, goal) {
            (state, goal) if state == goal => return Ok(true),
            (TaskState::Sending | TaskState::Unknown, TaskState::Delivered) => &[TaskState::Accepted, TaskState::Delivered],
            (_, TaskState::Delivered) => &[TaskState::Delivered],
            _ => &[TaskState::Rejected],
        };
        for to in path {
            if self.move_tasks(*to, false, vec![Move::because(task_id, outcome.name())], now_us).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
