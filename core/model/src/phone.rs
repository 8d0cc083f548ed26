//! A usable phone number, held so that it cannot reach a log by accident.

use std::collections::BTreeSet;
use std::fmt;

/// A phone number as the digits of its E.164 form, country code first: `8613800138000`.
///
/// `Display` and `Debug` show it masked (`138****8000`); the digits leave only by
/// [`Phone::e164`] and [`Phone::national`], so that every place that writes a whole number
/// out can be found by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(u64);

/// Country code of mainland China, the region that has no prefix in lists and messages.
const CHINA: u64 = 86;
/// Eleven digits follow the country code in China.
const CHINA_SCALE: u64 = 100_000_000_000;

impl Phone {
    /// The number whose E.164 digits these are. The caller has decided that it is usable.
    pub const fn from_e164_digits(digits: u64) -> Self {
        Self(digits)
    }

    /// The mobile number of mainland China with these eleven digits.
    pub const fn from_china_mobile(digits: u64) -> Self {
        Self(CHINA * CHINA_SCALE + digits)
    }

    /// The digits of the E.164 form as one number, as they stand in Arrow columns.
    pub const fn e164_digits(self) -> u64 {
        self.0
    }

    /// The E.164 form with its plus sign. Personal data: for channels and hashes only.
    pub fn e164(self) -> String {
        format!("+{}", self.0)
    }

    /// As people in China write it: eleven digits, or E.164 for another region. Personal data.
    pub fn national(self) -> String {
        match self.0.checked_sub(CHINA * CHINA_SCALE) {
            Some(digits) if digits < CHINA_SCALE => digits.to_string(),
            _ => self.e164(),
        }
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.national()))
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({self})")
    }
}

/// A text that may hold a phone number, with all but its first three and last four characters
/// hidden; a text of fewer than eleven characters, such as a name, keeps its first one.
pub fn mask(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    match characters.len() {
        0 => String::new(),
        length if length < 11 => characters.iter().take(1.min(length - 1)).chain(['*'; 4].iter()).collect(),
        length => characters[..3].iter().chain(['*'; 4].iter()).chain(&characters[length - 4..]).collect(),
    }
}

/// Phones as one text: the digits of their E.164 forms, ascending, each once, with commas between them. `None` where
/// there are none. Personal data.
pub fn list(phones: impl IntoIterator<Item = Phone>) -> Option<String> {
    let phones: BTreeSet<u64> = phones.into_iter().map(Phone::e164_digits).collect();
    let texts: Vec<String> = phones.iter().map(u64::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// The phones of a text that [`list`] made.
pub fn from_list(text: &str) -> impl Iterator<Item = Phone> + '_ {
    text.split(',').filter_map(|digits| digits.parse().ok()).map(Phone::from_e164_digits)
}

/// A free text in which every run of eleven or more digits is masked, for it may be a phone number.
pub fn mask_numbers(text: &str) -> String {
    let is_digit = |character: char| character.is_ascii_digit() || ('０'..='９').contains(&character);
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_digit) {
        let run = &rest[start..];
        let length = run.find(|character| !is_digit(character)).unwrap_or(run.len());
        masked.push_str(&rest[..start]);
        let digits = &run[..length];
        if digits.chars().count() >= 11 {
            masked.push_str(&mask(digits))
        } else {
            masked.push_str(digits)
        }
        rest = &run[length..];
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_methods_show_the_digits() {
        let phone = Phone::from_china_mobile(13800138000);
        assert_eq!(phone.e164(), "+8613800138000");
        assert_eq!(phone.national(), "13800138000");
        assert_eq!(format!("{phone} {phone:?}"), "138****8000 Phone(138****8000)");
    }

    #[test]
    fn another_region_keeps_its_code() {
        let phone = Phone::from_e164_digits(85291234567);
        assert_eq!(phone.national(), "+85291234567");
        assert_eq!(phone.to_string(), "+85****4567");
    }

    #[test]
    fn a_short_text_is_hidden_too() {
        assert_eq!(mask(""), "");
        assert_eq!(mask("1"), "****");
        assert_eq!(mask("12345678"), "1****");
        assert_eq!(mask("王小明"), "王****");
        assert_eq!(mask("无"), "****");
    }

    #[test]
    fn a_list_of_phones_is_read_as_it_was_written() {
        let phones = [13900000002, 13900000001, 13900000002].map(Phone::from_china_mobile);
        let text = list(phones).expect("two phones");
        assert_eq!(text, "8613900000001,8613900000002");
        assert_eq!(from_list(&text).collect::<Vec<_>>(), [phones[1], phones[0]]);
        assert_eq!((list([]), from_list("").count()), (None, 0));
    }

    #[test]
    fn numbers_in_a_free_text_are_hidden() {
        assert_eq!(mask_numbers("same as 13800138000, card 12345"), "same as 138****8000, card 12345");
        assert_eq!(mask_numbers("8613800138000与１３８００１３８００１"), "861****8000与１３８****８００１");
        assert_eq!(mask_numbers("two cards"), "two cards");
        assert_eq!(mask_numbers(""), "");
    }
}
