//! What must hold of linkage whatever the rows are, on invented members.

mod members;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, new_null_array};
use members::{Case, Made, make};
use proptest::prelude::*;
use reunion_linkage::{
    BlockingKey, Comparison, Dirty, Grouping, Kind, Model, Pair, Part, Plan, Rows, ScoreError, Scored, Table, TableError, TrainError,
    Unused, clusters, score, train,
};

const COLUMNS: [&str; 7] = ["name", "phone", "birthday", "gender", "store", "created_at", "last_order_at"];
/// Enough duplicates to learn from in few rows.
const SMALL: members::Plan = members::Plan { seed: 1, people: 420, duplicated: 0.4, stores: 5 };

fn plan() -> Plan {
    Plan::retail(&COLUMNS).expect("enough columns")
}

fn table(plan: &Plan, batches: &[RecordBatch]) -> Table {
    Table::read(plan, Rows { batches, key: "member_id", side: None }).expect("a table")
}

fn all(plan: &Plan, batches: &[RecordBatch]) -> (Model, Scored) {
    let table = table(plan, batches);
    let model = train(&table, plan).expect("a model");
    let scored = score(&table, plan, &model, Dirty::All).expect("scores");
    (model, scored)
}

/// The pairs with the keys of their rows in the place of where they stand.
fn by_key(batches: &[RecordBatch], pairs: &[Pair]) -> Vec<(String, String, Pair)> {
    let keys: Vec<&str> = batches.iter().flat_map(|batch| batch["member_id"].as_string::<i32>().iter().flatten()).collect();
    let key = |row: u32| keys[row as usize].to_owned();
    pairs.iter().map(|pair| (key(pair.left), key(pair.right), Pair { left: 0, right: 0, ..pair.clone() })).collect()
}

/// The rows in another order, cut into batches of so many.
fn shuffled(batch: &RecordBatch, seed: u64, rows_per_batch: usize) -> Vec<RecordBatch> {
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by_key(|row| (u64::from(*row) ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) ^ seed);
    let shuffled = arrow::compute::take_record_batch(batch, &UInt32Array::from(order)).expect("every row is there");
    (0..batch.num_rows()).step_by(rows_per_batch).map(|at| shuffled.slice(at, rows_per_batch.min(batch.num_rows() - at))).collect()
}

fn truth(made: &Made, pair: &Pair) -> bool {
    made.people[pair.left as usize] == made.people[pair.right as usize]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_rows_the_batches_and_the_threads_do_not_matter(seed: u64, rows_per_batch in 1_usize..700, threads in 1_usize..4) {
        let made = make(SMALL);
        let mut other = plan();
        other.limits.threads_max = threads;
        let batches = shuffled(&made.batch, seed, rows_per_batch);
        let (one, other) = (all(&plan(), std::slice::from_ref(&made.batch)), all(&other, &batches));
        prop_assert!(one.1.pairs.len() > 50);
        prop_assert_eq!(&one.0, &other.0);
        prop_assert_eq!(by_key(&[made.batch], &one.1.pairs), by_key(&batches, &other.1.pairs));
        prop_assert_eq!(one.1.blocking, other.1.blocking);
    }
}

#[test]
fn the_pairs_of_some_rows_are_those_among_all_pairs() {
    let made = make(SMALL);
    let mut plan = plan();
    plan.probability_min = 0.1;
    let table = table(&plan, std::slice::from_ref(&made.batch));
    let model = train(&table, &plan).expect("a model");
    let every = score(&table, &plan, &model, Dirty::All).expect("scores");
    proptest!(ProptestConfig::with_cases(30), |(dirty in prop::collection::btree_set(0..made.people.len() as u32, 0..40))| {
        let rows: Vec<u32> = dirty.iter().copied().collect();
        let some = score(&table, &plan, &model, Dirty::Rows(&rows)).expect("scores");
        let expected: Vec<Pair> = every.pairs.iter().filter(|pair| dirty.contains(&pair.left) || dirty.contains(&pair.right)).cloned().collect();
        prop_assert_eq!(some.pairs, expected);
        prop_assert!(some.compared <= every.compared);
    });
    let gone = made.people.len() as u32;
    assert_eq!(
        score(&table, &plan, &model, Dirty::Rows(&[gone])).map(|scored| scored.compared),
        Err(ScoreError::NoRow { row: gone, rows: made.people.len() })
    );
}

#[test]
fn what_is_probable_is_mostly_right() {
    // A seed that nothing was tuned on; the benchmark has more rows and more seeds.
    let made = make(members::Plan { seed: 77, people: 3000, duplicated: 0.2, stores: 20 });
    let (_, scored) = all(&plan(), std::slice::from_ref(&made.batch));
    let sure: Vec<&Pair> = scored.pairs.iter().filter(|pair| pair.probability >= 0.99).collect();
    let right = sure.iter().filter(|pair| truth(&made, pair)).count();
    assert!(right * 100 >= sure.len() * 97, "{right} of {} are right", sure.len());
    for case in [Case::PhoneDigit, Case::Homophone, Case::NearSound, Case::NameSwapped, Case::Romanised, Case::Abbreviated] {
        let rows: BTreeSet<u32> = (0..made.cases.len() as u32).filter(|row| made.cases[*row as usize] == Some(case)).collect();
        let found =
            rows.iter().filter(|row| sure.iter().any(|pair| (pair.left == **row || pair.right == **row) && truth(&made, pair))).count();
        assert!(found * 100 >= rows.len() * 85, "{case:?}: {found} of {}", rows.len());
    }
}

#[test]
fn the_reasons_add_up_and_are_named() {
    let made = make(SMALL);
    let plan = plan();
    let (model, scored) = all(&plan, std::slice::from_ref(&made.batch));
    let prior = (model.prior / (1.0 - model.prior)).log2();
    for pair in &scored.pairs {
        let sum = pair.reasons.iter().fold(prior, |sum, reason| sum + reason.bits);
        assert!((sum - pair.weight).abs() < 1e-9);
        assert!((pair.probability - 1.0 / (1.0 + (-pair.weight).exp2())).abs() < 1e-12);
        assert!(pair.probability >= plan.probability_min && pair.left != pair.right);
        for (reason, comparison) in pair.reasons.iter().zip(&plan.comparisons) {
            assert!(reason.level.map_or(reason.bits == 0.0, |level| comparison.kind.levels().contains(&level)));
        }
    }
    let homophones = scored.pairs.iter().filter(|pair| made.cases[pair.left as usize] == Some(Case::Homophone));
    assert!(homophones.clone().count() > 0);
    assert!(homophones.clone().any(|pair| pair.reasons[0].level.is_some_and(|level| level.starts_with("homophone"))));
}

#[test]
fn a_rare_name_says_more_than_a_frequent_one() {
    let made = make(SMALL);
    let (_, scored) = all(&plan(), std::slice::from_ref(&made.batch));
    let names = made.batch["name"].as_string::<i32>();
    let frequency = |row: u32| names.iter().filter(|name| *name == Some(names.value(row as usize))).count();
    let mut exact: Vec<(usize, f64)> = scored
        .pairs
        .iter()
        .filter(|pair| pair.reasons[0].level == Some("exact"))
        .map(|pair| (frequency(pair.left), pair.reasons[0].bits))
        .collect();
    exact.sort_by_key(|one| one.0);
    assert!(exact.windows(2).all(|pair| pair[0].0 == pair[1].0 || pair[0].1 > pair[1].1), "{exact:?}");
    assert!(exact.first().map(|one| one.0) != exact.last().map(|one| one.0), "all names are as frequent");
}

#[test]
fn a_model_outlives_its_table() {
    let made = make(SMALL);
    let plan = plan();
    let table = table(&plan, std::slice::from_ref(&made.batch));
    let model = train(&table, &plan).expect("a model");
    let stored = serde_json::to_string(&model).expect("a model is JSON");
    let read: Model = serde_json::from_str(&stored).expect("its own JSON");
    assert_eq!(read, model);
    assert!(read.fits(&plan));
    let names = made.batch["name"].as_string::<i32>();
    assert!(names.iter().flatten().all(|name| !stored.contains(name)), "a model holds no value");

    let mut other = plan.clone();
    other.comparisons.pop();
    assert!(!model.fits(&other));
    assert_eq!(score(&table, &other, &model, Dirty::All), Err(ScoreError::OtherModel));
    let plans = serde_json::to_string(&plan).expect("a plan is JSON");
    assert_eq!(serde_json::from_str::<Plan>(&plans).ok(), Some(plan));
}

#[test]
fn no_duplicates_give_no_model_or_hardly_a_pair() {
    for seed in [1, 2] {
        let made = make(members::Plan { seed, people: 1500, duplicated: 0.0, stores: 10 });
        let plan = plan();
        let table = table(&plan, std::slice::from_ref(&made.batch));
        let found = train(&table, &plan).map(|model| score(&table, &plan, &model, Dirty::All).expect("scores").pairs.len());
        match found {
            Err(TrainError::TooFewMatches { .. } | TrainError::NotSeparable { .. } | TrainError::TooFewColumns { .. }) => {}
            Ok(pairs) => assert!(pairs <= 5, "{pairs} pairs of people who are all different"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn too_little_to_learn_from_is_said() {
    let made = make(members::Plan { seed: 1, people: 20, duplicated: 0.5, stores: 5 });
    let plan = plan();
    let read = table(&plan, &[made.batch.slice(0, 12)]);
    assert_eq!(read.rows(), 12);
    insta::assert_snapshot!(train(&read, &plan).expect_err("twelve rows").to_string(), @"3 pairs share a blocking key, and 50 are needed to learn from: there are too few rows, or the keys are too narrow");
    let none = table(&plan, &[made.batch.slice(0, 0)]);
    assert_eq!(train(&none, &plan), Err(TrainError::TooFewPairs { pairs: 0 }));
    assert_eq!(none.pairs(), 0);
}

/// The same rows with other values in one column.
fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, old)| {
        let new = if field.name() == name { column.clone() } else { old.clone() };
        (field.name().clone(), new, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).expect("columns of one length")
}

#[test]
fn a_column_without_values_is_left_out() {
    let made = make(SMALL);
    let column = &made.batch["birthday"];
    let batch = with_column(&made.batch, "birthday", new_null_array(column.data_type(), column.len()));
    let (model, scored) = all(&plan(), &[batch]);
    let birthday = &model.comparisons[2];
    assert_eq!((birthday.comparison.column.as_str(), birthday.unused), ("birthday", Some(Unused::TooFewValues)));
    assert!(scored.pairs.iter().all(|pair| pair.reasons[2].bits == 0.0));
    assert_eq!(scored.blocking.keys[0].rows_without_key, made.people.len());
}

#[test]
fn a_block_that_is_too_large_is_cut_finer_or_skipped_and_reported() {
    // Everybody in one store, and all who are 25 years and 28 days old or so: what clerks type when nobody asks.
    let made = make(members::Plan { stores: 1, ..SMALL });
    let rows = made.people.len() as u64;
    let batch = with_column(&made.batch, "birthday", Arc::new(arrow::array::Date32Array::from(vec![0; made.people.len()])));
    let key = |parts: &[(&str, Part)]| BlockingKey::new(parts);
    let mut plan = plan();
    plan.blocking = vec![key(&[("birthday", Part::Whole), ("store", Part::Whole)]), key(&[("name", Part::Sound)])];
    plan.limits.pairs_per_block_max = 300;
    let table = table(&plan, std::slice::from_ref(&batch));
    let model = train(&table, &plan);
    assert!(matches!(model, Ok(_) | Err(_)), "a bound, not a crash");
    // A model of other rows for the same comparisons.
    let (model, _) =
        all(&Plan { blocking: Plan::retail(&COLUMNS).expect("a plan").blocking, ..plan.clone() }, std::slice::from_ref(&made.batch));
    let scored = score(&table, &plan, &model, Dirty::All).expect("scores");
    let report = &scored.blocking.keys[0];
    assert_eq!((report.blocks_too_large, report.rows_without_key), (1, 0));
    assert!(report.pairs < rows * 20 && report.pairs > 0, "{} pairs of {rows} rows", report.pairs);
    assert!(scored.compared <= scored.blocking.keys.iter().map(|key| key.pairs).sum());

    // Nothing to cut by: skipped whole.
    plan.comparisons.retain(|comparison| ["birthday", "store"].contains(&comparison.column.as_str()));
    let table = Table::read(&plan, Rows { batches: std::slice::from_ref(&batch), key: "member_id", side: None });
    assert!(matches!(table, Err(TableError::Plan(_))), "a sound needs a name");
    plan.blocking.pop();
    let table = Table::read(&plan, Rows { batches: std::slice::from_ref(&batch), key: "member_id", side: None }).expect("a table");
    assert_eq!(train(&table, &plan), Err(TrainError::TooFewPairs { pairs: 0 }));
}

#[test]
fn the_bound_on_all_pairs_holds() {
    let made = make(SMALL);
    let mut plan = plan();
    let (_, unbounded) = all(&plan, std::slice::from_ref(&made.batch));
    plan.limits.pairs_max = unbounded.compared / 3;
    let table = table(&plan, std::slice::from_ref(&made.batch));
    let (model, _) = all(&self::plan(), std::slice::from_ref(&made.batch));
    let bounded = score(&table, &plan, &model, Dirty::All).expect("scores");
    assert!(bounded.compared <= plan.limits.pairs_max);
    assert!(bounded.blocking.pairs_per_block_max < plan.limits.pairs_per_block_max);
    let lost = |scored: &Scored| scored.blocking.keys.iter().map(|key| key.blocks_too_large).sum::<usize>();
    assert!(lost(&bounded) > lost(&unbounded), "what was not compared is reported");
}

#[test]
fn every_candidate_is_compared_once() {
    let made = make(SMALL);
    let mut plan = plan();
    plan.probability_min = 0.0;
    let (_, scored) = all(&plan, std::slice::from_ref(&made.batch));
    let pairs: BTreeSet<(u32, u32)> = scored.pairs.iter().map(|pair| (pair.left.min(pair.right), pair.left.max(pair.right))).collect();
    assert_eq!((pairs.len(), scored.left_out), (scored.pairs.len(), 0));
    assert_eq!(scored.compared, pairs.len() as u64);
    let in_blocks: u64 = scored.blocking.keys.iter().map(|key| key.pairs).sum();
    assert!(scored.compared < in_blocks, "some pairs share several keys");
}

#[test]
fn the_best_pairs_are_kept_and_the_others_counted() {
    let made = make(SMALL);
    let mut plan = plan();
    plan.probability_min = 0.5;
    let (_, every) = all(&plan, std::slice::from_ref(&made.batch));
    plan.limits.kept_max = 10;
    let (_, best) = all(&plan, std::slice::from_ref(&made.batch));
    assert_eq!((best.pairs.len(), best.left_out), (10, every.pairs.len() as u64 - 10));
    let mut weights: Vec<f64> = every.pairs.iter().map(|pair| pair.weight).collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    assert!(best.pairs.iter().all(|pair| pair.weight >= weights[9]));
}

#[test]
fn rows_of_two_sets_are_paired_across_alone() {
    let made = make(SMALL);
    let sides: StringArray = made.cases.iter().map(|case| Some(if case.is_none() { "first" } else { "second" })).collect();
    let schema = made.batch.schema();
    let columns = schema.fields().iter().map(|field| field.name().clone()).zip(made.batch.columns().iter().cloned());
    let batch =
        RecordBatch::try_from_iter(columns.chain([("side".to_owned(), Arc::new(sides) as ArrayRef)])).expect("columns of one length");
    let plan = plan();
    let table = Table::read(&plan, Rows { batches: std::slice::from_ref(&batch), key: "member_id", side: Some("side") }).expect("a table");
    let seconds = made.cases.iter().flatten().count() as u64;
    assert_eq!(table.pairs(), seconds * (made.cases.len() as u64 - seconds));
    let model = train(&table, &plan).expect("a model");
    let scored = score(&table, &plan, &model, Dirty::All).expect("scores");
    assert!(scored.pairs.iter().all(|pair| made.cases[pair.left as usize].is_none() != made.cases[pair.right as usize].is_none()));
    let groups = clusters(&scored.pairs, 5.0, Grouping::OneToOne);
    assert!(groups.len() > 20 && groups.iter().all(|group| group.len() == 2));
}

#[test]
fn what_cannot_be_read_is_said() {
    let made = make(members::Plan { people: 20, ..SMALL });
    let batches = std::slice::from_ref(&made.batch);
    let read = |plan: &Plan, key: &str, side| {
        Table::read(plan, Rows { batches, key, side }).err().map(|error| match error {
            TableError::Plan(source) => format!("{}: {source}", TableError::Plan(source.clone())),
            other => other.to_string(),
        })
    };
    let mut missing = plan();
    missing.comparisons.push(Comparison::new("shoe_size", Kind::Number));
    insta::assert_snapshot!(read(&missing, "member_id", None).unwrap(), @"the rows have no column `shoe_size`, which the plan names");
    insta::assert_snapshot!(read(&plan(), "store", None).unwrap(), @"the key `store` is missing in 0 rows and taken twice in 23: every row needs one of its own");
    insta::assert_snapshot!(read(&plan(), "member_id", Some("store")).unwrap(), @"`store` has 3 different values: rows are linked between two sets, so two were expected");
    let mut one = plan();
    one.comparisons.truncate(1);
    insta::assert_snapshot!(read(&one, "member_id", None).unwrap(), @"the plan of comparisons cannot be used: 1 comparisons: at least 2 and at most 16 are possible");
    let mut sound = plan();
    sound.blocking.push(BlockingKey::new(&[("phone", Part::Sound)]));
    insta::assert_snapshot!(read(&sound, "member_id", None).unwrap(), @"the plan of comparisons cannot be used: blocking key 14: `phone` has no Sound, which a name has");
    let mut nothing = plan();
    nothing.blocking.push(BlockingKey::new(&[("phone", Part::Last(0))]));
    insta::assert_snapshot!(read(&nothing, "member_id", None).unwrap(), @"the plan of comparisons cannot be used: blocking key 14: no characters of `phone`: every row would be compared with every other");
    let mut twice = plan();
    twice.comparisons.push(Comparison::new("name", Kind::Text));
    insta::assert_snapshot!(read(&twice, "member_id", None).unwrap(), @"the plan of comparisons cannot be used: column `name` is compared twice: what it says would count twice");
}

#[test]
fn the_plan_for_members_takes_what_is_there() {
    assert_eq!(Plan::retail(&["name", "level"]), None);
    let plan = Plan::retail(&["phone", "name", "level"]).expect("two columns");
    assert_eq!(plan.columns(), ["name", "phone"]);
    assert!(plan.check().is_ok() && Plan::retail(&COLUMNS).is_some_and(|plan| plan.check().is_ok()));
}
