//! A power cut at any moment of `once` costs nothing, and neither does a disk that fills up: after one more
//! `once`, members, ids, tags, tasks and work lists are those of a run that nobody disturbed, and each task
//! stands in the lists once.
//!
//! A run is journaled once. Then its folder is rebuilt as a cut would have left it, on both sides of
//! everything that makes something last and at random moments, with what was not synced dropped, torn or
//! reordered (see `reunion_integration_tests::powercut`), and the plain program runs on it. Some of these
//! runs are cut again.
//!
//! `REUNION_POWERCUT_CUTS` is how many of the trees that cuts can leave are tried for each day; without it
//! there are as many as a test may take.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reunion_integration_tests::dump::{Dump, Failed};
use reunion_integration_tests::harness::{Ended, binary, end};
use reunion_integration_tests::powercut::{Disk, Mode, Record, Tree, build_library, read_journal, watch};
use reunion_integration_tests::scenario::{Day, Scenario};

/// Rows of the exports: enough for several segments, lists and stores.
const ROWS: usize = 300;
/// Moments at random, beside those next to a boundary.
const RANDOM_MOMENTS: usize = 60;
/// Trees that are tried of each day.
const CUTS: usize = 120;
/// One run in so many over a tree is cut in its turn.
const CUT_AGAIN: usize = 12;
/// Sizes of the disk that are tried.
const DISKS: usize = 8;
const WORKERS: usize = 2;
/// Failures that a message shows.
const FAILURES_SHOWN: usize = 5;

#[test]
fn a_power_cut_in_the_first_run_costs_nothing() {
    survive_cuts(Day::First).unwrap();
}

#[test]
fn a_power_cut_in_a_run_over_changes_costs_nothing() {
    survive_cuts(Day::Second).unwrap();
}

/// A disk that is full before the run ends, at one size after the other.
#[test]
fn a_full_disk_costs_nothing() {
    fill_disks().unwrap();
}

/// These tests would notice: with the syncs of one kind of file forgotten, a cut after the end is not
/// survived.
#[test]
fn a_forgotten_sync_is_noticed() {
    forget_syncs().unwrap();
}

/// A run that was journaled, and what it needs to be run again.
struct Journaled {
    program: PathBuf,
    library: PathBuf,
    day: Day,
    /// The folder before it.
    before: Scenario,
    /// Where it ran.
    root: PathBuf,
    records: Vec<Record>,
    /// What a run that nobody disturbed comes to.
    expected: Dump,
}

/// A moment of a run and what happens to the disk then.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Records before it.
    at: usize,
    mode: Mode,
    seed: u64,
}

fn survive_cuts(day: Day) -> Result<(), Failed> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let work = work.path().canonicalize()?;
    let run = journal(&work, day)?;
    let cuts = cuts(&run)?;
    let failures = side_by_side(&cuts, |number, (cut, tree)| {
        let failed = |failure: Failed| {
            let last = cut.at.checked_sub(1).map(|at| run.records[at].line()).unwrap_or_default();
            format!("{cut:?}, after {last}\n{failure}")
        };
        let folder = work.join(format!("cut-{number}"));
        survive(&run, tree, &folder, (number % CUT_AGAIN == 0).then_some(cut.seed)).map_err(failed)
    });
    let shown: String = failures.iter().take(FAILURES_SHOWN).cloned().collect();
    assert!(failures.is_empty(), "{} of {} cuts were not survived, of {} records\n{shown}", failures.len(), cuts.len(), run.records.len());
    Ok(())
}

fn fill_disks() -> Result<(), Failed> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let work = work.path().canonicalize()?;
    let run = journal(&work, Day::First)?;
    let written: usize = run.records.iter().map(Record::bytes).sum();
    let sizes: Vec<usize> = (0..DISKS).map(|number| written * number / DISKS).collect();
    let failures = side_by_side(&sizes, |number, bytes| {
        let failed = |failure: Failed| format!("a disk of {bytes} bytes: {failure}\n");
        survive_full_disk(&run, *bytes, &work.join(format!("disk-{number}"))).map_err(failed)
    });
    assert!(failures.is_empty(), "{}", failures.concat());
    Ok(())
}

fn forget_syncs() -> Result<(), Failed> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let work = work.path().canonicalize()?;
    let run = journal(&work, Day::First)?;
    let places = ["state/keys.json", "state/people/segments", "state/people/generations", "state/ledger.sqlite", "out"];
    let unnoticed = side_by_side(&places, |number, place| {
        let mut forgotten = HashSet::new();
        let mut records = run.records.clone();
        records.retain(|record| match record {
            Record::Open { handle, path, .. } => {
                if path.strip_prefix(&run.root).is_ok_and(|path| path.to_string_lossy().starts_with(place)) {
                    forgotten.insert(*handle);
                }
                true
            }
            Record::Sync { handle } => !forgotten.contains(handle),
            _ => true,
        });
        let cut = Tree::read(&run.before.folder).map_err(Failed::from).and_then(|tree| play(&run.root, &tree, &records));
        let tree = cut.map_err(|error| error.to_string())?.cut(Mode::Promised, 0);
        match survive(&run, &tree, &work.join(format!("cut-{number}")), None) {
            Ok(()) => Err(format!("nobody would notice that {place} is not synced\n")),
            Err(_) => Ok(()),
        }
    });
    assert!(unnoticed.is_empty(), "{}", unnoticed.concat());
    Ok(())
}

/// Does something with each item on several threads, and collects what failed.
fn side_by_side<T: Sync>(items: &[T], each: impl Fn(usize, &T) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { break };
                    if let Err(failure) = each(number, item) {
                        failures.lock().expect("nobody panics with it").push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("nobody panics with it")
}

/// Journals one run, and makes sure that the journal is whole: the tree that it gives is the real one.
fn journal(work: &Path, day: Day) -> Result<Journaled, Failed> {
    let before = Scenario::create(&work.join("before"), ROWS)?;
    before.keep_plugins_in_process()?;
    let program = program(work)?;
    if day == Day::Second {
        once(before.once(&program, Day::First))?;
        before.turn_to_second_day()?;
    }
    let plain = before.copy(&work.join("plain"))?;
    once(plain.once(&program, day))?;
    let expected = plain.dump()?;
    assert!(expected.count("lists") > 0, "the scenario hands out tasks");

    let watched = before.copy(&work.join("watched"))?;
    let library = build_library(work)?;
    let records = watch_once(&watched, &program, &library, day)?;
    let disk = play(&watched.folder, &Tree::read(&before.folder)?, &records)?;
    let mapped = disk.mapped();
    let mut differences = disk.now().differences(&Tree::read(&watched.folder)?);
    differences.retain(|line| !mapped.iter().any(|path| line.starts_with(&format!("{}:", path.display()))));
    assert!(differences.is_empty(), "the journal missed something\n{}", differences.join("\n"));
    assert_eq!(watched.dump()?.differences(&expected), "", "journaling changes nothing");
    Ok(Journaled { program, library, day, before, root: watched.folder, records, expected })
}

/// The program with its plugins beside it, as they are now: a build that goes on meanwhile changes nothing.
fn program(work: &Path) -> Result<PathBuf, Failed> {
    let folder = work.join("bin");
    fs::create_dir(&folder)?;
    let built = binary();
    let libraries = built.parent().ok_or("the program lies in a folder")?.join("deps");
    let plugins = ["libreunion_source_file.so", "libreunion_channel_file.so"].map(|name| libraries.join(name));
    for file in plugins.iter().chain([&built]) {
        let here = folder.join(file.file_name().ok_or("a file has a name")?);
        fs::hard_link(file, &here).or_else(|_| fs::copy(file, &here).map(|_| ()))?;
    }
    Ok(folder.join("reunion"))
}

/// Runs once and gives what the run did to the scenario's folder.
fn watch_once(scenario: &Scenario, program: &Path, library: &Path, day: Day) -> Result<Vec<Record>, Failed> {
    let journal = scenario.folder.with_extension("journal");
    let mut command = scenario.once(program, day);
    watch(&mut command, library, &scenario.folder, &journal)?;
    once(command)?;
    Ok(read_journal(&journal)?)
}

fn once(command: Command) -> Result<(), Failed> {
    let ended = end(command);
    if ended.code == 0 { Ok(()) } else { Err(said(&ended).into()) }
}

fn said(ended: &Ended) -> String {
    format!("`once` ended with {}\n{}{}", ended.code, ended.stdout, ended.stderr)
}

/// A disk that had this tree, after these records.
fn play(root: &Path, tree: &Tree, records: &[Record]) -> Result<Disk, Failed> {
    let mut disk = Disk::new(root, tree)?;
    for (at, record) in records.iter().enumerate() {
        disk.play(record).map_err(|error| format!("record {at}, {}: {error}", record.line()))?;
    }
    Ok(disk)
}

/// The cuts to try, and the tree that each leaves: no tree twice. Each moment is cut in one mode before any
/// is cut in another.
fn cuts(run: &Journaled) -> Result<Vec<(Cut, Tree)>, Failed> {
    let cuts_max = match std::env::var("REUNION_POWERCUT_CUTS") {
        Ok(number) => number.parse()?,
        Err(_) => CUTS,
    };
    let boundaries = run.records.iter().enumerate().filter(|(_, record)| record.is_boundary());
    let mut moments: BTreeSet<usize> = boundaries.flat_map(|(at, _)| [at, at + 1]).collect();
    moments.extend((0..RANDOM_MOMENTS).map(|number| mixed(number as u64) as usize % run.records.len()));
    let tree = Tree::read(&run.before.folder)?;
    let mut seen = HashSet::new();
    let mut cuts = Vec::new();
    for round in 0..Mode::ALL.len() {
        let mut of_round = Vec::new();
        let mut disk = Disk::new(&run.root, &tree)?;
        let mut played = 0;
        for (number, at) in moments.iter().copied().enumerate() {
            run.records[played..at].iter().try_for_each(|record| disk.play(record))?;
            played = at;
            let cut = Cut { at, mode: Mode::ALL[(number + round) % Mode::ALL.len()], seed: mixed(at as u64) };
            let tree = disk.cut(cut.mode, cut.seed);
            if seen.insert(tree.digest()) {
                of_round.push((cut, tree));
            }
        }
        // Where not all of a round can be tried, those that are lie strewn over the run.
        of_round.sort_by_key(|(cut, _)| mixed(cut.seed));
        cuts.extend(of_round);
    }
    cuts.truncate(cuts_max);
    Ok(cuts)
}

/// Runs once more over what a cut has left, and compares. With a seed that run is cut too.
fn survive(run: &Journaled, tree: &Tree, folder: &Path, again: Option<u64>) -> Result<(), Failed> {
    let cut = run.before.copy(folder)?;
    tree.restore(&cut.folder)?;
    match again {
        None => {
            once(cut.once(&run.program, run.day))?;
            compare(&cut, run)?;
        }
        Some(seed) => {
            let records = watch_once(&cut, &run.program, &run.library, run.day)?;
            compare(&cut, run)?;
            let at = mixed(seed) as usize % (records.len() + 1);
            let tree = play(&cut.folder, tree, &records[..at])?.cut(Mode::Torn, seed);
            survive(run, &tree, &folder.with_extension("again"), None).map_err(|error| format!("cut again at {at}: {error}"))?;
        }
    }
    Ok(fs::remove_dir_all(folder)?)
}

fn survive_full_disk(run: &Journaled, bytes: usize, folder: &Path) -> Result<(), Failed> {
    let full = run.before.copy(folder)?;
    let mut command = full.once(&run.program, run.day);
    watch(&mut command, &run.library, &full.folder, &folder.with_extension("journal"))?;
    command.env("REUNION_POWERCUT_BYTES_MAX", bytes.to_string());
    let ended = end(command);
    // Where only the last tidying up finds no room, the run has ended well.
    let says_why = format!("{}{}", ended.stdout, ended.stderr).contains("full") || (ended.code == 0 && bytes > 0);
    if !says_why || ended.stderr.contains("panicked") {
        return Err(format!("it must say that the disk is full\n{}", said(&ended)).into());
    }
    once(full.once(&run.program, run.day))?;
    compare(&full, run)?;
    Ok(fs::remove_dir_all(folder)?)
}

fn compare(scenario: &Scenario, run: &Journaled) -> Result<(), Failed> {
    let differences = scenario.dump()?.differences(&run.expected);
    if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
}

/// A number as good as random, always the same for the same one.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 31)
}
