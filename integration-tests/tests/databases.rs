//! Members in a database, by the real binary and the plugin `sql`.

#[allow(dead_code, reason = "the plugin's own tests need more of it")]
#[path = "../../plugins/sources/sql/tests/common/database.rs"]
mod database;
#[path = "databases/pitfalls.rs"]
mod pitfalls;
#[path = "../../plugins/sources/sql/tests/common/writers.rs"]
mod writers;

use std::collections::BTreeMap;

use database::Database;
use reunion_integration_tests::harness::{OPENING, Retailer, assert_sums, count};
use serde_json::Value;
use writers::Member;

const CONFIG: &str = r#"[sources.erp]
plugin = "sql"
mode = "incremental"
sweep = "0 3 * * *"
max_age_hours = 8784
columns = { record_id = "card", phone = "mobile", updated_at = "changed" }
[sources.erp.with]
file = "erp.db"
query = "select card, mobile, name, store, changed from member where changed >= $cursor"
id_column = "card"
cursor_column = "changed"
[tags.member]
when = "true"
[campaigns.hello]
audience = "member"
channel = "lists"
holdout = 0.0
message = "{{ name }}"
[channels.lists]
plugin = "file"
with = { path = "out/{store}/{date}-{run}.csv" }
[pipelines.daily]
sources = ["erp"]
campaigns = ["hello"]
"#;

fn retailer() -> Retailer {
    let retailer = Retailer::new(&format!("{OPENING}{CONFIG}"));
    execute(&retailer, "create table member (card text primary key, mobile text, name text, store text, changed text)");
    retailer
}

fn execute(retailer: &Retailer, sql: &str) {
    Database::Sqlite { path: retailer.path("erp.db"), _folder: None }.execute(sql);
}

fn insert(retailer: &Retailer, numbers: std::ops::Range<usize>, changed: &str) {
    let rows = numbers.map(|at| format!("('C{at:03}', '1390012{at:04}', '名', 'S1', '{changed}')"));
    execute(retailer, &format!("insert into member values {}", rows.collect::<Vec<_>>().join(",")));
}

#[test]
fn changes_come_by_their_time_and_all_else_by_a_sweep() {
    let retailer = retailer();
    insert(&retailer, 0..39, "2026-02-01 10:00:00");
    insert(&retailer, 39..40, "2026-03-01 10:00:00");
    let first = retailer.once();
    assert_sums(&first);
    assert_eq!((count(&first, "/sources/erp/new"), count(&first, "/members/total")), (40, 40));
    assert_eq!(count(&first, "/channels/lists/sent"), 40);

    // One is new, one changed, one changed without its time, one is gone.
    insert(&retailer, 40..41, "2026-03-02 10:00:00");
    execute(&retailer, "update member set name = '改', changed = '2026-03-02 10:00:00' where card = 'C001'");
    execute(&retailer, "update member set name = '静' where card = 'C002'");
    execute(&retailer, "delete from member where card = 'C003'");
    let second = retailer.once();
    assert_sums(&second);
    let counts = ["new", "changed", "deleted"].map(|name| count(&second, &format!("/sources/erp/{name}")));
    assert_eq!(counts, [1, 1, 0], "{second:#}");

    let planned = retailer.json(&["plan", "--now", &retailer.now(), "--sweep", "erp"]);
    let sweep = retailer.once_with(&["--sweep", "erp"]).exits(0).json();
    assert_sums(&sweep);
    for report in [&planned, &sweep] {
        let counts = ["new", "changed", "deleted"].map(|name| count(report, &format!("/sources/erp/{name}")));
        assert_eq!(counts, [0, 1, 1], "{report:#}");
        assert_eq!(report["notes"][0], "the source erp was read whole: a sweep");
    }
    assert_eq!(count(&sweep, "/members/total"), 40);
    let after = retailer.once();
    assert_eq!(count(&after, "/sources/erp/pulled"), 2, "from the newest time again: {after:#}");
    assert_eq!(count(&after, "/sources/erp/unchanged"), 2);
    retailer.run(&["once", "--now", &retailer.now(), "--sweep", "till"]).exits(2).says(&["--sweep names `till`"]);
}

#[test]
fn a_sweep_that_would_delete_too_much_is_refused() {
    let retailer = retailer();
    insert(&retailer, 0..40, "2026-03-01 10:00:00");
    retailer.once();
    execute(&retailer, "delete from member where card >= 'C020'");
    retailer.once_with(&["--sweep", "erp"]).exits(3).says(&["lost 20 of its 40 rows", "--accept erp"]);
    let accepted = retailer.once_with(&["--accept", "erp"]).exits(0).json();
    assert_eq!(count(&accepted, "/members/total"), 20, "{accepted:#}");
}

#[test]
fn a_secret_is_found_where_the_config_says_or_said_to_be_missing() {
    let mut retailer = retailer();
    retailer.edit_config("id_column = \"card\"", "password = { env = \"REUNION_VARIABLE_THAT_NOBODY_SETS\" }\nid_column = \"card\"");
    let missing = ["the secret's variable REUNION_VARIABLE_THAT_NOBODY_SETS is not set", "reunion.toml"];
    retailer.run(&["check"]).exits(2).says(&missing);
    retailer.run(&["plan"]).exits(2).says(&missing);
    retailer.edit_config("{ env = \"REUNION_VARIABLE_THAT_NOBODY_SETS\" }", "{ file = \"password\" }");
    retailer.write_key("password", "hunter2\n");
    // It was found: SQLite has no use for one.
    let refused = retailer.run(&["plan"]).exits(2);
    refused.says(&["an SQLite file has no password"]);
    retailer.edit_config("password = { file = \"password\" }", "password = \"hunter2\"");
    let shown = retailer.run(&["check"]).exits(2);
    shown.says(&["`password` does not say where the secret is", "{ credential ="]);
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
    retailer.edit_config("password = \"hunter2\"\n", "");
    retailer.edit_config("file = \"erp.db\"", "url = \"mysql://reader:hunter2@erp.example/pos\"");
    let shown = retailer.run(&["check"]).exits(2);
    shown.says(&["`url` holds a password", "reunion.toml:15"]);
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
}

#[test]
fn after_the_last_sweep_the_records_are_the_tables_whatever_changed_while_runs_read_them() {
    for database in Database::all() {
        database.execute(writers::TABLES);
        let mut retailer = Retailer::new(&format!("{OPENING}{CONFIG}"));
        let (key, place) = database.place();
        retailer.edit_config("file = \"erp.db\"", &format!("{key} = {place:?}"));
        retailer.edit_config("sweep = ", &format!("overlap_secs = {}\ndeleted_share_max = 1.0\nsweep = ", writers::LATE_SECS + 1));
        retailer.edit_config("record_id = \"card\", phone = \"mobile\", updated_at = \"changed\"", "record_id = \"id\"");
        retailer.edit_config(
            "select card, mobile, name, store, changed from member where changed >= $cursor",
            "select m.id, m.name, c.phone from member m join contact c on c.id = m.id",
        );
        let changed = ["member", "contact"]
            .map(|table| format!("\"select id, changed from {table} where changed >= $cursor or changed is null\""))
            .join(", ");
        retailer.edit_config("id_column = \"card\"\ncursor_column = \"changed\"", &format!("id_column = \"id\"\nchanged = [{changed}]"));
        let members = writers::write(&database, 11, 30, || assert_sums(&retailer.once()));
        assert_sums(&retailer.once());
        let found = || {
            let text = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let rows = retailer.query("select name, phone from members");
            rows.iter().map(|row| (text(row, "phone"), text(row, "name"))).collect::<BTreeMap<_, _>>()
        };
        let expected = |wanted: fn(&Member) -> bool| {
            let wanted = members.values().filter(|member| wanted(member));
            wanted.map(|member| (format!("86{}", member.phone), member.name.clone())).collect::<BTreeMap<_, _>>()
        };
        let records = found();
        for (phone, name) in expected(|member| member.is_found) {
            assert_eq!(records.get(&phone), Some(&name), "before the sweep, {place}");
        }
        assert_sums(&retailer.once_with(&["--sweep", "erp"]).exits(0).json());
        assert_eq!(found(), expected(|_| true), "{place}");
    }
}
