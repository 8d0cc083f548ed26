use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array};

use super::*;
use crate::output::{to_json_rows, to_text_table};

fn tables() -> Vec<Table> {
    let ids = FixedSizeBinaryArray::try_from_iter((0..3_u8).map(|n| [n; 16])).expect("ids");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("member_id", Arc::new(ids)),
        ("phone", Arc::new(UInt64Array::from(vec![Some(8613800138000), None, Some(8613900001200)]))),
        ("store", Arc::new(StringArray::from(vec![Some("S1"), Some("徐汇"), None]))),
        ("order_count", Arc::new(Int64Array::from(vec![3, 1, 2]))),
        ("last_order_at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_767_196_800_000_000, 1]).with_timezone("UTC"))),
    ];
    let members = RecordBatch::try_from_iter(columns).expect("a batch");
    let records = RecordBatch::try_from_iter([("source", Arc::new(StringArray::from(vec!["pos"])) as ArrayRef)]).expect("a batch");
    [("members", members), ("records", records)]
        .map(|(name, batch)| Table { name: name.to_owned(), schema: batch.schema(), batches: vec![batch] })
        .into()
}

fn ask_within(sql: &str, rows_max: usize, memory_bytes_max: usize) -> Result<Vec<RecordBatch>, QueryError> {
    let clock = QueryClock { at_us: 1_767_196_800_000_000, timezone: "Asia/Shanghai".to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(query(sql, tables(), clock, QueryLimits { rows_max, memory_bytes_max }))
}

fn ask(sql: &str) -> String {
    match ask_within(sql, 1000, 64 << 20) {
        Ok(batches) => serde_json::to_string(&to_json_rows(&batches).expect("JSON")).expect("JSON"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn queries_see_ids_and_phones_as_text_and_days_in_the_timezone() {
    insta::assert_snapshot!(ask("select * from members where order_count = 3"), @r#"[{"last_order_at":"1970-01-01T00:00:00Z","member_id":"00000000000000000000000000000000","order_count":3,"phone":"8613800138000","store":"S1"}]"#);
    insta::assert_snapshot!(ask("select phone from members where member_id = '02020202020202020202020202020202'"), @r#"[{"phone":"8613900001200"}]"#);
    insta::assert_snapshot!(ask("select count(*) as n, sum(order_count) as orders, avg(order_count) as mean from members"), @r#"[{"mean":2,"n":3,"orders":6}]"#);
    insta::assert_snapshot!(ask("select date_trunc('day', last_order_at) as day, last_order_at::date as date from members where store = '徐汇'"), @r#"[{"date":"2026-01-01","day":"2025-12-31T16:00:00Z"}]"#);
    insta::assert_snapshot!(ask("select now() as now, current_date as today from members order by order_count"), @r#"[{"now":"2025-12-31T16:00:00Z","today":"2026-01-01"},{"now":"2025-12-31T16:00:00Z","today":"2026-01-01"},{"now":"2025-12-31T16:00:00Z","today":"2026-01-01"}]"#);
    insta::assert_snapshot!(ask("with s as (select source from records) select s.source, m.store from s cross join members m order by m.order_count"), @r#"[{"source":"pos","store":"徐汇"},{"source":"pos","store":null},{"source":"pos","store":"S1"}]"#);
    insta::assert_snapshot!(ask("select store from members where order_count > 99"), @"[]");
    insta::assert_snapshot!(ask("select table_name from information_schema.tables where table_schema = 'public' order by 1"), @r#"[{"table_name":"members"},{"table_name":"records"}]"#);
}

#[test]
fn people_get_a_table() {
    let batches = ask_within("select store, order_count, last_order_at from members order by order_count", 10, 64 << 20).expect("rows");
    insta::assert_snapshot!(to_text_table(&batches).expect("a table"), @r#"
    store  order_count  last_order_at
    -----  -----------  --------------------------------
    徐汇             1  2026-01-01T00:00:00+08:00
                     2  1970-01-01T08:00:00.000001+08:00
    S1               3  1970-01-01T08:00:00+08:00
    "#);
}

#[test]
fn what_is_no_query_is_refused() {
    for sql in [
        "insert into members select * from members",
        "delete from members",
        "update members set store = 'x'",
        "create table x as select * from members",
        "create view x as select * from members",
        "drop table members",
        "drop view members",
        "copy members to '/tmp/x.csv'",
        "set datafusion.execution.batch_size = 1",
        "create external table x stored as csv location '/etc/passwd'",
        "select * into x from members",
        "begin",
        "explain analyze insert into members select * from members",
        "prepare p as select 1",
    ] {
        assert!(matches!(ask_within(sql, 10, 64 << 20), Err(QueryError::NotReadOnly | QueryError::Text { .. })), "{sql}");
    }
    assert!(ask("explain select store from members").contains("plan"));
    assert!(ask("show tables").contains("members"));
    assert!(ask("describe members").contains("order_count"));
}

#[test]
fn mistakes_are_told_in_plain_words() {
    let texts = [
        "",
        "select",
        "select * from member",
        "select * from sales",
        "select stor from members",
        "select store from members where",
        "select store, count(*) from members",
        "select m.store from members",
        "select 1; select 2",
        "select lenght(store) from members",
        "select store + 1 from members",
        "select cast(store as int) from members",
        "select 1 / (order_count - 1) from members",
        "select cast('1380013800' || store as int) from members",
        "select * from '/etc/passwd'",
        "selec * from members",
        "select * from members m, members n where store is null",
        "drop table members",
    ];
    insta::assert_snapshot!(texts.map(|sql| format!("{sql}\n    {}", ask(sql))).join("\n"), @r#"
        the query is empty; write a query, such as select count(*) from members
    select
        the text ends where an expression should follow
    select * from member
        there is no table `member`; did you mean `members`?
    select * from sales
        there is no table `sales`; there are `members`, `records`
    select stor from members
        there is no column `stor`; did you mean `store`?
    select store from members where
        the text ends where an expression should follow
    select store, count(*) from members
        `members.store` must stand in group by or within an aggregate, as in max(members.store)
    select m.store from members
        there is no column `m.store`; did you mean `store`?
    select 1; select 2
        there is more than one statement, and a query is one
    select lenght(store) from members
        there is no function lenght(); did you mean length()?
    select store + 1 from members
        values of these kinds cannot be computed with: text + number
    select cast(store as int) from members
        the query failed while it ran: 'S1' is text, where a number is needed
    select 1 / (order_count - 1) from members
        the query failed while it ran: a number is divided by zero: write nullif(…, 0) around the divisor
    select cast('1380013800' || store as int) from members
        the query failed while it ran: '138****3800S1' is text, where a number is needed
    select * from '/etc/passwd'
        there is no table `/etc/passwd`; there are `members`, `records`
    selec * from members
        `selec` stands where an SQL statement should be
    select * from members m, members n where store is null
        `store` could be a column of more than one table; write the table's name before it, with a point between
    drop table members
        only queries are allowed, and this statement changes something: write select, with, explain, show tables or describe
    "#);
}

#[test]
fn rows_and_memory_are_bounded() {
    let error = |sql, rows, bytes| ask_within(sql, rows, bytes).map(|batches| to_text_table(&batches)).expect_err("too much").to_string();
    insta::assert_snapshot!(error("select * from members", 2, 64 << 20), @"the query gives more than 2 rows: add a condition or a limit");
    insta::assert_snapshot!(error("select count(*) from (select distinct (value * 7919) % 3000017 from generate_series(1, 3000000) t(value))", 10, 4 << 20), @"the query needs more than 4194304 bytes of memory: select fewer columns, or add a condition or a limit");
    insta::assert_snapshot!(error("select array_agg(value) from generate_series(1, 3000000) t(value)", 10, 4 << 20), @"the query needs more than 4194304 bytes of memory: select fewer columns, or add a condition or a limit");
    insta::assert_snapshot!(error("select value from generate_series(1, 3000000) t(value)", usize::MAX, 1 << 20), @"the query needs more than 1048576 bytes of memory: select fewer columns, or add a condition or a limit");
}
