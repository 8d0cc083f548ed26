//! A file appears whole or not at all, and never in the place of another.
//!
//! It is written under a temporary name in its own folder (`.{name}.part`), synced, renamed without
//! replacing, and made durable by syncing the folders above it. What a killed push has left under the
//! temporary name is removed by the next one.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Publishes files, and remembers which folders are known to be durable.
#[derive(Debug, Default)]
pub struct Publisher {
    durable: Mutex<HashSet<PathBuf>>,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The file is there now and outlives a power cut.
    New,
    /// There was a file already, which is as it was.
    Exists,
}

impl Publisher {
    /// Puts a file with this content at this path, and makes the folders that are missing.
    ///
    /// # Errors
    /// Of the file system. Nothing has appeared at the path then, or all of it.
    pub fn publish(&self, path: &Path, content: &[u8]) -> io::Result<Published> {
        let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        let part = part_name(path)?;
        remove(&part)?;
        if fs::symlink_metadata(path).is_ok() {
            return Ok(Published::Exists);
        }
        write(&part, content)?;
        let published = rename(&part, path)?;
        if published == Published::Exists {
            remove(&part)?;
        }
        self.sync_folders(folder)?;
        Ok(published)
    }

    /// Makes a file durable that is there already: a killed push may have renamed it and no more.
    ///
    /// # Errors
    /// Of the file system.
    pub fn settle(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        self.sync_folders(path.parent().ok_or(ErrorKind::InvalidInput)?)
    }

    /// Syncs the folder, and each folder above it that is not known to be durable: any of them may have
    /// been made by a push that was killed before it could sync.
    fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        sync(folder)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        for (child, parent) in folder.ancestors().zip(folder.ancestors().skip(1)) {
            if !durable.insert(child.to_owned()) {
                break;
            }
            match sync(parent) {
                // A folder that cannot be opened is none that a push could have made anything in.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
                Err(error) => {
                    durable.remove(child);
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn part_name(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(ErrorKind::InvalidInput)?);
    name.push(".part");
    Ok(path.with_file_name(name))
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.write_all(content)?;
    file.sync_all()
}

fn rename(from: &Path, to: &Path) -> io::Result<Published> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Published::New),
        Err(Errno::EXIST) => Ok(Published::Exists),
        // A file system without such a rename, as network shares are.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_if_absent(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Looks first, which is enough where nobody else renames meanwhile: all instances wait for one another.
fn rename_if_absent(from: &Path, to: &Path) -> io::Result<Published> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if fs::symlink_metadata(to).is_ok() {
        return Ok(Published::Exists);
    }
    fs::rename(from, to).map(|()| Published::New)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_with_its_folders_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/list.csv");
        let publisher = Publisher::default();
        assert_eq!(publisher.publish(&path, b"one").unwrap(), Published::New);
        assert_eq!(publisher.publish(&path, b"two").unwrap(), Published::Exists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o027, 0o020 & FOLDER_MODE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
        publisher.settle(&path).unwrap();
    }

    #[test]
    fn what_a_killed_push_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.csv");
        fs::write(dir.path().join(".list.csv.part"), b"half a li").unwrap();
        assert_eq!(Publisher::default().publish(&path, b"a list").unwrap(), Published::New);
        assert_eq!(fs::read(&path).unwrap(), b"a list");
        fs::write(dir.path().join(".list.csv.part"), b"half a li").unwrap();
        assert_eq!(Publisher::default().publish(&path, b"a list").unwrap(), Published::Exists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_stays_where_renames_cannot_tell() {
        let dir = tempfile::tempdir().unwrap();
        let [part, list] = [".list.csv.part", "list.csv"].map(|name| dir.path().join(name));
        fs::write(&part, b"one").unwrap();
        assert_eq!(rename_if_absent(&part, &list).unwrap(), Published::New);
        fs::write(&part, b"two").unwrap();
        assert_eq!(rename_if_absent(&part, &list).unwrap(), Published::Exists);
        assert_eq!(fs::read(&list).unwrap(), b"one");
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"").unwrap();
        assert!(Publisher::default().publish(&dir.path().join("a/list.csv"), b"").is_err());
    }
}
