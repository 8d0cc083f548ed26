//! Work on several threads: how many can work at once, and two things at the same time.

use std::sync::LazyLock;
use std::thread::ScopedJoinHandle;

/// Items below which a thread of their own costs more than it gains.
const PART_ITEMS_MIN: usize = 4096;

/// Threads that can work at once. Asked once: the system reads several files to answer.
pub fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// Does one thing in a thread of its own and another here, and waits for both. A panic in either goes on.
pub fn both<A: Send, B>(there: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        (result_of(there), here)
    })
}

/// Does the same with parts of some items, side by side in this many threads at the most; the results in the order
/// of the parts. Few items are one part.
pub fn in_parts<I: Sync, T: Send>(items: &[I], threads_max: usize, work: impl Fn(&[I]) -> T + Sync) -> Vec<T> {
    let part_items = items.len().div_ceil(threads_max.max(1)).max(PART_ITEMS_MIN);
    if items.len() <= part_items {
        return vec![work(items)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.chunks(part_items).map(|part| scope.spawn(|| work(part))).collect();
        threads.into_iter().map(result_of).collect()
    })
}

/// Waits for a thread; its result. Its panic goes on here.
pub fn result_of<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_a_panic_goes_on() {
        let text = String::from("a");
        assert_eq!(both(|| text.len(), || 2), (1, 2));
        let panicked = std::panic::catch_unwind(|| both(|| panic!("there"), || ()));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"there"));
    }

    #[test]
    fn parts_are_all_items_in_their_order() {
        let items: Vec<usize> = (0..3 * PART_ITEMS_MIN + 1).collect();
        for (threads_max, parts) in [(0, 1), (1, 1), (2, 2), (3, 3), (100, 4)] {
            let found = in_parts(&items, threads_max, <[usize]>::to_vec);
            assert_eq!(found.len(), parts, "{threads_max}");
            assert_eq!(found.concat(), items);
        }
        assert_eq!(in_parts(&[] as &[usize], 2, <[usize]>::len), [0]);
    }
}
