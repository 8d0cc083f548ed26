//! `members review`: probable duplicates of the real program, answered by people and merged by scores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use members::{Made, Plan, make};
use reunion_integration_tests::harness::{Retailer, count};
use serde_json::{Value, json};

#[path = "../../core/linkage/tests/members/mod.rs"]
mod members;
#[path = "../../core/ledger/tests/common/postgres.rs"]
mod postgres;

/// A retailer of invented members, some with a second row that no key joins to the first; of each record its person.
fn retailer(people: usize, seed: u64) -> (Retailer, HashMap<String, usize>) {
    let made = make(Plan { seed, people, duplicated: 0.2, stores: 20 });
    let truth = made.people.iter().enumerate().map(|(row, person)| (format!("R{row}"), *person)).collect();
    (Retailer::by_hand(&export(&made)), truth)
}

fn export(made: &Made) -> String {
    const COLUMNS: [&str; 7] = ["phone", "name", "birthday", "gender", "store", "created_at", "last_order_at"];
    let options = FormatOptions::default();
    let columns = COLUMNS.map(|name| ArrayFormatter::try_new(made.batch[name].as_ref(), &options).expect("it has a text"));
    let line =
        |row: usize| format!("R{row},+{}\n", columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(","));
    let lines: String = (0..made.batch.num_rows()).map(line).collect();
    format!("record_id,{}\n{lines}", COLUMNS.join(","))
}

/// The pairs that nobody has decided about.
fn ls(retailer: &Retailer, args: &[&str]) -> Value {
    retailer.json(&[&["members", "review", "ls"], args].concat())
}

fn pairs(document: &Value) -> &[Value] {
    document["pairs"].as_array().expect("pairs")
}

fn id(pair: &Value) -> &str {
    pair["pair"].as_str().expect("a pair's name")
}

/// The records of both members of a pair.
fn records(pair: &Value) -> Vec<String> {
    let rows = [&pair["left"], &pair["right"]].into_iter().flat_map(|side| side["rows"].as_array().expect("rows"));
    rows.map(|row| row["record_id"].as_str().expect("an id").to_owned()).collect()
}

/// Whether a pair is one person.
fn is_one(pair: &Value, truth: &HashMap<String, usize>) -> bool {
    records(pair).iter().map(|record| truth[record]).collect::<BTreeSet<_>>().len() == 1
}

/// Accepts what is one person and rejects what is not.
fn answer(retailer: &Retailer, asked: &[Value], truth: &HashMap<String, usize>) -> [usize; 2] {
    let (one, two): (Vec<_>, Vec<_>) = asked.iter().partition(|pair| is_one(pair, truth));
    for (order, pairs) in [("accept", &one), ("reject", &two)] {
        for some in pairs.chunks(50) {
            let ids = some.iter().map(|pair| id(pair));
            let done = retailer.json(&["members", "review", order].into_iter().chain(ids).collect::<Vec<_>>());
            // Two pairs with one member in common say what is so of the third.
            assert!(done.as_array().expect("answers").iter().all(|of| of["stored"] == true || of["already"].is_string()), "{done:#}");
        }
    }
    [one.len(), two.len()]
}

#[test]
fn probable_duplicates_are_listed_and_answered() {
    let (retailer, truth) = retailer(2_000, 77);
    retailer.once();
    let listed = ls(&retailer, &["--limit", "5000"]);
    let total = count(&listed, "/pairs_total");
    assert!(total > 100 && pairs(&listed).len() as u64 == total, "{total}");
    let right = pairs(&listed).iter().filter(|pair| is_one(pair, &truth)).count() as u64;
    assert!(right * 100 > total * 90, "{right} of {total} are one person");
    let probabilities: Vec<f64> = pairs(&listed).iter().map(|pair| pair["probability"].as_f64().expect("a number")).collect();
    assert!(probabilities.is_sorted_by(|one, other| one >= other) && probabilities.iter().all(|of| *of >= 0.9));
    assert_eq!(ls(&retailer, &["--limit", "5000"]), listed, "read again, and not scored again");
    // Reasons name columns and degrees, and no value.
    let first = &pairs(&listed)[0];
    let sum: f64 = first["reasons"].as_array().expect("reasons").iter().map(|reason| reason["bits"].as_f64().expect("bits")).sum();
    assert!(sum > first["weight_bits"].as_f64().expect("bits"), "the prior takes some");
    let text = retailer.run(&["members", "review", "ls", "--limit", "3"]).exits(0).stdout;
    assert!(text.contains(id(first)) && text.contains("probability 0.99") && text.contains("3 of "), "{text}");

    // One is accepted, one rejected; both leave the list at once.
    let [accepted, rejected] = [&pairs(&listed)[0], &pairs(&listed)[1]];
    let shown = retailer.json(&["members", "review", "accept", id(accepted), "--dry-run"]);
    assert_eq!(shown[0]["stored"], false, "{shown:#}");
    let done = retailer.json(&["members", "review", "accept", id(accepted), "--why", "asked her at 13900000001"]);
    assert_eq!((&done[0]["stored"], &done[0]["order"]), (&json!(true), &json!("merge")));
    let text = retailer.run(&["members", "review", "reject", id(rejected)]).exits(0).stdout;
    assert!(text.contains("two people"), "{text}");
    let left: BTreeSet<String> = pairs(&ls(&retailer, &["--limit", "5000"])).iter().map(|pair| id(pair).to_owned()).collect();
    assert!(!left.contains(id(accepted)) && !left.contains(id(rejected)) && left.len() as u64 == total - 2);
    let twice = retailer.json(&["members", "review", "accept", id(accepted)]);
    assert!(twice[0]["already"].is_string(), "{twice:#}");

    let decisions = retailer.json(&["members", "decisions"]);
    assert_eq!((&decisions[0]["source"], &decisions[1]["source"]), (&json!("review"), &json!("review")));
    let why = decisions[1]["why"].as_str().expect("why");
    assert!(why.starts_with("asked her at 139****0001 (probability 0.99") && why.contains("name "), "{why}");
    let undone = decisions[0]["decision_id"].as_str().expect("an id").to_owned();

    let report = retailer.again();
    assert_eq!(count(&report, "/members/merged"), 1, "{report:#}");
    let after = ls(&retailer, &["--limit", "5000"]);
    assert_ne!(after["generation"], listed["generation"]);
    let names: BTreeSet<&str> = pairs(&after).iter().map(id).collect();
    assert!(!names.contains(id(accepted)) && !names.contains(id(rejected)));
    // A rejection that is taken back is a question again.
    retailer.json(&["members", "undo", &undone, "--why", "a mistake"]);
    assert!(pairs(&ls(&retailer, &["--limit", "5000"])).iter().any(|pair| id(pair) == id(rejected)));
}

#[test]
fn scores_merge_only_what_reviews_have_shown_them_to_be_right_about() {
    let (retailer, truth) = retailer(6_000, 78);
    merges_what_is_shown(retailer, &truth);
}

#[test]
fn so_they_do_with_a_ledger_in_postgresql() {
    let (mut retailer, truth) = retailer(6_000, 78);
    retailer.set_ledger(&postgres::server().database(), 5);
    merges_what_is_shown(retailer, &truth);
}

fn merges_what_is_shown(retailer: Retailer, truth: &HashMap<String, usize>) {
    retailer.once();
    let refused = retailer.run(&["members", "review", "merge"]).exits(3);
    assert!(refused.stderr.contains("nothing was merged") && refused.stderr.contains("268"), "{}", refused.stderr);
    assert_eq!(retailer.json(&["members", "decisions"]), json!([]));

    let sampled = ls(&retailer, &["--sample", "--probability-min", "0.999", "--probability-max", "0.9999", "--limit", "70"]);
    assert!(pairs(&sampled).iter().map(id).is_sorted());
    let [accepted, rejected] = answer(&retailer, pairs(&sampled), truth);
    assert!(accepted > 30, "{accepted} and {rejected}");
    let merge = ["members", "review", "merge", "--precision-min", "0.9"];
    let shown = retailer.json(&[&merge[..], &["--dry-run"]].concat());
    assert_eq!((&shown["stored"], &shown["band"]["probability_min"]), (&json!(false), &json!(0.999)), "{shown:#}");
    let done = retailer.json(&merge);
    assert_eq!(done["stored"], true);
    let merged = done["merged"].as_array().expect("pairs");
    assert!(merged.len() > 50, "{}", merged.len());
    let mut taken = BTreeMap::new();
    for pair in merged {
        for side in ["left", "right"] {
            *taken.entry(pair[side]["member_id"].as_str().expect("an id")).or_insert(0) += 1;
        }
        let name = pair["reasons"].as_array().expect("reasons").iter().find(|reason| reason["column"] == "name").expect("names agree");
        assert!(["exact", "homophone_tone", "homophone", "romanised", "swapped"].contains(&name["agreement"].as_str().expect("a degree")));
        assert!(pair["probability"].as_f64().expect("a number") >= 0.999);
    }
    assert!(taken.values().all(|times| *times == 1), "each member in one pair at most");
    let right = merged.iter().filter(|pair| is_one(pair, truth)).count();
    assert!(right * 100 >= merged.len() * 98, "{right} of {} are one person", merged.len());

    // So many at once are looked at by the guards of the next run, whoever decided.
    retailer.touch("pos.csv");
    let stopped = retailer.once_with(&[]).exits(3);
    assert!(stopped.stderr.contains("by `reunion members review`"), "{}", stopped.stderr);
    let report = retailer.once_with(&["--accept", "guards.merged_share"]).exits(0).json();
    assert_eq!(count(&report, "/members/merged") as usize, merged.len() + accepted, "{report:#}");
    // What somebody takes back is left to people from then on, and counts against scores.
    let decision = merged[0]["decision_id"].as_str().expect("an id");
    retailer.json(&["members", "undo", decision, "--why", "twins"]);
    retailer.again();
    let listed = ls(&retailer, &["--limit", "10000"]);
    assert!(pairs(&listed).iter().any(|pair| records(pair) == records(&merged[0])), "it is a question again");
    let one = count(&done, "/band/one_person_from_here");
    let seen = format!("{one} of {}", one + 1);
    assert!(retailer.run(&merge).exits(3).stderr.contains(&seen), "one wrong merge is enough for so few reviews");
    let second = retailer.json(&["members", "review", "merge", "--precision-min", "0.85"]);
    assert!(!second["merged"].as_array().expect("pairs").iter().any(|pair| records(pair) == records(&merged[0])));
    assert_eq!(count(&second, "/band/reviewed_from_here"), count(&done, "/band/reviewed_from_here") + 1);
}

#[test]
fn what_cannot_be_scored_says_why() {
    let retailer = Retailer::by_hand("record_id,phone,name,store\nC1,13900000001,张三,S1\nC2,13900000002,李四,S1\n");
    let early = retailer.run(&["members", "review", "ls"]).exits(2);
    assert!(early.stderr.contains("there is nothing to look at yet"), "{}", early.stderr);
    retailer.once();
    let text = retailer.run(&["members", "review", "ls"]).exits(0).stdout;
    assert!(text.starts_with("no pair could be scored: ") && text.contains("too few rows"), "{text}");
    let unknown = retailer.run(&["members", "review", "accept", "0123456789ab"]).exits(2);
    assert!(unknown.stderr.contains("there is no pair 0123456789ab"), "{}", unknown.stderr);
    let wrong = retailer.run(&["members", "review", "merge", "--precision-min", "2"]).exits(2);
    assert!(wrong.stderr.contains("between 0.5 and 1"), "{}", wrong.stderr);
    // A damaged file is made anew.
    fs::write(retailer.path("state/review.json"), "{").expect("a file can be written");
    assert!(retailer.run(&["members", "review", "ls"]).exits(0).stdout.starts_with("no pair could be scored: "));
}
