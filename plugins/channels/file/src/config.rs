//! The `with` table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use reunion_sdk::{ErrorClass, Outcome, PluginError};
use serde::Deserialize;
use serde_json::json;

use crate::path::PathTemplate;

/// The `with` table of a channel with `plugin = "file"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the work lists go, with variables in braces.
    pub path: String,
    /// The folder in which lists with results are put back.
    #[serde(default)]
    pub return_dir: Option<PathBuf>,
    /// For how long a returned list has to be still before it is read.
    #[serde(default = "default_settle_secs")]
    pub settle_secs: u64,
    /// Cuts the days of the column `due`.
    #[serde(default = "default_timezone")]
    pub timezone: String,
    /// How phone numbers are written.
    #[serde(default)]
    pub phone_format: PhoneFormat,
    /// The consent that members on these lists must have given: `sms`, `call` or `message`.
    #[serde(default)]
    pub consent: Option<String>,
    /// Further words for results, and the result that each means.
    #[serde(default)]
    pub results: BTreeMap<String, String>,
}

/// How phone numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneFormat {
    /// `13900001201`.
    #[default]
    Plain,
    /// `139 0000 1201`, which no spreadsheet takes for a number.
    Grouped,
}

const SETTLE_SECS_MAX: u64 = 3_600;

fn default_settle_secs() -> u64 {
    5
}

fn default_timezone() -> String {
    "Asia/Shanghai".into()
}

/// A config whose values make sense, in the form in which they are used.
#[derive(Debug, Clone)]
pub struct Checked {
    pub path: PathTemplate,
    pub return_dir: Option<PathBuf>,
    pub settle_secs: u64,
    pub timezone: TimeZone,
    pub phone_format: PhoneFormat,
    pub consent: Option<String>,
    pub results: BTreeMap<String, Outcome>,
}

impl Config {
    /// The JSON Schema of the table.
    pub fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "required": ["path"],
            "additionalProperties": false,
            "properties": {
                "path": {
                    "type": "string", "format": "path", "access": "write", "minLength": 1,
                    "description": "where the work lists go; variables: {campaign} {store} {staff} {date} {run} {dispatch}"
                },
                "return_dir": {
                    "type": "string", "format": "path", "minLength": 1,
                    "description": "the folder, with the folders in it, in which lists with results are put back"
                },
                "settle_secs": {
                    "type": "integer", "minimum": 0, "maximum": SETTLE_SECS_MAX, "default": default_settle_secs(),
                    "description": "a returned list is read when its size and time have been still for so long"
                },
                "timezone": {
                    "type": "string", "default": default_timezone(),
                    "description": "cuts the days of the column due"
                },
                "phone_format": {
                    "type": "string", "enum": ["plain", "grouped"], "default": "plain",
                    "description": "13900001201, or 139 0000 1201, which a spreadsheet never shows as 1.39E+10"
                },
                "consent": {
                    "type": "string", "enum": ["sms", "call", "message"],
                    "description": "the consent that members on these lists must have given, for lists that go to a vendor"
                },
                "results": {
                    "type": "object", "default": {},
                    "description": "further words for results, such as { \"已添加\" = \"added\" }"
                }
            }
        })
    }

    /// The config in the form in which it is used.
    pub fn check(self) -> Result<Checked, PluginError> {
        let invalid = |key: &str, message: String| PluginError::new(ErrorClass::InvalidConfig, message).key(key);
        let path = PathTemplate::parse(&self.path).map_err(|error| invalid("path", error.to_string()))?;
        if let Some(dir) = self.return_dir.as_ref().filter(|dir| !dir.is_absolute()) {
            return Err(invalid("return_dir", format!("{} is not an absolute path", dir.display())));
        }
        if self.settle_secs > SETTLE_SECS_MAX {
            return Err(invalid("settle_secs", format!("expected at most {SETTLE_SECS_MAX}")));
        }
        let timezone = TimeZone::get(&self.timezone)
            .map_err(|_| invalid("timezone", format!("there is no timezone {:?}", self.timezone)).hint("use a name like Asia/Shanghai"))?;
        let mut results: BTreeMap<_, _> = Outcome::ALL.into_iter().map(|outcome| (outcome.name().to_owned(), outcome)).collect();
        for (word, name) in &self.results {
            let outcome = Outcome::from_name(name).ok_or_else(|| {
                invalid(&format!("results.{word}"), format!("there is no result {name:?}"))
                    .hint("use one of added, refused, wrong_number, do_not_call")
            })?;
            results.insert(result_word(word), outcome);
        }
        Ok(Checked {
            path,
            return_dir: self.return_dir,
            settle_secs: self.settle_secs,
            timezone,
            phone_format: self.phone_format,
            consent: self.consent,
            results,
        })
    }
}

/// A result as it is compared: case, spaces around it, and what joins its words do not matter.
pub fn result_word(text: &str) -> String {
    text.trim().to_lowercase().replace([' ', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: serde_json::Value) -> Result<Checked, PluginError> {
        serde_json::from_value::<Config>(json).unwrap().check()
    }

    #[test]
    fn words_for_results_can_be_added() {
        let checked = check(json!({ "path": "/out/{run}.csv", "results": { "已添加": "added", "Wrong": "wrong_number" } })).unwrap();
        assert_eq!(checked.results.get("已添加"), Some(&Outcome::Added));
        assert_eq!(checked.results.get(&result_word(" WRONG ")), Some(&Outcome::WrongNumber));
        assert_eq!(checked.results.get(&result_word("Do not call")), Some(&Outcome::DoNotCall));
    }

    #[test]
    fn each_mistake_names_its_key() {
        for (json, key, message) in [
            (json!({ "path": "out/{run}.csv" }), "path", "the path must be absolute"),
            (json!({ "path": "/out/{run}.csv", "return_dir": "back" }), "return_dir", "back is not an absolute path"),
            (json!({ "path": "/out/{run}.csv", "timezone": "Mars" }), "timezone", "there is no timezone \"Mars\""),
            (json!({ "path": "/out/{run}.csv", "settle_secs": 99999 }), "settle_secs", "expected at most 3600"),
            (json!({ "path": "/out/{run}.csv", "results": { "x": "gone" } }), "results.x", "there is no result \"gone\""),
        ] {
            let error = check(json).unwrap_err();
            assert_eq!((error.class, error.key.as_deref(), error.message.as_str()), (ErrorClass::InvalidConfig, Some(key), message));
        }
    }

    #[test]
    fn the_sample_is_a_config() {
        assert!(include_str!("../sample.toml").contains("path = "));
    }
}
