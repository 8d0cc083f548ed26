//! Components of workers as the rest of the daemon calls them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use reunion_model::TaskId;
use reunion_model::limits::{BATCH_ROWS_MAX, COLUMNS_MAX, CONTROL_BYTES_MAX};
use reunion_model::plugin::{ChannelTraits, DispatchInfo, ErrorClass, Finding, HttpRequest, Item, PluginError, ReadRequest};
use reunion_model::task::Verdict;
use serde_json::Value;

use crate::answers::{self, Items, Polls, Progress, Receipts, Rows, StreamKind, misused, task_ids};
use crate::channel::within_limits;
use crate::contract::{self, RawAnswer};
use crate::wire::{self, AnswerMessage, CallMessage, Frame, Kind, What};
use crate::{CallOptions, Callback, Canceller, ChannelConnector, ItemStream, PollStream, Receipt, ReceiptStream, SourceConnector, text};

use super::component::{Component, GRACE, Worker};
use super::link::{ITEMS_IN_FLIGHT_MAX, Replies};

/// A source whose plugin runs in a worker.
pub(crate) struct RemoteSource(pub(crate) Arc<Component>);

/// A channel whose plugin runs in a worker.
pub(crate) struct RemoteChannel {
    component: Arc<Component>,
    traits: ChannelTraits,
}

impl RemoteChannel {
    pub(crate) fn new(component: Arc<Component>) -> Result<Self, PluginError> {
        let traits = component.traits().ok_or_else(|| component.broke("it made a channel without saying what it does"))?;
        Ok(Self { component, traits })
    }
}

/// A call that was sent.
struct Call {
    component: Arc<Component>,
    worker: Arc<Worker>,
    replies: Replies,
    deadline: Option<Instant>,
    over: bool,
}

impl Call {
    /// Makes a call on a worker that lives.
    fn make(component: &Arc<Component>, options: &CallOptions, what: What) -> Result<Self, PluginError> {
        let worker = component.worker()?;
        Self::on(component, worker, options, what, &[])
    }

    /// Makes a call on this worker. `before` is what it is sent first.
    fn on(
        component: &Arc<Component>,
        worker: Arc<Worker>,
        options: &CallOptions,
        what: What,
        before: &[(Kind, &[u8])],
    ) -> Result<Self, PluginError> {
        let message = serde_json::to_vec(&CallMessage { options: options.clone(), what }).map_err(|error| unsent(&error.to_string()))?;
        let replies = worker.link.open().ok_or_else(|| component.broke(&worker.link.why_ended()))?;
        let call = replies.call;
        let credit = ITEMS_IN_FLIGHT_MAX.to_le_bytes();
        let mut frames: Vec<(Kind, u32, &[u8])> = before.iter().map(|(kind, payload)| (*kind, call, *payload)).collect();
        frames.extend([(Kind::Call, call, message.as_slice()), (Kind::Credit, call, credit.as_slice())]);
        worker.link.send(&frames);
        let deadline = options.deadline_unix_ms.map(instant_of);
        Ok(Self { component: Arc::clone(component), worker, replies, deadline, over: false })
    }

    /// The next frame. An error of the plugin, or the end of its worker, ends the call.
    fn next(&mut self) -> Result<Frame, PluginError> {
        let frame = self.component.next(&self.worker, &self.replies, self.deadline).inspect_err(|_| self.over = true)?;
        self.over = frame.kind.ends_call();
        match frame.kind {
            Kind::Failed => {
                let error = self.component.error_of(&frame)?;
                Err(self.component.failed(&self.worker, tidied(error)))
            }
            Kind::Released => Err(self.component.stopped()),
            _ => Ok(frame),
        }
    }

    fn violation(&mut self, rule: &str) -> PluginError {
        self.over = true;
        self.component.violation(&self.worker, rule)
    }
}

impl Drop for Call {
    /// Lets go of a stream that was not read to its end, and waits until the plugin has released it.
    fn drop(&mut self) {
        if self.over || !self.worker.link.is_alive() {
            return;
        }
        self.worker.link.send(&[(Kind::Release, self.replies.call, &[])]);
        let until = Instant::now() + GRACE;
        loop {
            match self.replies.frames.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(frame) if frame.kind.ends_call() => return,
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    return self.worker.link.fault("did not let go of a stream within a second");
                }
            }
        }
    }
}

fn unsent(why: &str) -> PluginError {
    misused(&format!("the call cannot be sent: {why}"))
}

/// An error whose texts are fit to be shown, whoever wrote them.
fn tidied(error: PluginError) -> PluginError {
    let tidy = |text: String| text::tidy(&text::cut(&text));
    PluginError { message: tidy(error.message), hint: error.hint.map(tidy), key: error.key.map(tidy), ..error }
}

fn instant_of(unix_ms: u64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_millis(unix_ms).saturating_sub(now)
}

/// Tasks in pieces that fit a frame.
fn pieces(tasks: &RecordBatch) -> Result<Vec<Vec<u8>>, String> {
    let rows = tasks.num_rows();
    let starts = (0..rows.max(1)).step_by(BATCH_ROWS_MAX);
    starts.map(|at| wire::encode(&tasks.slice(at, (rows - at).min(BATCH_ROWS_MAX))).map_err(|error| error.to_string())).collect()
}

fn check(component: &Arc<Component>, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
    let mut call = Call::make(component, options, What::Check)?;
    let frame = call.next()?;
    match (frame.kind, serde_json::from_slice::<Vec<Finding>>(&frame.payload)) {
        (Kind::Findings, Ok(findings)) => {
            Ok(findings.into_iter().map(|finding| Finding { message: text::tidy(&finding.message), ..finding }).collect())
        }
        _ => Err(call.violation("a check was answered with something else than findings")),
    }
}

fn canceller(component: &Arc<Component>) -> Canceller {
    let component = Arc::downgrade(component);
    Canceller::new(move || {
        if let Some(component) = component.upgrade() {
            component.cancel();
        }
    })
}

impl SourceConnector for RemoteSource {
    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        check(&self.0, options)
    }

    fn schema(&self, options: &CallOptions) -> Result<SchemaRef, PluginError> {
        let mut call = Call::make(&self.0, options, What::Schema)?;
        let frame = call.next()?;
        if frame.kind != Kind::Schema {
            return Err(call.violation("a call for the schema was answered with something else"));
        }
        match wire::decode_schema(frame.payload) {
            Ok(schema) if schema.fields().len() <= COLUMNS_MAX => Ok(schema),
            Ok(schema) => Err(call.violation(&format!("a schema of {} columns, and {COLUMNS_MAX} are the limit", schema.fields().len()))),
            Err(error) => Err(call.violation(&format!("a schema that cannot be read: {error}"))),
        }
    }

    fn read(&self, options: &CallOptions, request: &ReadRequest, state: Option<&Value>) -> Result<Box<dyn ItemStream>, PluginError> {
        let what = What::Read { request: request.clone(), state: state.cloned() };
        Ok(Box::new(Rows(RemoteItems::new(Call::make(&self.0, options, what)?, StreamKind::read(request)))))
    }

    fn canceller(&self) -> Canceller {
        canceller(&self.0)
    }
}

impl ChannelConnector for RemoteChannel {
    fn traits(&self) -> &ChannelTraits {
        &self.traits
    }

    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        check(&self.component, options)
    }

    fn push(&self, options: &CallOptions, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Box<dyn ReceiptStream>, PluginError> {
        let order = task_ids(&tasks)?;
        let pieces = pieces(&tasks).map_err(|error| unsent(&error))?;
        let worker = match self.component.worker() {
            Ok(worker) => worker,
            // Nobody was asked to take anything: no task's fate is in doubt.
            Err(error) if error.class == ErrorClass::Unavailable => return Ok(Box::new(NotGiven::new(order, error))),
            Err(error) => return Err(error),
        };
        let pieces: Vec<(Kind, &[u8])> = pieces.iter().map(|tasks| (Kind::Tasks, tasks.as_slice())).collect();
        let call = Call::on(&self.component, worker, options, What::Push { dispatch: dispatch.clone() }, &pieces)?;
        Ok(Box::new(Receipts::new(RemoteItems::new(call, StreamKind::Push), order)))
    }

    fn poll(&self, options: &CallOptions, state: Option<&Value>) -> Result<Box<dyn PollStream>, PluginError> {
        let call = Call::make(&self.component, options, What::Poll { state: state.cloned() })?;
        Ok(Box::new(Polls(RemoteItems::new(call, StreamKind::Poll))))
    }

    fn callback(&self, options: &CallOptions, request: &HttpRequest) -> Result<Callback, PluginError> {
        within_limits(request)?;
        let worker = self.component.worker()?;
        let HttpRequest { method, path, query, headers, body } = request.clone();
        let what = What::Callback { request: HttpRequest { method, path, query, headers, body: Vec::new() } };
        let mut call = Call::on(&self.component, worker, options, what, &[(Kind::Body, body.as_slice())])?;
        let mut answer = RawAnswer::default();
        loop {
            let Frame { kind, payload, .. } = call.next()?;
            let taken = match kind {
                Kind::Body if answer.body.is_empty() && !payload.is_empty() => {
                    answer.body = payload;
                    Ok(())
                }
                Kind::Events if answer.events.is_none() => match wire::decode(payload) {
                    Ok(events) => {
                        answer.events = Some(events);
                        Ok(())
                    }
                    Err(error) => Err(format!("the events of an answer cannot be taken: {error}")),
                },
                Kind::Answer => match document(&payload, "an answer") {
                    Ok(AnswerMessage { status, headers }) => {
                        return contract::callback(RawAnswer { status, headers, ..answer }).map_err(|rule| call.violation(&rule));
                    }
                    Err(rule) => Err(rule),
                },
                _ => Err("a request was answered with something else than an answer".to_owned()),
            };
            taken.map_err(|rule| call.violation(&rule))?;
        }
    }

    fn canceller(&self) -> Canceller {
        canceller(&self.component)
    }
}

/// The receipts of a dispatch that was given to nobody, because the channel has no worker now.
struct NotGiven {
    order: Vec<TaskId>,
    why: PluginError,
    told: bool,
}

impl NotGiven {
    fn new(order: Vec<TaskId>, why: PluginError) -> Self {
        Self { order, why, told: false }
    }
}

impl ReceiptStream for NotGiven {
    fn next(&mut self) -> Result<Option<Vec<Receipt>>, PluginError> {
        if std::mem::replace(&mut self.told, true) || self.order.is_empty() {
            return Ok(None);
        }
        let receipt = |task: &TaskId| Receipt {
            task: *task,
            verdict: Verdict::Busy,
            retry_after_ms: Some(self.why.retry_after_ms.unwrap_or(1000)),
            code: None,
            message: Some(self.why.message.clone()),
        };
        Ok(Some(self.order.iter().map(receipt).collect()))
    }

    fn unanswered(&self) -> Vec<TaskId> {
        if self.told { Vec::new() } else { self.order.clone() }
    }
}

/// The items of a stream in a worker.
struct RemoteItems {
    call: Call,
    progress: Progress,
    /// The schema of the batch before, shared by the next where it is the same.
    known: Option<SchemaRef>,
    /// Items that were taken, and of which the worker has not been told.
    taken: u32,
}

impl RemoteItems {
    fn new(call: Call, kind: StreamKind) -> Self {
        Self { call, progress: Progress::new(kind), known: None, taken: 0 }
    }

    fn pull(&mut self) -> Result<Item, PluginError> {
        let frame = self.call.next()?;
        if !self.call.over {
            self.taken += 1;
            if self.taken >= ITEMS_IN_FLIGHT_MAX / 2 {
                self.call.worker.link.grant(self.call.replies.call, std::mem::take(&mut self.taken));
            }
        }
        let Frame { kind, payload, .. } = frame;
        let item = match kind {
            Kind::Begin => document(&payload, "the begin marker").map(|resumed| Item::Begin { resumed }),
            Kind::Batch => self.batch(payload, "a batch").map(Item::Batch),
            Kind::Rejected => {
                self.batch(payload, "a batch of rejected rows").and_then(|batch| contract::rejected(&batch)).map(Item::Rejected)
            }
            Kind::State if payload.len() > CONTROL_BYTES_MAX => {
                Err(format!("the state has {} bytes, and {CONTROL_BYTES_MAX} are the limit", payload.len()))
            }
            Kind::State => document(&payload, "the state").map(Item::State),
            Kind::End => document(&payload, "the end marker").map(answers::end),
            _ => Err("a stream was answered with something else than items".to_owned()),
        };
        item.map_err(|rule| self.call.violation(&rule))
    }

    fn batch(&mut self, payload: Vec<u8>, what: &str) -> Result<RecordBatch, String> {
        let batch = wire::decode(payload).map_err(|error| format!("{what} that cannot be taken: {error}"))?;
        if batch.num_rows() > BATCH_ROWS_MAX || batch.num_columns() > COLUMNS_MAX {
            return Err(format!("{what} of {} rows and {} columns is beyond the limits", batch.num_rows(), batch.num_columns()));
        }
        let known = self.known.as_ref().filter(|known| ***known == *batch.schema()).cloned();
        let batch = match known {
            Some(known) => batch.with_schema(known).map_err(|error| error.to_string())?,
            None => batch,
        };
        self.known = Some(batch.schema());
        Ok(batch)
    }
}

fn document<D: serde::de::DeserializeOwned>(payload: &[u8], what: &str) -> Result<D, String> {
    serde_json::from_slice(payload).map_err(|error| format!("{what} is not what it should be: {}", text::tidy(&error.to_string())))
}

impl Items for RemoteItems {
    fn next(&mut self) -> Result<Option<Item>, PluginError> {
        if let Some(over) = self.progress.over() {
            return over;
        }
        let item = self.pull().and_then(|item| match self.progress.broken_rule(&item) {
            Some(rule) => Err(self.call.violation(rule)),
            None => Ok(item),
        });
        match item {
            Ok(item) => {
                self.progress.came(&item);
                Ok(Some(item))
            }
            Err(error) => Err(self.progress.fail(error)),
        }
    }

    fn violation(&mut self, rule: &str) -> PluginError {
        let error = self.call.violation(rule);
        self.progress.fail(error)
    }
}
