//! The author's iterator as a C stream.

use std::ptr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use reunion_abi::{self as abi, BatchError, Buf, item_kind};
use serde::Serialize;

use reunion_model::limits::BATCH_ROWS_MAX;
use reunion_model::plugin::{ErrorClass, Item, PluginError};

use super::instance::{Shared, finish};
use crate::{Call, Items};

/// Whether the SDK itself looks for a cancel before each item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Yes: what was not handed out is read again later.
    AtOnce,
    /// No: the author decides what is still to be handed out.
    ByAuthor,
}

struct Open {
    /// `None` after the end, or an error.
    items: Option<Items>,
    /// What is left of a batch that is larger than one item may be.
    rest: Option<(i32, RecordBatch)>,
    call: Call,
    shared: Arc<Shared>,
    stop: Stop,
}

pub(super) fn unexportable(error: BatchError) -> PluginError {
    PluginError::new(ErrorClass::Internal, format!("a batch cannot be handed on: {error}"))
}

/// Makes a stream of these items.
///
/// # Safety
/// `out` must be valid, empty, with `size` set to the bytes that it has.
pub(super) unsafe fn open(out: *mut abi::Stream, items: Items, call: Call, shared: &Arc<Shared>, stop: Stop) -> Result<(), PluginError> {
    // SAFETY: the caller's promise.
    if unsafe { (*out).size } < abi::Stream::SIZE_1_0 {
        call.end();
        return Err(PluginError::new(ErrorClass::Internal, "the host broke the contract: the stream's struct is too small"));
    }
    let open = Box::new(Open { items: Some(items), rest: None, call, shared: Arc::clone(shared), stop });
    // SAFETY: as above; the struct is empty, so that nothing is lost.
    unsafe {
        (*out).private_data = Box::into_raw(open).cast();
        (*out).next = Some(next);
        (*out).release = Some(release);
    }
    Ok(())
}

unsafe extern "C" fn next(stream: *mut abi::Stream, out: *mut abi::Item, error: *mut abi::Error) -> i32 {
    // SAFETY: by contract the stream is open and used by one thread at a time.
    let open = unsafe { &mut *(*stream).private_data.cast::<Open>() };
    let shared = Arc::clone(&open.shared);
    let outcome = shared.run(|| {
        // SAFETY: `out` is valid by contract.
        if unsafe { (*out).size } < abi::Item::SIZE_1_0 {
            return Err(PluginError::new(ErrorClass::Internal, "the host broke the contract: the item's struct is too small"));
        }
        let item = open.next_item()?;
        // SAFETY: `out` is valid, large enough, and empty.
        unsafe { ptr::write(out, item) };
        Ok(())
    });
    if outcome.is_err() {
        // An author's `drop` may panic too.
        shared.run_quietly(|| (open.items, open.rest) = (None, None));
    }
    // SAFETY: `error` is valid by contract.
    unsafe { finish(error, outcome) }
}

unsafe extern "C" fn release(stream: *mut abi::Stream) {
    // SAFETY: by contract called once on an open stream; `open` made the box.
    let open = unsafe { Box::from_raw((*stream).private_data.cast::<Open>()) };
    // SAFETY: as above.
    unsafe {
        (*stream).private_data = ptr::null_mut();
        (*stream).next = None;
        (*stream).release = None;
    }
    // Threads that work for the stream see that nobody waits for them.
    open.call.end();
    let shared = Arc::clone(&open.shared);
    shared.run_quietly(|| drop(open));
}

impl Open {
    fn next_item(&mut self) -> Result<abi::Item, PluginError> {
        if self.stop == Stop::AtOnce {
            self.call.check()?;
        }
        if let Some((kind, batch)) = self.rest.take() {
            return self.batch(kind, batch);
        }
        let items = self.items.as_mut().ok_or_else(|| PluginError::new(ErrorClass::Internal, "the stream has ended"))?;
        let item = items.next().ok_or_else(|| PluginError::new(ErrorClass::Internal, "the stream ended without its end marker"))??;
        match item {
            Item::Begin { resumed } => control(item_kind::BEGIN, &abi::control::Begin { resumed }),
            Item::Batch(batch) => self.batch(item_kind::BATCH, batch),
            Item::Rejected(batch) => self.batch(item_kind::REJECTED, batch),
            Item::State(state) => control(item_kind::STATE, &state),
            Item::End { as_of_us } => self.end(abi::control::End { as_of_us, unchanged: false }),
            Item::Unchanged { as_of_us } => self.end(abi::control::End { as_of_us, unchanged: true }),
        }
    }

    fn end(&mut self, end: abi::control::End) -> Result<abi::Item, PluginError> {
        self.items = None;
        control(item_kind::END, &end)
    }

    fn batch(&mut self, kind: i32, batch: RecordBatch) -> Result<abi::Item, PluginError> {
        let rows = batch.num_rows();
        let part = batch.slice(0, rows.min(BATCH_ROWS_MAX));
        if rows > BATCH_ROWS_MAX {
            self.rest = Some((kind, batch.slice(BATCH_ROWS_MAX, rows - BATCH_ROWS_MAX)));
        }
        let (schema, array) = abi::export_batch(&part).map_err(unexportable)?;
        Ok(abi::Item { kind, schema, array, ..abi::Item::empty() })
    }
}

fn control<D: Serialize>(kind: i32, document: &D) -> Result<abi::Item, PluginError> {
    let json = serde_json::to_vec(document).map_err(|error| PluginError::new(ErrorClass::Internal, format!("control: {error}")))?;
    Ok(abi::Item { kind, control: Buf::from_vec(json), ..abi::Item::empty() })
}
