//! Below the SDK: the tables of functions that it fills in, with streams between it and the host that hand out what
//! it would not.
//!
//! The author's code, which the SDK calls on the host's thread, tells what is to be done to the item or stream that
//! it is making; the functions here do it when the SDK has made it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr;

use reunion_sdk::export::reunion_abi::{self as abi, ChannelTable, FFI_ArrowArray, FFI_ArrowSchema, SourceTable, item_kind};
use reunion_sdk::export::{self};

use crate::beside::{self, Early};
use crate::{MisbehavingChannel, MisbehavingSource};

/// Kinds of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first one of a read.
    Begin,
    /// Rows or receipts.
    Batch,
    /// The last one.
    End,
    /// Any but the first one of a read.
    AfterBegin,
    /// Any.
    Any,
}

impl Which {
    /// Whether an item of this kind is meant.
    pub(crate) fn takes(self, kind: Self) -> bool {
        match self {
            Self::Any => true,
            Self::AfterBegin => kind != Self::Begin,
            one => one == kind,
        }
    }
}

/// What to do to what the SDK makes.
#[derive(Clone, Copy)]
pub(crate) enum Patch {
    /// These items in place of the next one.
    Items(fn(abi::Item) -> Vec<abi::Item>),
    /// Another stream.
    Stream(fn(&mut abi::Stream)),
    /// Another answer.
    Answer(fn(&mut abi::HttpAnswer)),
}

thread_local! {
    static TOLD: Cell<Option<Patch>> = const { Cell::new(None) };
}

/// Has this done to what the SDK is making.
pub(crate) fn tell(patch: Patch) {
    TOLD.set(Some(patch));
}

const SOURCE: abi::Plugin = export::source_plugin::<MisbehavingSource>();
const CHANNEL: abi::Plugin = export::channel_plugin::<MisbehavingChannel>();
// SAFETY: the tables that the SDK makes are static.
const SOURCE_TABLE: &SourceTable = unsafe { &*SOURCE.source };
// SAFETY: as above.
const CHANNEL_TABLE: &ChannelTable = unsafe { &*CHANNEL.channel };

/// The table of the source.
pub fn source_plugin() -> abi::Plugin {
    static TABLE: SourceTable =
        SourceTable { size: SourceTable::SIZE_1_0, reserved: 0, check: SOURCE_TABLE.check, schema: SOURCE_TABLE.schema, read: Some(read) };
    beside::reach(Early::Entry);
    abi::Plugin { source: &raw const TABLE, ..SOURCE }
}

/// The table of the channel.
pub fn channel_plugin() -> abi::Plugin {
    static TABLE: ChannelTable = ChannelTable {
        size: ChannelTable::SIZE_1_1,
        reserved: 0,
        describe: CHANNEL_TABLE.describe,
        check: CHANNEL_TABLE.check,
        push: Some(push),
        poll: Some(poll),
        callback: Some(callback),
    };
    beside::reach(Early::Entry);
    abi::Plugin { channel: &raw const TABLE, ..CHANNEL }
}

unsafe extern "C" fn read(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    request_json: abi::Str,
    state_json: abi::Str,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    let read = |inner| {
        let read = SOURCE_TABLE.read.expect("the SDK's table is complete");
        // SAFETY: the host's own arguments, but for the stream, which is valid too.
        unsafe { read(instance, call, request_json, state_json, inner, error) }
    };
    // SAFETY: `out` is valid by contract.
    unsafe { open(out, read) }
}

unsafe extern "C" fn push(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    dispatch_json: abi::Str,
    schema: *mut FFI_ArrowSchema,
    tasks: *mut FFI_ArrowArray,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    let push = |inner| {
        let push = CHANNEL_TABLE.push.expect("the SDK's table is complete");
        // SAFETY: as of `read`.
        unsafe { push(instance, call, dispatch_json, schema, tasks, inner, error) }
    };
    // SAFETY: as of `read`.
    unsafe { open(out, push) }
}

unsafe extern "C" fn poll(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    state_json: abi::Str,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    let poll = |inner| {
        let poll = CHANNEL_TABLE.poll.expect("the SDK's table is complete");
        // SAFETY: as of `read`.
        unsafe { poll(instance, call, state_json, inner, error) }
    };
    // SAFETY: as of `read`.
    unsafe { open(out, poll) }
}

unsafe extern "C" fn callback(
    instance: *mut abi::Instance,
    call: *const abi::Call,
    request: *const abi::HttpRequest,
    out: *mut abi::HttpAnswer,
    error: *mut abi::Error,
) -> i32 {
    let callback = CHANNEL_TABLE.callback.expect("the SDK's table is complete");
    TOLD.take();
    // SAFETY: the host's own arguments.
    let status = unsafe { callback(instance, call, request, out, error) };
    if let (abi::OK, Some(Patch::Answer(spoil))) = (status, TOLD.take()) {
        // SAFETY: `out` is valid by contract.
        spoil(unsafe { &mut *out });
    }
    status
}

/// A stream of the SDK's, between it and the host.
struct Between {
    inner: abi::Stream,
    /// What was told when the stream was made, to be done to its first item.
    first: Option<fn(abi::Item) -> Vec<abi::Item>>,
    /// What has been made and not been handed out.
    waiting: VecDeque<abi::Item>,
}

/// # Safety
/// `out` must be valid and empty.
unsafe fn open(out: *mut abi::Stream, call: impl FnOnce(*mut abi::Stream) -> i32) -> i32 {
    let mut inner = abi::Stream::empty();
    TOLD.take();
    let status = call(&raw mut inner);
    let told = TOLD.take();
    if status != abi::OK {
        return status;
    }
    let first = if let Some(Patch::Items(replace)) = told { Some(replace) } else { None };
    let between = Box::new(Between { inner, first, waiting: VecDeque::new() });
    // SAFETY: the caller's promise.
    let out = unsafe { &mut *out };
    out.private_data = Box::into_raw(between).cast();
    out.next = Some(next);
    out.release = Some(release);
    if let Some(Patch::Stream(spoil)) = told {
        spoil(out);
    }
    abi::OK
}

unsafe extern "C" fn next(stream: *mut abi::Stream, out: *mut abi::Item, error: *mut abi::Error) -> i32 {
    // SAFETY: by contract the stream is open and used by one thread at a time.
    let between = unsafe { &mut *(*stream).private_data.cast::<Between>() };
    loop {
        if let Some(item) = between.waiting.pop_front() {
            // SAFETY: `out` is valid and empty by contract.
            unsafe { ptr::write(out, item) };
            return abi::OK;
        }
        // SAFETY: `error` is valid by contract.
        match unsafe { between.pull(error) } {
            Ok(items) => between.waiting.extend(items),
            Err(status) => return status,
        }
    }
}

impl Between {
    /// What is handed out in place of the SDK's next item, or the SDK's status.
    ///
    /// # Safety
    /// `error` must be valid.
    unsafe fn pull(&mut self, error: *mut abi::Error) -> Result<Vec<abi::Item>, i32> {
        let mut item = abi::Item::empty();
        let pull = self.inner.next.expect("the SDK's stream is open");
        TOLD.take();
        // SAFETY: the stream is open; the caller's promise.
        let status = unsafe { pull(&raw mut self.inner, &raw mut item, error) };
        let told = TOLD.take();
        match (status, self.first.take(), told) {
            (abi::OK, Some(replace), _) | (abi::OK, None, Some(Patch::Items(replace))) => Ok(replace(item)),
            (abi::OK, None, _) => Ok(vec![item]),
            (status, ..) => Err(status),
        }
    }
}

unsafe extern "C" fn release(stream: *mut abi::Stream) {
    // SAFETY: by contract called once on an open stream; `open` made the box.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<Between>()));
        (*stream).private_data = ptr::null_mut();
        (*stream).next = None;
        (*stream).release = None;
    }
}

/// An item with a control document.
pub(crate) fn control(kind: i32, document: &serde_json::Value) -> abi::Item {
    abi::Item { kind, control: abi::Buf::from_vec(document.to_string().into_bytes()), ..abi::Item::empty() }
}

/// An item with rows, however many they are.
pub(crate) fn batch(batch: &arrow::array::RecordBatch) -> abi::Item {
    let (schema, array) = abi::export_batch(batch).expect("a batch of plain types");
    abi::Item { kind: item_kind::BATCH, schema, array, ..abi::Item::empty() }
}
