//! Numbers that came to somebody else: which of their holders each record is of.
//!
//! What belongs to a person and is kept by number has to tell the holders of a number apart. A holder after the first is
//! named by the record that the number came with. Which record that is stays as it was, for as long as it is there: an
//! older card of the same person may be found later, and the rows of whoever had the number before may be deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use reunion_model::{MemberId, Phone, RecordKey};

use super::sets::Sets;
use crate::matching::KeySet;
use crate::pull::Resolved;
use crate::table::NONE;

/// That a member has records of a number that has had several holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The member.
    pub member: MemberId,
    /// The number.
    pub phone: Phone,
    /// The record with which the number came to this holder; `None` for the first holder that is known. A member that
    /// is several of them has one entry for each.
    pub came_with: Option<RecordKey>,
}

/// Who holds numbers that have had several holders, after a run, and what changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldNumbers {
    /// Of all members, sorted.
    pub all: Vec<Held>,
    /// Entries that were not there before.
    pub new: Vec<Held>,
    /// Entries that are no more.
    pub gone: Vec<Held>,
}

/// Of each number the records that it is known to have come with.
pub(super) struct Known {
    by_phone: HashMap<u64, HashSet<u128>>,
    /// The same numbers, as a set that is quick to ask about every record.
    phones: KeySet,
}

impl Known {
    pub(super) fn new(held: &[Held]) -> Self {
        let mut known = Self { by_phone: HashMap::new(), phones: KeySet::default() };
        for Held { phone, came_with, .. } in held {
            if let Some(record) = came_with {
                known.by_phone.entry(phone.e164_digits()).or_default().insert(record.as_u128());
                known.phones.insert(phone.e164_digits().into());
            }
        }
        known
    }

    fn has(&self, phone: u64) -> bool {
        self.phones.contains(phone.into())
    }
}

/// For the records of each number that has had several holders, with which record it came to theirs. `holders` has the
/// holder of each usable record, `NONE` where it is set aside; `turns` how often the number had come to somebody else,
/// by the record's place among the usable ones, where it did at all.
pub(super) fn came_with(
    resolved: &Resolved,
    usable: &[u32],
    holders: &[u32],
    turns: &BTreeMap<u32, u8>,
    known: &Known,
) -> Vec<(u32, Option<u128>)> {
    let phone = |place: u32| resolved.rows.phone(resolved.live[usable[place as usize] as usize]);
    let mut places = turns.keys().copied().collect::<BTreeSet<_>>();
    if !known.by_phone.is_empty() {
        places.extend((0..usable.len() as u32).filter(|place| known.has(phone(*place))));
    }
    let mut phones: BTreeMap<u64, BTreeMap<u8, Vec<u32>>> = BTreeMap::new();
    for place in places.into_iter().filter(|place| holders[*place as usize] != NONE) {
        let turn = turns.get(&place).copied().unwrap_or_default();
        phones.entry(phone(place)).or_default().entry(turn).or_default().push(usable[place as usize]);
    }
    let none = HashSet::new();
    let mut found = Vec::new();
    for (phone, turns) in phones {
        let known = known.by_phone.get(&phone).unwrap_or(&none);
        let came = turns.iter().map(|(turn, records)| (holders_of(resolved, *turn, records, known), records)).collect::<Vec<_>>();
        if came.iter().any(|(came, _)| came.iter().any(Option::is_some)) {
            let pairs = came.iter().flat_map(|(came, records)| records.iter().flat_map(|record| came.iter().map(|came| (*record, *came))));
            found.extend(pairs);
        }
    }
    found
}

/// Which holders of a number these records are of: of one, but where records of several are one person's now.
fn holders_of(resolved: &Resolved, turn: u8, records: &[u32], known: &HashSet<u128>) -> Vec<Option<u128>> {
    let key = |record: &u32| resolved.key(*record);
    let row = |record: &u32| resolved.live[*record as usize];
    let first = records.iter().min_by(|a, b| resolved.founding_order(row(a), row(b))).map(key);
    let mut holders = records.iter().map(key).filter(|key| known.contains(key)).map(Some).collect::<BTreeSet<_>>();
    if turn > 0 && holders.is_empty() {
        holders.insert(first);
    }
    // Cards from before the number came to them: of the first holder, who is the same person after all.
    if turn == 0 && !holders.contains(&first) {
        holders.insert(None);
    }
    holders.into_iter().collect()
}

/// Who holds these numbers, of all members: those that were decided have other entries than `before`, the others the same.
pub(super) fn held_numbers(resolved: &Resolved, sets: &Sets, ids: &[MemberId], removed: &[MemberId], before: &[Held]) -> HeldNumbers {
    if sets.held.is_empty() && before.is_empty() {
        return HeldNumbers::default();
    }
    let held = sets.held.iter().filter_map(|(record, came_with)| {
        let member = *ids.get(sets.set_of[*record as usize] as usize)?;
        let phone = Phone::from_e164_digits(resolved.rows.phone(resolved.live[*record as usize]));
        Some(Held { member, phone, came_with: came_with.map(RecordKey::from_u128) })
    });
    let held = held.collect::<BTreeSet<_>>();
    // A run may decide millions of members, of whom a few hold such a number.
    let mut had_one = KeySet::default();
    before.iter().for_each(|held| _ = had_one.insert(held.member.as_u128()));
    let decided = resolved.members.iter().copied().chain(removed.iter().map(|member| member.as_u128()));
    let decided = decided.filter(|member| had_one.contains(*member)).map(MemberId::from_u128).collect::<HashSet<_>>();
    let (had, kept): (BTreeSet<_>, BTreeSet<_>) = before.iter().copied().partition(|held| decided.contains(&held.member));
    HeldNumbers {
        new: held.difference(&had).copied().collect(),
        gone: had.difference(&held).copied().collect(),
        all: kept.union(&held).copied().collect(),
    }
}
