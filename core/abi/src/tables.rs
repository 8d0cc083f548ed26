//! The tables of functions, and the two symbols that a plugin exports.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr;

use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};

use crate::{Buf, Call, Error, Host, HttpAnswer, HttpRequest, Str, Stream};

/// One component as its plugin keeps it. Opaque to the host.
pub type Instance = c_void;

/// The symbol of [`ManifestFn`].
pub const MANIFEST_SYMBOL: &str = "reunion_manifest_v1";
/// The symbol of [`EntryFn`].
pub const ENTRY_SYMBOL: &str = "reunion_entry_v1";

/// Returns the manifest: static JSON text, ended by a zero byte. Pure.
pub type ManifestFn = unsafe extern "C" fn() -> *const c_char;
/// Fills in the table of functions.
pub type EntryFn = unsafe extern "C" fn(host_minor: u32, out: *mut Plugin, error: *mut Error) -> i32;

/// Checks a component's connection and rights; `findings` is a JSON list.
pub type CheckFn = unsafe extern "C" fn(instance: *mut Instance, call: *const Call, findings: *mut Buf, error: *mut Error) -> i32;
/// Tells a source's columns.
pub type SchemaFn = unsafe extern "C" fn(instance: *mut Instance, call: *const Call, out: *mut FFI_ArrowSchema, error: *mut Error) -> i32;
/// Begins to read a source.
pub type ReadFn = unsafe extern "C" fn(
    instance: *mut Instance,
    call: *const Call,
    request_json: Str,
    state_json: Str,
    out: *mut Stream,
    error: *mut Error,
) -> i32;
/// Tells what a channel does under its config; `out` is a JSON document.
pub type DescribeFn = unsafe extern "C" fn(instance: *mut Instance, out: *mut Buf, error: *mut Error) -> i32;
/// Hands tasks to a channel, which takes the Arrow structs over.
pub type PushFn = unsafe extern "C" fn(
    instance: *mut Instance,
    call: *const Call,
    dispatch_json: Str,
    schema: *mut FFI_ArrowSchema,
    tasks: *mut FFI_ArrowArray,
    out: *mut Stream,
    error: *mut Error,
) -> i32;
/// Asks a channel what became of tasks.
pub type PollFn =
    unsafe extern "C" fn(instance: *mut Instance, call: *const Call, state_json: Str, out: *mut Stream, error: *mut Error) -> i32;
/// Answers a request of HTTP from outside.
pub type CallbackFn = unsafe extern "C" fn(
    instance: *mut Instance,
    call: *const Call,
    request: *const HttpRequest,
    out: *mut HttpAnswer,
    error: *mut Error,
) -> i32;
/// Makes a component, without I/O.
pub type CreateFn =
    unsafe extern "C" fn(host: *const Host, component: Str, config_json: Str, out: *mut *mut Instance, error: *mut Error) -> i32;
/// Stops, or destroys, a component.
pub type InstanceFn = unsafe extern "C" fn(instance: *mut Instance);

/// The functions of a source.
#[repr(C)]
pub struct SourceTable {
    /// Bytes of the struct.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// See [`CheckFn`].
    pub check: Option<CheckFn>,
    /// See [`SchemaFn`].
    pub schema: Option<SchemaFn>,
    /// See [`ReadFn`].
    pub read: Option<ReadFn>,
}

impl SourceTable {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;
}

/// The functions of a channel.
#[repr(C)]
pub struct ChannelTable {
    /// Bytes of the struct.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// See [`DescribeFn`].
    pub describe: Option<DescribeFn>,
    /// See [`CheckFn`].
    pub check: Option<CheckFn>,
    /// See [`PushFn`].
    pub push: Option<PushFn>,
    /// See [`PollFn`].
    pub poll: Option<PollFn>,
    /// See [`CallbackFn`]. Not in a table of version 1.0.
    pub callback: Option<CallbackFn>,
}

impl ChannelTable {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = offset_of!(Self, callback) as u32;
    /// Bytes of the struct at version 1.1.
    pub const SIZE_1_1: u32 = size_of::<Self>() as u32;

    /// The table at this place, as far as it says that it goes; what lies beyond is not there.
    ///
    /// # Safety
    /// `table` must lead to a table that stays as it is during this call and has as many bytes as its `size` says.
    pub unsafe fn read(table: *const Self) -> Self {
        let mut read = Self { size: 0, reserved: 0, describe: None, check: None, push: None, poll: None, callback: None };
        // SAFETY: the caller's promise: every table has its size at least.
        let bytes = unsafe { ptr::read(table.cast::<u32>()) }.min(Self::SIZE_1_1).max(size_of::<u32>() as u32);
        // SAFETY: the caller's promise; no more is copied than either has, and any bytes are integers, no function, or
        // one that is there.
        unsafe { ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut read).cast::<u8>(), bytes as usize) };
        read
    }
}

/// The table that the entry function fills in.
#[repr(C)]
pub struct Plugin {
    /// Bytes: of what the host has room for on the way in, of what was filled in on the way out.
    pub size: u32,
    /// The minor version that the plugin was built with.
    pub minor: u32,
    /// See [`CreateFn`].
    pub create: Option<CreateFn>,
    /// Stops everything that runs on the instance. From any thread, at any time.
    pub cancel: Option<InstanceFn>,
    /// Ends the instance after its last call has returned and its last stream is released.
    pub destroy: Option<InstanceFn>,
    /// The functions of a source, static; null for a channel.
    pub source: *const SourceTable,
    /// The functions of a channel, static; null for a source.
    pub channel: *const ChannelTable,
}

impl Plugin {
    /// Bytes of the struct at version 1.0.
    pub const SIZE_1_0: u32 = size_of::<Self>() as u32;

    /// No table: what the host passes to be filled.
    pub const fn empty() -> Self {
        Self { size: Self::SIZE_1_0, minor: 0, create: None, cancel: None, destroy: None, source: ptr::null(), channel: ptr::null() }
    }
}

// SAFETY: function pointers, and pointers to tables that are static and never change.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}
