//! A usable phone number, held so that it cannot reach a log by accident.

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
}
