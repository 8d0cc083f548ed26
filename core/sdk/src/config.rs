//! A component's config: from the JSON that the host hands over to the author's own type.

use serde::de::DeserializeOwned;
use serde_json::Value;

use reunion_model::plugin::{ErrorClass, PluginError};

/// Reads the config; an error names the key and never repeats a value, which may be a secret.
pub(crate) fn read<C: DeserializeOwned>(json: &str) -> Result<C, PluginError> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| PluginError::new(ErrorClass::Internal, format!("the host's config is no JSON (column {})", error.column())))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let key = match named_field(&message) {
            // The path of a missing or unknown key is that of the table around it, or its own.
            Some(field) if path.is_empty() => field.to_owned(),
            Some(field) if path != field && !path.ends_with(&format!(".{field}")) => format!("{path}.{field}"),
            _ => path,
        };
        let error = PluginError::new(ErrorClass::InvalidConfig, without_value(&message));
        if key.is_empty() { error } else { error.key(key) }
    })
}

/// The key that serde names in "missing field `path`" and "unknown field `pth`, expected …".
fn named_field(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("missing field `").or_else(|| message.strip_prefix("unknown field `"))?;
    rest.split('`').next()
}

/// "invalid type: string "secret", expected u64" without what was given.
fn without_value(message: &str) -> String {
    let given = ["invalid type: ", "invalid value: "].into_iter().find_map(|prefix| message.strip_prefix(prefix));
    match given.and_then(|given| given.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Config {
        path: String,
        retry: Option<Retry>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Retry {
        delay_secs: u64,
    }

    #[test]
    fn an_error_names_the_key_and_not_the_value() {
        let cases = [
            (r#"{"path": 5}"#, Some("path"), "expected a string"),
            (r#"{}"#, Some("path"), "missing field `path`"),
            (r#"{"path": "x", "pth": 1}"#, Some("pth"), "unknown field `pth`, expected `path` or `retry`"),
            (r#"{"path": "x", "retry": {"delay_secs": "secret, expected x"}}"#, Some("retry.delay_secs"), "expected u64"),
            (r#"{"path": "x", "retry": {}}"#, Some("retry.delay_secs"), "missing field `delay_secs`"),
            ("5", None, "expected struct Config"),
        ];
        for (json, key, message) in cases {
            let error = read::<Config>(json).expect_err("invalid");
            assert_eq!((error.class, error.key.as_deref(), error.message.as_str()), (ErrorClass::InvalidConfig, key, message), "{json}");
        }
        assert!(read::<Config>(r#"{"path": "x"}"#).is_ok());
        assert_eq!(read::<Config>("{").map_err(|error| error.class).err(), Some(ErrorClass::Internal));
    }
}
