//! Members whose phone and name lie in different tables, each with times of its own.

use crate::common::{Database, Pulled, read_with, request, snapshot};
use reunion_sdk::{Call, ErrorClass, ReadMode, Source};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

const TABLES: &str = "create table party (id integer primary key, name {text}, changed {time}); \
     create table contact (party integer, phone {text}, changed {time})";

fn with() -> Value {
    json!({
        "query": "select p.id, p.name, c.phone from party p left join contact c on c.party = p.id",
        "id_column": "id",
        "changed": ["select id, changed from party where changed >= $cursor", "select party, changed from contact where changed >= $cursor"]
    })
}

fn incremental(source: &SqlSource, state: Option<Value>) -> Pulled {
    read_with(source, request(ReadMode::Incremental, false), state).unwrap()
}

/// The ids of the rows, in order.
fn ids(pulled: &Pulled) -> String {
    let mut ids: Vec<u32> = pulled.rows.iter().map(|row| row.split('|').next().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// Three members with a phone each, last changed at ten.
fn three(database: &Database) -> SqlSource {
    database.execute(TABLES);
    for (table, text) in [("party", "名"), ("contact", "1390000000")] {
        let rows = (1..=3).map(|at| format!("({at}, '{text}{at}', '2026-03-01 1{at}:00:00')")).collect::<Vec<_>>().join(",");
        database.execute(&format!("insert into {table} values {rows}"));
    }
    database.source(with())
}

#[test]
fn a_change_in_any_table_is_read_and_members_that_did_not_change_are_not() {
    for database in Database::all() {
        let source = three(&database);
        let first = incremental(&source, None);
        assert_eq!(ids(&first), "1 2 3");
        let second = incremental(&source, first.state());
        assert_eq!(ids(&second), "3", "within the overlap of the last");
        assert_eq!(second.state(), first.state());
        database.execute("update contact set phone = '13900009999', changed = '2026-03-02 10:00:00' where party = 1");
        let third = incremental(&source, second.state());
        assert_eq!(ids(&third), "1 3");
        assert!(third.rows.iter().any(|row| row == "1|名1|13900009999"), "{:?}", third.rows);
        // Each table has a watermark of its own: the other's went no further.
        database.execute("update party set name = '改', changed = '2026-03-01 14:00:00' where id = 2");
        assert_eq!(ids(&incremental(&source, third.state())), "1 2 3");
        // Committed late, with the time at which its transaction began.
        database.execute("update contact set phone = null, changed = '2026-03-02 09:45:00' where party = 2");
        assert_eq!(ids(&incremental(&source, third.state())), "1 2 3");
        // A member that is gone has no row, and a sweep finds that.
        database.execute("delete from party where id = 1");
        assert_eq!(ids(&incremental(&source, third.state())), "2 3");
        let sweep = snapshot(&source).unwrap();
        assert_eq!(ids(&sweep), "2 3");
        assert_eq!(ids(&incremental(&source, sweep.state())), "2", "a sweep moves the watermarks too");
    }
}

#[test]
fn an_empty_table_and_times_of_the_future_make_no_pull_whole_and_lose_nothing() {
    for database in Database::all() {
        let source = three(&database);
        database.execute("delete from contact; update party set changed = '2999-01-01 00:00:00' where id = 1");
        let first = incremental(&source, None);
        assert_eq!(ids(&first), "1 2 3");
        assert_eq!(ids(&incremental(&source, first.state())), "1 3", "what is of the future is read every time");
        database.execute("insert into contact values (2, '13900000002', '2026-02-01 10:00:00')");
        let second = incremental(&source, first.state());
        assert_eq!(ids(&second), "1 2 3", "the first row of a table");
        assert_eq!(ids(&incremental(&source, second.state())), "1 2 3");
    }
}

#[test]
fn a_clock_that_was_set_back_has_everything_read() {
    for database in Database::all() {
        let source = three(&database);
        let mut state = incremental(&source, None).state().unwrap();
        let kind = state["watermarks"][1].as_object().unwrap().keys().next().unwrap().clone();
        // Far beyond any clock, as one that is wrong may have shown it.
        state["watermarks"][1][&kind] = if kind == "text" { json!("2999-01-01 00:00:00") } else { json!(32_503_680_000_000_000_i64) };
        let pulled = incremental(&source, Some(state));
        assert_eq!(ids(&pulled), "1 2 3");
        assert_eq!(ids(&incremental(&source, pulled.state())), "3", "and once is enough");
    }
}

/// So many members more, all changed at this time.
fn many(database: &Database, ids: std::ops::Range<u32>, changed: &str) {
    for from in ids.clone().step_by(5000) {
        let rows = (from..(from + 5000).min(ids.end)).map(|id| format!("({id}, '名', '{changed}')")).collect::<Vec<_>>().join(",");
        database.execute(&format!("insert into party values {rows}"));
    }
}

#[test]
fn a_pull_of_changes_goes_on_where_its_last_state_says_and_skips_nothing() {
    for database in Database::all() {
        let source = three(&database);
        let first = incremental(&source, None);
        many(&database, 100..80_100, "2026-03-02 10:00:00");
        let whole = incremental(&source, first.state());
        assert_eq!((whole.rows.len(), whole.states.len()), (80_001, 2));
        let broken_off = whole.states[0].clone();
        // Read before it broke off, and changed since: the next pull has to see it.
        database.execute("update party set name = '改', changed = '2026-03-02 10:00:05' where id = 150");
        let rest = read_with(&source, request(ReadMode::Incremental, true), Some(broken_off)).unwrap();
        assert!(rest.resumed && rest.rows.len() < 20_000, "{}", rest.rows.len());
        assert_eq!(rest.as_of_us, whole.as_of_us);
        assert_eq!(rest.state(), whole.state(), "and the watermarks are those of the beginning");
        let next = incremental(&source, rest.state());
        assert!(next.rows.iter().any(|row| row.starts_with("150|改")));

        // More changed meanwhile than are read one by one: everything, from the beginning.
        many(&database, 80_100..110_100, "2026-03-02 10:00:01");
        let rest = read_with(&source, request(ReadMode::Incremental, true), Some(whole.states[0].clone())).unwrap();
        assert_eq!((rest.resumed, rest.rows.len()), (true, 110_003));
        assert_eq!(incremental(&source, rest.state()).rows.len(), 110_003);
    }
}

#[test]
fn a_connection_that_is_lost_between_changes_is_made_anew() {
    for database in [Database::postgres(), Database::mariadb()] {
        let source = three(&database);
        let state = incremental(&source, None).state();
        many(&database, 100..60_100, "2026-03-02 10:00:00");
        let mut pulled = Pulled::default();
        let mut items = source.read(&Call::for_tests(), request(ReadMode::Incremental, false), state).unwrap();
        (0..3).for_each(|_| pulled.add(items.next().unwrap().unwrap()));
        crate::break_connections(&database);
        items.for_each(|item| pulled.add(item.unwrap()));
        pulled.rows.sort_unstable();
        pulled.rows.dedup();
        assert_eq!((pulled.ended, pulled.rows.len()), (true, 60_001));
    }
}

#[test]
fn a_check_counts_the_times_that_tell_nothing() {
    for database in Database::all() {
        three(&database);
        database.execute("update contact set changed = null where party = 1");
        if !matches!(database, Database::Sqlite { .. }) {
            database.execute("update contact set changed = '2999-01-01 00:00:00' where party = 2");
        }
        let mut table = with();
        table["changed"][1] = "select party, changed from contact where changed >= $cursor or changed is null".into();
        let findings = database.source(table).check(&Call::for_tests()).unwrap();
        let found: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(found[0], "rows without a value in \"changed\" of changed.1: 1, read in every pull");
        let future =
            "rows with a time in \"changed\" of changed.1 that has not come yet: 1, read, and not counted for where the next pull begins";
        // Times in SQLite are texts, which it cannot hold against a clock.
        assert!(if matches!(database, Database::Sqlite { .. }) { found.len() == 1 } else { found[1..] == [future] }, "{found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_query_of_changes_is_said_at_its_place() {
    let cases = [
        ("select id, changed from nowhere where changed >= $cursor", None),
        ("select id from party where changed >= $cursor", Some("the query gives 1 columns, and two are needed: an id and a cursor")),
        ("select id, id from party where changed >= $cursor", Some("the query gives two columns of the name \"id\"")),
    ];
    for database in Database::all() {
        let source = |query: &str| {
            let mut table = with();
            table["changed"][1] = query.into();
            database.source(table)
        };
        three(&database);
        for (query, message) in cases {
            let error = snapshot(&source(query)).unwrap_err();
            assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("changed.1")), "{error}");
            assert!(message.is_none_or(|message| error.message == message), "{error}");
        }
        // An id of another type names nobody. In SQLite values have types, not columns: it is seen where ids are read.
        let other = source("select phone, changed from contact where changed >= $cursor");
        let first = read_with(&other, request(ReadMode::Snapshot, false), None);
        let error = first.and_then(|first| read_with(&other, request(ReadMode::Incremental, false), first.state())).unwrap_err();
        assert_eq!(error.key.as_deref(), Some("changed.1"), "{error}");
        let expected = if matches!(database, Database::Sqlite { .. }) { "a value of the type TEXT" } else { "is Int64" };
        assert!(error.message.ends_with(expected), "{error}");
        let unnamed = source(
            "select party, coalesce(changed, changed, changed, changed, changed, changed, changed, changed) from contact where changed >= $cursor",
        );
        let first = incremental(&unnamed, None);
        assert_eq!(ids(&incremental(&unnamed, first.state())), "3");
    }
}
