//! How a command fails: an exit code, what was seen, and what to do.

use std::error::Error;
use std::fmt;

use serde_json::{Value, json};

use crate::cli::Exit;
use crate::config::Diagnostics;

/// Why a command ended early.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    help: Option<String>,
    diagnostics: Option<Box<Diagnostics>>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None, diagnostics: None, source: None }
    }

    /// The arguments are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A guard refused.
    pub fn guard(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// Something without a code of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the error that it comes from.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The failure for people, with everything that it comes from.
    pub fn render(&self, colour: bool) -> String {
        if let Some(diagnostics) = &self.diagnostics {
            return diagnostics.render(colour);
        }
        let mut text = format!("error: {self}");
        for cause in self.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        if let Some(help) = &self.help {
            text.push_str("\n  help: ");
            text.push_str(help);
        }
        text
    }

    /// The failure for programs: one JSON document.
    pub fn json(&self) -> Value {
        json!({
            "error": {
                "exit": self.exit.code(),
                "message": self.message,
                "causes": self.causes(),
                "help": self.help,
                "findings": self.diagnostics.as_ref().map(|diagnostics| diagnostics.to_json()),
            }
        })
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { diagnostics: Some(Box::new(diagnostics)), ..Self::new(Exit::Usage, "the config is wrong") }
    }
}

/// What was being done when an error came up, so that it is said.
pub trait Doing<T> {
    /// Turns an error into a failure that says `doing` first.
    ///
    /// # Errors
    /// The failure.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Error + Send + Sync + 'static> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let failure = if is_damage(&error) { Failure::guard(doing()).help(DAMAGED) } else { Failure::other(doing()) };
            failure.because(error)
        })
    }
}

/// What to do where files of people are damaged.
pub const DAMAGED: &str = "`reunion verify` says what is damaged; restore it from a backup, or go back with `reunion rollback`";

/// Whether an error comes from files of people that are not as they were written: nothing may be built on
/// them, so it stops the run as a guard does.
fn is_damage(error: &(dyn Error + 'static)) -> bool {
    use reunion_generations::GenerationError as G;
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref() {
            Some(G::FileDamaged { .. } | G::ManifestMissing { .. } | G::ManifestDamaged { .. }) => return true,
            Some(G::Disk(disk)) if disk.source.kind() == std::io::ErrorKind::NotFound => return true,
            _ => next = error.source(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let io = std::io::Error::other("disk full");
        let failure = Err::<(), _>(io).doing(|| "cannot write the segment".to_owned()).expect_err("an error").help("free some space");
        assert_eq!(failure.render(false), "error: cannot write the segment: disk full\n  help: free some space");
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.json()["error"]["causes"][0], "disk full");
    }
}
