//! What a plugin does below the level of [`Plugin`](crate::Plugin), for the conformance suite: it has to see what the
//! rest of this crate keeps from happening, such as tables of other sizes and calls on an instance that has failed.
//!
//! A [`Raw`] calls the library's C functions as a host would, with every pointer valid, and says what came of it.
//! Nothing here is for the daemon. What it is used on may crash: it belongs into a process of its own.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use reunion_abi::{
    self as abi, Buf, Bytes, ChannelTable, CheckFn, ENTRY_SYMBOL, EntryFn, FFI_ArrowSchema, Host, MANIFEST_SYMBOL, ManifestFn, Str, Stream,
    log_level,
};
use reunion_model::limits::{CONTROL_BYTES_MAX, ERROR_TEXT_BYTES_MAX};
use serde_json::Value;

/// Keeps the library in memory, as the host does.
const RTLD_NODELETE: libc::c_int = 0x1000;
/// What memory that nobody may touch is filled with.
const UNTOUCHED: u8 = 0xa5;
/// Bytes that are watched behind a struct.
const WATCHED_BYTES: usize = 128;
/// Signals whose handlers are looked at: all but the realtime ones.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=31;

/// A library whose functions can be called one by one.
pub struct Raw {
    /// Keeps the functions where they are: it is never closed.
    _library: ManuallyDrop<Library>,
    manifest: ManifestFn,
    entry: EntryFn,
}

/// What came of a call of `reunion_entry_v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// The status that it answered.
    pub status: i32,
    /// The bytes that the table was said to have.
    pub room: u32,
    /// The table's size as it stands in the table afterwards.
    pub size: u32,
    /// Whether any byte within the table's room changed.
    pub filled: bool,
    /// Whether any byte behind the table's room changed.
    pub beyond: bool,
    /// Whether any byte of an error without room changed; false where it had room.
    pub error_touched: bool,
    /// What the error says, where there is one.
    pub message: String,
    /// The addresses in the table: create, cancel, destroy, and the table of its kind.
    pub functions: [usize; 4],
}

/// A table with memory behind it that nobody may touch.
#[repr(C)]
struct Table {
    plugin: abi::Plugin,
    behind: [u8; WATCHED_BYTES],
}

/// An error with no room for its members.
#[repr(C)]
struct NoRoom {
    size: u32,
    rest: [u8; size_of::<abi::Error>() - size_of::<u32>()],
}

impl Raw {
    /// Loads the library at this path.
    ///
    /// # Errors
    /// What the system says, or which symbol is missing.
    pub fn open(path: &Path) -> Result<Self, String> {
        let path = fs::canonicalize(path).map_err(|error| format!("it cannot be read: {error}"))?;
        // SAFETY: loading runs the library's initialisers: that is what it was named for.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) };
        let library = library.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("it cannot be loaded as a library: {cause}")
        })?;
        let missing = |symbol| format!("it exports no {symbol}: it is no plugin, or one for another major version of the ABI");
        // SAFETY: the types of the contract; the library is never closed.
        let manifest = unsafe { library.get::<ManifestFn>(MANIFEST_SYMBOL).map(|symbol| *symbol) };
        // SAFETY: as above.
        let entry = unsafe { library.get::<EntryFn>(ENTRY_SYMBOL).map(|symbol| *symbol) };
        Ok(Self {
            manifest: manifest.map_err(|_| missing(MANIFEST_SYMBOL))?,
            entry: entry.map_err(|_| missing(ENTRY_SYMBOL))?,
            _library: ManuallyDrop::new(library),
        })
    }

    /// The manifest's text as it is given. From any thread.
    ///
    /// # Errors
    /// Where there is none, or it is longer than a control document may be.
    pub fn manifest_text(&self) -> Result<Vec<u8>, String> {
        // SAFETY: the contract: no arguments, static text that a zero byte ends.
        let text = unsafe { (self.manifest)() };
        if text.is_null() {
            return Err("reunion_manifest_v1 answered NULL".to_owned());
        }
        // SAFETY: as above.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(format!("the manifest has {} bytes, and {CONTROL_BYTES_MAX} are the limit", bytes.len()));
        }
        Ok(bytes.to_vec())
    }

    /// Calls the entry function with a table that says that it has room for so many bytes more (or less) than the
    /// table has at version 1.0, at most 64 more; and with an error that has room for its members, or not.
    pub fn enter(&self, more_bytes: i32, error_has_room: bool) -> Entered {
        let more = more_bytes.min(WATCHED_BYTES as i32 / 2);
        let room = abi::Plugin::SIZE_1_0.saturating_add_signed(more).max(size_of::<u32>() as u32);
        let mut table = Table { plugin: abi::Plugin::empty(), behind: [0; WATCHED_BYTES] };
        table.plugin.size = room;
        let behind_at = (more.max(0)) as usize;
        table.behind[behind_at..].fill(UNTOUCHED);
        let before = bytes_of(&table);
        let (mut error, mut no_room) = (abi::Error::empty(), NoRoom { size: 4, rest: [UNTOUCHED; _] });
        let error_at = if error_has_room { &raw mut error } else { (&raw mut no_room).cast() };
        // SAFETY: both structs are valid, and the memory behind the table belongs to it.
        let status = unsafe { (self.entry)(abi::MINOR, (&raw mut table).cast(), error_at) };
        let after = bytes_of(&table);
        let at_end = room as usize;
        let table = &table.plugin;
        Entered {
            status,
            room,
            size: table.size,
            filled: before[size_of::<u32>()..at_end] != after[size_of::<u32>()..at_end],
            beyond: before[at_end..] != after[at_end..],
            error_touched: no_room.size != 4 || no_room.rest.iter().any(|byte| *byte != UNTOUCHED),
            message: if status == abi::OK { String::new() } else { text_of(&error) },
            functions: [
                table.create.map_or(0, |function| function as usize),
                table.cancel.map_or(0, |function| function as usize),
                table.destroy.map_or(0, |function| function as usize),
                table.source as usize | table.channel as usize,
            ],
        }
    }

    /// Makes an instance. `host_bytes` is what the host says its own struct has; `None` is what it has.
    ///
    /// # Errors
    /// The status, and what the error says.
    pub fn create(&self, config: &Value, host_bytes: Option<u32>) -> Result<RawInstance, (i32, String)> {
        let (mut table, mut error) = (abi::Plugin::empty(), abi::Error::empty());
        // SAFETY: both structs are valid and have their sizes set.
        let status = unsafe { (self.entry)(abi::MINOR, &raw mut table, &raw mut error) };
        if status != abi::OK {
            return Err((status, text_of(&error)));
        }
        let missing = || (abi::OK, "the table lacks a function".to_owned());
        let create = table.create.ok_or_else(missing)?;
        if table.destroy.is_none() || (table.source.is_null() && table.channel.is_null()) {
            return Err(missing());
        }
        let host = Host {
            size: host_bytes.unwrap_or(Host::SIZE_1_0),
            minor: abi::MINOR,
            private_data: ptr::null_mut(),
            log: Some(log),
            log_level_max: log_level::ERROR,
            reserved: 0,
        };
        // Valid as long as the process, as the contract has it.
        let host: &'static Host = Box::leak(Box::new(host));
        let (config, mut handle) = (config.to_string(), ptr::null_mut());
        // SAFETY: all pointers are valid for the call.
        let status = unsafe { create(host, Str::borrow("verify"), Str::borrow(&config), &raw mut handle, &raw mut error) };
        match status {
            abi::OK if handle.is_null() => Err((status, "create answered ok without an instance".to_owned())),
            abi::OK => Ok(RawInstance { handle, table }),
            status => Err((status, text_of(&error))),
        }
    }
}

/// An instance whose calls answer with their bare status. Destroyed when it is dropped.
pub struct RawInstance {
    handle: *mut abi::Instance,
    table: abi::Plugin,
}

impl RawInstance {
    /// `check` for this run. `call_bytes` is what the host says its struct of the call has; `None` is what it has.
    pub fn check(&mut self, run_id: &str, call_bytes: Option<u32>) -> i32 {
        let Some(check) = self.check_function() else { return abi::OK };
        let (call, mut findings, mut error) = (call(run_id, call_bytes), Buf::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, `&mut` makes this the only call, and all pointers are valid for it.
        unsafe { check(self.handle, &raw const call, &raw mut findings, &raw mut error) }
    }

    /// Each other call of its kind, by its name, with the status that it answers. Streams are released unread.
    pub fn others(&mut self) -> Vec<(&'static str, i32)> {
        let (call, mut error) = (call("verify", None), abi::Error::empty());
        let (mut stream, mut answers) = (Stream::empty(), Vec::new());
        // SAFETY: a table of the contract, or none.
        if let Some(source) = unsafe { self.table.source.as_ref() } {
            let mut columns = FFI_ArrowSchema::empty();
            if let Some(schema) = source.schema {
                // SAFETY: as in `check`.
                answers.push(("schema", unsafe { schema(self.handle, &raw const call, &raw mut columns, &raw mut error) }));
            }
            let (request, mut error) = (r#"{"mode":"snapshot","resume":false,"overlap_secs":0}"#, abi::Error::empty());
            if let Some(read) = source.read {
                let (request, state) = (Str::borrow(request), Str::EMPTY);
                // SAFETY: as in `check`; the call lives longer than the stream.
                let status = unsafe { read(self.handle, &raw const call, request, state, &raw mut stream, &raw mut error) };
                answers.push(("read", status));
            }
        }
        if let Some(channel) = self.channel() {
            let mut traits = Buf::empty();
            if let Some(describe) = channel.describe {
                // SAFETY: as in `check`.
                answers.push(("describe", unsafe { describe(self.handle, &raw mut traits, &raw mut error) }));
            }
            let mut error = abi::Error::empty();
            if let Some(poll) = channel.poll {
                // SAFETY: as in `check`; the call lives longer than the stream.
                let status = unsafe { poll(self.handle, &raw const call, Str::EMPTY, &raw mut stream, &raw mut error) };
                answers.push(("poll", status));
            }
            if let Some(callback) = channel.callback {
                let (request, mut answer, mut error) = (request(), abi::HttpAnswer::empty(), abi::Error::empty());
                // SAFETY: as in `check`.
                let status = unsafe { callback(self.handle, &raw const call, &raw const request, &raw mut answer, &raw mut error) };
                answers.push(("callback", status));
            }
        }
        // While the call is still valid.
        drop(stream);
        answers
    }

    /// `callback` with structs of the request and the answer that are said to have so many bytes, or as many as they have;
    /// nothing where there is no such function.
    pub fn callback(&mut self, request_bytes: Option<u32>, answer_bytes: Option<u32>) -> Option<i32> {
        let callback = self.channel()?.callback?;
        let call = call("verify", None);
        let request = abi::HttpRequest { size: request_bytes.unwrap_or(abi::HttpRequest::SIZE_1_1), ..request() };
        let (mut answer, mut error) = (abi::HttpAnswer::empty(), abi::Error::empty());
        answer.size = answer_bytes.unwrap_or(answer.size);
        // SAFETY: as in `check`.
        Some(unsafe { callback(self.handle, &raw const call, &raw const request, &raw mut answer, &raw mut error) })
    }

    fn channel(&self) -> Option<ChannelTable> {
        // SAFETY: a table of the contract, or none.
        (!self.table.channel.is_null()).then(|| unsafe { ChannelTable::read(self.table.channel) })
    }

    fn check_function(&self) -> Option<CheckFn> {
        // SAFETY: a table of the contract, or none.
        let source = unsafe { self.table.source.as_ref() };
        source.and_then(|table| table.check).or_else(|| self.channel()?.check)
    }
}

impl Drop for RawInstance {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: its last use; every call has returned, and every stream is released.
            unsafe { destroy(self.handle) }
        }
    }
}

fn call(run_id: &str, bytes: Option<u32>) -> abi::Call {
    abi::Call {
        size: bytes.unwrap_or(abi::Call::SIZE_1_0),
        flags: 0,
        deadline_unix_ms: 0,
        run_id: Str::borrow(run_id),
        cancelled: Some(never),
        private_data: ptr::null_mut(),
    }
}

/// A request that says nothing.
fn request() -> abi::HttpRequest {
    abi::HttpRequest {
        size: abi::HttpRequest::SIZE_1_1,
        reserved: 0,
        method: Str::borrow("GET"),
        path: Str::EMPTY,
        query: Str::EMPTY,
        headers_json: Str::borrow("[]"),
        body: Bytes::borrow(b""),
    }
}

unsafe extern "C" fn never(_: *const abi::Call) -> i32 {
    0
}

unsafe extern "C" fn log(_: *const Host, _: i32, _: Str, _: Str, _: Str) {}

fn text_of(error: &abi::Error) -> String {
    // SAFETY: filled in by the plugin, or empty.
    crate::text::tidy(&unsafe { error.message.to_text(ERROR_TEXT_BYTES_MAX) })
}

/// The bytes of a table as they are now.
fn bytes_of(table: &Table) -> Vec<u8> {
    // SAFETY: the struct consists of integers, pointers and bytes, and has no padding; every byte of it is set.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(table).cast::<u8>(), size_of::<Table>()) }.to_vec()
}

/// What handles each signal of the process: its number, the address of its handler (0: what the system does by
/// itself, 1: nothing), and its flags.
pub fn signal_handlers() -> Vec<(i32, usize, i32)> {
    let handler = |signal: i32| {
        // SAFETY: an action of zeros is one, and the call fills it in.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are as the call wants them; nothing is set.
        let status = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
        (status == 0).then_some((signal, action.sa_sigaction, action.sa_flags))
    };
    SIGNALS.filter_map(handler).collect()
}

/// The locale of the process, of all categories. To be called while no other thread sets it.
pub fn locale() -> String {
    // SAFETY: a null locale asks for the present one, which stays valid until it is set anew.
    let text = unsafe { libc::setlocale(libc::LC_ALL, ptr::null()) };
    if text.is_null() {
        return String::new();
    }
    // SAFETY: static text that a zero byte ends.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Takes standard output away for the caller alone: what anybody writes to it from now on goes to standard error.
/// To be called before a library is loaded.
///
/// # Errors
/// Of the system.
pub fn take_stdout() -> io::Result<File> {
    /// Above what a plugin is likely to guess.
    const AT_LEAST: libc::c_int = 100;
    // SAFETY: integers alone; a descriptor that is new belongs to nobody.
    let taken = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, AT_LEAST) };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made above and is owned by nobody else.
    let file = unsafe { File::from_raw_fd(taken) };
    // SAFETY: integers alone; standard output stays open.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

// It is looked at as bytes, all of which must be set.
const _: () = assert!(size_of::<Table>() == size_of::<abi::Plugin>() + WATCHED_BYTES && size_of::<abi::Plugin>() == 2 * 4 + 5 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_can_be_looked_at() {
        let handlers = signal_handlers();
        // Rust's own runtime ignores broken pipes, and catches overflows of the stack.
        assert!(handlers.iter().any(|(signal, handler, _)| *signal == libc::SIGPIPE && *handler == libc::SIG_IGN));
        assert!(handlers.len() > 25, "{handlers:?}");
        assert!(!locale().is_empty());
    }

    #[test]
    fn what_is_no_plugin_is_told() {
        assert!(Raw::open(Path::new("/nowhere/libreunion_source_x.so")).err().is_some_and(|error| error.contains("cannot be read")));
        let this = std::env::current_exe().unwrap();
        assert!(Raw::open(&this).is_err());
    }
}
