//! The plugin as the host sees it: real databases in, items out.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "reading/changes.rs"]
mod changes;
mod common;
#[path = "reading/orders.rs"]
mod orders;
#[path = "reading/writers.rs"]
mod writers;

use std::time::{Duration, Instant};

use common::{Database, Pulled, read_with, request, snapshot};
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, PluginError, ReadMode, Source};
use reunion_source_sql::SqlSource;
use serde_json::{Value, json};

const MEMBERS: &str = "create table member (card {text} not null, mobile {text}, changed {time})";

fn query() -> serde_json::Value {
    json!({
        "query": "select card, mobile, changed from member where changed >= $cursor or changed is null",
        "id_column": "card",
        "cursor_column": "changed"
    })
}

fn incremental(source: &SqlSource, state: Option<Value>) -> Result<Pulled, PluginError> {
    read_with(source, request(ReadMode::Incremental, false), state)
}

/// The ids of the rows, in order.
fn cards(pulled: &Pulled) -> String {
    pulled.rows.iter().map(|row| row.split('|').next().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_snapshot_is_everything_with_or_without_an_order() {
    for database in Database::all() {
        database.execute(MEMBERS);
        database.execute("insert into member values ('B', '13900001202', '2026-03-01 10:00:00'), ('A', null, null)");
        let plain = snapshot(&database.source(json!({"query": "select card, mobile from member -- all of them"}))).unwrap();
        assert_eq!((plain.rows.len(), plain.states.len(), plain.resumed), (2, 1, false));
        let ordered = snapshot(&database.source(query())).unwrap();
        assert_eq!(cards(&ordered), "A B");
        assert!(ordered.rows[0].starts_with("A|-|-") && ordered.rows[1].starts_with("B|13900001202|2026-03-01"), "{:?}", ordered.rows);
        let now_us = jiff::Timestamp::now().as_microsecond();
        assert!((now_us - 60_000_000..=now_us).contains(&ordered.as_of_us.unwrap()));
    }
}

#[test]
fn an_incremental_pull_reads_what_changed_and_what_may_have_been_committed_late() {
    for database in Database::all() {
        database.execute(MEMBERS);
        database.execute(
            "insert into member values ('A', '1', '2026-03-01 10:00:00'), ('B', '2', '2026-03-01 10:20:00'), ('C', '3', '2026-03-01 10:30:00')",
        );
        let source = database.source(query());
        let first = incremental(&source, None).unwrap();
        assert_eq!(cards(&first), "A B C", "by time");
        // Committed after the pull, with the time at which its transaction began.
        database.execute("insert into member values ('late', '4', '2026-03-01 10:15:01'), ('too late', '5', '2026-03-01 10:14:59')");
        let second = incremental(&source, first.state()).unwrap();
        assert_eq!(cards(&second), "late B C", "from a quarter of an hour before the last");
        let read = second.state();
        assert_eq!(incremental(&source, read.clone()).unwrap().state(), read, "nothing new, no step");
        database.execute("update member set mobile = '9', changed = '2026-03-01 12:00:00' where card = 'A'");
        assert_eq!(cards(&incremental(&source, read).unwrap()), "late B C A");
        // A sweep knows no cursor, and gives the next pull one.
        let sweep = snapshot(&source).unwrap();
        assert_eq!(cards(&sweep), "A B C late too late");
        assert_eq!(cards(&incremental(&source, sweep.state()).unwrap()), "A");
    }
}

#[test]
fn rows_without_a_time_are_read_in_every_pull_or_refused() {
    for database in Database::all() {
        database.execute(MEMBERS);
        database.execute("insert into member values ('A', '1', '2026-03-01 10:00:00'), ('Y', '2', null), ('X', '3', null)");
        let source = database.source(query());
        let first = incremental(&source, None).unwrap();
        assert_eq!(cards(&first), "A X Y");
        assert_eq!(cards(&incremental(&source, first.state()).unwrap()), "A X Y");
        let findings = source.check(&Call::for_tests()).unwrap();
        assert_eq!(findings[0].message, "rows without a value in \"changed\": 2, read in every pull");
        let mut refusing = query();
        refusing["null_cursor"] = "refuse".into();
        for mode in [ReadMode::Incremental, ReadMode::Snapshot] {
            let error = read_with(&database.source(refusing.clone()), request(mode, false), None).unwrap_err();
            assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidData, Some("null_cursor")));
            assert_eq!(error.message, "rows without a value in \"changed\": 2");
        }
    }
}

#[test]
fn a_time_that_has_not_come_yet_does_not_move_the_cursor() {
    for database in Database::all() {
        database.execute(MEMBERS);
        database.execute("insert into member values ('A', '1', '2026-03-01 10:00:00'), ('F', '2', '2999-01-01 00:00:00')");
        let source = database.source(query());
        let first = incremental(&source, None).unwrap();
        assert_eq!(cards(&first), "A F");
        database.execute("insert into member values ('B', '3', '2026-03-01 10:00:01')");
        assert_eq!(cards(&incremental(&source, first.state()).unwrap()), "A B F");
    }
}

#[test]
fn the_server_s_own_clock_says_what_has_come_yet() {
    // Six hours from now in UTC is two hours ago where this server stands.
    let database = Database::mariadb();
    database.execute(MEMBERS);
    database
        .execute("insert into member values ('A', '1', utc_timestamp() + interval 6 hour), ('F', '2', utc_timestamp() + interval 9 hour)");
    let first = incremental(&database.source(query()), None).unwrap();
    let state = first.state().unwrap()["watermarks"][0]["moment"].as_i64().unwrap();
    assert!(state < jiff::Timestamp::now().as_microsecond() + 7 * 3_600_000_000);
    let mut utc = query();
    utc["session_timezone"] = "+00:00".into();
    assert_eq!(
        incremental(&database.source(utc), None).unwrap().state().unwrap()["watermarks"][0],
        Value::Null,
        "both are of the future there"
    );
}

#[test]
fn cursors_may_be_numbers_days_and_texts() {
    for database in Database::all() {
        database.execute("create table member (id integer primary key, ver bigint, day date, ts {text})");
        database.execute("insert into member values (1, 10, '2026-03-01', '0x0A'), (2, 9, '2026-03-02', '0x0B')");
        for (cursor, expected) in [("ver", "1"), ("day", "1 2"), ("ts", "2")] {
            let query = format!("select id, {cursor} from member where {cursor} >= $cursor");
            let source = database.source(json!({"query": query, "id_column": "id", "cursor_column": cursor}));
            let first = incremental(&source, None).unwrap();
            assert_eq!(first.rows.len(), 2);
            assert_eq!(cards(&incremental(&source, first.state()).unwrap()), expected, "{cursor}");
        }
    }
}

#[test]
fn every_type_has_its_own_or_says_that_it_has_none() {
    let read = |database: &Database, query: &str| snapshot(&database.source(json!({"query": query}))).map(|pulled| pulled.rows);
    let postgres = Database::postgres();
    postgres.execute("create type level as enum ('金', '银'); create domain phone as varchar(20)");
    let query = "select true a, 1::smallint b, 2::int c, -9007199254740993 d, 1.5::real e, 0.1::float8 f, 12.345::numeric(10,3) g, \
         'NaN'::numeric h, timestamp '2026-03-01 10:00:00.000001' i, timestamptz '2026-03-01 18:00:00+08' j, 'infinity'::timestamp k, \
         date '1969-12-31' l, '张三'::text m, 'A1  '::char(4) n, '金'::level o, '13900001201'::phone p, '{\"a\": 1}'::jsonb q, \
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid r, null s, -0.00001::numeric t";
    assert_eq!(
        read(&postgres, query).unwrap(),
        ["true|1|2|-9007199254740993|1.5|0.1|12.3450000000|-|2026-03-01T10:00:00.000001|2026-03-01T10:00:00|-|1969-12-31|张三|A1|金|\
          13900001201|{\"a\": 1}|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|-|-0.0000100000"]
    );
    for (column, kind) in [("array[1]", "INT4[]"), ("'x'::bytea", "BYTEA")] {
        let error = read(&postgres, &format!("select {column} as odd")).unwrap_err();
        assert_eq!(error.message, format!("the column \"odd\" is of the type {kind}, which no column of a member can be"));
    }

    let mariadb = Database::mariadb();
    mariadb.execute(
        "create table t (a tinyint(1), b int unsigned, c bigint unsigned, d decimal(12,2), e double, f datetime, g timestamp(3) null, h date, \
         i char(4), j enum('金','银'), k json, l time, m year, n mediumtext collate utf8mb4_bin, o varbinary(4)); set sql_mode = ''; \
         insert into t values (2, 4294967295, 18446744073709551615, -12.30, 0.1, '2026-03-01 10:00:00', '2026-03-01 10:00:00.5', '2026-03-01', \
         'A1', '金', '{}', '10:00', 2026, '张三', 'x'), (null, 0, 0, 0, 0, '0000-00-00 00:00:00', null, '2026-00-00', '', '银', '[]', '0:0', 0, '', '')",
    );
    assert_eq!(
        read(&mariadb, "select a, b, c, d, e, f, g, h, i, j, k, l, m, n from t").unwrap(),
        [
            "2|4294967295|18446744073709551615|-12.3000000000|0.1|2026-03-01T10:00:00|2026-03-01T10:00:00.500|2026-03-01|A1|金|{}|10:00:00|2026|张三",
            "-|0|0|0.0000000000|0.0|-|-|-||银|[]|00:00:00|0|"
        ]
    );
    let error = read(&mariadb, "select o from t").unwrap_err();
    assert_eq!(error.message, "the column \"o\" is of the type VARBINARY, which no column of a member can be");

    let sqlite = Database::sqlite();
    sqlite.execute("create table t (a integer, b real, c, d text); insert into t values (1, 0.1, 13800138000, '张三'), (null, 2, 'x', 5)");
    assert_eq!(read(&sqlite, "select a, b, c, d, a + 1 as e from t").unwrap(), ["1|0.1|13800138000|张三|2", "-|2|x|5|-"]);
    sqlite.execute("insert into t values ('x', 1, 1, 1)");
    let error = read(&sqlite, "select a from t").unwrap_err();
    assert_eq!(error.message, "the column \"a\" has whole numbers, and in one row a value of the type TEXT");
    assert_eq!(read(&sqlite, "select cast(a as text) as a from t").unwrap(), ["1", "-", "x"]);
    let error = read(&sqlite, "select x'00' as b").unwrap_err();
    assert_eq!(error.message, "the column \"b\" is of the type BLOB, which no column of a member can be");
}

#[test]
fn a_row_that_is_too_large_is_refused_and_its_column_is_named() {
    for database in Database::all() {
        let (long, doubled) =
            if matches!(database, Database::Mariadb { .. }) { ("longtext", "concat(note, note)") } else { ("text", "note || note") };
        database.execute(&format!("create table member (note {long}); insert into member values ('张三李四王五赵六孙七周八吴九郑十')"));
        // To twelve million bytes, since no value has more than sixteen on its way to MariaDB's client.
        (0..18).for_each(|_| database.execute(&format!("update member set note = {doubled}")));
        let read = |query: &str| snapshot(&database.source(json!({"query": query})));
        let error = read("select note, note as again from member").unwrap_err();
        assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidData, Some("query")), "{error}");
        assert_eq!(error.message, "the column \"again\" makes a row of more than 16 MiB");
        assert_eq!(read("select note from member union all select note from member").unwrap().rows.len(), 2);
    }
}

#[test]
fn what_is_wrong_is_said_where_it_is_and_without_data() {
    let class_and_key = |error: &reunion_sdk::PluginError| (error.class, error.key.clone().unwrap_or_default());
    for database in Database::all() {
        database.execute(MEMBERS);
        database.execute("insert into member values ('A', '13900001201', null)");
        let error = |with: serde_json::Value| {
            let error = snapshot(&database.source(with)).unwrap_err();
            assert!(!format!("{error}").contains("13900001201"), "{error}");
            error
        };
        let invalid = |key: &str| (ErrorClass::InvalidConfig, key.to_owned());
        assert_eq!(class_and_key(&error(json!({"query": "select x from nowhere"}))), invalid("query"));
        assert_eq!(class_and_key(&error(json!({"query": "selec 1"}))), invalid("query"));
        let lacking = error(json!({"query": "select card, mobile from member", "id_column": "id"}));
        assert_eq!(
            (class_and_key(&lacking), lacking.message.as_str()),
            (invalid("id_column"), "the query has no column \"id\"; it has card, mobile")
        );
        let twice = error(json!({"query": "select card, mobile as card from member"}));
        assert_eq!(class_and_key(&twice), invalid("query"));
        let written = error(json!({"query": "insert into member (card) values ('x') returning card"}));
        assert_ne!(written.class, ErrorClass::Internal);
        assert_eq!(
            snapshot(&database.source(json!({"query": "select count(*) as n from member"}))).unwrap().rows,
            ["1"],
            "nothing was written"
        );
        let source = database.source(json!({"query": "select card from member"}));
        let error = incremental(&source, None).unwrap_err();
        assert_eq!(class_and_key(&error), invalid("query"), "{error}");
    }
    let postgres = Database::postgres();
    let cast = postgres.source(json!({"query": "select mobile::int from (values ('x13900001201')) as m (mobile)"}));
    let error = snapshot(&cast).unwrap_err();
    assert_eq!(error.message, "reading: the server refused (code 22P02)");
    let gone = Database::Sqlite { path: "/nonexistent/till.db".into(), _folder: None };
    assert_eq!(
        class_and_key(&snapshot(&gone.source(json!({"query": "select 1 as a"}))).unwrap_err()),
        (ErrorClass::InvalidConfig, "file".to_owned())
    );
    for url in ["postgres://reader@127.0.0.1:1/pos", "postgres://reader@[::1]:1/pos", "mysql://reader@[::1]:1/pos"] {
        let nobody = Database::Postgres(url.into());
        let error = snapshot(&nobody.source(json!({"query": "select 1 as a"}))).unwrap_err();
        assert_eq!(class_and_key(&error), (ErrorClass::Unavailable, "url".to_owned()));
        assert!(!error.message.contains("lookup"), "an address is no name: {error}");
    }
}

#[test]
fn a_wrong_password_is_said_to_be_one() {
    let (name, url) = common::mariadb::server().database("reader");
    common::mariadb::server()
        .execute("mysql", "create or replace user reader@localhost identified by 'right'; grant select on *.* to reader@localhost");
    let database = Database::Mariadb { name, url };
    let wrong = snapshot(&database.source(json!({"query": "select 1 as a", "password": "hunter2"}))).unwrap_err();
    assert_eq!((wrong.class, wrong.key.as_deref()), (ErrorClass::Unauthorized, Some("password")));
    assert!(!format!("{wrong:?}").contains("hunter2"));
    assert_eq!(snapshot(&database.source(json!({"query": "select 1 as a", "password": "right"}))).unwrap().rows, ["1"]);
}

/// So many members, all of one transaction's time.
fn many(database: &Database, rows: usize) {
    database.execute(MEMBERS);
    let values = |from: usize| {
        let rows = (from..(from + 5000).min(rows)).map(|row| format!("('C{row:06}', '1390000{:04}', '2026-03-01 10:00:00')", row % 10_000));
        format!("insert into member values {}", rows.collect::<Vec<_>>().join(","))
    };
    (0..rows).step_by(5000).for_each(|from| database.execute(&values(from)));
}

#[test]
fn a_pull_goes_on_where_its_last_state_says() {
    for database in Database::all() {
        many(&database, 150_000);
        let source = database.source(query());
        for mode in [ReadMode::Snapshot, ReadMode::Incremental] {
            let whole = read_with(&source, request(mode, false), None).unwrap();
            assert_eq!((whole.rows.len(), whole.states.len()), (150_000, 3));
            let rest = read_with(&source, request(mode, true), Some(whole.states[1].clone())).unwrap();
            assert!(rest.resumed && rest.rows.len() < 40_000);
            assert_eq!(rest.as_of_us, whole.as_of_us, "when the pull began");
            assert_eq!(whole.rows[whole.rows.len() - rest.rows.len()..], rest.rows);
            assert_eq!(rest.state(), whole.state());
            // Another query is another pull.
            let mut other = query();
            other["query"] = "select card, mobile, changed from member where changed >= $cursor".into();
            let anew = read_with(&database.source(other), request(mode, true), Some(whole.states[1].clone())).unwrap();
            assert_eq!((anew.resumed, anew.rows.len()), (false, 150_000));
        }
    }
}

#[test]
fn a_pull_that_goes_on_repeats_no_row_though_several_have_one_id() {
    for database in Database::all() {
        many(&database, 70_000);
        // Five rows of each id, some of them alike, and one that all others of its time stand around.
        database.execute("create table five (n int)");
        database.execute("insert into five values (1), (2), (2), (3), (3)");
        let source = database.source(json!({
            "query": "select card, n, changed from member cross join five where changed >= $cursor and card < 'C030000'",
            "id_column": "card",
            "cursor_column": "changed"
        }));
        for mode in [ReadMode::Snapshot, ReadMode::Incremental] {
            let whole = read_with(&source, request(mode, false), None).unwrap();
            assert_eq!(whole.rows.len(), 150_000);
            let mut part = Pulled::default();
            for item in source.read(&Call::for_tests(), request(mode, false), None).unwrap() {
                part.add(item.unwrap());
                if !part.states.is_empty() {
                    break;
                }
            }
            let rest = read_with(&source, request(mode, true), part.state()).unwrap();
            assert!(rest.resumed);
            let mut all = [part.rows, rest.rows].concat();
            all.sort_unstable();
            let mut expected = whole.rows;
            expected.sort_unstable();
            assert!(all == expected, "{mode:?}: {} rows where {} are", all.len(), expected.len());
        }
    }
}

#[test]
fn a_pull_that_goes_on_later_skips_nothing_that_came_meanwhile() {
    for database in Database::all() {
        many(&database, 80_000);
        let source = database.source(query());
        let broken_off = |mode| read_with(&source, request(mode, false), None).unwrap().states[0].clone();
        let states = [ReadMode::Snapshot, ReadMode::Incremental].map(|mode| (mode, broken_off(mode)));
        // A sweep reads by id, and had read the first of these.
        database.execute("update member set mobile = '1', changed = '2026-03-01 11:00:00' where card = 'C000001'");
        // An incremental pull reads by time, and was beyond this one, which is committed late.
        database.execute("insert into member values ('late', '2', '2026-03-01 09:50:00')");
        database.execute("update member set mobile = '3', changed = '2026-03-01 12:00:00' where card = 'C079999'");
        for ((mode, state), missed) in states.into_iter().zip(["C000001|1|", "late|2|"]) {
            let rest = read_with(&source, request(mode, true), Some(state)).unwrap();
            assert!(rest.resumed && rest.rows.len() < 20_000 && !rest.rows.iter().any(|row| row.starts_with(missed)));
            let next = incremental(&source, rest.state()).unwrap();
            assert!(next.rows.iter().any(|row| row.starts_with(missed)), "{mode:?}");
        }
    }
}

/// Ends the sessions of others with this database.
fn break_connections(database: &Database) {
    database.execute(match database {
        // Of this database: other tests are at work on the same server.
        Database::Postgres(_) => {
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reunion' and datname = current_database()"
        }
        _ => {
            "delimiter //\nbegin not atomic declare n int; select id into n from information_schema.processlist \
             where db = database() and id <> connection_id() limit 1; kill n; end //"
        }
    });
}

#[test]
fn a_lost_connection_is_made_anew_and_nothing_is_lost() {
    for database in [Database::postgres(), Database::mariadb()] {
        many(&database, 150_000);
        let read = |with: serde_json::Value| {
            let source = database.source(with);
            let mut pulled = Pulled::default();
            let mut items = source.read(&Call::for_tests(), request(ReadMode::Incremental, false), None).unwrap();
            (0..3).for_each(|_| pulled.add(items.next().unwrap().unwrap()));
            break_connections(&database);
            for item in items {
                pulled.add(item?);
            }
            Ok::<_, reunion_sdk::PluginError>(pulled)
        };
        let pulled = read(query()).unwrap();
        assert!(pulled.ended);
        assert_eq!(pulled.rows.len(), 150_000, "and nothing comes twice");
        let mut once = query();
        once["reconnects_max"] = 0.into();
        assert_eq!(read(once).unwrap_err().class, ErrorClass::Unavailable);
    }
}

#[test]
fn a_statement_stops_in_time() {
    let slow = [
        (Database::postgres(), "select pg_sleep(60)::text as a"),
        (Database::mariadb(), "select sleep(60) as a"),
        (Database::sqlite(), "with recursive n (i) as (select 1 union all select i + 1 from n) select i from n where i < 0"),
    ];
    for (database, query) in slow {
        database.execute("create table t (a int)");
        let source = database.source(json!({"query": query}));
        let (call, canceller) = TestCall::default().start();
        let items = source.read(&call, request(ReadMode::Snapshot, false), None).unwrap();
        let began = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            canceller.cancel();
        });
        let error = items.into_iter().find_map(Result::err).unwrap();
        assert_eq!(error.class, ErrorClass::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(20), "the statement itself takes a minute");
        let error = snapshot(&database.source(json!({"query": query, "statement_timeout_secs": 1}))).unwrap_err();
        assert_eq!((error.class, error.key.as_deref()), (ErrorClass::Timeout, Some("statement_timeout_secs")), "{error}");
    }
}
