//! The program `reunion`.

use std::process::ExitCode;

use clap::Parser;
use reunion_daemon::app;
use reunion_daemon::cli::Cli;
use reunion_host::memory::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    if app::is_worker() {
        return reunion_host::worker_main();
    }
    app::main(Cli::parse()).into()
}
