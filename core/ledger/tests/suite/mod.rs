//! The suite: one module per part of the ledger.

pub mod decisions;
pub mod dispatches;
pub mod facts;
pub mod generations;
pub mod leases;
pub mod moves;
mod opening;
pub mod polls;
pub mod pulls;
pub mod tasks;
