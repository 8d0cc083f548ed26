//! The control group: contact points that a campaign leaves alone, so that its effect can be measured.
//!
//! The arm is a hash of the campaign's seed and the contact point, so that a dry run and a crash draw
//! the same. It is stored for the control group when drawn and for the others when a task is planned;
//! one who was neither is drawn again in the next run, with the same hash. So a share that is raised
//! later never moves anybody who was contacted into the control group, and one that is lowered never
//! contacts anybody who was held out.
//!
//! Of a number that came to somebody else, each holder has its own contact point here: see [`crate::holder`].

use std::collections::HashMap;

use reunion_keys::Lookup;
use reunion_model::ContactId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The side of a campaign that a contact point is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// May be touched.
    Treatment,
    /// Is left alone.
    Control,
}

impl Arm {
    /// The word in the ledger and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Treatment => "treatment",
            Self::Control => "control",
        }
    }

    /// The arm that has this word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Treatment, Self::Control].into_iter().find(|arm| arm.name() == name)
    }
}

/// A campaign's seed: stored when the campaign is first committed, so that a new name keeps the arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub [u8; 16]);

impl Seed {
    /// The seed of a campaign that has none yet.
    pub fn first(lookup: &Lookup, campaign: &str) -> Self {
        Self(lookup.id("campaign seed", &[campaign.as_bytes()]))
    }

    /// The arm of a contact point where the share `holdout` (0 to 1) is held out.
    pub fn draw(self, contact: ContactId, holdout: f64) -> Arm {
        // Both are keyed hashes already, so a fast hash of a fixed specification is enough to mix them.
        let mut text = [0; 32];
        text[..16].copy_from_slice(&self.0);
        text[16..].copy_from_slice(&contact.0);
        // The upper 53 bits, which a float holds exactly: from 0 to just below 1.
        let share = (xxh3_64(&text) >> 11) as f64 / (1_u64 << 53) as f64;
        if share < holdout { Arm::Control } else { Arm::Treatment }
    }
}

/// The arms that merges change in one campaign: where one contact point of a merged member is in the
/// control group, all of them are. `merged` has the contact points of each merged member.
pub fn merge_arms<'a>(arms: &HashMap<ContactId, Arm>, merged: impl IntoIterator<Item = &'a [ContactId]>) -> Vec<(ContactId, Arm)> {
    let is_control = |contact: &ContactId| arms.get(contact) == Some(&Arm::Control);
    let mut changed: Vec<_> = merged
        .into_iter()
        .filter(|contacts| contacts.iter().any(is_control))
        .flat_map(|contacts| contacts.iter().filter(|contact| !is_control(contact)))
        .map(|contact| (*contact, Arm::Control))
        .collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contacts() -> impl Iterator<Item = ContactId> {
        (0..10_000).map(|number: u128| ContactId::from_u128(number * 0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn the_share_is_held_out_and_grows_by_whole_groups() {
        let seed = Seed([7; 16]);
        let control = |holdout| contacts().filter(move |contact| seed.draw(*contact, holdout) == Arm::Control).collect::<Vec<_>>();
        let (tenth, fifth) = (control(0.1), control(0.2));
        assert!((900..1100).contains(&tenth.len()), "{}", tenth.len());
        assert!((1850..2150).contains(&fifth.len()), "{}", fifth.len());
        assert!(tenth.iter().all(|contact| fifth.contains(contact)));
        assert_eq!((control(0.0).len(), control(1.0).len()), (0, 10_000));
    }

    #[test]
    fn another_seed_draws_others() {
        let both = contacts().filter(|contact| [Seed([1; 16]), Seed([2; 16])].iter().all(|seed| seed.draw(*contact, 0.1) == Arm::Control));
        assert!((60..150).contains(&both.count()));
    }

    #[test]
    fn control_wins_a_merge() {
        let ids: Vec<_> = contacts().take(5).collect();
        let arms = HashMap::from([(ids[0], Arm::Treatment), (ids[1], Arm::Control), (ids[3], Arm::Treatment)]);
        let merged: [&[ContactId]; 2] = [&ids[0..3], &ids[3..5]];
        let mut expected = vec![(ids[0], Arm::Control), (ids[2], Arm::Control)];
        expected.sort_unstable();
        assert_eq!(merge_arms(&arms, merged), expected);
    }
}
