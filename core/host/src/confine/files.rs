//! Which files a worker may reach: the system's, and those that its config names.
//!
//! A path stands for a folder: that of a file, because of the files beside it (SQLite's journal) and because
//! files are replaced by new ones under their old name; the longest fixed beginning of a pattern or template;
//! the nearest folder that is there, where it has yet to be made.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use reunion_model::plugin::Needs;

use super::Place;
use super::plan::Plan;

/// As the file channel's.
const FOLDER_MODE: u32 = 0o750;

/// Programs, libraries, and what they read; of `/etc` because of names, certificates, time zones, which are
/// replaced there at any time.
const RUN: &[&str] = &["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store"];
const READ: &[&str] = &[
    "/etc",
    // What /etc/resolv.conf may point to, and who answers.
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/connman",
    "/run/nscd",
    "/var/lib/ca-certificates",
    // What runtimes look up to size themselves.
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Where the operator has set other places for libraries, certificates, time zones.
const RUN_VARIABLES: &[&str] = &["LD_LIBRARY_PATH"];
const READ_VARIABLES: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR", "TZDIR"];

/// How a path may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    Read,
    Run,
    Write,
    Device,
}

/// A file, or a folder with all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) path: PathBuf,
    pub(super) how: How,
}

/// What a worker may reach, and what became of paths that could not be opened as they should.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) given: Vec<Given>,
    pub(super) notes: Vec<String>,
}

pub(super) fn within_reach(plan: &Plan, needs: &Needs) -> Reach {
    let mut reach = system();
    let library = fs::canonicalize(&plan.library).unwrap_or_else(|_| plan.library.clone());
    for library in [&plan.library, &library] {
        reach.give(library.parent().unwrap_or(library), How::Run);
    }
    if let Some(temp) = &plan.temp {
        reach.give(temp, How::Write);
    }
    if needs.config_paths {
        let config = of_config(plan);
        reach.given.extend(config.given);
        reach.notes.extend(config.notes);
    }
    reach
}

/// What every program may need of the machine.
fn system() -> Reach {
    let mut reach = Reach::default();
    for (paths, how) in [(RUN, How::Run), (READ, How::Read), (DEVICES, How::Device)] {
        paths.iter().for_each(|path| reach.give(Path::new(path), how));
    }
    for (variables, how) in [(RUN_VARIABLES, How::Run), (READ_VARIABLES, How::Read)] {
        for list in variables.iter().filter_map(env::var_os) {
            env::split_paths(&list).filter(|path| path.is_absolute()).for_each(|path| reach.give(&path, how));
        }
    }
    // Its own program, which a backtrace reads.
    reach.give(Path::new("/proc/self/exe"), How::Run);
    reach
}

impl Reach {
    fn give(&mut self, path: &Path, how: How) {
        self.given.push(Given { path: path.to_owned(), how });
    }
}

fn of_config(plan: &Plan) -> Reach {
    let private = plan.private.iter().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())).collect();
    let mut folders = Folders { private, make: plan.make_folders, found: BTreeMap::new(), notes: Vec::new() };
    plan.read.iter().for_each(|path| folders.open(path, How::Read));
    plan.write.iter().for_each(|path| folders.open(path, How::Write));
    let given = folders.found.into_iter().map(|(path, how)| Given { path, how }).collect();
    Reach { given, notes: folders.notes }
}

/// Where the paths of the config lead now. Makes nothing.
pub(super) fn places(plan: &Plan) -> Vec<Place> {
    plan.read.iter().chain(&plan.write).map(|path| place(path)).collect()
}

fn place(path: &Path) -> Place {
    let (fixed, whole) = fixed_part(path);
    // A file that is replaced under its name stays within reach: its folder is.
    let folder = if whole && !fixed.is_dir() { fixed.parent().map_or_else(|| fixed.clone(), Path::to_owned) } else { fixed.clone() };
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let linked = fs::canonicalize(&fixed).ok().and_then(|real| real.parent().map(Path::to_owned));
    Place { there: (there.to_owned(), identity(there)), folder: identity(&folder), linked }
}

struct Folders {
    private: Vec<PathBuf>,
    make: bool,
    found: BTreeMap<PathBuf, How>,
    notes: Vec<String>,
}

impl Folders {
    /// Opens what a path of the config stands for.
    fn open(&mut self, path: &Path, how: How) {
        // Relative to the daemon's own folder, which the worker shares; a config's are absolute already.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (fixed, whole) = fixed_part(&path);
        if !whole || fixed.is_dir() {
            return self.open_folder(&fixed, how);
        }
        let special = fs::metadata(&fixed).is_ok_and(|file| !file.is_file());
        if special {
            // A pipe or a device: what is beside it is none of its business.
            return self.give(fixed, how);
        }
        if let Some(folder) = fixed.parent() {
            self.open_folder(folder, how);
        }
        // A link leads to a file in another folder.
        if let Some(folder) = fs::canonicalize(&fixed).ok().as_deref().and_then(Path::parent) {
            self.open_folder(folder, how);
        }
    }

    /// Opens a folder, or what is to be opened for one that is not there.
    fn open_folder(&mut self, folder: &Path, how: How) {
        let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let real = fs::canonicalize(there).unwrap_or_else(|_| there.to_owned());
        if there == folder {
            return self.open_existing(folder, &real, how);
        }
        let (root, own) = (real.parent().is_none(), self.private.contains(&real));
        match how {
            How::Write if root || self.has_private(&real) => self.make_and_open(folder, there),
            _ if root || own => self.notes.push(format!("{} is not there: make it, and start again", folder.display())),
            _ => self.open_existing(there, &real, how),
        }
    }

    /// Whether something private is in the folder, or is the folder. A folder in a private one is a place that
    /// the operator has chosen: the state has room for lists.
    fn has_private(&self, real: &Path) -> bool {
        self.private.iter().any(|own| own.starts_with(real))
    }

    fn open_existing(&mut self, folder: &Path, real: &Path, how: How) {
        if real.parent().is_none() {
            let what = if how == How::Write { "written to" } else { "read" };
            return self.notes.push(format!("/ as a whole is not {what}: name a folder in it"));
        }
        if self.has_private(real) {
            self.notes.push(format!("{} has files of Reunion's own in it: a folder apart would be safer", folder.display()));
        }
        self.give(folder.to_owned(), how);
    }

    /// Makes the first folder that is missing on the way, and opens it alone.
    fn make_and_open(&mut self, folder: &Path, there: &Path) {
        let Some(missing) = folder.ancestors().take_while(|path| *path != there).last() else { return };
        if !self.make {
            return self.notes.push(format!("{} is not there yet", missing.display()));
        }
        match make_durable(missing, there) {
            Ok(()) => self.give(missing.to_owned(), How::Write),
            Err(error) => {
                self.notes.push(format!("{} is not there and cannot be made ({error}): make it, and start again", missing.display()))
            }
        }
    }

    /// The wider use counts, as `How` orders them.
    fn give(&mut self, path: PathBuf, how: How) {
        self.found.entry(path).and_modify(|there| *there = (*there).max(how)).or_insert(how);
    }
}

/// The longest beginning of a path that has no wildcard and no variable, and whether that is all of it.
fn fixed_part(path: &Path) -> (PathBuf, bool) {
    let is_fixed = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    let fixed: PathBuf = path.components().take_while(is_fixed).collect();
    let whole = fixed == path;
    (fixed, whole)
}

/// So that it is there after a power cut too: the plugin cannot open the folder above, to sync it.
fn make_durable(folder: &Path, above: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(above)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// Folders end with a slash.
        fn new(paths: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for path in paths {
                let place = tree.at(path);
                if path.ends_with('/') {
                    fs::create_dir_all(place).unwrap();
                } else {
                    fs::create_dir_all(place.parent().unwrap()).unwrap();
                    fs::write(place, "x").unwrap();
                }
            }
            tree
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// What is given and noted for these paths, without the folder's own name.
        fn opened(&self, read: &[&str], write: &[&str], change: impl FnOnce(&mut Plan)) -> String {
            let at = |paths: &[&str]| paths.iter().map(|path| self.at(path)).collect();
            let mut plan = Plan {
                needs: None,
                library: "/lib/x.so".into(),
                read: at(read),
                write: at(write),
                temp: None,
                private: Vec::new(),
                make_folders: true,
                open_files_max: 64,
            };
            change(&mut plan);
            let reach = of_config(&plan);
            let given = reach.given.iter().map(|Given { path, how }| format!("{how:?} {}", path.display()));
            let lines: Vec<_> = given.chain(reach.notes).collect();
            lines.join("\n").replace(self.0.path().to_str().unwrap(), "T")
        }
    }

    #[test]
    fn a_path_stands_for_a_folder() {
        let tree = Tree::new(&["in/pos.csv", "in/deep/x.csv", "db/pos.db", "back/", "ca.pem"]);
        let opened = |read: &[&str], write: &[&str]| tree.opened(read, write, |_| {});
        assert_eq!(opened(&["in/pos.csv"], &[]), "Read T/in");
        assert_eq!(opened(&["in/*.csv", "back"], &[]), "Read T/back\nRead T/in");
        assert_eq!(opened(&["in/**/x.csv"], &["in/deep/{store}/{date}.csv"]), "Read T/in\nWrite T/in/deep");
        assert_eq!(opened(&["in/20[0-9]?-*/a?.csv"], &["db/pos.db"]), "Write T/db\nRead T/in");
        // The wider use counts.
        assert_eq!(opened(&["in/pos.csv"], &["in/pos.csv"]), "Write T/in");
        assert_eq!(opened(&["in/list-{date}.csv"], &[]), "Read T/in");
        assert_eq!(opened(&["/dev/null"], &[]), "Read /dev/null");
    }

    #[test]
    fn what_is_not_there_stands_for_the_nearest_folder_that_is() {
        let tree = Tree::new(&["out/", "file"]);
        let opened = |read: &[&str], write: &[&str]| tree.opened(read, write, |_| {});
        assert_eq!(opened(&[], &["out/2026/{store}/x.csv"]), "Write T/out");
        assert_eq!(opened(&["in/pos.csv"], &[]), "Read T");
        // A file in the place of a folder: the plugin says so.
        assert_eq!(opened(&[], &["file/x/{store}.csv"]), "Write T");
        assert!(!tree.at("out/2026").exists());
    }

    #[test]
    fn a_link_opens_what_it_leads_to() {
        let tree = Tree::new(&["in/", "far/2026.csv"]);
        symlink(tree.at("far/2026.csv"), tree.at("in/pos.csv")).unwrap();
        symlink(tree.at("far"), tree.at("near")).unwrap();
        assert_eq!(tree.opened(&["in/pos.csv"], &[], |_| {}), "Read T/far\nRead T/in");
        assert_eq!(tree.opened(&[], &["near/{store}.csv"], |_| {}), "Write T/near");
    }

    #[test]
    fn the_root_is_never_given() {
        let tree = Tree::new(&[]);
        let root = |read: &str, write: &str| {
            tree.opened(&[], &[], |plan| {
                plan.read.push(read.into());
                plan.write.push(write.into());
                plan.make_folders = false;
            })
        };
        insta::assert_snapshot!(root("/*.csv", "/{store}.csv"), @r"
        / as a whole is not read: name a folder in it
        / as a whole is not written to: name a folder in it
        ");
        insta::assert_snapshot!(root("/no-such-folder-1/x.csv", "/no-such-folder-2/a/{store}.csv"), @r"
        /no-such-folder-1 is not there: make it, and start again
        /no-such-folder-2 is not there yet
        ");
        let links = Tree::new(&[]);
        symlink("/", links.at("all")).unwrap();
        assert_eq!(links.opened(&["all/x*"], &[], |_| {}), "/ as a whole is not read: name a folder in it");
    }

    #[test]
    fn a_folder_to_be_made_among_reunions_own_is_made_first() {
        let tree = Tree::new(&["state/people/", "state/in/"]);
        let opened = |read: &[&str], write: &[&str], make: bool| {
            tree.opened(read, write, |plan| {
                plan.private.push(tree.at("state"));
                plan.make_folders = make;
            })
        };
        assert_eq!(
            opened(&["state/back/x.csv"], &["state/out/{store}.csv"], false),
            "T/state/back is not there: make it, and start again\nT/state/out is not there yet"
        );
        assert!(!tree.at("state/out").exists());
        assert_eq!(opened(&[], &["state/out/lists/{store}.csv"], true), "Write T/state/out");
        assert!(!tree.at("state/out/lists").exists(), "the plugin makes the others");
        // Beside the state, where the nearest folder has the state in it.
        assert_eq!(opened(&[], &["lists/{store}.csv"], true), "Write T/lists");
        assert_eq!(opened(&["state/in/x.csv"], &["state/in/new/{store}.csv"], true), "Write T/state/in");
        // A folder that is there was meant, and the worker does not do without it.
        let note = |place: &str| format!("{place} has files of Reunion's own in it: a folder apart would be safer");
        assert_eq!(opened(&["pos.csv"], &[], true), format!("Read T\n{}", note("T")));
        assert_eq!(opened(&[], &["state/{store}.csv"], true), format!("Write T/state\n{}", note("T/state")));
    }
}
