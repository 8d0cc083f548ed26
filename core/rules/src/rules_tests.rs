use reunion_model::schema::ColumnType;

use super::*;
use crate::rule_schema;

fn columns() -> Schema {
    let golden = [
        ("name", ColumnType::Text),
        ("store", ColumnType::Text),
        ("birthday", ColumnType::Date),
        ("last_order_at", ColumnType::Timestamp),
        ("order_count", ColumnType::Integer),
        ("total_spent", ColumnType::Decimal),
        ("do_not_contact", ColumnType::Boolean),
        ("VIP", ColumnType::Text),
        ("等级", ColumnType::Text),
    ];
    rule_schema(golden)
}

fn tag(name: &str, when: &str) -> TagRule {
    TagRule { name: name.to_owned(), when: when.to_owned() }
}

fn compile(tags: &[TagRule]) -> Result<Rules, Vec<RuleError>> {
    Rules::compile(&columns(), tags, &[], "Asia/Shanghai")
}

/// The errors of each rule as an operator sees them, with the text that is underlined.
fn errors(rules: &[&str]) -> String {
    let mut lines = Vec::new();
    for when in rules {
        match compile(&[tag("x", when)]) {
            Ok(_) => lines.push(format!("{when}\n    is right")),
            Err(errors) => {
                for error in errors {
                    let blamed = error.span.map_or("the rule", |(begin, length)| &when[begin..begin + length]);
                    let suggestion = error.suggestion.map_or(String::new(), |suggestion| format!("; {suggestion}"));
                    lines.push(format!("{when}\n    [{blamed}] {}{suggestion}", error.message));
                }
            }
        }
    }
    lines.join("\n")
}

#[test]
fn rules_that_are_right_compile() {
    let rules = [
        "last_order_at < now() - interval '180 days'",
        "last_order_at >= '2026-01-01' and last_order_at < '2026-02-01 12:30:00'",
        "store_rank_by_spent <= 1000",
        "phone_only and store is not null",
        "total_spent / order_count > 99.9",
        "total_spent between 100 and 1000.50",
        "store in ('S1', 'S2') or name like '张%' or name ~ '^李'",
        "extract(month from birthday) = extract(month from current_date)",
        "date_trunc('day', last_order_at) = current_date",
        "birthday is not null and date_part('year', birthday) < 2000",
        "case when order_count > 3 then true else false end",
        "not do_not_contact",
        "coalesce(order_count, 0) = 0",
        "rfm_segment = 'champion' and lifecycle <> 'lost'",
        "\"VIP\" = 'A' and 等级 = '金'",
        "phone like '86138%' and member_id <> ''",
        "cast(store as bigint) > 12",
        "length(name) = 3 and lower(store) = 's1' and trim(name) <> ''",
        "order_count % 2 = 1",
        "last_order_at::date = today()",
        "last_order_at < current_timestamp",
        "true",
    ];
    for rule in rules {
        if let Err(errors) = compile(&[tag("x", rule)]) {
            panic!("{rule}: {}", errors[0]);
        }
    }
}

#[test]
fn names_that_are_wrong_are_told_with_the_nearest_right_one() {
    insta::assert_snapshot!(errors(&[
        "last_order_att < now()",
        "shop_size > 3",
        "Stor = 'S1'",
        "VIP = 'A'",
        "store = \"S01\"",
        "members.store = 'S1'",
        "lenght(name) > 2",
        "frobnicate(name)",
        "x and order_count > 1",
        "x_since is null",
    ]), @r#"
    last_order_att < now()
        [last_order_att] there is no column `last_order_att`; did you mean `last_order_at`?
    shop_size > 3
        [shop_size] there is no column `shop_size`
    Stor = 'S1'
        [Stor] there is no column `stor`; did you mean `store`?
    VIP = 'A'
        [VIP] there is no column `vip`; capital letters need double quotes: write "VIP"
    store = "S01"
        ["S01"] there is no column `S01`; text stands in single quotes: write 'S01'
    members.store = 'S1'
        [store] there is no column `members.store`; did you mean `store`?
    lenght(name) > 2
        [lenght] there is no function lenght(); did you mean length()?
    frobnicate(name)
        [frobnicate] there is no function frobnicate()
    x and order_count > 1
        [x] `x` is the tag's own: a tag cannot name itself
    x_since is null
        [x_since] `x_since` is the tag's own: a tag cannot name itself
    "#);
}

#[test]
fn texts_that_are_no_sql_are_told_where() {
    insta::assert_snapshot!(errors(&[
        "",
        "store = 'S1",
        "store = ‘S1’",
        "order_count >",
        "order_count > 3 and",
        "(order_count > 3",
        "order_count > 3)",
        "order_count => 3",
        "order_count > 3; drop table members",
        "order_count > 3 as much",
        "order_count between 3",
        "store is nul",
        "order_count > 3 && store is null",
    ]), @r#"
        [the rule] the rule is empty; write a condition, such as order_count > 0
    store = 'S1
        ['] a text begins with ' and does not end; close it with another '
    store = ‘S1’
        [‘] `‘` is a full-width character, which SQL does not know; write '
    order_count >
        [] the text ends where an expression should follow
    order_count > 3 and
        [] the text ends where an expression should follow
    (order_count > 3
        [] the text ends where ) should follow
    order_count > 3)
        [)] `)` stands where the rule should end
    order_count => 3
        [=>] `=>` is not SQL; write >=
    order_count > 3; drop table members
        [;] `;` stands where the rule should end
    order_count > 3 as much
        [much] a rule has no `as`: its name is its key in the config
    order_count between 3
        [] the text ends where AND should follow
    store is nul
        [nul] `nul` stands after `is`; write is null, is not null, is true or is false
    order_count > 3 && store is null
        [&&] `&&` is not SQL; write and
    "#);
}

#[test]
fn types_that_do_not_fit_are_told() {
    insta::assert_snapshot!(errors(&[
        "store = 12",
        "order_count = 'five'",
        "order_count > '5'",
        "order_count",
        "total_spent + 1",
        "name",
        "last_order_at",
        "null",
        "do_not_contact = 1",
        "last_order_at < now() - 180",
        "last_order_at < now() - '180 days'",
        "last_order_at < '31.12.2025'",
        "last_order_at > 20250101",
        "birthday = '1990'",
        "name + 1 > 2",
        "name + 'x' = 'ax'",
        "order_count like '1%'",
        "order_count and phone_only",
        "not store",
        "store in ('S1', 2)",
        "order_count between 'a' and 3",
        "now() - last_order_at > interval '180 days'",
        "date_trunc('day', name) = current_date",
        "length() > 1",
        "substr(name) = 'a'",
        "last_order_at < now() - interval '180 dayz'",
        "cast('x' as int) = 1",
        "order_count = 'x'::int",
        "case when order_count then true else false end",
        "case when order_count > 1 then 1 else 'a' end = 1",
    ]), @r#"
    store = 12
        [12] `store` is text, and 12 is a number: they cannot be compared; write '12'
    order_count = 'five'
        ['five'] `order_count` is a number, and 'five' is text: they cannot be compared
    order_count > '5'
        ['5'] `order_count` is a number, and '5' is text: they cannot be compared; write 5 without quotes
    order_count
        [the rule] the rule gives a number, and must say true or false; compare it, as in `order_count` > 0
    total_spent + 1
        [the rule] the rule gives a number, and must say true or false; compare it, as in `total_spent + 1` > 0
    name
        [the rule] the rule gives text, and must say true or false; compare it, as in `name` = '…'
    last_order_at
        [the rule] the rule gives a time, and must say true or false; compare it, as in `last_order_at` < now() - interval '180 days'
    null
        [the rule] the rule is always null; write a condition, such as order_count > 0
    do_not_contact = 1
        [1] `do_not_contact` is true or false, and 1 is a number: they cannot be compared; write `do_not_contact` or not `do_not_contact`
    last_order_at < now() - 180
        [180] `-` does not work on a time and a number; for days, write interval '180 days'
    last_order_at < now() - '180 days'
        ['180 days'] `-` does not work on a time and text; for days, write interval '180 days'
    last_order_at < '31.12.2025'
        ['31.12.2025'] '31.12.2025' is no time, and is compared with `last_order_at`; write '2026-01-31' or '2026-01-31 18:30:00'
    last_order_at > 20250101
        [20250101] `last_order_at` is a time, and 20250101 is a number: they cannot be compared
    birthday = '1990'
        ['1990'] '1990' is no time, and is compared with `birthday`; write '2026-01-31'
    name + 1 > 2
        [name] `+` does not work on text and a number; to join texts, write ||
    name + 'x' = 'ax'
        [name] `+` does not work on text and text; to join texts, write ||
    order_count like '1%'
        [order_count] `like` works on text, and `order_count` is a number; write cast(`order_count` as text)
    order_count and phone_only
        [order_count] `and` works on conditions, and `order_count` is a number; compare it, as in `order_count` > 0
    not store
        [the rule] `not` works on conditions
    store in ('S1', 2)
        [2] `store` is text, and 2 is a number: they cannot be compared; write '2'
    order_count between 'a' and 3
        ['a'] `order_count` is a number, and 'a' is text: they cannot be compared
    now() - last_order_at > interval '180 days'
        [now] lengths of time cannot be compared; compare times, as in last_order_at < now() - interval '180 days'
    date_trunc('day', name) = current_date
        [name] `name` is text, where a time is needed
    length() > 1
        [length] length() needs arguments
    substr(name) = 'a'
        [the rule] substr needs a place, as in substr(name, 1, 2)
    last_order_at < now() - interval '180 dayz'
        [the rule] '180 dayz' is no length of time: write one such as '180 days' or '2 hours'
    cast('x' as int) = 1
        [the rule] 'x' is text, where a number is needed
    order_count = 'x'::int
        [the rule] 'x' is text, where a number is needed
    case when order_count then true else false end
        [order_count] `order_count` is a number, where true or false is needed; compare it, as in `order_count` > 0
    case when order_count > 1 then 1 else 'a' end = 1
        [the rule] `CASE WHEN order_count > 1 THEN 1 ELSE a END` is text, where a number is needed
    "#);
}

#[test]
fn what_looks_beyond_one_member_is_refused() {
    insta::assert_snapshot!(errors(&[
        "order_count > avg(order_count)",
        "count(*) > 3",
        "row_number() over (order by order_count) < 10",
        "store in (select store from members)",
        "exists (select 1)",
        "order_count > $1",
        "order_count > ?",
        "random() < 0.5",
        "*",
    ]), @r#"
    order_count > avg(order_count)
        [avg] avg looks at many members, and a rule looks at one; use a derived column, such as store_rank_by_spent
    count(*) > 3
        [count] count looks at many members, and a rule looks at one; use a derived column, such as store_rank_by_spent
    row_number() over (order by order_count) < 10
        [row_number] row_number over (…) looks at many members, and a rule looks at one; use a derived column, such as store_rank_by_spent
    store in (select store from members)
        [select] a rule cannot select from tables: it looks at the columns of one member
    exists (select 1)
        [select] a rule cannot select from tables: it looks at the columns of one member
    order_count > $1
        [$1] `$1` stands for a value, and a rule has no values to give
    order_count > ?
        [?] `?` stands for a value, and a rule has no values to give
    random() < 0.5
        [random] random() gives another value each time, and a rule must give the same answer again
    *
        [*] `*` stands where an expression should be
    "#);
}

#[test]
fn tags_may_name_earlier_tags_only() {
    assert!(compile(&[tag("a", "order_count > 1"), tag("b", "a and a_since < now()")]).is_ok());
    let errors = compile(&[tag("a", "b or cc"), tag("b", "c"), tag("c", "a"), tag("ccx", "true")]).expect_err("names of later tags");
    let lines: Vec<String> = errors.iter().map(RuleError::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    tag `a`: the tag `b` comes later, and tags may name earlier tags only; move `b` before this one in the config
    tag `b`: the tag `c` comes later, and tags may name earlier tags only; move `c` before this one in the config
    "#);
    assert_eq!(errors[0].unknown_column, None);
}

#[test]
fn names_of_tags_are_their_own() {
    let names = ["store", "lifecycle", "phone", "order count", "Big", "9x", "", "end", "null", "大客户"];
    let lines = names.map(|name| match compile(&[tag(name, "true")]) {
        Ok(_) => format!("{name}: is right"),
        Err(errors) => errors[0].to_string(),
    });
    insta::assert_snapshot!(lines.join("\n"), @r#"
    tag `store`: the name `store` is taken by a column of the members; give the tag another name
    tag `lifecycle`: the name `lifecycle` is taken by a column of the members; give the tag another name
    tag `phone`: the name `phone` is taken by a column of the members; give the tag another name
    tag `order count`: `order count` is no name for a tag; use small letters, digits and _, a letter first
    tag `Big`: `Big` is no name for a tag; use small letters, digits and _, a letter first
    tag `9x`: `9x` is no name for a tag; use small letters, digits and _, a letter first
    tag ``: `` is no name for a tag; use small letters, digits and _, a letter first
    end: is right
    tag `null`: `null` is a word of SQL and no name for a tag
    大客户: is right
    "#);
    let errors = compile(&[tag("a", "true"), tag("a", "true"), tag("a_since", "true")]).expect_err("names that are taken");
    let lines: Vec<String> = errors.iter().map(RuleError::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    tag `a`: the name `a` is taken by an earlier tag; give the tag another name
    tag `a_since`: the name `a_since` is taken by the time of an earlier tag; give the tag another name
    "#);
}

#[test]
fn every_wrong_rule_is_told_and_none_for_anothers_sake() {
    let tags = [tag("a", "stor = 'x'"), tag("b", "a and order_count > 1"), tag("c", "order_count")];
    let audiences = [
        AudienceRule { campaign: "warm-add".to_owned(), audience: "a and b".to_owned() },
        AudienceRule { campaign: "birthday".to_owned(), audience: "birthdey is not null".to_owned() },
    ];
    let errors = Rules::compile(&columns(), &tags, &audiences, "Asia/Shanghai").expect_err("three are wrong");
    let lines: Vec<String> = errors.iter().map(RuleError::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    tag `a`: there is no column `stor`; did you mean `store`?
    tag `c`: the rule gives a number, and must say true or false; compare it, as in `order_count` > 0
    audience of campaign `birthday`: there is no column `birthdey`; did you mean `birthday`?
    "#);
    assert_eq!(errors[0].unknown_column.as_deref(), Some("stor"));
}

#[test]
fn the_columns_that_rules_read_are_known() {
    let tags = [tag("a", "store = 'S1'"), tag("b", "a and phone_only")];
    let audiences = [AudienceRule { campaign: "c".to_owned(), audience: "b and order_count > 1".to_owned() }];
    let rules = Rules::compile(&columns(), &tags, &audiences, "Asia/Shanghai").expect("right");
    assert_eq!(rules.columns_used().iter().map(String::as_str).collect::<Vec<_>>(), ["order_count", "phone_only", "store"]);
    assert_eq!(rules.tag_names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn clocks_and_timezones_outside_of_the_calendar_are_refused() {
    let rules = compile(&[tag("a", "last_order_at < now()")]).expect("right");
    assert!(rules.bind(TRIAL_CLOCK_US).is_ok());
    insta::assert_snapshot!(rules.bind(i64::MAX).expect_err("no such time")[0], @"tag `a`: the clock 9223372036854775807 µs is outside of the calendar");
    let errors = Rules::compile(&columns(), &[tag("a", "true")], &[], "Asia/Shanghia").expect_err("no such zone");
    insta::assert_snapshot!(errors[0], @"tag `a`: the timezone `Asia/Shanghia` is not known");
}

#[test]
fn a_rule_as_long_as_allowed_compiles() {
    let long = vec!["order_count = 1"; 240].join(" or ");
    assert!(compile(&[tag("a", &long)]).is_ok_and(|rules| rules.bind(TRIAL_CLOCK_US).is_ok()));
    let longer = vec!["order_count = 1"; 500].join(" or ");
    assert!(compile(&[tag("a", &longer)]).is_err());
    let nested = format!("{}true{}", "(".repeat(300), ")".repeat(300));
    insta::assert_snapshot!(compile(&[tag("a", &nested)]).expect_err("too deep")[0], @"tag `a`: brackets are nested too deep: the limit is 50");
}
