//! From which probability on scores may merge by themselves: only where reviews have shown how often they are right.
//!
//! The pairs are cut into bands by their probability. A band is good where the reviews of pairs in it show, with a
//! confidence of 95 %, that at least so large a share of them is one person as was asked for; and where all reviews
//! from that band on show it too. Pairs of the bands above are more probable still, so they need no proof of their own.

use std::collections::HashSet;

use reunion_ledger::DecisionRecord;
use reunion_model::decision::Standing;
use reunion_model::{DecisionId, DecisionKind, DecisionSource};

/// The lower ends of the bands, as probabilities, the lowest first.
const BANDS: [f64; 4] = [0.9, 0.99, 0.999, 0.9999];
/// The normal quantile of a confidence of 95 % on one side.
const QUANTILE: f64 = 1.644_854;

/// A pair that was scored, and what is known of it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Review {
    /// Its score.
    pub weight_millibits: i64,
    /// Whether it is one person.
    pub is_one: bool,
}

/// Reviews of some pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many there are.
    pub reviewed: u32,
    /// How many of them are one person.
    pub one: u32,
}

/// What reviews say of a band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Its lower end.
    pub probability_min: f64,
    /// Its upper end; none for the last one.
    pub probability_max: Option<f64>,
    /// The same in thousandths of a bit.
    pub weight_millibits_min: i64,
    /// The reviews in it.
    pub own: Tally,
    /// Those, and the reviews of the bands above.
    pub from_here: Tally,
}

/// A weight as decisions keep it.
pub fn millibits(bits: f64) -> i64 {
    (bits * 1000.0).round() as i64
}

/// The weight of a probability, in thousandths of a bit.
fn weight_of(probability: f64) -> i64 {
    millibits((probability / (1.0 - probability)).log2())
}

impl Tally {
    /// At least so large a share of such pairs is one person, with a confidence of 95 %: Wilson's lower bound.
    pub fn precision_min(&self) -> f64 {
        if self.reviewed == 0 {
            return 0.0;
        }
        let (reviewed, z2) = (f64::from(self.reviewed), QUANTILE * QUANTILE);
        let share = f64::from(self.one) / reviewed;
        let spread = QUANTILE * (share * (1.0 - share) / reviewed + z2 / (4.0 * reviewed * reviewed)).sqrt();
        (share + z2 / (2.0 * reviewed) - spread) / (1.0 + z2 / reviewed)
    }
}

/// What is known of the pairs that were decided by their scores or beside them. An answer that was taken back later
/// counts as wrong where it had made one person of two; where it had not, it says nothing. A pair that is rejected after
/// it was accepted counts once.
pub fn reviews(decisions: &[DecisionRecord], standings: &[Standing]) -> Vec<Review> {
    let is_rejection = |of: &&DecisionRecord| {
        let is_apart = of.source == DecisionSource::Review && of.decision.kind == DecisionKind::Apart;
        is_apart && of.weight_millibits.is_some() && of.withdrawn.is_none()
    };
    let rejections: HashSet<DecisionId> = decisions.iter().filter(is_rejection).map(|of| of.decision.id).collect();
    let review = |(of, standing): (&DecisionRecord, &Standing)| {
        if standing.overtaken_by.iter().any(|by| rejections.contains(by)) {
            return None;
        }
        let weight_millibits = of.weight_millibits?;
        let was_taken_back = of.withdrawn.is_some() || !standing.overtaken_by.is_empty();
        let is_one = match (of.source, of.decision.kind, was_taken_back) {
            (DecisionSource::Review, DecisionKind::Same, false) => true,
            (DecisionSource::Review, DecisionKind::Apart, false) => false,
            (DecisionSource::Review | DecisionSource::Score, DecisionKind::Same, true) => false,
            _ => return None,
        };
        Some(Review { weight_millibits, is_one })
    };
    decisions.iter().zip(standings).filter_map(review).collect()
}

/// What reviews say of each band, the lowest first.
pub fn bands(reviews: &[Review]) -> Vec<Band> {
    let tally = |from: i64, to: Option<i64>| {
        let inside = reviews.iter().filter(|of| of.weight_millibits >= from && to.is_none_or(|to| of.weight_millibits < to));
        inside.fold(Tally::default(), |tally, of| Tally { reviewed: tally.reviewed + 1, one: tally.one + u32::from(of.is_one) })
    };
    let band = |(at, probability_min): (usize, &f64)| {
        let probability_max = BANDS.get(at + 1).copied();
        let from = weight_of(*probability_min);
        let (own, from_here) = (tally(from, probability_max.map(weight_of)), tally(from, None));
        Band { probability_min: *probability_min, probability_max, weight_millibits_min: from, own, from_here }
    };
    BANDS.iter().enumerate().map(band).collect()
}

/// The lowest band from which on scores are right so often.
pub fn lowest(bands: &[Band], precision_min: f64) -> Option<&Band> {
    bands.iter().find(|band| band.own.precision_min() >= precision_min && band.from_here.precision_min() >= precision_min)
}

/// How many reviews in a band show so much where none of them is a wrong one.
pub fn reviews_min(precision_min: f64) -> u32 {
    let enough = |reviewed: &u32| Tally { reviewed: *reviewed, one: *reviewed }.precision_min() >= precision_min;
    (1..100_000).find(enough).unwrap_or(100_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reunion_ledger::Withdrawal;
    use reunion_model::{Decision, RecordKey};

    use super::*;

    fn reviews_of(weight_millibits: i64, right: usize, wrong: usize) -> Vec<Review> {
        let of = |is_one, count| vec![Review { weight_millibits, is_one }; count];
        [of(true, right), of(false, wrong)].concat()
    }

    #[test]
    fn nothing_is_merged_before_enough_was_reviewed() {
        assert_eq!(lowest(&bands(&[]), 0.99), None);
        assert_eq!([0.9, 0.95, 0.99].map(reviews_min), [25, 52, 268]);
        assert_eq!(lowest(&bands(&reviews_of(10_000, 267, 0)), 0.99), None);
        let proved = bands(&reviews_of(10_000, 268, 0));
        assert_eq!(lowest(&proved, 0.99).map(|band| band.probability_min), Some(0.999));
    }

    #[test]
    fn a_band_is_proved_by_its_own_reviews_and_not_by_those_of_better_ones() {
        let proved = bands(&[reviews_of(14_000, 1_000, 0), reviews_of(4_000, 20, 0)].concat());
        assert_eq!(lowest(&proved, 0.99).map(|band| band.probability_min), Some(0.9999));
        let worse_above = bands(&[reviews_of(14_000, 100, 20), reviews_of(10_000, 300, 0)].concat());
        assert_eq!(lowest(&worse_above, 0.99), None, "what is more probable was wrong more often");
    }

    #[test]
    fn the_ends_of_bands_are_one_number_in_two_units() {
        assert_eq!(BANDS.map(weight_of), [3_170, 6_629, 9_964, 13_288]);
    }

    #[test]
    fn what_was_taken_back_counts_as_wrong_where_it_had_merged() {
        let of = |source, kind, weight, taken_back: bool| {
            let (id, made_by, why) = (DecisionId::from_u128(1), "li".to_owned(), "asked".to_owned());
            let decision = Decision { id, kind, left: vec![RecordKey::from_u128(1)], right: vec![RecordKey::from_u128(2)] };
            let withdrawn = taken_back.then(|| Withdrawal { seq: 2, at_us: 0, who: made_by.clone(), why: why.clone() });
            DecisionRecord { seq: 1, decision, source, weight_millibits: weight, made_us: 0, made_by, why, withdrawn }
        };
        let counts = |of: DecisionRecord| reviews(&[of], &[Standing::default()]).first().map(|review| review.is_one);
        use DecisionKind::{Apart, Same};
        use DecisionSource::{Operator, Review as Reviewed, Score};
        assert_eq!(counts(of(Reviewed, Same, Some(1), false)), Some(true));
        assert_eq!(counts(of(Reviewed, Same, Some(1), true)), Some(false));
        assert_eq!(counts(of(Reviewed, Apart, Some(1), false)), Some(false));
        assert_eq!(counts(of(Reviewed, Apart, Some(1), true)), None);
        assert_eq!(counts(of(Score, Same, Some(1), false)), None, "a score proves nothing about itself");
        assert_eq!(counts(of(Score, Same, Some(1), true)), Some(false));
        assert_eq!(counts(of(Reviewed, Same, None, false)), None);
        assert_eq!(counts(of(Operator, Same, Some(1), false)), None);
        let overtaken = Standing { overtaken_by: vec![DecisionId::from_u128(2)], ..Standing::default() };
        assert!(!reviews(&[of(Reviewed, Same, Some(1), false)], std::slice::from_ref(&overtaken))[0].is_one);
        let mut rejected = of(Reviewed, Apart, Some(1), false);
        rejected.decision.id = DecisionId::from_u128(2);
        let both = reviews(&[of(Reviewed, Same, Some(1), false), rejected], &[overtaken, Standing::default()]);
        assert_eq!(both, [Review { weight_millibits: 1, is_one: false }], "one pair, answered twice");
    }

    proptest! {
        #[test]
        fn the_bound_is_below_what_was_seen_and_rises_with_what_is_right(reviewed in 1_u32..2_000, one in 0_u32..2_000) {
            let one = one.min(reviewed);
            let bound_of = |reviewed, one| Tally { reviewed, one }.precision_min();
            let bound = bound_of(reviewed, one);
            prop_assert!(bound <= f64::from(one) / f64::from(reviewed) + 1e-12 && bound > -1e-12);
            prop_assert!(bound_of(reviewed + 1, one + 1) >= bound);
            prop_assert!(bound_of(reviewed + 1, one) <= bound + 1e-12);
        }
    }
}
