//! Identity: which records are one member, and the member's id.
//!
//! A usable record has a phone and no reason to be set aside. A phone on more than `cards_max` of
//! them is a cashier's or the store's, and all its records go to quarantine. Among the others, equal
//! values of the configured keys join records (union-find), and each set of joined records is a
//! member.
//!
//! A member keeps its id while its records change. Of several members that are joined, the one
//! founded first keeps its id and the others are forwarded to it. Of a member that is split, the part
//! with most of its records keeps the id. A new member's id is a keyed hash of its founding record
//! (the smallest by created_at, source and record id) and an epoch, which is 0 unless that id
//! belongs to someone whom the record has left.
//!
//! All records that are given are decided anew, which makes the result independent of the history but for
//! the ids. [`crate::scope`] says which ones have to be given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use reunion_keys::Lookup;
use reunion_model::record::{CONTENT_HASH, PHONE, REASON, RECORD_ID, RECORD_KEY};
use reunion_model::threads::{both, on_all_cores};
use reunion_model::{MemberId, Reason, RecordKey};

use crate::matching::KeySet;
use crate::numbering::{Numbering, number};
use crate::pull::{Chunk, Resolved, SourceCounts};
use crate::table::{KeyTable, NONE, StateError, all_sixteen, byte_of, byte_reason, moments_of, numbers_of, sixteen, sixteens, sixteens_of};

const MEMBERS: &str = "members";
/// Ids or hashes made by one thread at the least, since a thread costs as much as a few hundred.
const HASHES_PER_THREAD_MIN: usize = 4096;

/// `[identity]`, as far as it decides who is who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Columns whose equal values join records: `phone`, `unionid` and the like.
    pub keys: Vec<String>,
    /// Records on one phone from which on it is nobody's: more than this.
    pub cards_max: u32,
    /// What happens on a phone at or below `cards_max` whose records carry different names.
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
    /// All that decides who is who beside the records, as a text that changes with it: assignments that were
    /// made on other terms have to be made anew. This program's version is part of it.
    pub fn terms(&self) -> String {
        let Self { keys, cards_max, policy } = self;
        format!("{} {} {cards_max} {policy:?}", env!("CARGO_PKG_VERSION"), keys.join(","))
    }
}

/// The columns of records that identity needs; a chunk may lack those that its source does not have.
pub fn index_columns(config: &IdentityConfig) -> Vec<String> {
    let mut columns = [RECORD_KEY, CONTENT_HASH, RECORD_ID, REASON, PHONE, "created_at", "updated_at"].map(str::to_owned).to_vec();
    if config.policy != SharedPhonePolicy::Merge {
        columns.push("name".to_owned());
    }
    columns.extend(config.keys.iter().filter(|key| !columns.contains(key)).cloned().collect::<Vec<_>>());
    columns
}

/// The table of assignments: every live record, once, with its member or the reason why it has none.
pub fn assignment_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(RECORD_KEY, DataType::FixedSizeBinary(16), false),
        Field::new("member_id", DataType::FixedSizeBinary(16), true),
        Field::new(REASON, DataType::Utf8, true),
    ]))
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
    /// Assignments that are new or changed, as [`assignment_schema`] has them.
    pub assignments: RecordBatch,
    /// All members.
    pub members: Members,
    /// Positions in `members` of those whose records changed in number or content.
    pub dirty: Vec<u32>,
    /// Members that are no more: forwarded ones, and those without records.
    pub removed: Vec<MemberId>,
    /// Members that were joined to others: from, into.
    pub merges: Vec<(MemberId, MemberId)>,
    /// New members made of records that left others: from, new.
    pub splits: Vec<(MemberId, MemberId)>,
}

/// Members, one value each in every column.
#[derive(Debug, Default)]
pub struct Members {
    /// Ids.
    pub ids: Vec<MemberId>,
    /// The record that the id is made of.
    pub founding: Vec<RecordKey>,
    /// Its created_at in microseconds; `None` where it has none.
    pub founded_at: Vec<Option<i64>>,
    /// The epoch that the id is made of.
    pub epoch: Vec<u32>,
    /// Content hash of the golden columns in the previous generation; 0 for a new member.
    pub previous_hash: Vec<u128>,
    /// Where each member's records begin in `records`; one more than there are members.
    pub starts: Vec<u32>,
    /// Records (chunk, row), those of a member together, the most recent first.
    pub records: Vec<(u32, u32)>,
    /// Source of each chunk.
    pub chunk_sources: Vec<u16>,
}

impl Members {
    /// Room for so many of them, but for their records.
    fn with_capacity(members: usize) -> Self {
        Self {
            ids: Vec::with_capacity(members),
            founding: Vec::with_capacity(members),
            founded_at: Vec::with_capacity(members),
            epoch: Vec::with_capacity(members),
            previous_hash: vec![0; members],
            ..Self::default()
        }
    }

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

/// Joins the live records into members. `recompute` makes every member dirty: for a run after the
/// survivorship rules or the columns changed.
///
/// # Errors
/// Where the previous members are not what they should be.
pub fn identify(
    mut resolved: Resolved,
    config: &IdentityConfig,
    lookup: &Lookup,
    previous: PreviousMembers,
    recompute: bool,
) -> Result<Identified, StateError> {
    let keys = KeyColumns::new(resolved.input.chunks, config, lookup)?;
    let mut reasons = resolved.reason.clone();
    let usable = (0..resolved.live.len()).filter(|record| resolved.live[*record] != NONE && reasons[*record] == 0);
    let usable = usable.map(|record| record as u32).collect::<Vec<_>>();
    let sets = join(&resolved, config, &keys, usable, &mut reasons);
    drop(keys);
    resolved.count(&reasons);
    let Ids { mut members, taken_from, removed, merges, splits } = assign_ids(&resolved, &sets, lookup, previous)?;
    let locate = |row: &u32| {
        let (chunk, row) = resolved.rows.locate(*row);
        (chunk as u32, row as u32)
    };
    let (assignments, (dirty, records)) = both(
        || assignments(&resolved, &sets, &members.ids, &reasons),
        || (dirty(&resolved, &sets, &taken_from, recompute), sets.rows.iter().map(locate).collect()),
    );
    let assignments = assignments?;
    members.records = records;
    members.starts = sets.starts;
    members.chunk_sources = resolved.input.chunks.iter().map(|chunk| chunk.source).collect();
    Ok(Identified {
        restore: resolved.restore.iter().map(locate).collect(),
        counts: resolved.counts,
        tombstones: resolved.tombstones,
        assignments,
        members,
        dirty,
        removed,
        merges,
        splits,
    })
}

/// The values of keys other than the phone, hashed, and of names where the policy needs them. By
/// chunk; `None` where the chunk lacks the column.
pub(crate) struct KeyColumns {
    joins_by_phone: bool,
    names: Vec<Option<StringArray>>,
    pub(crate) others: Vec<Vec<Option<StringArray>>>,
    lookup: Lookup,
}

impl KeyColumns {
    pub(crate) fn new(chunks: &[Chunk], config: &IdentityConfig, lookup: &Lookup) -> Result<Self, StateError> {
        let column = |name: &str| {
            let chunks = chunks.iter().map(|chunk| {
                let array = chunk.batch.column_by_name(name);
                array.map(|array| Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())).transpose()
            });
            chunks.collect::<Result<Vec<_>, StateError>>()
        };
        Ok(Self {
            joins_by_phone: config.keys.iter().any(|key| key == PHONE),
            names: if config.policy == SharedPhonePolicy::Merge { Vec::new() } else { column("name")? },
            others: config.keys.iter().filter(|key| *key != PHONE).map(|key| column(key)).collect::<Result<_, _>>()?,
            lookup: lookup.clone(),
        })
    }

    pub(crate) fn hash(&self, column: &[Option<StringArray>], (chunk, row): (usize, usize)) -> Option<u128> {
        let texts = column[chunk].as_ref()?;
        texts.is_valid(row).then(|| self.lookup.row_hash(texts.value(row).as_bytes()))
    }
}

/// Records by member. The columns have one value for each usable record that is not in quarantine.
struct Sets {
    /// Where each set begins; one more than there are sets.
    starts: Vec<u32>,
    /// Rows, those of a set together, the most recent first.
    rows: Vec<u32>,
    /// The record of each row.
    records: Vec<u32>,
    /// The row that founds each set.
    founding: Vec<u32>,
}

impl Sets {
    fn len(&self) -> usize {
        self.founding.len()
    }

    fn range(&self, set: usize) -> std::ops::Range<usize> {
        self.starts[set] as usize..self.starts[set + 1] as usize
    }
}

/// The phones of usable records.
struct Phones {
    /// Number of each usable record's phone.
    of: Vec<u32>,
    /// Records on each phone.
    cards: Vec<u32>,
    /// First name seen on each phone (0: none), and whether there are others.
    name: Vec<u128>,
    names_differ: Vec<bool>,
}

impl Phones {
    fn new(resolved: &Resolved, keys: &KeyColumns, usable: &[u32]) -> Self {
        let phone = |record: &u32| u128::from(resolved.rows.phones[resolved.live[*record as usize] as usize]);
        let Numbering { of, first } = number(&[&usable.iter().map(phone).collect::<Vec<_>>()]);
        let mut cards = vec![0; first.len()];
        of.iter().for_each(|phone| cards[*phone as usize] += 1);
        let mut phones = Self { of, cards, name: Vec::new(), names_differ: Vec::new() };
        if !keys.names.is_empty() {
            phones.name.resize(phones.cards.len(), 0);
            phones.names_differ.resize(phones.cards.len(), false);
            for (record, phone) in usable.iter().zip(&phones.of) {
                let row = resolved.live[*record as usize];
                let Some(name) = keys.hash(&keys.names, resolved.rows.locate(row)) else { continue };
                let held = &mut phones.name[*phone as usize];
                phones.names_differ[*phone as usize] |= *held != 0 && *held != name;
                *held = if *held == 0 { name } else { *held };
            }
        }
        phones
    }

    fn names_differ(&self, phone: u32) -> bool {
        self.names_differ.get(phone as usize).copied().unwrap_or(false)
    }
}

/// Sets aside records on shared phones and joins the others.
fn join(resolved: &Resolved, config: &IdentityConfig, keys: &KeyColumns, mut usable: Vec<u32>, reasons: &mut [u8]) -> Sets {
    let mut phones = Phones::new(resolved, keys, &usable);
    let (shared, names) = (byte_of(Reason::SharedPhone), byte_of(Reason::SharedPhoneNames));
    // Where nothing but the phone joins records, a phone is a set.
    let others = keys.others.iter().filter(|column| column.iter().any(Option::is_some)).collect::<Vec<_>>();
    let phone_alone = keys.joins_by_phone && others.is_empty() && config.policy != SharedPhonePolicy::Household;
    let mut groups = UnionFind::default();
    // The first joined record of each phone, and of each phone and name in a household.
    let mut first_of_phone = vec![NONE; phones.cards.len()];
    let mut first_of_name = (KeyTable::default(), Vec::new());
    let mut kept = 0;
    for at in 0..usable.len() {
        let (record, phone) = (usable[at], phones.of[at]);
        if phones.cards[phone as usize] > config.cards_max {
            reasons[record as usize] = shared;
            continue;
        }
        let differ = phones.names_differ(phone);
        if differ && config.policy == SharedPhonePolicy::Quarantine {
            reasons[record as usize] = names;
            continue;
        }
        usable[kept] = record;
        phones.of[kept] = phone;
        kept += 1;
        if phone_alone {
            continue;
        }
        let node = groups.add();
        if !keys.joins_by_phone {
            continue;
        }
        let first = if differ && config.policy == SharedPhonePolicy::Household {
            let name = keys.hash(&keys.names, resolved.rows.locate(resolved.live[record as usize]));
            let group = name.unwrap_or(0) ^ u128::from(phone).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let (number, new) = first_of_name.0.insert(group);
            if new {
                first_of_name.1.push(NONE);
            }
            &mut first_of_name.1[number as usize]
        } else {
            &mut first_of_phone[phone as usize]
        };
        if *first == NONE { *first = node } else { groups.join(*first, node) }
    }
    usable.truncate(kept);
    if phone_alone {
        return lay_out(resolved, &usable, phones.cards.len(), |node| phones.of[node as usize]);
    }
    for column in others {
        let value = |record: &u32| keys.hash(column, resolved.rows.locate(resolved.live[*record as usize]));
        let values = on_all_cores(&usable, HASHES_PER_THREAD_MIN, value);
        let nodes = (0_u32..).zip(&values).filter(|(_, value)| value.is_some()).map(|(node, _)| node).collect::<Vec<_>>();
        let Numbering { of, first } = number(&[&values.into_iter().flatten().collect::<Vec<_>>()]);
        for (node, number) in nodes.iter().zip(of) {
            let first = nodes[first[number as usize] as usize];
            if first != *node {
                groups.join(first, *node);
            }
        }
    }
    lay_out(resolved, &usable, usable.len(), |node| groups.root(node))
}

/// Puts the records of each set together. `root` says by a number below `roots` which set a record is of.
fn lay_out(resolved: &Resolved, usable: &[u32], roots: usize, mut root: impl FnMut(u32) -> u32) -> Sets {
    let mut set_of_root = vec![NONE; roots];
    let mut set_of = Vec::with_capacity(usable.len());
    let mut starts = vec![0_u32];
    for node in 0..usable.len() as u32 {
        let set = &mut set_of_root[root(node) as usize];
        if *set == NONE {
            *set = starts.len() as u32 - 1;
            starts.push(0);
        }
        starts[*set as usize + 1] += 1;
        set_of.push(*set);
    }
    for set in 1..starts.len() {
        starts[set] += starts[set - 1];
    }
    let mut cursor = starts.clone();
    let mut records = vec![0; usable.len()];
    for (record, set) in usable.iter().zip(&set_of) {
        let place = &mut cursor[*set as usize];
        records[*place as usize] = *record;
        *place += 1;
    }
    let row = |record: &u32| resolved.live[*record as usize];
    let mut founding = Vec::with_capacity(starts.len() - 1);
    for bounds in starts.windows(2) {
        let set = &mut records[bounds[0] as usize..bounds[1] as usize];
        if set.len() > 1 {
            set.sort_unstable_by(|a, b| resolved.is_more_recent(row(a), row(b)));
        }
        founding.push(set.iter().map(row).min_by(|a, b| resolved.founding_order(*a, *b)).unwrap_or(NONE));
    }
    Sets { rows: records.iter().map(row).collect(), starts, records, founding }
}

/// Disjoint sets of numbers, joined by size with paths halved.
#[derive(Default)]
struct UnionFind {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl UnionFind {
    fn add(&mut self) -> u32 {
        let node = self.parent.len() as u32;
        self.parent.push(node);
        self.size.push(1);
        node
    }

    fn root(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let above = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = above;
            node = above;
        }
        node
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (large, small) = if self.size[a as usize] >= self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
    }
}

struct Ids {
    members: Members,
    /// The previous member whose id each set took; `NONE` for a new one.
    taken_from: Vec<u32>,
    removed: Vec<MemberId>,
    merges: Vec<(MemberId, MemberId)>,
    splits: Vec<(MemberId, MemberId)>,
}

/// What is known of the previous members, by their number in the assignments.
struct Before {
    founding: Vec<u128>,
    founded_at: Vec<Option<i64>>,
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
        let Numbering { of, .. } = number(&[&resolved.members, &ids]);
        let mut numbers = of[count..].iter();
        let mut before = Self {
            founding: vec![0; count],
            founded_at: vec![None; count],
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
                before.founded_at[member] = founded_at.filter(|moments| moments.is_valid(row)).map(|moments| moments.value(row));
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
        (self.founded_at[member as usize].unwrap_or(i64::MAX), self.founding[member as usize])
    }
}

fn assign_ids(resolved: &Resolved, sets: &Sets, lookup: &Lookup, previous: PreviousMembers) -> Result<Ids, StateError> {
    let before = Before::new(resolved, previous)?;
    let keeper = keepers(resolved, sets);
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
    let mut new_ids = new_ids(resolved, sets, &taken_from, &previous, lookup)?.into_iter();
    let mut members = Members::with_capacity(sets.len());
    let mut splits = Vec::new();
    let mut left = Vec::new();
    for (set, member) in taken_from.iter().enumerate() {
        let founding = sets.founding[set];
        if *member == NONE {
            let (id, epoch) = new_ids.next().expect("each set that took no id has a new one");
            let created = resolved.rows.created[founding as usize];
            members.ids.push(id);
            members.founding.push(RecordKey::from_u128(resolved.rows.keys[founding as usize]));
            members.founded_at.push(Some(created).filter(|created| *created != i64::MAX));
            members.epoch.push(epoch);
            if !resolved.members.is_empty() {
                previous_members(resolved, sets, set, &mut left);
                left.dedup();
            }
            splits.extend(left.iter().map(|member| (resolved.member(*member), id)));
        } else {
            let member = *member as usize;
            members.ids.push(resolved.member(member as u32));
            members.founding.push(RecordKey::from_u128(before.founding[member]));
            members.founded_at.push(before.founded_at[member]);
            members.epoch.push(before.epoch[member]);
            members.previous_hash[set] = before.hash[member];
        }
    }
    Ok(Ids { members, taken_from, removed, merges, splits })
}

/// The previous members of a set's records, one for each record that had one, sorted.
fn previous_members(resolved: &Resolved, sets: &Sets, set: usize, members: &mut Vec<u32>) {
    members.clear();
    let previous = sets.records[sets.range(set)].iter().map(|record| resolved.previous_member[*record as usize]);
    members.extend(previous.filter(|member| *member != NONE));
    members.sort_unstable();
}

/// For each previous member, the set with most of its records, or `NONE`. Of equal ones, the set that
/// was founded first.
fn keepers(resolved: &Resolved, sets: &Sets) -> Vec<u32> {
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

/// The ids and epochs of those sets that took none, in their order.
fn new_ids(
    resolved: &Resolved,
    sets: &Sets,
    taken_from: &[u32],
    previous: &PreviousMembers,
    lookup: &Lookup,
) -> Result<Vec<(MemberId, u32)>, StateError> {
    let id_of = |set: usize, epoch: u32| {
        let founding = sets.founding[set];
        let created = resolved.rows.created[founding as usize].to_be_bytes();
        let source = &resolved.input.sources[usize::from(resolved.rows.source(founding))];
        let record_id = resolved.rows.record_id(founding);
        MemberId(lookup.id("member", &[&created, source.as_bytes(), record_id.as_bytes(), &epoch.to_be_bytes()]))
    };
    let new = (0..sets.len() as u32).filter(|set| taken_from[*set as usize] == NONE).collect::<Vec<_>>();
    let mut given = on_all_cores(&new, HASHES_PER_THREAD_MIN, |set| (id_of(*set as usize, 0), 0));
    let taken = taken(previous, &given)?;
    // For the few ids that have to be tried one by one.
    let mut everybody: Option<KeySet> = None;
    for at in taken {
        let (set, free) = (new[at] as usize, &mut given[at]);
        let everybody = match &mut everybody {
            Some(everybody) => everybody,
            none => none.insert(previous.ids()?),
        };
        while everybody.contains(free.0.as_u128()) {
            *free = (id_of(set, free.1 + 1), free.1 + 1);
        }
    }
    Ok(given)
}

/// The places of those ids that belong to somebody already.
fn taken(previous: &PreviousMembers, ids: &[(MemberId, u32)]) -> Result<Vec<usize>, StateError> {
    if ids.is_empty() || (previous.everyone.is_empty() && previous.forwarded.is_empty()) {
        return Ok(Vec::new());
    }
    let mut wanted = KeySet::with_capacity(ids.len());
    let numbers = ids.iter().map(|(id, _)| wanted.insert(id.as_u128()).0).collect::<Vec<_>>();
    let mut taken = vec![false; wanted.len()];
    previous.each_id(|id| {
        if let Some(number) = wanted.find(id) {
            taken[number as usize] = true;
        }
    })?;
    Ok((0..ids.len()).filter(|at| taken[numbers[*at] as usize]).collect())
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

fn assignments(resolved: &Resolved, sets: &Sets, ids: &[MemberId], reasons: &[u8]) -> Result<RecordBatch, StateError> {
    let mut set_of = vec![NONE; resolved.live.len()];
    for set in 0..sets.len() {
        sets.records[sets.range(set)].iter().for_each(|record| set_of[*record as usize] = set as u32);
    }
    let differs = |record: usize| {
        let had = (resolved.previous_member[record] != NONE).then(|| resolved.member(resolved.previous_member[record]));
        let has = (set_of[record] != NONE).then(|| ids[set_of[record] as usize]);
        !resolved.assigned[record] || had != has || resolved.previous_reason[record] != reasons[record]
    };
    let is_told = |record: &u32| resolved.live[*record as usize] != NONE && differs(*record as usize);
    let records = (0..resolved.live.len() as u32).filter(is_told).collect::<Vec<_>>();
    let records = || records.iter().map(|record| *record as usize);
    let outcomes = || {
        let mut members = FixedSizeBinaryBuilder::with_capacity(records().len(), 16);
        let mut codes = StringBuilder::with_capacity(records().len(), 0);
        for record in records() {
            match ids.get(set_of[record] as usize) {
                Some(id) => members.append_value(id.0)?,
                None => members.append_null(),
            }
            codes.append_option(byte_reason(reasons[record]).map(Reason::code));
        }
        Ok::<_, StateError>((members.finish(), codes.finish()))
    };
    let (keys, outcomes) = both(|| sixteens(records().map(|record| resolved.records[record])), outcomes);
    let (members, codes) = outcomes?;
    let columns: Vec<ArrayRef> = vec![keys?, Arc::new(members), Arc::new(codes)];
    Ok(RecordBatch::try_new(assignment_schema(), columns)?)
}
