//! Verifying: every byte of a generation against its manifest, and what else lies in the state.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::durable::{entries, failed, file_checksum};
use crate::layout::fence_of;
use crate::{DiskError, FileEntry, GenerationError, GenerationRef, People, SegmentFile};

/// Hex digits of a SHA-256, which files of version 1 have.
const SHA256_DIGITS: usize = 64;

/// A file that is not what the manifest says.
#[derive(Debug)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It is longer or shorter than it was.
    Size {
        /// Bytes when it was committed.
        expected: u64,
        /// Bytes now.
        found: u64,
    },
    /// Its bytes were changed.
    Changed,
    /// Its bytes are right and yet it does not open: its data key is another one.
    Sealed(GenerationError),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Missing => write!(f, "{path} is missing"),
            Problem::Size { expected, found } => write!(f, "{path} has {found} bytes, and {expected} were committed"),
            Problem::Changed => write!(f, "{path} was changed since it was committed"),
            Problem::Sealed(_) => write!(f, "{path} does not open with the keys of this state"),
        }
    }
}

/// What verifying a generation came to.
#[derive(Debug)]
pub struct Verified {
    /// Its manifest.
    pub manifest: PathBuf,
    /// Files that it names.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not as they were committed.
    pub damages: Vec<Damage>,
}

/// Reads every byte. Generations share files: one that was found whole is not read again.
pub struct Verifier<'a> {
    people: &'a People,
    /// Paths of files that are whole.
    whole: HashSet<String>,
}

impl<'a> Verifier<'a> {
    /// One that has read nothing yet.
    pub fn new(people: &'a People) -> Self {
        Self { people, whole: HashSet::new() }
    }

    /// Compares a generation with its manifest.
    ///
    /// # Errors
    /// Where the manifest itself cannot be used, or the disk refuses.
    pub fn generation(&mut self, wanted: &GenerationRef) -> Result<Verified, GenerationError> {
        let generation = self.people.open(wanted)?;
        let manifest = generation.manifest();
        // A segment stands among the records and among what the generation took in.
        let mut named = HashSet::new();
        let files: Vec<_> = manifest.files().filter(|file| named.insert(&file.path)).collect();
        Ok(Verified {
            manifest: self.people.state().generation(wanted.number).join(manifest.file_name()),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            damages: self.files(files.into_iter())?,
        })
    }

    /// Compares segments, which the ledger names, with what was committed.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn segments<'b>(&mut self, segments: impl Iterator<Item = &'b SegmentFile>) -> Result<Vec<Damage>, GenerationError> {
        self.files(segments.flat_map(SegmentFile::files))
    }

    fn files<'b>(&mut self, files: impl Iterator<Item = &'b FileEntry>) -> Result<Vec<Damage>, GenerationError> {
        let mut damages = Vec::new();
        for file in files {
            if self.whole.contains(&file.path) {
                continue;
            }
            let path = self.people.state().people().join(&file.path);
            let problem = match check(&path, file)? {
                None => self.people.reader(file).err().map(Problem::Sealed),
                problem => problem,
            };
            match problem {
                None => _ = self.whole.insert(file.path.clone()),
                Some(problem) => damages.push(Damage { path, problem }),
            }
        }
        Ok(damages)
    }
}

/// The files in the folders of people that no version of the program has written: none of them is ever read or removed.
pub(crate) fn foreign(people: &People) -> Result<Vec<PathBuf>, DiskError> {
    let mut found = Vec::new();
    let mut pending = vec![people.state().people()];
    while let Some(folder) = pending.pop() {
        for entry in entries(&folder)? {
            let is_ours = entry.file_name().and_then(|name| name.to_str()).and_then(fence_of).is_some();
            if entry.is_dir() {
                pending.push(entry);
            } else if !is_ours {
                found.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn check(path: &Path, file: &FileEntry) -> Result<Option<Problem>, DiskError> {
    let open = match File::open(path) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Problem::Missing)),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let found = open.metadata().map_err(failed("read", path))?.len();
    if found != file.bytes {
        return Ok(Some(Problem::Size { expected: file.bytes, found }));
    }
    let changed = match file.checksum.len() {
        SHA256_DIGITS => hex::encode(digest(open, path, Sha256::new(), |digest, bytes| digest.update(bytes))?.finalize()) != file.checksum,
        _ => file_checksum(&digest(open, path, Xxh3::new(), Xxh3::update)?) != file.checksum,
    };
    Ok(changed.then_some(Problem::Changed))
}

/// All of a file, given to `update` piece by piece.
fn digest<D>(mut file: File, path: &Path, mut digest: D, update: impl Fn(&mut D, &[u8])) -> Result<D, DiskError> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed("read", path))? {
            0 => return Ok(digest),
            count => update(&mut digest, &buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_both_versions_tell_a_changed_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let entry = |text: &str| serde_json::from_str::<FileEntry>(text).unwrap();
        let old = entry(r#"{"path":"a","rows":1,"bytes":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#);
        let new = entry(r#"{"path":"a","rows":1,"bytes":3,"checksum":"06b05ab6733a618578af5f94892f3950"}"#);
        for (bytes, is_whole) in [(b"abc", true), (b"abd", false)] {
            std::fs::write(&path, bytes).unwrap();
            for entry in [&old, &new] {
                assert_eq!(check(&path, entry).unwrap().is_none(), is_whole, "{}", entry.checksum);
            }
        }
    }
}
