//! The state's keeping: what is damaged stops and names the way back, and what a source's columns become over time.

use std::fs;
use std::path::{Path, PathBuf};

use reunion_integration_tests::generator::{Plan, make};
use reunion_integration_tests::harness::{HEADER, OPENING, Retailer, assert_sums, contents, count, export, row};
use serde_json::{Value, json};

fn rows(name: &str) -> Vec<String> {
    (0..10).map(|at| row(&format!("C{at}"), &format!("1380013{:04}", 8000 + at), name, "S1")).collect()
}

/// A retailer of three generations, of which each has another name for everybody.
fn three() -> Retailer {
    let mut retailer = Retailer::by_hand("");
    for name in ["甲", "乙", "丙"] {
        retailer.write("pos.csv", &export(rows(name)));
        retailer.once();
    }
    retailer
}

fn generation(number: u64) -> String {
    format!("state/people/generations/{number:012}")
}

fn manifest(retailer: &Retailer, number: u64) -> PathBuf {
    file(retailer, &generation(number), "manifest-")
}

/// The last file of a folder whose name has this part.
fn file(retailer: &Retailer, folder: &str, part: &str) -> PathBuf {
    let mut files = contents(&retailer.path(folder)).into_keys();
    files.rfind(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part))).expect("such a file")
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("it can be written");
}

fn cut(path: &Path, to: usize) {
    let bytes = fs::read(path).expect("it is there");
    fs::write(path, &bytes[..to.min(bytes.len())]).expect("it can be written");
}

fn names(retailer: &Retailer) -> Vec<Value> {
    retailer.query("select distinct name from members order by name")
}

type Harm<'a> = (&'a str, &'a dyn Fn(&Retailer));

#[test]
fn a_torn_head_stops_every_command_and_names_the_way_back() {
    let ways: [Harm<'_>; 6] = [
        ("it is gone", &|of| fs::remove_file(manifest(of, 3)).expect("it is there")),
        ("it is empty", &|of| cut(&manifest(of, 3), 0)),
        ("its last byte is gone", &|of| {
            let path = manifest(of, 3);
            cut(&path, fs::metadata(&path).expect("it is there").len() as usize - 1);
        }),
        ("a bit of it flipped", &|of| flip(&manifest(of, 3))),
        ("another generation's stands in its place", &|of| {
            fs::copy(manifest(of, 2), manifest(of, 3)).expect("it can be copied");
        }),
        ("its folder is gone", &|of| fs::remove_dir_all(of.path(&generation(3))).expect("it is there")),
    ];
    for (way, harm) in ways {
        let retailer = three();
        let picture = retailer.picture();
        harm(&retailer);
        let people = contents(&retailer.path("state/people"));
        let who = "13800138001";
        for args in [&["once"][..], &["plan"], &["query", "select 1"], &["explain", who]] {
            let refused = retailer.run(args).exits(3);
            refused.says(&["generation 3, the head, cannot be used", "reunion verify --all", "reunion rollback --to 2"]);
        }
        retailer.run(&["verify"]).exits(3).says(&["generation 3 cannot be read", "reunion rollback"]);
        let all = retailer.run(&["verify", "--all"]).exits(3).stdout;
        for line in ["generation 3 cannot be read", "generation 2 is whole", "generation 1 is whole", "go back: `reunion rollback --to 2`"]
        {
            assert!(all.contains(line), "{way}: {all}");
        }
        assert_eq!(contents(&retailer.path("state/people")), people, "{way}: nothing is mended or removed by itself");
        retailer.json(&["rollback", "--to", "2"]);
        assert_eq!(names(&retailer), [json!({ "name": "乙" })], "{way}");
        let again = retailer.once();
        assert_eq!(again["generation"], 4, "{way}");
        assert_eq!(retailer.picture(), picture, "{way}");
        assert_eq!(retailer.json(&["verify"])["damages"], json!([]), "{way}");
    }
}

/// What is said of a file in whose place stands another of the same state.
const SWAPPED: &str = "since it was committed";

#[test]
fn verify_finds_each_kind_of_damage_and_what_is_none_of_ours() {
    let ways: [Harm<'_>; 5] = [
        ("was changed since it was committed", &|of| flip(&file(of, &generation(3), "members-"))),
        ("has 100 bytes, and ", &|of| cut(&file(of, &generation(3), "members-"), 100)),
        ("is missing", &|of| fs::remove_file(file(of, &generation(3), "members-")).expect("it is there")),
        (" were committed", &|of| {
            // The members of another state, under another key.
            let other = Retailer::by_hand(&export([row("X", "13800138777", "外", "S1")]));
            other.write_key("state.key", &"77".repeat(32));
            other.once();
            fs::copy(file(&other, &generation(1), "members-"), file(of, &generation(3), "members-")).expect("it can be copied");
        }),
        (SWAPPED, &|of| {
            // Of this state, as long as the one in its place: no reader can tell, and `verify` does.
            let [from, to] = [2, 3].map(|number| file(of, &generation(number), "members-"));
            let (mut bytes, length) = (fs::read(from).expect("it is there"), fs::metadata(&to).expect("it is there").len() as usize);
            bytes.resize(length, 0);
            fs::write(to, bytes).expect("it can be written");
        }),
    ];
    for (problem, harm) in ways {
        let retailer = three();
        let whole = retailer.run(&["verify"]).exits(0).stdout;
        assert!(whole.starts_with("generation 3 is whole: "), "{whole}");
        harm(&retailer);
        let found = retailer.run(&["verify"]).exits(3).stdout;
        assert!(found.contains("1 file is damaged") && found.contains(problem) && found.contains("/members-"), "{problem}: {found}");
        let json = retailer.run(&["verify", "--all", "--format", "json"]).exits(3).json();
        let damages = |at: usize| json["generations"][at]["damages"].as_array().map(Vec::len);
        assert_eq!((damages(0), damages(1), damages(2)), (Some(1), Some(0), Some(0)), "{json:#}");
        if problem != SWAPPED {
            retailer.once_with(&[]).exits(3).says(&["members-", "reunion rollback"]);
        }
        retailer.json(&["rollback"]);
        retailer.once();
        assert_eq!(names(&retailer), [json!({ "name": "丙" })], "{problem}");
    }
    let retailer = three();
    fs::write(retailer.path("state/people/notes.txt"), "mine").expect("it can be written");
    let verified = retailer.json(&["verify"]);
    assert_eq!(verified["foreign"], json!([retailer.path("state/people/notes.txt").display().to_string()]));
    retailer.once();
    assert!(retailer.path("state/people/notes.txt").exists(), "what is none of ours stays");
    retailer.run(&["verify", "--generation", "77"]).exits(2).says(&["there are 4, 3, 2"]);
}

#[test]
fn a_rollback_to_what_is_damaged_is_refused() {
    let retailer = three();
    flip(&manifest(&retailer, 3));
    flip(&file(&retailer, &generation(2), "members-"));
    retailer.run(&["rollback"]).exits(3).says(&["generation 2 is damaged", "was changed", "reunion verify --all"]);
    let all = retailer.run(&["verify", "--all"]).exits(3).stdout;
    assert!(all.contains("go back: `reunion rollback --to 1`"), "{all}");
    flip(&manifest(&retailer, 2));
    retailer.run(&["rollback", "--to", "2"]).exits(3).says(&["generation 2 cannot be used", "reunion verify --all"]);
    retailer.json(&["rollback", "--to", "1"]);
    assert_eq!(names(&retailer), [json!({ "name": "甲" })]);
    retailer.once();
    assert_eq!(names(&retailer), [json!({ "name": "丙" })]);
    // With nothing to go back to, a backup is all that helps.
    let only = Retailer::by_hand(&export(rows("甲")));
    only.once();
    fs::remove_file(manifest(&only, 1)).expect("it is there");
    only.once_with(&[]).exits(3).says(&["restore the state from a backup"]);
    only.run(&["verify"]).exits(3).says(&["there is no other generation"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(&path, &target).expect("it can be copied") }
    }
}

#[test]
fn a_ledger_that_is_older_than_the_files_goes_on_and_one_that_is_newer_names_the_way_back() {
    // The ledger alone is restored from a backup.
    let mut retailer = three();
    let backup = retailer.path("backup");
    copy(&retailer.path("state"), &backup);
    retailer.write("pos.csv", &export(rows("丁")));
    retailer.once();
    let expected = retailer.picture();
    for part in ["ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(retailer.path("state").join(part));
    }
    fs::copy(backup.join("ledger.sqlite"), retailer.path("state/ledger.sqlite")).expect("it can be copied");
    assert_eq!(names(&retailer), [json!({ "name": "丙" })], "its head is still there");
    retailer.once();
    assert_eq!(retailer.picture().members, expected.members);
    assert_eq!(retailer.json(&["verify"])["damages"], json!([]));
    // The files alone.
    let retailer = three();
    let newer = retailer.path("newer");
    copy(&retailer.path("state"), &newer);
    let expected = retailer.picture();
    retailer.json(&["rollback", "--to", "2"]);
    fs::remove_dir_all(retailer.path(&generation(3))).expect("it is there");
    let older = retailer.path("older");
    copy(&retailer.path("state/people"), &older);
    fs::remove_dir_all(retailer.path("state")).expect("it is there");
    copy(&newer, &retailer.path("state"));
    fs::remove_dir_all(retailer.path("state/people")).expect("it is there");
    copy(&older, &retailer.path("state/people"));
    retailer.once_with(&[]).exits(3).says(&["generation 3, the head, cannot be used", "reunion rollback --to 2"]);
    retailer.json(&["rollback", "--to", "2"]);
    retailer.once();
    assert_eq!(retailer.picture(), expected);
}

#[test]
fn rows_that_wait_for_a_generation_are_verified_too() {
    let segments = |retailer: &Retailer| {
        let mut files = contents(&retailer.path("state/people/segments")).into_keys().collect::<Vec<_>>();
        files.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
        files.pop().expect("a segment")
    };
    // After a rollback the pull of the third generation waits. Of a snapshot the next run reads all anew.
    let retailer = three();
    let newest = segments(&retailer);
    retailer.json(&["rollback", "--to", "2"]);
    assert_eq!(retailer.json(&["verify"])["waiting"]["segments"], 1);
    flip(&newest);
    let found = retailer.run(&["verify"]).exits(3).stdout;
    assert!(found.contains("of the rows that wait for a generation 1 file is damaged") && found.contains("--sweep SOURCE"), "{found}");
    retailer.once();
    assert_eq!(names(&retailer), [json!({ "name": "丙" })]);
    retailer.run(&["verify"]).exits(0);
    // An incremental source has to be told to.
    let mut retailer = Retailer::by_hand("");
    retailer.edit_config("mode = \"snapshot\"", "mode = \"incremental\"\nsweep = \"never\"");
    retailer.edit_config("path = \"pos.csv\"", "path = \"pos-*.csv\"");
    for (at, name) in ["甲", "乙"].into_iter().enumerate() {
        retailer.write(
            &format!("pos-{at}.csv"),
            &export(rows(name).iter().map(|row| row.replace("2025-01-02", &format!("2025-01-0{}", at + 2)))),
        );
        retailer.once();
    }
    let newest = segments(&retailer);
    retailer.json(&["rollback", "--to", "1"]);
    fs::remove_file(&newest).expect("it is there");
    for _ in 0..2 {
        retailer.once_with(&[]).exits(3).says(&["--sweep SOURCE", &newest.file_name().expect("a name").to_string_lossy()]);
    }
    retailer.once_with(&["--sweep", "pos"]).exits(0);
    assert_eq!(names(&retailer), [json!({ "name": "乙" })]);
    retailer.run(&["verify"]).exits(0);
    retailer.once();
}

#[test]
fn generations_from_before_a_rotation_stay_readable() {
    let mut retailer = three();
    retailer.json(&["key", "rotate"]);
    retailer.write("pos.csv", &export(rows("丁")));
    retailer.once();
    let manifest: Value = serde_json::from_slice(&fs::read(manifest(&retailer, 4)).expect("a manifest")).expect("JSON");
    let keys = |table: &str| {
        let files = manifest["tables"][table]["files"].as_array().expect("files").iter();
        files.map(|file| file["data_key"].as_u64().expect("a version")).collect::<Vec<_>>()
    };
    assert_eq!((keys("assignments"), keys("members")), (vec![1], vec![2]), "{manifest:#}");
    let all = retailer.json(&["verify", "--all"]);
    assert!(all["generations"].as_array().is_some_and(|all| all.iter().all(|of| of["damages"] == json!([]))), "{all:#}");
    retailer.json(&["rollback", "--to", "3"]);
    assert_eq!(names(&retailer), [json!({ "name": "丙" })]);
    retailer.json(&["explain", "13800138001"]);
    retailer.once();
    assert_eq!(names(&retailer), [json!({ "name": "丁" })]);
}

/// The rows of a file of people, by nothing but a key that `key export` printed.
fn strangers_rows(path: &Path, key: &str) -> Result<usize, String> {
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::encryption::decrypt::FileDecryptionProperties;
    let byte = |at: usize| u8::from_str_radix(&key[at..at + 2], 16).expect("hex digits");
    let key = (0..key.len()).step_by(2).map(byte).collect::<Vec<_>>();
    let properties = FileDecryptionProperties::builder(key).build().map_err(|error| error.to_string())?;
    let options = ArrowReaderOptions::new().with_file_decryption_properties(properties);
    let open = fs::File::open(path).map_err(|error| error.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(open, options).and_then(ParquetRecordBatchReaderBuilder::build);
    let batches = reader.map_err(|error| error.to_string())?.collect::<Result<Vec<_>, _>>();
    Ok(batches.map_err(|error| error.to_string())?.iter().map(arrow::array::RecordBatch::num_rows).sum())
}

#[test]
fn who_has_the_exported_key_of_a_file_reads_it_and_no_other_key_does() {
    let mut retailer = three();
    retailer.json(&["key", "rotate"]);
    retailer.write("pos.csv", &export(rows("丁")));
    retailer.once();
    let keys = retailer.json(&["key", "export"])["keys"].clone();
    let key = |version: u64| keys[version as usize - 1]["key"].as_str().expect("a key");
    let manifest = retailer.json(&["verify"])["manifest"].as_str().map(PathBuf::from).expect("a path");
    let document: Value = serde_json::from_slice(&fs::read(&manifest).expect("a manifest")).expect("JSON");
    let mut versions = Vec::new();
    for file in document["tables"].as_object().expect("tables").values().flat_map(|table| table["files"].as_array().expect("files")) {
        let path = retailer.path("state/people").join(file["path"].as_str().expect("a path"));
        let version = file["data_key"].as_u64().expect("a version");
        assert_eq!(strangers_rows(&path, key(version)).map(|rows| rows as u64), Ok(file["rows"].as_u64().expect("a count")));
        assert!(strangers_rows(&path, key(3 - version)).is_err());
        versions.push(version);
    }
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, [1, 2]);
    let text = fs::read_to_string(&manifest).expect("text");
    assert!(!text.contains("13800138") && !text.contains('丁'), "a manifest names nobody");
}

/// An export with more columns, each with the same value in all rows.
fn wider(columns: &[(&str, &str)]) -> String {
    let header: String = columns.iter().map(|(name, _)| format!(",{name}")).collect();
    let values: String = columns.iter().map(|(_, value)| format!(",{value}")).collect();
    let rows: String = rows("甲").iter().map(|row| format!("{row}{values}\n")).collect();
    format!("{HEADER}{header}\n{rows}")
}

#[track_caller]
fn failure(retailer: &Retailer, args: &[&str]) -> String {
    let report = retailer.once_with(args).exits(4).json();
    assert_sums(&report);
    assert_eq!(count(&report, "/members/total"), 10, "the members keep what they had: {report:#}");
    report["sources"]["pos"]["failed"].as_str().unwrap_or_else(|| panic!("{report:#}")).to_owned()
}

#[test]
fn a_new_column_comes_to_all_that_are_read_and_old_generations_do_without() {
    let mut retailer = Retailer::by_hand(&wider(&[]));
    retailer.once();
    retailer.write("pos.csv", &wider(&[("size", "38")]));
    let report = retailer.once();
    assert_eq!((count(&report, "/sources/pos/changed"), count(&report, "/members/changed")), (10, 10));
    assert_eq!(retailer.query("select count(size) as n from members"), [json!({ "n": 10 })]);
    retailer.json(&["rollback"]);
    retailer.run(&["query", "select size from members"]).exits(2).says(&["size"]);
    assert_eq!(retailer.query("select count(name) as n from members"), [json!({ "n": 10 })]);
    let explained = retailer.json(&["explain", "13800138001"]);
    let columns: Vec<&Value> =
        explained["members"][0]["columns"].as_array().expect("columns").iter().map(|column| &column["column"]).collect();
    assert!(!columns.contains(&&json!("size")), "{columns:?}");
    retailer.once();
    assert_eq!(retailer.query("select count(size) as n from members"), [json!({ "n": 10 })]);
    // Of an incremental source the rows that were read before have none until they are read again.
    let mut retailer = Retailer::by_hand("");
    retailer.edit_config("mode = \"snapshot\"", "mode = \"incremental\"\nsweep = \"never\"");
    retailer.edit_config("path = \"pos.csv\"", "path = \"pos-*.csv\"");
    retailer.write("pos-1.csv", &wider(&[]));
    retailer.once();
    let some: Vec<String> = wider(&[("size", "38")]).lines().take(4).map(|line| format!("{line}\n")).collect();
    // The first of the files decides the columns.
    fs::remove_file(retailer.path("pos-1.csv")).expect("it is there");
    retailer.write("pos-2.csv", &some.concat());
    retailer.once();
    assert_eq!(retailer.query("select count(size) as n, count(*) as all from members"), [json!({ "n": 3, "all": 10 })]);
    retailer.write("pos-1.csv", &wider(&[("size", "39")]));
    retailer.once_with(&["--sweep", "pos"]).exits(0);
    assert_eq!(retailer.query("select count(size) as n from members"), [json!({ "n": 10 })]);
}

#[test]
fn a_column_that_is_gone_stops_its_source_until_that_is_accepted() {
    let mut retailer = Retailer::by_hand(&wider(&[("size", "38"), ("do_not_contact", "true"), ("colour", "red")]));
    retailer.once();
    assert_eq!(retailer.query("select count(*) as n from members where do_not_contact"), [json!({ "n": 10 })]);
    // Nobody may be contacted because an export forgot a column.
    retailer.write("pos.csv", &wider(&[("size", "38"), ("colour", "red")]));
    let said = failure(&retailer, &[]);
    assert!(said.contains("it has no column `do_not_contact` any more") && said.contains("--accept pos"), "{said}");
    let ids = wider(&[("size", "38"), ("do_not_contact", "true"), ("colour", "red")]).replacen("record_id", "recordid", 1);
    retailer.write("pos.csv", &ids.replacen("do_not_contact", "contact", 1));
    assert!(failure(&retailer, &[]).contains("no columns `do_not_contact`, `record_id` any more"));
    retailer.write("pos.csv", &wider(&[("size", "38")]));
    assert!(failure(&retailer, &[]).contains("no column `do_not_contact` any more"));
    assert_eq!(retailer.query("select count(*) as n from members where do_not_contact"), [json!({ "n": 10 })]);
    // It was meant so.
    let report = retailer.once_with(&["--accept", "pos"]).exits(0).json();
    assert_eq!(report["accepted"], json!(["pos"]), "{report:#}");
    assert_eq!(report["notes"][0], "the source pos has no longer: colour, do_not_contact", "{report:#}");
    retailer.run(&["query", "select colour from members"]).exits(2).says(&["colour"]);
    assert_eq!(retailer.query("select count(size) as n from members"), [json!({ "n": 10 })]);
    assert_eq!(count(&retailer.once(), "/sources/pos/unchanged"), 10, "accepted once is accepted");
    // The generation before still has it, and tells of it by the rules of then.
    retailer.json(&["rollback", "--to", "3"]);
    assert_eq!(retailer.query("select count(colour) as n from members"), [json!({ "n": 10 })]);
    assert!(retailer.run(&["explain", "13800138001"]).exits(0).stdout.contains("do_not_contact = true"));
    assert!(failure(&retailer, &[]).contains("do_not_contact"), "what was accepted went back with the rest");
    // One that nobody has made use of comes and goes; one that a rule names does not.
    let mut retailer = Retailer::by_hand(&wider(&[("colour", "red"), ("size", "38")]));
    retailer.edit_config("[campaigns.warm-add]", "[tags.large]\nwhen = \"size > '36'\"\n[campaigns.warm-add]");
    retailer.once();
    retailer.write("pos.csv", &wider(&[("size", "38")]));
    assert_eq!(retailer.once()["notes"][0], "the source pos has no longer: colour");
    retailer.write("pos.csv", &wider(&[]));
    assert!(failure(&retailer, &[]).contains("no column `size` any more"));
    retailer.once_with(&["--accept", "pos"]).exits(2).says(&["there is no column `size`", "reunion.toml"]);
    retailer.edit_config("[tags.large]\nwhen = \"size > '36'\"\n", "");
    retailer.once();
}

#[test]
fn a_column_keeps_its_type_though_it_was_gone_meanwhile() {
    let mut retailer = Retailer::by_hand(&wider(&[("size", "38")]));
    retailer.edit_config("[sources.pos.with]", "[sources.pos.columns]\nsize = { from = \"size\", type = \"integer\" }\n[sources.pos.with]");
    retailer.once();
    retailer.write("pos.csv", &wider(&[]));
    retailer.edit_config("[sources.pos.columns]\nsize = { from = \"size\", type = \"integer\" }\n", "");
    retailer.once_with(&["--accept", "pos"]).exits(0);
    retailer.write("pos.csv", &wider(&[("size", "L")]));
    let said = failure(&retailer, &[]);
    assert!(said.contains("`size` is text now and was integer before") && said.contains("type = \"integer\""), "{said}");
    assert_eq!(retailer.query("select count(*) as n from records"), [json!({ "n": 10 })]);
    retailer.edit_config("[sources.pos.with]", "[sources.pos.columns]\nshirt = \"size\"\n[sources.pos.with]");
    retailer.once();
    assert_eq!(retailer.query("select distinct shirt from members"), [json!({ "shirt": "L" })]);
}

#[test]
fn a_column_may_be_renamed_in_the_config() {
    let mut retailer = Retailer::by_hand(&wider(&[("size", "38")]));
    retailer.edit_config("[sources.pos.with]", "[sources.pos.columns]\nshoe_size = \"size\"\n[sources.pos.with]");
    retailer.once();
    retailer.edit_config("shoe_size", "shoes");
    let report = retailer.once();
    assert_eq!(count(&report, "/sources/pos/changed"), 10);
    assert_eq!(retailer.query("select distinct shoes from members"), [json!({ "shoes": "38" })]);
    retailer.run(&["query", "select shoe_size from members"]).exits(2);
    retailer.json(&["rollback"]);
    assert_eq!(retailer.query("select distinct shoe_size from members"), [json!({ "shoe_size": "38" })]);
    retailer.once();
    assert_eq!(retailer.query("select distinct shoes from members"), [json!({ "shoes": "38" })]);
}

#[test]
fn types_of_rows_that_wait_are_fixed_and_those_of_half_a_pull_are_not() {
    // A rollback leaves rows that wait, with a column that the generation does not have.
    let mut retailer = Retailer::by_hand(&wider(&[]));
    retailer.once();
    retailer.write("pos.csv", &wider(&[("size", "38")]));
    let typed = "[sources.pos.columns]\nsize = { from = \"size\", type = \"integer\" }\n[sources.pos.with]";
    retailer.edit_config("[sources.pos.with]", typed);
    retailer.once();
    retailer.json(&["rollback"]);
    retailer.edit_config("type = \"integer\"", "type = \"text\"");
    let said = failure(&retailer, &[]);
    assert!(said.contains("`size` is text now and was integer before"), "{said}");
    retailer.edit_config("type = \"text\"", "type = \"integer\"");
    retailer.once();
    assert_eq!(retailer.query("select distinct size from members"), [json!({ "size": 38 })]);
    // What a pull read before it broke off is read anew where it would have other columns now. No row of it is in a
    // generation, so its types are not fixed either.
    for (from, to, expected) in
        [("type = \"integer\"", "type = \"text\"", json!({ "value": "0" })), ("visits", "orders", json!({ "value": 0 }))]
    {
        let mut retailer = Retailer::new(&format!("{OPENING}{BREAKS_OFF}"));
        let report = retailer.once_with(&[]).exits(4).json();
        assert!(report["sources"]["pos"]["failed"].is_string(), "{report:#}");
        retailer.edit_config(from, to);
        retailer.edit_config("do = \"panic\"\nat = \"item\"\nafter_rows = 50\n", "");
        let report = retailer.once();
        assert_eq!(count(&report, "/sources/pos/new"), 100, "{report:#}");
        let column = if to == "orders" { to } else { "visits" };
        let values = retailer.query(&format!("select distinct {column} as value from members order by 1"));
        assert_eq!((values.len(), &values[0]), (10, &expected), "{values:?}");
    }
}

/// A source that breaks off after rows that were committed.
const BREAKS_OFF: &str = r#"[limits]
commit_secs = 0
[sources.pos]
plugin = "misbehaving"
max_age_hours = 8784
columns = { visits = { from = "order_count", type = "integer" } }
[sources.pos.with]
rows = 100
batch_rows = 10
batches_per_state = 1
do = "panic"
at = "item"
after_rows = 50
[pipelines.daily]
sources = ["pos"]
"#;

const DATABASE: &str = r#"[sources.erp]
plugin = "sql"
mode = "snapshot"
max_age_hours = 8784
deleted_share_max = 1.0
columns = { record_id = "card", phone = "mobile", updated_at = "changed" }
[sources.erp.with]
file = "erp.db"
query = "select * from member"
id_column = "card"
[sources.pos]
plugin = "file"
[sources.pos.with]
path = "pos.csv"
settle_secs = 0
[identity.survivorship]
size = "max"
[pipelines.daily]
sources = ["erp", "pos"]
"#;

#[path = "../../plugins/sources/sql/tests/common/database.rs"]
#[allow(dead_code, reason = "the plugin's own tests need more of it")]
mod database;

#[test]
fn a_table_that_changes_stops_its_source_alone_and_says_how() {
    let mut retailer = Retailer::new(&format!("{OPENING}{DATABASE}"));
    retailer.write("pos.csv", &export([row("P1", "13800138100", "丁", "S1")]));
    let execute = |sql: &str| database::Database::Sqlite { path: retailer.path("erp.db"), _folder: None }.execute(sql);
    let table = |columns: &str, values: &str| {
        execute("drop table if exists member");
        execute(&format!("create table member (card text primary key, mobile text, name text, changed text{columns})"));
        let rows = (0..10).map(|at| format!("('C{at}', '1380013{:04}', '甲', '2026-03-01 10:00:00'{values})", 8000 + at));
        execute(&format!("insert into member values {}", rows.collect::<Vec<_>>().join(", ")));
    };
    let failed = |args: &[&str]| {
        let report = retailer.once_with(args).exits(4).json();
        assert!(report["sources"]["pos"]["failed"].is_null(), "{report:#}");
        assert_eq!(count(&report, "/members/total"), 11, "{report:#}");
        report["sources"]["erp"]["failed"].as_str().unwrap_or_else(|| panic!("{report:#}")).to_owned()
    };
    let sizes = || retailer.query("select distinct size from members where size is not null");
    table("", "");
    retailer.once();
    table(", size integer", ", 38");
    retailer.once();
    assert_eq!(sizes(), [json!({ "size": 38 })]);
    table(", size text", ", 'L'");
    let said = failed(&[]);
    assert!(said.contains("`size` is text now and was integer before") && said.contains("type = \"integer\""), "{said}");
    assert_eq!(sizes(), [json!({ "size": 38 })], "what it held stays");
    table("", "");
    let said = failed(&[]);
    assert!(said.contains("it has no column `size` any more") && said.contains("--accept erp"), "{said}");
    retailer.once_with(&["--accept", "erp"]).exits(0);
    retailer.run(&["query", "select size from members"]).exits(2);
    table(", size text", ", 'L'");
    assert!(failed(&[]).contains("`size` is text now and was integer before"));
    table(", size integer", ", 40");
    retailer.once();
    assert_eq!(sizes(), [json!({ "size": 40 })]);
    retailer.json(&["rollback"]);
    retailer.run(&["query", "select size from members"]).exits(2);
    assert_eq!(retailer.query("select count(*) as n from members"), [json!({ "n": 11 })]);
}

#[test]
fn rules_of_survivorship_decide_and_are_explained_by_the_generation_that_they_made() {
    let (retailer, made) = {
        let plan = Plan { rows: 600, seed: 3, stores: 3, changed: 0.0, unreadable: false };
        (Retailer::generated(&plan).0, make(&plan))
    };
    let mut retailer = retailer;
    assert!(!made.truth.is_empty());
    retailer.once();
    // Somebody who is in both exports under different names or stores.
    let differing = "select t.member_id, t.store as till, s.store as shop from records t join records s on t.member_id = s.member_id \
         where t.source = 'till' and s.source = 'shop' and t.store <> s.store and t.store is not null and s.store is not null \
         and (select count(*) from records r where r.member_id = t.member_id) = 2 order by 1 limit 1";
    let pair = retailer.query(differing).pop().expect("someone differs");
    let id = pair["member_id"].as_str().expect("an id").to_owned();
    let store = |retailer: &Retailer| {
        let explained = retailer.json(&["explain", &id]);
        let columns = explained["members"][0]["columns"].as_array().expect("columns").clone();
        let column = columns.into_iter().find(|column| column["column"] == "store").expect("a store");
        let stored = retailer.query(&format!("select store from members where member_id = '{id}'"));
        assert!(stored[0]["store"] == column["value"], "{stored:?} {column:#}");
        column
    };
    for (order, expected) in [("\"shop\", \"till\"", "shop"), ("\"till\"", "till")] {
        let rule = format!("[identity.survivorship]\nstore = {{ rule = \"source_priority\", sources = [{order}] }}\n\n[tags.dormant]");
        retailer.edit_config("[tags.dormant]", &rule);
        let before = store(&retailer);
        let report = retailer.once();
        assert!(count(&report, "/members/changed") > 0, "no row changed, and the rule did: {report:#}");
        let column = store(&retailer);
        assert_eq!((&column["value"], &column["rule"]), (&pair[expected], &json!("source_priority")), "{column:#}");
        assert_eq!(column["from"][0]["source"], expected);
        // The generation before is told of by its own rules.
        retailer.json(&["rollback"]);
        assert_eq!(store(&retailer), before);
        retailer.once();
        let text = retailer.run(&["explain", &id]).exits(0).stdout;
        assert!(text.contains(&format!("(source_priority {} of {expected} ", order.replace('"', ""))), "{text}");
        retailer.edit_config(&rule, "[tags.dormant]");
    }
    // A source that is renamed is believed as much as before, and nothing is worked out anew.
    let rule = "[identity.survivorship]\nstore = { rule = \"source_priority\", sources = [\"till\"] }\n\n[tags.dormant]";
    retailer.edit_config("[tags.dormant]", rule);
    retailer.edit_config("till]", "kasse]");
    retailer.edit_config("sources.till.", "sources.kasse.");
    retailer.edit_config("\"till\"", "\"kasse\"");
    retailer.json(&["sources", "rename", "till", "kasse"]);
    assert_eq!(count(&retailer.once(), "/members/changed"), 0);
    let column = store(&retailer);
    assert_eq!((&column["sources"], &column["from"][0]["source"]), (&json!(["kasse"]), &json!("kasse")), "{column:#}");
}

const TWO_EXPORTS: &str = r#"[sources.crm]
plugin = "file"
max_age_hours = 8784
with = { path = "crm.csv", settle_secs = 0 }
[sources.pos]
plugin = "file"
max_age_hours = 8784
with = { path = "pos.csv", settle_secs = 0 }
[identity]
keys = ["phone", "unionid"]
[identity.survivorship]
name = { rule = "source_priority", sources = ["crm", "pos"] }
store = "most_frequent"
labels = { rule = "union", separator = "、" }
may_mail = "most_restrictive"
points = "sum"
[pipelines.daily]
sources = ["crm", "pos"]
"#;

#[test]
fn every_value_is_explained_as_text_and_as_json() {
    let mut retailer = Retailer::new(&format!("{OPENING}{TWO_EXPORTS}"));
    let crm = "record_id,phone,name,store,updated_at,labels,may_mail,points,unionid,open_complaint\n\
        K1,13800138001,王小明,S1,2025-12-02T03:04:05Z,老客、vip,granted,999999999999999.99,u1,false\n";
    let pos = "record_id,phone,name,store,updated_at,labels,may_mail,points,unionid,open_complaint\n\
        C1,13800138001,小明,S2,2026-03-04T05:06:07Z,vip,,999999999999999.99,,true\n\
        C2,13800138002,小明,S2,2026-02-04T05:06:07Z,,withdrawn,9999999999999999.99,u1,true\n\
        C3,13800138002,,S1,,,unknown,,,\n";
    retailer.write("crm.csv", crm);
    retailer.write("pos.csv", pos);
    let report = retailer.once();
    let notes = report["notes"].as_array().expect("notes").iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(notes.contains(&"1 members have no points: made of all their rows it would be too large"), "{notes:?}");
    let text = retailer.run(&["explain", "13800138001"]).exits(0).stdout;
    let member = text.split("\n\n").nth(1).expect("a member").trim_end();
    insta::assert_snapshot!(member, @r#"
    member 8b37b9f973abcbf8928e16492b4b3416, made of 4 rows
      row C1 of pos, updated 2026-03-04T05:06:07Z, joined by phone 138****8001
      row C2 of pos, updated 2026-02-04T05:06:07Z, joined by phone 138****8002 and unionid u****
      row K1 of crm, updated 2025-12-02T03:04:05Z, joined by phone 138****8001 and unionid u****
      row C3 of pos, joined by phone 138****8002
      name = 王****  (source_priority crm, pos of crm K1, 2025-12-02T03:04:05Z)
      store = S2  (most_frequent of pos C1, 2026-03-04T05:06:07Z; pos C2, 2026-02-04T05:06:07Z)
      points = none, since it would be too large for the column  (sum of pos C1, 2026-03-04T05:06:07Z; pos C2, 2026-02-04T05:06:07Z; crm K1, 2025-12-02T03:04:05Z)
      updated_at = 2026-03-04T05:06:07Z  (max of pos C1, 2026-03-04T05:06:07Z)
      open_complaint = true  (any of pos C1, 2026-03-04T05:06:07Z; pos C2, 2026-02-04T05:06:07Z)
      labels = v****  (union of pos C1, 2026-03-04T05:06:07Z; crm K1, 2025-12-02T03:04:05Z)
      may_mail = w****  (most_restrictive of pos C2, 2026-02-04T05:06:07Z)
      unionid = u****  (most_recent of pos C2, 2026-02-04T05:06:07Z)
    "#);
    let json = retailer.json(&["explain", "13800138001"]);
    let lines = |what: &str| {
        let documents = json["members"][0][what].as_array().expect("a list").iter();
        documents.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(lines("rows"), @r#"
    {"joined_by":[{"columns":["phone"],"rows":2,"values":["138****8001"]}],"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"}
    {"joined_by":[{"columns":["phone"],"rows":2,"values":["138****8002"]},{"columns":["unionid"],"rows":2,"values":["u****"]}],"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"}
    {"joined_by":[{"columns":["phone"],"rows":2,"values":["138****8001"]},{"columns":["unionid"],"rows":2,"values":["u****"]}],"record_id":"K1","source":"crm","updated_at":"2025-12-02T03:04:05Z"}
    {"joined_by":[{"columns":["phone"],"rows":2,"values":["138****8002"]}],"record_id":"C3","source":"pos","updated_at":null}
    "#);
    insta::assert_snapshot!(lines("columns"), @r#"
    {"column":"name","from":[{"record_id":"K1","source":"crm","updated_at":"2025-12-02T03:04:05Z"}],"rule":"source_priority","sources":["crm","pos"],"value":"王****"}
    {"column":"store","from":[{"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"},{"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"}],"rule":"most_frequent","value":"S2"}
    {"column":"points","from":[{"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"},{"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"},{"record_id":"K1","source":"crm","updated_at":"2025-12-02T03:04:05Z"}],"rule":"sum","too_large":true,"value":null}
    {"column":"updated_at","from":[{"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"}],"rule":"max","value":"2026-03-04T05:06:07Z"}
    {"column":"open_complaint","from":[{"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"},{"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"}],"rule":"any","value":"true"}
    {"column":"labels","from":[{"record_id":"C1","source":"pos","updated_at":"2026-03-04T05:06:07Z"},{"record_id":"K1","source":"crm","updated_at":"2025-12-02T03:04:05Z"}],"rule":"union","separator":"、","value":"v****"}
    {"column":"may_mail","from":[{"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"}],"rule":"most_restrictive","value":"w****"}
    {"column":"unionid","from":[{"record_id":"C2","source":"pos","updated_at":"2026-02-04T05:06:07Z"}],"rule":"most_recent","value":"u****"}
    "#);
}
