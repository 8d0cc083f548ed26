use std::collections::HashSet;

use reunion_ledger::{Dispatch, Ledger, LedgerError, NewSuppression, NewTask, Pushed, Receipt, Settled};
use reunion_model::{TaskId, TaskState, Verdict};

use crate::common::*;

fn receipt(task_id: TaskId, verdict: Verdict) -> Receipt {
    let retry_after_ms = verdict.is_put_off().then_some(2_000);
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
    let due_tasks = ledger.due_tasks("store-list", T0).await.unwrap();
    let ids = |tasks: &[u32]| tasks.iter().map(|n| task_id(*n, 1, 1)).collect::<Vec<_>>();
    assert_eq!(
        due_tasks.iter().map(|task| task.task_id).collect::<Vec<_>>(),
        ids(&[1, 2, 3, 5]),
        "of all groups, those whose time has come"
    );

    let dispatch = claim(&ledger, "store-list", &due.groups[0], T0, 100).await.unwrap();
    assert_eq!(dispatch.tasks.iter().map(|task| task.task_id).collect::<Vec<_>>(), ids(&[3, 1, 2]), "no store, S1, S2");
    assert_eq!((dispatch.ordinal, dispatch.pushes, dispatch.run_id, dispatch.run_clock_us), (1, 1, run_id(1), T0));
    assert_eq!(dispatch.tasks[1].payload, task(&world, 1).payload);
    assert_eq!(ledger.due("store-list", T0).await.unwrap().in_flight, 1);
    assert_eq!(claim(&ledger, "store-list", &due.groups[0], T0, 100).await, None);

    let group = only_of(&ledger, "all", T0 + SECOND).await;
    let later = claim(&ledger, "store-list", &group, T0 + SECOND, 100).await.unwrap();
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
                if let Some(dispatch) = claim(&ledger, "store-list", &group, T0, 50).await {
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
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    assert_eq!(dispatch.tasks.len(), 2, "one suppression is over");
    let refused = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((refused.state, refused.code.as_deref()), (TaskState::Refused, Some("suppressed")));

    // Tried before, suppressed since: it is cancelled, and the group is gone.
    ledger.record_receipts(dispatch.dispatch_id, &[receipt(task_id(3, 1, 1), Verdict::NotSent)], 9, T0).await.unwrap();
    close(&ledger, dispatch.dispatch_id, None, T0).await;
    ledger.requeue(&Default::default(), "root", T0).await.unwrap();
    ledger.suppress(&suppress(3, None)).await.unwrap();
    ledger.suppress(&suppress(2, None)).await.unwrap();
    let group = only_group(&ledger, T0 + SECOND).await;
    assert_eq!(group.tasks, 2, "one not sent, one requeued");
    assert_eq!(claim(&ledger, "store-list", &group, T0 + SECOND, 100).await, None);
    assert_eq!(state(&ledger, task_id(3, 1, 1)).await, TaskState::Cancelled);
    assert_eq!(state(&ledger, task_id(2, 1, 1)).await, TaskState::Unknown, "it may have been sent");
    assert!(ledger.due("store-list", T0 + SECOND).await.unwrap().groups.is_empty());
}

pub async fn receipts_move_tasks_once(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=6).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    let id = dispatch.dispatch_id;
    let verdicts = [Verdict::Accepted, Verdict::Rejected, Verdict::NotSent, Verdict::Unknown, Verdict::Delivered];
    let mut receipts: Vec<_> = verdicts.iter().enumerate().map(|(at, verdict)| receipt(task_id(at as u32 + 1, 1, 1), *verdict)).collect();
    receipts.push(receipt(task_id(1, 1, 1), Verdict::Rejected));
    receipts.push(receipt(task_id(99, 1, 1), Verdict::Accepted));
    let recorded = ledger.record_receipts(id, &receipts, 9, T0).await.unwrap();
    assert_eq!((recorded.stored, recorded.ignored), (5, vec![task_id(1, 1, 1), task_id(99, 1, 1)]));
    let late = ledger.record_receipts(id, &[receipt(task_id(2, 1, 1), Verdict::Accepted)], 9, T0).await.unwrap();
    assert_eq!((late.stored, late.ignored.len()), (0, 1), "the first receipt counts");
    assert_eq!(close(&ledger, id, None, T0).await.unknown, 2);

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
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    let receipts = [receipt(task_id(1, 1, 1), Verdict::Accepted), receipt(task_id(2, 1, 1), Verdict::NotSent)];
    ledger.record_receipts(dispatch.dispatch_id, &receipts, 9, T0).await.unwrap();
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
    assert_eq!(close(&heir, dispatch.dispatch_id, None, later).await.unknown, 0);
    assert!(heir.resume_dispatches("store-list", true, later).await.unwrap().dispatches.is_empty());
}

pub async fn what_could_not_be_settled_is_taken_up_by_its_holder(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=2).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    // It was pushed, and the database was away when its receipts were to be stored.
    let resumed = ledger.resume_dispatches("store-list", true, T0).await.unwrap().dispatches.pop().unwrap();
    assert_eq!((resumed.dispatch_id, resumed.pushes, resumed.tasks), (dispatch.dispatch_id, 2, dispatch.tasks));
    let resumed = ledger.resume_dispatches("store-list", false, T0).await.unwrap();
    assert_eq!((resumed.dispatches.len(), resumed.unknown), (0, 2), "where it cannot be repeated nobody knows");
}

pub async fn a_channel_that_repeats_is_not_trusted_twice(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=2).map(|n| task(&world, n)).collect()).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
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
    let dispatch = claim(&ledger, "store-list", &group, T0, 100).await.unwrap();
    let again = T0 + 5 * SECOND;
    assert_eq!(close(&ledger, dispatch.dispatch_id, Some(again), T0).await.unknown, 3);
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
    assert_eq!(close(&ledger, dispatch.dispatch_id, Some(again), again).await.unknown, 0);
    assert_eq!(ledger.due("store-list", again).await.unwrap().next_us, None, "nothing is left to be tried again");
}

pub async fn too_many_attempts_end_a_task(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let mut now = T0;
    for attempt in 1..=2 {
        let group = only_group(&ledger, now).await;
        let dispatch = claim(&ledger, "store-list", &group, now, 100).await.unwrap();
        assert_eq!(dispatch.ordinal, attempt);
        ledger.record_receipts(dispatch.dispatch_id, &[receipt(task_id(1, 1, 1), Verdict::NotSent)], 2, now).await.unwrap();
        close(&ledger, dispatch.dispatch_id, None, now).await;
        now += 10 * SECOND;
    }
    let task = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((task.state, task.code.as_deref(), task.attempts), (TaskState::Rejected, Some("attempts_max"), 2));
}

pub async fn a_busy_channel_costs_no_attempt(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1), task(&world, 2)]).await;
    let mut now = T0;
    for _ in 1..=4 {
        let group = only_group(&ledger, now).await;
        let dispatch = claim(&ledger, "store-list", &group, now, 100).await.unwrap();
        assert_eq!(ledger.given_since("store-list", T0).await.unwrap(), 2, "both are under way");
        let receipts = [1, 2].map(|n| receipt(task_id(n, 1, 1), Verdict::Busy));
        ledger.record_receipts(dispatch.dispatch_id, &receipts, 2, now).await.unwrap();
        close(&ledger, dispatch.dispatch_id, None, now).await;
        assert_eq!(ledger.due("store-list", now).await.unwrap().next_us, Some(now + 2 * SECOND), "after the receipt's delay");
        now += 10 * SECOND;
    }
    let task = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((task.state, task.attempts), (TaskState::NotSent, 0));
    assert_eq!(ledger.given_since("store-list", T0).await.unwrap(), 0, "it took none of them");
    let group = only_group(&ledger, now).await;
    let dispatch = claim(&ledger, "store-list", &group, now, 1).await.unwrap();
    ledger.record_receipts(dispatch.dispatch_id, &[receipt(dispatch.tasks[0].task_id, Verdict::Accepted)], 2, now).await.unwrap();
    assert_eq!(ledger.given_since("store-list", now).await.unwrap(), 1);
    assert_eq!(ledger.given_since("store-list", now + 1).await.unwrap(), 0);
    assert_eq!(ledger.given_since("another", T0).await.unwrap(), 0);
}

pub async fn a_lost_dispatch_takes_no_receipts(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let group = only_group(&ledger, T0).await;
    let id = claim(&ledger, "store-list", &group, T0, 100).await.unwrap().dispatch_id;
    world.execute("update dispatches set held_until_us = 0").await;
    let heir = world.open().await;
    assert_eq!(heir.resume_dispatches("store-list", true, T0).await.unwrap().dispatches.len(), 1);
    let accepted = receipt(task_id(1, 1, 1), Verdict::Accepted);
    let error = ledger.record_receipts(id, std::slice::from_ref(&accepted), 9, T0).await.unwrap_err();
    assert!(matches!(error, LedgerError::DispatchLost { .. }), "{error}");
    let pushed = Pushed { dispatch_id: id, receipts: vec![accepted], retry_at_us: None };
    let settled = ledger.settle_dispatches(std::slice::from_ref(&pushed), 9, T0).await.unwrap();
    assert_eq!(settled, Settled { lost: vec![id], ..Settled::default() });
    assert_eq!(state(&heir, task_id(1, 1, 1)).await, TaskState::Sending);
    close(&heir, id, None, T0).await;
    assert_eq!(heir.settle_dispatches(&[pushed], 9, T0).await.unwrap().lost, [id], "a closed dispatch stays closed");
    assert_eq!(state(&heir, task_id(1, 1, 1)).await, TaskState::Unknown);
}

/// Task `n` in a group of its own choice.
fn in_group(world: &World, n: u32, group: &str) -> NewTask {
    NewTask { group: group.into(), ..task(world, n) }
}

async fn suppress(ledger: &Ledger, n: u32) {
    let (reason, source, set_by) = ("asked".into(), "operator".into(), "root".into());
    let suppression = NewSuppression { phone: phone(n), reason, source, since_us: T0, until_us: None, set_by };
    assert!(ledger.suppress(&suppression).await.unwrap());
}

pub async fn groups_are_claimed_together(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let groups = [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c"), (7, "d"), (8, "e")];
    plan(&ledger, &lease, groups.iter().map(|(n, group)| in_group(&world, *n, group)).collect()).await;
    let mut due = ledger.due("store-list", T0).await.unwrap().groups;
    due.reverse();

    let other = world.open().await;
    let taken = claim(&other, "store-list", &due[1], T0, 100).await.unwrap();
    for n in [1, 5, 6] {
        suppress(&ledger, n).await;
    }
    let claimed = ledger.claim_dispatches("store-list", &due, T0, 100).await.unwrap();
    let ids = |tasks: &[u32]| tasks.iter().map(|n| task_id(*n, 1, 1)).collect::<Vec<_>>();
    let given: Vec<_> = claimed.dispatches.iter().map(|dispatch| (dispatch.group.as_str(), tasks_of(dispatch))).collect();
    assert_eq!(given, [("a", ids(&[2])), ("b", ids(&[3, 4])), ("e", ids(&[8]))], "c is suppressed, d is another's");
    assert_eq!((taken.group.as_str(), tasks_of(&taken)), ("d", ids(&[7])));
    assert_eq!(claimed.more, []);
    for dispatch in &claimed.dispatches {
        assert_eq!((dispatch.ordinal, dispatch.pushes, dispatch.run_clock_us), (1, 1, T0));
        for task in &dispatch.tasks {
            let there = ledger.task(task.task_id).await.unwrap().unwrap();
            assert_eq!((there.task.state, there.task.dispatch_id), (TaskState::Sending, Some(dispatch.dispatch_id)));
            assert_eq!(there.history.last().unwrap().dispatch_id, Some(dispatch.dispatch_id));
        }
    }
    for n in [1, 5, 6] {
        assert_eq!(state(&ledger, task_id(n, 1, 1)).await, TaskState::Refused);
    }
    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!((due.groups.len(), due.in_flight), (0, 4), "nothing is left of the group that was suppressed");

    // Whoever comes next finds each as it was claimed.
    world.execute("update dispatches set held_until_us = 0").await;
    let resumed = world.open().await.resume_dispatches("store-list", true, T0).await.unwrap().dispatches;
    let again = |of: &Dispatch| resumed.iter().find(|dispatch| dispatch.dispatch_id == of.dispatch_id).map(tasks_of);
    for dispatch in claimed.dispatches.iter().chain([&taken]) {
        assert_eq!(again(dispatch), Some(tasks_of(dispatch)));
    }
}

fn tasks_of(dispatch: &Dispatch) -> Vec<TaskId> {
    dispatch.tasks.iter().map(|task| task.task_id).collect()
}

pub async fn a_group_of_which_more_is_left_is_named(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let tasks = (1..=5).map(|n| in_group(&world, n, "large")).chain([in_group(&world, 6, "small")]);
    plan(&ledger, &lease, tasks.map(|task| NewTask { store: None, ..task }).collect()).await;
    let mut left = ledger.due("store-list", T0).await.unwrap().groups;
    let large = left[0].clone();
    suppress(&ledger, 1).await;
    suppress(&ledger, 2).await;
    let mut claims = Vec::new();
    while !left.is_empty() {
        let claimed = ledger.claim_dispatches("store-list", &left, T0, 2).await.unwrap();
        let sizes: Vec<_> =
            claimed.dispatches.iter().map(|dispatch| (dispatch.group.clone(), dispatch.ordinal, dispatch.tasks.len())).collect();
        claims.push((sizes, claimed.more.clone()));
        left = claimed.more;
    }
    let of = |group: &str, ordinal, tasks| (group.to_owned(), ordinal, tasks);
    let expected =
        [(vec![of("small", 1, 1)], vec![large.clone()]), (vec![of("large", 1, 2)], vec![large]), (vec![of("large", 2, 1)], vec![])];
    assert_eq!(claims, expected, "two of the large group were suppressed, and the others follow");
}

pub async fn claimers_of_many_groups_never_get_the_same_task(world: World) {
    const GROUPS: u32 = 12;
    let ledgers = [world.open().await, world.open().await, world.open().await];
    let lease = begin(&ledgers[0]).await;
    plan(&ledgers[0], &lease, (0..GROUPS * 40).map(|n| in_group(&world, n, &format!("group {}", n % GROUPS))).collect()).await;
    let claimers = ledgers.map(|ledger| {
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let groups = ledger.due("store-list", T0).await.unwrap().groups;
                if groups.is_empty() {
                    return claimed;
                }
                let mine = ledger.claim_dispatches("store-list", &groups, T0, 10).await.unwrap().dispatches;
                let receipts = |of: &Dispatch| tasks_of(of).into_iter().map(|task_id| receipt(task_id, Verdict::Accepted)).collect();
                let pushed = mine.iter().map(|of| Pushed { dispatch_id: of.dispatch_id, receipts: receipts(of), retry_at_us: None });
                ledger.renew_dispatches().await.unwrap();
                let settled = ledger.settle_dispatches(&pushed.collect::<Vec<_>>(), 9, T0).await.unwrap();
                assert_eq!((settled.unknown, settled.lost), (0, vec![]));
                claimed.extend(mine);
            }
        })
    });
    let mut dispatches = Vec::new();
    for claimer in claimers {
        dispatches.extend(claimer.await.unwrap());
    }
    let tasks: Vec<_> = dispatches.iter().flat_map(tasks_of).collect();
    assert_eq!((tasks.len(), tasks.iter().collect::<HashSet<_>>().len()), (480, 480));
    assert!(dispatches.iter().all(|dispatch| dispatch.tasks.len() == 10), "no claim was split by another");
    let mut ordinals: Vec<_> = dispatches.iter().map(|dispatch| (dispatch.group.clone(), dispatch.ordinal)).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    assert_eq!((ordinals.len(), ordinals.iter().map(|(_, ordinal)| *ordinal).max()), (48, Some(4)));
}

pub async fn dispatches_are_settled_together(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let groups = [(1, "done"), (2, "done"), (3, "silent"), (4, "silent"), (5, "failed"), (6, "failed"), (7, "lost"), (8, "refused")];
    plan(&ledger, &lease, groups.iter().map(|(n, group)| in_group(&world, *n, group)).collect()).await;
    let due = ledger.due("store-list", T0).await.unwrap().groups;
    let claimed = ledger.claim_dispatches("store-list", &due, T0, 100).await.unwrap().dispatches;
    // As if another process had taken it over.
    world.execute("update dispatches set holder = dispatch_id where group_key = 'lost'").await;
    let again = T0 + 5 * SECOND;
    let pushed = |group: &str, receipts: &[(u32, Verdict)], retry_at_us| {
        let dispatch_id = claimed.iter().find(|dispatch| dispatch.group == group).unwrap().dispatch_id;
        let receipts = receipts.iter().map(|(n, verdict)| receipt(task_id(*n, 1, 1), *verdict)).collect();
        Pushed { dispatch_id, receipts, retry_at_us }
    };
    let all = [
        pushed("done", &[(1, Verdict::Accepted), (2, Verdict::Delivered)], Some(again)),
        pushed("silent", &[(3, Verdict::Accepted)], None),
        pushed("failed", &[(5, Verdict::NotSent)], Some(again)),
        pushed("lost", &[(7, Verdict::Accepted)], None),
        // One that is not its own, and one that was put off.
        pushed("refused", &[(6, Verdict::Accepted), (8, Verdict::NotSent)], None),
    ];
    let settled = ledger.settle_dispatches(&all, 9, T0).await.unwrap();
    assert_eq!((settled.recorded.stored, settled.recorded.ignored), (5, vec![task_id(6, 1, 1)]));
    assert_eq!((settled.unknown, settled.lost), (2, vec![all[3].dispatch_id]));
    let mut states = Vec::new();
    for n in 1..=8 {
        states.push(state(&ledger, task_id(n, 1, 1)).await.name());
    }
    assert_eq!(states, ["accepted", "delivered", "accepted", "unknown", "not_sent", "unknown", "sending", "not_sent"]);

    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!((due.groups.len(), due.next_us, due.in_flight), (0, Some(T0 + 2 * SECOND), 1), "what was put off; and the lost one");
    let due = ledger.due("store-list", T0 + 2 * SECOND).await.unwrap();
    let keys: Vec<_> = due.groups.iter().map(|group| group.key.as_str()).collect();
    assert_eq!((keys, due.next_us), (vec!["refused"], Some(again)), "the failed one is given again as it was");
    world.execute("update dispatches set state = 'closed' where group_key = 'lost'").await;
    let resumed = ledger.resume_dispatches("store-list", true, again).await.unwrap().dispatches;
    let given: Vec<_> = resumed.iter().map(|dispatch| (dispatch.dispatch_id, dispatch.pushes, dispatch.tasks.len())).collect();
    assert_eq!(given, [(all[2].dispatch_id, 2, 2)]);
}
