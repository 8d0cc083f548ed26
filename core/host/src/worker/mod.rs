//! A worker: the process, or in the daemon's own process the thread, in which one component's plugin runs.
//!
//! It gets its end of a socket as its standard input, is told what to do by the first frame, confines itself,
//! and only then loads the library. It ends with the connection.

mod pages;
mod process;
mod serve;

pub use process::main;
pub(crate) use serve::on_this_thread;
