//! The daemon: config, schedule, run, dispatch and command line. Thin: what it wires lives in the
//! other crates.

pub mod app;
pub mod cli;
mod commands;
mod components;
pub mod config;
mod dispatch;
mod failure;
mod http;
mod logging;
mod outbox;
mod run;
mod state;
