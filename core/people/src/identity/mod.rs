//! Identity: which records are one member, and the member's id.
//!
//! 1. A usable record has a phone and no reason to be set aside. Who is on each phone is decided first ([`phones`]):
//!    a phone on more than `cards_max` of them is a cashier's or the store's, and all its records go to quarantine;
//!    one that was silent for long and then has another name is a new person's.
//! 2. Equal values of the configured keys join records (union-find, [`sets`]), and each set of joined records is a
//!    member. What an operator decided ([`decided`]) comes before all keys, and sets that break a rule are joined
//!    once more, step by step ([`apart`]).
//! 3. A member whose phone is somebody else's now is set aside: nobody can be reached there. Of each number that has had
//!    several holders is kept which of them a member is ([`held`]), for what must not pass from one to the next.
//! 4. Each set takes its id ([`ids`]). A member keeps its id while its records change. Of several members that are
//!    joined, the one founded first keeps its id and the others are forwarded to it. Of a member that is split, the
//!    part with most of its records keeps the id. A new member's id is a keyed hash of its founding record (the
//!    smallest by created_at, source and record id) and an epoch, which is 0 unless that id belongs to someone whom
//!    the record has left.
//!
//! All records that are given are decided anew, which makes the result independent of the history but for
//! the ids. [`crate::scope`] says which ones have to be given.

mod apart;
mod assigned;
mod decided;
mod held;
mod ids;
mod keys;
mod phones;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use reunion_keys::Lookup;
use reunion_model::record::{CONTENT_HASH, PHONE, REASON, RECORD_ID, RECORD_KEY};
use reunion_model::threads::both;
use reunion_model::{Decision, MemberId, RecordKey};

use crate::matching::KeySet;
use crate::pull::{Resolved, SourceCounts};
use crate::table::{NONE, StateError, all_sixteen, sixteens_of};

use assigned::told;
pub use assigned::{Assignments, assignment_schema};
pub use held::{Held, HeldNumbers};
use ids::{Ids, assign_ids};
pub(crate) use keys::{KeyColumns, KeyRow, Rule};
use sets::Sets;

const MEMBERS: &str = "members";
/// What a run comes to beside who is who, which everybody has to be decided anew for: 2 since it keeps who holds a number.
const TERMS: u32 = 2;
/// Ids or hashes made by one thread at the least, since a thread costs as much as a few hundred.
const HASHES_PER_THREAD_MIN: usize = 4096;

/// `[identity]`, as far as it decides who is who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// What joins records, in the order in which it is tried: each the columns whose values must all be equal.
    pub keys: Vec<Vec<String>>,
    /// What a value of a column may mean, where it is not [`KeyLimits::default`].
    pub limits: BTreeMap<String, KeyLimits>,
    /// What a phone on several cards means.
    pub shared_phone: SharedPhone,
}

/// What the values of a key column may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLimits {
    /// A value on more records is nobody's and joins none. Not for the phone, which has [`SharedPhone::cards_max`].
    pub records_max: u32,
    /// A member has no more values; `None` is any number.
    pub values_max: Option<u32>,
    /// Values that never join.
    pub blocked: Vec<String>,
}

impl KeyLimits {
    /// Those of a column of which nothing is said.
    const DEFAULT: &Self = &Self { records_max: 50, values_max: None, blocked: Vec::new() };
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self::DEFAULT.clone()
    }
}

/// `[identity.shared_phone]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPhone {
    /// Records on one phone from which on it is nobody's: more than this.
    pub cards_max: u32,
    /// The same where all of them carry one name, and no two birthdays: one person's cards of many stores.
    pub same_name_cards_max: u32,
    /// How long a phone is silent before another name on it is another person's, in microseconds. `None`: however
    /// long it was silent, the policy decides.
    pub recycled_after_us: Option<i64>,
    /// What happens on a phone that is somebody's and whose records carry different names.
    pub policy: SharedPhonePolicy,
}

/// What happens to records with different names on one phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedPhonePolicy {
    /// They are one member.
    #[default]
    Merge,
    /// Each name is a member, and the members share the phone. Records without a name belong to the
    /// one name there is, or, where there are several, together.
    Household,
    /// All of them are set aside.
    Quarantine,
}

impl SharedPhonePolicy {
    /// The policy with this name in configs.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "merge" => Self::Merge,
            "household" => Self::Household,
            "quarantine" => Self::Quarantine,
            _ => return None,
        })
    }
}

impl IdentityConfig {
    /// The limits of a column's values.
    pub(crate) fn limits_of(&self, column: &str) -> &KeyLimits {
        self.limits.get(column).unwrap_or(KeyLimits::DEFAULT)
    }

    /// All that decides who is who beside the records and decisions, as a text that changes with it: assignments
    /// that were made on other terms have to be made anew. This program's version is part of it.
    pub fn terms(&self) -> String {
        format!("{} {TERMS} {self:?}", env!("CARGO_PKG_VERSION"))
    }

    /// The columns that keys name, each once.
    pub(crate) fn key_columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for column in self.keys.iter().flatten() {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        columns
    }
}

/// The columns of records that identity needs; a chunk may lack those that its source does not have.
pub fn index_columns(config: &IdentityConfig) -> Vec<String> {
    let own = [RECORD_KEY, CONTENT_HASH, RECORD_ID, REASON, PHONE, "created_at", "updated_at"];
    let mut columns = own.into_iter().chain(phones::Hints::COLUMNS).map(str::to_owned).collect::<Vec<_>>();
    for key in config.key_columns() {
        if !columns.contains(&key) {
            columns.push(key);
        }
    }
    columns
}

/// The columns of the table of members that identity needs of the previous generation.
pub const PREVIOUS_MEMBER_COLUMNS: [&str; 5] = ["member_id", "founding", "founded_at", "epoch", CONTENT_HASH];

/// The members of the previous generation.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreviousMembers<'a> {
    /// Every live member whose records are given, once, with at least [`PREVIOUS_MEMBER_COLUMNS`].
    pub members: &'a [RecordBatch],
    /// Every live member, of whom nothing but the ids is read.
    pub everyone: &'a [RecordBatch],
    /// Ids that were forwarded to others, ever.
    pub forwarded: &'a [MemberId],
    /// [`HeldNumbers::all`] of everyone.
    pub held: &'a [Held],
}

impl PreviousMembers<'_> {
    /// Every id that is taken: nobody else may ever have it.
    fn each_id(&self, mut give: impl FnMut(u128)) -> Result<(), StateError> {
        for batch in self.everyone {
            let ids = sixteens_of(batch, MEMBERS, "member_id")?;
            all_sixteen(ids).for_each(&mut give);
        }
        self.forwarded.iter().for_each(|id| give(id.as_u128()));
        Ok(())
    }

    fn ids(&self) -> Result<KeySet, StateError> {
        let mut ids = KeySet::default();
        self.each_id(|id| _ = ids.insert(id))?;
        Ok(ids)
    }
}

/// The members of the new generation and what changed.
#[derive(Debug)]
pub struct Identified {
    /// One for each source, in the order of the sources.
    pub counts: Vec<SourceCounts>,
    /// Records that are gone, by source: to be removed from records and assignments.
    pub tombstones: Vec<Vec<RecordKey>>,
    /// Rows (chunk, row) that must be written once more at the end of their source, since a version
    /// that does not count stands behind them.
    pub restore: Vec<(u32, u32)>,
    /// All members.
    pub members: Members,
    /// Positions in `members` of those whose records changed in number or content.
    pub dirty: Vec<u32>,
    /// Live records of all sources, and how many of them are in quarantine.
    pub records: (u64, u64),
    /// Records of the largest member among the dirty ones.
    pub largest_member: u64,
    /// Members that are no more: forwarded ones, and those without records.
    pub removed: Vec<MemberId>,
    /// Members that were joined to others: from, into.
    pub merges: Vec<(MemberId, MemberId)>,
    /// New members made of records that left others: from, new.
    pub splits: Vec<(MemberId, MemberId)>,
    /// Who holds numbers that have had several holders.
    pub held: HeldNumbers,
}

/// Members, one value each in every column.
#[derive(Debug, Default)]
pub struct Members {
    /// Ids.
    pub ids: Arc<Vec<MemberId>>,
    /// The record that the id is made of.
    pub founding: Vec<RecordKey>,
    /// Its created_at in microseconds; the greatest of all where it has none.
    pub founded_at: Vec<i64>,
    /// The epoch that the id is made of.
    pub epoch: Vec<u32>,
    /// Content hash of the golden columns in the previous generation; 0 for a new member. Empty where all are new.
    pub previous_hash: Vec<u128>,
    /// Where each member's records begin in `records`; one more than there are members.
    pub starts: Vec<u32>,
    /// Records (chunk, row), those of a member together, the most recent first.
    pub records: Vec<(u32, u32)>,
    /// Source of each chunk.
    pub chunk_sources: Vec<u16>,
}

impl Members {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The records (chunk, row) of the member at this position, the most recent first.
    pub fn records_of(&self, member: usize) -> &[(u32, u32)] {
        &self.records[self.starts[member] as usize..self.starts[member + 1] as usize]
    }
}

impl Identified {
    /// For each chunk, the rows that the golden columns of the dirty members need, ascending: what to
    /// read in full.
    pub fn rows_needed(&self) -> Vec<Vec<u32>> {
        let mut needed = vec![Vec::new(); self.members.chunk_sources.len()];
        for member in &self.dirty {
            for (chunk, row) in self.members.records_of(*member as usize) {
                needed[*chunk as usize].push(*row);
            }
        }
        needed.iter_mut().for_each(|rows| rows.sort_unstable());
        needed
    }
}

/// Joins the live records into members, and says which record is whose. `recompute` makes every member dirty: for a run after the
/// survivorship rules or the columns changed. `decisions` are those that hold.
///
/// # Errors
/// Where the previous members are not what they should be.
pub fn identify(
    mut resolved: Resolved,
    config: &IdentityConfig,
    decisions: &[Decision],
    lookup: &Lookup,
    previous: PreviousMembers,
    recompute: bool,
) -> Result<(Identified, Assignments), StateError> {
    let mut reasons = resolved.reason.clone();
    let mut sets = sets::join(&resolved, config, lookup, decisions, &held::Known::new(previous.held), &mut reasons)?;
    resolved.count(&reasons);
    let founded = std::mem::take(&mut sets.founded);
    let Ids { mut members, taken_from, removed, merges, splits } = assign_ids(&resolved, &sets, founded, lookup, previous)?;
    let (told, dirty) = both(|| told(&resolved, &sets.set_of, &members.ids, &reasons), || dirty(&resolved, &sets, &taken_from, recompute));
    let held = held::held_numbers(&resolved, &sets, &members.ids, &removed, previous.held);
    let settled = resolved.input.settled;
    let live = (0..resolved.live.len()).filter(|record| resolved.live[*record] != NONE);
    let quarantined = live.clone().filter(|record| reasons[*record] != 0).count() as u64 + settled.quarantined;
    let records_in_all = live.count() as u64 + settled.live.iter().sum::<u64>();
    let largest_member = dirty.iter().map(|set: &u32| sets.range(*set as usize).len() as u64).max().unwrap_or_default();
    let restore = resolved.restore.iter().map(|row| resolved.rows.locate(*row)).map(|(chunk, row)| (chunk as u32, row as u32));
    let restore = restore.collect();
    let chunks = resolved.input.chunks;
    let assignments = Assignments::new(chunks, resolved.live, sets.set_of, reasons, Arc::clone(&members.ids), told)?;
    members.records = sets.places;
    members.starts = sets.starts;
    members.chunk_sources = chunks.iter().map(|chunk| chunk.source).collect();
    let identified = Identified {
        restore,
        counts: resolved.counts,
        tombstones: resolved.tombstones,
        members,
        dirty,
        records: (records_in_all, quarantined),
        largest_member,
        removed,
        merges,
        splits,
        held,
    };
    Ok((identified, assignments))
}

/// Sets whose records are not those of the member that they take the id of, or have other content.
fn dirty(resolved: &Resolved, sets: &Sets, taken_from: &[u32], recompute: bool) -> Vec<u32> {
    let mut had = vec![0_u32; resolved.members.len()];
    for member in resolved.previous_member.iter().filter(|member| **member != NONE) {
        had[*member as usize] += 1;
    }
    let is_dirty = |set: &usize| {
        let (member, records) = (taken_from[*set], &sets.records[sets.range(*set)]);
        recompute
            || member == NONE
            || had[member as usize] as usize != records.len()
            || records.iter().any(|record| resolved.previous_member[*record as usize] != member || resolved.changed[*record as usize])
    };
    (0..sets.len()).filter(is_dirty).map(|set| set as u32).collect()
}
