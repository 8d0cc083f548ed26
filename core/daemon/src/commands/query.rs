//! `query`: read-only SQL over the head and the ledger.

use reunion_rules::{QueryClock, QueryError, QueryLimits, output};

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
    let batches = result.map_err(failure)?;
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

/// The text of a query is an argument; what the engine lacks is not.
fn failure(error: QueryError) -> Failure {
    let message = "the query cannot be answered";
    match error {
        QueryError::RowsMax { .. } => Failure::usage(message).because(error).help("or raise [limits] query_rows_max"),
        QueryError::MemoryMax { .. } => Failure::usage(message).because(error).help("or raise [limits] query_memory_mib"),
        QueryError::Text { .. } | QueryError::NotReadOnly | QueryError::Failed(_) => Failure::usage(message).because(error),
        QueryError::Engine(_) | QueryError::Stopped => Failure::other(message).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_query_is_a_wrong_argument() {
        let text = QueryError::Text {
            message: "there is no table `member`".to_owned(),
            suggestion: Some("did you mean `members`?".to_owned()),
            span: None,
        };
        let wrong = failure(text);
        assert_eq!(wrong.exit(), Exit::Usage);
        insta::assert_snapshot!(wrong.render(false), @"error: the query cannot be answered: there is no table `member`; did you mean `members`?");
        assert_eq!(failure(QueryError::RowsMax { rows_max: 5 }).exit(), Exit::Usage);
        assert_eq!(failure(QueryError::Stopped).exit(), Exit::Failed);
    }
}
