//! The ledger: everything that this project did and was told, as rows that only move forward.
//!
//! Runs, pulls and their segments, the head of the chain of generations, tasks and what became of
//! them, suppressions, links, operators' decisions, and the arms of control groups. It is the only place that speaks SQL
//! to our own store. [`Ledger`] has one method for each intent, and each writing method is one
//! transaction: a kill at any moment leaves all of it or nothing.
//!
//! Two databases carry it, SQLite beside the state and PostgreSQL where several daemons share the
//! work, with the same tables and the same SQL; `sql.rs` holds what differs. Rules that make them
//! behave alike: ids are sixteen bytes of our own, times are microseconds in UTC given by the caller,
//! no column counts by itself, and work is found by claiming rows, never by asking for `id > n`.
//!
//! - **Fence.** Writes of the people side show a [`Lease`]; each compares its fence with the ledger's
//!   inside its own transaction, so a holder that was overtaken can do no harm.
//! - **Facts** (suppressions, links, decisions about who is who) carry a number from one counter that is raised in their own
//!   transaction, so that the order of numbers is the order of commits.
//! - **Tasks** move only as [`reunion_model::TaskState::next`] allows; the guard stands in the SQL of
//!   every move.
//! - **Personal data.** A contact point is a keyed hash. Names, phones, messages, notes and resume
//!   states are sealed with the state's data key, each for its own row.

mod components;
mod decisions;
mod dispatch;
mod error;
mod facts;
mod generations;
mod lease;
mod open;
mod operator;
mod poll;
mod pulls;
mod receipts;
mod retention;
mod runs;
mod seal;
mod sql;
mod tasks;
mod touches;

pub use components::{Component, ComponentKind, ComponentState};
pub use decisions::{DecisionRecord, NewDecision, Withdrawal};
pub use dispatch::{Claimed, Dispatch, DispatchTask, Due, Group};
pub use error::{LedgerError, Result};
pub use facts::{Audit, Facts, Link, NewSuppression, Suppression};
pub use generations::{Committed, GenerationCommit, Head, RolledBack};
pub use lease::{Holder, LEASE_RENEW, LEASE_TTL, Lease};
pub use open::{Ledger, Location};
pub use operator::Requeued;
pub use poll::{Event, Polled};
pub use pulls::{Pull, Segment, SourceState};
pub use receipts::{Pushed, Receipt, Recorded, Resumed, Settled};
pub use runs::{NewRun, Run, RunState};
pub use tasks::{Change, NewTask, OpenTask, Payload, Task, TaskCount, TaskDetail, TaskFilter};
pub use touches::{Arm, ArmKind, Touches};
