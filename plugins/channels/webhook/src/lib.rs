//! Channel plugin `webhook`: tasks as JSON to an HTTP endpoint.
//!
//! [`request`] is what is posted and [`signature`] how it is signed; [`client`] makes one request and
//! [`answer`] says what the answer means; [`pace`] is how fast requests follow each other; [`delivery`] brings
//! one dispatch to its end. [`callback`] takes what the receiver reports of tasks later on.

mod answer;
mod callback;
mod client;
mod config;
mod delivery;
mod pace;
mod request;
mod signature;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{
    Call, Capabilities, Channel, ChannelTraits, DispatchInfo, ErrorClass, Finding, HttpAnswer, HttpRequest, Manifest, Needs, PluginError,
    PluginKind, Receipts, ReceiptsBuilder,
};
use tokio::runtime::{self, Runtime};

use answer::Meaning;
use client::{Client, NoAnswer};
use config::Checked;
pub use config::Config;
use delivery::Receiver;
use pace::Pace;
use request::Tasks;

/// Threads that make requests. They mostly wait.
const THREADS: usize = 2;
/// How long threads may take to end. One that asks for a name cannot be stopped.
const END_WITHIN: Duration = Duration::from_millis(500);
/// Tasks of one dispatch where pushing it again does no harm. The ledger looks through all of them whenever
/// receipts arrive: with five times as many, requests of one task each took twice as long.
const DISPATCH_TASKS_MAX: usize = 2_000;
/// Tasks of one dispatch where it does: what a crash may leave unknown.
const DISPATCH_TASKS_AT_RISK: usize = 1_000;
/// The id of the request that checks the receiver.
const CHECK_ID: &str = "check";

/// An HTTP endpoint as a channel.
#[derive(Debug)]
pub struct WebhookChannel {
    config: Arc<Checked>,
    /// Made when it is first needed: that reads files and starts threads.
    running: Mutex<Option<Running>>,
}

struct Running {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    receiver: Arc<Receiver>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END_WITHIN);
        }
    }
}

impl Channel for WebhookChannel {
    type Config = Config;

    fn manifest() -> Manifest {
        Manifest {
            name: "webhook".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: reunion_sdk::ABI_VERSION,
            kind: PluginKind::Channel,
            summary: "Posts tasks as JSON to an HTTP endpoint, signed, in batches, with a receipt for each.".into(),
            config_schema: Config::schema(),
            sample: include_str!("../sample.toml").into(),
            capabilities: Capabilities { callback: true, ..Capabilities::default() },
            needs: Some(Needs { network: true, config_paths: true }),
        }
    }

    fn create(_component: &str, config: Config) -> Result<Self, PluginError> {
        Ok(Self { config: Arc::new(config.check()?), running: Mutex::default() })
    }

    fn traits(&self) -> ChannelTraits {
        let config = &self.config;
        let most = if config.idempotent { DISPATCH_TASKS_MAX } else { DISPATCH_TASKS_AT_RISK };
        // The gates are asked before each dispatch, so that one must not take much longer than a minute.
        let a_minutes = config.requests_max.map_or(most, |(minute, _)| config.batch_tasks_max.saturating_mul(minute.get() as usize));
        ChannelTraits {
            dispatch_tasks_max: most.min(a_minutes),
            idempotent: config.idempotent,
            consent: config.consent.clone(),
            reach: config.reach(),
            ..ChannelTraits::default()
        }
    }

    fn check(&self, call: &Call) -> Result<Vec<Finding>, PluginError> {
        let mut findings = Vec::new();
        if self.config.signer.is_none() && self.config.authorization.is_none() {
            findings.push(Finding::warning(
                "neither signing_secret nor authorization is set: the receiver cannot tell whether a request comes from here",
            ));
        }
        let (runtime, receiver) = self.receiver()?;
        let answer = runtime.block_on(async {
            let post = receiver.client.post(CHECK_ID, request::of_check(jiff::Timestamp::now()));
            tokio::select! {
                answer = post => Ok(answer),
                stopped = stopped(call) => Err(stopped),
            }
        })?;
        let failed = |class, why: &str| PluginError::new(class, format!("{}: {why}", self.config.receiver()));
        match answer.map(|answer| (answer.status, answer.meaning(&[], false))) {
            Ok((_, Meaning::Words(_))) => {}
            Ok((status, Meaning::TurnedAway(class, key))) => return Err(failed(class, &format!("it answered {status}")).key(key)),
            Ok((status, _)) => findings.push(Finding::warning(format!("the receiver answered {status} to a request without tasks"))),
            Err(NoAnswer::NotReached(why) | NoAnswer::Uncertain(why)) => return Err(failed(ErrorClass::Unavailable, &why).key("url")),
        }
        Ok(findings)
    }

    fn push(&self, call: &Call, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Receipts, PluginError> {
        call.check()?;
        let tasks = Tasks::new(&tasks)?;
        if call.dry_run() {
            let mut receipts = ReceiptsBuilder::new();
            (0..tasks.len()).for_each(|row| receipts.accepted(tasks.id(row)));
            return Ok(Box::new(std::iter::once(Ok(receipts.finish()))));
        }
        let (runtime, receiver) = self.receiver()?;
        Ok(Box::new(delivery::Receipts::begin(&runtime, receiver, call.clone(), dispatch.clone(), tasks)))
    }

    /// Needs nobody: what is to be known of a message is in it.
    fn callback(&self, call: &Call, request: &HttpRequest) -> Result<HttpAnswer, PluginError> {
        call.check()?;
        Ok(callback::answer(request, self.config.signer.as_ref(), jiff::Timestamp::now().as_second()))
    }
}

impl WebhookChannel {
    fn receiver(&self) -> Result<(runtime::Handle, Arc<Receiver>), PluginError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match &mut *running {
            Some(running) => running,
            none => none.insert(Running::start(&self.config)?),
        };
        let runtime = running.runtime.as_ref().expect("it is taken only by drop");
        Ok((runtime.handle().clone(), Arc::clone(&running.receiver)))
    }
}

impl Running {
    fn start(config: &Arc<Checked>) -> Result<Self, PluginError> {
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("webhook").enable_all().build();
        let runtime = runtime.map_err(|error| PluginError::new(ErrorClass::Unavailable, format!("no threads: {}", error.kind())))?;
        let client = {
            // The client's pool of connections lives in the runtime.
            let _inside = runtime.enter();
            Client::new(Arc::clone(config))?
        };
        let receiver = Receiver { config: Arc::clone(config), client, pace: Pace::new(config.requests_max) };
        Ok(Self { runtime: Some(runtime), receiver: Arc::new(receiver) })
    }
}

/// Ends once the call is to stop, with the error that says so.
async fn stopped(call: &Call) -> PluginError {
    loop {
        if let Err(error) = call.check() {
            return error;
        }
        tokio::time::sleep(delivery::LOOK_EVERY).await;
    }
}

reunion_sdk::export_channel!(WebhookChannel);
