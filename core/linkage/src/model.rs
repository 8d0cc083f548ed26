//! What was learned: how often those who are one person agree, how often strangers do, and how many are one person.

use serde::{Deserialize, Serialize};

use crate::compare::{Comparers, NO_LEVEL, Pattern};
use crate::plan::{BlockingKey, Comparison, Plan};

/// The version of this shape.
const VERSION: u32 = 1;

/// A trained model. It holds no value of any row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    version: u32,
    /// By comparison of the plan that it was trained with.
    pub comparisons: Vec<Weights>,
    /// The chance that two rows drawn at random are one person.
    pub prior: f64,
    /// What it was trained on.
    pub training: Training,
}

/// What one comparison says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// The comparison.
    pub comparison: Comparison,
    /// Its levels, best first.
    pub levels: Vec<Level>,
    /// Why the comparison says nothing in this model; its weights are 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<Unused>,
}

/// One level of agreement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Its name.
    pub name: String,
    /// The share of pairs of one person that agree so, of those with values on both sides.
    pub m: f64,
    /// The share of pairs of strangers.
    pub u: f64,
}

impl Level {
    /// What an agreement of this level says, in bits, before a value's frequency is looked at.
    pub fn bits(&self) -> f64 {
        (self.m / self.u).log2()
    }
}

/// Why a comparison is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unused {
    /// Too few pairs of one person have values on both sides.
    TooFewValues,
    /// Strangers agree nearly as those who are one person do.
    SaysNothing,
}

/// What a model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Rows.
    pub rows: usize,
    /// Candidate pairs of all blocking keys, each once.
    pub candidates: u64,
    /// How many of them are expected to be one person.
    pub matches: f64,
    /// One for each blocking key.
    pub sessions: Vec<Session>,
}

/// The expectation maximisation over the blocks of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The key.
    pub key: BlockingKey,
    /// Pairs looked at.
    pub pairs: u64,
    /// How many of them are expected to be one person.
    pub matches: f64,
    /// Whether its weights were taken.
    pub used: bool,
}

impl Model {
    pub(crate) fn new(plan: &Plan, m: &[Vec<f64>], u: &[Vec<f64>], unused: &[Option<Unused>], prior: f64, training: Training) -> Self {
        let weights = |(at, comparison): (usize, &Comparison)| Weights {
            comparison: comparison.clone(),
            levels: (comparison.kind.levels().iter())
                .zip(m[at].iter().zip(&u[at]))
                .map(|(name, (m, u))| Level { name: (*name).to_owned(), m: rounded(*m), u: rounded(*u) })
                .collect(),
            unused: unused[at],
        };
        Self { version: VERSION, comparisons: plan.comparisons.iter().enumerate().map(weights).collect(), prior: rounded(prior), training }
    }

    /// Whether it was trained by this version and for these comparisons, so that it can score pairs.
    pub fn fits(&self, plan: &Plan) -> bool {
        let same = |(weights, comparison): (&Weights, &Comparison)| {
            let names = comparison.kind.levels();
            weights.comparison == *comparison && weights.levels.iter().map(|level| level.name.as_str()).eq(names.iter().copied())
        };
        self.version == VERSION
            && self.comparisons.len() == plan.comparisons.len()
            && self.comparisons.iter().zip(&plan.comparisons).all(same)
    }
}

/// To nine digits: as many as any reader of JSON reads as they were written, and more than are known.
pub(crate) fn rounded(number: f64) -> f64 {
    format!("{number:.8e}").parse().unwrap_or(number)
}

/// The bits of every level on one table, where a value's frequency counts.
pub(crate) struct Scale<'a> {
    comparers: &'a Comparers<'a>,
    /// By comparison and level.
    columns: Vec<Vec<LevelScale>>,
    pub prior_bits: f64,
}

/// The bits of one level, and what corrects them by a value's frequency.
#[derive(Debug, Clone, Copy, Default)]
struct LevelScale {
    bits: f64,
    /// The chance that strangers share what an agreement of this level is an agreement in.
    chance: f64,
}

impl<'a> Scale<'a> {
    pub(crate) fn new(model: &Model, comparers: &'a Comparers<'a>) -> Self {
        let columns = model.comparisons.iter().zip(&comparers.0).map(|(weights, comparer)| {
            let scale = |(at, level): (usize, &Level)| {
                if weights.unused.is_some() {
                    return LevelScale::default();
                }
                // At the first level agreeing and sharing the value are the same, and the model knows how often
                // strangers do. A class of names, such as a sound, is shared at better levels too.
                let chance = if at == 0 {
                    level.u
                } else {
                    let shared = comparer.chance(at as u8);
                    let of_one_person = model.prior * weights.levels[..=at].iter().map(|level| level.m).sum::<f64>();
                    (shared - of_one_person).max(shared / 8.0)
                };
                LevelScale { bits: level.bits(), chance }
            };
            weights.levels.iter().enumerate().map(scale).collect()
        });
        Self { comparers, columns: columns.collect(), prior_bits: (model.prior / (1.0 - model.prior)).log2() }
    }

    /// What one comparison of a pair says, in bits.
    pub(crate) fn bits(&self, at: usize, level: u8, a: u32, b: u32) -> f64 {
        if level == NO_LEVEL {
            return 0.0;
        }
        let LevelScale { bits, chance } = self.columns[at][usize::from(level)];
        let comparer = &self.comparers.0[at];
        match comparer.frequency(level, a, b) {
            Some(rows) if bits != 0.0 && chance > 0.0 => {
                // One of the two rows is the other's find; and as many values as were seen may not have been seen yet,
                // so that one seen twice is not taken for as frequent as that.
                let share = f64::from(rows.saturating_sub(1).max(1)) / (f64::from(comparer.column.present) + chance.recip());
                bits + (chance / share).log2()
            }
            _ => bits,
        }
    }

    pub(crate) fn weight(&self, pattern: Pattern, a: u32, b: u32) -> f64 {
        (0..self.columns.len()).fold(self.prior_bits, |weight, at| weight + self.bits(at, pattern.level(at), a, b))
    }
}

/// The probability of a weight in bits.
pub(crate) fn probability(weight: f64) -> f64 {
    1.0 / (1.0 + (-weight).exp2())
}
