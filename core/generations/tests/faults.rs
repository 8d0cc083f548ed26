//! A kill before or after each step that makes files last: what was committed is whole, what was not
//! is removed, and doing the work again gives what an undisturbed run gives.
//!
//! Run with `--features faults`.
#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use common::{contents, key, master, meta, record_schema, records};
use reunion_generations::{GenerationRef, LiveSet, People, SegmentFile, StateDir, open_or_create_keys};
use reunion_model::PullId;

/// What a ledger would hold, with one rename as its transaction.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Ledger {
    fence: u64,
    head: Option<GenerationRef>,
    segments: Vec<SegmentFile>,
}

impl Ledger {
    fn load(folder: &Path) -> Self {
        std::fs::read(folder.join("ledger.json")).map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default()
    }

    fn commit(&self, folder: &Path) {
        std::fs::write(folder.join("new.json"), serde_json::to_vec(self).unwrap()).unwrap();
        std::fs::rename(folder.join("new.json"), folder.join("ledger.json")).unwrap();
    }
}

const GENERATIONS: u64 = 3;

/// Goes on from where the ledger stands until three generations are there.
fn work(folder: &Path) {
    let state = StateDir::create(folder.join("state")).unwrap();
    let keys = open_or_create_keys(&state, &master()).unwrap();
    let people = People::new(state, Arc::new(keys));
    let mut ledger = Ledger::load(folder);
    ledger.fence += 1;
    ledger.commit(folder);
    while ledger.head.as_ref().map_or(0, |head| head.number) < GENERATIONS {
        people.remove_orphans(ledger.fence, &LiveSet { head: ledger.head.clone(), keep: 1, segments: ledger.segments.clone() }).unwrap();
        let number = ledger.head.as_ref().map_or(0, |head| head.number) + 1;
        for seq in ledger.segments.len() as u64..2 {
            let mut writer = people.segment("pos", PullId([number as u8; 16]), seq, ledger.fence, record_schema()).unwrap();
            writer.write(&records(&[(seq, number as i64), (10 * number + seq, 0)])).unwrap();
            ledger.segments.push(writer.finish().unwrap());
            ledger.commit(folder);
        }
        let base = ledger.head.as_ref().map(|head| people.open(head).unwrap());
        let writer = people.begin(number, ledger.fence, base.as_ref()).unwrap();
        for segment in &ledger.segments {
            writer.add_segment(segment, &[]).unwrap();
        }
        writer.remove("records/pos", [key(10 * (number - 1))].into_iter()).unwrap();
        ledger.head = Some(writer.finish(meta()).unwrap().generation);
        ledger.segments.clear();
        ledger.commit(folder);
    }
}

fn result(folder: &Path) -> BTreeMap<[u8; 16], i64> {
    let state = StateDir::create(folder.join("state")).unwrap();
    let people = People::new(state.clone(), Arc::new(open_or_create_keys(&state, &master()).unwrap()));
    let head = Ledger::load(folder).head.unwrap();
    assert!(people.verify(&head).unwrap().damages.is_empty());
    contents(people.open(&head).unwrap().live("records/pos", None).unwrap())
}

/// The process that is killed. Nothing in an ordinary run of the tests.
#[test]
fn child_works() {
    if let Some(folder) = std::env::var_os("REUNION_TEST_WORK") {
        work(Path::new(&folder));
    }
}

fn child(folder: &Path, variable: &str, value: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_works"]).env("REUNION_TEST_WORK", folder).env(variable, value);
    command.output().unwrap().status
}

#[test]
fn a_kill_at_any_point_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("points");
    assert!(child(folder.path(), "REUNION_FAULT_LOG", log.to_str().unwrap()).success());
    let expected = result(folder.path());

    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    for point in std::fs::read_to_string(&log).unwrap().lines() {
        *hits.entry(point.to_owned()).or_default() += 1;
    }
    let kinds: std::collections::BTreeSet<_> = hits.keys().filter_map(|point| point.split('.').next()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["folder", "keys", "manifest", "segment", "table"]);
    for (point, count) in &hits {
        for n in 1..=*count {
            let folder = tempfile::tempdir().unwrap();
            let status = child(folder.path(), "REUNION_FAULT", &format!("{point}:{n}"));
            assert!(!status.success(), "{point}:{n} was not reached");
            work(folder.path());
            assert_eq!(result(folder.path()), expected, "{point}:{n}");
            let half = std::fs::read_dir(folder.path().join("state"))
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
            assert_eq!(half.count(), 0, "{point}:{n}");
        }
    }
}
