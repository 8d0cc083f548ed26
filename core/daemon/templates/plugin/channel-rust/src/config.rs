//! The `with` table.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

/// What the operator writes. The host has checked it against [`Config::schema`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder that takes a file for each task.
    pub dir: PathBuf,
}

impl Config {
    /// The same as a schema.
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["dir"],
            "additionalProperties": false,
            "properties": {
                "dir": {
                    "type": "string", "format": "path", "access": "write", "minLength": 1,
                    "description": "the folder that takes a file for each task"
                }
            }
        })
    }
}
