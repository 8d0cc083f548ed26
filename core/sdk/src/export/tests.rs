//! The C functions, called as a host would call them.

use std::ffi::CString;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use reunion_abi::{self as abi, Buf, Error, Host, Str, Stream};
use serde_json::{Value, json};

use super::{OfChannel, OfSource, PluginType, channel_plugin, entry, manifest, source_plugin};
use crate::{
    Call, Capabilities, Channel, ChannelTraits, DispatchInfo, ErrorClass, EventsBuilder, Finding, HttpAnswer, HttpRequest, Item, Items,
    Manifest, Outcome, PluginError, PluginKind, ReadRequest, Receipts, Source,
};

/// Panics in `check`; its stream waits for a cancel.
struct Fragile;

impl Source for Fragile {
    type Config = Value;

    fn manifest() -> Manifest {
        Manifest {
            name: "fragile".into(),
            version: "0.1.0".into(),
            abi: [9, 9],
            kind: PluginKind::Channel,
            summary: "Breaks.".into(),
            config_schema: json!({}),
            sample: "zero\0byte".into(),
            capabilities: Capabilities::default(),
            needs: None,
        }
    }

    fn create(_: &str, _: Value) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn check(&self, _: &Call) -> Result<Vec<Finding>, PluginError> {
        panic!("the check panics")
    }

    fn schema(&self, _: &Call) -> Result<SchemaRef, PluginError> {
        Ok(std::sync::Arc::new(Schema::empty()))
    }

    fn read(&self, _: &Call, _: ReadRequest, state: Option<Value>) -> Result<Items, PluginError> {
        match state {
            None => Ok(Box::new(std::iter::repeat_with(|| Ok(Item::Begin { resumed: false })))),
            Some(_) => Ok(Box::new(FailsTwice)),
        }
    }
}

/// A stream that fails, and panics when it is let go of.
struct FailsTwice;

impl Iterator for FailsTwice {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(Err(PluginError::new(ErrorClass::Unavailable, "it fails")))
    }
}

impl Drop for FailsTwice {
    fn drop(&mut self) {
        panic!("the drop panics");
    }
}

static LOGGED: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" fn log(_: *const Host, _: i32, _: Str, _: Str, _: Str) {
    LOGGED.fetch_add(1, Ordering::Relaxed);
}

const HOST_PARTS: Host =
    Host { size: Host::SIZE_1_0, minor: 0, private_data: ptr::null_mut(), log: Some(log), log_level_max: 5, reserved: 0 };
static HOST: Host = HOST_PARTS;

fn call(size: u32) -> abi::Call {
    abi::Call { size, flags: 0, deadline_unix_ms: 0, run_id: Str::EMPTY, cancelled: None, private_data: ptr::null_mut() }
}

fn message(error: &Error) -> String {
    // SAFETY: filled in by the function under test.
    unsafe { error.message.to_text(1 << 12) }
}

/// The table and an instance of it.
fn instance(host: &Host) -> Result<(abi::Plugin, *mut abi::Instance), String> {
    let (table, mut instance, mut error) = (source_plugin::<Fragile>(), ptr::null_mut(), Error::empty());
    // SAFETY: all pointers are valid for the call.
    let status = unsafe { (table.create.expect("there"))(host, Str::borrow("test"), Str::borrow("{}"), &raw mut instance, &raw mut error) };
    if status == abi::OK { Ok((table, instance)) } else { Err(message(&error)) }
}

#[test]
fn a_table_that_is_too_small_is_refused_and_a_larger_one_filled_in_part() {
    let (mut table, mut error) = (abi::Plugin::empty(), Error::empty());
    table.size = abi::Plugin::SIZE_1_0 - 8;
    // SAFETY: both structs are valid.
    let status = unsafe { entry(source_plugin::<Fragile>(), 3, &raw mut table, &raw mut error) };
    assert_eq!(status, ErrorClass::Internal.code());
    assert!(message(&error).contains("built for ABI 1.1") && message(&error).contains("minor version 3"), "{}", message(&error));
    assert!(table.create.is_none(), "nothing was written");

    #[repr(C)]
    struct Later {
        plugin: abi::Plugin,
        appended: u64,
    }
    let mut later = Later { plugin: abi::Plugin::empty(), appended: 7 };
    later.plugin.size = size_of::<Later>() as u32;
    // SAFETY: as above.
    let status = unsafe { entry(source_plugin::<Fragile>(), 3, &raw mut later.plugin, &raw mut error) };
    assert_eq!((status, later.plugin.size, later.appended), (abi::OK, abi::Plugin::SIZE_1_0, 7));
    assert!(later.plugin.create.is_some() && !later.plugin.source.is_null() && later.plugin.channel.is_null());
}

#[test]
fn structs_that_are_too_small_are_refused_and_an_error_without_room_is_left_alone() {
    let small = Host { size: 8, ..HOST_PARTS };
    assert!(instance(&small).err().expect("refused").contains("the host's struct is too small"));

    let (table, instance) = instance(&HOST).expect("made");
    // SAFETY: a static table.
    let source = unsafe { &*table.source };
    let (mut findings, mut error) = (Buf::empty(), Error::empty());
    let small = call(16);
    // SAFETY: all pointers are valid for the call.
    let status = unsafe { (source.check.expect("there"))(instance, &raw const small, &raw mut findings, &raw mut error) };
    assert_eq!(status, ErrorClass::Internal.code());
    assert!(message(&error).contains("the call's struct is too small"));

    let mut no_room = Error::empty();
    no_room.size = 4;
    // SAFETY: as above.
    let status = unsafe { (source.check.expect("there"))(instance, &raw const small, &raw mut findings, &raw mut no_room) };
    assert_eq!((status, no_room.message.len, no_room.release.is_none()), (ErrorClass::Internal.code(), 0, true));
    // SAFETY: its last use.
    unsafe { (table.destroy.expect("there"))(instance) };
}

#[test]
fn a_panic_poisons_the_instance_and_its_streams() {
    let (table, instance) = instance(&HOST).expect("made");
    // SAFETY: a static table.
    let source = unsafe { &*table.source };
    let call = call(abi::Call::SIZE_1_0);
    let mut stream = Stream::empty();
    let request = r#"{"mode":"snapshot","resume":false}"#;
    let next = |stream: &mut Stream| {
        let (mut item, mut error) = (abi::Item::empty(), Error::empty());
        // SAFETY: the stream is open.
        let status = unsafe { (stream.next.expect("open"))(stream, &raw mut item, &raw mut error) };
        (status, message(&error))
    };
    let mut error = Error::empty();
    // SAFETY: all pointers are valid for the call, and the call outlives the stream.
    let status = unsafe {
        (source.read.expect("there"))(instance, &raw const call, Str::borrow(request), Str::EMPTY, &raw mut stream, &raw mut error)
    };
    assert_eq!((status, next(&mut stream).0), (abi::OK, abi::OK));

    let check = || {
        let (mut findings, mut error) = (Buf::empty(), Error::empty());
        // SAFETY: as above.
        let status = unsafe { (source.check.expect("there"))(instance, &raw const call, &raw mut findings, &raw mut error) };
        (status, message(&error))
    };
    let internal = ErrorClass::Internal.code();
    assert_eq!(check(), (internal, "panicked: the check panics".to_owned()));
    let later = (internal, "the component panicked in an earlier call and is not used any more".to_owned());
    assert_eq!(check(), later);
    assert_eq!(next(&mut stream), later);
    assert!(LOGGED.load(Ordering::Relaxed) > 0, "the panic is logged");
    drop(stream);
    // SAFETY: its last use.
    unsafe { (table.destroy.expect("there"))(instance) };
}

#[test]
fn a_panic_can_be_asked_for() {
    let (table, instance) = instance(&HOST).expect("made");
    // SAFETY: a static table.
    let source = unsafe { &*table.source };
    let schema = |run: &str| {
        let call = abi::Call { run_id: Str::borrow(run), ..call(abi::Call::SIZE_1_0) };
        let (mut out, mut error) = (abi::FFI_ArrowSchema::empty(), Error::empty());
        // SAFETY: all pointers are valid for the call.
        unsafe { (source.schema.expect("there"))(instance, &raw const call, &raw mut out, &raw mut error) }
    };
    assert_eq!(schema("a run"), abi::OK);
    assert_eq!(schema(reunion_model::plugin::PANIC_RUN), ErrorClass::Internal.code());
    assert_eq!(schema("a run"), ErrorClass::Internal.code(), "poisoned");
    // SAFETY: its last use.
    unsafe { (table.destroy.expect("there"))(instance) };
}

#[test]
fn a_panic_in_letting_go_of_a_stream_that_failed_stays_inside() {
    let (table, instance) = instance(&HOST).expect("made");
    // SAFETY: a static table.
    let source = unsafe { &*table.source };
    let call = call(abi::Call::SIZE_1_0);
    let (mut stream, mut item, mut error) = (Stream::empty(), abi::Item::empty(), Error::empty());
    let request = r#"{"mode":"snapshot","resume":true}"#;
    // SAFETY: all pointers are valid for the call, and the call outlives the stream.
    unsafe {
        let read = source.read.expect("there");
        assert_eq!(read(instance, &raw const call, Str::borrow(request), Str::borrow("1"), &raw mut stream, &raw mut error), abi::OK);
        let status = (stream.next.expect("open"))(&raw mut stream, &raw mut item, &raw mut error);
        assert_eq!((status, message(&error).as_str()), (ErrorClass::Unavailable.code(), "it fails"));
        drop(stream);
        (table.destroy.expect("there"))(instance);
    }
}

#[test]
fn cancel_reaches_an_open_stream() {
    let (table, instance) = instance(&HOST).expect("made");
    // SAFETY: a static table.
    let source = unsafe { &*table.source };
    let call = call(abi::Call::SIZE_1_0);
    let (mut stream, mut item, mut error) = (Stream::empty(), abi::Item::empty(), Error::empty());
    let request = r#"{"mode":"incremental","resume":true}"#;
    // SAFETY: all pointers are valid for the call, and the call outlives the stream.
    unsafe {
        let read = source.read.expect("there");
        assert_eq!(read(instance, &raw const call, Str::borrow(request), Str::EMPTY, &raw mut stream, &raw mut error), abi::OK);
        (table.cancel.expect("there"))(instance);
        let status = (stream.next.expect("open"))(&raw mut stream, &raw mut item, &raw mut error);
        assert_eq!(status, ErrorClass::Cancelled.code());
        drop(stream);
        (table.destroy.expect("there"))(instance);
    }
}

#[test]
fn the_manifest_says_what_the_sdk_knows_better() {
    static TEXT: OnceLock<CString> = OnceLock::new();
    let text = manifest::<OfSource<Fragile>>(&TEXT);
    assert_eq!(text, manifest::<OfSource<Fragile>>(&TEXT), "the same each time");
    let manifest = manifest_of::<OfSource<Fragile>>(&TEXT);
    assert_eq!((manifest.abi, manifest.kind, manifest.sample.as_str()), ([1, 0], PluginKind::Source, "zero\0byte"));
    static LISTENS: OnceLock<CString> = OnceLock::new();
    assert_eq!(manifest_of::<OfChannel<Listens>>(&LISTENS).abi, [1, 1], "what claims more needs more");
}

fn manifest_of<K: PluginType>(text: &'static OnceLock<CString>) -> Manifest {
    // SAFETY: static text, ended by a zero byte.
    let text = unsafe { std::ffi::CStr::from_ptr(manifest::<K>(text)) };
    serde_json::from_slice(text.to_bytes()).expect("a manifest")
}

/// Answers a request with what it was, and an event where there is a body; panics where it is told to.
struct Listens;

impl Channel for Listens {
    type Config = Value;

    fn manifest() -> Manifest {
        Manifest { capabilities: Capabilities { callback: true, ..Capabilities::default() }, ..Fragile::manifest() }
    }

    fn create(_: &str, _: Value) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn traits(&self) -> ChannelTraits {
        ChannelTraits::default()
    }

    fn check(&self, _: &Call) -> Result<Vec<Finding>, PluginError> {
        Ok(Vec::new())
    }

    fn push(&self, _: &Call, _: &DispatchInfo, _: crate::arrow::array::RecordBatch) -> Result<Receipts, PluginError> {
        Ok(Box::new(std::iter::empty()))
    }

    fn callback(&self, call: &Call, request: &HttpRequest) -> Result<HttpAnswer, PluginError> {
        call.check()?;
        assert_ne!(request.method, "PANIC");
        let HttpRequest { method, path, query, headers, body } = request;
        let answer =
            HttpAnswer::status(202).header("x-said", format!("{method} {path} {query} {headers:?}")).body("text/plain", body.clone());
        if body.is_empty() {
            return Ok(answer);
        }
        let mut events = EventsBuilder::new();
        events.push("e1", &"7".repeat(32), Outcome::Added, None, None);
        Ok(answer.events(events.finish()))
    }
}

/// What a request is answered with.
fn callback(instance: *mut abi::Instance, method: &str, body: &[u8], request_bytes: u32) -> (i32, abi::HttpAnswer, String) {
    // SAFETY: a static table.
    let channel = unsafe { abi::ChannelTable::read(channel_plugin::<Listens>().channel) };
    let request = abi::HttpRequest {
        size: request_bytes,
        reserved: 0,
        method: Str::borrow(method),
        path: Str::borrow("/a"),
        query: Str::borrow("b=c"),
        headers_json: Str::borrow(r#"[["x","1"],["x","2"]]"#),
        body: abi::Bytes::borrow(body),
    };
    let (call, mut answer, mut error) = (call(abi::Call::SIZE_1_0), abi::HttpAnswer::empty(), Error::empty());
    // SAFETY: all pointers are valid for the call.
    let status =
        unsafe { (channel.callback.expect("there"))(instance, &raw const call, &raw const request, &raw mut answer, &raw mut error) };
    (status, answer, message(&error))
}

#[test]
fn a_request_reaches_the_author_and_the_answer_the_host() {
    let (table, mut instance, mut error) = (channel_plugin::<Listens>(), ptr::null_mut(), Error::empty());
    // SAFETY: all pointers are valid for the call.
    let status = unsafe {
        (table.create.expect("there"))(&raw const HOST, Str::borrow("test"), Str::borrow("{}"), &raw mut instance, &raw mut error)
    };
    assert_eq!(status, abi::OK);
    let whole = abi::HttpRequest::SIZE_1_1;

    let (status, answer, _) = callback(instance, "GET", b"", whole);
    assert_eq!((status, answer.status, answer.events.is_released()), (abi::OK, 202, true));
    // SAFETY: filled in by the SDK.
    let headers: Value = serde_json::from_slice(unsafe { answer.headers_json.as_slice() }).expect("JSON");
    assert_eq!(headers, json!([["x-said", r#"GET /a b=c [("x", "1"), ("x", "2")]"#], ["content-type", "text/plain"]]));

    let (_, answer, _) = callback(instance, "POST", b"\xffbody", whole);
    // SAFETY: as above.
    assert_eq!(unsafe { answer.body.as_slice() }, b"\xffbody");
    // SAFETY: as above.
    let events = unsafe { abi::import_batch(&answer.schema, answer.events, 10, None) }.expect("a batch");
    assert_eq!((events.num_rows(), events.schema()), (1, crate::event_schema()));

    let (status, answer, said) = callback(instance, "POST", b"x", 8);
    assert_eq!((status, answer.status, said.contains("is too small")), (ErrorClass::Internal.code(), 0, true));
    assert_eq!(callback(instance, "PANIC", b"x", whole).0, ErrorClass::Internal.code());
    let (status, _, said) = callback(instance, "GET", b"", whole);
    assert_eq!((status, said.contains("panicked in an earlier call")), (ErrorClass::Internal.code(), true));
    // SAFETY: its last use.
    unsafe { (table.destroy.expect("there"))(instance) };
}

#[test]
fn a_request_after_a_cancel_is_answered_so() {
    let (table, mut instance, mut error) = (channel_plugin::<Listens>(), ptr::null_mut(), Error::empty());
    // SAFETY: all pointers are valid for the calls, the last of which is its last use.
    unsafe {
        (table.create.expect("there"))(&raw const HOST, Str::borrow("test"), Str::borrow("{}"), &raw mut instance, &raw mut error);
        (table.cancel.expect("there"))(instance);
        assert_eq!(callback(instance, "GET", b"", abi::HttpRequest::SIZE_1_1).0, ErrorClass::Cancelled.code());
        (table.destroy.expect("there"))(instance);
    }
}
