use std::collections::HashSet;

use reunion_ledger::{LedgerError, NewSuppression, NewTask, Receipt};
use reunion_model::{TaskId, TaskState, Verdict};

use crate::common::*;

fn receipt(task_id: TaskId, verdict: Verdict) -> Receipt {
    let retry_after_ms = (verdict == Verdict::NotSent).then_some(2_000);
    Receipt { task_id, verdict, retry_after_ms, code: Some("7".into()), message: None }
}

pub async fn a_group_is_claimed_whole_and_in_order(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let mut tasks: Vec<NewTask> = (1..=5).map(|n| task(&world, n)).collect();
    tasks[4].group = "other".into();
    tasks[3].not_before_us = T0 + SECOND;
    tasks[2].store = None;
    plan(&ledger, &lease, tasks).await;

    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!(due.groups.iter().map(|group| (group.key.as_str(), group.tasks)).collect::<Vec<_>>(), [("all", 3), ("other", 1)]);
    assert_eq!((due.next_us, due.in_flight), (Some(T0 + SECOND), 0));
    assert_eq!(ledger.group_tasks("store-list", &due.groups[0], T0).await.unwrap().len(), 3);

    let dispatch = ledger.claim_dispatch("store-list", &due.groups[0], T0, 100).await.unwrap().unwrap();
    let ids = |tasks: &[u32]| tasks.iter().map(|n| task_id(*n, 1, 1)).collect::<Vec<_>>();
    assert_eq!(dispatch.tasks.iter().map(|task| task.task_id).collect::<Vec<_>>(), ids(&[3, 1, 2]), "no store, S1, S2");
    assert_eq!((dispatch.ordinal, dispatch.pushes, dispatch.run_id, dispatch.run_clock_us), (1, 1, run_id(1), T0));
    assert_eq!(dispatch.tasks[1].payload, task(&world, 1).payload);
    assert_eq!(ledger.due("store-list", T0).await.unwrap().in_flight, 1);
    assert_eq!(ledger.claim_dispatch("store-list", &due.groups[0], T0, 100).await.unwrap(), None);

    let group = only_of(&ledger, "all", T0 + SECOND).await;
    let later = ledger.claim_dispatch("store-list", &group, T0 + SECOND, 100).await.unwrap().unwrap();
    assert_eq!((later.ordinal, later.tasks.len()), (2, 1));
    assert_ne!(later.dispatch_id, dispatch.dispatch_id);
    let detail = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap();
    assert_eq!((detail.task.state, detail.task.attempts, detail.task.sent_us), (TaskState::Sending, 1, Some(T0)));
    assert_eq!(detail.history.last().unwrap().dispatch_id, Some(dispatch.dispatch_id));
}

async fn only_of(ledger: &reunion_ledger::Ledger, key: &str, now_us: i64) -> reunion_ledger::Group {
    let due = ledger.due("store-list", now_us).await.unwrap();
    due.groups.into_iter().find(|group| group.key == key).unwrap()
}

pub async fn two_claimers_never_get_the_same_task(world: World) {
    let ledgers = [world.open().await, world.open().await, world.open().await];
    let lease = begin(&ledgers[0]).await;
    plan(&ledgers[0], &lease, (0..600).map(|n| task(&world, n)).collect()).await;
    let claimers = ledgers.map(|ledger| {
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let Some(group) = ledger.due("store-list", T0).await.unwrap().groups.pop() else { return claimed };
                if let Some(dispatch) = ledger.claim_dispatch("store-list", &group, T0, 50).await.unwrap() {
                    claimed.push(dispatch);
                }
            }
        })
    });
    let mut dispatches = Vec::new();
    for claimer in claimers {
        dispatches.extend(claimer.await.unwrap());
    }
    let tasks: Vec<_> = dispatches.iter().flat_map(|dispatch| &dispatch.tasks).map(|task| task.task_id).collect();
    assert_eq!((tasks.len(), tasks.iter().collect::<HashSet<_>>().len()), (600, 600));
    let mut ordinals: Vec<_> = dispatches.iter().map(|dispatch| dispatch.ordinal).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, (1..=dispatches.len() as u32).collect::<Vec<_>>());
    assert!(dispatches.iter().all(|dispatch| dispatch.tasks.len() == 50), "no claim was split by another");
}

pub async fn whoever_is_suppressed_is_not_sent_to(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=3).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let suppress = |n, until_us| NewSuppression {
        phone: phone(n),
        reason: "asked".into(),
        source: "operator".into(),
        since_us: T0,
        until_us,
        set_by: "root".into(),
    };
    ledger.suppress(&suppress(1, None)).await.unwrap();
    ledger.suppress(&suppress(2, Some(T0))).await.unwrap();
    let dispatch = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap();
    assert_eq!(dispatch.tasks.len(), 2, "one suppression is over");
    let refused = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((refused.state, refused.code.as_deref()), (TaskState::Refused, Some("suppressed")));

    // Tried before, suppressed since: it is cancelled, and the group is gone.
    ledger.record_receipts(dispatch.dispatch_id, &[receipt(task_id(3, 1, 1), Verdict::NotSent)], 9, T0).await.unwrap();
    ledger.close_dispatch(dispatch.dispatch_id, None, T0).await.unwrap();
    ledger.requeue(&Default::default(), "root", T0).await.unwrap();
    ledger.suppress(&suppress(3, None)).await.unwrap();
    ledger.suppress(&suppress(2, None)).await.unwrap();
    let group = only_group(&ledger, T0 + SECOND).await;
    assert_eq!(group.tasks, 2, "one not sent, one requeued");
    assert_eq!(ledger.claim_dispatch("store-list", &group, T0 + SECOND, 100).await.unwrap(), None);
    assert_eq!(state(&ledger, task_id(3, 1, 1)).await, TaskState::Cancelled);
    assert_eq!(state(&ledger, task_id(2, 1, 1)).await, TaskState::Unknown, "it may have been sent");
    assert!(ledger.due("store-list", T0 + SECOND).await.unwrap().groups.is_empty());
}

pub async fn receipts_move_tasks_once(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=6).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap();
    let id = dispatch.dispatch_id;
    let verdicts = [Verdict::Accepted, Verdict::Rejected, Verdict::NotSent, Verdict::Unknown, Verdict::Delivered];
    let mut receipts: Vec<_> = verdicts.iter().enumerate().map(|(at, verdict)| receipt(task_id(at as u32 + 1, 1, 1), *verdict)).collect();
    receipts.push(receipt(task_id(1, 1, 1), Verdict::Rejected));
    receipts.push(receipt(task_id(99, 1, 1), Verdict::Accepted));
    let recorded = ledger.record_receipts(id, &receipts, 9, T0).await.unwrap();
    assert_eq!((recorded.stored, recorded.ignored), (5, vec![task_id(1, 1, 1), task_id(99, 1, 1)]));
    let late = ledger.record_receipts(id, &[receipt(task_id(2, 1, 1), Verdict::Accepted)], 9, T0).await.unwrap();
    assert_eq!((late.stored, late.ignored.len()), (0, 1), "the first receipt counts");
    assert_eq!(ledger.close_dispatch(id, None, T0).await.unwrap().unknown, 2);

    let mut states = Vec::new();
    for n in 1..=6 {
        states.push(state(&ledger, task_id(n, 1, 1)).await.name());
    }
    assert_eq!(states, ["accepted", "rejected", "not_sent", "unknown", "delivered", "unknown"]);
    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!((due.groups.len(), due.next_us), (0, Some(T0 + 2 * SECOND)), "after the receipt's delay");
    assert_eq!(only_group(&ledger, T0 + 2 * SECOND).await.tasks, 1);
    let touches = ledger.touches("warm-add").await.unwrap();
    assert_eq!((touches[&contact(&world, 1)].touches, touches[&contact(&world, 1)].last_touch_us), (1, Some(T0)));
    assert_eq!(touches[&contact(&world, 4)].touches, 1, "it may have been sent");
    assert!(touches[&contact(&world, 3)].open);
}

pub async fn a_crash_repeats_the_same_dispatch(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=4).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap();
    let receipts = [receipt(task_id(1, 1, 1), Verdict::Accepted), receipt(task_id(2, 1, 1), Verdict::NotSent)];
    ledger.record_receipts(dispatch.dispatch_id, &receipts, 9, T0).await.unwrap();
    assert!(ledger.resume_dispatches("store-list", true, T0).await.unwrap().dispatches.is_empty(), "it is still being pushed");
    let later = T0 + 60 * SECOND;
    assert!(ledger.due("store-list", later).await.unwrap().groups.is_empty(), "no task leaves a dispatch that is not closed");

    // The process is gone; another one finds what it left.
    ledger.renew_dispatches().await.unwrap();
    let heir = world.open().await;
    if heir.is_shared() {
        assert!(heir.resume_dispatches("store-list", true, later).await.unwrap().dispatches.is_empty(), "its holder renewed");
        world.execute("update dispatches set held_until_us = 0").await;
    }
    let resumed = heir.resume_dispatches("store-list", true, later).await.unwrap().dispatches.pop().unwrap();
    assert_eq!((resumed.dispatch_id, resumed.ordinal, resumed.pushes), (dispatch.dispatch_id, 1, 2));
    assert_eq!(resumed.tasks, dispatch.tasks, "the same tasks in the same order");
    assert_eq!(state(&heir, task_id(2, 1, 1)).await, TaskState::Sending);
    let receipts: Vec<_> = (1..=4).map(|n| receipt(task_id(n, 1, 1), Verdict::Accepted)).collect();
    let recorded = heir.record_receipts(dispatch.dispatch_id, &receipts, 9, later).await.unwrap();
    assert_eq!((recorded.stored, recorded.ignored), (3, vec![task_id(1, 1, 1)]), "one was accepted the first time");
    assert_eq!(heir.close_dispatch(dispatch.dispatch_id, None, later).await.unwrap().unknown, 0);
    assert!(heir.resume_dispatches("store-list", true, later).await.unwrap().dispatches.is_empty());
}

pub async fn a_channel_that_repeats_is_not_trusted_twice(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=2).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap();
    ledger.record_receipts(dispatch.dispatch_id, &[receipt(task_id(1, 1, 1), Verdict::Accepted)], 9, T0).await.unwrap();
    world.execute("update dispatches set held_until_us = 0").await;
    let heir = world.open().await;
    let resumed = heir.resume_dispatches("store-list", false, T0).await.unwrap();
    assert_eq!((resumed.dispatches.len(), resumed.unknown), (0, 1));
    assert_eq!(state(&heir, task_id(1, 1, 1)).await, TaskState::Accepted);
    assert_eq!(state(&heir, task_id(2, 1, 1)).await, TaskState::Unknown);
    assert!(heir.due("store-list", T0).await.unwrap().groups.is_empty());
}

pub async fn a_failed_push_is_tried_again_as_it_was(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=3).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap();
    let again = T0 + 5 * SECOND;
    assert_eq!(ledger.close_dispatch(dispatch.dispatch_id, Some(again), T0).await.unwrap().unknown, 3);
    assert_eq!(state(&ledger, task_id(1, 1, 1)).await, TaskState::Unknown);
    assert_eq!(ledger.due("store-list", T0).await.unwrap().next_us, Some(again));
    assert!(ledger.resume_dispatches("store-list", true, again - 1).await.unwrap().dispatches.is_empty());
    ledger.requeue(&Default::default(), "root", T0).await.unwrap();
    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!((due.groups.len(), due.in_flight), (0, 0), "it is not torn apart by a requeue");
    let resumed = ledger.resume_dispatches("store-list", true, T0).await.unwrap().dispatches.pop().expect("it is pushed at once");
    assert_eq!((resumed.dispatch_id, resumed.pushes, resumed.tasks), (dispatch.dispatch_id, 2, dispatch.tasks));
    let receipts: Vec<_> = (1..=3).map(|n| receipt(task_id(n, 1, 1), Verdict::Accepted)).collect();
    assert_eq!(ledger.record_receipts(dispatch.dispatch_id, &receipts, 9, again).await.unwrap().stored, 3);
    assert_eq!(ledger.close_dispatch(dispatch.dispatch_id, Some(again), again).await.unwrap().unknown, 0);
    assert_eq!(ledger.due("store-list", again).await.unwrap().next_us, None, "nothing is left to be tried again");
}

pub async fn too_many_attempts_end_a_task(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let mut now = T0;
    for attempt in 1..=2 {
        let group = only_group(&ledger, now).await;
        let dispatch = ledger.claim_dispatch("store-list", &group, now, 100).await.unwrap().unwrap();
        assert_eq!(dispatch.ordinal, attempt);
        ledger.record_receipts(dispatch.dispatch_id, &[receipt(task_id(1, 1, 1), Verdict::NotSent)], 2, now).await.unwrap();
        ledger.close_dispatch(dispatch.dispatch_id, None, now).await.unwrap();
        now += 10 * SECOND;
    }
    let task = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((task.state, task.code.as_deref(), task.attempts), (TaskState::Rejected, Some("attempts_max"), 2));
}

pub async fn a_lost_dispatch_takes_no_receipts(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let group = only_group(&ledger, T0).await;
    let id = ledger.claim_dispatch("store-list", &group, T0, 100).await.unwrap().unwrap().dispatch_id;
    world.execute("update dispatches set held_until_us = 0").await;
    let heir = world.open().await;
    assert_eq!(heir.resume_dispatches("store-list", true, T0).await.unwrap().dispatches.len(), 1);
    let errors = [
        ledger.record_receipts(id, &[receipt(task_id(1, 1, 1), Verdict::Accepted)], 9, T0).await.unwrap_err(),
        ledger.close_dispatch(id, None, T0).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, LedgerError::DispatchLost { .. }), "{error}");
    }
    assert_eq!(state(&heir, task_id(1, 1, 1)).await, TaskState::Sending);
    heir.close_dispatch(id, None, T0).await.unwrap();
    let error = heir.close_dispatch(id, None, T0).await.unwrap_err();
    assert!(matches!(error, LedgerError::DispatchLost { .. }), "a closed dispatch stays closed: {error}");
}
