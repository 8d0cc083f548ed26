//! The same reads through the trait and through the built library give the same items.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(dead_code, unused_imports, reason = "other tests need more of it")]
mod common;

use common::{Database, Pulled, read_with, request, snapshot};
use reunion_host::{CallOptions, Plugin, Plugins};
use reunion_sdk::{ErrorClass, PluginKind, ReadMode};
use serde_json::json;

/// Cargo puts the library that it builds with this test beside the test.
fn library() -> Plugin {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    Plugins::new(vec![beside]).find(PluginKind::Source, "sql").unwrap()
}

#[test]
fn the_library_reads_what_the_trait_reads() {
    for database in Database::all() {
        database.execute("create table member (card {text}, changed {time})");
        database.execute("insert into member values ('A', '2026-03-01 10:00:00'), ('B', '2026-03-01 11:00:00')");
        let with = json!({"query": "select * from member where changed >= $cursor", "id_column": "card", "cursor_column": "changed"});
        let mut config = with.clone();
        let (key, place) = database.place();
        config[key] = place.into();
        let source = library().source("pos", &config).unwrap();
        let mut state = None;
        for mode in [ReadMode::Snapshot, ReadMode::Incremental] {
            let mut stream = source.read(&CallOptions::default(), &request(mode, false), state.as_ref()).unwrap();
            let mut pulled = Pulled::default();
            while let Some(item) = stream.next().unwrap() {
                pulled.add(item);
            }
            let expected = read_with(&database.source(with.clone()), request(mode, false), state).unwrap();
            assert_eq!((&pulled.rows, &pulled.states, pulled.ended), (&expected.rows, &expected.states, true));
            state = pulled.state();
        }
        assert_eq!(source.schema(&CallOptions::default()).unwrap().fields().len(), 2);
        assert_eq!(snapshot(&database.source(with)).unwrap().rows.len(), 2);
    }
}

#[test]
fn errors_pass_the_boundary_whole() {
    let library = library();
    assert_eq!(library.manifest().capabilities.modes, ["snapshot", "incremental"]);
    let wrong = library.source("pos", &json!({"url": "postgres://a:b@c/d", "query": "select 1"})).map(|_| ()).unwrap_err();
    assert_eq!((wrong.class, wrong.key.as_deref()), (ErrorClass::InvalidConfig, Some("url")));
    let gone = library.source("pos", &json!({"file": "/nonexistent/till.db", "query": "select 1 as a"})).unwrap();
    let error = gone.check(&CallOptions::default()).unwrap_err();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("file")));
}
