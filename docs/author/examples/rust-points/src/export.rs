//! The file, and its lines, in memory that does not grow with it.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reunion_sdk::{Call, ErrorClass, PluginError};
use serde::{Deserialize, Serialize};

use crate::config::Config;

const HEAD_BYTES: u64 = 4096;
const READ_BYTES: usize = 1 << 16;

/// What tells the content of a file from another that has the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// A hash of the first 4 KiB.
    pub head: u64,
}

/// The export, open at a line.
#[derive(Debug)]
pub struct Export {
    path: PathBuf,
    id: FileId,
    reader: BufReader<File>,
    line_bytes_max: usize,
    /// Of the line that comes next, in bytes.
    offset: u64,
    /// Of the last line, the first being 1.
    number: u64,
    line: Vec<u8>,
}

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes, without what ends it.
    Bytes(&'a [u8]),
    /// The file ended within it.
    Last(&'a [u8]),
    /// It has more than `line_bytes_max`, and is passed over.
    TooLong,
}

impl Export {
    /// Opens the file at its first line.
    ///
    /// # Errors
    /// Invalid data where there is no such file, unauthorized where it may not be read, unavailable else.
    pub fn open(config: &Config) -> Result<Self, PluginError> {
        let path = config.path.clone();
        let failed = |error: io::Error| read_error(&path, &error);
        // To open a pipe would be to wait for whoever writes to it.
        if !fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(PluginError::new(ErrorClass::InvalidData, format!("{} is not a file", path.display())).key("path"));
        }
        let mut file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let head = hash_head(&mut file).map_err(failed)?;
        let id = FileId { size: metadata.len(), mtime_ns: mtime_ns(&metadata), head };
        let reader = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self { path, id, reader, line_bytes_max: config.line_bytes_max, offset: 0, number: 0, line: Vec::new() })
    }

    /// What the file was when it was opened.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Where the next line begins, and the number of the last one.
    pub fn place(&self) -> (u64, u64) {
        (self.offset, self.number)
    }

    /// The last line's place for people: `points.jsonl:17`.
    pub fn shown_place(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        format!("{}:{}", name.to_string_lossy(), self.number)
    }

    /// Goes to a place that [`Export::place`] gave.
    ///
    /// # Errors
    /// As [`Export::open`].
    pub fn go_to(&mut self, (offset, number): (u64, u64)) -> Result<(), PluginError> {
        self.reader.seek(SeekFrom::Start(offset)).map_err(|error| read_error(&self.path, &error))?;
        (self.offset, self.number) = (offset, number);
        Ok(())
    }

    /// The next line; `None` after the last.
    ///
    /// # Errors
    /// As [`Export::open`], and where the call is to stop.
    pub fn next_line(&mut self, call: &Call) -> Result<Option<Line<'_>>, PluginError> {
        self.line.clear();
        let (mut is_too_long, mut is_ended) = (false, false);
        while !is_ended {
            let bytes = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                bytes => bytes.map_err(|error| read_error(&self.path, &error))?,
            };
            if bytes.is_empty() {
                break;
            }
            let feed = bytes.iter().position(|byte| *byte == b'\n');
            let taken = feed.map_or(bytes.len(), |at| at + 1);
            // Two more than a line may have: a carriage return and a line feed.
            is_too_long |= self.line.len() + taken > self.line_bytes_max + 2;
            if !is_too_long {
                self.line.extend_from_slice(&bytes[..taken]);
            }
            self.reader.consume(taken);
            self.offset += taken as u64;
            is_ended = feed.is_some();
            if !is_ended {
                call.check()?;
            }
        }
        if self.line.is_empty() && !is_too_long {
            return Ok(None);
        }
        self.number += 1;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(match is_ended {
            _ if is_too_long || line.len() > self.line_bytes_max => Line::TooLong,
            true => Line::Bytes(line),
            false => Line::Last(line),
        }))
    }

    /// # Errors
    /// Unavailable where the file is no more what it was when it was opened.
    pub fn refuse_changed(&self) -> Result<(), PluginError> {
        let metadata = self.reader.get_ref().metadata().map_err(|error| read_error(&self.path, &error))?;
        if (metadata.len(), mtime_ns(&metadata)) == (self.id.size, self.id.mtime_ns) {
            return Ok(());
        }
        let message = format!("{} changed while it was being read", self.path.display());
        Err(PluginError::new(ErrorClass::Unavailable, message)
            .key("path")
            .hint("write it under another name and rename it when it is complete"))
    }
}

fn mtime_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// A hash of the first bytes (FNV-1a); the file is at its beginning again afterwards.
fn hash_head(file: &mut File) -> io::Result<u64> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

fn read_error(path: &Path, error: &io::Error) -> PluginError {
    let path = path.display();
    let (class, message, hint) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            (ErrorClass::InvalidData, format!("{path} is not there"), "correct `path`, or put the file there")
        }
        ErrorKind::PermissionDenied => (
            ErrorClass::Unauthorized,
            format!("{path} may not be read"),
            "give the user that runs the daemon the right to read it, and to enter its folder",
        ),
        _ => (ErrorClass::Unavailable, format!("{path} cannot be read: {error}"), "look at the disk or the share that it lies on"),
    };
    PluginError::new(class, message).key("path").hint(hint)
}
