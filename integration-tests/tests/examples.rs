//! The configs of config/examples: all are right, and do what they say where that can be had here. Tryton, which can be
//! had as it is, has tests of its own: `make test-erp`.

#[path = "../../plugins/sources/sql/tests/common/mariadb.rs"]
mod mariadb;
#[path = "../../core/ledger/tests/common/postgres.rs"]
mod postgres;

use std::fs;
use std::path::{Path, PathBuf};

use reunion_integration_tests::harness::{Retailer, assert_sums, count};
use serde_json::{Value, json};

const PASSWORD: &str = "of the tests";
/// What a script of an example writes where nothing else is said: a member who came once, long ago.
const CELLS: [(&str, &str); 15] = [
    ("record_id", "001"),
    ("card_no", "C001"),
    ("name", "王\"小\"花"),
    ("phone", "139 0012 3401"),
    ("gender", "女"),
    ("birthday", "1988-08-18"),
    ("store", "S1"),
    ("staff", "NULL"),
    ("points", "12.00"),
    ("registered_at", "2024-02-03 00:00:00"),
    ("created_at", "2024-02-03 00:00:00"),
    ("updated_at", "2025-03-10 18:05:06"),
    ("last_order_at", "2025-03-10 18:05:06"),
    ("order_count", "1"),
    ("total_spent", "99.50"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples")
}

/// The names of the examples.
fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the examples").map(|entry| entry.expect("an example").path());
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut names: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).map(stem).collect();
    names.sort();
    assert!(names.len() >= 7, "{names:?}");
    names
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name).with_extension("toml")).expect("an example")
}

/// A retailer with an example for its config, with folders, key and password of its own.
fn retailer(name: &str) -> Retailer {
    let mut retailer = Retailer::new("");
    let config = text(name)
        .replace("/var/lib/reunion/in/", "")
        .replace("/var/lib/reunion/", "")
        .replace("\"/var/lib/reunion\"", "\"state\"")
        .replace("{ credential = \"reunion.key\" }", "{ file = \"state.key\" }")
        .replace("{ credential = \"erp.password\" }", "{ file = \"erp.password\" }");
    retailer.set_config(&config);
    retailer.write_key("erp.password", PASSWORD);
    retailer
}

/// Lets a retailer's runs have the tests' clock, after the example was checked as it is.
fn allow_clock(retailer: &Retailer) {
    fs::write(retailer.path("conf.d/testing.toml"), "[testing]\nclock = true\n").expect("a file can be written");
}

/// `check`, which may have nothing to say.
#[track_caller]
fn check(retailer: &Retailer, args: &[&str]) {
    let checked = retailer.run(&[&["check"], args].concat()).exits(0);
    assert!(!checked.stderr.contains("warning"), "{}", checked.stderr);
}

/// The lines of a script in the comments of an example: those that are indented.
fn script(name: &str) -> Vec<String> {
    text(name).lines().filter_map(|line| line.strip_prefix("##     ")).map(str::to_owned).collect()
}

/// The statements that an example's head gives the database's administrator.
fn grants(name: &str) -> String {
    let statements: Vec<_> = script(name).into_iter().map(|line| line.replace('…', PASSWORD)).collect();
    assert!(statements.iter().any(|line| line.starts_with("grant select")), "{statements:?}");
    statements.join("\n")
}

/// The columns of a file without a header, as an example names them.
fn columns(name: &str) -> Option<Vec<String>> {
    let text = text(name);
    let (_, rest) = text.split_once("\ncolumns = [")?;
    let (list, _) = rest.split_once(']').expect("the list ends");
    Some(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// The members of a retailer by phone, each as an array of these columns.
fn members(retailer: &Retailer, columns: &[&str]) -> Vec<Value> {
    let rows = retailer.query(&format!("select {} from members order by phone", columns.join(", ")));
    rows.iter().map(|row| columns.iter().map(|column| row[column].clone()).collect()).collect()
}

#[test]
fn every_example_is_right() {
    for name in names() {
        check(&retailer(&name), &[]);
    }
}

#[test]
fn every_example_has_its_row_on_the_page() {
    for page in ["operate", "zh"] {
        let page = fs::read_to_string(folder().join("../../docs").join(page).join("examples.md")).expect("the page");
        for name in names() {
            assert!(page.contains(&format!("[`{name}.toml`](../../config/examples/{name}.toml)")), "{name} is not on the page");
        }
    }
}

#[test]
fn a_script_selects_the_columns_that_its_config_names() {
    let mut scripts = 0;
    for name in names() {
        let Some(columns) = columns(&name) else { continue };
        let script = script(&name);
        let select = script.iter().skip_while(|line| *line != "select").skip(1).take_while(|line| !line.starts_with("from "));
        let alias = |line: &String| line.trim_end_matches(',').rsplit(' ').next().unwrap_or_default().to_owned();
        assert_eq!(select.map(alias).collect::<Vec<_>>(), columns, "{name}");
        scripts += 1;
    }
    assert_eq!(scripts, 4);
}

#[test]
fn what_a_script_writes_is_read() {
    for name in names() {
        let Some(columns) = columns(&name) else { continue };
        let row = |changed: &[(&str, &str)]| {
            let cell = |column| changed.iter().chain(&CELLS).find(|(name, _)| name == column).expect("a cell").1;
            columns.iter().map(cell).collect::<Vec<_>>().join("\t") + "\r\n"
        };
        let rows = [row(&[]), row(&[("record_id", "002"), ("phone", "NULL"), ("last_order_at", "NULL"), ("name", "李四")])];
        let retailer = retailer(&name);
        let config = text(&name);
        let file = config.split("/var/lib/reunion/in/").nth(1).and_then(|rest| rest.split('"').next()).expect("a file");
        retailer.write_bytes(file, &encoding_rs::GB18030.encode(&rows.concat()).0);
        check(&retailer, &["--connect"]);
        allow_clock(&retailer);
        let report = retailer.once();
        assert_sums(&report);
        assert_eq!(report["sources"]["erp"]["quarantined"], json!({"phone_missing": 1}), "{name}: {report:#}");
        let read = members(&retailer, &["phone", "name", "last_order_at", "order_count", "total_spent"]);
        assert_eq!(read, [json!(["8613900123401", "王\"小\"花", "2025-03-10T10:05:06Z", 1, 99.5])], "{name}");
        if columns.iter().any(|column| column == "gender") {
            assert_eq!(members(&retailer, &["gender"]), [json!(["female"])], "{name}");
        }
    }
}

#[test]
fn the_query_for_odoo_runs_on_tables_of_its_columns() {
    let (server, url) = (postgres::server(), postgres::server().database());
    server.execute(&url, include_str!("examples/odoo.sql"));
    server.execute(&url, &grants("odoo"));
    let mut retailer = retailer("odoo");
    retailer.edit_config("postgres://reunion@erp.example/odoo", &url.replace("postgres://postgres@", "postgres://reunion@"));
    check(&retailer, &["--connect"]);
    allow_clock(&retailer);
    assert_eq!(count(&retailer.plan(), "/members/total"), 3);
    assert_sums(&retailer.once());
    let columns = &["phone", "name", "store", "store_name", "do_not_contact", "order_count", "total_spent"];
    let wang = json!(["8613900123401", "王小花", "2", "南京路", false, 1, 100]);
    let li = json!(["8613900123402", "李四", null, null, true, 1, 80]);
    let zhao = json!(["8613900123403", "赵六", null, null, false, 0, 0]);
    assert_eq!(members(&retailer, columns), [wang.clone(), li, zhao.clone()]);
    let missing = retailer.query("select record_id from quarantine where reason = 'phone_missing'");
    assert_eq!(missing, [json!({"record_id": "4"})], "the archived one");

    server.execute(
        &url,
        "update phone_blacklist set active = false, write_date = now() at time zone 'UTC';
        update sale_order set state = 'cancel', write_date = now() at time zone 'UTC';
        update res_partner set active = false, write_date = now() at time zone 'UTC' where id = 3;",
    );
    retailer.once();
    let li = json!(["8613900123402", "李四", null, null, false, 0, 0]);
    assert_eq!(members(&retailer, columns), [wang, li]);
}

#[test]
fn the_query_for_erpnext_runs_on_tables_of_its_columns() {
    let server = mariadb::server();
    let (database, url) = server.database("reunion");
    server.execute(&database, include_str!("examples/erpnext.sql"));
    server.execute(&database, &grants("erpnext"));
    let mut retailer = retailer("erpnext");
    retailer.edit_config("mysql://reunion@erp.example/_1bd3e0294da19198", &url);
    check(&retailer, &["--connect"]);
    allow_clock(&retailer);
    assert_eq!(count(&retailer.plan(), "/members/total"), 3);
    assert_sums(&retailer.once());
    let columns = &["phone", "name", "gender", "store", "do_not_contact", "order_count", "total_spent"];
    let wang = json!(["8613900123401", "王小花", "female", "南京路", false, 2, 250]);
    let li = json!(["8613900123402", "李四", null, null, true, 1, 80]);
    let zhao = json!(["8613900123403", "赵六", "male", null, false, 0, 0]);
    assert_eq!(members(&retailer, columns), [wang.clone(), li, zhao.clone()]);
    let missing = retailer.query("select record_id from quarantine where reason = 'phone_missing'");
    assert_eq!(missing, [json!({"record_id": "CUST-4"})], "the disabled one");

    server.execute(
        &database,
        "update tabContact set mobile_no = '139 0012 3405', unsubscribed = 0, modified = now(6) where name = 'C-2';
        update `tabSales Invoice` set docstatus = 2, modified = now(6) where customer = 'CUST-2';
        update tabCustomer set disabled = 1, modified = now(6) where name = 'CUST-3';",
    );
    retailer.once();
    let li = json!(["8613900123405", "李四", null, null, false, 0, 0]);
    assert_eq!(members(&retailer, columns), [wang, li]);
}
