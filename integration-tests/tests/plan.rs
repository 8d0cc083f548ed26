//! `plan`: the same counts and the same tasks as the `once` that follows, and no trace of itself.

use reunion_integration_tests::generator::{Plan, make};
use reunion_integration_tests::harness::{Retailer, assert_sums, comparable, contents, count, export, row};
use serde_json::Value;

const PLAN: Plan = Plan { rows: 1_500, seed: 21, stores: 6, changed: 0.0, unreadable: true };

#[test]
fn plan_and_once_agree_on_every_state() {
    let (mut retailer, _) = Retailer::generated(&PLAN);
    // Caps that defer make the order of tasks matter too.
    retailer.edit_config("per_run_max = 100000", "per_run_max = 30");
    let mut sent = 0;
    for (step, changed) in [(0, 0.0), (1, 0.0), (2, 0.02), (3, 0.02)] {
        retailer.write_exports(&make(&Plan { changed, ..PLAN }), true);
        retailer.pass_days(i64::from(step > 0));
        for name in ["till.csv", "shop.csv"] {
            retailer.touch(name);
        }
        let plan = retailer.plan();
        assert_sums(&plan);
        assert_eq!(plan["dry_run"], true);
        assert_eq!(count(&plan, "/channels/store-list/sent"), 0);
        let once = retailer.once();
        assert_eq!(comparable(&plan), comparable(&once), "step {step}");
        assert_ne!(plan["run_id"], once["run_id"]);
        sent += count(&once, "/channels/store-list/sent");
    }
    assert_eq!(retailer.picture().tasks.len() as u64, sent);
}

#[test]
fn plan_leaves_no_trace() {
    let (mut retailer, _) = Retailer::generated(&PLAN);
    retailer.plan();
    assert!(!retailer.path("out").exists(), "a plan writes no work list");
    assert_eq!(retailer.json(&["status"])["generation"], Value::Null);
    retailer.once();
    let (people, picture) = (contents(&retailer.path("state/people")), retailer.picture());
    retailer.write_exports(&make(&Plan { changed: 0.05, ..PLAN }), true);
    let plan = retailer.plan();
    assert!(count(&plan, "/sources/till/changed") > 0);
    assert_eq!(contents(&retailer.path("state/people")), people);
    assert_eq!(contents(&retailer.path("state/tmp")).len(), 0);
    assert_eq!(retailer.picture(), picture);
    assert_eq!(retailer.json(&["status"])["runs"].as_array().map(Vec::len), Some(1), "a plan is no run");
}

#[test]
fn the_samples_of_a_plan_are_masked() {
    let retailer = Retailer::by_hand(&export([row("1", "13800138001", "王小明", "S1")]));
    let plan = retailer.plan();
    assert_eq!(plan["samples"][0]["phone"], "138****8001");
    assert_eq!(plan["samples"][0]["campaign"], "warm-add");
    assert!(!plan.to_string().contains("王小明"));
    // The text for people says the same; `run` searches it for phone numbers.
    let text = retailer.run(&["plan", "--now", &retailer.now()]).exits(0).stdout;
    assert!(text.contains("138****8001") && text.contains("nothing committed"), "{text}");
}

#[test]
fn two_states_with_one_key_come_to_the_same_and_with_another_do_not() {
    let (one, _) = Retailer::generated(&PLAN);
    let (two, _) = Retailer::generated(&PLAN);
    let planned = one.plan();
    let (first, second) = (one.once(), two.once());
    assert_eq!(comparable(&first), comparable(&second));
    assert_eq!(comparable(&planned), comparable(&second));
    let picture = one.picture();
    assert_eq!(picture, two.picture());
    let (other, _) = Retailer::generated(&PLAN);
    other.write_key("state.key", &"5a".repeat(32));
    let third = other.once();
    assert_ne!(third["tasks_digest"], first["tasks_digest"]);
    assert_eq!(third["sources"], first["sources"]);
    assert_eq!(third["members"], first["members"]);
    assert_eq!(third["tags"], first["tags"]);
    assert!(other.picture().members.iter().zip(&picture.members).all(|(other, one)| other["member_id"] != one["member_id"]));
}

#[test]
fn the_clock_is_only_set_in_rehearsals() {
    let mut retailer = Retailer::by_hand(&export([row("1", "13800138001", "甲", "S1")]));
    retailer.edit_config("clock = true", "clock = false");
    retailer.run(&["plan", "--now", &retailer.now()]).exits(2).says(&["--now", "[testing]"]);
    retailer.once_with(&[]).exits(2);
}
