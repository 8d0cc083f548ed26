//! The log: lines on standard error, so that standard output belongs to the command.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat};

/// Starts the log. Our crates and the plugins write from the configured level on; libraries only what
/// is at least a warning.
pub fn start(log: &Log) {
    let level: tracing::Level = log.level.name().parse().expect("the config's levels are tracing's");
    let filter = Targets::new().with_target("reunion", level).with_target("plugin", level).with_default(tracing::Level::WARN.min(level));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
