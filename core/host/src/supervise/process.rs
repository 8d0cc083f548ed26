//! A worker's process: started, killed with all that it has started itself, and taken off the system's list.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reunion_model::plugin::{Manifest, PluginKind};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::cgroup::{Cgroups, Group};
use crate::text;
use crate::usage;
use crate::wire::{self, Kind, Scan};

use super::spawner;

/// The hidden command that is a worker.
pub const COMMAND: &str = "plugin-host";
/// What a worker may see of the environment. Everything else may be a secret.
const ENVIRONMENT: [&str; 8] = ["LANG", "LC_ALL", "LC_CTYPE", "PATH", "RUST_BACKTRACE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ"];
/// How long a library may take to say what it is.
const SCAN_WITHIN: Duration = Duration::from_secs(20);
/// Memory that it may take meanwhile, and how often that is looked at where the system does not.
const SCAN_MEMORY_BYTES_MAX: u64 = 1 << 30;
const SCAN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a line of standard error that are kept.
const LINE_BYTES_MAX: u64 = 1 << 10;

/// Threads and processes of a worker that is in a control group.
const THREADS_MAX: u64 = 1024;
/// How long after its end the last line of a process may be on its way.
const SAID_WITHIN: Duration = Duration::from_millis(500);
/// Characters of the last line that are told with how a process ended.
const SAID_CHARS_MAX: usize = 200;

/// A process that was started.
pub(super) struct Process {
    pid: Pid,
    /// How it ended, once it has. Its number may be another's then.
    ended: Mutex<Option<ExitStatus>>,
    changed: Condvar,
    /// The last line that it wrote to its standard error, and whether there comes another.
    last_line: Mutex<String>,
    said_all: AtomicBool,
    /// Its control group, where the system has one for it.
    group: Mutex<Option<Group>>,
    /// It was ended because it took more memory than it may.
    out_of_memory: AtomicBool,
}

impl Process {
    /// Starts a worker; our end of its socket. `line` gets each line that it writes to its standard output or error.
    pub(super) fn start(worker: &Path, temp: Option<&Path>, line: impl Fn(&str) + Send + 'static) -> io::Result<(Arc<Self>, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (errors, their_errors) = UnixStream::pair()?;
        let mut command = Command::new(worker);
        command.arg0("reunion").arg(COMMAND).process_group(0).current_dir("/").env_clear();
        command.envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(temp.map(|temp| ("TMPDIR", temp)));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(OwnedFd::from(their_errors));
        let child = spawner::spawn(command)?;
        let process = Arc::new(Self {
            pid: Pid::from_child(&child),
            ended: Mutex::default(),
            changed: Condvar::new(),
            last_line: Mutex::default(),
            said_all: AtomicBool::new(false),
            group: Mutex::default(),
            out_of_memory: AtomicBool::new(false),
        });
        let (waiter, socket, error_socket) = (Arc::clone(&process), ours.try_clone()?, errors.try_clone()?);
        thread::Builder::new().name("reap".into()).spawn(move || waiter.reap(child, &[socket, error_socket]))?;
        let reader = Arc::clone(&process);
        thread::Builder::new().name("stderr".into()).spawn(move || {
            reader.read_errors(errors, line);
            reader.said_all.store(true, Ordering::Release);
        })?;
        Ok((process, ours))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Has the system limit its memory; whether it does.
    pub(super) fn limit_memory(&self, component: &str, bytes_max: u64) -> bool {
        static GROUPS: LazyLock<Option<Cgroups>> = LazyLock::new(|| {
            Cgroups::find()
                .inspect_err(|why| tracing::debug!("the memory of plugins is watched, not limited by a control group: {why}"))
                .ok()
        });
        let Some(groups) = GROUPS.as_ref() else { return false };
        let made = groups.create(&format!("{component}-{}", self.pid()), bytes_max, THREADS_MAX);
        match made.and_then(|group| group.add(self.pid()).map(|()| group)) {
            Ok(group) => {
                *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
                true
            }
            Err(error) => {
                tracing::warn!(component, "its plugin's memory is watched, not limited by a control group: {error}");
                false
            }
        }
    }

    /// Waits for its end; then kills what it has started, takes it off the list, and ends its connections, which
    /// a process that it has started may still hold.
    fn reap(&self, mut child: Child, sockets: &[UnixStream]) {
        let left = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(self.pid), left) {}
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // As long as it is on the list its number, which is that of its group, is nobody else's.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner).take();
        let killed = group.as_ref().and_then(|group| group.events().ok()).is_some_and(|events| events.oom_kills > 0);
        self.out_of_memory.fetch_or(killed, Ordering::AcqRel);
        // Kills what left the process group.
        drop(group);
        *ended = Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0)));
        drop(ended);
        self.changed.notify_all();
        for socket in sockets {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn read_errors(&self, errors: UnixStream, line: impl Fn(&str)) {
        let mut errors = BufReader::new(errors);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match errors.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = text::tidy(&String::from_utf8_lossy(&bytes));
                    if !text.is_empty() {
                        line(&text);
                        *self.last_line.lock().unwrap_or_else(PoisonError::into_inner) = text;
                    }
                }
            }
        }
    }

    /// Kills it, and all that it has started.
    pub(super) fn kill(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Ends it if it takes more memory than a library that is looked at may.
    fn watch_scan(process: &Arc<Self>) -> io::Result<()> {
        if process.limit_memory("worker-scan", SCAN_MEMORY_BYTES_MAX) {
            return Ok(());
        }
        let watched = Arc::downgrade(process);
        let look = move || {
            while let Some(process) = watched.upgrade().filter(|process| process.wait(SCAN_LOOK_EVERY).is_none()) {
                if usage::of(process.pid()).is_ok_and(|usage| usage.rss_bytes > SCAN_MEMORY_BYTES_MAX) {
                    process.out_of_memory.store(true, Ordering::Release);
                    process.kill();
                }
            }
        };
        thread::Builder::new().name("watch-scan".into()).spawn(look).map(drop)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// How it ended; `None` where it is still there after this time.
    pub(super) fn wait(&self, time: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + time;
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while ended.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            ended = self.changed.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *ended
    }

    /// How it ended, and the last that it said, in words. Waits a little for that to be read.
    pub(super) fn how_it_ended(&self, status: ExitStatus) -> String {
        let until = Instant::now() + SAID_WITHIN;
        while !self.said_all.load(Ordering::Acquire) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let said: String = line.chars().take(SAID_CHARS_MAX).collect();
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        if self.out_of_memory.load(Ordering::Acquire) {
            return "took more memory than its limit, and was killed".to_owned();
        }
        match (status.signal(), status.code()) {
            (Some(signal), _) => format!("{}{said}", signal_words(signal)),
            (None, code) => format!("exited with code {}{said}", code.unwrap_or_default()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A signal by its number, and by its name where it has one that tells something.
fn signal_words(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => " (aborted)",
        libc::SIGBUS => " (bus error)",
        libc::SIGFPE => " (arithmetic error)",
        libc::SIGILL => " (illegal instruction)",
        libc::SIGKILL => " (killed)",
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGSYS => " (bad system call)",
        _ => "",
    };
    format!("signal {signal}{name}")
}

/// Why a library could not be looked at.
pub(crate) enum ScanError {
    /// It says so itself, or what is wrong with it.
    Refused(String),
    /// It brought down the process in which it was looked at, or let it hang.
    Crashed(String),
    /// The system's doing.
    System(io::Error),
}

/// Looks at a library in a process that does nothing else.
pub(crate) fn scan(worker: &Path, kind: PluginKind, name: &str, library: &Path) -> Result<Manifest, ScanError> {
    let until = Instant::now() + SCAN_WITHIN;
    let (process, mut stream) = Process::start(worker, None, |_| ()).map_err(ScanError::System)?;
    Process::watch_scan(&process).map_err(ScanError::System)?;
    let scan = Scan { kind, name: name.to_owned(), library: library.to_owned() };
    let scan = serde_json::to_vec(&scan).map_err(|error| ScanError::System(error.into()))?;
    let asked = stream.set_read_timeout(Some(SCAN_WITHIN)).and_then(|()| wire::write(&mut stream, Kind::Scan, 0, &scan));
    let answer = asked.map_err(|error| error.to_string()).and_then(|()| wire::read(&mut stream).map_err(|error| error.to_string()));
    // One that crashes closes its socket first; on a busy machine it is a while until it has ended.
    let status = process.wait(if answer.is_ok() { Duration::from_secs(1) } else { until.saturating_duration_since(Instant::now()) });
    let answer = answer.ok().filter(|frame| frame.kind == Kind::Scanned);
    match answer.and_then(|frame| serde_json::from_slice::<Result<Manifest, String>>(&frame.payload).ok()) {
        Some(answer) => answer.map_err(ScanError::Refused),
        None => Err(ScanError::Crashed(match status {
            Some(status) => process.how_it_ended(status),
            None => format!("no answer within {} seconds", SCAN_WITHIN.as_secs()),
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_closes_its_socket_long_before_it_ends_is_told_by_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let worker = folder.path().join("worker");
        fs::write(&worker, "#!/bin/sh\nexec 0<&-\nsleep 1\necho 'out of ideas' >&2\nexit 3\n").expect("written");
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o700)).expect("it is ours");
        let Err(ScanError::Crashed(why)) = scan(&worker, PluginKind::Source, "any", Path::new("any.so")) else {
            panic!("it says nothing");
        };
        assert_eq!(why, "exited with code 3 (out of ideas)");
    }
}
