//! Pushes and polls.

use std::collections::BTreeMap;
use std::time::Instant;

use reunion_host::{CallOptions, ChannelConnector, Event, Polled, Receipt, ReceiptStream};
use reunion_model::plugin::PluginError;
use reunion_model::task::Verdict;
use serde_json::Value;

use super::Played;
use crate::act::{Answered, Dispatch, HowToPush, Trial};
use crate::confine::Confinement;
use crate::phones::Heard;
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// Hears the receipts of tasks.
pub fn hear(receipts: &[Receipt], heard: &Heard) {
    for receipt in receipts {
        heard.text("the code of a receipt", receipt.code.as_deref().unwrap_or_default());
        heard.text("the message of a receipt", receipt.message.as_deref().unwrap_or_default());
    }
}

/// A push to its end.
pub struct Pushed {
    /// The receipts, in the order in which they came.
    pub receipts: Vec<Receipt>,
    /// Tasks without one.
    pub unanswered: usize,
    /// How it ended.
    pub ended: Result<(), PluginError>,
}

/// Pushes a dispatch to its end.
pub fn push_whole(stage: &Stage, channel: &dyn ChannelConnector, options: &CallOptions, dispatch: Dispatch) -> Result<Pushed, Stop> {
    dispatch.phones().iter().for_each(|phone| stage.heard.know(phone));
    let run = &stage.request.run;
    let tasks = dispatch.batch(run).map_err(|error| skipped(format!("no tasks could be made: {error}")))?;
    let (mut receipts, mut unanswered) = (Vec::new(), dispatch.tasks);
    let ended = channel.push(options, &dispatch.info(run), tasks).and_then(|mut stream| {
        let result = loop {
            match stream.next() {
                Ok(Some(more)) => receipts.extend(more),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        unanswered = stream.unanswered().len();
        result
    });
    hear(&receipts, &stage.heard);
    Ok(Pushed { receipts, unanswered, ended })
}

/// Pushes one dispatch. Data: [`Answered`].
pub fn push(stage: &Stage, dispatch: Dispatch, how: HowToPush) -> Played {
    if how == HowToPush::DryRun {
        stage.plugin()?;
        Confinement::Network.apply().map_err(skipped)?;
    }
    let channel = stage.channel()?;
    stage.calling(format!("a push of {} tasks ran", dispatch.tasks));
    match how {
        HowToPush::Whole => answered(stage, channel.as_ref(), dispatch, false),
        HowToPush::DryRun => answered(stage, channel.as_ref(), dispatch, true),
        HowToPush::UntilStream | HowToPush::UntilReceipts => stay(stage, channel.as_ref(), dispatch, how == HowToPush::UntilReceipts),
    }
}

fn answered(stage: &Stage, channel: &dyn ChannelConnector, dispatch: Dispatch, dry_run: bool) -> Played {
    let from = Instant::now();
    let pushed = push_whole(stage, channel, &CallOptions { dry_run, ..stage.options() }, dispatch)?;
    let millis = u64::try_from(from.elapsed().as_millis()).unwrap_or(u64::MAX);
    let what = if dry_run { "a push as a dry run" } else { "push" };
    pushed.ended.map_err(|error| {
        let rule = if error.message.contains("retry_after_ms") { rules::DELAY } else { rules::RECEIPTS };
        stage.refused(what, &error, rule)
    })?;
    if pushed.unanswered > 0 {
        let seen = format!("{what} of {} tasks ended without an error, and {} of them have no receipt", dispatch.tasks, pushed.unanswered);
        return Err(failed(seen, rules::RECEIPTS));
    }
    let mut verdicts = BTreeMap::new();
    for receipt in &pushed.receipts {
        *verdicts.entry(receipt.verdict.name().to_owned()).or_insert(0) += 1;
    }
    let accepted = pushed.receipts.iter().filter(|receipt| receipt.verdict == Verdict::Accepted);
    let answered = Answered { verdicts, accepted: accepted.map(|receipt| receipt.task.to_string()).collect(), millis };
    Ok((String::new(), serde_json::to_value(answered).unwrap_or_default()))
}

/// Goes as far as told, and stays there until it is killed.
fn stay(stage: &Stage, channel: &dyn ChannelConnector, dispatch: Dispatch, until_receipts: bool) -> Played {
    let run = &stage.request.run;
    let refused = |error: PluginError| stage.refused("push", &error, rules::RECEIPTS);
    let tasks = dispatch.batch(run).map_err(|error| skipped(format!("no tasks could be made: {error}")))?;
    let mut stream = channel.push(&stage.options(), &dispatch.info(run), tasks).map_err(refused)?;
    if until_receipts {
        drop(stream.next().map_err(refused)?);
    }
    stage.stay(Value::Null)
}

/// What a poll gave.
#[derive(Default)]
struct Told {
    events: BTreeMap<String, Event>,
    /// Events whose id came before with something else.
    changed: Option<String>,
    last_state: Option<Value>,
}

fn poll_whole(stage: &Stage, channel: &dyn ChannelConnector, state: Option<&Value>) -> Result<Told, PluginError> {
    let mut stream = channel.poll(&stage.options(), state)?;
    let mut told = Told::default();
    while let Some(polled) = stream.next()? {
        match polled {
            Polled::Events(events) => {
                for event in events {
                    let before = told.events.insert(event.event_id.clone(), event.clone());
                    if before.is_some_and(|before| before != event) {
                        told.changed = Some(event.event_id);
                    }
                }
            }
            Polled::State(state) => told.last_state = Some(state),
            Polled::Rejected(batch) => {
                use arrow::array::AsArray;
                for column in [0, 2] {
                    let texts = batch.columns().get(column).and_then(|column| column.as_string_opt::<i32>());
                    texts.into_iter().flatten().flatten().for_each(|text| stage.heard.text("a rejected row of a poll", text));
                }
            }
        }
    }
    Ok(told)
}

/// Polls twice, and beside a push where the plugin allows it.
pub fn poll(stage: &Stage, trial: Trial) -> Played {
    let channel = stage.channel()?;
    let capabilities = stage.plugin()?.manifest().capabilities.clone();
    let refused = |error: PluginError| stage.refused("poll", &error, rules::POLL);
    stage.calling("a poll ran");
    let first = poll_whole(stage, channel.as_ref(), None).map_err(refused)?;
    if let Some(id) = first.changed {
        return Err(failed(format!("two events have the id {id:?} and say different things"), rules::POLL));
    }
    stage.calling("a second poll ran");
    let second = poll_whole(stage, channel.as_ref(), None).map_err(refused)?;
    let differs = |(id, event): (&String, &Event)| second.events.get(id).is_none_or(|again| again != event);
    if let Some((id, _)) = first.events.iter().find(|event| differs(*event)) {
        return Err(failed(format!("the event {id:?} of one poll is not in the next, or says something else there"), rules::POLL));
    }
    stage.calling("a poll from the last state ran");
    poll_whole(stage, channel.as_ref(), first.last_state.as_ref()).map_err(refused)?;
    if !capabilities.polls && !first.events.is_empty() {
        return Err(failed("it gives events, and the manifest does not say that it polls", rules::MANIFEST));
    }
    let mut note = if capabilities.polls { format!("{} events", first.events.len()) } else { "it never hears back".to_owned() };
    if capabilities.concurrent_poll {
        poll_beside_push(stage, channel.as_ref(), trial)?;
        note.push_str("; beside a push too");
    }
    stage.doing("destroy ran");
    drop(channel);
    Ok((note, Value::Null))
}

/// A push that is begun, for something else to be done beside it.
pub fn begin_push(stage: &Stage, channel: &dyn ChannelConnector, trial: Trial, dispatch: Dispatch) -> Result<Box<dyn ReceiptStream>, Stop> {
    let run = &stage.request.run;
    dispatch.phones().iter().for_each(|phone| stage.heard.know(phone));
    let options = CallOptions { dry_run: !trial.sends, ..stage.options() };
    let tasks = dispatch.batch(run).map_err(|error| skipped(format!("no tasks could be made: {error}")))?;
    channel.push(&options, &dispatch.info(run), tasks).map_err(|error| stage.refused("push", &error, rules::RECEIPTS))
}

fn poll_beside_push(stage: &Stage, channel: &dyn ChannelConnector, trial: Trial) -> Result<(), Stop> {
    stage.calling("a poll ran beside a push");
    let mut stream = begin_push(stage, channel, trial, Dispatch { number: trial.first_dispatch, tasks: 10 })?;
    poll_whole(stage, channel, None).map_err(|error| stage.refused("a poll beside a push", &error, rules::POLL))?;
    while let Some(receipts) = stream.next().map_err(|error| stage.refused("push", &error, rules::RECEIPTS))? {
        hear(&receipts, &stage.heard);
    }
    Ok(())
}
