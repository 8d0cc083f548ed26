//! The plugin as the host sees it: files in, items out.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Pulled, begin, error, lines, pull, read_with, snapshot, source, write};
use proptest::prelude::*;
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, ErrorClass, Item, ReadMode, ReadRequest, Source};
use reunion_source_file::FileSource;
use serde_json::{Value, json};

fn set_time(path: &Path, unix_secs: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_secs);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn files_of_a_pattern_are_one_source() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "b.csv", "name,extra,phone\n李四,x,13900001202\n");
    write(&folder, "a.csv", encoding_rs::GB18030.encode("phone,name\n13900001201,张三\nshort\n").0);
    write(&folder, "c.csv", "");
    set_time(&folder.path().join("a.csv"), 2000);
    set_time(&folder.path().join("b.csv"), 1000);
    set_time(&folder.path().join("c.csv"), 3000);
    let source = source(&folder, "*.csv", json!({}));
    let pulled = snapshot(&source).unwrap();
    assert_eq!(pulled.columns, ["phone", "name"]);
    let row = |phone: &str, name: &str| vec![Some(phone.to_owned()), Some(name.to_owned())];
    assert_eq!(pulled.rows, [row("13900001201", "张三"), row("13900001202", "李四")]);
    assert_eq!(pulled.rejected, ["a.csv:3 row_ragged"]);
    assert_eq!(pulled.as_of_us, Some(1_000_000_000), "as old as the oldest part");
    let findings = source.check(&Call::for_tests()).unwrap();
    assert_eq!(findings[0].message, "b.csv: the column \"extra\" is not in the first file, and is not read");
    assert_eq!(source.schema(&Call::for_tests()).unwrap().fields().len(), 2);
}

#[test]
fn a_file_that_lacks_a_column_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.csv", "phone,name\n1,x\n");
    write(&folder, "b.csv", "name\n,李四\n");
    let source = source(&folder, "*.csv", json!({}));
    let error = snapshot(&source).expect_err("no phone");
    assert_eq!(error.message, "b.csv has no column \"phone\", which the first file has");
    assert_eq!(source.check(&Call::for_tests()).unwrap_err(), error);
}

#[test]
fn nothing_to_read_is_an_empty_source() {
    let folder = tempfile::tempdir().unwrap();
    let pulled = snapshot(&source(&folder, "*.csv", json!({}))).unwrap();
    assert_eq!((pulled.rows.len(), pulled.as_of_us), (0, None));
    write(&folder, "a.csv", "phone\n");
    let pulled = pull(&folder, "a.csv", json!({}));
    assert_eq!((pulled.rows.len(), pulled.as_of_us.is_some()), (0, true));
    assert!(error(&folder, "gone.csv", json!({})).starts_with("invalid data: "));
}

#[test]
fn incremental_reads_each_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder, "*.csv", json!({}));
    let next = |state| read_with(&source, ReadMode::Incremental, false, state).unwrap();
    write(&folder, "a.csv", "phone\n1\n");
    write(&folder, "b.csv", "phone\n2\n");
    let first = next(None);
    assert_eq!(first.ids(), "1 2");
    let again = next(first.state);
    assert_eq!((again.ids(), again.as_of_us), (String::new(), None));
    write(&folder, "c.csv", "phone\n3\n");
    let third = next(again.state);
    assert_eq!(third.ids(), "3");
    fs::remove_file(folder.path().join("b.csv")).unwrap();
    write(&folder, "a.csv", "phone\n10\n");
    let fourth = next(third.state);
    assert_eq!(fourth.ids(), "10");
    write(&folder, "d.csv", "phone\n4\n");
    let mut items = begin(&source, ReadMode::Incremental, false, fourth.state.clone()).unwrap();
    assert!(items.any(|item| matches!(item.unwrap(), Item::Batch(_))));
    drop(items);
    assert_eq!(next(fourth.state).ids(), "4", "an interrupted pull has read nothing");
}

#[test]
fn after_a_sweep_only_new_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder, "*.csv", json!({}));
    write(&folder, "a.csv", "phone\n1\n");
    write(&folder, "b.csv", "phone\n2\n");
    let mut sweep = Pulled::default();
    for item in begin(&source, ReadMode::Snapshot, false, None).unwrap() {
        sweep.add(item.unwrap());
        // Both were listed; what goes once it was read needs no memory.
        if sweep.ids() == "1 2" {
            let _ = fs::remove_file(folder.path().join("b.csv"));
        }
    }
    assert!(sweep.ended);
    write(&folder, "c.csv", "phone\n3\n");
    assert_eq!(read_with(&source, ReadMode::Incremental, false, sweep.state).unwrap().ids(), "3");
}

#[test]
fn a_pull_goes_on_after_any_state_unless_what_was_read_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    // The first file is larger than four mebibytes, so that there is a state within it.
    let large: String = (0..120_000).map(|row| format!("{row:06},{:>60}\n", "x")).collect();
    write(&folder, "a.csv", "id,text\n".to_owned() + &large);
    write(&folder, "b.csv", "id,text\n200000,y\n\"broken\n");
    write(&folder, "c.csv", "id,text\n300000,z\n");
    let source = source(&folder, "*.csv", json!({}));
    for mode in [ReadMode::Snapshot, ReadMode::Incremental] {
        let (mut before, mut states) = (Pulled::default(), Vec::new());
        for item in begin(&source, mode, false, None).unwrap() {
            before.add(item.unwrap());
            if let Some(state) = before.state.take() {
                states.push((state, before.rows.len(), before.rejected.len()));
            }
        }
        assert!(states.len() >= 4, "{}", states.len());
        assert_eq!((before.rows.len(), before.rejected.len()), (120_002, 1));
        for (state, rows, rejected) in &states {
            let rest = read_with(&source, mode, true, Some(state.clone())).unwrap();
            assert!(rest.resumed);
            assert_eq!((rows + rest.rows.len(), rejected + rest.rejected.len()), (120_002, 1));
            assert_eq!(rest.as_of_us, before.as_of_us);
        }
        let another = if mode == ReadMode::Snapshot { ReadMode::Incremental } else { ReadMode::Snapshot };
        assert!(!read_with(&source, another, true, Some(states[0].0.clone())).unwrap().resumed);
        // One byte, of the same file size and time.
        let path = folder.path().join("a.csv");
        let time = path.metadata().unwrap().modified().unwrap();
        let changed = fs::read_to_string(&path).unwrap().replacen("x\n", "y\n", 1);
        fs::write(&path, changed).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let anew = read_with(&source, mode, true, Some(states[1].0.clone())).unwrap();
        assert_eq!((anew.resumed, anew.rows.len()), (false, 120_002));
    }
    let strange = read_with(&source, ReadMode::Snapshot, true, Some(json!({"version": 99}))).unwrap();
    assert!(!strange.resumed);
}

/// A read of everything that may find it unchanged since the one that this state is of.
fn again(source: &FileSource, state: &Value) -> Pulled {
    let request = ReadRequest { may_be_unchanged: true, ..ReadRequest::new(ReadMode::Snapshot) };
    let mut pulled = Pulled::default();
    for item in source.read(&Call::for_tests(), request, Some(state.clone())).unwrap() {
        pulled.add(item.unwrap());
    }
    assert!(pulled.ended && !pulled.resumed);
    pulled
}

#[test]
fn files_that_are_as_they_were_are_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("a.csv"), "id,text\n1,x\n\"broken\n");
    write(&folder, "a.csv", old);
    write(&folder, "b.csv", "");
    let files = source(&folder, "*.csv", json!({}));
    let state = snapshot(&files).unwrap().state.unwrap();
    let is_unchanged = |source: &FileSource, state: &Value| {
        let pulled = again(source, state);
        assert_eq!(pulled.unchanged, pulled.rows.is_empty() && pulled.state.is_none(), "all of it or nothing");
        pulled.unchanged
    };
    assert!(is_unchanged(&files, &state));
    // Written anew with what it had: as fresh as that.
    let new_year = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_798_761_600);
    for name in ["a.csv", "b.csv"] {
        fs::File::options().write(true).open(folder.path().join(name)).unwrap().set_modified(new_year).unwrap();
    }
    let written = again(&files, &state);
    assert_eq!((written.unchanged, written.as_of_us), (true, Some(1_798_761_600_000_000)));
    let moved = tempfile::tempdir().unwrap();
    for name in ["a.csv", "b.csv"] {
        fs::copy(folder.path().join(name), moved.path().join(name)).unwrap();
    }
    assert!(is_unchanged(&source(&moved, "*.csv", json!({})), &state), "wherever they lie");
    // Whoever is not asked sends all.
    assert_eq!(read_with(&files, ReadMode::Snapshot, false, Some(state.clone())).unwrap().ids(), "1");
    let incremental = read_with(&files, ReadMode::Incremental, false, None).unwrap().state.unwrap();
    assert!(!is_unchanged(&files, &incremental), "the state of another kind of read");
    assert!(!is_unchanged(&source(&folder, "*.csv", json!({"nulls": ["x"]})), &state), "read in another way");
    assert!(!is_unchanged(&files, &json!({"version": 99})));
    // One byte, of the same file size and time.
    write(&folder, "a.csv", old.replace('x', "y"));
    fs::File::options().write(true).open(&path).unwrap().set_modified(new_year).unwrap();
    assert!(!is_unchanged(&files, &state));
    write(&folder, "a.csv", old);
    assert!(is_unchanged(&files, &state));
    fs::rename(folder.path().join("b.csv"), folder.path().join("c.csv")).unwrap();
    assert!(!is_unchanged(&files, &state), "its rejected rows are shown under another name");
    fs::rename(folder.path().join("c.csv"), folder.path().join("b.csv")).unwrap();
    write(&folder, "c.csv", "");
    assert!(!is_unchanged(&files, &state), "one more");
    fs::remove_file(folder.path().join("c.csv")).unwrap();
    fs::remove_file(folder.path().join("b.csv")).unwrap();
    assert!(!is_unchanged(&files, &state), "one less");
}

#[test]
fn a_file_that_changes_under_the_read_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.csv", "id\n".to_owned() + &"1\n".repeat(1 << 20));
    let mut items = begin(&source(&folder, "a.csv", json!({})), ReadMode::Snapshot, false, None).unwrap();
    assert!(matches!(items.next(), Some(Ok(Item::Begin { resumed: false }))));
    assert!(matches!(items.next(), Some(Ok(Item::Batch(_)))));
    write(&folder, "a.csv", "id\n1\n");
    let error = items.find_map(Result::err).expect("it changed");
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Unavailable, "a.csv changed while it was being read"));
}

#[test]
fn cancel_ends_a_read() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.csv", "id\n".to_owned() + &"1\n".repeat(1 << 20));
    let (call, canceller) = TestCall::default().start();
    let request = ReadRequest::new(ReadMode::Snapshot);
    let mut items = source(&folder, "a.csv", json!({})).read(&call, request, None).unwrap();
    assert!(items.next().is_some());
    canceller.cancel();
    let error = items.find_map(Result::err).expect("cancelled");
    assert_eq!(error.class, ErrorClass::Cancelled);
}

#[test]
fn config_decides_how_text_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "a.txt", "1|NULL|\"x\n2||y\n");
    let with = json!({"delimiter": "|", "quotes": false, "nulls": ["NULL"], "header": "none", "columns": ["id", "a", "b"]});
    assert_eq!(lines(&pull(&folder, "a.txt", with)), ["1|-|\"x", "2|-|y"]);
    // The second byte of some characters of GBK is a vertical bar.
    write(&folder, "b.txt", encoding_rs::GB18030.encode("id|name\n1|髚\n2|张三\n").0);
    assert_eq!(pull(&folder, "b.txt", json!({"delimiter": "|"})).rows[0][1].as_deref(), Some("髚"));
}

/// Cells that try a reader: quotes, delimiters, line ends, Chinese, invisible characters.
fn cell() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![Just("\""), Just(","), Just("\n"), Just("\r\n"), Just(" "), Just("张"), Just("𠮷"), Just("é"), Just("a1"), Just("'")];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_written_is_read(
        rows in prop::collection::vec(prop::array::uniform3(cell()), 0..40), old in any::<bool>(), all_quoted in any::<bool>(), tabs in any::<bool>(),
    ) {
        let style = if all_quoted { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let delimiter = if tabs { b'\t' } else { b',' };
        let mut writer = csv::WriterBuilder::new().quote_style(style).delimiter(delimiter).from_writer(Vec::new());
        writer.write_record(["手机", "姓名", "备注"]).unwrap();
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let name = if tabs { "a.tsv" } else { "a.csv" };
        write(&folder, name, if old { encoding_rs::GB18030.encode(&text).0.into_owned() } else { text.into_bytes() });
        let pulled = snapshot(&source(&folder, name, json!({"encoding": if old { "gbk" } else { "auto" }}))).unwrap();
        let value = |cell: &String| (!cell.is_empty()).then(|| cell.clone());
        let expected: Vec<Vec<_>> = rows.iter().filter(|row| row.iter().any(|cell| !cell.is_empty())).map(|row| row.iter().map(value).collect()).collect();
        prop_assert_eq!(pulled.rows, expected);
        prop_assert_eq!(pulled.rejected, Vec::<String>::new());
    }
}

/// Rows per second of a file of one's own: `BENCH_FILE=/path/to.csv cargo test --release -p
/// reunion-source-file --test reading -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement shows its figures")]
fn speed() {
    let path = std::env::var("BENCH_FILE").expect("BENCH_FILE names a file");
    let config = serde_json::from_value(json!({"path": path, "settle_secs": 0})).unwrap();
    let source = FileSource::create("bench", config).unwrap();
    for _ in 0..5 {
        let began = std::time::Instant::now();
        let (mut rows, mut rejected) = (0, 0);
        for item in begin(&source, ReadMode::Snapshot, false, None).unwrap() {
            match item.unwrap() {
                Item::Batch(batch) => rows += batch.num_rows(),
                Item::Rejected(batch) => rejected += batch.num_rows(),
                _ => {}
            }
        }
        let secs = began.elapsed().as_secs_f64();
        println!("{rows} rows, {rejected} rejected in {secs:.3} s: {:.2} M rows/s", rows as f64 / secs / 1e6);
    }
}
