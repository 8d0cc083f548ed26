//! A process for one act: started, listened to, and ended where it takes too long or too much.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::act::{Request, Word};
use crate::machine::resident_kib_of;
use crate::report::Outcome;

/// How long a process may take to start and to understand what it is to do.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// How often the memory of a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Memory that no trial takes. What takes more is ended before the machine is in trouble.
const MEMORY_KIB_MAX: u64 = 4 << 20;
/// Bytes of one line, which may hold a resume state.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of what was written last to the standard streams that are kept.
const WRITTEN_BYTES_MAX: usize = 4 << 10;
/// How long a pipe may stay open after its process has ended: something that it started may hold it.
const PIPE_CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What makes it call [`act`](crate::act()).
    pub arguments: Vec<String>,
}

/// What a child came to.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// What stands on its standard streams, the end of it. The suite writes nothing there.
    pub written: String,
    /// Where the plugin said a phone number.
    pub phones: Vec<String>,
}

/// How a child ended.
#[derive(Debug)]
pub enum Ended {
    /// It said what came of it.
    Done(Outcome, Value),
    /// It was where it was to stay, and was killed there.
    Stayed(Value),
    /// It ended by itself before.
    Exited {
        /// How.
        status: ExitStatus,
        /// While what was done.
        doing: String,
    },
    /// It was killed because it took too long.
    Hung {
        /// After how long.
        after: Duration,
        /// While what was done.
        doing: String,
    },
    /// It was killed because it took too much memory.
    Grew {
        /// While what was done.
        doing: String,
    },
}

/// What there is to listen to.
enum Heard {
    Word(Word),
    End,
}

impl Program {
    /// Does an act in a process of its own, which is killed where it does one thing for longer than it says that this
    /// may take; where it is to stay; and, where `kill_after` is given, so long after it has begun to push.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn run(&self, request: &Request, kill_after: Option<Duration>) -> io::Result<Ran> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Whatever the plugin starts is ended with it.
        let mut child = command.process_group(0).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let written = stderr.map(|stderr| thread::spawn(move || tail(stderr)));
        let (say, words) = sync_channel(16);
        let listener = stdout.map(|stdout| thread::spawn(move || listen(stdout, &say)));
        tell(stdin, request);
        let mut watched =
            Watched { child: &mut child, within: START_TIME_MAX, kill_after, doing: "it started".to_owned(), phones: Vec::new() };
        let ended = watched.follow(&words)?;
        let phones = std::mem::take(&mut watched.phones);
        drop(words);
        let closed = Instant::now() + PIPE_CLOSES_WITHIN;
        while listener.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < closed {
            thread::sleep(Duration::from_millis(5));
        }
        let written = written.map(|thread| joined(thread, closed)).unwrap_or_default();
        Ok(Ran { ended, written, phones })
    }
}

/// What a thread read, if it ends in time.
fn joined(thread: thread::JoinHandle<String>, until: Instant) -> String {
    while !thread.is_finished() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    if thread.is_finished() { thread.join().unwrap_or_default() } else { String::new() }
}

/// Hands over the request. A child that has ended already does not take it.
fn tell(stdin: Option<ChildStdin>, request: &Request) {
    if let (Some(mut stdin), Ok(request)) = (stdin, serde_json::to_vec(request)) {
        let _ = stdin.write_all(&request);
    }
}

/// Ends a child and all that it started.
fn end(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails where nobody is left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn listen(stdout: ChildStdout, say: &SyncSender<Heard>) {
    let mut lines = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            // What is no word was written by somebody who found the pipe: it says nothing.
            Ok(_) => {
                if let Ok(word) = serde_json::from_slice(&line)
                    && say.send(Heard::Word(word)).is_err()
                {
                    return;
                }
            }
        }
    }
    let _ = say.send(Heard::End);
}

/// The end of what is written to a stream.
fn tail(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(WRITTEN_BYTES_MAX));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A child that runs.
struct Watched<'a> {
    child: &'a mut Child,
    /// How long what it does may take.
    within: Duration,
    kill_after: Option<Duration>,
    doing: String,
    phones: Vec<String>,
}

impl Watched<'_> {
    fn follow(&mut self, words: &Receiver<Heard>) -> io::Result<Ended> {
        let status = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let mut until = Instant::now() + self.within;
        let mut kill_at = None;
        loop {
            let next = kill_at.map_or(LOOK_EVERY, |at: Instant| at.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
            match words.recv_timeout(next) {
                Ok(Heard::Word(Word::Doing { what, within_ms })) => {
                    // A push is what such a child is for; what comes before it is not to be cut off.
                    if let Some(after) = self.kill_after.filter(|_| what.contains("a push")) {
                        kill_at = kill_at.or(Some(Instant::now() + after));
                    }
                    self.doing = what;
                    self.within = Duration::from_millis(within_ms);
                    until = Instant::now() + self.within;
                }
                Ok(Heard::Word(Word::Stays(data))) => {
                    self.kill()?;
                    return Ok(Ended::Stayed(data));
                }
                Ok(Heard::Word(Word::Done { outcome, data, phones })) => {
                    self.phones = phones;
                    // What happens when the process ends is nobody's concern any more.
                    self.kill()?;
                    return Ok(Ended::Done(outcome, data));
                }
                Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => {
                    let status = self.wait_or_kill(until)?;
                    return Ok(status.map_or_else(|| self.hung(), |status| Ended::Exited { status, doing: self.doing.clone() }));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill()?;
                return Ok(Ended::Stayed(Value::Null));
            }
            if Instant::now() > until {
                self.kill()?;
                return Ok(self.hung());
            }
            if resident_kib_of(&status) > MEMORY_KIB_MAX {
                self.kill()?;
                return Ok(Ended::Grew { doing: self.doing.clone() });
            }
        }
    }

    fn hung(&self) -> Ended {
        Ended::Hung { after: self.within, doing: self.doing.clone() }
    }

    fn kill(&mut self) -> io::Result<()> {
        end(self.child);
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Its status, where it ends by itself in time; it is killed otherwise.
    fn wait_or_kill(&mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                // Whatever it started and left behind.
                end(self.child);
                return Ok(Some(status));
            }
            if Instant::now() > until {
                self.kill()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The signal that ended a process.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}
