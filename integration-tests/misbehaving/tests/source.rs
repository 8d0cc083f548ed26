//! The source: well-behaved through the host, and what the host refuses of it in process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::thread;

use serde_json::{Value, json};

use reunion_host::{CallOptions, LoadError, Plugins};
use reunion_misbehaving::{Deed, Misbehaviour, PHONE};
use reunion_sdk::{ErrorClass, Item, PluginKind, ReadRequest};

use support::{FRESH, RESUME, folder, ids, read, source, states};

fn row_ids(rows: std::ops::Range<usize>) -> Vec<String> {
    rows.map(|row| format!("r{row}")).collect()
}

#[test]
fn without_a_command_it_is_well_behaved() {
    let config = json!({"rows": 95, "batch_rows": 10, "batches_per_state": 3});
    let (items, error) = read(&config, &FRESH, None);
    assert_eq!((ids(&items), error), (row_ids(0..95), None));
    assert_eq!(
        (items.first(), states(&items)),
        (Some(&Item::Begin { resumed: false }), vec![&json!({"row": 30}), &json!({"row": 60}), &json!({"row": 90})])
    );
    assert!(matches!(items.last(), Some(Item::End { .. })));

    let (rest, error) = read(&config, &RESUME, Some(&json!({"row": 60})));
    assert_eq!((rest.first(), ids(&rest), error), (Some(&Item::Begin { resumed: true }), row_ids(60..95), None));
    let (anew, _) = read(&config, &RESUME, Some(&json!({"row": 1_000})));
    assert_eq!((anew.first(), ids(&anew).len()), (Some(&Item::Begin { resumed: false }), 95), "a state of other data");

    let source = source(&config).unwrap();
    assert_eq!(source.check(&CallOptions::default()), Ok(Vec::new()));
    let Item::Batch(batch) = &items[1] else { panic!("rows after the begin marker") };
    assert_eq!(source.schema(&CallOptions::default()).unwrap(), batch.schema());
}

#[test]
fn a_slow_read_is_cancelled() {
    let source = source(&json!({"rows": 10, "batch_wait_ms": 600_000})).unwrap();
    let mut stream = source.read(&CallOptions::default(), &FRESH, None).unwrap();
    assert_eq!(stream.next(), Ok(Some(Item::Begin { resumed: false })));
    let canceller = source.canceller();
    let waiting = thread::spawn(move || stream.next());
    canceller.cancel();
    assert_eq!(waiting.join().unwrap().unwrap_err().class, ErrorClass::Cancelled);
}

/// Those that end no process and are seen at the boundary, and what is said of each.
const REFUSED: &[(&str, &str)] = &[
    ("garbage_length_negative", "a length or an offset that is negative or too large"),
    ("garbage_length_huge", "a length or an offset that is negative or too large"),
    ("garbage_types", "The datatype \"Int64\" expects 2 buffers"),
    ("garbage_children", "another number of columns than its schema"),
    ("garbage_null_buffers", "buffer at position 1 is null"),
    ("garbage_no_buffers", "the Arrow data cannot be read"),
    ("garbage_offsets", "of Utf8 is larger than values length 0"),
    ("garbage_offsets_negative", "Error converting offset[0] (-5) to usize"),
    ("garbage_offsets_range", "the column `record_id` is not valid"),
    ("garbage_utf8", "the column `record_id` is not valid"),
    ("released_array", "the Arrow struct was not filled in"),
    ("too_many_rows", "a batch of 8193 rows, and 8192 are the limit"),
    ("too_many_bytes", "bytes, and 67108864 are the limit"),
    ("begin_twice", "a begin marker that is not the first item of a read"),
    ("huge_state", "the state has 2097"),
    ("unchanged", "that nothing has changed, where it was asked for all rows"),
];

/// Those after which nobody can go on in this process: a test of their own runs them in another one.
const FATAL: &[&str] = &["garbage_length", "garbage_offsets_end"];

#[test]
fn what_is_garbage_is_refused_at_the_item_that_was_told() {
    for (name, rule) in REFUSED {
        let config = json!({"rows": 40, "batch_rows": 10, "do": name, "at": "item", "after_rows": 25});
        let (items, error) = read(&config, &FRESH, None);
        let error = error.unwrap_or_else(|| panic!("{name} is taken"));
        assert_eq!((ids(&items), error.class), (row_ids(0..25), ErrorClass::Internal), "{name}");
        assert!(error.message.starts_with("the source plugin misbehaving 0.1.0 broke the contract: "), "{name}: {error}");
        assert!(error.message.contains(rule), "{name}: {error}");
    }
}

#[test]
fn no_garbage_is_forgotten() {
    let is_tried = |name: &str| REFUSED.iter().any(|(tried, _)| *tried == name) || FATAL.contains(&name);
    let at_items = Misbehaviour::of(PluginKind::Source).filter(|one| matches!(one.deed, Deed::Items(..)));
    let forgotten: Vec<_> = at_items.map(|one| one.name).filter(|name| !is_tried(name)).collect();
    assert_eq!(forgotten, ["no_begin", "double_end", "item_after_end"], "each has a test of its own");
}

#[test]
fn streams_that_are_none_are_refused() {
    for name in ["released_stream", "stream_without_next"] {
        let (items, error) = read(&json!({"rows": 5, "do": name, "at": "read"}), &FRESH, None);
        let error = error.unwrap();
        assert_eq!(items, []);
        assert!(error.message.ends_with("read answered ok without a stream"), "{name}: {error}");
    }
}

#[test]
fn a_read_must_begin_and_what_follows_its_end_is_not_asked_for() {
    let (items, error) = read(&json!({"rows": 5, "do": "no_begin", "at": "item"}), &FRESH, None);
    assert!(items.is_empty() && error.unwrap().message.ends_with("a read that does not begin with its begin marker"));
    for name in ["double_end", "item_after_end"] {
        let (items, error) = read(&json!({"rows": 5, "do": name, "at": "end"}), &FRESH, None);
        assert_eq!((ids(&items), error), (row_ids(0..5), None), "{name}");
    }
}

#[test]
fn that_nothing_changed_is_said_instead_of_rows_and_not_after_them() {
    let told = |after_rows: usize| json!({"rows": 40, "batch_rows": 10, "do": "unchanged", "at": "item", "after_rows": after_rows});
    let request = ReadRequest { may_be_unchanged: true, ..FRESH };
    let (items, error) = read(&told(0), &request, Some(&json!({"row": 40})));
    assert_eq!((items, error), (vec![Item::Begin { resumed: false }, Item::Unchanged { as_of_us: None }], None));
    let (items, error) = read(&told(25), &request, Some(&json!({"row": 40})));
    assert_eq!(ids(&items), row_ids(0..25));
    assert!(error.unwrap().message.ends_with("rows, and then that nothing has changed"));
    // Nor of a read that goes on: the host has not the rest.
    let (items, error) = read(&told(0), &ReadRequest { may_be_unchanged: true, ..RESUME }, Some(&json!({"row": 20})));
    assert_eq!(items, [Item::Begin { resumed: true }]);
    assert!(error.unwrap().message.ends_with("rows, and then that nothing has changed"));
}

#[test]
fn a_panic_and_an_error_come_where_they_were_told() {
    for at in ["create", "check", "schema", "read", "item", "end"] {
        for (name, class) in [("panic", ErrorClass::Internal), ("huge_error", ErrorClass::InvalidData)] {
            let source = source(&json!({"rows": 40, "batch_rows": 10, "do": name, "at": at, "after_rows": 25}));
            let options = CallOptions::default();
            let stage = |source: &dyn reunion_host::SourceConnector| match at {
                "check" => source.check(&options).map(drop),
                "schema" => source.schema(&options).map(drop),
                _ => {
                    let mut stream = source.read(&options, &FRESH, None)?;
                    while stream.next()?.is_some() {}
                    Ok(())
                }
            };
            let error = source.and_then(|source| stage(source.as_ref())).unwrap_err();
            assert_eq!(error.class, class, "{name} at {at}: {error}");
            assert!(error.message.len() < 5_000 && !error.to_string().contains(PHONE) && !error.message.contains('\n'), "{name} at {at}");
        }
    }
}

#[test]
fn what_is_done_when_it_is_let_go_of_reaches_nobody() {
    assert_eq!(read(&json!({"rows": 5, "do": "panic", "at": "destroy"}), &FRESH, None).1, None);
    let told = json!({"rows": 5, "do": "panic", "at": "release"});
    let source = source(&told).unwrap();
    drop(source.read(&CallOptions::default(), &FRESH, None).unwrap());
    assert_eq!(source.check(&CallOptions::default()).unwrap_err().class, ErrorClass::Internal, "and nothing later");
    // What a read has open is let go of with its end marker.
    let (items, error) = read(&told, &FRESH, None);
    assert_eq!((ids(&items).len(), error.unwrap().class), (5, ErrorClass::Internal));
}

#[test]
fn what_leaks_goes_on() {
    for name in ["leak", "leak_threads", "phone_in_log"] {
        let (items, error) = read(&json!({"rows": 30, "batch_rows": 10, "do": name, "at": "item"}), &FRESH, None);
        assert_eq!((ids(&items).len(), error), (30, None), "{name}");
    }
}

#[test]
fn it_misbehaves_once_where_it_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("once");
    let config = json!({"rows": 30, "batch_rows": 10, "do": "panic", "at": "item", "after_rows": 10, "once_file": once});
    let (items, error) = read(&config, &FRESH, None);
    assert_eq!((ids(&items).len(), error.unwrap().message.as_str(), once.exists()), (10, "panicked: told to panic", true));
    assert_eq!(read(&config, &FRESH, None).1, None, "the file is there");

    let nowhere = json!({"rows": 30, "do": "panic", "at": "item", "once_file": folder.path().join("nowhere/once")});
    let error = read(&nowhere, &FRESH, None).1.unwrap();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::Internal, Some("once_file")), "{error}");
}

#[test]
fn a_row_that_ends_it_ends_a_read_that_goes_on_too() {
    let config = json!({"rows": 50, "batch_rows": 10, "batches_per_state": 1, "do": "panic", "at": "item", "after_rows": 35});
    let (items, error) = read(&config, &FRESH, None);
    assert_eq!((ids(&items), states(&items).last().copied(), error.is_some()), (row_ids(0..35), Some(&json!({"row": 30})), true));
    let (items, error) = read(&config, &RESUME, Some(&json!({"row": 30})));
    assert_eq!((ids(&items), error.is_some()), (row_ids(30..35), true));
}

#[test]
fn calls_are_counted_and_those_of_a_dry_run_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counter");
    let source = source(&json!({"rows": 5, "counter_file": file})).unwrap();
    let [real, dry] = [false, true].map(|dry_run| CallOptions { dry_run, ..CallOptions::default() });
    source.check(&dry).unwrap();
    assert!(!file.exists());
    source.check(&real).unwrap();
    source.schema(&real).unwrap();
    drop(source.read(&real, &FRESH, None).unwrap());
    assert_eq!(fs::read_to_string(file).unwrap(), "call check\ncall schema\ncall read\n");
}

#[test]
fn what_cannot_be_done_there_is_refused() {
    for (config, key) in [
        (json!({"rows": 1, "do": "panic"}), "at"),
        (json!({"rows": 1, "at": "item"}), "do"),
        (json!({"rows": 1, "do": "garbage_utf8", "at": "read"}), "at"),
        (json!({"rows": 1, "do": "huge_error", "at": "destroy"}), "at"),
        (json!({"rows": 1, "do": "missing_receipts", "at": "item"}), "do"),
        (json!({"rows": 1, "do": "panic", "at": "receipt"}), "at"),
        (json!({"rows": 1, "do": "nothing", "at": "item"}), "do"),
    ] {
        let error = source(&config).err().unwrap();
        assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some(key)), "{config}: {error}");
    }
}

#[test]
fn what_is_told_beside_the_library_comes_before_any_config() {
    let apart = tempfile::tempdir().unwrap();
    let name = "libreunion_source_misbehaving.so";
    fs::copy(folder().join(name), apart.path().join(name)).unwrap();
    fs::write(apart.path().join("misbehave"), "panic").unwrap();
    let plugins = Plugins::new(vec![apart.path().into()]);
    let error = plugins.find(PluginKind::Source, "misbehaving").unwrap_err();
    assert!(matches!(error, LoadError::Manifest { .. }), "{error}");
    fs::remove_file(apart.path().join("misbehave")).unwrap();
    let plugin = plugins.find(PluginKind::Source, "misbehaving").unwrap();
    assert_eq!(plugin.manifest().config_schema["properties"]["once_file"]["access"], Value::from("write"));
    assert!(plugin.manifest().needs.is_none());
}
