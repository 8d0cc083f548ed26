//! Texts that a plugin wrote: cut, on one line, and without phone numbers.

use std::borrow::Cow;

use reunion_abi::Str;
use reunion_model::limits::ERROR_TEXT_BYTES_MAX;

/// A message, hint or log line of a plugin, fit to be shown.
///
/// # Safety
/// The text must be valid.
pub(crate) unsafe fn shown(text: Str) -> String {
    // SAFETY: the caller's promise.
    tidy(&unsafe { text.to_text(ERROR_TEXT_BYTES_MAX) })
}

/// The same for a text that has arrived already.
pub(crate) fn tidy(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    without_phones(text.trim()).into_owned()
}

/// A text of no more bytes than one may have.
pub(crate) fn cut(text: &str) -> String {
    // SAFETY: borrowed for this call.
    unsafe { Str::borrow(text).to_text(ERROR_TEXT_BYTES_MAX) }
}

/// Mobile numbers of China masked. The contract forbids them in texts; this is for when it is broken.
pub(crate) fn without_phones(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Digits within a word or a longer code are none.
        let alone = (at == 0 || !bytes[at - 1].is_ascii_alphanumeric()) && !bytes.get(at + digits).is_some_and(u8::is_ascii_alphanumeric);
        if digits > 0
            && alone
            && let Some(prefix) = country_prefix(&text[at..at + digits])
        {
            // Stars for digits: every position stays.
            masked.to_mut().replace_range(at + prefix + 3..at + prefix + 7, "****");
        }
        at += digits.max(1);
    }
    masked
}

/// How many digits come before the eleven of a mobile number; `None` where these are no such number.
fn country_prefix(digits: &str) -> Option<usize> {
    let national = ["0086", "86", ""].into_iter().find_map(|prefix| digits.strip_prefix(prefix).filter(|rest| rest.len() == 11))?;
    let mobile = national.starts_with('1') && matches!(national.as_bytes()[1], b'3'..=b'9');
    mobile.then(|| digits.len() - national.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever stands around a phone number that is a word of its own, it is masked, and all else stays.
        #[test]
        fn a_phone_never_passes(before in "(.*[^0-9a-zA-Z])?", rest in 300_000_000u64..1_000_000_000, last in 0u8..10, after in "([^0-9a-zA-Z].*)?") {
            let phone = format!("1{rest}{last}");
            let text = format!("{before}{phone}{after}");
            let masked = without_phones(&text);
            prop_assert!(!masked.contains(&phone));
            prop_assert_eq!(masked.chars().count(), text.chars().count());
        }
    }

    #[test]
    fn phones_are_masked_and_other_numbers_are_not() {
        for (text, shown) in [
            ("cannot send to 13800138000", "cannot send to 138****8000"),
            ("会员13800138000，+8613900001234", "会员138****8000，+86139****1234"),
            ("0086-13800138000 and 008613800138000", "0086-138****8000 and 0086138****8000"),
            ("order 12345678901, id a13800138000b, 138001380001", "order 12345678901, id a13800138000b, 138001380001"),
        ] {
            assert_eq!(without_phones(text), shown);
        }
        assert_eq!(tidy(" two\nlines\u{1b}[31m "), "two lines [31m");
    }
}
