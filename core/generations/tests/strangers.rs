//! What somebody can do who has the files, a manifest and the exported keys, and nothing of ours.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt32Type};
use common::{State, contents, key, master, meta, records};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::encryption::decrypt::FileDecryptionProperties;
use reunion_generations::{
    FileEntry, GenerationRef, Manifest, People, SegmentFile, StateDir, Table, Verifier, open_or_create_keys, store_keys,
};

/// Every batch of a file, by a key alone.
fn read(path: &Path, key: &[u8]) -> Result<Vec<RecordBatch>, String> {
    let properties = FileDecryptionProperties::builder(key.to_vec()).build().map_err(|error| error.to_string())?;
    let options = ArrowReaderOptions::new().with_file_decryption_properties(properties);
    let reader =
        ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path).unwrap(), options).map_err(|error| error.to_string())?;
    reader.build().map_err(|error| error.to_string())?.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The rows of a table that live, by nothing but what the docs say: later files override earlier ones by the key, and
/// removals end what is before them.
fn live(people: &Path, keys: &BTreeMap<u32, Vec<u8>>, table: &Table) -> BTreeMap<[u8; 16], i64> {
    let open = |file: &FileEntry| read(&people.join(&file.path), &keys[&file.data_key.unwrap()]).unwrap();
    let mut live = BTreeMap::new();
    for data in &table.files {
        let dropped: Vec<u32> =
            data.dropped.iter().flat_map(&open).flat_map(|batch| batch.column(0).as_primitive::<UInt32Type>().values().to_vec()).collect();
        let mut at = 0;
        for batch in open(&data.file) {
            let ids = batch.column_by_name(table.key.as_ref().unwrap()).unwrap().as_binary::<i32>().clone();
            for row in 0..batch.num_rows() {
                let id: [u8; 16] = ids.value(row).try_into().unwrap();
                match batch.column_by_name("value") {
                    _ if dropped.contains(&at) => {}
                    Some(values) => _ = live.insert(id, values.as_primitive::<Int64Type>().value(row)),
                    None => _ = live.remove(&id),
                }
                at += 1;
            }
        }
    }
    live
}

/// A state whose data key is another one from now on.
fn rotated(state: &State) -> People {
    let dir = StateDir::create(state.folder.path()).unwrap();
    let mut ring = open_or_create_keys(&dir, &master()).unwrap();
    ring.rotate().unwrap();
    store_keys(&dir, &ring.wrap(&master()).unwrap()).unwrap();
    People::new(dir.clone(), Arc::new(open_or_create_keys(&dir, &master()).unwrap()))
}

fn keys_of(state: &State) -> BTreeMap<u32, Vec<u8>> {
    let ring = open_or_create_keys(&StateDir::create(state.folder.path()).unwrap(), &master()).unwrap();
    (1..).map_while(|version| Some((version, ring.file_key(version)?.to_vec()))).collect()
}

/// A generation of two segments with a dropped row, a removal, and a table of its own.
fn commit(
    people: &People,
    number: u64,
    base: Option<&GenerationRef>,
    segments: &[(SegmentFile, Vec<u32>)],
    removed: &[u64],
) -> (GenerationRef, Manifest) {
    let base = base.map(|base| people.open(base).unwrap());
    let writer = people.begin(number, 1, base.as_ref()).unwrap();
    for (segment, dropped) in segments {
        writer.add_segment(segment, dropped).unwrap();
    }
    writer.remove("records/pos", removed.iter().map(|number| key(*number)).collect::<Vec<_>>().into_iter()).unwrap();
    writer.delta("members", "record_key", [records(&[(number, number as i64)])]).unwrap();
    let committed = writer.finish(meta()).unwrap();
    (committed.generation, committed.manifest)
}

#[test]
fn a_generation_is_read_with_the_exported_keys_and_its_manifest() {
    let state = State::new();
    let rows: Vec<_> = (0..60).map(|number| (number, 0)).collect();
    let (first, _) = commit(
        &state.people,
        1,
        None,
        &[(state.segment(1, 0, 1, &rows), vec![]), (state.segment(1, 1, 1, &[(3, 7), (60, 1)]), vec![0])],
        &[5],
    );
    // Under a new data key: a few rows anew, one gone. What is older stays under the old one.
    let people = rotated(&state);
    let mut writer = people.segment("pos", reunion_model::PullId([2; 16]), 0, 1, common::record_schema()).unwrap();
    writer.write(&records(&[(2, 22), (61, 61)])).unwrap();
    let segment = writer.finish().unwrap();
    let (second, manifest) = commit(&people, 2, Some(&first), &[(segment, vec![])], &[7]);
    let keys = keys_of(&state);
    assert_eq!(keys.len(), 2);
    let folder = people.state().people();
    let of_table =
        |manifest: &Manifest, table: &str| manifest.tables[table].files.iter().map(|data| data.file.data_key.unwrap()).collect::<Vec<_>>();
    assert_eq!(of_table(&manifest, "records/pos"), [1, 1, 1, 2, 2]);
    for table in ["records/pos", "members"] {
        let expected = contents(people.open(&second).unwrap().live(table, None).unwrap());
        assert_eq!(live(&folder, &keys, &manifest.tables[table]), expected, "{table}");
    }
    assert!(people.verify(&first).unwrap().damages.is_empty(), "what was written before the rotation opens");
    // Compaction brings what lives under the new key.
    let changed: Vec<_> = (0..50).map(|number| (number, 9)).collect();
    let mut writer = people.segment("pos", reunion_model::PullId([3; 16]), 0, 1, common::record_schema()).unwrap();
    writer.write(&records(&changed)).unwrap();
    let (third, manifest) = commit(&people, 3, Some(&second), &[(writer.finish().unwrap(), vec![])], &[]);
    assert_eq!(of_table(&manifest, "records/pos"), [2]);
    assert_eq!(
        live(&folder, &keys, &manifest.tables["records/pos"]),
        contents(people.open(&third).unwrap().live("records/pos", None).unwrap())
    );
    // The key of a file is named in its manifest, and no other opens it.
    let file = folder.join(&manifest.tables["records/pos"].files[0].file.path);
    assert!(read(&file, &keys[&2]).is_ok());
    assert!(read(&file, &keys[&1]).is_err());
}

#[test]
fn what_is_whole_is_read_once_and_what_is_not_is_named_each_time() {
    let state = State::new();
    let (first, _) = commit(&state.people, 1, None, &[(state.segment(1, 0, 1, &[(1, 1), (2, 2)]), vec![])], &[]);
    let (second, manifest) = commit(&state.people, 2, Some(&first), &[], &[]);
    let mut verifier = Verifier::new(&state.people);
    let verified = verifier.generation(&second).unwrap();
    assert_eq!((verified.files, verified.damages.len()), (3, 0), "{:?}", state.files());
    assert_eq!(verified.bytes, manifest.files().map(|file| file.bytes).sum::<u64>());
    assert!(verified.manifest.ends_with("generations/000000000002/manifest-f00000001.json"), "{:?}", verified.manifest);
    // A segment that waits for a generation is verified by itself.
    let waiting = state.segment(2, 0, 1, &[(3, 3)]);
    assert!(verifier.segments([&waiting].into_iter()).unwrap().is_empty());
    let path = state.people.state().people().join(&waiting.rows.as_ref().unwrap().path);
    std::fs::write(&path, b"PAR1").unwrap();
    assert!(Verifier::new(&state.people).segments([&waiting].into_iter()).unwrap()[0].to_string().contains("has 4 bytes"));
    // A file that two generations share is named for both.
    std::fs::remove_file(state.people.state().people().join(&manifest.tables["members"].files[0].file.path)).unwrap();
    let mut verifier = Verifier::new(&state.people);
    for generation in [&first, &second] {
        assert_eq!(verifier.generation(generation).unwrap().damages.len(), 1);
    }
}

#[test]
fn files_that_nobody_wrote_are_listed() {
    let state = State::new();
    commit(&state.people, 1, None, &[(state.segment(1, 0, 1, &[(1, 1)]), vec![])], &[]);
    assert!(state.people.foreign().unwrap().is_empty());
    let people = state.people.state().people();
    for name in ["notes.txt", "generations/members.parquet", "generations/000000000001/manifest.json", "segments/pos/x-f1.parquet"] {
        std::fs::write(people.join(name), b"x").unwrap();
    }
    let found: Vec<_> =
        state.people.foreign().unwrap().iter().map(|path| path.strip_prefix(&people).unwrap().display().to_string()).collect();
    assert_eq!(found, ["generations/000000000001/manifest.json", "generations/members.parquet", "notes.txt", "segments/pos/x-f1.parquet"]);
}
