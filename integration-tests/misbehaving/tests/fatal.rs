//! What ends the process, or changes it, tried in another one: this test program, started again.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use reunion_host::CallOptions;

const TOLD: &str = "MISBEHAVING_TEST";
/// None takes nearly so long, on a machine that does little else.
const CHILD_LASTS: Duration = Duration::from_secs(60);

/// This program again, as a child that does what it is told.
fn start(told: &Value) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_child_does_what_it_is_told", "--nocapture"]).env(TOLD, told.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn run(told: &Value) -> Output {
    let mut child = start(told);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > CHILD_LASTS {
            child.kill().unwrap();
            panic!("{told} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Nothing, where it is no child.
#[test]
fn a_child_does_what_it_is_told() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let (at, name) = (told["at"].as_str().unwrap(), told["do"].as_str().unwrap());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    if at == "receipt" {
        let config = json!({"batch_rows": 10, "do": name, "at": at, "after_rows": 10});
        support::push(&config, 30, &CallOptions::default());
    } else {
        let config = json!({"rows": 30, "batch_rows": 10, "do": name, "at": at, "after_rows": 10});
        let (items, error) = support::read(&config, &support::FRESH, None);
        assert_eq!((support::ids(&items).len(), error), (30, None), "a read that goes on");
    }
    see(name, ours, &mut theirs);
}

/// What can be seen of those that end nothing.
fn see(name: &str, ours: UnixStream, theirs: &mut UnixStream) {
    theirs.set_nonblocking(true).unwrap_or_default();
    let mut bytes = vec![0; 5];
    match name {
        "close_socket" => assert_eq!(theirs.read(&mut bytes).unwrap_err().raw_os_error(), Some(libc::EBADF)),
        "garbage_socket" => theirs.read_exact(&mut bytes).unwrap(),
        "oversized_message" => {
            theirs.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [0, 0, 0, 0x80, 70]);
        }
        "leak_fds" => assert!(std::fs::read_dir("/proc/self/fd").map_or(true, |entries| entries.count() > 500), "or none can be had"),
        "leak_threads" => assert!(std::fs::read_dir("/proc/self/task").unwrap().count() > 50),
        "chdir" => assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/")),
        "env" => assert_eq!(std::env::var("REUNION_MISBEHAVED").as_deref(), Ok("1")),
        // SAFETY: a signal to oneself, which is passed over.
        #[allow(unsafe_code)]
        "signal_handlers" => assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0),
        _ => assert_eq!(theirs.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock),
    }
    // Closed sockets must not be closed again.
    std::mem::forget(ours);
    std::process::exit(77);
}

#[test]
fn crashes_end_the_process_by_their_signals() {
    for at in ["item", "receipt"] {
        for (name, signal) in [
            ("sigsegv", libc::SIGSEGV),
            ("abort", libc::SIGABRT),
            // The standard library reports it and aborts.
            ("stack_overflow", libc::SIGABRT),
            ("illegal", libc::SIGILL),
            ("panic_foreign", libc::SIGABRT),
            ("garbage_length", libc::SIGSEGV),
            ("garbage_offsets_end", libc::SIGSEGV),
        ] {
            assert_eq!(run(&json!({"do": name, "at": at})).status.signal(), Some(signal), "{name} at {at}");
        }
        for (name, code) in [("exit", 0), ("exit_nonzero", 3)] {
            assert_eq!(run(&json!({"do": name, "at": at})).status.code(), Some(code), "{name} at {at}");
        }
    }
}

#[test]
fn crashes_come_at_every_call() {
    for at in ["create", "read", "end", "release", "destroy"] {
        assert_eq!(run(&json!({"do": "sigsegv", "at": at})).status.signal(), Some(libc::SIGSEGV), "{at}");
    }
}

#[test]
fn what_belongs_to_the_process_is_changed_and_the_read_goes_on() {
    for name in [
        "close_socket",
        "garbage_socket",
        "oversized_message",
        "leak_fds",
        "leak_threads",
        "chdir",
        "env",
        "signal_handlers",
        "unload",
        "flood_log",
        "flood_stderr",
        "phone_in_log",
    ] {
        let output = run(&json!({"do": name, "at": "item"}));
        assert_eq!(output.status.code(), Some(77), "{name}: {:?}", output.status);
    }
}

#[test]
fn what_hangs_does_not_end() {
    for name in ["hang", "hang_cpu"] {
        let mut child = start(&json!({"do": name, "at": "item"}));
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "{name}");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
