//! Which record is whose, as far as it is told: what the table of assignments gains. There are as many as records in a
//! first run, so that they become columns only as they are written.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch, StringBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use reunion_model::limits::BATCH_ROWS_MAX;
use reunion_model::record::{REASON, RECORD_KEY};
use reunion_model::{MemberId, Reason};

use crate::pull::{Chunk, RECORDS, Resolved, Starts};
use crate::table::{NONE, StateError, byte_reason, sixteen, sixteens, sixteens_of};

/// The table of assignments: every live record, once, with its member or the reason why it has none.
pub fn assignment_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(RECORD_KEY, DataType::FixedSizeBinary(16), false),
        Field::new("member_id", DataType::FixedSizeBinary(16), true),
        Field::new(REASON, DataType::Utf8, true),
    ]))
}

/// Assignments that are new or changed.
#[derive(Debug)]
pub struct Assignments {
    /// The keys of each chunk's records.
    keys: Vec<FixedSizeBinaryArray>,
    starts: Starts,
    /// Of each record its row, its member by its place in the ids, and why it has none.
    rows: Vec<u32>,
    members: Vec<u32>,
    reasons: Vec<u8>,
    ids: Arc<Vec<MemberId>>,
    /// Whether it is told of a record.
    told: BooleanBuffer,
}

/// Of each record whether its assignment differs from its previous one.
pub(super) fn told(resolved: &Resolved, set_of: &[u32], ids: &[MemberId], reasons: &[u8]) -> BooleanBuffer {
    let differs = |record: usize| {
        let had = || (resolved.previous_member[record] != NONE).then(|| resolved.member(resolved.previous_member[record]));
        let has = || (set_of[record] != NONE).then(|| ids[set_of[record] as usize]);
        !resolved.assigned[record] || resolved.previous_reason[record] != reasons[record] || had() != has()
    };
    BooleanBuffer::collect_bool(resolved.live.len(), |record| resolved.live[record] != NONE && differs(record))
}

impl Assignments {
    /// Those of the records that are `told`: of each one its row, its place in `ids` and its reason.
    pub(super) fn new(
        chunks: &[Chunk],
        rows: Vec<u32>,
        members: Vec<u32>,
        reasons: Vec<u8>,
        ids: Arc<Vec<MemberId>>,
        told: BooleanBuffer,
    ) -> Result<Self, StateError> {
        let keys = chunks.iter().map(|chunk| sixteens_of(&chunk.batch, RECORDS, RECORD_KEY).cloned());
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, starts: Starts::new(chunks)?, rows, members, reasons, ids, told })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.told.count_set_bits()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// They as columns, as [`assignment_schema`] has them, made as they are asked for.
    pub fn batches(&self) -> impl Iterator<Item = RecordBatch> {
        let (schema, mut records) = (assignment_schema(), self.told.set_indices());
        std::iter::from_fn(move || {
            let records = records.by_ref().take(BATCH_ROWS_MAX).collect::<Vec<_>>();
            (!records.is_empty()).then(|| self.batch(&schema, &records))
        })
    }

    fn batch(&self, schema: &SchemaRef, records: &[usize]) -> RecordBatch {
        let keys = sixteens(records.iter().map(|record| self.key(*record))).expect("a key has sixteen bytes");
        let mut members = FixedSizeBinaryBuilder::with_capacity(records.len(), 16);
        let mut reasons = StringBuilder::with_capacity(records.len(), 0);
        for record in records {
            match self.ids.get(self.members[*record] as usize) {
                Some(id) => members.append_value(id.0).expect("an id has sixteen bytes"),
                None => members.append_null(),
            }
            reasons.append_option(byte_reason(self.reasons[*record]).map(Reason::code));
        }
        let columns = vec![keys, Arc::new(members.finish()) as _, Arc::new(reasons.finish()) as _];
        RecordBatch::try_new(Arc::clone(schema), columns).expect("the columns are those of the schema, and as long as each other")
    }

    fn key(&self, record: usize) -> u128 {
        let (chunk, at) = self.starts.locate(self.rows[record]);
        sixteen(&self.keys[chunk], at)
    }
}
