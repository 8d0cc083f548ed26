//! Memory that is taken and never given back.

use std::fs;
use std::hint::black_box;

use reunion_sdk::Call;

const STEP_BYTES: usize = 64 << 20;
const LEAK_BYTES: usize = 1 << 20;

/// Takes memory, and writes to all of it, until something ends the process.
pub(crate) fn allocate(_: Option<&Call>) {
    // Where nothing else stops it the kernel does, and then it should take this process rather than another.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    loop {
        // No zeroes: those would be pages that the kernel has not given yet.
        black_box(Box::leak(vec![1_u8; STEP_BYTES].into_boxed_slice()));
    }
}

/// Loses 1 MiB for good.
pub(crate) fn leak(_: Option<&Call>) {
    black_box(Box::leak(vec![1_u8; LEAK_BYTES].into_boxed_slice()));
}
