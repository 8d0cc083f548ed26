//! The one place that makes files last: written under a temporary name, synced, renamed, and the
//! folder synced. Every other module of the crate goes through it, and so do the fault points.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reunion_model::fault;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

/// What the ending of every temporary name is.
pub(crate) const TEMPORARY: &str = ".tmp";
/// Bytes that are put together before they are written to the disk.
const BUFFER_BYTES: usize = 512 << 10;
/// Bytes that go to the disk by themselves, as putting them together would cost more than a call of the system.
const DIRECT_BYTES_MIN: usize = 64 << 10;

/// The disk did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}{}", path.display(), hint(source))]
pub struct DiskError {
    /// What was tried.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What to do about it, where that can be told from the error.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ": the disk is full; free some space and run again, nothing committed is lost",
        io::ErrorKind::QuotaExceeded => ": the quota is used up; raise it or free some space and run again",
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only; mount it for writing or choose another [state] dir",
        io::ErrorKind::PermissionDenied => ": give the folder to the user that runs reunion, or choose another [state] dir",
        io::ErrorKind::AlreadyExists => ": a file has that name; choose another [state] dir",
        io::ErrorKind::NotADirectory => ": a part of the path is a file; choose another [state] dir",
        _ => "",
    }
}

/// Makes the error of an action on a path.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError { action, path, source }
}

/// The names of the fault points of one kind of file: before and after each step.
pub(crate) struct Points {
    fsync: [&'static str; 2],
    rename: [&'static str; 2],
    folder: [&'static str; 2],
}

macro_rules! points {
    ($name:ident, $what:literal) => {
        pub(crate) const $name: Points = Points {
            fsync: [concat!($what, ".fsync.before"), concat!($what, ".fsync.after")],
            rename: [concat!($what, ".rename.before"), concat!($what, ".rename.after")],
            folder: [concat!($what, ".folder.before"), concat!($what, ".folder.after")],
        };
    };
}
points!(KEYS, "keys");
points!(SEGMENT, "segment");
points!(TABLE, "table");
points!(MANIFEST, "manifest");
points!(FOLDER, "folder");

/// Does `step` between its two fault points.
fn between<T>(points: [&'static str; 2], step: impl FnOnce() -> T) -> T {
    fault::point(points[0]);
    let done = step();
    fault::point(points[1]);
    done
}

/// A file that is being written. Dropped before [`NewFile::commit`], it leaves nothing.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    buffer: Vec<u8>,
    digest: Xxh3,
    bytes: u64,
    points: &'static Points,
    /// Whether the temporary name is gone already.
    renamed: bool,
}

impl NewFile {
    /// Starts the file that will be called `path`, mode 0600.
    pub(crate) fn create(path: &Path, points: &'static Points) -> Result<Self, DiskError> {
        let temporary = temporary(path);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = file.map_err(failed("create", &temporary))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            digest: Xxh3::new(),
            bytes: 0,
            points,
            renamed: false,
        })
    }

    /// Where the file will stand.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn drain(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.put(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.drain().map_err(failed("write", &self.temporary))?;
        between(self.points.fsync, || self.file.sync_all()).map_err(failed("sync", &self.temporary))
    }

    fn written(&self) -> (u64, String) {
        (self.bytes, file_checksum(&self.digest))
    }

    /// Syncs the file and gives it its name, replacing what has that name. The folder is the caller's
    /// to sync, once for all files in it. Gives the size in bytes and the checksum of [`file_checksum`].
    pub(crate) fn commit(mut self) -> Result<(u64, String), DiskError> {
        self.sync()?;
        between(self.points.rename, || std::fs::rename(&self.temporary, &self.path)).map_err(failed("rename to", &self.path))?;
        self.renamed = true;
        Ok(self.written())
    }

    /// Like [`NewFile::commit`], but gives `false` and changes nothing where the name is taken.
    pub(crate) fn commit_if_absent(mut self) -> Result<bool, DiskError> {
        self.sync()?;
        // A hard link, unlike a rename, fails where the name is there. Dropping removes the other name.
        match between(self.points.rename, || std::fs::hard_link(&self.temporary, &self.path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed("create", &self.path)(error)),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= DIRECT_BYTES_MIN {
            self.drain()?;
            self.put(bytes)?;
            return Ok(bytes.len());
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.drain()?;
        }
        Ok(bytes.len())
    }

    /// Nothing: what counts is [`NewFile::commit`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is removed with the orphans later.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Names hold the process, so that two that write the same file do not share a temporary one.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}{TEMPORARY}", std::process::id()));
    PathBuf::from(name)
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path, points: &'static Points) -> Result<(), DiskError> {
    let open = File::open(folder).map_err(failed("open", folder))?;
    between(points.folder, || open.sync_all()).map_err(failed("sync", folder))
}

/// Writes a small file whole, with its folder synced. Gives its SHA-256.
pub(crate) fn write_document(path: &Path, bytes: &[u8], points: &'static Points) -> Result<String, DiskError> {
    let mut file = NewFile::create(path, points)?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.commit()?;
    sync_folder(parent(path), points)?;
    Ok(checksum(bytes))
}

/// Makes a folder, mode 0700, and those above it that are missing, so that they last.
pub(crate) fn create_folder(path: &Path) -> Result<(), DiskError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    create_folder(above)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_folder(above, &FOLDER),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("create the folder", path)(error)),
    }
}

/// Removes a file. One that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A whole file of at most `bytes_max` bytes; `None` where there is none.
pub(crate) fn read_document(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(failed("read", path)(io::Error::other(format!("the file is larger than {bytes_max} bytes"))));
    }
    Ok(Some(bytes))
}

/// What a folder holds, in the order of the names; nothing where there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed("list", folder))?;
    paths.sort();
    Ok(paths)
}

/// The checksum of a file of which this is the digest, hex.
pub(crate) fn file_checksum(digest: &Xxh3) -> String {
    format!("{:032x}", digest.digest128())
}

/// The SHA-256 of some bytes, hex.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = NewFile::create(&path, &TABLE).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_document_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_document(&path, b"one", &MANIFEST).unwrap();
        let sum = write_document(&path, b"two", &MANIFEST).unwrap();
        assert_eq!(read_document(&path, 10).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(sum, checksum(b"two"));
        assert!(read_document(&path, 2).is_err());
        assert!(read_document(&folder.path().join("b"), 2).unwrap().is_none());
    }

    #[test]
    fn a_taken_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (text, first) in [(b"one", true), (b"two", false)] {
            let mut file = NewFile::create(&path, &KEYS).unwrap();
            file.write_all(text).unwrap();
            assert_eq!(file.commit_if_absent().unwrap(), first);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = failed("write", Path::new("/state/x"))(io::Error::from(io::ErrorKind::StorageFull));
        insta::assert_snapshot!(error, @"cannot write /state/x: the disk is full; free some space and run again, nothing committed is lost");
    }
}
