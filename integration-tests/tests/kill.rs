//! `kill -9` of `once` at any moment costs nothing: after one more `once`, members, ids, tags, tasks and
//! work lists are those of a run that nobody disturbed, and each task stands in the lists once.
//!
//! A run is killed in three ways:
//! - at named fault points, before and after each fsync, rename, ledger commit, push and receipt, in a
//!   program with the feature `faults`, which these tests build under a name of its own (`reunion-faults`),
//!   so that `reunion` itself never has them;
//! - before and after its system calls that make something last, those of SQLite and of the plugins among
//!   them, by a preloaded library, in the plain program, whose plugins run in its own process for that;
//! - at moments that a clock chooses.
//!
//! Everywhere else the plugins are in workers, which die with the program.
//!
//! Each is done to a first run and to a run over changes. `REUNION_KILLS` is how many places are tried of
//! each kind and day; without it there are as many as a test may take.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reunion_integration_tests::dump::{Dump, Failed};
use reunion_integration_tests::harness::{binary, comparable, end, faults};
use reunion_integration_tests::scenario::{Day, Scenario};
use serde_json::Value;
use tempfile::TempDir;

/// Rows of the exports: enough for several segments, lists and stores.
const ROWS: usize = 300;
/// Places of each kind and day that are tried. Each named point is tried at least once beside it.
const KILLS: usize = 80;
/// Kills by the clock of each day.
const RANDOM_KILLS: usize = 15;
/// Runs that are killed and killed again in recovering.
const RECOVERY_KILLS: usize = 20;
/// Failures that a message shows.
const FAILURES_SHOWN: usize = 5;

#[test]
fn a_kill_at_any_fault_point_of_a_first_run_costs_nothing() {
    survive_fault_points(Day::First).unwrap();
}

#[test]
fn a_kill_at_any_fault_point_of_a_run_over_changes_costs_nothing() {
    survive_fault_points(Day::Second).unwrap();
}

#[test]
fn a_kill_around_any_system_call_of_a_first_run_costs_nothing() {
    survive_system_calls(Day::First).unwrap();
}

#[test]
fn a_kill_around_any_system_call_of_a_run_over_changes_costs_nothing() {
    survive_system_calls(Day::Second).unwrap();
}

#[test]
fn a_kill_at_any_moment_of_a_first_run_costs_nothing() {
    survive_moments(Day::First).unwrap();
}

#[test]
fn a_kill_at_any_moment_of_a_run_over_changes_costs_nothing() {
    survive_moments(Day::Second).unwrap();
}

/// A pull that was killed between two segments goes on under its own id, and does not begin anew.
#[test]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let stage = Stage::of(Day::First).unwrap();
    let site = stage.site("resumed").unwrap();
    let killed = stage.kill(&site, faults(), &[("REUNION_FAULT", "ledger.after: commit a segment:2")]).unwrap();
    assert!(killed, "the first run commits two segments");
    let before = site.pending_files().unwrap();
    assert!(before.len() >= 2, "segments were committed before the kill: {before:?}");
    let after = stage.finish(&site).unwrap();
    let lost: Vec<_> = before.iter().filter(|file| !after.files.contains(*file)).collect();
    assert!(lost.is_empty(), "what was committed before the kill is not read again: {lost:?}");
}

/// Recovering is a run as any other: killed at any point of it, the next one recovers.
#[test]
fn a_kill_of_the_run_that_recovers_costs_nothing() {
    let stage = Stage::of(Day::First).unwrap();
    let points = points(&stage).unwrap();
    let names: Vec<&String> = points.keys().collect();
    let pairs = (0..RECOVERY_KILLS).map(|at| {
        let [first, second] = [at * 7, at * 11 + 3].map(|at| names[at % names.len()]);
        format!("{first}:1, {second}:1")
    });
    let kill = |site: &Scenario, pair: &str| {
        let (first, second) = pair.split_once(", ").ok_or("a pair")?;
        let killed = stage.kill(site, faults(), &[("REUNION_FAULT", first)])?;
        // What the first run has done the second may not reach.
        stage.kill(site, faults(), &[("REUNION_FAULT", second)])?;
        Ok(killed)
    };
    stage.survive(&pairs.collect::<Vec<_>>(), kill).unwrap();
}

/// The comparison would notice: between a push and its receipts the ledger does not know what is in the lists.
#[test]
fn what_a_kill_leaves_is_seen_before_the_next_run() {
    let stage = Stage::of(Day::First).unwrap();
    let site = stage.site("left").unwrap();
    assert!(stage.kill(&site, faults(), &[("REUNION_FAULT", "receipts.before:1")]).unwrap());
    let broken = site.dump().unwrap().broken;
    assert!(broken.iter().any(|line| line.contains("does not say that it was handed out")), "{broken:#?}");
    assert!(broken.iter().any(|line| line.contains("still called running")), "{broken:#?}");
    stage.finish(&site).unwrap();
}

#[test]
fn the_program_itself_has_no_fault_points() {
    let stage = Stage::of(Day::First).unwrap();
    let site = stage.site("plain").unwrap();
    assert!(!stage.kill(&site, &binary(), &[("REUNION_FAULT", "commit.before:1")]).unwrap());
}

/// The days before they are disturbed, and what they come to when they are not.
struct Stage {
    day: Day,
    before: Scenario,
    expected: Dump,
    /// What the undisturbed run reports.
    report: Value,
    /// How long a run takes that nobody disturbs.
    takes: Duration,
    work: TempDir,
}

impl Stage {
    fn of(day: Day) -> Result<Self, Failed> {
        Self::made(day, |_| Ok(()))
    }

    /// The same, all in one process, so that what is preloaded sees the plugins too.
    fn in_one_process(day: Day) -> Result<Self, Failed> {
        Self::made(day, Scenario::keep_plugins_in_process)
    }

    fn made(day: Day, prepare: impl FnOnce(&Scenario) -> Result<(), Failed>) -> Result<Self, Failed> {
        // A kill takes nothing from files that were written: those in memory will do, and are faster.
        let memory = Path::new("/dev/shm");
        let work = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))? };
        let before = Scenario::create(&work.path().join("before"), ROWS)?;
        prepare(&before)?;
        let plugins = binary().parent().ok_or("the binary lies in a folder")?.join("deps");
        fs::create_dir(before.folder.join("conf.d"))?;
        fs::write(before.folder.join("conf.d/plugins.toml"), format!("[plugins]\npath = [{plugins:?}]\n"))?;
        if day == Day::Second {
            run(before.once(&binary(), Day::First))?;
            before.turn_to_second_day()?;
        }
        let undisturbed = before.copy(&work.path().join("undisturbed"))?;
        let began = Instant::now();
        let report = run(undisturbed.once(&binary(), day))?;
        let takes = began.elapsed();
        let expected = undisturbed.dump()?;
        let stage = Self { day, before, expected, report, takes, work };
        stage.holds_what_it_should();
        Ok(stage)
    }

    /// Fails where the scenario has become too tame to show anything.
    fn holds_what_it_should(&self) {
        assert_eq!(self.expected.broken, Vec::<String>::new(), "an undisturbed run keeps all promises");
        for section in ["members", "assignments", "tags", "tasks", "arms", "lists"] {
            assert!(self.expected.count(section) > 5, "an undisturbed run has {section}");
        }
        if self.day == Day::Second {
            for section in ["forwards", "links", "suppressions"] {
                assert!(self.expected.count(section) > 0, "a run over changes has {section}");
            }
        }
    }

    /// A fresh copy of the day before it is run.
    fn site(&self, name: &str) -> Result<Scenario, Failed> {
        self.before.copy(&self.work.path().join(name.replace([' ', ':'], "-")))
    }

    /// Runs a program that is told to kill itself; whether it did, and did not end before.
    fn kill(&self, site: &Scenario, program: &Path, variables: &[(&str, &str)]) -> Result<bool, Failed> {
        let mut command = site.once(program, self.day);
        let output = command.envs(variables.iter().copied()).output()?;
        match (output.status.signal(), output.status.code()) {
            (Some(9), _) => Ok(true),
            (_, Some(0)) => Ok(false),
            _ => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Runs once more, and compares with an undisturbed run: the state, the work lists, and what was counted.
    fn finish(&self, site: &Scenario) -> Result<Dump, Failed> {
        let report = run(site.once(&binary(), self.day))?;
        let dump = site.dump()?;
        let differences = dump.differences(&self.expected);
        if !differences.is_empty() {
            return Err(differences.into());
        }
        // A run that was killed after its commit leaves the next one nothing to do.
        if dump.commits > self.expected.commits {
            let mut notes = report["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
            return if notes.any(|note| note.starts_with("nothing changed")) {
                Ok(dump)
            } else {
                Err(format!("something changed: {report:#}").into())
            };
        }
        let [found, expected] = [&report, &self.report].map(counts);
        let differ: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
        if differ.is_empty() { Ok(dump) } else { Err(format!("it counted otherwise: {differ:#?}").into()) }
    }

    /// Kills a run at each of these places, and fails where one is not survived. `kill` gives whether the
    /// run was killed there.
    fn survive(&self, places: &[String], kill: impl Fn(&Scenario, &str) -> Result<bool, Failed>) -> Result<(), Failed> {
        let mut failures = Vec::new();
        let mut killed = 0;
        for place in places {
            let site = self.site(place)?;
            let result = kill(&site, place).and_then(|was_killed| {
                killed += usize::from(was_killed);
                self.finish(&site)
            });
            match result {
                Ok(_) => fs::remove_dir_all(&site.folder)?,
                Err(failure) => failures.push(format!("killed at {place}\n{failure}\n")),
            }
        }
        let shown: String = failures.iter().take(FAILURES_SHOWN).cloned().collect();
        assert!(failures.is_empty(), "{} of {} kills were not survived\n{shown}", failures.len(), places.len());
        assert!(killed * 10 >= places.len() * 9, "only {killed} of {} runs were killed before their end", places.len());
        Ok(())
    }
}

/// Kills at the first time that each named point is reached and, as many as there is time for, at later times.
fn survive_fault_points(day: Day) -> Result<(), Failed> {
    let stage = Stage::of(day)?;
    let hits = points(&stage)?;
    for kind in ["segment.fsync", "table.rename", "manifest.folder", "ledger", "commit", "dispatch", "push", "receipts", "poll"] {
        let is_expected = kind != "poll" || day == Day::Second;
        assert!(!is_expected || hits.keys().any(|point| point.starts_with(kind)), "no point of {kind} was reached");
    }
    let (mut places, mut further) = (Vec::new(), Vec::new());
    for (point, count) in &hits {
        places.push(format!("{point}:1"));
        further.extend((2..=*count).map(|n| format!("{point}:{n}")));
    }
    places.extend(strewn(further, kills()?.saturating_sub(places.len())));
    stage.survive(&places, |site, place| stage.kill(site, faults(), &[("REUNION_FAULT", place)]))
}

/// The named points that a run reaches, and how often.
fn points(stage: &Stage) -> Result<BTreeMap<String, usize>, Failed> {
    let mut hits = BTreeMap::new();
    for point in logged(stage, faults(), "REUNION_FAULT_LOG", &[])? {
        *hits.entry(point).or_default() += 1;
    }
    Ok(hits)
}

/// Kills before and after system calls, strewn over the run.
fn survive_system_calls(day: Day) -> Result<(), Failed> {
    let stage = Stage::in_one_process(day)?;
    let library = stage.work.path().join("kill.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kill/kill.c");
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"];
    let compiled = Command::new("gcc").args(flags).arg(&library).arg(source).status()?;
    assert!(compiled.success(), "gcc compiles the library that kills");
    let preload = ("LD_PRELOAD", library.to_str().ok_or("a path in UTF-8")?);
    let steps = logged(&stage, &binary(), "REUNION_KILL_LOG", &[preload])?;
    for call in ["after fsync", "after rename"] {
        assert!(steps.iter().any(|step| step == call), "the run is seen to call {call}");
    }
    let places = (1..=steps.len()).map(|step| step.to_string()).collect();
    stage.survive(&strewn(places, kills()?), |site, place| stage.kill(site, &binary(), &[preload, ("REUNION_KILL_STEP", place)]))
}

/// Kills after delays up to the time that a run takes; every third is killed in its second run again.
fn survive_moments(day: Day) -> Result<(), Failed> {
    let stage = Stage::of(day)?;
    let kill = |site: &Scenario, number: u32| {
        let delay = stage.takes * number / RANDOM_KILLS as u32;
        let mut child = site.once(&binary(), day).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Not to wait for something: the delay is the test.
        std::thread::sleep(delay);
        child.kill()?;
        Ok::<_, Failed>(child.wait()?.signal() == Some(9))
    };
    let places: Vec<String> = (0..RANDOM_KILLS).map(|number| number.to_string()).collect();
    stage.survive(&places, |site, place| {
        let number = place.parse()?;
        let killed = kill(site, number)?;
        if number % 3 == 0 {
            kill(site, RANDOM_KILLS as u32 - 1 - number / 2)?;
        }
        // One that was done before its time came is no failure, and as good a test as any.
        Ok(killed || number > 0)
    })
}

/// The lines that an undisturbed run logs into the file that a variable names.
fn logged(stage: &Stage, program: &Path, variable: &str, variables: &[(&str, &str)]) -> Result<Vec<String>, Failed> {
    let site = stage.site(variable)?;
    let log = stage.work.path().join("log");
    let mut command = site.once(program, stage.day);
    command.env(variable, &log).envs(variables.iter().copied());
    run(command)?;
    let differences = site.dump()?.differences(&stage.expected);
    assert_eq!(differences, "", "logging changes nothing");
    Ok(fs::read_to_string(&log)?.lines().map(str::to_owned).collect())
}

/// So many of these, evenly strewn.
fn strewn(all: Vec<String>, count: usize) -> Vec<String> {
    let count = count.min(all.len());
    (0..count).map(|at| all[at * all.len() / count].clone()).collect()
}

fn kills() -> Result<usize, Failed> {
    Ok(std::env::var("REUNION_KILLS").ok().map(|number| number.parse()).transpose()?.unwrap_or(KILLS))
}

/// Runs to the end; the report.
fn run(command: Command) -> Result<Value, Failed> {
    let ended = end(command);
    if ended.code != 0 {
        return Err(format!("`once` ended with {}\n{}{}", ended.code, ended.stdout, ended.stderr).into());
    }
    Ok(serde_json::from_str(&ended.stdout)?)
}

/// What a report counts, a line each: all of it that two runs must have in common.
fn counts(report: &Value) -> Vec<String> {
    fn add(lines: &mut Vec<String>, place: &str, value: &Value) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| add(lines, &format!("{place}/{key}"), value)),
            // Numbers are not used twice: one was spent on the generation that was never committed.
            _ if place == "/generation" => {}
            other => lines.push(format!("{place} {other}")),
        }
    }
    let mut lines = Vec::new();
    add(&mut lines, "", &comparable(report));
    lines
}
