use std::time::Duration;

use reunion_ledger::{Arm, ArmKind, Committed, Component, ComponentKind, GenerationCommit, Head, Lease, LedgerError, Segment};
use reunion_model::plugin::ReadMode;
use reunion_model::{Gate, MemberId, PullId, TaskState};
use serde_json::json;

use crate::common::*;

pub async fn a_commit_moves_the_head_once(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    ledger.commit_generation(&lease, &commit(None, 1)).await.unwrap();
    let head = ledger.head().await.unwrap().unwrap();
    assert_eq!((head.generation, head.fence, head.run_id), (1, lease.fence, run_id(1)));
    assert_eq!(ledger.run(run_id(1)).await.unwrap().unwrap().generation, Some(1));
    for base in [None, Some(7)] {
        let error = ledger.commit_generation(&lease, &commit(base, 2)).await.unwrap_err();
        assert!(matches!(error, LedgerError::HeadMoved { base: b, found: Some(1) } if b == base), "{error}");
    }
    let error = ledger.commit_generation(&lease, &commit(Some(1), 1)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Exists { what: "generation", .. }), "{error}");
    ledger.commit_generation(&lease, &commit(Some(1), 2)).await.unwrap();
    assert_eq!(ledger.generations(10).await.unwrap().iter().map(|head| head.generation).collect::<Vec<_>>(), [2, 1]);
}

pub async fn a_failed_commit_leaves_nothing(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;

    // The last task of many violates the key of its touch.
    let mut tasks: Vec<_> = (2..400).map(|n| task(&world, n)).collect();
    tasks.push(touch(&world, 1, 1, 2));
    let void = GenerationCommit {
        tasks,
        arms: vec![Arm { campaign: "warm-add".into(), contact: contact(&world, 5), arm: ArmKind::Control }],
        regate: vec![(task_id(1, 1, 1), Gate::Gone)],
        components: vec![Component { kind: ComponentKind::Source, name: "pos".into(), seed: None }],
        ..commit(Some(1), 2)
    };
    // Cancelling the first task would free the touch; here it stays.
    let void = GenerationCommit { regate: vec![], ..void };
    let error = ledger.commit_generation(&lease, &void).await.unwrap_err();
    assert!(matches!(error, LedgerError::Exists { what: "task", .. }), "{error}");
    assert_eq!(ledger.head().await.unwrap().unwrap().generation, 1);
    assert_eq!(ledger.open_tasks().await.unwrap().len(), 1);
    assert!(ledger.arms("warm-add").await.unwrap().is_empty());
    assert!(ledger.components().await.unwrap().is_empty());
    assert_eq!(ledger.generations(10).await.unwrap().len(), 1);

    // A commit that is cut off in the middle: the future is dropped while it runs.
    let half = GenerationCommit { tasks: (2..5000).map(|n| task(&world, n)).collect(), ..commit(Some(1), 3) };
    let cut = tokio::time::timeout(Duration::from_millis(30), ledger.commit_generation(&lease, &half)).await;
    let tasks = ledger.open_tasks().await.unwrap().len();
    let generation = ledger.head().await.unwrap().unwrap().generation;
    let all_or_nothing = if cut.is_ok() { (4999, 3) } else { (1, 1) };
    assert_eq!((tasks, generation), all_or_nothing);
}

pub async fn numbers_are_never_used_again(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let given = ledger.next_generation(&lease).await.unwrap();
    assert!(ledger.next_generation(&lease).await.unwrap() > given, "though nothing was committed");
}

pub async fn a_rollback_replays_what_came_later(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let first = plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let pull = PullId([1; 16]);
    ledger.begin_pull(&lease, "pos", pull, ReadMode::Incremental, T0).await.unwrap();
    ledger.end_pull(&lease, pull, Some(&json!("here")), None, T0).await.unwrap();
    let second = ledger.next_generation(&lease).await.unwrap();
    let later = GenerationCommit { pulls: vec![pull], tasks: vec![task(&world, 2)], ..commit(Some(first), second) };
    ledger.commit_generation(&lease, &later).await.unwrap();

    let back = ledger.rollback(&lease, first, "root", T0 + SECOND).await.unwrap();
    assert_eq!((back.from, back.pulls_to_replay, back.tasks_cancelled), (second, 1, 1));
    assert_eq!(ledger.head().await.unwrap().unwrap().generation, first);
    assert_eq!(ledger.source_state("pos").await.unwrap().pending.len(), 1, "its rows are taken in again");
    assert_eq!(ledger.source_state("pos").await.unwrap().last.unwrap().state, Some(json!("here")));
    assert_eq!(state(&ledger, task_id(1, 1, 1)).await, TaskState::Planned);
    assert_eq!(state(&ledger, task_id(2, 1, 1)).await, TaskState::Cancelled);
    for gone in [second, 99] {
        let error = ledger.rollback(&lease, gone, "root", T0).await.unwrap_err();
        assert!(matches!(error, LedgerError::NotFound { what: "generation", .. }), "{error}");
    }
    let third = ledger.next_generation(&lease).await.unwrap();
    assert!(third > second);
    let again = GenerationCommit { pulls: vec![pull], tasks: vec![touch(&world, 2, 1, 2)], ..commit(Some(first), third) };
    ledger.commit_generation(&lease, &again).await.unwrap();
    assert_eq!(ledger.generations(10).await.unwrap().iter().map(|head| head.generation).collect::<Vec<_>>(), [third, first]);
    assert_eq!(ledger.audit(1).await.unwrap()[0].what, "rollback");
}

pub async fn arms_are_drawn_once_and_control_wins(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let arm = |n, arm| Arm { campaign: "warm-add".into(), contact: contact(&world, n), arm };
    let first = GenerationCommit { arms: vec![arm(1, ArmKind::Control), arm(2, ArmKind::Treatment)], ..commit(None, 1) };
    ledger.commit_generation(&lease, &first).await.unwrap();
    let second = GenerationCommit { arms: vec![arm(1, ArmKind::Treatment), arm(2, ArmKind::Control)], ..commit(Some(1), 2) };
    ledger.commit_generation(&lease, &second).await.unwrap();
    let arms = ledger.arms("warm-add").await.unwrap();
    assert_eq!((arms[&contact(&world, 1)], arms[&contact(&world, 2)]), (ArmKind::Control, ArmKind::Control));
    assert!(ledger.arms("other").await.unwrap().is_empty());
}

pub async fn tasks_follow_a_merge(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let base = plan(&ledger, &lease, vec![task(&world, 1), task(&world, 2)]).await;
    let member = |n| MemberId::from_u128(n);
    let merge = GenerationCommit {
        forwards: vec![(member(2), member(1))],
        regate: vec![(task_id(2, 1, 1), Gate::Gone), (task_id(9, 1, 1), Gate::Gone)],
        ..commit(Some(base), base + 1)
    };
    assert_eq!(ledger.commit_generation(&lease, &merge).await.unwrap(), Committed { regated: 1 });
    let detail = ledger.task(task_id(2, 1, 1)).await.unwrap().unwrap();
    assert_eq!((detail.task.member, detail.task.state, detail.task.code.as_deref()), (member(1), TaskState::Cancelled, Some("gone")));
    assert_eq!(detail.history.last().unwrap().state, TaskState::Cancelled);
}

pub async fn tasks_follow_a_split(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let base = plan(&ledger, &lease, vec![task(&world, 1), task(&world, 2), task(&world, 3)]).await;
    let member = |n| MemberId::from_u128(n);
    let forwards = vec![(member(2), member(1)), (member(3), member(1))];
    ledger.commit_generation(&lease, &GenerationCommit { forwards, ..commit(Some(base), base + 1) }).await.unwrap();
    // Two of the three leave again, each with its number. Nobody else's tasks move.
    let moved = vec![
        (member(1), contact(&world, 2), member(12)),
        (member(1), contact(&world, 3), member(13)),
        (member(7), contact(&world, 1), member(8)),
    ];
    let split = GenerationCommit { moved, ..commit(Some(base + 1), base + 2) };
    ledger.commit_generation(&lease, &split).await.unwrap();
    for (n, expected) in [(1, 1), (2, 12), (3, 13)] {
        assert_eq!(ledger.task(task_id(n, 1, 1)).await.unwrap().unwrap().task.member, member(expected));
    }
}

pub async fn components_keep_their_seed(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let campaign = |seed| Component { kind: ComponentKind::Campaign, name: "warm-add".into(), seed };
    let source = Component { kind: ComponentKind::Source, name: "pos".into(), seed: None };
    let first = GenerationCommit { components: vec![campaign(Some([1; 16])), source], ..commit(None, 1) };
    ledger.commit_generation(&lease, &first).await.unwrap();
    let second = GenerationCommit { components: vec![campaign(Some([2; 16]))], ..commit(Some(1), 2) };
    ledger.commit_generation(&lease, &second).await.unwrap();
    let all = ledger.components().await.unwrap();
    assert_eq!(all.iter().map(|component| component.name.as_str()).collect::<Vec<_>>(), ["warm-add", "pos"]);
    assert_eq!((all[0].seed, all[0].since_us, all[0].retired_us), (Some([1; 16]), T0, None));
}

pub async fn a_renamed_campaign_keeps_its_touches(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let components = ["warm-add", "other"].map(|name| Component { kind: ComponentKind::Campaign, name: name.into(), seed: Some([3; 16]) });
    let first = GenerationCommit { components: components.to_vec(), tasks: vec![task(&world, 1)], ..commit(None, 1) };
    ledger.commit_generation(&lease, &first).await.unwrap();
    let rename = |old, new| {
        let (ledger, lease) = (ledger.clone(), lease);
        async move { ledger.rename(&lease, ComponentKind::Campaign, old, new, "me", T0).await }
    };
    assert!(matches!(rename("warm-add", "other").await, Err(LedgerError::Exists { .. })));
    assert!(matches!(rename("none", "new").await, Err(LedgerError::NotFound { .. })));
    rename("warm-add", "add").await.unwrap();
    assert!(ledger.touches("warm-add").await.unwrap().is_empty());
    assert!(ledger.touches("add").await.unwrap()[&contact(&world, 1)].open);
    ledger.task(task_id(1, 1, 1)).await.unwrap().expect("its payload still opens");
    let renamed = ledger.components().await.unwrap();
    assert!(
        renamed.iter().any(|component| component.name == "add" && component.origin == "warm-add" && component.seed == Some([3; 16])),
        "{renamed:?}"
    );
}

pub async fn a_retired_campaign_sends_nothing(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let component = Component { kind: ComponentKind::Campaign, name: "warm-add".into(), seed: None };
    let first = GenerationCommit { components: vec![component], tasks: vec![task(&world, 1)], ..commit(None, 1) };
    ledger.commit_generation(&lease, &first).await.unwrap();
    ledger.retire(&lease, ComponentKind::Campaign, "warm-add", "me", T0).await.unwrap();
    assert_eq!(state(&ledger, task_id(1, 1, 1)).await, TaskState::Cancelled);
    assert_eq!(ledger.components().await.unwrap()[0].retired_us, Some(T0));
    let again = ledger.retire(&lease, ComponentKind::Campaign, "warm-add", "me", T0).await.unwrap_err();
    assert!(matches!(again, LedgerError::NotFound { .. }), "{again}");
}

pub async fn a_renamed_source_keeps_its_pulls(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let component = Component { kind: ComponentKind::Source, name: "pos".into(), seed: None };
    ledger.commit_generation(&lease, &GenerationCommit { components: vec![component], ..commit(None, 1) }).await.unwrap();
    let pull = PullId([1; 16]);
    ledger.begin_pull(&lease, "pos", pull, ReadMode::Incremental, T0).await.unwrap();
    ledger.rename(&lease, ComponentKind::Source, "pos", "till", "me", T0).await.unwrap();
    assert_eq!(ledger.source_state("till").await.unwrap().open.unwrap().pull_id, pull);
    ledger.retire(&lease, ComponentKind::Source, "till", "me", T0).await.unwrap();
    assert_eq!(ledger.source_state("till").await.unwrap().open, None);
}

pub async fn what_no_kept_generation_needs_is_forgotten(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let pull = |n: u8| PullId([n; 16]);
    let segment = |n| Segment { pull_id: pull(n), seq: 0, rows: 1, bytes: 1, files: vec![], document: json!(null) };
    let dropped = pull(9);
    ledger.begin_pull(&lease, "pos", dropped, ReadMode::Snapshot, T0).await.unwrap();
    ledger.drop_pull(&lease, dropped).await.unwrap();
    for n in 1..=4 {
        ledger.begin_pull(&lease, "pos", pull(n), ReadMode::Snapshot, T0).await.unwrap();
        ledger.commit_segment(&lease, &segment(n), &json!(n)).await.unwrap();
        ledger.end_pull(&lease, pull(n), None, Some(T0), T0).await.unwrap();
        let base = (n > 1).then(|| u64::from(n) - 1);
        ledger.commit_generation(&lease, &GenerationCommit { pulls: vec![pull(n)], ..commit(base, n.into()) }).await.unwrap();
    }
    assert_eq!(ledger.forget_before(&lease, 3).await.unwrap(), 4, "the dropped one, and those of generations 1 to 3");
    assert_eq!(ledger.forget_before(&lease, 3).await.unwrap(), 0);
    let kept = |heads: Vec<Head>| heads.iter().map(|head| head.generation).collect::<Vec<_>>();
    assert_eq!(kept(ledger.generations(10).await.unwrap()), [4, 3]);
    let missing = ledger.rollback(&lease, 2, "me", T0).await.unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound { what: "generation", .. }), "{missing}");
    assert_eq!(ledger.rollback(&lease, 3, "me", T0).await.unwrap().pulls_to_replay, 1);
    let state = ledger.source_state("pos").await.unwrap();
    assert_eq!(state.pending[0].segments, [segment(4)]);
    // The last pull stays, whoever took it in: the next begins from its state.
    ledger.commit_generation(&lease, &GenerationCommit { pulls: vec![pull(4)], ..commit(Some(3), 5) }).await.unwrap();
    assert_eq!(ledger.forget_before(&lease, 5).await.unwrap(), 0);
    assert_eq!(ledger.source_state("pos").await.unwrap().last.unwrap().state, Some(json!(4)));
    let other = Lease { fence: lease.fence + 1 };
    assert!(matches!(ledger.forget_before(&other, 5).await.unwrap_err(), LedgerError::FenceLost { .. }));
}
