//! What the process keeps of freed memory, and that it gives it back. A program without a test harness: the
//! allocator is everybody's, and is told before other threads start.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    freed_memory_is_kept_until_it_is_given_back();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn freed_memory_is_kept_until_it_is_given_back() {
    const PIECES: usize = 100;
    const PIECE_BYTES: usize = 1 << 20;
    // Memory that this process has now.
    let resident_bytes = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("a process");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
        pages * 4096
    };
    reunion_host::memory::keep();
    let before = resident_bytes();
    // In a thread, as most of a run is.
    let made = std::thread::spawn(|| (0..PIECES).map(|piece| vec![piece as u8 + 1; PIECE_BYTES]).collect::<Vec<_>>());
    let pieces = made.join().expect("a thread that ends");
    assert!(pieces.iter().all(|piece| piece[PIECE_BYTES - 1] > 0));
    drop(pieces);
    let kept = resident_bytes();
    assert!(kept >= before + PIECES * PIECE_BYTES * 9 / 10, "{before} and {kept} bytes");
    reunion_host::memory::give_back();
    let left = resident_bytes();
    assert!(left < before + PIECES * PIECE_BYTES / 10, "{before} and {left} bytes");
}
