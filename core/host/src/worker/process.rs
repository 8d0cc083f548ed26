//! A worker that is a process of its own.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use reunion_model::plugin::{ErrorClass, Manifest, Needs, PluginError};

use crate::confine::{self, Plan};
use crate::library::Plugin;
use crate::log;
use crate::wire::{self, Kind, LogMessage, Ready, Request, Scan, Start};

use super::pages;
use super::serve::{Component, Out, not_made, serve};

/// How long a worker that was just started waits to be told what to do.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(30);
/// Files that may be open while a library is looked at.
const SCAN_OPEN_FILES_MAX: u64 = 256;
/// Log events that wait to be sent. Those beyond are dropped, and counted.
const LOG_EVENTS_WAITING_MAX: usize = 256;

/// The program as a worker: what its hidden command does. Standard input must be the socket of the daemon that
/// started it.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "reunion plugin-host: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut stream =
        take_socket().map_err(|error| format!("this command is for the program's own use; standard input is no socket of it ({error})"))?;
    ignore_signals();
    stream.set_read_timeout(Some(FIRST_FRAME_WITHIN)).map_err(|error| error.to_string())?;
    let frame = wire::read(&mut stream).map_err(|error| error.to_string())?;
    stream.set_read_timeout(None).map_err(|error| error.to_string())?;
    match request(&frame)? {
        Request::Scan(scan) => {
            let answer = scanned(&scan);
            answer_scan(&mut stream, answer)
        }
        Request::Start(start) => {
            serve_component(stream, *start);
            // Terminators of libraries are not run: whatever they do, nobody needs it.
            exit_now()
        }
    }
}

fn request(frame: &wire::Frame) -> Result<Request, String> {
    let request = match frame.kind {
        Kind::Scan => serde_json::from_slice(&frame.payload).map(Request::Scan),
        Kind::Start => serde_json::from_slice(&frame.payload).map(|start| Request::Start(Box::new(start))),
        other => return Err(format!("the first message is of kind {other:?}")),
    };
    request.map_err(|_| "the first message cannot be understood".to_owned())
}

/// Takes the socket from standard input, so that no plugin reads from it by mistake, and dies with the daemon
/// from now on.
fn take_socket() -> std::io::Result<UnixStream> {
    let parent = std::os::unix::process::parent_id();
    // SAFETY: duplicates a descriptor; what it gives is a new one, closed on exec, that nothing else owns.
    let copy = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: made above.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(copy) });
    stream.peer_addr()?;
    close_others(copy);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in [0, 1] {
        // SAFETY: both descriptors are open; the first standard one becomes a copy of /dev/null.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    confine::die_with_parent(parent)?;
    Ok(stream)
}

/// Closes what this process inherited beside its socket: whoever started the daemon may have left files open.
fn close_others(socket: i32) {
    let socket = socket.unsigned_abs();
    for (first, last) in [(3, socket - 1), (socket + 1, libc::c_uint::MAX)].into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: nothing in this process owns a descriptor yet but the socket and the standard ones. A kernel
        // without the call leaves them open.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// A service manager sends these to every process of the service; the daemon ends its workers itself, when what
/// they do is done.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The connection has broken, and not by the daemon: it would have ended this process.
fn broken() {
    let _ = writeln!(std::io::stderr(), "its connection to the daemon is broken");
    // SAFETY: ends the process; takes a number.
    unsafe { libc::_exit(1) };
}

fn exit_now() -> ! {
    // SAFETY: ends the process; takes a number.
    unsafe { libc::_exit(0) }
}

/// What a library says of itself. The process knows nothing that is worth stealing, and may do nothing.
fn scanned(scan: &Scan) -> Result<Manifest, String> {
    let nothing = Plan {
        needs: Some(Needs::default()),
        library: scan.library.clone(),
        read: Vec::new(),
        write: Vec::new(),
        temp: None,
        private: Vec::new(),
        make_folders: false,
        open_files_max: SCAN_OPEN_FILES_MAX,
    };
    confine::confine(&nothing).map_err(|error| format!("the process cannot be confined: {error}"))?;
    let plugin = Plugin::load(&scan.library, scan.kind, &scan.name).map_err(|error| chain(&error))?;
    Ok(plugin.manifest().clone())
}

fn answer_scan(stream: &mut UnixStream, answer: Result<Manifest, String>) -> Result<(), String> {
    let answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
    wire::write(stream, Kind::Scanned, 0, &answer).map_err(|error| error.to_string())?;
    exit_now()
}

fn serve_component(stream: UnixStream, start: Start) {
    let Ok(out) = stream.try_clone().map(|stream| Out::new(stream, broken)) else { return };
    let out = Arc::new(out);
    name_process(&start.component);
    send_logs(&out, start.log_level_max);
    match make(&start) {
        Ok((component, ready)) => {
            pages::give_back_start();
            if out.json(Kind::Ready, 0, &ready).is_ok() {
                serve(stream, out, component);
            }
        }
        Err(error) => not_made(stream, &out, &error),
    }
}

/// Confines the process, loads the library, and makes the component.
fn make(start: &Start) -> Result<(Component, Ready), PluginError> {
    let internal = |message: String| PluginError::new(ErrorClass::Internal, message);
    let confine =
        |plan: &Plan| confine::confine(plan).map_err(|error| internal(format!("the plugin's process cannot be confined: {error}")));
    let confined = start.plan.as_ref().map(confine).transpose()?;
    let plugin = Plugin::load(Path::new(&start.library), start.kind, &start.name).map_err(|error| internal(chain(&error)))?;
    let component = Component::make(&plugin, &start.component, &start.config)?;
    let ready = Ready { traits: component.traits(), confined };
    Ok((component, ready))
}

/// The name that `ps` and `top` show.
fn name_process(component: &str) {
    if let Ok(name) = std::ffi::CString::new(format!("reunion:{component}")) {
        // A name that is too long is cut by the system.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Sends the plugin's log events to the daemon. The plugin never waits for that.
fn send_logs(out: &Arc<Out>, level_max: i32) {
    let (events, waiting) = sync_channel::<LogMessage>(LOG_EVENTS_WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let (out, lost) = (Arc::clone(out), Arc::clone(&dropped));
    let sender = thread::Builder::new().name("log".into()).spawn(move || {
        for event in waiting {
            let dropped = lost.swap(0, Ordering::Relaxed);
            let sent = out.json(Kind::Log, 0, &event);
            let told = if dropped == 0 { Ok(()) } else { out.json(Kind::Log, 0, &log::dropped(dropped)) };
            if sent.and(told).is_err() {
                return;
            }
        }
    });
    if sender.is_ok() {
        log::send_to(level_max, Box::new(move |event| offer(&events, event, &dropped)));
    }
}

fn offer(events: &SyncSender<LogMessage>, event: LogMessage, dropped: &AtomicU64) {
    if let Err(TrySendError::Full(_)) = events.try_send(event) {
        dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// An error with everything that it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
