//! Outreach: who of an audience gets a task now, and whether a task may still be sent.
//!
//! Pure functions: no I/O, and the time is an argument. The same people, facts and clock give the same
//! plan whatever the order of the rows and the number of threads.
//!
//! - [`campaign`]: what a campaign is.
//! - [`message`]: the templates of its texts.
//! - [`members`]: the columns of members that outreach reads.
//! - [`gates`]: the checks between an audience and a task.
//! - [`person`]: what counts of a person who has several contact points.
//! - [`arm`]: the control group.
//! - [`holder`]: whose arm it is, where a number came to somebody else.
//! - [`plan`]: one run's tasks, and the gate that stopped each of the others ([`decisions`]).
//! - [`regate`]: the gates again, when people change and when a task is about to be sent.
//! - [`dispatch`]: which tasks go together, and when.

pub mod arm;
pub mod campaign;
pub mod clock;
pub mod decisions;
pub mod dispatch;
pub mod gates;
pub mod holder;
pub mod members;
pub mod message;
pub mod person;
pub mod plan;
pub mod regate;
#[cfg(test)]
mod testing;

pub use arm::{Arm, Seed, merge_arms};
pub use campaign::{Campaign, CampaignError, TaskColumn, Window};
pub use decisions::Decisions;
pub use dispatch::{group_key, may_send_at};
pub use gates::Touches;
pub use holder::Holders;
pub use members::{Members, MembersError};
pub use message::{RenderError, Template, TemplateError};
pub use person::Suppressed;
pub use plan::{CampaignCounts, CampaignInput, CampaignPlan, Plan, PlanInput, PlannedTask, plan};
pub use regate::{AtSend, OpenTask, RegateCampaign, RegateInput, SendFacts, gate_at_send, regate};
