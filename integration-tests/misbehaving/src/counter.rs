//! Lines of what was done, for tests to count.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use reunion_sdk::{ErrorClass, PluginError};

/// The file that a test reads, if there is one.
#[derive(Debug)]
pub(crate) struct Counter(Option<PathBuf>);

impl Counter {
    pub(crate) const fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// Appends whole lines, in one piece: several processes may write at once.
    ///
    /// # Errors
    /// Internal where the file cannot be written: a test must not take that for nothing done.
    pub(crate) fn append(&self, lines: &str) -> Result<(), PluginError> {
        let Some(path) = &self.0 else { return Ok(()) };
        let written = OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| file.write_all(lines.as_bytes()));
        written.map_err(|error| {
            PluginError::new(ErrorClass::Internal, format!("{} cannot be written: {error}", path.display())).key("counter_file")
        })
    }
}
