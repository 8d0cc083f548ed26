//! The cases, in order, as the parent sees them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reunion_host::schema;
use reunion_model::plugin::{ChannelTraits, Manifest, PluginKind, Reach, ReadMode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::act::{Act, Answered, Dispatch, HowToPush, PartRead, Request, RestRead, Trial, WholeRead};
use crate::child::{Ended, Program, Ran, signal_of};
use crate::confine::Confinement;
use crate::machine::{Listing, config_paths, signal_name};
use crate::phones::shown;
use crate::report::{Outcome, Report, Row};
use crate::rows::Rows;
use crate::rules;

/// Dispatches that one act may make.
const DISPATCHES_OF_AN_ACT: u32 = 100;
/// Tasks of the largest dispatch that is pushed.
const TASKS_MAX: usize = 10_000;
/// Tasks of it where the channel has no limit of its own.
const TASKS_WITHOUT_LIMIT: usize = 1_000;
/// Tasks of a dispatch that is pushed twice.
const TASKS_TWICE: usize = 20;

/// A trial of one library.
pub struct Suite {
    program: Program,
    library: PathBuf,
    /// Holds the library under the name that a host looks for.
    folder: TempDir,
    manifest: Option<Manifest>,
    /// Whether its manifest gave a text, right or wrong.
    speaks: bool,
    run: String,
    config: Value,
    /// Why there is no instance to try, where there is none.
    without_instance: Option<String>,
    /// Whether tasks may go out through a channel that reaches the network.
    sends: bool,
    traits: ChannelTraits,
    /// Why nothing can be read or pushed, where that is so.
    without_data: Option<String>,
    whole: WholeRead,
    dispatches: u32,
    /// What stood on the standard streams of acts: of the case, and the text.
    written: Vec<(&'static str, String)>,
    /// Where a phone number was said: in the case, and where there.
    phones: Vec<(&'static str, String)>,
    case: &'static str,
    /// The case `manifest`, which is over before the others are asked for.
    first: Outcome,
}

/// Which plugins a case is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    Source,
    Channel,
    /// A channel whose manifest says that it answers requests from outside.
    Callbacks,
}

/// What a case needs that others have shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// Nothing.
    Nothing,
    /// A library that can be loaded.
    Library,
    /// One that a host would load.
    Plugin,
    /// A config under which an instance can be made.
    Instance,
    /// One that can be read or pushed to.
    Data,
}

struct Case {
    name: &'static str,
    tries: &'static str,
    kind: For,
    needs: Needs,
    run: fn(&mut Suite) -> Outcome,
}

const fn case(name: &'static str, kind: For, needs: Needs, run: fn(&mut Suite) -> Outcome, tries: &'static str) -> Case {
    Case { name, tries, kind, needs, run }
}

/// All cases, in order: those that others need first.
const CASES: &[Case] = &[
    case("manifest", For::Both, Needs::Nothing, Suite::first, "the manifest is pure and says what it should"),
    case("sizes", For::Both, Needs::Library, Suite::sizes, "tables and structs that are smaller or larger than today's"),
    case("create", For::Both, Needs::Instance, Suite::create, "create does nothing but make the instance"),
    case("config", For::Both, Needs::Instance, Suite::configs, "a config that is wrong is refused with its key"),
    case("check", For::Both, Needs::Instance, Suite::check, "check answers in time"),
    case("read", For::Source, Needs::Instance, Suite::read, "a read is whole, as the schema says, and the same twice"),
    case("resume", For::Source, Needs::Data, Suite::resume, "kill -9 while reading, and going on, loses and repeats nothing"),
    case("receipts", For::Channel, Needs::Instance, Suite::receipts, "one receipt for each task, in dispatches of all sizes"),
    case("delays", For::Channel, Needs::Data, Suite::delays, "a task that is put off has its delay"),
    case("twice", For::Channel, Needs::Data, Suite::twice, "the same dispatch again, also after kill -9, reaches once"),
    case("dry_run", For::Channel, Needs::Instance, Suite::dry_run, "a dry run contacts nobody and leaves nothing behind"),
    case("poll", For::Channel, Needs::Instance, Suite::poll, "a poll is whole, and says the same of the same event"),
    case("callback", For::Callbacks, Needs::Instance, Suite::callback, "requests that make no sense are answered, beside a push too"),
    case("cancel", For::Both, Needs::Data, Suite::cancel, "calls that are cancelled, and streams let go of, end in a second"),
    case("panic", For::Both, Needs::Instance, Suite::panic, "after a panic every call is answered with internal"),
    case("remains", For::Both, Needs::Data, Suite::remains, "no thread and no descriptor is left after destroy"),
    case("memory", For::Both, Needs::Data, Suite::memory, "memory is steady over many instances"),
    case("globals", For::Both, Needs::Data, Suite::globals, "nothing of the process is changed, nothing is written to its streams"),
    case("phones", For::Both, Needs::Plugin, Suite::no_phones, "no phone number in any text of all the cases above"),
];

impl Suite {
    /// Reads the manifest of a library in a process of its own.
    ///
    /// # Errors
    /// Where there is no such file, or no process can be started.
    pub fn begin(program: Program, library: &Path) -> io::Result<Self> {
        let library = fs::canonicalize(library)?;
        let folder = tempfile::Builder::new().prefix("reunion-verify-").tempdir()?;
        let mut suite = Self {
            program,
            library,
            folder,
            manifest: None,
            speaks: false,
            run: format!("{:08x}", fastrand::u32(..)),
            config: json!({}),
            without_instance: None,
            sends: false,
            traits: ChannelTraits::default(),
            without_data: None,
            whole: WholeRead::default(),
            dispatches: 1,
            written: Vec::new(),
            phones: Vec::new(),
            case: "manifest",
            first: Outcome::passed(),
        };
        suite.first = suite.manifest_case()?;
        Ok(suite)
    }

    /// What the library says of itself, where that could be read.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Tries everything that can be tried under this config, which fits the schema; or, where there is none, under an
    /// empty one if that fits. `sends`: a channel that reaches the network is given tasks all the same. `seen` is told of
    /// each case as soon as it is over.
    pub fn run(mut self, config: Option<Value>, sends: bool, mut seen: impl FnMut(&Row)) -> Report {
        self.sends = sends;
        self.without_instance = self.take_config(config);
        let kind = self.manifest.as_ref().map(|manifest| manifest.kind);
        let takes_callbacks = self.manifest.as_ref().is_some_and(|manifest| manifest.capabilities.callback);
        let mut report = Report::default();
        for case in CASES {
            let wanted = match case.kind {
                For::Both => true,
                For::Source => kind.is_none_or(|kind| kind == PluginKind::Source),
                For::Channel => kind.is_some_and(|kind| kind == PluginKind::Channel),
                For::Callbacks => takes_callbacks,
            };
            if !wanted {
                continue;
            }
            self.case = case.name;
            let outcome = self.missing(case.needs).map_or_else(|| (case.run)(&mut self), Outcome::skipped);
            let row = Row { case: case.name, tries: case.tries, outcome };
            seen(&row);
            report.cases.push(row);
        }
        report
    }

    /// Why there can be no instance; nothing where there can.
    fn take_config(&mut self, config: Option<Value>) -> Option<String> {
        let manifest = self.manifest.as_ref()?;
        let is_given = config.is_some();
        let config = config.unwrap_or_else(|| json!({}));
        if let Some(error) = schema::validate(&config, &manifest.config_schema).into_iter().next() {
            let given = if is_given { "the config does not fit the schema" } else { "an empty config does not fit the schema" };
            return Some(format!("{given}: {}; give it one with --config FILE", error.message));
        }
        self.config = config;
        None
    }

    /// Why a case that needs so much cannot be tried; nothing where it can.
    fn missing(&self, needs: Needs) -> Option<String> {
        if needs >= Needs::Library && !self.speaks || needs >= Needs::Plugin && self.manifest.is_none() {
            return Some("the manifest cannot be read".to_owned());
        }
        let instance = (needs >= Needs::Instance).then(|| self.without_instance.clone()).flatten();
        instance.or_else(|| (needs >= Needs::Data).then(|| self.without_data.clone()).flatten())
    }

    fn request(&self, act: Act) -> Request {
        let (kind, name) = match &self.manifest {
            Some(manifest) => (manifest.kind, manifest.name.clone()),
            None => (PluginKind::Source, String::new()),
        };
        Request {
            library: self.library.clone(),
            folder: self.folder.path().to_owned(),
            kind,
            name,
            config: self.config.clone(),
            run: self.run.clone(),
            act,
        }
    }

    fn run_child(&mut self, act: Act, kill_after: Option<Duration>) -> Result<Ran, Outcome> {
        let ran = self.program.run(&self.request(act), kill_after);
        let ran = ran.map_err(|error| Outcome::skipped(format!("no process could be started: {error}")))?;
        self.phones.extend(ran.phones.iter().map(|phone| (self.case, phone.clone())));
        // What stands there after a crash is the system's.
        if matches!(ran.ended, Ended::Done(..) | Ended::Stayed(_)) && !ran.written.trim().is_empty() {
            self.written.push((self.case, ran.written.clone()));
        }
        Ok(ran)
    }

    /// Does an act that ends by itself; its note and data.
    fn play(&mut self, act: Act) -> Result<(String, Value), Outcome> {
        let confinement = match &act {
            Act::ManifestConfined(to) | Act::CreateConfined(to) => Some(*to),
            Act::Push { how: HowToPush::DryRun, .. } => Some(Confinement::Network),
            _ => None,
        };
        let confined_by = match &act {
            Act::ManifestConfined(_) => rules::PURE,
            Act::CreateConfined(_) => rules::CREATE,
            _ => rules::DRY_RUN,
        };
        let ran = self.run_child(act, None)?;
        match ran.ended {
            Ended::Done(Outcome::Passed { note }, data) => Ok((note, data)),
            Ended::Done(outcome, _) => Err(outcome),
            Ended::Exited { status, .. } if signal_of(status) == Some(libc::SIGSYS) && confinement.is_some() => {
                let deed = confinement.map_or("", Confinement::deed);
                Err(Outcome::failed(format!("it {deed}"), confined_by))
            }
            ended => Err(broken_off(&ended, &ran.written)),
        }
    }

    /// The same with data of this type.
    fn play_for<T: DeserializeOwned>(&mut self, act: Act) -> Result<(String, T), Outcome> {
        let (note, data) = self.play(act)?;
        let data = serde_json::from_value(data).map_err(|error| Outcome::skipped(format!("the act gave other data: {error}")))?;
        Ok((note, data))
    }

    /// The numbers of the next dispatches.
    fn next_dispatches(&mut self) -> u32 {
        let first = self.dispatches;
        self.dispatches += DISPATCHES_OF_AN_ACT;
        first
    }

    fn mode(&self) -> ReadMode {
        let modes = self.manifest.as_ref().map(|manifest| manifest.capabilities.modes.as_slice()).unwrap_or_default();
        if modes.is_empty() || modes.iter().any(|mode| mode == "snapshot") { ReadMode::Snapshot } else { ReadMode::Incremental }
    }

    fn trial(&mut self) -> Trial {
        Trial { mode: self.mode(), whole_ms: self.whole.millis, sends: self.withheld().is_none(), first_dispatch: self.next_dispatches() }
    }

    /// Why no task goes out for real; nothing where one may.
    fn withheld(&self) -> Option<String> {
        let withheld = self.traits.reach == Reach::Network && !self.sends;
        withheld.then(|| {
            "its reach is the network, where invented tasks could go to somebody: point it at a receiver of your own and say --send"
                .to_owned()
        })
    }

    fn first(&mut self) -> Outcome {
        self.first.clone()
    }

    fn manifest_case(&mut self) -> io::Result<Outcome> {
        let data = match self.play(Act::Manifest) {
            Ok((_, data)) => data,
            Err(outcome) => return Ok(outcome),
        };
        self.speaks = true;
        self.manifest = data["text"].as_str().and_then(|text| serde_json::from_str(text).ok());
        if let Some(manifest) = &self.manifest {
            symlink(&self.library, self.folder.path().join(crate::acts::library_name(manifest)))?;
        }
        for (key, rule) in [("impure", rules::PURE), ("faults", rules::MANIFEST)] {
            let found: Vec<&str> = data[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !found.is_empty() {
                return Ok(Outcome::failed(found.join("; "), rule));
            }
        }
        Ok(self.confined(Act::ManifestConfined))
    }

    /// An act under each of the confinements.
    fn confined(&mut self, act: fn(Confinement) -> Act) -> Outcome {
        let mut note = String::new();
        for to in [Confinement::Network, Confinement::Threads, Confinement::Writing] {
            match self.play(act(to)) {
                Ok(_) => {}
                // A kernel without filters.
                Err(Outcome::Skipped { why }) => note = why,
                Err(outcome) => return outcome,
            }
        }
        Outcome::noted(note)
    }

    /// An act whose note is all that it gives.
    fn simple(&mut self, act: Act) -> Outcome {
        self.play(act).map_or_else(|outcome| outcome, |(note, _)| Outcome::noted(note))
    }

    fn sizes(&mut self) -> Outcome {
        let has_config = self.manifest.is_some() && self.without_instance.is_none();
        self.simple(Act::Sizes { has_config })
    }

    fn create(&mut self) -> Outcome {
        let outcome = match self.simple(Act::Create) {
            Outcome::Passed { note } if note.is_empty() => self.confined(Act::CreateConfined),
            outcome => outcome,
        };
        match &outcome {
            Outcome::Skipped { why } => self.without_instance = Some(why.clone()),
            // What does more than it should can still be tried further, if it makes an instance at all.
            Outcome::Failed { .. } if self.play(Act::Create).is_err() && !self.makes_instance() => {
                self.without_instance = Some("create fails".to_owned());
            }
            _ => {}
        }
        outcome
    }

    fn makes_instance(&mut self) -> bool {
        self.play(Act::Check).is_ok()
    }

    fn configs(&mut self) -> Outcome {
        self.simple(Act::Configs)
    }

    fn check(&mut self) -> Outcome {
        match self.play_for::<ChannelTraits>(Act::Check) {
            Ok((note, traits)) => {
                self.traits = traits;
                Outcome::noted(note)
            }
            Err(outcome) => outcome,
        }
    }

    /// What cannot be tried after this.
    fn without_data(&mut self, what: &str, outcome: &Outcome) {
        self.without_data = match outcome {
            Outcome::Passed { .. } => None,
            Outcome::Skipped { why } => Some(why.clone()),
            Outcome::Failed { .. } => Some(format!("{what} fails")),
        };
    }

    fn read(&mut self) -> Outcome {
        let outcome = match self.play_for::<WholeRead>(Act::Read(self.mode())) {
            Ok((note, whole)) => {
                self.whole = whole;
                Outcome::noted(note)
            }
            Err(outcome) => outcome,
        };
        self.without_data("a read", &outcome);
        outcome
    }

    fn resume(&mut self) -> Outcome {
        let (mode, whole) = (self.mode(), self.whole.clone());
        if whole.states == 0 {
            return Outcome::skipped(
                "the read gives no resume state before its last row: give it more rows, or let it give states oftener",
            );
        }
        let mut points = vec![1, whole.states.div_ceil(2), whole.states];
        points.dedup();
        let mut anew = 0;
        for state in &points {
            match self.cut_and_go_on(mode, *state, whole.rows) {
                Ok(resumed) => anew += usize::from(!resumed),
                Err(outcome) => return outcome,
            }
        }
        let note = format!("killed at {} of {} states", points.len(), whole.states);
        let anew = if anew > 0 { format!("; {anew} times it began anew") } else { String::new() };
        Outcome::noted(note + &anew)
    }

    /// Kills a read after a state and goes on from there; whether the rows up to it still counted.
    fn cut_and_go_on(&mut self, mode: ReadMode, state: u64, whole: Rows) -> Result<bool, Outcome> {
        let ran = self.run_child(Act::ReadUntil { mode, state }, None)?;
        let part: PartRead = match ran.ended {
            Ended::Stayed(data) => serde_json::from_value(data).map_err(|error| Outcome::skipped(error.to_string()))?,
            Ended::Done(outcome, _) => return Err(outcome),
            ended => return Err(broken_off(&ended, &ran.written)),
        };
        let (_, rest) = self.play_for::<RestRead>(Act::ReadFrom { mode, state: part.state })?;
        let all = if rest.resumed { part.rows.and(rest.rows) } else { rest.rows };
        match all.difference(whole) {
            None => Ok(rest.resumed),
            Some(difference) => {
                let how = if rest.resumed { "going on from state" } else { "beginning anew after state" };
                let seen = format!("killed after {} rows, {how} {state} of the read: {difference}", part.rows.count);
                Err(Outcome::failed(seen, rules::STATE))
            }
        }
    }

    fn push(&mut self, dispatch: Dispatch, how: HowToPush) -> Result<Answered, Outcome> {
        self.play_for(Act::Push { dispatch, how }).map(|(_, answered)| answered)
    }

    fn receipts(&mut self) -> Outcome {
        if let Some(withheld) = self.withheld() {
            return Outcome::skipped(withheld);
        }
        let largest = match self.traits.dispatch_tasks_max {
            0 => TASKS_WITHOUT_LIMIT,
            most => most.min(TASKS_MAX),
        };
        let number = self.next_dispatches();
        let mut sizes: Vec<usize> = [1, 2, 100, largest].into_iter().filter(|size| *size <= largest).collect();
        sizes.dedup();
        for (at, tasks) in (0..).zip(&sizes) {
            match self.push(Dispatch { number: number + at, tasks: *tasks }, HowToPush::Whole) {
                Ok(answered) => self.whole.millis = answered.millis,
                Err(outcome) => {
                    self.without_data("a push", &outcome);
                    return outcome;
                }
            }
        }
        Outcome::noted(format!("dispatches of {} tasks", sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    }

    fn delays(&mut self) -> Outcome {
        if let Some(withheld) = self.withheld() {
            return Outcome::skipped(withheld);
        }
        let number = self.next_dispatches();
        // A receipt that puts off without a delay is refused by the host, and so is the push.
        match self.push(Dispatch { number, tasks: TASKS_TWICE }, HowToPush::Whole) {
            Ok(answered) => {
                let put_off: usize = ["not_sent", "busy"].iter().filter_map(|verdict| answered.verdicts.get(*verdict)).sum();
                match put_off {
                    0 => Outcome::skipped("no task was put off: try it with an other side that is at its limit"),
                    count => Outcome::noted(format!("{count} of {TASKS_TWICE} tasks were put off")),
                }
            }
            Err(Outcome::Failed { seen, .. }) => Outcome::failed(seen, rules::DELAY),
            Err(outcome) => outcome,
        }
    }

    fn twice(&mut self) -> Outcome {
        if let Some(withheld) = self.withheld() {
            return Outcome::skipped(withheld);
        }
        if !self.traits.idempotent {
            return Outcome::skipped("it does not say that it is idempotent");
        }
        self.push_twice().unwrap_or_else(|outcome| outcome)
    }

    fn push_twice(&mut self) -> Result<Outcome, Outcome> {
        let number = self.next_dispatches();
        let places = self.watched_places();
        let mut dispatch = Dispatch { number, tasks: TASKS_TWICE };
        let first = self.push(dispatch, HowToPush::Whole)?;
        let before = Listing::take(&places);
        self.push(dispatch, HowToPush::Whole)?;
        self.reached_once(dispatch, &places, Some(&before), "pushed twice")?;
        for (how, what) in [(HowToPush::UntilStream, "before its first receipt"), (HowToPush::UntilReceipts, "after its first receipts")] {
            dispatch.number += 1;
            self.cut_off(dispatch, how, None)?;
            self.push(dispatch, HowToPush::Whole)?;
            self.reached_once(dispatch, &places, None, &format!("killed {what}, and pushed again"))?;
        }
        for quarter in 1..=3 {
            dispatch.number += 1;
            let after = Duration::from_millis(first.millis) * quarter / 4;
            self.cut_off(dispatch, HowToPush::Whole, Some(after))?;
            self.push(dispatch, HowToPush::Whole)?;
            self.reached_once(dispatch, &places, None, &format!("killed after {} ms, and pushed again", after.as_millis()))?;
        }
        let trust = if places.is_empty() { "; what arrives there is taken on trust: only the other side can tell" } else { "" };
        Ok(Outcome::noted(format!("pushed twice, and killed five times{trust}")))
    }

    /// The places in which what a channel writes can be looked at.
    fn watched_places(&self) -> Vec<PathBuf> {
        let schema = self.manifest.as_ref().map(|manifest| &manifest.config_schema).filter(|_| self.traits.reach == Reach::Files);
        schema.map(|schema| config_paths(&self.config, schema)).unwrap_or_default()
    }

    /// Pushes and kills. That the push may be over by then does no harm.
    fn cut_off(&mut self, dispatch: Dispatch, how: HowToPush, after: Option<Duration>) -> Result<(), Outcome> {
        let ran = self.run_child(Act::Push { dispatch, how }, after)?;
        match ran.ended {
            Ended::Stayed(_) | Ended::Done(Outcome::Passed { .. }, _) => Ok(()),
            Ended::Done(outcome, _) => Err(outcome),
            ended => Err(broken_off(&ended, &ran.written)),
        }
    }

    /// No task of a dispatch stands twice in the files, and none of them has grown.
    fn reached_once(&self, dispatch: Dispatch, places: &[PathBuf], before: Option<&Listing>, how: &str) -> Result<(), Outcome> {
        let now = Listing::take(places);
        let ids = dispatch.task_ids(&self.run);
        let counts = now.occurrences(&ids);
        if let Some((id, count)) = ids.iter().zip(&counts).find(|(_, count)| **count > 1) {
            let seen = format!("{how}, the task {id} stands in the files {count} times");
            return Err(Outcome::failed(seen, rules::IDEMPOTENT));
        }
        let grown = before.and_then(|before| {
            let size = |listing: &Listing, path: &Path| listing.files.get(path).map(|(bytes, _)| *bytes);
            now.files.keys().find(|path| size(&now, path) > size(before, path))
        });
        match grown {
            // Files that do not hold ids as text may keep a journal; those that do have told already.
            Some(path) if counts.iter().all(|count| *count == 0) => {
                Err(Outcome::failed(format!("{how}, {} is new or larger than after the first push", path.display()), rules::IDEMPOTENT))
            }
            _ => Ok(()),
        }
    }

    fn dry_run(&mut self) -> Outcome {
        let number = self.next_dispatches();
        let schema = self.manifest.as_ref().map(|manifest| &manifest.config_schema);
        let places = schema.map(|schema| config_paths(&self.config, schema)).unwrap_or_default();
        let before = Listing::take(&places);
        let pushed = self.push(Dispatch { number, tasks: TASKS_TWICE }, HowToPush::DryRun);
        let changed = Listing::take(&places).changes(&before);
        match (pushed, changed.first()) {
            (Err(outcome @ Outcome::Failed { .. }), _) => outcome,
            (_, Some(path)) => Outcome::failed(format!("it wrote {}", path.display()), rules::DRY_RUN),
            (Err(outcome), _) => outcome,
            (Ok(answered), None) => {
                let verdicts: Vec<_> = answered.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
                Outcome::noted(verdicts.join(", "))
            }
        }
    }

    fn poll(&mut self) -> Outcome {
        let trial = self.trial();
        self.simple(Act::Poll(trial))
    }

    fn callback(&mut self) -> Outcome {
        let trial = self.trial();
        self.simple(Act::Callback(trial))
    }

    fn cancel(&mut self) -> Outcome {
        let trial = self.trial();
        self.simple(Act::Cancel(trial))
    }

    fn panic(&mut self) -> Outcome {
        self.simple(Act::Panic)
    }

    fn remains(&mut self) -> Outcome {
        let trial = self.trial();
        self.simple(Act::Remains(trial))
    }

    fn memory(&mut self) -> Outcome {
        let trial = self.trial();
        self.simple(Act::Memory(trial))
    }

    fn globals(&mut self) -> Outcome {
        let trial = self.trial();
        let outcome = self.simple(Act::Globals(trial));
        match self.written.first() {
            Some((case, text)) if !outcome.is_failed() => {
                let seen = format!("in the case {case} it wrote to the standard streams: {:?}", shown(text));
                Outcome::failed(seen, rules::GLOBAL)
            }
            _ => outcome,
        }
    }

    fn no_phones(&mut self) -> Outcome {
        match self.phones.as_slice() {
            [] => Outcome::passed(),
            [(case, first), others @ ..] => {
                let more = if others.is_empty() { String::new() } else { format!(", and {} times more", others.len()) };
                Outcome::failed(format!("in the case {case} {first}{more}"), rules::PHONES)
            }
        }
    }
}

/// What it means that a child did not come to its end.
fn broken_off(ended: &Ended, written: &str) -> Outcome {
    let last = written.trim().lines().next_back().map(|line| format!("; it last wrote {:?}", shown(line))).unwrap_or_default();
    match ended {
        Ended::Exited { status, doing } => match signal_of(*status) {
            Some(signal) => Outcome::failed(format!("the process died of {} while {doing}{last}", signal_name(signal)), rules::PANICS),
            None => {
                let code = status.code().unwrap_or_default();
                Outcome::failed(format!("the process exited with {code} while {doing}{last}"), rules::GLOBAL)
            }
        },
        Ended::Hung { after, doing } => {
            Outcome::failed(format!("nothing came for {} s while {doing}: the process was killed{last}", after.as_secs()), rules::STOP)
        }
        Ended::Grew { doing } => {
            Outcome::failed(format!("the process took more than 4 GiB of memory while {doing}, and was killed"), rules::OWNERSHIP)
        }
        Ended::Done(..) | Ended::Stayed(_) => Outcome::skipped("the process stayed where it was not to"),
    }
}
