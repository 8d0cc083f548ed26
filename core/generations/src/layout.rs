//! Where everything lies, and what file names say.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use reunion_model::PullId;

use crate::DiskError;
use crate::durable::{create_folder, failed, remove_file};

/// The state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The state folder at `root`, made with its parts (mode 0700) where it is missing.
    ///
    /// # Errors
    /// Where a folder cannot be made.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let state = Self { root: root.into() };
        for folder in [state.tmp(), state.segments(), state.generations()] {
            create_folder(&folder)?;
        }
        Ok(state)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that a run locks.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The wrapped keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys.json")
    }

    /// Scratch files.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Everything that manifests name: their paths are relative to this folder.
    pub fn people(&self) -> PathBuf {
        self.root.join("people")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.people().join("segments")
    }

    pub(crate) fn generations(&self) -> PathBuf {
        self.people().join("generations")
    }

    pub(crate) fn generation(&self, number: u64) -> PathBuf {
        self.generations().join(format!("{number:012}"))
    }

    /// A scratch file, open for reading and writing, that has no name already and so vanishes with its
    /// last handle.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn scratch(&self) -> Result<File, DiskError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.tmp().join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed("create", &path))?;
        remove_file(&path)?;
        Ok(file)
    }
}

/// The path of a segment's file, relative to the people folder. `part` is empty or `-seen`.
pub(crate) fn segment_path(source: &str, pull: PullId, seq: u64, part: &str, fence: u64) -> String {
    format!("segments/{}/{pull}-{seq:06}{part}-f{fence:08}.parquet", escape(source))
}

/// The path of a table's file, relative to the people folder.
pub(crate) fn table_path(number: u64, table: &str, ordinal: u64, fence: u64) -> String {
    format!("generations/{number:012}/{}-{ordinal:03}-f{fence:08}.parquet", escape(&table.replace('/', ".")))
}

/// The name of a manifest. It carries the fence, so that a holder that lost its lease cannot touch
/// the manifest that a later one has committed under the same number.
pub(crate) fn manifest_name(fence: u64) -> String {
    format!("manifest-f{fence:08}.json")
}

/// The fence in a file's name; `None` where the file is none of ours.
pub(crate) fn fence_of(name: &str) -> Option<u64> {
    let after = name.rsplit_once("-f")?.1;
    let (digits, rest) = after.split_once('.')?;
    let known = rest.starts_with("parquet") || rest.starts_with("json");
    (known && digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A name as part of a path: letters, digits, `_`, `-` and inner `.` stay, all else is `%` and hex.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => escaped.push(char::from(byte)),
            b'.' if at > 0 => escaped.push('.'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_carry_the_fence() {
        let pull = PullId([0xab; 16]);
        let path = segment_path("pos", pull, 3, "-seen", 7);
        assert_eq!(path, "segments/pos/abababababababababababababababab-000003-seen-f00000007.parquet");
        assert_eq!(fence_of(&path), Some(7));
        assert_eq!(fence_of(&table_path(2, "records/pos", 1, 123_456_789)), Some(123_456_789));
        assert_eq!(fence_of(&(manifest_name(5) + ".4711.tmp")), Some(5), "a half-written file has one too");
        for other in ["manifest.json", "notes-f12.txt", "a-fxxxxxxxx.parquet", "x"] {
            assert_eq!(fence_of(other), None, "{other}");
        }
    }

    #[test]
    fn names_stay_inside_their_folder() {
        assert_eq!(escape("../门店"), "%2E.%2F%E9%97%A8%E5%BA%97");
    }

    #[test]
    fn a_scratch_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path().join("state")).unwrap();
        let _file = state.scratch().unwrap();
        assert_eq!(std::fs::read_dir(state.tmp()).unwrap().count(), 0);
        assert_eq!(std::fs::metadata(state.tmp()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
