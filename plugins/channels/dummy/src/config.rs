//! The `with` table: what to answer, and where to fail.

use reunion_sdk::{ErrorClass, PluginError, Verdict};
use serde::Deserialize;

/// What the dummy does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The verdicts that the tasks get in turn.
    #[serde(default = "verdicts")]
    pub verdicts: Vec<Verdict>,
    /// Receipts of one batch.
    #[serde(default = "batch_rows")]
    pub batch_rows: usize,
    /// Tasks at the end of a dispatch that get no receipt.
    #[serde(default)]
    pub silent: usize,
    /// The first receipt comes twice.
    #[serde(default)]
    pub repeat: bool,
    /// Events of a poll.
    #[serde(default)]
    pub events: usize,
    /// Where to fail, if anywhere.
    #[serde(default)]
    pub fail_in: Option<Stage>,
    /// The class of the failure; a panic where it is not there.
    #[serde(default)]
    pub fail_with: Option<ErrorClass>,
    /// A poll waits until it is cancelled.
    #[serde(default)]
    pub wait_in_poll: bool,
    /// Dispatches that may be pushed at the same time.
    #[serde(default)]
    pub pushes_at_once: usize,
}

fn verdicts() -> Vec<Verdict> {
    vec![Verdict::Accepted]
}

fn batch_rows() -> usize {
    100
}

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// `check`.
    Check,
    /// `push`, before there is a stream.
    Push,
    /// The stream of receipts, after its first batch.
    Receipts,
    /// `poll`.
    Poll,
}

impl Config {
    /// Fails if this is where to.
    ///
    /// # Errors
    /// As configured.
    pub fn reach(&self, stage: Stage) -> Result<(), PluginError> {
        match self.fail_with {
            _ if self.fail_in != Some(stage) => Ok(()),
            None => panic!("the dummy was told to panic"),
            Some(class) => Err(PluginError::new(class, "the dummy was told to fail").retry_after_ms(1_500)),
        }
    }
}
