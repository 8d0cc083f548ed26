//! Opening a ledger: the file that SQLite is given, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use reunion_ledger::{Ledger, LedgerError, Location};

use crate::common::{World, keys};

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let world = World::sqlite();
    let ledger = world.open().await;
    ledger.health().await.unwrap();
    let modes: Vec<_> = fs::read_dir(world.folder())
        .unwrap()
        .flatten()
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    assert!(modes.len() >= 2, "the log stands beside the file: {modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_ledger_is_opened_by_many_and_made_once() {
    for world in [World::sqlite(), World::postgres()] {
        let (a, b, c) = tokio::join!(world.open(), world.open(), world.open());
        for ledger in [&a, &b, &c] {
            ledger.health().await.unwrap();
        }
        a.close().await;
        world.open().await.health().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |location: Location| async move { Ledger::open(&location, keys()).await.unwrap_err() };

    let error = open(Location::Sqlite(folder.path().join("missing/ledger.db"))).await;
    assert!(matches!(error, LedgerError::File { .. }), "{error}");

    let text = folder.path().join("text.db");
    fs::write(&text, "not a database, though long enough to be looked at: ".repeat(100)).unwrap();
    let error = open(Location::Sqlite(text)).await;
    assert!(matches!(error, LedgerError::Open { .. }), "{error}");
    assert!(error.to_string().contains("text.db"), "{error}");

    let error = open(Location::Postgres("postgres://reunion:s3cret@localhost:1/reunion".into())).await;
    assert!(matches!(error, LedgerError::Open { .. }), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(matches!(open(Location::Postgres("no url".into())).await, LedgerError::Open { .. }));
}

#[tokio::test]
async fn a_ledger_of_a_later_version_is_refused() {
    for world in [World::sqlite(), World::postgres()] {
        world.open().await.close().await;
        world
            .execute(
                "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 select 9999, 'later', success, checksum, 0 from _sqlx_migrations where version = 1",
            )
            .await;
        let error = world.try_open().await.unwrap_err();
        assert!(matches!(error, LedgerError::Migrate { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_brought_up_to_date() {
    for world in [World::sqlite(), World::postgres()] {
        let ledger = world.open().await;
        ledger.facts().await.unwrap();
        ledger.close().await;
        // As the version before left it.
        world.execute("drop table decisions").await;
        world.execute("delete from _sqlx_migrations where version > 2").await;
        let ledger = world.open().await;
        assert!(ledger.decisions().await.unwrap().is_empty());
        assert_eq!(ledger.facts().await.unwrap().decisions, []);
    }
}
