//! The thread that watches how much memory workers take, where the system does not.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::usage;

use super::link::Link;

/// Memory is looked at this often. A program can take a few hundred megabytes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Every so many looks all processes that a worker has started are counted too, which means reading all of `/proc`.
const GROUP_EVERY: u32 = 10;

struct Watched {
    link: Weak<Link>,
    bytes_max: u64,
}

/// Who is watched, and whether a thread is looking.
static WATCHED: Mutex<(Vec<Watched>, bool)> = Mutex::new((Vec::new(), false));

fn watched() -> std::sync::MutexGuard<'static, (Vec<Watched>, bool)> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this worker when it takes more memory than that.
pub(super) fn memory(link: &Arc<Link>, bytes_max: u64) {
    let mut all = watched();
    all.0.push(Watched { link: Arc::downgrade(link), bytes_max });
    if !all.1 {
        all.1 = thread::Builder::new().name("watch".into()).spawn(look).is_ok();
    }
}

fn look() {
    for turn in 0_u32.. {
        thread::sleep(LOOK_EVERY);
        let mut all = watched();
        all.0.retain(|watched| watched.link.upgrade().is_some_and(|link| link.is_alive()));
        if all.0.is_empty() {
            all.1 = false;
            return;
        }
        let now: Vec<_> = all.0.iter().filter_map(|watched| Some((watched.link.upgrade()?, watched.bytes_max))).collect();
        drop(all);
        for (link, bytes_max) in now {
            let Some(pid) = link.pid() else { continue };
            let group = turn.is_multiple_of(GROUP_EVERY);
            let usage = if group { usage::of_group(pid) } else { usage::of(pid) };
            if let Some(bytes) = usage.ok().map(|usage| usage.rss_bytes).filter(|bytes| *bytes > bytes_max) {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                link.fault(&format!("took {} MiB of memory, and {} are the limit", mib(bytes), mib(bytes_max)));
            }
        }
    }
}
