//! Who holds a number: what is one person's there and not the next one's.
//!
//! A number that was silent for long and then came with another name is somebody else's. What was done and said at it stays with
//! it and counts for whoever has it, since that only ever restricts. The arm does not: it would measure the new holder by
//! what was drawn for another. So arms are kept by *holder*: for the first one that is known of a number under its contact point,
//! as for everybody, and for each later one under a contact point of its own, which no phone has.

use std::collections::HashMap;

use reunion_keys::Lookup;
use reunion_model::{ContactId, MemberId, Phone, RecordKey};

/// The contact points under which arms are kept, where a number has had several holders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    of: HashMap<(MemberId, ContactId), Vec<ContactId>>,
}

impl Holders {
    /// From members with records of such a number, and the record with which it came to them: none for the first holder.
    /// A member may have several entries for one number.
    pub fn new(lookup: &Lookup, held: impl IntoIterator<Item = (MemberId, Phone, Option<RecordKey>)>) -> Self {
        let mut of: HashMap<_, Vec<_>> = HashMap::new();
        for (member, phone, came_with) in held {
            let contact = lookup.contact(phone);
            let own = came_with.map_or(contact, |record| ContactId(lookup.id("holder", &[&contact.0, &record.0])));
            of.entry((member, contact)).or_default().push(own);
        }
        of.values_mut().for_each(|points| points.sort_unstable());
        Self { of }
    }

    /// Where the member's arms at a contact point are kept: one or more, of which new ones go to the first.
    pub fn arms_at<'a>(&'a self, member: MemberId, contact: &'a ContactId) -> &'a [ContactId] {
        self.of.get(&(member, *contact)).map_or(std::slice::from_ref(contact), Vec::as_slice)
    }

    /// Whether others than the member have, or had, the number.
    pub fn is_shared(&self, member: MemberId, contact: ContactId) -> bool {
        self.of.contains_key(&(member, contact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lookup;

    #[test]
    fn each_holder_of_a_number_has_arms_of_its_own() {
        let (lookup, phone) = (lookup(), Phone::from_china_mobile(13_900_000_001));
        let [first, second, third, both, other] = [1, 2, 3, 4, 5].map(MemberId::from_u128);
        let record = |number: u128| Some(RecordKey::from_u128(number));
        let held = [(first, None), (second, record(7)), (third, record(8)), (both, record(7)), (both, None)];
        let holders = Holders::new(&lookup, held.map(|(member, record)| (member, phone, record)));
        let contact = lookup.contact(phone);
        let of = |member| holders.arms_at(member, &contact);
        assert_eq!((of(first), of(other)), ([contact].as_slice(), [contact].as_slice()), "the first holder's stay where they were");
        let [two, three] = [of(second), of(third)].map(|points| points.to_vec());
        assert!(two.len() == 1 && two != [contact] && three != [contact] && two != three);
        let mut expected = [two, vec![contact]].concat();
        expected.sort_unstable();
        assert_eq!(of(both), expected);
        assert_eq!([first, other].map(|member| holders.is_shared(member, contact)), [true, false]);
    }
}
