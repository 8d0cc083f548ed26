//! Tasks: one intended touch each, in a state that only moves forward.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::schema::timestamp_type;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// In the outbox.
    Planned,
    /// Given to the channel; the outcome is not known yet.
    Sending,
    /// The channel took it.
    Accepted,
    /// It reached the member.
    Delivered,
    /// The channel refused it for good, or it failed after it was accepted.
    Rejected,
    /// The channel could not take it; tried again after a delay.
    NotSent,
    /// Nobody knows whether it was sent. Never tried again by itself.
    Unknown,
    /// Taken back before it was sent, because the world changed.
    Cancelled,
    /// Refused by a gate when it was about to be sent.
    Refused,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Planned,
        Self::Sending,
        Self::Accepted,
        Self::Delivered,
        Self::Rejected,
        Self::NotSent,
        Self::Unknown,
        Self::Cancelled,
        Self::Refused,
    ];

    /// The name in the ledger and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    /// The state that has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The states that a task may move to from here. `retry` says that it may be sent again though
    /// its outcome is unknown: the channel is idempotent, or an operator requeued the task.
    pub const fn next(self, retry: bool) -> &'static [Self] {
        match (self, retry) {
            (Self::Planned, _) => &[Self::Sending, Self::Cancelled, Self::Refused],
            (Self::Sending, _) => &[Self::Accepted, Self::Rejected, Self::NotSent, Self::Unknown],
            (Self::NotSent, _) => &[Self::Sending, Self::Cancelled],
            (Self::Unknown, true) => &[Self::Accepted, Self::Rejected, Self::Sending],
            (Self::Unknown, false) => &[Self::Accepted, Self::Rejected],
            (Self::Accepted, _) => &[Self::Delivered, Self::Rejected],
            (Self::Delivered | Self::Rejected | Self::Cancelled | Self::Refused, _) => &[],
        }
    }

    /// Whether the task has not been given to a channel and may still be taken back.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::NotSent)
    }

    /// Whether the task counts as a touch: it reached the member or may have.
    pub const fn is_touch(self) -> bool {
        matches!(self, Self::Sending | Self::Accepted | Self::Delivered | Self::Unknown)
    }
}

/// What a channel says of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Taken: do not give it to the channel again.
    Accepted,
    /// It reached the member.
    Delivered,
    /// Refused for good.
    Rejected,
    /// Not taken; may be given again after the receipt's delay.
    NotSent,
    /// Not taken, through nothing of the task: the channel is at its limit, or down. As [`Verdict::NotSent`],
    /// and the try does not count.
    Busy,
    /// It may or may not have been taken.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] = [Self::Accepted, Self::Delivered, Self::Rejected, Self::NotSent, Self::Busy, Self::Unknown];

    /// The name in receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            verdict => verdict.state().name(),
        }
    }

    /// Whether the task may be given again, after a delay that the receipt names.
    pub const fn is_put_off(self) -> bool {
        matches!(self, Self::NotSent | Self::Busy)
    }

    /// The verdict of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// The state that the task moves to.
    pub const fn state(self) -> TaskState {
        match self {
            Self::Accepted => TaskState::Accepted,
            Self::Delivered => TaskState::Delivered,
            Self::Rejected => TaskState::Rejected,
            Self::NotSent | Self::Busy => TaskState::NotSent,
            Self::Unknown => TaskState::Unknown,
        }
    }
}

/// What the clerk or the vendor reports of a task later on: the words of a work list's `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The member is linked now. The task is delivered, and a link is stored.
    Added,
    /// The member said no. The task is delivered, and the campaign does not touch the member again.
    Refused,
    /// The number is not the member's. The task is rejected, and the phone is suppressed.
    WrongNumber,
    /// The member does not want to be contacted. The task is delivered, and the phone is suppressed.
    DoNotCall,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Added, Self::Refused, Self::WrongNumber, Self::DoNotCall];

    /// The word in work lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Refused => "refused",
            Self::WrongNumber => "wrong_number",
            Self::DoNotCall => "do_not_call",
        }
    }

    /// The outcome that has this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The columns of a batch of tasks as a channel is given them. Every task of a dispatch is in it, in
/// the dispatch's order.
pub fn task_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("task_id", DataType::Utf8, false),
        Field::new("campaign", DataType::Utf8, false),
        Field::new("store", DataType::Utf8, true),
        Field::new("staff", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("phone", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("message", DataType::Utf8, true),
        Field::new("due", timestamp_type(), true),
    ]))
}

/// The columns of a batch of receipts: one row per task, in any order.
///
/// `verdict` is a [`Verdict`]; `retry_after_ms` is needed with `not_sent` and `busy`; `code` is the vendor's own;
/// `message` is one line without personal data.
pub fn receipt_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("task_id", DataType::Utf8, false),
        Field::new("verdict", DataType::Utf8, false),
        Field::new("retry_after_ms", DataType::UInt64, true),
        Field::new("code", DataType::Utf8, true),
        Field::new("message", DataType::Utf8, true),
    ]))
}

/// The columns of a batch of events that a channel reports on its own: what became of tasks after
/// they were accepted.
///
/// `event_id` makes an event that arrives twice count once. `outcome` is an [`Outcome`]. `at` is when
/// it happened, null where the channel does not know. `note` is the clerk's own text.
pub fn event_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("task_id", DataType::Utf8, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("at", timestamp_type(), true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_only_move_forward() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::from_name(state.name()), Some(state));
            for next in state.next(false) {
                assert!(state.next(true).contains(next));
                assert_ne!(*next, TaskState::Planned, "nothing returns to the outbox");
            }
        }
        assert!(!TaskState::Unknown.next(false).contains(&TaskState::Sending));
        assert!(TaskState::Unknown.next(true).contains(&TaskState::Sending));
    }

    #[test]
    fn every_push_verdict_is_a_legal_move_from_sending() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
            let legal = TaskState::Sending.next(false).contains(&verdict.state());
            assert_eq!(legal, verdict != Verdict::Delivered, "delivered is a later report");
        }
    }
}
