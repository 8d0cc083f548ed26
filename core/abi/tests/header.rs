//! The header compiles without a warning as C and as C++, and its structs, constants and limits are
//! those of the Rust mirror.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(unsafe_code, reason = "what is looked at is the boundary to C")]

use std::fmt::Write as _;
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use reunion_abi as abi;
use reunion_model::limits;
use reunion_model::plugin::ErrorClass;

const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

fn compile(compiler: &str, standard: &str, file_name: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(file_name);
    fs::write(&file, text).unwrap();
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", INCLUDE, "-c", "-o"])
        .arg(folder.path().join("out.o"))
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} is needed for this test: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `sizeof` and every `offsetof` of a struct, and how many members there are to be: a member that the
/// list below forgets would change the size.
macro_rules! layout {
    ($out:ident, $c:literal = $rust:ty { $($member:ident),+ $(,)? }) => {
        writeln!($out, "_Static_assert(sizeof({}) == {}, \"size of {}\");", $c, size_of::<$rust>(), $c).unwrap();
        writeln!($out, "_Static_assert(_Alignof({}) == {}, \"alignment of {}\");", $c, align_of::<$rust>(), $c).unwrap();
        $(
            let (name, offset) = (stringify!($member), offset_of!($rust, $member));
            writeln!($out, "_Static_assert(offsetof({}, {name}) == {offset}, \"{}.{name}\");", $c, $c).unwrap();
        )+
    };
}

fn assert_equal(out: &mut String, name: &str, value: impl Into<i128>) {
    writeln!(out, "_Static_assert({name} == {}, \"{name}\");", value.into()).unwrap();
}

#[test]
fn it_compiles_as_c_and_as_cpp() {
    let text = "#include \"reunion_plugin.h\"\n#include \"reunion_plugin.h\"\nint main(void) { return REUNION_OK; }\n";
    compile("gcc", "-std=c11", "plain.c", text);
    compile("g++", "-std=c++17", "plain.cpp", text);
}

#[test]
fn structs_are_laid_out_as_in_rust() {
    let mut c = "#include \"reunion_plugin.h\"\n".to_owned();
    layout!(c, "reunion_str" = abi::Str { ptr, len });
    layout!(c, "reunion_bytes" = abi::Bytes { ptr, len });
    layout!(c, "reunion_buf" = abi::Buf { ptr, len, private_data, release });
    layout!(c, "reunion_error" = abi::Error { size, vendor_code, retry_after_ms, message, hint, key, private_data, release });
    layout!(c, "reunion_host" = abi::Host { size, minor, private_data, log, log_level_max, reserved });
    layout!(c, "reunion_call" = abi::Call { size, flags, deadline_unix_ms, run_id, cancelled, private_data });
    layout!(c, "reunion_item" = abi::Item { size, kind, schema, array, control });
    layout!(c, "reunion_http_request" = abi::HttpRequest { size, reserved, method, path, query, headers_json, body });
    layout!(c, "reunion_http_answer" = abi::HttpAnswer { size, status, headers_json, body, schema, events });
    layout!(c, "reunion_stream" = abi::Stream { size, reserved, private_data, next, release });
    layout!(c, "reunion_source" = abi::SourceTable { size, reserved, check, schema, read });
    layout!(c, "reunion_channel" = abi::ChannelTable { size, reserved, describe, check, push, poll, callback });
    layout!(c, "reunion_plugin" = abi::Plugin { size, minor, create, cancel, destroy, source, channel });
    for (name, size) in [("struct ArrowSchema", size_of::<abi::FFI_ArrowSchema>()), ("struct ArrowArray", size_of::<abi::FFI_ArrowArray>())]
    {
        assert_equal(&mut c, &format!("sizeof({name})"), size as i128);
    }
    compile("gcc", "-std=c11", "layout.c", &c);
}

#[test]
fn constants_are_those_of_rust() {
    let mut c = "#include \"reunion_plugin.h\"\n".to_owned();
    for class in ErrorClass::ALL {
        let name = format!("REUNION_{}", class.name().to_uppercase().replace(' ', "_"));
        assert_equal(&mut c, &name, class.code());
    }
    for (name, value) in [
        ("REUNION_OK", abi::OK),
        ("REUNION_LOG_ERROR", abi::log_level::ERROR),
        ("REUNION_LOG_WARN", abi::log_level::WARN),
        ("REUNION_LOG_INFO", abi::log_level::INFO),
        ("REUNION_LOG_DEBUG", abi::log_level::DEBUG),
        ("REUNION_LOG_TRACE", abi::log_level::TRACE),
        ("REUNION_ITEM_BEGIN", abi::item_kind::BEGIN),
        ("REUNION_ITEM_BATCH", abi::item_kind::BATCH),
        ("REUNION_ITEM_REJECTED", abi::item_kind::REJECTED),
        ("REUNION_ITEM_STATE", abi::item_kind::STATE),
        ("REUNION_ITEM_END", abi::item_kind::END),
    ] {
        assert_equal(&mut c, name, value);
    }
    for (name, value) in [("REUNION_ABI_MAJOR", abi::MAJOR), ("REUNION_ABI_MINOR", abi::MINOR), ("REUNION_CALL_DRY_RUN", abi::CALL_DRY_RUN)]
    {
        assert_equal(&mut c, name, value);
    }
    for (name, value) in [
        ("REUNION_BATCH_ROWS_MAX", limits::BATCH_ROWS_MAX),
        ("REUNION_BATCH_BYTES_MAX", limits::BATCH_BYTES_MAX),
        ("REUNION_COLUMNS_MAX", limits::COLUMNS_MAX),
        ("REUNION_DISPATCH_TASKS_MAX", limits::DISPATCH_TASKS_MAX),
        ("REUNION_CONTROL_BYTES_MAX", limits::CONTROL_BYTES_MAX),
        ("REUNION_ERROR_TEXT_BYTES_MAX", limits::ERROR_TEXT_BYTES_MAX),
        ("REUNION_CALLBACKS_AT_ONCE_MAX", limits::CALLBACKS_AT_ONCE_MAX),
        ("REUNION_CALLBACK_BODY_BYTES_MAX", limits::CALLBACK_BODY_BYTES_MAX),
        ("REUNION_CALLBACK_HEAD_BYTES_MAX", limits::CALLBACK_HEAD_BYTES_MAX),
        ("REUNION_CALLBACK_HEADERS_MAX", limits::CALLBACK_HEADERS_MAX),
        ("REUNION_CALLBACK_EVENTS_BYTES_MAX", limits::CALLBACK_EVENTS_BYTES_MAX),
    ] {
        assert_equal(&mut c, name, value as i128);
    }
    compile("gcc", "-std=c11", "constants.c", &c);
}

#[test]
fn the_symbols_of_the_mirror_are_declared() {
    let header = fs::read_to_string(Path::new(INCLUDE).join("reunion_plugin.h")).unwrap();
    for symbol in [abi::MANIFEST_SYMBOL, abi::ENTRY_SYMBOL] {
        assert!(header.contains(&format!(" {symbol}(")), "{symbol}");
    }
}

#[test]
fn a_table_is_read_as_far_as_it_goes() {
    unsafe extern "C" fn poll(_: *mut abi::Instance, _: *const abi::Call, _: abi::Str, _: *mut abi::Stream, _: *mut abi::Error) -> i32 {
        abi::OK
    }
    unsafe extern "C" fn callback(
        _: *mut abi::Instance,
        _: *const abi::Call,
        _: *const abi::HttpRequest,
        _: *mut abi::HttpAnswer,
        _: *mut abi::Error,
    ) -> i32 {
        abi::OK
    }
    let table =
        |size| abi::ChannelTable { size, reserved: 0, describe: None, check: None, push: None, poll: Some(poll), callback: Some(callback) };
    let read = |size| {
        let table = table(size);
        // SAFETY: it has more bytes than it says.
        let read = unsafe { abi::ChannelTable::read(&raw const table) };
        (read.size, read.poll.is_some(), read.callback.is_some())
    };
    let (first, now) = (abi::ChannelTable::SIZE_1_0, abi::ChannelTable::SIZE_1_1);
    assert_eq!((first, now), (40, 48));
    assert_eq!(read(first), (first, true, false), "what lies behind a table of version 1.0 is not its own");
    assert_eq!(read(now), (now, true, true));
    assert_eq!(read(8), (8, false, false));
}
