//! Gates, control group and opt-outs from end to end: who gets a task, who does not, and why.

use std::collections::BTreeSet;

use reunion_integration_tests::harness::{HEADER, Retailer, assert_sums, count, export, listed_ids, row};
use serde_json::{Value, json};

fn phone(at: usize) -> String {
    format!("1380013{at:04}")
}

fn rows(count: usize) -> Vec<String> {
    (0..count).map(|at| row(&format!("C{at:04}"), &phone(at), "名", "S1")).collect()
}

/// The gate that stopped each member in the last run, by record id.
fn decision(retailer: &Retailer, who: &str) -> Value {
    let explained = retailer.json(&["explain", who]);
    explained["members"][0]["decisions"][0]["decision"].clone()
}

#[test]
fn consent_is_asked_where_the_channel_needs_it() {
    let header = format!("{HEADER},sms_consent,sms_consent_at,sms_consent_evidence\n");
    let consents = [
        ("granted,2025-05-01T00:00:00Z,form-1", true),
        ("granted,2025-05-01T00:00:00Z,", false),
        ("granted,,form-3", true),
        ("withdrawn,2025-05-01T00:00:00Z,", false),
        ("unknown,,", false),
        (",,", false),
    ];
    let text: String = consents.iter().enumerate().map(|(at, (cells, _))| format!("{},{cells}\n", rows(10)[at])).collect();
    // Two cards of one member: the later withdrawal beats the grant, and an undated one beats all.
    let more = [
        (6, "granted,2025-05-01T00:00:00Z,form-6"),
        (6, "withdrawn,2025-06-01T00:00:00Z,"),
        (7, "granted,2025-06-01T00:00:00Z,form-7"),
        (7, "withdrawn,2025-05-01T00:00:00Z,"),
        (8, "granted,2026-06-01T00:00:00Z,form-8"),
        (8, "withdrawn,,"),
    ];
    let cards: String = more
        .iter()
        .enumerate()
        .map(|(at, (who, cells))| format!("{},{cells}\n", row(&format!("D{at}"), &phone(*who), "名", "S1")))
        .collect();
    let mut retailer = Retailer::by_hand(&format!("{header}{text}{cards}"));
    retailer.edit_config("return_dir = \"returned\"\n", "consent = \"sms\"\n");
    let report = retailer.once();
    assert_sums(&report);
    assert_eq!(count(&report, "/campaigns/warm-add/audience"), 9);
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "no_consent": 6 }), "{report:#}");
    let listed: BTreeSet<String> = retailer.work_lists().into_iter().flat_map(|list| list.rows).map(|row| row["phone"].clone()).collect();
    assert_eq!(listed, BTreeSet::from([phone(0), phone(2), phone(7)]));
    assert_eq!(decision(&retailer, &phone(8)), "no_consent");
    // Who withdraws afterwards is not contacted by the next campaign.
    let text = format!("{header}{text}{cards}")
        .replace("form-1", "")
        .replace("granted,2025-05-01T00:00:00Z,\n", "withdrawn,2026-01-01T00:00:00Z,\n");
    retailer.write("pos.csv", &text);
    retailer.once();
    assert_eq!(
        retailer.query("select sms_consent from members where record_count = 1 and phone = '8613800130000'"),
        [json!({ "sms_consent": "withdrawn" })]
    );
}

#[test]
fn the_control_group_is_drawn_once_and_never_contacted() {
    let mut retailer = Retailer::by_hand(&export(rows(400)));
    retailer.edit_config("holdout = 0.0", "holdout = 0.25\ntouches_max = 2\ngap_days = 7\nper_store_per_day_max = 1000");
    let report = retailer.once();
    let held_out = count(&report, "/campaigns/warm-add/held_out");
    assert!((60..140).contains(&held_out), "{held_out} of 400 at a quarter");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 400 - held_out);
    let listed = |retailer: &Retailer| -> BTreeSet<String> {
        retailer.work_lists().into_iter().flat_map(|list| list.rows).map(|row| row["phone"].clone()).collect()
    };
    let treated = listed(&retailer);
    let control = (0..400).map(phone).find(|phone| !treated.contains(phone)).expect("somebody is held out");
    let explained = retailer.run(&["explain", &control]).exits(0).stdout;
    assert!(explained.contains("control group"), "{explained}");
    // The second touch goes to the same people, although the share in the config is another one now.
    retailer.edit_config("holdout = 0.25", "holdout = 0.0");
    retailer.pass_days(8);
    retailer.touch("pos.csv");
    let second = retailer.once();
    assert_eq!(count(&second, "/campaigns/warm-add/held_out"), held_out);
    assert_eq!(count(&second, "/campaigns/warm-add/planned"), 400 - held_out);
    assert_eq!(listed(&retailer), treated);
}

#[test]
fn touches_keep_their_distance_and_their_number() {
    let mut retailer = Retailer::by_hand(&export(rows(3)));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\ntouches_max = 2\ngap_days = 7");
    let mut planned = Vec::new();
    for days in [0, 6, 1, 7, 30] {
        retailer.pass_days(days);
        retailer.touch("pos.csv");
        let report = retailer.once();
        let campaign = &report["campaigns"]["warm-add"];
        planned.push((campaign["planned"].clone(), campaign["refused"].clone(), campaign["deferred"].clone()));
    }
    let expected = [
        (json!(3), json!({}), json!({})),
        (json!(0), json!({}), json!({ "gap": 3 })),
        (json!(3), json!({}), json!({})),
        (json!(0), json!({ "touches_max": 3 }), json!({})),
        (json!(0), json!({ "touches_max": 3 }), json!({})),
    ];
    assert_eq!(planned, expected);
    assert_eq!(listed_ids(&retailer.work_lists()).len(), 6);
}

#[test]
fn nobody_is_contacted_on_stale_data() {
    let mut retailer = Retailer::by_hand(&export(rows(3)));
    // The export is an hour old; two days later it is too old, and a fresh one will do.
    retailer.pass_days(2);
    let report = retailer.once();
    assert_eq!(report["campaigns"]["warm-add"]["deferred"], json!({ "stale": 3 }), "{report:#}");
    assert!(retailer.work_lists().is_empty());
    assert_eq!(decision(&retailer, &phone(0)), "stale");
    retailer.touch("pos.csv");
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 3);
}

#[test]
fn suppressed_phones_are_left_alone() {
    let mut retailer = Retailer::by_hand(&export(rows(3)));
    // Before there is anything at all.
    let added = retailer.json(&["suppress", "add", &phone(0), "--reason", "asked"]);
    assert_eq!((&added["added"], &added["phone"]), (&json!(true), &json!("138****0000")));
    assert_eq!(retailer.json(&["suppress", "add", &phone(0), "--reason", "asked"])["added"], false);
    let report = retailer.once();
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "suppressed": 1 }));
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 2);
    let list = retailer.json(&["suppress", "ls"]);
    assert_eq!((&list[0]["phone"], &list[0]["reason"], &list[0]["source"]), (&json!("138****0000"), &json!("asked"), &json!("operator")));
    // Lifted, the member gets the task; however the number is written.
    assert_eq!(retailer.json(&["suppress", "rm", "+86 138-0013-0000"])["lifted"], 1);
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 1);
    // What the source says counts too.
    retailer.write("pos.csv", &format!("{HEADER},do_not_contact\n{},true\n{},false\n", rows(5)[3], rows(5)[4]));
    let report = retailer.once();
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "suppressed": 1 }), "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1);
    retailer.run(&["suppress", "add", "1381234"]).exits(2).says(&["fewer than 11 digits"]);
}

#[test]
fn stores_are_not_flooded_and_the_best_come_first() {
    let rows = (0..30).map(|at| {
        row(&format!("C{at}"), &phone(at), "名", if at % 3 == 0 { "S2" } else { "S1" }).replace("300.00", &format!("{}.00", 100 + at))
    });
    let mut retailer = Retailer::by_hand(&export(rows));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nper_store_per_day_max = 4");
    let report = retailer.once();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 8);
    assert_eq!(report["campaigns"]["warm-add"]["deferred"], json!({ "per_store_per_day_max": 22 }));
    let lists = retailer.work_lists();
    let phones = |store: &str| -> BTreeSet<String> {
        let of_store = lists.iter().filter(|list| list.place.starts_with(store));
        of_store.flat_map(|list| &list.rows).map(|row| row["phone"].clone()).collect()
    };
    assert_eq!(phones("S2"), BTreeSet::from([18, 21, 24, 27].map(phone)));
    assert_eq!(phones("S1"), BTreeSet::from([25, 26, 28, 29].map(phone)));
    // The same day again: nothing. The next day: as many again.
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 0);
    retailer.pass_days(1);
    retailer.touch("pos.csv");
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 8);
}

#[test]
fn a_window_that_is_closed_defers() {
    let mut retailer = Retailer::by_hand(&export(rows(2)));
    // The run's clock is 22:13 on a Monday in Shanghai.
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nwindow = { from = \"09:00\", to = \"21:00\" }");
    let report = retailer.once();
    assert_eq!(report["campaigns"]["warm-add"]["deferred"], json!({ "window": 2 }), "{report:#}");
    retailer.now_secs += 12 * 3_600;
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 2);
}

#[test]
fn one_phone_is_touched_once_though_two_members_share_it() {
    let rows = [row("1", &phone(1), "父", "S1"), row("2", &phone(1), "子", "S1"), row("3", &phone(2), "名", "S1")];
    let mut retailer = Retailer::by_hand(&export(rows));
    retailer.edit_config("[tags.dormant]", "[identity.shared_phone]\npolicy = \"household\"\n\n[tags.dormant]");
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 3);
    assert_eq!(report["campaigns"]["warm-add"]["refused"], json!({ "same_contact": 1 }), "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 2);
}

#[test]
fn who_lacks_what_the_list_needs_waits() {
    let rows = [row("1", &phone(1), "甲", ""), row("2", &phone(2), "", "S1"), row("3", &phone(3), "丙", "S1")];
    let mut retailer = Retailer::by_hand(&export(rows));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nmessage = \"{{ name }}您好\"");
    let report = retailer.once();
    assert_eq!(report["campaigns"]["warm-add"]["deferred"], json!({ "incomplete": 2 }), "{report:#}");
    let lists = retailer.work_lists();
    assert_eq!(lists.iter().flat_map(|list| &list.rows).map(|row| row["message"].as_str()).collect::<Vec<_>>(), ["丙您好"]);
}

#[test]
fn a_campaign_that_is_off_plans_nothing() {
    let mut retailer = Retailer::by_hand(&export(rows(2)));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nenabled = false");
    let report = retailer.once();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0);
    assert!(report["notes"].to_string().contains("campaign warm-add is off"), "{report:#}");
    retailer.edit_config("enabled = false", "enabled = true");
    assert_eq!(count(&retailer.once(), "/campaigns/warm-add/planned"), 2);
}

#[test]
fn on_a_merge_the_control_group_wins() {
    // Forty people with two cards each, on two numbers, whom nothing ties together yet.
    let header = format!("{HEADER},unionid\n");
    let card = |who: usize, card: usize, unionid: &str| {
        format!("{},{unionid}\n", row(&format!("C{who}-{card}"), &phone(who * 2 + card), "名", "S1"))
    };
    let export = |tied: bool| -> String {
        let rows = (0..80).map(|at| card(at / 2, at % 2, &if tied { format!("u{}", at / 2) } else { String::new() }));
        format!("{header}{}", rows.collect::<String>())
    };
    let mut retailer = Retailer::by_hand(&export(false));
    retailer.edit_config("[tags.dormant]", "[identity]\nkeys = [\"phone\", \"unionid\"]\n\n[tags.dormant]");
    // Two numbers are two touches of the person, as it will turn out.
    retailer.edit_config("holdout = 0.0", "holdout = 0.4\ntouches_max = 3\ngap_days = 7\nper_store_per_day_max = 1000");
    retailer.once();
    let touched = |retailer: &Retailer, touch: u64| -> BTreeSet<String> {
        let ids = retailer.query(&format!("select task_id from tasks where touch = {touch}"));
        let ids: BTreeSet<&str> = ids.iter().filter_map(|row| row["task_id"].as_str()).collect();
        let rows = retailer.work_lists().into_iter().flat_map(|list| list.rows);
        rows.filter(|row| ids.contains(row["task_id"].as_str())).map(|row| row["phone"].clone()).collect()
    };
    let first = touched(&retailer, 1);
    let control = |who: usize| [0, 1].iter().any(|card| !first.contains(&phone(who * 2 + card)));
    let in_control = (0..40).filter(|who| control(*who)).count() as u64;
    assert!((10..38).contains(&in_control), "{in_control} of 40 have a number in the control group");
    retailer.pass_days(8);
    retailer.write("pos.csv", &export(true));
    let report = retailer.once();
    assert_eq!((count(&report, "/members/merged"), count(&report, "/members/total")), (40, 40));
    assert_eq!(count(&report, "/campaigns/warm-add/held_out"), in_control, "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 40 - in_control);
    let second = touched(&retailer, 2);
    assert!((0..40).filter(|who| control(*who)).all(|who| [0, 1].iter().all(|card| !second.contains(&phone(who * 2 + card)))));
}
