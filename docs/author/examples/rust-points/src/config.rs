//! The `with` table.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

/// What the operator writes. The host has checked it against [`Config::schema`], and filled in what is not there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The export to read.
    pub path: PathBuf,
    /// A longer line is rejected.
    pub line_bytes_max: usize,
    /// Lines between two resume states.
    pub batch_rows: usize,
}

impl Config {
    /// The same as a schema: types, ranges and defaults that the host checks before the plugin sees anything.
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["path"],
            "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "format": "path", "minLength": 1, "description": "the export to read"},
                "line_bytes_max": {
                    "type": "integer", "minimum": 16, "maximum": 1_048_576, "default": 65_536,
                    "description": "a longer line is rejected"
                },
                "batch_rows": {
                    "type": "integer", "minimum": 1, "maximum": 8192, "default": 8192,
                    "description": "lines between two resume states"
                }
            }
        })
    }
}
