//! What every process of Linux can take from itself.

use std::fs;
use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// What a worker of root's keeps of root's powers: files of others, low ports, other users for programs that it
/// starts. Not those over other processes, the kernel and the machine; nor over its own limits.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_BROADCAST)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::IPC_OWNER);

/// How much sooner than the daemon a worker is taken when the machine runs out of memory, on a scale of 1000.
const OOM_SCORE_MORE: i32 = 500;
const OOM_SCORE_MAX: i32 = 1000;

/// Has this process killed when the **thread** that started it ends: the spawner's must live as long as the
/// daemon. The first call of a worker. `parent_pid` is the daemon's process id.
///
/// # Errors
/// The parent is another process by now: the daemon died before the signal was asked for, and the worker should
/// end. Or the system refuses.
pub fn die_with_parent(parent_pid: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
    if parent != parent_pid {
        let message = format!("the daemon, process {parent_pid}, has ended: the parent of this process is {parent}");
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// Programs that it starts get no rights that it has not itself: set-user-id bits do not count.
pub(super) fn no_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

/// Gives up what it has of root's powers and does not need. What it starts does not get them back, as new
/// privileges are off. Most processes have none, and then nothing is asked of the system.
pub(super) fn drop_powers() -> io::Result<()> {
    let has = capabilities(None)?;
    let kept = CapabilitySets {
        effective: has.effective.intersection(KEPT),
        permitted: has.permitted.intersection(KEPT),
        inheritable: has.inheritable.intersection(KEPT),
    };
    if kept == has { Ok(()) } else { Ok(set_capabilities(None, kept)?) }
}

/// No core files, and no look into its memory for other processes of its user. A program that it starts can be
/// looked at again, and leaves no core file either.
pub(super) fn no_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Never more than it has, and for good.
pub(super) fn limit_open_files(max: u64) -> io::Result<()> {
    let max = rustix::process::getrlimit(Resource::Nofile).maximum.map_or(max, |there| there.min(max));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(max), maximum: Some(max) })?)
}

/// Raises the score by which the kernel chooses whom to kill when memory runs out.
pub(super) fn kill_before_others() -> io::Result<()> {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let score: i32 = fs::read_to_string(SCORE)?.trim().parse().map_err(io::Error::other)?;
    fs::write(SCORE, (score + OOM_SCORE_MORE).min(OOM_SCORE_MAX).to_string())
}
