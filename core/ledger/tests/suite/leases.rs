use std::time::Duration;

use reunion_ledger::{LedgerError, RunState};
use reunion_model::PullId;
use reunion_model::plugin::ReadMode;
use serde_json::json;

use crate::common::*;

pub async fn each_taking_raises_the_fence(world: World) {
    let ledger = world.open().await;
    assert_eq!(ledger.holder().await.unwrap(), None);
    let first = ledger.take_lease(&holder(1), Duration::ZERO).await.unwrap();
    assert_eq!(ledger.holder().await.unwrap(), Some(holder(1)));
    ledger.renew_lease(&first).await.unwrap();
    ledger.release_lease(&first).await.unwrap();
    assert_eq!(ledger.holder().await.unwrap(), None);
    let second = ledger.take_lease(&holder(2), Duration::ZERO).await.unwrap();
    assert!(second.fence > first.fence);
    ledger.health().await.unwrap();
}

pub async fn two_takers_never_hold_one_fence(world: World) {
    let ledgers = [world.open().await, world.open().await];
    let takers = ledgers.iter().enumerate().map(|(at, ledger)| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.take_lease(&holder(at as u32 + 1), Duration::ZERO).await })
    });
    let mut fences = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        match taker.await.unwrap() {
            Ok(lease) => fences.push(lease.fence),
            Err(LedgerError::LeaseHeld(other)) => assert_eq!(other.host, "till-server"),
            Err(error) => panic!("{error}"),
        }
    }
    if ledgers[0].is_shared() {
        assert_eq!(fences.len(), 1, "the row is the lease: {fences:?}");
        let refused = ledgers[0].take_lease(&holder(9), Duration::from_millis(1)).await.unwrap_err();
        assert!(matches!(refused, LedgerError::LeaseHeld(_)), "{refused}");
        // A holder that stops renewing loses it.
        world.execute("update lease set expires_us = 0").await;
        fences.push(ledgers[0].take_lease(&holder(9), Duration::ZERO).await.unwrap().fence);
    }
    fences.dedup();
    assert_eq!(fences.len(), 2);
}

pub async fn an_overtaken_holder_writes_nothing(world: World) {
    let ledger = world.open().await;
    let mine = begin(&ledger).await;
    let generation = ledger.next_generation(&mine).await.unwrap();
    world.execute("update lease set expires_us = 0").await;
    let other = world.open().await.take_lease(&holder(2), Duration::ZERO).await.unwrap();

    let pull = PullId([1; 16]);
    let errors = [
        ledger.renew_lease(&mine).await.unwrap_err(),
        ledger.release_lease(&mine).await.unwrap_err(),
        ledger.begin_pull(&mine, "pos", pull, ReadMode::Snapshot, T0).await.unwrap_err(),
        ledger.next_generation(&mine).await.unwrap_err(),
        ledger.commit_generation(&mine, &commit(None, generation)).await.unwrap_err(),
        ledger.rollback(&mine, generation, "me", T0).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, LedgerError::FenceLost { mine: lost, now } if lost == mine.fence && now == other.fence), "{error}");
    }
    assert_eq!(ledger.head().await.unwrap(), None);
    assert_eq!(ledger.source_state("pos").await.unwrap().open, None);
    ledger.finish_run(run_id(1), 3, &json!({}), T0).await.expect("a run that lost its lease may say so");
}

pub async fn a_run_left_unfinished_is_interrupted(world: World) {
    let ledger = world.open().await;
    begin(&ledger).await;
    world.execute("update lease set expires_us = 0").await;
    let lease = ledger.take_lease(&holder(2), Duration::ZERO).await.unwrap();
    begin_run(&ledger, &lease, 2).await;
    let state = |run: u128| {
        let ledger = ledger.clone();
        async move { ledger.run(run_id(run)).await.unwrap().unwrap().state }
    };
    assert_eq!((state(1).await, state(2).await), (RunState::Interrupted, RunState::Running));
}

pub async fn runs_keep_their_report(world: World) {
    let ledger = world.open().await;
    begin(&ledger).await;
    ledger.finish_run(run_id(1), 4, &json!({ "pulled": 3 }), T0 + SECOND).await.unwrap();
    let run = ledger.runs(10).await.unwrap().pop().unwrap();
    assert_eq!((run.state, run.exit_code, run.finished_us), (RunState::Finished, Some(4), Some(T0 + SECOND)));
    assert_eq!(run.report, Some(json!({ "pulled": 3 })));
    let missing = ledger.finish_run(run_id(7), 0, &json!({}), T0).await.unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound { what: "run", .. }), "{missing}");
    let large = ledger.finish_run(run_id(1), 0, &json!("x".repeat(2 << 20)), T0).await.unwrap_err();
    assert!(matches!(large, LedgerError::TooLarge { .. }), "{large}");
}
