//! What the process keeps of freed memory, and that it gives it back. A program of its own: the allocator is
//! everybody's.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use reunion_host::memory;

const PIECES: usize = 100;
const PIECE_BYTES: usize = 1 << 20;

/// Memory that this process has now, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a process");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

#[test]
fn freed_memory_is_kept_until_it_is_given_back() {
    memory::keep();
    let before = resident();
    let pieces: Vec<Vec<u8>> = (0..PIECES).map(|piece| vec![piece as u8 + 1; PIECE_BYTES]).collect();
    assert!(pieces.iter().map(|piece| usize::from(piece[0])).sum::<usize>() > 0);
    drop(pieces);
    let kept = resident();
    assert!(kept >= before + PIECES * PIECE_BYTES * 9 / 10, "{before} and {kept} bytes");
    memory::give_back();
    let left = resident();
    assert!(left < before + PIECES * PIECE_BYTES / 10, "{before} and {left} bytes");
}
