//! Work over many pieces on all cores, in threads that end with the call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stack of each thread. Rules nest as deep as their authors like, within [`crate::scan::WORDS_MAX`];
/// pages of a stack that are not touched cost nothing.
const STACK_BYTES: usize = 64 << 20;

/// `work` for each of `0..count` on up to `threads_max` threads; the results in order. The first error
/// by number wins, whichever thread met it first.
pub(crate) fn map<T: Send, E: Send>(count: usize, threads_max: usize, work: impl Fn(usize) -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    let threads = threads_max.min(count).max(1);
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<Result<T, E>>>>());
    let take = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let result = work(at);
            results.lock().expect("no thread panics while it holds the lock")[at] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        let spawned =
            (0..threads).filter(|_| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, take).is_ok()).count();
        if spawned == 0 {
            take();
        }
    });
    let results = results.into_inner().expect("no thread panics while it holds the lock");
    results.into_iter().map(|result| result.expect("each number was taken by a thread")).collect()
}

/// `work` on a thread with a stack deep enough for any rule that [`crate::scan`] lets through.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let mut result = None;
    std::thread::scope(|scope| {
        let run = || result = work.take().map(|work| work());
        if let Ok(thread) = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run)
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    });
    // Where the system gives no thread, the caller's stack has to do.
    match result {
        Some(result) => result,
        None => (work.take().expect("no thread has run it"))(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_order_and_the_first_error_wins() {
        assert_eq!(map(100, 4, |n| Ok::<_, ()>(n * 2)), Ok((0..100).map(|n| n * 2).collect()));
        assert_eq!(map(100, 4, |n| if n % 30 == 29 { Err(n) } else { Ok(n) }), Err(29));
        assert_eq!(map(0, 4, Ok::<_, ()>), Ok(vec![]));
        assert_eq!(on_deep_stack(|| 7), 7);
    }
}
