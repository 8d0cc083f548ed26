//! The table of holders: which members have records of a number that has had several holders, and with which record the
//! number came to each. Few members do, so the whole table is read and kept.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryBuilder, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use reunion_generations::GenerationWriter;
use reunion_keys::Lookup;
use reunion_model::schema::{MEMBER_ID, PHONE};
use reunion_model::{MemberId, Phone, RecordKey};
use reunion_outreach::Holders;
use reunion_people::Held;

use crate::failure::{Doing, Failure};

use super::people::{People, table};
use super::setup::Setup;

/// The table's name.
pub const TABLE: &str = "holders";
/// The key column: a hash of all others.
const KEY: &str = "holder_key";
const CAME_WITH: &str = "came_with";

/// The table of the head.
///
/// # Errors
/// Where it cannot be read.
pub fn read(setup: &Setup<'_>) -> Result<Vec<Held>, Failure> {
    let mut held: Vec<Held> = table(setup, TABLE, None)?.iter().flat_map(held_in).collect();
    held.sort_unstable();
    Ok(held)
}

/// The entries in a part of the table.
pub fn held_in(part: &RecordBatch) -> impl Iterator<Item = Held> {
    let column = |name: &str| part.column_by_name(name).expect("the table has this column");
    let (members, records) = (column(MEMBER_ID).as_fixed_size_binary(), column(CAME_WITH).as_fixed_size_binary());
    let phones = column(PHONE).as_primitive::<UInt64Type>();
    (0..part.num_rows()).map(move |row| Held {
        member: MemberId::from_slice(members.value(row)).expect("16 bytes"),
        phone: Phone::from_e164_digits(phones.value(row)),
        came_with: records.is_valid(row).then(|| RecordKey::from_slice(records.value(row)).expect("16 bytes")),
    })
}

/// Writes what changed.
///
/// # Errors
/// Where the disk refuses.
pub fn write(lookup: &Lookup, writer: &GenerationWriter<'_>, people: &People) -> Result<(), Failure> {
    let doing = || format!("the table {TABLE} cannot be written");
    writer.remove(TABLE, people.held.gone.iter().map(|held| key(lookup, held))).doing(doing)?;
    let new = batch(lookup, &people.held.new).doing(doing)?;
    writer.delta(TABLE, KEY, [new]).doing(doing)
}

/// As outreach takes them.
pub fn holders(lookup: &Lookup, held: &[Held]) -> Holders {
    Holders::new(lookup, held.iter().map(|held| (held.member, held.phone, held.came_with)))
}

fn key(lookup: &Lookup, held: &Held) -> [u8; 16] {
    let came_with = held.came_with.as_ref().map_or(&[][..], |record| &record.0);
    let parts = [&held.member.0[..], &held.phone.e164_digits().to_be_bytes(), came_with];
    lookup.row_hash(&parts.concat()).to_be_bytes()
}

fn batch(lookup: &Lookup, held: &[Held]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let [mut keys, mut members, mut records] = [(); 3].map(|()| FixedSizeBinaryBuilder::with_capacity(held.len(), 16));
    for held in held {
        keys.append_value(key(lookup, held))?;
        members.append_value(held.member.0)?;
        match held.came_with {
            Some(record) => records.append_value(record.0)?,
            None => records.append_null(),
        }
    }
    let phones = UInt64Array::from_iter_values(held.iter().map(|held| held.phone.e164_digits()));
    let sixteen = DataType::FixedSizeBinary(16);
    let schema = Schema::new(vec![
        Field::new(KEY, sixteen.clone(), false),
        Field::new(MEMBER_ID, sixteen.clone(), false),
        Field::new(PHONE, DataType::UInt64, false),
        Field::new(CAME_WITH, sixteen, true),
    ]);
    let columns: [arrow::array::ArrayRef; 4] =
        [Arc::new(keys.finish()), Arc::new(members.finish()), Arc::new(phones), Arc::new(records.finish())];
    RecordBatch::try_new(Arc::new(schema), columns.to_vec())
}
