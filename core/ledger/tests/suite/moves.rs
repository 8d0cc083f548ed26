//! Random acts of every kind on one task, against a model of what each may do.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reunion_ledger::{Event, GenerationCommit, Lease, Ledger, NewTask, Receipt, TaskFilter};
use reunion_model::task::Outcome;
use reunion_model::{DispatchId, Gate, TaskId, TaskState, Verdict};

use crate::common::*;

const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug, Clone, Copy)]
enum Act {
    Claim,
    Receipt(Verdict),
    Close,
    Refuse,
    Regate,
    Drop,
    Requeue,
    Event(Outcome),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Claim),
        3 => proptest::sample::select(Verdict::ALL.to_vec()).prop_map(Act::Receipt),
        3 => Just(Act::Close),
        1 => Just(Act::Refuse),
        1 => Just(Act::Regate),
        1 => Just(Act::Drop),
        2 => Just(Act::Requeue),
        1 => proptest::sample::select(Outcome::ALL.to_vec()).prop_map(Act::Event),
    ]
}

/// What the ledger should hold of the task.
struct Model {
    state: TaskState,
    requeued: bool,
    attempts: u32,
    is_dispatch_open: bool,
}

impl Model {
    fn is_claimable(&self) -> bool {
        self.state.is_open() || self.state == TaskState::Unknown && self.requeued
    }

    fn apply(&mut self, act: Act) {
        use TaskState::{Accepted, Cancelled, Delivered, NotSent, Planned, Refused, Rejected, Sending, Unknown};
        match act {
            Act::Claim if !self.is_dispatch_open && self.is_claimable() => {
                *self = Self { state: Sending, requeued: false, attempts: self.attempts + 1, is_dispatch_open: true };
            }
            Act::Receipt(verdict) if self.is_dispatch_open && self.state == Sending => {
                self.attempts -= u32::from(verdict == Verdict::Busy);
                self.state = match verdict {
                    Verdict::NotSent if self.attempts >= ATTEMPTS_MAX => Rejected,
                    verdict => verdict.state(),
                };
            }
            Act::Close if self.is_dispatch_open => {
                self.is_dispatch_open = false;
                if self.state == Sending {
                    self.state = Unknown;
                }
            }
            Act::Refuse if self.state == Planned => self.state = Refused,
            Act::Refuse | Act::Regate | Act::Drop if matches!(self.state, Planned | NotSent) => self.state = Cancelled,
            Act::Requeue if self.state == Unknown => self.requeued = true,
            Act::Event(outcome) => {
                let goal = if outcome == Outcome::WrongNumber { Rejected } else { Delivered };
                if matches!(self.state, Sending | Unknown | Accepted) {
                    self.state = goal;
                }
            }
            _ => {}
        }
    }
}

/// One task in a ledger, and what is needed to act on it.
struct Real {
    ledger: Ledger,
    /// A channel of its own, so that a case that failed is not in the way of the next.
    channel: String,
    lease: Lease,
    task_id: TaskId,
    dispatch: Option<DispatchId>,
    now: i64,
    events: u32,
}

impl Real {
    async fn apply(&mut self, act: Act) {
        self.now += SECOND;
        let (ledger, now, channel) = (&self.ledger, self.now, self.channel.as_str());
        let only = TaskFilter { task_id: Some(self.task_id), ..TaskFilter::default() };
        match act {
            Act::Claim => {
                // Suppressions that an event left are not this test's subject.
                ledger.lift_suppressions(phone(1), "test", "", now).await.unwrap();
                if self.dispatch.is_some() {
                    assert!(ledger.due(channel, now).await.unwrap().groups.is_empty());
                    return;
                }
                let Some(group) = ledger.due(channel, now).await.unwrap().groups.pop() else { return };
                self.dispatch = claim(ledger, channel, &group, now, 9).await.map(|claimed| claimed.dispatch_id);
                assert!(self.dispatch.is_some());
            }
            Act::Receipt(verdict) => {
                let Some(dispatch) = self.dispatch else { return };
                let receipt = Receipt { task_id: self.task_id, verdict, retry_after_ms: Some(0), code: None, message: None };
                ledger.record_receipts(dispatch, &[receipt], ATTEMPTS_MAX, now).await.unwrap();
            }
            Act::Close => {
                let Some(dispatch) = self.dispatch.take() else { return };
                close(ledger, dispatch, None, now).await;
            }
            Act::Refuse => drop(ledger.refuse(&[(self.task_id, Gate::Gap)], now).await.unwrap()),
            Act::Regate => {
                let base = ledger.head().await.unwrap().map(|head| head.generation);
                let generation = ledger.next_generation(&self.lease).await.unwrap();
                let regate = vec![(self.task_id, Gate::Gone)];
                ledger.commit_generation(&self.lease, &GenerationCommit { regate, ..commit(base, generation) }).await.unwrap();
            }
            Act::Drop => drop(ledger.drop_tasks(&only, "test", now).await.unwrap()),
            Act::Requeue => drop(ledger.requeue(&only, "test", now).await.unwrap()),
            Act::Event(outcome) => {
                self.events += 1;
                let event_id = format!("{} {}", self.task_id, self.events);
                let event = Event { event_id, task_id: self.task_id, outcome, at_us: None, note: None };
                assert_eq!(ledger.commit_poll(channel, &[event], None, now).await.unwrap().new, 1);
            }
        }
    }
}

pub async fn random_moves_agree_with_the_model(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let runtime = tokio::runtime::Handle::current();
    let cases = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let result = tokio::task::block_in_place(|| {
        runner.run(&proptest::collection::vec(act(), 1..14), |acts| {
            cases.set(cases.get() + 1);
            runtime.block_on(one_case(&world, &ledger, lease, cases.get(), acts));
            Ok(())
        })
    });
    result.unwrap();
}

async fn one_case(world: &World, ledger: &Ledger, lease: Lease, touch_number: u32, acts: Vec<Act>) {
    let channel = format!("channel {touch_number}");
    plan(ledger, &lease, vec![NewTask { channel: channel.clone(), ..touch(world, 1, touch_number, 1) }]).await;
    let mut model = Model { state: TaskState::Planned, requeued: false, attempts: 0, is_dispatch_open: false };
    let task_id = task_id(1, touch_number, 1);
    let mut real = Real { ledger: ledger.clone(), channel, lease, task_id, dispatch: None, now: T0, events: 0 };
    for act in acts.iter().copied() {
        real.apply(act).await;
        model.apply(act);
        let detail = ledger.task(task_id).await.unwrap().unwrap();
        assert_eq!((detail.task.state, detail.task.attempts), (model.state, model.attempts), "after {act:?} of {acts:?}");
        assert_eq!(real.dispatch.is_some(), model.is_dispatch_open, "after {act:?} of {acts:?}");
        assert_eq!(detail.history.last().unwrap().state, detail.task.state);
        for pair in detail.history.windows(2) {
            assert!(pair[0].state.next(true).contains(&pair[1].state), "{pair:?}");
        }
    }
}
