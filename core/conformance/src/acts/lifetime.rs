//! What is left after an instance, or after many: threads, descriptors, memory, and what belongs to the process.

use std::thread;
use std::time::{Duration, Instant};

use reunion_host::CallOptions;
use reunion_model::plugin::{ErrorClass, PluginError};
use serde_json::Value;

use super::create::Made;
use super::source::{read_some, request};
use super::{Played, channel, passed};
use crate::act::{Dispatch, Trial};
use crate::machine::{Census, Globals, resident_kib};
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// How long the system may take to forget a thread that was joined.
const FORGETS_WITHIN: Duration = Duration::from_millis(500);
/// Items of a read that is let go of.
const ITEMS: usize = 4;
/// Items of every eighth, which is mostly read to its end.
const MANY_ITEMS: usize = 64;
/// Tasks of a push that stands for all of them.
const TASKS: usize = 10;
/// Instances whose memory is looked at, at most.
const CYCLES_MAX: usize = 500;
/// Instances without which nothing is known.
const CYCLES_MIN: usize = 30;
/// How long that may take.
const CYCLES_TIME: Duration = Duration::from_secs(20);
/// Descriptors that a library may open once and keep.
const ONCE_MAX: usize = 16;
/// What memory may grow by from one window to the next, and is no leak.
const STEADY_KIB: u64 = 4 << 10;

/// Everything that is done with an instance, in a small way.
fn use_once(stage: &Stage, trial: Trial, dispatch: Dispatch) -> Result<(), Stop> {
    let made = Made::make(stage)?;
    stage.calling("check ran");
    // What check says is another case's.
    let _ = made.check(&stage.options());
    match &made {
        Made::Source(source) => {
            stage.calling("schema ran");
            let _ = source.schema(&stage.options());
            stage.calling("a read ran");
            let mut stream =
                source.read(&stage.options(), &request(trial.mode, false), None).map_err(|error| trouble(stage, "read", &error))?;
            while stream.next().map_err(|error| trouble(stage, "read", &error))?.is_some() {}
            drop(stream);
            stage.calling("a read was released");
            read_some(stage, source.as_ref(), trial.mode, 2).map_err(|error| trouble(stage, "read", &error))?;
        }
        Made::Channel(channel) => {
            stage.calling("a push ran");
            let options = CallOptions { dry_run: !trial.sends, ..stage.options() };
            let pushed = channel::push_whole(stage, channel.as_ref(), &options, dispatch)?;
            pushed.ended.map_err(|error| trouble(stage, "push", &error))?;
            stage.calling("a poll ran");
            let mut stream = channel.poll(&stage.options(), None).map_err(|error| trouble(stage, "poll", &error))?;
            while stream.next().map_err(|error| trouble(stage, "poll", &error))?.is_some() {}
        }
    }
    stage.doing("destroy ran");
    drop(made);
    Ok(())
}

fn trouble(stage: &Stage, what: &str, error: &PluginError) -> Stop {
    stage.refused(what, error, rules::READ)
}

/// Threads after an instance, and descriptors after a second one.
pub fn remains(stage: &Stage, trial: Trial) -> Played {
    stage.plugin()?;
    let before = Census::take();
    let dispatch = Dispatch { number: trial.first_dispatch, tasks: TASKS };
    use_once(stage, trial, dispatch)?;
    let after = settled(&before);
    ended(&after, &before)?;
    // A library may open something once, for as long as the process lives; not once for each instance.
    let once = after.new_descriptors(&before);
    if once.len() > ONCE_MAX {
        return Err(failed(format!("{} descriptors stay open after an instance: {}", once.len(), once[0]), rules::OWNERSHIP));
    }
    for further in 1..=2 {
        use_once(stage, trial, Dispatch { number: dispatch.number + further, ..dispatch })?;
    }
    let last = settled(&before);
    ended(&last, &before)?;
    let more = last.descriptors.len().saturating_sub(after.descriptors.len());
    if more > 0 {
        let target = last.new_descriptors(&after).pop().unwrap_or_default();
        return Err(failed(format!("{more} descriptors more are open after two further instances: {target}"), rules::OWNERSHIP));
    }
    let note = if once.is_empty() { String::new() } else { format!("{} descriptors stay open from the first instance on", once.len()) };
    Ok((note, Value::Null))
}

/// No thread and no process is left.
fn ended(now: &Census, before: &Census) -> Result<(), Stop> {
    if now.threads.is_empty() {
        return Err(failed("after destroy the process cannot open a file any more", rules::OWNERSHIP));
    }
    if let Some(thread) = now.new_threads(before).first() {
        return Err(failed(format!("a thread {thread:?} runs on after destroy"), rules::DESTROY));
    }
    match now.children.difference(&before.children).count() {
        0 => Ok(()),
        left => Err(failed(format!("{left} processes that it started are left after destroy"), rules::DESTROY)),
    }
}

/// The census once nothing is there that was not before, or after a while.
pub fn settled(before: &Census) -> Census {
    let until = Instant::now() + FORGETS_WITHIN;
    loop {
        let now = Census::take();
        if now.new_threads(before).is_empty() || Instant::now() > until {
            return now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Memory over many instances.
pub fn memory(stage: &Stage, trial: Trial) -> Played {
    stage.plugin()?;
    // A channel that would reach somebody again and again is not made to.
    let sends = trial.sends && stage.channel().is_ok_and(|channel| channel.traits().idempotent);
    let dispatch = Dispatch { number: trial.first_dispatch, tasks: TASKS };
    let until = Instant::now() + CYCLES_TIME;
    let mut resident = Vec::new();
    while resident.len() < CYCLES_MAX && Instant::now() < until {
        let made = Made::make(stage)?;
        stage.calling("one of many instances was used");
        let used = match &made {
            Made::Source(source) => {
                let items = if resident.len().is_multiple_of(8) { MANY_ITEMS } else { ITEMS };
                read_some(stage, source.as_ref(), trial.mode, items)
            }
            Made::Channel(channel) => {
                let options = CallOptions { dry_run: !sends, ..stage.options() };
                channel::push_whole(stage, channel.as_ref(), &options, dispatch)?.ended
            }
        };
        if let Err(error) = used
            && error.class == ErrorClass::Internal
        {
            return Err(trouble(stage, "one of many instances", &error));
        }
        drop(made);
        resident.push(resident_kib());
    }
    if resident.len() < CYCLES_MIN {
        let secs = CYCLES_TIME.as_secs();
        return Err(skipped(format!("only {} instances could be used in {secs} s; give it a config with less to do", resident.len())));
    }
    grows(&resident).map_or_else(
        || Ok((format!("{} instances, {} MiB", resident.len(), resident[resident.len() - 1] >> 10), Value::Null)),
        |seen| Err(failed(seen, rules::OWNERSHIP)),
    )
}

/// What memory does that grows in each of two later windows; nothing where it is steady.
fn grows(resident: &[u64]) -> Option<String> {
    let at = |share: usize| resident[(resident.len() * share / 10).min(resident.len() - 1)];
    let [early, middle, late] = [at(4), at(7), at(10)];
    let growth = late.saturating_sub(early);
    let is_leak = middle.saturating_sub(early) > STEADY_KIB && late.saturating_sub(middle) > STEADY_KIB;
    is_leak.then(|| {
        let each = growth * 10 / (resident.len() as u64 * 6).max(1);
        format!("memory grows with each instance, by about {each} KiB: {} MiB after {} of them", late >> 10, resident.len())
    })
}

/// What belongs to the process, before the library is loaded and after an instance was used.
pub fn globals(stage: &Stage, trial: Trial) -> Played {
    let before = Globals::take();
    use_once(stage, trial, Dispatch { number: trial.first_dispatch, tasks: TASKS })?;
    let changes = Globals::take().changes(&before);
    match changes.as_slice() {
        [] => passed(),
        changes => Err(failed(format!("it changed {}", changes.join(", ")), rules::GLOBAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_memory_is_no_leak() {
        let steady: Vec<u64> = (0..500).map(|at| 20_000 + (at % 7) * 100 + at.min(50) * 1_000).collect();
        assert_eq!(grows(&steady), None);
        let one_step: Vec<u64> = (0..500).map(|at| if at < 300 { 20_000 } else { 60_000 }).collect();
        assert_eq!(grows(&one_step), None, "a cache that is filled once");
        let leak: Vec<u64> = (0..500).map(|at| 20_480 + at * 100).collect();
        assert_eq!(grows(&leak).as_deref(), Some("memory grows with each instance, by about 99 KiB: 68 MiB after 500 of them"));
    }
}
