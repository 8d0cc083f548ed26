//! Learning the weights from rows without labels.
//!
//! * *u*, how often strangers agree: from pairs drawn at random, less what of them is one person.
//! * *m*, how often those who are one person agree: by expectation maximisation over the blocks of each key, of the
//!   columns that the key does not have, so that no column is judged by pairs that were chosen for agreeing in it.
//! * The prior: the expected matches among all candidates, over all pairs of rows.
//!
//! The three need one another, so they are found in rounds. Only counts of patterns are kept of the pairs, which makes a
//! step cost as much as there are patterns, and its sums the same in whatever order the pairs came.

use hashbrown::HashMap;
use reunion_model::threads::one_by_one;

use crate::blocking::Blocking;
use crate::compare::{Comparers, NO_LEVEL, Pattern};
use crate::limits::{BELIEVED_SHARE, BITS_MIN, MATCHES_MIN, ROUNDS, SAMPLE_PAIRS, STEPS_MAX, TRAINING_PAIRS_MAX, TRAINING_PAIRS_MIN};
use crate::model::{Model, Session, Training, Unused, probability, rounded};
use crate::plan::Plan;
use crate::random::Random;
use crate::table::Table;

/// Why no model was made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The table lacks what the plan names.
    #[error("the rows were not read by this plan: read them anew")]
    OtherPlan,
    /// Hardly anybody shares a blocking key.
    #[error(
        "{pairs} pairs share a blocking key, and {TRAINING_PAIRS_MIN} are needed to learn from: there are too few rows, or the keys are too narrow"
    )]
    TooFewPairs {
        /// How many there are.
        pairs: u64,
    },
    /// Hardly any duplicates.
    #[error("about {expected} of {candidates} candidate pairs are one person, and {MATCHES_MIN} are needed to learn from")]
    TooFewMatches {
        /// How many are expected, rounded.
        expected: u64,
        /// Out of how many.
        candidates: u64,
    },
    /// Most of those that look like matches look like strangers too.
    #[error("of about {expected} pairs that may be one person only {clear} are clearly so: the columns compared do not tell people apart")]
    NotSeparable {
        /// How many are expected, rounded.
        expected: u64,
        /// How many have a probability of 0.9 or more.
        clear: u64,
    },
    /// Fewer than two columns that say anything.
    #[error("of the columns compared only {used} tell people apart, and 2 are needed: {unused}")]
    TooFewColumns {
        /// How many do.
        used: usize,
        /// The others.
        unused: String,
    },
}

/// Counts of patterns, in the order of the patterns.
type Counts = Vec<(Pattern, u64)>;
/// By comparison and level.
type Shares = Vec<Vec<f64>>;

/// How much a session trusts what strangers do in general over what they do in its blocks, where those who share a
/// store also share more else: as if so large a share of its pairs had been strangers of the general kind.
const GENERAL_SHARE: f64 = 0.05;

/// Learns a model from a table.
///
/// # Errors
/// Where there is too little to learn from, or what was learned would not tell people apart: no model is better than a
/// bad one.
pub fn train(table: &Table, plan: &Plan) -> Result<Model, TrainError> {
    let comparers = Comparers::new(table, plan).ok_or(TrainError::OtherPlan)?;
    let blocking = Blocking::new(table, plan).ok_or(TrainError::OtherPlan)?;
    let candidates = candidates(table, plan, &comparers, &blocking);
    let pairs: u64 = candidates.iter().map(|(_, count)| count).sum();
    if pairs < TRAINING_PAIRS_MIN {
        return Err(TrainError::TooFewPairs { pairs });
    }
    let strangers = Sample::draw(table, plan, &comparers);
    let sessions = sessions(table, plan, &comparers, &blocking);

    let mut u = strangers.shares(plan, |_| 0.0);
    // To begin with, agreeing says much and not agreeing little: half of those who are one person may agree as strangers do,
    // in a column that has nothing to say.
    let mut m: Shares = u.iter().map(|u| guess(u.len()).iter().zip(u).map(|(guess, u)| (guess + u) / 2.0).collect()).collect();
    let (mut prior, mut learned) = (0.0, Vec::new());
    for round in 0..ROUNDS {
        learned = one_by_one(&sessions, plan.limits.threads_max, |session| session.learn(&m, &u));
        m = pooled(plan, &sessions, &learned);
        let start = if round == 0 { learned.iter().map(|one| one.matches).fold(1.0, f64::max) / table.pairs() as f64 } else { prior };
        let bits = bits(&m, &u);
        prior = settle(&candidates, &bits, start, table.pairs());
        u = strangers.shares(plan, |pattern| probability(weight(&bits, pattern) + log_odds(prior)));
    }
    finish(table, plan, &Learned { candidates, sessions, learned, m, u, prior })
}

/// Everything that was learned.
struct Learned {
    candidates: Counts,
    sessions: Vec<SessionPairs>,
    learned: Vec<Outcome>,
    m: Shares,
    u: Shares,
    prior: f64,
}

/// Makes a model of what was learned, unless it is none.
fn finish(table: &Table, plan: &Plan, learned: &Learned) -> Result<Model, TrainError> {
    let Learned { candidates, sessions, learned, m, u, prior } = learned;
    let unused: Vec<Option<Unused>> = (0..plan.comparisons.len()).map(|at| unused(at, learned, &m[at], &u[at])).collect();
    let matches = trusted(plan, candidates, learned, &weights(m, u, &unused), *prior, &unused)?;
    let reports = sessions.iter().zip(learned).zip(&plan.blocking).map(|((session, outcome), key)| Session {
        key: key.clone(),
        pairs: session.counts.iter().map(|(_, count)| count).sum(),
        matches: rounded(outcome.matches),
        used: outcome.counts(),
    });
    let pairs = candidates.iter().map(|(_, count)| count).sum();
    let training = Training { rows: table.rows(), candidates: pairs, matches: rounded(matches), sessions: reports.collect() };
    Ok(Model::new(plan, m, u, &unused, *prior, training))
}

/// Why a comparison says nothing, if so.
fn unused(at: usize, learned: &[Outcome], m: &[f64], u: &[f64]) -> Option<Unused> {
    let seen: f64 = learned.iter().filter(|one| one.counts()).map(|one| one.agreeing[at].iter().sum::<f64>()).sum();
    if seen < MATCHES_MIN {
        return Some(Unused::TooFewValues);
    }
    let says: f64 = m.iter().zip(u).map(|(m, u)| m * (m / u).log2()).sum();
    (says < BITS_MIN || agree(m) <= agree(u)).then_some(Unused::SaysNothing)
}

/// The bits of every level, none where the comparison says nothing.
fn weights(m: &Shares, u: &Shares, unused: &[Option<Unused>]) -> Shares {
    let mut bits = bits(m, u);
    for (bits, _) in bits.iter_mut().zip(unused).filter(|(_, unused)| unused.is_some()) {
        bits.fill(0.0);
    }
    bits
}

/// How many matches are expected, where they are enough, of enough columns, and most of them clear.
fn trusted(
    plan: &Plan,
    candidates: &Counts,
    learned: &[Outcome],
    bits: &Shares,
    prior: f64,
    unused: &[Option<Unused>],
) -> Result<f64, TrainError> {
    let (mut pairs, mut expected, mut clear) = (0, 0.0, 0.0);
    for (pattern, count) in candidates {
        let posterior = probability(weight(bits, *pattern) + log_odds(prior));
        let matches = *count as f64 * posterior;
        pairs += count;
        expected += matches;
        clear += if posterior >= 0.9 { matches } else { 0.0 };
    }
    let in_sessions: f64 = learned.iter().filter(|one| one.counts()).map(|one| one.matches).sum();
    if expected.min(in_sessions) < MATCHES_MIN {
        return Err(TrainError::TooFewMatches { expected: expected.min(in_sessions).round() as u64, candidates: pairs });
    }
    let used = unused.iter().filter(|unused| unused.is_none()).count();
    if used < 2 {
        let names = plan.comparisons.iter().zip(unused).filter(|(_, unused)| unused.is_some()).map(|(one, _)| one.column.as_str());
        return Err(TrainError::TooFewColumns { used, unused: names.collect::<Vec<_>>().join(", ") });
    }
    if clear < expected / 2.0 {
        return Err(TrainError::NotSeparable { expected: expected.round() as u64, clear: clear.round() as u64 });
    }
    Ok(expected)
}

/// What is believed of those who are one person before anything was seen: most agree, and the fewer the lesser the level.
fn guess(levels: usize) -> Vec<f64> {
    let shares: Vec<f64> = (0..levels).map(|level| if level == 0 { 8.0 } else { 1.0 / level as f64 }).collect();
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / sum).collect()
}

/// How many agree at any level. The best one alone is no measure: keys may have merged all who agree so.
fn agree(shares: &[f64]) -> f64 {
    1.0 - shares[shares.len() - 1]
}

fn bits(m: &Shares, u: &Shares) -> Shares {
    m.iter().zip(u).map(|(m, u)| m.iter().zip(u).map(|(m, u)| (m / u).log2()).collect()).collect()
}

fn weight(bits: &Shares, pattern: Pattern) -> f64 {
    bits.iter().enumerate().fold(0.0, |sum, (at, bits)| match pattern.level(at) {
        NO_LEVEL => sum,
        level => sum + bits[usize::from(level)],
    })
}

fn log_odds(share: f64) -> f64 {
    (share / (1.0 - share)).log2()
}

/// The prior at which the matches expected among the candidates are as many as it says.
fn settle(candidates: &Counts, bits: &Shares, start: f64, pairs: u64) -> f64 {
    let weights: Vec<(f64, f64)> = candidates.iter().map(|(pattern, count)| (weight(bits, *pattern), *count as f64)).collect();
    let mut prior = start;
    for _ in 0..STEPS_MAX {
        let odds = log_odds(prior);
        let expected: f64 = weights.iter().map(|(weight, count)| count * probability(weight + odds)).sum();
        let next = (expected / pairs as f64).clamp(f64::MIN_POSITIVE, 0.5);
        let settled = (next - prior).abs() <= prior * 1e-6;
        prior = next;
        if settled {
            break;
        }
    }
    prior
}

/// Patterns as they are counted.
#[derive(Default)]
struct Counter(HashMap<Pattern, u64>);

impl Counter {
    fn count(&mut self, pattern: Pattern) {
        *self.0.entry(pattern).or_insert(0) += 1;
    }

    fn merged(counters: Vec<Self>) -> Counts {
        let mut all: HashMap<Pattern, u64> = HashMap::new();
        for (pattern, count) in counters.into_iter().flat_map(|counter| counter.0) {
            *all.entry(pattern).or_insert(0) += count;
        }
        let mut counts: Counts = all.into_iter().collect();
        counts.sort_unstable();
        counts
    }
}

/// The patterns of all candidates, each pair once.
fn candidates(table: &Table, plan: &Plan, comparers: &Comparers<'_>, blocking: &Blocking) -> Counts {
    let shares = blocking.shares();
    Counter::merged(one_by_one(&shares, plan.limits.threads_max, |share| {
        let mut counter = Counter::default();
        blocking.pairs(table, share, None, |a, b| counter.count(comparers.pattern(a, b)));
        counter
    }))
}

/// The patterns of pairs drawn at random, or of all pairs where they are no more.
struct Sample {
    counts: Counts,
}

impl Sample {
    /// Rows are drawn in groups, all pairs of which are compared: a group's values stay in the processor's cache.
    fn draw(table: &Table, plan: &Plan, comparers: &Comparers<'_>) -> Self {
        const ROWS_PER_GROUP: u64 = 363;
        const PAIRS_PER_GROUP: u64 = ROWS_PER_GROUP * (ROWS_PER_GROUP - 1) / 2;
        let rows = table.rows() as u64;
        let all = rows * rows.saturating_sub(1) / 2 <= SAMPLE_PAIRS;
        let groups: Vec<u64> = (0..if all { rows } else { SAMPLE_PAIRS / PAIRS_PER_GROUP }).collect();
        let counts = Counter::merged(one_by_one(&groups, plan.limits.threads_max, |group| {
            let mut counter = Counter::default();
            let mut count = |a: u32, b: u32| {
                if table.comparable(a, b) {
                    counter.count(comparers.pattern(a, b));
                }
            };
            if all {
                (*group as u32 + 1..rows as u32).for_each(|other| count(*group as u32, other));
                return counter;
            }
            let mut random = Random::new(table.seed ^ group.wrapping_mul(0xD134_2543_DE82_EF95));
            let mut drawn: Vec<u32> = (0..ROWS_PER_GROUP).map(|_| random.below(rows) as u32).collect();
            drawn.sort_unstable();
            drawn.dedup();
            for (at, a) in drawn.iter().enumerate() {
                drawn[at + 1..].iter().for_each(|b| count(*a, *b));
            }
            counter
        }));
        Self { counts }
    }

    /// How often strangers agree, given how probable it is that a pair is one person. What was not seen is taken to be as
    /// often as half a pair.
    fn shares(&self, plan: &Plan, one_person: impl Fn(Pattern) -> f64) -> Shares {
        let mut sums: Shares = plan.comparisons.iter().map(|comparison| vec![0.0; comparison.kind.levels().len()]).collect();
        for (pattern, count) in &self.counts {
            let strangers = *count as f64 * (1.0 - one_person(*pattern));
            for (at, sums) in sums.iter_mut().enumerate() {
                if pattern.level(at) != NO_LEVEL {
                    sums[usize::from(pattern.level(at))] += strangers;
                }
            }
        }
        for sums in &mut sums {
            sums.iter_mut().for_each(|sum| *sum = sum.max(0.5));
            let all: f64 = sums.iter().sum();
            sums.iter_mut().for_each(|sum| *sum /= all);
        }
        sums
    }
}

/// The pairs of one key's blocks, and which comparisons can be learned from them.
struct SessionPairs {
    counts: Counts,
    learns: Vec<bool>,
}

/// What one session came to.
#[derive(Debug, Clone)]
struct Outcome {
    /// Expected pairs of one person by comparison and level; empty where the comparison was not learned.
    agreeing: Shares,
    matches: f64,
    /// Whether those that it took for one person agree more often than strangers.
    upright: bool,
}

impl Outcome {
    fn counts(&self) -> bool {
        self.upright && self.matches >= MATCHES_MIN
    }
}

fn sessions(table: &Table, plan: &Plan, comparers: &Comparers<'_>, blocking: &Blocking) -> Vec<SessionPairs> {
    let keys: Vec<usize> = (0..plan.blocking.len()).collect();
    one_by_one(&keys, plan.limits.threads_max, |key| {
        let learns: Vec<bool> = plan.comparisons.iter().map(|comparison| !plan.blocking[*key].uses(comparison)).collect();
        // What is not learned is not told apart either.
        let blocked = learns.iter().enumerate().filter(|(_, learns)| !**learns).fold(0_u64, |mask, (at, _)| mask | 0xf << (at * 4));
        let mut counter = Counter::default();
        blocking.sample(table, *key, TRAINING_PAIRS_MAX, |a, b| counter.count(Pattern(comparers.pattern(a, b).0 | blocked)));
        SessionPairs { counts: Counter::merged(vec![counter]), learns }
    })
}

impl SessionPairs {
    /// Expectation maximisation, from what is known so far. Strangers in the blocks of a key agree more often than
    /// strangers do, so how often is learned beside and thrown away.
    fn learn(&self, m: &Shares, u: &Shares) -> Outcome {
        let pairs: f64 = self.counts.iter().map(|(_, count)| *count as f64).sum();
        let none = || self.learns.iter().map(|_| Vec::new()).collect();
        if pairs < 1.0 || !self.learns.contains(&true) {
            return Outcome { agreeing: none(), matches: 0.0, upright: false };
        }
        let (mut own_m, mut own_u) = (m.clone(), u.clone());
        let mut share: f64 = 0.2;
        let mut agreeing: Shares = none();
        let mut matches = 0.0;
        for _ in 0..STEPS_MAX {
            let bits = bits(&own_m, &own_u);
            let odds = log_odds(share);
            agreeing = self.learns.iter().zip(m).map(|(learns, m)| vec![0.0; if *learns { m.len() } else { 0 }]).collect();
            let mut others = agreeing.clone();
            matches = 0.0;
            for (pattern, count) in &self.counts {
                let count = *count as f64;
                let one_person = probability(weight(&bits, *pattern) + odds);
                matches += count * one_person;
                for at in (0..self.learns.len()).filter(|at| pattern.level(*at) != NO_LEVEL) {
                    agreeing[at][usize::from(pattern.level(at))] += count * one_person;
                    others[at][usize::from(pattern.level(at))] += count * (1.0 - one_person);
                }
            }
            let mut moved: f64 = 0.0;
            for at in (0..self.learns.len()).filter(|at| self.learns[*at]) {
                let next = shared(&agreeing[at], &guess(agreeing[at].len()), 1.0);
                moved = next.iter().zip(&own_m[at]).map(|(a, b)| (a - b).abs()).fold(moved, f64::max);
                own_m[at] = next;
                own_u[at] = shared(&others[at], &u[at], (pairs * GENERAL_SHARE).max(1.0));
            }
            share = (matches / pairs).clamp(1e-9, 1.0 - 1e-6);
            if moved < 1e-5 {
                break;
            }
        }
        let more = |at: usize| agree(&own_m[at]) > agree(&u[at]);
        let learned = (0..self.learns.len()).filter(|at| self.learns[*at] && agreeing[*at].iter().sum::<f64>() >= MATCHES_MIN);
        let (better, worse): (Vec<_>, Vec<_>) = learned.partition(|at| more(*at));
        Outcome { agreeing, matches, upright: better.len() > worse.len() }
    }
}

/// Shares of counts, with so many more that are shared out as `before` says.
fn shared(counts: &[f64], before: &[f64], weight: f64) -> Vec<f64> {
    let all: f64 = counts.iter().sum::<f64>() + weight;
    counts.iter().zip(before).map(|(count, before)| (count + before * weight) / all).collect()
}

/// Of all sessions that count, together.
fn pooled(plan: &Plan, sessions: &[SessionPairs], learned: &[Outcome]) -> Shares {
    let of = |at: usize| {
        let levels = plan.comparisons[at].kind.levels().len();
        let mut sums = vec![0.0; levels];
        for (_, outcome) in sessions.iter().zip(learned).filter(|(session, outcome)| session.learns[at] && outcome.counts()) {
            sums.iter_mut().zip(&outcome.agreeing[at]).for_each(|(sum, own)| *sum += own);
        }
        // A pair that several sessions saw is one pair; so is what is believed in each of them.
        let believed = (sums.iter().sum::<f64>() * BELIEVED_SHARE).max(1.0);
        shared(&sums, &guess(levels), believed)
    };
    (0..plan.comparisons.len()).map(of).collect()
}
