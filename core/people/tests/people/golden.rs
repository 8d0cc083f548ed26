//! Golden columns: which value wins, and what `explain` says of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use reunion_model::Consent;
use reunion_model::schema::{ColumnType, Rule, Survivorship};
use reunion_people::{Explained, GoldenColumn, GoldenPlan, SharedPhonePolicy, explain, joined};

use crate::world::{Given, Row, World, config, day, plan, row, snapshot};

const A: &str = "13912345671";
const B: &str = "13912345672";

fn event(id: &str, consent: &str, at: &str, evidence: &str) -> Row {
    row(id, A).with(|row| {
        row.consent = consent.into();
        row.consent_at = at.into();
        row.evidence = evidence.into();
    })
}

/// What the events of one member's records come to: word, moment, evidence.
fn consent(events: &[Row]) -> [Option<String>; 3] {
    let mut outcome = None;
    for turned in [false, true] {
        let mut rows = events.to_vec();
        if turned {
            rows.reverse();
        }
        let mut world = World::merging();
        world.run(&[snapshot("pos", &rows)]);
        let columns = world.columns_of(&format!("pos/{}", rows[0].id));
        let found = ["sms_consent", "sms_consent_at", "sms_consent_evidence"].map(|name| columns[name].clone());
        assert!(outcome.is_none() || outcome == Some(found.clone()), "the order of rows does not matter");
        outcome = Some(found);
    }
    outcome.unwrap()
}

fn is(word: &str, at: &str, evidence: &str) -> [Option<String>; 3] {
    let some = |text: &str| Some(text.replace(" 00:00:00Z", "T00:00:00Z")).filter(|text| !text.is_empty());
    [some(word), some(at), some(evidence)]
}

#[test]
fn the_latest_explicit_consent_wins() {
    let (early, late) = (day(1), day(9));
    assert_eq!(consent(&[event("1", "granted", &late, "form 7"), event("2", "withdrawn", &early, "")]), is("granted", &late, "form 7"));
    assert_eq!(consent(&[event("1", "granted", &early, "form 7"), event("2", "withdrawn", &late, "call")]), is("withdrawn", &late, "call"));
    assert_eq!(consent(&[event("1", "granted", &late, "form 7"), event("2", "withdrawn", &late, "")]), is("withdrawn", &late, ""));
    assert_eq!(consent(&[event("1", "granted", &late, ""), event("2", "withdrawn", &early, "")]), is("withdrawn", &early, ""));
}

#[test]
fn an_undated_withdrawal_beats_all_and_an_undated_grant_loses_to_any() {
    let (early, late) = (day(1), day(9));
    assert_eq!(consent(&[event("1", "granted", &late, "form 7"), event("2", "withdrawn", "", "")]), is("withdrawn", "", ""));
    assert_eq!(consent(&[event("1", "granted", "", "form 7"), event("2", "withdrawn", &early, "")]), is("withdrawn", &early, ""));
    assert_eq!(consent(&[event("1", "granted", "", "form 7"), event("2", "unknown", &late, "x")]), is("granted", "", "form 7"));
    assert_eq!(consent(&[event("1", "granted", &late, ""), event("2", "", "", "")]), is("unknown", "", ""));
}

#[test]
fn every_rule_chooses_its_value() {
    let rows = [
        row("1", A).with(|row| {
            (row.name, row.updated, row.created, row.spent, row.orders) = ("老名".into(), day(1), day(1), "0.10".into(), "2".into())
        }),
        row("2", A).with(|row| {
            (row.name, row.updated, row.created, row.spent, row.orders) = ("新名字".into(), day(9), day(3), "0.20".into(), "3".into())
        }),
        row("3", A).with(|row| (row.updated, row.spent) = (day(20), "-0.05".into())),
        row("4", A),
    ];
    let mut world = World::merging();
    world.run(&[snapshot("pos", &rows)]);
    let columns = world.columns_of("pos/1");
    let of = |name: &str| columns[name].as_deref();
    assert_eq!((of("name"), of("total_spent"), of("order_count")), (Some("新名字"), Some("0.25"), Some("5")));
    assert_eq!((of("created_at"), of("updated_at")), (Some("2026-01-02T00:00:00Z"), Some("2026-01-21T00:00:00Z")));
    assert_eq!((of("record_count"), of("source_mask"), of("unionid")), (Some("4"), Some("1"), None));

    let first =
        plan_of(vec![golden("name", ColumnType::Text, Survivorship::First), golden("total_spent", ColumnType::Decimal, Survivorship::Min)]);
    let longest = plan_of(vec![
        golden("name", ColumnType::Text, Survivorship::Longest),
        golden("total_spent", ColumnType::Decimal, Survivorship::Max),
    ]);
    let batches = world.batches_of("pos/1");
    let values = |plan: &GoldenPlan| {
        explain(plan, &named(&batches))
            .unwrap()
            .into_iter()
            .map(|one| (one.value.unwrap(), one.from[0].record_id.clone()))
            .collect::<Vec<_>>()
    };
    let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(values(&first), [pair("老名", "1"), pair("-0.05", "3")]);
    assert_eq!(values(&longest), [pair("新名字", "2"), pair("0.20", "2")]);
}

fn golden(name: &str, kind: ColumnType, rule: impl Into<Rule>) -> GoldenColumn {
    GoldenColumn { name: name.into(), kind, rule: rule.into() }
}

fn plan_of(columns: Vec<GoldenColumn>) -> GoldenPlan {
    GoldenPlan::new(columns).unwrap()
}

/// What a rule makes of these names, the oldest first, and the records that it says they come from.
fn name_by(rule: impl Into<Rule>, names: &[(&'static str, &str)]) -> (Option<String>, Vec<String>) {
    let mut world = World::new(config(&["phone"], 50, SharedPhonePolicy::Merge));
    world.plan = plan_of(vec![golden("name", ColumnType::Text, rule)]);
    let given = ["pos", "crm", "web"].map(|source| {
        let of_source = names.iter().enumerate().filter(|(_, (of, _))| *of == source);
        let rows = of_source.map(|(at, (_, name))| {
            row(&at.to_string(), A).with(|row| (row.name, row.updated, row.created) = ((*name).into(), day(at as u32), day(20 - at as u32)))
        });
        snapshot(source, &rows.collect::<Vec<_>>())
    });
    world.run(&given);
    let record = format!("{}/0", names[0].0);
    let explained = explain(&world.plan, &named(&world.batches_of(&record))).unwrap().remove(0);
    assert_eq!(world.columns_of(&record)["name"], explained.value);
    (explained.value, explained.from.into_iter().map(|from| format!("{}/{}", from.source, from.record_id)).collect())
}

fn came(value: &str, from: &[&str]) -> (Option<String>, Vec<String>) {
    (Some(value.to_owned()).filter(|value| !value.is_empty()), from.iter().map(ToString::to_string).collect())
}

#[test]
fn the_most_frequent_value_wins_and_of_equally_many_the_most_recent() {
    let by = |names: &[(&'static str, &str)]| name_by(Survivorship::MostFrequent, names);
    assert_eq!(by(&[("pos", "甲"), ("crm", "甲"), ("pos", "乙")]), came("甲", &["crm/1", "pos/0"]));
    assert_eq!(by(&[("pos", "甲"), ("pos", "乙")]), came("乙", &["pos/1"]));
    assert_eq!(by(&[("pos", "甲"), ("pos", "甲"), ("crm", "乙"), ("web", "乙"), ("web", "")]), came("乙", &["web/3", "crm/2"]));
    assert_eq!(by(&[("pos", ""), ("pos", "")]), came("", &[]));
}

#[test]
fn sources_are_believed_in_the_order_of_the_list() {
    let order =
        |sources: &[&str]| Rule { sources: sources.iter().map(ToString::to_string).collect(), ..Survivorship::SourcePriority.into() };
    let names = [("pos", "甲"), ("crm", "乙"), ("crm", "丙"), ("web", "丁")];
    assert_eq!(name_by(order(&["crm", "pos"]), &names), came("丙", &["crm/2"]), "the most recent of the first source");
    assert_eq!(name_by(order(&["pos"]), &names), came("甲", &["pos/0"]), "though it is the oldest");
    assert_eq!(name_by(order(&["erp"]), &names), came("丁", &["web/3"]), "those that are not listed are alike");
    let empty = [("pos", "甲"), ("crm", ""), ("web", "丁")];
    assert_eq!(name_by(order(&["crm", "pos", "web"]), &empty), came("甲", &["pos/0"]), "a source without a value has no say");
}

#[test]
fn a_union_has_every_value_once() {
    let by = |names: &[(&'static str, &str)]| name_by(Survivorship::Union, names);
    assert_eq!(by(&[("pos", "vip; 老客"), ("crm", "新客;vip"), ("web", ";")]), came("vip;新客;老客", &["web/2", "crm/1", "pos/0"]));
    assert_eq!(by(&[("pos", "; ;")]), came("", &["pos/0"]), "a list of nothing has no value");
    let comma = Rule { separator: Some("、".to_owned()), ..Survivorship::Union.into() };
    assert_eq!(name_by(comma, &[("pos", "乙、甲"), ("crm", "a;b")]), came("a;b、乙、甲", &["crm/1", "pos/0"]));
}

#[test]
fn a_union_that_is_too_long_is_null_and_counted() {
    let long = |digit: char, length: usize| digit.to_string().repeat(length);
    let mut world = World::merging();
    world.plan = plan_of(vec![golden("name", ColumnType::Text, Survivorship::Union)]);
    let rows = |length: usize| {
        let name = |id: &str, digit, length| row(id, A).with(|row| row.name = long(digit, length));
        [name("1", 'a', 4000), name("2", 'b', length)]
    };
    world.run(&[snapshot("pos", &rows(95))]);
    assert_eq!(world.columns_of("pos/1")["name"].as_ref().map(String::len), Some(4096));
    let done = world.run(&[snapshot("pos", &rows(96))]);
    assert_eq!(done.overflows, [("name".to_owned(), 1)]);
    assert_eq!(world.columns_of("pos/1")["name"], None);
    let explained = explain(&world.plan, &named(&world.batches_of("pos/1"))).unwrap().remove(0);
    assert_eq!((explained.value, explained.from.len()), (None, 2), "what it would be made of is said all the same");
}

#[test]
fn the_most_restrictive_word_wins() {
    let by = |names: &[(&'static str, &str)]| name_by(Survivorship::MostRestrictive, names);
    assert_eq!(by(&[("pos", "withdrawn"), ("crm", "granted"), ("web", "unknown")]), came("withdrawn", &["pos/0"]));
    assert_eq!(by(&[("pos", "拒绝"), ("crm", "No"), ("web", "是")]), came("No", &["crm/1"]));
    assert_eq!(by(&[("pos", "perhaps"), ("crm", "granted")]), came("perhaps", &["pos/0"]), "what is not known is no consent");
    assert_eq!(by(&[("pos", "granted"), ("crm", "")]), came("granted", &["pos/0"]), "who says nothing has no say");
    let flags = |rule: Survivorship, flags: &[&str]| {
        let mut world = World::merging();
        world.plan = plan_of(vec![golden("open_complaint", ColumnType::Boolean, rule)]);
        let rows = flags.iter().enumerate().map(|(at, flag)| row(&at.to_string(), A).with(|row| row.complaint = (*flag).into()));
        world.run(&[snapshot("pos", &rows.collect::<Vec<_>>())]);
        let value = world.columns_of("pos/0")["open_complaint"].clone();
        value.unwrap_or_default()
    };
    for (values, any, all) in
        [(&["true", "false", ""][..], "true", "false"), (&["true", ""], "true", "true"), (&["false"], "false", "false"), (&[""], "", "")]
    {
        assert_eq!(flags(Survivorship::Any, values), any, "{values:?}");
        assert_eq!(flags(Survivorship::All, values), all, "{values:?}");
        assert_eq!(flags(Survivorship::MostRestrictive, values), all, "{values:?}");
    }
}

#[test]
fn who_was_created_first_wins_and_who_does_not_say_comes_last() {
    let created = |id: &str, name: &str, created: &str, on: u32| {
        row(id, A).with(|row| (row.name, row.created, row.updated) = (name.into(), created.into(), day(on)))
    };
    let by = |rows: &[Row]| {
        let mut world = World::merging();
        world.plan = plan_of(vec![golden("name", ColumnType::Text, Survivorship::First)]);
        world.run(&[snapshot("pos", rows)]);
        world.columns_of("pos/1")["name"].clone().unwrap_or_default()
    };
    assert_eq!(by(&[created("1", "甲", &day(3), 9), created("2", "乙", &day(1), 5), created("3", "丙", "", 20)]), "乙");
    assert_eq!(by(&[created("1", "甲", &day(3), 9), created("2", "乙", &day(3), 5)]), "甲", "of the same moment the most recent");
    assert_eq!(by(&[created("1", "甲", "", 5), created("2", "乙", "", 9)]), "乙");
    assert_eq!(by(&[created("1", "", &day(1), 5), created("2", "乙", "", 9)]), "乙", "a null never wins");
}

fn named(batches: &[(String, RecordBatch)]) -> Vec<(&str, RecordBatch)> {
    batches.iter().map(|(source, batch)| (source.as_str(), batch.clone())).collect()
}

#[test]
fn ties_go_to_the_smaller_source_and_record_id() {
    let named = |id: &str, name: &str| row(id, A).with(|row| (row.name, row.updated) = (name.into(), day(3)));
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[named("1", "丙")]), snapshot("mall", &[named("7", "乙"), named("5", "甲")])]);
    assert_eq!(world.columns_of("pos/1")["name"].as_deref(), Some("甲"));
}

#[test]
fn a_member_that_moved_has_the_phone_of_its_latest_record() {
    let with = |id: &str, phone: &str, on: u32| row(id, phone).with(|row| (row.unionid, row.updated) = ("u".into(), day(on)));
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[with("1", A, 9), with("2", B, 3)])]);
    assert_eq!(world.columns_of("pos/2")["phone"].as_deref(), Some("8613912345671"));
    let done = world.run(&[snapshot("pos", &[with("1", A, 9), with("2", B, 12)])]);
    assert_eq!(world.columns_of("pos/1")["phone"].as_deref(), Some("8613912345672"));
    assert_eq!((done.changed, done.dirty), (1, 1));
}

#[test]
fn a_change_that_no_golden_column_shows_changes_no_member() {
    let with = |id: &str, name: &str, on: u32| row(id, A).with(|row| (row.name, row.updated) = (name.into(), day(on)));
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[with("1", "甲", 9), with("2", "乙", 3)])]);
    let done = world.run(&[snapshot("pos", &[with("1", "甲", 9), with("2", "丁", 3)])]);
    assert_eq!((done.counts["pos"].changed, done.dirty, done.changed), (1, 1, 0));
}

#[test]
fn explain_names_the_record_behind_each_value() {
    let rows = [
        row("1", A).with(|row| (row.name, row.updated, row.spent) = ("老名".into(), day(1), "1.00".into())),
        row("2", A).with(|row| (row.name, row.updated, row.spent) = ("新名".into(), day(9), "2.50".into())),
    ];
    let mut world = World::merging();
    world.run(&[snapshot("pos", &rows[..1]), snapshot("mall", &rows[1..])]);
    let batches = world.batches_of("pos/1");
    let lines = explain(&plan(), &named(&batches)).unwrap().into_iter().map(|one| {
        let from = one
            .from
            .iter()
            .map(|from| format!("{}/{} of {}", from.source, from.record_id, from.updated_at.as_deref().unwrap_or("no time")));
        let from = from.collect::<Vec<_>>().join(" + ");
        let (value, rule) = (one.value.as_deref().unwrap_or("null"), one.rule.survivorship.name());
        format!("{} = {value} by {rule}: {}", one.column, if from.is_empty() { "none" } else { &from })
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    name = 新名 by most_recent: mall/2 of 2026-01-10T00:00:00Z
    created_at = null by min: none
    updated_at = 2026-01-10T00:00:00Z by max: mall/2 of 2026-01-10T00:00:00Z
    order_count = null by sum: none
    total_spent = 3.50 by sum: mall/2 of 2026-01-10T00:00:00Z + pos/1 of 2026-01-02T00:00:00Z
    sms_consent = unknown by consent: none
    sms_consent_at = null by consent: none
    sms_consent_evidence = null by consent: none
    unionid = null by most_recent: none
    ");
}

#[test]
fn what_rows_have_in_common_is_named() {
    let with = |id: &str, phone: &str, unionid: &str, name: &str, on: u32| {
        row(id, phone)
            .with(|row| (row.unionid, row.name, row.born, row.updated) = (unionid.into(), name.into(), "1990-04-01".into(), day(on)))
    };
    let mut world = World::merging();
    world.run(&[
        snapshot("pos", &[with("1", A, "", "张三", 1), with("2", A, "u", "张三", 2), with("3", B, "u", "李四", 3)]),
        snapshot("mall", &[with("4", A, "", "李四", 4)]),
    ]);
    let keys =
        [vec!["phone".to_owned()], vec!["unionid".to_owned()], vec!["name".to_owned(), "birthday".to_owned()], vec!["email".to_owned()]];
    let batches = world.batches_of("pos/1");
    let lines = joined(&keys, &named(&batches)).unwrap().into_iter().map(|row| {
        let by = row.by.iter().map(|by| format!("{} = {} on {}", by.columns.join("+"), by.values.join("+"), by.records));
        format!("{}/{}: {}", row.record.source, row.record.record_id, by.collect::<Vec<_>>().join(", "))
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    mall/4: phone = 8613912345671 on 3, name+birthday = 李四+1990-04-01 on 2
    pos/3: unionid = u on 2, name+birthday = 李四+1990-04-01 on 2
    pos/2: phone = 8613912345671 on 3, unionid = u on 2, name+birthday = 张三+1990-04-01 on 2
    pos/1: phone = 8613912345671 on 3, name+birthday = 张三+1990-04-01 on 2
    ");
}

#[test]
fn rules_that_do_not_fit_are_refused() {
    let plan = |name: &str, kind, rule: Survivorship| GoldenPlan::new(vec![golden(name, kind, rule)]).unwrap_err().to_string();
    insta::assert_snapshot!(plan("name", ColumnType::Text, Survivorship::Sum), @r#"column "name" is text, and the rule "sum" does not fit it"#);
    insta::assert_snapshot!(plan("note", ColumnType::Text, Survivorship::Consent), @r#"column "note" is text, and the rule "consent" does not fit it"#);
    let twice = GoldenPlan::new(vec![GoldenColumn::further("x", ColumnType::Text), GoldenColumn::further("x", ColumnType::Date)]);
    insta::assert_snapshot!(twice.unwrap_err(), @r#"the golden column "x" is declared twice"#);
}

/// A record of a member, as the plain definition of the rules sees it: the most recent first.
type Valued<'a> = (&'a str, &'a Row, &'a str);

/// The plain definition of each rule: the value, and the places of the records that it came from.
fn defined(rule: &Rule, kind: ColumnType, records: &[Valued]) -> (Option<String>, Vec<usize>) {
    let with_value = records.iter().enumerate().filter(|(_, (.., value))| !value.is_empty()).collect::<Vec<_>>();
    let number = |value: &str| value.parse::<i64>().unwrap_or_default();
    let ordered = |value: &str| if kind == ColumnType::Integer { (number(value), String::new()) } else { (0, value.to_owned()) };
    let restriction = |value: &str| match Consent::from_word(value) {
        Some(Consent::Withdrawn) => 0,
        Some(Consent::Granted) => 2,
        _ => 1,
    };
    let all = || with_value.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    // `min_by_key` keeps the first of equal ones, which is the most recent.
    let winner = match rule.survivorship {
        Survivorship::Sum => {
            let sum = with_value.iter().map(|(_, (.., value))| number(value)).sum::<i64>();
            return (Some(sum.to_string()).filter(|_| !with_value.is_empty()), all());
        }
        Survivorship::Union => {
            let parts = with_value.iter().flat_map(|(_, (.., value))| value.split(rule.separator()).map(str::trim));
            let parts = parts.filter(|part| !part.is_empty()).collect::<BTreeSet<_>>();
            let joined = parts.into_iter().collect::<Vec<_>>().join(rule.separator());
            return (Some(joined).filter(|joined| !joined.is_empty()), all());
        }
        Survivorship::MostRecent => with_value.first(),
        Survivorship::First => with_value.iter().min_by_key(|(_, (_, row, _))| (row.created.is_empty(), &row.created)),
        Survivorship::SourcePriority => {
            let rank = |source: &str| rule.sources.iter().position(|listed| listed == source).unwrap_or(usize::MAX);
            with_value.iter().min_by_key(|(_, (source, ..))| rank(source))
        }
        Survivorship::MostFrequent => {
            let count = |value: &str| with_value.iter().filter(|(_, (.., other))| *other == value).count();
            with_value.iter().min_by_key(|(_, (.., value))| Reverse(count(value)))
        }
        Survivorship::Min | Survivorship::All => with_value.iter().min_by_key(|(_, (.., value))| ordered(value)),
        Survivorship::Max | Survivorship::Any => with_value.iter().min_by_key(|(_, (.., value))| Reverse(ordered(value))),
        Survivorship::Longest => with_value.iter().min_by_key(|(_, (.., value))| Reverse(value.chars().count())),
        Survivorship::MostRestrictive if kind == ColumnType::Boolean => with_value.iter().min_by_key(|(_, (.., value))| ordered(value)),
        Survivorship::MostRestrictive => with_value.iter().min_by_key(|(_, (.., value))| restriction(value)),
        Survivorship::Consent => None,
    };
    let Some((at, (.., value))) = winner else { return (None, Vec::new()) };
    let agrees = matches!(rule.survivorship, Survivorship::MostFrequent | Survivorship::Any | Survivorship::All);
    let from = with_value.iter().filter(|(other, (.., same))| other == at || agrees && same == value).map(|(at, _)| *at);
    (Some((*value).to_owned()), from.collect())
}

const SOURCES: [&str; 3] = ["crm", "mall", "pos"];

fn any_rule(kind: ColumnType) -> impl Strategy<Value = Rule> {
    let fitting = Survivorship::CHOICES.into_iter().filter(move |rule| rule.fits(kind)).collect::<Vec<_>>();
    let sources = Just(SOURCES.map(str::to_owned).to_vec()).prop_shuffle();
    let separator = prop::sample::select(vec![None, Some("、".to_owned())]);
    (prop::sample::select(fitting), sources, 1_usize..4, separator).prop_map(|(survivorship, mut sources, listed, separator)| {
        sources.truncate(listed);
        let mut rule = Rule::from(survivorship);
        if survivorship == Survivorship::SourcePriority {
            rule.sources = sources;
        }
        if survivorship == Survivorship::Union {
            rule.separator = separator;
        }
        rule
    })
}

fn any_plan() -> impl Strategy<Value = [GoldenColumn; 3]> {
    let column = |name, kind| any_rule(kind).prop_map(move |rule| golden(name, kind, rule));
    [("name", ColumnType::Text), ("order_count", ColumnType::Integer), ("open_complaint", ColumnType::Boolean)]
        .map(|(name, kind)| column(name, kind))
}

fn any_record() -> impl Strategy<Value = (usize, Row)> {
    let name = prop::sample::select(vec!["", "甲", "乙", "丙;甲", "甲; 丁", "乙、甲", "withdrawn", "granted", "拒绝", "unknown", "同意"]);
    let moment = || prop_oneof![1 => Just(String::new()), 3 => (0_u32..4).prop_map(day)];
    let orders = prop_oneof![1 => Just(String::new()), 3 => (-3_i32..4).prop_map(|orders| orders.to_string())];
    let complaint = prop::sample::select(vec!["", "true", "false"]);
    let owner = prop_oneof![4 => Just(A), 1 => Just(B)];
    (0_usize..3, owner, name, moment(), moment(), orders, complaint).prop_map(
        |(source, phone, name, updated, created, orders, complaint)| {
            (source, Row { name: name.into(), updated, created, orders, complaint: complaint.into(), ..row("", phone) })
        },
    )
}

/// Each source's rows in one pull; with ids.
fn given(records: &[(usize, Row)], cut: usize) -> Vec<Given> {
    let of_source = |source: usize| records.iter().enumerate().filter(move |(_, (of, _))| *of == source);
    let rows = |source| of_source(source).map(|(at, (_, row))| row.clone().with(|row| row.id = format!("r{at}"))).collect();
    (0..SOURCES.len()).map(|source| Given { rows: rows(source), cut, ..snapshot(SOURCES[source], &[]) }).collect()
}

fn people_by(columns: &[GoldenColumn], given: &[Given]) -> World {
    let mut world = World::new(config(&["phone"], 100, SharedPhonePolicy::Merge));
    world.plan = plan_of(columns.to_vec());
    world.run(given);
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_rule_is_what_it_is_defined_to_be(columns in any_plan(), records in prop::collection::vec(any_record(), 1..10), cut in 1_usize..5) {
        let given = given(&records, cut);
        let world = people_by(&columns, &given);
        for phone in [A, B] {
            let mut of_member: Vec<(&str, &Row)> = given.iter().flat_map(|given| given.rows.iter().map(|row| (given.source, row))).filter(|(_, row)| row.phone == phone).collect();
            // The most recent first; without a time last.
            of_member.sort_by_key(|(source, row)| (Reverse(row.updated.clone()), *source, row.id.clone()));
            let Some((source, first)) = of_member.first() else { continue };
            let record = format!("{source}/{}", first.id);
            let explained: BTreeMap<String, Explained> =
                explain(&world.plan, &named(&world.batches_of(&record))).unwrap().into_iter().map(|one| (one.column.clone(), one)).collect();
            for GoldenColumn { name, kind, rule } in &columns {
                let valued: Vec<Valued> = of_member.iter().map(|(source, row)| (*source, *row, match name.as_str() {
                    "name" => row.name.as_str(),
                    "order_count" => row.orders.as_str(),
                    _ => row.complaint.as_str(),
                })).collect();
                let (value, from) = defined(rule, *kind, &valued);
                prop_assert_eq!(&world.columns_of(&record)[name], &value, "{} by {:?}", name, rule);
                let explained = &explained[name];
                prop_assert_eq!(&explained.value, &value, "{} by {:?}", name, rule);
                let ids = from.into_iter().map(|at| (of_member[at].0, of_member[at].1.id.as_str())).collect::<Vec<_>>();
                let found = explained.from.iter().map(|from| (from.source.as_str(), from.record_id.as_str())).collect::<Vec<_>>();
                prop_assert_eq!(found, ids, "{} by {:?}", name, rule);
            }
        }
    }

    #[test]
    fn no_rule_depends_on_order_cut_or_history(columns in any_plan(), records in prop::collection::vec(any_record(), 1..10), by in any::<prop::sample::Index>(), cut in 1_usize..5) {
        let given = given(&records, cut);
        let world = people_by(&columns, &given);
        let turned = given.iter().rev().map(|given| {
            let mut given = Given { cut: 6 - cut, ..given.clone() };
            if !given.rows.is_empty() {
                let by = by.index(given.rows.len());
                given.rows.rotate_left(by);
            }
            given.rows.reverse();
            given
        }).collect::<Vec<_>>();
        prop_assert_eq!(people_by(&columns, &turned).all(), world.all());
        // One source after the other, narrowed to what changes.
        let mut slowly = World::new(config(&["phone"], 100, SharedPhonePolicy::Merge));
        slowly.plan = plan_of(columns.to_vec());
        for one in &turned {
            slowly.run(std::slice::from_ref(one));
        }
        prop_assert_eq!(slowly.people(), world.people());
    }
}

#[test]
fn the_other_numbers_of_a_member_are_kept_beside_its_phone() {
    let with = |id: &str, phone: &str, on: u32| row(id, phone).with(|row| (row.unionid, row.updated) = ("u".into(), day(on)));
    let mut world = World::merging();
    world.run(&[snapshot("pos", &[with("1", A, 1), with("2", B, 9), with("3", A, 3), row("4", "13912345674")])]);
    let columns = world.columns_of("pos/1");
    let of = |name: &str| columns[name].as_deref();
    assert_eq!((of("phone"), of("other_phones")), (Some("8613912345672"), Some("8613912345671")));
    assert_eq!(world.columns_of("pos/4")["other_phones"], None);
    // The same number on all rows is no other one.
    world.run(&[snapshot("pos", &[with("1", B, 1), with("2", B, 9)])]);
    assert_eq!(world.columns_of("pos/1")["other_phones"], None);
}
