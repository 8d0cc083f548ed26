//! Limits of the crate that are not the operator's to set, with the reason for each.

/// Comparisons of a plan: the levels of a pair stand in one 64-bit pattern, four bits each.
pub const COMPARISONS_MAX: usize = 16;
/// Blocking keys of a plan: each costs four bytes a row and a sort of all rows.
pub const BLOCKING_KEYS_MAX: usize = 16;
/// Rows of a table: they are counted in 32 bits.
pub const ROWS_MAX: usize = u32::MAX as usize - 1;
/// Pairs drawn at random, or as good as that, to see how often strangers agree. One in a million is seen twice or so;
/// rarer than that is taken to be as often as half a pair of the sample.
pub const SAMPLE_PAIRS: u64 = 1 << 21;
/// Pairs that one blocking key gives to the training. The weights are known to a percent long before.
pub const TRAINING_PAIRS_MAX: u64 = 1 << 21;
/// Candidate pairs without which no model is made.
pub const TRAINING_PAIRS_MIN: u64 = 50;
/// Expected matches without which neither a blocking key's session counts nor a model is made: the rarer
/// levels of agreement would be known from one or two pairs.
pub const MATCHES_MIN: f64 = 20.0;
/// Of the pairs expected to be one person, how many are taken to agree as was believed before anything was seen. Where no
/// mistake was seen among thousands, one is improbable and not impossible.
pub const BELIEVED_SHARE: f64 = 0.005;
/// Bits that a comparison must say of a pair of one person on average. What says less is mostly chance, and where it is
/// not, it is something else that rows share, such as the day on which a family joined.
pub const BITS_MIN: f64 = 0.1;
/// Steps of the expectation maximisation of one session.
pub const STEPS_MAX: usize = 500;
/// Rounds in which the chance of an agreement between strangers, the sessions and the prior correct one another.
pub const ROUNDS: usize = 4;
/// Edits between two texts are counted up to this length in characters; longer ones differ or are equal.
pub const EDITS_CHARS_MAX: usize = 48;
