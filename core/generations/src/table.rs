//! Which rows of a table live: the newest of each key that was not removed.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Schema, UInt32Type};
use parquet::errors::ParquetError;

use crate::batches::Input;
use crate::parquet_file::FileReader;
use crate::{DataFile, FileEntry, FileKind, GenerationError, People, Table};

/// The column of a file of dropped rows.
pub(crate) const DROPPED_ROW: &str = "row";

/// Whether a schema has this key column.
pub(crate) fn is_key(schema: &Schema, column: &str) -> bool {
    schema.field_with_name(column).is_ok_and(|field| *field.data_type() == DataType::FixedSizeBinary(16) && !field.is_nullable())
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
        let mut newer: HashSet<u128, BuildHasherDefault<KeyHasher>> = HashSet::default();
        for at in (0..self.files.len()).rev() {
            let data = &self.files[at];
            let reader = &data.reader;
            let no_key = || GenerationError::KeyColumn { table: self.name.clone(), column: key.to_owned() };
            if !is_key(reader.schema(), key) {
                return Err(no_key());
            }
            let column = [reader.schema().index_of(key).map_err(|_| no_key())?];
            let groups: Vec<usize> = reader.group_rows().collect();
            let rows = groups.iter().sum();
            let ends = data.kind == FileKind::Rows && (data.live.is_some() || !newer.is_empty());
            if at == 0 && !ends {
                continue;
            }
            newer.reserve(if at > 0 { rows } else { 0 });
            let mut live = vec![true; if ends { rows } else { 0 }];
            let mut first = 0;
            for (group, group_rows) in groups.into_iter().enumerate() {
                let batch = reader.read_group(group, &column)?;
                if ends {
                    let live = &mut live[first..first + group_rows];
                    for (row, (live, key)) in live.iter_mut().zip(keys(&batch)).enumerate() {
                        let dropped = data.live.as_ref().is_some_and(|live| !live.value(first + row));
                        *live = !dropped && !newer.contains(&key);
                    }
                    // After the look-ups: what is in this file counts for older ones alone.
                    newer.extend(keys(&batch).zip(live).filter(|(_, live)| at > 0 && **live).map(|(key, _)| key));
                } else {
                    newer.extend(keys(&batch));
                }
                first += group_rows;
            }
            if live.contains(&false) {
                self.files[at].live = Some(BooleanBuffer::from(live));
            }
        }
        Ok(())
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
        let batch = reader.read_group(group, &[0])?;
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
