//! The return folder: which lists are new or changed since the last poll, and what they say.
//!
//! Files are read and never moved, changed or removed. The state remembers each by a hash of its place,
//! its size, its time and a hash of its content, so that a list is read once, and again when it is
//! saved again; events have ids that make the repetition harmless.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reunion_sdk::{Call, ErrorClass, EventsBuilder, Item, PluginError, Reason, RejectedBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::Checked;
use crate::returned::{self, Returned};

/// Files of a return folder at most: so many fit into a state document.
const FILES_MAX: usize = 10_000;
/// Files between two resume states, each of which names all files.
const FILES_PER_STATE: usize = 64;
/// Bytes of one list at most.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Folders within folders at most.
const DEPTH_MAX: usize = 8;
const EXTENSIONS: [&str; 3] = ["csv", "tsv", "txt"];

/// What is remembered from poll to poll.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// By the hash of each file's place below the return folder.
    files: BTreeMap<String, Seen>,
}

/// A file that was read: size, time in microseconds, hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(u64, i64, String);

/// Size and time of a file.
type Stamp = (u64, i64);

/// A file that is there.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    /// Its place below the return folder.
    name: String,
    key: String,
    stamp: Stamp,
}

/// One poll.
pub struct Poll {
    call: Call,
    config: Arc<Checked>,
    state: State,
    /// Files that are new or changed, in order.
    files: VecDeque<Found>,
    /// Items that wait to be handed on.
    items: VecDeque<Item>,
    files_since_state: usize,
    over: bool,
}

impl Poll {
    /// Lists the folder and waits until what is new in it is still.
    ///
    /// # Errors
    /// Where the folder cannot be read, holds too much, or the call is to stop.
    pub fn begin(call: Call, config: Arc<Checked>, dir: &Path, state: Option<Value>) -> Result<Self, PluginError> {
        let mut state = read_state(state)?;
        let found = list(dir)?;
        let known = state.files.len();
        let present: HashSet<&str> = found.iter().map(|file| file.key.as_str()).collect();
        state.files.retain(|key, _| present.contains(key.as_str()));
        let mut items = VecDeque::new();
        if state.files.len() < known {
            items.push_back(write_state(&state)?);
        }
        let changed = |file: &Found| state.files.get(&file.key).is_none_or(|seen| (seen.0, seen.1) != file.stamp);
        let files: VecDeque<_> = found.into_iter().filter(changed).collect();
        wait_until_still(&call, &config, &files)?;
        Ok(Self { call, config, state, files, items, files_since_state: 0, over: false })
    }

    fn step(&mut self) -> Result<Option<Item>, PluginError> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            self.call.check()?;
            match self.files.pop_front() {
                Some(file) => self.file(&file)?,
                None if self.over => return Ok(None),
                None => {
                    self.over = true;
                    return Ok(Some(Item::End { as_of_us: None }));
                }
            }
        }
    }

    fn file(&mut self, file: &Found) -> Result<(), PluginError> {
        let returned = match read(file) {
            Ok(Read::Moving) => Returned::default(),
            Ok(Read::Bytes(bytes)) => {
                let hash = short_hash(&bytes);
                let seen = Seen(file.stamp.0, file.stamp.1, hash);
                let same = self.state.files.insert(file.key.clone(), seen.clone()).is_some_and(|before| before.2 == seen.2);
                if same { Returned::default() } else { returned::read(&bytes, &self.config.results) }
            }
            Ok(Read::Unfit(detail)) => {
                self.state.files.insert(file.key.clone(), Seen(file.stamp.0, file.stamp.1, String::new()));
                let rejected = vec![returned::Rejected { line: 1, reason: Reason::ReturnUnreadable, detail }];
                Returned { rejected, ..Returned::default() }
            }
            Err(error) => return Err(unreadable("a returned list", &error)),
        };
        self.report(&file.name, &returned);
        self.files_since_state += 1;
        if self.files.is_empty() || self.files_since_state >= FILES_PER_STATE {
            self.files_since_state = 0;
            self.items.push_back(write_state(&self.state)?);
        }
        Ok(())
    }

    fn report(&mut self, name: &str, returned: &Returned) {
        let (mut events, mut rejected) = (EventsBuilder::new(), RejectedBuilder::new());
        for answer in &returned.results {
            let id = event_id(&answer.task_id, answer.outcome.name());
            events.push(&id, &answer.task_id, answer.outcome, None, answer.note.as_deref());
        }
        for row in &returned.rejected {
            rejected.push(&format!("{name}:{}", row.line), row.reason, Some(&row.detail));
        }
        if !events.is_empty() {
            self.items.push_back(Item::Batch(events.finish()));
        }
        if !rejected.is_empty() {
            self.items.push_back(Item::Rejected(rejected.finish()));
        }
    }
}

impl Iterator for Poll {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.over = true;
            self.files.clear();
            self.items.clear();
        }
        step.transpose()
    }
}

/// The id of what one list says of one task, the same wherever and whenever it is read.
fn event_id(task_id: &str, outcome: &str) -> String {
    let digest = Sha256::new().chain_update(task_id).chain_update([0]).chain_update(outcome).finalize();
    hex::encode(&digest[..16])
}

fn short_hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

fn read_state(state: Option<Value>) -> Result<State, PluginError> {
    let Some(state) = state else { return Ok(State::default()) };
    serde_json::from_value(state).map_err(|_| {
        PluginError::new(ErrorClass::Internal, "the stored state is not one of this plugin").hint("was the channel's plugin changed?")
    })
}

fn write_state(state: &State) -> Result<Item, PluginError> {
    serde_json::to_value(state).map(Item::State).map_err(|_| PluginError::new(ErrorClass::Internal, "the state cannot be written"))
}

/// All lists in the folder and the folders in it, by name. Hidden files and those of open spreadsheets
/// (`~$…`) are none; links are not followed.
fn list(dir: &Path) -> Result<Vec<Found>, PluginError> {
    let mut found = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| unreadable("the return folder", &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable("the return folder", &error))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"~$") {
                continue;
            }
            let Some(metadata) = there(entry.metadata()).map_err(|error| unreadable("the return folder", &error))? else { continue };
            if metadata.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            } else if metadata.is_file() {
                found.push(Found::new(dir, entry.path(), &metadata));
            }
            if found.len() > FILES_MAX {
                let message = format!("the return folder holds more than {FILES_MAX} files");
                return Err(PluginError::new(ErrorClass::InvalidData, message)
                    .key("return_dir")
                    .hint("move lists that were read long ago somewhere else"));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Found {
    fn new(dir: &Path, path: PathBuf, metadata: &Metadata) -> Self {
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        Self { key: short_hash(path.as_os_str().as_encoded_bytes()), name, path, stamp: stamp(metadata) }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.len(), metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1_000))
}

/// Waits as long as the youngest of the files needs. One that changes meanwhile is found changed when
/// it is read, and left for the next poll.
fn wait_until_still(call: &Call, config: &Checked, files: &VecDeque<Found>) -> Result<(), PluginError> {
    let settle = Duration::from_secs(config.settle_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = files.iter().map(|file| {
        let changed = Duration::from_micros(u64::try_from(file.stamp.1).unwrap_or(0));
        // A time in the future says nothing; then the whole time is waited.
        now.checked_sub(changed).map_or(settle, |age| settle.saturating_sub(age))
    });
    call.wait(left.max().unwrap_or_default())
}

/// What was found on reading a file.
enum Read {
    Bytes(Vec<u8>),
    /// It was changed since it was listed, or is gone.
    Moving,
    /// It cannot be a list, for this reason.
    Unfit(String),
}

fn read(file: &Found) -> io::Result<Read> {
    let is_still = |metadata: Option<Metadata>| metadata.is_some_and(|metadata| stamp(&metadata) == file.stamp);
    if !is_still(there(fs::metadata(&file.path))?) {
        return Ok(Read::Moving);
    }
    let extension = file.path.extension().unwrap_or_default().to_ascii_lowercase();
    if !EXTENSIONS.iter().any(|known| extension == *known) {
        return Ok(Read::Unfit("it is no .csv, .tsv or .txt file; save the list as CSV".into()));
    }
    if file.stamp.0 > FILE_BYTES_MAX {
        return Ok(Read::Unfit(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let Some(bytes) = there(fs::read(&file.path))? else { return Ok(Read::Moving) };
    let still = bytes.len() as u64 == file.stamp.0 && is_still(there(fs::metadata(&file.path))?);
    Ok(if still { Read::Bytes(bytes) } else { Read::Moving })
}

/// `None` for a file that is gone.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unreadable(what: &str, error: &io::Error) -> PluginError {
    let class = if error.kind() == ErrorKind::PermissionDenied { ErrorClass::Unauthorized } else { ErrorClass::Unavailable };
    PluginError::new(class, format!("{what} cannot be read: {}", error.kind())).key("return_dir")
}
