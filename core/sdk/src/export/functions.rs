//! The C functions themselves.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reunion_abi::{
    self as abi, Buf, ChannelTable, FFI_ArrowArray, FFI_ArrowSchema, Host, HttpAnswer, HttpRequest, Instance, SourceTable, Str,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use reunion_model::limits::DISPATCH_TASKS_MAX;
use reunion_model::plugin::{self, ErrorClass, Item, PANIC_RUN, PluginError};

use super::instance::{self, Loaded, OfChannel, OfSource, PluginType, Shared};
use super::stream;
use crate::{Call, Channel, Items, Source, log};

/// The table of a source.
pub const fn source_plugin<S: Source>() -> abi::Plugin {
    plugin::<OfSource<S>>(SourceFunctions::<S>::TABLE, ptr::null())
}

/// The table of a channel.
pub const fn channel_plugin<C: Channel>() -> abi::Plugin {
    plugin::<OfChannel<C>>(ptr::null(), ChannelFunctions::<C>::TABLE)
}

const fn plugin<K: PluginType>(source: *const SourceTable, channel: *const ChannelTable) -> abi::Plugin {
    abi::Plugin {
        size: abi::Plugin::SIZE_1_0,
        minor: abi::MINOR,
        create: Some(create::<K>),
        cancel: Some(cancel::<K>),
        destroy: Some(destroy::<K>),
        source,
        channel,
    }
}

struct SourceFunctions<S>(std::marker::PhantomData<S>);

impl<S: Source> SourceFunctions<S> {
    const TABLE: &'static SourceTable = &SourceTable {
        size: SourceTable::SIZE_1_0,
        reserved: 0,
        check: Some(check::<OfSource<S>>),
        schema: Some(schema::<S>),
        read: Some(read::<S>),
    };
}

struct ChannelFunctions<C>(std::marker::PhantomData<C>);

impl<C: Channel> ChannelFunctions<C> {
    const TABLE: &'static ChannelTable = &ChannelTable {
        size: ChannelTable::SIZE_1_1,
        reserved: 0,
        describe: Some(describe::<C>),
        check: Some(check::<OfChannel<C>>),
        push: Some(push::<C>),
        poll: Some(poll::<C>),
        callback: Some(callback::<C>),
    };
}

/// A defect of the host, which broke the contract.
fn broken(what: &str) -> PluginError {
    PluginError::new(ErrorClass::Internal, format!("the host broke the contract: {what}"))
}

/// # Safety
/// The text must stay valid for `'a`.
unsafe fn text<'a>(text: Str) -> Result<&'a str, PluginError> {
    // SAFETY: the caller's promise.
    unsafe { text.as_str() }.map_err(|_| broken("a text is not UTF-8"))
}

/// # Safety
/// The text must be valid.
unsafe fn document<D: DeserializeOwned>(json: Str, what: &str) -> Result<D, PluginError> {
    // SAFETY: the caller's promise.
    serde_json::from_str(unsafe { text(json) }?).map_err(|error| broken(&format!("{what}: {error}")))
}

/// The resume state; an empty text is none.
///
/// # Safety
/// The text must be valid.
unsafe fn state(json: Str) -> Result<Option<Value>, PluginError> {
    // SAFETY: the caller's promise.
    if json.len == 0 { Ok(None) } else { unsafe { document(json, "the state") }.map(Some) }
}

/// Writes a JSON document out.
///
/// # Safety
/// `out` must be valid and empty.
unsafe fn answer<D: Serialize>(out: *mut Buf, document: &D) -> Result<(), PluginError> {
    let json = serde_json::to_vec(document).map_err(|error| PluginError::new(ErrorClass::Internal, format!("answer: {error}")))?;
    // SAFETY: the caller's promise.
    unsafe { ptr::write(out, Buf::from_vec(json)) };
    Ok(())
}

/// A call on this component. Ended when the guard is dropped, unless a stream takes it over.
struct Begun(Call);

impl Begun {
    /// # Safety
    /// `call` must be valid until the call has returned and its stream is released.
    unsafe fn new(call: *const abi::Call, shared: &Shared) -> Result<Self, PluginError> {
        // SAFETY: the caller's promise.
        if call.is_null() || unsafe { (*call).size } < abi::Call::SIZE_1_0 {
            return Err(broken("the call's struct is too small"));
        }
        // SAFETY: the caller's promise; `end` is called by this guard or by the stream.
        let begun = Self(unsafe { Call::from_abi(call, Arc::clone(&shared.stopped)) });
        assert!(begun.0.run_id() != PANIC_RUN, "the conformance suite asked for a panic");
        Ok(begun)
    }

    fn into_call(self) -> Call {
        let call = self.0.clone();
        std::mem::forget(self);
        call
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.end();
    }
}

unsafe extern "C" fn create<K: PluginType>(
    host: *const Host,
    component: Str,
    config_json: Str,
    out: *mut *mut Instance,
    error: *mut abi::Error,
) -> i32 {
    // SAFETY: by contract the host lives as long as the process; only its size is read before the check.
    let outcome = if host.is_null() || unsafe { (*host).size } < Host::SIZE_1_0 {
        Err(broken("the host's struct is too small"))
    } else {
        // SAFETY: as above, and it is large enough.
        let shared = Arc::new(Shared::new(unsafe { &*host }));
        shared.run(|| {
            // SAFETY: as above.
            log::install(unsafe { &*host });
            // SAFETY: the texts are valid for this call.
            let component = unsafe { K::create(text(component)?, text(config_json)?) }?;
            let loaded = Box::new(Loaded { component, shared: Arc::clone(&shared) });
            // SAFETY: `out` is valid by contract.
            unsafe { ptr::write(out, Box::into_raw(loaded).cast()) };
            Ok(())
        })
    };
    // SAFETY: `error` is valid by contract.
    unsafe { instance::finish(error, outcome) }
}

unsafe extern "C" fn cancel<K: PluginType>(instance: *mut Instance) {
    // SAFETY: by contract the instance is not destroyed. Only a shared reference is made, as another
    // thread may be in a call.
    let loaded = unsafe { &*instance.cast::<Loaded<K::Component>>() };
    loaded.shared.stopped.store(true, Ordering::Release);
}

unsafe extern "C" fn destroy<K: PluginType>(instance: *mut Instance) {
    // SAFETY: by contract this is the last use of the handle that `create` made.
    let loaded = unsafe { Box::from_raw(instance.cast::<Loaded<K::Component>>()) };
    let shared = Arc::clone(&loaded.shared);
    shared.stopped.store(true, Ordering::Release);
    shared.run_quietly(|| drop(loaded));
}

unsafe extern "C" fn check<K: PluginType>(
    instance: *mut Instance,
    call: *const abi::Call,
    findings: *mut Buf,
    error: *mut abi::Error,
) -> i32 {
    let body = |loaded: &Loaded<K::Component>| {
        // SAFETY: all pointers are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        let found = K::check(&loaded.component, &begun.0)?;
        // SAFETY: as above.
        unsafe { answer(findings, &found) }
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

unsafe extern "C" fn schema<S: Source>(
    instance: *mut Instance,
    call: *const abi::Call,
    out: *mut FFI_ArrowSchema,
    error: *mut abi::Error,
) -> i32 {
    let body = |loaded: &Loaded<S>| {
        // SAFETY: all pointers are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        let schema = loaded.component.schema(&begun.0)?;
        let schema = abi::export_schema(&schema).map_err(stream::unexportable)?;
        // SAFETY: as above; `out` is empty.
        unsafe { ptr::write(out, schema) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

unsafe extern "C" fn read<S: Source>(
    instance: *mut Instance,
    call: *const abi::Call,
    request_json: Str,
    state_json: Str,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    let body = |loaded: &Loaded<S>| {
        // SAFETY: all pointers and texts are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        // SAFETY: as above.
        let (request, state) = unsafe { (document(request_json, "the request")?, state(state_json)?) };
        let items = loaded.component.read(&begun.0, request, state)?;
        // SAFETY: as above.
        unsafe { stream::open(out, items, begun.into_call(), &loaded.shared, stream::Stop::AtOnce) }
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

unsafe extern "C" fn describe<C: Channel>(instance: *mut Instance, out: *mut Buf, error: *mut abi::Error) -> i32 {
    // SAFETY: all pointers are valid by contract.
    unsafe { instance::call(instance, error, |loaded: &Loaded<C>| answer(out, &loaded.component.traits())) }
}

unsafe extern "C" fn push<C: Channel>(
    instance: *mut Instance,
    call: *const abi::Call,
    dispatch_json: Str,
    schema: *mut FFI_ArrowSchema,
    tasks: *mut FFI_ArrowArray,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    // Taken over first, so that they are given back whatever happens.
    // SAFETY: valid by contract; the caller does not touch them again.
    let (schema, tasks) = unsafe { (FFI_ArrowSchema::from_raw(schema), FFI_ArrowArray::from_raw(tasks)) };
    let body = |loaded: &Loaded<C>| {
        // SAFETY: all pointers and texts are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        // SAFETY: as above, and by the Arrow C Data interface.
        let tasks = unsafe { abi::import_batch(&schema, tasks, DISPATCH_TASKS_MAX, None) };
        let tasks = tasks.map_err(|error| broken(&format!("the tasks: {error}")))?;
        // SAFETY: as above.
        let dispatch = unsafe { document(dispatch_json, "the dispatch") }?;
        let receipts = loaded.component.push(&begun.0, &dispatch, tasks)?;
        let end = std::iter::once(Ok(Item::End { as_of_us: None }));
        let items: Items = Box::new(receipts.map(|batch| batch.map(Item::Batch)).chain(end));
        // A receipt that is known is handed on even when the call is cancelled.
        // SAFETY: as above.
        unsafe { stream::open(out, items, begun.into_call(), &loaded.shared, stream::Stop::ByAuthor) }
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

unsafe extern "C" fn poll<C: Channel>(
    instance: *mut Instance,
    call: *const abi::Call,
    state_json: Str,
    out: *mut abi::Stream,
    error: *mut abi::Error,
) -> i32 {
    let body = |loaded: &Loaded<C>| {
        // SAFETY: all pointers and texts are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        // SAFETY: as above.
        let items = loaded.component.poll(&begun.0, unsafe { state(state_json) }?)?;
        // SAFETY: as above.
        unsafe { stream::open(out, items, begun.into_call(), &loaded.shared, stream::Stop::AtOnce) }
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

unsafe extern "C" fn callback<C: Channel>(
    instance: *mut Instance,
    call: *const abi::Call,
    request: *const HttpRequest,
    out: *mut HttpAnswer,
    error: *mut abi::Error,
) -> i32 {
    let body = |loaded: &Loaded<C>| {
        // SAFETY: all pointers are valid by contract.
        let begun = unsafe { Begun::new(call, &loaded.shared) }?;
        // SAFETY: as above: only the sizes are read before they are known to be enough.
        if unsafe { (*request).size < HttpRequest::SIZE_1_1 || (*out).size < HttpAnswer::SIZE_1_1 } {
            return Err(broken("the struct of the request, or of its answer, is too small"));
        }
        begun.0.check()?;
        // SAFETY: as above, and it is large enough.
        let request = unsafe { read_request(&*request) }?;
        let answer = loaded.component.callback(&begun.0, &request)?;
        // SAFETY: as above; `out` is empty.
        unsafe { write_answer(&mut *out, answer) }
    };
    // SAFETY: as above.
    unsafe { instance::call(instance, error, body) }
}

/// The request as authors see it.
///
/// # Safety
/// Its texts and bytes must be valid.
unsafe fn read_request(request: &HttpRequest) -> Result<plugin::HttpRequest, PluginError> {
    // SAFETY: the caller's promise.
    unsafe {
        Ok(plugin::HttpRequest {
            method: text(request.method)?.to_owned(),
            path: text(request.path)?.to_owned(),
            query: text(request.query)?.to_owned(),
            headers: document(request.headers_json, "the headers of a request")?,
            body: request.body.as_slice().to_vec(),
        })
    }
}

/// Writes an answer out: all of it, or nothing.
///
/// # Safety
/// `out` must be empty.
unsafe fn write_answer(out: &mut HttpAnswer, answer: plugin::HttpAnswer) -> Result<(), PluginError> {
    let events = answer.events.as_ref().map(abi::export_batch).transpose().map_err(stream::unexportable)?;
    // SAFETY: the caller's promise.
    unsafe { self::answer(&raw mut out.headers_json, &answer.headers) }?;
    out.status = i32::from(answer.status);
    out.body = Buf::from_vec(answer.body);
    if let Some((schema, events)) = events {
        (out.schema, out.events) = (schema, events);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_of_the_host_is_said_to_be_one() {
        // SAFETY: a static text.
        let error = unsafe { document::<u32>(Str::borrow("{"), "the request") }.expect_err("no JSON");
        assert!(error.message.starts_with("the host broke the contract: the request: "), "{error}");
    }
}
