//! The state's keys on disk: made once, opened with the master key ever after.

use std::io::Write;
use std::path::{Path, PathBuf};

use reunion_keys::{KeyError, KeyRing, MasterKey, WrappedKeys};

use crate::durable::{self, KEYS, NewFile, failed, read_document};
use crate::{DiskError, StateDir};

const KEYS_BYTES_MAX: u64 = 1 << 20;

/// Why the state's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyfileError {
    /// The keys do not open, or cannot be made.
    #[error("the keys in {} cannot be used", path.display())]
    Key {
        /// The file of the keys.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The file is no document of keys.
    #[error("{} is damaged; restore it from a backup: without it nothing in the state can be read", path.display())]
    Damaged {
        /// The file of the keys.
        path: PathBuf,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// There are files and no keys to them. New keys would make the loss final.
    #[error(
        "{} is missing, but {} was written under its keys; restore keys.json from a backup, or choose an empty [state] dir",
        path.display(), found.display()
    )]
    Missing {
        /// The file of the keys.
        path: PathBuf,
        /// A file that proves that there were keys.
        found: PathBuf,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The keys of the state; new ones where the state is empty. Safe to call from two processes at once:
/// both get the same keys.
///
/// # Errors
/// Where the master key is another one (the inner error has both fingerprints), the file is damaged,
/// or it is missing beside files that were written under its keys.
pub fn open_or_create_keys(state: &StateDir, master: &MasterKey) -> Result<KeyRing, KeyfileError> {
    let path = state.keys();
    if let Some(ring) = open(&path, master)? {
        return Ok(ring);
    }
    if let Some(found) = first_file(state)? {
        return Err(KeyfileError::Missing { path, found });
    }
    let (ring, wrapped) = KeyRing::create(master).map_err(|source| KeyfileError::Key { path: path.clone(), source })?;
    let mut file = NewFile::create(&path, &KEYS)?;
    file.write_all(&to_text(&wrapped)).map_err(failed("write", &path))?;
    let first = file.commit_if_absent()?;
    durable::sync_folder(state.root(), &KEYS)?;
    if first {
        return Ok(ring);
    }
    let ring = open(&path, master)?;
    ring.ok_or_else(|| failed("open", &path)(std::io::ErrorKind::NotFound.into()).into())
}

/// Replaces the state's keys, after the master key or the data key has changed.
///
/// # Errors
/// Where the disk refuses; the old keys then stand.
pub fn store_keys(state: &StateDir, wrapped: &WrappedKeys) -> Result<(), DiskError> {
    durable::write_document(&state.keys(), &to_text(wrapped), &KEYS).map(|_| ())
}

fn open(path: &Path, master: &MasterKey) -> Result<Option<KeyRing>, KeyfileError> {
    let Some(text) = read_document(path, KEYS_BYTES_MAX)? else { return Ok(None) };
    let wrapped: WrappedKeys = serde_json::from_slice(&text).map_err(|source| KeyfileError::Damaged { path: path.to_owned(), source })?;
    KeyRing::open(master, &wrapped).map(Some).map_err(|source| KeyfileError::Key { path: path.to_owned(), source })
}

fn to_text(wrapped: &WrappedKeys) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(wrapped).expect("wrapped keys are JSON");
    text.push(b'\n');
    text
}

/// A file of the state that needs keys: any under `people`, or the ledger beside it.
fn first_file(state: &StateDir) -> Result<Option<PathBuf>, DiskError> {
    let mut folders = vec![state.people()];
    while let Some(folder) = folders.pop() {
        for entry in durable::entries(&folder)? {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                return Ok(Some(entry));
            }
        }
    }
    let is_ledger = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger"));
    Ok(durable::entries(state.root())?.into_iter().find(is_ledger))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(digit: char) -> MasterKey {
        MasterKey::from_hex(&digit.to_string().repeat(64)).unwrap()
    }

    #[test]
    fn the_same_keys_open_again_and_another_master_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path()).unwrap();
        let made = open_or_create_keys(&state, &master('1')).unwrap();
        let again = open_or_create_keys(&state, &master('1')).unwrap();
        assert_eq!(made.file_key(1), again.file_key(1));
        let error = open_or_create_keys(&state, &master('2')).unwrap_err();
        assert!(matches!(error, KeyfileError::Key { source: KeyError::WrongKey { .. }, .. }), "{error}");
    }

    #[test]
    fn no_new_keys_beside_old_files() {
        for name in ["people/segments/pos/a.parquet", "ledger.sqlite"] {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::create(folder.path()).unwrap();
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, b"x").unwrap();
            let error = open_or_create_keys(&state, &master('1')).unwrap_err();
            assert!(matches!(&error, KeyfileError::Missing { found, .. } if *found == file), "{error}");
            assert!(!state.keys().exists());
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path()).unwrap();
        std::fs::write(state.keys(), b"{\"version\":1").unwrap();
        let error = open_or_create_keys(&state, &master('1')).unwrap_err();
        assert!(matches!(error, KeyfileError::Damaged { .. }), "{error}");
    }
}
