//! What the process keeps of freed memory, and that it gives it back. A program without a test harness: the
//! allocator is everybody's, and is told before other threads start.

#[global_allocator]
static ALLOCATOR: reunion_host::memory::Allocator = reunion_host::memory::Allocator;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() {
    freed_memory_is_kept_until_it_is_given_back();
    large_pieces_lie_in_huge_pages_where_these_are_small();
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

/// Whether huge pages are asked for at an address, as the system tells.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_in_huge_pages(address: usize) -> bool {
    let mappings = std::fs::read_to_string("/proc/self/smaps").expect("a process");
    let mut is_here = false;
    for line in mappings.lines() {
        let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
        let address_of = |text| usize::from_str_radix(text, 16).ok();
        if let Some((from, to)) = bounds.and_then(|(from, to)| address_of(from).zip(address_of(to))) {
            is_here = (from..to).contains(&address);
        } else if let (true, Some(flags)) = (is_here, line.strip_prefix("VmFlags:")) {
            return flags.split(' ').any(|flag| flag == "hg");
        }
    }
    panic!("nothing is mapped at {address:x}")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn large_pieces_lie_in_huge_pages_where_these_are_small() {
    const PIECE_BYTES: usize = 48 << 20;
    let size = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").unwrap_or_default();
    let is_asked_for = size.trim() == "2097152";
    let middle = |piece: &[u8]| piece.as_ptr() as usize + piece.len() / 2;
    // Memory that is new, that has grown, and that was given back meanwhile.
    for _ in 0..2 {
        let mut pieces: Vec<_> = (0..4).map(|_| vec![0_u8; PIECE_BYTES]).collect();
        assert!(pieces.iter().all(|piece| is_in_huge_pages(middle(piece)) == is_asked_for));
        pieces.iter_mut().for_each(|piece| piece.resize(2 * PIECE_BYTES, 1));
        assert!(pieces.iter().all(|piece| is_in_huge_pages(middle(piece)) == is_asked_for && piece[0] + piece[PIECE_BYTES] == 1));
        drop(pieces);
        reunion_host::memory::give_back();
    }
}
