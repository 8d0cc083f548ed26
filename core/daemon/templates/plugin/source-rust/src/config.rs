//! The `with` table.

use serde::Deserialize;
use serde_json::{Value, json};

/// What the operator writes. The host has checked it against [`Config::schema`], and filled in what
/// is not there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rows of a read.
    pub rows: u64,
    /// Rows of one batch, after which there is a resume state.
    pub batch_rows: u64,
}

impl Config {
    /// The same as a schema: types, ranges and defaults.
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["rows"],
            "additionalProperties": false,
            "properties": {
                "rows": {
                    "type": "integer", "minimum": 0, "maximum": 100_000_000,
                    "description": "rows of a read"
                },
                "batch_rows": {
                    "type": "integer", "minimum": 1, "maximum": 8192, "default": 1000,
                    "description": "rows of one batch, after which there is a resume state"
                }
            }
        })
    }
}
