//! A person at several contact points: a member who was merged from others, or whose rows have several numbers.
//!
//! Tasks, touches, arms and suppressions are kept by contact point, because a contact point stays what it is while
//! members are merged and split. A member is touched at its phone alone; but what was done and said at its other
//! numbers was done to the same person, and the most restrictive of it counts.

use std::collections::{HashMap, HashSet};

use reunion_model::{ContactId, MemberId};

use crate::arm::Arm;
use crate::gates::Touches;
use crate::holder::Holders;

/// Contact points that are not to be contacted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suppressed {
    /// All of them.
    pub contacts: HashSet<ContactId>,
    /// Those where it is the person who is not to be contacted, at no other number either. Not so where a number is
    /// wrong: it says nothing of the member's others.
    pub people: HashSet<ContactId>,
}

impl Suppressed {
    /// Whether a member with this contact point, and these others, is to be left alone.
    pub fn stops(&self, contact: ContactId, others: &[ContactId]) -> bool {
        self.contacts.contains(&contact) || others.iter().any(|other| self.people.contains(other))
    }
}

/// What one campaign did so far, by contact point.
#[derive(Clone, Copy)]
pub(crate) struct Past<'a> {
    pub touches: &'a HashMap<ContactId, Touches>,
    pub arms: &'a HashMap<ContactId, Arm>,
}

impl Past<'_> {
    /// To one contact point.
    pub fn at(&self, contact: ContactId) -> Touches {
        self.touches.get(&contact).copied().unwrap_or_default()
    }

    /// To a person: at this contact point, which is the one to be touched, and at the others.
    pub fn of_person(&self, contact: ContactId, others: &[ContactId]) -> Touches {
        others.iter().fold(self.at(contact), |sum, other| sum.and(self.at(*other)))
    }

    /// The person's arm: control where one contact point is in the control group, and treatment where one was
    /// contacted; none where nothing was drawn yet. Of a number that others have or had, it is what was drawn for this
    /// person; who was contacted there is not known.
    pub fn arm(&self, holders: &Holders, member: MemberId, contact: ContactId, others: &[ContactId]) -> Option<Arm> {
        let all = || std::iter::once(&contact).chain(others);
        let was_touched = |contact: &ContactId| {
            let touches = self.at(*contact);
            touches.touches > 0 || touches.in_progress
        };
        let drawn = all().flat_map(|contact| holders.arms_at(member, contact)).filter_map(|own| self.arms.get(own)).max().copied();
        let own = || all().filter(|contact| !holders.is_shared(member, **contact));
        drawn.or_else(|| own().any(was_touched).then_some(Arm::Treatment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lookup;
    use reunion_model::{Phone, RecordKey};

    fn contact(number: u128) -> ContactId {
        ContactId::from_u128(number)
    }

    #[test]
    fn who_asked_is_left_alone_everywhere_and_a_wrong_number_where_it_is() {
        let (asked, wrong, fine) = (contact(1), contact(2), contact(3));
        let suppressed = Suppressed { contacts: HashSet::from([asked, wrong]), people: HashSet::from([asked]) };
        assert!(suppressed.stops(asked, &[]) && suppressed.stops(wrong, &[]) && !suppressed.stops(fine, &[]));
        assert!(suppressed.stops(fine, &[wrong, asked]));
        assert!(!suppressed.stops(fine, &[wrong]));
    }

    #[test]
    fn what_was_done_to_a_person_is_added_up() {
        let touched = |touches, last_touch_us| Touches { touches, last_touch_us, ..Touches::default() };
        let touches = HashMap::from([
            (contact(1), Touches { next_try: 3, ..touched(1, Some(10)) }),
            (contact(2), Touches { in_progress: true, next_try: 7, ..touched(2, Some(30)) }),
            (contact(3), Touches { said_no: true, ..touched(0, None) }),
        ]);
        let past = Past { touches: &touches, arms: &HashMap::new() };
        let all = past.of_person(contact(1), &[contact(2), contact(3), contact(9)]);
        let expected = Touches { touches: 3, last_touch_us: Some(30), in_progress: true, said_no: true, next_try: 3 };
        assert_eq!(all, expected, "the next try is that of the contact point to be touched");
        assert_eq!(past.of_person(contact(9), &[]), Touches::default());
    }

    #[test]
    fn control_wins_and_who_was_contacted_is_not_held_out() {
        let arms = HashMap::from([(contact(1), Arm::Control), (contact(2), Arm::Treatment)]);
        let touches = HashMap::from([(contact(3), Touches { touches: 1, ..Touches::default() })]);
        let past = Past { touches: &touches, arms: &arms };
        let arm = |contact, others: &[ContactId]| past.arm(&Holders::default(), MemberId::default(), contact, others);
        assert_eq!(arm(contact(2), &[contact(1)]), Some(Arm::Control));
        assert_eq!(arm(contact(4), &[contact(2)]), Some(Arm::Treatment));
        assert_eq!(arm(contact(4), &[contact(3)]), Some(Arm::Treatment));
        assert_eq!(arm(contact(3), &[contact(1)]), Some(Arm::Control));
        assert_eq!(arm(contact(4), &[]), None);
    }

    #[test]
    fn an_arm_does_not_pass_from_one_holder_of_a_number_to_the_next() {
        let (lookup, number) = (lookup(), |number: u64| Phone::from_china_mobile(13_900_000_000 + number));
        let contacts = [1, 2, 3].map(|at| lookup.contact(number(at)));
        let [was, is, both, nobodys] = [1, 2, 3, 4].map(MemberId::from_u128);
        let record = Some(RecordKey::from_u128(7));
        let held = [(was, None), (is, record), (both, None), (both, record)];
        let holders = Holders::new(&lookup, held.map(|(member, record)| (member, number(1), record)));
        let own = holders.arms_at(is, &contacts[0])[0];
        let touches = HashMap::from([(contacts[0], Touches { touches: 1, ..Touches::default() })]);
        let arms_of = |arms: &[(ContactId, Arm)], member, contact: ContactId, others: &[ContactId]| {
            Past { touches: &touches, arms: &HashMap::from_iter(arms.iter().copied()) }.arm(&holders, member, contact, others)
        };
        let (control, treatment) = (Some(Arm::Control), Some(Arm::Treatment));
        let former = [(contacts[0], Arm::Control)];
        assert_eq!(arms_of(&former, is, contacts[0], &[]), None, "nor does a touch that may have been the other's say anything");
        assert_eq!(arms_of(&former, was, contacts[1], &contacts[..1]), control, "at a later number too");
        assert_eq!(arms_of(&former, both, contacts[0], &[]), control, "who is both is held out where one is");
        assert_eq!(arms_of(&former, nobodys, contacts[0], &[]), control, "of a number that was never another's it is as ever");
        let present = [(own, Arm::Control), (contacts[0], Arm::Treatment)];
        assert_eq!(arms_of(&present, is, contacts[0], &[]), control);
        assert_eq!(arms_of(&present, was, contacts[1], &contacts[..1]), treatment);
        assert_eq!(arms_of(&present, both, contacts[0], &[]), control);
        assert_eq!(arms_of(&present[..1], was, contacts[1], &contacts[..1]), None);
        assert_eq!(arms_of(&[], nobodys, contacts[0], &[]), treatment, "who was contacted is not held out");
    }
}
