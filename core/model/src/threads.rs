//! Work on several threads: how many can work at once, and two things at the same time.

use std::sync::LazyLock;
use std::thread::ScopedJoinHandle;

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
}
