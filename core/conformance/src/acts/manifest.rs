//! The manifest: pure, and what it says.

use std::thread;

use reunion_host::probe::Raw;
use reunion_host::schema;
use reunion_model::plugin::{Manifest, PluginKind};
use serde_json::{Map, Value, json};

use super::lifetime::settled;
use super::{Played, passed};
use crate::confine::Confinement;
use crate::machine::Census;
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// Keywords of a schema that the host looks at.
const KEYWORDS: [&str; 14] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "items",
    "oneOf",
    "description",
    "default",
    "format",
    "access",
];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
/// Tables within tables of a schema.
const DEPTH_MAX: usize = 16;

/// The library without anything around it.
pub fn raw(stage: &Stage) -> Result<Raw, Stop> {
    stage.doing("the library was loaded");
    Raw::open(&stage.request.library).map_err(|error| failed(error, rules::SYMBOLS))
}

/// Reads the manifest from several threads, and says what is wrong with it. Data: its text, where it is not pure, and what is
/// wrong in it.
pub fn manifest(stage: &Stage) -> Played {
    let library = raw(stage)?;
    let before = Census::take();
    stage.doing("reunion_manifest_v1 ran");
    let unreadable = |error| failed(error, rules::MANIFEST);
    let first = library.manifest_text().map_err(unreadable)?;
    let others = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| library.manifest_text())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("its thread broke off".to_owned()))).collect::<Vec<_>>()
    });
    let again = library.manifest_text();
    let is_another = others.into_iter().chain([again]).any(|text| text.as_ref() != Ok(&first));
    let after = settled(&before);
    let another = is_another.then(|| "a second call gave another text than the first".to_owned());
    let thread = after.new_threads(&before).first().map(|thread| format!("a thread {thread:?} runs after it"));
    let descriptor = after.new_descriptors(&before).first().map(|target| format!("{target} is open after it"));
    let faults = faults(&first, stage.request.library.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    let impure: Vec<String> = another.into_iter().chain(thread).chain(descriptor).collect();
    Ok((String::new(), json!({ "text": String::from_utf8_lossy(&first), "impure": impure, "faults": faults })))
}

/// Reads the manifest where something else that it does ends the process.
pub fn confined(stage: &Stage, to: Confinement) -> Played {
    let library = raw(stage)?;
    stage.doing("reunion_manifest_v1 ran");
    to.apply().map_err(skipped)?;
    library.manifest_text().map_err(|error| failed(error, rules::MANIFEST))?;
    passed()
}

/// What is wrong with a manifest; `file_name` is that of its library.
pub fn faults(text: &[u8], file_name: &str) -> Vec<String> {
    let document: Value = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(error) => return vec![format!("it is no JSON: {error}")],
    };
    let manifest: Manifest = match serde_json::from_value(document) {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("it is not what it should be: {error}")],
    };
    let mut faults = Vec::new();
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    if !is_name(&manifest.name) {
        faults.push(format!("the name {:?} is not of up to 64 lower-case letters, digits, dashes and underscores", manifest.name));
    }
    let expected = library_name(&manifest);
    if file_name != expected {
        faults.push(format!("its library is called {file_name:?}, and a host looks for {expected:?}"));
    }
    if !is_semver(&manifest.version) {
        faults.push(format!("the version {:?} is not of the form 1.2.3", manifest.version));
    }
    faults.extend(summary_fault(&manifest.summary).map(|fault| format!("the summary {fault}")));
    if manifest.config_schema.get("type").and_then(Value::as_str) != Some("object") {
        faults.push("the config_schema does not say \"type\": \"object\", and a config is a table".to_owned());
    }
    Schema { faults: &mut faults }.check(&manifest.config_schema, "config_schema", 0);
    faults.extend(sample_fault(&manifest).map(|fault| format!("the sample {fault}")));
    faults.extend(modes_fault(&manifest));
    faults.extend(callback_fault(&manifest).map(|fault| format!("the capability callback is {fault}")));
    faults
}

/// The name of the file that a host looks for.
pub fn library_name(manifest: &Manifest) -> String {
    format!("libreunion_{}_{}.so", manifest.kind.name(), manifest.name.replace('-', "_"))
}

fn is_semver(version: &str) -> bool {
    let (version, build) = version.split_once('+').unwrap_or((version, "x"));
    let (core, before) = version.split_once('-').unwrap_or((version, "x"));
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (*text == "0" || !text.starts_with('0'));
    numbers.len() == 3 && numbers.iter().all(is_number) && build.split('.').all(is_word) && before.split('.').all(is_word)
}

/// A summary is shown in one line of a table.
fn summary_fault(summary: &str) -> Option<&'static str> {
    let inner = summary.trim_end_matches(['.', '。']);
    match summary {
        "" => Some("is empty"),
        _ if summary.chars().count() > 200 => Some("has more than 200 characters"),
        _ if summary.contains(['\n', '\r', '\t']) => Some("is not on one line"),
        _ if inner == summary || inner.contains(". ") || inner.contains('。') => Some("is not one sentence that ends with a full stop"),
        _ => None,
    }
}

fn modes_fault(manifest: &Manifest) -> Option<String> {
    let modes = &manifest.capabilities.modes;
    let unknown = modes.iter().find(|mode| !matches!(mode.as_str(), "snapshot" | "incremental"));
    unknown.map(|mode| format!("the mode {mode:?} is neither \"snapshot\" nor \"incremental\""))
}

fn callback_fault(manifest: &Manifest) -> Option<String> {
    let needed = manifest.capabilities.minor_needed();
    match manifest.kind {
        _ if !manifest.capabilities.callback => None,
        PluginKind::Source => Some("a channel's, and this is a source".to_owned()),
        PluginKind::Channel if manifest.abi[1] < needed => {
            Some(format!("there from version 1.{needed} of the ABI on, and the manifest's abi says 1.{}", manifest.abi[1]))
        }
        PluginKind::Channel => None,
    }
}

fn sample_fault(manifest: &Manifest) -> Option<String> {
    let table: toml::Table = match manifest.sample.parse() {
        Ok(table) => table,
        Err(error) => return Some(format!("is no TOML: {}", error.to_string().lines().next().unwrap_or_default())),
    };
    if manifest.sample.is_empty() {
        return None;
    }
    let sample = of_toml(&toml::Value::Table(table));
    // It may show the whole component around the `with` table.
    let around = sample.get(if manifest.kind.name() == "source" { "sources" } else { "channels" });
    let with = match around.and_then(Value::as_object).and_then(|components| components.values().next()) {
        Some(component) => component.get("with").cloned().unwrap_or(Value::Object(Map::new())),
        None => sample,
    };
    let error = schema::validate(&with, &manifest.config_schema).into_iter().next()?;
    Some(format!("does not fit the config_schema: {}{}", dotted(&error.path), error.message))
}

fn dotted(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("`{}`: ", path.join(".")) }
}

/// TOML as a config's JSON: times are the text that they were written as.
fn of_toml(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.iter().map(of_toml).collect(),
        toml::Value::Table(table) => Value::Object(table.iter().map(|(name, value)| (name.clone(), of_toml(value))).collect()),
    }
}

/// Looks through a schema.
struct Schema<'a> {
    faults: &'a mut Vec<String>,
}

impl Schema<'_> {
    fn check(&mut self, schema: &Value, place: &str, depth: usize) {
        let Some(keywords) = schema.as_object() else { return self.fault(place, "is no object") };
        if depth > DEPTH_MAX {
            return self.fault(place, "lies deeper than anybody can write");
        }
        for keyword in keywords.keys().filter(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
            self.fault(place, &format!("has the keyword {keyword:?}, which the host does not check"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for unknown in types.iter().filter(|name| !TYPES.contains(name)) {
            self.fault(place, &format!("has the type {unknown:?}, which there is not"));
        }
        if let Some(words) = keywords.get("enum")
            && words.as_array().is_none_or(Vec::is_empty)
        {
            self.fault(place, "has an enum without words");
        }
        if let Some(default) = keywords.get("default")
            && let Some(error) = schema::validate(default, schema).into_iter().next()
        {
            self.fault(place, &format!("has a default that does not fit it: {}{}", dotted(&error.path), error.message));
        }
        if let (Some(minimum), Some(maximum)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64())
            && minimum > maximum
        {
            self.fault(place, "has a minimum above its maximum");
        }
        self.check_access(schema, place);
        self.check_parts(schema, place, depth);
    }

    fn check_access(&mut self, schema: &Value, place: &str) {
        if let Some(access) = schema.get("access")
            && (access != "write" || schema["format"] != "path")
        {
            self.fault(place, "has an access, which is \"write\" for a text of the format path and nothing else");
        }
    }

    fn check_parts(&mut self, schema: &Value, place: &str, depth: usize) {
        let properties = schema["properties"].as_object();
        for name in schema["required"].as_array().into_iter().flatten() {
            if !name.as_str().is_some_and(|name| properties.is_some_and(|properties| properties.contains_key(name))) {
                self.fault(place, &format!("requires {name}, which is none of its properties"));
            }
        }
        for (name, property) in properties.into_iter().flatten() {
            let place = format!("{place}.{name}");
            let description = property["description"].as_str().unwrap_or_default();
            if description.trim().is_empty() {
                self.fault(&place, "has no description");
            }
            self.check(property, &place, depth + 1);
        }
        for form in schema["oneOf"].as_array().into_iter().flatten() {
            self.check(form, place, depth + 1);
        }
        if let Some(items) = schema.get("items") {
            self.check(items, &format!("{place}[]"), depth + 1);
        }
        if let Some(further) = schema.get("additionalProperties").filter(|further| !further.is_boolean()) {
            self.check(further, &format!("{place}.*"), depth + 1);
        }
    }

    fn fault(&mut self, place: &str, fault: &str) {
        self.faults.push(format!("{place} {fault}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: Value) -> String {
        let mut manifest = json!({
            "name": "till", "version": "1.2.3", "abi": [1, 0], "kind": "source", "summary": "Reads tills.",
            "config_schema": {"type": "object", "required": ["path"], "properties": {
                "path": {"type": "string", "format": "path", "description": "where"},
                "secs": {"type": "integer", "minimum": 0, "default": 5, "description": "how long"}}},
            "sample": "path = 'x'\n"
        });
        manifest.as_object_mut().expect("a table").extend(changes.as_object().expect("a table").clone());
        faults(manifest.to_string().as_bytes(), "libreunion_source_till.so").join("\n")
    }

    #[test]
    fn a_manifest_that_is_right_has_no_faults() {
        assert_eq!(with(json!({})), "");
        assert_eq!(with(json!({"sample": "[sources.a]\nplugin = 'till'\n[sources.a.with]\npath = 'x'\n"})), "");
        assert_eq!(with(json!({"sample": ""})), "");
    }

    #[test]
    fn every_fault_is_told() {
        let schema = |schema: Value| with(json!({ "config_schema": schema, "sample": "" }));
        let all = [
            faults(b"{", "x").join("\n"),
            with(json!({"extra": 1})),
            with(json!({"name": "Till"})),
            with(json!({"name": "my-till"})),
            with(json!({"version": "1.2"})),
            with(json!({"summary": "Reads tills. And more"})),
            with(json!({"summary": "Reads tills"})),
            with(json!({"sample": "path = "})),
            with(json!({"sample": "pth = 'x'"})),
            with(json!({"capabilities": {"modes": ["whole"]}})),
            with(json!({"capabilities": {"callback": true}})),
            faults(
                br#"{"name":"desk","version":"1.2.3","abi":[1,0],"kind":"channel","summary":"Asks.","config_schema":{"type":"object"},"capabilities":{"callback":true}}"#,
                "libreunion_channel_desk.so",
            )
            .join("\n"),
            schema(json!({})),
            schema(json!({"type": "object", "required": ["b"], "properties": {"a": {"type": "text", "pattern": "x", "enum": []}}})),
            schema(
                json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3, "default": "x", "description": "a"}}}),
            ),
            schema(json!({"type": "object", "properties": {"a": {"type": "string", "access": "write", "description": "a"}}})),
        ];
        insta::assert_snapshot!(all.join("\n--\n"));
    }

    #[test]
    fn versions_are_semver() {
        for (version, is) in
            [("1.2.3", true), ("0.1.0-rc.1+b5", true), ("1.2", false), ("01.2.3", false), ("1.2.x", false), ("1.2.3-", false)]
        {
            assert_eq!(is_semver(version), is, "{version}");
        }
    }
}
