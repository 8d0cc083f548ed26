//! Documents as lines for people.

use std::fmt::Write as _;

use serde_json::Value;

/// Adds a line.
pub fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

/// The items of a list; none where it is none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text; empty where it is none.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
