//! What ERPs really hold, in databases of each kind: one test for each pitfall.

use reunion_integration_tests::harness::{OPENING, Retailer, assert_sums, count};
use serde_json::{Value, json};

use super::database::Database;

/// A retailer whose members are what a query gives; with keys of the source, and of its `with` table.
fn retailer(database: &Database, query: &str, source: &str, with: &str) -> Retailer {
    let mode = if with.contains("changed") { "incremental\"\nsweep = \"never" } else { "snapshot" };
    let (key, place) = database.place();
    Retailer::new(&format!(
        r#"{OPENING}[sources.erp]
plugin = "sql"
mode = "{mode}"
max_age_hours = 8784
deleted_share_max = 1.0
columns.record_id = "id"
{source}
[sources.erp.with]
{key} = "{place}"
query = """{query}"""
id_column = "id"
{with}
[tags.member]
when = "true"
[campaigns.hello]
audience = "member"
channel = "lists"
holdout = 0.0
message = "{{{{ name }}}}"
[channels.lists]
plugin = "file"
with = {{ path = "out/{{store}}/{{date}}-{{run}}.csv" }}
[pipelines.daily]
sources = ["erp"]
campaigns = ["hello"]
"#
    ))
}

/// What a query gives of each member, by phone.
fn members(retailer: &Retailer, columns: &str) -> Vec<Value> {
    retailer.query(&format!("select {columns} from members order by phone"))
}

/// Of these rows, a table `member` with the columns `id`, `phone`, and what else is declared.
fn table(database: &Database, columns: &str, rows: &[String]) {
    database.execute(&format!("create table member (id {{text}} primary key, phone {{text}}{columns})"));
    let rows = rows.iter().enumerate().map(|(at, row)| format!("('C{at:02}', {row})")).collect::<Vec<_>>().join(", ");
    database.execute(&format!("insert into member values {rows}"));
}

fn phone(at: usize) -> String {
    format!("139002{:05}", at + 12_345)
}

#[test]
fn phones_are_read_as_clerks_typed_them() {
    let written: [fn(&str) -> String; 13] = [
        str::to_owned,
        |phone| format!("+86 {phone}"),
        |phone| format!("86{phone}"),
        |phone| format!("0086{phone}"),
        |phone| format!("0{phone}"),
        |phone| format!("{} {} {}", &phone[..3], &phone[3..7], &phone[7..]),
        |phone| format!("{}\u{a0}{}", &phone[..3], &phone[3..]),
        |phone| format!("\u{202d}{phone}\u{202c}"),
        |phone| format!("\u{feff}{}\u{200b}{}", &phone[..5], &phone[5..]),
        |phone| phone.chars().map(|digit| char::from_u32(u32::from(digit) + 0xfee0).expect("a wide digit")).collect(),
        |phone| format!("{phone}.0"),
        |phone| format!("手机{phone}"),
        |phone| format!("17951{phone}"),
    ];
    for database in Database::all() {
        let rows: Vec<_> = written.iter().enumerate().map(|(at, write)| format!("'{}'", write(&phone(at)))).collect();
        table(&database, "", &rows);
        let retailer = retailer(&database, "select id, phone from member", "", "");
        assert_sums(&retailer.once());
        let expected: Vec<_> = (0..written.len()).map(|at| json!({"phone": format!("86{}", phone(at))})).collect();
        assert_eq!(members(&retailer, "phone"), expected);
    }
}

#[test]
fn phones_in_columns_of_numbers_are_exact() {
    for database in Database::all() {
        table(&database, ", whole bigint, exact decimal(20, 2), inexact double precision", &[format!("'x', {0}, {0}, {0}", phone(0))]);
        for column in ["whole", "exact", "inexact"] {
            let retailer = retailer(&database, &format!("select id, {column} as phone from member"), "", "");
            assert_sums(&retailer.once());
            assert_eq!(members(&retailer, "phone"), [json!({"phone": format!("86{}", phone(0))})], "{column}, {}", database.place().1);
        }
    }
}

#[test]
fn phones_that_are_none_are_set_aside_each_for_its_reason() {
    let cells = [
        ("1.39E+10", "phone_scientific"),
        ("13900212345/13900212346", "phone_multiple"),
        ("021-64331234", "phone_landline"),
        ("64331234", "phone_landline"),
        ("400-800-8888", "phone_service"),
        ("139****1234", "phone_masked"),
        ("13900212345转12", "phone_relay"),
        ("13800000000", "phone_placeholder"),
        ("11111111111", "phone_placeholder"),
        ("1064812345678", "phone_not_mobile"),
    ];
    for database in Database::all() {
        table(&database, "", &cells.map(|(cell, _)| format!("'{cell}'")));
        let retailer = retailer(&database, "select id, phone from member", "", "");
        let report = retailer.once();
        assert_sums(&report);
        let mut expected = serde_json::Map::new();
        for (_, reason) in cells {
            let before = expected.get(reason).and_then(Value::as_u64).unwrap_or(0);
            expected.insert(reason.to_owned(), (before + 1).into());
        }
        assert_eq!(report["sources"]["erp"]["quarantined"], Value::Object(expected));
    }
}

#[test]
fn a_card_that_was_made_in_advance_is_no_member() {
    for database in Database::all() {
        table(&database, "", &["''".to_owned(), "null".to_owned(), format!("'{}'", phone(0))]);
        let report = retailer(&database, "select id, phone from member", "", "").once();
        assert_eq!((count(&report, "/members/total"), count(&report, "/sources/erp/quarantined/phone_missing")), (1, 2));
    }
}

#[test]
fn the_phone_of_a_store_is_nobody_s() {
    for database in Database::all() {
        let rows: Vec<_> = (0..7).map(|at| format!("'{}'", phone(at.max(5)))).collect();
        table(&database, "", &rows);
        let report = retailer(&database, "select id, phone from member", "", "").once();
        assert_eq!((count(&report, "/members/total"), count(&report, "/sources/erp/quarantined/shared_phone")), (1, 6));
    }
}

#[test]
fn times_without_a_timezone_are_those_of_the_source() {
    for database in Database::all() {
        table(&database, ", at {time}", &[format!("'{}', '2026-03-01 00:30:00'", phone(0))]);
        let mut queries = vec!["select id, phone, at as last_order_at from member"];
        match database {
            Database::Postgres(_) => queries.push("select id, phone, at at time zone 'Asia/Shanghai' as last_order_at from member"),
            // Which the server keeps in UTC, and shows as its session's clock would.
            Database::Mariadb { .. } => {
                database.execute("alter table member add stamp timestamp; update member set stamp = at");
                queries.push("select id, phone, stamp as last_order_at from member");
            }
            Database::Sqlite { .. } => {}
        }
        for query in queries {
            let retailer = retailer(&database, query, "", "");
            retailer.once();
            assert_eq!(members(&retailer, "last_order_at"), [json!({"last_order_at": "2026-02-28T16:30:00Z"})], "{query}");
        }
    }
}

#[test]
fn times_that_mean_never_are_missing() {
    for database in Database::all() {
        let mut times = vec!["1970-01-01 08:00:00", "1900-01-01 00:00:00"];
        if matches!(database, Database::Mariadb { .. }) {
            times.push("0000-00-00 00:00:00");
        }
        let rows: Vec<_> = times.iter().enumerate().map(|(at, time)| format!("'{}', '{time}'", phone(at))).collect();
        table(&database, ", at {time}", &rows);
        let retailer = retailer(&database, "select id, phone, at as last_order_at from member", "", "");
        retailer.once();
        assert_eq!(members(&retailer, "last_order_at"), vec![json!({"last_order_at": null}); rows.len()]);
    }
}

#[test]
fn a_day_that_means_never_to_one_erp_alone_is_made_missing_by_its_query() {
    for database in Database::all() {
        table(&database, ", at {time}", &[format!("'{}', '1990-01-01 00:00:00'", phone(0))]);
        let query = "select id, phone, nullif(at, '1990-01-01 00:00:00') as last_order_at from member";
        let retailer = retailer(&database, query, "", "");
        retailer.once();
        assert_eq!(members(&retailer, "last_order_at"), [json!({"last_order_at": null})]);
    }
}

#[test]
fn a_number_that_was_given_to_somebody_else_is_the_new_holders_alone() {
    for database in Database::all() {
        let rows = [("王静", "2017-03-01 10:00:00"), ("李伟", "2026-03-01 10:00:00")];
        table(&database, ", name {text}, at {time}", &rows.map(|(name, at)| format!("'{}', '{name}', '{at}'", phone(0))));
        let query = "select id, phone, name, 'S1' as store, at as created_at from member";
        // Silent for nine years: whatever the policy, who had it before cannot be reached there.
        for policy in ["merge", "household"] {
            let mut retailer = retailer(&database, query, "", "");
            let identity = format!("[identity]\nshared_phone = {{ policy = \"{policy}\" }}\n[tags.member]");
            retailer.edit_config("[tags.member]", &identity);
            let report = retailer.once();
            assert_sums(&report);
            assert_eq!(members(&retailer, "name"), [json!({ "name": "李伟" })]);
            assert_eq!(count(&report, "/sources/erp/quarantined/phone_recycled"), 1, "{report:#}");
            assert_eq!(count(&report, "/campaigns/hello/planned"), 1, "{report:#}");
        }
    }
}

#[test]
fn days_and_times_that_are_numbers_are_read_by_their_format() {
    let source = "columns.registered_at = { from = \"day\", format = \"%Y%m%d\" }\n\
         columns.last_order_at = { from = \"secs\", format = \"%s\" }";
    for database in Database::all() {
        // A day as a number, and milliseconds since 1970 beside a time that is text.
        table(
            &database,
            ", day integer, ms bigint, at {text}",
            &[format!("'{}', 20260301, 1772296200123, '2026-03-01 00:30:00'", phone(0))],
        );
        let whole = if matches!(database, Database::Mariadb { .. }) { "ms div 1000" } else { "ms / 1000" };
        let query = format!("select id, phone, day, {whole} as secs, at as first_order_at from member");
        let retailer = retailer(&database, &query, source, "");
        retailer.once();
        let expected = json!({
            "registered_at": "2026-02-28T16:00:00Z",
            "last_order_at": "2026-02-28T16:30:00Z",
            "first_order_at": "2026-02-28T16:30:00Z"
        });
        assert_eq!(members(&retailer, "registered_at, last_order_at, first_order_at"), [expected]);
    }
}

#[test]
fn amounts_in_fen_and_in_yuan_come_to_the_same() {
    for database in Database::all() {
        table(&database, ", fen integer, yuan decimal(12, 2)", &[format!("'{}', 15413, 154.13", phone(0))]);
        let source = "columns.total_spent = { from = \"fen\", unit = \"fen\" }\ncolumns.balance = \"yuan\"";
        let retailer = retailer(&database, "select id, phone, fen, yuan from member", source, "");
        retailer.once();
        let amounts = &members(&retailer, "total_spent, balance")[0];
        assert_eq!(amounts["total_spent"], amounts["balance"]);
        assert!(amounts["balance"].to_string().contains("154.13"), "{amounts}");
    }
}

#[test]
fn orders_that_were_cancelled_do_not_count_and_returns_are_taken_off() {
    let orders = r#"[sources.erp.with.orders]
query = "select * from sale where state not in ('draft', 'cancelled')"
member = "member"
order_id = "no"
at = "at"
amount = "amount"
category = "category"
returns = "original""#;
    for database in Database::all() {
        table(&database, "", &[format!("'{}'", phone(0)), format!("'{}'", phone(1))]);
        database.execute(
            "create table sale (member {text}, no {text}, original {text}, at {time}, amount decimal(12, 2), category {text}, state {text}); \
             insert into sale values ('C00', '1', null, '2026-01-01 10:00:00', 100, '茶', 'done'), \
             ('C00', '2', null, '2026-01-02 10:00:00', 50.5, '酒', 'done'), ('C00', '3', null, '2026-01-03 10:00:00', 999, '酒', 'cancelled'), \
             ('C00', '4', null, '2026-01-04 10:00:00', 80, '酒', 'done'), ('C00', '5', '4', '2026-01-05 10:00:00', -80, '酒', 'done'), \
             ('C00', '6', '1', '2026-01-06 10:00:00', -20, '茶', 'done')",
        );
        let retailer = retailer(&database, "select id, phone from member", "", orders);
        assert_sums(&retailer.once());
        let figures = "order_count, last_order_at, favourite_category, \
             cast(total_spent as text) as spent, cast(max_order_amount as text) as most, cast(last_order_amount as text) as last";
        let one = json!({
            "order_count": 2, "last_order_at": "2026-01-02T02:00:00Z", "favourite_category": "茶",
            "spent": "130.50", "most": "80.00", "last": "50.50"
        });
        let none = json!({
            "order_count": 0, "last_order_at": null, "favourite_category": null, "spent": "0.00", "most": null, "last": null
        });
        assert_eq!(members(&retailer, figures), [one, none], "{}", database.place().1);
    }
}

#[test]
fn text_in_the_character_set_of_a_table_is_read() {
    let mariadb = Database::mariadb();
    mariadb.execute("create table member (id varchar(8), phone varchar(16), name varchar(16)) character set gbk");
    let sqlite = Database::sqlite();
    sqlite.execute("pragma encoding = 'UTF-16le'; create table member (id text, phone text, name text)");
    let postgres = Database::postgres();
    let Database::Postgres(url) = &postgres else { panic!("it is one") };
    let name = url.split(['/', '?']).nth(3).expect("a name");
    postgres.execute(&format!("create database {name}_gb encoding 'EUC_CN' template template0"));
    let old = Database::Postgres(url.replace(name, &format!("{name}_gb")));
    old.execute("set client_encoding = 'UTF8'; create table member (id text, phone text, name text)");
    for database in [mariadb, sqlite, old] {
        let utf8 = if matches!(database, Database::Postgres(_)) { "set client_encoding = 'UTF8'; " } else { "" };
        database.execute(&format!("{utf8}insert into member values ('C00', '{}', '欧阳娜娜')", phone(0)));
        let retailer = retailer(&database, "select id, phone, name from member", "", "");
        retailer.once();
        assert_eq!(members(&retailer, "name"), [json!({"name": "欧阳娜娜"})], "{}", database.place().1);
    }
}

#[test]
fn padded_ids_are_those_without_their_spaces_and_a_line_break_stays_in_its_cell() {
    for database in Database::all() {
        let broken = if matches!(database, Database::Postgres(_)) { "'王' || chr(10) || '老'" } else { "'王\n老'" };
        let columns = if matches!(database, Database::Sqlite { .. }) { "text" } else { "char(12)" };
        database.execute(&format!("create table member (id {columns}, phone {columns}, name {columns}, store {columns})"));
        database.execute(&format!(
            "insert into member values ('C1  ', '{}  ', {broken}, 'S1 '), ('C2', '{}', '李  ', 'S1')",
            phone(0),
            phone(1)
        ));
        let retailer = retailer(&database, "select id, phone, name, store from member", "", "");
        assert_sums(&retailer.once());
        let ids: Vec<_> = retailer.query("select record_id from records order by record_id");
        assert_eq!(ids, [json!({"record_id": "C1"}), json!({"record_id": "C2"})]);
        assert_eq!(members(&retailer, "name, store"), [json!({"name": "王\n老", "store": "S1"}), json!({"name": "李", "store": "S1"})]);
        assert_eq!(retailer.work_lists().iter().map(|list| list.rows.len()).sum::<usize>(), 2, "one list, a row for each");
        let again = retailer.once();
        assert_eq!(count(&again, "/sources/erp/unchanged"), 2);
    }
}

#[test]
fn a_name_that_one_table_cut_off_does_not_part_one_member() {
    for database in Database::all() {
        table(&database, ", name {text}", &[format!("'{}', '阿卜杜拉'", phone(0)), format!("'{}', '阿卜杜拉·买买提'", phone(0))]);
        let report = retailer(&database, "select id, phone, name from member", "", "").once();
        assert_eq!(count(&report, "/members/total"), 1);
    }
}

/// A source that tells changes by their time, its table filled by two members.
fn changing(database: &Database, query: &str, source: &str) -> Retailer {
    let rows = [0, 1].map(|at| format!("'{}', 1, null, '2026-03-01 10:00:00'", phone(at)));
    table(database, ", active integer, replaced_by {text}, changed {time}", &rows);
    let retailer = retailer(database, query, source, "changed = [\"select id, changed from member where changed >= $cursor\"]");
    let first = retailer.once();
    assert_sums(&first);
    assert_eq!(count(&first, "/members/total"), 2);
    retailer
}

#[test]
fn a_day_that_is_all_that_is_known_of_a_change_hides_none_of_that_day() {
    for database in Database::all() {
        table(
            &database,
            ", name {text}, changed date",
            &[format!("'{}', '早', '2026-03-01'", phone(0)), format!("'{}', '早', '2026-02-01'", phone(1))],
        );
        let query = "select id, phone, name from member";
        let retailer = retailer(&database, query, "", "changed = [\"select id, changed from member where changed >= $cursor\"]");
        retailer.once();
        database.execute("update member set name = '晚', changed = '2026-03-01'");
        assert_eq!(count(&retailer.once(), "/sources/erp/changed"), 2);
    }
}

#[test]
fn a_card_that_is_switched_off_is_left_alone_at_once_if_the_query_says_so() {
    for database in Database::all() {
        let query = "select id, phone, case when active = 1 then '0' else '1' end as do_not_contact, changed from member";
        let retailer = changing(&database, query, "");
        database.execute("update member set active = 0, changed = '2026-03-02 10:00:00' where id = 'C00'");
        retailer.once();
        assert_eq!(members(&retailer, "do_not_contact"), [json!({"do_not_contact": true}), json!({"do_not_contact": false})]);
    }
}

#[test]
fn a_card_that_the_query_no_longer_gives_goes_with_the_sweep() {
    for database in Database::all() {
        for change in ["active = 0", "replaced_by = 'C01'"] {
            database.execute("drop table if exists member");
            let retailer = changing(&database, "select id, phone from member where active = 1 and replaced_by is null", "");
            database.execute(&format!("update member set {change}, changed = '2026-03-02 10:00:00' where id = 'C00'"));
            let pulled = retailer.once();
            assert_eq!((count(&pulled, "/sources/erp/deleted"), count(&pulled, "/members/total")), (0, 2));
            let swept = retailer.once_with(&["--sweep", "erp"]).exits(0).json();
            assert_eq!((count(&swept, "/sources/erp/deleted"), count(&swept, "/members/total")), (1, 1), "{change}");
        }
    }
}

#[test]
fn a_row_that_is_deleted_goes_with_the_sweep() {
    for database in Database::all() {
        let retailer = changing(&database, "select id, phone from member", "");
        database.execute("delete from member where id = 'C00'");
        assert_eq!(count(&retailer.once(), "/sources/erp/deleted"), 0);
        let swept = retailer.once_with(&["--sweep", "erp"]).exits(0).json();
        assert_eq!((count(&swept, "/sources/erp/deleted"), count(&swept, "/members/total")), (1, 1));
    }
}
