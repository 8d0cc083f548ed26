//! What `/proc` says of processes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long what is ended may take to be gone: the system kills workers of a process that ended, and has other things to do.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    /// `Z`: it has ended, and nobody has asked how.
    pub state: char,
    pub parent: u32,
    pub session: u32,
}

/// Every process of the system.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| of(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// By the line of `/proc/<pid>/stat`, in which the name may have spaces and brackets.
fn of(pid: u32, stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, name: before.split_once('(')?.1.to_owned(), state, parent, session })
}

/// Waits until no process is like that; fails where some are all the time.
#[track_caller]
pub fn none_is(what: &str, is: impl Fn(&Process) -> bool) {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let left: Vec<_> = all().into_iter().filter(&is).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{what}: {left:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}
