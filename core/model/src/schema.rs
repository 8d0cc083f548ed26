//! The one table of canonical columns: names, types, units, and how a member's value is chosen.
//!
//! The reference page on columns is generated from it. A column that a source has beyond these
//! keeps its name and is text unless its type is declared.

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// Digits before and after the point of every amount.
pub const DECIMAL_PRECISION: u8 = 18;
/// Digits after the point of every amount.
pub const DECIMAL_SCALE: i8 = 2;

/// The type of a column, as configs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// UTF-8 text, spaces at both ends removed; empty text is null.
    Text,
    /// A whole number, 64 bits.
    Integer,
    /// An amount with two places: yuan unless the source declares `unit = "fen"`.
    Decimal,
    /// A moment, microseconds UTC.
    Timestamp,
    /// A calendar day.
    Date,
    /// True or false.
    Boolean,
}

impl ColumnType {
    /// All types.
    pub const ALL: [Self; 6] = [Self::Text, Self::Integer, Self::Decimal, Self::Timestamp, Self::Date, Self::Boolean];

    /// The name in configs and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Boolean => "boolean",
        }
    }

    /// The Arrow type of such a column in every file and batch of ours.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Decimal => DataType::Decimal128(DECIMAL_PRECISION, DECIMAL_SCALE),
            Self::Timestamp => timestamp_type(),
            Self::Date => DataType::Date32,
            Self::Boolean => DataType::Boolean,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The Arrow type of a moment: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// How a member's value is chosen from the values of its records. Nulls never win, and where all are null the value is.
/// Ties go to the record with the greater `updated_at`, then the smaller source name, then the smaller record id; a
/// record without `updated_at` comes after those with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Survivorship {
    /// The value of the record with the greatest `updated_at`.
    MostRecent,
    /// The value that most records have.
    MostFrequent,
    /// The value of the record with the smallest `created_at`; one without comes after those with one.
    First,
    /// The value of the source that stands first in a list; sources that are not in it come last.
    SourcePriority,
    /// The smallest value.
    Min,
    /// The greatest value.
    Max,
    /// The sum of the values; numbers only.
    Sum,
    /// The longest text, in characters.
    Longest,
    /// Every value once, sorted and joined by a separator; texts only. What is a list already is split first.
    Union,
    /// True if any value is true; booleans only.
    Any,
    /// True if every value is true; booleans only.
    All,
    /// False before true; of texts, a word of refusal before any other, and a word of consent last: see
    /// [`crate::Consent::from_word`].
    MostRestrictive,
    /// The rule for consents: see [`crate::consent`]. For the consent columns only.
    Consent,
}

impl Survivorship {
    /// The rules that a column may be given: all but that of the consent columns.
    pub const CHOICES: [Self; 12] = [
        Self::MostRecent,
        Self::MostFrequent,
        Self::First,
        Self::SourcePriority,
        Self::Min,
        Self::Max,
        Self::Sum,
        Self::Longest,
        Self::Union,
        Self::Any,
        Self::All,
        Self::MostRestrictive,
    ];

    /// The name in configs and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MostRecent => "most_recent",
            Self::MostFrequent => "most_frequent",
            Self::First => "first",
            Self::SourcePriority => "source_priority",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Longest => "longest",
            Self::Union => "union",
            Self::Any => "any",
            Self::All => "all",
            Self::MostRestrictive => "most_restrictive",
            Self::Consent => "consent",
        }
    }

    /// Which value it gives, for the reference page.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::MostRecent => "of the row with the greatest `updated_at`",
            Self::MostFrequent => "that most rows have; of values that as many rows have, the one of the most recent row",
            Self::First => "of the row with the smallest `created_at`; a row without one comes last",
            Self::SourcePriority => {
                "of the source that stands first in `sources`; of that source, its most recent row. Sources that are not \
                 in the list come after those that are, all alike"
            }
            Self::Min => "the smallest",
            Self::Max => "the greatest",
            Self::Sum => "the sum. One that does not fit the column is null and is counted",
            Self::Longest => "the longest text, in characters",
            Self::Union => {
                "every value once, sorted by code point and joined by `separator`. A value with the separator in it is a \
                 list, and is split first. A text of more than 4096 bytes is null and is counted"
            }
            Self::Any => "true if any is",
            Self::All => "true if all are",
            Self::MostRestrictive => {
                "false before true, as `all` does. Of texts, a word of refusal (`withdrawn`, `false`, `no`, `否` …) before \
                 any other, and a word of consent (`granted`, `true`, `yes`, `是` …) last"
            }
            Self::Consent => {
                "per purpose: the latest explicit event wins between a grant with evidence and a withdrawal, an undated \
                 withdrawal beats all, and unknown never overrides. Cannot be changed"
            }
        }
    }

    /// Whether the rule makes sense for a column of this type.
    pub const fn fits(self, column: ColumnType) -> bool {
        match self {
            Self::MostRecent | Self::MostFrequent | Self::First | Self::SourcePriority => true,
            Self::Min | Self::Max => !matches!(column, ColumnType::Boolean),
            Self::Sum => matches!(column, ColumnType::Integer | ColumnType::Decimal),
            Self::Longest | Self::Union => matches!(column, ColumnType::Text),
            Self::Any | Self::All => matches!(column, ColumnType::Boolean),
            Self::MostRestrictive => matches!(column, ColumnType::Boolean | ColumnType::Text),
            Self::Consent => false,
        }
    }
}

/// A rule with what some rules need beside their name: what `[identity.survivorship]` says of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule.
    #[serde(rename = "rule")]
    pub survivorship: Survivorship,
    /// For [`Survivorship::SourcePriority`]: names of sources, the first before all others. Empty for other rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// For [`Survivorship::Union`]: what stands between two values, where it is not [`SEPARATOR`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
}

/// What stands between the values of a [`Survivorship::Union`], unless the config says otherwise.
pub const SEPARATOR: &str = ";";

impl From<Survivorship> for Rule {
    fn from(survivorship: Survivorship) -> Self {
        Self { survivorship, sources: Vec::new(), separator: None }
    }
}

impl Rule {
    /// What stands between the values of a union.
    pub fn separator(&self) -> &str {
        self.separator.as_deref().unwrap_or(SEPARATOR)
    }
}

/// One canonical column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The name in configs, rules and files.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// How a member's value is chosen unless `[identity.survivorship]` says otherwise.
    pub survivorship: Survivorship,
    /// Whether the value is personal data, to be masked in samples and reports.
    pub personal: bool,
    /// What it means, for the reference page.
    pub doc: &'static str,
}

const fn column(name: &'static str, kind: ColumnType, survivorship: Survivorship, personal: bool, doc: &'static str) -> Column {
    Column { name, kind, survivorship, personal, doc }
}

use ColumnType::{Boolean, Date, Decimal, Integer, Text, Timestamp};
use Survivorship::{Any, Consent, First, Max, Min, MostRecent, Sum};

/// The canonical columns, in the order of files and of the reference page.
///
/// `record_id` and `phone` are not in the list: they are the row's own (see [`crate::record`]).
pub const COLUMNS: &[Column] = &[
    column("name", Text, MostRecent, true, "the name as stored"),
    column("gender", Text, MostRecent, false, "female, male or unknown; map a source's own words with `values`"),
    column("birthday", Date, MostRecent, true, "day of birth"),
    column("card_no", Text, First, true, "number of the member's card, with its leading zeros"),
    column("store", Text, MostRecent, false, "code of the store that the member belongs to"),
    column("store_name", Text, MostRecent, false, "name of that store"),
    column("staff", Text, MostRecent, false, "the clerk who serves the member"),
    column("level", Text, MostRecent, false, "level of the card"),
    column("status", Text, MostRecent, false, "state of the card, as the source names it"),
    column("points", Decimal, Sum, false, "points that can be spent"),
    column("balance", Decimal, Sum, false, "stored value, yuan"),
    column("created_at", Timestamp, Min, false, "when the row was first made at the source"),
    column("updated_at", Timestamp, Max, false, "when the row last changed at the source"),
    column("registered_at", Timestamp, Min, false, "when the member joined"),
    column("first_order_at", Timestamp, Min, false, "the first order that was paid"),
    column("last_order_at", Timestamp, Max, false, "the last order that was paid"),
    column("last_order_amount", Decimal, MostRecent, false, "amount of the last order, yuan"),
    column("order_count", Integer, Sum, false, "orders that were paid, returns taken off"),
    column("total_spent", Decimal, Sum, false, "amount of those orders, yuan"),
    column("max_order_amount", Decimal, Max, false, "amount of the largest order, yuan"),
    column("favourite_category", Text, MostRecent, false, "what the member buys most"),
    column("last_visit_at", Timestamp, Max, false, "the last visit, with or without an order"),
    column("open_complaint", Boolean, Any, false, "a complaint is being dealt with"),
    column("do_not_contact", Boolean, Any, false, "the source says that the member must not be contacted"),
    column("sms_consent", Text, Consent, false, "consent to commercial text messages: granted, withdrawn or unknown"),
    column("sms_consent_at", Timestamp, Consent, false, "when it was given or withdrawn"),
    column("sms_consent_evidence", Text, Consent, false, "where the proof of it is kept"),
    column("call_consent", Text, Consent, false, "consent to phone calls"),
    column("call_consent_at", Timestamp, Consent, false, "when it was given or withdrawn"),
    column("call_consent_evidence", Text, Consent, false, "where the proof of it is kept"),
    column("message_consent", Text, Consent, false, "consent to messages in an instant messenger"),
    column("message_consent_at", Timestamp, Consent, false, "when it was given or withdrawn"),
    column("message_consent_evidence", Text, Consent, false, "where the proof of it is kept"),
];

/// The canonical column of this name.
pub fn canonical(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

/// A column that is computed in each run from the clock or from all members, and never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// The name in rules.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// What it means, with the values it takes.
    pub doc: &'static str,
}

const fn derived(name: &'static str, kind: ColumnType, doc: &'static str) -> Derived {
    Derived { name, kind, doc }
}

/// The derived columns, in the order of the reference page.
pub const DERIVED: &[Derived] = &[
    derived("phone_only", Boolean, "a usable phone and no confirmed link in any channel"),
    derived(
        "days_since_last_order",
        Integer,
        "whole days, cut in the config's timezone, from last_order_at to the run's clock; 0 for an order in the future",
    ),
    derived(
        "rfm_r",
        Integer,
        "recency: quintile of last_order_at over all members with an order, 5 the latest; equal values share the higher score",
    ),
    derived("rfm_f", Integer, "frequency: 1 for 1 order, 2 for 2, 3 for 3 or 4, 4 for 5 to 7, 5 for 8 or more"),
    derived(
        "rfm_m",
        Integer,
        "money: quintile of total_spent over all members with an order, 5 the most; equal values share the higher score",
    ),
    derived(
        "rfm_segment",
        Text,
        "high is a score of 4 or 5 for R and M and of 3 or more for F: champion (R F M high), potential (R M), must_keep (F M), must_win_back (M), loyal (R F), promising (R), regular (F), hibernating (none)",
    ),
    derived(
        "lifecycle",
        Text,
        "new (first order up to 30 days ago), active (last order up to 90 days ago), cooling (180), dormant (365), lost (more), prospect (no order)",
    ),
    derived("store_rank_by_spent", Integer, "rank by total_spent among the members of the store, 1 the most; equal amounts share a rank"),
    derived("record_count", Integer, "how many rows of the sources make up the member"),
];

/// Columns that every member has beside the canonical and the derived ones.
pub const MEMBER_ID: &str = "member_id";
/// Text, null where there are none: the phones of the member's records beside its phone, as [`crate::phone::list`]
/// makes it. Personal data.
pub const OTHER_PHONES: &str = "other_phones";
/// The member's phone in rules and queries: E.164 digits as text in queries, never in samples.
pub const PHONE: &str = "phone";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = COLUMNS.iter().map(|c| c.name).chain(DERIVED.iter().map(|d| d.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_default_fits_its_column() {
        for column in COLUMNS {
            let consent = column.name.contains("_consent");
            assert_eq!(column.survivorship == Survivorship::Consent, consent, "{}", column.name);
            assert!(consent || column.survivorship.fits(column.kind), "{}", column.name);
        }
    }

    #[test]
    fn every_type_has_rules_and_every_rule_a_type() {
        let fits = |rule: Survivorship| ColumnType::ALL.into_iter().filter(move |kind| rule.fits(*kind));
        assert!(Survivorship::CHOICES.into_iter().all(|rule| fits(rule).next().is_some()));
        for kind in ColumnType::ALL {
            assert!(Survivorship::CHOICES.into_iter().filter(|rule| rule.fits(kind)).count() >= 4, "{kind}");
        }
        assert!(!Survivorship::CHOICES.contains(&Survivorship::Consent));
    }

    #[test]
    fn a_rule_is_stored_as_it_is_written_in_a_config() {
        let text = |rule: &Rule| serde_json::to_string(rule).expect("JSON");
        let plain = Rule::from(Survivorship::First);
        assert_eq!(text(&plain), r#"{"rule":"first"}"#);
        let full = Rule { sources: vec!["crm".to_owned()], separator: Some(",".to_owned()), ..Survivorship::SourcePriority.into() };
        assert_eq!(text(&full), r#"{"rule":"source_priority","sources":["crm"],"separator":","}"#);
        for rule in [plain, full] {
            assert_eq!(serde_json::from_str::<Rule>(&text(&rule)).expect("a rule"), rule);
        }
    }

    #[test]
    fn every_purpose_has_its_three_columns() {
        for purpose in crate::Purpose::ALL {
            for suffix in ["consent", "consent_at", "consent_evidence"] {
                assert!(canonical(&format!("{}_{suffix}", purpose.name())).is_some());
            }
        }
    }
}
