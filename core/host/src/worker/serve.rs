//! What a worker does for as long as its connection lasts: answers calls, each on a thread of its own.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use reunion_abi::control::End;
use reunion_model::limits::{CANCEL_WITHIN_MS, DISPATCH_TASKS_MAX};
use reunion_model::plugin::{ChannelTraits, ErrorClass, Finding, HttpRequest, Item, PluginError, PluginKind};
use reunion_model::task::task_schema;
use serde::Serialize;
use serde_json::Value;

use crate::answers::Items;
use crate::channel::InProcessChannel;
use crate::contract::RawAnswer;
use crate::library::Plugin;
use crate::source::InProcessSource;
use crate::stream::Pull;
use crate::wire::{self, AnswerMessage, CallMessage, Frame, Kind, Ready, What};
use crate::{CallOptions, Canceller, ChannelConnector, SourceConnector};

/// The component that a worker is for.
pub(crate) enum Component {
    Source(InProcessSource),
    Channel(Box<InProcessChannel>),
}

impl Component {
    /// Makes it. The config has the schema's defaults in it.
    pub(crate) fn make(plugin: &Plugin, name: &str, config: &Value) -> Result<Self, PluginError> {
        match plugin.manifest().kind {
            PluginKind::Source => plugin.in_process_source(name, config).map(Self::Source),
            PluginKind::Channel => plugin.in_process_channel(name, config).map(|channel| Self::Channel(Box::new(channel))),
        }
    }

    pub(crate) fn traits(&self) -> Option<ChannelTraits> {
        match self {
            Self::Source(_) => None,
            Self::Channel(channel) => Some(channel.traits().clone()),
        }
    }

    fn canceller(&self) -> Canceller {
        match self {
            Self::Source(source) => source.canceller(),
            Self::Channel(channel) => channel.canceller(),
        }
    }

    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        match self {
            Self::Source(source) => source.check(options),
            Self::Channel(channel) => channel.check(options),
        }
    }
}

/// The way to the daemon, for one frame at a time.
pub(crate) struct Out {
    stream: Mutex<UnixStream>,
    /// What is done where it has broken, and the connection cannot be ended: a plugin may have closed it.
    on_end: fn(),
}

impl Out {
    pub(crate) fn new(stream: UnixStream, on_end: fn()) -> Self {
        Self { stream: Mutex::new(stream), on_end }
    }

    /// Ends the connection, whose other end then knows.
    fn end(&self) {
        let _ = self.stream().shutdown(std::net::Shutdown::Both);
        (self.on_end)();
    }

    fn stream(&self) -> MutexGuard<'_, UnixStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, kind: Kind, call: u32, payload: &[u8]) -> io::Result<()> {
        wire::write(&mut *self.stream(), kind, call, payload)
    }

    pub(crate) fn json(&self, kind: Kind, call: u32, document: &impl Serialize) -> io::Result<()> {
        self.send(kind, call, &serde_json::to_vec(document)?)
    }
}

/// A call that is being answered.
#[derive(Default)]
struct Open {
    wish: Mutex<Wish>,
    changed: Condvar,
}

/// What the daemon wants of a stream.
#[derive(Default)]
struct Wish {
    /// Items that may be sent.
    credit: u32,
    /// Nobody wants the rest. Seen by the plugin as a cancel of this call.
    released: Option<Arc<AtomicBool>>,
    is_released: bool,
}

impl Open {
    fn change(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.wish.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn release(&self) {
        self.change(|wish| {
            wish.is_released = true;
            if let Some(released) = &wish.released {
                released.store(true, Ordering::Release);
            }
        });
    }

    /// The stream is there: a release stops it from now on.
    fn begin(&self, released: Arc<AtomicBool>) {
        self.change(|wish| {
            released.store(wish.is_released, Ordering::Release);
            wish.released = Some(released);
        });
    }

    /// Waits until an item is wanted; whether one is, rather than the end.
    fn wait(&self) -> bool {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        while wish.credit == 0 && !wish.is_released {
            wish = self.changed.wait(wish).unwrap_or_else(PoisonError::into_inner);
        }
        wish.credit = wish.credit.saturating_sub(1);
        !wish.is_released
    }
}

/// The calls that are being answered.
#[derive(Default)]
struct Calls {
    open: Mutex<HashMap<u32, Arc<Open>>>,
    fewer: Condvar,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, call: u32) -> Option<Arc<Open>> {
        self.lock().get(&call).map(Arc::clone)
    }

    fn remove(&self, call: u32) {
        self.lock().remove(&call);
        self.fewer.notify_all();
    }

    /// Waits until none is open, but not for ever.
    fn wait_for_none(&self) {
        let until = Instant::now() + Duration::from_millis(CANCEL_WITHIN_MS);
        let mut open = self.lock();
        while !open.is_empty() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            open = self.fewer.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Answers calls on a component until the connection ends, or the daemon says goodbye; then ends the component.
pub(crate) fn serve(mut stream: UnixStream, out: Arc<Out>, component: Component) {
    let (component, calls) = (Arc::new(component), Arc::new(Calls::default()));
    let mut before: HashMap<u32, Before> = HashMap::new();
    while let Ok(frame) = wire::read(&mut stream) {
        let Frame { kind, call, payload } = frame;
        let understood = match kind {
            Kind::Tasks => wire::decode(payload).map(|batch| before.entry(call).or_default().tasks.push(batch)),
            Kind::Body => {
                before.entry(call).or_default().body = payload;
                Ok(())
            }
            Kind::Call => serde_json::from_slice(&payload).map_err(|error| error.to_string()).map(|message: CallMessage| {
                let answer = Answer { component: Arc::clone(&component), out: Arc::clone(&out), calls: Arc::clone(&calls), call };
                answer.start(message, before.remove(&call).unwrap_or_default());
            }),
            Kind::Credit => credit(&payload).map(|items| {
                if let Some(open) = calls.get(call) {
                    open.change(|wish| wish.credit = wish.credit.saturating_add(items));
                }
            }),
            Kind::Release => {
                if let Some(open) = calls.get(call) {
                    open.release();
                }
                Ok(())
            }
            Kind::Cancel => {
                component.canceller().cancel();
                Ok(())
            }
            _ => break,
        };
        // The daemon is the same program: what cannot be understood is the end.
        if understood.is_err() {
            break;
        }
    }
    component.canceller().cancel();
    calls.lock().values().for_each(|open| open.release());
    calls.wait_for_none();
}

/// A worker that is this thread: the plugin is in the daemon's own process.
pub(crate) fn on_this_thread(stream: UnixStream, plugin: &Plugin, name: &str, config: &Value) {
    let Ok(out) = stream.try_clone().map(|stream| Out::new(stream, || ())) else { return };
    let out = Arc::new(out);
    match Component::make(plugin, name, config) {
        Ok(component) => {
            let ready = Ready { traits: component.traits(), confined: None };
            if out.json(Kind::Ready, 0, &ready).is_ok() {
                serve(stream, out, component);
            }
        }
        Err(error) => not_made(stream, &out, &error),
    }
}

/// Tells why there is no component, and stays until the daemon has heard it: an end before that would look as if
/// the plugin had crashed.
pub(crate) fn not_made(mut stream: UnixStream, out: &Out, error: &PluginError) {
    if out.json(Kind::Failed, 0, error).is_ok() {
        let _ = wire::read(&mut stream);
    }
}

fn credit(payload: &[u8]) -> Result<u32, String> {
    payload.try_into().map(u32::from_le_bytes).map_err(|_| "a number of items has four bytes".to_owned())
}

/// What came for a call before it.
#[derive(Default)]
struct Before {
    tasks: Vec<RecordBatch>,
    body: Vec<u8>,
}

/// A call on its way to its answer.
struct Answer {
    component: Arc<Component>,
    out: Arc<Out>,
    calls: Arc<Calls>,
    call: u32,
}

impl Answer {
    fn start(self, message: CallMessage, before: Before) {
        let open = Arc::new(Open::default());
        self.calls.lock().insert(self.call, Arc::clone(&open));
        let (out, calls, call) = (Arc::clone(&self.out), Arc::clone(&self.calls), self.call);
        let answering = thread::Builder::new().name("call".into()).spawn(move || {
            if self.answer(message, before, &open).is_err() {
                // Nothing can be said any more, and nobody would hear of it.
                self.out.end();
            }
            self.calls.remove(self.call);
        });
        if let Err(error) = answering {
            calls.remove(call);
            let error = PluginError::new(ErrorClass::Unavailable, format!("no thread can be started for the call: {error}"));
            let _ = out.json(Kind::Failed, call, &error);
        }
    }

    fn answer(&self, message: CallMessage, before: Before, open: &Open) -> io::Result<()> {
        let CallMessage { options, what } = message;
        match (what, &*self.component) {
            (What::Check, component) => match component.check(&options) {
                Ok(findings) => self.out.json(Kind::Findings, self.call, &findings),
                Err(error) => self.failed(&error),
            },
            (What::Schema, Component::Source(source)) => match source.schema(&options) {
                Ok(schema) => match wire::encode_schema(&schema) {
                    Ok(schema) => self.out.send(Kind::Schema, self.call, &schema),
                    Err(error) => self.failed(&unsendable(&error.to_string())),
                },
                Err(error) => self.failed(&error),
            },
            (What::Read { request, state }, Component::Source(source)) => {
                self.stream(open, source.read_items(&options, &request, state.as_ref()))
            }
            (What::Push { dispatch }, Component::Channel(channel)) => {
                self.stream(open, whole(&before.tasks).and_then(|tasks| channel.push_items(&options, &dispatch, &tasks)))
            }
            (What::Poll { state }, Component::Channel(channel)) => self.stream(open, channel.poll_items(&options, state.as_ref())),
            (What::Callback { request }, Component::Channel(channel)) => {
                match channel.callback_answer(&options, &HttpRequest { body: before.body, ..request }) {
                    Ok(answer) => self.answered(answer),
                    Err(error) => self.failed(&error),
                }
            }
            (What::Schema | What::Read { .. } | What::Push { .. } | What::Poll { .. } | What::Callback { .. }, _) => {
                self.failed(&PluginError::new(ErrorClass::Internal, "a call that this kind of component does not have"))
            }
        }
    }

    fn failed(&self, error: &PluginError) -> io::Result<()> {
        self.out.json(Kind::Failed, self.call, error)
    }

    /// Sends the items of a stream as they are wanted. The plugin has released it before its end is told: the
    /// daemon's next call finds the component free.
    fn stream(&self, open: &Open, items: Result<Pull, PluginError>) -> io::Result<()> {
        let mut items = match items {
            Ok(items) => items,
            Err(error) => return self.failed(&error),
        };
        open.begin(items.released());
        while open.wait() {
            let sent = match items.next() {
                Ok(Some(Item::Begin { resumed })) => self.out.json(Kind::Begin, self.call, &resumed),
                Ok(Some(Item::Batch(batch))) => self.batch(Kind::Batch, &batch),
                Ok(Some(Item::Rejected(batch))) => self.batch(Kind::Rejected, &batch),
                Ok(Some(Item::State(state))) => self.out.json(Kind::State, self.call, &state),
                Ok(Some(Item::End { as_of_us })) => return self.ended(items, &End { as_of_us, unchanged: false }),
                Ok(Some(Item::Unchanged { as_of_us })) => return self.ended(items, &End { as_of_us, unchanged: true }),
                Ok(None) => break,
                Err(error) => {
                    drop(items);
                    return self.failed(&error);
                }
            };
            if let Err(error) = sent {
                drop(items);
                // Too long for a frame, of which nothing was sent; anything else is the connection's end.
                return if error.kind() == io::ErrorKind::InvalidInput { self.failed(&unsendable(&error.to_string())) } else { Err(error) };
            }
        }
        drop(items);
        self.out.send(Kind::Released, self.call, &[])
    }

    fn ended(&self, items: Pull, end: &End) -> io::Result<()> {
        drop(items);
        self.out.json(Kind::End, self.call, end)
    }

    /// Sends the answer to a request: what is beside it, where there is any, and then itself.
    fn answered(&self, answer: RawAnswer) -> io::Result<()> {
        let RawAnswer { status, headers, body, events } = answer;
        let sent = match events {
            Some(events) => self.batch(Kind::Events, &events),
            None => Ok(()),
        };
        let sent = sent.and_then(|()| if body.is_empty() { Ok(()) } else { self.out.send(Kind::Body, self.call, &body) });
        let sent = sent.and_then(|()| self.out.json(Kind::Answer, self.call, &AnswerMessage { status, headers }));
        match sent {
            // Too long for a frame, of which nothing was sent.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.failed(&unsendable(&error.to_string())),
            other => other,
        }
    }

    fn batch(&self, kind: Kind, batch: &RecordBatch) -> io::Result<()> {
        let encoded = wire::encode(batch).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        self.out.send(kind, self.call, &encoded)
    }
}

fn unsendable(why: &str) -> PluginError {
    PluginError::new(ErrorClass::Internal, format!("what the plugin answered cannot be sent on: {why}"))
}

/// The tasks of a dispatch in one piece, as a plugin takes them.
fn whole(tasks: &[RecordBatch]) -> Result<RecordBatch, PluginError> {
    let rows: usize = tasks.iter().map(RecordBatch::num_rows).sum();
    if rows > DISPATCH_TASKS_MAX {
        return Err(PluginError::new(
            ErrorClass::InvalidData,
            format!("a dispatch of {rows} tasks, and {DISPATCH_TASKS_MAX} are the limit"),
        ));
    }
    match tasks {
        [one] => Ok(one.clone()),
        _ => concat_batches(&task_schema(), tasks).map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string())),
    }
}
