//! Dispatch: the only place that gives tasks to a channel.
//!
//! What was left of earlier dispatches comes first, as it was. Then each group of tasks that is due is
//! gated once more, claimed whole in one ledger transaction, and pushed; receipts are stored as they
//! arrive. A task without a receipt is `unknown`, and only an idempotent channel is given it again.
//!
//! What is claimed cannot be taken back, so it is claimed group by group. Only where a channel is
//! idempotent and writes files of this machine, which takes no time to speak of, are several groups
//! claimed in one transaction, beside the pushes of those before, and their receipts stored in another: see
//! [`Dispatcher::send_together`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_host::{CallOptions, ChannelConnector, Polled};
use reunion_ledger::{Claimed, Dispatch, Event, Group, Ledger, LedgerError, OpenTask, Pushed, Receipt, Settled};
use reunion_model::limits::{DISPATCH_TASKS_MAX, PUSHES_AT_ONCE_MAX};
use reunion_model::plugin::{ChannelTraits, DispatchInfo, PluginError, Reach};
use reunion_model::task::task_schema;
use reunion_model::threads::{both, result_of};
use reunion_model::{Gate, MemberId, TaskId, fault};
use reunion_outreach::{AtSend, Campaign, SendFacts, clock, gate_at_send};

use crate::config::Config;
use crate::failure::{Doing, Failure};
use crate::run::suppressed_since;
use crate::state::{State, now_us};

/// A task that is put off without a moment of its own is looked at again after this long.
const LOOK_AGAIN_US: i64 = 60_000_000;
/// What the gates said holds for so long: a channel may take hours over what is due, and the window of a
/// campaign closes meanwhile.
const GATES_HOLD: Duration = Duration::from_secs(30);
/// A channel in which another thread is sending is looked at again after this long.
const CHANNEL_BUSY_US: i64 = 200_000;
/// Whoever waits looks this often whether the program is asked to end.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// Dispatches that are claimed together, and settled together, where their channel allows it. Enough that
/// a transaction costs little beside their pushes; few enough that three times as many, those being settled,
/// pushed and claimed, take a blink of an eye, which is as long as the program cannot be stopped, and as much
/// as a crash repeats.
const TOGETHER_MAX: usize = 128;
/// Lines that one poll of a channel may add to what the operator reads; the rest are counted.
const NOTES_MAX: usize = 20;

/// The clock that dispatch goes by: that of the machine, or where a rehearsal has its own, as far from
/// it as when it began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset_us: i64,
}

impl Clock {
    /// The clock that shows `run_clock_us` now.
    pub fn showing(run_clock_us: i64) -> Self {
        Self { offset_us: run_clock_us - now_us() }
    }

    /// The machine's own.
    pub fn machine() -> Self {
        Self { offset_us: 0 }
    }

    /// Microseconds UTC.
    pub fn now_us(self) -> i64 {
        now_us() + self.offset_us
    }
}

/// Of some members those whose data is too old to contact them.
pub type Stale<'a> = dyn Fn(&HashSet<MemberId>) -> Result<HashSet<MemberId>, Failure> + 'a;

/// What dispatch needs to know.
pub struct Dispatcher<'a> {
    /// The config.
    pub config: &'a Config,
    /// The state.
    pub state: &'a State,
    /// The channels by name.
    pub channels: &'a BTreeMap<String, Box<dyn ChannelConnector>>,
    /// The campaigns by name, with what their channels ask.
    pub campaigns: &'a HashMap<String, Campaign>,
    /// Members whose data is too old to contact them.
    pub stale: Box<Stale<'a>>,
    /// The clock.
    pub clock: Clock,
    /// True once the program is asked to end.
    pub stopping: &'a dyn Fn() -> bool,
}

/// What a pass came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// When there is more to do, by the dispatch clock.
    pub next_us: Option<i64>,
    /// What channels answered that is nobody's task: one line each.
    pub errors: Vec<String>,
}

impl Pass {
    fn add(&mut self, other: Self) {
        self.next_us = [self.next_us, other.next_us].into_iter().flatten().min();
        self.errors.extend(other.errors);
    }
}

impl Dispatcher<'_> {
    /// Sends what is due in all channels, and waits up to `drain` for what falls due meanwhile.
    ///
    /// # Errors
    /// Where the ledger refuses. What a channel does wrong is in the result.
    pub fn drain(&self, drain: Duration) -> Result<Pass, Failure> {
        let until = Instant::now() + drain;
        let mut all = Pass::default();
        loop {
            let pass = self.pass()?;
            let next = pass.next_us;
            all.errors.extend(pass.errors);
            let wait = next.map(|next| Duration::from_micros((next - self.clock.now_us()).max(0).unsigned_abs()));
            match wait.filter(|wait| Instant::now() + *wait < until && !(self.stopping)()) {
                Some(wait) => self.sleep(wait),
                None => {
                    all.next_us = next;
                    all.errors.sort();
                    all.errors.dedup();
                    return Ok(all);
                }
            }
        }
    }

    /// Waits, unless the program is asked to end.
    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !(self.stopping)() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(STOP_LOOK));
        }
    }

    /// Sends what is due now in all channels.
    ///
    /// # Errors
    /// Where the ledger refuses.
    pub fn pass(&self) -> Result<Pass, Failure> {
        let mut all = Pass::default();
        for (name, channel) in self.channels {
            all.add(self.send(name, channel.as_ref())?);
        }
        Ok(all)
    }

    /// Asks every channel what became of its tasks.
    ///
    /// # Errors
    /// Where the ledger refuses.
    pub fn poll(&self) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for (name, channel) in self.channels {
            notes.extend(self.poll_one(name, channel.as_ref())?);
        }
        Ok(notes)
    }

    fn send(&self, name: &str, channel: &dyn ChannelConnector) -> Result<Pass, Failure> {
        let ledger = &self.state.ledger;
        // What this process holds and has not settled may be taken up by one thread alone.
        let Some(_alone) = self.state.send_alone(name) else {
            return Ok(Pass { next_us: Some(self.clock.now_us() + CHANNEL_BUSY_US), ..Pass::default() });
        };
        let traits = channel.traits();
        let tasks_max = match traits.dispatch_tasks_max {
            0 => DISPATCH_TASKS_MAX,
            max => max.min(DISPATCH_TASKS_MAX),
        };
        let mut pass = Pass::default();
        let resumed = self.state.ask(ledger.resume_dispatches(name, traits.idempotent, self.clock.now_us()))?;
        for dispatches in resumed.dispatches.chunks(if is_quick(traits) { TOGETHER_MAX } else { 1 }) {
            pass.errors.extend(self.push_all(name, channel, dispatches)?);
        }
        let per_day_max = self.config.channels[name].per_day_max;
        let mut next_day_us = None;
        if let Some(per_day_max) = per_day_max {
            next_day_us = self.send_within(name, channel, per_day_max, tasks_max, &mut pass)?;
        } else if is_quick(traits) {
            let groups = VecDeque::from(self.gated(name)?);
            self.send_together(name, channel, groups, tasks_max, &mut pass)?;
        } else {
            self.send_in_turn(name, channel, usize::MAX, tasks_max, &mut pass)?;
        }
        let next_us = self.state.ask(ledger.due(name, self.clock.now_us()))?.next_us;
        pass.next_us = [next_us, next_day_us].into_iter().flatten().min();
        Ok(pass)
    }

    /// Sends what the channel may still be given on this day; when the next one begins, if nothing is left.
    fn send_within(
        &self,
        name: &str,
        channel: &dyn ChannelConnector,
        per_day_max: usize,
        tasks_max: usize,
        pass: &mut Pass,
    ) -> Result<Option<i64>, Failure> {
        let (now_us, zone) = (self.clock.now_us(), self.config.timezone.rules());
        let today = clock::day(now_us, zone);
        let given = self.state.ask(self.state.ledger.given_since(name, clock::start_of_day(today, zone)))?;
        let left = per_day_max.saturating_sub(usize::try_from(given).unwrap_or(usize::MAX));
        let left = self.send_in_turn(name, channel, left, tasks_max, pass)?;
        let waits = left == 0 && !self.state.ask(self.state.ledger.due(name, now_us))?.groups.is_empty();
        Ok(waits.then(|| clock::start_of_day(clock::add_days(today, 1), zone)))
    }

    /// Sends dispatch after dispatch, `left` tasks at most; how many are left of these.
    fn send_in_turn(
        &self,
        name: &str,
        channel: &dyn ChannelConnector,
        mut left: usize,
        tasks_max: usize,
        pass: &mut Pass,
    ) -> Result<usize, Failure> {
        let (mut groups, mut gated) = (VecDeque::new(), None::<Instant>);
        // What is claimed is pushed; what is not claimed yet can wait for the next start.
        while left > 0 && !(self.stopping)() {
            if gated.is_none_or(|gated| gated.elapsed() > GATES_HOLD) {
                (groups, gated) = (self.gated(name)?.into(), Some(Instant::now()));
            }
            let Some(group) = groups.pop_front() else { break };
            let (group, most) = ([group], tasks_max.min(left));
            let Claimed { dispatches, more } =
                self.state.ask(self.state.ledger.claim_dispatches(name, &group, self.clock.now_us(), most))?;
            if !dispatches.is_empty() {
                fault::point("dispatch.claimed");
            }
            left = left.saturating_sub(dispatches.iter().map(|dispatch| dispatch.tasks.len()).sum());
            pass.errors.extend(self.push_all(name, channel, &dispatches)?);
            more.into_iter().rev().for_each(|group| groups.push_front(group));
        }
        Ok(left)
    }

    /// Sends many groups at a time: beside the pushes of some, the ledger stores what came of those before
    /// and claims the next.
    fn send_together(
        &self,
        name: &str,
        channel: &dyn ChannelConnector,
        mut groups: VecDeque<Group>,
        tasks_max: usize,
        pass: &mut Pass,
    ) -> Result<(), Failure> {
        let ledger = &self.state.ledger;
        let (mut claimed, mut pushed): (Vec<Dispatch>, Vec<Pushed>) = Default::default();
        loop {
            let next = if (self.stopping)() { Vec::new() } else { take_together(&mut groups, TOGETHER_MAX, tasks_max) };
            if next.is_empty() && claimed.is_empty() && pushed.is_empty() {
                return Ok(());
            }
            let (attempts_max, now_us) = (self.attempts_max(name), self.clock.now_us());
            let before = std::mem::take(&mut pushed);
            let turn = async {
                let settled = settle(ledger, &before, attempts_max, now_us).await?;
                Ok((settled, ledger.claim_dispatches(name, &next, now_us, tasks_max).await?))
            };
            let (turn, answers) = both(|| self.state.ask(turn), || self.push(name, channel, &claimed));
            let (now_pushed, notes) = answers?;
            let (settled, next) = turn?;
            if !next.dispatches.is_empty() {
                fault::point("dispatch.claimed");
            }
            pass.errors.extend(notes.into_iter().chain(lost(name, &settled)));
            next.more.into_iter().rev().for_each(|group| groups.push_front(group));
            (claimed, pushed) = (next.dispatches, now_pushed);
        }
    }

    /// The groups that are due, with those tasks taken back or put off that may not be sent now.
    ///
    /// Each generation's commit has gated every open task against the members as they are, and the claim
    /// looks at the suppression list in its own transaction. What is left is what the clock, the config and
    /// the age of the data decide, and who asked at another number since not to be contacted.
    fn gated(&self, channel: &str) -> Result<Vec<Group>, Failure> {
        let ledger = &self.state.ledger;
        let now_us = self.clock.now_us();
        let groups = self.state.ask(ledger.due(channel, now_us))?.groups;
        if groups.is_empty() {
            return Ok(groups);
        }
        let tasks = self.state.ask(ledger.due_tasks(channel, now_us))?;
        // Once for all groups: it may mean to read every member.
        let members = tasks.iter().map(|task| task.member).collect();
        let stale = (self.stale)(&members)?;
        let suppressed = suppressed_since(self.state, &members, now_us)?;
        let mut refused: Vec<(TaskId, Gate)> = Vec::new();
        let mut put_off: Vec<(TaskId, i64)> = Vec::new();
        for task in &tasks {
            match self.may_send(task, stale.contains(&task.member), suppressed.contains(&task.member), now_us) {
                AtSend::Go => {}
                AtSend::Refuse(gate) => refused.push((task.task_id, gate)),
                AtSend::Wait { until_us, .. } => put_off.push((task.task_id, until_us.unwrap_or(now_us + LOOK_AGAIN_US))),
            }
        }
        self.state.ask(ledger.refuse(&refused, now_us))?;
        self.state.ask(ledger.postpone(&put_off))?;
        Ok(groups)
    }

    fn may_send(&self, task: &OpenTask, stale: bool, suppressed: bool, now_us: i64) -> AtSend {
        let facts = SendFacts {
            campaign: self.campaigns.get(&task.campaign),
            member_has_phone: true,
            suppressed,
            control: false,
            consented: true,
            // The touches before this one.
            touches: task.touch - 1,
            stale,
        };
        gate_at_send(&facts, now_us, self.config.timezone.rules())
    }

    /// Gives dispatches to their channel and stores what comes of them; what went wrong, a line each.
    fn push_all(&self, name: &str, channel: &dyn ChannelConnector, dispatches: &[Dispatch]) -> Result<Vec<String>, Failure> {
        let (pushed, mut notes) = self.push(name, channel, dispatches)?;
        let settled = self.state.ask(settle(&self.state.ledger, &pushed, self.attempts_max(name), self.clock.now_us()))?;
        notes.extend(lost(name, &settled));
        Ok(notes)
    }

    /// Gives dispatches to their channel; what is to be stored of each, and what went wrong, a line each.
    fn push(&self, name: &str, channel: &dyn ChannelConnector, dispatches: &[Dispatch]) -> Result<(Vec<Pushed>, Vec<String>), Failure> {
        let (mut pushed, mut notes) = (Vec::with_capacity(dispatches.len()), Vec::new());
        for (dispatch, (receipts, error)) in dispatches.iter().zip(self.answers(name, channel, dispatches)?) {
            let retry_at_us = error.as_ref().and_then(|error| self.retry_at_us(name, channel.traits(), dispatch, error));
            pushed.push(Pushed { dispatch_id: dispatch.dispatch_id, receipts, retry_at_us });
            if let Some(error) = error {
                tracing::warn!(channel = name, class = error.class.name(), "a push failed: {}", error.message);
                notes.push(format!("channel {name}: {error}"));
            }
        }
        Ok((pushed, notes))
    }

    /// What the channel says of dispatches. Where its pushes are quick the receipts are handed back, to be
    /// stored together, and as many are pushed at once as it allows; where they may take long they are stored
    /// as they arrive. What a crash loses of them is `unknown`, or is pushed again.
    fn answers(&self, name: &str, channel: &dyn ChannelConnector, dispatches: &[Dispatch]) -> Result<Vec<Answer>, Failure> {
        let pushes = dispatches.iter().map(|dispatch| self.prepared(dispatch)).collect::<Result<Vec<_>, _>>()?;
        if !is_quick(channel.traits()) {
            let push = |(dispatch, push): (&Dispatch, Push)| {
                let error = push.made(channel, |receipts| self.record(name, dispatch, receipts))?;
                Ok((Vec::new(), error))
            };
            return dispatches.iter().zip(pushes).map(push).collect();
        }
        let at_once = channel.traits().pushes_at_once.clamp(1, PUSHES_AT_ONCE_MAX).min(pushes.len());
        if at_once <= 1 {
            return pushes.into_iter().map(|push| push.kept(channel)).collect();
        }
        let waiting = Mutex::new(pushes.into_iter().enumerate());
        let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut answers = Vec::new();
            while let Some((at, push)) = take() {
                answers.push((at, push.kept(channel)?));
            }
            Ok::<_, Failure>(answers)
        };
        let answers = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(result_of).collect::<Result<Vec<_>, _>>()
        });
        let mut answers = answers?.concat();
        answers.sort_unstable_by_key(|(at, _)| *at);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    fn prepared(&self, dispatch: &Dispatch) -> Result<Push, Failure> {
        let call = CallOptions { dry_run: false, deadline_unix_ms: None, run_id: dispatch.run_id.to_string() };
        Ok(Push { call, info: self.info(dispatch), tasks: task_batch(dispatch)? })
    }

    fn record(&self, name: &str, dispatch: &Dispatch, receipts: Vec<reunion_host::Receipt>) -> Result<(), Failure> {
        let receipts: Vec<Receipt> = receipts.into_iter().map(receipt).collect();
        fault::point("receipts.before");
        let ledger = &self.state.ledger;
        self.state.ask(ledger.record_receipts(dispatch.dispatch_id, &receipts, self.attempts_max(name), self.clock.now_us()))?;
        fault::point("receipts.after");
        Ok(())
    }

    fn attempts_max(&self, name: &str) -> u32 {
        self.config.channels[name].attempts_max
    }

    /// When a dispatch that failed is pushed again, where it may be: after the channel's own delay, or one
    /// that doubles.
    fn retry_at_us(&self, name: &str, traits: &ChannelTraits, dispatch: &Dispatch, error: &PluginError) -> Option<i64> {
        let channel = &self.config.channels[name];
        if !traits.idempotent || dispatch.pushes >= channel.attempts_max {
            return None;
        }
        let doubled = channel.retry_secs.saturating_mul(1 << dispatch.pushes.saturating_sub(1).min(32));
        let own_secs = error.retry_after_ms.map(|delay_ms| delay_ms.div_ceil(1000));
        let delay_secs = own_secs.unwrap_or(doubled).min(channel.retry_secs_max.max(own_secs.unwrap_or(0)));
        Some(self.clock.now_us().saturating_add_unsigned(delay_secs.saturating_mul(1_000_000)))
    }

    fn info(&self, dispatch: &Dispatch) -> DispatchInfo {
        let clock = jiff::Timestamp::from_microsecond(dispatch.run_clock_us).unwrap_or_default();
        DispatchInfo {
            dispatch_id: dispatch.dispatch_id.to_string(),
            run: dispatch.run_id.to_string()[..8].to_owned(),
            ordinal: dispatch.ordinal,
            date: clock.to_zoned(self.config.timezone.rules().clone()).date().to_string(),
        }
    }

    fn poll_one(&self, name: &str, channel: &dyn ChannelConnector) -> Result<Vec<String>, Failure> {
        let ledger = &self.state.ledger;
        let state = self.state.ask(ledger.poll_state(name))?;
        let call = CallOptions { dry_run: false, deadline_unix_ms: None, run_id: String::new() };
        let mut notes = Vec::new();
        let mut stream = match channel.poll(&call, state.as_ref()) {
            Ok(stream) => stream,
            Err(error) => return Ok(vec![format!("channel {name}: {error}")]),
        };
        let mut events: Vec<Event> = Vec::new();
        loop {
            match stream.next() {
                Ok(Some(Polled::Events(more))) => events.extend(more.into_iter().map(event)),
                Ok(Some(Polled::Rejected(rows))) => notes.extend(rejected(name, &rows)),
                Ok(Some(Polled::State(state))) => notes.extend(self.store(name, &mut events, Some(&state))?),
                Ok(None) => break,
                Err(error) => {
                    notes.push(format!("channel {name}: {error}"));
                    break;
                }
            }
        }
        notes.extend(self.store(name, &mut events, None)?);
        Ok(shortened(name, notes))
    }

    /// Stores the events so far together with the state that covers them.
    fn store(&self, name: &str, events: &mut Vec<Event>, state: Option<&serde_json::Value>) -> Result<Vec<String>, Failure> {
        if events.is_empty() && state.is_none() {
            return Ok(Vec::new());
        }
        fault::point("poll.before");
        let polled = self.state.ask(self.state.ledger.commit_poll(name, events, state, self.clock.now_us()))?;
        fault::point("poll.after");
        events.clear();
        Ok(strange(name, &polled).collect())
    }
}

/// An event as the ledger takes it.
pub fn event(event: reunion_host::Event) -> Event {
    let reunion_host::Event { event_id, task, outcome, at_us, note } = event;
    Event { event_id, task_id: task, outcome, at_us, note }
}

/// What the operator should know of events that were stored, a line each, and not more than a few.
pub fn notes(name: &str, stored: &reunion_ledger::Polled) -> Vec<String> {
    shortened(name, strange(name, stored).collect())
}

/// A line for each event that does not fit its task.
fn strange(name: &str, stored: &reunion_ledger::Polled) -> impl Iterator<Item = String> {
    let unknown =
        stored.unknown_tasks.iter().map(move |task| format!("channel {name}: task {task} was returned, and there is no such task"));
    let unexpected = stored.unexpected.iter().map(move |task| {
        format!(
            "channel {name}: task {task} was returned though it was never sent, or settled otherwise; the result counts, the task stays"
        )
    });
    unknown.chain(unexpected)
}

/// Stores what came of pushes, where there were any.
async fn settle(ledger: &Ledger, pushed: &[Pushed], attempts_max: u32, now_us: i64) -> Result<Settled, LedgerError> {
    if pushed.is_empty() {
        return Ok(Settled::default());
    }
    fault::point("receipts.before");
    fault::point("dispatch.close.before");
    let settled = ledger.settle_dispatches(pushed, attempts_max, now_us).await?;
    fault::point("dispatch.close.after");
    fault::point("receipts.after");
    Ok(settled)
}

/// A line for each dispatch that another process has.
fn lost(name: &str, settled: &Settled) -> Vec<String> {
    let line =
        |dispatch| format!("channel {name}: another process has taken over dispatch {dispatch}; it records what becomes of its tasks");
    settled.lost.iter().map(line).collect()
}

/// What a channel said of a dispatch: receipts that are still to be stored, and how the push ended.
type Answer = (Vec<Receipt>, Option<PluginError>);

/// A dispatch as it is given to its channel.
struct Push {
    call: CallOptions,
    info: DispatchInfo,
    tasks: RecordBatch,
}

impl Push {
    /// Gives it to the channel, and keeps the receipts.
    fn kept(self, channel: &dyn ChannelConnector) -> Result<Answer, Failure> {
        let mut kept = Vec::new();
        let error = self.made(channel, |receipts| {
            kept.extend(receipts.into_iter().map(receipt));
            Ok(())
        })?;
        Ok((kept, error))
    }

    /// Gives it to the channel; `take` gets the receipts as they arrive. What the push ended with, if that was
    /// an error.
    fn made(
        self,
        channel: &dyn ChannelConnector,
        mut take: impl FnMut(Vec<reunion_host::Receipt>) -> Result<(), Failure>,
    ) -> Result<Option<PluginError>, Failure> {
        let Self { call, info, tasks } = self;
        fault::point("push.before");
        let mut receipts = match channel.push(&call, &info, tasks) {
            Ok(receipts) => receipts,
            Err(error) => return Ok(Some(error)),
        };
        loop {
            fault::point("push.after");
            match receipts.next() {
                Ok(Some(receipts)) => take(receipts)?,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            }
        }
    }
}

/// Whether a channel's push takes no time to speak of, and may be repeated.
fn is_quick(traits: &ChannelTraits) -> bool {
    traits.idempotent && traits.reach == Reach::Files
}

/// Takes the groups off the queue that are claimed next: at most so many, and all in all not many more
/// tasks than one dispatch may have. None where the queue is empty.
fn take_together(groups: &mut VecDeque<Group>, together_max: usize, tasks_max: usize) -> Vec<Group> {
    let mut tasks = 0;
    let fits = |group: &&Group| {
        tasks += usize::try_from(group.tasks).unwrap_or(tasks_max).min(tasks_max);
        tasks <= DISPATCH_TASKS_MAX
    };
    let count = groups.iter().take(together_max).take_while(fits).count();
    groups.drain(..count.max(1).min(groups.len())).collect()
}

fn receipt(receipt: reunion_host::Receipt) -> Receipt {
    Receipt {
        task_id: receipt.task,
        verdict: receipt.verdict,
        retry_after_ms: receipt.retry_after_ms,
        code: receipt.code,
        message: receipt.message,
    }
}

/// The first of many lines, and how many more there are: a wrong file in the return folder must not fill
/// the report.
fn shortened(name: &str, mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES_MAX);
    if more > 0 {
        notes.truncate(NOTES_MAX);
        notes.push(format!("channel {name}: and {more} more of this kind"));
    }
    notes
}

/// Rows of a poll that could not be read, a line each.
fn rejected(name: &str, rows: &RecordBatch) -> Vec<String> {
    use arrow::array::{Array, AsArray};
    let [location, reason, detail] = [0, 1, 2].map(|column| rows.column(column).as_string::<i32>());
    let line = |row: usize| {
        let detail = if detail.is_null(row) { reason.value(row) } else { detail.value(row) };
        format!("channel {name}: {}: {detail}", location.value(row))
    };
    (0..rows.num_rows()).map(line).collect()
}

/// The tasks of a dispatch as the channel is given them.
fn task_batch(dispatch: &Dispatch) -> Result<RecordBatch, Failure> {
    let tasks = &dispatch.tasks;
    let optional = |of: fn(&reunion_ledger::DispatchTask) -> Option<&str>| Arc::new(tasks.iter().map(of).collect::<StringArray>());
    let required = |of: fn(&reunion_ledger::DispatchTask) -> String| Arc::new(StringArray::from_iter_values(tasks.iter().map(of)));
    let due: TimestampMicrosecondArray = tasks.iter().map(|task| task.due_us).collect();
    RecordBatch::try_new(
        task_schema(),
        vec![
            required(|task| task.task_id.to_string()),
            required(|task| task.campaign.clone()),
            optional(|task| task.store.as_deref()),
            optional(|task| task.staff.as_deref()),
            optional(|task| task.payload.name.as_deref()),
            required(|task| task.payload.phone.national()),
            optional(|task| task.payload.reason.as_deref()),
            optional(|task| task.payload.message.as_deref()),
            Arc::new(due.with_timezone("UTC")),
        ],
    )
    .doing(|| "the tasks of a dispatch cannot be put into columns".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_notes_are_counted_and_not_lost() {
        let notes = |count: usize| (0..count).map(|at| format!("note {at}")).collect::<Vec<_>>();
        assert_eq!(shortened("list", notes(NOTES_MAX)), notes(NOTES_MAX));
        let short = shortened("list", notes(NOTES_MAX + 7));
        assert_eq!(short.len(), NOTES_MAX + 1);
        assert_eq!(short[NOTES_MAX], "channel list: and 7 more of this kind");
    }

    #[test]
    fn groups_are_claimed_in_bounded_numbers() {
        let group = |tasks: usize| Group { run_id: reunion_model::RunId([1; 16]), key: tasks.to_string(), tasks: tasks as u64 };
        let taken = |sizes: &[usize], together_max, tasks_max| {
            let mut groups: VecDeque<_> = sizes.iter().map(|tasks| group(*tasks)).collect();
            let mut taken = Vec::new();
            while !groups.is_empty() {
                taken.push(take_together(&mut groups, together_max, tasks_max).iter().map(|group| group.tasks).collect::<Vec<_>>());
            }
            taken
        };
        assert_eq!(taken(&[1, 2, 3], 2, 10), [vec![1, 2], vec![3]]);
        assert_eq!(taken(&[1, 2], 1, 10), [vec![1], vec![2]]);
        let max = DISPATCH_TASKS_MAX;
        assert_eq!(taken(&[1, max, 1, 1], 32, max), [vec![1], vec![max as u64], vec![1, 1]]);
        assert_eq!(taken(&[9 * max, 9 * max], 32, max / 2), [vec![9 * max as u64, 9 * max as u64]], "a dispatch takes no more than it may");
    }

    #[test]
    fn a_rehearsals_clock_runs_on() {
        let clock = Clock::showing(1_000_000);
        let first = clock.now_us();
        assert!((1_000_000..60_000_000).contains(&first));
        assert!(clock.now_us() >= first);
        assert!(Clock::machine().now_us() > 1_700_000_000_000_000);
    }
}
