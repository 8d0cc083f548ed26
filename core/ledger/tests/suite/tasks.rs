use reunion_ledger::{GenerationCommit, LedgerError, Requeued, TaskFilter, Touches};
use reunion_model::{Gate, TaskState};

use crate::common::*;

pub async fn a_touch_is_planned_once(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let base = plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let again = GenerationCommit { tasks: vec![touch(&world, 1, 1, 2)], ..commit(Some(base), base + 1) };
    let error = ledger.commit_generation(&lease, &again).await.unwrap_err();
    assert!(matches!(error, LedgerError::Exists { what: "task", .. }), "{error}");
    let touches = ledger.touches("warm-add").await.unwrap();
    assert_eq!(touches[&contact(&world, 1)], Touches { open: true, ..Touches::default() });
}

pub async fn a_touch_taken_back_is_planned_again(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let base = plan(&ledger, &lease, vec![task(&world, 1)]).await;
    assert_eq!(ledger.refuse(&[(task_id(1, 1, 1), Gate::Stale)], T0).await.unwrap(), 1);
    assert_eq!(ledger.refuse(&[(task_id(1, 1, 1), Gate::Stale)], T0).await.unwrap(), 0, "it moved on");
    let touches = ledger.touches("warm-add").await.unwrap()[&contact(&world, 1)];
    assert_eq!(touches, Touches { next_try: 2, ..Touches::default() });
    let again = GenerationCommit { tasks: vec![touch(&world, 1, 1, touches.next_try)], ..commit(Some(base), base + 1) };
    ledger.commit_generation(&lease, &again).await.unwrap();
    assert_eq!(state(&ledger, task_id(1, 1, 2)).await, TaskState::Planned);
}

pub async fn payloads_are_sealed(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1), task(&world, 2)]).await;
    let detail = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap();
    assert_eq!(detail.payload, task(&world, 1).payload);
    assert_eq!(ledger.task(task_id(3, 1, 1)).await.unwrap(), None);
    // A payload that is moved to another row does not open.
    world.execute("update tasks set payload = (select payload from tasks t where t.touch = 1 and t.store = 'S1') where store = 'S2'").await;
    let error = ledger.task(task_id(2, 1, 1)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Sealed { .. }), "{error}");
    ledger.close().await;
    let mut files = std::fs::read_dir(world.folder()).unwrap().flatten();
    let clear = files.any(|file| std::fs::read(file.path()).unwrap().windows(8).any(|bytes| bytes == b"13900000"));
    assert!(!clear, "no phone stands in the files");
}

pub async fn lists_are_filtered(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=5).map(|n| task(&world, n)).collect()).await;
    ledger.refuse(&[(task_id(5, 1, 1), Gate::Gap)], T0 + SECOND).await.unwrap();
    let count = |filter: TaskFilter| {
        let ledger = ledger.clone();
        async move { ledger.tasks(&filter).await.unwrap().len() }
    };
    let any = TaskFilter::default;
    assert_eq!(count(any()).await, 5);
    assert_eq!(count(TaskFilter { limit: Some(2), ..any() }).await, 2);
    assert_eq!(count(TaskFilter { state: Some(TaskState::Refused), ..any() }).await, 1);
    assert_eq!(count(TaskFilter { since_us: Some(T0 + SECOND), ..any() }).await, 1);
    assert_eq!(count(TaskFilter { contact: Some(contact(&world, 3)), channel: Some("store-list".into()), ..any() }).await, 1);
    assert_eq!(count(TaskFilter { campaign: Some("other".into()), ..any() }).await, 0);
    assert_eq!(count(TaskFilter { run_id: Some(run_id(2)), ..any() }).await, 0);
    let counts = ledger.task_counts(Some(run_id(1))).await.unwrap();
    assert_eq!(
        counts.iter().map(|count| (count.state, count.tasks)).collect::<Vec<_>>(),
        [(TaskState::Planned, 4), (TaskState::Refused, 1)]
    );
}

pub async fn a_gate_takes_open_tasks_back(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (1..=3).map(|n| task(&world, n)).collect()).await;
    let open = ledger.open_tasks().await.unwrap();
    assert_eq!(open.iter().map(|task| task.task_id).collect::<Vec<_>>(), [task_id(1, 1, 1), task_id(2, 1, 1), task_id(3, 1, 1)]);
    assert_eq!((open[0].contact, open[0].store.as_deref(), open[0].touch), (contact(&world, 1), Some("S1"), 1));
    ledger.refuse(&[(task_id(1, 1, 1), Gate::NoConsent)], T0).await.unwrap();
    let detail = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap();
    assert_eq!((detail.task.state, detail.task.code.as_deref()), (TaskState::Refused, Some("no_consent")));
    assert_eq!(detail.history.iter().map(|change| change.state).collect::<Vec<_>>(), [TaskState::Planned, TaskState::Refused]);
}

pub async fn a_task_put_off_is_due_later(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    ledger.postpone(&[(task_id(1, 1, 1), T0 + SECOND)]).await.unwrap();
    let due = ledger.due("store-list", T0).await.unwrap();
    assert_eq!((due.groups.len(), due.next_us), (0, Some(T0 + SECOND)));
    let group = only_group(&ledger, T0 + SECOND).await;
    claim(&ledger, "store-list", &group, T0 + SECOND, 9).await.unwrap();
    ledger.postpone(&[(task_id(1, 1, 1), T0)]).await.unwrap();
    let task = ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task;
    assert_eq!((task.state, task.not_before_us), (TaskState::Sending, T0 + SECOND), "it is on its way");
}

pub async fn requeue_and_drop(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![task(&world, 1)]).await;
    let group = only_group(&ledger, T0).await;
    let dispatch = claim(&ledger, "store-list", &group, T0, 10).await.unwrap();
    assert_eq!(close(&ledger, dispatch.dispatch_id, None, T0).await.unknown, 1);
    assert!(ledger.due("store-list", T0).await.unwrap().groups.is_empty(), "an unknown outcome is never tried again by itself");
    plan(&ledger, &lease, vec![task(&world, 2)]).await;

    let all = TaskFilter::default();
    let requeued = ledger.requeue(&all, "root", T0 + SECOND).await.unwrap();
    assert_eq!(requeued, Requeued { unknown: 1, not_sent: 0, left_alone: 1 });
    assert!(ledger.task(task_id(1, 1, 1)).await.unwrap().unwrap().task.requeued);
    assert_eq!(ledger.drop_tasks(&all, "root", T0 + SECOND).await.unwrap(), 1, "what may have been sent cannot be taken back");
    assert_eq!(state(&ledger, task_id(2, 1, 1)).await, TaskState::Cancelled);
    let group = only_group(&ledger, T0 + SECOND).await;
    let again = claim(&ledger, "store-list", &group, T0 + SECOND, 10).await.unwrap();
    assert_eq!((again.ordinal, again.tasks.len()), (2, 1));
    let audit = ledger.audit(2).await.unwrap();
    assert_eq!((audit[0].what.as_str(), audit[1].what.as_str(), audit[1].subject.as_str()), ("tasks drop", "tasks requeue", "all tasks"));
}

pub async fn stores_are_counted(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, (0..7).map(|n| task(&world, n)).collect()).await;
    ledger.refuse(&[(task_id(0, 1, 1), Gate::Gap)], T0).await.unwrap();
    let counts = ledger.planned_per_store("warm-add", T0, T0 + 1).await.unwrap();
    assert_eq!((counts["S0"], counts["S1"], counts["S2"]), (2, 2, 2));
    assert!(ledger.planned_per_store("warm-add", T0 + 1, T0 + 2).await.unwrap().is_empty());
}
