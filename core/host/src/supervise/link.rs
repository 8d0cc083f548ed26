//! The daemon's end of a worker's connection: sends calls, and brings answers to whoever waits for them.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::log;
use crate::wire::{self, Frame, FrameError, Kind, LogMessage};

use super::process::Process;

/// How long a worker may leave unread what it was sent.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// How long a process that closed its connection has to end by itself.
const END_WITHIN: Duration = Duration::from_millis(500);
/// Log lines of a worker that are passed on: so many at once, and so many a second after that.
const LOG_LINES_AT_ONCE: f64 = 200.0;
const LOG_LINES_PER_SEC: f64 = 20.0;
/// Items that a worker may have sent and nobody has taken.
pub(super) const ITEMS_IN_FLIGHT_MAX: u32 = 4;

/// A connection, as long as it lasts.
pub(super) struct Link {
    component: String,
    out: Mutex<UnixStream>,
    calls: Mutex<Option<HashMap<u32, Waiting>>>,
    last_call: AtomicU32,
    /// None for a worker that is a thread of this process.
    process: Option<Arc<Process>>,
    /// Why we ended it, where we did.
    fault: OnceLock<String>,
    /// How it ended: `None` where it did so as it was told to, else what happened.
    ended: OnceLock<Option<String>>,
    goodbye: OnceLock<()>,
    lines: Arc<Lines>,
}

/// A call that waits for frames.
struct Waiting {
    frames: Sender<Frame>,
    /// Items that may still come.
    credit: u32,
}

/// What comes for a call.
pub(super) struct Replies {
    pub(super) call: u32,
    pub(super) frames: Receiver<Frame>,
}

impl Link {
    /// Takes over a connection. `on_end` is told how it ended, unless that was after it had been told to.
    pub(super) fn new(
        component: String,
        lines: Arc<Lines>,
        stream: UnixStream,
        process: Option<Arc<Process>>,
        on_end: impl FnOnce(&str) + Send + 'static,
    ) -> std::io::Result<(Arc<Self>, Replies)> {
        stream.set_write_timeout(Some(WRITE_WITHIN))?;
        let reader = stream.try_clone()?;
        let link = Arc::new(Self {
            component,
            out: Mutex::new(stream),
            calls: Mutex::new(Some(HashMap::new())),
            last_call: AtomicU32::new(0),
            process,
            fault: OnceLock::new(),
            ended: OnceLock::new(),
            goodbye: OnceLock::new(),
            lines,
        });
        // What comes for no call is the answer to the start.
        let start = link.wait_for(0).ok_or_else(|| std::io::Error::other("the connection has ended"))?;
        let reading = Arc::clone(&link);
        thread::Builder::new().name("worker".into()).spawn(move || reading.read(reader, on_end))?;
        Ok((link, start))
    }

    /// Reads frames until the connection ends, and finds out why it did.
    fn read(&self, mut stream: UnixStream, on_end: impl FnOnce(&str)) {
        let cause = loop {
            match wire::read(&mut stream) {
                Ok(frame) => {
                    if let Err(fault) = self.take(frame) {
                        self.fault(&fault);
                        break fault;
                    }
                }
                // How its process ended says more.
                Err(error @ (FrameError::Closed | FrameError::Cut | FrameError::Io(_))) => break error.to_string(),
                Err(error @ (FrameError::Kind(_) | FrameError::Length { .. })) => {
                    self.fault(&error.to_string());
                    break error.to_string();
                }
            }
        };
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let (ended, by_itself) = match &self.process {
            None => (cause, true),
            Some(process) => match process.wait(END_WITHIN) {
                Some(status) => (process.how_it_ended(status), status.success()),
                None => {
                    process.kill();
                    // Only a process that hangs in the system stays longer, and that one is not waited for. One that was
                    // about to end by itself, on a machine that has much to do, says more than its connection.
                    let by_itself = process.wait(2 * END_WITHIN).filter(|status| status.signal() != Some(libc::SIGKILL));
                    (by_itself.map_or(cause, |status| process.how_it_ended(status)), false)
                }
            },
        };
        let was_told = self.goodbye.get().is_some();
        let ended = match self.fault.get() {
            Some(fault) => Some(fault.clone()),
            None if was_told && by_itself => None,
            None => Some(ended),
        };
        let ended = self.ended.get_or_init(|| ended);
        // Who told it to end waits for how it does.
        if let (Some(ended), false) = (ended, was_told) {
            on_end(ended);
        }
        // Whoever waits sees that nothing comes any more, and then how it ended.
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Brings a frame to whoever waits for it; what is wrong with it, if anything is.
    fn take(&self, frame: Frame) -> Result<(), String> {
        if frame.kind == Kind::Log {
            let event = serde_json::from_slice(&frame.payload).map_err(|_| "it sent a log event that is none".to_owned())?;
            self.lines.write(&self.component, event);
            return Ok(());
        }
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = calls.as_mut() else { return Ok(()) };
        let waiting = calls.get_mut(&frame.call).ok_or_else(|| "it answered a call that was not made, or has an answer".to_owned())?;
        if frame.kind.is_item() {
            waiting.credit = waiting.credit.checked_sub(1).ok_or_else(|| "it sent more than it was asked for".to_owned())?;
        }
        let (call, last) = (frame.call, frame.kind.ends_call());
        // Nobody may be there any more who would take it.
        let _ = waiting.frames.send(frame);
        if last {
            calls.remove(&call);
        }
        Ok(())
    }

    fn wait_for(&self, call: u32) -> Option<Replies> {
        let (frames, waiting) = channel();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.as_mut()?.insert(call, Waiting { frames, credit: ITEMS_IN_FLIGHT_MAX });
        Some(Replies { call, frames: waiting })
    }

    /// A number for a call, and what comes for it; `None` where the connection has ended.
    pub(super) fn open(&self) -> Option<Replies> {
        let call = loop {
            let call = self.last_call.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            // Zero is no call; after four thousand million calls they begin again.
            if call != 0 {
                break call;
            }
        };
        self.wait_for(call)
    }

    /// Sends frames, one after the other. Where that does not work the connection has ended, or ends now.
    pub(super) fn send(&self, frames: &[(Kind, u32, &[u8])]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, call, payload) in frames {
            if let Err(error) = wire::write(&mut *out, *kind, *call, payload) {
                drop(out);
                // A process that has just died says more than the connection that went with it.
                let is_gone = matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset);
                if !is_gone {
                    self.fault(&format!("did not take what it was sent ({error})"));
                }
                return;
            }
        }
    }

    /// So many more items may come for a call.
    pub(super) fn grant(&self, call: u32, items: u32) {
        if let Some(waiting) = self.calls.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|calls| calls.get_mut(&call)) {
            waiting.credit += items;
        }
        self.send(&[(Kind::Credit, call, &items.to_le_bytes())]);
    }

    /// Ends it, because of this.
    pub(super) fn fault(&self, fault: &str) {
        let _ = self.fault.set(fault.to_owned());
        self.cut();
    }

    /// Ends it at once.
    fn cut(&self) {
        if let Some(process) = &self.process {
            process.kill();
        }
        let _ = self.out.lock().unwrap_or_else(PoisonError::into_inner).shutdown(std::net::Shutdown::Both);
    }

    /// Tells it to end, and waits for that as long as the contract allows. What happened, where it did not end as it
    /// was told to.
    pub(super) fn goodbye(&self, grace: Duration) -> Option<String> {
        let _ = self.goodbye.set(());
        self.send(&[(Kind::Bye, 0, &[])]);
        if self.process.as_ref().is_some_and(|process| process.wait(grace).is_none()) {
            self.fault(&format!("did not end within {} ms of being told to", grace.as_millis()));
        }
        self.cut();
        let until = Instant::now() + 4 * END_WITHIN;
        while self.ended.get().is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        self.ended.get().cloned().flatten()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.fault.get().is_none() && self.ended.get().is_none() && self.process.as_ref().is_none_or(|process| process.is_alive())
    }

    /// Why it ended; waits a little for that to be known.
    pub(super) fn why_ended(&self) -> String {
        let until = Instant::now() + 4 * END_WITHIN;
        loop {
            match (self.ended.get(), self.fault.get()) {
                (Some(Some(why)), _) | (None | Some(None), Some(why)) => return why.clone(),
                (Some(None), None) => return "was told to end".to_owned(),
                (None, None) if Instant::now() >= until => return "its connection ended".to_owned(),
                (None, None) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The worker's process, where it is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|process| process.is_alive()).map(|process| process.pid())
    }
}

/// The log lines of a worker: those that may pass, and how many did not.
pub(super) struct Lines(Mutex<Allowance>);

struct Allowance {
    left: f64,
    at: Instant,
    dropped: u64,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Allowance { left: LOG_LINES_AT_ONCE, at: Instant::now(), dropped: 0 }))
    }

    /// Passes on a log event of the plugin, unless there are too many of them.
    pub(super) fn write(&self, component: &str, event: LogMessage) {
        let passes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now());
        match passes {
            Some(0) => log::write(component, event),
            Some(dropped) => {
                log::write(component, log::dropped(dropped));
                log::write(component, event);
            }
            None => {}
        }
    }
}

impl Allowance {
    /// Whether one may pass now, and how many did not before it.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * LOG_LINES_PER_SEC;
        (self.left, self.at) = ((self.left + more).min(LOG_LINES_AT_ONCE), now);
        if self.left < 1.0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_log_lines_is_cut_and_counted() {
        let now = Instant::now();
        let mut lines = Allowance { left: LOG_LINES_AT_ONCE, at: now, dropped: 0 };
        let passed = (0..2000).filter(|_| lines.pass(now).is_some()).count();
        assert_eq!((passed, lines.dropped), (200, 1800));
        assert_eq!(lines.pass(now + Duration::from_secs(1)), Some(1800), "and told with the next that passes");
        assert_eq!(lines.pass(now + Duration::from_secs(1)), Some(0));
    }
}
