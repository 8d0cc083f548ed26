//! What processes use, by `/proc`.

use std::fs;
use std::io;

/// What a process uses, or several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory that it has in RAM. Pages that several processes share count in each of them.
    pub rss_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open files and sockets. `None` where they cannot be seen: those of a process that does not want to be
    /// looked into, by another user than root.
    pub open_files: Option<u64>,
    /// How many processes these are.
    pub processes: u64,
}

/// What the process uses.
///
/// # Errors
/// `NotFound` where there is no such process, or it has ended and only waits to be collected.
pub fn of(pid: u32) -> io::Result<Usage> {
    let stat = Stat::read(pid)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(stat.usage(pid))
}

/// What the processes of a group use together: the one that leads it and what it has started. Looks at every
/// process of the machine that can be seen.
///
/// # Errors
/// `NotFound` where the group has no process that runs.
pub fn of_group(pgid: u32) -> io::Result<Usage> {
    let mut sum = Usage { open_files: Some(0), ..Usage::default() };
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has just ended is none of the group any more.
        let Ok(Some(stat)) = Stat::read(pid) else { continue };
        if stat.group == pgid {
            sum = sum.and(stat.usage(pid));
        }
    }
    if sum.processes == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(sum) }
}

impl Usage {
    fn and(self, other: Self) -> Self {
        Self {
            rss_bytes: self.rss_bytes + other.rss_bytes,
            threads: self.threads + other.threads,
            open_files: self.open_files.zip(other.open_files).map(|(one, other)| one + other),
            processes: self.processes + other.processes,
        }
    }
}

/// What is used of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: u32,
    threads: u64,
    rss_pages: u64,
}

impl Stat {
    /// Nothing for a process that has ended and waits to be collected.
    fn read(pid: u32) -> io::Result<Option<Self>> {
        let text = fs::read(format!("/proc/{pid}/stat")).map_err(|error| match error.raw_os_error() {
            // It ended while its file was read.
            Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
            _ => error,
        })?;
        Self::parse(&String::from_utf8_lossy(&text))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as proc(5) has it")))
    }

    /// `pid (name) state ppid pgrp …`; the name may have anything in it, parentheses and spaces too.
    fn parse(text: &str) -> Option<Option<Self>> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Numbered from 1, and `state` is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        if matches!(field(3)?, "Z" | "X") {
            return Some(None);
        }
        let number = |at: usize| field(at)?.parse::<i64>().ok().map(|number| u64::try_from(number).unwrap_or(0));
        Some(Some(Self { group: u32::try_from(number(5)?).ok()?, threads: number(20)?, rss_pages: number(24)? }))
    }

    fn usage(&self, pid: u32) -> Usage {
        let open_files = fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|files| files.count() as u64);
        let rss_bytes = self.rss_pages * page_bytes();
        Usage { rss_bytes, threads: self.threads, open_files, processes: 1 }
    }
}

pub(crate) fn page_bytes() -> u64 {
    // SAFETY: reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    /// A shell that leads a group of its own and waits for what it started.
    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap()
    }

    fn eventually(what: impl Fn() -> bool) {
        let begin = std::time::Instant::now();
        while !what() {
            assert!(begin.elapsed().as_secs() < 20, "not seen in time");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        let before = of(own).unwrap();
        let memory = vec![1_u8; 64 << 20];
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let now = of(own).unwrap();
        assert!(now.rss_bytes >= 64 << 20, "{before:?} {now:?}");
        // Other tests run beside, so there may be more, and fewer of theirs.
        assert!(now.threads >= 2 && now.open_files.unwrap() >= 20 && now.processes == 1, "{now:?}");
        drop((memory, files, stop));
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn a_group_is_summed_and_ends() {
        let mut child = shell("sleep 100 & sleep 100 & wait");
        let group = child.id();
        eventually(|| of_group(group).is_ok_and(|usage| usage.processes == 3));
        let usage = of_group(group).unwrap();
        assert!(usage.threads == 3 && usage.rss_bytes > of(group).unwrap().rss_bytes, "{usage:?}");
        rustix::process::kill_process_group(rustix::process::Pid::from_raw(group.cast_signed()).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        // Dead and not collected yet: no process that runs.
        eventually(|| of(group).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        eventually(|| of_group(group).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        child.wait().unwrap();
        assert_eq!(of(group).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn names_may_look_like_anything() {
        let rest = "5 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 100 5000 42 18446744073709551615";
        let expected = Some(Some(Stat { group: 7, threads: 3, rss_pages: 42 }));
        for name in ["sh", "a) Z 1 (b", ") ", "多 字"] {
            assert_eq!(Stat::parse(&format!("12 ({name}) S {rest}\n")), expected, "{name}");
        }
        assert_eq!(Stat::parse(&format!("12 (x) Z {rest}\n")), Some(None));
        assert_eq!(Stat::parse("12 (x) S 5 7"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
