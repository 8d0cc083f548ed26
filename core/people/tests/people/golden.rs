//! Golden columns: which value wins, and what `explain` says of it.

use arrow::array::RecordBatch;
use reunion_model::schema::{ColumnType, Survivorship};
use reunion_people::{GoldenColumn, GoldenPlan, explain};

use crate::world::{Row, World, day, plan, row, snapshot};

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

    let rule = |name: &str, kind, rule| GoldenColumn { name: name.into(), kind, rule };
    let first = GoldenPlan::new(vec![
        rule("name", ColumnType::Text, Survivorship::First),
        rule("total_spent", ColumnType::Decimal, Survivorship::Min),
    ]);
    let longest = GoldenPlan::new(vec![
        rule("name", ColumnType::Text, Survivorship::Longest),
        rule("total_spent", ColumnType::Decimal, Survivorship::Max),
    ]);
    let batches = world.batches_of("pos/1");
    let values = |plan: &GoldenPlan| {
        explain(plan, &named(&batches)).unwrap().into_iter().map(|one| (one.value.unwrap(), one.from[0].1.clone())).collect::<Vec<_>>()
    };
    let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(values(&first.unwrap()), [pair("老名", "1"), pair("-0.05", "3")]);
    assert_eq!(values(&longest.unwrap()), [pair("新名字", "2"), pair("0.20", "2")]);
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
        let from = one.from.iter().map(|(source, id)| format!("{source}/{id}")).collect::<Vec<_>>().join(" + ");
        format!(
            "{} = {} by {} of {}",
            one.column,
            one.value.as_deref().unwrap_or("null"),
            one.rule.name(),
            if from.is_empty() { "none" } else { &from }
        )
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    name = 新名 by most_recent of mall/2
    created_at = null by min of none
    updated_at = 2026-01-10T00:00:00Z by max of mall/2
    order_count = null by sum of none
    total_spent = 3.50 by sum of mall/2 + pos/1
    sms_consent = unknown by consent of none
    sms_consent_at = null by consent of none
    sms_consent_evidence = null by consent of none
    unionid = null by most_recent of none
    ");
}

#[test]
fn rules_that_do_not_fit_are_refused() {
    let plan = |name: &str, kind, rule| GoldenPlan::new(vec![GoldenColumn { name: name.into(), kind, rule }]).unwrap_err().to_string();
    insta::assert_snapshot!(plan("name", ColumnType::Text, Survivorship::Sum), @r#"column "name" is text, and the rule "sum" does not fit it"#);
    insta::assert_snapshot!(plan("note", ColumnType::Text, Survivorship::Consent), @r#"column "note" is text, and the rule "consent" does not fit it"#);
    let twice = GoldenPlan::new(vec![GoldenColumn::further("x", ColumnType::Text), GoldenColumn::further("x", ColumnType::Date)]);
    insta::assert_snapshot!(twice.unwrap_err(), @r#"the golden column "x" is declared twice"#);
}
