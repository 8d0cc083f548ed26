//! The daemon: config, schedule, run, dispatch and command line. Thin: what it wires lives in the
//! other crates.

pub mod cli;
pub mod config;
