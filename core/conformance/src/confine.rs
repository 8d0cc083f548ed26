//! Filters of the kernel: what a call must not do ends the process, so that nothing can go unseen.
//!
//! A filter holds for the thread that sets it and for those that it starts, as long as the process lives. Only
//! system calls can be told apart, and the numbers among their arguments: not which file is opened.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde::{Deserialize, Serialize};

/// What is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// To open a socket of the network.
    Network,
    /// To start a thread or a process.
    Threads,
    /// To open a file for writing, or to change the names or modes of files.
    Writing,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Confinement {
    /// What was done where the process was ended.
    pub const fn deed(self) -> &'static str {
        match self {
            Self::Network => "opened a socket of the network",
            Self::Threads => "started a thread or a process",
            Self::Writing => "opened a file for writing, or changed one",
        }
    }

    /// From now on the process ends where this thread does it.
    ///
    /// # Errors
    /// Where the kernel does not offer it, in words.
    pub fn apply(self) -> Result<(), String> {
        let unavailable = |error: &dyn std::fmt::Display| format!("the kernel does not filter system calls here: {error}");
        let rules = match self {
            Self::Network => network(),
            Self::Threads => Ok(calls(&[libc::SYS_clone, libc::SYS_clone3, libc::SYS_execve, libc::SYS_execveat], OLD_FORKS)),
            Self::Writing => writing(),
        };
        let arch = std::env::consts::ARCH.try_into().map_err(|error| unavailable(&error))?;
        let filter = rules.and_then(|rules| SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch));
        let program = filter.and_then(BpfProgram::try_from).map_err(|error| unavailable(&error))?;
        apply_filter(&program).map_err(|error| unavailable(&error))
    }
}

#[cfg(target_arch = "x86_64")]
const OLD_FORKS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FORKS: &[i64] = &[];

#[cfg(target_arch = "x86_64")]
const OLD_WRITES: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_WRITES: &[i64] = &[];

/// These calls, whatever their arguments.
fn calls(some: &[i64], more: &[i64]) -> Rules {
    some.iter().chain(more).map(|call| (*call, Vec::new())).collect()
}

/// An argument, seen through a mask, is this.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let (mask, value) = (u64::from(mask.unsigned_abs()), u64::from(value.unsigned_abs()));
    SeccompRule::new(vec![SeccompCondition::new(argument, Length::Dword, Compare::MaskedEq(mask), value)?])
}

fn network() -> Result<Rules, seccompiler::BackendError> {
    // Sockets within the machine are not the network: the system's own libraries ask its services through them.
    let family = |family: i32| masked(0, i32::MAX, family);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, libc::AF_VSOCK].map(family).into_iter().collect::<Result<_, _>>()?;
    Ok(BTreeMap::from([(libc::SYS_socket, families)]))
}

fn writing() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = calls(
        &[
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_fchmodat,
            libc::SYS_fchownat,
            libc::SYS_truncate,
            libc::SYS_ftruncate,
            libc::SYS_fallocate,
        ],
        OLD_WRITES,
    );
    let for_writing = |argument: u8| {
        let flags = [
            (libc::O_ACCMODE, libc::O_WRONLY),
            (libc::O_ACCMODE, libc::O_RDWR),
            (libc::O_CREAT, libc::O_CREAT),
            (libc::O_TRUNC, libc::O_TRUNC),
        ];
        flags.iter().map(|(mask, value)| masked(argument, *mask, *value)).collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_openat, for_writing(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, for_writing(1)?);
    Ok(rules)
}
