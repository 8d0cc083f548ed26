//! Reading: the files of people, and one generation of them, pinned while it is open.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use reunion_keys::KeyRing;
use reunion_model::{PullId, RecordKey};
use rustix::fs::{FlockOperation, flock};

use crate::batches::Input;
use crate::durable::failed;
use crate::parquet_file::FileReader;
use crate::table::{OpenTable, keys};
use crate::{
    Batches, DiskError, FileEntry, GenerationError, GenerationInfo, GenerationRef, GenerationWriter, LiveSet, Manifest, Removed,
    SegmentFile, SegmentWriter, StateDir, Table, Verified, Verifier, orphans, verify,
};

/// The files of people of one state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct People {
    state: StateDir,
    keys: Arc<KeyRing>,
}

impl People {
    /// The files under this state folder, with these keys.
    pub fn new(state: StateDir, keys: Arc<KeyRing>) -> Self {
        Self { state, keys }
    }

    /// The state folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    pub(crate) fn reader(&self, file: &FileEntry) -> Result<Arc<FileReader>, GenerationError> {
        FileReader::open(&self.keys, &self.state.people(), &file.path).map(Arc::new)
    }

    /// Begins a segment: number `seq` of a pull, written under the lease with this fence. The schema has
    /// the columns of [`reunion_model::record`] first.
    ///
    /// # Errors
    /// Where the schema has no record key, or the folder cannot be made.
    pub fn segment(&self, source: &str, pull: PullId, seq: u64, fence: u64, schema: SchemaRef) -> Result<SegmentWriter, GenerationError> {
        SegmentWriter::create(self, source, pull, seq, fence, schema)
    }

    /// The rows of these segments, each as it was written; [`crate::Part::file`] is the segment's place in
    /// the list.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or types differ between segments.
    pub fn read_segments(&self, segments: &[SegmentFile], columns: Option<&[&str]>) -> Result<Batches, GenerationError> {
        let mut inputs = Vec::new();
        for (file, segment) in segments.iter().enumerate() {
            if let Some(rows) = &segment.rows {
                inputs.push(Input { reader: self.reader(rows)?, file, live: None });
            }
        }
        Batches::new(&table_of(segments), inputs, columns)
    }

    /// Some rows of these segments, in full: of each segment, by its place in the list, those at these places in it,
    /// ascending.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or types differ between segments.
    pub fn read_segments_at(&self, segments: &[SegmentFile], wanted: &BTreeMap<usize, Vec<u32>>) -> Result<Batches, GenerationError> {
        let mut inputs = Vec::new();
        let mut by_group = BTreeMap::new();
        let mut groups = 0;
        for (file, mut wanted) in wanted.iter().map(|(file, rows)| (*file, &rows[..])) {
            let Some(rows) = &segments[file].rows else { continue };
            let reader = self.reader(rows)?;
            let mut first_row = 0;
            for group_rows in reader.group_rows() {
                let (here, rest) = wanted.split_at(wanted.partition_point(|row| (*row as usize) < first_row + group_rows));
                by_group.insert(groups, here.iter().map(|row| row - first_row as u32).collect::<Vec<_>>());
                (wanted, first_row, groups) = (rest, first_row + group_rows, groups + 1);
            }
            inputs.push(Input { reader, file, live: None });
        }
        Batches::rows_at(&table_of(segments), inputs, &by_group)
    }

    /// The keys of the rows that were pulled with this segment and are unchanged, as they came.
    ///
    /// # Errors
    /// Where the file is missing or damaged.
    pub fn read_seen(&self, segment: &SegmentFile) -> Result<Vec<RecordKey>, GenerationError> {
        let Some(seen) = &segment.seen else { return Ok(Vec::new()) };
        let reader = self.reader(seen)?;
        let mut found = Vec::with_capacity(usize::try_from(seen.rows).unwrap_or_default());
        for group in 0..reader.group_rows().count() {
            found.extend(keys(&reader.read_group(group, &[0], None)?).map(RecordKey::from_u128));
        }
        Ok(found)
    }

    /// Opens a generation and pins it: until it is dropped nobody removes it.
    ///
    /// # Errors
    /// Where its manifest is missing or damaged, or its key is not in the ring.
    pub fn open(&self, wanted: &GenerationRef) -> Result<Generation, GenerationError> {
        let folder = self.state.generation(wanted.number);
        let pin = match File::open(&folder) {
            Ok(pin) => pin,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GenerationError::ManifestMissing { number: wanted.number, checksum: wanted.checksum.clone(), folder });
            }
            Err(error) => return Err(failed("open", &folder)(error).into()),
        };
        // Waits for the moment in which someone who removes files looks at this folder.
        flock(&pin, FlockOperation::LockShared).map_err(|error| failed("lock", &folder)(error.into()))?;
        let manifest = Manifest::load(&self.state, &self.keys, wanted)?;
        Ok(Generation { people: self.clone(), reference: wanted.clone(), manifest, open: Mutex::default(), _pin: pin })
    }

    /// Begins the generation `number` on top of `base`, under the lease with this fence. What is not
    /// touched is taken over from the base.
    ///
    /// # Errors
    /// Where the number is not above the base's, or the folder cannot be made.
    pub fn begin<'a>(&self, number: u64, fence: u64, base: Option<&'a Generation>) -> Result<GenerationWriter<'a>, GenerationError> {
        GenerationWriter::begin(self, number, fence, base)
    }

    /// The generations from `head` backwards that are there: what a rollback can go to.
    ///
    /// # Errors
    /// Where the head's manifest is missing, or one on the way is damaged.
    pub fn history(&self, head: &GenerationRef, count_max: usize) -> Result<Vec<GenerationInfo>, GenerationError> {
        let info = |(generation, manifest): (GenerationRef, Manifest)| GenerationInfo {
            generation,
            clock_us: manifest.meta.clock_us,
            run_id: manifest.meta.run_id,
        };
        Ok(self.chain(head, count_max)?.into_iter().map(info).collect())
    }

    /// The manifests from `head` backwards, as many as are there.
    pub(crate) fn chain(&self, head: &GenerationRef, count_max: usize) -> Result<Vec<(GenerationRef, Manifest)>, GenerationError> {
        let mut chain = Vec::new();
        let mut next = Some(head.clone());
        while let Some(wanted) = next.take().filter(|_| chain.len() < count_max) {
            match Manifest::load(&self.state, &self.keys, &wanted) {
                Ok(manifest) => {
                    next.clone_from(&manifest.base);
                    chain.push((wanted, manifest));
                }
                Err(GenerationError::ManifestMissing { .. }) if !chain.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(chain)
    }

    /// Reads every byte of a generation and compares it with what was committed.
    ///
    /// # Errors
    /// Where the manifest itself cannot be used, or the disk refuses.
    pub fn verify(&self, generation: &GenerationRef) -> Result<Verified, GenerationError> {
        Verifier::new(self).generation(generation)
    }

    /// The files in the folders of people that no version of the program has written. None of them is ever read or
    /// removed.
    ///
    /// # Errors
    /// Where a folder cannot be listed.
    pub fn foreign(&self) -> Result<Vec<PathBuf>, DiskError> {
        verify::foreign(self)
    }

    /// Removes what nobody needs any more. For the holder of the lease with this fence alone: it removes
    /// only files of smaller fences.
    ///
    /// # Errors
    /// Where a manifest that must be kept cannot be read (nothing is removed then), or the disk refuses.
    pub fn remove_orphans(&self, fence: u64, live: &LiveSet) -> Result<Removed, GenerationError> {
        orphans::remove(self, fence, live)
    }
}

/// A table, once somebody has opened it.
type Opened = Mutex<Option<Arc<OpenTable>>>;

/// A generation, open and pinned.
pub struct Generation {
    people: People,
    reference: GenerationRef,
    manifest: Manifest,
    /// Tables that were read before, so that what lives in them is worked out once.
    open: Mutex<HashMap<String, Arc<Opened>>>,
    /// The shared lock on its folder.
    _pin: File,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generation({})", self.reference.number)
    }
}

impl Generation {
    /// Which one it is.
    pub fn reference(&self) -> &GenerationRef {
        &self.reference
    }

    /// What it is made of, and what its run said of it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The sources that have records.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.manifest.tables.keys().filter_map(|name| name.strip_prefix("records/"))
    }

    /// The rows of a table that live, from the oldest file to the newest: the asked columns in the order
    /// asked, those left out that no file has, or all. A table that is not there has no rows.
    /// [`crate::Part::file`] is the place of the file in the manifest.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or types differ between files.
    pub fn live(&self, table: &str, columns: Option<&[&str]>) -> Result<Batches, GenerationError> {
        Batches::new(table, self.inputs(table)?, columns)
    }

    /// Some rows of a table that live, in full: of the n-th batch that [`Generation::live`] gives, the rows at the
    /// places that `wanted` has for n, ascending. A batch of which none is wanted is left out.
    ///
    /// # Errors
    /// As [`Generation::live`].
    pub fn live_at(&self, table: &str, wanted: &BTreeMap<usize, Vec<u32>>) -> Result<Batches, GenerationError> {
        Batches::rows_at(table, self.inputs(table)?, wanted)
    }

    fn inputs(&self, table: &str) -> Result<Vec<Input>, GenerationError> {
        match self.manifest.tables.get(table) {
            Some(files) => Ok(self.open_table(table, files)?.inputs(|_| true)),
            None => Ok(Vec::new()),
        }
    }

    fn open_table(&self, name: &str, table: &Table) -> Result<Arc<OpenTable>, GenerationError> {
        let place = Arc::clone(self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default());
        // Who wants the same table beside this waits for it.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*place {
            return Ok(Arc::clone(known));
        }
        Ok(Arc::clone(place.insert(Arc::new(OpenTable::open(&self.people, name, table)?))))
    }
}

/// The table that the rows of these segments go to.
fn table_of(segments: &[SegmentFile]) -> String {
    segments.first().map_or_else(String::new, |segment| format!("records/{}", segment.source))
}
