//! The commands beside `plan` and `once`, on states that runs have made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use reunion_integration_tests::harness::{HEADER, KEY, Retailer, binary, contents, count, end, export, row};
use reunion_model::Reason;
use serde_json::{Value, json};

fn two() -> Retailer {
    Retailer::by_hand(&export([row("C1", "13800138001", "甲", "S1"), row("C2", "13800138002", "乙", "S2")]))
}

#[test]
fn every_reason_for_quarantine_is_counted_and_explained() {
    let cells = [
        ("", Reason::PhoneMissing),
        ("1381234", Reason::PhoneTooShort),
        ("138123456789", Reason::PhoneTooLong),
        ("021-64331234", Reason::PhoneLandline),
        ("400-800-8888", Reason::PhoneService),
        ("138****1234", Reason::PhoneMasked),
        ("13912345678-1234", Reason::PhoneRelay),
        ("13912345678/13812345678", Reason::PhoneMultiple),
        ("1.38E+10", Reason::PhoneScientific),
        ("12012345678", Reason::PhoneNotMobile),
        ("13800000000", Reason::PhonePlaceholder),
        ("13977777777", Reason::PhoneRepeated),
        ("无", Reason::PhoneInvalid),
    ];
    let rows =
        cells.iter().enumerate().flat_map(|(at, (cell, _))| (0..=at % 3).map(move |copy| row(&format!("C{at}-{copy}"), cell, "名", "S1")));
    let shared = (0..6).map(|at| row(&format!("D{at}"), "13800138009", &format!("顾客{at}"), "S1"));
    let retailer = Retailer::by_hand(&export(rows.chain(shared)));
    let report = retailer.once();
    let mut expected: BTreeMap<&str, usize> = cells.iter().enumerate().map(|(at, (_, reason))| (reason.code(), at % 3 + 1)).collect();
    expected.insert("shared_phone", 6);
    assert_eq!(report["sources"]["pos"]["quarantined"], json!(expected));
    for (cell, reason) in cells {
        let explained = retailer.run(&["explain", cell]);
        let said = format!("{}{}", explained.stdout, explained.stderr);
        assert!(said.contains(reason.explain()), "{}: {said}", reason.code());
    }
    let explained = retailer.run(&["explain", "13800138009"]).exits(0);
    assert!(explained.stdout.contains(Reason::SharedPhone.explain()), "{}", explained.stdout);
    assert_eq!(explained.stdout.matches("row D").count(), 6, "{}", explained.stdout);
}

#[test]
fn explain_tells_where_each_value_comes_from() {
    let old = row("C1", "13800138001", "王老", "S1");
    let new = row("C2", "+86 138-0013-8001", "王新", "S2")
        .replace("2025-01-02T03:04:05Z,2,300.00", "2025-03-04T05:06:07Z,1,50.50")
        .replacen("2025-01-02T03:04:05Z", "2025-03-04T05:06:07Z", 1);
    let retailer = Retailer::by_hand(&export([old, new, row("C3", "13800138003", "丙", "S1")]));
    retailer.once();
    let explained = retailer.json(&["explain", "13800138001"]);
    assert_eq!(explained["records"].as_array().map(Vec::len), Some(2), "{explained:#}");
    let member = &explained["members"][0];
    let columns: BTreeMap<&str, &Value> =
        member["columns"].as_array().expect("columns").iter().map(|column| (column["column"].as_str().expect("a name"), column)).collect();
    assert_eq!(columns["store"]["value"], "S2");
    assert_eq!(columns["store"]["rule"], "most_recent");
    assert_eq!(columns["store"]["from"], json!([{ "source": "pos", "record_id": "C2", "updated_at": "2025-03-04T05:06:07Z" }]));
    assert_eq!(columns["total_spent"]["value"].as_str().map(|value| value.trim_end_matches('0')), Some("350.5"));
    assert_eq!(columns["total_spent"]["from"].as_array().map(Vec::len), Some(2));
    assert_ne!(columns["name"]["value"], "王新", "names are masked");
    assert_eq!(member["tags"][0]["tag"], "dormant");
    assert_eq!(member["tasks"][0]["state"], "accepted");
    let id = member["member_id"].as_str().expect("an id").to_owned();
    let by_id = retailer.json(&["explain", &id]);
    assert_eq!(by_id["members"], explained["members"]);
    let text = retailer.run(&["explain", "13800138001"]).exits(0).stdout;
    for part in ["row C1 of pos", "row C2 of pos", "total_spent", "tag dormant since", "task "] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let nobody = retailer.run(&["explain", "13800138999"]).exits(0).stdout;
    assert!(nobody.contains("no row of any source has it"), "{nobody}");
}

#[test]
fn explain_says_why_a_key_in_common_joins_nobody() {
    let header = format!("{HEADER},unionid,card_no\n");
    let phone = |at: usize| format!("1380013800{at}");
    let card = |at: usize, unionid: &str, card: &str| format!("{},{unionid},{card}\n", row(&format!("C{at}"), &phone(at), "甲", "S1"));
    // A card of the till's on three rows, one that is blocked on two, and a unionid of two people with other cards.
    let rows = [
        card(1, "u1", "88001"),
        card(2, "u1", "88002"),
        card(3, "", "99"),
        card(4, "", "99"),
        card(5, "", "7"),
        card(6, "", "7"),
        card(7, "", "7"),
    ];
    let mut retailer = Retailer::by_hand(&format!("{header}{}", rows.concat()));
    let limits = "unionid = { values_max = 1 }\ncard_no = { records_max = 2, values_max = 1, blocked = [\"99\"] }";
    let identity = format!("[identity]\nkeys = [\"phone\", \"unionid\", \"card_no\"]\n[identity.limits]\n{limits}\n\n[tags.dormant]");
    retailer.edit_config("[tags.dormant]", &identity);
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 7, "{report:#}");
    let not_used = |retailer: &Retailer, at: usize| retailer.json(&["explain", &phone(at)])["members"][0]["not_used"].clone();
    let of = |at: usize| json!([{ "source": "pos", "record_id": format!("C{at}"), "updated_at": "2025-01-02T03:04:05Z" }]);
    let other = retailer.json(&["explain", &phone(2)])["members"][0]["member_id"].clone();
    assert_eq!(
        not_used(&retailer, 1),
        json!([{
            "columns": ["unionid"], "values": ["u****"], "rows": of(1), "why": "values_max", "column": "card_no", "count": 2, "max": 1,
            "config": "identity.limits.card_no.values_max", "member_id": other, "count_there": 1
        }])
    );
    let config = |key: &str| format!("identity.limits.card_no.{key}");
    assert_eq!(
        not_used(&retailer, 3),
        json!([{ "columns": ["card_no"], "values": ["9****"], "rows": of(3), "why": "blocked", "column": "card_no", "config": config("blocked") }])
    );
    assert_eq!(
        not_used(&retailer, 5),
        json!([{ "columns": ["card_no"], "values": ["****"], "rows": of(5), "why": "too_common", "column": "card_no", "count": 3, "max": 2,
            "config": config("records_max") }])
    );
    let text = retailer.run(&["explain", &phone(5)]).exits(0).stdout;
    assert!(text.contains("3 rows have it, and a value on more than 2 is nobody's ([identity.limits.card_no] records_max)"), "{text}");
    // The same three on one number: they are joined by the number, and not by the card.
    let rows = (1..4).map(|at| format!("{},,7\n", row(&format!("C{at}"), &phone(1), "甲", "S1"))).collect::<String>();
    retailer.write("pos.csv", &format!("{header}{rows}"));
    retailer.once();
    let member = retailer.json(&["explain", &phone(1)])["members"][0].clone();
    assert_eq!(
        (member["rows"][0]["joined_by"].as_array().map(Vec::len), member["not_used"][0]["why"].as_str()),
        (Some(1), Some("too_common"))
    );
    // What a run has not taken in yet is said to be so.
    assert_eq!(member["rules_changed"], false);
    retailer.edit_config("records_max = 2", "records_max = 50");
    let member = retailer.json(&["explain", &phone(1)])["members"][0].clone();
    assert_eq!((&member["rules_changed"], &member["not_used"]), (&json!(true), &json!([])));
    let text = retailer.run(&["explain", &phone(1)]).exits(0).stdout;
    assert!(text.contains("who is who was decided by other rules"), "{text}");
}

#[test]
fn a_member_who_was_merged_is_found_under_both_ids() {
    let header = format!("{HEADER},unionid\n");
    let [one, two] = [row("C1", "13800138001", "甲", "S1"), row("C2", "13800138002", "甲", "S1")];
    let mut retailer = Retailer::by_hand(&format!("{header}{one},\n{two},u2\n"));
    retailer.edit_config("[tags.dormant]", "[identity]\nkeys = [\"phone\", \"unionid\"]\n\n[tags.dormant]");
    retailer.once();
    let ids: Vec<String> = retailer
        .query("select member_id from records order by record_id")
        .iter()
        .map(|row| row["member_id"].as_str().expect("an id").to_owned())
        .collect();
    assert_ne!(ids[0], ids[1]);
    retailer.write("pos.csv", &format!("{header}{one},u2\n{two},u2\n"));
    let report = retailer.once();
    assert_eq!((count(&report, "/members/merged"), count(&report, "/members/total")), (1, 1));
    let stays = retailer.query("select distinct member_id from records")[0]["member_id"].as_str().expect("an id").to_owned();
    let gone = ids.iter().find(|id| **id != stays).expect("one of them");
    let explained = retailer.json(&["explain", gone]);
    assert_eq!(explained["forwarded_to"], json!(stays), "{explained:#}");
    // Split again: who leaves is somebody else, and never under an id that was given away.
    retailer.write("pos.csv", &format!("{header}{one},\n{two},u2\n"));
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 2);
    let after: Vec<_> =
        retailer.query("select member_id from members").iter().map(|row| row["member_id"].as_str().expect("an id").to_owned()).collect();
    assert!(after.contains(&stays) && !after.contains(gone), "{after:?}, {gone} was given away");
    // Nobody is greeted twice for it: a touch belongs to the phone.
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0);
}

#[test]
fn query_reads_and_never_writes() {
    let retailer = two();
    retailer.run(&["query", "select 1"]).exits(2).says(&["reunion once"]);
    retailer.once();
    let rows = retailer.query("select store, count(*) as members from members group by store order by store");
    assert_eq!(rows, [json!({ "store": "S1", "members": 1 }), json!({ "store": "S2", "members": 1 })]);
    assert_eq!(retailer.query("select count(*) as n from tasks t join touches u on t.task_id = u.task_id"), [json!({ "n": 2 })]);
    assert_eq!(
        retailer.query("select dormant, record_count from members where store = 'S1'"),
        [json!({ "dormant": true, "record_count": 1 })]
    );
    for sql in [
        "drop table members",
        "insert into members select * from members",
        "create table x as select 1",
        "copy members to '/tmp/x'",
        "select 1; select 2",
    ] {
        retailer.run(&["query", sql]).exits(2);
    }
    retailer.run(&["query", "select stoer from members"]).exits(2).says(&["stoer"]);
    let text = retailer.run(&["query", "select store, dormant from members order by store"]).exits(0).stdout;
    assert!(text.contains("S1") && text.contains("store"), "{text}");
}

#[test]
fn tasks_are_listed_shown_requeued_and_dropped() {
    let mut retailer = two();
    retailer.edit_config("[pipelines.daily]", "[limits]\ndrain_secs = 0\n[pipelines.daily]");
    // A file stands where the folder of the lists should be.
    fs::write(retailer.path("out"), "").expect("a file can be written");
    let report = retailer.once_with(&[]).exits(4).json();
    assert_eq!(count(&report, "/channels/store-list/unknown"), 2, "{report:#}");
    let listed = retailer.json(&["tasks", "ls", "--state", "unknown", "--campaign", "warm-add", "--channel", "store-list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed:#}");
    assert_eq!(retailer.json(&["tasks", "ls", "--state", "accepted"]), json!([]));
    assert_eq!(retailer.json(&["tasks", "ls", "--limit", "1"]).as_array().map(Vec::len), Some(1));
    let id = listed[0]["task_id"].as_str().expect("an id").to_owned();
    let shown = retailer.json(&["tasks", "show", &id]);
    assert!(shown["phone"].as_str().is_some_and(|phone| phone.contains("****")), "{shown:#}");
    let states: Vec<&str> = shown["history"].as_array().expect("a history").iter().filter_map(|change| change["state"].as_str()).collect();
    assert_eq!(states, ["planned", "sending", "unknown"], "{shown:#}");
    retailer.run(&["tasks", "show", "00112233445566778899aabbccddeeff"]).exits(2).says(&["there is no task"]);
    // What may have been sent cannot be taken back.
    assert_eq!(retailer.json(&["tasks", "drop", &id])["cancelled"], 0);
    assert_eq!(retailer.json(&["suppress", "add", "13800138001"])["tasks_taken_back"], 0);
    retailer.json(&["suppress", "rm", "13800138001"]);
    fs::remove_file(retailer.path("out")).expect("it is there");
    let requeued = retailer.json(&["tasks", "requeue", "--state", "unknown"]);
    assert_eq!(requeued["unknown"], 2, "{requeued:#}");
    let report = retailer.once();
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0);
    let picture = retailer.picture();
    assert_eq!((picture.tasks.len(), picture.listed.len()), (2, 2));
    assert!(picture.tasks.iter().all(|task| task["state"] == "accepted"), "{:#?}", picture.tasks);
    assert_eq!(retailer.json(&["tasks", "requeue", "--state", "accepted"])["unknown"], 0);
}

#[test]
fn a_campaign_that_vanished_must_be_accounted_for() {
    let mut retailer = two();
    retailer.once();
    let before = retailer.picture();
    retailer.edit_config("[campaigns.warm-add]", "[campaigns.hello]");
    retailer.edit_config("campaigns = [\"warm-add\"]", "campaigns = [\"hello\"]");
    for command in ["once", "plan"] {
        let refused = retailer.run(&[command, "--now", &retailer.now()]).exits(3);
        refused.says(&["the campaign `warm-add`", "campaigns rename warm-add", "campaigns retire warm-add"]);
    }
    assert_eq!(retailer.picture(), before);
    retailer.run(&["campaigns", "rename", "warm-add", "helo"]).exits(2).says(&["helo"]);
    retailer.run(&["campaigns", "rename", "warm-ad", "hello"]).exits(2).says(&["warm-add"]);
    retailer.json(&["campaigns", "rename", "warm-add", "hello"]);
    // Nobody is greeted again under the new name.
    let report = retailer.once();
    assert_eq!(report["campaigns"]["hello"]["refused"], json!({ "touches_max": 2 }), "{report:#}");
    // Retired, it may leave; another one greets everybody anew.
    retailer.edit_config("[campaigns.hello]", "[campaigns.other]");
    retailer.edit_config("campaigns = [\"hello\"]", "campaigns = [\"other\"]");
    retailer.once_with(&[]).exits(3).says(&["the campaign `hello`"]);
    retailer.json(&["campaigns", "retire", "hello"]);
    assert_eq!(count(&retailer.once(), "/campaigns/other/planned"), 2);
}

#[test]
fn a_source_that_vanished_must_be_accounted_for() {
    let mut retailer = two();
    retailer.edit_config(
        "[tags.dormant]",
        "[sources.web]\nplugin = \"file\"\n[sources.web.with]\npath = \"web.csv\"\nsettle_secs = 0\n\n[tags.dormant]",
    );
    retailer.edit_config("sources = [\"pos\"]", "sources = [\"pos\", \"web\"]");
    retailer.write("web.csv", &export([row("W1", "13800138001", "甲", "S1"), row("W2", "13800138003", "丙", "S1")]));
    assert_eq!(count(&retailer.once(), "/members/total"), 3);
    let ids = |retailer: &Retailer| retailer.query("select member_id, phone from members order by member_id");
    let before = ids(&retailer);
    // Renamed: its rows, and with them the ids, stay.
    retailer.edit_config("[sources.web", "[sources.shop");
    retailer.edit_config("sources = [\"pos\", \"web\"]", "sources = [\"pos\", \"shop\"]");
    retailer.once_with(&[]).exits(3).says(&["the source `web`", "sources rename web", "sources retire web"]);
    retailer.json(&["sources", "rename", "web", "shop"]);
    let report = retailer.once();
    assert_eq!(count(&report, "/sources/shop/unchanged"), 2, "{report:#}");
    assert_eq!(ids(&retailer), before);
    assert_eq!(retailer.query("select distinct source from records where record_id = 'W1'"), [json!({ "source": "shop" })]);
    // Retired: its rows leave the members.
    retailer.edit_config("[sources.shop]\nplugin = \"file\"\n[sources.shop.with]\npath = \"web.csv\"\nsettle_secs = 0\n", "");
    retailer.edit_config("sources = [\"pos\", \"shop\"]", "sources = [\"pos\"]");
    retailer.once_with(&[]).exits(3).says(&["the source `shop`"]);
    retailer.json(&["sources", "retire", "shop"]);
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 2, "{report:#}");
    assert_eq!(retailer.query("select count(*) as n from records"), [json!({ "n": 2 })]);
    let again = retailer.once();
    assert_eq!(count(&again, "/members/total"), 2);
}

#[test]
fn keys_are_made_rotated_and_exported() {
    let key = end({
        let mut command = Command::new(binary());
        command.args(["key", "new"]);
        command
    });
    let key = key.exits(0).stdout;
    assert!(key.trim().len() == 64 && key.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    let mut retailer = two();
    let new_key = retailer.path("new.key");
    let new_key = new_key.to_str().expect("a path of ASCII");
    retailer.run(&["key", "new", "--output", new_key]).exits(0);
    assert_eq!(fs::metadata(new_key).expect("it is there").permissions().mode() & 0o777, 0o600);
    retailer.run(&["key", "new", "--output", new_key]).exits(1).says(&["must not be lost"]);
    retailer.once();
    let before = retailer.picture();
    let first = retailer.json(&["key", "export"]);
    assert_eq!((first["version"].clone(), first["key"].as_str().map(str::len)), (json!(1), Some(64)), "{first:#}");
    // A new data key: old files are read under the old one, ids stay.
    assert_eq!(retailer.json(&["key", "rotate"])["data_key_version"], 2);
    assert_eq!(retailer.picture(), before);
    retailer.write(
        "pos.csv",
        &export([row("C1", "13800138001", "甲", "S1"), row("C2", "13800138002", "乙", "S2"), row("C3", "13800138003", "丙", "S2")]),
    );
    assert_eq!(count(&retailer.once(), "/members/new"), 1);
    // A new master key: the old one opens nothing any more.
    retailer.json(&["key", "rotate", "--master", new_key]);
    retailer.run(&["status"]).exits(3).says(&["master key"]);
    retailer.edit_config("state.key", "new.key");
    let report = retailer.once();
    assert_eq!((count(&report, "/sources/pos/unchanged"), count(&report, "/campaigns/warm-add/planned")), (3, 0));
    let members = retailer.picture().members;
    assert!(before.members.iter().all(|member| members.contains(member)), "ids outlive the keys");
    assert_ne!(retailer.json(&["key", "export"])["key"], first["key"]);
    assert_eq!(retailer.json(&["key", "export", "--version", "1"])["key"], first["key"]);
    let all = retailer.json(&["key", "export"])["keys"].clone();
    let versions = all.as_array().map(|keys| keys.iter().map(|key| key["version"].clone()).collect::<Vec<_>>());
    assert_eq!(versions, Some(vec![json!(1), json!(2), json!(3)]));
    assert_eq!(all[0]["key"], first["key"]);
    let text = retailer.run(&["key", "export", "--encoding", "base64"]).exits(0);
    assert_eq!((text.stdout.trim().len(), &json!(text.stdout.trim())), (44, &all[2]["base64"]), "{}", text.stdout);
    text.says(&["--version 1 or 2"]);
    retailer.run(&["key", "export", "--version", "99"]).exits(2);
    assert!(!KEY.is_empty());
}

#[test]
fn after_a_rollback_a_run_comes_to_the_same() {
    let mut retailer = two();
    retailer.run(&["rollback"]).exits(2).says(&["no generation"]);
    retailer.once();
    let first = retailer.picture();
    retailer.run(&["rollback"]).exits(2).says(&["no such generation", "generation 1"]);
    retailer.write("pos.csv", &export([row("C2", "13800138002", "乙乙", "S2"), row("C3", "13800138003", "丙", "S2")]));
    let second_report = retailer.once();
    let second = retailer.picture();
    let back = retailer.json(&["rollback"]);
    assert_eq!((back["from"].clone(), back["to"].clone(), back["pulls_to_replay"].clone()), (json!(2), json!(1), json!(1)), "{back:#}");
    let head = retailer.picture();
    assert_eq!((&head.members, &head.records), (&first.members, &first.records));
    assert_eq!(head.tasks, second.tasks, "what was sent was sent");
    let again = retailer.once();
    assert_eq!(again["generation"], 3, "a number is never used again");
    assert_eq!(retailer.picture(), second);
    assert_eq!(again["members"]["total"], second_report["members"]["total"]);
    // Also where the file has gone on meanwhile, and to a generation that is named.
    retailer.json(&["rollback", "--to", "1"]);
    retailer.run(&["rollback", "--to", "77"]).exits(2).says(&["there is no such generation"]);
    retailer.write("pos.csv", &export([row("C3", "13800138003", "丙", "S2")]));
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 1);
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0, "nobody is greeted twice for a rollback");
}

#[test]
fn two_runs_at_once_and_a_clean_end() {
    let retailer = two();
    let mut daemon = retailer.spawn(&["run"]);
    let mut log = BufReader::new(daemon.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains("ready") {
        assert!(log.read_line(&mut said).expect("the log can be read") > 0, "it ended before it was ready\n{said}");
    }
    let pid = daemon.id().to_string();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host has a name");
    for args in [&["once"][..], &["rollback"], &["key", "rotate"], &["campaigns", "retire", "x"], &["run"]] {
        retailer.run(args).exits(3).says(&[&format!("process {pid} on {}, since 20", host.trim()), "another run"]);
    }
    // What only reads, and the plain transactions of the ledger, work beside it.
    assert_eq!(retailer.json(&["status"])["held_by"]["pid"].to_string(), pid);
    retailer.json(&["suppress", "add", "13800138001"]);
    retailer.json(&["tasks", "ls"]);
    retailer.plan();
    end({
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &pid]);
        kill
    })
    .exits(0);
    log.read_to_string(&mut said).expect("the log can be read");
    assert_eq!(daemon.wait().expect("it ends").code(), Some(0), "{said}");
    retailer.shows_no_phone(&said);
    retailer.once();
    assert_eq!(retailer.json(&["status"])["held_by"], Value::Null);
}

#[test]
fn status_check_verify_and_plugins() {
    let mut retailer = two();
    let status = retailer.run(&["status"]).exits(0).stdout;
    assert!(status.contains("reunion once"), "{status}");
    retailer.run(&["check"]).exits(0);
    let checked = retailer.json(&["check", "--connect"]);
    assert_eq!((checked["ok"].clone(), checked["connected"].clone()), (json!(true), json!(true)));
    assert!(!retailer.path("out").exists(), "a check changes nothing");
    retailer.once();
    let status = retailer.json(&["status"]);
    assert_eq!((status["generation"].clone(), status["runs"][0]["exit"].clone()), (json!(1), json!(0)), "{status:#}");
    assert_eq!(status["sources"][0]["source"], "pos");
    assert_eq!(status["tasks"][0]["tasks"], 2);
    assert!(status["plugins"].as_array().is_some_and(|plugins| plugins.iter().all(|plugin| plugin["ok"] == true)), "{status:#}");
    let verified = retailer.json(&["verify"]);
    assert_eq!((&verified["generation"], &verified["damages"], &verified["foreign"]), (&json!(1), &json!([]), &json!([])), "{verified:#}");
    let plugins = retailer.json(&["plugins", "ls"]);
    assert!(
        plugins.as_array().is_some_and(|plugins| plugins.iter().any(|plugin| plugin["name"] == "file" && plugin["kind"] == "channel")),
        "{plugins:#}"
    );
    let shown = retailer.run(&["plugins", "show", "file", "--kind", "source"]).exits(0).stdout;
    assert!(shown.contains("settle_secs"), "{shown}");
    retailer.run(&["plugins", "show", "fiel"]).exits(2).says(&["plugins ls"]);
    // Several pipelines to choose from, and one that is none.
    retailer.run(&["once", "--pipeline", "nightly"]).exits(2).says(&["there is no pipeline `nightly`", "daily"]);
    retailer.edit_config("[pipelines.daily]", "[pipelines.weekly]\nsources = [\"pos\"]\n[pipelines.daily]");
    retailer.once_with(&[]).exits(2).says(&["--pipeline", "daily", "weekly"]);
    retailer.once_with(&["--pipeline", "weekly"]).exits(0);
    retailer.once_with(&["--pipeline", "daily", "--accept", "till"]).exits(2).says(&["`till`"]);
}

#[test]
fn no_phone_is_shown_whatever_column_it_stands_in_and_however_much_is_logged() {
    let text = export([row("13800138001", "13800138001", "13800138001", "S1"), row("13800138002", "1380013800", "13800138002", "S1")]);
    let mut retailer = Retailer::by_hand(&text);
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nmessage = \"{{ name }}\"");
    retailer.edit_config("[pipelines.daily]", "[log]\nlevel = \"trace\"\n\n[pipelines.daily]");
    // A row without a header before it is an error of the source; it does not say what the row holds.
    retailer.write("pos.csv", text.split_once('\n').expect("a header").1);
    retailer.once_with(&[]).exits(4);
    retailer.write("pos.csv", &text);
    let once = retailer.once_with(&[]).exits(0);
    assert!(once.stderr.contains("TRACE") || once.stderr.contains("DEBUG"), "{}", once.stderr);
    let task = retailer.json(&["tasks", "ls"])[0]["task_id"].as_str().expect("an id").to_owned();
    let member = retailer.query("select member_id from members")[0]["member_id"].as_str().expect("an id").to_owned();
    fs::write(
        retailer.path("returned/a.csv"),
        format!("task_id,result,note\n{task},13800138001,13800138001\n{task},do_not_call,13800138001\n"),
    )
    .expect("a file can be written");
    retailer.once();
    // `run` and `json` search what is printed.
    for args in
        [&["plan"][..], &["status"], &["check", "--connect"], &["verify"], &["tasks", "ls"], &["tasks", "show", &task], &["suppress", "ls"]]
    {
        retailer.run(args).exits(0);
        retailer.json(args);
    }
    for who in ["13800138001", "1380013800", &member] {
        retailer.run(&["explain", who]);
        retailer.run(&["explain", who, "--format", "json"]);
    }
    retailer.run(&["query", "select cast(name as bigint) / 0 from members"]);
    retailer.run(&["query", "select 1 from members where phone = 13800138001 and"]);
    retailer.run(&["suppress", "add", "13800138001 13800138002"]).exits(2);
}

#[test]
fn two_runs_started_together_do_the_work_of_one() {
    let rows = (0..300).map(|at| row(&format!("C{at}"), &format!("1380013{at:04}"), "名", "S1"));
    let mut retailer = Retailer::by_hand(&export(rows));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nper_store_per_day_max = 1000");
    let now = retailer.now();
    let runs: Vec<_> = (0..3).map(|_| retailer.spawn(&["once", "--now", &now])).collect();
    let codes: Vec<_> = runs.into_iter().map(|run| run.wait_with_output().expect("it ends").status.code()).collect();
    assert!(codes.contains(&Some(0)) && codes.iter().all(|code| matches!(code, Some(0 | 3))), "{codes:?}");
    let picture = retailer.picture();
    assert_eq!((picture.members.len(), picture.tasks.len(), picture.listed.len()), (300, 300, 300));
}

#[test]
fn a_wrong_config_changes_nothing() {
    let mut retailer = two();
    retailer.once();
    let before = contents(&retailer.path("state/people"));
    for (from, to, said) in [
        ("audience = \"phone_only and dormant\"", "audience = \"phone_only and dormnat\"", "dormnat"),
        ("plugin = \"file\"", "plugin = \"fiel\"", "fiel"),
        ("holdout = 0.0", "holdout = 0.0\nmessage = \"{{ nmae }}\"", "nmae"),
        ("holdout = 0.0", "holdout = 2.0", "holdout"),
        ("settle_secs = 0", "setle_secs = 0", "setle_secs"),
    ] {
        retailer.edit_config(from, to);
        for args in [&["check", "--connect"][..], &["once"], &["plan"]] {
            retailer.run(args).exits(2).says(&[said, "reunion.toml:"]);
        }
        retailer.edit_config(to, from);
    }
    assert_eq!(contents(&retailer.path("state/people")), before);
    assert_eq!(retailer.json(&["status"])["generation"], 1);
}

#[test]
fn old_generations_go_and_what_is_kept_stays_whole() {
    let rows = |run: usize| {
        (0..40).map(move |at| row(&format!("C{at}"), &format!("1380013{:04}", at + run), &format!("名{}", at * run % 7), "S1"))
    };
    let mut retailer = Retailer::by_hand(&export(rows(0)));
    retailer.edit_config("dir = \"state\"\n", "dir = \"state\"\nkeep_generations = 2\n");
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nper_store_per_day_max = 1000");
    let mut pictures = Vec::new();
    for run in 0..9 {
        retailer.write("pos.csv", &export(rows(run)));
        if run == 4 {
            retailer.json(&["key", "rotate"]);
        }
        retailer.once();
        assert_eq!(retailer.json(&["verify"])["damages"], json!([]), "run {run}");
        pictures.push(retailer.picture());
    }
    let generations = fs::read_dir(retailer.path("state/people/generations")).expect("it is there").count();
    assert!((2..=4).contains(&generations), "{generations} generations are kept");
    // The one before is there for a rollback, and a run after it comes to where the last one was.
    let back = retailer.json(&["rollback"]);
    assert_eq!(back["to"], 8, "{back:#}");
    assert_eq!(retailer.picture().members, pictures[7].members);
    retailer.once();
    assert_eq!(retailer.picture(), pictures[8]);
    // The first is long gone, and is not gone back to.
    let gone = retailer.run(&["rollback", "--to", "1"]);
    assert!(matches!(gone.code, 2 | 3), "{gone:?}");
    assert!(gone.stderr.contains("help:"), "{}", gone.stderr);
    assert_eq!(retailer.picture(), pictures[8]);
    // Every phone was greeted once, whatever happened since.
    let mut phones: Vec<_> = pictures[8].listed.values().map(|(_, row)| row["phone"].clone()).collect();
    let count = phones.len();
    phones.sort();
    phones.dedup();
    assert_eq!((phones.len(), count), (48, 48));
}

#[test]
fn who_reads_is_not_disturbed_by_who_runs() {
    let rows =
        |run: usize| (0..200).map(move |at| row(&format!("C{at}"), &format!("1380013{at:04}"), &format!("名{}", at * run % 9), "S1"));
    let mut retailer = Retailer::by_hand(&export(rows(0)));
    retailer.edit_config("dir = \"state\"\n", "dir = \"state\"\nkeep_generations = 1\n");
    retailer.once();
    let running = AtomicBool::new(true);
    let read = |retailer: &Retailer| {
        // With an end of its own, for a test whose writer fails.
        for reads in 0..100 {
            if reads > 0 && !running.load(Ordering::Relaxed) {
                break;
            }
            assert_eq!(retailer.query("select count(*) as n from members"), [json!({ "n": 200 })]);
            retailer.run(&["explain", "13800130007"]).exits(0);
            retailer.plan();
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(|| read(&retailer)), scope.spawn(|| read(&retailer))];
        for run in 1..8 {
            retailer.write_bytes("pos.csv", export(rows(run)).as_bytes());
            retailer.once();
        }
        running.store(false, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("a reader was disturbed"));
    });
    assert_eq!(retailer.json(&["verify"])["damages"], json!([]));
}
