//! Figures of members that are computed from the rows of their orders, the same by each database.

use std::collections::BTreeMap;

use crate::common::{Database, Pulled, read_with, request, snapshot};
use reunion_sdk::{ErrorClass, ReadMode};
use serde_json::{Value, json};

const TABLES: &str = "create table member (id {text} primary key, changed {time}); \
     create table sale (member {text}, order_no {text}, at {time}, amount {money}, category {text}, original {text}, changed {time})";

fn with() -> Value {
    json!({
        "query": "select id from member;",
        "id_column": "id",
        "changed": ["select id, changed from member where changed >= $cursor", "select member, changed from sale where changed >= $cursor"],
        "orders": {
            "query": "select * from sale; ",
            "member": "member",
            "order_id": "order_no",
            "at": "at",
            "amount": "amount",
            "category": "category",
            "returns": "original"
        }
    })
}

/// Order, day, amount, category and the order that is given back.
type Sale = (&'static str, u32, &'static str, &'static str, &'static str);

/// What is sold, and what the figures come to: first, last, amount of the last, orders, total, largest, favourite.
const CASES: [(&str, &[Sale], &str); 17] = [
    ("no orders", &[], "-|-|-|0|0|-|-"),
    ("one order", &[("A", 1, "12.30", "茶", "")], "1|1|12.3|1|12.3|12.3|茶"),
    ("lines of one order", &[("A", 1, "10.10", "茶", ""), ("A", 1, "0.20", "酒", "")], "1|1|10.3|1|10.3|10.3|茶"),
    ("two orders", &[("A", 1, "30", "茶", ""), ("B", 5, "20", "酒", "")], "1|5|20|2|50|30|茶"),
    ("a return names its order and is in part", &[("A", 1, "30", "茶", ""), ("R", 7, "-10", "茶", "A")], "1|1|20|1|20|20|茶"),
    ("a return is written without a sign", &[("A", 1, "30", "茶", ""), ("R", 7, "10", "茶", "A")], "1|1|20|1|20|20|茶"),
    ("an order that is returned whole is none", &[("A", 1, "30", "茶", ""), ("R", 7, "-30", "茶", "A")], "-|-|-|0|0|-|-"),
    (
        "an order that is returned whole is not the last",
        &[("A", 1, "10", "茶", ""), ("B", 5, "30.30", "酒", ""), ("R", 7, "-10.10", "酒", "B"), ("S", 8, "-20.20", "酒", "B")],
        "1|1|10|1|10|10|茶",
    ),
    ("a line of the order itself is taken back", &[("A", 1, "30", "茶", ""), ("A", 6, "-10", "茶", "")], "1|1|20|1|20|20|茶"),
    ("a return that names no order lowers the total", &[("A", 1, "30", "茶", ""), ("R", 7, "-10", "茶", "")], "1|1|30|1|20|30|茶"),
    (
        "a return of an order that is not there changes nothing",
        &[("A", 1, "30", "茶", ""), ("R", 7, "-10", "茶", "Z")],
        "1|1|30|1|30|30|茶",
    ),
    (
        "more is given back than was paid",
        &[("A", 1, "30", "茶", ""), ("B", 2, "5", "酒", ""), ("R", 7, "-8", "酒", "B")],
        "1|1|30|1|27|30|茶",
    ),
    ("an order of nothing is none", &[("A", 1, "0", "茶", "")], "-|-|-|0|0|-|-"),
    ("of two orders at once the greater number is the last", &[("B", 1, "20", "茶", ""), ("A", 1, "30", "茶", "")], "1|1|20|2|50|30|茶"),
    (
        "what a return names decides between categories",
        &[("A", 1, "30", "茶", ""), ("A", 1, "25", "酒", ""), ("R", 7, "-10", "茶", "A")],
        "1|1|45|1|45|45|酒",
    ),
    ("of equal categories the first counts", &[("A", 1, "10", "b", ""), ("B", 2, "10", "a", "")], "1|2|10|2|20|10|a"),
    ("orders without a category have no favourite", &[("A", 1, "10", "", ""), ("", 2, "99", "", "")], "1|1|10|1|10|10|-"),
];

fn insert(database: &Database, member: &str, sales: &[Sale], changed: &str) {
    for (order, day, amount, category, original) in sales {
        let original = if original.is_empty() && *day == 1 { "null".to_owned() } else { format!("'{original}'") };
        database.execute(&format!(
            "insert into sale values ('{member}', '{order}', '2026-01-0{day} 10:00:00', {amount}, '{category}', {original}, '{changed}')"
        ));
    }
}

fn filled(database: &Database) {
    let money = if matches!(database, Database::Sqlite { .. }) { "real" } else { "decimal(12, 2)" };
    database.execute(&TABLES.replace("{money}", money));
    for (name, sales, _) in CASES {
        database.execute(&format!("insert into member values ('{name}', '2026-03-01 10:00:00')"));
        insert(database, name, sales, "2026-03-01 10:00:00");
    }
}

/// The figures by member: times as their day, amounts without zeros at the end.
fn figures(pulled: &Pulled) -> BTreeMap<String, String> {
    let plain = |value: &str| match value.split_once('.') {
        _ if value.starts_with("2026-01-0") => value["2026-01-0".len()..][..1].to_owned(),
        Some((whole, fraction)) => format!("{whole}.{}", fraction.trim_end_matches('0')).trim_end_matches('.').to_owned(),
        None => value.to_owned(),
    };
    let row = |row: &String| {
        let (id, figures) = row.split_once('|').unwrap();
        (id.to_owned(), figures.split('|').map(plain).collect::<Vec<_>>().join("|"))
    };
    pulled.rows.iter().map(row).collect()
}

#[test]
fn figures_are_what_the_orders_come_to_with_returns_taken_off() {
    for database in Database::all() {
        filled(&database);
        let pulled = snapshot(&database.source(with())).unwrap();
        let found = figures(&pulled);
        for (name, _, expected) in CASES {
            assert_eq!(found[name], expected, "{name}, {}", database.place().1);
        }
    }
}

#[test]
fn without_a_category_and_without_returns_there_are_none() {
    for database in Database::all() {
        filled(&database);
        let mut table = with();
        for key in ["category", "returns"] {
            table["orders"].as_object_mut().unwrap().remove(key);
        }
        let found = figures(&snapshot(&database.source(table)).unwrap());
        assert_eq!(found["one order"], "1|1|12.3|1|12.3|12.3");
        assert_eq!(found["a return names its order and is in part"], "1|1|30|1|20|30");
    }
}

#[test]
fn rows_that_lack_something_and_columns_of_other_types_are_understood() {
    for database in Database::all() {
        database.execute(
            "create table member (id integer primary key); insert into member values (1), (2); \
             create table sale (member integer, order_no bigint, at date, amount double precision, original bigint); \
             insert into sale values (1, 10, '2026-01-01', 0.1, null), (1, 10, '2026-01-02', 0.2, null), (1, 11, '2026-01-03', 0.3, null), \
             (1, 12, '2026-01-04', -0.1, 11), (1, 13, '2026-01-04', -0.2, 11), (1, 14, null, 5, null), (1, 15, '2026-01-05', null, null), \
             (1, null, '2026-01-06', 7, null), (null, 16, '2026-01-07', 7, null), (3, 17, '2026-01-08', 7, null)",
        );
        let source = database.source(json!({
            "query": "select id from member",
            "id_column": "id",
            "orders": {"query": "select * from sale", "member": "member", "order_id": "order_no", "at": "at", "amount": "amount", "returns": "original"}
        }));
        // The first and the last order have a time, the largest has none.
        let expected = [("1", "1|1|0.3|2|5.3|5"), ("2", "-|-|-|0|0|-")];
        assert_eq!(figures(&snapshot(&source).unwrap()), expected.map(|(id, row)| (id.to_owned(), row.to_owned())).into());
    }
}

#[test]
fn an_order_that_changes_has_its_member_read_and_no_other() {
    for database in Database::all() {
        filled(&database);
        let source = database.source(with());
        let incremental = |state| read_with(&source, request(ReadMode::Incremental, false), state).unwrap();
        // A member of later than all others, whom alone the overlap names.
        database.execute("insert into member values ('newest', '2026-03-02 10:00:00')");
        insert(&database, "newest", &[("N", 1, "1", "茶", "")], "2026-03-02 10:00:00");
        let first = incremental(None);
        assert_eq!(first.rows.len(), CASES.len() + 1);
        insert(&database, "one order", &[("B", 9, "100", "酒", "")], "2026-03-02 10:00:00");
        let second = figures(&incremental(first.state()));
        let expected = [("newest", "1|1|1|1|1|1|茶"), ("one order", "1|9|100|2|112.3|100|酒")];
        assert_eq!(second, expected.map(|(id, row)| (id.to_owned(), row.to_owned())).into());
        assert_eq!(figures(&snapshot(&source).unwrap())["one order"], "1|9|100|2|112.3|100|酒");
    }
}

#[test]
fn what_is_wrong_with_orders_is_said_at_its_key() {
    for database in Database::all() {
        filled(&database);
        let error = |key: &str, value: &str| {
            let mut table = with();
            table["orders"][key] = value.into();
            snapshot(&database.source(table)).unwrap_err()
        };
        for key in ["member", "order_id", "at", "amount", "category", "returns"] {
            let error = error(key, "nothing");
            assert_eq!((error.class, error.key), (ErrorClass::InvalidConfig, Some(format!("orders.{key}"))));
            assert!(error.message.starts_with("the query has no column \"nothing\"; it has member, order_no"), "{}", error.message);
        }
        assert_eq!(error("query", "select * from nowhere").key.as_deref(), Some("orders.query"));
        let other = error("query", "select 1 as member, order_no, at, amount, category, original from sale");
        assert_eq!(other.key.as_deref(), Some("orders.member"), "{other}");
        if !matches!(database, Database::Sqlite { .. }) {
            assert_eq!(error("amount", "at").key.as_deref(), Some("orders.amount"));
            assert_eq!(error("returns", "at").key.as_deref(), Some("orders.returns"));
        }
        let mut table = with();
        table["query"] = "select id, 1 as total_spent from member".into();
        let error = snapshot(&database.source(table)).unwrap_err();
        assert_eq!(
            (error.key.as_deref(), error.message.as_str()),
            (Some("query"), "`query` gives a column \"total_spent\", and so does `orders`")
        );
    }
}
