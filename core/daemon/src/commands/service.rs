//! `run`: the daemon. Pipelines start by their schedules, tasks go out as they fall due, and results come
//! in, until the service manager asks for the end.
//!
//! Runs and the outbox have a thread each, so that a long pull holds up no task, and requests from outside are taken
//! beside both. When the end is asked for,
//! work under way has `drain_secs` to finish; what does not is left as a power cut would leave it, which
//! costs nothing but the time to take it up again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use reunion_host::memory;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::cli::{Exit, RunArgs};
use crate::components::{self, Trouble};
use crate::config::{Component, Diagnostics};
use crate::failure::{Doing, Failure};
use crate::http::Server;
use crate::outbox::Outbox;
use crate::run;
use crate::state::{Hold, State};

/// How often the daemon looks at its schedules, and whether it is asked to end.
const TICK: Duration = Duration::from_millis(250);
/// How long it waits, beyond `lease_wait_secs`, before it asks again for the right to run.
const HOLD_AGAIN: Duration = Duration::from_secs(5);
/// How often it sends what is due and asks what came of it.
const DISPATCH_EVERY: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub fn run(app: &App) -> Result<Exit, Failure> {
    can_run(app)?;
    let state = app.state()?;
    // The daemon holds the state for its whole life: what it has begun to send nobody else sends.
    let hold = state.hold(&app.config)?;
    let outbox = Outbox::new(app, &state)?;
    let stop = watch_signals(app)?;
    let asked = stop.clone();
    let http = app.config.http.listen.map(|address| Server::start(app, &state, address.0, move || asked.is_asked())).transpose()?;
    let schedules = Schedules::new(app);
    tell(&[NotifyState::Ready, NotifyState::Status(&schedules.waiting())]);
    feed_watchdog();
    tracing::info!(pipelines = app.config.pipelines.len(), "ready: {}", schedules.waiting());
    std::thread::scope(|scope| {
        scope.spawn(|| keep_sending(outbox, &stop));
        keep_running(app, &state, hold, schedules, &stop);
    });
    // Last: what is sent at the end may be answered at once.
    if let Some(http) = http {
        http.stop();
    }
    tracing::info!("ended as asked");
    Ok(Exit::Done)
}

/// Finds at the start what would else be found by the first run, perhaps at night.
fn can_run(app: &App) -> Result<(), Failure> {
    if app.config.pipelines.is_empty() {
        return Err(Failure::usage("the config has no pipeline").help("add [pipelines.daily] with `sources` and `campaigns`"));
    }
    let mut findings = Diagnostics::default();
    for name in app.config.sources.keys() {
        // A plugin that fails is the trouble of its component.
        if let Err(Trouble::Config(errors)) = components::settings(&app.config, &app.plugins, Component::Source, name) {
            findings.extend(errors);
        }
    }
    if findings.has_errors() { Err(findings.into()) } else { Ok(()) }
}

/// Runs pipelines as they fall due.
fn keep_running(app: &App, state: &State, hold: Hold, mut schedules: Schedules<'_>, stop: &Stop) {
    let mut held = Some(hold);
    while !stop.is_asked() {
        let Some(pipeline) = schedules.due() else {
            std::thread::sleep(TICK);
            continue;
        };
        let Some(hold) = still_held(app, state, &mut held) else {
            stop.sleep(HOLD_AGAIN);
            continue;
        };
        tell(&[NotifyState::Status(&format!("running {pipeline}"))]);
        let args = RunArgs { pipeline: Some(pipeline.to_owned()), ..RunArgs::default() };
        match run::once_held(app, state, hold, &args, &|| stop.is_asked()) {
            Ok((report, exit)) => {
                tracing::info!(pipeline, run = %report.run_id, exit = exit.code(), "a run ended");
                report.notes.iter().for_each(|note| tracing::info!(pipeline, "{note}"));
            }
            // The next start may find the cause mended; the daemon goes on.
            Err(failure) => tracing::error!(pipeline, exit = failure.exit().code(), "a run failed: {}", failure.render(false)),
        }
        memory::give_back();
        schedules.advance(pipeline);
        if !stop.is_asked() {
            tell(&[NotifyState::Status(&schedules.waiting())]);
        }
    }
}

/// The right to change people, taken anew where somebody else has had it since: a lease is lost when the
/// database, or the network to it, is away for longer than it lives.
fn still_held<'a>(app: &App, state: &State, held: &'a mut Option<Hold>) -> Option<&'a Hold> {
    if held.as_ref().is_some_and(Hold::is_lost) {
        *held = None;
        tracing::warn!("another process had the right to run meanwhile; taking it back");
    }
    if held.is_none() {
        match state.hold(&app.config) {
            Ok(hold) => *held = Some(hold),
            Err(failure) => tracing::warn!("a run that is due waits: {}", failure.render(false)),
        }
    }
    held.as_ref()
}

/// Sends what is due, every few seconds.
fn keep_sending(mut outbox: Outbox<'_>, stop: &Stop) {
    let mut failed = String::new();
    while !stop.is_asked() {
        match outbox.pass(&|| stop.is_asked()) {
            Ok(notes) => {
                failed.clear();
                notes.iter().for_each(|note| tracing::warn!("{note}"));
            }
            Err(failure) => {
                let text = failure.render(false);
                // Told once: the ledger may be away for hours.
                if text != failed {
                    tracing::error!("tasks cannot be sent: {text}");
                    failed = text;
                }
            }
        }
        stop.sleep(DISPATCH_EVERY);
    }
}

/// When each pipeline starts next.
struct Schedules<'a> {
    app: &'a App,
    next: BTreeMap<&'a str, Option<Zoned>>,
}

impl<'a> Schedules<'a> {
    fn new(app: &'a App) -> Self {
        let next = app.config.pipelines.keys().map(|name| (name.as_str(), next_start(app, name))).collect();
        Self { app, next }
    }

    /// A pipeline whose time has come; of several the one that has waited longest.
    fn due(&self) -> Option<&'a str> {
        let now = Timestamp::now();
        let started = self.next.iter().filter_map(|(name, at)| Some((at.as_ref()?.timestamp(), *name)));
        started.filter(|(at, _)| *at <= now).min().map(|(_, name)| name)
    }

    /// A run has ended. Starts that fell into it are not made up for.
    fn advance(&mut self, pipeline: &'a str) {
        self.next.insert(pipeline, next_start(self.app, pipeline));
    }

    /// What the daemon waits for, in words.
    fn waiting(&self) -> String {
        waiting(self.next.iter().filter_map(|(name, at)| Some((at.as_ref()?.clone(), *name))).min())
    }
}

fn waiting(next: Option<(Zoned, &str)>) -> String {
    match next {
        Some((at, name)) => format!("{name} starts at {}", at.strftime("%Y-%m-%dT%H:%M:%S%:z")),
        None => "no pipeline has a schedule; sending what is due".to_owned(),
    }
}

/// When a pipeline starts next, by its schedule in the config's timezone.
fn next_start(app: &App, pipeline: &str) -> Option<Zoned> {
    let schedule = app.config.pipelines[pipeline].schedule.as_ref()?;
    let now = Timestamp::now().to_zoned(app.config.timezone.rules().clone());
    schedule.cron().find_next_occurrence(&now, false).ok()
}

/// Whether the end was asked for.
#[derive(Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Waits, unless the end is asked for.
    fn sleep(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        while !self.is_asked() && std::time::Instant::now() < until {
            std::thread::sleep(TICK);
        }
    }
}

fn watch_signals(app: &App) -> Result<Stop, Failure> {
    let _runtime = app.runtime.enter();
    let doing = || "signals cannot be watched".to_owned();
    let mut terminate = signal(SignalKind::terminate()).doing(doing)?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(doing)?;
    let drain = Duration::from_secs(app.config.limits.drain_secs);
    let stop = Stop::default();
    let asked = stop.clone();
    app.runtime.spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        asked.ask();
        std::thread::spawn(|| tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is under way")]));
        tracing::info!(drain_secs = drain.as_secs(), "asked to end; finishing what is under way");
        tokio::select! {
            () = tokio::time::sleep(drain) => tracing::warn!("drain_secs are over; what was under way is taken up at the next start"),
            () = either(&mut terminate, &mut interrupt) => tracing::warn!("asked again; what was under way is taken up at the next start"),
        }
        // A pull or a push does not end by itself. Nothing is lost: see the module.
        std::process::exit(i32::from(Exit::Partial.code()));
    });
    Ok(stop)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells the service manager, if it wants to know, that the process is alive.
fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // On a thread that nobody waits for: telling blocks where the service manager does not listen.
    std::thread::spawn(move || {
        loop {
            tell(&[NotifyState::Watchdog]);
            std::thread::sleep(limit / 2);
        }
    });
}

/// Tells the service manager, if there is one.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_waits_for() {
        let at: Zoned = "2026-03-25T06:00:00+08:00[Asia/Shanghai]".parse().expect("a time");
        assert_eq!(waiting(Some((at, "daily"))), "daily starts at 2026-03-25T06:00:00+08:00");
        assert_eq!(waiting(None), "no pipeline has a schedule; sending what is due");
    }

    #[test]
    fn nobody_sleeps_on_when_the_end_is_asked_for() {
        let stop = Stop::default();
        assert!(!stop.is_asked());
        stop.ask();
        stop.sleep(Duration::from_secs(3_600));
        assert!(stop.is_asked());
    }
}
