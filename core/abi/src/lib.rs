//! The plugin boundary as C sees it: the Rust mirror of `include/reunion_plugin.h`.
//!
//! The header is the specification; every rule on ownership, threads, cancel and versions stands
//! there. Here are the same structs, and what both sides of the line need alike: moving a record
//! batch through the Arrow C Data interface, and the small control documents.
//!
//! Plugins are written with the SDK and run by the host; nothing else needs this crate.
#![allow(unsafe_code)]

mod calls;
pub mod control;
mod data;
mod tables;
mod values;

pub use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
pub use calls::{CALL_DRY_RUN, Call, Host, HttpAnswer, HttpRequest, Item, Stream, item_kind, log_level};
pub use data::{BatchError, export_batch, export_schema, import_batch, import_schema, text_array};
pub use tables::{
    CallbackFn, ChannelTable, CheckFn, CreateFn, DescribeFn, ENTRY_SYMBOL, EntryFn, Instance, InstanceFn, MANIFEST_SYMBOL, ManifestFn,
    Plugin, PollFn, PushFn, ReadFn, SchemaFn, SourceTable,
};
pub use values::{Buf, Bytes, Error, Str};

/// The major version, which is in the names of the two exported symbols. Another one is another ABI.
pub const MAJOR: u32 = 1;
/// The minor version. A greater one appends members to structs and changes nothing else.
pub const MINOR: u32 = 1;

/// The status of a call that did what it was asked. Every other status is the code of an error class.
pub const OK: i32 = 0;
