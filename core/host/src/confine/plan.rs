//! What a worker may do, as the daemon tells it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use reunion_model::plugin::{Manifest, Needs};

use crate::schema;

/// What a worker may do: made by the daemon from a manifest and a config, sent to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What the manifest says that the plugin needs. `None`: it does not say, and neither network nor files are
    /// confined.
    pub needs: Option<Needs>,
    /// The plugin's library. Its folder may be read, and programs in it run.
    pub library: PathBuf,
    /// What the config names to be read: files, folders, patterns (`*`, `?`, `[`) and templates (`{`), absolute.
    pub read: Vec<PathBuf>,
    /// The same for what is written too.
    pub write: Vec<PathBuf>,
    /// A folder for temporary files, which the worker's `TMPDIR` should name: it may write there. [`Plan::new`]
    /// says none. SQLite, for one, needs it as soon as it sorts more than fits into its cache.
    pub temp: Option<PathBuf>,
    /// Files and folders of the daemon's own, such as its state. A folder that has yet to be made in one of them
    /// does not open it to the worker: see `make_folders`. [`Plan::new`] says none.
    pub private: Vec<PathBuf>,
    /// Whether [`confine`](super::confine) may make the first missing folder of a path to write, where its parent
    /// is not for the worker: `/`, or a folder with something in it that is `private`. [`Plan::new`] says yes; a
    /// worker for a dry run wants no. Where the parent is nothing special, plugins make their folders themselves.
    pub make_folders: bool,
    /// Files and sockets open at a time.
    pub open_files_max: u64,
}

impl Plan {
    /// The plan for a component with this config, which fits the manifest's schema.
    pub fn new(manifest: &Manifest, config: &Value, library: &Path, open_files_max: u64) -> Self {
        let mut plan = Self {
            needs: manifest.needs.clone(),
            library: library.to_owned(),
            read: Vec::new(),
            write: Vec::new(),
            temp: None,
            private: Vec::new(),
            make_folders: true,
            open_files_max,
        };
        plan.collect(config, &manifest.config_schema);
        plan
    }

    /// Texts of the format `path`, wherever the schema has them.
    fn collect(&mut self, value: &Value, schema: &Value) {
        for form in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            if schema::validate(value, form).is_empty() {
                self.collect(value, form);
            }
        }
        match value {
            Value::String(text) if schema.get("format").is_some_and(|format| format == "path") => {
                let write = schema.get("access").is_some_and(|access| access == "write");
                if write { &mut self.write } else { &mut self.read }.push(text.into());
            }
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    items.iter().for_each(|item| self.collect(item, schema));
                }
            }
            Value::Object(table) => {
                for (name, value) in table {
                    let property = schema.get("properties").and_then(|properties| properties.get(name));
                    if let Some(schema) = property.or_else(|| schema.get("additionalProperties")) {
                        self.collect(value, schema);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(config: Value, schema: Value) -> Plan {
        let manifest = json!({"name": "x", "version": "1.0.0", "abi": [1, 0], "kind": "source", "summary": "s", "config_schema": schema});
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        Plan::new(&manifest, &config, Path::new("/lib/x.so"), 64)
    }

    #[test]
    fn paths_are_found_wherever_the_schema_has_them() {
        let path = json!({"type": "string", "format": "path"});
        let schema = json!({"type": "object", "properties": {
            "in": path,
            "out": {"type": "string", "format": "path", "access": "write"},
            "name": {"type": "string"},
            "list": {"type": "array", "items": path},
            "tls": {"type": "object", "properties": {"ca": path}},
            "stores": {"type": "object", "additionalProperties": {"type": "string", "format": "path", "access": "write"}},
            "either": {"oneOf": [{"type": "object", "required": ["file"], "properties": {"file": path}}, path, {"type": "integer"}]}
        }});
        let config = json!({
            "in": "/in/*.csv", "out": "/out/{store}.csv", "name": "/no/path", "list": ["/a", "/b"], "tls": {"ca": "/ca.pem"},
            "stores": {"one": "/s1", "two": "/s2"}, "either": {"file": "/form"}
        });
        let found = plan(config, schema.clone());
        let texts = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(&found.read), "/form /in/*.csv /a /b /ca.pem");
        assert_eq!(texts(&found.write), "/out/{store}.csv /s1 /s2");
        assert_eq!(texts(&plan(json!({"either": "/text"}), schema.clone()).read), "/text");
        assert_eq!(texts(&plan(json!({"either": 5, "in": 5, "list": {"x": "/y"}}), schema).read), "");
    }

    #[test]
    fn a_plan_survives_its_way_to_the_worker() {
        let plan = Plan { needs: Some(Needs { network: true, config_paths: false }), ..plan(json!({}), json!({})) };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
