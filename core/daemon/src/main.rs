//! The program `reunion`.

use std::process::ExitCode;

use clap::Parser;
use reunion_daemon::app;
use reunion_daemon::cli::Cli;

fn main() -> ExitCode {
    if app::is_worker() {
        return reunion_host::worker_main();
    }
    app::main(Cli::parse()).into()
}
