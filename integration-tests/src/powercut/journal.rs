//! What a program did to the files under a folder, in the order in which it did it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Error, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

pub(super) const O_TRUNC: u64 = 0o1000;
pub(super) const O_CREAT: u64 = 0o100;

/// Compiles the library that journals, into a folder.
///
/// # Errors
/// Where there is no gcc, or it refuses.
pub fn build_library(folder: &Path) -> io::Result<PathBuf> {
    let library = folder.join("journal.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("powercut/journal.c");
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o"];
    let output = Command::new("gcc").args(flags).arg(&library).arg(&source).output()?;
    if output.status.success() { Ok(library) } else { Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned())) }
}

/// Makes a command journal what it does under `root`, a path without symbolic links, into `journal`,
/// which lies elsewhere and is begun anew.
///
/// # Errors
/// Where an old journal cannot be removed.
pub fn watch(command: &mut Command, library: &Path, root: &Path, journal: &Path) -> io::Result<()> {
    match fs::remove_file(journal) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    command.env("LD_PRELOAD", library).env("REUNION_POWERCUT_ROOT", root).env("REUNION_POWERCUT_JOURNAL", journal);
    Ok(())
}

/// One thing that a program did.
#[derive(Debug, Clone)]
pub enum Record {
    /// A file was opened, and with these flags perhaps made or emptied.
    Open {
        /// Names the open file from now on.
        handle: u64,
        /// Flags of open(2).
        flags: u64,
        /// The file or folder.
        path: PathBuf,
    },
    /// Bytes were written.
    Write {
        /// The file.
        handle: u64,
        /// Where in it.
        offset: usize,
        /// What.
        data: Arc<[u8]>,
    },
    /// A file was cut or made longer.
    Resize {
        /// The file.
        handle: u64,
        /// Its length now.
        bytes: usize,
    },
    /// The same, of a file by its name.
    ResizeAt {
        /// The file.
        path: PathBuf,
        /// Its length now.
        bytes: usize,
    },
    /// A file or folder was synced.
    Sync {
        /// Which.
        handle: u64,
    },
    /// Everything was synced.
    SyncAll,
    /// A file was renamed.
    Rename {
        /// Flags of renameat2(2).
        flags: u64,
        /// Its name before.
        from: PathBuf,
        /// Its name now.
        to: PathBuf,
    },
    /// A file got a second name.
    Link {
        /// The first.
        from: PathBuf,
        /// The second.
        to: PathBuf,
    },
    /// A name was removed.
    Unlink {
        /// The name.
        path: PathBuf,
    },
    /// A folder was made.
    MakeFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file was mapped, shared and writable.
    Map {
        /// The file.
        handle: u64,
    },
}

impl Record {
    /// Whether it makes something last, or changes a name: a moment on either side of which trees differ.
    pub fn is_boundary(&self) -> bool {
        match self {
            Self::Open { flags, .. } => flags & O_CREAT != 0,
            Self::Write { .. } | Self::Resize { .. } | Self::ResizeAt { .. } | Self::Map { .. } => false,
            Self::Sync { .. } | Self::SyncAll | Self::Rename { .. } | Self::Link { .. } | Self::Unlink { .. } | Self::MakeFolder { .. } => {
                true
            }
        }
    }

    /// How many bytes it writes.
    pub fn bytes(&self) -> usize {
        if let Self::Write { data, .. } = self { data.len() } else { 0 }
    }

    /// The record in a line, without data.
    pub fn line(&self) -> String {
        match self {
            Self::Write { handle, offset, data } => format!("write {} bytes at {offset} to #{handle}", data.len()),
            Self::Open { handle, flags, path } => format!("open {} as #{handle}, flags {flags:o}", path.display()),
            other => format!("{other:?}"),
        }
    }
}

/// Reads a journal.
///
/// # Errors
/// Where there is none, or it is not understood.
pub fn read_journal(path: &Path) -> io::Result<Vec<Record>> {
    let bytes = fs::read(path)?;
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let mut numbers = [0_u64; 5];
        for number in &mut numbers {
            *number = u64::from_ne_bytes(take(&mut rest, 8)?.try_into().expect("eight bytes were taken"));
        }
        let [kind, handle, number, first_bytes, second_bytes] = numbers;
        let first = take(&mut rest, first_bytes as usize)?;
        let second = take(&mut rest, second_bytes as usize)?;
        let path = || PathBuf::from(OsString::from_vec(first.to_vec()));
        let to = || PathBuf::from(OsString::from_vec(second.to_vec()));
        // The numbers of `enum kind` in journal.c.
        records.push(match kind {
            1 => Record::Open { handle, flags: number, path: path() },
            2 => Record::Write { handle, offset: number as usize, data: first.into() },
            3 => Record::Resize { handle, bytes: number as usize },
            4 => Record::ResizeAt { path: path(), bytes: number as usize },
            5 => Record::Sync { handle },
            6 => Record::SyncAll,
            7 => Record::Rename { flags: number, from: path(), to: to() },
            8 => Record::Link { from: path(), to: to() },
            9 | 10 => Record::Unlink { path: path() },
            11 => Record::MakeFolder { path: path() },
            12 => Record::Map { handle },
            other => return Err(Error::other(format!("the journal has a record of kind {other}"))),
        });
    }
    Ok(records)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> io::Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes).ok_or_else(|| Error::other("the journal ends within a record"))?;
    *rest = left;
    Ok(taken)
}
