//! Reads secrets from where the config says they are: the master key, and what components log in with. A
//! secret itself is never repeated in an error.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reunion_keys::{KeyError, MasterKey};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Component, Config, Diagnostics, KeySource};

/// More than a secret and any line ends around it.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why a secret cannot be had: what was seen, and what to do.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) help: String,
}

fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), help: help.into() }
}

/// A kind of secret, in the words of errors.
struct Words {
    name: &'static str,
    /// What to do where the variable is not set, before `VARIABLE=…`.
    set: &'static str,
    /// What to do where the file is not there.
    make: &'static str,
}

const MASTER_KEY: Words = Words {
    name: "master key",
    set: "set it to the 64 hex digits that `reunion key new` prints",
    make: "`reunion key new` makes one; without the key that a state was made with nothing of it can be read",
};
const SECRET: Words =
    Words { name: "secret", set: "set it for the user that Reunion runs as", make: "write the secret to it, and nothing else" };

impl Config {
    /// The master key.
    ///
    /// # Errors
    /// Where it is not there, not a key, or where others can read it, at its line of the config.
    pub fn master_key(&self) -> Result<MasterKey, Diagnostics> {
        let key = self.state.key.read(&MASTER_KEY).and_then(|text| {
            MasterKey::from_hex(&text).map_err(|error| {
                let help = match error {
                    KeyError::NotHex { .. } => "`reunion key new` makes one; keep the old one if the state was made with it",
                    _ => "try again",
                };
                refusal(error.to_string(), help)
            })
        });
        let (name, _) = self.state.key.parts();
        key.map_err(|Refusal { message, help }| Diagnostics::at(self, &["state", "key", name], message, Some(help)))
    }

    /// The `with` table of a component as its plugin takes it: texts whose JSON Schema says
    /// `"format": "secret"` in the place of the tables that say where they are.
    ///
    /// # Errors
    /// Where one is not there, or others can read it, at its line of the config.
    pub fn with_secrets(&self, component: Component, name: &str, mut with: Value, schema: &Value) -> Result<Value, Diagnostics> {
        let mut findings = Diagnostics::default();
        put_secrets(&mut Vec::new(), &mut with, schema, &mut |key, Refusal { message, help }, is_hidden| {
            let finding = self.blame(component, name, Some(key), message, Some(help));
            findings.extend(if is_hidden { finding.hidden() } else { finding });
        });
        if findings.has_errors() { Err(findings) } else { Ok(with) }
    }
}

/// Puts the secrets of a `with` table in their places. What is wrong is told with its dotted key, and whether the line
/// may hold the secret itself.
pub(super) fn put_secrets(path: &mut Vec<String>, with: &mut Value, schema: &Value, blame: &mut dyn FnMut(&str, Refusal, bool)) {
    if schema["format"] == "secret" {
        let key = path.join(".");
        match KeySource::deserialize(&*with) {
            Ok(source) => match source.read(&SECRET) {
                // Editors end a file with a line end, which is no part of it.
                Ok(text) => *with = text.trim_end_matches(['\r', '\n']).into(),
                Err(refusal) => blame(&format!("{key}.{}", source.parts().0), refusal, false),
            },
            Err(_) => {
                let help = "write one of { env = \"…\" }, { file = \"…\" } and { credential = \"…\" }";
                blame(&key, refusal(format!("`{key}` does not say where the secret is"), help), true);
            }
        }
        return;
    }
    for (key, value) in with.as_object_mut().into_iter().flatten() {
        path.push(key.clone());
        put_secrets(path, value, &schema["properties"][key.as_str()], blame);
        path.pop();
    }
}

impl KeySource {
    /// The key of the config and its value.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Credential(name) => ("credential", name.clone()),
            Self::File(path) => ("file", path.display().to_string()),
            Self::Env(name) => ("env", name.clone()),
        }
    }

    fn read(&self, words: &Words) -> Result<Zeroizing<String>, Refusal> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Zeroizing::new);
        match self {
            Self::Env(name) => variable(name)
                .ok_or_else(|| refusal(format!("the {}'s variable {name} is not set", words.name), format!("{}: {name}=…", words.set))),
            Self::File(path) => read_private(path, words),
            Self::Credential(name) => {
                let folder = variable("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder.as_str()));
                folder.ok_or_else(|| without_credentials(name)).and_then(|folder| read(&folder.join(name), words))
            }
        }
    }
}

fn without_credentials(name: &str) -> Refusal {
    let help = format!("start Reunion by systemd with `LoadCredential={name}:/etc/reunion/{name}`, or use {{ file = \"…\" }}");
    refusal("there are no credentials: $CREDENTIALS_DIRECTORY is not set", help)
}

/// The text of a file that nobody but its owner can read.
fn read_private(path: &Path, words: &Words) -> Result<Zeroizing<String>, Refusal> {
    let mode = fs::metadata(path).map(|metadata| metadata.mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let shown = path.display();
        return Err(refusal(format!("others can read the {} {shown} (mode {mode:04o})", words.name), format!("chmod 0600 {shown}")));
    }
    read(path, words)
}

fn read(path: &Path, words: &Words) -> Result<Zeroizing<String>, Refusal> {
    let shown = path.display();
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize));
    let result = fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    match result {
        Ok(_) => Ok(text),
        Err(error) => {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => words.make,
                _ => "let the user that Reunion runs as read it, and nobody else",
            };
            Err(refusal(format!("the {} {shown} cannot be read: {error}", words.name), help))
        }
    }
}
