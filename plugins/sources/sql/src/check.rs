//! What can be said of a source without reading it.

use reunion_sdk::arrow::datatypes::SchemaRef;
use reunion_sdk::{Call, Finding, PluginError};

use crate::columns;
use crate::config::{Config, Dialect, NullCursor, changed_key};
use crate::database::{Clock, Session};
use crate::query::{count_after, count_nulls, with_cursor};
use crate::shape::{Shape, about};
use crate::wait::{Stop, looking, run};

/// The columns that a read gives.
///
/// # Errors
/// Where the database is not reached, or does not understand a query.
pub fn schema(call: &Call, config: &Config, dialect: Dialect) -> Result<SchemaRef, PluginError> {
    run(async {
        let stop = Stop::of(call);
        let mut session = Session::connect(config, dialect, &stop).await?;
        let shape = Shape::of(&mut session, config, dialect, looking(config, &stop)).await?;
        session.close().await;
        Ok(columns::schema(&shape.columns))
    })
}

/// What there is to say of a source that can be read.
///
/// # Errors
/// As [`schema`].
pub fn check(call: &Call, config: &Config, dialect: Dialect) -> Result<Vec<Finding>, PluginError> {
    run(async {
        let stop = Stop::of(call);
        let mut session = Session::connect(config, dialect, &stop).await?;
        let wait = looking(config, &stop);
        let shape = Shape::of(&mut session, config, dialect, wait).await?;
        let mut findings = Vec::new();
        let clocks = shape.clocks(&mut session, config, wait).await?;
        for (at, (kind, clock)) in shape.cursors.iter().zip(clocks).enumerate() {
            let (key, query, name, of) = match shape.cursor {
                Some(cursor) => ("query".to_owned(), &config.query, shape.name(cursor), String::new()),
                None => (changed_key(at), &config.changed[at], shape.changed[at][1].name.as_str(), format!(" of {}", changed_key(at))),
            };
            let query = with_cursor(query, &kind.minimum(dialect));
            let nulls = session.number(&count_nulls(dialect, &query, name), wait).await.map_err(|error| about(&key, error))?;
            if nulls > 0 {
                let what = match config.null_cursor {
                    NullCursor::Read => "read in every pull",
                    NullCursor::Refuse => "for which null_cursor = \"refuse\" ends every pull",
                };
                findings.push(Finding::warning(format!("rows without a value in {name:?}{of}: {nulls}, {what}")));
            }
            if let Clock::At(now) = clock {
                let future = session.number(&count_after(dialect, &query, name, &now), wait).await.map_err(|error| about(&key, error))?;
                if future > 0 {
                    let what = "read, and not counted for where the next pull begins";
                    findings.push(Finding::warning(format!("rows with a time in {name:?}{of} that has not come yet: {future}, {what}")));
                }
            }
        }
        if shape.id.is_none() {
            findings.push(Finding::info("without id_column a pull that loses the server begins anew"));
        }
        session.close().await;
        Ok(findings)
    })
}
