//! Fault points: named places where a test can end the process, to prove that a crash there costs
//! nothing. Without the feature `faults` they are nothing at all.
//!
//! `REUNION_FAULT=name:n` kills the process, as `kill -9` does, at the n-th time (from 1) that the point
//! `name` is reached.
//! `REUNION_FAULT_LOG=file` appends the name of every point that is reached, one a line.

/// The process reaches the point `name`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// The process reaches the point `name`, and ends here if the test says so.
#[cfg(feature = "faults")]
pub fn point(name: &'static str) {
    armed::reach(name);
}

/// The process reaches the point `name` of an operation: its whole name is `name: of`.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point_of(_name: &'static str, _of: &'static str) {}

/// The process reaches the point `name` of an operation, and ends here if the test says so.
#[cfg(feature = "faults")]
pub fn point_of(name: &'static str, of: &'static str) {
    armed::reach(&format!("{name}: {of}"));
}

#[cfg(feature = "faults")]
mod armed {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Fault {
        name: String,
        /// Hits of `name` that are left; the process ends with the last.
        left: AtomicU64,
    }

    fn fault() -> Option<&'static Fault> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        FAULT
            .get_or_init(|| {
                let text = std::env::var("REUNION_FAULT").ok()?;
                let (name, count) = text.rsplit_once(':')?;
                Some(Fault { name: name.to_owned(), left: AtomicU64::new(count.parse().ok()?) })
            })
            .as_ref()
    }

    fn log() -> Option<&'static File> {
        static LOG: OnceLock<Option<File>> = OnceLock::new();
        LOG.get_or_init(|| OpenOptions::new().append(true).create(true).open(std::env::var_os("REUNION_FAULT_LOG")?).ok()).as_ref()
    }

    /// Ends the process at once: nothing is flushed, no destructor runs, no handler is asked.
    fn kill() -> ! {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort()
    }

    pub(super) fn reach(name: &str) {
        if let Some(mut log) = log() {
            // A test that misses a line will say so itself.
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
        if let Some(fault) = fault().filter(|fault| fault.name == name)
            && fault.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            kill();
        }
    }
}
