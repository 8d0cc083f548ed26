//! What can be seen of this process and its machine from outside of a plugin: threads, descriptors, memory, what is
//! global, and the files that a config names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use reunion_host::probe;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use serde_json::Value;

/// The threads and descriptors of this process, and the processes that it has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// The names of the threads by their ids. Empty where the process cannot look: it has no descriptor left for that.
    pub threads: BTreeMap<u32, String>,
    /// The ids of the processes that it has started and that have not ended.
    pub children: BTreeSet<u32>,
    /// What the descriptors lead to.
    pub descriptors: BTreeMap<u32, String>,
}

impl Census {
    /// As it is now.
    pub fn take() -> Self {
        let entries = |folder: &str| {
            let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            // Collected first: to look is to have a descriptor.
            paths.filter_map(|path| Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path))).collect::<Vec<_>>()
        };
        let name = |path: &Path| Some(fs::read_to_string(path.join("comm")).ok()?.trim().to_owned());
        let target = |path: &Path| Some(fs::read_link(path).ok()?.display().to_string());
        let threads = entries("/proc/self/task");
        let children = |path: &Path| fs::read_to_string(path.join("children")).unwrap_or_default();
        Self {
            children: threads.iter().flat_map(|(_, path)| numbers_in(&children(path))).collect(),
            threads: threads.into_iter().filter_map(|(id, path)| Some((id, name(&path)?))).collect(),
            descriptors: entries("/proc/self/fd").into_iter().filter_map(|(id, path)| Some((id, target(&path)?))).collect(),
        }
    }

    /// The names of the threads that were not there before.
    pub fn new_threads(&self, before: &Self) -> Vec<String> {
        self.threads.iter().filter(|(id, _)| !before.threads.contains_key(id)).map(|(_, name)| name.clone()).collect()
    }

    /// What the descriptors lead to that were not there before.
    pub fn new_descriptors(&self, before: &Self) -> Vec<String> {
        self.descriptors.iter().filter(|(id, _)| !before.descriptors.contains_key(id)).map(|(_, target)| target.clone()).collect()
    }
}

fn numbers_in(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Memory of this process that is in use, in KiB; 0 where the system does not say.
pub fn resident_kib() -> u64 {
    resident_kib_of(Path::new("/proc/self/status"))
}

/// The same of another process.
pub fn resident_kib_of(status: &Path) -> u64 {
    let status = fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// What belongs to the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globals {
    folder: Option<PathBuf>,
    umask: String,
    environment: BTreeSet<(OsString, OsString)>,
    handlers: Vec<(i32, usize, i32)>,
    locale: String,
    streams: Vec<Option<PathBuf>>,
}

impl Globals {
    /// As it is now.
    pub fn take() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap_or_default().trim().to_owned();
        Self {
            folder: std::env::current_dir().ok(),
            umask,
            environment: std::env::vars_os().collect(),
            handlers: probe::signal_handlers(),
            locale: probe::locale(),
            streams: (0..=2).map(|stream| fs::read_link(format!("/proc/self/fd/{stream}")).ok()).collect(),
        }
    }

    /// What is different from before, in words.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.folder != before.folder {
            changes.push("the working folder".to_owned());
        }
        if self.umask != before.umask {
            changes.push(format!("the umask, from {} to {}", before.umask, self.umask));
        }
        for (name, _) in self.environment.symmetric_difference(&before.environment) {
            let change = format!("the variable {} of the environment", name.display());
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
        for (now, then) in self.handlers.iter().zip(&before.handlers).filter(|(now, then)| now != then) {
            debug_assert_eq!(now.0, then.0);
            changes.push(format!("the handler of {}", signal_name(now.0)));
        }
        if self.locale != before.locale {
            changes.push(format!("the locale, from {} to {}", before.locale, self.locale));
        }
        for (at, name) in ["input", "output", "error"].iter().enumerate() {
            if self.streams[at] != before.streams[at] {
                changes.push(format!("where standard {name} leads"));
            }
        }
        changes
    }
}

/// `signal 11 (SIGSEGV)`.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGCHLD => "SIGCHLD",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGALRM => "SIGALRM",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

/// The places of the machine that a config names in texts of the format `path`: of a pattern or a template all below
/// its fixed part.
pub fn config_paths(config: &Value, schema: &Value) -> Vec<PathBuf> {
    let mut paths = BTreeSet::new();
    collect_paths(config, schema, &mut paths);
    paths.into_iter().collect()
}

fn collect_paths(value: &Value, schema: &Value, paths: &mut BTreeSet<PathBuf>) {
    match value {
        Value::String(text) if schema["format"] == "path" => {
            paths.insert(fixed_part(Path::new(text)));
        }
        Value::Object(table) => {
            for (name, value) in table {
                let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                collect_paths(value, property, paths);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_paths(item, &schema["items"], paths)),
        _ => {}
    }
}

/// The parts before the first that holds a variable or a wildcard.
fn fixed_part(path: &Path) -> PathBuf {
    let is_fixed = |part: &std::path::Component<'_>| !part.as_os_str().as_encoded_bytes().iter().any(|byte| b"{*?[".contains(byte));
    path.components().take_while(is_fixed).collect()
}

/// Entries that a listing looks at. What a config names for a trial is smaller.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of files that are searched.
const SEARCHED_BYTES_MAX: u64 = 256 << 20;

/// The files at and below some places: size and time of change of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// By path: bytes, and nanoseconds since 1970.
    pub files: BTreeMap<PathBuf, (u64, i128)>,
    /// There is more than is looked at.
    pub is_cut: bool,
}

impl Listing {
    /// Lists these places. A place that is no folder stands for the folder that it lies in, where that is not the
    /// root: what belongs to a file lies beside it.
    pub fn take(places: &[PathBuf]) -> Self {
        let mut listing = Self::default();
        for place in places {
            let folder = if place.is_dir() { Some(place.as_path()) } else { place.parent().filter(|parent| parent.parent().is_some()) };
            listing.add(folder.unwrap_or(place));
        }
        listing
    }

    fn add(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.files.len() >= ENTRIES_MAX {
                self.is_cut = true;
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.add(&entry.path());
            } else {
                use std::os::unix::fs::MetadataExt;
                let changed = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
                self.files.insert(entry.path(), (metadata.len(), changed));
            }
        }
    }

    /// The files that were not there before, or are not as they were.
    pub fn changes(&self, before: &Self) -> Vec<PathBuf> {
        self.files.iter().filter(|(path, stat)| before.files.get(*path) != Some(stat)).map(|(path, _)| path.clone()).collect()
    }

    /// How often each of these words stands in the files.
    pub fn occurrences(&self, words: &[String]) -> Vec<usize> {
        let mut counts = vec![0; words.len()];
        let mut left = SEARCHED_BYTES_MAX;
        for (path, (bytes, _)) in &self.files {
            let Some(after) = left.checked_sub(*bytes) else { continue };
            left = after;
            let Ok(content) = fs::read(path) else { continue };
            for (count, word) in counts.iter_mut().zip(words) {
                *count += content.windows(word.len()).filter(|window| *window == word.as_bytes()).count();
            }
        }
        counts
    }
}

/// Tells whether somebody opens what it watches.
pub struct Watch {
    descriptor: OwnedFd,
    places: BTreeMap<i32, PathBuf>,
}

impl Watch {
    /// Watches those of these places that are there; `None` where there are none, or the system cannot.
    pub fn begin(places: &[PathBuf]) -> Option<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let flags = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE;
        let watch = |place: &PathBuf| Some((inotify::add_watch(&descriptor, place, flags).ok()?, place.clone()));
        let places: BTreeMap<_, _> = places.iter().filter(|place| place.exists()).filter_map(watch).collect();
        (!places.is_empty()).then_some(Self { descriptor, places })
    }

    /// What was opened since, the first of it.
    pub fn touched(&self) -> Option<PathBuf> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.descriptor, &mut buffer);
        let event = events.next().ok()?;
        let place = self.places.get(&event.wd())?;
        Some(event.file_name().and_then(|name| name.to_str().ok()).map_or_else(|| place.clone(), |name| place.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_places_of_a_config_are_its_fixed_parts() {
        let path = json!({"type": "string", "format": "path"});
        let schema =
            json!({"properties": {"path": path, "more": {"items": path}, "tls": {"properties": {"ca": path}}, "name": {"type": "string"}}});
        let config =
            json!({"path": "/out/{store}/{run}.csv", "more": ["/in/pos-*.csv", "/in/a/b.csv"], "tls": {"ca": "/etc/ca.pem"}, "name": "/x"});
        let paths: Vec<_> = config_paths(&config, &schema).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/etc/ca.pem", "/in", "/in/a/b.csv", "/out"]);
    }

    #[test]
    fn what_changes_is_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let places = [dir.path().to_owned()];
        fs::create_dir(dir.path().join("a")).expect("a folder");
        fs::write(dir.path().join("a/one.csv"), "x1 x2 x1").expect("a file");
        let before = Listing::take(&places);
        fs::write(dir.path().join("two.csv"), "x1").expect("a file");
        let after = Listing::take(&places);
        assert_eq!(after.changes(&before), [dir.path().join("two.csv")]);
        assert_eq!(after.occurrences(&["x1".into(), "x2".into(), "x3".into()]), [3, 1, 0]);
        let watch = Watch::begin(&places).expect("it can be watched");
        assert_eq!(watch.touched(), None);
        drop(fs::read(dir.path().join("two.csv")));
        assert_eq!(watch.touched(), Some(dir.path().join("two.csv")));
    }

    #[test]
    fn threads_descriptors_and_globals_are_seen() {
        let (before, globals) = (Census::take(), Globals::take());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel::<()>();
        let lazy = move || ready.send(()).is_ok() && wait.recv().is_ok();
        let thread = std::thread::Builder::new().name("lazy".into()).spawn(lazy).expect("a thread");
        // Now it has its name.
        assert!(is_ready.recv().is_ok());
        let file = fs::File::open("/proc/self/maps").expect("a file");
        // Tests beside this one have threads and files too: a low number may be one that somebody had before and closed.
        let file = rustix::io::fcntl_dupfd_cloexec(&file, 500).expect("a descriptor with a number that nobody had");
        let now = Census::take();
        assert!(now.new_threads(&before).contains(&"lazy".to_owned()), "{now:?}");
        assert!(now.new_descriptors(&before).iter().any(|target| target.ends_with("/maps")), "{now:?}");
        assert_eq!(Globals::take().changes(&globals), [""; 0]);
        drop((go, file));
        assert!(thread.join().is_ok());
        assert!(resident_kib() > 1_000);
    }
}
