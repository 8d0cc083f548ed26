//! Filters for system calls: a list of those that no plugin needs, which answer with an error. The rest stay
//! allowed, as nobody can list what the libraries of all plugins call.
//!
//! A program that the plugin starts has the same filters. A 32-bit program is killed: its calls have other
//! numbers, which the filters do not know.

use std::collections::BTreeMap;
use std::io;

use libc::{EACCES, ENOSYS, EPERM, c_int, c_long};
use reunion_model::plugin::Needs;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

use super::Kernel;
use super::report::{ABI_SCOPES, ABI_TRUNCATE};

/// Asks whether a filter can make a call fail (`SECCOMP_GET_ACTION_AVAIL`).
pub(super) fn detect() -> Result<(), String> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(|_| format!("no filters for system calls on {}", std::env::consts::ARCH))?;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads the action and changes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if answer == 0 { Ok(()) } else { Err(format!("no filters for system calls: {}", io::Error::last_os_error())) }
}

/// What is refused beyond what always is.
pub(super) struct Refused {
    /// Every socket but those of this machine's own programs.
    network: bool,
    /// Sockets that no client of a network needs, such as those that see all packets.
    odd_sockets: bool,
    /// Signals to others, where Landlock cannot tell others from what the worker started.
    signals: bool,
    /// Cutting files short by name, where Landlock does not see it.
    truncation: bool,
}

impl Refused {
    pub(super) fn of(needs: Option<&Needs>, kernel: &Kernel) -> Self {
        let landlock = kernel.landlock.clone().unwrap_or(0);
        Self {
            network: needs.is_some_and(|needs| !needs.network),
            odd_sockets: needs.is_some_and(|needs| needs.network),
            signals: landlock < ABI_SCOPES,
            truncation: needs.is_some() && (1..ABI_TRUNCATE).contains(&landlock),
        }
    }
}

/// Installs the filters, on all threads.
pub(super) fn refuse(refused: &Refused) -> io::Result<()> {
    for program in programs(refused).map_err(io::Error::other)? {
        apply_filter_all_threads(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn programs(refused: &Refused) -> Result<Vec<BpfProgram>, BackendError> {
    let mut not_permitted = Rules::default();
    UNNEEDED.iter().for_each(|call| not_permitted.whole(*call));
    escapes(&mut not_permitted)?;
    others(&mut not_permitted)?;
    if refused.signals {
        signals(&mut not_permitted)?;
    }

    let mut denied = Rules::default();
    if refused.network {
        sockets(&mut denied, &[libc::AF_UNIX])?;
    }
    if refused.odd_sockets {
        sockets(&mut denied, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK])?;
    }
    if refused.truncation {
        truncation(&mut denied)?;
    }

    // Its flags lie in memory, where no filter sees them. Without it, libraries use clone.
    let mut missing = Rules::default();
    missing.whole(libc::SYS_clone3);

    let all = [(not_permitted, EPERM), (denied, EACCES), (missing, ENOSYS)];
    let programs = all.into_iter().filter(|(rules, _)| !rules.0.is_empty()).map(|(rules, error)| rules.compile(error));
    let foreign = foreign_numbers().map(Ok);
    foreign.into_iter().chain(programs).collect()
}

/// Calls that no plugin needs: of the administrator, of debuggers, and ways around the other measures.
const UNNEEDED: &[c_long] = &[
    // The memory and descriptors of other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Another view of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Other namespaces; clone is below.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Files and sockets without the calls that are filtered.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Out of the process group that is killed as a whole.
    libc::SYS_setpgid,
    libc::SYS_setsid,
    // The kernel: its modules, programs, events, keys, log.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_syslog,
    // The machine: power, swap, clock, names, accounts.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

/// Calls that would undo what was done to the worker, or what its descriptors allow: only with these arguments.
fn escapes(rules: &mut Rules) -> Result<(), BackendError> {
    const NAMESPACES: [c_int; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    for flag in NAMESPACES {
        let flag = u64::from(flag.cast_unsigned());
        rules.when(libc::SYS_clone, vec![wide(0, SeccompCmpOp::MaskedEq(flag), flag)?])?;
    }
    // To live on without the daemon; to be looked into.
    let option = |option: c_int| narrow(0, SeccompCmpOp::Eq, option);
    rules.when(libc::SYS_prctl, vec![option(libc::PR_SET_PDEATHSIG)?, wide(1, SeccompCmpOp::Eq, 0)?])?;
    rules.when(libc::SYS_prctl, vec![option(libc::PR_SET_DUMPABLE)?, wide(1, SeccompCmpOp::Ne, 0)?])?;
    // To type into the terminal that the daemon was started from.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        rules.when(libc::SYS_ioctl, vec![wide(1, SeccompCmpOp::MaskedEq(u64::from(u32::MAX)), u64::from(request as u32))?])?;
    }
    // To reach a disk past its file system.
    for kind in [libc::S_IFBLK, libc::S_IFCHR] {
        let kind_of = |argument| wide(argument, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), u64::from(kind));
        rules.when(libc::SYS_mknodat, vec![kind_of(2)?])?;
        #[cfg(target_arch = "x86_64")]
        rules.when(libc::SYS_mknod, vec![kind_of(1)?])?;
    }
    Ok(())
}

/// The limits of other processes.
fn others(rules: &mut Rules) -> Result<(), BackendError> {
    rules.when(libc::SYS_prlimit64, vec![narrow(0, SeccompCmpOp::Ne, 0)?, narrow(0, SeccompCmpOp::Ne, own_pid())?])
}

/// Signals to any process but this one and, where it leads one, its group. Programs that it starts have the same
/// filter, with this process's id in it.
fn signals(rules: &mut Rules) -> Result<(), BackendError> {
    let own = own_pid();
    let mut kill = vec![narrow(0, SeccompCmpOp::Ne, own)?];
    if rustix::process::getpgrp() == rustix::process::getpid() {
        kill.extend([narrow(0, SeccompCmpOp::Ne, 0)?, narrow(0, SeccompCmpOp::Ne, -own)?]);
    }
    rules.when(libc::SYS_kill, kill)?;
    for call in [libc::SYS_tgkill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        rules.when(call, vec![narrow(0, SeccompCmpOp::Ne, own)?])?;
    }
    // Whose descriptor it is cannot be seen.
    rules.whole(libc::SYS_pidfd_send_signal);
    Ok(())
}

/// Sockets of any family but these.
fn sockets(rules: &mut Rules, families: &[c_int]) -> Result<(), BackendError> {
    let others = families.iter().map(|family| narrow(0, SeccompCmpOp::Ne, *family)).collect::<Result<_, _>>()?;
    rules.when(libc::SYS_socket, others)
}

/// By name, or by opening a file that is not opened to be written.
fn truncation(rules: &mut Rules) -> Result<(), BackendError> {
    rules.whole(libc::SYS_truncate);
    let mask = u64::from((libc::O_TRUNC | libc::O_ACCMODE).cast_unsigned());
    let cuts = |argument| wide(argument, SeccompCmpOp::MaskedEq(mask), u64::from(libc::O_TRUNC.cast_unsigned()));
    #[cfg(target_arch = "x86_64")]
    rules.when(libc::SYS_open, vec![cuts(1)?])?;
    rules.when(libc::SYS_openat, vec![cuts(2)?])
}

fn own_pid() -> c_int {
    std::process::id().cast_signed()
}

/// A condition on an argument of 32 bits: a number, a process id.
fn narrow(argument: u8, operator: SeccompCmpOp, value: c_int) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.cast_unsigned()))
}

/// A condition on an argument of 64 bits.
fn wide(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
}

/// Calls that are refused, with the conditions of each: any rule that fits refuses it, no rule at all always.
#[derive(Default)]
struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    fn whole(&mut self, call: c_long) {
        self.0.insert(call, Vec::new());
    }

    fn when(&mut self, call: c_long, conditions: Vec<SeccompCondition>) -> Result<(), BackendError> {
        self.0.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    }

    fn compile(self, error: c_int) -> Result<BpfProgram, BackendError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        SeccompFilter::new(self.0, SeccompAction::Allow, SeccompAction::Errno(error.cast_unsigned()), arch)?.try_into()
    }
}

/// On x86-64 the same calls have a second set of numbers (x32), where the kernel has it: to a list of what is
/// refused they are all unknown.
#[cfg(target_arch = "x86_64")]
fn foreign_numbers() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    const X32_BIT: u32 = 0x4000_0000;
    let line = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    Some(vec![
        // The number of the call is the first field.
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        line(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | ENOSYS.cast_unsigned()),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_numbers() -> Option<BpfProgram> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_compiles_and_fits() {
        for bits in 0..16 {
            let [network, odd_sockets, signals, truncation] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let programs = programs(&Refused { network, odd_sockets, signals, truncation }).unwrap();
            let denied = network || odd_sockets || truncation;
            assert_eq!(programs.len(), 2 + usize::from(denied) + usize::from(cfg!(target_arch = "x86_64")));
            assert!(programs.iter().all(|program| program.len() < 1000), "{bits}");
        }
    }

    #[test]
    fn what_is_refused_follows_from_needs_and_kernel() {
        let refused = |needs: Option<Needs>, landlock: i32| {
            let landlock = if landlock == 0 { Err("none".into()) } else { Ok(landlock) };
            let refused = Refused::of(needs.as_ref(), &Kernel { landlock, seccomp: Ok(()) });
            [refused.network, refused.odd_sockets, refused.signals, refused.truncation]
        };
        let networked = || Some(Needs { network: true, config_paths: false });
        assert_eq!(refused(Some(Needs::default()), 7), [true, false, false, false]);
        assert_eq!(refused(Some(Needs::default()), 2), [true, false, true, true]);
        assert_eq!(refused(networked(), 3), [false, true, true, false]);
        assert_eq!(refused(networked(), 0), [false, true, true, false]);
        assert_eq!(refused(None, 0), [false, false, true, false]);
    }
}
