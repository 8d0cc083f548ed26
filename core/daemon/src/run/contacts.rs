//! The contact points of members: of their phone, and of the other numbers that their rows have.
//!
//! The ledger keeps what was done and said by contact point. Here is found which of it is whose, as members are joined,
//! split and given other numbers.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use reunion_generations::Generation;
use reunion_keys::Lookup;
use reunion_model::phone::from_list;
use reunion_model::schema::{MEMBER_ID, OTHER_PHONES, PHONE};
use reunion_model::{ContactId, MemberId, Phone};
use reunion_outreach::Holders;
use reunion_rules::LinkedMembers;

use crate::failure::{Doing, Failure};
use crate::state::State;

use super::holders::holders;
use super::people::People;
use super::setup::Setup;

/// The columns of members that say where they can be reached.
const CONTACT_COLUMNS: [&str; 3] = [MEMBER_ID, PHONE, OTHER_PHONES];

/// The phones of the members in a batch: of each its own first, then its others, where the batch has them.
pub fn phones(batch: &RecordBatch) -> impl Iterator<Item = (MemberId, impl Iterator<Item = Phone>)> {
    let ids = batch.column_by_name(MEMBER_ID).expect("members have ids").as_fixed_size_binary();
    let own = batch.column_by_name(PHONE).expect("members have phones").as_primitive::<UInt64Type>();
    let others = batch.column_by_name(OTHER_PHONES).and_then(|others| others.as_string_opt::<i32>());
    (0..batch.num_rows()).map(move |row| {
        let id = MemberId::from_slice(ids.value(row)).expect("16 bytes");
        let own = own.is_valid(row).then(|| Phone::from_e164_digits(own.value(row)));
        let others = others.filter(|others| others.is_valid(row)).map_or("", |others| others.value(row));
        (id, own.into_iter().chain(from_list(others)))
    })
}

/// The contact points of those members of a batch that are wanted.
fn contacts<'a>(
    batch: &'a RecordBatch,
    lookup: &'a Lookup,
    wanted: impl Fn(MemberId) -> bool + 'a,
) -> impl Iterator<Item = (MemberId, ContactId)> + 'a {
    let of_wanted = phones(batch).filter(move |(member, _)| wanted(*member));
    of_wanted.flat_map(move |(member, phones)| phones.map(move |phone| (member, lookup.contact(phone))))
}

/// The members that are linked in some channel, at any of their numbers.
pub fn linked(members: &[RecordBatch], links: &HashSet<ContactId>, lookup: &Lookup) -> LinkedMembers {
    if links.is_empty() {
        return LinkedMembers::default();
    }
    let of_batch = |batch| contacts(batch, lookup, |_| true).filter(|(_, contact)| links.contains(contact)).map(|(member, _)| member);
    members.iter().flat_map(of_batch).collect()
}

/// For each member that others were joined to, the contact points under which the arms of all of them are kept, before
/// and after.
///
/// # Errors
/// Where the head cannot be read.
pub fn joined(setup: &Setup<'_>, people: &People) -> Result<Vec<Vec<ContactId>>, Failure> {
    let lookup = setup.state.keys.lookup();
    let into: HashMap<MemberId, MemberId> = people.merges.iter().flat_map(|(from, into)| [(*from, *into), (*into, *into)]).collect();
    let mut joined: HashMap<MemberId, BTreeSet<ContactId>> = HashMap::new();
    let [before, after] = [&people.held_before, &people.held.all].map(|held| holders(lookup, held));
    let mut add = |batch: &RecordBatch, holders: &Holders| {
        for (member, contact) in contacts(batch, lookup, |member| into.contains_key(&member)) {
            joined.entry(into[&member]).or_default().extend(holders.arms_at(member, &contact));
        }
    };
    people.dirty.iter().for_each(|batch| add(batch, &after));
    if let Some(base) = setup.base() {
        each_member(base, |batch| add(batch, &before))?;
    }
    Ok(joined.into_values().map(|contacts| contacts.into_iter().collect()).collect())
}

/// The contact points that left a member with the records that were split off: the member, the contact point, and the
/// new member. One that both have stays.
pub fn moved(lookup: &Lookup, members: &[RecordBatch], splits: &[(MemberId, MemberId)]) -> Vec<(MemberId, ContactId, MemberId)> {
    if splits.is_empty() {
        return Vec::new();
    }
    let wanted: HashSet<MemberId> = splits.iter().flat_map(|(from, new)| [*from, *new]).collect();
    let mut of: HashMap<MemberId, BTreeSet<ContactId>> = HashMap::new();
    for (member, contact) in members.iter().flat_map(|batch| contacts(batch, lookup, |member| wanted.contains(&member))) {
        of.entry(member).or_default().insert(contact);
    }
    let none = BTreeSet::new();
    let all = |member| of.get(member).unwrap_or(&none);
    splits.iter().flat_map(|(from, new)| all(new).difference(all(from)).map(|contact| (*from, *contact, *new))).collect()
}

/// Those of some members that asked, at another number than their phone, not to be contacted, since the head was
/// committed. What came before has been looked at then, and the phone itself is looked at when a task is claimed.
///
/// # Errors
/// Where the ledger does not answer, or the head cannot be read.
pub fn suppressed_since(state: &State, members: &HashSet<MemberId>, now_us: i64) -> Result<HashSet<MemberId>, Failure> {
    let none = HashSet::new();
    let Some(head) = state.ask(state.ledger.head())? else { return Ok(none) };
    let since = state.ask(state.ledger.suppressions_since(head.fact_seq))?.into_iter();
    let since = since.filter(|entry| entry.until_us.is_none_or(|until| until > now_us) && !entry.is_of_the_number_alone());
    let suppressed: HashSet<ContactId> = since.map(|entry| entry.contact).collect();
    if suppressed.is_empty() || members.is_empty() {
        return Ok(none);
    }
    let Some((_, generation)) = state.head()? else { return Ok(none) };
    let lookup = state.keys.lookup();
    let mut found = none;
    each_member(&generation, |batch| {
        let of_batch = contacts(batch, lookup, |member| members.contains(&member));
        found.extend(of_batch.filter(|(_, contact)| suppressed.contains(contact)).map(|(member, _)| member));
    })?;
    Ok(found)
}

/// The members that have this number, as their phone or beside it.
///
/// # Errors
/// Where the head cannot be read.
pub fn members_with(head: &Generation, phone: Phone) -> Result<Vec<MemberId>, Failure> {
    let mut found = Vec::new();
    each_member(head, |batch| {
        found.extend(phones(batch).filter_map(|(member, mut phones)| phones.any(|other| other == phone).then_some(member)));
    })?;
    Ok(found)
}

fn each_member(generation: &Generation, mut take: impl FnMut(&RecordBatch)) -> Result<(), Failure> {
    let doing = || "the members of the head cannot be read".to_owned();
    for part in generation.live("members", Some(&CONTACT_COLUMNS)).doing(doing)? {
        take(&part.doing(doing)?.batch);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeBinaryArray, StringArray, UInt64Array};
    use reunion_keys::{KeyRing, MasterKey};
    use reunion_model::phone::list;

    use super::*;

    fn lookup() -> Lookup {
        let master = MasterKey::from_hex(&"42".repeat(32)).expect("a key");
        KeyRing::create(&master).expect("keys").0.lookup().clone()
    }

    fn phone(number: u64) -> Phone {
        Phone::from_china_mobile(13_900_000_000 + number)
    }

    fn member(number: u64) -> MemberId {
        MemberId::from_u128(number.into())
    }

    /// Members with their phone and others.
    fn members(of: &[(u64, u64, &[u64])]) -> RecordBatch {
        let ids = FixedSizeBinaryArray::try_from_iter(of.iter().map(|(id, ..)| member(*id).0)).expect("ids");
        let phones: UInt64Array = of.iter().map(|(_, own, _)| Some(phone(*own).e164_digits())).collect();
        let others: StringArray = of.iter().map(|(.., others)| list(others.iter().map(|other| phone(*other)))).collect();
        let columns: [(&str, ArrayRef); 3] = [(MEMBER_ID, Arc::new(ids)), (PHONE, Arc::new(phones)), (OTHER_PHONES, Arc::new(others))];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    #[test]
    fn a_member_is_linked_at_any_of_its_numbers() {
        let lookup = lookup();
        let batch = members(&[(1, 1, &[]), (2, 2, &[7, 8]), (3, 3, &[9])]);
        let links = [phone(1), phone(8)].map(|phone| lookup.contact(phone));
        let found = linked(std::slice::from_ref(&batch), &HashSet::from(links), &lookup);
        assert_eq!(found, [member(1), member(2)].into_iter().collect());
        // A table of a version that knew no other numbers.
        let old = batch.project(&[0, 1]).expect("two columns");
        assert_eq!(linked(&[old], &HashSet::from(links), &lookup), [member(1)].into_iter().collect());
    }

    #[test]
    fn a_contact_point_goes_with_the_records_that_have_it() {
        let lookup = lookup();
        let batch = members(&[(1, 1, &[2]), (5, 3, &[2, 4]), (6, 6, &[])]);
        let moved = moved(&lookup, std::slice::from_ref(&batch), &[(member(1), member(5)), (member(9), member(6))]);
        let mut expected = vec![
            (member(1), lookup.contact(phone(3)), member(5)),
            (member(1), lookup.contact(phone(4)), member(5)),
            (member(9), lookup.contact(phone(6)), member(6)),
        ];
        let mut found = moved;
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "2 is a number of both, and of 9 nothing is left");
        assert!(super::moved(&lookup, std::slice::from_ref(&batch), &[]).is_empty());
    }
}
