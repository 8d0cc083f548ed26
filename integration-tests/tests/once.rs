//! `once` on generated exports whose truth is known, and on rows made for one rule each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reunion_integration_tests::generator::{Encoding, Made, Plan, Truth, add_hard_cases, file, make};
use reunion_integration_tests::harness::{Picture, Retailer, assert_sums, contents, count, export, listed_ids, row, total};
use serde_json::{Value, json};

const PLAN: Plan = Plan { rows: 2_000, seed: 11, stores: 6, changed: 0.0, unreadable: false };
const SMALL: Plan = Plan { rows: 800, seed: 5, stores: 4, changed: 0.0, unreadable: false };

/// Fails unless every row with a defect is set aside for that defect, no other row is, and rows of one
/// person and of no other are one member.
#[track_caller]
fn assert_truth(picture: &Picture, truth: &[Truth]) {
    let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
    let records: HashMap<(String, String), &Value> =
        picture.records.iter().filter_map(|row| Some(((text(row, "source")?, text(row, "record_id")?), row))).collect();
    let mut members: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for of in truth {
        let found = records[&(of.source.to_owned(), of.record_id.clone())];
        match of.person {
            None => assert_eq!(text(found, "reason").as_deref(), Some(of.case), "{of:?}"),
            Some(person) => {
                assert_eq!(text(found, "reason"), None, "{of:?}");
                members.entry(person).or_default().insert(text(found, "member_id").expect("a good row has a member"));
            }
        }
    }
    let split: Vec<_> = members.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(split.is_empty(), "people who are several members: {split:?}");
    let distinct: BTreeSet<_> = members.values().flatten().collect();
    assert_eq!(distinct.len(), members.len(), "members who are several people");
}

fn persons(truth: &[Truth]) -> u64 {
    truth.iter().filter_map(|truth| truth.person).collect::<BTreeSet<_>>().len() as u64
}

fn quarantined(truth: &[Truth], source: &str) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for truth in truth.iter().filter(|truth| truth.source == source && truth.person.is_none()) {
        *counts.entry(truth.case).or_default() += 1;
    }
    counts
}

#[test]
fn the_sums_hold_and_the_truth_is_found() {
    let plan = Plan { rows: 5_000, stores: 12, unreadable: true, ..PLAN };
    let (mut retailer, mut made) = Retailer::generated(&plan);
    add_hard_cases(&mut made, &plan);
    retailer.write_exports(&made, true);
    let report = retailer.once();
    assert_sums(&report);
    for (at, source) in ["till", "shop"].into_iter().enumerate() {
        // Five rows are strewn in: three that cannot be read, and one good one.
        assert_eq!(count(&report, &format!("/sources/{source}/pulled")), made.exports[at].rows.len() as u64 + 4);
        let mut expected = quarantined(&made.truth, source);
        expected.extend([("row_ragged", 1), ("row_nul", 1), ("row_bad_encoding", 1)]);
        assert_eq!(report["sources"][source]["quarantined"], json!(expected), "{source}");
        assert_eq!(count(&report, &format!("/sources/{source}/changed")), 0);
    }
    // The good row among the unreadable ones stands in both exports.
    assert_eq!(count(&report, "/members/total"), persons(&made.truth) + 1);
    assert_eq!(report["members"]["new"], report["members"]["total"]);
    assert_eq!(report["members"]["phone_only"], report["members"]["total"]);
    assert_eq!(report["generation"], 1);
    assert_eq!(report["dry_run"], false);
    let picture = retailer.picture();
    assert_truth(&picture, &made.truth);
    assert_eq!(picture.members.len() as u64, count(&report, "/members/total"));
    let held: u64 = report["tags"].as_object().expect("tags").keys().map(|tag| count(&report, &format!("/tags/{tag}/members"))).sum();
    let tagged =
        picture.members.iter().map(|member| ["dormant", "key_member", "win_back"].iter().filter(|tag| member[**tag] == true).count());
    assert_eq!(held, tagged.sum::<usize>() as u64);
    assert_lists(&retailer, &report, &picture);
}

/// Fails unless each planned task was sent and stands in one work list of its store.
#[track_caller]
fn assert_lists(retailer: &Retailer, report: &Value, picture: &Picture) {
    let campaigns = report["campaigns"].as_object().expect("campaigns");
    let planned: u64 = campaigns.keys().map(|name| count(report, &format!("/campaigns/{name}/planned"))).sum();
    assert!(planned > 50, "{report:#}");
    assert_eq!(report["channels"]["store-list"], json!({ "sent": planned, "retrying": 0, "failed": 0, "unknown": 0 }));
    assert_eq!(picture.tasks.len() as u64, planned);
    assert_eq!(picture.listed.len() as u64, planned);
    let members: HashMap<&str, &Value> =
        picture.members.iter().map(|member| (member["member_id"].as_str().expect("an id"), member)).collect();
    for task in &picture.tasks {
        assert_eq!(task["state"], "accepted");
        let (place, row) = &picture.listed[task["task_id"].as_str().expect("an id")];
        let member = members[task["member_id"].as_str().expect("an id")];
        assert_eq!(place, &format!("{}/2026-09-21-RUN.csv", row["store"]));
        for column in ["store", "name"] {
            assert_eq!(member[column].as_str().unwrap_or_default(), row[column].trim_start_matches('\''), "{column}");
        }
        assert_eq!(member["phone"].as_str(), Some(format!("86{}", row["phone"]).as_str()));
        assert_eq!((row["result"].as_str(), row["note"].as_str()), ("", ""));
    }
    let mut phones: Vec<_> = picture.listed.values().map(|(_, row)| (&row["campaign"], &row["phone"])).collect();
    let count = phones.len();
    phones.sort();
    phones.dedup();
    assert_eq!(phones.len(), count, "a phone stands twice in the lists of one campaign");
    assert!(retailer.work_lists().iter().all(|list| !list.rows.is_empty()));
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let (retailer, made) = Retailer::generated(&PLAN);
    let first = retailer.once();
    let (picture, lists) = (retailer.picture(), contents(&retailer.path("out")));
    let second = retailer.once();
    assert_sums(&second);
    assert_eq!(second["generation"], 2);
    for (at, source) in ["till", "shop"].into_iter().enumerate() {
        let report = &second["sources"][source];
        assert_eq!(report["quarantined"], first["sources"][source]["quarantined"]);
        let set_aside = total(&second, &format!("/sources/{source}/quarantined"));
        assert_eq!(count(report, "/unchanged"), made.exports[at].rows.len() as u64 - set_aside);
        for key in ["new", "changed", "deleted", "requarantined", "released", "superseded"] {
            assert_eq!(count(report, &format!("/{key}")), 0, "{key}");
        }
    }
    let people =
        json!({ "total": first["members"]["total"], "new": 0, "changed": 0, "merged": 0, "phone_only": first["members"]["total"] });
    assert_eq!(second["members"], people);
    for campaign in ["warm-add", "key-members"] {
        assert_eq!(count(&second, &format!("/campaigns/{campaign}/planned")), 0);
        assert_eq!(second["campaigns"][campaign]["held_out"], first["campaigns"][campaign]["held_out"]);
        assert_eq!(second["campaigns"][campaign]["refused"]["touches_max"], first["campaigns"][campaign]["planned"]);
    }
    assert!(
        second["notes"]
            .as_array()
            .is_some_and(|notes| notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains("nothing changed"))))
    );
    assert_eq!(retailer.picture(), picture);
    assert_eq!(contents(&retailer.path("out")), lists);
}

#[test]
fn a_source_that_has_not_changed_is_not_read_again() {
    let (mut retailer, made) = Retailer::generated(&SMALL);
    let first = retailer.once();
    let as_before = |report: &Value| ["till", "shop"].map(|source| report["sources"][source]["as_before"] == true);
    assert_eq!(as_before(&first), [false, false]);
    let (picture, generations) = (retailer.picture(), contents(&retailer.path("state/people")));
    let mut sources = first["sources"].clone();
    for source in ["till", "shop"] {
        let (now, counts) = (&mut sources[source], &first["sources"][source]);
        now["unchanged"] = counts["new"].clone();
        now["new"] = 0.into();
        now["as_before"] = true.into();
    }
    let data_of = |retailer: &Retailer| retailer.json(&["status"])["sources"][0]["data_of"].as_str().map(str::to_owned);
    let written_at = data_of(&retailer);
    // A dry run finds out as well, and every run the same.
    assert_eq!(retailer.plan()["sources"], sources);
    for _ in 0..2 {
        retailer.pass_days(1);
        ["till.csv", "shop.csv"].iter().for_each(|name| retailer.touch(name));
        let again = retailer.once();
        assert_sums(&again);
        assert_eq!(again["sources"], sources);
    }
    assert_eq!(retailer.picture().records, picture.records);
    let written = contents(&retailer.path("state/people")).into_keys().filter(|path| !generations.contains_key(path));
    assert_eq!(written.filter(|path| path.components().any(|part| part.as_os_str() == "segments")).count(), 0, "no rows were written");
    let text = retailer.run(&["once", "--now", &retailer.now()]).exits(0).stdout;
    assert!(text.contains("\n  till has not changed since it was read last\n"), "{text}");
    assert!(data_of(&retailer) > written_at, "as fresh as its file");

    // Whoever wants it read gets it read.
    assert_eq!(as_before(&retailer.once_with(&["--sweep", "till"]).exits(0).json()), [false, true]);
    assert_eq!(as_before(&retailer.once()), [true, true]);
    // A generation without the last rows needs them again.
    retailer.run(&["rollback", "--to", "4"]).exits(0);
    assert_eq!(as_before(&retailer.once()), [false, true]);
    assert_eq!(as_before(&retailer.once()), [true, true]);
    // So does another way to read them.
    retailer.edit_config("name = \"姓名\"", "name = { from = \"姓名\", values = { \"无\" = \"无名\" } }");
    assert_eq!(as_before(&retailer.once()), [false, true]);
    assert_eq!(as_before(&retailer.once()), [true, true]);
    // And one row that is gone.
    let mut less = made;
    less.exports[1].rows.pop();
    retailer.write_exports(&less, false);
    let report = retailer.once();
    assert_eq!((as_before(&report), count(&report, "/sources/shop/deleted")), ([true, false], 1), "written anew as it was, and changed");
    assert_eq!(as_before(&retailer.once()), [true, true]);
}

#[test]
fn what_a_run_defers_the_next_ones_plan() {
    let (mut retailer, _) = Retailer::generated(&SMALL);
    retailer.edit_config("per_run_max = 100000", "per_run_max = 20");
    let mut seen = BTreeSet::new();
    let mut left = u64::MAX;
    for run in 0.. {
        let report = retailer.once();
        assert_sums(&report);
        let deferred = report["campaigns"]["warm-add"]["deferred"]["per_run_max"].as_u64().unwrap_or(0);
        let planned = count(&report, "/campaigns/warm-add/planned");
        if run > 0 {
            assert_eq!(planned + deferred, left, "nobody is lost between runs, and nobody joins");
        }
        let listed = listed_ids(&retailer.work_lists());
        assert!(listed.is_superset(&seen));
        (left, seen) = (deferred, listed);
        if deferred == 0 {
            assert!(run > 1, "the export is too small for this test");
            break;
        }
    }
    assert_eq!(retailer.picture().tasks.len(), seen.len());
}

/// How many rows differ between two exports of the same rows, without those that are set aside.
fn changed_rows(before: &Made, after: &Made, at: usize) -> u64 {
    let of_source = |truth: &&Truth| truth.source == before.exports[at].name;
    let rows = before.exports[at].rows.iter().zip(&after.exports[at].rows).zip(before.truth.iter().filter(of_source));
    rows.filter(|((before, after), truth)| before != after && truth.person.is_some()).count() as u64
}

#[test]
fn a_small_change_gives_what_a_fresh_state_gives() {
    let (mut retailer, before) = Retailer::generated(&PLAN);
    retailer.once();
    let after = make(&Plan { changed: 0.01, ..PLAN });
    retailer.write_exports(&after, false);
    let report = retailer.once();
    assert_sums(&report);
    for (at, source) in ["till", "shop"].into_iter().enumerate() {
        let changed = changed_rows(&before, &after, at);
        assert!(changed > 0);
        assert_eq!(count(&report, &format!("/sources/{source}/changed")), changed, "{source}");
        assert_eq!(count(&report, &format!("/sources/{source}/new")), 0);
        assert_eq!(count(&report, &format!("/sources/{source}/deleted")), 0);
    }
    let (fresh, _) = Retailer::generated(&Plan { changed: 0.01, ..PLAN });
    fresh.once();
    let (picture, expected) = (retailer.picture(), fresh.picture());
    assert_truth(&picture, &after.truth);
    assert_eq!(picture.members, expected.members);
    assert_eq!(picture.records, expected.records);
}

#[test]
fn rows_that_vanish_are_taken_out() {
    let (mut retailer, mut made) = Retailer::generated(&PLAN);
    let before = retailer.once();
    let gone = 60;
    // The first rows are one person each; the truth begins with those of the till.
    made.exports[0].rows.drain(..gone);
    made.truth.drain(..gone);
    let kept = made.exports[0].rows.len();
    retailer.write_exports(&made, false);
    let report = retailer.once();
    assert_sums(&report);
    assert_eq!(count(&report, "/sources/till/pulled"), kept as u64);
    assert_eq!(count(&report, "/sources/till/deleted"), gone as u64);
    assert_eq!(count(&report, "/sources/shop/deleted"), 0);
    assert!(count(&report, "/members/total") < count(&before, "/members/total"));
    let (mut fresh, _) = Retailer::generated(&PLAN);
    fresh.write_exports(&made, false);
    let expected = fresh.once();
    assert_eq!(report["members"]["total"], expected["members"]["total"]);
    let partition = |picture: &Picture| {
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in &picture.records {
            let member = record["member_id"].as_str().or(record["reason"].as_str()).unwrap_or_default();
            sets.entry(member.to_owned()).or_default().push(record["record_id"].to_string());
        }
        sets.into_values().collect::<BTreeSet<_>>()
    };
    assert_eq!(partition(&retailer.picture()), partition(&fresh.picture()));
}

/// Writes an export in some form.
type Write<'a> = &'a dyn Fn(&Retailer);

#[test]
fn the_form_of_an_export_does_not_matter() {
    let (retailer, made) = Retailer::generated(&SMALL);
    let report = retailer.once();
    let picture = retailer.picture();
    let [till, shop] = &made.exports;
    let utf8 = |retailer: &Retailer| retailer.write_bytes("till.csv", &file(till, Encoding::Utf8, false).expect("a file"));
    let bom = |retailer: &Retailer| {
        let text = file(shop, Encoding::Utf8, false).expect("a file");
        retailer.write_bytes("shop.csv", &[b"\xef\xbb\xbf", text.as_slice()].concat());
    };
    let gb18030 = |retailer: &Retailer| retailer.write_bytes("shop.csv", &file(shop, Encoding::Gb18030, false).expect("a file"));
    let rewritten = |reorder: &dyn Fn(&mut Vec<Vec<String>>)| {
        let mut rows: Vec<Vec<String>> = vec![shop.header.iter().map(|&name| name.to_owned()).collect()];
        rows.extend(shop.rows.iter().cloned());
        reorder(&mut rows);
        let mut writer = csv::Writer::from_writer(Vec::new());
        rows.iter().for_each(|row| writer.write_record(row).expect("a row"));
        writer.into_inner().expect("a file")
    };
    let columns_reversed = rewritten(&|rows| rows.iter_mut().for_each(|row| row.reverse()));
    let rows_reversed = rewritten(&|rows| rows[1..].reverse());
    let crlf = String::from_utf8(rewritten(&|_| ())).expect("text").replace('\n', "\r\n");
    let forms: [(&str, Write<'_>); 6] = [
        ("UTF-8 for GB18030", &utf8),
        ("a byte order mark", &bom),
        ("GB18030 for UTF-8", &gb18030),
        ("another order of columns", &|retailer| retailer.write_bytes("shop.csv", &columns_reversed)),
        ("another order of rows", &|retailer| retailer.write_bytes("shop.csv", &rows_reversed)),
        ("other line ends", &|retailer| retailer.write_bytes("shop.csv", crlf.as_bytes())),
    ];
    let (fresh, _) = Retailer::generated(&SMALL);
    for (form, write) in forms {
        // Over the committed state nothing is new …
        write(&retailer);
        let again = retailer.once();
        for source in ["till", "shop"] {
            let unchanged = count(&again, &format!("/sources/{source}/unchanged"));
            assert_eq!(unchanged, count(&report, &format!("/sources/{source}/new")), "{form}: {source}: {again:#}");
        }
        write(&fresh);
    }
    assert_eq!(retailer.picture(), picture);
    // … and a state that begins with all of them comes to the same.
    let anew = fresh.once();
    assert_eq!(anew["tasks_digest"], report["tasks_digest"]);
    assert_eq!(fresh.picture(), picture);
}

#[test]
fn columns_may_be_renamed_at_the_source() {
    let rows = [row("1", "13800138001", "甲", "S1"), row("2", "13800138002", "乙", "S1")];
    let mut retailer = Retailer::by_hand(&export(&rows));
    retailer.once();
    let picture = retailer.picture();
    retailer.write("pos.csv", &export(&rows).replacen("phone", "mobile", 1).replacen("store", "shop", 1));
    retailer.edit_config("[sources.pos.with]", "[sources.pos.columns]\nphone = \"mobile\"\nstore = \"shop\"\n[sources.pos.with]");
    let report = retailer.once();
    assert_eq!(count(&report, "/sources/pos/unchanged"), 2, "{report:#}");
    assert_eq!(retailer.picture(), picture);
}

#[test]
fn the_guard_of_snapshots_refuses_and_accepts_once() {
    let rows: Vec<_> = (0..100).map(|at| row(&format!("{at}"), &format!("1390000{:04}", 1200 + at), "名", "S1")).collect();
    let mut retailer = Retailer::by_hand(&export(&rows));
    retailer.edit_config("deleted_share_max = 1.0\n", "");
    retailer.once();
    let before = retailer.picture();
    for (rows, figures) in [(&rows[..94], ["lost 6 of its 100 rows (6.0 %)", "5.0 %"]), (&rows[..0], ["is empty", "100 rows"])] {
        retailer.write("pos.csv", &export(rows));
        for command in ["once", "plan"] {
            let refused = retailer.run(&[command, "--now", &retailer.now()]).exits(3);
            refused.says(&figures);
            refused.says(&["`pos`", "--accept pos"]);
        }
        assert_eq!(retailer.picture(), before, "a refused run changes nothing");
        assert_eq!(retailer.json(&["status"])["generation"], 1);
    }
    // 5 % is allowed.
    retailer.write("pos.csv", &export(&rows[..95]));
    assert_eq!(count(&retailer.once(), "/sources/pos/deleted"), 5);
    // What the guard refused is taken once, and the next shrinking is refused again.
    retailer.write("pos.csv", &export(&rows[..80]));
    retailer.once_with(&[]).exits(3);
    let accepted = retailer.once_with(&["--accept", "pos"]).exits(0).json();
    assert_eq!(count(&accepted, "/sources/pos/deleted"), 15);
    retailer.write("pos.csv", &export(&rows[..40]));
    retailer.once_with(&[]).exits(3);
    // A file without even a header is empty too.
    retailer.write("pos.csv", "");
    retailer.once_with(&[]).exits(3).says(&["the source `pos` is empty", "80 rows", "--accept pos"]);
    let emptied = retailer.once_with(&["--accept", "pos"]).exits(0).json();
    assert_eq!((count(&emptied, "/sources/pos/deleted"), count(&emptied, "/members/total")), (80, 0));
}

#[test]
fn the_guards_of_identity_stop_what_the_runs_before_never_did() {
    let rows = |masked: usize, common: &str| -> Vec<String> {
        let phone = |at: usize| if at < masked { "139****1234".to_owned() } else { format!("1391{:07}", 1_000_003 * (at + 7) % 9_999_991) };
        (0..1_500)
            .map(|at| format!("{},{common}{}", row(&format!("{at}"), &phone(at), "名", "S1"), if common.is_empty() { at } else { at % 40 }))
            .collect()
    };
    let write = |retailer: &mut Retailer, rows: &[String]| {
        let export = export(rows);
        let (header, rows) = export.split_once('\n').expect("a header");
        retailer.write("pos.csv", &format!("{header},unionid\n{rows}"));
    };
    let mut retailer = Retailer::by_hand("");
    retailer.edit_config("[tags.dormant]", "[identity]\nkeys = [\"phone\", \"unionid\"]\n[tags.dormant]");
    write(&mut retailer, &rows(0, ""));
    let first = retailer.once();
    assert_eq!((count(&first, "/members/total"), &first["guards"]["largest_member"]), (1_500, &json!(1)));
    let before = retailer.picture();
    // A column was masked at the source.
    write(&mut retailer, &rows(100, ""));
    let refused = retailer.once_with(&[]).exits(3);
    refused.says(&["6.7 % of all rows would be in quarantine", "0.0 % at most", "5.0 % more", "--accept guards.quarantined_share"]);
    // Some program wrote forty values for everybody into a key.
    write(&mut retailer, &rows(0, "x"));
    for command in ["once", "plan"] {
        let refused = retailer.run(&[command, "--now", &retailer.now()]).exits(3);
        refused.says(&["89.3 % of the members would be merged into others", "--accept guards.merged_share"]);
    }
    assert_eq!(retailer.picture(), before, "a refused run changes nothing");
    let accepted = retailer.once_with(&["--accept", "guards.merged_share"]).exits(0).json();
    assert_eq!(accepted["accepted"], json!(["guards.merged_share"]));
    // Forty values, and a member has ten phones at most.
    assert_eq!(count(&accepted, "/members/total"), 160);
    retailer.once_with(&["--accept", "guards.merged"]).exits(2).says(&["no such source or guard", "guards.merged_share"]);
}

#[test]
fn a_work_list_cannot_harm_a_spreadsheet_nor_leave_its_folder() {
    let rows = [
        row("1", "13800138001", "=1+2", "S1"),
        row("2", "13800138002", "+86", "S1"),
        row("3", "13800138003", "\"-2, \"\"x\"\"\"", "S1"),
        row("4", "13800138004", "@cmd", "S1"),
        row("5", "13800138005", "\"二\n行\"", "S1"),
        row("6", "13800138006", "名", "../../etc"),
    ];
    let mut retailer = Retailer::by_hand(&export(&rows));
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nreason = \"=HYPERLINK({{ name }})\"\ndue_days = 3");
    let report = retailer.once();
    assert_eq!(count(&report, "/channels/store-list/sent"), 6);
    let lists = retailer.work_lists();
    let places: Vec<_> = lists.iter().map(|list| list.place.as_str()).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    assert!(places.contains(&"S1/2026-09-21-RUN.csv"), "{places:?}");
    assert!(places.iter().all(|place| place.split('/').all(|part| part != "..")), "{places:?}");
    for list in &lists {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&list.path).expect("it is there").permissions().mode() & 0o777, 0o640);
        for (column, cell) in list.rows.iter().flatten() {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{column}: {cell}");
        }
        assert!(list.rows.iter().all(|row| row["due"] == "2026-09-24" && row["campaign"] == "warm-add"));
    }
    let names: BTreeSet<_> = lists.iter().flat_map(|list| &list.rows).map(|row| row["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["'=1+2", "'+86", "'-2, \"x\"", "'@cmd", "二\n行", "名"]));
}

#[test]
fn a_run_does_not_touch_lists_of_earlier_ones() {
    let mut retailer = Retailer::by_hand(&export([row("1", "13800138001", "甲", "S1")]));
    retailer.once();
    let lists = contents(&retailer.path("out"));
    retailer.write("pos.csv", &export([row("1", "13800138001", "甲", "S1"), row("2", "13800138002", "乙", "S1")]));
    let report = retailer.once();
    assert_eq!(count(&report, "/channels/store-list/sent"), 1);
    let after = contents(&retailer.path("out"));
    assert_eq!(after.len(), 2);
    assert!(lists.iter().all(|(path, bytes)| after.get(path) == Some(bytes)));
}

#[test]
fn an_incremental_source_reads_each_file_once_and_decides_old_rows_anew() {
    let shared = |at: usize| row(&format!("C{at}"), "13800138001", "甲", "S1");
    let mut retailer = Retailer::by_hand("");
    retailer.edit_config("mode = \"snapshot\"\ndeleted_share_max = 1.0\n", "mode = \"incremental\"\nsweep = \"never\"\n");
    retailer.edit_config("path = \"pos.csv\"", "path = \"in/*.csv\"");
    std::fs::create_dir(retailer.path("in")).expect("a folder can be made");
    let add = |retailer: &mut Retailer, name: &str, rows: &[String]| {
        retailer.write("next.csv", &export(rows));
        std::fs::rename(retailer.path("next.csv"), retailer.path("in").join(name)).expect("a file can be renamed");
        let report = retailer.once();
        assert_sums(&report);
        report
    };
    let first: Vec<_> = (0..5).map(shared).chain([row("D", "13800138002", "乙", "S1")]).collect();
    let report = add(&mut retailer, "1.csv", &first);
    assert_eq!((count(&report, "/members/total"), count(&report, "/channels/store-list/sent")), (2, 2));
    let quiet = retailer.once();
    assert_eq!(count(&quiet, "/sources/pos/pulled"), 0);
    assert_eq!(count(&quiet, "/members/total"), 2);
    // A sixth card, with another name, makes the number a cashier's: five rows that nobody pulled leave their member.
    let report = add(&mut retailer, "2.csv", &[row("C5", "13800138001", "丁", "S1")]);
    assert_eq!(report["sources"]["pos"]["quarantined"], json!({ "shared_phone": 1 }));
    let counts = ["pulled", "new", "requarantined", "released"].map(|key| count(&report, &format!("/sources/pos/{key}")));
    assert_eq!((counts, count(&report, "/members/total")), ([1, 0, 5, 0], 1), "{report:#}");
    // Corrected, it releases them, and the member is the same who was greeted.
    let report = add(&mut retailer, "3.csv", &[row("C5", "13800138003", "丙", "S1")]);
    let counts = ["pulled", "changed", "requarantined", "released"].map(|key| count(&report, &format!("/sources/pos/{key}")));
    assert_eq!((counts, count(&report, "/members/total")), ([1, 1, 0, 5], 3), "{report:#}");
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1, "only the third is new: {report:#}");
    // One row twice in a pull: the later one counts.
    let newer = row("D", "13800138002", "新", "S1").replace("2025-01-02", "2025-06-07");
    let report = add(&mut retailer, "4.csv", &[newer.clone(), row("D", "13800138002", "旧", "S1")]);
    let counts = ["pulled", "changed", "superseded"].map(|key| count(&report, &format!("/sources/pos/{key}")));
    assert_eq!(counts, [2, 1, 1], "{report:#}");
    assert_eq!(retailer.query("select name from members where phone = '8613800138002'"), [json!({ "name": "新" })]);
}

#[test]
fn pipelines_share_the_members_and_keep_to_their_campaigns() {
    let mut retailer = Retailer::by_hand(&export([row("P1", "13800138001", "甲", "S1")]));
    let more = "[sources.web]\nplugin = \"file\"\n[sources.web.with]\npath = \"web.csv\"\nsettle_secs = 0\n\n\
         [campaigns.second]\naudience = \"phone_only and record_count > 1\"\nchannel = \"store-list\"\nholdout = 0.0\n\n\
         [pipelines.web]\nsources = [\"web\"]\ncampaigns = [\"second\"]\n\n[tags.dormant]";
    retailer.edit_config("[tags.dormant]", more);
    retailer.write("web.csv", &export([row("W1", "13800138001", "甲", "S1"), row("W2", "13800138002", "乙", "S1")]));
    let once = |retailer: &Retailer, pipeline: &str| {
        let report = retailer.once_with(&["--pipeline", pipeline]).exits(0).json();
        assert_sums(&report);
        report
    };
    let report = once(&retailer, "daily");
    assert_eq!((count(&report, "/members/total"), count(&report, "/campaigns/warm-add/planned")), (1, 1));
    assert!(report["sources"]["web"].is_null() && report["campaigns"]["second"].is_null());
    // The other source joins, what the first brought stays, and its file is not read.
    std::fs::remove_file(retailer.path("pos.csv")).expect("it is there");
    let report = once(&retailer, "web");
    assert_eq!((count(&report, "/members/total"), count(&report, "/campaigns/second/planned")), (2, 1), "{report:#}");
    assert!(report["campaigns"]["warm-add"].is_null());
    assert_eq!(retailer.query("select record_id from records order by record_id"), ["P1", "W1", "W2"].map(|id| json!({ "record_id": id })));
    retailer.write("pos.csv", &export([row("P1", "13800138001", "甲", "S1")]));
    let report = once(&retailer, "daily");
    assert_eq!((count(&report, "/sources/pos/unchanged"), count(&report, "/campaigns/warm-add/planned")), (1, 1), "W2 is dormant too");
    // What one pipeline has not read for days holds up whom it knows, and nobody else.
    retailer.pass_days(3);
    retailer.write("pos.csv", &export([row("P1", "13800138001", "甲", "S1"), row("P3", "13800138003", "丙", "S1")]));
    retailer.edit_config(
        "[campaigns.warm-add]",
        "[campaigns.third]\naudience = \"dormant\"\nchannel = \"store-list\"\nholdout = 0.0\n[campaigns.warm-add]",
    );
    retailer.edit_config("campaigns = [\"warm-add\"]", "campaigns = [\"warm-add\", \"third\"]");
    let report = once(&retailer, "daily");
    assert_eq!(report["campaigns"]["third"]["deferred"], json!({ "stale": 2 }), "{report:#}");
    assert_eq!(count(&report, "/campaigns/third/planned"), 1);
}

#[test]
fn days_are_cut_in_the_timezone_of_the_config() {
    // A second before midnight in Shanghai, midnight, and midnight as the till writes it.
    let at = |id: &str, phone: &str, moment: &str| row(id, phone, "名", "S1").replace("2025-01-02T03:04:05Z,2,", &format!("{moment},2,"));
    let rows = [
        at("1", "13800138001", "2026-03-25T15:59:59Z"),
        at("2", "13800138002", "2026-03-25T16:00:00Z"),
        at("3", "13800138003", "2026-03-26 00:00:00"),
    ];
    let mut retailer = Retailer::by_hand(&export(rows));
    // Half past midnight of the 22nd there, while it is the 21st in UTC.
    retailer.now_secs += 2 * 3_600 + 1_000;
    retailer.touch("pos.csv");
    let report = retailer.once();
    assert!(report["clock"].as_str().is_some_and(|clock| clock.starts_with("2026-09-22T00:30:00+08:00")), "{report:#}");
    let days = retailer.query("select record_count, days_since_last_order as days from members order by phone");
    assert_eq!(days.iter().map(|row| row["days"].clone()).collect::<Vec<_>>(), [json!(181), json!(180), json!(180)]);
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 1);
    assert_eq!(retailer.work_lists()[0].place, "S1/2026-09-22-RUN.csv");
}
