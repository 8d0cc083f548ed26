//! Bad input and bad surroundings: each is told with what, where and what to do, and costs no good row.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use reunion_integration_tests::harness::{Ended, HEADER, Retailer, assert_sums, binary, contents, count, end, export, row, total};
use serde_json::{Value, json};

fn good(at: usize) -> String {
    row(&format!("C{at:03}"), &format!("1380013{:04}", 8000 + at), "名", "S1")
}

fn ten() -> Vec<String> {
    (0..10).map(good).collect()
}

/// A retailer with ten good rows in its state, and what it holds.
fn with_ten() -> Retailer {
    let retailer = Retailer::by_hand(&export(ten()));
    assert_eq!(count(&retailer.once(), "/members/total"), 10);
    retailer
}

#[test]
fn rows_that_cannot_be_read_harm_no_row_beside_them() {
    let mut bytes = export(ten()).into_bytes();
    bytes.extend(b"C100,13800138100\n");
    bytes.extend(b"C101,13800138101,\xff\xfe\xfa,S1,,,,,\n");
    bytes.extend(b"C102,138001\x0038102,x,S1,,,,,\n");
    bytes.extend(format!("{}\n", good(103)).into_bytes());
    bytes.extend(b"C104,13800138104,\"never closed,S1,,,,,\n");
    bytes.extend(format!("{}\n", good(105)).into_bytes());
    let mut retailer = Retailer::by_hand("");
    retailer.write("other.csv", "13800138100\n13800138101\n13800138102\n13800138104\n");
    retailer.write_bytes("pos.csv", &bytes);
    let report = retailer.once();
    assert_sums(&report);
    assert_eq!(count(&report, "/members/total"), 12, "{report:#}");
    let quarantined = &report["sources"]["pos"]["quarantined"];
    assert_eq!(quarantined["row_ragged"], 1, "{report:#}");
    assert_eq!(quarantined["row_bad_encoding"], 1, "{report:#}");
    assert_eq!(quarantined["row_nul"], 1, "{report:#}");
    let rows = retailer.query("select reason, record_id from quarantine order by reason");
    assert_eq!(rows.len() as u64, quarantined.as_object().expect("a map").values().filter_map(Value::as_u64).sum::<u64>());
    assert!(rows.iter().all(|row| row["record_id"].as_str().is_some_and(|place| place.contains("pos.csv:"))), "{rows:#?}");
}

#[test]
fn a_file_that_was_cut_off_loses_its_last_row_alone() {
    let text = export(ten());
    let mut retailer = Retailer::by_hand(&text);
    // In the middle of a row, and inside a quoted cell.
    retailer.write("pos.csv", &text[..text.len() - 40]);
    let report = retailer.once();
    assert_eq!((count(&report, "/sources/pos/pulled"), count(&report, "/members/total")), (10, 9), "{report:#}");
    assert_eq!(report["sources"]["pos"]["quarantined"], json!({ "row_truncated": 1 }));
    retailer.write("pos.csv", &format!("{text}C200,13800138200,\"half a na"));
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 10, "{report:#}");
    assert_eq!(report["sources"]["pos"]["quarantined"], json!({ "row_truncated": 1 }));
    // And whole again.
    retailer.write("pos.csv", &text);
    assert_eq!(count(&retailer.once(), "/members/total"), 10);
}

#[test]
fn a_wrong_encoding_is_no_guess() {
    let mut retailer = Retailer::by_hand(&export(ten()));
    let gb18030 = encoding_rs::GB18030.encode(&export(ten())).0.into_owned();
    retailer.edit_config("settle_secs = 0\n\n[tags", "settle_secs = 0\nencoding = \"utf-8\"\n\n[tags");
    retailer.write_bytes("pos.csv", &gb18030);
    let report = retailer.once();
    assert_sums(&report);
    assert_eq!(report["sources"]["pos"]["quarantined"], json!({ "row_bad_encoding": 10 }));
    // Declared rightly, the same file gives what it says.
    retailer.edit_config("encoding = \"utf-8\"", "encoding = \"gb18030\"");
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 10, "{report:#}");
    assert_eq!(retailer.query("select distinct name from members"), [json!({ "name": "名" })]);
    retailer.edit_config("encoding = \"gb18030\"", "encoding = \"latin-1\"");
    retailer.once_with(&[]).exits(2).says(&["reunion.toml", "encoding", "latin-1"]);
}

/// What the report says of a source that could not be read.
#[track_caller]
fn failure(ended: Ended) -> String {
    let report = ended.exits(4).json();
    report["sources"]["pos"]["failed"].as_str().map(str::to_owned).unwrap_or_else(|| panic!("nothing failed: {report:#}"))
}

#[test]
fn a_source_that_cannot_be_read_keeps_what_it_held() {
    let mut retailer = with_ten();
    let before = retailer.picture();
    let path = retailer.path("pos.csv");
    // A folder in its place.
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("a folder can be made");
    assert!(failure(retailer.once_with(&[])).contains("pos.csv"));
    fs::remove_dir(&path).expect("it is there");
    // A pipe that nobody writes to: reading it would wait for ever.
    end({
        let mut command = Command::new("mkfifo");
        command.arg(&path);
        command
    })
    .exits(0);
    assert!(failure(retailer.once_with(&[])).contains("pos.csv"));
    fs::remove_file(&path).expect("it is there");
    // Nothing in its place.
    assert!(failure(retailer.once_with(&[])).contains("pos.csv"));
    // A spreadsheet, a picture.
    retailer.write_bytes("pos.csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00rels/.rels\x00\x00\x00");
    failure(retailer.once_with(&[]));
    // A column that is mapped is gone, and one has its name twice.
    retailer.write("pos.csv", &export(ten()).replacen("record_id", "id", 1).replacen("phone", "telephone", 1));
    let said = failure(retailer.once_with(&[]));
    assert!(said.contains("record_id"), "{said}");
    retailer.write("pos.csv", &export(ten()).replacen("store", "name", 1));
    let said = failure(retailer.once_with(&[]));
    assert!(said.contains("name"), "{said}");
    assert_eq!(retailer.picture(), before);
    retailer.write("pos.csv", &export(ten()));
    assert_eq!(count(&retailer.once(), "/sources/pos/unchanged"), 10);
}

#[test]
fn a_mapped_column_that_is_gone_is_named() {
    let mut retailer = with_ten();
    retailer.edit_config("[sources.pos.with]", "[sources.pos.columns]\nstaff = \"clerk\"\n[sources.pos.with]");
    let said = failure(retailer.once_with(&[]));
    assert!(said.contains("has no column `clerk`") && said.contains("reunion.toml:"), "{said}");
    retailer.run(&["check", "--connect"]).exits(2).says(&["has no column `clerk`"]);
}

#[test]
fn one_source_that_fails_does_not_hold_up_the_other() {
    let (retailer, _) =
        Retailer::generated(&reunion_integration_tests::generator::Plan { rows: 300, seed: 3, stores: 2, changed: 0.0, unreadable: false });
    retailer.once();
    fs::remove_file(retailer.path("till.csv")).expect("it is there");
    let report = retailer.once_with(&[]).exits(4).json();
    assert!(report["sources"]["till"]["failed"].is_string());
    assert!(report["sources"]["shop"]["failed"].is_null());
    assert!(count(&report, "/sources/shop/unchanged") > 0);
    assert_eq!(count(&report, "/sources/till/deleted"), 0, "what cannot be read is not gone");
}

#[test]
fn values_that_do_not_fit_are_counted_and_the_row_stays() {
    let mut rows = ten();
    for row in &mut rows[5..] {
        // Halfway the export writes its numbers and days another way.
        *row = row.replace("2025-01-02T03:04:05Z,2,300.00", "02.01.2025,two,300 yuan");
    }
    let retailer = Retailer::by_hand(&export(rows));
    let report = retailer.once();
    assert_eq!(count(&report, "/members/total"), 10);
    assert_eq!(report["sources"]["pos"]["unfit_values"], json!({ "last_order_at": 5, "order_count": 5, "total_spent": 5 }));
    assert_eq!(count(&report, "/tags/dormant/members"), 5);
    assert_eq!(count(&report, "/tags/dormant/null"), 5);
}

#[test]
fn a_declared_type_is_fixed_at_the_first_commit() {
    let rows = |size: &str| format!("{HEADER},size\n{},{size}\n", good(1));
    let mut retailer = Retailer::by_hand(&rows("38"));
    retailer.edit_config(
        "[sources.pos.with]",
        "[sources.pos.columns]\nshoe_size = { from = \"size\", type = \"integer\" }\n[sources.pos.with]",
    );
    retailer.once();
    retailer.edit_config("type = \"integer\"", "type = \"text\"");
    let said = failure(retailer.once_with(&[]));
    assert!(said.contains("`shoe_size` is text now and was integer before"), "{said}");
    retailer.edit_config("type = \"text\"", "type = \"integer\"");
    retailer.once();
}

#[test]
fn a_wrong_key_is_refused_with_both_fingerprints() {
    let retailer = with_ten();
    let before = contents(&retailer.path("state/people"));
    let fingerprint = fs::read_to_string(retailer.path("state/keys.json")).expect("keys are stored");
    let fingerprint = serde_json::from_str::<Value>(&fingerprint).expect("JSON")["fingerprint"].as_str().expect("a fingerprint").to_owned();
    retailer.write_key("state.key", &"77".repeat(32));
    for args in [&["once"][..], &["plan"], &["status"], &["explain", "13800138000"], &["key", "rotate"]] {
        let refused = retailer.run(args).exits(3);
        refused.says(&[&fingerprint, "master key"]);
        assert!(!refused.stderr.contains(&"77".repeat(16)), "a key is shown");
    }
    assert_eq!(contents(&retailer.path("state/people")), before);
    // A key that is none, one that others may read, none at all.
    retailer.write_key("state.key", "hunter2");
    retailer.run(&["status"]).exits(2).says(&["64 hex digits"]);
    retailer.write_key("state.key", &"77".repeat(32));
    fs::set_permissions(retailer.path("state.key"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    retailer.run(&["status"]).exits(2).says(&["state.key"]);
    fs::remove_file(retailer.path("state.key")).expect("it is there");
    retailer.run(&["status"]).exits(2).says(&["state.key"]);
}

/// Turns one bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::write(path, bytes).expect("it can be written");
}

fn newest_file(retailer: &Retailer, folder: &str, part: &str) -> std::path::PathBuf {
    let mut files = contents(&retailer.path(folder)).into_keys();
    files.rfind(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part))).expect("such a file")
}

#[test]
fn a_damaged_generation_stops_the_run_and_says_what_to_do() {
    for part in ["members-", "assignments-", "manifest-"] {
        let mut retailer = with_ten();
        retailer.write("pos.csv", &export(ten().iter().map(|row| row.replace("名", "改"))));
        retailer.once();
        let file = newest_file(&retailer, "state/people/generations", part);
        damage(&file);
        let verified = retailer.run(&["verify"]).exits(3);
        // A manifest that is not the one that the ledger knows is as good as none: its folder is named.
        let name =
            if part == "manifest-" { "generations/000000000002".into() } else { file.file_name().expect("a name").to_string_lossy() };
        assert!(format!("{}{}", verified.stdout, verified.stderr).contains(&*name), "{name}: {verified:?}");
        let refused = retailer.once_with(&[]);
        assert_eq!(refused.code, 3, "{part}: {refused:?}");
        refused.says(&["reunion verify", "reunion rollback", &name]);
        // Nothing falls back by itself.
        retailer.once_with(&[]).exits(3);
    }
}

#[test]
fn a_generation_that_lost_a_file_is_named() {
    let retailer = with_ten();
    let file = newest_file(&retailer, "state/people/segments", ".parquet");
    fs::remove_file(&file).expect("it is there");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    retailer.once_with(&[]).exits(3).says(&[&name, "reunion rollback"]);
    retailer.run(&["verify"]).exits(3);
}

#[test]
fn a_ledger_that_is_none_is_told() {
    let retailer = with_ten();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(retailer.path(&format!("state/ledger.sqlite{suffix}")));
    }
    fs::write(
        retailer.path("state/ledger.sqlite"),
        b"this is no database at all, and longer than a header of one hundred bytes, as SQLite looks at it first",
    )
    .expect("it can be written");
    let failed = retailer.once_with(&[]);
    assert!(failed.code == 1 || failed.code == 3, "{failed:?}");
    failed.says(&["ledger"]);
}

/// Whether this user may mount; tests that need it say that they did not run where not.
fn may_mount() -> bool {
    let probe = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let may = probe.is_ok_and(|output| output.status.success());
    if !may {
        use std::io::Write as _;
        let _ =
            writeln!(std::io::stderr(), "not tested: file systems cannot be mounted here, so neither full nor read-only ones can be made");
    }
    may
}

/// Runs `once` in a mount namespace that `prepare`, a line of shell, has set up.
fn once_under(retailer: &Retailer, prepare: &str) -> Ended {
    let line = format!("{prepare} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &line]).arg(binary()).arg("--config").arg(retailer.path("reunion.toml"));
    command.args(["once", "--format", "json", "--now", &retailer.now()]).current_dir(retailer.path("."));
    retailer.finish(command)
}

#[test]
fn a_full_disk_costs_nothing_committed() {
    if !may_mount() {
        return;
    }
    // Enough rows for megabytes, and a state that has room for a part of them.
    let rows =
        (0..20_000).map(|at| row(&format!("C{at:06}"), &format!("139{:08}", 20_200_000 + at), &format!("名字很长的会员第{at}位"), "S1"));
    let mut retailer = Retailer::by_hand(&export(ten()));
    retailer.once();
    let before = retailer.picture();
    retailer.write("pos.csv", &export(ten().into_iter().chain(rows)));
    let state = retailer.path("state");
    let copied = retailer.path("copied");
    for size_kib in [600, 900, 1_400] {
        let prepare = format!(
            "rm -rf {copied} && cp -a {state} {copied} && mount -t tmpfs -o size={size_kib}k none {state} && cp -a {copied}/. {state}/",
            copied = copied.display(),
            state = state.display()
        );
        let full = once_under(&retailer, &prepare);
        assert_eq!(full.code, 1, "{size_kib} KiB: {full:?}");
        full.says(&["No space left on device"]);
    }
    // The disk itself holds what was committed before; with room the run goes through.
    assert_eq!(retailer.picture(), before);
    assert_eq!(count(&retailer.once(), "/members/total"), 20_010);
}

#[test]
fn a_disk_that_is_full_for_work_lists_is_tried_again() {
    if !may_mount() {
        return;
    }
    let mut retailer = Retailer::by_hand(&export((0..200).map(good)));
    retailer.edit_config("[pipelines.daily]", "[limits]\ndrain_secs = 0\n[pipelines.daily]");
    retailer.edit_config("holdout = 0.0", "holdout = 0.0\nper_store_per_day_max = 1000");
    let out = retailer.path("out");
    fs::create_dir(&out).expect("a folder can be made");
    // A tmpfs counts whole pages: one page for the folder of the store, and two for a list of several.
    let report = once_under(&retailer, &format!("mount -t tmpfs -o size=8k none {}", out.display())).exits(4).json();
    assert_eq!(report["channels"]["store-list"], json!({ "sent": 0, "retrying": 0, "failed": 0, "unknown": 200 }), "{report:#}");
    assert!(report["notes"].to_string().contains("cannot be written"), "{report:#}");
    retailer.pass_days(1);
    retailer.touch("pos.csv");
    let later = retailer.once();
    assert_eq!(count(&later, "/campaigns/warm-add/planned"), 0);
    let picture = retailer.picture();
    assert_eq!((picture.tasks.len(), picture.listed.len()), (200, 200));
    assert!(picture.tasks.iter().all(|task| task["state"] == "accepted"));
}

#[test]
fn folders_that_cannot_be_written_are_named() {
    if !may_mount() {
        return;
    }
    let retailer = with_ten();
    let before = retailer.picture();
    let state = retailer.path("state");
    let refused = once_under(&retailer, &format!("mount --bind {0} {0} && mount -o remount,ro,bind {0}", state.display()));
    assert!(refused.code == 1 || refused.code == 3, "{refused:?}");
    refused.says(&["state"]);
    assert_eq!(retailer.picture(), before);
    // Another user: neither the state nor the key are theirs.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary()).arg("--config").arg(retailer.path("reunion.toml"));
    let refused = end({
        command.args(["once", "--now", &retailer.now()]);
        command
    });
    assert_ne!(refused.code, 0, "{refused:?}");
    refused.says(&["state.key"]);
    assert_eq!(retailer.picture(), before);
}

#[test]
fn a_list_that_is_there_is_never_overwritten() {
    let mut retailer = Retailer::by_hand(&export([good(1)]));
    retailer.edit_config("out/{store}/{date}-{run}.csv", "out/{store}.csv");
    retailer.edit_config("[pipelines.daily]", "[limits]\ndrain_secs = 0\n[pipelines.daily]");
    retailer.once();
    let first = contents(&retailer.path("out"));
    retailer.write("pos.csv", &export([good(1), good(2)]));
    let report = retailer.once_with(&[]).exits(4).json();
    assert_eq!(count(&report, "/channels/store-list/unknown"), 1, "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("is there already with other tasks"), "{notes}");
    assert_eq!(contents(&retailer.path("out")), first);
    // Moved away, it makes room, and the task goes out once.
    fs::rename(retailer.path("out/S1.csv"), retailer.path("out/S1-old.csv")).expect("it is there");
    retailer.json(&["tasks", "requeue", "--state", "unknown"]);
    retailer.once();
    let picture = retailer.picture();
    assert_eq!((picture.tasks.len(), picture.listed.len()), (2, 2));
    assert!(picture.tasks.iter().all(|task| task["state"] == "accepted"), "{:#?}", picture.tasks);
}

#[test]
fn rows_without_an_id_of_their_own_are_told_apart_by_their_key() {
    let header = "phone,name,store,updated_at,last_order_at\n";
    let line = |phone: &str, name: &str| format!("{phone},{name},S1,2025-01-02T03:04:05Z,2025-01-02T03:04:05Z\n");
    let twice = format!("{}{}", line("13800138003", "丙"), line("138-0013-8003", "丁"));
    let mut retailer = Retailer::by_hand(&format!("{header}{}{}{twice}", line("13800138001", "甲"), line("13800138002", "乙")));
    let report = retailer.once();
    assert_sums(&report);
    assert_eq!(count(&report, "/members/total"), 2, "{report:#}");
    assert_eq!(report["sources"]["pos"]["quarantined"], json!({ "record_key_duplicate": 1 }));
    assert_eq!(count(&report, "/sources/pos/superseded"), 1, "one key is one record, and two rows of it are one too many");
    let ids = retailer.query("select member_id, phone from members order by phone");
    // Neither the order of rows nor how a number is written changes who is who.
    retailer.write("pos.csv", &format!("{header}{twice}{}{}", line("+86 13800138002", "乙"), line("13800138001", "甲甲")));
    let report = retailer.once();
    assert_eq!((count(&report, "/sources/pos/new"), count(&report, "/sources/pos/deleted")), (0, 0), "{report:#}");
    assert_eq!(retailer.query("select member_id, phone from members order by phone"), ids);
    assert_eq!(count(&report, "/campaigns/warm-add/planned"), 0);
    // One of the two is gone: the other is a row like any.
    retailer.write("pos.csv", &format!("{header}{}{}{}", line("13800138001", "甲"), line("13800138002", "乙"), line("13800138003", "丙")));
    let report = retailer.once();
    assert_eq!((count(&report, "/members/total"), total(&report, "/sources/pos/quarantined")), (3, 0), "{report:#}");
}

#[test]
fn an_address_that_is_not_there_is_told_before_anything_is_done() {
    let mut retailer = with_ten();
    let before = retailer.picture();
    retailer.edit_config("path = \"pos.csv\"", "path = \"in/nowhere/*.csv\"");
    assert!(failure(retailer.once_with(&[])).contains("nowhere"));
    retailer.edit_config("path = \"in/nowhere/*.csv\"", "path = \"none-*.csv\"");
    // A pattern that matches nothing is an empty source, and the guard's to judge.
    retailer.once_with(&[]).exits(3).says(&["the source `pos` is empty", "10 rows"]);
    assert_eq!(retailer.picture(), before);
    retailer.run(&["once", "--config", "/nowhere/reunion.toml"]).exits(2);
}
