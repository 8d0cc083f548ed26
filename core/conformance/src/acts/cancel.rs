//! Calls that are cancelled, and streams that are let go of: all end within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reunion_host::{CallOptions, Canceller, ChannelConnector};
use reunion_model::plugin::{ErrorClass, PluginError};

use super::create::{Made, STOPS_WITHIN};
use super::source::request;
use super::{Played, passed};
use crate::act::{Dispatch, Trial};
use crate::phones::shown;
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// Tasks of a dispatch that is cancelled.
const TASKS: usize = 100;
/// The longest wait before a running call is cancelled.
const RUNS_MAX: Duration = Duration::from_millis(400);
/// Streams that run into a cancel, each a moment later than the one before.
const MOMENTS: u32 = 4;

/// A stream of either kind of a component: its next item, or nothing after the end.
type Next<'a> = Box<dyn FnMut() -> Result<Option<()>, PluginError> + Send + 'a>;

/// What is cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Push,
    Poll,
}

impl Call {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "a read",
            Self::Push => "a push",
            Self::Poll => "a poll",
        }
    }
}

/// Why a trial did not go well.
enum Trouble {
    /// It took too long, as it may once on a machine that is busy.
    Late(Stop),
    /// Something else.
    Other(Stop),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Other(stop)
    }
}

/// Too late, by this rule.
fn late(seen: String, rule: &str) -> Trouble {
    Trouble::Late(failed(seen, rule))
}

/// Tries something, and once more where it is late. Each time with a dispatch of its own.
fn attempt(dispatch: &mut Dispatch, mut trial: impl FnMut(Dispatch) -> Result<(), Trouble>) -> Result<(), Stop> {
    let mut once = || {
        dispatch.number += 1;
        trial(*dispatch)
    };
    let tried = match once() {
        Err(Trouble::Late(_)) => once(),
        other => other,
    };
    tried.map_err(|(Trouble::Late(stop) | Trouble::Other(stop))| stop)
}

/// Cancels calls that run, and lets go of streams that are not read to their end.
pub fn cancel(stage: &Stage, trial: Trial) -> Played {
    let calls: &[Call] = match stage.request.kind {
        reunion_model::plugin::PluginKind::Source => &[Call::Read],
        reunion_model::plugin::PluginKind::Channel => &[Call::Push, Call::Poll],
    };
    let mut dispatch = Dispatch { number: trial.first_dispatch, tasks: TASKS };
    for call in calls {
        for items in [0, 1] {
            attempt(&mut dispatch, |dispatch| let_go(stage, *call, trial, dispatch, items))?;
        }
        attempt(&mut dispatch, |dispatch| between(stage, *call, trial, dispatch))?;
        for moment in 0..MOMENTS {
            let after = (Duration::from_millis(trial.whole_ms) * moment / MOMENTS).min(RUNS_MAX);
            attempt(&mut dispatch, |dispatch| within(stage, *call, trial, dispatch, after))?;
        }
    }
    passed()
}

fn open<'a>(stage: &'a Stage, made: &'a Made, call: Call, trial: Trial, dispatch: Dispatch) -> Result<Next<'a>, PluginError> {
    match (made, call) {
        (Made::Source(source), _) => {
            let mut stream = source.read(&stage.options(), &request(trial.mode, false), None)?;
            Ok(Box::new(move || Ok(stream.next()?.map(drop))))
        }
        (Made::Channel(channel), Call::Poll) => {
            let mut stream = channel.poll(&stage.options(), None)?;
            Ok(Box::new(move || Ok(stream.next()?.map(drop))))
        }
        (Made::Channel(channel), _) => open_push(stage, channel.as_ref(), trial, dispatch),
    }
}

fn open_push<'a>(stage: &Stage, channel: &'a dyn ChannelConnector, trial: Trial, dispatch: Dispatch) -> Result<Next<'a>, PluginError> {
    let run = &stage.request.run;
    dispatch.phones().iter().for_each(|phone| stage.heard.know(phone));
    let tasks = dispatch.batch(run).map_err(|error| PluginError::new(ErrorClass::InvalidData, error.to_string()))?;
    let mut stream = channel.push(&CallOptions { dry_run: !trial.sends, ..stage.options() }, &dispatch.info(run), tasks)?;
    Ok(Box::new(move || Ok(stream.next()?.map(drop))))
}

fn canceller(made: &Made) -> Canceller {
    match made {
        Made::Source(source) => source.canceller(),
        Made::Channel(channel) => channel.canceller(),
    }
}

/// Lets go of a stream after so many items.
fn let_go(stage: &Stage, call: Call, trial: Trial, dispatch: Dispatch, items: usize) -> Result<(), Trouble> {
    let made = Made::make(stage)?;
    stage.calling(format!("{} ran", call.name()));
    let refused = |error: PluginError| stage.refused(call.name(), &error, rules::RELEASE);
    let mut next = open(stage, &made, call, trial, dispatch).map_err(refused)?;
    for _ in 0..items {
        if next().map_err(refused)?.is_none() {
            break;
        }
    }
    stage.stopping(format!("the stream of {} was released after {items} items", call.name()));
    let from = Instant::now();
    drop(next);
    let took = from.elapsed();
    if took > STOPS_WITHIN {
        let seen =
            format!("the release of {} after {items} items took {:.1} s where one second is allowed", call.name(), took.as_secs_f64());
        return Err(late(seen, rules::RELEASE));
    }
    stage.stopping(format!("destroy ran after a stream of {} was released", call.name()));
    destroyed(made)
}

/// Destroys the instance, in time.
fn destroyed(made: Made) -> Result<(), Trouble> {
    let from = Instant::now();
    drop(made);
    let took = from.elapsed();
    let seen = || format!("destroy took {:.1} s where one second is allowed", took.as_secs_f64());
    if took > STOPS_WITHIN { Err(late(seen(), rules::DESTROY)) } else { Ok(()) }
}

/// Cancels between two items.
fn between(stage: &Stage, call: Call, trial: Trial, dispatch: Dispatch) -> Result<(), Trouble> {
    let made = Made::make(stage)?;
    stage.calling(format!("{} ran", call.name()));
    let refused = |error: PluginError| stage.refused(call.name(), &error, rules::STOP);
    let mut next = open(stage, &made, call, trial, dispatch).map_err(refused)?;
    if next().map_err(refused)?.is_some() {
        stage.stopping(format!("{} ran on after it was cancelled", call.name()));
        let from = Instant::now();
        canceller(&made).cancel();
        ends(stage, call, next, from)?;
    } else {
        drop(next);
    }
    stage.stopping(format!("destroy ran after {} was cancelled", call.name()));
    destroyed(made)
}

/// Pulls until the stream ends, which it must within a second of the cancel.
fn ends(stage: &Stage, call: Call, mut next: Next<'_>, cancelled: Instant) -> Result<(), Trouble> {
    let ended = loop {
        match next() {
            Ok(Some(())) if cancelled.elapsed() > STOPS_WITHIN => break Ok(false),
            Ok(Some(())) => {}
            Ok(None) => break Ok(true),
            Err(error) => break Err(error),
        }
    };
    judge(stage, call, ended, cancelled.elapsed())
}

/// What a call came to that was cancelled so long ago: `Ok(false)` where it still runs.
fn judge(stage: &Stage, call: Call, ended: Result<bool, PluginError>, took: Duration) -> Result<(), Trouble> {
    if matches!(ended, Ok(false)) {
        let seen = format!("{} still gives items {:.1} s after it was cancelled", call.name(), took.as_secs_f64());
        return Err(late(seen, rules::STOP));
    }
    if took > STOPS_WITHIN {
        let seen = format!("{} ended {:.1} s after it was cancelled, where one second is allowed", call.name(), took.as_secs_f64());
        return Err(late(seen, rules::STOP));
    }
    match ended {
        Err(error) if error.class != ErrorClass::Cancelled => {
            stage.heard.error(&error);
            let seen = format!(
                "{} that was cancelled answered {} where cancelled was expected: {}",
                call.name(),
                error.class.name(),
                shown(&error.message)
            );
            Err(failed(seen, rules::STOP).into())
        }
        Err(error) => {
            stage.heard.error(&error);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Cancels from another thread while a call runs.
fn within(stage: &Stage, call: Call, trial: Trial, dispatch: Dispatch, after: Duration) -> Result<(), Trouble> {
    let made = Made::make(stage)?;
    stage.stopping(format!("{} ran and was cancelled after {} ms", call.name(), after.as_millis()));
    let canceller = canceller(&made);
    let over = AtomicBool::new(false);
    let (ended, cancelled) = thread::scope(|scope| {
        let over = &over;
        let cancels = scope.spawn(move || {
            thread::sleep(after);
            let at = Instant::now();
            if !over.load(Ordering::Acquire) {
                canceller.cancel();
            }
            at
        });
        let ended = open(stage, &made, call, trial, dispatch).and_then(|mut next| {
            let limit = Instant::now() + after + STOPS_WITHIN;
            loop {
                match next()? {
                    Some(()) if Instant::now() > limit => break Ok(false),
                    Some(()) => {}
                    None => break Ok(true),
                }
            }
        });
        let at = Instant::now();
        over.store(true, Ordering::Release);
        (ended, cancels.join().map(|from| at.saturating_duration_since(from)))
    });
    let took = cancelled.map_err(|_| skipped("the thread that cancels broke off"))?;
    judge(stage, call, ended, took)?;
    stage.stopping(format!("destroy ran after {} was cancelled", call.name()));
    destroyed(made)
}
