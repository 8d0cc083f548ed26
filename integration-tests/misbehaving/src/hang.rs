//! Calls that never return. Neither looks whether it is cancelled.

use std::hint::{black_box, spin_loop};
use std::thread;
use std::time::Duration;

use reunion_sdk::Call;

pub(crate) fn hang(_: Option<&Call>) {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// The same, using a core up.
pub(crate) fn hang_cpu(_: Option<&Call>) {
    loop {
        black_box(());
        spin_loop();
    }
}
