//! The stages together, as a run puts them together: pulls into a world of records, assignments and
//! members, generation after generation.

#![allow(clippy::unwrap_used, reason = "the harness of tests is test code")]

mod golden;
mod identity;
mod properties;
mod pulls;
mod world;
