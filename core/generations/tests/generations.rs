//! Generations: overriding, removal and compaction against a plain map; pins, fences and damage.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use common::{State, contents, key, meta, records};
use proptest::prelude::*;
use reunion_generations::{Generation, GenerationError, GenerationRef, LiveSet, SegmentFile};

const TABLE: &str = "members";

/// Commits a generation that writes `rows` and removes `keys`.
fn commit(state: &State, number: u64, fence: u64, base: Option<&Generation>, rows: &[(u64, i64)], keys: &[u64]) -> GenerationRef {
    let writer = state.people.begin(number, fence, base).unwrap();
    writer.remove(TABLE, keys.iter().map(|number| key(*number))).unwrap();
    writer.delta(TABLE, "record_key", [records(rows)]).unwrap();
    writer.finish(meta()).unwrap().generation
}

fn live(head: &GenerationRef, keep: usize, segments: Vec<SegmentFile>) -> LiveSet {
    LiveSet { head: Some(head.clone()), keep, segments }
}

/// One generation's changes: keys to remove first, then rows to write, and whether they come as segments.
fn step() -> impl Strategy<Value = (BTreeSet<u64>, BTreeMap<u64, i64>)> {
    (prop::collection::btree_set(0..40_u64, 0..10), prop::collection::btree_map(0..40_u64, any::<i64>(), 0..25))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_map(steps in prop::collection::vec(step(), 1..12), keep in 1..3_usize) {
        let state = State::new();
        let mut model = BTreeMap::new();
        let mut base: Option<Generation> = None;
        for (at, (removed, rows)) in steps.iter().enumerate() {
            let number = at as u64 + 1;
            removed.iter().for_each(|number| { model.remove(&key(*number)); });
            model.extend(rows.iter().map(|(number, value)| (key(*number), *value)));
            let rows: Vec<_> = rows.iter().map(|(number, value)| (*number, *value)).collect();
            let keys: Vec<_> = removed.iter().copied().collect();
            let head = commit(&state, number, number, base.as_ref(), &rows, &keys);
            drop(base.take());
            state.people.remove_orphans(number + 1, &live(&head, keep, Vec::new())).unwrap();
            let generation = state.people.open(&head).unwrap();
            prop_assert_eq!(contents(generation.live(TABLE, None).unwrap()), model.clone());
            prop_assert!(generation.manifest().tables[TABLE].files.len() <= 33);
            prop_assert!(state.people.verify(&head).unwrap().damages.is_empty());
            prop_assert_eq!(state.people.history(&head, 10).unwrap().len(), keep.min(at + 1));
            base = Some(generation);
        }
    }

    /// Each pull has several segments, and of the rows with one key only the greatest value counts.
    #[test]
    fn records_do_not_depend_on_how_a_pull_was_cut(
        pulls in prop::collection::vec(prop::collection::vec((0..30_u64, 0..1000_i64), 1..40), 1..5),
        cut in 1..20_usize,
    ) {
        let state = State::new();
        let mut model = BTreeMap::new();
        let mut base: Option<Generation> = None;
        for (at, rows) in pulls.iter().enumerate() {
            let number = at as u64 + 1;
            let mut winners: BTreeMap<u64, (usize, i64)> = BTreeMap::new();
            for (row, (number, value)) in rows.iter().enumerate() {
                let winner = winners.entry(*number).or_insert((row, *value));
                if *value > winner.1 {
                    *winner = (row, *value);
                }
            }
            model.extend(winners.iter().map(|(number, winner)| (key(*number), winner.1)));
            let writer = state.people.begin(number, number, base.as_ref()).unwrap();
            for (seq, chunk) in rows.chunks(cut).enumerate() {
                let lost = |row: &usize| winners[&chunk[*row].0].0 != seq * cut + row;
                let dropped: Vec<u32> = (0..chunk.len()).filter(lost).map(|row| row as u32).collect();
                writer.add_segment(&state.segment(number as u8, seq as u64, number, chunk), &dropped).unwrap();
            }
            let head = writer.finish(meta()).unwrap().generation;
            drop(base.take());
            state.people.remove_orphans(number + 1, &live(&head, 1, Vec::new())).unwrap();
            let generation = state.people.open(&head).unwrap();
            prop_assert_eq!(contents(generation.live("records/pos", None).unwrap()), model.clone());
            prop_assert_eq!(generation.sources().collect::<Vec<_>>(), ["pos"]);
            base = Some(generation);
        }
    }
}

#[test]
fn a_small_change_is_a_small_file_until_too_much_is_dead() {
    let state = State::new();
    let rows: Vec<_> = (0..1000).map(|number| (number, 0)).collect();
    let mut head = commit(&state, 1, 1, None, &rows, &[]);
    let mut files = Vec::new();
    for number in 2..9 {
        let base = state.people.open(&head).unwrap();
        let changed: Vec<_> = (0..60).map(|at| (number * 60 + at, number as i64)).collect();
        head = commit(&state, number, 1, Some(&base), &changed, &[]);
        files.push(state.people.open(&head).unwrap().manifest().tables[TABLE].files.iter().map(|data| data.file.rows).collect::<Vec<_>>());
    }
    insta::assert_debug_snapshot!(files.iter().map(Vec::len).collect::<Vec<_>>(), @"
    [
        2,
        3,
        4,
        5,
        6,
        1,
        2,
    ]
    ");
    assert_eq!(files[0], [1000, 60]);
    assert_eq!(files[5], [1000]);
}

/// A table of 200,000 rows, of which a second generation writes some anew and removes one.
fn overridden(changed: Range<u64>) -> (State, Generation) {
    let state = State::new();
    let rows: Vec<_> = (0..200_000).map(|number| (number, 0)).collect();
    let head = commit(&state, 1, 1, None, &rows, &[]);
    let base = state.people.open(&head).unwrap();
    let changed: Vec<_> = changed.map(|number| (number, 1)).collect();
    let head = commit(&state, 2, 1, Some(&base), &changed, &[3]);
    let generation = state.people.open(&head).unwrap();
    (state, generation)
}

#[test]
fn batches_are_the_same_rows_whatever_is_asked() {
    // One whole row group is dead, and a part of another.
    let (_state, generation) = overridden(60_000..140_000);
    let shape = |columns: Option<&[&str]>| -> Vec<_> {
        let parts = generation.live(TABLE, columns).unwrap().map(Result::unwrap);
        parts.map(|part| (part.file, part.first_row, part.batch.num_rows())).collect()
    };
    let all = shape(None);
    assert_eq!(all.iter().map(|part| part.2).sum::<usize>(), 199_999);
    assert_eq!(shape(Some(&["value"])), all);
    assert_eq!(shape(Some(&[])), all);
    assert!(generation.live("nothing", None).unwrap().next().is_none());
}

#[test]
fn rows_at_places_are_those_of_the_batches() {
    let (_state, generation) = overridden(50_000..60_000);
    let all: Vec<_> = generation.live(TABLE, None).unwrap().map(|part| part.unwrap().batch).collect();
    // Few rows, most rows, none, the last alone.
    let places = |batch: usize, step: usize| (0..all[batch].num_rows() as u32).step_by(step).collect::<Vec<_>>();
    let last = all.len() - 1;
    let wanted = BTreeMap::from([(0, places(0, 700)), (1, places(1, 2)), (2, Vec::new()), (last, vec![all[last].num_rows() as u32 - 1])]);
    let found: Vec<_> = generation.live_at(TABLE, &wanted).unwrap().map(|part| part.unwrap().batch).collect();
    let expected = wanted.into_iter().filter(|(_, places)| !places.is_empty());
    let expected: Vec<_> = expected.map(|(at, places)| take_record_batch(&all[at], &UInt32Array::from(places)).unwrap()).collect();
    assert_eq!(found, expected);
    assert!(generation.live_at(TABLE, &BTreeMap::new()).unwrap().next().is_none());
}

#[test]
fn columns_that_a_file_lacks_are_null() {
    let state = State::new();
    let narrow = records(&[(1, 1)]).project(&[0, 1]).unwrap();
    let writer = state.people.begin(1, 1, None).unwrap();
    writer.delta(TABLE, "record_key", [narrow]).unwrap();
    let head = writer.finish(meta()).unwrap().generation;
    let base = state.people.open(&head).unwrap();
    let writer = state.people.begin(2, 1, Some(&base)).unwrap();
    writer.delta(TABLE, "record_key", [records(&[(2, 2)])]).unwrap();
    let head = writer.finish(meta()).unwrap().generation;
    let generation = state.people.open(&head).unwrap();
    let parts: Vec<_> = generation.live(TABLE, Some(&["phone", "value"])).unwrap().map(|part| part.unwrap().batch).collect();
    let nulls: Vec<_> = parts.iter().map(|batch| batch.column_by_name("phone").unwrap().null_count()).collect();
    assert_eq!(nulls, [1, 0]);
    assert_eq!(parts[0].schema(), parts[1].schema());
}

#[test]
fn a_type_that_changes_is_refused_by_name() {
    let state = State::new();
    let head = commit(&state, 1, 1, None, &[(1, 1)], &[]);
    let base = state.people.open(&head).unwrap();
    let writer = state.people.begin(2, 1, Some(&base)).unwrap();
    let other = records(&[(2, 2)]);
    let other = RecordBatch::try_from_iter([("record_key", other.column(0).clone()), ("value", other.column(2).clone())]).unwrap();
    writer.delta(TABLE, "record_key", [other]).unwrap();
    let head = writer.finish(meta()).unwrap().generation;
    let Err(error) = state.people.open(&head).unwrap().live(TABLE, None) else { panic!("two types") };
    insta::assert_snapshot!(error, @"table members has column value once as Int64 and once as Utf8; a type is fixed at the first commit");
}

#[test]
fn lists_without_a_key_belong_to_one_generation() {
    let state = State::new();
    let writer = state.people.begin(1, 1, None).unwrap();
    writer.replace("refusals", None, [records(&[(1, 1), (1, 2)])]).unwrap();
    writer.replace("forwards", Some("record_key"), [records(&[(9, 1)])]).unwrap();
    let head = writer.finish(meta()).unwrap().generation;
    let base = state.people.open(&head).unwrap();
    assert_eq!(base.live("refusals", None).unwrap().rows(), 2);
    let writer = state.people.begin(2, 1, Some(&base)).unwrap();
    writer.rename("forwards", Some("old"));
    let head = writer.finish(meta()).unwrap().generation;
    let generation = state.people.open(&head).unwrap();
    let rows = |table| generation.live(table, None).unwrap().rows();
    assert_eq!((rows("refusals"), rows("forwards"), rows("old")), (0, 0, 1));
    assert_eq!(generation.manifest().meta, meta(), "sources come back from their seal");
}

#[test]
fn what_is_pinned_stays_and_what_is_not_goes() {
    let state = State::new();
    let rows: Vec<_> = (0..100).map(|number| (number, 0)).collect();
    let mut heads = vec![commit(&state, 1, 1, None, &rows, &[])];
    let mut pins = vec![state.people.open(&heads[0]).unwrap()];
    for number in 2..6 {
        let head = commit(&state, number, number, pins.last(), &rows, &[]);
        pins.push(state.people.open(&head).unwrap());
        heads.push(head);
    }
    pins.drain(1..);
    let head = heads.last().unwrap();
    let removed = state.people.remove_orphans(9, &live(head, 2, Vec::new())).unwrap();
    assert_eq!(removed.files, 4, "manifests and tables of 2 and 3");
    assert_eq!(contents(pins[0].live(TABLE, None).unwrap()).len(), 100);
    assert!(matches!(state.people.open(&heads[1]), Err(GenerationError::ManifestMissing { number: 2, .. })));
    assert_eq!(state.people.history(head, 9).unwrap().iter().map(|info| info.generation.number).collect::<Vec<_>>(), [5, 4]);
    pins.clear();
    assert_eq!(state.people.remove_orphans(9, &live(head, 2, Vec::new())).unwrap().files, 2);
    assert!(state.people.verify(head).unwrap().damages.is_empty());
    assert!(!state.people.state().people().join("generations/000000000001").exists());
}

#[test]
fn only_orphans_of_a_smaller_fence_go() {
    let state = State::new();
    let pending = state.segment(1, 0, 2, &[(1, 1)]);
    let lost = state.segment(1, 1, 2, &[(2, 2)]);
    let newer = state.segment(1, 2, 5, &[(3, 3)]);
    let head = commit(&state, 3, 2, None, &[(1, 1)], &[]);
    // A run that was killed: a generation that no head names, a file half written, a scratch file.
    commit(&state, 4, 2, None, &[(8, 8)], &[]);
    let people = state.people.state().people();
    std::fs::write(people.join("generations/000000000003/members-007-f00000002.parquet.4711.tmp"), b"half").unwrap();
    std::fs::write(people.join("segments/pos/notes.txt"), b"mine").unwrap();
    std::fs::write(state.folder.path().join("tmp/4711-0"), b"scratch").unwrap();
    std::fs::write(state.folder.path().join("keys.json.4711.tmp"), b"half").unwrap();

    let set = live(&head, 3, vec![pending.clone()]);
    assert_eq!(state.people.remove_orphans(2, &set).unwrap().files, 0, "its own fence is not smaller");
    assert_eq!(state.people.remove_orphans(5, &set).unwrap().files, 4);
    let left = state.files();
    for segment in [&pending, &newer] {
        assert!(left.contains(&segment.rows.as_ref().unwrap().path));
    }
    assert!(!left.contains(&lost.rows.as_ref().unwrap().path));
    assert!(left.contains(&"segments/pos/notes.txt".to_owned()), "what is none of ours is left alone");
    assert_eq!(left.len(), 5);
    assert_eq!(std::fs::read_dir(state.folder.path().join("tmp")).unwrap().count(), 0);
    assert!(!state.folder.path().join("keys.json.4711.tmp").exists());
}

#[test]
fn a_rolled_back_branch_goes_and_its_segments_stay_while_they_are_named() {
    let state = State::new();
    let first = commit(&state, 1, 1, None, &[(1, 1)], &[]);
    let segment = state.segment(1, 0, 2, &[(1, 1)]);
    let base = state.people.open(&first).unwrap();
    let writer = state.people.begin(2, 2, Some(&base)).unwrap();
    writer.add_segment(&segment, &[]).unwrap();
    let second = writer.finish(meta()).unwrap().generation;
    // The head went back to 1; the segment waits to be replayed.
    state.people.remove_orphans(3, &live(&first, 3, vec![segment.clone()])).unwrap();
    assert!(state.people.open(&second).is_err());
    let writer = state.people.begin(3, 3, Some(&base)).unwrap();
    writer.add_segment(&segment, &[]).unwrap();
    let third = writer.finish(meta()).unwrap().generation;
    assert_eq!(state.people.open(&third).unwrap().live("records/pos", None).unwrap().rows(), 1);
}

#[test]
fn damage_is_found_and_named() {
    let state = State::new();
    let segment = state.segment(1, 0, 1, &[(1, 1)]);
    let writer = state.people.begin(1, 1, None).unwrap();
    writer.add_segment(&segment, &[]).unwrap();
    writer.replace("a", None, [records(&[(1, 1)])]).unwrap();
    writer.replace("b", None, [records(&[(1, 1)])]).unwrap();
    let head = writer.finish(meta()).unwrap().generation;
    let people = state.people.state().people();
    let path = |name: &str| people.join(state.files().into_iter().find(|file| file.contains(name)).unwrap());
    let mut bytes = std::fs::read(path("/a-")).unwrap();
    bytes[20] ^= 1;
    std::fs::write(path("/a-"), &bytes).unwrap();
    std::fs::write(path("/b-"), &bytes[1..]).unwrap();
    std::fs::remove_file(path("segments/")).unwrap();
    let damages = state.people.verify(&head).unwrap().damages;
    let mut texts: Vec<_> = damages.iter().map(|damage| damage.to_string().replace(&people.display().to_string(), "…")).collect();
    texts.sort();
    let texts = texts.join("\n");
    let sizes = without_numbers(&texts);
    insta::assert_snapshot!(sizes, @"
    …/generations/000000000001/a-000-f00000001.parquet was changed since it was committed
    …/generations/000000000001/b-001-f00000001.parquet has N bytes, and N were committed
    …/segments/pos/01010101010101010101010101010101-000000-f00000001.parquet is missing
    ");
}

/// The text with the sizes of files taken out: they follow the version of the encoder.
fn without_numbers(text: &str) -> String {
    let words = text.split(' ').map(|word| if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) { "N" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_torn_manifest_is_none_and_nothing_is_removed() {
    let state = State::new();
    let head = commit(&state, 7, 1, None, &[(1, 1)], &[]);
    let folder = state.people.state().people().join("generations/000000000007");
    let path = folder.join("manifest-f00000001.json");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(matches!(state.people.open(&head), Err(GenerationError::ManifestMissing { .. })));
    }
    let error = state.people.open(&head).unwrap_err().to_string();
    let text = error.replace(&folder.display().to_string(), "…").replace(&head.checksum, "SUM");
    insta::assert_snapshot!(text, @"generation 7 has no manifest with checksum SUM in …: it was removed, or is damaged");
    assert!(state.people.remove_orphans(9, &live(&head, 3, Vec::new())).is_err(), "nothing is removed on such a word");
    assert_eq!(state.files().len(), 2);
}

#[test]
fn a_holder_that_lost_its_lease_cannot_touch_what_a_later_one_committed() {
    let state = State::new();
    let stale = state.people.begin(1, 1, None).unwrap();
    let head = commit(&state, 1, 2, None, &[(1, 1)], &[]);
    stale.delta(TABLE, "record_key", [records(&[(2, 2)])]).unwrap();
    stale.finish(meta()).unwrap();
    assert_eq!(contents(state.people.open(&head).unwrap().live(TABLE, None).unwrap()), BTreeMap::from([(key(1), 1)]));
    assert_eq!(state.people.remove_orphans(3, &live(&head, 3, Vec::new())).unwrap().files, 2);
    assert_eq!(state.files().len(), 2);
}

#[test]
fn a_generation_is_newer_than_its_base() {
    let state = State::new();
    let head = commit(&state, 2, 1, None, &[(1, 1)], &[]);
    let base = state.people.open(&head).unwrap();
    let Err(error) = state.people.begin(2, 1, Some(&base)) else { panic!("the same number") };
    insta::assert_snapshot!(error, @"generation 2 cannot follow generation 2");
    let writer = state.people.begin(3, 1, Some(&base)).unwrap();
    let error = writer.delta(TABLE, "member_id", [records(&[(1, 1)])]).unwrap_err();
    insta::assert_snapshot!(error, @"table members needs the key column member_id, 16 bytes and never null");
}
