//! Arrow structs and streams that are not what they say. Most are refused by a host that checks what it can; where
//! the interface has nothing to check by, the memory is laid so that whoever reads on faults at once.

use std::ffi::c_void;
use std::iter;
use std::ptr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use reunion_sdk::export::reunion_abi::{FFI_ArrowArray, Item, Stream, export_schema};
use reunion_sdk::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};

use crate::order::rows;
use crate::raw;

/// The first column of a batch, which is text in all that the well-behaved plugins give.
fn text_column(item: &mut Item) -> &mut FFI_ArrowArray {
    // SAFETY: the SDK has just made it, with a column at least.
    unsafe { &mut **item.array.children }
}

/// Puts other memory in place of a buffer. What was there is given back with the array, which keeps it elsewhere.
fn replace_buffer(column: &mut FFI_ArrowArray, at: usize, bytes: *const c_void) {
    assert!(at < column.num_buffers(), "a buffer of text");
    // SAFETY: the list has so many pointers, and belongs to this array.
    unsafe { *column.buffers.add(at) = bytes };
}

/// What the offsets of a text column are.
fn offsets_of(column: &FFI_ArrowArray) -> Vec<i32> {
    // SAFETY: the SDK has just made it, with one offset more than rows.
    unsafe { std::slice::from_raw_parts(column.buffer(1).cast(), column.offset() + column.len() + 1) }.to_vec()
}

/// Puts other offsets in their place. They are never given back: a few bytes of a plugin that is about to fail.
fn replace_offsets(item: &mut Item, change: impl FnOnce(&mut Vec<i32>)) {
    let column = text_column(item);
    let mut offsets = offsets_of(column);
    change(&mut offsets);
    replace_buffer(column, 1, offsets.leak().as_ptr().cast());
}

/// These bytes, with nothing behind them: reading on faults. Never given back.
fn before_nothing(bytes: &[u8]) -> *const c_void {
    const PAGE: usize = 4 << 10;
    const NOTHING: usize = 64 << 20;
    // SAFETY: a mapping of its own, of which only the first page may be touched; the bytes end where it does.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), PAGE + NOTHING, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED, "address space");
        assert_eq!(libc::mprotect(memory, PAGE, libc::PROT_READ | libc::PROT_WRITE), 0, "a page");
        let start = memory.cast::<u8>().add(PAGE - bytes.len());
        ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        start.cast()
    }
}

/// As many rows as a batch may have, and memory for one. Nothing in the interface says how long a buffer is.
pub(crate) fn length(mut item: Item) -> Vec<Item> {
    for at in 0..item.array.num_children() {
        // SAFETY: the SDK has just made so many children.
        unsafe { (**item.array.children.add(at)).length = BATCH_ROWS_MAX as i64 };
    }
    item.array.length = BATCH_ROWS_MAX as i64;
    replace_buffer(text_column(&mut item), 1, before_nothing(&[0; 8]));
    vec![item]
}

pub(crate) fn length_negative(mut item: Item) -> Vec<Item> {
    text_column(&mut item).length = -5;
    vec![item]
}

pub(crate) fn length_huge(mut item: Item) -> Vec<Item> {
    text_column(&mut item).length = 1 << 40;
    vec![item]
}

/// The schema says that the first column is a number, and it is text.
pub(crate) fn types(mut item: Item) -> Vec<Item> {
    let schema = Schema::try_from(&item.schema).expect("a schema that the SDK made");
    let number = Arc::new(Field::new(schema.field(0).name(), DataType::Int64, true));
    let fields: Vec<_> = iter::once(number).chain(schema.fields().iter().skip(1).cloned()).collect();
    item.schema = export_schema(&Schema::new(fields)).expect("plain types");
    vec![item]
}

/// A column fewer than the schema says.
pub(crate) fn children(mut item: Item) -> Vec<Item> {
    item.array.n_children -= 1;
    vec![item]
}

/// There are rows, and the column's buffers are NULL.
pub(crate) fn null_buffers(mut item: Item) -> Vec<Item> {
    for at in [1, 2] {
        replace_buffer(text_column(&mut item), at, ptr::null());
    }
    vec![item]
}

/// There are rows, and no list of buffers.
pub(crate) fn no_buffers(mut item: Item) -> Vec<Item> {
    text_column(&mut item).buffers = ptr::null_mut();
    vec![item]
}

/// Each value ends before it begins.
pub(crate) fn offsets_descending(mut item: Item) -> Vec<Item> {
    replace_offsets(&mut item, |offsets| offsets.reverse());
    vec![item]
}

pub(crate) fn offsets_negative(mut item: Item) -> Vec<Item> {
    replace_offsets(&mut item, |offsets| offsets[0] = -5);
    vec![item]
}

/// A value in the middle begins far behind the last one's end.
pub(crate) fn offsets_out_of_range(mut item: Item) -> Vec<Item> {
    replace_offsets(&mut item, |offsets| {
        let middle = (offsets.len() - 1) / 2;
        offsets[middle] = i32::MAX;
    });
    vec![item]
}

/// The last value ends a gigabyte behind the memory. Nothing in the interface says how long that is.
pub(crate) fn offsets_beyond_the_end(mut item: Item) -> Vec<Item> {
    replace_offsets(&mut item, |offsets| {
        let last = offsets.len() - 1;
        offsets[last] = 1 << 30;
    });
    replace_buffer(text_column(&mut item), 2, before_nothing(b"text"));
    vec![item]
}

/// Bytes that are no text.
pub(crate) fn utf8(mut item: Item) -> Vec<Item> {
    let column = text_column(&mut item);
    let bytes = offsets_of(column).last().copied().unwrap_or_default();
    let noise = vec![0xff_u8; usize::try_from(bytes).unwrap_or_default()];
    replace_buffer(column, 2, noise.leak().as_ptr().cast());
    vec![item]
}

/// An array that was given back already, all else of it left as it was.
pub(crate) fn released_array(mut item: Item) -> Vec<Item> {
    let release = item.array.release.expect("the SDK has just made it");
    // SAFETY: it is there, so it was not called. It sets itself to null.
    unsafe { release(&raw mut item.array) };
    vec![item]
}

/// A stream that was given back already.
pub(crate) fn released_stream(stream: &mut Stream) {
    stream.release = None;
}

/// A stream that cannot be pulled.
pub(crate) fn stream_without_next(stream: &mut Stream) {
    stream.next = None;
}

/// One row more than a batch may have.
pub(crate) fn too_many_rows(_: Item) -> Vec<Item> {
    vec![raw::batch(&rows((0..=BATCH_ROWS_MAX).map(|row| format!("r{row}"))))]
}

/// More bytes than a batch may have.
pub(crate) fn too_many_bytes(_: Item) -> Vec<Item> {
    const ROWS: usize = 8;
    let text = "x".repeat(BATCH_BYTES_MAX / ROWS + 1);
    vec![raw::batch(&rows(iter::repeat_n(text, ROWS)))]
}
