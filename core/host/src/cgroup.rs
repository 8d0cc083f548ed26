//! Limits of worker processes by control groups, version 2: memory and the number of processes and threads.
//!
//! Groups can be made where somebody has handed a part of the tree over to this process, as systemd does for a
//! unit with `Delegate=memory pids`. The kernel wants a group with limits for its children to have no processes
//! of its own, so that the daemon is in one child and each worker in another:
//!
//! ```text
//! …/reunion.service            handed over; gives memory and pids to its children
//! …/reunion.service/daemon     this process: put there by DelegateSubgroup=daemon, or else by `find`
//! …/reunion.service/worker-…   one for each worker
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The daemon's own group, as `DelegateSubgroup=` of its unit names it.
const DAEMON: &str = "daemon";
/// The names of workers' groups begin so; others are left alone.
const WORKER: &str = "worker-";
const NAME_BYTES_MAX: usize = 200;
/// How long the processes of a group may take to end once they are killed.
const END_WAIT: Duration = Duration::from_secs(2);

/// Where groups for workers can be made.
#[derive(Debug, Clone)]
pub struct Cgroups {
    parent: PathBuf,
    /// Also the number of processes and threads can be limited.
    pids: bool,
    tree: Tree,
}

/// The group of one worker. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    tree: Tree,
    removed: bool,
}

/// What a group has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// Processes that were killed because the group was at its limit of memory.
    pub oom_kills: u64,
}

/// How folders of groups come and go; a test has other files in them than the kernel.
#[derive(Debug, Clone, Copy)]
struct Tree {
    make: fn(&Path) -> io::Result<()>,
    remove: fn(&Path) -> io::Result<()>,
    /// Whether somebody has handed the group over to this process.
    is_handed_over: fn(&Path) -> bool,
}

const KERNEL: Tree = Tree { make: |path| fs::create_dir(path), remove: |path| fs::remove_dir(path), is_handed_over };

impl Cgroups {
    /// Finds the place for groups of workers, makes it ready, and removes the groups that a daemon has left that
    /// died. Where this process sits in the group itself that was handed over to it, alone, it moves to the child
    /// `daemon`. For the daemon, once, before it starts a worker.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"));
        Self::find_in(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?, Path::new("/"), KERNEL)
    }

    /// `root` stands before the mount points of `mounts`.
    fn find_in(own: &str, mounts: &str, root: &Path, tree: Tree) -> Result<Self, String> {
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this machine has no control groups of version 2")?;
        let own = own_folder(own, mounts, root)?;
        let parent = place(&own, tree)?;
        let offered = words(&parent, "cgroup.controllers")?;
        if !offered.iter().any(|controller| controller == "memory") {
            let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            return Err(format!(
                "{} has no control over memory (it has {offered}): set Delegate=memory pids in the unit",
                parent.display()
            ));
        }
        let pids = offered.iter().any(|controller| controller == "pids");
        if parent == own {
            move_down(&own, tree)?;
        }
        let enabled = if pids { "+memory +pids" } else { "+memory" };
        write(&parent, "cgroup.subtree_control", enabled)
            .map_err(|error| format!("{} cannot limit its children: {error}", parent.display()))?;
        let found = Self { parent, pids, tree };
        found.remove_left_over();
        Ok(found)
    }

    /// Makes the group of a worker. `name` begins with `worker-` and has letters, digits, dashes, dots and
    /// underscores. No more memory than `memory_bytes_max` counts for all of its processes together, what they
    /// read of files included as far as it cannot be given back, and nothing is swapped out. At the limit all of
    /// them are killed. `pids_max` counts processes and threads.
    ///
    /// # Errors
    /// Of the system; `InvalidInput` for a name of another form. A group of this name that is still there is
    /// emptied and made anew.
    pub fn create(&self, name: &str, memory_bytes_max: u64, pids_max: u64) -> io::Result<Group> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !name.starts_with(WORKER) || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{name:?} is no name for the group of a worker")));
        }
        let path = self.parent.join(name);
        if path.exists() {
            empty_and_remove(&path, self.tree)?;
        }
        (self.tree.make)(&path)?;
        let group = Group { path, tree: self.tree, removed: false };
        group.write("memory.max", &memory_bytes_max.to_string())?;
        // Not there where the kernel does not count what is swapped out.
        group.write_if_there("memory.swap.max", "0")?;
        group.write_if_there("memory.oom.group", "1")?;
        if self.pids {
            group.write("pids.max", &pids_max.to_string())?;
        }
        Ok(group)
    }

    /// Whether [`Cgroups::create`] can limit processes and threads.
    pub fn limits_pids(&self) -> bool {
        self.pids
    }

    /// The group that the workers' groups are made in.
    pub fn path(&self) -> &Path {
        &self.parent
    }

    fn remove_left_over(&self) {
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(WORKER)) {
            if let Err(error) = empty_and_remove(&entry.path(), self.tree) {
                tracing::warn!(group = %entry.path().display(), %error, "a control group of an earlier worker could not be removed");
            }
        }
    }
}

impl Group {
    /// Puts a process into the group, with what it starts from then on. Memory that it has already counts where it
    /// was: so this comes right after the process was started.
    ///
    /// # Errors
    /// Of the system: the process has ended, say.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// What the group has counted.
    ///
    /// # Errors
    /// Of the system.
    pub fn events(&self) -> io::Result<Events> {
        let oom_kills = value_of(&fs::read_to_string(self.path.join("memory.events"))?, "oom_kill").unwrap_or(0);
        Ok(Events { oom_kills })
    }

    /// The memory that its processes use now, files that they read included.
    ///
    /// # Errors
    /// Of the system.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        fs::read_to_string(self.path.join("memory.current"))?.trim().parse().map_err(io::Error::other)
    }

    /// The group's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kills what is in the group, and removes it. Whoever started the processes still has to wait for them.
    ///
    /// # Errors
    /// Of the system; `TimedOut` where a process does not end. Then [`Cgroups::find`] removes it another time.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        empty_and_remove(&self.path, self.tree)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.path, file, text)
    }

    fn write_if_there(&self, file: &str, text: &str) -> io::Result<()> {
        if self.path.join(file).exists() { self.write(file, text) } else { Ok(()) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = empty_and_remove(&self.path, self.tree) {
            tracing::warn!(group = %self.path.display(), %error, "the control group of a worker could not be removed");
        }
    }
}

/// The folder of the group that this process is in. A line of mountinfo: `… root mount-point … - type …`.
fn own_folder(own: &str, mounts: &str, root: &Path) -> Result<PathBuf, String> {
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (subtree, point) = (fields.next()?, fields.next()?);
        let inside = Path::new(own).strip_prefix(subtree).ok()?;
        after.starts_with("cgroup2 ").then(|| (unescaped(point), inside))
    });
    let (point, inside) = mount.ok_or("no file system of control groups, version 2, is mounted that has this process in it")?;
    let folder = root.join(point.strip_prefix('/').unwrap_or(&point)).join(inside);
    if folder.components().any(|part| part == std::path::Component::ParentDir) || !folder.is_dir() {
        return Err(format!("the control group {own} of this process is out of sight"));
    }
    Ok(folder)
}

/// mountinfo writes spaces and the like as `\040`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => plain.extend([char::from(byte).to_string().as_str(), &part[3..]]),
            None => plain.extend(["\\", part]),
        }
    }
    plain
}

/// The group in which groups can be made: the parent, where this process is in its child `daemon`, or else the
/// own one.
fn place(own: &Path, tree: Tree) -> Result<PathBuf, String> {
    let parent = own.parent().filter(|parent| own.ends_with(DAEMON) && (tree.is_handed_over)(parent));
    if let Some(parent) = parent {
        return Ok(parent.to_owned());
    }
    if (tree.is_handed_over)(own) {
        return Ok(own.to_owned());
    }
    Err(format!("the control group {} was not handed over to Reunion: set Delegate=memory pids in the unit", own.display()))
}

/// By the mark that systemd leaves. Before version 251 it is seen by root alone; then a group of a service that
/// belongs to the user whom the service runs as says the same.
fn is_handed_over(group: &Path) -> bool {
    let marked = |name: &str| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(group, name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    let belongs = || {
        use std::os::unix::fs::MetadataExt;
        let user = rustix::process::geteuid();
        let of_session = group.components().any(|part| part.as_os_str() == "user.slice");
        !user.is_root() && !of_session && fs::metadata(group).is_ok_and(|folder| folder.uid() == user.as_raw())
    };
    marked("user.delegate") || marked("trusted.delegate") || belongs()
}

/// Moves this process from the group that is to have children with limits to a child of it.
fn move_down(own: &Path, tree: Tree) -> Result<(), String> {
    let pid = std::process::id().to_string();
    let others = words(own, "cgroup.procs")?.into_iter().filter(|other| *other != pid).count();
    if others > 0 {
        return Err(format!("the control group {} has {others} other processes in it", own.display()));
    }
    let child = own.join(DAEMON);
    let moved = || {
        if !child.is_dir() {
            (tree.make)(&child)?;
        }
        write(&child, "cgroup.procs", &pid)
    };
    moved().map_err(|error| format!("this process cannot move to the control group {}: {error}", child.display()))
}

fn empty_and_remove(group: &Path, tree: Tree) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        kill(group)?;
        match (tree.remove)(group) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // It has processes still, which end soon.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && begin.elapsed() < END_WAIT => thread::sleep(Duration::from_millis(2)),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                return Err(io::Error::new(ErrorKind::TimedOut, "its processes do not end, though they were killed"));
            }
            other => return other,
        }
    }
}

/// At once where the kernel can (Linux 5.14), else one by one.
fn kill(group: &Path) -> io::Result<()> {
    let gone = |error: io::Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    if group.join("cgroup.kill").exists() {
        return write(group, "cgroup.kill", "1").or_else(gone);
    }
    let processes = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(processes) => processes,
        Err(error) => return gone(error),
    };
    for pid in processes.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn words(group: &Path, file: &str) -> Result<Vec<String>, String> {
    let path = group.join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn write(group: &Path, file: &str, text: &str) -> io::Result<()> {
    let said = |error: io::Error| io::Error::new(error.kind(), format!("{} cannot be written: {error}", group.join(file).display()));
    fs::write(group.join(file), text).map_err(said)
}

/// The number in the line `key number`.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like the file system of control groups, without a kernel that does what is written: for
    /// the real thing see `tests/confine.rs`, as a service.
    struct Fake(tempfile::TempDir);

    const MOUNTS: &str = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n\
        41 31 0:38 / /sys/fs/c\\040group rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const FILES: [&str; 9] = [
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.controllers",
        "cgroup.kill",
        "memory.max",
        "memory.swap.max",
        "memory.oom.group",
        "memory.events",
        "pids.max",
    ];
    const FAKE: Tree = Tree {
        make: |path| {
            fs::create_dir(path)?;
            FILES.iter().try_for_each(|file| fs::write(path.join(file), ""))
        },
        remove: |path| fs::remove_dir_all(path),
        is_handed_over: |path| path.join("handed-over").exists(),
    };

    impl Fake {
        fn new(groups: &[&str], handed_over: &str, controllers: &str) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(fake.at("")).unwrap();
            for group in groups {
                (FAKE.make)(&fake.at(group)).unwrap();
                fs::write(fake.at(group).join("cgroup.controllers"), controllers).unwrap();
            }
            if !handed_over.is_empty() {
                fs::write(fake.at(handed_over).join("handed-over"), "").unwrap();
            }
            fake
        }

        fn at(&self, group: &str) -> PathBuf {
            self.0.path().join("sys/fs/c group").join(group)
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.at(file)).unwrap()
        }

        fn find(&self, own: &str) -> Result<Cgroups, String> {
            let found = Cgroups::find_in(&format!("1:name=systemd:/x\n0::/{own}\n"), MOUNTS, self.0.path(), FAKE);
            found.map_err(|error| error.replace(self.0.path().to_str().unwrap(), ""))
        }
    }

    #[test]
    fn a_worker_gets_its_group_beside_the_daemons() {
        let fake = Fake::new(&["a", "a/daemon", "a/worker-source-old", "a/control"], "a", "cpu memory pids");
        let groups = fake.find("a/daemon").unwrap();
        assert_eq!((groups.path(), groups.limits_pids()), (fake.at("a").as_path(), true));
        assert_eq!(fake.text("a/cgroup.subtree_control"), "+memory +pids");
        assert_eq!(fake.text("a/daemon/cgroup.procs"), "", "it is there already");
        assert!(!fake.at("a/worker-source-old").exists() && fake.at("a/control").exists());

        let group = groups.create("worker-source-pos", 512 << 20, 64).unwrap();
        let written = |file: &str| fake.text(&format!("a/worker-source-pos/{file}"));
        assert_eq!([written("memory.max"), written("memory.swap.max")], ["536870912", "0"]);
        assert_eq!([written("memory.oom.group"), written("pids.max")], ["1", "64"]);
        group.add(4711).unwrap();
        assert_eq!(written("cgroup.procs"), "4711");
        assert_eq!(group.events().unwrap(), Events::default());
        fs::write(group.path().join("memory.events"), "low 0\noom 2\noom_kill 3\noom_group_kill 1\n").unwrap();
        assert_eq!(group.events().unwrap(), Events { oom_kills: 3 });

        // The worker's next process comes while the group is still there.
        let again = groups.create("worker-source-pos", 1, 1).unwrap();
        assert_eq!(written("cgroup.procs"), "");
        std::mem::forget(group);
        drop(again);
        assert!(!fake.at("a/worker-source-pos").exists());
        groups.create("worker-x", 1, 1).unwrap().remove().unwrap();
        assert!(!fake.at("a/worker-x").exists());
    }

    #[test]
    fn the_daemon_moves_out_of_the_way_where_it_is_alone() {
        let fake = Fake::new(&["a"], "a", "memory");
        fs::write(fake.at("a/cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let groups = fake.find("a").unwrap();
        assert_eq!(fake.text("a/daemon/cgroup.procs"), std::process::id().to_string());
        assert_eq!((fake.text("a/cgroup.subtree_control").as_str(), groups.limits_pids()), ("+memory", false));
        let group = groups.create("worker-a", 1, 1).unwrap();
        assert_eq!(fake.text("a/worker-a/pids.max"), "");
        drop(group);
        fs::write(fake.at("a/cgroup.procs"), format!("{}\n1\n2\n", std::process::id())).unwrap();
        assert_eq!(fake.find("a").unwrap_err(), "the control group /sys/fs/c group/a has 2 other processes in it");
    }

    #[test]
    fn where_there_is_no_place_it_is_said_why() {
        let fake = Fake::new(&["a", "a/daemon", "b"], "b", "cpu");
        let lines = [
            fake.find("a/daemon").unwrap_err(),
            fake.find("a").unwrap_err(),
            fake.find("b").unwrap_err(),
            fake.find("gone").unwrap_err(),
            fake.find("../x").unwrap_err(),
            Cgroups::find_in("4:memory:/x\n", MOUNTS, Path::new("/"), FAKE).unwrap_err(),
            Cgroups::find_in("0::/x\n", "1 2 0:3 / /sys rw - sysfs sysfs rw", Path::new("/"), FAKE).unwrap_err(),
            Cgroups::find_in("0::/x\n", "1 2 0:3 /y /sys rw - cgroup2 cgroup2 rw", Path::new("/"), FAKE).unwrap_err(),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn only_names_of_workers_are_taken() {
        let fake = Fake::new(&["a", "a/daemon"], "a", "memory");
        let groups = fake.find("a/daemon").unwrap();
        for name in ["daemon", "worker-../x", "worker-a/b", "worker-a b", &format!("worker-{}", "x".repeat(200))] {
            assert_eq!(groups.create(name, 1, 1).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn a_group_without_a_switch_is_emptied_one_by_one() {
        let fake = Fake::new(&["a"], "", "");
        fs::remove_file(fake.at("a/cgroup.kill")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        fs::write(fake.at("a/cgroup.procs"), format!("{}\n", child.id())).unwrap();
        empty_and_remove(&fake.at("a"), FAKE).unwrap();
        assert!(!child.wait().unwrap().success() && !fake.at("a").exists());
        empty_and_remove(&fake.at("a"), FAKE).unwrap();
    }

    #[test]
    fn mount_points_are_read_as_they_are_written() {
        assert_eq!(unescaped(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescaped(r"/a\9"), r"/a\9");
    }
}
