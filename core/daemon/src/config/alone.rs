//! A `with` table that stands in a file of its own, for trials of a plugin.

use std::path::Path;

use reunion_model::plugin::holds_password;
use serde_json::Value as Json;

use super::diagnostics::Diagnostic;
use super::document::{Document, Value};
use super::secrets::{Refusal, put_secrets};
use super::{Diagnostics, table_json};

/// The table, as it was read.
#[derive(Debug)]
pub struct Alone {
    document: Document,
}

impl Alone {
    /// Reads the table at the top of this file.
    ///
    /// # Errors
    /// Where it cannot be read, and every syntax error.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        Ok(Self { document: Document::read_alone(path)? })
    }

    /// The table as a plugin of this schema takes it: paths absolute, secrets in their places.
    ///
    /// # Errors
    /// Everything that does not fit the schema, and secrets that cannot be had, each at its line.
    pub fn values(&self, schema: &Json) -> Result<Json, Diagnostics> {
        let mut with = table_json(&self.document, &self.document.root, schema);
        let mut findings = Diagnostics::default();
        for error in reunion_host::schema::validate(&with, schema) {
            let help = error.suggestion.map(|near| format!("did you mean `{near}`?"));
            findings.extend(self.blame(&error.path.join("."), error.message, help));
        }
        if findings.has_errors() {
            return Err(findings);
        }
        put_secrets(&mut Vec::new(), &mut with, schema, &mut |key, Refusal { message, help }, is_hidden| {
            let finding = self.blame(key, message, Some(help));
            findings.extend(if is_hidden { finding.hidden() } else { finding });
        });
        if findings.has_errors() { Err(findings) } else { Ok(with) }
    }

    /// An error at a dotted key.
    fn blame(&self, key: &str, message: impl Into<String>, help: Option<String>) -> Diagnostics {
        let path: Vec<&str> = key.split('.').filter(|part| !part.is_empty()).collect();
        let mut findings = Diagnostics::new(self.document.files.clone());
        findings.push(Diagnostic { help, ..Diagnostic::error(self.document.locate(&path), message) });
        match self.document.get(&path).map(|node| &node.value) {
            Some(Value::Text(text)) if holds_password(text) => findings.hidden(),
            _ => findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(text: &str) -> Result<Json, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("with.toml");
        std::fs::write(&path, text).expect("a file");
        let schema = json!({"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string", "format": "path"},
            "rows": {"type": "integer"},
            "password": {"type": "object", "format": "secret", "properties": {"env": {"type": "string"}, "file": {"type": "string", "format": "path"}}}}});
        let here = dir.path().display().to_string();
        let read = Alone::read(&path).and_then(|alone| alone.values(&schema));
        read.map(|values| serde_json::from_str(&values.to_string().replace(&here, "/here")).expect("JSON"))
            .map_err(|findings| findings.render(false).replace(&here, "/here"))
    }

    #[test]
    fn a_table_is_read_as_a_component_has_it() {
        assert_eq!(values("path = 'in/a.csv'\nrows = 5\n"), Ok(json!({"path": "/here/in/a.csv", "rows": 5})));
    }

    #[test]
    fn what_is_wrong_is_told_at_its_line() {
        let all = [
            values("path = "),
            values("rows = 5\n"),
            values("path = 'x'\nrow = 5\n"),
            values("path = 'x'\npassword = { env = 'NO_SUCH_VARIABLE_OF_A_TEST' }\n"),
            values("path = 'x'\npassword = { file = 'secret' }\n"),
        ];
        let all: Vec<String> = all.into_iter().map(|values| values.expect_err("wrong")).collect();
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
