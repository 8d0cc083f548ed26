use reunion_ledger::{DecisionRecord, GenerationCommit, Ledger, LedgerError, NewDecision, Withdrawal};
use reunion_model::{Decision, DecisionId, DecisionKind, DecisionSource, RecordKey};

use crate::common::*;

fn keys(records: &[u128]) -> Vec<RecordKey> {
    records.iter().map(|record| RecordKey::from_u128(*record)).collect()
}

fn decision(id: u128, kind: DecisionKind, left: &[u128], right: &[u128]) -> Decision {
    Decision { id: DecisionId::from_u128(id), kind, left: keys(left), right: keys(right) }
}

fn new(decision: Decision) -> NewDecision {
    NewDecision {
        decision,
        source: DecisionSource::Operator,
        weight_millibits: None,
        made_us: T0,
        made_by: "li".into(),
        why: "two cards of one person".into(),
        what: "members merge".into(),
        subject: "members a, b".into(),
    }
}

async fn merge(ledger: &Ledger, id: u128, left: &[u128], right: &[u128]) -> Decision {
    let same = decision(id, DecisionKind::Same, left, right);
    ledger.decide(&[new(same.clone())]).await.unwrap();
    same
}

pub async fn decisions_are_kept_and_withdrawn(world: World) {
    let ledger = world.open().await;
    let same = merge(&ledger, 1, &[1, 2], &[3]).await;
    let apart = decision(2, DecisionKind::Apart, &[3], &[4]);
    let by_review =
        NewDecision { source: DecisionSource::Review, weight_millibits: Some(-12_345), made_us: T0 + SECOND, ..new(apart.clone()) };
    ledger.decide(std::slice::from_ref(&by_review)).await.unwrap();
    let facts = ledger.facts().await.unwrap();
    assert_eq!((facts.seq, facts.decisions), (2, vec![same.clone(), apart.clone()]));
    let [first, second]: [DecisionRecord; 2] = ledger.decisions().await.unwrap().try_into().unwrap();
    assert_eq!((first.seq, &first.decision, first.source, first.withdrawn), (1, &same, DecisionSource::Operator, None));
    assert_eq!((first.made_us, first.made_by.as_str(), first.why.as_str()), (T0, "li", "two cards of one person"));
    assert_eq!((second.seq, second.source, second.made_us), (2, DecisionSource::Review, T0 + SECOND));
    assert_eq!((first.weight_millibits, second.weight_millibits), (None, Some(-12_345)));

    assert!(ledger.withdraw(same.id, "members a, b", "wang", "a mistake", T0 + 2 * SECOND).await.unwrap());
    assert!(!ledger.withdraw(same.id, "members a, b", "wang", "again", T0 + 3 * SECOND).await.unwrap());
    let missing = ledger.withdraw(DecisionId::from_u128(9), "", "wang", "", T0).await.unwrap_err();
    assert!(matches!(missing, LedgerError::NotFound { what: "decision", .. }), "{missing}");
    let facts = ledger.facts().await.unwrap();
    assert_eq!((facts.seq, facts.decisions), (3, vec![apart]), "what was withdrawn twice has no second number");
    let withdrawn = ledger.decisions().await.unwrap()[0].withdrawn.clone();
    let expected = Withdrawal { seq: 3, at_us: T0 + 2 * SECOND, who: "wang".into(), why: "a mistake".into() };
    assert_eq!(withdrawn, Some(expected));
    let audit: Vec<_> = ledger.audit(10).await.unwrap().into_iter().map(|entry| (entry.what, entry.who, entry.why)).collect();
    let entry = |what: &str, who: &str, why: &str| (what.to_owned(), who.to_owned(), why.to_owned());
    let merged = entry("members merge", "li", "two cards of one person");
    assert_eq!(audit, [entry("members undo", "wang", "a mistake"), merged.clone(), merged]);
}

pub async fn the_last_word_counts(world: World) {
    let ledger = world.open().await;
    let same = merge(&ledger, 1, &[1], &[2]).await;
    let apart = decision(2, DecisionKind::Apart, &[1], &[2]);
    ledger.decide(&[new(apart.clone())]).await.unwrap();
    assert_eq!(ledger.facts().await.unwrap().decisions, std::slice::from_ref(&apart));
    // Taken back, it leaves what it had overtaken.
    ledger.withdraw(apart.id, "", "li", "", T0).await.unwrap();
    assert_eq!(ledger.facts().await.unwrap().decisions, [same]);
}

pub async fn decisions_of_one_order_are_stored_together(world: World) {
    let ledger = world.open().await;
    let first = decision(1, DecisionKind::Same, &[1], &[2]);
    let no_decisions = [
        decision(2, DecisionKind::Same, &[1, 2], &[]),
        decision(2, DecisionKind::Apart, &[], &[1]),
        decision(2, DecisionKind::Same, &[1], &[1]),
    ];
    for wrong in no_decisions {
        let error = ledger.decide(&[new(first.clone()), new(wrong)]).await.unwrap_err();
        assert!(matches!(error, LedgerError::NoDecision(_)), "{error}");
    }
    let taken = ledger.decide(&[new(first.clone()), new(decision(1, DecisionKind::Same, &[3], &[4]))]).await.unwrap_err();
    assert!(matches!(taken, LedgerError::Exists { what: "decision", .. }), "{taken}");
    assert!(ledger.decisions().await.unwrap().is_empty());
    assert!(ledger.audit(10).await.unwrap().is_empty());
    ledger.decide(&[new(first), new(decision(2, DecisionKind::Same, &[1, 2], &[3]))]).await.unwrap();
    assert_eq!(ledger.decisions().await.unwrap().iter().map(|decision| decision.seq).collect::<Vec<_>>(), [1, 2]);
}

pub async fn what_was_decided_since_is_known(world: World) {
    let ledger = world.open().await;
    let since = |seq| {
        let ledger = ledger.clone();
        async move { ledger.decided_since(seq).await.unwrap() }
    };
    assert!(since(0).await.is_empty());
    let same = merge(&ledger, 1, &[5, 2], &[3]).await;
    merge(&ledger, 2, &[3], &[9]).await;
    let seq = ledger.facts().await.unwrap().seq;
    assert_eq!(since(0).await, keys(&[2, 3, 5, 9]), "each once, in order");
    assert_eq!(since(seq - 1).await, keys(&[3, 9]));
    assert!(since(seq).await.is_empty());
    // A withdrawal is something new about old records.
    ledger.withdraw(same.id, "", "li", "", T0).await.unwrap();
    assert_eq!(since(seq).await, keys(&[2, 3, 5]));
    assert!(since(seq + 1).await.is_empty());
}

pub async fn a_rollback_keeps_decisions(world: World) {
    let ledger = world.open().await;
    let lease = begin(&ledger).await;
    plan(&ledger, &lease, vec![]).await;
    let same = merge(&ledger, 1, &[1], &[2]).await;
    let facts = ledger.facts().await.unwrap();
    let later = GenerationCommit { fact_seq: facts.seq, ..commit(Some(1), 2) };
    ledger.commit_generation(&lease, &later).await.unwrap();
    assert_eq!(ledger.head().await.unwrap().unwrap().fact_seq, facts.seq);
    ledger.rollback(&lease, 1, "root", T0).await.unwrap();
    assert_eq!(ledger.facts().await.unwrap().decisions, [same]);
    // And the next run takes it in again.
    let head = ledger.head().await.unwrap().unwrap();
    assert_eq!(ledger.decided_since(head.fact_seq).await.unwrap(), keys(&[1, 2]));
}
