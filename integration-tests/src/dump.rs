//! What a state and its work lists come to, as lines of text that two runs can be compared by.
//!
//! Everything that must be equal is in: members with ids and golden columns, records, assignments,
//! tags, forwards, tasks, arms, suppressions, links, decisions, and the rows of the work lists. What may differ is
//! left out: ids of runs, pulls and dispatches, numbers of generations, and times of the machine's clock.
//! Times that come from the run's clock are in, so runs to be compared are given the same `--now`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use reunion_generations::{GenerationRef, People, StateDir, open_or_create_keys};
use reunion_keys::MasterKey;
use reunion_ledger::{ComponentKind, Head, Ledger, Location, RunState, TaskFilter};
use reunion_model::TaskState;

/// What went wrong while a state was read.
pub type Failed = Box<dyn Error + Send + Sync>;

/// A state in lines: by section, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// `members`, `records/<source>`, `tasks`, `lists` and so on.
    pub sections: BTreeMap<String, Vec<String>>,
    /// Promises that are broken, whatever an undisturbed run would give: a task that was handed out
    /// stands in no list or in two, half a file lies about, a file of the head is damaged.
    pub broken: Vec<String>,
    /// Runs that committed a generation.
    pub commits: usize,
    /// The files of the head, relative to the folder of people's files.
    pub files: BTreeSet<String>,
}

/// Differences that a message shows of each section.
const DIFFERENCES_SHOWN: usize = 5;

impl Dump {
    /// Reads the state in `state`, made with this master key, and the work lists below `out`.
    ///
    /// # Errors
    /// Where the state has no head, or anything in it cannot be read.
    pub fn read(state: &Path, master_key: &str, out: &Path) -> Result<Self, Failed> {
        let mut dump = Self::default();
        let handed_out = with_state(state, master_key, async |people, ledger| {
            let head = ledger.head().await?.ok_or("the state has no head")?;
            dump.people(&people, &head)?;
            dump.ledger(&ledger).await
        })?;
        dump.lists(out, &handed_out)?;
        for path in files(state)? {
            if path.extension().is_some_and(|extension| extension == "tmp") || path.parent().is_some_and(|folder| folder.ends_with("tmp")) {
                dump.broken.push(format!("{} is half a file of the state that nobody has removed", path.display()));
            }
        }
        dump.sections.values_mut().for_each(|lines| lines.sort_unstable());
        Ok(dump)
    }

    fn add(&mut self, section: &str, line: String) {
        self.sections.entry(section.to_owned()).or_default().push(line);
    }

    fn people(&mut self, people: &People, head: &Head) -> Result<(), Failed> {
        let reference = GenerationRef { number: head.generation, checksum: head.manifest_checksum.clone() };
        for damage in people.verify(&reference)?.damages {
            self.broken.push(format!("the head is damaged: {damage:?}"));
        }
        let generation = people.open(&reference)?;
        self.files = generation.manifest().files().map(|file| file.path.clone()).collect();
        let records = generation.sources().map(|source| format!("records/{source}"));
        let tables = ["members", "assignments", "tags", "forwards", "holders"].map(str::to_owned);
        for table in tables.into_iter().chain(records.collect::<Vec<_>>()) {
            for part in generation.live(&table, None)? {
                rows(&part?.batch, |row| self.add(&table, row))?;
            }
        }
        Ok(())
    }

    /// Adds what the ledger has; gives the ids of the tasks that must stand in a list.
    async fn ledger(&mut self, ledger: &Ledger) -> Result<BTreeSet<String>, Failed> {
        let mut handed_out = BTreeSet::new();
        for task in ledger.tasks(&TaskFilter::default()).await? {
            if matches!(task.state, TaskState::Accepted | TaskState::Delivered | TaskState::Rejected) {
                handed_out.insert(task.task_id.to_string());
            }
            let state = (task.state.name(), task.code, task.outcome);
            let place = (task.channel, task.store, task.staff);
            let times = (task.planned_us, task.due_us);
            let (id, contact, member) = (task.task_id, task.contact, task.member);
            let line =
                format!("{id} {} {contact} {member} {} {} {place:?} {times:?} {state:?}", task.campaign, task.touch, task.try_number);
            self.add("tasks", line);
        }
        for campaign in ledger.components().await?.into_iter().filter(|component| component.kind == ComponentKind::Campaign) {
            for (contact, arm) in ledger.arms(&campaign.name).await? {
                self.add("arms", format!("{} {contact} {arm:?}", campaign.name));
            }
        }
        for run in ledger.runs(u32::MAX).await? {
            self.commits += usize::from(run.generation.is_some());
            if run.state == RunState::Running {
                self.broken.push(format!("run {} is still called running", run.run_id));
            }
        }
        let facts = ledger.facts().await?;
        for suppression in facts.suppressions {
            self.add("suppressions", format!("{} {} {}", suppression.contact, suppression.reason, suppression.source));
        }
        for link in facts.links {
            self.add("links", format!("{} {} {:?}", link.contact, link.channel, link.task_id));
        }
        for decision in facts.decisions {
            self.add("decisions", format!("{} {:?} {:?}", decision.kind.name(), decision.left, decision.right));
        }
        Ok(handed_out)
    }

    /// Adds the rows of the work lists, and holds them to the tasks that were handed out.
    fn lists(&mut self, out: &Path, handed_out: &BTreeSet<String>) -> Result<(), Failed> {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for path in files(out)? {
            let place = path.strip_prefix(out)?.display().to_string();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                self.broken.push(format!("{place} is half a work list that nobody has removed"));
                continue;
            }
            let place = without_run(&place);
            let text = String::from_utf8(fs::read(&path)?)?;
            let mut list = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
            let id_at = list.headers()?.iter().position(|name| name == "task_id").ok_or("a work list has no column task_id")?;
            for (row, cells) in list.records().enumerate() {
                let cells = cells?;
                *times.entry(cells.get(id_at).unwrap_or_default().to_owned()).or_default() += 1;
                self.add("lists", format!("{place} {row:04} {:?}", cells.iter().collect::<Vec<_>>()));
            }
        }
        for (task, count) in &times {
            if *count > 1 {
                self.broken.push(format!("task {task} stands in the work lists {count} times"));
            }
            if !handed_out.contains(task) {
                self.broken.push(format!("task {task} stands in a work list, and the ledger does not say that it was handed out"));
            }
        }
        for task in handed_out.iter().filter(|task| !times.contains_key(*task)) {
            self.broken.push(format!("task {task} was handed out by what the ledger says, and stands in no work list"));
        }
        Ok(())
    }

    /// How many lines a section has.
    pub fn count(&self, section: &str) -> usize {
        self.sections.get(section).map_or(0, Vec::len)
    }

    /// What is different from an undisturbed run, and what is broken; empty where all is well.
    pub fn differences(&self, undisturbed: &Self) -> String {
        let mut text = String::new();
        for line in &self.broken {
            let _ = writeln!(text, "  broken: {line}");
        }
        let names: BTreeSet<&String> = self.sections.keys().chain(undisturbed.sections.keys()).collect();
        let none = Vec::new();
        for name in names {
            let [expected, found] = [undisturbed, self].map(|dump| dump.sections.get(name).unwrap_or(&none));
            for (sign, lines, others) in [("-", expected, found), ("+", found, expected)] {
                let others: BTreeSet<&String> = others.iter().collect();
                let only: Vec<&String> = lines.iter().filter(|line| !others.contains(line)).collect();
                for line in only.iter().take(DIFFERENCES_SHOWN) {
                    let _ = writeln!(text, "  {name} {sign} {line}");
                }
                if only.len() > DIFFERENCES_SHOWN {
                    let _ = writeln!(text, "  {name} {sign} … {} in all", only.len());
                }
            }
            if expected.len() != found.len() {
                let _ = writeln!(text, "  {name}: {} lines where there should be {}", found.len(), expected.len());
            }
        }
        text
    }
}

/// The files of segments that were committed and are in no generation yet.
///
/// # Errors
/// Where the state cannot be read.
pub fn pending_files(state: &Path, master_key: &str) -> Result<Vec<String>, Failed> {
    with_state(state, master_key, async |_, ledger| {
        Ok(ledger.pending_segments().await?.into_iter().flat_map(|segment| segment.files).collect())
    })
}

/// Does something with the files of people and the ledger of a state.
fn with_state<T>(state: &Path, master_key: &str, read: impl AsyncFnOnce(People, Ledger) -> Result<T, Failed>) -> Result<T, Failed> {
    let dir = StateDir::create(state)?;
    let keys = Arc::new(open_or_create_keys(&dir, &MasterKey::from_hex(master_key)?)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ledger = Ledger::open(&Location::Sqlite(state.join("ledger.sqlite")), Arc::clone(&keys)).await?;
        let result = read(People::new(dir, keys), ledger.clone()).await;
        ledger.close().await;
        result
    })
}

/// Hands on each row of a batch as a line.
fn rows(batch: &RecordBatch, mut add: impl FnMut(String)) -> Result<(), Failed> {
    let schema = batch.schema();
    let options = FormatOptions::default().with_null("-");
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let mut line = String::new();
        for (field, column) in schema.fields().iter().zip(&columns) {
            write!(line, "{}={} ", field.name(), column.value(row))?;
        }
        add(line);
    }
    Ok(())
}

/// All files below a folder; none where it is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// A work list's place with the run's eight hex digits masked.
fn without_run(place: &str) -> String {
    let is_run = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let parts: Vec<&str> = stem.split('-').map(|part| if is_run(part) { "RUN" } else { part }).collect();
    format!("{folder}/{}.{extension}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_masked_in_a_place() {
        assert_eq!(without_run("S0001/2026-09-21-0a1b2c3d.csv"), "S0001/2026-09-21-RUN.csv");
        assert_eq!(without_run("sms/2026-09-21-12345678-2.csv"), "sms/2026-09-21-RUN-2.csv");
    }

    #[test]
    fn differences_name_the_lines() {
        let dump = |tasks: &[&str]| {
            let lines = tasks.iter().map(|line| (*line).to_owned()).collect();
            Dump { sections: BTreeMap::from([("tasks".to_owned(), lines)]), ..Dump::default() }
        };
        assert_eq!(dump(&["a", "b"]).differences(&dump(&["a", "b"])), "");
        let text = dump(&["a", "c", "c"]).differences(&dump(&["a", "b"]));
        assert_eq!(text, "  tasks - b\n  tasks + c\n  tasks + c\n  tasks: 3 lines where there should be 2\n");
    }
}
