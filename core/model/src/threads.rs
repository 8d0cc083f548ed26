//! Work on several threads: how many can work at once, two things at the same time, and many items shared out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
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

/// Runs `work` over many items on all cores, each thread a share that lies together, of `least` items or more; the
/// results in order.
pub fn on_all_cores<T: Sync, R: Send>(items: &[T], least: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = cores().min(items.len().div_ceil(least.max(1)));
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let shares = items.chunks(items.len().div_ceil(threads)).collect::<Vec<_>>();
    let mut results = Vec::with_capacity(items.len());
    // Moved whole: results can be as many as there are records.
    for mut share in one_by_one(&shares, threads, |share| share.iter().map(&work).collect::<Vec<_>>()) {
        results.append(&mut share);
    }
    results
}

/// Does the same for few items that take their time, each a different one: a thread that is done with
/// one takes the next.
pub fn one_by_one<T: Sync, R: Send>(items: &[T], threads_max: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = cores().min(threads_max).min(items.len());
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        take_turns(items, &next, |at, item| done.push((at, work(item))));
        done
    };
    let mut done = std::thread::scope(|scope| {
        let others = (1..threads).map(|_| scope.spawn(take)).collect::<Vec<_>>();
        let mut done = take();
        for other in others {
            done.extend(result_of(other));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Works on many items on all cores, and gives the results here, in order, while others are worked on. Of results that
/// `give` has no room for yet there may be as many as there are items.
pub fn in_order<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync, mut give: impl FnMut(R)) {
    let threads = cores().min(items.len());
    if threads <= 1 {
        return items.iter().map(work).for_each(give);
    }
    let next = AtomicUsize::new(0);
    // Whoever takes the results outlives those who send them.
    let take = |done: Sender<(usize, R)>| take_turns(items, &next, |at, item| _ = done.send((at, work(item))));
    std::thread::scope(|scope| {
        let (done, results) = channel();
        let take = &take;
        let workers = std::iter::repeat_n(done, threads).map(|done| scope.spawn(move || take(done))).collect::<Vec<_>>();
        let (mut early, mut wanted) = (BTreeMap::new(), 0);
        for (at, result) in results {
            early.insert(at, result);
            while let Some(result) = early.remove(&wanted) {
                give(result);
                wanted += 1;
            }
        }
        workers.into_iter().for_each(result_of);
    });
}

/// Gives each item to one of the threads that work on all cores; a thread that is done with one takes the next.
pub fn each_once<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let threads = cores().min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take = || std::iter::from_fn(next).for_each(&work);
    std::thread::scope(|scope| {
        let others = (1..threads).map(|_| scope.spawn(take)).collect::<Vec<_>>();
        take();
        others.into_iter().for_each(result_of);
    });
}

/// What one of several threads does: it takes the next item that none has taken, until there is none.
fn take_turns<T>(items: &[T], next: &AtomicUsize, mut each: impl FnMut(usize, &T)) {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(item) = items.get(at) else { return };
        each(at, item);
    }
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
        let panicked = std::panic::catch_unwind(|| in_order(&[1, 2, 3], |item| assert!(*item < 3, "three"), |()| ()));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"three"));
    }

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
        for least in [0, 1, 300, 2000] {
            assert_eq!(on_all_cores(&items, least, |item| item * 2), doubled, "{least}");
        }
        for threads_max in [0, 1, 2, usize::MAX] {
            assert_eq!(one_by_one(&items, threads_max, |item| item * 2), doubled, "{threads_max}");
        }
        assert_eq!(one_by_one(&[] as &[usize], 2, |item| *item), [0; 0]);
        let mut doubled_here = items.clone();
        each_once(doubled_here.chunks_mut(7).collect(), |share| share.iter_mut().for_each(|item| *item *= 2));
        assert_eq!(doubled_here, doubled);
        for count in [0, 1, 1000] {
            let mut given = Vec::new();
            in_order(&items[..count], |item| item * 2, |doubled| given.push(doubled));
            assert_eq!(given, doubled[..count]);
        }
    }
}
