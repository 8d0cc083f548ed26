//! What belongs to the whole process, or to another one.

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::hint::black_box;
use std::mem;
use std::ptr;
use std::thread;
use std::time::Duration;

use reunion_sdk::Call;

const THREADS: usize = 50;
const DESCRIPTORS: usize = 10_000;
const CHILDREN: usize = 5;

/// Starts threads that never end, and forgets them.
pub(crate) fn leak_threads(_: Option<&Call>) {
    for at in 0..THREADS {
        // Where no more can be had, there are enough.
        let _ = thread::Builder::new().name(format!("leaked-{at}")).spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(3600));
            }
        });
    }
}

/// Opens files until there are ten thousand more, or no more can be had, and closes none.
pub(crate) fn leak_fds(_: Option<&Call>) {
    let opened = (0..DESCRIPTORS).map_while(|_| File::open("/dev/null").ok());
    opened.for_each(mem::forget);
}

/// Asks the process that started this one to end, and kills it.
pub(crate) fn kill_parent(call: Option<&Call>) {
    terminate_parent(call);
    // SAFETY: the kernel refuses what is not allowed.
    unsafe { libc::kill(libc::getppid(), libc::SIGKILL) };
}

/// Asks the process that started this one to end.
pub(crate) fn terminate_parent(_: Option<&Call>) {
    // SAFETY: as above.
    unsafe { libc::kill(libc::getppid(), libc::SIGTERM) };
}

/// Starts processes that hold all that this one has open, and sleep for ever.
pub(crate) fn fork_bomb_small(_: Option<&Call>) {
    for _ in 0..CHILDREN {
        // SAFETY: the child calls nothing but pause.
        if unsafe { libc::fork() } == 0 {
            loop {
                // SAFETY: allowed at any time.
                unsafe { libc::pause() };
            }
        }
    }
}

/// Tries to remove the library that this is the code of from memory.
pub(crate) fn unload(_: Option<&Call>) {
    let Some(name) = library_of(unload as *const c_void) else { return };
    // SAFETY: the name is that of a loaded library. Each of these handles, and one that others hold, is closed. If
    // the library does go away there is nothing to return to, which is what is wanted.
    unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if !handle.is_null() {
            (0..16).take_while(|_| libc::dlclose(handle) == 0).for_each(drop);
        }
    }
}

/// The file of the library that holds this function, as it was loaded.
pub(crate) fn library_of(function: *const c_void) -> Option<&'static CStr> {
    // SAFETY: all zeroes is a valid struct, which the call fills in; the name in it stays as long as the library.
    unsafe {
        let mut info: libc::Dl_info = mem::zeroed();
        (libc::dladdr(function, &raw mut info) != 0 && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))
    }
}

/// Changes the working folder and the mask of new files.
pub(crate) fn chdir(_: Option<&Call>) {
    let _ = std::env::set_current_dir("/");
    // SAFETY: allowed at any time; it changes the process, which is what is wanted.
    unsafe { libc::umask(0) };
}

/// Changes the environment, while others may be reading it.
pub(crate) fn env(_: Option<&Call>) {
    for (name, value) in [("REUNION_MISBEHAVED", "1"), ("PATH", ""), ("TZ", "Antarctica/Troll"), ("LC_ALL", "tlh")] {
        // SAFETY: none where another thread reads it, which is what is wanted.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Has the signals that end a process pass over this one.
pub(crate) fn signal_handlers(_: Option<&Call>) {
    extern "C" fn swallow(_: c_int) {}
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGSEGV] {
        // SAFETY: all zeroes is a valid struct; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = black_box(swallow as extern "C" fn(c_int)) as usize;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}
