//! What is passed along with calls: the host, the call itself, and streams of items.

use std::ffi::c_void;
use std::ptr;

use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};

use crate::{Buf, Bytes, Error, Str};

/// Levels of `Host::log`, the weightiest first.
pub mod log_level {
    /// The component cannot do its work.
    pub const ERROR: i32 = 1;
    /// It can, and somebody should look.
    pub const WARN: i32 = 2;
    /// Worth a line in normal operation.
    pub const INFO: i32 = 3;
    /// For finding out what happened.
    pub const DEBUG: i32 = 4;
    /// For finding out what happened, in bulk.
    pub const TRACE: i32 = 5;
}

/// Kinds of [`Item`].
pub mod item_kind {
    /// First item of a read. Control: `{"resumed": bool}`.
    pub const BEGIN: i32 = 1;
    /// Rows, receipts or events.
    pub const BATCH: i32 = 2;
    /// Rows that could not be read.
    pub const REJECTED: i32 = 3;
    /// A resume state that covers exactly the items before it. Control: any document.
    pub const STATE: i32 = 4;
    /// Last item: the stream is complete. Control: `{"as_of_us": integer or null}`.
    pub const END: i32 = 5;
}

/// Flag of [`Call::flags`]: validate and answer as if, contact nobody, leave nothing behind.
pub const CALL_DRY_RUN: u32 = 1;

/// The host as a component sees it. Valid as long as the process, every member callable from any thread.
#[repr(C)]
pub struct Host {
    /// Bytes of the struct.
    pub size: u32,
    /// The host's minor version.
    pub minor: u32,
    /// The host's own.
    pub private_data: *mut c_void,
    /// Writes a log event: level, target, message, and a JSON object of further fields.
    pub log: Option<unsafe extern "C" fn(host: *const Host, level: i32, target: Str, message: Str, fields_json: Str)>,
    /// Events above this level are not wanted.
    pub log_level_max: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: by contract every member may be used from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;
}

/// One call. Valid until the call has returned and the stream that it made, if any, is released.
#[repr(C)]
pub struct Call {
    /// Bytes of the struct.
    pub size: u32,
    /// [`CALL_DRY_RUN`].
    pub flags: u32,
    /// Milliseconds since the Unix epoch after which the answer is of no use; 0: no deadline.
    pub deadline_unix_ms: u64,
    /// The run that the call is for, for the ids of outgoing requests.
    pub run_id: Str,
    /// Whether to stop: 0 or 1. Cheap, from any thread.
    pub cancelled: Option<unsafe extern "C" fn(call: *const Call) -> i32>,
    /// The host's own.
    pub private_data: *mut c_void,
}

impl Call {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;
}

/// One item of a stream. The caller makes it empty; what is filled in is the caller's afterwards.
#[repr(C)]
pub struct Item {
    /// Bytes of the struct.
    pub size: u32,
    /// One of [`item_kind`].
    pub kind: i32,
    /// Of a batch of either kind: its schema, a struct.
    pub schema: FFI_ArrowSchema,
    /// Of a batch of either kind: its rows.
    pub array: FFI_ArrowArray,
    /// Of the other kinds: a JSON document.
    pub control: Buf,
}

impl Item {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;

    /// No item: what the caller passes to be filled.
    pub fn empty() -> Self {
        Self { size: Self::SIZE_1_0, kind: 0, schema: FFI_ArrowSchema::empty(), array: FFI_ArrowArray::empty(), control: Buf::empty() }
    }
}

/// A request of HTTP from outside. Borrowed: valid until the call has returned.
#[repr(C)]
pub struct HttpRequest {
    /// Bytes of the struct.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// `GET`, `POST` or another.
    pub method: Str,
    /// What follows the channel's own address.
    pub path: Str,
    /// What follows the `?`.
    pub query: Str,
    /// A list of pairs of a name and a value.
    pub headers_json: Str,
    /// The body.
    pub body: Bytes,
}

impl HttpRequest {
    /// Bytes of the struct at version 1.1, which brought it.
    pub const SIZE_1_1: u32 = size_of::<Self>() as u32;
}

/// The answer to a request. The caller makes it empty; what is filled in is the caller's afterwards.
#[repr(C)]
pub struct HttpAnswer {
    /// Bytes of the struct.
    pub size: u32,
    /// 200 to 599.
    pub status: i32,
    /// A list of pairs of a name and a value; empty: none.
    pub headers_json: Buf,
    /// The body, bytes of any kind.
    pub body: Buf,
    /// Of the events: their schema, a struct. Released where there are none.
    pub schema: FFI_ArrowSchema,
    /// Of the events: their rows. Released where there are none.
    pub events: FFI_ArrowArray,
}

impl HttpAnswer {
    /// Bytes of the struct at version 1.1, which brought it.
    pub const SIZE_1_1: u32 = size_of::<Self>() as u32;

    /// No answer: what the caller passes to be filled.
    pub fn empty() -> Self {
        Self {
            size: Self::SIZE_1_1,
            status: 0,
            headers_json: Buf::empty(),
            body: Buf::empty(),
            schema: FFI_ArrowSchema::empty(),
            events: FFI_ArrowArray::empty(),
        }
    }
}

/// A stream of items, pulled by one thread at a time.
#[repr(C)]
pub struct Stream {
    /// Bytes of the struct.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The plugin's own.
    pub private_data: *mut c_void,
    /// Fills in the next item. After an error or the end only `release` may be called.
    pub next: Option<unsafe extern "C" fn(stream: *mut Stream, out: *mut Item, error: *mut Error) -> i32>,
    /// Ends the stream, read to its end or not, and sets itself to null.
    pub release: Option<unsafe extern "C" fn(stream: *mut Stream)>,
}

impl Stream {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;

    /// No stream: what the caller passes to be filled.
    pub const fn empty() -> Self {
        Self { size: Self::SIZE_1_0, reserved: 0, private_data: ptr::null_mut(), next: None, release: None }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: `release` is there, so the stream was not ended, and self is not used again.
            unsafe { release(self) }
        }
    }
}
