//! Configs held against the JSON Schema of a manifest: the keywords that
//! [`Manifest::config_schema`](reunion_model::plugin::Manifest::config_schema) lists.
//!
//! One rule is stricter than the standard's: where an object has `properties` and does not say
//! `additionalProperties`, other keys are errors, because a misspelt key must never be passed over.

use serde_json::{Map, Value};

/// Something in a config that does not fit the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// The keys that lead to the place; the place itself for an unknown key, the table around it for a
    /// missing one.
    pub path: Vec<String>,
    /// What was expected. Never repeats a value that may be a secret.
    pub message: String,
    /// The nearest right name or word.
    pub suggestion: Option<String>,
}

/// One key of a config, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Dotted.
    pub path: String,
    /// `string`, `integer`, `one of "a", "b"`, …
    pub expects: String,
    /// Must be there.
    pub required: bool,
    /// What counts where it is not there.
    pub default: Option<Value>,
    /// What it means.
    pub description: String,
}

/// Everything in `value` that does not fit `schema`; empty where it fits.
pub fn validate(value: &Value, schema: &Value) -> Vec<SchemaError> {
    let mut errors = Vec::new();
    Checker { errors: &mut errors, path: Vec::new() }.check(value, schema);
    errors
}

/// Puts the schema's defaults where a key is not there, also within tables that are there.
pub fn fill_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(table) => {
            for (name, property) in properties(schema) {
                match (table.get_mut(name), property.get("default")) {
                    (Some(there), _) => fill_defaults(there, property),
                    (None, Some(default)) => drop(table.insert(name.clone(), default.clone())),
                    (None, None) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill_defaults(item, schema));
            }
        }
        _ => {}
    }
}

/// The keys that a config may have, those of nested tables after the table's own.
pub fn keys(schema: &Value) -> Vec<Key> {
    let mut keys = Vec::new();
    collect_keys(schema, "", &mut keys);
    keys
}

fn collect_keys(schema: &Value, prefix: &str, keys: &mut Vec<Key>) {
    let required = names(schema, "required");
    for (name, property) in properties(schema) {
        let path = format!("{prefix}{name}");
        keys.push(Key {
            expects: expects(property),
            required: required.contains(&name.as_str()),
            default: property.get("default").cloned(),
            description: property.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
            path: path.clone(),
        });
        collect_keys(property, &format!("{path}."), keys);
    }
}

/// The name of `names` that is nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let far = (name.chars().count() / 3).max(1) + 1;
    let near = names.into_iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min()?;
    (near.0 < far).then(|| near.1.to_owned())
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The strings of a keyword that is a list of them, or one.
fn names<'a>(schema: &'a Value, keyword: &str) -> Vec<&'a str> {
    match schema.get(keyword) {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        // A type that nobody knows keeps nobody from working.
        _ => true,
    }
}

/// What a schema expects, in a few words.
fn expects(schema: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return format!("one of {}", words.iter().map(Value::to_string).collect::<Vec<_>>().join(", "));
    }
    if let Some(forms) = schema.get("oneOf").and_then(Value::as_array) {
        return forms.iter().map(expects).collect::<Vec<_>>().join(" or ");
    }
    let in_toml = |name: &str| match name {
        "object" => match properties(schema).map(|(name, _)| name.as_str()).collect::<Vec<_>>() {
            keys if keys.is_empty() => "table".to_owned(),
            keys => format!("table of {}", keys.join(", ")),
        },
        "array" => format!("list of {}", schema.get("items").map_or("anything".to_owned(), expects)),
        name => name.to_owned(),
    };
    match names(schema, "type") {
        types if types.is_empty() => "anything".to_owned(),
        types => types.into_iter().map(in_toml).collect::<Vec<_>>().join(" or "),
    }
}

struct Checker<'a> {
    errors: &'a mut Vec<SchemaError>,
    path: Vec<String>,
}

impl Checker<'_> {
    fn error(&mut self, message: String, suggestion: Option<String>) {
        self.errors.push(SchemaError { path: self.path.clone(), message, suggestion });
    }

    fn check_at(&mut self, key: &str, value: &Value, schema: &Value) {
        self.path.push(key.to_owned());
        self.check(value, schema);
        self.path.pop();
    }

    fn check(&mut self, value: &Value, schema: &Value) {
        // The table says where the secret is; whoever has looked there puts the text in its place.
        if schema.get("format").is_some_and(|format| format == "secret") && value.is_string() {
            return;
        }
        if let Some(forms) = schema.get("oneOf").and_then(Value::as_array) {
            self.check_forms(value, schema, forms);
        }
        let types = names(schema, "type");
        if !types.is_empty() && !types.iter().any(|name| is_type(value, name)) {
            return self.error(format!("expected {}", expects(schema)), None);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            let suggestion = value.as_str().and_then(|word| nearest(word, words.iter().filter_map(Value::as_str)));
            return self.error(format!("expected {}", expects(schema)), suggestion);
        }
        match value {
            Value::Number(_) => self.check_number(value, schema),
            Value::String(text) => self.check_text(text, schema),
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    items.iter().enumerate().for_each(|(at, item)| self.check_at(&at.to_string(), item, schema));
                }
            }
            Value::Object(table) => self.check_table(table, schema),
            _ => {}
        }
    }

    fn check_number(&mut self, value: &Value, schema: &Value) {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
        let number = value.as_f64().unwrap_or(f64::NAN);
        if let Some(minimum) = bound("minimum").filter(|minimum| number < *minimum) {
            self.error(format!("expected at least {minimum}"), None);
        }
        if let Some(maximum) = bound("maximum").filter(|maximum| number > *maximum) {
            self.error(format!("expected at most {maximum}"), None);
        }
    }

    fn check_text(&mut self, text: &str, schema: &Value) {
        let length = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
        if (text.chars().count() as u64) < length {
            let message = if length == 1 { "must not be empty".to_owned() } else { format!("expected at least {length} characters") };
            self.error(message, None);
        }
    }

    fn check_table(&mut self, table: &Map<String, Value>, schema: &Value) {
        for name in names(schema, "required").into_iter().filter(|name| !table.contains_key(*name)) {
            let meaning = schema.pointer(&format!("/properties/{name}/description")).and_then(Value::as_str);
            let meaning = meaning.map(|text| format!(": {text}")).unwrap_or_default();
            self.error(format!("the key {name:?} is missing{meaning}"), None);
        }
        for (name, value) in table {
            match (schema.get("properties").and_then(|properties| properties.get(name)), schema.get("additionalProperties")) {
                (Some(property), _) => self.check_at(name, value, property),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(further @ Value::Object(_))) => self.check_at(name, value, further),
                (None, None) if schema.get("properties").is_none() => {}
                (None, _) => self.unknown_key(name, table, schema),
            }
        }
    }

    fn unknown_key(&mut self, name: &str, table: &Map<String, Value>, schema: &Value) {
        let free = properties(schema).map(|(known, _)| known.as_str()).filter(|known| !table.contains_key(*known));
        let suggestion = nearest(name, free);
        let known: Vec<_> = properties(schema).map(|(known, _)| known.as_str()).collect();
        self.path.push(name.to_owned());
        self.error(format!("there is no key {name:?}; there are {}", known.join(", ")), suggestion);
        self.path.pop();
    }

    /// Exactly one form must fit. Where none does and one is of the value's type, it says why it does not.
    fn check_forms(&mut self, value: &Value, schema: &Value, forms: &[Value]) {
        let mut fits = 0;
        let mut nearest: Option<Vec<SchemaError>> = None;
        for form in forms {
            let mut errors = Vec::new();
            Checker { errors: &mut errors, path: self.path.clone() }.check(value, form);
            fits += usize::from(errors.is_empty());
            let same_type = names(form, "type").iter().any(|name| is_type(value, name));
            if same_type && nearest.as_ref().is_none_or(|known| errors.len() < known.len()) {
                nearest = Some(errors);
            }
        }
        match (fits, nearest) {
            (1, _) => {}
            (0, Some(errors)) => self.errors.extend(errors),
            (0, None) => self.error(format!("expected {}", expects(schema)), None),
            (_, _) => self.error(format!("fits several forms at once, and may be only one of: {}", expects(schema)), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["path"],
            "properties": {
                "path": {"type": "string", "minLength": 1, "description": "the file to read"},
                "format": {"enum": ["csv", "tsv", "auto"], "default": "auto"},
                "settle_secs": {"type": "integer", "minimum": 0, "maximum": 3600, "default": 5},
                "columns": {"type": "array", "items": {"type": "string"}},
                "header": {"oneOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto", "none"], "type": "string"}], "default": "auto"},
                "retry": {"type": "object", "properties": {"delay_secs": {"type": "number", "default": 1.5}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        })
    }

    fn errors(value: Value) -> String {
        let line = |error: SchemaError| {
            let suggestion = error.suggestion.map(|name| format!(" ({name}?)")).unwrap_or_default();
            format!("{}: {}{suggestion}", error.path.join("."), error.message)
        };
        validate(&value, &schema()).into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_config_that_fits_gets_its_defaults() {
        let mut config = json!({"path": "x", "header": 3, "retry": {}, "labels": {"a": "b"}});
        assert_eq!(validate(&config, &schema()), []);
        fill_defaults(&mut config, &schema());
        assert_eq!(
            config,
            json!({"path": "x", "format": "auto", "settle_secs": 5, "header": 3, "retry": {"delay_secs": 1.5}, "labels": {"a": "b"}})
        );
        assert_eq!(validate(&config, &schema()), []);
    }

    #[test]
    fn every_error_is_found_with_its_place_and_the_nearest_name() {
        let config = json!({
            "pth": "x", "format": "cvs", "settle_secs": 4000, "columns": ["a", 5], "header": 0,
            "retry": {"delay_secs": "secret"}, "labels": {"a": 1}
        });
        insta::assert_snapshot!(errors(config), @r#"
        : the key "path" is missing: the file to read
        columns.1: expected string
        format: expected one of "csv", "tsv", "auto" (csv?)
        header: expected at least 1
        labels.a: expected string
        pth: there is no key "pth"; there are columns, format, header, labels, path, retry, settle_secs (path?)
        retry.delay_secs: expected number
        settle_secs: expected at most 3600
        "#);
        insta::assert_snapshot!(errors(json!({"path": "", "header": [], "retry": {"delay": 1}})), @r#"
        header: expected integer or one of "auto", "none"
        path: must not be empty
        retry.delay: there is no key "delay"; there are delay_secs
        "#);
        assert_eq!(errors(json!([])), ": expected table of columns, format, header, labels, path, retry, settle_secs");
    }

    #[test]
    fn a_value_that_fits_two_forms_is_refused() {
        let schema = json!({"oneOf": [{"type": "integer"}, {"type": "number"}]});
        assert_eq!(validate(&json!(1), &schema).len(), 1);
        assert_eq!(validate(&json!(1.5), &schema), []);
    }

    #[test]
    fn keys_are_listed_for_people() {
        let lines: Vec<_> = keys(&schema())
            .into_iter()
            .map(|key| format!("{} {} {} {}", key.path, key.expects, key.required, key.default.unwrap_or_default()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        columns list of string false null
        format one of "csv", "tsv", "auto" false "auto"
        header integer or one of "auto", "none" false "auto"
        labels table false null
        path string true null
        retry table of delay_secs false null
        retry.delay_secs number false 1.5
        settle_secs integer false 5
        "#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A config of any keys and values never panics, and is accepted only if its keys are known.
        #[test]
        fn no_config_passes_with_an_unknown_key(key in "[a-z_]{1,12}", number in any::<i64>(), text in ".{0,8}") {
            let config = json!({"path": "x", key.clone(): {"delay_secs": number, "x": text}});
            let known = properties(&schema()).any(|(name, _)| *name == key);
            prop_assert!(known || !validate(&config, &schema()).is_empty());
        }
    }
}
