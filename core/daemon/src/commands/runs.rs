//! `plan` and `once`.

use crate::app::App;
use crate::cli::{Exit, RunArgs};
use crate::failure::Failure;
use crate::run::{self, Report};

/// Pulls and computes as `once` would; commits nothing and contacts nobody.
pub fn plan(app: &App, args: &RunArgs) -> Result<Exit, Failure> {
    let (report, exit) = run::plan(app, args)?;
    app.print(&report, Report::text)?;
    Ok(exit)
}

/// Runs a pipeline once, to the end.
pub fn once(app: &App, args: &RunArgs) -> Result<Exit, Failure> {
    let (report, exit) = run::once(app, args)?;
    app.print(&report, Report::text)?;
    Ok(exit)
}
