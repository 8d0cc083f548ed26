//! Why a row was set aside: one code for each reason, and what to tell the operator.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal: $explain:literal,)+) => {
        /// Why a row is in quarantine. The code is stable: it stands in reports, columns and docs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code in reports and in the `reason` column.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// One sentence for the operator: what was seen and what can be done.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explain,)+ }
            }

            /// The reason that has this code.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }
        }
    };
}

reasons! {
    /// The phone cell is empty.
    PhoneMissing = "phone_missing": "the row has no phone number; ask for one at the next visit",
    /// Fewer digits than a mobile number has.
    PhoneTooShort = "phone_too_short": "the number has fewer than 11 digits; a digit was lost or it is not a phone number",
    /// More digits than a mobile number has.
    PhoneTooLong = "phone_too_long": "the number has more than 11 digits; correct it at the source",
    /// A fixed line.
    PhoneLandline = "phone_landline": "the number is a fixed line, which takes no messages; ask for a mobile number",
    /// 400, 800, 95xxx and the like.
    PhoneService = "phone_service": "the number belongs to a service hotline, not to a person",
    /// Digits hidden by the source.
    PhoneMasked = "phone_masked": "the source shows the number masked; export it with the full number",
    /// A relay number with an extension, as marketplaces give out.
    PhoneRelay = "phone_relay": "the number is a marketplace's relay number with an extension, which expires and is shared by strangers",
    /// Two numbers in one cell.
    PhoneMultiple = "phone_multiple": "the cell holds more than one number; keep one at the source",
    /// A number that a spreadsheet has rounded.
    PhoneScientific = "phone_scientific": "a spreadsheet has rounded the number to scientific notation and its digits are lost; export the column as text",
    /// Eleven digits in a range that no person has.
    PhoneNotMobile = "phone_not_mobile": "the number starts with digits that no mobile number of a person has",
    /// A known placeholder.
    PhonePlaceholder = "phone_placeholder": "the number is on the list of placeholders ([phone] placeholders)",
    /// Seven or more equal digits in a row.
    PhoneRepeated = "phone_repeated": "the number repeats one digit seven times or more, which only made-up numbers do",
    /// No digits, or letters among them.
    PhoneInvalid = "phone_invalid": "the cell holds no phone number",
    /// More cards on this phone than `shared_phone.cards_max`.
    SharedPhone = "shared_phone": "the number stands on more cards than [identity.shared_phone] cards_max allows; it is probably a cashier's or the store's own",
    /// Cards with different names on one phone, under `policy = "quarantine"`.
    SharedPhoneNames = "shared_phone_names": "cards with different names or birthdays share the number, and [identity.shared_phone] policy is \"quarantine\"",
    /// Somebody else has this phone now, and nothing else leads to the one who had it.
    PhoneRecycled = "phone_recycled": "the number was silent for longer than [identity.shared_phone] recycled_after_days and then came with another name; it is somebody else's now",
    /// The column that tells rows apart is empty.
    RecordIdMissing = "record_id_missing": "the row has no record id, and without one it cannot be followed from run to run",
    /// A source without record ids has two rows with the same key columns.
    RecordKeyDuplicate = "record_key_duplicate": "two rows have the same key columns, so they cannot be told apart; name more columns in `key`",
    /// More or fewer cells than the header has.
    RowRagged = "row_ragged": "the row has more or fewer cells than the header; look for a stray separator or quote",
    /// Bytes that are no text in the file's encoding.
    RowBadEncoding = "row_bad_encoding": "the row holds bytes that are no text in the file's encoding; declare the right one with `encoding`",
    /// A zero byte in the row.
    RowNul = "row_nul": "the row holds a zero byte; the file was damaged or is not a text file",
    /// A quote that is never closed, or a row over the limit.
    RowTooLong = "row_too_long": "the row is longer than row_bytes_max; look for a quote that is never closed",
    /// The file ends inside a quoted cell.
    RowTruncated = "row_truncated": "the file ends inside this row; it was cut off while being written or copied",
    /// A number of the row lost digits before it was read.
    RowDigitsLost = "row_digits_lost": "a number in the row has lost digits, as spreadsheets do to long ones; keep that column as text and fill it in again",
    /// A returned work list that is none.
    ReturnUnreadable = "return_unreadable": "the returned file has no columns task_id and result; return the work list itself, saved as CSV",
    /// A returned row that names no task.
    TaskIdInvalid = "task_id_invalid": "the row has a result but no task id of 32 hex digits; copy the id from the work list that was sent out",
    /// A returned row with a result that is none of the words.
    ResultUnknown = "result_unknown": "the result is none of the words that the channel knows: added, refused, wrong_number, do_not_call",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_again() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(!reason.explain().ends_with('.'));
        }
        assert_eq!(Reason::from_code("nonsense"), None);
    }
}
