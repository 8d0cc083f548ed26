//! Files of people: segments, generations, their manifests, encryption, the lock, and what makes
//! them durable.
//!
//! ```text
//! state/
//!   lock                                     held by the run that writes
//!   keys.json                                the wrapped keys
//!   tmp/                                     scratch files, unlinked when opened
//!   people/
//!     segments/<source>/<pull>-<seq>-f<fence>.parquet         rows pulled, new or changed
//!     segments/<source>/<pull>-<seq>-seen-f<fence>.parquet    keys of rows pulled and unchanged
//!     generations/<number>/manifest-f<fence>.json             what the generation is
//!     generations/<number>/<table>-<n>-f<fence>.parquet       what it wrote
//! ```
//!
//! - A file is written under a temporary name, synced, and renamed; nothing is changed afterwards.
//! - A **table** is a list of files, oldest first. Later rows override earlier ones with the same
//!   key, and a file of removals ends the rows before it. What a generation does not touch it names
//!   again, so that a small change to a large base is a small file.
//! - A **manifest** names every file with its size, checksum and data key, and its base by the checksum of the
//!   base's own manifest. The ledger holds the checksum of the head, so the whole chain is told from
//!   any other.
//! - File names carry the fence of the lease that wrote them. A holder removes only files of a
//!   smaller fence, and nothing that a reader has pinned.

mod batches;
mod durable;
mod error;
mod generation;
mod keyfile;
mod layout;
mod lock;
mod manifest;
mod orphans;
mod parquet_file;
mod segment;
mod sixteen;
mod table;
mod verify;
mod writer;

pub use batches::{Batches, Part, align};
pub use durable::DiskError;
pub use error::GenerationError;
pub use generation::{Generation, People};
pub use keyfile::{KeyfileError, open_or_create_keys, store_keys};
pub use layout::StateDir;
pub use lock::{Holder, LockError, StateLock};
pub use manifest::{DataFile, FileEntry, FileKind, GenerationInfo, GenerationRef, KeyRef, Manifest, ManifestMeta, Table};
pub use orphans::{LiveSet, Removed};
pub use parquet_file::GROUP_ROWS;
pub use segment::{SegmentFile, SegmentWriter};
pub use verify::{Damage, Problem, Verified, Verifier};
pub use writer::{Committed, GenerationWriter};
