//! Channels that misbehave, in a run.

use std::collections::{BTreeMap, BTreeSet};

use reunion_integration_tests::harness::count;
use reunion_misbehaving::Stage;
use reunion_model::plugin::PluginKind;
use serde_json::Value;

use super::shop::{Case, MEMBERS, Shop, accounts_agree, line};
use super::{side_by_side, times};

/// Those that a run gets to. `check` is for a command of its own.
const STAGES: [Stage; 8] =
    [Stage::Create, Stage::Describe, Stage::Push, Stage::Receipt, Stage::End, Stage::Poll, Stage::Release, Stage::Destroy];
/// Those that decide what becomes of tasks.
const STAGES_OF_PUSHES: [Stage; 3] = [Stage::Push, Stage::Receipt, Stage::End];
/// How long the run after waits for what falls due again.
const DRAIN_SECS: u64 = 20;

#[test]
fn whatever_a_channel_does_no_task_is_given_twice_and_none_is_lost() {
    for _ in 0..times(1) {
        let told = side_by_side(STAGES.to_vec(), |stage| stage_of_a_run(stage, false)).concat();
        insta::assert_snapshot!("channels", told);
    }
}

/// Where it can do no harm to give a task again it is given again, until it is known what became of it.
#[test]
fn whatever_an_idempotent_channel_does_every_task_is_sent_in_the_end() {
    for _ in 0..times(1) {
        let told = side_by_side(STAGES_OF_PUSHES.to_vec(), |stage| stage_of_a_run(stage, true)).concat();
        insta::assert_snapshot!("idempotent_channels", told);
    }
}

#[test]
fn a_channel_in_the_programs_own_process_costs_no_more_where_it_leaves_that_alone() {
    for _ in 0..times(1) {
        let told = side_by_side(STAGES_OF_PUSHES.to_vec(), |stage| stage_of_a_run_in(stage, false, true)).concat();
        insta::assert_snapshot!("channels_in_process", told);
    }
}

fn stage_of_a_run(stage: Stage, idempotent: bool) -> String {
    stage_of_a_run_in(stage, idempotent, false)
}

/// One run in which each misbehaves at this stage, and one in which none does any more; what was said of each.
fn stage_of_a_run_in(stage: Stage, idempotent: bool, in_process: bool) -> String {
    let mut shop = Shop::new();
    let mut cases = Case::of(PluginKind::Channel, stage);
    if in_process {
        cases.retain(Case::is_survived_in_process);
        shop.keep_in_process();
    }
    cases.iter().for_each(|case| shop.case(case, &format!("batch_rows = 4\nidempotent = {idempotent}\n")));
    shop.write_config();

    let (code, report) = shop.once();
    shop.good_ones_worked(&report);
    shop.all_misbehaved(&cases);
    let states = shop.states();
    let tasks = shop.tasks();
    let mut told = String::new();
    let mut open = 0;
    for case in &cases {
        let name = case.name();
        let prefix = format!("channel {name}: ");
        let notes = report["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let notes: Vec<_> = notes.filter_map(|note| note.strip_prefix(&prefix)).collect();
        let note = if notes.is_empty() { "sent".to_owned() } else { notes.join(" / ") };
        told += &line(&shop, case, &note, &states[&case.component()]);
        open += open_tasks(&shop, case, &report, tasks.get(name).unwrap_or(&BTreeMap::new()), idempotent);
    }
    let some_are_not_made = report["notes"].to_string().contains("channel ") && matches!(stage, Stage::Create | Stage::Describe);
    assert_eq!(code, if open > 0 || some_are_not_made { 4 } else { 0 }, "{}: {report:#}", stage.name());

    // What was not given, and what may be given again, is sent by the next run.
    shop.retailer.now_secs += 3600;
    shop.drain(DRAIN_SECS);
    let (code, report) = shop.once();
    let tasks = shop.tasks();
    for case in &cases {
        let of = &tasks[case.name()];
        let context = context(case, &report, of);
        assert_eq!(of.len(), MEMBERS, "{context}");
        let left: BTreeSet<_> = of.values().map(String::as_str).collect();
        // A push that ends well has said all that it has to say.
        let is_settled = idempotent && case.name() != "missing_receipts";
        let settled: &[&str] = if is_settled { &["accepted"] } else { &["accepted", "unknown"] };
        assert!(left.iter().all(|state| settled.contains(state)), "{context}");
        accounts_agree(&context, &shop.sent(case.name()), of, idempotent);
    }
    // Its own tasks are all sent; those of the run before are that one's.
    assert_eq!(code, 0, "{}: {}", stage.name(), report["notes"]);
    told
}

fn context(case: &Case, report: &Value, tasks: &BTreeMap<String, String>) -> String {
    let (name, notes) = (case.name(), &report["notes"]);
    let [campaign, channel] = ["campaigns", "channels"].map(|of| &report[of][name]);
    format!("{name} at {}: {campaign:#}\n{channel:#}\n{notes:#}\n{tasks:#?}", case.stage.name())
}

/// Fails unless the report, the ledger and the channel's own count agree after the first run; how many tasks are not
/// known to be sent.
#[track_caller]
fn open_tasks(shop: &Shop, case: &Case, report: &Value, tasks: &BTreeMap<String, String>, idempotent: bool) -> u64 {
    let name = case.name();
    let planned = count(report, &format!("/campaigns/{name}/planned"));
    let context = context(case, report, tasks);
    // The campaign of a channel that could not be made waits.
    assert!(planned == MEMBERS as u64 || planned == 0 && matches!(case.stage, Stage::Create | Stage::Describe), "{context}");
    assert_eq!(tasks.len() as u64, planned, "{context}");
    let are = |wanted: &[&str]| tasks.values().filter(|state| wanted.contains(&state.as_str())).count() as u64;
    let counts = ["sent", "retrying", "failed", "unknown"].map(|key| count(report, &format!("/channels/{name}/{key}")));
    assert_eq!(counts, [are(&["accepted"]), are(&["not_sent"]), 0, are(&["unknown"])], "{context}");
    assert_eq!(are(&["accepted", "not_sent", "unknown", "planned"]), planned, "{context}");
    accounts_agree(&context, &shop.sent(name), tasks, idempotent);
    are(&["not_sent", "unknown"])
}
