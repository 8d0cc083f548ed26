//! From lines to rows: the columns, and what a line has to be.

use std::sync::Arc;

use reunion_sdk::Reason;
use reunion_sdk::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use reunion_sdk::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;

use crate::export::Line;

/// A line of the export. What else stands in it is passed over.
#[derive(Debug, Default, Deserialize)]
pub struct Row {
    card: Option<String>,
    mobile: Option<String>,
    name: Option<String>,
    points: Option<i64>,
    changed: Option<String>,
}

/// The columns, by the names that the rest of Reunion has for them; `points` is one of its own.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record_id", DataType::Utf8, true),
        Field::new("phone", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("points", DataType::Int64, true),
        Field::new("updated_at", DataType::Utf8, true),
    ]))
}

/// The rows as a batch of [`schema`].
pub fn batch(rows: &[Row]) -> RecordBatch {
    let text = |cell: fn(&Row) -> &Option<String>| Arc::new(rows.iter().map(cell).collect::<StringArray>()) as ArrayRef;
    let columns = vec![
        text(|row| &row.card),
        text(|row| &row.mobile),
        text(|row| &row.name),
        Arc::new(rows.iter().map(|row| row.points).collect::<Int64Array>()),
        text(|row| &row.changed),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of the schema")
}

/// The row in a line; `None` where the line is empty.
///
/// # Errors
/// The reason why it is set aside, and a word that names nobody.
pub fn parse(line: &Line<'_>) -> Result<Option<Row>, (Reason, String)> {
    let (bytes, is_ended) = match line {
        Line::Bytes(bytes) => (*bytes, true),
        Line::Last(bytes) => (*bytes, false),
        Line::TooLong => return Err((Reason::RowTooLong, "longer than line_bytes_max".to_owned())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = str::from_utf8(bytes).map_err(|_| (Reason::RowBadEncoding, "the line is not UTF-8".to_owned()))?;
    serde_json::from_str(text).map(Some).map_err(|error| {
        let reason = if is_ended { Reason::RowRagged } else { Reason::RowTruncated };
        // The error's own words would repeat the value.
        (reason, format!("not the object that it should be, from character {} on", error.column()))
    })
}
