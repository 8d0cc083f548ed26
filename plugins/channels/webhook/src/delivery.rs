//! One dispatch on its way: cut into requests, several under way at once, each made again while that is safe
//! and of use, and what became of each task handed out as soon as it is known.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{Call, DispatchInfo, ErrorClass, PluginError, ReceiptsBuilder};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::answer::{Meaning, Word};
use crate::client::{Client, NoAnswer};
use crate::config::Checked;
use crate::pace::{Pace, backoff};
use crate::request::{self, Tasks};
use crate::signature::request_id;

/// Receipts that are handed out together, at most.
const RECEIPTS_AT_ONCE: usize = 1_000;
/// Requests whose receipts wait to be handed out, at most: more are not made before the host takes them.
const REQUESTS_WAITING_MAX: usize = 64;
/// How often whoever waits looks whether to stop.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a request that is under way may still take once the call is to stop.
const GRACE: Duration = Duration::from_millis(400);
/// When tasks are given again that a stopped call did not get to.
const STOPPED_DELAY: Duration = Duration::from_secs(1);
/// How long a receiver is left alone that turns every request away until the operator does something.
const TURNED_AWAY_DELAY: Duration = Duration::from_secs(60);

/// A receiver, and what all dispatches to it share.
pub struct Receiver {
    pub config: Arc<Checked>,
    pub client: Client,
    pub pace: Pace,
}

/// What became of a task.
#[derive(Debug, Clone)]
enum Fate {
    Accepted,
    Rejected(Option<String>, String),
    NotSent(Duration, Option<String>, String),
    Busy(Duration, String),
    /// Nobody knows; not to be given again.
    Unknown(Option<String>, String),
    /// Nobody knows; it gets no receipt, so that the host gives its dispatch again.
    Open,
}

/// What a request came to.
enum Step {
    /// Its tasks have their fates, in their order.
    Done(Vec<Fate>),
    /// The receiver is left alone; then it is made again.
    Paused,
    /// It is made again after a while; this is the trouble, should its time be over by then.
    Again(PluginError),
    /// One of its tasks may be to blame: each half is tried alone.
    Halved,
}

/// The fates of some of a dispatch's tasks.
type Told = (Range<usize>, Vec<Fate>);

struct Delivery {
    receiver: Arc<Receiver>,
    dispatch: DispatchInfo,
    tasks: Tasks,
    stop: watch::Receiver<bool>,
    /// What is wrong with the component, as far as it is known.
    trouble: Mutex<Option<PluginError>>,
}

/// The receipts of a dispatch that is on its way.
pub struct Receipts {
    runtime: Handle,
    delivery: Arc<Delivery>,
    told: mpsc::Receiver<Told>,
    stop: watch::Sender<bool>,
    call: Call,
}

impl Receipts {
    /// Sends a dispatch on its way.
    pub fn begin(runtime: &Handle, receiver: Arc<Receiver>, call: Call, dispatch: DispatchInfo, tasks: Tasks) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = mpsc::channel(REQUESTS_WAITING_MAX);
        let delivery = Arc::new(Delivery { receiver, dispatch, tasks, stop: stopped, trouble: Mutex::default() });
        let work = Arc::clone(&delivery);
        runtime.spawn(async move { work.run(&tell).await });
        Self { runtime: runtime.clone(), delivery, told, stop, call }
    }

    fn batch(&mut self, first: Told) -> RecordBatch {
        let mut builder = ReceiptsBuilder::new();
        let mut receipts = self.delivery.add(&mut builder, first);
        while receipts < RECEIPTS_AT_ONCE
            && let Ok(next) = self.told.try_recv()
        {
            receipts += self.delivery.add(&mut builder, next);
        }
        builder.finish()
    }
}

impl Iterator for Receipts {
    type Item = Result<RecordBatch, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The future is made inside, where the runtime's clock is.
            let told = &mut self.told;
            match self.runtime.block_on(async { tokio::time::timeout(LOOK_EVERY, told.recv()).await }) {
                Ok(Some(first)) => return Some(Ok(self.batch(first))),
                Ok(None) => return self.delivery.trouble().take().map(Err),
                Err(_) => {
                    if !*self.stop.borrow()
                        && let Err(error) = self.call.check()
                    {
                        *self.delivery.trouble() = Some(error);
                        self.stop.send_replace(true);
                    }
                }
            }
        }
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Delivery {
    async fn run(&self, tell: &mpsc::Sender<Told>) {
        let most = self.receiver.config.batch_tasks_max;
        let requests = (0..self.tasks.len()).step_by(most).map(|from| from..(from + most).min(self.tasks.len()));
        stream::iter(requests).for_each_concurrent(self.receiver.config.concurrency_max, |rows| self.deliver(rows, tell)).await;
    }

    /// Makes a request until its tasks have their fates.
    fn deliver<'a>(&'a self, rows: Range<usize>, tell: &'a mpsc::Sender<Told>) -> BoxFuture<'a, ()> {
        async move {
            let (mut failures, mut first_failed) = (0, None);
            let fates = loop {
                // To wait for one's turn is no failure.
                let until = first_failed.unwrap_or_else(Instant::now) + self.receiver.config.retry_window;
                let step = self.request(&rows, until).await;
                first_failed = first_failed.or_else(|| Some(Instant::now()));
                match step {
                    Step::Done(fates) => break fates,
                    Step::Paused => {}
                    Step::Halved => {
                        let middle = rows.start + rows.len() / 2;
                        self.deliver(rows.start..middle, tell).await;
                        return self.deliver(middle..rows.end, tell).await;
                    }
                    Step::Again(trouble) => {
                        failures += 1;
                        if !self.wait(backoff(failures), until).await {
                            self.is_in(trouble);
                            break vec![Fate::Open; rows.len()];
                        }
                    }
                }
            };
            // Nobody is left to be told where the host has let go of the receipts.
            drop(tell.send((rows, fates)).await);
        }
        .boxed()
    }

    /// Makes a request once.
    async fn request(&self, rows: &Range<usize>, until: Instant) -> Step {
        let Receiver { config, client, pace } = &*self.receiver;
        let all = |fate: Fate| Step::Done(vec![fate; rows.len()]);
        let turn = tokio::select! {
            biased;
            () = self.stopped() => return all(Fate::Busy(STOPPED_DELAY, "the call was stopped before it".into())),
            turn = pace.turn(until) => turn,
        };
        if let Err(left_alone) = turn {
            let why = left_alone.why.as_ref().map_or_else(String::new, |why| why.message.clone());
            left_alone.why.into_iter().for_each(|why| self.is_in(why));
            return all(Fate::Busy(left_alone.delay, why));
        }
        let ids: Vec<_> = rows.clone().map(|row| self.tasks.id(row)).collect();
        let id = request_id(&ids);
        let body = request::of_tasks(&self.dispatch, &self.tasks, rows.clone(), jiff::Timestamp::now());
        let answer = tokio::select! {
            answer = client.post(&id, body) => answer,
            () = self.stopped_for(GRACE) => Err(NoAnswer::Uncertain("the call was stopped before the answer".into())),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(NoAnswer::NotReached(why)) => {
                pace.pause(None, self.error(ErrorClass::Unavailable, &why));
                return Step::Paused;
            }
            Err(NoAnswer::Uncertain(why)) => return self.uncertain(rows, None, &why),
        };
        let said = format!("it answered {}", answer.status);
        match answer.meaning(&ids, config.receipts_required) {
            Meaning::Words(words) => {
                pace.went_well();
                Step::Done(words.into_iter().map(|word| self.fate(word)).collect())
            }
            Meaning::Busy(delay) => {
                pace.pause(delay, self.error(ErrorClass::RateLimited, &said));
                Step::Paused
            }
            Meaning::TurnedAway(class, key) => {
                pace.pause(Some(TURNED_AWAY_DELAY), self.error(class, &said).key(key));
                Step::Paused
            }
            Meaning::Refused if rows.len() > 1 => Step::Halved,
            Meaning::Refused => all(Fate::Rejected(Some(answer.status.to_string()), "the receiver refuses the task".into())),
            Meaning::Uncertain => self.uncertain(rows, Some(answer.status), &said),
        }
    }

    /// What a request comes to of which nobody knows whether it was taken.
    fn uncertain(&self, rows: &Range<usize>, status: Option<u16>, why: &str) -> Step {
        if self.receiver.config.idempotent {
            return Step::Again(self.error(ErrorClass::Unavailable, why));
        }
        let code = status.map(|status| status.to_string());
        Step::Done(vec![Fate::Unknown(code, why.to_owned()); rows.len()])
    }

    fn fate(&self, word: Word) -> Fate {
        match word {
            Word::Accepted => Fate::Accepted,
            Word::Rejected(code, message) => Fate::Rejected(code, message),
            Word::NotSent(delay, code, message) => Fate::NotSent(delay, code, message),
            Word::Silent => {
                let why = "the answer has no receipt of a task that it was given";
                if !self.receiver.config.idempotent {
                    return Fate::Unknown(None, why.into());
                }
                self.is_in(self.error(ErrorClass::InvalidData, why));
                Fate::Open
            }
        }
    }

    /// Adds the receipts of tasks; how many were added.
    fn add(&self, builder: &mut ReceiptsBuilder, (rows, fates): Told) -> usize {
        let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let mut added = 0;
        for (row, fate) in rows.zip(fates) {
            let id = self.tasks.id(row);
            match fate {
                Fate::Accepted => builder.accepted(id),
                Fate::Rejected(code, message) => builder.rejected(id, code.as_deref(), &message),
                Fate::NotSent(delay, code, message) => builder.not_sent(id, millis(delay), code.as_deref(), &message),
                Fate::Busy(delay, message) => builder.busy(id, millis(delay), None, &message),
                Fate::Unknown(code, message) => builder.unknown(id, code.as_deref(), &message),
                Fate::Open => continue,
            }
            added += 1;
        }
        added
    }

    /// Waits, unless that would be too long or the call is to stop.
    async fn wait(&self, delay: Duration, until: Instant) -> bool {
        if Instant::now() + delay > until {
            return false;
        }
        tokio::select! {
            () = self.stopped() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }

    /// Ends once the call is to stop.
    async fn stopped(&self) {
        // That nobody holds the other end any more is as good.
        drop(self.stop.clone().wait_for(|stop| *stop).await);
    }

    async fn stopped_for(&self, grace: Duration) {
        self.stopped().await;
        tokio::time::sleep(grace).await;
    }

    /// The component is in trouble. What was found first stays.
    fn is_in(&self, trouble: PluginError) {
        self.trouble().get_or_insert(trouble);
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<PluginError>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, class: ErrorClass, why: &str) -> PluginError {
        PluginError::new(class, format!("{}: {why}", self.receiver.config.receiver()))
    }
}
