//! Behind the export macros: the C functions, generic over the author's type.
//!
//! Nothing here is for authors to call. Every function that C calls catches panics; an instance whose
//! code has panicked answers every later call with an error.

mod functions;
mod instance;
mod stream;
#[cfg(test)]
mod tests;

use std::ffi::{CString, c_char};
use std::panic::catch_unwind;
use std::ptr;
use std::sync::OnceLock;

use reunion_abi as abi;
use reunion_model::plugin::{Capabilities, ErrorClass, Manifest, PluginError};

pub use functions::{channel_plugin, source_plugin};
pub use instance::{OfChannel, OfSource, PluginType};
pub use reunion_abi;

/// The manifest's text, made once. Null where making it fails, which the host reports.
pub fn manifest<K: PluginType>(text: &'static OnceLock<CString>) -> *const c_char {
    let made = catch_unwind(|| {
        text.get_or_init(|| {
            let manifest = K::manifest();
            let manifest = Manifest { abi: abi_needed(&manifest.capabilities), kind: K::KIND, ..manifest };
            let json = serde_json::to_vec(&manifest).expect("a manifest has text keys only");
            CString::new(json).expect("JSON escapes zero bytes")
        })
        .as_ptr()
    });
    made.unwrap_or(ptr::null())
}

/// The least version of the ABI that has what a plugin makes use of.
const fn abi_needed(capabilities: &Capabilities) -> [u32; 2] {
    [abi::MAJOR, capabilities.minor_needed()]
}

/// Fills in the table of functions.
///
/// # Safety
/// `out` and `error` must be valid, with `size` set to the bytes that they have.
pub unsafe fn entry(table: abi::Plugin, host_minor: u32, out: *mut abi::Plugin, error: *mut abi::Error) -> i32 {
    // SAFETY: the caller's promise: at least the leading `size` is there.
    let room = unsafe { (*out).size };
    if room < abi::Plugin::SIZE_1_0 {
        let message = format!(
            "the plugin was built for ABI {}.{} and needs a table of {} bytes, and the host (minor version {host_minor}) offers {room}",
            abi::MAJOR,
            abi::MINOR,
            abi::Plugin::SIZE_1_0,
        );
        let refusal = PluginError::new(ErrorClass::Internal, message).hint("upgrade the host, or install an older version of the plugin");
        // SAFETY: the caller's promise.
        return unsafe { instance::write_error(error, refusal) };
    }
    // SAFETY: there is room for the whole table, which has no destructor.
    unsafe { ptr::write(out, table) };
    abi::OK
}

/// Makes a [`Source`](crate::Source) the plugin of this library.
#[macro_export]
macro_rules! export_source {
    ($source:ty) => {
        $crate::export_plugin!($crate::export::OfSource<$source>, $crate::export::source_plugin::<$source>());
    };
}

/// Makes a [`Channel`](crate::Channel) the plugin of this library.
#[macro_export]
macro_rules! export_channel {
    ($channel:ty) => {
        $crate::export_plugin!($crate::export::OfChannel<$channel>, $crate::export::channel_plugin::<$channel>());
    };
}

/// The two symbols.
#[doc(hidden)]
#[macro_export]
macro_rules! export_plugin {
    ($kind:ty, $table:expr) => {
        #[allow(unsafe_code)]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn reunion_manifest_v1() -> *const ::std::ffi::c_char {
                static TEXT: ::std::sync::OnceLock<::std::ffi::CString> = ::std::sync::OnceLock::new();
                $crate::export::manifest::<$kind>(&TEXT)
            }

            // SAFETY: the host passes valid structs whose `size` is set.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn reunion_entry_v1(
                host_minor: u32,
                out: *mut $crate::export::reunion_abi::Plugin,
                error: *mut $crate::export::reunion_abi::Error,
            ) -> i32 {
                // SAFETY: as above.
                unsafe { $crate::export::entry($table, host_minor, out, error) }
            }
        };
    };
}
