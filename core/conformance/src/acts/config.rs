//! Configs that are wrong: each is refused with the key to blame, by the host where the schema says so, else by the
//! plugin.

use reunion_host::schema;
use reunion_model::plugin::{ErrorClass, PluginError, PluginKind};
use serde_json::{Map, Value, json};

use super::Played;
use crate::phones::shown;
use crate::rules;
use crate::stage::{COMPONENT, Stage, Stop, failed};

/// A key that no plugin has.
const UNKNOWN_KEY: &str = "no_such_key";
/// Characters of a text that is longer than anybody writes.
const LONG_CHARS: usize = 5_000;

/// Tries configs that are wrong.
pub fn configs(stage: &Stage) -> Played {
    let schema = stage.plugin()?.manifest().config_schema.clone();
    let base = &stage.request.config;
    let mut tried = 0;
    let mut refused_by_plugin = 0;
    for case in wrong(base, &schema) {
        tried += 1;
        must_refuse(stage, &case, &schema)?;
    }
    for case in odd(base, &schema) {
        tried += 1;
        refused_by_plugin += usize::from(may_refuse(stage, &case, &schema)?);
    }
    let note = format!("{tried} configs, {refused_by_plugin} of them refused by create itself");
    Ok((note, Value::Null))
}

/// A config that differs from the one that is right in one place.
struct Case {
    /// The key, dotted.
    key: String,
    /// What is done there, in words that fit after "a config with".
    what: String,
    config: Value,
}

/// Configs that no schema may let through.
fn wrong(base: &Value, schema: &Value) -> Vec<Case> {
    let mut cases = Vec::new();
    let takes_others = schema.get("additionalProperties").is_some_and(|further| *further != false);
    if schema["properties"].is_object() && !takes_others {
        let mut config = base.clone();
        config[UNKNOWN_KEY] = 1.into();
        cases.push(Case { key: UNKNOWN_KEY.to_owned(), what: format!("the key {UNKNOWN_KEY}, which there is not,"), config });
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut config = base.clone();
        config.as_object_mut().map(|table| table.remove(name));
        cases.push(Case { key: String::new(), what: format!("no key `{name}`, which is required,"), config });
    }
    for (path, property) in properties(schema) {
        let values = [json!(true), json!(-1.5), json!("a text"), json!([[1]]), json!({"a": {"b": 1}})];
        if let Some(value) = values.iter().find(|value| !schema::validate(value, &property).is_empty()) {
            let what = format!("{value} in `{}`", path.join("."));
            cases.extend(changed(base, &path, value.clone()).map(|config| Case { key: path.join("."), what, config }));
        }
    }
    cases
}

/// Configs that fit the schema and may make no sense.
fn odd(base: &Value, schema: &Value) -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, property) in properties(schema) {
        let key = path.join(".");
        for (value, what) in odd_values(&property) {
            let fits = schema::validate(&value, &property).is_empty();
            if let Some(config) = changed(base, &path, value).filter(|config| fits && schema::validate(config, schema).is_empty()) {
                cases.push(Case { key: key.clone(), what: format!("{what} in `{key}`"), config });
            }
        }
    }
    for name in base.as_object().into_iter().flatten().map(|(name, _)| name) {
        let mut config = base.clone();
        config.as_object_mut().map(|table| table.remove(name));
        if schema::validate(&config, schema).is_empty() {
            cases.push(Case { key: name.clone(), what: format!("no key `{name}`"), config });
        }
    }
    cases
}

/// Values for a key, with what they are. The words of an enum are left alone: each may be meant.
fn odd_values(property: &Value) -> Vec<(Value, &'static str)> {
    if property.get("enum").is_some() {
        return Vec::new();
    }
    let texts = [("", "an empty text"), ("x", "the text \"x\""), ("\0", "a zero byte"), (" \u{7f}\u{202e}", "control characters")];
    let mut values: Vec<(Value, &'static str)> = texts.into_iter().map(|(text, what)| (text.into(), what)).collect();
    values.push(("é".repeat(LONG_CHARS).into(), "a very long text"));
    if property["format"] == "secret" {
        // The plugin is given the text, never the table that says where it is.
        return values;
    }
    for (keyword, what) in [("minimum", "the least number"), ("maximum", "the greatest number")] {
        values.extend(property.get(keyword).map(|bound| (bound.clone(), what)));
    }
    values.extend([(json!(1.0), "the number 1.0"), (json!(1e30), "the number 1e30"), (json!(u64::MAX), "the number 2^64 - 1")]);
    values.extend([(json!(-1), "the number -1"), (json!([]), "an empty list"), (json!({}), "an empty table")]);
    values.extend([
        (json!(true), "true"),
        (json!(false), "false"),
        (json!(["x", "x"]), "a list of one text twice"),
        (json!({"x": "x"}), "a table of a text"),
    ]);
    values
}

/// The properties of a schema and of the tables in it, each by its path of keys.
fn properties(schema: &Value) -> Vec<(Vec<String>, Value)> {
    fn collect(schema: &Value, path: &[String], found: &mut Vec<(Vec<String>, Value)>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = [path, std::slice::from_ref(name)].concat();
            found.push((path.clone(), property.clone()));
            if property["format"] != "secret" {
                collect(property, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(schema, &[], &mut found);
    found
}

/// The config with this value at this place; `None` where there is no table around it, so that it would be alone there.
fn changed(base: &Value, path: &[String], value: Value) -> Option<Value> {
    let mut config = base.clone();
    let (name, tables) = path.split_last()?;
    let mut table = config.as_object_mut()?;
    for name in tables {
        table = table.get_mut(name)?.as_object_mut()?;
    }
    table.insert(name.clone(), value);
    Some(config)
}

fn create(stage: &Stage, case: &Case) -> Result<Result<(), PluginError>, Stop> {
    let plugin = stage.plugin()?;
    stage.doing(format!("create ran on a config with {}", case.what));
    Ok(match stage.request.kind {
        PluginKind::Source => plugin.source(COMPONENT, &case.config).map(drop),
        PluginKind::Channel => plugin.channel(COMPONENT, &case.config).map(drop),
    })
}

fn must_refuse(stage: &Stage, case: &Case, schema: &Value) -> Result<(), Stop> {
    match create(stage, case)? {
        Ok(()) => Err(failed(format!("create took a config with {} where invalid config was expected", case.what), rules::CONFIG)),
        Err(error) => {
            blames(stage, case, &error, schema)?;
            let key = error.key.as_deref().unwrap_or_default();
            let is_there = case.key.is_empty() || key == case.key || key.starts_with(&format!("{}.", case.key));
            let seen = format!("for a config with {} the key {key:?} was blamed", case.what);
            if is_there { Ok(()) } else { Err(failed(seen, rules::CONFIG)) }
        }
    }
}

/// Whether create refused it, as it may.
fn may_refuse(stage: &Stage, case: &Case, schema: &Value) -> Result<bool, Stop> {
    match create(stage, case)? {
        Ok(()) => Ok(false),
        Err(error) => blames(stage, case, &error, schema).map(|()| true),
    }
}

/// An error of create is of the class invalid config, and its key is one that there is.
fn blames(stage: &Stage, case: &Case, error: &PluginError, schema: &Value) -> Result<(), Stop> {
    stage.heard.error(error);
    let said = || format!("on a config with {} create answered {}: {}", case.what, error.class.name(), shown(&error.message));
    if error.class != ErrorClass::InvalidConfig {
        return Err(failed(said(), rules::CONFIG));
    }
    match error.key.as_deref() {
        // The table as a whole, where a key is missing.
        None | Some("") if case.key.is_empty() => Ok(()),
        None | Some("") => Err(failed(format!("{}; it names no key to blame", said()), rules::CONFIG)),
        Some(key) if case.key == UNKNOWN_KEY || is_key(key, schema) => Ok(()),
        Some(key) => Err(failed(format!("{}; it blames the key {key:?}, which the schema does not have", said()), rules::CONFIG)),
    }
}

/// Whether a dotted key can stand in a config of this schema.
fn is_key(key: &str, schema: &Value) -> bool {
    let empty = Map::new();
    let mut schema = schema.clone();
    for part in key.split('.') {
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        schema = match properties.get(part) {
            Some(property) => property.clone(),
            None if schema["items"].is_object() && part.parse::<usize>().is_ok() => schema["items"].clone(),
            None if schema["additionalProperties"].is_object() => schema["additionalProperties"].clone(),
            // A table of keys that the schema does not name.
            None if properties.is_empty() && schema["type"] == "object" || schema["additionalProperties"] == true => return true,
            None => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string", "minLength": 1},
            "secs": {"type": "integer", "minimum": 0, "maximum": 9},
            "tls": {"type": "object", "properties": {"mode": {"enum": ["off"]}}},
            "words": {"type": "object"},
            "list": {"type": "array", "items": {"type": "string"}}}})
    }

    #[test]
    fn keys_are_those_of_the_schema() {
        for (key, is) in
            [("path", true), ("tls.mode", true), ("words.any", true), ("list.3", true), ("tls.moed", false), ("", false), ("list.x", false)]
        {
            assert_eq!(is_key(key, &schema()), is, "{key}");
        }
    }

    #[test]
    fn every_key_gets_a_value_that_it_cannot_have() {
        let base = json!({"path": "/x", "tls": {"mode": "off"}});
        let keys: Vec<_> = wrong(&base, &schema()).into_iter().map(|case| case.what).collect();
        insta::assert_snapshot!(keys.join("\n"), @r#"
        the key no_such_key, which there is not,
        no key `path`, which is required,
        true in `list`
        true in `path`
        true in `secs`
        true in `tls`
        true in `tls.mode`
        true in `words`
        "#);
        for case in wrong(&base, &schema()) {
            assert!(!schema::validate(&case.config, &schema()).is_empty(), "{}", case.what);
        }
        for case in odd(&base, &schema()) {
            assert_eq!(schema::validate(&case.config, &schema()), [], "{}", case.what);
        }
        assert!(odd(&base, &schema()).iter().any(|case| case.what == "the number 1.0 in `secs`"));
    }
}
