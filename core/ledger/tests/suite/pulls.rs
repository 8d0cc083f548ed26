use reunion_ledger::{GenerationCommit, LedgerError, Segment};
use reunion_model::PullId;
use reunion_model::plugin::ReadMode;
use serde_json::json;

use crate::common::*;

const FIRST: PullId = PullId([1; 16]);
const SECOND_PULL: PullId = PullId([2; 16]);

fn segment(pull_id: PullId, seq: u32) -> Segment {
    let files = vec![format!("segments/pos/{seq}.parquet"), format!("segments/pos/{seq}-seen.parquet")];
    Segment { pull_id, seq, rows: 100, bytes: 5000, files, document: json!({ "checksum": "abc" }) }
}

pub async fn a_pull_goes_on_from_its_last_segment(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    ledger.begin_pull(&lease, "pos", FIRST, ReadMode::Incremental, T0).await.unwrap();
    for seq in 0..3 {
        ledger.commit_segment(&lease, &segment(FIRST, seq), &json!({ "offset": seq, "last": "13900000001" })).await.unwrap();
    }
    // What another process finds after a kill.
    let state = world.open().await.source_state("pos").await.unwrap();
    let open = state.open.unwrap();
    assert_eq!((open.pull_id, open.mode, open.source.as_str()), (FIRST, ReadMode::Incremental, "pos"));
    assert_eq!(open.state, Some(json!({ "offset": 2, "last": "13900000001" })));
    assert_eq!(open.segments, [segment(FIRST, 0), segment(FIRST, 1), segment(FIRST, 2)]);
    assert_eq!((state.last, state.pending), (None, vec![]));
}

pub async fn segments_follow_each_other(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let missing = ledger.commit_segment(&lease, &segment(FIRST, 0), &json!(0)).await.unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound { .. }), "{missing}");
    ledger.begin_pull(&lease, "pos", FIRST, ReadMode::Snapshot, T0).await.unwrap();
    ledger.commit_segment(&lease, &segment(FIRST, 0), &json!(0)).await.unwrap();
    for seq in [0, 2] {
        let error = ledger.commit_segment(&lease, &segment(FIRST, seq), &json!("not stored")).await.unwrap_err();
        assert!(matches!(error, LedgerError::SegmentOrder { expected: 1, given, .. } if given == seq), "{error}");
    }
    assert_eq!(ledger.source_state("pos").await.unwrap().open.unwrap().state, Some(json!(0)));
}

pub async fn a_dropped_pull_gives_its_files(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    ledger.begin_pull(&lease, "pos", FIRST, ReadMode::Snapshot, T0).await.unwrap();
    ledger.commit_segment(&lease, &segment(FIRST, 0), &json!(0)).await.unwrap();
    assert_eq!(ledger.pending_segments().await.unwrap(), [segment(FIRST, 0)]);
    assert_eq!(ledger.drop_pull(&lease, FIRST).await.unwrap(), segment(FIRST, 0).files);
    assert_eq!(ledger.pending_segments().await.unwrap(), []);
    assert_eq!(ledger.source_state("pos").await.unwrap(), Default::default());
    let again = ledger.drop_pull(&lease, FIRST).await.unwrap_err();
    assert!(matches!(again, LedgerError::NotFound { .. }), "{again}");
    ledger.begin_pull(&lease, "pos", SECOND_PULL, ReadMode::Snapshot, T0).await.expect("a new pull may begin");
}

pub async fn when_everything_was_read_last_is_not_forgotten(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    let read_whole = async || ledger.source_state("pos").await.unwrap().read_whole_us;
    assert_eq!(read_whole().await, None);
    let modes = [ReadMode::Incremental, ReadMode::Incremental, ReadMode::Snapshot, ReadMode::Incremental, ReadMode::Incremental];
    for (number, mode) in (1_u8..).zip(modes) {
        let (pull, began) = (PullId([number; 16]), T0 + i64::from(number) * SECOND);
        ledger.begin_pull(&lease, "pos", pull, mode, began).await.unwrap();
        ledger.end_pull(&lease, pull, None, None, began).await.unwrap();
        let base = (number > 1).then(|| u64::from(number) - 1);
        let taken = GenerationCommit { pulls: vec![pull], ..commit(base, number.into()) };
        ledger.commit_generation(&lease, &taken).await.unwrap();
        let expected = if number < 3 { T0 + SECOND } else { T0 + 3 * SECOND };
        assert_eq!(read_whole().await, Some(expected), "the first, or the last snapshot");
    }
    ledger.forget_before(&lease, 5).await.unwrap();
    assert_eq!(read_whole().await, Some(T0 + 3 * SECOND));
}

pub async fn a_pull_that_finds_nothing_changed_confirms_the_last_one(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    ledger.begin_pull(&lease, "pos", FIRST, ReadMode::Snapshot, T0).await.unwrap();
    let none = ledger.confirm_last_pull(&lease, FIRST, None, T0).await.unwrap_err();
    assert!(matches!(none, LedgerError::NotFound { what: "pull to confirm", .. }), "{none}");
    ledger.commit_segment(&lease, &segment(FIRST, 0), &json!("segment")).await.unwrap();
    ledger.end_pull(&lease, FIRST, Some(&json!("end")), Some(T0), T0).await.unwrap();
    let taken = GenerationCommit { pulls: vec![FIRST], ..commit(None, 1) };
    ledger.commit_generation(&lease, &taken).await.unwrap();

    let missing = ledger.confirm_last_pull(&lease, SECOND_PULL, None, T0).await.unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound { what: "open pull", .. }), "{missing}");
    ledger.begin_pull(&lease, "pos", SECOND_PULL, ReadMode::Snapshot, T0 + SECOND).await.unwrap();
    ledger.confirm_last_pull(&lease, SECOND_PULL, Some(T0 + 2), T0 + 2 * SECOND).await.unwrap();
    let state = ledger.source_state("pos").await.unwrap();
    assert_eq!((state.open, state.pending, state.read_whole_us), (None, vec![], Some(T0 + SECOND)));
    let last = state.last.unwrap();
    assert_eq!((last.pull_id, last.state, last.consumed), (FIRST, Some(json!("end")), Some(1)));
    assert_eq!((last.started_us, last.ended_us, last.as_of_us), (T0 + SECOND, Some(T0 + 2 * SECOND), Some(T0 + 2)));
    ledger.begin_pull(&lease, "pos", SECOND_PULL, ReadMode::Snapshot, T0).await.expect("nothing is left of it");
}

pub async fn one_pull_of_a_source_is_open(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    ledger.begin_pull(&lease, "pos", FIRST, ReadMode::Snapshot, T0).await.unwrap();
    let error = ledger.begin_pull(&lease, "pos", SECOND_PULL, ReadMode::Snapshot, T0).await.unwrap_err();
    assert_eq!(error.to_string(), format!("there is a open pull {FIRST} of pos already"));
    ledger.begin_pull(&lease, "mall", SECOND_PULL, ReadMode::Snapshot, T0).await.expect("of another source");
}

pub async fn an_ended_pull_waits_for_its_generation(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    for (pull, as_of) in [(FIRST, T0), (SECOND_PULL, T0 + SECOND)] {
        ledger.begin_pull(&lease, "pos", pull, ReadMode::Snapshot, T0).await.unwrap();
        ledger.commit_segment(&lease, &segment(pull, 0), &json!("segment")).await.unwrap();
        let end = (pull == SECOND_PULL).then(|| json!("end"));
        ledger.end_pull(&lease, pull, end.as_ref(), Some(as_of), T0 + SECOND).await.unwrap();
    }
    let state = ledger.source_state("pos").await.unwrap();
    assert_eq!(state.open, None);
    assert_eq!(state.pending.iter().map(|pull| pull.pull_id).collect::<Vec<_>>(), [FIRST, SECOND_PULL]);
    assert_eq!(state.pending[0].state, Some(json!("segment")), "the end marker brought no state of its own");
    let last = state.last.unwrap();
    assert_eq!((last.pull_id, last.state, last.as_of_us), (SECOND_PULL, Some(json!("end")), Some(T0 + SECOND)));

    let early = GenerationCommit { pulls: vec![PullId([9; 16])], ..commit(None, 1) };
    let error = ledger.commit_generation(&lease, &early).await.unwrap_err();
    assert!(matches!(error, LedgerError::NotFound { .. }), "{error}");
    assert_eq!(ledger.head().await.unwrap(), None, "nothing of the failed commit was kept");

    let taken = GenerationCommit { pulls: vec![FIRST], ..commit(None, 1) };
    ledger.commit_generation(&lease, &taken).await.unwrap();
    let state = ledger.source_state("pos").await.unwrap();
    assert_eq!(state.pending.iter().map(|pull| pull.pull_id).collect::<Vec<_>>(), [SECOND_PULL]);
    assert_eq!(ledger.pending_segments().await.unwrap(), [segment(SECOND_PULL, 0)]);
    let error = ledger.drop_pull(&lease, FIRST).await.unwrap_err();
    assert!(matches!(error, LedgerError::NotFound { .. }), "a pull in a generation is not dropped: {error}");
}
