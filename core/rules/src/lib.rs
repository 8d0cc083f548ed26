//! Rules: what a config says about members in SQL, and what is computed for it.
//!
//! - [`derive`] appends the columns that depend on the clock or on all members.
//! - [`Rules`] compiles tags and audiences, each one boolean SQL expression over one member, and
//!   [`BoundRules`] evaluates them at a run's clock, on all cores.
//! - [`TagState`] is what the state knows of tags, and [`TagDelta`] what a run changes in it.
//! - [`query`] runs read-only SQL over tables that the caller gives, and [`output`] shows the result.
//!
//! The only crate that depends on DataFusion. No I/O, and no clock of its own.

mod calendar;
mod check;
mod derive;
mod engine;
mod error;
mod evaluate;
pub mod output;
mod parallel;
mod query;
mod rules;
mod scan;
mod tags;
mod translate;

pub use derive::{Derivation, LinkedMembers, derive, derived_schema, rule_schema};
pub use error::{DeriveError, EvaluateError, QueryError, RuleError, RuleName};
pub use evaluate::{AudienceResult, Evaluated, TagCounts, TagResult};
pub use query::{QueryClock, QueryLimits, Table, query};
pub use rules::{AudienceRule, BoundRules, Rules, TagRule};
pub use tags::{TagDelta, TagState, tag_schema};
