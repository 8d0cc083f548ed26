//! Records: the rows of sources after normalisation, as they stand in segments.
//!
//! A record batch of records has the row's own columns below, then every canonical and further
//! column that the source has, by name. A batch belongs to one source; its name is not a column.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};

/// [`crate::RecordKey`], 16 bytes, never null.
pub const RECORD_KEY: &str = "record_key";
/// 16 bytes, never null: a hash of all that the row says, so that a record that did not change is told apart
/// from one that did.
pub const CONTENT_HASH: &str = "content_hash";
/// Text, never null: the row's id at the source. For a row that could not be read, where it stands
/// (`pos.csv:17`).
pub const RECORD_ID: &str = "record_id";
/// Text, null where the row is usable: the code of a [`crate::Reason`] found in the row alone.
/// Reasons that need other rows, such as a shared phone, are found later and are not here.
pub const REASON: &str = "reason";
/// Unsigned 64 bits, null where the row has no usable phone: the E.164 digits.
pub const PHONE: &str = "phone";
/// 16 bytes, null in rows of versions that did not have it: a hash of the row as the source gave it and of
/// everything that makes a record of it, so that a row that comes again as it was need not be read again.
pub const ROW_HASH: &str = "row_hash";
/// Text, null where there is none: the columns whose cell held something that does not fit their type and
/// counts as missing, by our names, with commas between them.
pub const UNFIT: &str = "unfit";
/// Text: the phone cell as it was, only where it was refused; for a row that could not be read, what
/// is wrong with it in detail. Personal data.
pub const RAW: &str = "raw";

/// The row's own columns, in the order in which they stand before all others.
pub fn own_fields() -> Vec<Field> {
    vec![
        Field::new(RECORD_KEY, DataType::FixedSizeBinary(16), false),
        Field::new(CONTENT_HASH, DataType::FixedSizeBinary(16), false),
        Field::new(RECORD_ID, DataType::Utf8, false),
        Field::new(REASON, DataType::Utf8, true),
        Field::new(PHONE, DataType::UInt64, true),
        Field::new(RAW, DataType::Utf8, true),
        Field::new(ROW_HASH, DataType::FixedSizeBinary(16), true),
        Field::new(UNFIT, DataType::Utf8, true),
    ]
}

/// The same rows with those columns alone whose names are to be kept.
pub fn only(batch: &RecordBatch, keep: impl Fn(&str) -> bool) -> RecordBatch {
    let fields = batch.schema_ref().fields().iter().enumerate();
    let columns = fields.filter(|(_, field)| keep(field.name())).map(|(at, _)| at).collect::<Vec<_>>();
    batch.project(&columns).expect("columns that are there")
}

/// Whether a name is taken by the row's own columns, so that no source column may have it.
pub fn is_own(name: &str) -> bool {
    own_fields().iter().any(|field| field.name() == name)
}
