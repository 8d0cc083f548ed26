//! People: from the rows of sources to members.
//!
//! Pure functions over Arrow: no I/O and no clock. The stages, in order:
//!
//! 1. [`normalise`]: a source's batch to records: typed columns, a usable phone or the reason why
//!    there is none, a record key and a content hash.
//! 2. [`pull`]: which of the pulled rows are new, changed, unchanged, superseded or deleted.
//! 3. [`scope`]: which records can have another outcome than before.
//! 4. [`identity`]: which records are one member, and the member's id.
//! 5. [`golden`]: the member's columns, each by its survivorship rule. [`explain`] says which records
//!    each value came from, and [`unused`] which values of keys do not join.

mod cast;
mod matching;
mod moment;
mod numbering;
mod rowhash;
mod segments;
mod table;
#[cfg(test)]
mod testing;

pub mod explain;
pub mod golden;
pub mod identity;
pub mod normalise;
pub mod phone;
pub mod pull;
pub mod scope;
pub mod unused;

pub use explain::{Explained, Joined, Origin, SharedKey, explain, joined};
pub use golden::{Golden, GoldenColumn, GoldenError, GoldenPlan, Loaded, golden};
pub use identity::{
    Assignments, Held, HeldNumbers, Identified, IdentityConfig, KeyLimits, Members, PreviousMembers, SharedPhone, SharedPhonePolicy,
    assignment_schema, identify, index_columns,
};
pub use normalise::{
    ColumnNulls, Mapping, MappingError, NormaliseError, Normalised, Normaliser, RecordIdRule, SourcePlan, Split, Unit, unfit_values,
};
pub use phone::{PLACEHOLDERS, PhoneRules, PhoneRulesError};
pub use pull::{Chunk, Deletions, Known, Pull, PullInput, Resolved, SourceCounts};
pub use scope::{Scope, Settled, key_columns, narrow};
pub use table::StateError;
pub use unused::{Census, Fate, Unused, Why, too_many_values};
