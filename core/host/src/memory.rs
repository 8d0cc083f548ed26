//! How this process, and every plugin in it, gets memory from the system: all of them share one allocator, that of
//! the C library.
//!
//! A run takes and frees memory in large pieces, stage after stage. By itself glibc gives each freed piece back
//! at once and keeps an arena for each thread, so every stage is given fresh pages, which the system has to clear
//! first. Here what is freed is kept for what comes next, in one arena for all threads and for pieces of all sizes: small
//! ones do not wait for one another, since each thread has a cache of those. [`give_back`] ends that when a run is over;
//! of further arenas it could not give back the end.
//!
//! Who is who is looked up in tables of all records, each look in another place. In pages of 4 KiB most of them also miss
//! the processor's table of pages, so memory is asked for in huge ones, where the system gives them to those who ask.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::usage::page_bytes;

/// Free bytes at the end of an arena beyond which they are given back.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 1 << 30;
/// What the arena grows by at the least: addresses alone, until something lies there. A huge page has to lie in it whole
/// when it is first used.
#[cfg(target_env = "gnu")]
const GROWS_BY_BYTES: libc::c_int = 64 << 20;
/// Pieces from this size on are a reason to look whether the arena has grown.
const LOOKS_FROM_BYTES: usize = 64 << 10;
/// The size of a huge page that is no waste. Some systems have them of half a gigabyte.
const HUGE_PAGE_BYTES: usize = 2 << 20;
const HUGE_PAGE_FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

/// Where the arena ended when it was last looked at; 0 while no huge pages are wanted.
static ARENA_END: AtomicUsize = AtomicUsize::new(0);

/// Keeps freed memory for what comes next, and asks for huge pages from now on. To be called before other threads start.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX), (libc::M_TOP_PAD, GROWS_BY_BYTES)]
    {
        // SAFETY: mallopt takes two integers, and any thread may call it at any time. A value that it does not
        // take it leaves alone, and the program is slower by that.
        unsafe { libc::mallopt(option, value) };
    }
    let huge_page = fs::read_to_string(HUGE_PAGE_FILE).ok().and_then(|size| size.trim().parse().ok());
    if huge_page == Some(HUGE_PAGE_BYTES) {
        ARENA_END.store(arena_end(), Ordering::Relaxed);
    }
}

/// Gives the memory that is free now back to the system, once a run is over.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number of bytes to leave, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    look_at_arena(usize::MAX);
}

/// The system's allocator, which asks for huge pages after [`keep`].
pub struct Allocator;

// SAFETY: all is the system's own; what is done beside it touches no piece and changes nothing that a piece holds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises of the layout what the system's allocator asks for.
        let piece = unsafe { System.alloc(layout) };
        look_at_arena(layout.size());
        piece
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let piece = unsafe { System.alloc_zeroed(layout) };
        look_at_arena(layout.size());
        piece
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the piece came from the system's allocator with this layout.
        let piece = unsafe { System.realloc(piece, layout, bytes) };
        look_at_arena(bytes);
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the piece came from the system's allocator with this layout.
        unsafe { System.dealloc(piece, layout) };
        look_at_arena(layout.size());
    }
}

/// Looks where the arena ends, after a piece of this size came or went, and asks for huge pages on addresses that are
/// new. Two threads may do so at a time, and both ask for the same.
fn look_at_arena(bytes: usize) {
    let before = ARENA_END.load(Ordering::Relaxed);
    if bytes < LOOKS_FROM_BYTES || before == 0 {
        return;
    }
    let end = arena_end();
    if end == before {
        return;
    }
    ARENA_END.store(end, Ordering::Relaxed);
    let from = before.next_multiple_of(page_bytes() as usize);
    // Where it has shrunk there are none.
    if let Some(bytes @ 1..) = end.checked_sub(from) {
        // SAFETY: the advice changes no memory, whatever lies there; a system that does not take it answers an error.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(from), bytes, libc::MADV_HUGEPAGE) };
    }
}

fn arena_end() -> usize {
    // SAFETY: nothing is added; the end of the data segment is read.
    unsafe { libc::sbrk(0) as usize }
}
