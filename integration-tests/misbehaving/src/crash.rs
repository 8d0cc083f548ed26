//! Ends of the process, and panics.

use std::hint::black_box;
use std::ptr;

use reunion_sdk::Call;

/// Writes to address 0.
pub(crate) fn sigsegv(_: Option<&Call>) {
    // Through libc: the compiler adds checks to a write of its own, which abort rather than fault.
    // SAFETY: none; the fault is what is wanted.
    unsafe { libc::memset(black_box(ptr::null_mut()), 1, 8) };
}

/// Executes what is no instruction.
pub(crate) fn illegal(_: Option<&Call>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it ends the process; nothing comes after it.
    unsafe {
        std::arch::asm!("ud2", options(noreturn));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: the signal of such an instruction; its default ends the process.
    unsafe {
        libc::raise(libc::SIGILL);
    }
}

pub(crate) fn abort(_: Option<&Call>) {
    std::process::abort();
}

/// Recurses until the thread's stack is used up.
pub(crate) fn stack_overflow(_: Option<&Call>) {
    #[allow(unconditional_recursion, reason = "that is what is wanted")]
    fn deeper(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        deeper(depth + 1) + black_box(frame)[0]
    }
    black_box(deeper(0));
}

/// Ends the process at once and says that all is well.
pub(crate) fn exit(_: Option<&Call>) {
    // SAFETY: allowed at any time; it does not return.
    unsafe { libc::_exit(0) }
}

/// Ends the process as a program would that has failed, its exit handlers called.
pub(crate) fn exit_nonzero(_: Option<&Call>) {
    std::process::exit(3);
}

/// In code that the SDK has called, which turns it into an error.
pub(crate) fn panic(_: Option<&Call>) {
    panic!("told to panic");
}

/// In a function that C could call and that nothing catches it in: the process is aborted.
pub(crate) fn panic_foreign(_: Option<&Call>) {
    extern "C" fn foreign() {
        panic!("told to panic where nobody catches it");
    }
    black_box(foreign as extern "C" fn())();
}
