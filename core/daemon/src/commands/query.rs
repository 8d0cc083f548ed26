//! `query`: read-only SQL over the head and the ledger.

use reunion_rules::{QueryClock, QueryLimits, output};

use crate::app::App;
use crate::cli::{Exit, Format};
use crate::failure::{Doing, Failure};

use super::view::View;

/// Runs the command.
pub fn query(app: &App, sql: &str) -> Result<Exit, Failure> {
    let state = app.state()?;
    let view = View::open(app, &state)?;
    let clock = QueryClock { at_us: view.head.clock_us, timezone: app.config.timezone.name().to_owned() };
    let limits = QueryLimits { rows_max: app.config.limits.query_rows_max, memory_bytes_max: app.config.limits.query_memory_mib << 20 };
    let tables = view.tables()?;
    let result = app.runtime.block_on(reunion_rules::query(sql, tables, clock, limits));
    let batches = result.map_err(|error| Failure::usage("the query cannot be answered").because(error))?;
    let doing = || "the result cannot be written".to_owned();
    match app.format {
        Format::Json => app.print(&output::to_json_rows(&batches).doing(doing)?, |_| String::new())?,
        Format::Text => {
            let text = output::to_text_table(&batches).doing(doing)?;
            app.print(&(), |()| text)?;
        }
    }
    Ok(Exit::Done)
}
