//! Secrets in a plugin's config.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

/// A text that is never shown: what the host found where the config says that the secret is.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The JSON Schema of a key that holds one: the config says where it is, and never the secret itself.
    pub fn schema(description: &str) -> Value {
        json!({
            "type": "object",
            "format": "secret",
            "properties": {
                "env": {"type": "string", "minLength": 1, "description": "A variable of the environment."},
                "file": {"type": "string", "format": "path", "minLength": 1, "description": "A file that nobody but its owner reads."},
                "credential": {"type": "string", "minLength": 1, "description": "A systemd credential."}
            },
            "description": description
        })
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_not_shown() {
        let secret: Secret = serde_json::from_value(json!("hunter2")).expect("a text");
        assert_eq!(secret.reveal(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
