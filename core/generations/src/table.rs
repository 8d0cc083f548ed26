//! Which rows of a table live: the newest of each key that was not removed.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Schema, UInt32Type};
use parquet::errors::ParquetError;

use crate::batches::Input;
use crate::parquet_file::FileReader;
use crate::sixteen::is_sixteen;
use crate::{DataFile, FileEntry, FileKind, GenerationError, People, Table};

/// The column of a file of dropped rows.
pub(crate) const DROPPED_ROW: &str = "row";

/// Whether a schema has this key column.
pub(crate) fn is_key(schema: &Schema, column: &str) -> bool {
    schema.field_with_name(column).is_ok_and(|field| is_sixteen(field.data_type()) && !field.is_nullable())
}

/// A table with the footers of its files read, and with what lives in them.
pub(crate) struct OpenTable {
    name: String,
    files: Vec<OpenData>,
}

struct OpenData {
    reader: Arc<FileReader>,
    kind: FileKind,
    /// The rows that live, where not all do. Nothing for removals.
    live: Option<BooleanBuffer>,
}

impl OpenTable {
    pub(crate) fn open(people: &People, name: &str, table: &Table) -> Result<Self, GenerationError> {
        let open = |data: &DataFile| {
            let reader = people.reader(&data.file)?;
            let live = data.dropped.as_ref().map(|entry| not_dropped(people, entry, &reader)).transpose()?;
            Ok(OpenData { reader, kind: data.kind, live })
        };
        let mut open = Self { name: name.to_owned(), files: table.files.iter().map(open).collect::<Result<_, GenerationError>>()? };
        if let Some(key) = &table.key
            && open.files.len() > 1
        {
            open.override_rows(key)?;
        }
        Ok(open)
    }

    /// Goes from the newest file to the oldest and ends each row whose key was seen before.
    ///
    /// Within one file a key stands once among the rows that are not dropped, so that the oldest file
    /// need not be remembered.
    fn override_rows(&mut self, key: &str) -> Result<(), GenerationError> {
        let rows_of = |data: &OpenData| data.reader.group_rows().sum::<usize>();
        let mut newer = Newer::with_capacity(self.files[1..].iter().map(rows_of).sum());
        for at in (0..self.files.len()).rev() {
            let data = &self.files[at];
            let ends = data.kind == FileKind::Rows && (data.live.is_some() || !newer.is_empty());
            if at == 0 && !ends {
                continue;
            }
            let mut keys = self.keys(data, key)?;
            if ends {
                let dropped = |row: usize| data.live.as_ref().is_some_and(|live| !live.value(row));
                let ended = newer.among(&keys);
                let live: Vec<bool> = (0..keys.len()).map(|row| !dropped(row) && !ended.contains(&keys[row])).collect();
                let mut is_live = live.iter().copied();
                keys.retain(|_| is_live.next().unwrap_or_default());
                if live.contains(&false) {
                    self.files[at].live = Some(BooleanBuffer::from(live));
                }
            }
            if at > 0 {
                newer.add(keys);
            }
        }
        Ok(())
    }

    /// The keys of a file, row after row.
    fn keys(&self, data: &OpenData, key: &str) -> Result<Vec<u128>, GenerationError> {
        let reader = &data.reader;
        let no_key = || GenerationError::KeyColumn { table: self.name.clone(), column: key.to_owned() };
        if !is_key(reader.schema(), key) {
            return Err(no_key());
        }
        let column = [reader.schema().index_of(key).map_err(|_| no_key())?];
        let mut all = Vec::with_capacity(reader.group_rows().sum());
        for group in 0..reader.group_rows().count() {
            all.extend(keys(&reader.read_group(group, &column, None)?));
        }
        Ok(all)
    }

    /// Rows of each file that do not live.
    pub(crate) fn dead_rows(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|data| data.live.as_ref().map_or(0, |live| (live.len() - live.count_set_bits()) as u64))
    }

    /// What is to be read of the files for which `wanted` holds.
    pub(crate) fn inputs(&self, wanted: impl Fn(usize) -> bool) -> Vec<Input> {
        let files = self.files.iter().enumerate().filter(|(at, data)| data.kind == FileKind::Rows && wanted(*at));
        files.map(|(file, data)| Input { reader: Arc::clone(&data.reader), file, live: data.live.clone() }).collect()
    }
}

/// The rows of a file without those that `entry` says are dropped.
fn not_dropped(people: &People, entry: &FileEntry, file: &FileReader) -> Result<BooleanBuffer, GenerationError> {
    let reader = people.reader(entry)?;
    let rows = file.group_rows().sum();
    let mut live = vec![true; rows];
    for group in 0..reader.group_rows().count() {
        let batch = reader.read_group(group, &[0], None)?;
        let positions = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
        for row in positions.into_iter().flat_map(|positions| positions.values()) {
            let Some(row) = live.get_mut(*row as usize) else {
                let source = ParquetError::General(format!("row {row} is dropped, and the file has {rows}"));
                return Err(GenerationError::FileDamaged { path: reader.path().to_owned(), source });
            };
            *row = false;
        }
    }
    Ok(BooleanBuffer::from(live))
}

/// The keys of a batch whose only column they are.
pub(crate) fn keys(batch: &RecordBatch) -> impl Iterator<Item = u128> {
    let bytes = batch.columns().first().and_then(|column| column.as_fixed_size_binary_opt()).map(|column| {
        let start = column.offset() * 16;
        &column.value_data()[start..start + column.len() * 16]
    });
    bytes.unwrap_or_default().as_chunks::<16>().0.iter().map(|key| u128::from_be_bytes(*key))
}

/// The keys of newer files. A filter of a few bits a key stays in the cache and tells nearly all others; the few
/// keys that pass it are looked for all together. In a table of all keys each question would miss the cache.
struct Newer {
    filter: Vec<u64>,
    /// By file.
    keys: Vec<Vec<u128>>,
}

impl Newer {
    const BITS_MIN: usize = 1 << 12;

    fn with_capacity(keys: usize) -> Self {
        let bits = (keys * 16).next_power_of_two().max(Self::BITS_MIN);
        Self { filter: vec![0; bits / 64], keys: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.keys.iter().all(Vec::is_empty)
    }

    /// Word and bit of a key. Keys are keyed hashes already: any part of one is a hash of it.
    fn place(&self, key: u128) -> (usize, u64) {
        let hash = (key >> 64) as usize;
        ((hash / 64) & (self.filter.len() - 1), 1 << (hash % 64))
    }

    fn add(&mut self, keys: Vec<u128>) {
        for key in &keys {
            let (word, bit) = self.place(*key);
            self.filter[word] |= bit;
        }
        self.keys.push(keys);
    }

    /// Those of some keys that are among these.
    fn among(&self, keys: &[u128]) -> KeySet {
        let passes = |key: &u128| {
            let (word, bit) = self.place(*key);
            self.filter[word] & bit != 0
        };
        let passed: KeySet = keys.iter().copied().filter(passes).collect();
        if passed.is_empty() {
            return passed;
        }
        self.keys.iter().flatten().copied().filter(|key| passed.contains(key)).collect()
    }
}

type KeySet = HashSet<u128, BuildHasherDefault<KeyHasher>>;

/// Keys are keyed hashes already: their low half is as good as any hash of them.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(29) ^ u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key as u64) ^ ((key >> 64) as u64).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_the_filter_is_still_looked_for() {
        // The filter sees the upper half alone.
        let key = |lower: u128| 1 << 64 | lower;
        let mut newer = Newer::with_capacity(3);
        assert!(newer.is_empty());
        newer.add(vec![key(1), key(2)]);
        newer.add(vec![5 << 64]);
        assert_eq!(newer.among(&[key(1), key(3), 5 << 64, 6 << 64]), KeySet::from_iter([key(1), 5 << 64]));
        assert!(newer.among(&[key(3), 7 << 64]).is_empty());
    }
}
