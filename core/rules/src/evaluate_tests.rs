use arrow::array::{Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;
use reunion_model::schema::timestamp_type;

use super::*;
use crate::{AudienceRule, Rules, TagRule};

const DAY_US: i64 = 86_400_000_000;
const CLOCK_US: i64 = 1_790_000_000_000_000;

type Row = (u128, Option<i64>, Option<i64>, Option<i64>, Option<&'static str>);

fn schema() -> Schema {
    Schema::new(vec![
        Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), false),
        Field::new("last_order_at", timestamp_type(), true),
        Field::new("order_count", DataType::Int64, true),
        Field::new("total_spent", DataType::Decimal128(18, 2), true),
        Field::new("store", DataType::Utf8, true),
    ])
}

fn members(rows: &[Row]) -> RecordBatch {
    let ids: Vec<[u8; 16]> = rows.iter().map(|row| MemberId::from_u128(row.0).0).collect();
    let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids.iter().map(Some), 16).expect("ids");
    let spent =
        Decimal128Array::from_iter(rows.iter().map(|row| row.3.map(i128::from))).with_precision_and_scale(18, 2).expect("a decimal");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(rows.iter().map(|row| row.1).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        Arc::new(spent),
        Arc::new(rows.iter().map(|row| row.4).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("a batch")
}

fn rules(tags: &[(&str, &str)], audiences: &[(&str, &str)]) -> Rules {
    let tags: Vec<TagRule> = tags.iter().map(|(name, when)| TagRule { name: (*name).to_owned(), when: (*when).to_owned() }).collect();
    let audiences: Vec<AudienceRule> =
        audiences.iter().map(|(name, text)| AudienceRule { campaign: (*name).to_owned(), audience: (*text).to_owned() }).collect();
    Rules::compile(&schema(), &tags, &audiences, "Asia/Shanghai").unwrap_or_else(|errors| panic!("{}", errors[0]))
}

fn evaluate_at(clock_us: i64, rules: &Rules, batches: &[RecordBatch], previous: &TagState) -> Evaluated {
    let names: Vec<&str> = rules.tag_names().collect();
    rules.bind(clock_us).expect("a clock").evaluate(batches, previous, &names).expect("evaluated")
}

fn bits(arrays: &[BooleanArray]) -> Vec<bool> {
    arrays.iter().flat_map(|array| array.values().iter().collect::<Vec<_>>()).collect()
}

fn state(rows: &[(&str, u128, i64)], forwards: &[(u128, u128)]) -> TagState {
    let mut state = TagState::default();
    for (tag, member, since_us) in rows {
        state.add(&tag_rows(tag, &[(*member, *since_us)]).expect("rows")).expect("a state");
    }
    state.merged(forwards.iter().map(|(from, into)| (MemberId::from_u128(*from), MemberId::from_u128(*into))))
}

/// The delta as lines, upserts with +, removals with -.
fn lines(delta: &TagDelta) -> Vec<String> {
    let mut lines = Vec::new();
    for (sign, batches) in [('+', &delta.upserts), ('-', &delta.removals)] {
        for batch in batches {
            for row in 0..batch.num_rows() {
                let id = id_at(batch.column(0).as_fixed_size_binary(), row);
                let tag = batch.column(1).as_string::<i32>().value(row).to_owned();
                let since = batch
                    .columns()
                    .get(2)
                    .map(|since| format!(" {}", since.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(row)));
                lines.push(format!("{sign}{tag} {id}{}", since.unwrap_or_default()));
            }
        }
    }
    lines.sort();
    lines
}

fn days_ago(days: i64) -> Option<i64> {
    Some(CLOCK_US - days * DAY_US)
}

#[test]
fn tags_are_gained_kept_and_lost() {
    let rules = rules(&[("dormant", "last_order_at < now() - interval '180 days'")], &[("warm-add", "dormant and store is not null")]);
    let batch = members(&[
        (1, days_ago(200), None, None, Some("S1")),
        (2, days_ago(200), None, None, None),
        (3, days_ago(10), None, None, Some("S1")),
        (4, None, None, None, Some("S1")),
    ]);
    let previous = state(&[("dormant", 2, 77), ("dormant", 3, 78), ("dormant", 9, 79), ("retired", 1, 80)], &[]);
    let result = evaluate_at(CLOCK_US, &rules, &[batch], &previous);
    assert_eq!(bits(&result.tags[0].has), [true, true, false, false]);
    assert_eq!(result.tags[0].counts, TagCounts { members: 2, gained: 1, lost: 2, null: 1 });
    let since = result.tags[0].since.as_ref().map(|since| since[0].iter().collect::<Vec<_>>());
    assert_eq!(since, Some(vec![Some(CLOCK_US), Some(77), None, None]));
    assert_eq!(lines(&result.delta), [format!("+dormant 1 {CLOCK_US}"), "-dormant 3".into(), "-dormant 9".into(), "-retired 1".into()]);
    let audience = &result.audiences[0];
    assert_eq!(
        (audience.campaign.as_str(), bits(&audience.is_in), audience.members, audience.null),
        ("warm-add", vec![true, false, false, false], 1, 0)
    );
}

#[test]
fn a_second_run_changes_nothing() {
    let rules = rules(&[("many", "order_count > 1"), ("old", "last_order_at < now() - interval '30 days'")], &[]);
    let batch = members(&[(1, days_ago(31), Some(2), None, None), (2, days_ago(29), Some(3), None, None)]);
    let first = evaluate_at(CLOCK_US, &rules, std::slice::from_ref(&batch), &TagState::default());
    let mut previous = TagState::default();
    first.delta.upserts.iter().for_each(|rows| previous.add(rows).expect("a state"));
    let second = evaluate_at(CLOCK_US + DAY_US / 2, &rules, std::slice::from_ref(&batch), &previous);
    assert_eq!(lines(&second.delta), Vec::<String>::new());
    // The clock alone makes the second member old.
    let third = evaluate_at(CLOCK_US + 2 * DAY_US, &rules, &[batch], &previous);
    assert_eq!(lines(&third.delta), [format!("+old 2 {}", CLOCK_US + 2 * DAY_US)]);
}

#[test]
fn a_merge_keeps_the_earliest_time_and_counts_nobody_twice() {
    let rules = rules(&[("many", "order_count > 1")], &[]);
    let batch = members(&[(1, None, Some(2), None, None), (2, None, Some(0), None, None)]);
    let previous = state(&[("many", 1, 50), ("many", 3, 40), ("many", 4, 30)], &[(3, 1), (4, 2)]);
    let result = evaluate_at(CLOCK_US, &rules, &[batch], &previous);
    assert_eq!(result.tags[0].counts, TagCounts { members: 1, gained: 0, lost: 1, null: 0 });
    assert_eq!(lines(&result.delta), ["+many 1 40", "-many 3", "-many 4"]);
}

#[test]
fn later_rules_see_earlier_tags_and_since_when() {
    let rules = rules(
        &[("many", "order_count > 1"), ("regular", "many and many_since < now() - interval '90 days'"), ("unused", "not regular")],
        &[("c", "regular or many_since = now()")],
    );
    let batch = members(&[(1, None, Some(2), None, None), (2, None, Some(2), None, None), (3, None, None, None, None)]);
    let previous = state(&[("many", 1, CLOCK_US - 91 * DAY_US)], &[]);
    let result = evaluate_at(CLOCK_US, &rules, &[batch], &previous);
    assert_eq!(bits(&result.tags[1].has), [true, false, false]);
    assert_eq!(bits(&result.tags[2].has), [false, true, true]);
    assert_eq!(bits(&result.audiences[0].is_in), [true, true, false]);
    assert_eq!((result.tags[0].counts.null, result.tags[1].counts.null, result.audiences[0].null), (1, 0, 1));
}

#[test]
fn days_and_texts_without_an_offset_are_the_timezones() {
    let rules = rules(
        &[
            ("day", "last_order_at >= '2026-01-01'"),
            ("hour", "date_part('hour', last_order_at) = 0"),
            ("cut", "last_order_at::date = '2026-01-01'"),
            ("trunc", "date_trunc('day', last_order_at) = '2026-01-01'"),
        ],
        &[],
    );
    // Midnight of the new year in Shanghai, and a second before it.
    let midnight = 1_767_196_800_000_000;
    let batch = members(&[(1, Some(midnight), None, None, None), (2, Some(midnight - 1_000_000), None, None, None)]);
    let result = evaluate_at(CLOCK_US, &rules, &[batch], &TagState::default());
    for tag in &result.tags {
        assert_eq!(bits(&tag.has), [true, false], "{}", tag.name);
    }
    let rules = self::rules(&[("today", "last_order_at::date = current_date"), ("again", "last_order_at::date = today()")], &[]);
    let batch = members(&[(1, Some(midnight), None, None, None), (2, Some(midnight - 1), None, None, None)]);
    let result = evaluate_at(midnight + 5, &rules, &[batch], &TagState::default());
    assert_eq!([bits(&result.tags[0].has), bits(&result.tags[1].has)], [[true, false], [true, false]]);
}

#[test]
fn a_value_on_which_a_rule_fails_is_null_and_the_others_are_not() {
    let rules = rules(
        &[
            ("mean", "total_spent / order_count > 100"),
            ("shop", "cast(store as bigint) > 1"),
            ("far", "last_order_at + interval '300000 years' > now()"),
            ("year", "last_order_at::date > '2020-01-01'"),
            ("rest", "10 % order_count = 0"),
        ],
        &[],
    );
    let batch = members(&[
        (1, days_ago(1), Some(2), Some(30_000), Some("7")),
        (2, Some(i64::MAX), Some(0), Some(100), Some("x")),
        (3, Some(253_402_300_799_000_000), Some(1), Some(10_001), Some("1")),
        (4, Some(i64::MIN), None, None, None),
    ]);
    let result = evaluate_at(CLOCK_US, &rules, &[batch], &TagState::default());
    let of = |name: &str| result.tags.iter().find(|tag| tag.name == name).map(|tag| (bits(&tag.has), tag.counts.null)).expect("the tag");
    assert_eq!(of("mean"), (vec![true, false, true, false], 2));
    assert_eq!(of("shop"), (vec![true, false, false, false], 2));
    assert_eq!(of("rest"), (vec![true, false, true, false], 2));
    assert_eq!(of("year").0[..1], [true]);
    assert!(of("year").0[2], "year 9999, as old systems write for never");
    assert_eq!(of("far").0.len(), 4);
}

#[test]
fn columns_that_are_missing_or_of_another_type_are_told() {
    let rules = rules(&[("many", "order_count > 1")], &[]);
    let batch = members(&[(1, None, Some(2), None, None)]);
    let bound = rules.bind(CLOCK_US).expect("a clock");
    let error = |batch: RecordBatch| bound.evaluate(&[batch], &TagState::default(), &[]).map(|_| ()).expect_err("refused").to_string();
    insta::assert_snapshot!(error(batch.project(&[0, 1]).expect("columns")), @"the members' column `order_count` is missing, and the rules were compiled for Int64");
    insta::assert_snapshot!(error(batch.project(&[2]).expect("columns")), @"the members' column `member_id` is missing, and the rules were compiled for FixedSizeBinary(16)");
    let texts = RecordBatch::try_from_iter([
        (MEMBER_ID, Arc::clone(batch.column(0))),
        ("order_count", Arc::new(StringArray::from(vec!["1"])) as ArrayRef),
    ]);
    insta::assert_snapshot!(error(texts.expect("a batch")), @"the members' column `order_count` is Utf8, and the rules were compiled for Int64");
}

#[test]
fn no_members_and_no_rules_are_no_error() {
    let nothing = rules(&[], &[]);
    assert!(evaluate_at(CLOCK_US, &nothing, &[], &TagState::default()).tags.is_empty());
    let some = rules(&[("all", "true")], &[("c", "all")]);
    let previous = state(&[("all", 5, 1)], &[]);
    let result = evaluate_at(CLOCK_US, &some, &[members(&[])], &previous);
    assert_eq!((result.tags[0].counts.lost, result.audiences[0].is_in.len()), (1, 1));
    assert_eq!(evaluate_at(CLOCK_US, &some, &[], &previous).tags[0].counts.lost, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_cut_of_the_batches_changes_nothing(
        rows in proptest::collection::vec((proptest::option::of(0_i64..400), proptest::option::of(0_i64..4), proptest::option::of(0_i64..90_000)), 1..60),
        known in proptest::collection::vec((0_u128..70, 0_i64..1000), 0..20),
        cut in 0_usize..60,
    ) {
        let stores = [None, Some("1"), Some("x")];
        let rows: Vec<Row> = rows.iter().enumerate().map(|(at, (days, orders, spent))| {
            (at as u128, days.and_then(days_ago), *orders, *spent, stores[at % 3])
        }).collect();
        let rules = rules(
            &[("old", "last_order_at < now() - interval '180 days'"), ("mean", "old or total_spent / order_count > 50"), ("shop", "cast(store as bigint) = 1 and mean_since is not null")],
            &[("a", "mean and not shop"), ("b", "old_since < now()")],
        );
        let known: std::collections::BTreeMap<u128, i64> = known.into_iter().collect();
        let known: Vec<(&str, u128, i64)> = known.into_iter().map(|(member, since)| ("old", member, since)).collect();
        let previous = state(&known, &[(60, 1), (61, 2)]);
        let cut = cut.min(rows.len());
        let whole = evaluate_at(CLOCK_US, &rules, &[members(&rows)], &previous);
        let parts = evaluate_at(CLOCK_US, &rules, &[members(&rows[..cut]), members(&rows[cut..])], &previous);
        for (whole, parts) in whole.tags.iter().zip(&parts.tags) {
            prop_assert_eq!(bits(&whole.has), bits(&parts.has));
            prop_assert_eq!(whole.counts, parts.counts);
        }
        for (whole, parts) in whole.audiences.iter().zip(&parts.audiences) {
            prop_assert_eq!(bits(&whole.is_in), bits(&parts.is_in));
            prop_assert_eq!(whole.null, parts.null);
        }
        prop_assert_eq!(lines(&whole.delta), lines(&parts.delta));
        let before = {
            let mut before: Vec<u128> = known.iter().map(|(_, member, _)| match member { 60 => 1, 61 => 2, other => *other }).collect();
            before.sort_unstable();
            before.dedup();
            before.len() as u64
        };
        let counts = whole.tags[0].counts;
        prop_assert_eq!(counts.members + counts.lost, before + counts.gained);
    }
}

/// `cargo test --release -p reunion-rules -- --ignored --nocapture` prints what a million members cost.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_million_members() {
    let rows: Vec<Row> = (0..1_000_000_i64)
        .map(|n| {
            let noise = n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64).unsigned_abs() as i64 % 1_000_003;
            let id = u128::from(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_0C2D_1234_5677);
            (id, days_ago(noise % 900), Some(noise % 9), Some(noise * 7), Some("S1"))
        })
        .collect();
    let batches: Vec<RecordBatch> = rows.chunks(65_536).map(members).collect();
    let rules = rules(
        &[
            ("dormant", "last_order_at < now() - interval '180 days'"),
            ("mean", "total_spent / order_count > 100"),
            ("both", "dormant and mean"),
        ],
        &[("a", "both and store is not null"), ("b", "not dormant and order_count > 3"), ("c", "store = 'S1' and total_spent > 100.5")],
    );
    let mut previous = TagState::default();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let bound = rules.bind(CLOCK_US).expect("a clock");
        let result = bound.evaluate(&batches, &previous, &[]).expect("evaluated");
        let took = start.elapsed();
        let start = std::time::Instant::now();
        result.delta.upserts.iter().for_each(|rows| previous.add(rows).expect("a state"));
        let text = format!("evaluate: 3 tags, 3 audiences in {took:?}, {:?}; state read in {:?}\n", result.tags[0].counts, start.elapsed());
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).expect("standard output");
    }
}
