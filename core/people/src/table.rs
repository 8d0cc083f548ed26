//! What the later stages need of Arrow batches: typed columns by name, keys as numbers, and a table
//! that numbers distinct keys.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use hashbrown::HashTable;
use reunion_model::Reason;
use reunion_model::schema::timestamp_type;

/// Stands for "none" in columns of positions.
pub(crate) const NONE: u32 = u32::MAX;

/// A moment that is not known, which comes after all others.
pub(crate) const NO_MOMENT: i64 = i64::MAX;

/// A state or a set of batches that the stages after the pull cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A batch without a column that it must have.
    #[error("a batch of {table} has no column \"{column}\" of type {expected}; the state was written by another version or is damaged")]
    Column {
        /// What the batch holds.
        table: &'static str,
        /// The column.
        column: String,
        /// Its type.
        expected: DataType,
    },
    /// A reason that does not exist.
    #[error("a record is in quarantine for \"{0}\", a reason that this version does not know")]
    Reason(String),
    /// Records of a member that is not there.
    #[error("records are assigned to the member {0}, which is not in the table of members; run `reunion verify`")]
    Member(reunion_model::MemberId),
    /// More sources than a member's mask has bits.
    #[error("there are {0} sources, and a state holds at most 64; join small ones in one source")]
    Sources(usize),
    /// More rows than a position can number.
    #[error("there are more than four thousand million rows")]
    Rows,
    /// A defect of ours.
    #[error("a result could not be put into columns")]
    Arrow(#[from] ArrowError),
}

/// A column of 16-byte keys.
pub(crate) fn sixteens_of<'a>(batch: &'a RecordBatch, table: &'static str, column: &str) -> Result<&'a FixedSizeBinaryArray, StateError> {
    Ok(typed(batch, table, column, &DataType::FixedSizeBinary(16))?.as_fixed_size_binary())
}

/// A column of text.
pub(crate) fn texts_of<'a>(batch: &'a RecordBatch, table: &'static str, column: &str) -> Result<&'a StringArray, StateError> {
    Ok(typed(batch, table, column, &DataType::Utf8)?.as_string())
}

/// A column of numbers.
pub(crate) fn numbers_of<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    table: &'static str,
    column: &str,
) -> Result<&'a PrimitiveArray<T>, StateError> {
    Ok(typed(batch, table, column, &T::DATA_TYPE)?.as_primitive())
}

/// A column of moments; `None` where the batch does not have it.
pub(crate) fn moments_of<'a>(
    batch: &'a RecordBatch,
    table: &'static str,
    column: &str,
) -> Result<Option<&'a PrimitiveArray<TimestampMicrosecondType>>, StateError> {
    match batch.column_by_name(column) {
        None => Ok(None),
        Some(_) => Ok(Some(typed(batch, table, column, &timestamp_type())?.as_primitive())),
    }
}

pub(crate) fn typed<'a>(
    batch: &'a RecordBatch,
    table: &'static str,
    column: &str,
    expected: &DataType,
) -> Result<&'a ArrayRef, StateError> {
    let found = batch.column_by_name(column).filter(|array| array.data_type() == expected);
    found.ok_or_else(|| StateError::Column { table, column: column.to_owned(), expected: expected.clone() })
}

/// The key at this row as a number, in the order of its bytes.
#[inline]
pub(crate) fn sixteen(array: &FixedSizeBinaryArray, row: usize) -> u128 {
    array.value(row).try_into().map_or(0, u128::from_be_bytes)
}

/// All keys of a column as numbers; what stands in the place of a null is of no meaning.
#[inline]
pub(crate) fn all_sixteen(array: &FixedSizeBinaryArray) -> impl ExactSizeIterator<Item = u128> {
    bytes_of_sixteen(array).iter().map(|key| u128::from_be_bytes(*key))
}

/// The same as they are.
pub(crate) fn bytes_of_sixteen(array: &FixedSizeBinaryArray) -> &[[u8; 16]] {
    let start = array.offset() * 16;
    array.value_data()[start..start + array.len() * 16].as_chunks::<16>().0
}

/// A column of 16-byte keys of these numbers.
pub(crate) fn sixteens(keys: impl IntoIterator<Item = u128>) -> Result<ArrayRef, ArrowError> {
    let keys = keys.into_iter();
    let mut bytes = Vec::with_capacity(keys.size_hint().0 * 16);
    // Byte by byte it would take several times as long.
    keys.for_each(|key| bytes.extend_from_slice(&key.to_be_bytes()));
    Ok(std::sync::Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(bytes), None)?))
}

/// A reason in one byte; 0 is none.
pub(crate) fn reason_byte(code: Option<&str>) -> Result<u8, StateError> {
    let Some(code) = code else { return Ok(0) };
    let at = Reason::ALL.iter().position(|reason| reason.code() == code);
    at.map(|at| at as u8 + 1).ok_or_else(|| StateError::Reason(code.to_owned()))
}

/// The reason of a byte.
pub(crate) fn byte_reason(byte: u8) -> Option<Reason> {
    Some(Reason::ALL[usize::from(byte.checked_sub(1)?)])
}

/// The byte of a reason.
pub(crate) fn byte_of(reason: Reason) -> u8 {
    Reason::ALL.iter().position(|other| *other == reason).map_or(0, |at| at as u8 + 1)
}

/// Numbers distinct keys from 0 on, in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    slots: HashTable<u32>,
    pub(crate) keys: Vec<u128>,
}

/// Keys are hashes already or numbers with their entropy in the low bits; one multiplication spreads both.
#[inline]
pub(crate) fn spread(key: u128) -> u64 {
    let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

impl KeyTable {
    pub(crate) fn with_capacity(keys: usize) -> Self {
        Self { slots: HashTable::with_capacity(keys), keys: Vec::with_capacity(keys) }
    }

    #[inline]
    pub(crate) fn find(&self, key: u128) -> Option<u32> {
        self.slots.find(spread(key), |at| self.keys[*at as usize] == key).copied()
    }

    /// The key's number, and whether it is new.
    #[inline]
    pub(crate) fn insert(&mut self, key: u128) -> (u32, bool) {
        let Self { slots, keys } = self;
        match slots.entry(spread(key), |at| keys[*at as usize] == key, |at| spread(keys[*at as usize])) {
            hashbrown::hash_table::Entry::Occupied(entry) => (*entry.get(), false),
            hashbrown::hash_table::Entry::Vacant(entry) => {
                let at = keys.len() as u32;
                entry.insert(at);
                keys.push(key);
                (at, true)
            }
        }
    }
}
