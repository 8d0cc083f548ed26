//! What the state knows of tags: who has which since when; and what a run changes in it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use reunion_model::MemberId;
use reunion_model::schema::{MEMBER_ID, timestamp_type};

use crate::EvaluateError;

const TAG: &str = "tag";
const SINCE: &str = "since";

/// The columns of stored tags: `member_id` (16 bytes), `tag` (text), `since` (a moment); one row for each
/// member and tag that it has, none null.
pub fn tag_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), false),
        Field::new(TAG, DataType::Utf8, false),
        Field::new(SINCE, timestamp_type(), false),
    ]))
}

/// What a run changes in the stored tags.
#[derive(Debug, Clone, Default)]
pub struct TagDelta {
    /// Rows of [`tag_schema`] to put in the place of those with the same member and tag.
    pub upserts: Vec<RecordBatch>,
    /// Members and tags whose rows go: the first two columns of [`tag_schema`].
    pub removals: Vec<RecordBatch>,
}

/// The tags as the last generation left them.
#[derive(Debug, Default)]
pub struct TagState {
    tags: HashMap<String, Entries>,
    /// Members that were merged into others, and the others.
    forwards: HashMap<u128, u128>,
}

impl TagState {
    /// Adds stored rows. Each member and tag occurs once over all batches.
    ///
    /// # Errors
    /// Where the batch is not of [`tag_schema`].
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), EvaluateError> {
        let column = |name| batch.column_by_name(name).ok_or(EvaluateError::State(name));
        let ids =
            column(MEMBER_ID)?.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 16).ok_or(EvaluateError::State(MEMBER_ID))?;
        let names = cast(column(TAG)?, &DataType::Utf8).map_err(|_| EvaluateError::State(TAG))?;
        let names: &StringArray = names.as_string_opt().ok_or(EvaluateError::State(TAG))?;
        let since: &TimestampMicrosecondArray =
            column(SINCE)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or(EvaluateError::State(SINCE))?;
        if ids.null_count() + names.null_count() + since.null_count() > 0 {
            return Err(EvaluateError::State(MEMBER_ID));
        }
        // Rows of one tag stand together, so that its map is looked up once for all of them.
        let mut row = 0;
        while row < batch.num_rows() {
            let name = names.value(row);
            let end = (row..batch.num_rows()).find(|at| names.value(*at) != name).unwrap_or(batch.num_rows());
            let entries = self.tags.entry_ref(name).or_default();
            entries.reserve(end - row);
            for at in row..end {
                let Some(member) = MemberId::from_slice(ids.value(at)).map(MemberId::as_u128) else {
                    return Err(EvaluateError::State(MEMBER_ID));
                };
                entries.put(member, since.value(at), true);
            }
            row = end;
        }
        Ok(())
    }

    /// Follows merges, once all rows are there. `forwards` names the members that were merged away and the member
    /// that each was merged into, directly or over several steps: what was theirs is the other's, since the
    /// earliest time.
    #[must_use]
    pub fn merged(mut self, forwards: impl IntoIterator<Item = (MemberId, MemberId)>) -> Self {
        self.forwards = forwards.into_iter().map(|(from, into)| (from.as_u128(), into.as_u128())).collect();
        for entries in self.tags.values_mut() {
            for from in self.forwards.keys().copied() {
                let into = resolve(&self.forwards, from);
                if into != from
                    && let Some(since_us) = entries.take(from)
                {
                    entries.moved.push(from);
                    entries.put(into, since_us, false);
                }
            }
        }
        self
    }

    /// Since when a member has a tag, if it has it.
    pub fn since_us(&self, tag: &str, member: MemberId) -> Option<i64> {
        let entries = self.tags.get(tag)?;
        entries.find(resolve(&self.forwards, member.as_u128())).map(|at| entries.since_us[at])
    }

    /// The names of all stored tags, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tags.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn entries(&self, tag: &str) -> Option<&Entries> {
        self.tags.get(tag)
    }
}

/// The member that a member was merged into in the end. A circle of forwards, which only a damaged state
/// holds, ends where it began.
fn resolve(forwards: &HashMap<u128, u128>, member: u128) -> u128 {
    let mut at = member;
    for _ in 0..forwards.len() {
        match forwards.get(&at) {
            Some(into) if *into != member => at = *into,
            Some(_) => return member,
            None => break,
        }
    }
    at
}

/// The members that have one tag.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) members: Vec<u128>,
    pub(crate) since_us: Vec<i64>,
    /// Whether the member's own stored row says something else, or is not there.
    pub(crate) differs: Vec<bool>,
    /// Whether the member has a stored row of its own.
    pub(crate) has_own_row: Vec<bool>,
    /// Members whose rows go because they were merged into others.
    pub(crate) moved: Vec<u128>,
    index: HashTable<u32>,
}

/// Ids are uniform already: they are cut from an HMAC.
const fn hash(member: u128) -> u64 {
    (member >> 64) as u64 ^ member as u64
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn find(&self, member: u128) -> Option<usize> {
        self.index.find(hash(member), |at| self.members[*at as usize] == member).map(|at| *at as usize)
    }

    /// As [`Entries::find`], faster where it is the member at `next`.
    pub(crate) fn find_near(&self, member: u128, next: usize) -> Option<usize> {
        if self.members.get(next) == Some(&member) { Some(next) } else { self.find(member) }
    }

    /// The members that have a stored row of their own.
    pub(crate) fn own_rows(&self) -> impl Iterator<Item = u128> {
        self.members.iter().zip(&self.has_own_row).filter(|(_, own)| **own).map(|(member, _)| *member)
    }

    fn reserve(&mut self, more: usize) {
        let members = &self.members;
        self.index.reserve(more, |at| hash(members[*at as usize]));
    }

    /// Takes a member out; since when it had the tag. The last member takes its place.
    fn take(&mut self, member: u128) -> Option<i64> {
        let members = &self.members;
        let (at, _) = self.index.find_entry(hash(member), |at| members[*at as usize] == member).ok()?.remove();
        let (at, last) = (at as usize, self.members.len() - 1);
        if at != last {
            let moved = self.index.find_mut(hash(self.members[last]), |other| *other as usize == last);
            *moved.expect("every member is in the index") = at as u32;
        }
        self.members.swap_remove(at);
        self.differs.swap_remove(at);
        self.has_own_row.swap_remove(at);
        Some(self.since_us.swap_remove(at))
    }

    /// Adds what a stored row says of a member, or one of another member that was merged into it.
    fn put(&mut self, member: u128, since_us: i64, is_own_row: bool) {
        let members = &self.members;
        match self.index.entry(hash(member), |at| members[*at as usize] == member, |at| hash(members[*at as usize])) {
            Entry::Vacant(vacant) => {
                vacant.insert(u32::try_from(members.len()).expect("a process holds fewer members than 2³²"));
                self.members.push(member);
                self.since_us.push(since_us);
                self.differs.push(!is_own_row);
                self.has_own_row.push(is_own_row);
            }
            Entry::Occupied(occupied) => {
                let at = *occupied.get() as usize;
                self.differs[at] |= since_us < self.since_us[at];
                self.since_us[at] = self.since_us[at].min(since_us);
            }
        }
    }
}

/// Rows of [`tag_schema`] for one tag.
pub(crate) fn tag_rows(tag: &str, rows: &[(u128, i64)]) -> Result<RecordBatch, EvaluateError> {
    let since = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_data_type(timestamp_type());
    let mut columns = keys(tag, rows.iter().map(|row| row.0));
    columns.push(Arc::new(since));
    Ok(RecordBatch::try_new(tag_schema(), columns)?)
}

/// The first two columns of [`tag_schema`] for one tag.
pub(crate) fn tag_keys(tag: &str, members: &[u128]) -> Result<RecordBatch, EvaluateError> {
    Ok(RecordBatch::try_new(Arc::new(tag_schema().project(&[0, 1])?), keys(tag, members.iter().copied()))?)
}

fn keys(tag: &str, members: impl ExactSizeIterator<Item = u128>) -> Vec<ArrayRef> {
    let mut ids = FixedSizeBinaryBuilder::with_capacity(members.len(), 16);
    let mut tags = StringBuilder::with_capacity(members.len(), members.len() * tag.len());
    for member in members {
        ids.append_value(MemberId::from_u128(member).0).expect("an id has sixteen bytes");
        tags.append_value(tag);
    }
    vec![Arc::new(ids.finish()), Arc::new(tags.finish())]
}

/// `x_since` for the tag `x`.
pub(crate) fn since_column(tag: &str) -> String {
    format!("{tag}_since")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> MemberId {
        MemberId::from_u128(number)
    }

    #[test]
    fn what_was_merged_away_is_the_others_since_the_earliest_time() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let rows = [(1, 50), (2, 30), (3, 70)];
            let mut state = TagState::default();
            for at in order {
                state.add(&tag_rows("x", &[rows[at]]).expect("rows")).expect("a state");
            }
            let state = state.merged([(id(2), id(4)), (id(4), id(1)), (id(3), id(1))]);
            assert_eq!([1, 2, 3, 4].map(|member| state.since_us("x", id(member))), [Some(30); 4], "{order:?}");
            let entries = state.entries("x").expect("the tag");
            assert_eq!((entries.len(), entries.differs[0], entries.moved.len()), (1, true, 2));
        }
    }

    #[test]
    fn a_row_that_was_the_earliest_already_stays_as_it_is() {
        for order in [[0, 1], [1, 0]] {
            let rows = [(1, 10), (2, 30)];
            let mut state = TagState::default();
            for at in order {
                state.add(&tag_rows("x", &[rows[at]]).expect("rows")).expect("a state");
            }
            let state = state.merged([(id(2), id(1))]);
            let entries = state.entries("x").expect("the tag");
            assert_eq!((entries.since_us.as_slice(), entries.differs.as_slice()), (&[10][..], &[false][..]));
        }
    }

    #[test]
    fn a_circle_of_forwards_ends() {
        let state = TagState::default().merged([(id(1), id(2)), (id(2), id(3)), (id(3), id(2))]);
        assert_eq!(state.since_us("x", id(1)), None);
        assert_eq!(state.names(), Vec::<&str>::new());
    }

    #[test]
    fn other_batches_are_refused() {
        let batch = tag_keys("x", &[1]).expect("keys");
        assert!(matches!(TagState::default().add(&batch), Err(EvaluateError::State("since"))));
    }
}
