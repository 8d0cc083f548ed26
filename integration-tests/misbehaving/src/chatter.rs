//! Too much said, and what must not be said.

use std::time::{Duration, Instant};

use reunion_sdk::{Call, ErrorClass, PluginError};

use crate::PHONE;

const LINE_BYTES: usize = 1 << 10;
const LINES_PER_MS: u32 = 200;
const FLOOD_LASTS: Duration = Duration::from_secs(5);
/// To the standard output and the standard error together.
const STREAM_BYTES: usize = 50 << 20;
const ERROR_BYTES: usize = 1 << 20;

fn line() -> String {
    "flood ".repeat(LINE_BYTES / 6)
}

/// Logs 200 lines of 1 KiB each millisecond, or as many as there is time for, until it is cancelled or 5 s are over.
pub(crate) fn flood_log(call: Option<&Call>) {
    let (line, began) = (line(), Instant::now());
    for ms in 1.. {
        (0..LINES_PER_MS).for_each(|_| tracing::warn!("{line}"));
        if began.elapsed() > FLOOD_LASTS || call.is_some_and(Call::cancelled) {
            return;
        }
        std::thread::sleep(Duration::from_millis(ms).saturating_sub(began.elapsed()));
    }
}

/// Writes 50 MiB to the standard output and the standard error, in turn.
pub(crate) fn flood_stderr(_: Option<&Call>) {
    let text = format!("{}\n", line());
    for stream in [1, 2].into_iter().cycle().take(STREAM_BYTES / text.len()) {
        // SAFETY: the text is valid. What is not taken is given up.
        unsafe { libc::write(stream, text.as_ptr().cast(), text.len()) };
    }
}

/// Logs a phone number: in the message, and in a field of its own.
pub(crate) fn phone_in_log(_: Option<&Call>) {
    tracing::warn!(phone = PHONE, "the member of {PHONE} has no store");
}

/// An error whose message has 1 MiB, many lines, and a phone number in each.
pub(crate) fn huge_error() -> PluginError {
    let line = format!("the row of {PHONE} cannot be read\n");
    PluginError::new(ErrorClass::InvalidData, line.repeat(ERROR_BYTES / line.len() + 1)).hint(line)
}
