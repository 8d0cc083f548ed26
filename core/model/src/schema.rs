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

/// How a member's value is chosen from the values of its records. Nulls never win; ties go to the
/// record with the greater `updated_at`, then the smaller source name, then the smaller record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Survivorship {
    /// The value of the record with the greatest `updated_at`.
    MostRecent,
    /// The value of the record with the smallest `created_at`.
    First,
    /// The smallest value.
    Min,
    /// The greatest value.
    Max,
    /// The sum of the values; numbers only.
    Sum,
    /// The longest text.
    Longest,
    /// True if any value is true; booleans only.
    Any,
    /// The rule for consents: see [`crate::consent`]. For the consent columns only.
    Consent,
}

impl Survivorship {
    /// The name in configs and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MostRecent => "most_recent",
            Self::First => "first",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Longest => "longest",
            Self::Any => "any",
            Self::Consent => "consent",
        }
    }

    /// Whether the rule makes sense for a column of this type.
    pub const fn fits(self, column: ColumnType) -> bool {
        match self {
            Self::MostRecent | Self::First => true,
            Self::Min | Self::Max => !matches!(column, ColumnType::Boolean),
            Self::Sum => matches!(column, ColumnType::Integer | ColumnType::Decimal),
            Self::Longest => matches!(column, ColumnType::Text),
            Self::Any => matches!(column, ColumnType::Boolean),
            Self::Consent => false,
        }
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
    fn every_purpose_has_its_three_columns() {
        for purpose in crate::Purpose::ALL {
            for suffix in ["consent", "consent_at", "consent_evidence"] {
                assert!(canonical(&format!("{}_{suffix}", purpose.name())).is_some());
            }
        }
    }
}
