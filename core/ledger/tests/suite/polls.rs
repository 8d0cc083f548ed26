use reunion_ledger::{Event, Ledger, Polled, Receipt};
use reunion_model::task::Outcome;
use reunion_model::{TaskId, TaskState, Verdict};
use serde_json::json;

use crate::common::*;

fn event(task_id: TaskId, outcome: Outcome) -> Event {
    let event_id = format!("{task_id} {}", outcome.name());
    Event { event_id, task_id, outcome, at_us: Some(T0 + SECOND), note: Some("换号了".into()) }
}

/// Tasks 1 to `count`, all sent and accepted.
async fn accepted(world: &World, count: u32) -> Ledger {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=count).map(|n| task(world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    let receipt = |task_id| Receipt { task_id, verdict: Verdict::Accepted, retry_after_ms: None, code: None, message: None };
    let receipts: Vec<_> = dispatch.tasks.iter().map(|task| receipt(task.task_id)).collect();
    ledger.record_receipts(dispatch.dispatch_id, &receipts, 9, T0).await.unwrap();
    close(&ledger, dispatch.dispatch_id, None, T0).await;
    ledger
}

pub async fn events_move_tasks_and_leave_facts(world: World) {
    let ledger = accepted(&world, 4).await;
    assert_eq!(ledger.poll_state("store-list").await.unwrap(), None);
    let events: Vec<_> = (1..).zip(Outcome::ALL).map(|(n, outcome)| event(task_id(n, 1, 1), outcome)).collect();
    let polled = ledger.commit_poll("store-list", &events, Some(&json!({ "done": ["a.csv"] })), T0 + SECOND).await.unwrap();
    assert_eq!((polled.new, polled.linked, polled.suppressed, polled.unexpected.len()), (4, 1, 2, 0));
    assert_eq!(ledger.poll_state("store-list").await.unwrap(), Some(json!({ "done": ["a.csv"] })));
    let mut states = Vec::new();
    for n in 1..=4 {
        let task = ledger.task(task_id(n, 1, 1)).await.unwrap().unwrap().task;
        states.push((task.state.name(), task.outcome.unwrap()));
    }
    let expected = [("delivered", "added"), ("delivered", "refused"), ("rejected", "wrong_number"), ("delivered", "do_not_call")];
    assert_eq!(states, expected.map(|(state, outcome)| (state, outcome.to_owned())));

    let facts = ledger.facts().await.unwrap();
    assert_eq!((facts.links.len(), facts.links[0].contact, facts.links[0].since_us), (1, contact(&world, 1), T0 + SECOND));
    let suppressed: Vec<_> = facts.suppressions.iter().map(|fact| (fact.contact, fact.reason.as_str(), fact.source.as_str())).collect();
    assert_eq!(suppressed, [(contact(&world, 3), "wrong_number", "store-list"), (contact(&world, 4), "do_not_call", "store-list")]);
    assert!(facts.links.iter().all(|link| link.seq <= facts.seq));
    let touches = ledger.touches("warm-add").await.unwrap();
    assert!(touches[&contact(&world, 2)].said_no && touches[&contact(&world, 4)].said_no && !touches[&contact(&world, 1)].said_no);
}

pub async fn a_repeated_event_counts_once(world: World) {
    let ledger = accepted(&world, 1).await;
    let added = event(task_id(1, 1, 1), Outcome::Added);
    ledger.commit_poll("store-list", std::slice::from_ref(&added), None, T0).await.unwrap();
    let facts = ledger.facts().await.unwrap();
    let again = ledger.commit_poll("store-list", &[added.clone(), added], None, T0).await.unwrap();
    assert_eq!((again.new, again.repeated, again.linked), (0, 2, 0));
    assert_eq!(ledger.facts().await.unwrap(), facts);
    assert_eq!(ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().history.len(), 4);
}

/// As a receiver sends a message again before it had its answer, or from two of its processes.
pub async fn the_same_events_at_the_same_time_count_once(world: World) {
    let ledger = accepted(&world, 4).await;
    let events: Vec<_> = (1..).zip(Outcome::ALL).map(|(n, outcome)| event(task_id(n, 1, 1), outcome)).collect();
    let reversed: Vec<_> = events.iter().rev().cloned().collect();
    let ([first, second], state) = ([ledger.clone(), ledger.clone()], json!(1));
    let (first, second, third) = tokio::join!(
        first.commit_poll("store-list", &events, None, T0),
        second.commit_poll("store-list", &reversed, None, T0),
        ledger.commit_poll("store-list", &events, Some(&state), T0),
    );
    let polled = [first, second, third].map(|polled| polled.unwrap());
    let sum = |of: fn(&Polled) -> u64| polled.iter().map(of).sum::<u64>();
    assert_eq!((sum(|polled| polled.new), sum(|polled| polled.repeated)), (4, 8));
    assert_eq!((sum(|polled| polled.linked), sum(|polled| polled.suppressed)), (1, 2));
    assert!(polled.iter().all(|polled| polled.unexpected.is_empty()));
    assert_eq!(ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().history.len(), 4);
}

pub async fn events_of_strangers_are_reported(world: World) {
    let ledger = accepted(&world, 1).await;
    let stranger = event(task_id(50, 1, 1), Outcome::DoNotCall);
    let polled = ledger.commit_poll("store-list", &[stranger.clone(), stranger], None, T0).await.unwrap();
    assert_eq!((polled.new, polled.unknown_tasks), (0, vec![task_id(50, 1, 1)]));
    let foreign = ledger.commit_poll("other-channel", &[event(task_id(1, 1, 1), Outcome::Added)], None, T0).await.unwrap();
    assert_eq!((foreign.new, foreign.unknown_tasks.len()), (0, 1), "a channel speaks of its own tasks alone");
    assert_eq!(state(&ledger, task_id(1, 1, 1)).await, TaskState::Accepted);
}

pub async fn a_lost_receipt_is_made_good_by_an_event(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=3).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 2).await.unwrap();
    close(&ledger, dispatch.dispatch_id, None, T0).await;
    let sent: Vec<_> = dispatch.tasks.iter().map(|task| task.task_id).collect();
    let not_sent = (1..=3).map(|n| task_id(n, 1, 1)).find(|id| !sent.contains(id)).unwrap();
    let events = [event(sent[0], Outcome::Added), event(sent[1], Outcome::WrongNumber), event(not_sent, Outcome::DoNotCall)];
    let polled = ledger.commit_poll("store-list", &events, None, T0).await.unwrap();
    assert_eq!((polled.new, polled.suppressed, polled.unexpected), (3, 2, vec![not_sent]));
    assert_eq!(state(&ledger, sent[0]).await, TaskState::Delivered);
    assert_eq!(state(&ledger, sent[1]).await, TaskState::Rejected);
    assert_eq!(state(&ledger, not_sent).await, TaskState::Planned, "what was never sent cannot be done");
    let history = ledger.task(sent[0]).await.unwrap().unwrap().history;
    let states: Vec<_> = history.iter().map(|change| change.state.name()).collect();
    assert_eq!(states, ["planned", "sending", "unknown", "accepted", "delivered"]);
}
