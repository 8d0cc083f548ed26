//! Segments: what is written is what is read, and nobody without the key reads anything.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow::array::RecordBatch;
use common::{State, contents, key, master, record_schema, records};
use reunion_generations::{GenerationError, People, SegmentFile, StateDir, open_or_create_keys};
use reunion_keys::{KeyRing, MasterKey};
use reunion_model::{PullId, RecordKey};

#[test]
fn rows_and_seen_keys_come_back_in_order() {
    let state = State::new();
    let seen: Vec<_> = (0..100_000).map(|number| RecordKey(key(number))).collect();
    let mut writer = state.people.segment("pos", PullId([1; 16]), 0, 4, record_schema()).unwrap();
    let rows: Vec<_> = (0..150_000).map(|number| (number, -(number as i64))).collect();
    for chunk in rows.chunks(8192) {
        writer.write(&records(chunk)).unwrap();
    }
    for chunk in seen.chunks(8192) {
        writer.seen(chunk).unwrap();
    }
    assert_eq!(writer.rows(), 250_000);
    let segment = writer.finish().unwrap();
    assert_eq!((segment.row_count(), segment.seen_count()), (150_000, 100_000));
    assert_eq!(serde_json::from_str::<SegmentFile>(&serde_json::to_string(&segment).unwrap()).unwrap(), segment);
    assert_eq!(state.people.read_seen(&segment).unwrap(), seen);

    let read: Vec<_> = state.people.read_segments(std::slice::from_ref(&segment), None).unwrap().map(Result::unwrap).collect();
    let starts: Vec<_> = read.iter().map(|part| (part.file, part.first_row)).collect();
    assert_eq!(starts, [(0, 0), (0, 32_768), (0, 65_536), (0, 98_304), (0, 131_072)]);
    let all = arrow::compute::concat_batches(read[0].batch.schema_ref(), read.iter().map(|part| &part.batch)).unwrap();
    assert_eq!(all, records(&rows));

    let asked = state.people.read_segments(&[segment], Some(&["value", "nothing", "record_key"])).unwrap();
    let names: Vec<_> = asked.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["value", "record_key"]);
    assert_eq!(contents(asked).len(), 150_000);
}

#[test]
fn some_rows_of_segments_are_read_in_full() {
    let state = State::new();
    let row = |number: u64| (number, number as i64);
    let numbers = |from: u64, count: u64| (from..from + count).map(row).collect::<Vec<_>>();
    let segments = [numbers(0, 70_000), numbers(100_000, 10), Vec::new(), numbers(200_000, 40_000)];
    let segments: Vec<_> = (0..).zip(&segments).map(|(seq, rows)| state.segment(1, seq, 4, rows)).collect();
    // In the first and the last row group of a segment, at their edges, in one of few rows; none of the empty segment.
    let wanted = [(0, vec![0, 32_767, 65_536, 69_999]), (1, vec![9]), (2, Vec::new()), (3, vec![32_768])].into();
    let read = state.people.read_segments_at(&segments, &wanted).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(read.iter().map(|part| part.file).collect::<Vec<_>>(), [0, 0, 1, 3]);
    let all = arrow::compute::concat_batches(read[0].batch.schema_ref(), read.iter().map(|part| &part.batch)).unwrap();
    let expected = [0, 32_767, 65_536, 69_999, 100_009, 232_768].map(row);
    assert_eq!(all, records(&expected));
    assert_eq!(state.people.read_segments_at(&segments, &[(3, Vec::new())].into()).unwrap().count(), 0);
}

#[test]
fn an_unfinished_segment_leaves_nothing() {
    let state = State::new();
    let mut writer = state.people.segment("pos", PullId([1; 16]), 0, 4, record_schema()).unwrap();
    writer.write(&records(&[(1, 1)])).unwrap();
    drop(writer);
    assert!(state.files().is_empty());
}

#[test]
fn an_empty_segment_has_no_files() {
    let state = State::new();
    let segment = state.people.segment("pos", PullId([1; 16]), 0, 4, record_schema()).unwrap().finish().unwrap();
    assert_eq!((segment.row_count(), segment.bytes()), (0, 0));
    assert_eq!(state.people.read_segments(&[segment], None).unwrap().count(), 0);
}

#[test]
fn no_phone_stands_in_any_file() {
    let state = State::new();
    let segment = state.segment(1, 0, 4, &(0..2_000).map(|number| (number, 0)).collect::<Vec<_>>());
    let writer = state.people.begin(1, 4, None).unwrap();
    writer.add_segment(&segment, &[]).unwrap();
    writer.delta("members", "record_key", [records(&[(5, 1)])]).unwrap();
    writer.finish(common::meta()).unwrap();
    assert_eq!(state.files().len(), 3);
    for file in state.files() {
        let bytes = std::fs::read(state.people.state().people().join(&file)).unwrap();
        for needle in [&b"1390000"[..], b"13800138000", b"phone"] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{file}");
        }
    }
}

#[test]
fn a_damaged_file_is_named() {
    let state = State::new();
    let segment = state.segment(1, 0, 4, &[(1, 1), (2, 2)]);
    let path = state.people.state().people().join(&segment.rows.as_ref().unwrap().path);
    let whole = std::fs::read(&path).unwrap();
    let read = || -> Result<Vec<RecordBatch>, GenerationError> {
        state.people.read_segments(std::slice::from_ref(&segment), None)?.map(|part| Ok(part?.batch)).collect()
    };
    let rows = read().unwrap();
    let mut unnoticed = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        match read() {
            Ok(read) => {
                assert_eq!(read, rows, "{at}: damage that is not noticed changes nothing");
                unnoticed += 1;
            }
            Err(error) => assert!(matches!(&error, GenerationError::FileDamaged { path: found, .. } if *found == path), "{at}: {error}"),
        }
    }
    assert!(unnoticed * 20 < whole.len(), "all but magic numbers and unused lengths is authenticated: {unnoticed} of {}", whole.len());
    for length in [0, 3, 30, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = read().unwrap_err();
        assert!(matches!(&error, GenerationError::FileDamaged { path: found, .. } if *found == path), "{length}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(read().unwrap_err().to_string().starts_with(&format!("cannot open {}", path.display())));
}

#[test]
fn another_key_reads_nothing() {
    let state = State::new();
    let segment = state.segment(1, 0, 4, &[(1, 1)]);
    let (other, _) = KeyRing::create(&master()).unwrap();
    let people = People::new(state.people.state().clone(), Arc::new(other));
    assert!(matches!(people.read_segments(&[segment], None), Err(GenerationError::FileDamaged { .. })));
}

#[test]
fn files_of_an_older_data_key_stay_readable() {
    let state = State::new();
    let old = state.segment(1, 0, 4, &[(1, 1)]);
    let mut ring = open_or_create_keys(state.people.state(), &master()).unwrap();
    ring.rotate().unwrap();
    let next = MasterKey::generate().unwrap();
    reunion_generations::store_keys(state.people.state(), &ring.wrap(&next).unwrap()).unwrap();
    let ring = open_or_create_keys(state.people.state(), &next).unwrap();
    let state = State { people: People::new(state.people.state().clone(), Arc::new(ring)), folder: state.folder };
    let new = state.segment(1, 1, 4, &[(2, 2)]);
    assert_eq!(contents(state.people.read_segments(&[old, new], None).unwrap()).len(), 2);
}

#[test]
fn a_folder_that_cannot_be_made_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("state"), b"").unwrap();
    let error = StateDir::create(folder.path().join("state")).unwrap_err();
    let text = error.to_string().replace(&folder.path().display().to_string(), "…");
    insta::assert_snapshot!(text, @"cannot create the folder …/state: a file has that name; choose another [state] dir");
}

#[test]
fn a_full_disk_is_told_from_a_fault_of_the_encoder() {
    // A device that is always full stands where the segment's temporary file goes.
    let state = State::new();
    let mut writer = state.people.segment("pos", PullId([1; 16]), 0, 4, record_schema()).unwrap();
    let folder = state.people.state().people().join("segments/pos");
    let temporary = folder.join(format!("{}-000000-f00000004.parquet.{}.tmp", PullId([1; 16]), std::process::id()));
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let error = writer.write(&records(&[(1, 1)])).and_then(|_| writer.finish()).unwrap_err();
    let text = error.to_string().replace(&folder.display().to_string(), "…").replace(&std::process::id().to_string(), "PID");
    insta::assert_snapshot!(text, @"cannot write …/01010101010101010101010101010101-000000-f00000004.parquet.PID.tmp: the disk is full; free some space and run again, nothing committed is lost");
}
