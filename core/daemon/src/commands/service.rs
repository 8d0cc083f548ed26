//! `run`: the daemon. Pipelines start by their schedules, tasks go out as they fall due, and results come
//! in, until the service manager asks for the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use sd_notify::NotifyState;

use crate::app::App;
use crate::cli::{Exit, RunArgs};
use crate::failure::{Doing, Failure};
use crate::run;

/// How often the daemon looks at its schedules and queues.
const TICK: Duration = Duration::from_millis(500);
/// How often it sends what is due and asks what came of it.
const DISPATCH_EVERY: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub fn run(app: &App) -> Result<Exit, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(app, &stop)?;
    let state = app.state()?;
    // The daemon holds the state for its whole life: what it has begun to send nobody else sends.
    let hold = state.hold(&app.config)?;
    let stopping = || stop.load(Ordering::Acquire);
    let mut next: BTreeMap<&str, Option<Zoned>> = app.config.pipelines.keys().map(|name| (name.as_str(), next_start(app, name))).collect();
    tell(&[NotifyState::Ready, NotifyState::Status("waiting for the first schedule")]);
    tracing::info!(pipelines = next.len(), "ready");
    let mut dispatched = None::<std::time::Instant>;
    while !stopping() {
        let now = Timestamp::now();
        let due: Option<&str> = next.iter().find(|(_, at)| at.as_ref().is_some_and(|at| at.timestamp() <= now)).map(|(name, _)| *name);
        if let Some(pipeline) = due {
            tell(&[NotifyState::Status(&format!("running {pipeline}"))]);
            let args = RunArgs { pipeline: Some(pipeline.to_owned()), ..RunArgs::default() };
            match run::once_held(app, &state, &hold, &args, &stopping) {
                Ok((report, exit)) => tracing::info!(pipeline, run = %report.run_id, exit = exit.code(), "a run ended"),
                // The next start may find the cause mended; the daemon goes on.
                Err(failure) => tracing::error!(pipeline, "a run failed: {}", failure.render(false)),
            }
            next.insert(pipeline, next_start(app, pipeline));
            tell(&[NotifyState::Status(&format!("{pipeline} ended; waiting"))]);
        } else if dispatched.is_none_or(|at| at.elapsed() >= DISPATCH_EVERY) {
            dispatched = Some(std::time::Instant::now());
            if let Err(failure) = run::send_due(app, &state, &stopping) {
                tracing::error!("tasks cannot be sent: {}", failure.render(false));
            }
        } else {
            std::thread::sleep(TICK);
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("ended as asked");
    drop(hold);
    Ok(Exit::Done)
}

/// When a pipeline starts next, by its schedule in the config's timezone.
fn next_start(app: &App, pipeline: &str) -> Option<Zoned> {
    let schedule = app.config.pipelines[pipeline].schedule.as_ref()?;
    let now = Timestamp::now().to_zoned(app.config.timezone.rules().clone());
    schedule.cron().find_next_occurrence(&now, false).ok()
}

fn watch_signals(app: &App, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let _runtime = app.runtime.enter();
    let doing = || "signals cannot be watched".to_owned();
    let mut terminate = signal(SignalKind::terminate()).doing(doing)?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(doing)?;
    let stop = Arc::clone(stop);
    app.runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end; finishing what is being sent");
        stop.store(true, Ordering::Release);
    });
    Ok(())
}

/// Tells the service manager, if there is one.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
