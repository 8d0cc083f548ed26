//! Sources that misbehave, in a run and in a check.

use std::collections::BTreeMap;

use reunion_integration_tests::harness::count;
use reunion_misbehaving::Stage;
use reunion_model::plugin::PluginKind;
use serde_json::Value;

use super::shop::{Case, ROWS, Shop, line};
use super::{side_by_side, times};

/// Those that a run gets to. `check` is for a command of its own.
const STAGES: [Stage; 7] = [Stage::Create, Stage::Schema, Stage::Read, Stage::Item, Stage::End, Stage::Release, Stage::Destroy];
const STAGES_IN_PROCESS: [Stage; 3] = [Stage::Schema, Stage::Item, Stage::End];
/// The source that is of the same plugin, and does all as it should.
const GOOD: &str = "well";

#[test]
fn whatever_a_source_does_costs_its_own_rows_and_only_for_now() {
    for _ in 0..times(1) {
        let told = side_by_side(STAGES.to_vec(), |stage| stage_of_a_run(stage, false)).concat();
        insta::assert_snapshot!("sources", told);
    }
}

#[test]
fn a_source_in_the_programs_own_process_costs_no_more_where_it_leaves_that_alone() {
    for _ in 0..times(1) {
        let told = side_by_side(STAGES_IN_PROCESS.to_vec(), |stage| stage_of_a_run(stage, true)).concat();
        insta::assert_snapshot!("sources_in_process", told);
    }
}

/// One run in which each misbehaves at this stage, and one in which none does any more; what was said of each.
fn stage_of_a_run(stage: Stage, in_process: bool) -> String {
    let mut shop = Shop::new();
    let mut cases = Case::of(PluginKind::Source, stage);
    if in_process {
        cases.retain(Case::is_survived_in_process);
        shop.keep_in_process();
    }
    shop.source(GOOD, &BTreeMap::new(), "");
    cases.iter().for_each(|case| shop.case(case, ""));
    shop.write_config();

    let (code, report) = shop.once();
    shop.good_ones_worked(&report);
    assert_eq!(count(&report, &format!("/sources/{GOOD}/new")), ROWS as u64);
    shop.all_misbehaved(&cases);
    let states = shop.states();
    let mut told = String::new();
    let mut failed = Vec::new();
    for case in &cases {
        let (name, source) = (case.name(), &report["sources"][case.name()]);
        let state = &states[&case.component()];
        let error = source["failed"].as_str();
        let pulled = if error.is_some() { 0 } else { ROWS as u64 };
        assert_eq!(count(source, "/pulled"), pulled, "{name} at {}: {source:#}", stage.name());
        failed.extend(error.map(|_| name));
        told += &line(&shop, case, error.unwrap_or("read"), state);
    }
    assert_eq!(code, if failed.is_empty() { 0 } else { 4 }, "{}: {report:#}", stage.name());

    // What was read before the end goes on from there, and nothing is missing or there twice.
    shop.retailer.now_secs += 3600;
    let (code, report) = shop.once();
    assert_eq!(code, 0, "{}: {report:#}", stage.name());
    for case in &cases {
        let (name, source) = (case.name(), &report["sources"][case.name()]);
        let (new, unchanged) = if failed.contains(&name) { (ROWS, 0) } else { (0, ROWS) };
        let counts = ["new", "unchanged", "superseded", "changed", "deleted"].map(|key| count(source, &format!("/{key}")) as usize);
        assert_eq!(counts, [new, unchanged, 0, 0, 0], "{name} at {}: {source:#}", stage.name());
    }
    each_row_is_there_once(&shop, &cases);
    told
}

/// Each source has the rows that it should have, and each row is of the member that it would be of anyway.
fn each_row_is_there_once(shop: &Shop, cases: &[Case]) {
    let records = shop.retailer.query("select source, record_id, member_id, reason from records where source <> 'till'");
    let mut sources = BTreeMap::<&str, BTreeMap<&str, &Value>>::new();
    for record in &records {
        let [source, id, member] =
            ["source", "record_id", "member_id"].map(|name| record[name].as_str().unwrap_or_else(|| panic!("{record}")));
        let before = sources.entry(source).or_default().insert(id, &record["member_id"]);
        assert!(before.is_none(), "{source} has {id} twice, of {member} and of {before:?}");
    }
    let expected = &sources[GOOD];
    assert_eq!(expected.len(), ROWS);
    for case in cases {
        assert_eq!(sources.get(case.name()), Some(expected), "{} at {}", case.name(), case.stage.name());
    }
}
