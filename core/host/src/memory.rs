//! How this process, and every plugin in it, gets memory from the system: all of them share one allocator.
//!
//! A run takes and frees memory in large pieces, stage after stage. By itself glibc gives each freed piece back
//! at once and keeps an arena for each thread, so every stage is given fresh pages, which the system has to clear
//! first. Here what is freed is kept for what comes next, in one arena for all threads: small pieces do not wait
//! for one another, since each thread has a cache of those. [`give_back`] ends that when a run is over; of further
//! arenas it could not give back the end.

/// Pieces up to this size come out of an arena, larger ones from the system. The most that glibc takes.
#[cfg(target_env = "gnu")]
const FROM_ARENA_BYTES_MAX: libc::c_int = 32 << 20;
/// Free bytes at the end of an arena beyond which they are given back.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 256 << 20;

/// Keeps freed memory for what comes next. To be called before other threads start.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    for (option, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, FROM_ARENA_BYTES_MAX), (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX)]
    {
        // SAFETY: mallopt takes two integers, and any thread may call it at any time. A value that it does not
        // take it leaves alone, and the program is slower by that.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Gives the memory that is free now back to the system, once a run is over.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number of bytes to leave, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
