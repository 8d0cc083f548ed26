//! The `with` table: how many rows, and where to fail.

use reunion_sdk::{ErrorClass, PluginError};
use serde::Deserialize;

/// What the dummy does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Rows of a read.
    pub rows: usize,
    /// Rows of one batch.
    #[serde(default = "batch_rows")]
    pub batch_rows: usize,
    /// Batches before each resume state; 0: none.
    #[serde(default)]
    pub batches_per_state: usize,
    /// Rejected rows at the end.
    #[serde(default)]
    pub rejected: usize,
    /// Where to fail, if anywhere.
    #[serde(default)]
    pub fail_in: Option<Stage>,
    /// How to fail.
    #[serde(default)]
    pub fail_with: Failure,
    /// The row before which a read waits until it is cancelled.
    #[serde(default)]
    pub wait_at_row: Option<usize>,
}

fn batch_rows() -> usize {
    1_000
}

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Making the component.
    Create,
    /// `check`.
    Check,
    /// `schema`.
    Schema,
    /// `read`, before there is a stream.
    Read,
    /// The stream, after its last row.
    Stream,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It panics.
    #[default]
    Panic,
    /// It stops a stream without the end marker, and fails as internal elsewhere.
    Silence,
    /// It answers with an error of this class, every field of it filled.
    #[serde(untagged)]
    Error(ErrorClass),
}

impl Config {
    /// Fails if this is where to.
    ///
    /// # Errors
    /// As configured.
    pub fn reach(&self, stage: Stage) -> Result<(), PluginError> {
        if self.fail_in != Some(stage) {
            return Ok(());
        }
        match self.fail_with {
            Failure::Panic => panic!("the dummy was told to panic"),
            Failure::Silence => Err(PluginError::new(ErrorClass::Internal, "the dummy was told to be silent")),
            Failure::Error(class) => Err(PluginError::new(class, "the dummy was told to fail")
                .hint("tell it otherwise")
                .key("fail_with")
                .vendor_code(45_009)
                .retry_after_ms(1_500)),
        }
    }
}
