//! The return folder: what clerks write into the column `result`, and what comes of it.

use std::collections::BTreeMap;

use reunion_integration_tests::harness::{Retailer, contents, count, export, row};
use serde_json::{Value, json};

const PHONES: [&str; 6] = ["13800138001", "13800138002", "13800138003", "13800138004", "13800138005", "13800138006"];

/// Six members and their tasks, handed out in two lists; a second touch is allowed after a month.
fn handed_out() -> Retailer {
    let rows =
        PHONES.iter().enumerate().map(|(at, phone)| row(&format!("C{at}"), phone, &format!("名{at}"), if at < 3 { "S1" } else { "S2" }));
    let mut retailer = Retailer::by_hand(&export(rows));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\ntouches_max = 3\ngap_days = 30");
    assert_eq!(count(&retailer.once(), "/channels/store-list/sent"), 6);
    retailer
}

/// The ids of the tasks by the phone that each is for.
fn tasks(retailer: &Retailer) -> BTreeMap<String, String> {
    let lists = retailer.work_lists();
    lists.iter().flat_map(|list| &list.rows).map(|row| (row["phone"].clone(), row["task_id"].clone())).collect()
}

/// Puts a list into the return folder as a spreadsheet saves it: other columns, another order.
fn give_back(retailer: &Retailer, name: &str, rows: &[(&str, &str, &str)]) {
    let rows: String = rows.iter().map(|(task, result, note)| format!("{note},{result},{task}\r\n")).collect();
    std::fs::write(retailer.path("returned").join(name), format!("note,result,task_id\r\n{rows}")).expect("a file can be written");
}

fn states(retailer: &Retailer) -> BTreeMap<String, (String, Value)> {
    let rows = retailer.query("select task_id, state, outcome from tasks where touch = 1");
    rows.iter()
        .map(|row| {
            (
                row["task_id"].as_str().expect("an id").to_owned(),
                (row["state"].as_str().expect("a state").to_owned(), row["outcome"].clone()),
            )
        })
        .collect()
}

#[test]
fn results_become_links_suppressions_and_settled_tasks() {
    let mut retailer = handed_out();
    let ids = tasks(&retailer);
    let id = |at: usize| ids[PHONES[at]].as_str();
    give_back(
        &retailer,
        "s1.csv",
        &[
            (id(0), "added", "好"),
            (id(1), "Refused", ""),
            (id(2), "wrong number", "空号"),
            (id(3), "do_not_call", ""),
            (id(4), "", "later"),
        ],
    );
    let report = retailer.once();
    assert_eq!(count(&report, "/members/phone_only"), 5, "a member who was added is linked: {report:#}");
    let states = states(&retailer);
    for (at, state, outcome) in [
        (0, "delivered", json!("added")),
        (1, "delivered", json!("refused")),
        (2, "rejected", json!("wrong_number")),
        (3, "delivered", json!("do_not_call")),
        (4, "accepted", Value::Null),
        (5, "accepted", Value::Null),
    ] {
        assert_eq!(states[id(at)], (state.to_owned(), outcome), "{at}");
    }
    let suppressed = retailer.json(&["suppress", "ls"]);
    let reasons: Vec<_> = suppressed.as_array().expect("a list").iter().map(|entry| entry["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons.len(), 2, "{suppressed:#}");
    assert!(reasons.contains(&"wrong_number") && reasons.contains(&"do_not_call"), "{suppressed:#}");
    // The list lies there still, and is not read twice.
    let before = retailer.picture();
    retailer.once();
    assert_eq!(retailer.picture(), before);
    // A month later only those who may be are touched again.
    retailer.pass_days(40);
    retailer.touch("pos.csv");
    let later = retailer.once();
    assert_eq!(count(&later, "/campaigns/warm-add/audience"), 5, "who is linked is no more in the audience: {later:#}");
    assert_eq!(later["campaigns"]["warm-add"]["refused"], json!({ "suppressed": 3 }), "{later:#}");
    assert_eq!(count(&later, "/campaigns/warm-add/planned"), 2);
    let explained = retailer.run(&["explain", PHONES[0]]).exits(0).stdout;
    assert!(explained.contains("linked in store-list"), "{explained}");
    let explained = retailer.run(&["explain", PHONES[3]]).exits(0).stdout;
    assert!(explained.contains("by channel store-list (store-list): do_not_call"), "{explained}");
    let explained = retailer.run(&["explain", PHONES[1]]).exits(0).stdout;
    assert!(explained.contains("no task of warm-add: suppressed"), "{explained}");
}

#[test]
fn a_list_may_be_saved_again_and_grow() {
    let retailer = handed_out();
    let ids = tasks(&retailer);
    give_back(&retailer, "list.csv", &[(&ids[PHONES[0]], "added", "")]);
    retailer.once();
    give_back(&retailer, "list.csv", &[(&ids[PHONES[0]], "added", ""), (&ids[PHONES[1]], "added", "")]);
    let report = retailer.once();
    assert_eq!(count(&report, "/members/phone_only"), 4);
    // The work list itself, filled in by a spreadsheet in its own encoding.
    let list = retailer.work_lists().into_iter().find(|list| list.place.starts_with("S2/")).expect("a list of S2");
    let text = String::from_utf8(std::fs::read(&list.path).expect("it is there")).expect("UTF-8");
    let filled: String = text.trim_start_matches('\u{feff}').replace(",,\r\n", ",added,谢谢\r\n");
    std::fs::write(retailer.path("returned/S2.csv"), encoding_rs::GB18030.encode(&filled).0).expect("a file can be written");
    let report = retailer.once();
    assert_eq!(count(&report, "/members/phone_only"), 1, "{report:#}");
}

#[test]
fn rows_that_fit_no_task_are_reported() {
    let retailer = handed_out();
    let ids = tasks(&retailer);
    let stranger = "00112233445566778899aabbccddeeff";
    give_back(
        &retailer,
        "a.csv",
        &[(stranger, "added", ""), ("13800138002", "added", ""), (&ids[PHONES[0]], "perhaps", ""), (&ids[PHONES[1]], "added", "")],
    );
    std::fs::write(retailer.path("returned/photo.jpg"), b"\xff\xd8\xff\xe0").expect("a file can be written");
    let lists = contents(&retailer.path("returned"));
    let report = retailer.once();
    let notes: Vec<&str> = report["notes"].as_array().expect("notes").iter().filter_map(Value::as_str).collect();
    for part in [
        format!("task {stranger} was returned, and there is no such task"),
        "a.csv:3".to_owned(),
        "a.csv:4".to_owned(),
        "photo.jpg".to_owned(),
    ] {
        assert!(notes.iter().any(|note| note.contains(&part)), "{part:?} is not in {notes:#?}");
    }
    // The good row beside them counts.
    assert_eq!(count(&report, "/members/phone_only"), 5);
    assert_eq!(contents(&retailer.path("returned")), lists, "returned lists are left alone");
}

#[test]
fn a_return_folder_that_is_gone_stops_nothing() {
    let mut retailer = handed_out();
    std::fs::remove_dir(retailer.path("returned")).expect("it is empty");
    retailer.write("pos.csv", &export([row("C9", "13800138009", "新", "S1")]));
    let report = retailer.once();
    assert_eq!(count(&report, "/channels/store-list/sent"), 1);
    let notes = report["notes"].to_string();
    assert!(notes.contains("return folder cannot be read"), "{notes}");
}
