//! Writing a generation: deltas on top of the base, compaction, and the manifest.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::errors::ParquetError;
use reunion_model::PullId;
use reunion_model::record::RECORD_KEY;
use reunion_model::threads::one_by_one;
use tracing::warn;

use crate::durable::{MANIFEST, TABLE, create_folder, failed, sync_folder, write_document};
use crate::layout::table_path;
use crate::manifest::VERSION;
use crate::parquet_file::FileWriter;
use crate::segment::key_batch;
use crate::table::{DROPPED_ROW, OpenTable, is_key};
use crate::{
    Batches, DataFile, DiskError, FileEntry, FileKind, Generation, GenerationError, GenerationRef, KeyRef, Manifest, ManifestMeta, People,
    SegmentFile, Table,
};

/// Files of a table, beyond which it is rewritten as one.
const FILES_MAX: usize = 32;

/// A generation whose files are durable. It counts from the moment in which the ledger's head names it.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What the head has to name.
    pub generation: GenerationRef,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Writes one generation. Tables may be written from several threads at once. Dropped before
/// [`GenerationWriter::finish`], it leaves files that no head names; they go with the orphans.
pub struct GenerationWriter<'a> {
    people: People,
    number: u64,
    fence: u64,
    base: Option<&'a Generation>,
    folder: PathBuf,
    ordinal: AtomicU64,
    draft: Mutex<Draft>,
}

#[derive(Default)]
struct Draft {
    tables: BTreeMap<String, Table>,
    segments: BTreeMap<String, Vec<SegmentFile>>,
}

impl<'a> GenerationWriter<'a> {
    pub(crate) fn begin(people: &People, number: u64, fence: u64, base: Option<&'a Generation>) -> Result<Self, GenerationError> {
        if let Some(base) = base.map(|base| base.reference().number).filter(|base| *base >= number) {
            return Err(GenerationError::NotNewer { number, base });
        }
        let folder = people.state().generation(number);
        create_folder(&folder)?;
        // Tables without a key belong to their generation alone.
        let tables = base.map(|base| base.manifest().tables.clone()).unwrap_or_default();
        let tables = tables.into_iter().filter(|(_, table)| table.key.is_some()).collect();
        let draft = Mutex::new(Draft { tables, segments: BTreeMap::new() });
        Ok(Self { people: people.clone(), number, fence, base, folder, ordinal: AtomicU64::new(0), draft })
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that take the place of those with the same `key` (16 bytes, once in all these batches), or
    /// are new.
    ///
    /// # Errors
    /// Where the key column is missing, the batches' types differ, or the disk refuses.
    pub fn delta(&self, table: &str, key: &str, batches: impl IntoIterator<Item = RecordBatch>) -> Result<(), GenerationError> {
        let file = self.write(table, Some(key), batches.into_iter().map(Ok))?;
        let mut draft = self.draft();
        let known = draft.tables.entry(table.to_owned()).or_default();
        if known.key.as_deref().is_some_and(|known| known != key) {
            return Err(GenerationError::KeyColumn { table: table.to_owned(), column: known.key.clone().unwrap_or_default() });
        }
        known.key = Some(key.to_owned());
        known.files.extend(file.map(|file| data_file(file, FileKind::Rows)));
        Ok(())
    }

    /// The whole table anew. With a key, later generations take it over and may write deltas to it;
    /// without one it belongs to this generation alone.
    ///
    /// # Errors
    /// As [`GenerationWriter::delta`].
    pub fn replace(&self, table: &str, key: Option<&str>, batches: impl IntoIterator<Item = RecordBatch>) -> Result<(), GenerationError> {
        let file = self.write(table, key, batches.into_iter().map(Ok))?;
        let files = file.map(|file| data_file(file, FileKind::Rows)).into_iter().collect();
        self.draft().tables.insert(table.to_owned(), Table { key: key.map(str::to_owned), files });
        Ok(())
    }

    /// Ends the rows with these keys that the table had before this call. A table that is not there
    /// loses nothing.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, table: &str, keys: impl ExactSizeIterator<Item = [u8; 16]>) -> Result<(), GenerationError> {
        let known = self.draft().tables.get(table).filter(|table| !table.files.is_empty()).and_then(|table| table.key.clone());
        let Some(key) = known.filter(|_| keys.len() > 0) else { return Ok(()) };
        let file = self.write(table, Some(&key), std::iter::once(Ok(key_batch(&key, keys))))?;
        let mut draft = self.draft();
        let files = &mut draft.tables.entry(table.to_owned()).or_default().files;
        files.extend(file.map(|file| data_file(file, FileKind::Removals)));
        Ok(())
    }

    /// Takes a segment into the records of its source, after those taken in before. The rows at
    /// `dropped` (places in the segment) count as never written: they lost to another row of the pull.
    ///
    /// # Errors
    /// Where the segment's file is missing or has another size, or the disk refuses.
    pub fn add_segment(&self, segment: &SegmentFile, dropped: &[u32]) -> Result<(), GenerationError> {
        for file in segment.files() {
            self.check_size(file)?;
        }
        let table = format!("records/{}", segment.source);
        let dropped_file = if dropped.is_empty() { None } else { self.write(&table, None, std::iter::once(Ok(row_batch(dropped))))? };
        let mut draft = self.draft();
        let records = draft.tables.entry(table).or_default();
        records.key = Some(RECORD_KEY.to_owned());
        records.files.extend(segment.rows.clone().map(|file| DataFile {
            file,
            kind: FileKind::Rows,
            dropped: dropped_file,
            dead_rows: dropped.len() as u64,
        }));
        draft.segments.entry(segment.source.clone()).or_default().push(segment.clone());
        Ok(())
    }

    /// Takes a table out of the generation, such as the records of a source that was retired, or gives
    /// it another name.
    pub fn rename(&self, table: &str, to: Option<&str>) {
        let mut draft = self.draft();
        if let (Some(taken), Some(to)) = (draft.tables.remove(table), to) {
            draft.tables.insert(to.to_owned(), taken);
        }
    }

    fn check_size(&self, file: &FileEntry) -> Result<(), GenerationError> {
        let path = self.people.state().people().join(&file.path);
        let found = std::fs::metadata(&path).map_err(failed("open", &path))?.len();
        if found == file.bytes {
            return Ok(());
        }
        let source = ParquetError::General(format!("it has {found} bytes, and {} were committed", file.bytes));
        Err(GenerationError::FileDamaged { path, source })
    }

    /// Writes batches to a file of their own; none where there are no rows.
    fn write(
        &self,
        table: &str,
        key: Option<&str>,
        batches: impl Iterator<Item = Result<RecordBatch, GenerationError>>,
    ) -> Result<Option<FileEntry>, GenerationError> {
        let mut writer: Option<FileWriter> = None;
        for batch in batches {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(self.file(table, key, &batch)?),
            };
            writer.write(&batch)?;
        }
        writer.map(FileWriter::finish).transpose()
    }

    fn file(&self, table: &str, key: Option<&str>, first: &RecordBatch) -> Result<FileWriter, GenerationError> {
        if let Some(key) = key.filter(|key| !is_key(first.schema_ref(), key)) {
            return Err(GenerationError::KeyColumn { table: table.to_owned(), column: key.to_owned() });
        }
        let name = table_path(self.number, table, self.ordinal.fetch_add(1, Ordering::Relaxed), self.fence);
        FileWriter::create(self.people.keys(), &self.people.state().people(), name, &TABLE, first.schema_ref(), first)
    }

    /// Compacts what needs it, writes the manifest, and makes everything durable. The generation counts
    /// once the ledger's head names it.
    ///
    /// # Errors
    /// Where a file of a table cannot be read for compaction, or the disk refuses.
    pub fn finish(self, meta: ManifestMeta) -> Result<Committed, GenerationError> {
        let Draft { tables, segments } = std::mem::take(&mut *self.draft());
        let pulls = pulls(&segments);
        let tables: Vec<_> = tables.into_iter().collect();
        let compact = |(name, table): &(String, Table)| Ok((name.clone(), self.compact(name, table.clone(), &pulls)?));
        let tables = one_by_one(&tables, usize::MAX, compact).into_iter().collect::<Result<_, GenerationError>>()?;
        let keys = self.people.keys();
        let key =
            KeyRef { version: keys.current(), fingerprint: keys.data_fingerprint(keys.current()).expect("the current data key is there") };
        let base = self.base.map(|base| base.reference().clone());
        let sources_sealed = String::new();
        let mut manifest =
            Manifest { version: VERSION, number: self.number, fence: self.fence, base, key, meta, sources_sealed, tables, segments };
        let path = self.folder.join(manifest.file_name());
        let random = |error| DiskError { action: "seal", path: path.clone(), source: std::io::Error::other(error) };
        let bytes = manifest.seal(keys).map_err(random)?;
        // The names of the tables' files last before a manifest that names them does.
        sync_folder(&self.folder, &TABLE)?;
        let checksum = write_document(&path, &bytes, &MANIFEST)?;
        Ok(Committed { generation: GenerationRef { number: self.number, checksum }, manifest })
    }

    /// Rewrites files in which too much is dead, and counts what is dead in the others. Nothing of it where
    /// there cannot be much.
    ///
    /// - Files in which nothing lives are left out.
    /// - Over a quarter of the other rows dead or removals, or more than [`FILES_MAX`] files: all of
    ///   it becomes one file.
    /// - Else files of which over half is dead become one.
    ///
    /// Rows that live are newer than every other row of their key, so the new file is right at the end.
    fn compact(&self, name: &str, mut table: Table, pulls: &Pulls<'_>) -> Result<Table, GenerationError> {
        let before = self.base.and_then(|base| base.manifest().tables.get(name)).map_or(&[][..], |base| &base.files);
        if table.key.is_none() || table.files.len() < 2 || table.files == before {
            return Ok(table);
        }
        let inherited = table.files.iter().zip(before).take_while(|(data, before)| data == before).count();
        bound_dead_rows(&mut table.files, inherited, pulls);
        let many = table.files.len() > FILES_MAX;
        if !many && (inherited == 0 || !is_garbage(garbage(table.files.iter()), table.files.iter())) {
            return Ok(table);
        }
        let open = OpenTable::open(&self.people, name, &table)?;
        for (data, dead) in table.files.iter_mut().zip(open.dead_rows()) {
            data.dead_rows = dead;
        }
        let needed = needed_files(&table.files);
        let files = || table.files.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(data, _)| data);
        let all = files().count() > FILES_MAX || is_garbage(garbage(files()), files());
        let victim =
            |(data, needed): (&DataFile, &bool)| *needed && (all || (data.kind == FileKind::Rows && data.dead_rows * 2 > data.file.rows));
        let victims: Vec<bool> = table.files.iter().zip(&needed).map(victim).collect();
        let live = match Batches::new(name, open.inputs(|at| victims[at]), None) {
            Ok(live) => live,
            Err(error @ GenerationError::SchemaConflict { .. }) => {
                warn!(table = name, %error, "files are not compacted");
                return Ok(table);
            }
            Err(error) => return Err(error),
        };
        let file = self.write(name, table.key.as_deref(), live.map(|part| part.map(|part| part.batch)))?;
        let stays = needed.iter().zip(victims).map(|(needed, victim)| *needed && !victim);
        let left = table.files.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|(data, _)| data);
        let files = left.chain(file.map(|file| data_file(file, FileKind::Rows))).collect();
        Ok(Table { key: table.key, files })
    }
}

/// Whether so many rows are too many of all rows of these files.
fn is_garbage<'a>(garbage: u64, files: impl Iterator<Item = &'a DataFile>) -> bool {
    garbage * 4 > files.map(|data| data.file.rows).sum()
}

/// Rows of these files that say nothing.
fn garbage<'a>(files: impl Iterator<Item = &'a DataFile>) -> u64 {
    files.map(|data| if data.kind == FileKind::Removals { data.file.rows } else { data.dead_rows }).sum()
}

/// The pull of each file that is a segment, by its path.
type Pulls<'a> = HashMap<&'a str, PullId>;

fn pulls(segments: &BTreeMap<String, Vec<SegmentFile>>) -> Pulls<'_> {
    let segments = segments.values().flatten();
    segments.filter_map(|segment| Some((segment.rows.as_ref()?.path.as_str(), segment.pull))).collect()
}

/// Adds to the dead rows of each file what the files from the place `new` on can end in it: a row ends one row at
/// the most in each file before its own, and none in one of its own pull, whose repeated rows were dropped.
fn bound_dead_rows(files: &mut [DataFile], new: usize, pulls: &Pulls<'_>) {
    let pull = |data: &DataFile| pulls.get(data.file.path.as_str()).copied();
    for at in 0..files.len() {
        if files[at].kind == FileKind::Removals {
            continue;
        }
        let own = pull(&files[at]);
        let newer = files.iter().skip(new.max(at + 1)).filter(|newer| own.is_none() || pull(newer) != own);
        let ends: u64 = newer.map(|newer| newer.file.rows).sum();
        files[at].dead_rows = files[at].file.rows.min(files[at].dead_rows + ends);
    }
}

/// Which files of a table are still needed: those in which something lives, and removals that have such
/// files before them.
fn needed_files(files: &[DataFile]) -> Vec<bool> {
    let mut lives = false;
    let needed = |data: &DataFile| {
        let needed = match data.kind {
            FileKind::Rows => data.dead_rows < data.file.rows,
            FileKind::Removals => lives,
        };
        lives |= needed;
        needed
    };
    files.iter().map(needed).collect()
}

fn data_file(file: FileEntry, kind: FileKind) -> DataFile {
    DataFile { file, kind, dropped: None, dead_rows: 0 }
}

fn row_batch(rows: &[u32]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new(DROPPED_ROW, DataType::UInt32, false)]);
    let rows: ArrayRef = Arc::new(UInt32Array::from(rows.to_vec()));
    RecordBatch::try_new(Arc::new(schema), vec![rows]).expect("one column of its own type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_one_row_at_the_most_in_each_file_before_its_own() {
        let file = |path: &str, rows, kind, dead_rows| {
            let file = FileEntry { path: path.to_owned(), rows, bytes: 0, checksum: String::new(), data_key: None };
            DataFile { dead_rows, ..data_file(file, kind) }
        };
        let rows = |rows| file("", rows, FileKind::Rows, 0);
        let dead = |mut files: Vec<DataFile>, new| {
            let pulls = HashMap::from([("a", PullId([1; 16])), ("b", PullId([1; 16])), ("c", PullId([2; 16]))]);
            bound_dead_rows(&mut files, new, &pulls);
            (files.iter().map(|data| data.dead_rows).collect::<Vec<_>>(), garbage(files.iter()))
        };
        assert_eq!(dead(vec![rows(100), rows(10)], 1), (vec![10, 0], 10));
        assert_eq!(dead(vec![rows(100), rows(10), rows(20)], 1), (vec![30, 10, 0], 40), "all of the second may be dead");
        assert_eq!(dead(vec![rows(100), rows(10), rows(20)], 2), (vec![20, 10, 0], 30), "what the second ended was counted before");
        assert_eq!(dead(vec![rows(100), file("", 10, FileKind::Removals, 0)], 1), (vec![10, 0], 20), "a removal is garbage itself");
        assert_eq!(dead(vec![file("", 100, FileKind::Rows, 5), rows(10)], 1), (vec![15, 0], 15), "what was dead before stays so");
        let segment = |path| file(path, 50, FileKind::Rows, 3);
        assert_eq!(dead(vec![segment("a"), segment("b"), segment("c")], 0), (vec![50, 50, 3], 103), "a pull ends no rows of its own");
        assert_eq!(dead(vec![segment("a"), segment("b")], 0), (vec![3, 3], 6));
        assert!(is_garbage(28, [rows(100), rows(10)].iter()) && !is_garbage(27, [rows(100), rows(10)].iter()));
    }
}
