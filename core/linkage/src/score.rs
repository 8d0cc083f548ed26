//! Scoring of candidate pairs, with the reasons.

use std::sync::Mutex;

use reunion_model::threads::one_by_one;

use crate::blocking::{Blocking, BlockingReport};
use crate::compare::{Comparers, NO_LEVEL};
use crate::model::{Model, Scale, probability};
use crate::plan::Plan;
use crate::table::Table;

/// The rows whose pairs are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Dirty<'a> {
    /// All.
    All,
    /// Pairs with at least one of these rows, by their places. They come to the same as among all pairs.
    Rows(&'a [u32]),
}

/// Two rows that may be one person.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The place of the row with the smaller key.
    pub left: u32,
    /// The place of the other.
    pub right: u32,
    /// The prior and all reasons, in bits.
    pub weight: f64,
    /// The same as a probability.
    pub probability: f64,
    /// One for each comparison of the plan, in its order.
    pub reasons: Vec<Reason>,
}

/// What one comparison says of a pair. The values are those of its column in the pair's two rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// The level of agreement; `None` where a row has no value, which says nothing.
    pub level: Option<&'static str>,
    /// What it says, in bits: positive for one person, negative for two.
    pub bits: f64,
}

/// What came of scoring.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Pairs of the plan's probability or more, in the order of their rows' keys.
    pub pairs: Vec<Pair>,
    /// Pairs that were probable enough and are not among them, because there were more than the plan keeps: those of the
    /// smallest weights.
    pub left_out: u64,
    /// How many candidates were compared.
    pub compared: u64,
    /// What became of the blocking keys.
    pub blocking: BlockingReport,
}

/// Why nothing was scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The table lacks what the plan names.
    #[error("the rows were not read by this plan: read them anew")]
    OtherPlan,
    /// The model was trained for other comparisons.
    #[error("the model was trained for other comparisons, or by another version: train it anew")]
    OtherModel,
    /// A row that is not there.
    #[error("row {row} was asked for, and there are {rows}")]
    NoRow {
        /// Its place.
        row: u32,
        /// How many there are.
        rows: usize,
    },
}

/// A pair that is probable enough, by the ranks of its rows.
#[derive(Debug, Clone, Copy)]
struct Found {
    weight: f64,
    a: u32,
    b: u32,
}

/// Scores the candidate pairs of a table.
///
/// # Errors
/// Where table, plan and model do not belong together, or a dirty row is not there.
pub fn score(table: &Table, plan: &Plan, model: &Model, dirty: Dirty<'_>) -> Result<Scored, ScoreError> {
    if !model.fits(plan) {
        return Err(ScoreError::OtherModel);
    }
    let comparers = Comparers::new(table, plan).ok_or(ScoreError::OtherPlan)?;
    let blocking = Blocking::new(table, plan).ok_or(ScoreError::OtherPlan)?;
    let scale = Scale::new(model, &comparers);
    let wanted = wanted(table, dirty)?;
    let kept = Mutex::new(Kept { found: Vec::new(), left_out: 0, most: plan.limits.kept_max });
    let compared = one_by_one(&blocking.shares(), plan.limits.threads_max, |share| {
        let (mut compared, mut found) = (0_u64, Vec::new());
        blocking.pairs(table, share, wanted.as_deref(), |a, b| {
            compared += 1;
            let weight = scale.weight(comparers.pattern(a, b), a, b);
            if probability(weight) >= plan.probability_min {
                found.push(Found { weight, a, b });
            }
        });
        kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(found);
        compared
    });
    let mut kept = kept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    kept.cut(plan.limits.kept_max);
    kept.found.sort_unstable_by_key(|found| (found.a, found.b));
    let pairs = kept.found.iter().map(|found| pair(table, &comparers, &scale, *found)).collect();
    Ok(Scored { pairs, left_out: kept.left_out, compared: compared.iter().sum(), blocking: blocking.report })
}

/// Of each rank whether its pairs are asked for.
fn wanted(table: &Table, dirty: Dirty<'_>) -> Result<Option<Vec<bool>>, ScoreError> {
    let Dirty::Rows(rows) = dirty else { return Ok(None) };
    let mut wanted = vec![false; table.rows()];
    for row in rows {
        let rank = table.ranks.get(*row as usize).ok_or(ScoreError::NoRow { row: *row, rows: table.rows() })?;
        wanted[*rank as usize] = true;
    }
    Ok(Some(wanted))
}

/// The best pairs so far.
struct Kept {
    found: Vec<Found>,
    left_out: u64,
    most: usize,
}

impl Kept {
    fn add(&mut self, found: Vec<Found>) {
        self.found.extend(found);
        if self.found.len() > self.most.saturating_mul(2) {
            self.cut(self.most);
        }
    }

    /// Which pairs are the best does not depend on when they came.
    fn cut(&mut self, most: usize) {
        if self.found.len() > most {
            self.found.select_nth_unstable_by(most, |a, b| b.weight.total_cmp(&a.weight).then((a.a, a.b).cmp(&(b.a, b.b))));
            self.left_out += (self.found.len() - most) as u64;
            self.found.truncate(most);
        }
    }
}

fn pair(table: &Table, comparers: &Comparers<'_>, scale: &Scale<'_>, found: Found) -> Pair {
    let Found { weight, a, b } = found;
    let pattern = comparers.pattern(a, b);
    let reason = |(at, comparer): (usize, &crate::compare::Comparer<'_>)| {
        let level = pattern.level(at);
        let name = (level != NO_LEVEL).then(|| comparer.kind.levels()[usize::from(level)]);
        Reason { level: name, bits: scale.bits(at, level, a, b) }
    };
    Pair {
        left: table.places[a as usize],
        right: table.places[b as usize],
        weight,
        probability: probability(weight),
        reasons: comparers.0.iter().enumerate().map(reason).collect(),
    }
}
