//! What is compared, and which rows are compared at all.

use serde::{Deserialize, Serialize};

use crate::limits::{BLOCKING_KEYS_MAX, COMPARISONS_MAX};

/// How the values of a column are compared. Each kind has a fixed list of levels, best first, whose names are
/// stable ([`Kind::levels`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A whole name in Chinese characters or in Latin letters, surname first where it is Chinese.
    Name,
    /// A name or part of a name in Latin letters.
    LatinName,
    /// A calendar day: a date, a moment (its day in UTC), or text as `1985-03-02` or `19850302`. Days that no calendar has
    /// are compared by their digits.
    Date {
        /// Days between two dates that count as `near`.
        near_days: u16,
    },
    /// Digits and letters of a phone, a card, a house number or a postcode.
    Digits,
    /// Free text.
    Text,
    /// One of a list of codes: equal or not.
    Code,
    /// Several values: a list, or text with commas, semicolons or `|` between them.
    Set,
    /// A number.
    Number,
}

impl Kind {
    /// The names of the levels of agreement, from the one that says most to none.
    pub const fn levels(self) -> &'static [&'static str] {
        match self {
            Self::Name => &[
                "exact",
                "homophone_tone",
                "homophone",
                "romanised",
                "swapped",
                "near_sound",
                "close",
                "abbreviated",
                "given_name",
                "surname",
                "other",
            ],
            Self::LatinName => &["exact", "swapped", "close", "similar", "initial", "other"],
            Self::Date { .. } => {
                &["exact", "day_month_swapped", "one_digit", "near", "two_digits", "same_day_of_year", "same_year", "other"]
            }
            Self::Digits => &["exact", "swapped", "transposition", "one_digit", "two_edits", "other"],
            Self::Text => &["exact", "swapped", "close", "similar", "other"],
            Self::Code => &["exact", "other"],
            Self::Set => &["exact", "half", "overlap", "other"],
            Self::Number => &["exact", "within_1_percent", "within_10_percent", "other"],
        }
    }
}

/// One comparison: a column and how its values are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The column.
    pub column: String,
    /// How its values are compared.
    pub kind: Kind,
    /// A column that this one is mixed up with: a value that stands there in the other row is the level `swapped`, which
    /// kinds other than latin name, digits and text do not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
    /// Whether a rare value that agrees says more than a frequent one.
    #[serde(default = "yes")]
    pub term_frequency: bool,
}

const fn yes() -> bool {
    true
}

impl Comparison {
    /// The comparison of a column with term frequencies and no other column.
    pub fn new(column: impl Into<String>, kind: Kind) -> Self {
        Self { column: column.into(), kind, with: None, term_frequency: true }
    }

    /// The same, with a column that this one is mixed up with.
    #[must_use]
    pub fn with(mut self, column: impl Into<String>) -> Self {
        self.with = Some(column.into());
        self
    }
}

/// What of a value goes into a blocking key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All of it.
    Whole,
    /// The first characters; shorter values are in no block.
    First(u8),
    /// The last characters; shorter values are in no block.
    Last(u8),
    /// The year of a date.
    Year,
    /// Month and day of a date.
    MonthDay,
    /// A name's sound, by pinyin without tones, with sounds that are mixed up (zh and z, n and l, ang and an …)
    /// made one, in whatever order its parts stand. Names in Latin letters are taken for pinyin. Surnames with a title
    /// and masked names are in no block.
    Sound,
    /// The same of the surname alone: the first word of a name in Latin letters.
    SurnameSound,
    /// The characters in an order of their own, so that swapped parts fall together.
    Characters,
}

/// A part of a column's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPart {
    /// The column.
    pub column: String,
    /// What of its value.
    pub part: Part,
}

/// Rows with the same values in all parts are compared with one another. A row that lacks one of them is in no block
/// of this key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockingKey {
    /// All of them must agree.
    pub parts: Vec<KeyPart>,
}

impl BlockingKey {
    /// A key of these columns and parts.
    pub fn new(parts: &[(&str, Part)]) -> Self {
        Self { parts: parts.iter().map(|(column, part)| KeyPart { column: (*column).to_owned(), part: *part }).collect() }
    }

    pub(crate) fn uses(&self, comparison: &Comparison) -> bool {
        self.parts.iter().any(|part| part.column == comparison.column || Some(&part.column) == comparison.with.as_ref())
    }
}

/// Bounds of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Pairs of one block. A larger block is cut finer by further columns, and skipped where none is left.
    pub pairs_per_block_max: u64,
    /// Candidate pairs of all blocks. Where there would be more, the limit of a block is lowered until they fit.
    pub pairs_max: u64,
    /// Pairs kept: those with the greatest weights.
    pub kept_max: usize,
    /// Threads; no result depends on them.
    pub threads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 300 rows in a block; some seconds of work on two cores; 32 MB of pairs without their reasons.
        Self { pairs_per_block_max: 45_000, pairs_max: 50_000_000, kept_max: 2_000_000, threads_max: usize::MAX }
    }
}

/// What is compared, how candidates are found, and from which probability on a pair is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The comparisons, in the order in which reasons are given.
    pub comparisons: Vec<Comparison>,
    /// The blocking keys. A pair belongs to the first one that brings it together.
    pub blocking: Vec<BlockingKey>,
    /// Pairs that are less probable than this are not kept.
    pub probability_min: f64,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// A plan that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to compare, or too much.
    #[error("{count} comparisons: at least 2 and at most {COMPARISONS_MAX} are possible")]
    Comparisons {
        /// How many there are.
        count: usize,
    },
    /// No way to find candidates, or too many.
    #[error("{count} blocking keys: at least 1 and at most {BLOCKING_KEYS_MAX} are possible")]
    BlockingKeys {
        /// How many there are.
        count: usize,
    },
    /// A key that would put all rows into one block.
    #[error("blocking key {key} has no parts: every row would be compared with every other")]
    NoParts {
        /// Its place in the plan, from 1.
        key: usize,
    },
    /// Two comparisons of one column.
    #[error("column `{column}` is compared twice: what it says would count twice")]
    Twice {
        /// The column.
        column: String,
    },
    /// A part that the column's kind does not have.
    #[error("blocking key {key}: `{column}` has no {part:?}, which a {wants} has")]
    Part {
        /// Its place in the plan, from 1.
        key: usize,
        /// The column.
        column: String,
        /// The part.
        part: Part,
        /// The kind that has it.
        wants: &'static str,
    },
    /// A part of no characters.
    #[error("blocking key {key}: no characters of `{column}`: every row would be compared with every other")]
    NoCharacters {
        /// Its place in the plan, from 1.
        key: usize,
        /// The column.
        column: String,
    },
    /// A probability that is none.
    #[error("probability_min is {given}: between 0 and 1 was expected")]
    Probability {
        /// What it is, as text.
        given: String,
    },
}

impl Plan {
    /// The plan for members of retailers in China, of those columns that are there: phone, name, birthday, gender,
    /// store, card_no, unionid, created_at, last_order_at. `None` where fewer than two of them are. Phones are the digits of
    /// the E.164 form, country code first.
    pub fn retail(columns: &[&str]) -> Option<Self> {
        use Part::{First, Last, MonthDay, Sound, SurnameSound, Whole, Year};
        let has = |name: &str| columns.contains(&name);
        let compared = [
            ("name", Kind::Name),
            ("phone", Kind::Digits),
            ("birthday", Kind::Date { near_days: 10 }),
            ("card_no", Kind::Digits),
            ("unionid", Kind::Code),
            ("gender", Kind::Code),
            ("store", Kind::Code),
            ("created_at", Kind::Date { near_days: 3 }),
            ("last_order_at", Kind::Date { near_days: 3 }),
        ];
        let comparisons: Vec<_> =
            compared.iter().filter(|(column, _)| has(column)).map(|(column, kind)| Comparison::new(*column, *kind)).collect();
        let keys: &[&[(&str, Part)]] = &[
            &[("name", Sound), ("birthday", Whole)],
            &[("phone", Last(8))],
            &[("phone", First(9)), ("name", SurnameSound)],
            &[("phone", First(9)), ("store", Whole)],
            &[("phone", First(5)), ("phone", Last(4)), ("name", SurnameSound)],
            &[("phone", First(5)), ("phone", Last(4)), ("store", Whole)],
            &[("phone", Last(4)), ("name", Sound)],
            &[("name", Sound), ("store", Whole)],
            &[("birthday", Whole), ("store", Whole)],
            &[("birthday", Whole), ("name", SurnameSound)],
            &[("name", Sound), ("birthday", Year)],
            &[("name", Sound), ("birthday", MonthDay)],
            &[("birthday", Whole), ("phone", Last(4))],
            &[("card_no", Whole)],
        ];
        let blocking: Vec<_> =
            keys.iter().filter(|parts| parts.iter().all(|(column, _)| has(column))).map(|parts| BlockingKey::new(parts)).collect();
        (comparisons.len() >= 2 && !blocking.is_empty()).then(|| Self {
            comparisons,
            blocking,
            probability_min: 0.9,
            limits: Limits::default(),
        })
    }

    /// What is wrong with it.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        let count = self.comparisons.len();
        if !(2..=COMPARISONS_MAX).contains(&count) {
            return Err(PlanError::Comparisons { count });
        }
        let count = self.blocking.len();
        if !(1..=BLOCKING_KEYS_MAX).contains(&count) {
            return Err(PlanError::BlockingKeys { count });
        }
        if !(0.0..=1.0).contains(&self.probability_min) {
            return Err(PlanError::Probability { given: self.probability_min.to_string() });
        }
        for (at, comparison) in self.comparisons.iter().enumerate() {
            if self.comparisons[..at].iter().any(|other| other.column == comparison.column) {
                return Err(PlanError::Twice { column: comparison.column.clone() });
            }
        }
        for (at, key) in self.blocking.iter().enumerate() {
            if key.parts.is_empty() {
                return Err(PlanError::NoParts { key: at + 1 });
            }
            for part in &key.parts {
                let kind = self.kind_of(&part.column);
                if matches!(part.part, Part::First(0) | Part::Last(0)) {
                    return Err(PlanError::NoCharacters { key: at + 1, column: part.column.clone() });
                }
                let wants = match part.part {
                    Part::Year | Part::MonthDay if !matches!(kind, Kind::Date { .. }) => "date",
                    Part::Sound | Part::SurnameSound if kind != Kind::Name => "name",
                    _ => continue,
                };
                return Err(PlanError::Part { key: at + 1, column: part.column.clone(), part: part.part, wants });
            }
        }
        Ok(())
    }

    /// Every column that is read, once: those compared first, in their order.
    pub fn columns(&self) -> Vec<&str> {
        let compared = self.comparisons.iter().map(|comparison| comparison.column.as_str());
        let mixed_up = self.comparisons.iter().filter_map(|comparison| comparison.with.as_deref());
        let blocked = self.blocking.iter().flat_map(|key| key.parts.iter().map(|part| part.column.as_str()));
        let mut names: Vec<&str> = Vec::new();
        for name in compared.chain(mixed_up).chain(blocked) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// How a column's values are read: as it is compared, and as text where it is not.
    pub(crate) fn kind_of(&self, column: &str) -> Kind {
        self.comparisons.iter().find(|comparison| comparison.column == column).map_or(Kind::Text, |comparison| comparison.kind)
    }
}
