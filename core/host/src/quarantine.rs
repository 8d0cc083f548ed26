//! Libraries that brought down the process in which they were looked at: not looked at again as long as they are
//! the same file.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::library::Stamp;

const FILE: &str = "quarantine.json";
/// More libraries than this are not remembered: the oldest are forgotten.
const ENTRIES_MAX: usize = 256;

/// A library that is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What it did.
    pub why: String,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// What it holds.
    pub sha256: String,
    modified_ns: i128,
    bytes: u64,
}

impl Quarantined {
    /// It did this.
    pub(crate) fn new(library: &Path, stamp: Stamp, why: &str) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        Ok(Self { why: why.to_owned(), at_us, sha256: sha256(library)?, modified_ns: stamp.modified_ns, bytes: stamp.bytes })
    }

    /// Whether the file is still what it was.
    fn is_same(&self, library: &Path, stamp: Stamp) -> bool {
        let untouched = self.modified_ns == stamp.modified_ns && self.bytes == stamp.bytes;
        untouched || (self.bytes == stamp.bytes && sha256(library).is_ok_and(|sha256| sha256 == self.sha256))
    }
}

/// The sha256 of a file, in hex.
pub(crate) fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut part) = (File::open(file)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => break,
            bytes => hasher.update(&part[..bytes]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// All that are remembered, in a folder.
fn read(dir: &Path) -> BTreeMap<PathBuf, Quarantined> {
    fs::read(dir.join(FILE)).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

/// Why this library is not looked at, if it is not.
pub(crate) fn find(dir: &Path, library: &Path, stamp: Stamp) -> Option<Quarantined> {
    read(dir).remove(library).filter(|quarantined| quarantined.is_same(library, stamp))
}

/// Remembers a library.
pub(crate) fn add(dir: &Path, library: &Path, quarantined: Quarantined) -> io::Result<()> {
    let mut all = read(dir);
    all.insert(library.to_owned(), quarantined);
    while all.len() > ENTRIES_MAX {
        let oldest = all.iter().min_by_key(|(_, quarantined)| quarantined.at_us).map(|(path, _)| path.clone());
        oldest.map(|path| all.remove(&path));
    }
    write(dir, FILE, &serde_json::to_vec_pretty(&all)?)
}

/// Forgets all of them.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder, for its owner alone, but not those that it is in.
pub(crate) fn make_folder(dir: &Path) -> io::Result<()> {
    if dir.is_dir() { Ok(()) } else { DirBuilder::new().mode(0o700).create(dir) }
}

/// Writes a small file of this folder whole or not at all. The folder is made, for its owner alone, but not the one
/// that it is in: a state that is not there yet has nothing to remember.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make_folder(dir)?;
    let part = dir.join(format!(".{name}.{}", std::process::id()));
    fs::write(&part, bytes)?;
    fs::rename(&part, dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_remembered_by_what_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, library) = (folder.path().join("plugins"), folder.path().join("lib.so"));
        let stamp = || Stamp::of(&library).expect("there");
        fs::write(&library, "crashes").expect("written");
        assert_eq!(find(&dir, &library, stamp()), None);
        let quarantined = Quarantined::new(&library, stamp(), "signal 11").expect("read");
        add(&dir, &library, quarantined.clone()).expect("written");
        assert_eq!(find(&dir, &library, stamp()), Some(quarantined.clone()));
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        File::options().append(true).open(&library).and_then(|file| file.set_modified(later)).expect("touched");
        assert_eq!(find(&dir, &library, stamp()), Some(quarantined), "it was only touched");
        fs::write(&library, "mended!").expect("written");
        assert_eq!(find(&dir, &library, stamp()), None, "it is another");
        clear(&dir).expect("gone");
        clear(&dir).expect("gone already");
    }
}
