//! Why those of an audience who get no task get none: a table of its own, as it may have as many rows
//! as there are members.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use reunion_model::{ContactId, Gate, MemberId};

/// The word for a member of the control group, where others have the code of a gate.
pub const HELD_OUT: &str = "held_out";

/// One entry per member of an audience who gets no task, in columns of equal length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// The place of the campaign in the plan.
    pub campaign: Vec<u16>,
    /// The member.
    pub member_id: Vec<MemberId>,
    /// The member's contact point; `None` without a phone.
    pub contact: Vec<Option<ContactId>>,
    /// The gate that said no; `None` for the control group.
    pub gate: Vec<Option<Gate>>,
}

impl Decisions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.campaign.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.campaign.is_empty()
    }

    pub(crate) fn push(&mut self, campaign: u16, member_id: MemberId, contact: Option<ContactId>, gate: Option<Gate>) {
        self.campaign.push(campaign);
        self.member_id.push(member_id);
        self.contact.push(contact);
        self.gate.push(gate);
    }

    /// The columns of [`Decisions::batches`]: `campaign` (its name), `member_id` and `contact` (16
    /// bytes, the latter null without a phone), `decision` (a gate's code or [`HELD_OUT`]).
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("campaign", DataType::Utf8, false),
            Field::new("member_id", DataType::FixedSizeBinary(16), false),
            Field::new("contact", DataType::FixedSizeBinary(16), true),
            Field::new("decision", DataType::Utf8, false),
        ]))
    }

    /// The entries as batches of at most `rows_max` rows, made one at a time. `names` are the
    /// campaigns' names in the plan's order.
    pub fn batches<'a>(&'a self, names: &'a [&'a str], rows_max: usize) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'a {
        let rows_max = rows_max.max(1);
        (0..self.len()).step_by(rows_max).map(move |start| self.batch(names, start, rows_max.min(self.len() - start)))
    }

    fn batch(&self, names: &[&str], start: usize, rows: usize) -> Result<RecordBatch, ArrowError> {
        let mut campaign = StringBuilder::with_capacity(rows, rows * 16);
        let mut member_id = FixedSizeBinaryBuilder::with_capacity(rows, 16);
        let mut contact = FixedSizeBinaryBuilder::with_capacity(rows, 16);
        let mut decision = StringBuilder::with_capacity(rows, rows * 16);
        for row in start..start + rows {
            let name = names.get(usize::from(self.campaign[row]));
            campaign.append_value(name.ok_or_else(|| ArrowError::InvalidArgumentError("a campaign of the plan has no name".into()))?);
            member_id.append_value(self.member_id[row].0)?;
            match self.contact[row] {
                Some(id) => contact.append_value(id.0)?,
                None => contact.append_null(),
            }
            decision.append_value(self.gate[row].map_or(HELD_OUT, Gate::code));
        }
        RecordBatch::try_new(
            Self::schema(),
            vec![Arc::new(campaign.finish()), Arc::new(member_id.finish()), Arc::new(contact.finish()), Arc::new(decision.finish())],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    #[test]
    fn batches_hold_every_entry_once() {
        let mut decisions = Decisions::default();
        for number in 0..5_u128 {
            let contact = (number > 0).then(|| ContactId::from_u128(number));
            decisions.push(0, MemberId::from_u128(number), contact, (number != 3).then_some(Gate::Gap));
        }
        let batches: Vec<_> = decisions.batches(&["warm-add"], 2).map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(batches[1].column(3).as_string::<i32>().value(1), HELD_OUT);
        assert_eq!(batches[0].column(3).as_string::<i32>().value(0), "gap");
        assert!(batches[0].column(2).is_null(0));
        assert!(decisions.batches(&[], 2).next().unwrap().is_err());
    }
}
