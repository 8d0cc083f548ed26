//! What can go wrong with the files of people, and what to do about it.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use parquet::errors::ParquetError;

use crate::DiskError;
use crate::manifest::VERSION;

/// Why files of people cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file that does not decrypt or decode.
    #[error(
        "{} is damaged or was written under another key; `reunion rollback` goes back to a generation that does not need it",
        path.display()
    )]
    FileDamaged {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        #[source]
        source: ParquetError,
    },
    /// A batch that cannot be encoded: a fault of the program, not of the disk.
    #[error("cannot encode rows for {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder found.
        #[source]
        source: ParquetError,
    },
    /// The generation's folder holds no manifest with the checksum that the ledger names.
    #[error(
        "generation {number} has no manifest with checksum {checksum} in {}: it was removed, or is damaged",
        folder.display()
    )]
    ManifestMissing {
        /// The generation.
        number: u64,
        /// SHA-256 of the manifest that was looked for.
        checksum: String,
        /// Where.
        folder: PathBuf,
    },
    /// A manifest with the right checksum that is nonetheless none of ours.
    #[error("the manifest {} cannot be read: {problem}", path.display())]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest of a later version of the program.
    #[error(
        "the manifest {} has version {found}, and this program knows those up to {VERSION}; use the program that wrote it, or a later one",
        path.display()
    )]
    ManifestVersion {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The files were written under a data key that this state does not have.
    #[error(
        "generation {number} was written under data key {expected}, which this state's keys.json does not hold; restore the keys.json that belongs to it"
    )]
    KeyMissing {
        /// The generation.
        number: u64,
        /// Fingerprint of the key.
        expected: String,
    },
    /// Files of one table that name the same column with different types.
    #[error("table {table} has column {column} once as {first} and once as {second}; a type is fixed at the first commit")]
    SchemaConflict {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// One type.
        first: DataType,
        /// The other.
        second: DataType,
    },
    /// A batch without the key column that its table needs.
    #[error("table {table} needs the key column {column}, 16 bytes and never null")]
    KeyColumn {
        /// The table.
        table: String,
        /// The key column.
        column: String,
    },
    /// More rows in a segment than a segment may have.
    #[error("a segment holds at most {rows_max} rows; finish it and begin another")]
    SegmentFull {
        /// The limit.
        rows_max: usize,
    },
    /// A generation that is not newer than its base.
    #[error("generation {number} cannot follow generation {base}")]
    NotNewer {
        /// The new one.
        number: u64,
        /// The one before.
        base: u64,
    },
}

impl GenerationError {
    /// The error of writing Parquet: the disk's own where the encoder only passed one on.
    pub(crate) fn writing(path: &std::path::Path) -> impl FnOnce(ParquetError) -> Self {
        let path = path.to_owned();
        move |error| match as_disk_error(error) {
            Ok(source) => Self::Disk(DiskError { action: "write", path, source }),
            Err(source) => Self::Encode { path, source },
        }
    }

    /// The error of reading Parquet.
    pub(crate) fn reading(path: &std::path::Path) -> impl FnOnce(ParquetError) -> Self {
        let path = path.to_owned();
        move |error| match as_disk_error(error) {
            // A file that is cut short is damaged; the disk is not to blame.
            Ok(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::FileDamaged { path, source: ParquetError::from(source) }
            }
            Ok(source) => Self::Disk(DiskError { action: "read", path, source }),
            Err(source) => Self::FileDamaged { path, source },
        }
    }
}

fn as_disk_error(error: ParquetError) -> Result<std::io::Error, ParquetError> {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(inner) => Ok(*inner),
            Err(inner) => Err(ParquetError::External(inner)),
        },
        other => Err(other),
    }
}
