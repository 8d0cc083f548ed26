//! What came of it.

use serde::{Deserialize, Serialize};

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The plugin does what it must.
    Passed {
        /// What is worth saying all the same; mostly empty.
        note: String,
    },
    /// It does not.
    Failed {
        /// What was expected, and what was seen.
        seen: String,
        /// The rule of the header that it breaks; empty where there is none of its own.
        rule: String,
    },
    /// It could not be tried.
    Skipped {
        /// Why, and what to do.
        why: String,
    },
}

impl Outcome {
    /// Passed, with nothing more to say.
    pub fn passed() -> Self {
        Self::Passed { note: String::new() }
    }

    /// Passed, and this is worth saying.
    pub fn noted(note: impl Into<String>) -> Self {
        Self::Passed { note: note.into() }
    }

    /// Failed by this rule.
    pub fn failed(seen: impl Into<String>, rule: &str) -> Self {
        Self::Failed { seen: seen.into(), rule: rule.to_owned() }
    }

    /// Not tried.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped { why: why.into() }
    }

    /// Whether it failed.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// The word of the table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed { .. } => "pass",
            Self::Failed { .. } => "FAIL",
            Self::Skipped { .. } => "skipped",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The case's name.
    pub case: &'static str,
    /// What it tries.
    pub tries: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of all cases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each case, in the order in which they were tried.
    pub cases: Vec<Row>,
}

impl Report {
    /// How many passed, failed and were skipped.
    pub fn counts(&self) -> [usize; 3] {
        let count = |is: fn(&Outcome) -> bool| self.cases.iter().filter(|row| is(&row.outcome)).count();
        [
            count(|outcome| matches!(outcome, Outcome::Passed { .. })),
            count(Outcome::is_failed),
            count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        ]
    }
}
