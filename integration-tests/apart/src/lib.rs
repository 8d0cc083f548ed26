//! A source that was built apart from Reunion: it knows the header and nothing else of it.
//!
//! Its rows are made by tasks of a tokio runtime of its own; its config says how many, how slowly, and where it
//! panics.

mod abi;
mod config;
mod guard;
mod reading;
mod rows;

use std::ffi::{c_char, CStr};
use std::mem::size_of;
use std::panic;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};

use abi::{Buf, Call, Error, Host, Instance, Str, Stream};
use config::{Config, Stage};
use guard::{Component, Failure};
use reading::Reading;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MANIFEST: &CStr = cr#"{
    "name": "apart",
    "version": "0.3.0",
    "abi": [1, 0],
    "kind": "source",
    "summary": "Makes rows up, built without anything of Reunion's but its header.",
    "config_schema": {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": false,
        "properties": {
            "rows": {"type": "integer", "minimum": 0, "description": "rows of a read"},
            "page_rows": {"type": "integer", "minimum": 1, "maximum": 8192, "default": 100, "description": "rows of one batch"},
            "pages_per_state": {"type": "integer", "minimum": 0, "default": 0, "description": "batches before each resume state; 0: none"},
            "page_wait_ms": {"type": "integer", "minimum": 0, "default": 0, "description": "how long each batch takes"},
            "panic_at": {"enum": ["check", "task", "next"], "description": "where to panic"}
        }
    },
    "capabilities": {"modes": ["snapshot"], "has_record_id": true}
}"#;

#[no_mangle]
pub extern "C" fn reunion_manifest_v1() -> *const c_char {
    MANIFEST.as_ptr()
}

static SOURCE: abi::Source = abi::Source { size: size_of::<abi::Source>() as u32, reserved: 0, check, schema, read };

/// # Safety
/// By the header.
#[no_mangle]
pub unsafe extern "C" fn reunion_entry_v1(_: u32, out: *mut abi::Plugin, error: *mut Error) -> i32 {
    let size = size_of::<abi::Plugin>() as u32;
    // SAFETY: by the header at least the size is there.
    if unsafe { (*out).size } < size {
        // SAFETY: valid by the header.
        return unsafe { Failure::internal("the host's table is smaller than that of version 1.0").write(error) };
    }
    let table = abi::Plugin { size, minor: abi::MINOR, create, cancel, destroy, source: &SOURCE, channel: ptr::null() };
    // SAFETY: there is room for it.
    unsafe { ptr::write(out, table) };
    abi::OK
}

/// Nothing of a panic goes to the standard error, which is the host's. What was said is in the call's error.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}

unsafe extern "C" fn create(host: *const Host, _: Str, config_json: Str, out: *mut *mut Instance, error: *mut Error) -> i32 {
    let made = panic::catch_unwind(|| {
        keep_panics_quiet();
        // SAFETY: valid by the header.
        let config = Config::read(unsafe { config_json.bytes() })?;
        // SAFETY: valid as long as the process, by the header.
        Ok(Box::new(Component::new(config, unsafe { &*host })))
    });
    match made.unwrap_or_else(|_| Err(Failure::internal("panicked"))) {
        Ok(component) => {
            // SAFETY: valid by the header.
            unsafe { ptr::write(out, Box::into_raw(component).cast()) };
            abi::OK
        }
        // SAFETY: as above.
        Err(failure) => unsafe { failure.write(error) },
    }
}

unsafe extern "C" fn cancel(this: *mut Instance) {
    // SAFETY: not destroyed by the header; another thread may be in a call.
    unsafe { &*this.cast::<Component>() }.stopped.store(true, Ordering::Release);
}

unsafe extern "C" fn destroy(this: *mut Instance) {
    // SAFETY: made by `create`, and its last use.
    drop(unsafe { Box::from_raw(this.cast::<Component>()) });
}

/// # Safety
/// By the header.
unsafe fn component<'a>(this: *mut Instance) -> &'a Component {
    // SAFETY: made by `create` and not destroyed.
    unsafe { &*this.cast() }
}

unsafe extern "C" fn check(this: *mut Instance, call: *const Call, findings: *mut Buf, error: *mut Error) -> i32 {
    // SAFETY: by the header.
    let component = unsafe { component(this) };
    let body = || {
        // SAFETY: valid until the call has returned.
        component.go_on(unsafe { &*call })?;
        component.config.reach(Stage::Check);
        // SAFETY: valid, and empty.
        unsafe { ptr::write(findings, Buf::of("[]".to_owned())) };
        Ok(())
    };
    // SAFETY: valid by the header.
    unsafe { component.guarded(error, body) }
}

unsafe extern "C" fn schema(this: *mut Instance, call: *const Call, out: *mut abi::ArrowSchema, error: *mut Error) -> i32 {
    // SAFETY: by the header.
    let component = unsafe { component(this) };
    let body = || {
        // SAFETY: valid until the call has returned.
        component.go_on(unsafe { &*call })?;
        let schema = rows::exported_schema()?;
        // SAFETY: valid, and empty.
        unsafe { ptr::write(out, schema) };
        Ok(())
    };
    // SAFETY: valid by the header.
    unsafe { component.guarded(error, body) }
}

unsafe extern "C" fn read(
    this: *mut Instance,
    call: *const Call,
    request_json: Str,
    state_json: Str,
    out: *mut Stream,
    error: *mut Error,
) -> i32 {
    // SAFETY: by the header.
    let component = unsafe { component(this) };
    let body = || {
        // SAFETY: the call is valid until the stream is released, and the texts for this call.
        let (call, request, state) = unsafe { (&*call, request_json.bytes(), state_json.bytes()) };
        component.go_on(call)?;
        let from = config::resume_row(request, state)?.filter(|row| *row <= component.config.rows);
        component.log("reading");
        let reading = Box::new(Reading::start(Arc::clone(&component.config), from)?);
        // SAFETY: valid, and empty.
        let out = unsafe { &mut *out };
        out.private_data = Box::into_raw(Box::new(Open { component, call, reading })).cast();
        out.next = Some(next);
        out.release = Some(release);
        Ok(())
    };
    // SAFETY: valid by the header.
    unsafe { component.guarded(error, body) }
}

/// What a stream's `private_data` is. The host keeps component and call valid as long as the stream.
struct Open<'a> {
    component: &'a Component,
    call: &'a Call,
    reading: Box<Reading>,
}

unsafe extern "C" fn next(stream: *mut Stream, out: *mut abi::Item, error: *mut Error) -> i32 {
    // SAFETY: open, and used by one thread at a time.
    let open = unsafe { &mut *(*stream).private_data.cast::<Open<'_>>() };
    let component = open.component;
    let body = || {
        let item = open.reading.next(|| component.go_on(open.call))?;
        // SAFETY: valid, and empty.
        unsafe { item.write(&mut *out) }
    };
    // SAFETY: valid by the header.
    unsafe { component.guarded(error, body) }
}

unsafe extern "C" fn release(stream: *mut Stream) {
    // SAFETY: called once on an open stream, which `read` made.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<Open<'_>>()));
        (*stream).private_data = ptr::null_mut();
        (*stream).next = None;
        (*stream).release = None;
    }
}
