//! The vocabulary of Reunion: records, members, tasks, receipts, phones, and what plugins say.
//!
//! Plain types and Arrow schemas, no I/O, and no dependency on any other crate of the project.
//! Units: every time is microseconds since the Unix epoch in UTC (`_us`), every amount of money
//! is a decimal with two places, every id is sixteen bytes shown as thirty-two hex digits.

pub mod consent;
pub mod decision;
pub mod fault;
pub mod gate;
pub mod ids;
pub mod limits;
pub mod phone;
pub mod plugin;
pub mod quarantine;
pub mod record;
pub mod schema;
pub mod task;
pub mod threads;

pub use consent::{Consent, Purpose};
pub use decision::{Decision, DecisionKind, DecisionSource};
pub use gate::{Gate, GateKind};
pub use ids::{ContactId, DecisionId, DispatchId, MemberId, PullId, RecordKey, RunId, TaskId};
pub use phone::Phone;
pub use quarantine::Reason;
pub use task::{TaskState, Verdict};
