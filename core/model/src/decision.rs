//! What people decided about who is who.
//!
//! A decision speaks of two groups of records, and the last word counts: [`standings`] says what is left of each
//! decision by those that were made after it.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::ids::{DecisionId, RecordKey};

/// What was decided about two groups of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// They are one person.
    Same,
    /// They are two people, whatever keys they share.
    Apart,
}

impl DecisionKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Same, Self::Apart];

    /// The word in the ledger and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Apart => "apart",
        }
    }

    /// The kind with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What led to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionSource {
    /// An operator's own order.
    Operator,
    /// An operator's answer to a probable duplicate.
    Review,
    /// The score of a probable duplicate alone, by an operator's order to merge by scores.
    Score,
}

impl DecisionSource {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Review, Self::Score];

    /// The word in the ledger and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Review => "review",
            Self::Score => "score",
        }
    }

    /// The source with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// A decision of an operator, which holds in every later run until it is withdrawn or overtaken by a later one.
///
/// It speaks of records and not of members: records stay what they are while members come and go. Records that are
/// not there, or in quarantine, say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its id.
    pub id: DecisionId,
    /// What was decided. *Same* ties two people: the first record on the left that is there and the first on the
    /// right are of one member, and the others go where keys and decisions lead them. *Apart* holds for every record
    /// on the left with every one on the right: no two of them are of one member.
    pub kind: DecisionKind,
    /// One group of records, those that found their member first.
    pub left: Vec<RecordKey>,
    /// The other.
    pub right: Vec<RecordKey>,
}

impl Decision {
    /// Its records, those on the left first.
    pub fn records(&self) -> impl Iterator<Item = RecordKey> + '_ {
        self.left.iter().chain(&self.right).copied()
    }

    /// Whether it stands between two groups: it has records of the one on one side, and of the other on the other.
    pub fn is_between(&self, one: impl Fn(&RecordKey) -> bool, other: impl Fn(&RecordKey) -> bool) -> bool {
        let across = |left: &[RecordKey], right: &[RecordKey]| left.iter().any(&one) && right.iter().any(&other);
        across(&self.left, &self.right) || across(&self.right, &self.left)
    }

    /// The same between other groups; `None` where one of them is empty, and nothing is said.
    fn between(&self, left: Vec<RecordKey>, right: Vec<RecordKey>) -> Option<Self> {
        (!left.is_empty() && !right.is_empty()).then_some(Self { left, right, ..*self })
    }
}

/// What is left of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What holds of it: all of it, parts of it under its id, or nothing.
    pub parts: Vec<Decision>,
    /// The later decisions that took something from it, in their order.
    pub overtaken_by: Vec<DecisionId>,
}

/// What is left of each decision. They are given in the order in which they were made, without those that were
/// withdrawn.
///
/// - A *same* takes from earlier *aparts* what they say between its own records.
/// - An *apart* cuts an earlier *same* that ties a record on its left to one on its right: what is on its left stays
///   tied, and so does the rest.
pub fn standings(decisions: &[Decision]) -> Vec<Standing> {
    let mut settling = Settling::default();
    for (number, decision) in decisions.iter().enumerate() {
        settling.standings.push(Standing::default());
        settling.overtake(decision);
        settling.add(number, decision.clone());
    }
    let Settling { parts, mut standings, .. } = settling;
    for (number, part) in parts.into_iter().flatten() {
        standings[number].parts.push(part);
    }
    standings
}

/// All that is left of decisions: see [`standings`].
pub fn in_force(decisions: &[Decision]) -> Vec<Decision> {
    standings(decisions).into_iter().flat_map(|standing| standing.parts).collect()
}

/// Decisions so far, and what is left of them.
#[derive(Default)]
struct Settling {
    /// With the number of the decision that each is a part of; `None` once it is overtaken.
    parts: Vec<Option<(usize, Decision)>>,
    /// The parts that speak of a record, overtaken ones among them.
    of_record: HashMap<RecordKey, Vec<usize>>,
    standings: Vec<Standing>,
}

impl Settling {
    fn add(&mut self, number: usize, part: Decision) {
        for record in part.records() {
            self.of_record.entry(record).or_default().push(self.parts.len());
        }
        self.parts.push(Some((number, part)));
    }

    /// Takes from earlier decisions what this one contradicts.
    fn overtake(&mut self, decision: &Decision) {
        let near: BTreeSet<usize> = decision.records().filter_map(|record| self.of_record.get(&record)).flatten().copied().collect();
        for at in near {
            let Some((number, part)) = &self.parts[at] else { continue };
            let Some(left) = left_by(decision, part) else { continue };
            let number = *number;
            self.parts[at] = None;
            left.into_iter().for_each(|part| self.add(number, part));
            let overtaken_by = &mut self.standings[number].overtaken_by;
            if overtaken_by.last() != Some(&decision.id) {
                overtaken_by.push(decision.id);
            }
        }
    }
}

/// What a later decision leaves of an earlier one; `None` where it says nothing against it.
fn left_by(later: &Decision, earlier: &Decision) -> Option<Vec<Decision>> {
    let set = |records: &[RecordKey]| records.iter().copied().collect::<BTreeSet<RecordKey>>();
    let left = match (later.kind, earlier.kind) {
        (DecisionKind::Same, DecisionKind::Apart) => {
            let own = later.records().collect();
            let ((left, left_rest), (right, right_rest)) = (divide(&earlier.left, &own), divide(&earlier.right, &own));
            if left.is_empty() || right.is_empty() {
                return None;
            }
            [earlier.between(left_rest, earlier.right.clone()), earlier.between(left, right_rest)]
        }
        (DecisionKind::Apart, DecisionKind::Same) => {
            let [on_left, on_right] = [set(&later.left), set(&later.right)];
            if !earlier.is_between(|record| on_left.contains(record), |record| on_right.contains(record)) {
                return None;
            }
            let ((left, left_rest), (right, right_rest)) = (divide(&earlier.left, &on_left), divide(&earlier.right, &on_left));
            [earlier.between(left, right), earlier.between(left_rest, right_rest)]
        }
        _ => return None,
    };
    Some(left.into_iter().flatten().collect())
}

/// The records that are in a set, and those that are not.
fn divide(records: &[RecordKey], by: &BTreeSet<RecordKey>) -> (Vec<RecordKey>, Vec<RecordKey>) {
    records.iter().partition(|record| by.contains(record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(records: &[u128]) -> Vec<RecordKey> {
        records.iter().map(|record| RecordKey::from_u128(*record)).collect()
    }

    fn decision(id: u128, kind: DecisionKind, left: &[u128], right: &[u128]) -> Decision {
        Decision { id: DecisionId::from_u128(id), kind, left: keys(left), right: keys(right) }
    }

    fn same(id: u128, left: &[u128], right: &[u128]) -> Decision {
        decision(id, DecisionKind::Same, left, right)
    }

    fn apart(id: u128, left: &[u128], right: &[u128]) -> Decision {
        decision(id, DecisionKind::Apart, left, right)
    }

    #[test]
    fn words_are_those_of_the_ledger() {
        for kind in DecisionKind::ALL {
            assert_eq!(DecisionKind::from_name(kind.name()), Some(kind));
        }
        for source in DecisionSource::ALL {
            assert_eq!(DecisionSource::from_name(source.name()), Some(source));
        }
        assert_eq!((DecisionKind::from_name("other"), DecisionSource::from_name("")), (None, None));
    }

    #[test]
    fn what_is_not_contradicted_stands() {
        let decisions = [same(1, &[1], &[2]), apart(2, &[1, 2], &[3]), same(3, &[4], &[5]), apart(4, &[6], &[1])];
        assert_eq!(in_force(&decisions), decisions);
        assert_eq!(in_force(&[]), []);
    }

    #[test]
    fn a_merge_ends_what_kept_its_records_apart_and_no_more() {
        // 1 was kept from 2 and 3; 1 and 2 are one person after all.
        let decisions = [apart(1, &[1], &[2, 3]), same(2, &[1], &[2])];
        let standings = standings(&decisions);
        assert_eq!(standings[0].parts, [apart(1, &[1], &[3])]);
        assert_eq!(standings[0].overtaken_by, [DecisionId::from_u128(2)]);
        assert_eq!(standings[1], Standing { parts: vec![decisions[1].clone()], overtaken_by: vec![] });
        // Written the other way round, and with more on either side.
        let decisions = [apart(1, &[2, 3, 4], &[1, 5]), same(2, &[1], &[2])];
        assert_eq!(in_force(&decisions)[..2], [apart(1, &[3, 4], &[1, 5]), apart(1, &[2], &[5])]);
    }

    #[test]
    fn a_split_cuts_a_merge_into_what_leaves_and_what_stays() {
        let merged = same(1, &[1, 2], &[3, 4]);
        assert_eq!(in_force(&[merged.clone(), apart(2, &[1, 2], &[3, 4])])[..], [apart(2, &[1, 2], &[3, 4])]);
        let cut = in_force(&[merged.clone(), apart(2, &[2, 4], &[1, 3])]);
        assert_eq!(cut[..2], [same(1, &[2], &[4]), same(1, &[1], &[3])]);
        // 3 is of neither side: it stays with the rest.
        let cut = in_force(&[same(1, &[1, 3], &[2]), apart(2, &[1], &[2])]);
        assert_eq!(cut[..1], [same(1, &[3], &[2])]);
        // Within one side a tie says nothing.
        let both = [same(1, &[1, 2], &[3]), apart(2, &[1], &[2])];
        assert_eq!(in_force(&both), both);
    }

    #[test]
    fn the_last_word_counts_and_taking_it_back_restores_the_one_before() {
        let words = [same(1, &[1], &[2]), apart(2, &[1], &[2]), same(3, &[2], &[1])];
        assert_eq!(in_force(&words[..2]), words[1..2]);
        assert_eq!(in_force(&words), words[2..]);
        assert_eq!(standings(&words)[0].overtaken_by, [DecisionId::from_u128(2)]);
        assert_eq!(in_force(&[words[0].clone(), words[2].clone()]).len(), 2, "without the one between");
    }

    fn across(decision: &Decision, a: RecordKey, b: RecordKey) -> bool {
        let is_across = |one, other| decision.left.contains(&one) && decision.right.contains(&other);
        is_across(a, b) || is_across(b, a)
    }

    fn joins(decision: &Decision, a: RecordKey, b: RecordKey) -> bool {
        decision.kind == DecisionKind::Same && [a, b].iter().all(|record| decision.records().any(|other| other == *record))
    }

    /// A few decisions about six records: which side each record is on, 0 and 1, or on none.
    fn some() -> impl Strategy<Value = Vec<Decision>> {
        let sides = prop::collection::vec(0_u8..4, 6).prop_filter("both sides", |sides| sides.contains(&0) && sides.contains(&1));
        prop::collection::vec((any::<bool>(), sides), 2..8).prop_map(|all| {
            let of = |(id, (is_same, sides)): (u128, (bool, Vec<u8>))| {
                let side =
                    |wanted: u8| (0_u128..).zip(&sides).filter(|(_, side)| **side == wanted).map(|(record, _)| record).collect::<Vec<_>>();
                decision(id, DecisionKind::ALL[usize::from(!is_same)], &side(0), &side(1))
            };
            (0_u128..).zip(all).map(of).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_in_force_agrees_with_itself_and_with_the_last_word(decisions in some()) {
            let standings = standings(&decisions);
            for (standing, decision) in standings.iter().zip(&decisions) {
                prop_assert_eq!(standing.overtaken_by.is_empty(), standing.parts == [decision.clone()]);
                prop_assert!(standing.parts.iter().all(|part| part.id == decision.id && part.kind == decision.kind));
            }
            let parts: Vec<&Decision> = standings.iter().flat_map(|standing| &standing.parts).collect();
            let says = |kind, a, b| parts.iter().any(|part| part.kind == kind && across(part, a, b));
            for (a, b) in (0..6).flat_map(|a| (0..6).map(move |b| (RecordKey::from_u128(a), RecordKey::from_u128(b)))) {
                // Two records are kept apart where somebody said so and nobody has joined them since.
                let last = decisions.iter().rposition(|decision| decision.kind == DecisionKind::Apart && across(decision, a, b));
                let kept = last.is_some_and(|last| !decisions[last..].iter().any(|decision| joins(decision, a, b)));
                prop_assert_eq!(says(DecisionKind::Apart, a, b), kept);
                prop_assert!(!(kept && says(DecisionKind::Same, a, b)), "{} and {} are tied and kept apart", a, b);
            }
        }
    }
}
