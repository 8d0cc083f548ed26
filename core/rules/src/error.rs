//! Every way in which this crate says no.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// Which rule of the config is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleName {
    /// `[tags.NAME] when`
    Tag(String),
    /// `[campaigns.NAME] audience`
    Audience(String),
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name) => write!(f, "tag `{name}`"),
            Self::Audience(campaign) => write!(f, "audience of campaign `{campaign}`"),
        }
    }
}

/// Why a rule of the config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The rule.
    pub rule: RuleName,
    /// What is wrong, in plain words, on one line.
    pub message: String,
    /// The text that is to blame as bytes of the expression: where it begins and how long it is.
    /// `None` where it is the whole expression, or the rule's name.
    pub span: Option<(usize, usize)>,
    /// What to write instead, or what to do.
    pub suggestion: Option<String>,
    /// The name of the column where the rule is wrong only because no such column is known: the
    /// caller may know that a source could still bring it.
    pub unknown_column: Option<String>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

/// Why derived columns cannot be computed. Each of these is a fault of the caller.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// A column has another type than its canonical one.
    #[error("column `{column}` of the members is {found}, and must be {expected}")]
    Type {
        /// Its name.
        column: String,
        /// The Arrow type that it must have.
        expected: String,
        /// The Arrow type that it has.
        found: String,
    },
    /// The run's clock is no moment of the calendar.
    #[error("the clock {clock_us} µs is outside of the calendar")]
    Clock {
        /// Microseconds since the epoch.
        clock_us: i64,
    },
    /// More members than row numbers.
    #[error("{0} members are too many for one process: the limit is 4,294,967,295")]
    TooMany(usize),
    /// Batches that do not fit together.
    #[error("the members' columns do not fit together")]
    Arrow(#[from] ArrowError),
}

/// Why rules that compiled could not be evaluated, or a tag state not be read.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A column that the rules use is not in the batches, or has another type than at compile time.
    #[error("the members' column `{column}` is {found}, and the rules were compiled for {expected}")]
    Column {
        /// Its name.
        column: String,
        /// The type at compile time.
        expected: String,
        /// What was found: a type, or `missing`.
        found: String,
    },
    /// A batch of the tag state is not of [`crate::tag_schema`].
    #[error("the stored tags have no usable column `{0}`")]
    State(&'static str),
    /// A rule gave something else than one boolean per row.
    #[error("{rule} gave no boolean for each member")]
    Shape {
        /// The rule.
        rule: RuleName,
    },
    /// Batches that do not fit together.
    #[error("the members' columns do not fit together")]
    Arrow(#[from] ArrowError),
}

/// Why a query was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Anything wrong with the text: what, and what to write instead.
    #[error("{message}{}", .suggestion.as_deref().map(|s| format!("; {s}")).unwrap_or_default())]
    Text {
        /// What is wrong, on one line.
        message: String,
        /// What to do.
        suggestion: Option<String>,
        /// Where in the text, as bytes: begin and length.
        span: Option<(usize, usize)>,
    },
    /// A statement that is no query.
    #[error("only queries are allowed, and this statement changes something: write select, with, explain, show tables or describe")]
    NotReadOnly,
    /// More rows than allowed.
    #[error("the query gives more than {rows_max} rows: add a condition or a limit")]
    RowsMax {
        /// The limit.
        rows_max: usize,
    },
    /// More memory than allowed.
    #[error("the query needs more than {bytes_max} bytes of memory: select fewer columns, or add a condition or a limit")]
    MemoryMax {
        /// The limit.
        bytes_max: usize,
    },
    /// The query failed on a value.
    #[error("the query failed while it ran: {0}")]
    Failed(String),
    /// The engine could not be set up.
    #[error("the query engine could not be set up")]
    Engine(#[source] DataFusionError),
    /// The thread that ran the query is gone.
    #[error("the query engine stopped before it answered")]
    Stopped,
}
