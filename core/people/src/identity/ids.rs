//! Which set of records takes which id.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::Int32Type;
use reunion_keys::Lookup;
use reunion_model::record::CONTENT_HASH;
use reunion_model::threads::on_all_cores;
use reunion_model::{MemberId, RecordKey};

use super::sets::{Founded, Sets};
use super::{HASHES_PER_THREAD_MIN, MEMBERS, Members, PreviousMembers};
use crate::matching::KeySet;
use crate::numbering::{Keys, Numbering, number};
use crate::pull::Resolved;
use crate::table::{NO_MOMENT, NONE, StateError, moments_of, numbers_of, sixteen, sixteens_of};

/// The ids of sets, and what became of the previous members.
pub(super) struct Ids {
    pub(super) members: Members,
    /// The previous member whose id each set took; `NONE` for a new one.
    pub(super) taken_from: Vec<u32>,
    pub(super) removed: Vec<MemberId>,
    pub(super) merges: Vec<(MemberId, MemberId)>,
    pub(super) splits: Vec<(MemberId, MemberId)>,
}

/// What is known of the previous members, by their number in the assignments.
struct Before {
    founding: Vec<u128>,
    founded_at: Vec<i64>,
    epoch: Vec<u32>,
    hash: Vec<u128>,
    without_records: Vec<MemberId>,
}

impl Before {
    fn new(resolved: &Resolved, previous: PreviousMembers) -> Result<Self, StateError> {
        let count = resolved.members.len();
        let mut ids = Vec::new();
        for batch in previous.members {
            let column = sixteens_of(batch, MEMBERS, "member_id")?;
            ids.extend((0..batch.num_rows()).map(|row| sixteen(column, row)));
        }
        let Numbering { of, .. } = number(&[Keys::Wide(&resolved.members), Keys::Wide(&ids)]);
        let mut numbers = of[count..].iter();
        let mut before = Self {
            founding: vec![0; count],
            founded_at: vec![NO_MOMENT; count],
            epoch: vec![0; count],
            hash: vec![0; count],
            without_records: Vec::new(),
        };
        let mut found = vec![false; count];
        for batch in previous.members {
            let (ids, founding) = (sixteens_of(batch, MEMBERS, "member_id")?, sixteens_of(batch, MEMBERS, "founding")?);
            let hashes = sixteens_of(batch, MEMBERS, CONTENT_HASH)?;
            let epochs = numbers_of::<Int32Type>(batch, MEMBERS, "epoch")?;
            let founded_at = moments_of(batch, MEMBERS, "founded_at")?;
            for row in 0..batch.num_rows() {
                // Those in the assignments have the first numbers.
                let Some(member) = numbers.next().map(|number| *number as usize).filter(|number| *number < count) else {
                    before.without_records.push(MemberId::from_u128(sixteen(ids, row)));
                    continue;
                };
                found[member] = true;
                before.founding[member] = sixteen(founding, row);
                let at = founded_at.filter(|moments| moments.is_valid(row)).map(|moments| moments.value(row));
                before.founded_at[member] = at.unwrap_or(NO_MOMENT);
                before.epoch[member] = epochs.value(row).max(0) as u32;
                before.hash[member] = sixteen(hashes, row);
            }
        }
        match found.iter().position(|found| !found) {
            Some(missing) => Err(StateError::Member(resolved.member(missing as u32))),
            None => Ok(before),
        }
    }

    /// The order in which members were founded: a founding record without a time comes last.
    fn order(&self, member: u32) -> (i64, u128) {
        (self.founded_at[member as usize], self.founding[member as usize])
    }
}

/// Gives each set its id: that of a previous member, or a new one.
pub(super) fn assign_ids(
    resolved: &Resolved,
    sets: &Sets,
    mut founded: Founded,
    lookup: &Lookup,
    previous: PreviousMembers,
) -> Result<Ids, StateError> {
    let before = Before::new(resolved, previous)?;
    let heirs = Heirs::new(resolved, sets);
    let keeper = keepers(resolved, sets, &heirs);
    let mut taken_from = vec![NONE; sets.len()];
    for (member, set) in keeper.iter().enumerate().filter(|(_, set)| **set != NONE) {
        let held = &mut taken_from[*set as usize];
        if *held == NONE || before.order(member as u32) < before.order(*held) {
            *held = member as u32;
        }
    }
    let mut removed = before.without_records.clone();
    let mut merges = Vec::new();
    for (member, set) in keeper.iter().enumerate() {
        let id = resolved.member(member as u32);
        match taken_from.get(*set as usize) {
            Some(survivor) if *survivor == member as u32 => continue,
            Some(survivor) => merges.push((id, resolved.member(*survivor))),
            None => {}
        }
        removed.push(id);
    }
    let (ids, epochs) = give_ids(resolved, &founded, &taken_from, &before, &previous, lookup)?;
    let splits = splits(resolved, sets, &taken_from, &heirs, &ids);
    // Who took an id is founded as its member was.
    for (set, member) in taken_from.iter().enumerate().filter(|(_, member)| **member != NONE) {
        founded.keys[set] = RecordKey::from_u128(before.founding[*member as usize]);
        founded.at[set] = before.founded_at[*member as usize];
    }
    let hash = |member: &u32| before.hash.get(*member as usize).copied().unwrap_or_default();
    let members = Members {
        ids: Arc::new(ids),
        founding: founded.keys,
        founded_at: founded.at,
        epoch: epochs,
        previous_hash: if before.hash.is_empty() { Vec::new() } else { taken_from.iter().map(hash).collect() },
        ..Members::default()
    };
    Ok(Ids { members, taken_from, removed, merges, splits })
}

/// What new members were made of: previous member, and new one.
fn splits(resolved: &Resolved, sets: &Sets, taken_from: &[u32], heirs: &Heirs, ids: &[MemberId]) -> Vec<(MemberId, MemberId)> {
    if resolved.members.is_empty() {
        return Vec::new();
    }
    let mut splits = Vec::new();
    let mut left = Vec::new();
    for set in (0..sets.len()).filter(|set| taken_from[*set] == NONE) {
        previous_members(resolved, sets, set, &mut left);
        left.dedup();
        let is_of = |member: &&u32| !heirs.are(**member, set);
        splits.extend(left.iter().filter(is_of).map(|member| (resolved.member(*member), ids[set])));
    }
    splits
}

/// The previous members of a set's records, one for each record that had one, sorted.
fn previous_members(resolved: &Resolved, sets: &Sets, set: usize, members: &mut Vec<u32>) {
    members.clear();
    let previous = sets.records[sets.range(set)].iter().map(|record| resolved.previous_member[*record as usize]);
    members.extend(previous.filter(|member| *member != NONE));
    members.sort_unstable();
}

/// Sets of whom their numbers came to, where they were taken for who had them before: previous member, and set. They are
/// somebody else, and take nothing of the member with them.
struct Heirs(HashSet<(u32, u32)>);

impl Heirs {
    fn new(resolved: &Resolved, sets: &Sets) -> Self {
        if sets.handed_on.is_empty() || resolved.members.is_empty() {
            return Self(HashSet::new());
        }
        let of = |wanted: bool| {
            let records = sets.handed_on.iter().filter(move |(_, is_former)| *is_former == wanted).map(|(record, _)| *record as usize);
            records.map(|record| (resolved.previous_member[record], sets.set_of[record])).filter(|(member, _)| *member != NONE)
        };
        let former: HashSet<(u32, u32)> = of(true).collect();
        let had: HashSet<u32> = former.iter().map(|(member, _)| *member).collect();
        Self(of(false).filter(|heir| had.contains(&heir.0) && !former.contains(heir)).collect())
    }

    fn are(&self, member: u32, set: usize) -> bool {
        self.0.contains(&(member, set as u32))
    }
}

/// For each previous member, the set with most of its records, or `NONE`. Of equal ones, the set that
/// was founded first. Heirs keep nothing.
fn keepers(resolved: &Resolved, sets: &Sets, heirs: &Heirs) -> Vec<u32> {
    let mut keeper = vec![NONE; resolved.members.len()];
    if keeper.is_empty() {
        return keeper;
    }
    let mut most = vec![0_u32; resolved.members.len()];
    let mut here: Vec<(u32, u32)> = Vec::new();
    let mut previous = Vec::new();
    for set in 0..sets.len() {
        here.clear();
        previous_members(resolved, sets, set, &mut previous);
        for member in previous.iter().copied() {
            match here.last_mut() {
                Some((last, count)) if *last == member => *count += 1,
                _ => here.push((member, 1)),
            }
        }
        for (member, count) in &here {
            if heirs.are(*member, set) {
                continue;
            }
            let member = *member as usize;
            let first = || resolved.founding_order(sets.founding[set], sets.founding[keeper[member] as usize]).is_lt();
            if *count > most[member] || (*count == most[member] && first()) {
                most[member] = *count;
                keeper[member] = set as u32;
            }
        }
    }
    keeper
}

/// The id and epoch of each set.
fn give_ids(
    resolved: &Resolved,
    founded: &Founded,
    taken_from: &[u32],
    before: &Before,
    previous: &PreviousMembers,
    lookup: &Lookup,
) -> Result<(Vec<MemberId>, Vec<u32>), StateError> {
    let id_of = |set: u32, epoch: u32| {
        let set = set as usize;
        // In one part, which takes one block of the hash less than three.
        let mut text = [0; 28];
        text[..8].copy_from_slice(&founded.at[set].to_be_bytes());
        text[8..24].copy_from_slice(&founded.keys[set].0);
        text[24..].copy_from_slice(&epoch.to_be_bytes());
        MemberId(lookup.id("member", &[&text]))
    };
    let all = (0..taken_from.len() as u32).collect::<Vec<_>>();
    let mut ids = on_all_cores(&all, HASHES_PER_THREAD_MIN, |set| match taken_from[*set as usize] {
        NONE => id_of(*set, 0),
        member => resolved.member(member),
    });
    let mut epochs = vec![0; taken_from.len()];
    for (epoch, member) in epochs.iter_mut().zip(taken_from).filter(|(_, member)| **member != NONE) {
        *epoch = before.epoch[*member as usize];
    }
    // For the few ids that have to be tried one by one.
    let mut everybody: Option<KeySet> = None;
    for set in taken(previous, taken_from, &ids)? {
        let everybody = match &mut everybody {
            Some(everybody) => everybody,
            none => none.insert(previous.ids()?),
        };
        let (id, epoch) = (&mut ids[set as usize], &mut epochs[set as usize]);
        while everybody.contains(id.as_u128()) {
            *epoch += 1;
            *id = id_of(set, *epoch);
        }
    }
    Ok((ids, epochs))
}

/// The new sets whose ids belong to somebody already.
fn taken(previous: &PreviousMembers, taken_from: &[u32], ids: &[MemberId]) -> Result<Vec<u32>, StateError> {
    if previous.everyone.is_empty() && previous.forwarded.is_empty() {
        return Ok(Vec::new());
    }
    let new = (0..ids.len() as u32).filter(|set| taken_from[*set as usize] == NONE).collect::<Vec<_>>();
    let mut wanted = KeySet::with_capacity(new.len());
    let numbers = new.iter().map(|set| wanted.insert(ids[*set as usize].as_u128()).0).collect::<Vec<_>>();
    let mut taken = vec![false; wanted.len()];
    previous.each_id(|id| {
        if let Some(number) = wanted.find(id) {
            taken[number as usize] = true;
        }
    })?;
    Ok(new.into_iter().zip(numbers).filter(|(_, number)| taken[*number as usize]).map(|(set, _)| set).collect())
}
