//! Manifests: what a generation is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reunion_keys::KeyRing;
use reunion_model::{PullId, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::durable::{checksum, entries, read_document};
use crate::layout::manifest_name;
use crate::{GenerationError, SegmentFile, StateDir};

/// Bytes of a manifest. Ten thousand segments in one generation are far below it.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// The version of the document. Those before it are understood.
pub(crate) const VERSION: u32 = 2;
/// Where the sealed part of a manifest belongs.
const SEAL_PLACE: &[u8] = b"manifest sources";

/// A file that does not change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the people folder.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// XXH3-128 of the whole file, hex. Files are authenticated by their encryption; this tells them from
    /// older versions of themselves and from what a disk made of them, at the speed of a copy. Files of
    /// version 1 have their SHA-256 here.
    #[serde(alias = "sha256")]
    pub checksum: String,
    /// The version of the data key that it was written under; none in manifests of versions that did not say. The
    /// file's own footer says it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<u32>,
}

/// What the rows of a table's file do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Each row takes the place of earlier rows with its key.
    Rows,
    /// Each key ends the earlier rows that have it.
    Removals,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
    /// What its rows do.
    pub kind: FileKind,
    /// Positions of rows that count as never written, one `UInt32` column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<FileEntry>,
    /// Rows that are dropped, overridden or removed: at the most so many, since to count them means to read the keys
    /// of the whole table.
    pub dead_rows: u64,
}

/// A table: its files, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The column by which later rows override earlier ones, 16 bytes; without one the table is a
    /// plain list that belongs to this generation alone.
    pub key: Option<String>,
    /// The files.
    pub files: Vec<DataFile>,
}

/// A generation told from every other: its number, and the SHA-256 of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GenerationRef {
    /// Numbers rise along the chain and are never used again once committed.
    pub number: u64,
    /// SHA-256 of the manifest's bytes, hex.
    pub checksum: String,
}

/// The data key that a generation's own files were written under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRef {
    /// Its version.
    pub version: u32,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// What the run says of the generation that it commits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestMeta {
    /// The run's clock, microseconds UTC.
    pub clock_us: i64,
    /// The run.
    pub run_id: RunId,
    /// The ledger's sequence that the run saw.
    pub fact_seq: i64,
    /// For each source its cursors and whatever else goes back with a rollback. Stored sealed, since
    /// a cursor can be anything.
    #[serde(skip)]
    pub sources: BTreeMap<String, Value>,
    /// For each source the pulls that were taken in.
    pub pulls: BTreeMap<String, Vec<PullId>>,
    /// The types of the columns, fixed at the first commit.
    pub schema: Value,
    /// SHA-256 of the config that made the generation.
    pub config_digest: String,
}

/// A generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document.
    pub version: u32,
    /// The generation's number.
    pub number: u64,
    /// The fence of the lease that wrote it.
    pub fence: u64,
    /// The generation that it was made from.
    pub base: Option<GenerationRef>,
    /// The data key.
    pub key: KeyRef,
    /// What the run says.
    #[serde(flatten)]
    pub meta: ManifestMeta,
    /// [`ManifestMeta::sources`] as stored: JSON, sealed, hex.
    pub sources_sealed: String,
    /// The tables by name. A source's records are `records/<source>`.
    pub tables: BTreeMap<String, Table>,
    /// For each source the segments that were taken in: kept as long as this generation is, so that a
    /// rollback to the one before can replay them.
    pub segments: BTreeMap<String, Vec<SegmentFile>>,
}

/// A generation in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GenerationInfo {
    /// Which one.
    pub generation: GenerationRef,
    /// Its clock, microseconds UTC.
    pub clock_us: i64,
    /// The run that made it.
    pub run_id: RunId,
}

impl Manifest {
    /// The document as it is stored, with its sources sealed.
    pub(crate) fn seal(&mut self, keys: &KeyRing) -> Result<Vec<u8>, reunion_keys::KeyError> {
        let sources = serde_json::to_vec(&self.meta.sources).expect("JSON values are JSON");
        self.sources_sealed = hex::encode(keys.seal(SEAL_PLACE, &sources)?);
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is JSON");
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The manifest of a generation, as the ledger names it.
    ///
    /// # Errors
    /// Where there is none with this checksum, or it cannot be used.
    pub(crate) fn load(state: &StateDir, keys: &KeyRing, wanted: &GenerationRef) -> Result<Self, GenerationError> {
        let folder = state.generation(wanted.number);
        for path in manifests(state, wanted.number)? {
            let Some(bytes) = read_document(&path, MANIFEST_BYTES_MAX)? else { continue };
            if checksum(&bytes) == wanted.checksum {
                return Self::parse(path, &bytes, keys);
            }
        }
        Err(GenerationError::ManifestMissing { number: wanted.number, checksum: wanted.checksum.clone(), folder })
    }

    /// Every manifest in a generation's folder that can be read, committed or not.
    pub(crate) fn all_in(state: &StateDir, keys: &KeyRing, number: u64) -> Result<Vec<Self>, GenerationError> {
        let mut found = Vec::new();
        for path in manifests(state, number)? {
            if let Some(bytes) = read_document(&path, MANIFEST_BYTES_MAX)? {
                found.push(Self::parse(path, &bytes, keys)?);
            }
        }
        Ok(found)
    }

    fn parse(path: PathBuf, bytes: &[u8], keys: &KeyRing) -> Result<Self, GenerationError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |problem: String| GenerationError::ManifestDamaged { path: path.clone(), problem };
        let found: Version = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if found.version > VERSION {
            return Err(GenerationError::ManifestVersion { path, found: found.version });
        }
        let mut manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if keys.data_fingerprint(manifest.key.version).as_ref() != Some(&manifest.key.fingerprint) {
            return Err(GenerationError::KeyMissing { number: manifest.number, expected: manifest.key.fingerprint });
        }
        let sealed = hex::decode(&manifest.sources_sealed).map_err(|error| damaged(error.to_string()))?;
        let sources = keys.unseal(SEAL_PLACE, &sealed).map_err(|error| damaged(error.to_string()))?;
        manifest.meta.sources = serde_json::from_slice(&sources).map_err(|error| damaged(error.to_string()))?;
        Ok(manifest)
    }

    /// Every file that the generation needs.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let tables = self.tables.values().flat_map(|table| &table.files);
        let tables = tables.flat_map(|data| std::iter::once(&data.file).chain(&data.dropped));
        tables.chain(self.segments.values().flatten().flat_map(SegmentFile::files))
    }

    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        manifest_name(self.fence)
    }

    /// Whether a name is that of a manifest.
    pub(crate) fn is_name(name: &str) -> bool {
        name.starts_with("manifest-f") && name.ends_with(".json")
    }
}

fn manifests(state: &StateDir, number: u64) -> Result<Vec<PathBuf>, GenerationError> {
    let is_manifest = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(Manifest::is_name);
    Ok(entries(&state.generation(number))?.into_iter().filter(is_manifest).collect())
}
