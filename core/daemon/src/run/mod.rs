//! One run of a pipeline: pull, identity, rules, plan, commit, dispatch. A dry run stops before the
//! commit and leaves nothing behind.

pub mod campaigns;
mod commit;
mod contacts;
mod guards;
pub mod holders;
mod outreach;
mod people;
mod population;
mod progress;
mod pull;
mod report;
mod setup;
mod sources;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reunion_ledger::NewRun;
use reunion_model::threads::both;
use reunion_model::{MemberId, RunId};

pub use contacts::{linked, members_with, phones, suppressed_since};
pub use people::identity_config;
pub use population::{members_of_sources, stored_tags};
pub use progress::Progress;
pub use report::{Report, short};
pub use sources::{StoredSchema, golden_columns, is_stale, true_at};

use crate::app::App;
use crate::cli::{Exit, RunArgs};
use crate::dispatch::{Clock, Dispatcher, Pass};
use crate::failure::{Doing, Failure};
use crate::state::{Hold, State, now_us};

use commit::{Draft, MembersFiles};
use report::ChannelReport;
use setup::Setup;

/// Pulls and computes as `once` would; commits nothing and contacts nobody.
///
/// # Errors
/// Why no plan could be made.
pub fn plan(app: &App, args: &RunArgs) -> Result<(Report, Exit), Failure> {
    let state = app.state()?;
    let setup = Setup::new(app, &state, args)?;
    let report = compute(&setup, None, run_id()?)?;
    let exit = if setup.failed_channels.is_empty() { exit(&report) } else { Exit::Partial };
    Ok((report, exit))
}

/// Runs a pipeline to the end.
///
/// # Errors
/// Why nothing was committed.
pub fn once(app: &App, args: &RunArgs) -> Result<(Report, Exit), Failure> {
    let state = app.state()?;
    let hold = state.hold(&app.config)?;
    once_held(app, &state, &hold, args, &|| false)
}

/// Runs a pipeline to the end, under a right that the caller holds.
///
/// # Errors
/// Why nothing was committed.
pub fn once_held(app: &App, state: &State, hold: &Hold, args: &RunArgs, stopping: &dyn Fn() -> bool) -> Result<(Report, Exit), Failure> {
    let mut setup = Setup::new(app, state, args)?;
    hold.remove_orphans(&app.config)?;
    let run = NewRun {
        run_id: run_id()?,
        pipeline: setup.pipeline.clone(),
        clock_us: setup.clock_us,
        started_us: now_us(),
        base: setup.base_number(),
    };
    state.ask(state.ledger.begin_run(&hold.lease, &run))?;
    let result = run_to_the_end(&mut setup, hold, run.run_id, stopping);
    let (exit, report) = match &result {
        Ok((report, exit)) => (*exit, serde_json::to_value(report).doing(|| "the report cannot be stored".to_owned())?),
        Err(failure) => (failure.exit(), failure.json()),
    };
    let noted = state.ask(state.ledger.finish_run(run.run_id, i32::from(exit.code()), &report, now_us()));
    match (result, noted) {
        // Why the run failed matters more than that the ledger could not note it, often for the same reason.
        (Err(failure), Err(_)) => Err(failure),
        (result, noted) => noted.and(result),
    }
}

fn run_to_the_end(setup: &mut Setup<'_>, hold: &Hold, run_id: RunId, stopping: &dyn Fn() -> bool) -> Result<(Report, Exit), Failure> {
    // What clerks have returned since counts in this run already.
    let poll_notes = dispatcher(setup, Clock::showing(setup.clock_us), stopping).poll()?;
    setup.facts = setup.state.ask(setup.state.ledger.facts())?;
    let setup = &*setup;
    let dispatcher = dispatcher(setup, Clock::showing(setup.clock_us), stopping);
    let mut report = compute(setup, Some(hold), run_id)?;
    report.notes.extend(poll_notes);
    let began = Instant::now();
    setup.progress.stage("sending");
    let pass = dispatcher.drain(Duration::from_secs(setup.app.config.limits.drain_secs))?;
    report.stage_secs.insert("dispatch".to_owned(), began.elapsed().as_secs_f64());
    report.channels = channel_reports(setup, run_id)?;
    finish(setup, &mut report, &pass);
    let exit = if setup.failed_channels.is_empty() { exit(&report) } else { Exit::Partial };
    Ok((report, exit))
}

fn dispatcher<'a>(setup: &'a Setup<'a>, clock: Clock, stopping: &'a dyn Fn() -> bool) -> Dispatcher<'a> {
    Dispatcher {
        config: &setup.app.config,
        state: setup.state,
        channels: &setup.channels,
        campaigns: &setup.campaigns,
        stale: Box::new(|members| setup.stale_members(members)),
        clock,
        stopping,
    }
}

/// A run's id, random.
fn run_id() -> Result<RunId, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).doing(|| "the system gives no random numbers".to_owned())?;
    Ok(RunId(random))
}

/// Everything up to the commit, and with the right to it the commit itself.
fn compute(setup: &Setup<'_>, hold: Option<&Hold>, run_id: RunId) -> Result<Report, Failure> {
    let mut stages = BTreeMap::new();
    let mut timed = Stopwatch { at: Instant::now(), stages: &mut stages };
    setup.progress.stage("reading the sources");
    // What the head and the ledger know, whatever the sources say, beside them.
    let before = || {
        let (people, pasts) = (people::Before::read(setup)?, outreach::pasts(setup)?);
        let tags = setup.base().map(population::stored_tags).transpose()?.unwrap_or_default();
        Ok::<_, Failure>((people, pasts, tags))
    };
    let (before, sources) = both(before, || sources::pull_all(setup, hold, run_id));
    let (mut sources, (before, pasts, tags)) = (sources?, before?);
    timed.lap("pull");
    setup.progress.stage("working out who is who");
    let (who, assignments) = people::identify(setup, hold, &mut sources, before)?;
    let draft = hold.map(|hold| Draft::begin(setup, hold)).transpose()?;
    let tombstones = who.tombstones().to_vec();
    let (people, outreach, mut report) = std::thread::scope(|scope| {
        let draft = draft.as_ref();
        let assignments = draft.map(|draft| scope.spawn(move || draft.assignments(&tombstones, &assignments)));
        let mut files = draft.map(|draft| draft.members(scope, who.dirty(), who.removed())).transpose()?;
        let people = Arc::new(who.people(setup, |members| files.iter_mut().for_each(|files| files.write(members)))?);
        timed.lap("identity");
        let members = files.map(MembersFiles::end).into_iter().flatten();
        let to_write = Arc::clone(&people);
        let records = draft.map(|draft| scope.spawn(move || draft.records(&to_write)));
        setup.progress.stage("applying the rules");
        let population = population::population(setup, &people, tags)?;
        let delta = Arc::clone(&population.tags);
        let tags = draft.map(|draft| scope.spawn(move || draft.tags(&delta)));
        timed.lap("rules");
        setup.progress.stage("planning tasks");
        let outreach = outreach::plan(setup, &sources, &people, &population, pasts)?;
        timed.lap("plan");
        let report = report::of(setup, run_id, &sources, &people, &population, &outreach);
        if let Some(broken) = report.broken_sum() {
            let failure = Failure::other(format!("the run was given up: {broken}"));
            return Err(failure.help("this is a defect of the program; nothing was changed"));
        }
        if let Some(draft) = draft {
            setup.progress.stage("committing");
            draft.decisions(&outreach)?;
        }
        assignments.into_iter().chain(members).chain(records).chain(tags).try_for_each(commit::joined)?;
        Ok((people, outreach, report))
    })?;
    if let Some(draft) = draft {
        report.commit(draft.commit(run_id, &sources, &people, &outreach, &report)?);
        timed.lap("commit");
    }
    report.stage_secs = stages;
    Ok(report)
}

struct Stopwatch<'a> {
    at: Instant,
    stages: &'a mut BTreeMap<String, f64>,
}

impl Stopwatch<'_> {
    fn lap(&mut self, stage: &str) {
        let now = Instant::now();
        self.stages.insert(stage.to_owned(), (now - self.at).as_secs_f64());
        self.at = now;
    }
}

/// What became of the tasks of this run, by channel; of every channel that its campaigns use.
fn channel_reports(setup: &Setup<'_>, run_id: RunId) -> Result<BTreeMap<String, ChannelReport>, Failure> {
    use reunion_model::TaskState::{Accepted, Delivered, NotSent, Rejected, Unknown};
    let mut reports: BTreeMap<String, ChannelReport> =
        setup.pipeline_campaigns().map(|campaign| (campaign.channel.clone(), ChannelReport::default())).collect();
    for count in setup.state.ask(setup.state.ledger.task_counts(Some(run_id)))? {
        let channel = reports.entry(count.channel).or_default();
        match count.state {
            Accepted | Delivered => channel.sent += count.tasks,
            NotSent => channel.retrying += count.tasks,
            Rejected => channel.failed += count.tasks,
            Unknown => channel.unknown += count.tasks,
            _ => {}
        }
    }
    Ok(reports)
}

fn finish(setup: &Setup<'_>, report: &mut Report, pass: &Pass) {
    report.notes.extend(pass.errors.iter().cloned());
    report.notes.extend(setup.failed_channels.iter().map(|(name, error)| format!("channel {name}: {error}")));
    if pass.next_us.is_some() {
        report.notes.push("some tasks are tried again later: the next run or the daemon sends them".to_owned());
    }
    let quiet =
        report.sources.values().all(|source| source.new + source.changed + source.deleted + source.requarantined + source.released == 0);
    // What operators decided changes members, though no row did.
    let quiet = quiet && report.members.new + report.members.changed + report.members.merged == 0;
    let planned: u64 = report.campaigns.values().map(|campaign| campaign.planned).sum();
    if quiet && planned == 0 && setup.base_number().is_some() {
        report.notes.push("nothing changed: no row is new or changed, and no task was planned".to_owned());
    }
}

/// Whether all of it was done.
fn exit(report: &Report) -> Exit {
    let failed = report.sources.values().any(|source| source.failed.is_some());
    let open = report.channels.values().any(|channel| channel.retrying + channel.failed + channel.unknown > 0);
    if failed || open { Exit::Partial } else { Exit::Done }
}

impl Setup<'_> {
    /// Which of these members have data of a source that is too old.
    fn stale_members(&self, members: &HashSet<MemberId>) -> Result<HashSet<MemberId>, Failure> {
        let mask = self.stale_sources(&sources::PulledSources::new())?;
        if mask == 0 || members.is_empty() {
            return Ok(HashSet::new());
        }
        let Some((_, head)) = self.state.head()? else { return Ok(HashSet::new()) };
        members_of_sources(&head, members, mask)
    }
}
