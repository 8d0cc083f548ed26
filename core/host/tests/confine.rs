//! What a worker gives up is really gone, and what it needs is still there. Each body runs in a process of its
//! own, as all of it is for good. Where a kernel lacks something, the body shows that the report says so.
#![allow(unsafe_code)] // System calls, as a hostile plugin would make them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(target_os = "linux")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use libc::{EACCES, ENOSYS, EPERM, c_long};
use libloading::os::unix::Library;
use reunion_host::cgroup::{Cgroups, Group};
use reunion_host::confine::{Kernel, Measure, Plan, Report, State, confine, confine_on, die_with_parent, offered, offered_to};
use reunion_model::plugin::Needs;

const BODY: &str = "REUNION_TEST_BODY";
const FOLDER: &str = "REUNION_TEST_FOLDER";
const NOTHING: Option<Needs> = Some(Needs { network: false, config_paths: false });
const FILES: Option<Needs> = Some(Needs { network: false, config_paths: true });
const NETWORK: Option<Needs> = Some(Needs { network: true, config_paths: false });

/// Runs a body in a process of its own, with one thread, in a folder of its own. `test` is the name of the test
/// that calls this: this program is started again for it alone, and forks in it.
fn alone(test: &str, body: impl FnOnce(&Path)) {
    if env::var_os(BODY).is_some() {
        return assert_eq!(forked(|| body(Path::new(&env::var_os(FOLDER).unwrap()))), 0, "the body failed");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(BODY, test)
        .env(FOLDER, path)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs a body in a fork and waits for it: 0 where it returned, 1 where it panicked, else minus its signal.
fn forked(body: impl FnOnce()) -> i32 {
    let pid = fork(body);
    let mut status = 0;
    // SAFETY: waits for the child, and the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child has this thread alone. The others wait for tests to end, and hold no lock.
    match unsafe { libc::fork() } {
        0 => {
            let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
            // SAFETY: ends the process without the handlers of the parent's.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        pid => {
            assert!(pid > 0, "{}", io::Error::last_os_error());
            pid
        }
    }
}

fn plan(needs: Option<Needs>, folder: &Path) -> Plan {
    Plan {
        needs,
        library: folder.join("lib/libx.so"),
        read: vec![folder.join("in/*.csv")],
        write: vec![folder.join("out/{store}/{date}.csv")],
        temp: None,
        private: Vec::new(),
        make_folders: true,
        open_files_max: 64,
    }
}

/// A folder with something in each place.
fn furnish(folder: &Path) {
    for name in ["lib", "in", "out", "state"] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("x.csv"), "text").unwrap();
    }
}

fn refused<T>(result: io::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => true,
        Err(error) => panic!("neither done nor refused: {error}"),
    }
}

fn holds(report: &Report, measure: Measure) -> bool {
    matches!(report.state(measure), Some(State::Enforced))
}

/// The error that a system call answers with; 0 for none.
fn errno(call: c_long, [a, b, c, d]: [u64; 4]) -> i32 {
    // SAFETY: the callers' arguments let the call fail, or have it change nothing that matters.
    match unsafe { libc::syscall(call, a, b, c, d, 0_u64, 0_u64) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

fn signal(pid: u32) -> i32 {
    errno(libc::SYS_kill, [u64::from(pid), 0, 0, 0])
}

/// A process to be looked at, outside of what this one gives up. It ends with this one, which a parent-death signal
/// would not do: that is a signal of this one's.
fn bystander() -> u32 {
    let (mut reading, writing) = io::pipe().unwrap();
    // Open as long as this process lives.
    let writing = writing.into_raw_fd();
    let pid = fork(|| {
        // SAFETY: this process's copy, which nothing else uses.
        drop(unsafe { OwnedFd::from_raw_fd(writing) });
        assert_eq!(reading.read(&mut [0]).unwrap(), 0);
    });
    pid.cast_unsigned()
}

/// Reads the first bytes of this process's program in the memory of another: the same place in a fork.
fn peek(pid: u32) -> i32 {
    static HERE: [u8; 8] = [7; 8];
    let mut there = [0_u8; 8];
    let local = libc::iovec { iov_base: there.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: HERE.as_ptr().cast_mut().cast(), iov_len: 8 };
    // SAFETY: both places have eight bytes.
    match unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap(),
        read => {
            assert_eq!((read, there), (8, HERE));
            0
        }
    }
}

fn truncate(path: &Path) -> io::Result<()> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a zero byte.
    if unsafe { libc::truncate(path.as_ptr(), 2) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn system_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("/libc.so") || path.contains("/libc-"))
        .unwrap()
        .into()
}

#[test]
fn files_are_those_of_the_config_and_the_system() {
    alone("files_are_those_of_the_config_and_the_system", |folder| {
        furnish(folder);
        let at = |path: &str| folder.join(path);
        let secret = at("state/x.csv");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "text");
        let report = confine(&plan(FILES, folder)).unwrap();
        assert_eq!(holds(&report, Measure::Files), Kernel::detect().landlock.is_ok(), "{report}");
        let kept = holds(&report, Measure::Files);

        // What the config names.
        assert_eq!(fs::read_to_string(at("in/x.csv")).unwrap(), "text");
        assert_eq!(fs::read_dir(at("in")).unwrap().count(), 1);
        fs::create_dir_all(at("out/s1/deep")).unwrap();
        fs::write(at("out/s1/.a.part"), "list").unwrap();
        fs::rename(at("out/s1/.a.part"), at("out/s1/deep/a.csv")).unwrap();
        File::open(at("out/s1")).unwrap().sync_all().unwrap();
        // Before Linux 6.2 a filter refuses it for all files.
        let blind = Kernel::detect().landlock.is_ok_and(|abi| abi < 3);
        assert_eq!(refused(truncate(&at("out/s1/deep/a.csv"))), blind && holds(&report, Measure::SystemCalls));
        File::options().write(true).open(at("out/s1/deep/a.csv")).unwrap().set_len(2).unwrap();
        assert_eq!(fs::read_to_string(at("out/s1/deep/a.csv")).unwrap(), "li");
        fs::remove_file(at("out/s1/deep/a.csv")).unwrap();
        fs::remove_dir(at("out/s1/deep")).unwrap();

        // What it names to be read is not written.
        assert_eq!(refused(fs::write(at("in/x.csv"), "")), kept);
        assert_eq!(refused(fs::write(at("in/new.csv"), "")), kept);
        assert_eq!(refused(truncate(&at("in/x.csv"))), kept);

        // What it does not name.
        assert_eq!(refused(File::open(&secret)), kept);
        assert_eq!(refused(OpenOptions::new().append(true).open(&secret)), kept);
        assert_eq!(refused(truncate(&secret)), kept);
        assert_eq!(refused(fs::read_dir(at("state"))), kept);
        assert_eq!(refused(fs::read_dir(folder)), kept);
        assert_eq!(refused(fs::write(at("state/new"), "")), kept);
        assert_eq!(refused(fs::create_dir(at("state/folder"))), kept);
        assert_eq!(refused(fs::remove_file(&secret)), kept);
        assert_eq!(refused(fs::read_dir(env::temp_dir())), kept);
        assert_eq!(refused(fs::read_dir(format!("/proc/{}", parent()))), kept);
        for outside in ["/root", "/home", "/var/log"].into_iter().filter(|path| Path::new(path).is_dir()) {
            assert!(!kept || refused(fs::read_dir(outside)), "{outside}");
        }
        // A link does not lead out.
        let link = std::os::unix::fs::symlink(&secret, at("out/link"));
        assert_eq!(refused(link), kept);
        assert!(!kept || refused_or_elsewhere(fs::hard_link(&secret, at("out/link2"))));

        // A thread that begins later, and a program.
        assert_eq!(thread::spawn(move || refused(File::open(secret))).join().unwrap(), kept);
        let shown = Command::new("cat").arg(at("state/x.csv")).output();
        assert!(!kept || !shown.unwrap().status.success());

        // What every program needs.
        for path in ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/proc/self/status", "/proc/self/maps"] {
            assert!(fs::read(path).is_ok() || !Path::new(path).exists(), "{path}");
        }
        for path in ["/usr/share/zoneinfo", "/etc/ssl/certs", "/sys/devices/system/cpu"] {
            assert!(fs::read_dir(path).is_ok() || !Path::new(path).exists(), "{path}");
        }
        let mut bytes = [0; 8];
        File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
        OpenOptions::new().write(true).open("/dev/null").unwrap().write_all(&bytes).unwrap();
        assert!(thread::available_parallelism().is_ok());
    });
}

/// Moving between folders of different rights is refused as if they were on two disks.
fn refused_or_elsewhere<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::CrossesDevices))
}

#[test]
fn libraries_and_programs_are_the_systems_and_the_plugins() {
    alone("libraries_and_programs_are_the_systems_and_the_plugins", |folder| {
        furnish(folder);
        let program = |folder_name: &str| {
            let path = folder.join(folder_name).join("program");
            fs::copy("/bin/true", &path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let [beside, written] = ["lib", "out"].map(program);
        let [library, outside] = ["lib/libx.so", "state/libx.so"].map(|name| folder.join(name));
        let source = system_library().with_file_name("libm.so.6");
        fs::copy(&source, &library).unwrap();
        fs::copy(&source, &outside).unwrap();
        let report = confine(&plan(FILES, folder)).unwrap();
        let kept = holds(&report, Measure::Files);

        // SAFETY: libraries of mathematics, which do nothing when they are loaded.
        let load = |path: &Path| unsafe { Library::new(path) };
        for path in [Path::new("libresolv.so.2"), Path::new("libm.so.6"), &library] {
            std::mem::forget(load(path).unwrap());
        }
        assert_eq!(load(&outside).is_err(), kept);
        assert!(Command::new("/bin/true").status().unwrap().success());
        assert!(Command::new("sh").args(["-c", "true | cat"]).status().unwrap().success());
        assert!(Command::new(beside).status().unwrap().success());
        assert_eq!(refused(Command::new(written).status()), kept);
    });
}

#[test]
fn no_config_paths_no_files() {
    alone("no_config_paths_no_files", |folder| {
        furnish(folder);
        fs::create_dir(folder.join("temp")).unwrap();
        let plan = Plan { temp: Some(folder.join("temp")), ..plan(NOTHING, folder) };
        let report = confine(&plan).unwrap();
        let kept = holds(&report, Measure::Files);
        assert_eq!(refused(File::open(folder.join("in/x.csv"))), kept);
        assert_eq!(refused(fs::write(folder.join("out/y.csv"), "")), kept);
        // The folder for temporary files is.
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(folder.join("temp/t")).unwrap();
        file.write_all(b"sorted").unwrap();
        fs::remove_file(folder.join("temp/t")).unwrap();
    });
}

#[test]
fn a_missing_folder_in_the_state_is_made_and_given_alone() {
    alone("a_missing_folder_in_the_state_is_made_and_given_alone", |folder| {
        furnish(folder);
        let state = folder.join("state");
        let plan = Plan { write: vec![state.join("lists/{store}/{date}.csv")], private: vec![state.clone()], ..plan(FILES, folder) };
        let report = confine(&plan).unwrap();
        assert!(report.notes.is_empty(), "{report}");
        fs::create_dir(state.join("lists/s1")).unwrap();
        fs::write(state.join("lists/s1/a.csv"), "list").unwrap();
        assert_eq!(refused(fs::write(state.join("other"), "")), holds(&report, Measure::Files));
        assert_eq!(refused(File::open(state.join("x.csv"))), holds(&report, Measure::Files));
    });
}

#[test]
fn a_plugin_without_network_has_none() {
    alone("a_plugin_without_network_has_none", |folder| {
        furnish(folder);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        drop(TcpStream::connect(address).unwrap());
        let report = confine(&plan(FILES, folder)).unwrap();
        assert_eq!(holds(&report, Measure::Network), Kernel::detect().seccomp.is_ok(), "{report}");
        if holds(&report, Measure::Network) {
            assert!(refused(TcpStream::connect(address)));
            assert!(refused(TcpListener::bind("127.0.0.1:0")));
            assert!(refused(UdpSocket::bind("[::1]:0")));
            for family in [libc::AF_INET, libc::AF_PACKET, libc::AF_NETLINK, libc::AF_VSOCK, libc::AF_ALG] {
                assert_eq!(errno(libc::SYS_socket, [family.cast_unsigned().into(), 3, 0, 0]), EACCES, "{family}");
            }
        }
        // Sockets of this machine's programs, and one that is open already: the worker's own.
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
        assert_eq!(errno(libc::SYS_socket, [libc::AF_UNIX.cast_unsigned().into(), 1, 0, 0]), 0);
        assert_eq!(server.local_addr().unwrap(), address);
    });
}

#[test]
fn without_filters_landlock_refuses_tcp() {
    alone("without_filters_landlock_refuses_tcp", |folder| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let kernel = Kernel { seccomp: Err("none".into()), ..Kernel::detect() };
        let report = confine_on(&plan(NOTHING, folder), &kernel).unwrap();
        let partly = matches!(report.state(Measure::Network), Some(State::InPart { .. }));
        assert_eq!(partly, kernel.landlock.is_ok_and(|abi| abi >= 4), "{report}");
        assert_eq!(refused(TcpStream::connect(server.local_addr().unwrap())), partly);
        assert_eq!(refused(TcpListener::bind("127.0.0.1:0")), partly);
    });
}

#[test]
fn a_plugin_with_network_has_one() {
    alone("a_plugin_with_network_has_one", |folder| {
        // A service manager may have refused it already.
        let addresses = || errno(libc::SYS_socket, [libc::AF_NETLINK.cast_unsigned().into(), 3, 0, 0]);
        let addresses_before = addresses();
        let report = confine(&plan(NETWORK, folder)).unwrap();
        assert!(matches!(report.state(Measure::Network), Some(State::NotAsked { .. })), "{report}");
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        server.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap();
        // The name of this machine, as every client asks: files, and for addresses a socket of the kernel's.
        use std::net::ToSocketAddrs;
        assert!(("localhost", 80).to_socket_addrs().unwrap().count() > 0);
        assert_eq!(addresses(), addresses_before);
        if holds(&report, Measure::SystemCalls) {
            assert_eq!(errno(libc::SYS_socket, [libc::AF_PACKET.cast_unsigned().into(), 3, 0, 0]), EACCES);
        }
    });
}

/// Signals, with what the kernel offers: to another process, to this one, and to a program that this one started.
fn signals(kernel: &Kernel, folder: &Path) {
    rustix::process::setpgid(None, None).unwrap();
    let (other, daemon, own) = (bystander(), parent(), std::process::id());
    assert_eq!([other, daemon, own].map(signal), [0, 0, 0]);
    let report = confine_on(&plan(FILES, folder), kernel).unwrap();
    let (landlock, seccomp) = (kernel.landlock.as_ref().is_ok_and(|abi| *abi >= 6), kernel.seccomp.is_ok());
    assert_eq!(holds(&report, Measure::Signals), landlock, "{report}");
    assert_eq!(matches!(report.state(Measure::Signals), Some(State::NotOffered { .. })), !landlock && !seccomp, "{report}");

    let refused = if landlock || seccomp { EPERM } else { 0 };
    assert_eq!([other, daemon].map(signal), [refused; 2]);
    for pid in [other, daemon].map(u64::from) {
        assert_eq!(errno(libc::SYS_tgkill, [pid, pid, 0, 0]), refused);
        assert_eq!(errno(libc::SYS_tkill, [pid, 0, 0, 0]), refused);
    }
    // Its own, and its group's.
    assert_eq!([own, 0, own.cast_signed().wrapping_neg().cast_unsigned()].map(signal), [0, 0, 0]);
    // SAFETY: a signal that is ignored.
    assert_eq!(unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) }, libc::SIG_DFL);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    thread::spawn(move || assert_eq!(errno(libc::SYS_tgkill, [own.into(), own.into(), 0, 0]), 0)).join().unwrap();

    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    if landlock || !seccomp {
        child.kill().unwrap();
    } else {
        // The filter cannot tell it from others; the end of the worker takes it along.
        assert_eq!(child.kill().unwrap_err().kind(), ErrorKind::PermissionDenied);
        // SAFETY: as above, for the group.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        assert_eq!(errno(libc::SYS_kill, [0, libc::SIGTERM.cast_unsigned().into(), 0, 0]), 0);
    }
    child.wait().unwrap();
}

#[test]
fn signals_reach_nobody_else() {
    alone("signals_reach_nobody_else", |folder| signals(&Kernel::detect(), folder));
}

#[test]
fn signals_reach_nobody_else_on_an_older_kernel() {
    alone("signals_reach_nobody_else_on_an_older_kernel", |folder| {
        let kernel = Kernel::detect();
        signals(&Kernel { landlock: kernel.landlock.map(|abi| abi.min(5)), ..kernel }, folder);
    });
}

#[test]
fn signals_are_free_where_the_kernel_offers_nothing() {
    alone("signals_are_free_where_the_kernel_offers_nothing", |folder| {
        signals(&Kernel { landlock: Err("none".into()), seccomp: Err("none".into()) }, folder);
    });
}

/// Whether processes of one user may look into one another at all, descendants apart (Yama).
fn may_look() -> bool {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_else(|_| "0".into());
    scope.trim() == "0" || rustix::process::geteuid().is_root()
}

fn look(pid: u32) -> [bool; 2] {
    ["environ", "mem"].map(|file| File::open(format!("/proc/{pid}/{file}")).is_ok())
}

fn memory_of_others(needs: Option<Needs>, kernel: &Kernel, folder: &Path) {
    let (other, daemon) = (bystander(), parent());
    if may_look() {
        assert_eq!([other, daemon].map(peek), [0, 0]);
        assert_eq!([other, daemon].map(look), [[true; 2]; 2]);
    }
    let report = confine_on(&plan(needs, folder), kernel).unwrap();
    let (landlock, seccomp) = (kernel.landlock.is_ok(), kernel.seccomp.is_ok());
    assert_eq!(holds(&report, Measure::MemoryOfOthers), landlock, "{report}");
    if landlock || seccomp {
        assert_eq!([other, daemon].map(peek), [EPERM, EPERM]);
        assert_eq!(errno(libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), other.into(), 0, 0]), EPERM);
    }
    if landlock {
        assert_eq!([other, daemon].map(look), [[false; 2]; 2]);
    } else if may_look() {
        // A process that has root's powers is not looked into by one that has given them up.
        assert_eq!([other, daemon].map(look), [[!rustix::process::geteuid().is_root(); 2]; 2]);
    }
}

#[test]
fn the_memory_of_others_is_out_of_reach() {
    alone("the_memory_of_others_is_out_of_reach", |folder| memory_of_others(FILES, &Kernel::detect(), folder));
}

#[test]
fn the_memory_of_others_is_out_of_reach_without_needs() {
    alone("the_memory_of_others_is_out_of_reach_without_needs", |folder| memory_of_others(None, &Kernel::detect(), folder));
}

#[test]
fn the_memory_of_others_is_out_of_reach_without_needs_on_an_older_kernel() {
    alone("the_memory_of_others_is_out_of_reach_without_needs_on_an_older_kernel", |folder| {
        let kernel = Kernel::detect();
        memory_of_others(None, &Kernel { landlock: kernel.landlock.map(|abi| abi.min(2)), ..kernel }, folder);
    });
}

#[test]
fn without_landlock_the_report_says_what_is_open() {
    alone("without_landlock_the_report_says_what_is_open", |folder| {
        furnish(folder);
        let kernel = Kernel { landlock: Err("none here".into()), ..Kernel::detect() };
        memory_of_others(FILES, &kernel, folder);
        // Confining twice is more of the same.
        let report = confine_on(&plan(FILES, folder), &kernel).unwrap();
        assert_eq!(report.state(Measure::Files), Some(&State::NotOffered { why: "none here".into() }));
        assert_eq!(fs::read_to_string(folder.join("state/x.csv")).unwrap(), "text");
    });
}

#[test]
fn a_plugin_that_does_not_say_keeps_files_and_network() {
    alone("a_plugin_that_does_not_say_keeps_files_and_network", |folder| {
        furnish(folder);
        let other = bystander();
        let report = confine(&plan(None, folder)).unwrap();
        for measure in [Measure::Files, Measure::Network, Measure::AbstractSockets] {
            assert!(matches!(report.state(measure), Some(State::NotAsked { .. })), "{report}");
        }
        fs::rename(folder.join("state/x.csv"), folder.join("out/moved.csv")).unwrap();
        fs::hard_link(folder.join("out/moved.csv"), folder.join("in/linked.csv")).unwrap();
        fs::write(folder.join("state/new"), "text").unwrap();
        truncate(&folder.join("state/new")).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let kernel = Kernel::detect();
        let apart = kernel.landlock.is_ok_and(|abi| abi >= 6) || kernel.seccomp.is_ok();
        assert_eq!(signal(other), if apart { EPERM } else { 0 });
    });
}

#[test]
fn on_an_older_kernel_files_are_kept_as_well_as_it_can() {
    for abi in 1..=5 {
        alone("on_an_older_kernel_files_are_kept_as_well_as_it_can", |folder| {
            let kernel = Kernel::detect();
            let kernel = Kernel { landlock: kernel.landlock.map(|there| there.min(abi)), ..kernel };
            let folder = folder.join(abi.to_string());
            fs::create_dir(&folder).unwrap();
            furnish(&folder);
            let (read, secret) = (folder.join("in/x.csv"), folder.join("state/x.csv"));
            let report = confine_on(&plan(FILES, &folder), &kernel).unwrap();
            assert_eq!(holds(&report, Measure::Files), kernel.landlock.is_ok() && (abi >= 3 || kernel.seccomp.is_ok()), "{report}");
            if kernel.landlock.is_err() {
                return assert!(File::open(&secret).is_ok());
            }
            assert_eq!(fs::read_to_string(&read).unwrap(), "text");
            fs::write(folder.join("out/y.csv"), "text").unwrap();
            fs::write(folder.join("out/y.csv"), "again").unwrap();
            fs::rename(folder.join("out/y.csv"), folder.join("out/z.csv")).unwrap();
            fs::create_dir(folder.join("out/deep")).unwrap();
            assert_eq!(fs::rename(folder.join("out/z.csv"), folder.join("out/deep/z.csv")).is_ok(), abi >= 2);
            assert!(refused(File::open(&secret)) && refused(fs::write(&secret, "")));
            if holds(&report, Measure::Files) {
                assert!(refused(truncate(&secret)) && refused(truncate(&read)));
                let cut = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(path);
                assert!(refused(cut(&secret)) && refused(cut(&read)));
            }
            assert_eq!(fs::read_to_string(&read).unwrap(), "text");
            // What is written is cut short by its descriptor, as libraries do.
            File::options().write(true).open(folder.join("out/x.csv")).unwrap().set_len(1).unwrap();
        });
    }
}

#[test]
fn the_process_is_limited() {
    alone("the_process_is_limited", |folder| {
        let score = || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let before = score();
        let report = confine(&plan(None, folder)).unwrap();
        for measure in [Measure::NewPrivileges, Measure::Dumps, Measure::OpenFiles, Measure::OutOfMemory] {
            assert!(holds(&report, measure), "{report}");
        }
        assert_eq!(score(), (before + 500).min(1000));
        assert!(rustix::thread::no_new_privs().unwrap());
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
        let limit = |resource| rustix::process::getrlimit(resource);
        let core = limit(rustix::process::Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        let files = limit(rustix::process::Resource::Nofile);
        assert_eq!((files.current, files.maximum), (Some(64), Some(64)));
        let more = rustix::process::Rlimit { current: Some(65), maximum: Some(65) };
        assert!(rustix::process::setrlimit(rustix::process::Resource::Nofile, more).is_err());
        let opened: Vec<_> = (0..100).map_while(|_| File::open("/dev/null").ok()).collect();
        assert!((40..64).contains(&opened.len()), "{}", opened.len());
        drop(opened);
        let powers = || fs::read_to_string("/proc/self/status").unwrap();
        let admin = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap() & (1 << 19 | 1 << 21 | 1 << 24 | 1 << 38)
        };
        assert_eq!(admin(&powers()), 0);
        let of_program = Command::new("cat").arg("/proc/self/status").output().unwrap().stdout;
        assert_eq!(admin(&String::from_utf8(of_program).unwrap()), 0);
        if holds(&report, Measure::SystemCalls) {
            // Not to be undone.
            let option = |option: i32, value| errno(libc::SYS_prctl, [option.cast_unsigned().into(), value, 0, 0]);
            assert_eq!(option(libc::PR_SET_DUMPABLE, 1), EPERM);
            assert_eq!(option(libc::PR_SET_PDEATHSIG, 0), EPERM);
            assert_eq!(option(libc::PR_SET_PDEATHSIG, 9), 0);
            assert_eq!(option(libc::PR_SET_DUMPABLE, 0), 0);
        }
    });
}

/// Calls with arguments that let them fail, or do nothing, where they are not refused.
fn dangerous() -> Vec<(&'static str, c_long, [u64; 4])> {
    const BAD: u64 = u64::MAX;
    let block = u64::from(libc::S_IFBLK);
    let calls = vec![
        ("ptrace", libc::SYS_ptrace, [9999, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [0, 0, 0, 0]),
        ("kcmp", libc::SYS_kcmp, [0, 0, 99, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [BAD, 0, 0, 0]),
        ("mount", libc::SYS_mount, [1, 1, 1, 0]),
        ("umount2", libc::SYS_umount2, [1, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [BAD, 0, BAD, 0]),
        ("move_mount", libc::SYS_move_mount, [BAD, 1, BAD, 1]),
        ("fsopen", libc::SYS_fsopen, [1, 0, 0, 0]),
        ("fsmount", libc::SYS_fsmount, [BAD, 0, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [BAD, 1, BAD, 0]),
        ("pivot_root", libc::SYS_pivot_root, [1, 1, 0, 0]),
        ("chroot", libc::SYS_chroot, [1, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [BAD, 1, 0, 0]),
        ("setns", libc::SYS_setns, [BAD, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0, 0, 0, 0]),
        ("clone", libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::CLONE_FS).cast_unsigned().into(), 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 1, 0, 0]),
        ("setpgid", libc::SYS_setpgid, [0, BAD, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [BAD, 1, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [1, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0xffff]),
        ("bpf", libc::SYS_bpf, [BAD, 1, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [1, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [BAD, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [9999, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [1, 1, 1, 1]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [1, 0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [1, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [BAD, 1, 0, 0]),
        ("adjtimex", libc::SYS_adjtimex, [1, 0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [1, BAD, 0, 0]),
        ("acct", libc::SYS_acct, [1, 0, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [BAD, 1, 0, 0]),
        ("syslog", libc::SYS_syslog, [99, 0, 0, 0]),
        ("prlimit64", libc::SYS_prlimit64, [parent().into(), 7, 0, 0]),
        ("mknodat", libc::SYS_mknodat, [BAD, 1, block, 0]),
        ("ioctl", libc::SYS_ioctl, [0, libc::TIOCSTI, 1, 0]),
        // The upper half of a request is not looked at by the kernel.
        ("ioctl", libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 32, 1, 0]),
    ];
    #[cfg(target_arch = "x86_64")]
    let calls = [calls, vec![("iopl", libc::SYS_iopl, [9, 0, 0, 0]), ("mknod", libc::SYS_mknod, [1, block, 0, 0])]].concat();
    calls
}

#[test]
fn system_calls_that_no_plugin_needs_are_refused() {
    alone("system_calls_that_no_plugin_needs_are_refused", |folder| {
        let privileged = rustix::process::geteuid().is_root();
        for (name, call, arguments) in dangerous() {
            // The calls that need a privilege say so to others before they look at anything.
            assert!(!privileged || errno(call, arguments) != EPERM, "{name} is refused here without a filter");
        }
        let report = confine(&plan(None, folder)).unwrap();
        assert_eq!(holds(&report, Measure::SystemCalls), Kernel::detect().seccomp.is_ok(), "{report}");
        if !holds(&report, Measure::SystemCalls) {
            return;
        }
        for (name, call, arguments) in dangerous() {
            assert_eq!(errno(call, arguments), EPERM, "{name}");
        }
        assert_eq!(errno(libc::SYS_setsid, [0; 4]), EPERM);
        assert_eq!(errno(libc::SYS_clone3, [0; 4]), ENOSYS);
        #[cfg(target_arch = "x86_64")]
        {
            // A service manager may have such calls end the process.
            let ended = forked(|| assert_eq!(errno(0x4000_0000 + libc::SYS_getpid, [0; 4]), ENOSYS));
            assert!(ended == 0 || ended == -libc::SIGSYS, "{ended}");
        }
        // The limits of its own are its own.
        assert_eq!(errno(libc::SYS_prlimit64, [0, 7, 0, 0]), 0);
        assert_eq!(errno(libc::SYS_prlimit64, [std::process::id().into(), 7, 0, 0]), 0);
        // Threads, programs, pipes.
        let threads: Vec<_> = (0..4).map(|number| thread::spawn(move || number)).collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>(), 6);
        let output = Command::new("sh").args(["-c", "echo $((6 * 7)) | cat"]).output().unwrap();
        assert_eq!(output.stdout, b"42\n");
        assert_eq!(forked(|| ()), 0);
    });
}

#[test]
fn the_daemons_end_is_the_workers() {
    alone("the_daemons_end_is_the_workers", |_| {
        assert!(die_with_parent(std::process::id()).unwrap_err().to_string().contains("has ended"));
        for confined in [false, true] {
            let (mut reading, writing) = io::pipe().unwrap();
            let daemon = fork(|| {
                let daemon = std::process::id();
                let (mut ready, started) = io::pipe().unwrap();
                let mut writing = writing.try_clone().unwrap();
                let worker = fork(move || {
                    die_with_parent(daemon).unwrap();
                    if confined {
                        confine(&plan(NOTHING, Path::new("/nowhere"))).unwrap();
                    }
                    writing.write_all(b"alive").unwrap();
                    { started }.write_all(b"x").unwrap();
                    loop {
                        thread::park();
                    }
                });
                assert!(worker > 0);
                ready.read_exact(&mut [0]).unwrap();
            });
            drop(writing);
            // Until the last one that could write has ended.
            let mut text = String::new();
            reading.read_to_string(&mut text).unwrap();
            assert_eq!(text, "alive");
            let mut status = 0;
            // SAFETY: waits for the child, and the status outlives the call.
            assert_eq!((unsafe { libc::waitpid(daemon, &raw mut status, 0) }, status), (daemon, 0));
        }
    });
}

#[test]
fn a_worker_cannot_be_looked_into_by_its_like() {
    alone("a_worker_cannot_be_looked_into_by_its_like", |_| {
        let own = std::process::id();
        let (mut ready, mut started) = io::pipe().unwrap();
        let worker = fork(move || {
            die_with_parent(own).unwrap();
            confine(&plan(NETWORK, Path::new("/nowhere"))).unwrap();
            started.write_all(b"x").unwrap();
            loop {
                thread::park();
            }
        });
        ready.read_exact(&mut [0]).unwrap();
        let usage = reunion_host::usage::of(worker.cast_unsigned()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.threads == 1, "{usage:?}");
        // Root may look into everybody.
        let root = rustix::process::geteuid().is_root();
        assert_eq!(usage.open_files.is_some(), root);
        assert_eq!(look(worker.cast_unsigned()), [root; 2]);
    });
}

#[test]
fn what_is_offered_is_what_the_kernel_has() {
    let (report, kernel) = (offered(), Kernel::detect());
    assert!(!report.applied && report.to_string().starts_with("can be confined: "), "{report}");
    assert_eq!(holds(&report, Measure::Files), kernel.landlock.as_ref().is_ok_and(|abi| *abi >= 3 || kernel.seccomp.is_ok()));
    assert_eq!(holds(&report, Measure::SystemCalls), kernel.seccomp.is_ok());
    for needs in [None, Some(Needs { network: true, config_paths: true })] {
        assert!(offered_to(needs.as_ref()).to_string().contains("not asked for: "));
    }
}

/// A shell that waits for a line, so that it can be moved to its group before it does what it is for.
fn waiting_shell(script: &str) -> Child {
    Command::new("sh").args(["-c", &format!("read line; {script}")]).stdin(Stdio::piped()).process_group(0).spawn().unwrap()
}

#[test]
fn control_groups_limit_where_they_are_handed_over() {
    let groups = match Cgroups::find() {
        Ok(groups) => groups,
        // The usual case: a test is no service. What is said then is for people.
        Err(why) => return assert!(why.len() > 20 && why.contains("control"), "{why}"),
    };
    let begin = |group: &Group, script: &str| {
        let mut shell = waiting_shell(script);
        group.add(shell.id()).unwrap();
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell
    };
    let seen = |what: &dyn Fn() -> bool| {
        (0..2000).any(|_| {
            thread::sleep(Duration::from_millis(5));
            what()
        })
    };

    // More memory than it may: all of the group ends, and is counted.
    let group = groups.create("worker-source-greedy", 32 << 20, 16).unwrap();
    let mut shell = begin(&group, "sleep 100 & tail /dev/zero & wait; sleep 100");
    assert_eq!(shell.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(seen(&|| group.events().unwrap().oom_kills >= 3), "{:?}", group.events());
    assert!(group.memory_bytes().unwrap() <= 32 << 20);
    group.remove().unwrap();

    // More processes than it may.
    let group = groups.create("worker-source-many", 64 << 20, 5).unwrap();
    let mut shell = begin(&group, "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait");
    let processes = || fs::read_to_string(group.path().join("cgroup.procs")).unwrap().lines().count();
    assert_eq!(groups.limits_pids(), seen(&|| fs::read_to_string(group.path().join("pids.events")).is_ok_and(|text| text != "max 0\n")));
    assert!(processes() <= 5 || !groups.limits_pids());
    // What is left of it goes with the group, and with a daemon that finds it there.
    let path = group.path().to_owned();
    drop(group);
    assert!(!path.exists() && !shell.wait().unwrap().success());
    let mut shell = begin(&groups.create("worker-source-left", 64 << 20, 5).map(ManuallyDrop::new).unwrap(), "sleep 100");
    let again = Cgroups::find().unwrap();
    assert_eq!((again.path(), shell.wait().unwrap().signal()), (groups.path(), Some(libc::SIGKILL)));
    assert!(!groups.path().join("worker-source-left").exists());
}
