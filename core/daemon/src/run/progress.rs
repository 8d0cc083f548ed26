//! A line on the terminal that says what a long run is at. Nothing is shown where nobody looks.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cli::Format;

/// The line, and what it counts.
pub struct Progress {
    bar: ProgressBar,
    rows: AtomicU64,
}

impl Progress {
    /// A line on standard error, where that is a terminal and the result is for people.
    pub fn new(format: Format) -> Self {
        let bar = if format == Format::Text && io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is right"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, rows: AtomicU64::new(0) }
    }

    /// The run has come to this stage.
    pub fn stage(&self, stage: &'static str) {
        self.bar.set_message(stage);
    }

    /// Rows were read.
    pub fn read(&self, rows: usize) {
        let all = self.rows.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        self.bar.set_message(format!("reading the sources: {} rows", HumanCount(all)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
