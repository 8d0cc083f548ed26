use reunion_ledger::NewSuppression;

use crate::common::*;

fn suppression(n: u32, reason: &str) -> NewSuppression {
    NewSuppression {
        phone: phone(n),
        reason: reason.into(),
        source: "operator".into(),
        since_us: T0,
        until_us: None,
        set_by: "root".into(),
    }
}

pub async fn suppressions_are_listed_and_lifted(world: World) {
    let ledger = world.open().await;
    let short = NewSuppression { until_us: Some(T0 + SECOND), ..suppression(1, "asked") };
    assert!(ledger.suppress(&short).await.unwrap());
    assert!(!ledger.suppress(&short).await.unwrap(), "it holds already");
    assert!(ledger.suppress(&suppression(1, "asked")).await.unwrap(), "now for good");
    assert!(!ledger.suppress(&short).await.unwrap(), "a longer one holds");
    assert!(ledger.suppress(&suppression(2, "asked")).await.unwrap());

    let all = ledger.suppressions(None).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].phone_masked.as_str(), all[0].until_us), ("139****0001", Some(T0 + SECOND)));
    assert_eq!(ledger.suppressions(Some(contact(&world, 2))).await.unwrap().len(), 1);

    let since = ledger.suppressions_since(all[0].seq).await.unwrap();
    assert_eq!(since, all[1..]);
    assert!(ledger.suppressions_since(all[2].seq).await.unwrap().is_empty());
    assert!(ledger.suppress(&suppression(3, "wrong_number")).await.unwrap());
    let wrong = ledger.suppressions_since(all[2].seq).await.unwrap();
    assert!(wrong[0].is_of_the_number_alone() && !all[0].is_of_the_number_alone());

    assert_eq!(ledger.lift_suppressions(phone(1), "root", "a mistake", T0).await.unwrap(), 2);
    assert_eq!(ledger.lift_suppressions(phone(1), "root", "again", T0).await.unwrap(), 0);
    assert_eq!(ledger.suppressions(None).await.unwrap().len(), 2);
    let audit = ledger.audit(10).await.unwrap();
    assert_eq!(
        audit.iter().map(|entry| entry.what.as_str()).collect::<Vec<_>>(),
        ["suppress rm", "suppress add", "suppress add", "suppress add", "suppress add"]
    );
    assert_eq!((audit[0].subject.as_str(), audit[0].why.as_str()), ("139****0001", "a mistake"));
}

pub async fn facts_are_numbered_in_the_order_of_commits(world: World) {
    let ledger = world.open().await;
    let reader = world.open().await;
    let writers = (0..4).map(|writer| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for n in 0..5 {
                ledger.suppress(&suppression(writer * 100 + n, "asked")).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    // Whoever reads up to a number has seen every fact up to it: none appears below it later on.
    let mut seen = reader.facts().await.unwrap();
    while seen.suppressions.len() < 20 {
        let next = reader.facts().await.unwrap();
        let old: Vec<_> = next.suppressions.iter().filter(|fact| fact.seq <= seen.seq).cloned().collect();
        assert_eq!(old, seen.suppressions);
        assert!(next.suppressions.iter().all(|fact| fact.seq <= next.seq));
        seen = next;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
