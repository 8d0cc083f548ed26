//! A source that runs in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use reunion_abi::{self as abi, Buf, FFI_ArrowSchema, Str};
use reunion_model::limits::COLUMNS_MAX;
use reunion_model::plugin::{Finding, PluginError, ReadRequest};

use crate::answers::{Rows, StreamKind};
use crate::instance::{Active, Instance};
use crate::library::{Loaded, SourceFunctions};
use crate::stream::Pull;
use crate::{CallOptions, Canceller, ItemStream, SourceConnector, text};

pub(crate) struct InProcessSource {
    instance: Arc<Instance>,
    functions: SourceFunctions,
    cancelled: Arc<AtomicBool>,
}

impl InProcessSource {
    pub(crate) fn create(plugin: &Arc<Loaded>, functions: SourceFunctions, component: &str, config: &Value) -> Result<Self, PluginError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let instance = Instance::create(plugin, component, config, Arc::clone(&cancelled), Arc::default())?;
        Ok(Self { instance, functions, cancelled })
    }

    /// Begins to read; the items as the plugin yields them.
    pub(crate) fn read_items(&self, options: &CallOptions, request: &ReadRequest, state: Option<&Value>) -> Result<Pull, PluginError> {
        let active = self.instance.begin(options)?;
        let kind = StreamKind::read(request);
        let request = serde_json::to_string(request).expect("a request has text keys only");
        let state = state.map(Value::to_string).unwrap_or_default();
        let (mut stream, mut error) = (abi::Stream::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, it is this thread's turn, and all pointers and texts are valid for
        // the call; the call itself lives as long as the stream.
        let status = unsafe {
            let (request, state) = (Str::borrow(&request), Str::borrow(&state));
            (self.functions.read)(self.instance.handle(), active.frame.passed(), request, state, &raw mut stream, &raw mut error)
        };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { self.instance.outcome(status, &error) }?;
        Pull::new(stream, active, kind)
    }
}

/// Runs a component's `check`, which sources and channels have in common.
pub(crate) fn check(active: &Active, function: abi::CheckFn) -> Result<Vec<Finding>, PluginError> {
    let instance = active.instance();
    let (mut findings, mut error) = (Buf::empty(), abi::Error::empty());
    // SAFETY: the instance is alive, it is this thread's turn, and all pointers are valid for the call.
    let status = unsafe { function(instance.handle(), active.frame.passed(), &raw mut findings, &raw mut error) };
    // SAFETY: filled in by the plugin where the status is not 0.
    unsafe { instance.outcome(status, &error) }?;
    let findings: Vec<Finding> = instance.document(&findings, "the findings of a check")?;
    Ok(findings.into_iter().map(|finding| Finding { message: text::tidy(&finding.message), ..finding }).collect())
}

impl SourceConnector for InProcessSource {
    fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        check(&self.instance.begin(options)?, self.functions.check)
    }

    fn schema(&self, options: &CallOptions) -> Result<SchemaRef, PluginError> {
        let active = self.instance.begin(options)?;
        let (mut schema, mut error) = (FFI_ArrowSchema::empty(), abi::Error::empty());
        // SAFETY: the instance is alive, it is this thread's turn, and all pointers are valid for the call.
        let status = unsafe { (self.functions.schema)(self.instance.handle(), active.frame.passed(), &raw mut schema, &raw mut error) };
        // SAFETY: filled in by the plugin where the status is not 0.
        unsafe { self.instance.outcome(status, &error) }?;
        let schema =
            abi::import_schema(&schema).map_err(|error| self.instance.violation(&format!("a schema that cannot be read: {error}")))?;
        if schema.fields().len() > COLUMNS_MAX {
            return Err(self
                .instance
                .violation(&format!("a schema of {} columns, and {COLUMNS_MAX} are the limit", schema.fields().len())));
        }
        Ok(schema)
    }

    fn read(&self, options: &CallOptions, request: &ReadRequest, state: Option<&Value>) -> Result<Box<dyn ItemStream>, PluginError> {
        Ok(Box::new(Rows(self.read_items(options, request, state)?)))
    }

    fn canceller(&self) -> Canceller {
        let (flag, instance) = (Arc::clone(&self.cancelled), Arc::downgrade(&self.instance));
        Canceller::new(move || {
            flag.store(true, Ordering::Release);
            if let Some(instance) = instance.upgrade() {
                instance.cancel();
            }
        })
    }
}
