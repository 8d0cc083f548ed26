//! Which files there are, and whether they may be read yet.

use std::collections::HashMap;
use std::error::Error;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glob::MatchOptions;
use reunion_sdk::{Call, ErrorClass, PluginError};

use crate::config::Config;

/// Files of one source: what is done with them is remembered in the resume state, which has a limit.
pub const FILES_MAX: usize = 10_000;
/// How often files that are not still are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For how long, beyond `settle_secs`, a file may go on changing before the read gives up.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder that all files of the pattern share, for messages and the state.
    pub name: String,
    /// Its size and times when it was listed.
    pub stat: Stat,
}

/// A file's size and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When it was last written, as it says itself.
    pub mtime_us: i64,
    /// When it was last written, renamed or given another time, as the system says.
    pub ctime_us: i64,
}

impl Stat {
    /// Out of what the system says of a file.
    pub fn of(metadata: &Metadata) -> Self {
        let us = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000).saturating_add(nanos / 1000);
        Self {
            size: metadata.size(),
            mtime_us: us(metadata.mtime(), metadata.mtime_nsec()),
            ctime_us: us(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the content is probably the same.
    pub fn is_same_content(&self, other: &Self) -> bool {
        (self.size, self.mtime_us) == (other.size, other.mtime_us)
    }
}

/// An error for a file that the system does not let be read.
pub fn read_error(name: &str, error: &io::Error) -> PluginError {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<PluginError>()) {
        return error.clone();
    }
    let message = format!("{name} cannot be read: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => PluginError::new(ErrorClass::Unauthorized, message)
            .hint("give the user that runs the daemon the right to read it, and to enter its folder")
            .key("path"),
        io::ErrorKind::NotFound => PluginError::new(ErrorClass::InvalidData, format!("{name} is not there"))
            .hint("correct `path`, or put the file there")
            .key("path"),
        io::ErrorKind::IsADirectory => is_a_folder(name),
        _ => PluginError::new(ErrorClass::Unavailable, message),
    }
}

/// What the system said, beneath an error of a library.
pub fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let shared = error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
    shared.or_else(|| error.downcast_ref()).or_else(|| io_error(error.source()?))
}

fn is_a_folder(name: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidData, format!("{name} is a folder, not a file"))
        .hint(format!("to read the files in it, write {name}/*.csv"))
        .key("path")
}

/// A file that yields no more once its call is to stop.
pub struct Watched {
    file: BufReader<File>,
    call: Call,
}

impl Watched {
    /// This file. Its place is that of all other handles on it, so that each reader seeks first.
    ///
    /// # Errors
    /// Where the system has no more handles.
    pub fn new(file: &File, call: &Call, name: &str) -> Result<Self, PluginError> {
        let mut file = file.try_clone().map_err(|error| read_error(name, &error))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| read_error(name, &error))?;
        Ok(Self { file: BufReader::with_capacity(64 << 10, file), call: call.clone() })
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call.check().map_err(io::Error::other)?;
        self.file.read(buffer)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The files that the config names, by path in ascending order. Of a pattern there may be none.
///
/// # Errors
/// Where a file that is named plainly is missing or no file, or a folder cannot be read.
pub fn list(config: &Config) -> Result<Vec<Entry>, PluginError> {
    let path = config.path.as_path();
    let text = path.to_string_lossy();
    if !text.contains(['*', '?', '[']) || path.exists() {
        let metadata = path.metadata().map_err(|error| read_error(&text, &error))?;
        if metadata.is_dir() {
            return Err(is_a_folder(&text));
        }
        if !metadata.is_file() {
            let message = format!("{text} is a pipe, socket or device, not a file");
            return Err(PluginError::new(ErrorClass::InvalidData, message).key("path"));
        }
        let name = path.file_name().map_or_else(|| text.clone(), |name| name.to_string_lossy()).into_owned();
        return Ok(vec![Entry { path: path.to_owned(), name, stat: Stat::of(&metadata) }]);
    }
    list_pattern(config, &text)
}

fn list_pattern(config: &Config, pattern: &str) -> Result<Vec<Entry>, PluginError> {
    let base = base_of(&config.path);
    base.read_dir().map_err(|error| read_error(&base.to_string_lossy(), &error))?;
    let options = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(pattern, options).map_err(|error| {
        let message = format!("`path` is no pattern: {} at character {}", error.msg, error.pos + 1);
        PluginError::new(ErrorClass::InvalidConfig, message).key("path")
    })?;
    let mut entries = Vec::new();
    for path in paths {
        let path = path.map_err(|error| read_error(&error.path().to_string_lossy(), error.error()))?;
        if config.done_marker.as_ref().is_some_and(|suffix| path.to_string_lossy().ends_with(suffix)) {
            continue;
        }
        let name = path.strip_prefix(&base).unwrap_or(&path).to_string_lossy().into_owned();
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            // Taken away since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(read_error(&name, &error)),
        };
        if metadata.is_file() {
            entries.push(Entry { path, name, stat: Stat::of(&metadata) });
        }
    }
    if entries.len() > FILES_MAX {
        let message = format!("`path` matches {} files, more than {FILES_MAX}", entries.len());
        return Err(PluginError::new(ErrorClass::InvalidData, message)
            .hint("move files that have been read to another folder")
            .key("path"));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The folder before the first part that is a pattern.
fn base_of(pattern: &Path) -> PathBuf {
    let is_plain = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let base: PathBuf = pattern.components().take_while(is_plain).collect();
    if base.as_os_str().is_empty() { PathBuf::from(".") } else { base }
}

/// The files, once each of them has been still for `settle_secs` or has its done-marker.
///
/// # Errors
/// As [`list`]; cancelled or timeout; unavailable where a file goes on changing for ten minutes.
pub fn list_when_still(call: &Call, config: &Config) -> Result<Vec<Entry>, PluginError> {
    let settle = Duration::from_secs(config.settle_secs);
    let began = Instant::now();
    let mut seen: HashMap<PathBuf, (Stat, Instant)> = HashMap::new();
    loop {
        call.check()?;
        let entries = list(config)?;
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let mut moving = entries.iter().filter(|entry| {
            let (stat, since) = seen.entry(entry.path.clone()).or_insert((entry.stat, Instant::now()));
            if *stat != entry.stat {
                (*stat, *since) = (entry.stat, Instant::now());
            }
            !(is_still(&entry.stat, now_us, since.elapsed(), settle) || is_marked(config, entry))
        });
        // All are looked at, so that the time of each begins now.
        let Some(entry) = moving.by_ref().last() else { return Ok(entries) };
        if began.elapsed() > settle + SETTLE_WAIT_MAX {
            let message = format!("{} has not been still for settle_secs ({} s)", entry.name, config.settle_secs);
            return Err(
                PluginError::new(ErrorClass::Unavailable, message).hint("it is still being written; it is tried again at the next run")
            );
        }
        call.wait(LOOK_EVERY)?;
    }
}

/// Whether a file has been still for `settle`: by its times, or, where they lie in the future, as it was
/// `watched`.
fn is_still(stat: &Stat, now_us: i64, watched: Duration, settle: Duration) -> bool {
    let changed_us = stat.mtime_us.max(stat.ctime_us);
    changed_us <= now_us.saturating_sub(settle.as_micros() as i64) || watched >= settle
}

/// Whether a done-marker that is no older than the file lies beside it.
fn is_marked(config: &Config, entry: &Entry) -> bool {
    let Some(suffix) = &config.done_marker else { return false };
    let mut marker = entry.path.clone().into_os_string();
    marker.push(suffix);
    Path::new(&marker).metadata().is_ok_and(|marker| Stat::of(&marker).mtime_us >= entry.stat.mtime_us)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use reunion_sdk::testing::TestCall;
    use serde_json::json;
    use std::fs;

    pub(crate) fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> Entry {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let stat = Stat::of(&path.metadata().unwrap());
        Entry { path, name: name.into(), stat }
    }

    fn config(folder: &tempfile::TempDir, pattern: &str, with: serde_json::Value) -> Config {
        let mut table = json!({"path": folder.path().join(pattern)});
        table.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        serde_json::from_value(table).unwrap()
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn a_pattern_lists_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", ".hidden.csv", "a.csv.done", "sub/c.csv", "d.csv/x"] {
            write(&folder, name, b"");
        }
        assert_eq!(names(&list(&config(&folder, "*.csv", json!({}))).unwrap()), ["a.csv", "b.csv"]);
        assert_eq!(names(&list(&config(&folder, "**/*.csv*", json!({"done_marker": ".done"}))).unwrap()), ["a.csv", "b.csv", "sub/c.csv"]);
        assert_eq!(names(&list(&config(&folder, "a.csv", json!({}))).unwrap()), ["a.csv"]);
        assert!(list(&config(&folder, "*.tsv", json!({}))).unwrap().is_empty());
        write(&folder, "[1].csv", b"");
        assert_eq!(names(&list(&config(&folder, "[1].csv", json!({}))).unwrap()), ["[1].csv"]);
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "sub/c.csv", b"");
        let of = |pattern: &str| {
            let error = list(&config(&folder, pattern, json!({}))).expect_err("an error");
            error.to_string().replace(&*folder.path().to_string_lossy(), "/in")
        };
        insta::assert_snapshot!([of("x.csv"), of("sub"), of("gone/*.csv")].join("\n"), @"
        invalid data: /in/x.csv is not there; correct `path`, or put the file there
        invalid data: /in/sub is a folder, not a file; to read the files in it, write /in/sub/*.csv
        invalid data: /in/gone is not there; correct `path`, or put the file there
        ");
        assert!(of("***").starts_with("invalid config: `path` is no pattern: wildcards are either regular `*` or recursive `**`"));
    }

    #[test]
    fn a_file_that_changes_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "a.csv", b"x");
        let began = Instant::now();
        let config = config(&folder, "a.csv", json!({"settle_secs": 1}));
        assert_eq!(list_when_still(&Call::for_tests(), &config).unwrap().len(), 1);
        assert!(began.elapsed() >= Duration::from_millis(900), "it was written just now");
    }

    #[test]
    fn a_file_is_still_by_its_times_or_as_it_was_watched() {
        let settle = Duration::from_secs(5);
        let stat = Stat { size: 1, mtime_us: 3_000_000, ctime_us: 2_000_000 };
        assert!(is_still(&stat, 8_000_000, Duration::ZERO, settle));
        assert!(!is_still(&stat, 7_999_999, Duration::ZERO, settle));
        let copied = Stat { ctime_us: 7_000_000, ..stat };
        assert!(!is_still(&copied, 9_000_000, Duration::ZERO, settle), "its own time is that of the file it was copied from");
        assert!(is_still(&stat, 0, settle, settle), "its time lies in the future");
    }

    #[test]
    fn a_marker_ends_the_wait_and_so_does_cancel() {
        let folder = tempfile::tempdir().unwrap();
        let entry = write(&folder, "a.csv", b"x");
        let config = config(&folder, "a.csv", json!({"settle_secs": 3600, "done_marker": ".done"}));
        let (call, canceller) = TestCall::default().start();
        canceller.cancel();
        assert_eq!(list_when_still(&call, &config).unwrap_err().class, ErrorClass::Cancelled);
        let late = TestCall { deadline_unix_ms: Some(1), ..TestCall::default() }.start().0;
        assert_eq!(list_when_still(&late, &config).unwrap_err().class, ErrorClass::Timeout);
        write(&folder, "a.csv.done", b"");
        assert_eq!(list_when_still(&Call::for_tests(), &config).unwrap(), std::slice::from_ref(&entry));
        let later = SystemTime::now() + Duration::from_secs(60);
        fs::File::options().write(true).open(&entry.path).unwrap().set_modified(later).unwrap();
        assert!(!is_marked(&config, &list(&config).unwrap()[0]), "the marker is of an earlier file");
    }
}
