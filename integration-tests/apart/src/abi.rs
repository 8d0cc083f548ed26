//! `reunion_plugin.h`, version 1.0, as far as a source needs it. The header says what each means.

use std::ffi::c_void;
use std::ptr;

pub use arrow_array::ffi::FFI_ArrowArray as ArrowArray;
pub use arrow_schema::ffi::FFI_ArrowSchema as ArrowSchema;

pub const MINOR: u32 = 0;

pub const OK: i32 = 0;
pub const INVALID_CONFIG: i32 = 1;
pub const TIMEOUT: i32 = 22;
pub const CANCELLED: i32 = 40;
pub const INTERNAL: i32 = 60;

pub const LOG_INFO: i32 = 3;

pub const ITEM_BEGIN: i32 = 1;
pub const ITEM_BATCH: i32 = 2;
pub const ITEM_STATE: i32 = 4;
pub const ITEM_END: i32 = 5;

/// `reunion_str`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Str {
    pub ptr: *const u8,
    pub len: usize,
}

impl Str {
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0 };

    pub const fn of(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// # Safety
    /// The text must be valid for `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// `reunion_buf`.
#[repr(C)]
pub struct Buf {
    pub ptr: *mut u8,
    pub len: usize,
    pub private_data: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut Buf)>,
}

impl Buf {
    pub const EMPTY: Self = Self { ptr: ptr::null_mut(), len: 0, private_data: ptr::null_mut(), release: None };

    pub fn of(text: String) -> Self {
        let bytes = Box::leak(text.into_bytes().into_boxed_slice());
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len(), private_data: ptr::null_mut(), release: Some(release_buf) }
    }
}

unsafe extern "C" fn release_buf(buf: *mut Buf) {
    // SAFETY: called once, with what `of` made.
    unsafe {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut((*buf).ptr, (*buf).len)));
        ptr::write(buf, Buf::EMPTY);
    }
}

/// `reunion_error`.
#[repr(C)]
pub struct Error {
    pub size: u32,
    pub vendor_code: i32,
    pub retry_after_ms: u64,
    pub message: Str,
    pub hint: Str,
    pub key: Str,
    pub private_data: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut Error)>,
}

impl Error {
    /// Fills in the error.
    pub fn fill(&mut self, message: String, key: &'static str) {
        let owner = Box::new(message);
        self.message = Str::of(&owner);
        self.key = Str::of(key);
        self.private_data = Box::into_raw(owner).cast();
        self.release = Some(release_error);
    }
}

unsafe extern "C" fn release_error(error: *mut Error) {
    // SAFETY: called once, with what `fill` filled in.
    unsafe {
        drop(Box::from_raw((*error).private_data.cast::<String>()));
        (*error).message = Str::EMPTY;
        (*error).private_data = ptr::null_mut();
        (*error).release = None;
    }
}

/// `reunion_host`.
#[repr(C)]
pub struct Host {
    pub size: u32,
    pub minor: u32,
    pub private_data: *mut c_void,
    pub log: unsafe extern "C" fn(host: *const Host, level: i32, target: Str, message: Str, fields_json: Str),
    pub log_level_max: i32,
    pub reserved: u32,
}

// SAFETY: by contract it may be used from any thread.
unsafe impl Sync for Host {}
// SAFETY: as above.
unsafe impl Send for Host {}

/// `reunion_call`.
#[repr(C)]
pub struct Call {
    pub size: u32,
    pub flags: u32,
    pub deadline_unix_ms: u64,
    pub run_id: Str,
    pub cancelled: unsafe extern "C" fn(call: *const Call) -> i32,
    pub private_data: *mut c_void,
}

/// `reunion_item`.
#[repr(C)]
pub struct Item {
    pub size: u32,
    pub kind: i32,
    pub schema: ArrowSchema,
    pub array: ArrowArray,
    pub control: Buf,
}

/// `reunion_stream`.
#[repr(C)]
pub struct Stream {
    pub size: u32,
    pub reserved: u32,
    pub private_data: *mut c_void,
    pub next: Option<unsafe extern "C" fn(stream: *mut Stream, out: *mut Item, error: *mut Error) -> i32>,
    pub release: Option<unsafe extern "C" fn(stream: *mut Stream)>,
}

/// `reunion_instance`.
pub type Instance = c_void;

/// `reunion_source`.
#[repr(C)]
pub struct Source {
    pub size: u32,
    pub reserved: u32,
    pub check: unsafe extern "C" fn(this: *mut Instance, call: *const Call, findings: *mut Buf, error: *mut Error) -> i32,
    pub schema: unsafe extern "C" fn(this: *mut Instance, call: *const Call, out: *mut ArrowSchema, error: *mut Error) -> i32,
    pub read: unsafe extern "C" fn(
        this: *mut Instance,
        call: *const Call,
        request_json: Str,
        state_json: Str,
        out: *mut Stream,
        error: *mut Error,
    ) -> i32,
}

/// `reunion_plugin`.
#[repr(C)]
pub struct Plugin {
    pub size: u32,
    pub minor: u32,
    pub create:
        unsafe extern "C" fn(host: *const Host, component: Str, config_json: Str, out: *mut *mut Instance, error: *mut Error) -> i32,
    pub cancel: unsafe extern "C" fn(this: *mut Instance),
    pub destroy: unsafe extern "C" fn(this: *mut Instance),
    pub source: *const Source,
    pub channel: *const c_void,
}
