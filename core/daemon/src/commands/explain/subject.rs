//! Whom the operator asks about: a member by id, a usable phone, or a text that is refused as a phone and
//! may stand in rows all the same.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use reunion_model::record::{PHONE, RAW, REASON};
use reunion_model::{MemberId, Phone, Reason};
use reunion_people::PhoneRules;

/// Digits from which on a number is looked for inside longer cells too, such as one that holds two numbers.
const INSIDE_MIN: usize = 7;

/// Whom the operator asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A member.
    Member(MemberId),
    /// A phone that is used.
    Phone(Phone),
    /// What is refused as a phone, and why.
    Refused {
        /// As it was typed.
        cell: String,
        /// Why it is not used.
        reason: Reason,
    },
}

impl Subject {
    /// What a text of the command line means, by the rules for the cells of sources.
    pub fn of(rules: &PhoneRules, text: &str) -> Self {
        match (text.trim().to_lowercase().parse(), rules.parse(text)) {
            (Ok(member), _) => Self::Member(member),
            (_, Ok(phone)) => Self::Phone(phone),
            (_, Err(reason)) => Self::Refused { cell: text.trim().to_owned(), reason },
        }
    }

    /// The phone, where it is one that is used.
    pub fn phone(&self) -> Option<Phone> {
        match self {
            Self::Phone(phone) => Some(*phone),
            _ => None,
        }
    }

    /// The rows of a source that have the number: as their phone, or in a cell that was refused.
    pub fn is_in(&self, rows: &RecordBatch) -> BooleanArray {
        let (phone, cell) = match self {
            Self::Member(_) => return vec![false; rows.num_rows()].into(),
            Self::Phone(phone) => (Some(phone.e164_digits()), phone.national()),
            Self::Refused { cell, .. } => (None, cell.clone()),
        };
        let wanted = number(&cell);
        let phones = rows.column_by_name(PHONE).expect("records have phones").as_primitive::<UInt64Type>();
        let text = |name: &str| rows.column_by_name(name).expect("records have this column").as_string::<i32>();
        let (reasons, raw) = (text(REASON), text(RAW));
        let has = |row: usize| {
            let refused = raw.is_valid(row) && reasons.is_valid(row) && is_of_phone(reasons.value(row));
            let by_phone = phone.is_some_and(|phone| phones.is_valid(row) && phones.value(row) == phone);
            Some(by_phone || refused && holds(raw.value(row), &cell, &wanted))
        };
        (0..rows.num_rows()).map(has).collect()
    }
}

/// Whether a row was refused for its phone cell, so that its raw text is that cell.
fn is_of_phone(reason: &str) -> bool {
    reason.starts_with("phone_")
}

/// Whether a cell that was refused is `cell`, or holds the number `wanted` among others.
fn holds(raw: &str, cell: &str, wanted: &str) -> bool {
    let found = number(raw);
    raw.trim() == cell || !wanted.is_empty() && (found == wanted || wanted.len() >= INSIDE_MIN && found.contains(wanted))
}

/// The digits of a cell, and the stars for hidden ones, without what stands for China before them.
fn number(cell: &str) -> String {
    let digit = |character: char| match character {
        '0'..='9' => Some(character),
        '０'..='９' => char::from_digit(character as u32 - '０' as u32, 10),
        '*' | '＊' => Some('*'),
        _ => None,
    };
    let digits: String = cell.chars().filter_map(digit).collect();
    let national = ["0086", "86"].iter().find_map(|code| digits.strip_prefix(code)).filter(|rest| rest.len() >= 11);
    national.map_or(digits.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, UInt64Array};

    use super::*;

    /// Phone, reason and raw cell of a row.
    type Cells<'a> = (Option<u64>, Option<&'a str>, Option<&'a str>);

    fn rows(cells: &[Cells<'_>]) -> RecordBatch {
        let phones: ArrayRef = Arc::new(cells.iter().map(|cells| cells.0).collect::<UInt64Array>());
        let reasons: ArrayRef = Arc::new(cells.iter().map(|cells| cells.1).collect::<StringArray>());
        let raw: ArrayRef = Arc::new(cells.iter().map(|cells| cells.2).collect::<StringArray>());
        RecordBatch::try_from_iter_with_nullable([(PHONE, phones, true), (REASON, reasons, true), (RAW, raw, true)]).expect("a batch")
    }

    fn found(subject: &str, cells: &[Cells<'_>]) -> Vec<bool> {
        let found = Subject::of(&PhoneRules::default(), subject).is_in(&rows(cells));
        (0..found.len()).map(|row| found.value(row)).collect()
    }

    #[test]
    fn a_number_that_is_refused_finds_the_rows_that_were_refused_for_it() {
        let cells = [
            (None, Some("phone_placeholder"), Some("13800000000")),
            (None, Some("phone_placeholder"), Some("+86 138-0000-0000")),
            (None, Some("phone_placeholder"), Some("１３８００００００００")),
            (None, Some("phone_placeholder"), Some("13900000000")),
            (Some(8613800138000), None, None),
            (None, Some("row_ragged"), Some("13800000000")),
        ];
        assert_eq!(found("13800000000", &cells), [true, true, true, false, false, false]);
        let landline = [(None, Some("phone_landline"), Some("(010) 6655-1234")), (None, Some("phone_landline"), Some("010-66551235"))];
        assert_eq!(found("01066551234", &landline), [true, false]);
        let masked = [(None, Some("phone_masked"), Some("138****0001")), (None, Some("phone_masked"), Some("138****0002"))];
        assert_eq!(found("138****0001", &masked), [true, false]);
        let words = [(None, Some("phone_invalid"), Some("无")), (None, Some("phone_invalid"), Some("没有"))];
        assert_eq!(found("无", &words), [true, false]);
    }

    #[test]
    fn a_usable_phone_is_found_in_cells_that_hold_more() {
        let cells = [
            (Some(8613800138000), None, None),
            (None, Some("phone_multiple"), Some("13800138000/13900001201")),
            (None, Some("phone_relay"), Some("13800138000转1234")),
            (None, Some("phone_multiple"), Some("13900001201 13900001202")),
            (None, Some("phone_too_short"), Some("1380013800")),
        ];
        assert_eq!(found("138 0013 8000", &cells), [true, true, true, false, false]);
        assert_eq!(found("1380013800", &cells), [false, true, true, false, true], "a digit short, it stands in longer ones too");
    }

    #[test]
    fn an_id_is_a_member() {
        let id = "00ff00ff00ff00ff00ff00ff00ff00ff";
        let member = Subject::Member(id.parse().expect("an id"));
        assert_eq!(Subject::of(&PhoneRules::default(), id), member);
        assert_eq!(Subject::of(&PhoneRules::default(), &format!(" {} ", id.to_uppercase())), member);
        assert_eq!(member.is_in(&rows(&[(Some(8613800138000), None, None)])).true_count(), 0);
    }
}
