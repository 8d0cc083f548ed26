//! A channel that runs in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arrow::array::RecordBatch;
use serde_json::Value;

use reunion_abi::{self as abi, Buf, Bytes, Str};
use reunion_model::limits::{
    BATCH_ROWS_MAX, CALLBACK_BODY_BYTES_MAX, CALLBACK_HEAD_BYTES_MAX, CALLBACK_HEADERS_MAX, CALLBACKS_AT_ONCE_MAX, PUSHES_AT_ONCE_MAX,
};
use reunion_model::plugin::{ChannelTraits, DispatchInfo, ErrorClass, Finding, HttpRequest, PluginError};
use reunion_model::task::task_schema;

use crate::answers::{Polls, Receipts, StreamKind, misused, task_ids};
use crate::contract::{self, RawAnswer};
use crate::instance::{Active, Instance};
use crate::library::{ChannelFunctions, Loaded};
use crate::stream::Pull;
use crate::{CallOptions, Callback, Canceller, ChannelConnector, PollStream, ReceiptStream, source};

pub(crate) struct InProcessChannel {
    instance: Arc<Instance>,
    /// Further instances for pushes at the same time, made when they are first needed.
    push_instances: Mutex<Vec<Arc<Instance>>>,
    functions: ChannelFunctions,
    traits: ChannelTraits,
    /// The instance for polls, made when it is first needed, where one instance must not do both at once.
    poll_instance: Mutex<Option<Arc<Instance>>>,
    /// The instances for requests from outside, made when they are first needed.
    callback_instances: Mutex<Vec<Arc<Instance>>>,
    cancel: Arc<Cancel>,
    component: String,
    config: Value,
}

/// What all instances of the component share, and what a canceller reaches: it must not keep instances alive.
#[derive(Default)]
struct Cancel {
    flag: Arc<AtomicBool>,
    failed: Arc<OnceLock<String>>,
    instances: Mutex<Vec<Weak<Instance>>>,
}

impl Cancel {
    fn create(&self, plugin: &Arc<Loaded>, component: &str, config: &Value) -> Result<Arc<Instance>, PluginError> {
        let instance = Instance::create(plugin, component, config, Arc::clone(&self.flag), Arc::clone(&self.failed))?;
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&instance));
        Ok(instance)
    }

    fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner).clone();
        instances.iter().filter_map(Weak::upgrade).for_each(|instance| instance.cancel());
    }
}

impl InProcessChannel {
    pub(crate) fn create(plugin: &Arc<Loaded>, functions: ChannelFunctions, component: &str, config: Value) -> Result<Self, PluginError> {
        let cancel = Arc::new(Cancel::default());
        let instance = cancel.create(plugin, component, &config)?;
        let traits = describe(&instance, functions)?;
        Ok(Self {
            instance,
            push_instances: Mutex::default(),
            functions,
            traits,
            poll_instance: Mutex::default(),
            callback_instances: Mutex::default(),
            cancel,
            component: component.to_owned(),
            config,
        })
    }

    /// The turn to push on an instance that is idle, or on a new one where the channel allows another.
    fn push_turn(&self, options: &CallOptions) -> Result<Active, PluginError> {
        if let Some(active) = self.instance.begin_if_idle(options)? {
            return Ok(active);
        }
        let mut others = self.push_instances.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in others.iter() {
            if let Some(active) = instance.begin_if_idle(options)? {
                return Ok(active);
            }
        }
        if others.len() + 1 >= self.traits.pushes_at_once.min(PUSHES_AT_ONCE_MAX) {
            return self.instance.begin(options);
        }
        let another = self.cancel.create(&self.instance.plugin, &self.component, &self.config)?;
        let active = another.begin(options);
        others.push(another);
        active
    }

    fn poll_instance(&self) -> Result<Arc<Instance>, PluginError> {
        if self.instance.plugin.manifest.capabilities.concurrent_poll {
            return Ok(Arc::clone(&self.instance));
        }
        let mut instance = self.poll_instance.lock().unwrap_or_else(PoisonError::into_inner);
        match &*instance {
            Some(instance) => Ok(Arc::clone(instance)),
            None => Ok(Arc::clone(instance.insert(self.cancel.create(&self.instance.plugin, &self.component, &self.config)?))),
        }
    }

    /// Hands the tasks of a dispatch over; what the plugin says to it.
    pub(crate) fn push_items(&self, options: &CallOptions, dispatch: &DispatchInfo, tasks: &RecordBatch) -> Result<Pull, PluginError> {
        let active = self.push_turn(options)?;
        let dispatch = serde_json::to_string(dispatch).expect("a dispatch has text keys only");
        let exported = abi::export_batch(tasks).map_err(|error| misused(&format!("the tasks cannot be handed over: {error}")))?;
        // The plugin takes both structs over; what it leaves in them is given back here.
        let (mut schema, mut array) = exported;
        let (mut stream, mut error) = (abi::Stream::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, it is this thread's turn, and all pointers and texts are valid for
        // the call; the call itself lives as long as the stream.
        let status = unsafe {
            let (handle, dispatch) = (active.instance().handle(), Str::borrow(&dispatch));
            let push = self.functions.push;
            push(handle, active.frame.passed(), dispatch, &raw mut schema, &raw mut array, &raw mut stream, &raw mut error)
        };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { active.instance().outcome(status, &error) }?;
        Pull::new(stream, active, StreamKind::Push)
    }

    /// Asks what became of tasks; what the plugin says to it.
    pub(crate) fn poll_items(&self, options: &CallOptions, state: Option<&Value>) -> Result<Pull, PluginError> {
        let instance = self.poll_instance()?;
        let active = if Arc::ptr_eq(&instance, &self.instance) { instance.begin_poll(options) } else { instance.begin(options) }?;
        let state = state.map(Value::to_string).unwrap_or_default();
        let (mut stream, mut error) = (abi::Stream::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, it is this thread's turn to poll, and all pointers and texts are
        // valid for the call; the call itself lives as long as the stream.
        let status = unsafe {
            (self.functions.poll)(instance.handle(), active.frame.passed(), Str::borrow(&state), &raw mut stream, &raw mut error)
        };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { instance.outcome(status, &error) }?;
        Pull::new(stream, active, StreamKind::Poll)
    }
}

impl InProcessChannel {
    /// The turn to answer a request, on an instance that is idle, or on a new one.
    fn callback_turn(&self, options: &CallOptions) -> Result<Active, PluginError> {
        let mut instances = self.callback_instances.lock().unwrap_or_else(PoisonError::into_inner);
        for instance in instances.iter() {
            if let Some(active) = instance.begin_if_idle(options)? {
                return Ok(active);
            }
        }
        if instances.len() >= CALLBACKS_AT_ONCE_MAX {
            let message = format!("component {} is answering {CALLBACKS_AT_ONCE_MAX} requests already", self.component);
            return Err(PluginError::new(ErrorClass::Unavailable, message));
        }
        let another = self.cancel.create(&self.instance.plugin, &self.component, &self.config)?;
        let active = another.begin(options);
        instances.push(another);
        active
    }

    /// Has the plugin answer a request; what it says to it.
    pub(crate) fn callback_answer(&self, options: &CallOptions, request: &HttpRequest) -> Result<RawAnswer, PluginError> {
        let function = self.functions.callback.ok_or_else(takes_none)?;
        within_limits(request)?;
        let active = self.callback_turn(options)?;
        let headers = serde_json::to_string(&request.headers).expect("pairs of texts");
        let passed = abi::HttpRequest {
            size: abi::HttpRequest::SIZE_1_1,
            reserved: 0,
            method: Str::borrow(&request.method),
            path: Str::borrow(&request.path),
            query: Str::borrow(&request.query),
            headers_json: Str::borrow(&headers),
            body: Bytes::borrow(&request.body),
        };
        let (mut out, mut error) = (abi::HttpAnswer::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, it is this thread's turn, and all pointers and texts are valid for the call.
        let status =
            unsafe { function(active.instance().handle(), active.frame.passed(), &raw const passed, &raw mut out, &raw mut error) };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { active.instance().outcome(status, &error) }?;
        taken(active.instance(), out)
    }
}

/// What a plugin has filled in, in our own types. Its order of magnitude is checked here, and its meaning by whoever
/// wants it.
fn taken(instance: &Instance, answer: abi::HttpAnswer) -> Result<RawAnswer, PluginError> {
    let abi::HttpAnswer { status, headers_json, body, schema, events, .. } = answer;
    // SAFETY: filled in by the contract, and given back when they are dropped.
    let (no_headers, body) = unsafe { (headers_json.as_slice().is_empty(), body.as_slice()) };
    if body.len() > CALLBACK_BODY_BYTES_MAX {
        let rule = format!("an answer has a body of {} bytes, and {CALLBACK_BODY_BYTES_MAX} are the limit", body.len());
        return Err(instance.violation(&rule));
    }
    let headers = if no_headers { Vec::new() } else { instance.document(&headers_json, "the headers of an answer")? };
    let events = match events.is_released() {
        true => None,
        // SAFETY: filled in by the plugin by the rules of the Arrow C Data interface.
        false => Some(unsafe { abi::import_batch(&schema, events, BATCH_ROWS_MAX, None) }.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            instance.violation(&format!("the events of an answer cannot be taken: {error}{cause}"))
        })?),
    };
    Ok(RawAnswer { status, headers, body: body.to_vec(), events })
}

/// A channel that has no function for requests.
pub(crate) fn takes_none() -> PluginError {
    PluginError::new(ErrorClass::InvalidConfig, "its manifest does not say that it takes requests from outside")
}

/// Whether a request is one that a channel may be given.
pub(crate) fn within_limits(request: &HttpRequest) -> Result<(), PluginError> {
    let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let head = request.path.len() + request.query.len() + headers;
    let is_within = request.headers.len() <= CALLBACK_HEADERS_MAX && head <= CALLBACK_HEAD_BYTES_MAX;
    if is_within && request.body.len() <= CALLBACK_BODY_BYTES_MAX { Ok(()) } else { Err(misused("a request beyond the limits")) }
}

/// What the channel does under its config, in the words that the rest of the project knows.
fn describe(instance: &Arc<Instance>, functions: ChannelFunctions) -> Result<ChannelTraits, PluginError> {
    let active = instance.begin(&CallOptions::default())?;
    let (mut out, mut error) = (Buf::empty(), abi::Error::empty());
    // SAFETY: the instance is alive, it is this thread's turn, and all pointers are valid for the call.
    let status = unsafe { (functions.describe)(instance.handle(), &raw mut out, &raw mut error) };
    // SAFETY: filled in by the plugin where the status is not 0.
    unsafe { active.instance().outcome(status, &error) }?;
    let traits: ChannelTraits = instance.document(&out, "the channel's description")?;
    let columns = task_schema();
    if let Some(unknown) = traits.group_by.iter().chain(&traits.needs).find(|name| columns.index_of(name).is_err()) {
        return Err(instance.violation(&format!("its description names the task column {unknown:?}, which there is not")));
    }
    if let Some(consent) =
        traits.consent.as_deref().filter(|name| reunion_model::Purpose::ALL.iter().all(|purpose| purpose.name() != *name))
    {
        return Err(instance.violation(&format!("its description needs consent for {consent:?}, which is no purpose")));
    }
    Ok(traits)
}

impl ChannelConnector for InProcessChannel {
    fn traits(&self) -> &ChannelTraits {
        &self.traits
    }

    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        source::check(&self.instance.begin(options)?, self.functions.check)
    }

    fn push(&self, options: &CallOptions, dispatch: &DispatchInfo, tasks: RecordBatch) -> Result<Box<dyn ReceiptStream>, PluginError> {
        let order = task_ids(&tasks)?;
        Ok(Box::new(Receipts::new(self.push_items(options, dispatch, &tasks)?, order)))
    }

    fn poll(&self, options: &CallOptions, state: Option<&Value>) -> Result<Box<dyn PollStream>, PluginError> {
        Ok(Box::new(Polls(self.poll_items(options, state)?)))
    }

    fn callback(&self, options: &CallOptions, request: &HttpRequest) -> Result<Callback, PluginError> {
        contract::callback(self.callback_answer(options, request)?).map_err(|rule| self.instance.violation(&rule))
    }

    fn canceller(&self) -> Canceller {
        let cancel = Arc::clone(&self.cancel);
        Canceller::new(move || cancel.cancel())
    }
}
