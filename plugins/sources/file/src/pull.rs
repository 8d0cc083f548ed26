//! Reads files one after the other, and says from time to time how to go on after an interruption.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use reunion_sdk::arrow::datatypes::{Field, Schema, SchemaRef};
use reunion_sdk::{Call, ErrorClass, Item, PluginError, ReadMode, ReadRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::config::Config;
use crate::format;
use crate::listing::{self, Entry, FILES_MAX, Stat, read_error};
use crate::table::{Chunk, Place, Projection, Rows, Table, text_field};

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes that are read at once.
    pub chunk_bytes: usize,
    /// A resume state follows after so many rows …
    pub state_rows: usize,
    /// … or bytes.
    pub state_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { chunk_bytes: 1 << 20, state_rows: 64 << 10, state_bytes: 4 << 20 }
    }
}

/// Bytes at the beginning of a file that tell it from another of the same name, size and time.
const HEAD_BYTES: u64 = 4 << 10;
const HASH_BYTES: usize = 1 << 20;
const STATE_VERSION: u32 = 1;

/// The resume state.
///
/// A pull reads the files that are not in `done`, in the order of their paths. `at` says how far it
/// came; `read` has its files once all of them were read, and belongs to `done` from the next pull on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    /// Incremental: fingerprints of the files that earlier pulls have read, those that were seen
    /// last at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
    /// Fingerprints of the files of this pull.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    read: Vec<String>,
    at: At,
}

/// How far a pull came.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    /// So many files were read whole.
    files: usize,
    /// Bytes that those have.
    #[serde(default)]
    bytes: u64,
    /// So many bytes of the next file are in the digest; 0 where it was not begun.
    offset: u64,
    /// The row of that file that comes next, as its format counts.
    line: u64,
    /// A hash of all that was read, and of what decides how: the config, and of each file its name, size and bytes.
    digest: String,
}

/// A file that was looked at.
struct Looked {
    entry: Entry,
    /// To see whether it changes.
    file: File,
    /// None where there is nothing in it.
    table: Option<Box<dyn Table>>,
}

/// A file that is read.
struct Reading {
    file: File,
    rows: Box<dyn Rows>,
}

/// A running read: a stream of items.
pub struct Pull {
    call: Call,
    config: Arc<Config>,
    pace: Pace,
    mode: ReadMode,
    done: Vec<String>,
    entries: Vec<Entry>,
    schema: SchemaRef,
    digest: Xxh3,
    /// The file that was looked at for its columns.
    first: Option<Looked>,
    /// The file that is read, or comes next.
    index: usize,
    /// Bytes of the files before it.
    bytes: u64,
    reading: Option<Reading>,
    /// Where in that file to go on, once.
    resume: Option<Place>,
    rows_since_state: usize,
    bytes_since_state: usize,
    queue: VecDeque<Item>,
    is_over: bool,
}

impl Pull {
    /// Waits until the files are still, and begins, or goes on where `state` says if what was read
    /// before is still the same. Where that is everything, and the host may be told so, there is nothing to read.
    ///
    /// # Errors
    /// Those of listing the files and of looking at the first.
    pub fn begin(call: Call, config: Arc<Config>, pace: Pace, request: ReadRequest, state: Option<Value>) -> Result<Self, PluginError> {
        let state = state.and_then(read_state);
        let all = listing::list_when_still(&call, &config)?;
        let first = first(&call, &all, &config, pace)?;
        let is_incremental = request.mode == ReadMode::Incremental;
        let earlier = state.as_ref().filter(|_| is_incremental).map(|state| {
            let read = if request.resume { &[][..] } else { &state.read };
            state.done.iter().chain(read).cloned().collect::<Vec<_>>()
        });
        let (done, entries) = match earlier {
            Some(done) => without_done(&call, done, all)?,
            None => (Vec::new(), all),
        };
        let at = state.map(|state| state.at);
        let is_unchanged = match at.as_ref().filter(|_| request.may_be_unchanged && !request.resume) {
            Some(at) => is_unchanged(&call, &config, request.mode, &entries, at)?,
            None => false,
        };
        let at = at.filter(|_| request.resume);
        let verified = at.as_ref().map(|at| verify(&call, &config, request.mode, &entries, at)).transpose()?.flatten();
        let mut pull = Self {
            schema: schema(first.as_ref(), &config),
            first,
            digest: start_digest(&config, request.mode),
            mode: request.mode,
            call,
            config,
            pace,
            done,
            entries,
            index: 0,
            bytes: 0,
            reading: None,
            resume: None,
            rows_since_state: 0,
            bytes_since_state: 0,
            queue: VecDeque::from([Item::Begin { resumed: verified.is_some() }]),
            is_over: false,
        };
        if let (Some(digest), Some(at)) = (verified, at) {
            pull.digest = digest;
            (pull.index, pull.bytes) = (at.files, at.bytes);
            pull.resume = (at.offset > 0).then_some(Place { bytes: at.offset, row: at.line });
        }
        if is_unchanged {
            pull.queue.push_back(Item::Unchanged { as_of_us: pull.as_of_us() });
            pull.is_over = true;
        }
        Ok(pull)
    }

    /// When the data was true: of a snapshot that is what its oldest file says, of what is new its newest.
    fn as_of_us(&self) -> Option<i64> {
        let mtimes = self.entries.iter().map(|entry| entry.stat.mtime_us);
        match self.mode {
            ReadMode::Snapshot => mtimes.min(),
            ReadMode::Incremental => mtimes.max(),
        }
    }

    /// Puts at least one item into the queue.
    fn advance(&mut self) -> Result<(), PluginError> {
        while self.queue.is_empty() {
            self.call.check()?;
            match self.reading.take() {
                Some(reading) => self.read_on(reading)?,
                None if self.index < self.entries.len() => self.open()?,
                None => self.finish()?,
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), PluginError> {
        let entry = &self.entries[self.index];
        let looked = self.first.take().filter(|first| first.entry == *entry);
        let Looked { mut file, table, .. } = match looked {
            Some(looked) => looked,
            None => look_at(&self.call, entry, &self.config, self.pace)?,
        };
        refuse_changed(entry, &file)?;
        let Some(table) = table else {
            digest_entry(&mut self.digest, entry);
            digest_bytes(&self.call, &mut self.digest, &mut file, entry, entry.stat.size)?;
            return self.end_file();
        };
        let (places, extra) = map_columns(&self.schema, table.fields(), entry)?;
        if !extra.is_empty() {
            tracing::warn!(file = entry.name, columns = extra.join(", "), "columns that the first file lacks are not read");
        }
        for notice in table.notices() {
            tracing::warn!(file = entry.name, "{notice}");
        }
        let from = self.resume.take();
        if from.is_none() {
            digest_entry(&mut self.digest, entry);
            digest_bytes(&self.call, &mut self.digest, &mut file, entry, table.start().bytes)?;
        }
        let from = from.unwrap_or(table.start());
        let rows = table.rows(Projection { schema: Arc::clone(&self.schema), places }, from)?;
        self.reading = Some(Reading { file, rows });
        Ok(())
    }

    fn read_on(&mut self, mut reading: Reading) -> Result<(), PluginError> {
        let entry = &self.entries[self.index];
        let Some(chunk) = reading.rows.next_chunk(&mut self.digest)? else {
            refuse_changed(entry, &reading.file)?;
            return self.end_file();
        };
        let Chunk { batches, rejected, rows, bytes } = chunk;
        self.queue.extend(batches.into_iter().map(Item::Batch).chain(rejected.into_iter().map(Item::Rejected)));
        self.rows_since_state += rows;
        self.bytes_since_state += bytes;
        let is_due = self.rows_since_state >= self.pace.state_rows || self.bytes_since_state >= self.pace.state_bytes;
        if let Some(Place { bytes, row }) = reading.rows.place().filter(|_| is_due) {
            self.push_state(bytes, row, Vec::new())?;
        }
        self.reading = Some(reading);
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), PluginError> {
        self.bytes += self.entries[self.index].stat.size;
        self.index += 1;
        if self.index < self.entries.len() {
            self.push_state(0, 0, Vec::new())?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), PluginError> {
        let fingerprints = self.entries.iter().map(|entry| fingerprint(&self.call, entry));
        let read = match self.mode {
            // It may be the sweep of an incremental source. A file that went since it was read needs no memory.
            ReadMode::Snapshot => fingerprints.filter_map(Result::ok).collect(),
            ReadMode::Incremental => fingerprints.collect::<Result<_, _>>()?,
        };
        self.push_state(0, 0, read)?;
        self.queue.push_back(Item::End { as_of_us: self.as_of_us() });
        self.is_over = true;
        Ok(())
    }

    fn push_state(&mut self, offset: u64, line: u64, read: Vec<String>) -> Result<(), PluginError> {
        let at = At { files: self.index, bytes: self.bytes, offset, line, digest: hex(self.digest.digest128()) };
        let state = State { version: STATE_VERSION, done: self.done.clone(), read, at };
        let state = serde_json::to_value(state).map_err(|error| PluginError::new(ErrorClass::Internal, error.to_string()))?;
        self.queue.push_back(Item::State(state));
        self.rows_since_state = 0;
        self.bytes_since_state = 0;
        Ok(())
    }
}

impl Iterator for Pull {
    type Item = Result<Item, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.queue.is_empty() {
            if self.is_over {
                return None;
            }
            if let Err(error) = self.advance() {
                self.is_over = true;
                self.queue.clear();
                return Some(Err(error));
            }
        }
        self.queue.pop_front().map(Ok)
    }
}

/// The first file that has columns: they are those of the source.
fn first(call: &Call, entries: &[Entry], config: &Arc<Config>, pace: Pace) -> Result<Option<Looked>, PluginError> {
    for entry in entries {
        let looked = look_at(call, entry, config, pace)?;
        if looked.table.is_some() {
            return Ok(Some(looked));
        }
    }
    Ok(None)
}

fn schema(first: Option<&Looked>, config: &Config) -> SchemaRef {
    let declared = || config.columns.iter().map(|name| text_field(name)).collect();
    let table = first.and_then(|first| first.table.as_ref());
    Arc::new(Schema::new(table.map_or_else(declared, |table| table.fields().to_vec())))
}

/// The columns of a source, any value of which may be missing.
///
/// # Errors
/// Where the first file cannot be read.
pub fn columns(call: &Call, entries: &[Entry], config: &Arc<Config>) -> Result<SchemaRef, PluginError> {
    Ok(schema(first(call, entries, config, Pace::default())?.as_ref(), config))
}

/// What of this file is not read.
///
/// # Errors
/// Where it cannot be read, or lacks one of the source's columns.
pub fn passed_over(call: &Call, entry: &Entry, config: &Arc<Config>, columns: &Schema) -> Result<Vec<String>, PluginError> {
    let Some(table) = look_at(call, entry, config, Pace::default())?.table else { return Ok(Vec::new()) };
    let (_, extra) = map_columns(columns, table.fields(), entry)?;
    let extra = extra.iter().map(|extra| format!("the column {extra:?} is not in the first file, and is not read"));
    Ok(extra.chain(table.notices().iter().cloned()).collect())
}

fn look_at(call: &Call, entry: &Entry, config: &Arc<Config>, pace: Pace) -> Result<Looked, PluginError> {
    call.check()?;
    let failed = |error| read_error(&entry.name, &error);
    let file = File::open(&entry.path).map_err(failed)?;
    let table = format::open(call, file.try_clone().map_err(failed)?, entry, config, pace.chunk_bytes)?;
    Ok(Looked { entry: entry.clone(), file, table })
}

/// Where in this file's rows the source's columns stand, and the names of the others.
fn map_columns(columns: &Schema, fields: &[Field], entry: &Entry) -> Result<(Vec<usize>, Vec<String>), PluginError> {
    let error = |message: String, hint: &str| PluginError::new(ErrorClass::InvalidData, message).hint(hint);
    let place = |column: &Arc<Field>| {
        let name = column.name();
        let place = fields.iter().position(|field| field.name() == name).ok_or_else(|| {
            let message = format!("{} has no column {name:?}, which the first file has", entry.name);
            error(message, "give all files of `path` the same columns, in any order")
        })?;
        let (expected, found) = (column.data_type(), fields[place].data_type());
        if expected != found {
            let message = format!("the column {name:?} is {found} in {}, and {expected} in the first file", entry.name);
            return Err(error(message, "give a column the same type in all files of `path`"));
        }
        Ok(place)
    };
    let places = columns.fields().iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let extra = fields.iter().map(Field::name).filter(|name| columns.column_with_name(name).is_none()).cloned().collect();
    Ok((places, extra))
}

fn read_state(value: Value) -> Option<State> {
    match serde_json::from_value::<State>(value) {
        Ok(state) if state.version == STATE_VERSION => Some(state),
        _ => {
            tracing::warn!("the resume state is of another version of this plugin: every file is read anew");
            None
        }
    }
}

/// Takes the files that earlier pulls have read out of the list. What is remembered of files that are
/// gone is forgotten, the oldest first, where it would be too much.
fn without_done(call: &Call, done: Vec<String>, all: Vec<Entry>) -> Result<(Vec<String>, Vec<Entry>), PluginError> {
    let known: HashSet<&String> = done.iter().collect();
    let (mut seen, mut entries) = (Vec::new(), Vec::new());
    for entry in all {
        let fingerprint = fingerprint(call, &entry)?;
        if known.contains(&fingerprint) {
            seen.push(fingerprint);
        } else {
            entries.push(entry);
        }
    }
    let here: HashSet<&String> = seen.iter().collect();
    let mut kept: Vec<String> = done.iter().filter(|fingerprint| !here.contains(fingerprint)).cloned().collect();
    let room = FILES_MAX.saturating_sub(seen.len() + entries.len());
    kept.drain(..kept.len().saturating_sub(room));
    kept.extend(seen);
    Ok((kept, entries))
}

/// The digest of what a pull read before it stood at `at`; `None` where it would read something else now.
fn verify(call: &Call, config: &Config, mode: ReadMode, entries: &[Entry], at: &At) -> Result<Option<Xxh3>, PluginError> {
    let mut digest = start_digest(config, mode);
    let whole = entries.iter().take(at.files).map(|entry| (entry, entry.stat.size));
    let part = entries.get(at.files).filter(|_| at.offset > 0).map(|entry| (entry, at.offset));
    if at.files > entries.len() || (at.offset > 0 && part.is_none_or(|(entry, offset)| offset > entry.stat.size)) {
        return Ok(None);
    }
    for (entry, bytes) in whole.chain(part) {
        digest_entry(&mut digest, entry);
        let mut file = File::open(&entry.path).map_err(|error| read_error(&entry.name, &error))?;
        digest_bytes(call, &mut digest, &mut file, entry, bytes)?;
    }
    Ok((hex(digest.digest128()) == at.digest).then_some(digest))
}

/// Whether these files are, byte for byte, those that a pull had read when it stood at `at`.
fn is_unchanged(call: &Call, config: &Config, mode: ReadMode, entries: &[Entry], at: &At) -> Result<bool, PluginError> {
    let bytes: u64 = entries.iter().map(|entry| entry.stat.size).sum();
    if at.files != entries.len() || at.offset != 0 || at.bytes != bytes {
        return Ok(false);
    }
    Ok(verify(call, config, mode, entries, at)?.is_some())
}

/// Every pull's digest starts with what decides how bytes become rows: this plugin's version too, and not the folder that
/// the files lie in.
fn start_digest(config: &Config, mode: ReadMode) -> Xxh3 {
    let config = Config { path: PathBuf::new(), ..config.clone() };
    let mut digest = Xxh3::new();
    digest.update(&serde_json::to_vec(&(STATE_VERSION, env!("CARGO_PKG_VERSION"), mode, config)).expect("a config has text keys only"));
    digest
}

fn digest_entry(digest: &mut Xxh3, entry: &Entry) {
    digest.update(&(entry.name.len() as u64).to_le_bytes());
    digest.update(entry.name.as_bytes());
    digest.update(&entry.stat.size.to_le_bytes());
}

/// Adds the first `bytes` of a file; fewer where it has fewer.
fn digest_bytes(call: &Call, digest: &mut Xxh3, file: &mut File, entry: &Entry, bytes: u64) -> Result<(), PluginError> {
    let failed = |error| read_error(&entry.name, &error);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut buffer = Vec::new();
    let mut left = bytes;
    while left > 0 {
        call.check()?;
        buffer.clear();
        let read = file.take(left.min(HASH_BYTES as u64)).read_to_end(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer);
        left -= read as u64;
    }
    Ok(())
}

/// Tells this content of this file from any other: name, size, time, and the first bytes.
fn fingerprint(call: &Call, entry: &Entry) -> Result<String, PluginError> {
    let mut digest = Xxh3::new();
    digest_entry(&mut digest, entry);
    digest.update(&entry.stat.mtime_us.to_le_bytes());
    let mut file = File::open(&entry.path).map_err(|error| read_error(&entry.name, &error))?;
    digest_bytes(call, &mut digest, &mut file, entry, HEAD_BYTES)?;
    Ok(hex(digest.digest128()))
}

/// # Errors
/// Unavailable where the file is no more what it was when it was listed.
fn refuse_changed(entry: &Entry, file: &File) -> Result<(), PluginError> {
    let metadata = file.metadata().map_err(|error| read_error(&entry.name, &error))?;
    if Stat::of(&metadata).is_same_content(&entry.stat) {
        return Ok(());
    }
    let message = format!("{} changed while it was being read", entry.name);
    Err(PluginError::new(ErrorClass::Unavailable, message)
        .hint("it is read again at the next run; a greater settle_secs or a done_marker helps"))
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}
