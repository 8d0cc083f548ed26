//! Everything that a plugin can do wrong, done to the program itself: `once`, `check --connect`, and the daemon.
//! Whatever it is, it costs one component, for which `status` has the reason: the program lives and ends with the code
//! that belongs to it, what a run counts adds up, others do all of their work, no row is lost or there twice, no task is
//! given twice, no process is left behind, and no phone number is shown.
//!
//! The plugins are those of `misbehaving/`, beside these tests. Each run has all misbehaviours of one stage at once,
//! each in a component of its own: so each is also done under the load of the others.
//!
//! `REUNION_MISBEHAVE_TIMES` is how often all of it is done: the runs of the program, and the rounds of
//! [`again`], in which one process goes through all of it. Without it as often as a test may take.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "misbehaving/again.rs"]
mod again;
#[path = "misbehaving/channels.rs"]
mod channels;
#[path = "misbehaving/checks.rs"]
mod checks;
#[path = "misbehaving/daemon.rs"]
mod daemon;
#[path = "misbehaving/early.rs"]
mod early;
#[path = "misbehaving/processes.rs"]
mod processes;
#[path = "misbehaving/shop.rs"]
mod shop;
#[path = "misbehaving/sources.rs"]
mod sources;

use std::sync::Mutex;
use std::thread;

/// Runs that are made side by side: most of them wait for something that hangs.
const AT_ONCE: usize = 4;

/// How often everything is done, where a test does it `otherwise` often.
fn times(otherwise: usize) -> usize {
    std::env::var("REUNION_MISBEHAVE_TIMES").ok().map_or(otherwise, |times| times.parse().unwrap())
}

/// Does this with each of these, several at a time; what came of it, in order.
fn side_by_side<T: Send, R: Send>(all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let waiting = Mutex::new(all.into_iter().enumerate());
    let next = || waiting.lock().unwrap().next();
    let work = || {
        let mut done = Vec::new();
        while let Some((at, one)) = next() {
            done.push((at, work(one)));
        }
        done
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
