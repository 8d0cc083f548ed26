//! Reads the master key from where the config says it is. The key itself is never repeated in an error.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reunion_keys::{KeyError, MasterKey};
use zeroize::Zeroizing;

use super::{Config, Diagnostics, KeySource};

/// More than a key and any line ends around it.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why a key cannot be had: what was seen, and what to do.
struct Refusal {
    message: String,
    help: String,
}

fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), help: help.into() }
}

impl Config {
    /// The master key.
    ///
    /// # Errors
    /// Where it is not there, not a key, or where others can read it, at its line of the config.
    pub fn master_key(&self) -> Result<MasterKey, Diagnostics> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Zeroizing::new);
        let text = match &self.state.key {
            KeySource::Env(name) => variable(name).ok_or_else(|| {
                let help = format!("set it to the 64 hex digits that `reunion key new` prints: {name}=…");
                refusal(format!("the master key's variable {name} is not set"), help)
            }),
            KeySource::File(path) => read_private(path),
            KeySource::Credential(name) => {
                let folder = variable("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder.as_str()));
                folder.ok_or_else(|| without_credentials(name)).and_then(|folder| read(&folder.join(name)))
            }
        };
        let key = text.and_then(|text| {
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
}

fn without_credentials(name: &str) -> Refusal {
    let help = format!("start Reunion by systemd with `LoadCredential={name}:/etc/reunion/{name}`, or use {{ file = \"…\" }}");
    refusal("there are no credentials: $CREDENTIALS_DIRECTORY is not set", help)
}

/// The text of a file that nobody but its owner can read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let mode = fs::metadata(path).map(|metadata| metadata.mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let shown = path.display();
        return Err(refusal(format!("others can read the master key {shown} (mode {mode:04o})"), format!("chmod 0600 {shown}")));
    }
    read(path)
}

fn read(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let shown = path.display();
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize));
    let result = fs::File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text));
    match result {
        Ok(_) => Ok(text),
        Err(error) => {
            let help = if error.kind() == std::io::ErrorKind::NotFound {
                "`reunion key new` makes one; without the key that a state was made with nothing of it can be read"
            } else {
                "let the user that Reunion runs as read it, and nobody else"
            };
            Err(refusal(format!("the master key {shown} cannot be read: {error}"), help))
        }
    }
}
