//! `members`: what operators decide about who is who, and what follows from merges and splits for tasks, touches,
//! suppressions, links and control groups.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use reunion_integration_tests::harness::{HEADER, Retailer, assert_sums, count, end, export, row};
use serde_json::{Value, json};

/// Phone number `at`.
fn phone(at: usize) -> String {
    format!("1380013{at:04}")
}

/// A card that was changed last in this year: of two cards of a member, the later one's phone is the member's.
fn card(id: &str, phone: &str, year: u32) -> String {
    row(id, phone, "名", "S1").replacen("2025-01-02T03:04:05Z", &format!("{year}-01-02T03:04:05Z"), 1)
}

/// Cards `C0`, `C1` and so on, each of its own number.
fn cards(count: usize) -> Retailer {
    Retailer::by_hand(&export((0..count).map(|at| card(&format!("C{at}"), &phone(at), 2025))))
}

/// The member of each row, by row id.
fn members(retailer: &Retailer) -> BTreeMap<String, String> {
    let rows = retailer.query("select record_id, member_id from records where member_id is not null");
    let text = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
    rows.iter().map(|row| (text(row, "record_id"), text(row, "member_id"))).collect()
}

/// An order with a reason, expecting that it is stored; its document.
#[track_caller]
fn order(retailer: &Retailer, args: &[&str]) -> Value {
    let done = retailer.json(&[&["members"], args, &["--why", "asked in the store"]].concat());
    assert_eq!(done["stored"], true, "{done:#}");
    done
}

/// The phones on work lists, each as often as it was handed out.
fn handed_out(retailer: &Retailer) -> BTreeMap<String, usize> {
    let mut phones = BTreeMap::new();
    for row in retailer.work_lists().into_iter().flat_map(|list| list.rows) {
        *phones.entry(row["phone"].clone()).or_default() += 1;
    }
    phones
}

#[test]
fn a_merge_holds_from_the_next_run_on_until_it_is_withdrawn() {
    let mut retailer = cards(3);
    retailer.once();
    let before = members(&retailer);
    // A preview stores nothing.
    let shown = retailer.json(&["members", "merge", &phone(0), &phone(1), "--dry-run"]);
    assert_eq!((&shown["stored"], &shown["decisions"].as_array().map(Vec::len)), (&json!(false), &Some(1)));
    assert_eq!(retailer.json(&["members", "decisions"]), json!([]));
    let done = order(&retailer, &["merge", &phone(0), &before["C1"]]);
    let keeps = done["keeps_id"].as_str().expect("an id").to_owned();
    assert!([&before["C0"], &before["C1"]].contains(&&keeps));
    let id = done["decisions"][0]["decision_id"].as_str().expect("an id").to_owned();
    assert_eq!(members(&retailer), before, "nothing happens before the next run");
    let text = retailer.run(&["explain", &phone(0)]).exits(0).stdout;
    assert!(text.contains("one person from the next run on: pos/C0 with pos/C1 of member"), "{text}");

    let report = retailer.again();
    assert_eq!((count(&report, "/members/merged"), count(&report, "/members/total")), (1, 2), "{report:#}");
    assert_eq!(count(&report, "/sources/pos/unchanged"), 3, "no row changed");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0);
    let joined = members(&retailer);
    assert_eq!((&joined["C0"], &joined["C1"]), (&keeps, &keeps));
    assert_eq!(joined["C2"], before["C2"]);
    let explained = retailer.json(&["explain", &phone(1)]);
    let who = &explained["members"][0]["who_is_who"][0];
    assert_eq!(
        (&who["kind"], &who["state"], &who["pending"], &who["decision_id"]),
        (&json!("same"), &json!("in_force"), &json!(false), &json!(id))
    );
    // It outlives runs, and rows that change and come back.
    retailer.again();
    retailer.write("pos.csv", &export([card("C0", &phone(0), 2025), card("C2", &phone(2), 2025)]));
    retailer.once();
    retailer.write("pos.csv", &export((0..3).map(|at| card(&format!("C{at}"), &phone(at), 2025))));
    retailer.once();
    assert_eq!(members(&retailer)["C1"], keeps);

    let undone = order(&retailer, &["undo", &id]);
    assert_eq!(undone["decision"]["decision_id"], json!(id));
    let report = retailer.again();
    assert_eq!(count(&report, "/members/total"), 3, "{report:#}");
    let after = members(&retailer);
    assert_eq!(after.values().collect::<BTreeSet<_>>().len(), 3);
    let gone = [&before["C0"], &before["C1"]].into_iter().find(|id| **id != keeps).expect("one of them");
    assert!(!after.values().any(|id| id == gone), "an id that was given away is nobody's again");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0, "a touch belongs to the number");
    assert_eq!(handed_out(&retailer).values().collect::<BTreeSet<_>>(), BTreeSet::from([&1]));
    let listed = retailer.json(&["members", "decisions", "ls"]);
    assert_eq!((&listed[0]["state"], &listed[0]["withdrawn"]["why"]), (&json!("withdrawn"), &json!("asked in the store")));
    let text = retailer.run(&["members", "decisions"]).exits(0).stdout;
    assert!(text.contains("withdrawn") && text.contains("pos/C0") && text.contains("asked in the store"), "{text}");
}

#[test]
fn many_members_are_merged_at_once_and_one_leaves_again() {
    let retailer = cards(4);
    retailer.once();
    let done = order(&retailer, &["merge", &phone(0), &phone(1), &phone(2)]);
    assert_eq!(done["decisions"].as_array().map(Vec::len), Some(2));
    let report = retailer.again();
    assert_eq!((count(&report, "/members/merged"), count(&report, "/members/total")), (2, 2));
    let member = members(&retailer)["C0"].clone();
    let split = order(&retailer, &["split", &member, "--records", "pos/C1"]);
    assert_eq!(split["left"][0]["rows"], json!([{ "source": "pos", "record_id": "C1" }]));
    assert!(split["overtaken"].as_array().is_some_and(|overtaken| !overtaken.is_empty()), "{split:#}");
    retailer.again();
    let after = members(&retailer);
    assert_eq!(after["C0"], after["C2"], "the rest stays together: {after:#?}");
    assert_ne!(after["C0"], after["C1"]);
}

#[test]
fn two_people_with_one_number_are_kept_apart_and_touched_once() {
    // Father and son on one number, until somebody says so; then a third card of the son's.
    let mut retailer = Retailer::by_hand(&export([card("F", &phone(1), 2024), card("S", &phone(1), 2025)]));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\ntouches_max = 2\ngap_days = 30");
    retailer.once();
    let member = members(&retailer)["F"].clone();
    assert_eq!(handed_out(&retailer), BTreeMap::from([(phone(1), 1)]));
    order(&retailer, &["split", &phone(1), "--records", "pos/S"]);
    let report = retailer.again();
    assert_eq!((count(&report, "/members/total"), count(&report, "/campaigns/warm-add/planned")), (2, 0), "{report:#}");
    let after = members(&retailer);
    assert_ne!(after["F"], after["S"]);
    assert!(after.values().any(|id| *id == member), "the id stays where most of the history is");
    // A number of two members does not say which one is meant.
    let refused = retailer.run(&["members", "merge", &phone(1), &after["F"], "--why", "x"]).exits(2);
    refused.says(&["138****0001 is the number of 2 members", &after["F"], &after["S"], "pos/F", "pos/S"]);
    // A month later the number is touched once more, and not twice.
    retailer.pass_days(40);
    let report = retailer.again();
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "same_contact": 1 }), "{report:#}");
    assert_eq!(handed_out(&retailer), BTreeMap::from([(phone(1), 2)]));
    // They are one person after all: said so, the split is overtaken.
    let merged = order(&retailer, &["merge", &after["F"], &after["S"]]);
    assert_eq!(merged["overtaken"][0]["in_part"], false);
    retailer.again();
    assert_eq!(members(&retailer).values().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn a_key_that_comes_later_does_not_join_who_is_kept_apart() {
    let header = format!("{HEADER},unionid\n");
    let export = |unionid: &str| -> String {
        let rows = (0..3).map(|at| format!("{},{unionid}\n", card(&format!("C{at}"), &phone(at), 2025)));
        format!("{header}{}", rows.collect::<String>())
    };
    let mut retailer = Retailer::by_hand(&export(""));
    retailer.edit_config("[tags.dormant]", "[identity]\nkeys = [\"phone\", \"unionid\"]\n\n[tags.dormant]");
    retailer.once();
    order(&retailer, &["keep-apart", &phone(0), &phone(1)]);
    retailer.write("pos.csv", &export("u1"));
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 2, "{report:#}");
    let after = members(&retailer);
    assert_ne!(after["C0"], after["C1"], "{after:#?}");
    let text = retailer.run(&["explain", &phone(0)]).exits(0).stdout;
    assert!(text.contains("kept apart: pos/C0 from pos/C1 of member"), "{text}");
}

#[test]
fn rows_with_odd_ids_are_split_off() {
    let ids = ["a,b", r"c\d", "e/f g", "plain"];
    let rows = ids.iter().map(|id| card(&format!("\"{id}\""), &phone(1), 2025));
    let retailer = Retailer::by_hand(&export(rows));
    retailer.once();
    order(&retailer, &["split", &phone(1), "--records", r"pos/a\,b,pos/c\\d", "--records", "pos/e/f g"]);
    let report = retailer.again();
    assert_eq!(count(&report, "/members/total"), 2, "{report:#}");
    let after = members(&retailer);
    let alone = after.iter().filter(|(_, member)| **member == after["plain"]).count();
    assert_eq!(alone, 1, "{after:#?}");
}

#[test]
fn what_makes_no_sense_is_refused_and_stores_nothing() {
    let mut rows = vec![card("C0", &phone(0), 2025), card("C1", &phone(1), 2025), card("D1", &phone(1), 2024)];
    rows.extend((0..7).map(|at| card(&format!("K{at}"), &phone(9), 2025).replace("名", &format!("名{at}"))));
    let mut retailer = Retailer::by_hand(&export(rows));
    let why = ["--why", "x"];
    let refused =
        |retailer: &Retailer, args: &[&str], says: &[&str]| retailer.run(&[&["members"], args, &why].concat()).exits(2).says(says);
    refused(&retailer, &["merge", &phone(0), &phone(1)], &["reunion once"]);
    retailer.once();
    let ids = members(&retailer);
    let one = ids["C1"].as_str();
    refused(&retailer, &["merge", "1380013", &phone(1)], &["neither a member's id of 32 hex digits nor a phone number that is used"]);
    refused(&retailer, &["merge", "13800000000", &phone(1)], &["placeholders"]);
    refused(&retailer, &["merge", &phone(5), &phone(1)], &["no row of any source has the number 138****0005"]);
    refused(&retailer, &["merge", &phone(9), &phone(1)], &["138****0009 is the number of no member: its rows are in quarantine"]);
    refused(&retailer, &["merge", &"0".repeat(32), &phone(1)], &["there is no member", "select member_id"]);
    refused(&retailer, &["keep-apart", &phone(1), one], &["they are one member", "members split", "pos/C1, pos/D1"]);
    refused(&retailer, &["split", &phone(1), "--records", "till/C1"], &["there is no source `till`", "the sources are pos"]);
    refused(&retailer, &["split", &phone(1), "--records", "pos/C9"], &["the row pos/C9 is not there"]);
    refused(&retailer, &["split", &phone(1), "--records", "pos/C0"], &["the row pos/C0 is of member", &ids["C0"]]);
    refused(&retailer, &["split", &phone(1), "--records", "pos/K1"], &["in quarantine"]);
    refused(&retailer, &["split", &phone(1), "--records", "pos/C1,pos/D1"], &["all 2 rows", "a split leaves some"]);
    refused(&retailer, &["split", &phone(1), "--records", "C1"], &["--records names no rows"]);
    refused(&retailer, &["undo", &"0".repeat(32)], &["there is no decision", "members decisions"]);
    assert_eq!(retailer.json(&["members", "decisions"]), json!([]));
    // What is so already is no mistake, and stores nothing either.
    let already = retailer.json(&["members", "merge", &phone(1), one, "--why", "x"]);
    assert!(already["already"].as_str().is_some_and(|why| why.contains("one member already")), "{already:#}");
    order(&retailer, &["merge", &phone(0), &phone(1)]);
    let already = retailer.json(&["members", "merge", &phone(1), &phone(0), "--why", "x"]);
    assert!(already["already"].as_str().is_some_and(|why| why.contains("from the next run on")), "{already:#}");
    // A number in the reason is masked; so is one that a source takes for a row's id.
    order(&retailer, &["keep-apart", &phone(0), &phone(1)]);
    let done = retailer.json(&[
        "members",
        "undo",
        retailer.json(&["members", "decisions"])[0]["decision_id"].as_str().expect("an id"),
        "--why",
        &phone(0),
    ]);
    assert_eq!(done["stored"], true);
    assert_eq!(retailer.json(&["members", "decisions"])[0]["withdrawn"]["why"], "138****0000");
    retailer.write("pos.csv", &export([card(&phone(3), &phone(3), 2025), card(&phone(4), &phone(4), 2025)]));
    retailer.once();
    let done = order(&retailer, &["merge", &phone(3), &phone(4)]);
    assert_eq!(done["left"][0]["rows"][0]["record_id"], "138****0003");
}

#[test]
fn who_was_joined_to_another_is_found_under_both_ids() {
    let mut retailer = cards(3);
    retailer.once();
    let before = members(&retailer);
    let keeps = order(&retailer, &["merge", &phone(0), &phone(1)])["keeps_id"].clone();
    retailer.again();
    let gone = [&before["C0"], &before["C1"]].into_iter().find(|id| json!(id) != keeps).expect("one of them").clone();
    let done = order(&retailer, &["merge", &gone, &phone(2)]);
    assert!(done["notes"][0].as_str().is_some_and(|note| note.contains("was joined to member")), "{done:#}");
    retailer.again();
    assert_eq!(members(&retailer).values().collect::<BTreeSet<_>>().len(), 1);
    // One of whom nothing is left.
    retailer.write("pos.csv", &export([card("X", &phone(8), 2025)]));
    retailer.once();
    retailer.run(&["members", "merge", &gone, &phone(8), "--why", "x"]).exits(2).says(&["nothing is left"]);
}

#[test]
fn a_rollback_keeps_decisions() {
    let retailer = cards(2);
    retailer.once();
    order(&retailer, &["merge", &phone(0), &phone(1)]);
    assert_eq!(count(&retailer.again(), "/members/total"), 1);
    retailer.run(&["rollback"]).exits(0);
    assert_eq!(members(&retailer).values().collect::<BTreeSet<_>>().len(), 2, "the members are those of before");
    assert_eq!(retailer.json(&["members", "decisions"])[0]["pending"], true);
    assert_eq!(count(&retailer.again(), "/members/total"), 1, "and the decision holds");
}

#[test]
fn orders_are_given_while_the_daemon_runs() {
    let retailer = cards(2);
    retailer.once();
    let mut daemon = retailer.spawn(&["run"]);
    let mut log = BufReader::new(daemon.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains("ready") {
        assert!(log.read_line(&mut said).expect("the log can be read") > 0, "it ended before it was ready\n{said}");
    }
    let id = order(&retailer, &["merge", &phone(0), &phone(1)])["decisions"][0]["decision_id"].clone();
    assert_eq!(retailer.json(&["members", "decisions"])[0]["decision_id"], id);
    order(&retailer, &["undo", id.as_str().expect("an id")]);
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &daemon.id().to_string()]);
    end(kill).exits(0);
    log.read_to_string(&mut said).expect("the log can be read");
    assert_eq!(daemon.wait().expect("it ends").code(), Some(0), "{said}");
}

/// Pairs of cards, each pair of one person as will turn out: card `A` has an older number, `2n`, and card `B` the
/// later one, `2n + 1`. The campaign is off.
fn pairs(count: usize, holdout: &str) -> Retailer {
    let mut retailer = Retailer::by_hand(&of_pairs(count, true));
    let campaign = format!("holdout = {holdout}\nenabled = false\ntouches_max = 2\ngap_days = 30\nper_store_per_day_max = 1000");
    retailer.edit_config("holdout = 0.0", &campaign);
    retailer
}

/// The export of all cards of pairs, or of the older ones.
fn of_pairs(count: usize, all: bool) -> String {
    let older = (0..count).map(|pair| card(&format!("A{pair}"), &phone(2 * pair), 2024));
    let later = (0..count).filter(|_| all).map(|pair| card(&format!("B{pair}"), &phone(2 * pair + 1), 2025));
    export(older.chain(later))
}

fn merge_pair(retailer: &Retailer, pair: usize) -> Value {
    order(retailer, &["merge", &phone(2 * pair), &phone(2 * pair + 1)])
}

fn switch(retailer: &mut Retailer, on: bool) {
    retailer.edit_config(&format!("enabled = {}", !on), &format!("enabled = {on}"));
}

/// Contacts the older cards of pairs; then all cards are there, nobody else contacted, and a day has passed.
fn older_contacted(count: usize, holdout: &str) -> (Retailer, Value) {
    let mut retailer = pairs(count, holdout);
    retailer.write("pos.csv", &of_pairs(count, false));
    switch(&mut retailer, true);
    let first = retailer.once();
    switch(&mut retailer, false);
    retailer.pass_days(1);
    retailer.write("pos.csv", &of_pairs(count, true));
    retailer.once();
    (retailer, first)
}

/// What clerks write on the work lists that were handed out, by phone.
fn give_back(retailer: &Retailer, results: &[(String, &str)]) {
    let lists = retailer.work_lists();
    let task =
        |phone: &String| &lists.iter().flat_map(|list| &list.rows).find(|row| row["phone"] == *phone).expect("was handed out")["task_id"];
    let rows: String = results.iter().map(|(phone, result)| format!("{},{result}\r\n", task(phone))).collect();
    std::fs::write(retailer.path("returned/results.csv"), format!("task_id,result\r\n{rows}")).expect("a file can be written");
}

#[test]
fn who_asked_at_an_older_number_is_left_alone_at_the_later_one() {
    let mut retailer = pairs(3, "0.0");
    retailer.once();
    (0..3).for_each(|pair| _ = merge_pair(&retailer, pair));
    retailer.json(&["suppress", "add", &phone(0), "--reason", "asked"]);
    retailer.json(&["suppress", "add", &phone(2), "--reason", "wrong_number"]);
    switch(&mut retailer, true);
    let report = retailer.again();
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "suppressed": 1 }), "{report:#}");
    let once = |phones: &[usize]| phones.iter().map(|at| (phone(*at), 1)).collect::<BTreeMap<_, _>>();
    assert_eq!(handed_out(&retailer), once(&[3, 5]), "a wrong number says nothing of the other");
    let text = retailer.run(&["explain", &phone(1)]).exits(0).stdout;
    assert!(text.contains("no task of warm-add: suppressed") && text.contains("(operator): asked"), "{text}");
    // Taken apart again, the other was never asked to be left alone.
    let listed = retailer.json(&["members", "decisions"]);
    let id = listed.as_array().expect("a list")[2]["decision_id"].as_str().expect("an id").to_owned();
    order(&retailer, &["undo", &id]);
    let report = retailer.again();
    assert_eq!(handed_out(&retailer), once(&[1, 3, 5]), "{report:#}");
}

#[test]
fn who_was_touched_at_an_older_number_waits_at_the_later_one() {
    let (mut retailer, first) = older_contacted(3, "0.0");
    assert_eq!(count(&first, "/campaigns/warm-add/planned"), 3);
    (0..2).for_each(|pair| _ = merge_pair(&retailer, pair));
    switch(&mut retailer, true);
    let report = retailer.again();
    assert_eq!(report["campaigns"]["warm-add"]["deferred"], json!({ "gap": 3 }), "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1, "the one who is nobody's other half");
    let tasks = |retailer: &Retailer, at: usize| -> BTreeSet<String> {
        let explained = retailer.json(&["explain", &phone(at)]);
        let tasks = explained["members"][0]["tasks"].as_array().expect("tasks").clone();
        tasks.iter().map(|task| task["member_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(tasks(&retailer, 1), BTreeSet::from([members(&retailer)["A0"].clone()]), "the touch is the merged member's");
    // Taken apart: the touch goes with its number, the other member may be contacted, and nobody is twice.
    let listed = retailer.json(&["members", "decisions"]);
    order(&retailer, &["undo", listed[1]["decision_id"].as_str().expect("an id")]);
    let report = retailer.again();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1, "{report:#}");
    let after = members(&retailer);
    assert_eq!(tasks(&retailer, 0), BTreeSet::from([after["A0"].clone()]));
    assert_eq!(tasks(&retailer, 1), BTreeSet::from([after["B0"].clone()]));
    assert_eq!(handed_out(&retailer), [0, 1, 2, 4, 5].map(|at| (phone(at), 1)).into());
    // A month later the merged member gets its second touch, and no third.
    for (days, planned) in [(40, 5), (40, 0)] {
        retailer.pass_days(days);
        assert_eq!(count(&retailer.again(), "/campaigns/warm-add/planned"), planned);
    }
    assert_eq!(handed_out(&retailer), [(0, 2), (1, 2), (2, 1), (3, 1), (4, 2), (5, 2)].map(|(at, times)| (phone(at), times)).into());
}

#[test]
fn who_was_held_out_at_an_older_number_is_held_out_at_the_later_one() {
    const PAIRS: usize = 12;
    let (mut retailer, first) = older_contacted(PAIRS, "0.5");
    let held_out = count(&first, "/campaigns/warm-add/held_out");
    assert!((1..PAIRS as u64).contains(&held_out), "{held_out}");
    (0..PAIRS).for_each(|pair| _ = merge_pair(&retailer, pair));
    switch(&mut retailer, true);
    retailer.edit_config("holdout = 0.5", "holdout = 0.0");
    retailer.pass_days(40);
    let report = retailer.again();
    assert_eq!(count(&report, "/campaigns/warm-add/held_out"), held_out, "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), PAIRS as u64 - held_out);
    // Taken apart again, who was held out stays so: both numbers were drawn.
    let decisions = retailer.json(&["members", "decisions"]);
    for decision in decisions.as_array().expect("a list") {
        order(&retailer, &["undo", decision["decision_id"].as_str().expect("an id")]);
    }
    let report = retailer.again();
    assert_eq!(count(&report, "/campaigns/warm-add/held_out"), 2 * held_out, "{report:#}");
}

#[test]
fn links_and_refusals_at_an_older_number_hold_for_the_merged_member() {
    let (mut retailer, _) = older_contacted(4, "0.0");
    give_back(&retailer, &[(phone(0), "added"), (phone(2), "do_not_call"), (phone(4), "refused")]);
    (0..4).for_each(|pair| _ = merge_pair(&retailer, pair));
    switch(&mut retailer, true);
    retailer.pass_days(40);
    let report = retailer.again();
    assert_eq!(count(&report, "/members/phone_only"), 3, "one was added as a friend under the older number: {report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/audience"), 3);
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "suppressed": 2 }));
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1);
    assert_eq!(retailer.query("select phone_only from members where phone = '8613800130001'"), [json!({ "phone_only": false })]);
    let text = retailer.run(&["explain", &phone(1)]).exits(0).stdout;
    assert!(text.contains("linked in store-list"), "{text}");
}

#[test]
fn of_two_open_tasks_of_a_merged_member_one_is_done() {
    let mut retailer = pairs(2, "0.0");
    switch(&mut retailer, true);
    retailer.edit_config("[channels.store-list]\n", "[channels.store-list]\nper_day_max = 1\n");
    let sent = |report: &Value| count(report, "/channels/store-list/sent");
    let first = retailer.once();
    assert_eq!((count(&first, "/campaigns/warm-add/planned"), sent(&first)), (4, 1));
    (0..2).for_each(|pair| _ = merge_pair(&retailer, pair));
    let report = retailer.again();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0, "{report:#}");
    let taken_back: u64 = report["cancelled"].as_object().expect("a map").values().filter_map(Value::as_u64).sum();
    assert_eq!(taken_back, 3, "{report:#}");
    // Who was not touched is planned anew, at the member's phone, and sent when the channel takes more.
    for _ in 0..3 {
        retailer.pass_days(1);
        retailer.again();
    }
    let touched: Vec<usize> =
        (0..2).map(|pair| [2 * pair, 2 * pair + 1].iter().filter_map(|at| handed_out(&retailer).get(&phone(*at)).copied()).sum()).collect();
    assert_eq!(touched, [1, 1], "each person once, at one number");
}

/// A merged pair with an open task at the later number, and somebody else with an open task.
fn open_task_of_a_pair() -> Retailer {
    let mut retailer = pairs(1, "0.0");
    // The daemon goes by the machine's clock.
    retailer.now_secs = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64 - 5;
    retailer.edit_config("[channels.store-list]\n", "[channels.store-list]\nper_day_max = 1\n");
    let z = card("Z", &phone(8), 2025);
    retailer.write("pos.csv", &export([&z]));
    switch(&mut retailer, true);
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 1);
    switch(&mut retailer, false);
    let all = of_pairs(1, true) + &format!("{z}\n{}\n", card("Y", &phone(9), 2025));
    retailer.write("pos.csv", &all);
    retailer.once();
    merge_pair(&retailer, 0);
    switch(&mut retailer, true);
    retailer.write("pos.csv", &all);
    let report = retailer.once();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 2, "{report:#}");
    assert_eq!(handed_out(&retailer).len(), 1, "the channel takes no more on this day");
    retailer
}

/// The states of the campaign's tasks for a number.
fn states(retailer: &Retailer, at: usize) -> Value {
    let explained = retailer.json(&["explain", &phone(at)]);
    explained["members"][0]["tasks"].as_array().expect("tasks").iter().map(|task| json!([task["state"], task["code"]])).collect()
}

#[test]
fn a_suppression_of_another_number_takes_open_tasks_back_at_once() {
    let retailer = open_task_of_a_pair();
    assert_eq!(states(&retailer, 1), json!([["planned", null]]));
    let done = retailer.json(&["suppress", "add", &phone(0), "--reason", "wrong_number"]);
    assert_eq!(done["tasks_taken_back"], 0);
    let done = retailer.json(&["suppress", "add", &phone(0), "--reason", "asked"]);
    assert_eq!(done["tasks_taken_back"], 1, "{done:#}");
    assert_eq!(states(&retailer, 1), json!([["refused", "suppressed"]]));
    assert_eq!(states(&retailer, 9), json!([["planned", null]]));
}

#[test]
fn a_channel_that_hears_of_another_number_ends_the_open_task_before_it_is_sent() {
    use reunion_generations::{StateDir, open_or_create_keys};
    use reunion_integration_tests::harness::KEY;
    use reunion_keys::MasterKey;
    use reunion_ledger::{Ledger, Location, NewSuppression};
    use reunion_model::Phone;
    let mut retailer = open_task_of_a_pair();
    // As the outbox of the daemon stores what a channel was told.
    let state = StateDir::create(retailer.path("state")).expect("the state");
    let keys = open_or_create_keys(&state, &MasterKey::from_hex(KEY).expect("a key")).expect("its keys");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let ledger = Ledger::open(&Location::Sqlite(retailer.path("state/ledger.sqlite")), keys.into()).await.expect("the ledger");
        let told = NewSuppression {
            phone: Phone::from_china_mobile(phone(0).parse().expect("digits")),
            reason: "do_not_call".into(),
            source: "store-list".into(),
            since_us: 0,
            until_us: None,
            set_by: "channel store-list".into(),
        };
        assert!(ledger.suppress(&told).await.expect("stored"));
        ledger.close().await;
    });
    retailer.edit_config("per_day_max = 1\n", "");
    let mut daemon = retailer.spawn(&["run"]);
    // The ledger is asked, since a list may be half written.
    let is_sent = || states(&retailer, 9)[0][0] == "accepted";
    (0..200).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        is_sent()
    });
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &daemon.id().to_string()]);
    end(kill).exits(0);
    daemon.wait().expect("it ends");
    assert_eq!(handed_out(&retailer), [(8, 1), (9, 1)].map(|(at, times)| (phone(at), times)).into());
    assert_eq!(states(&retailer, 1), json!([["refused", "suppressed"]]));
}

/// The export of numbers that were another person's: who had them, who has them since, and the former holders' cards
/// with a later number, `100 + n`, as far as they are asked for.
fn of_recycled(count: usize, [former, present, later]: [bool; 3]) -> String {
    let card = |id: &str, phone: &str, name: &str, times: [&str; 3], unionid: &str| {
        let [created, updated, ordered] = times.map(|day| format!("{day}T03:04:05Z"));
        format!("{id},{phone},{name},S1,{created},{updated},{ordered},2,300.00,{unionid}\n")
    };
    let rows = (0..count).flat_map(|at| {
        let unionid = format!("u{at}");
        let [had, has, moved] = ["A", "B", "C"].map(|kind| format!("{kind}{at}"));
        [
            (former, card(&had, &phone(at), "张三", ["2023-01-02", "2025-01-02", "2025-01-02"], &unionid)),
            (present, card(&has, &phone(at), "李四", ["2026-01-20", "2026-02-01", "2026-02-01"], "")),
            (later, card(&moved, &phone(100 + at), "张三", ["2024-01-02", "2025-01-03", "2025-01-02"], &unionid)),
        ]
    });
    format!("{HEADER},unionid\n{}", rows.filter(|(wanted, _)| *wanted).map(|(_, row)| row).collect::<String>())
}

#[test]
fn who_gets_a_number_that_was_another_persons_is_drawn_anew() {
    const NUMBERS: usize = 12;
    let mut retailer = Retailer::by_hand(&of_recycled(NUMBERS, [true, false, false]));
    retailer.edit_config("[tags.dormant]", "[identity]\nkeys = [\"phone\", \"unionid\"]\n\n[tags.dormant]");
    retailer.edit_config("holdout = 0.0", "holdout = 0.5\ntouches_max = 9\ngap_days = 7\nper_store_per_day_max = 1000");
    // Of numbers from the one given on, those that a run left out, though all are in the audience.
    let mut run = |kinds: [bool; 3], holdout: [&str; 2]| {
        retailer.pass_days(40);
        retailer.write("pos.csv", &of_recycled(NUMBERS, kinds));
        retailer.touch("pos.csv");
        retailer.edit_config(&format!("holdout = {}", holdout[0]), &format!("holdout = {}", holdout[1]));
        let before = handed_out(&retailer);
        let report = retailer.once();
        assert_sums(&report);
        let after = handed_out(&retailer);
        let left_out = |from: usize| -> BTreeSet<usize> {
            (0..NUMBERS).filter(|at| before.get(&phone(from + at)) == after.get(&phone(from + at))).collect()
        };
        (left_out(0), left_out(100), report)
    };
    let (former, _, report) = run([true, false, false], ["0.5", "0.5"]);
    assert_eq!(count(&report, "/campaigns/warm-add/held_out"), former.len() as u64, "{report:#}");
    assert!((1..NUMBERS).contains(&former.len()), "{former:?}");
    let (present, _, report) = run([true, true, false], ["0.5", "0.5"]);
    assert_eq!(count(&report, "/sources/pos/quarantined/phone_recycled"), NUMBERS as u64, "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/held_out"), present.len() as u64);
    assert_ne!(present, former, "another person is drawn anew");
    // Nobody else is drawn: who was held out stays so, each for himself, the former holder at a later number too.
    let all = BTreeSet::from_iter(0..NUMBERS);
    let drawn = |from: usize, is: &BTreeSet<usize>| is.iter().map(|at| phone(from + at)).collect::<BTreeSet<_>>();
    for kinds in [[true, true, true], [false, true, true], [false, true, false]] {
        let holdout = if kinds[0] { ["0.5", "0.0"] } else { ["0.0", "0.0"] };
        let (at_number, at_later, report) = run(kinds, holdout);
        assert_eq!(drawn(0, &at_number), drawn(0, &present), "{kinds:?}: {report:#}");
        assert_eq!(drawn(100, &at_later), drawn(100, if kinds[2] { &former } else { &all }), "{kinds:?}: {report:#}");
    }
    // The number in common is explained.
    run([true, true, true], ["0.0", "0.0"]);
    let [was, is] = [100, 0].map(|at| retailer.json(&["explain", &phone(at)])["members"].clone());
    let is = is.as_array().and_then(|members| members.iter().find(|of| of["member_id"] != was[0]["member_id"])).expect("another member");
    let expected = json!({ "columns": ["phone"], "values": ["138****0000"], "why": "recycled", "member_id": is["member_id"], "count_there": 1,
        "config": "identity.shared_phone.recycled_after_days" });
    let mut found = was[0]["not_used"][0].clone();
    found.as_object_mut().expect("an entry").remove("rows");
    assert_eq!((found, &is["not_used"][0]["why"]), (expected, &json!("recycled")));
}
