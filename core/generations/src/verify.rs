//! Verifying: every byte of a generation against its manifest.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::durable::{failed, file_checksum};
use crate::{DiskError, FileEntry, Generation, GenerationError, People};

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
            Problem::Missing => write!(f, "{path} is missing")?,
            Problem::Size { expected, found } => write!(f, "{path} has {found} bytes, and {expected} were committed")?,
            Problem::Changed => write!(f, "{path} was changed since it was committed")?,
            Problem::Sealed(_) => write!(f, "{path} does not open with the keys of this state")?,
        }
        f.write_str("; restore it from a backup, or use `reunion rollback`")
    }
}

pub(crate) fn verify(people: &People, generation: &Generation) -> Result<Vec<Damage>, GenerationError> {
    let mut damages = Vec::new();
    // A segment stands among the records and among what the generation took in.
    let mut looked_at = HashSet::new();
    for file in generation.manifest().files().filter(|file| looked_at.insert(&file.path)) {
        let path = people.state().people().join(&file.path);
        let problem = match check(&path, file)? {
            None => people.reader(file).err().map(Problem::Sealed),
            problem => problem,
        };
        damages.extend(problem.map(|problem| Damage { path, problem }));
    }
    Ok(damages)
}

fn check(path: &Path, file: &FileEntry) -> Result<Option<Problem>, DiskError> {
    let mut open = match File::open(path) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Problem::Missing)),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let found = open.metadata().map_err(failed("read", path))?.len();
    if found != file.bytes {
        return Ok(Some(Problem::Size { expected: file.bytes, found }));
    }
    let (mut digest, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match open.read(&mut buffer).map_err(failed("read", path))? {
            0 => break,
            count => digest.update(&buffer[..count]),
        }
    }
    Ok((file_checksum(&digest) != file.xxh3).then_some(Problem::Changed))
}
