//! Phone numbers in texts that may hold none.
//!
//! The host masks what looks like a number before anybody sees a text, so that a masked one is the sign that there was
//! one. What it does not take for a number, such as one with spaces in it, is found by its digits.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use reunion_model::plugin::PluginError;

/// Digits of a mobile number.
const DIGITS: usize = 11;
/// Numbers that are remembered; more would tell nothing new.
const KNOWN_MAX: usize = 100_000;
/// Texts that are kept to be looked at in the end.
const TEXTS_MAX: usize = 1_000;
/// Characters of a text that a finding quotes.
const QUOTED_CHARS: usize = 160;

/// What the plugin has said so far, and the numbers that it may not say.
#[derive(Debug, Default)]
pub struct Heard {
    known: Mutex<HashSet<u64>>,
    /// Texts with digits enough for a number in them: where each was said, and the text.
    suspicious: Mutex<Vec<(&'static str, String)>>,
}

impl Heard {
    /// A number that was fed in or came out.
    pub fn know(&self, phone: &str) {
        if let Some(number) = number(phone) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < KNOWN_MAX {
                known.insert(number);
            }
        }
    }

    /// A text that the plugin gave. Only what may hold a number is kept.
    pub fn text(&self, place: &'static str, text: &str) {
        if !is_masked(text) && numbers(text).next().is_none() {
            return;
        }
        let mut suspicious = self.suspicious.lock().unwrap_or_else(PoisonError::into_inner);
        if suspicious.len() < TEXTS_MAX {
            suspicious.push((place, text.to_owned()));
        }
    }

    /// The texts of an error.
    pub fn error(&self, error: &PluginError) {
        self.text("the message of an error", &error.message);
        self.text("the hint of an error", error.hint.as_deref().unwrap_or_default());
    }

    /// Where a number was said, in words, the number masked.
    pub fn findings(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let suspicious = self.suspicious.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |text: &str| is_masked(text) || numbers(text).any(|number| known.contains(&number));
        suspicious
            .iter()
            .filter(|(_, text)| holds(text))
            .map(|(place, text)| format!("{place} holds a phone number: {:?}", shown(text)))
            .collect()
    }
}

/// The number that a text is, if it is one: eleven digits, with a country's code and separators or not.
fn number(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let other = text.chars().any(|c| !c.is_ascii_digit() && !matches!(c, ' ' | '-' | '+' | '(' | ')'));
    let national = digits.len().checked_sub(DIGITS).filter(|code| *code <= 4)?;
    let is_mobile = digits.as_bytes()[national] == b'1';
    if other || !is_mobile { None } else { digits[national..].parse().ok() }
}

/// Every eleven digits in a row, separators between them or not, that begin like a mobile number.
fn numbers(text: &str) -> impl Iterator<Item = u64> {
    let digits: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).collect();
    let bytes = text.as_bytes().to_vec();
    let windows = digits.len().saturating_sub(DIGITS - 1);
    (0..windows).filter_map(move |from| {
        let window = &digits[from..from + DIGITS];
        let joined = window.windows(2).all(|pair| bytes[pair[0].0 + 1..pair[1].0].iter().all(|byte| matches!(byte, b' ' | b'-')));
        let is_mobile = window[0].1 == b'1' && (b'3'..=b'9').contains(&window[1].1);
        (joined && is_mobile).then(|| window.iter().fold(0, |number, (_, digit)| number * 10 + u64::from(digit - b'0')))
    })
}

/// Whether the host has masked a number in it, or the plugin did: `139****1201`.
fn is_masked(text: &str) -> bool {
    let is_digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    text.as_bytes().windows(DIGITS).any(|window| is_digits(&window[..3]) && &window[3..7] == b"****" && is_digits(&window[7..]))
}

/// A text fit to be shown: on one line, cut, every run of digits that is long enough for a number masked.
pub fn shown(text: &str) -> String {
    let mut masked: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut run = Vec::new();
    let mut runs = Vec::new();
    for (at, byte) in masked.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => run.push(at),
            b' ' | b'-' if !run.is_empty() => {}
            _ => runs.push(std::mem::take(&mut run)),
        }
    }
    runs.push(run);
    for run in runs.into_iter().filter(|run| run.len() >= DIGITS) {
        for at in &run[3..run.len() - 4] {
            masked.replace_range(*at..=*at, "*");
        }
    }
    match masked.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", masked[..end].trim()),
        None => masked.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(known: &[&str], texts: &[&str]) -> Vec<String> {
        let heard = Heard::default();
        texts.iter().for_each(|text| heard.text("a log line", text));
        known.iter().for_each(|phone| heard.know(phone));
        heard.findings()
    }

    #[test]
    fn a_number_is_found_however_it_is_written() {
        for text in ["row of 13900001201 is bad", "139 0000 1201", "139-0000-1201", "a13900001201b", "+8613900001201", "139****1201"] {
            assert_eq!(findings(&["+86 139 0000 1201"], &[text]).len(), 1, "{text}");
        }
        assert_eq!(findings(&["13900001201"], &["1 row, 39 of 00001201, 13900001202", "4096 bytes at 1767225600000"]), [""; 0]);
    }

    #[test]
    fn what_is_shown_is_masked() {
        assert_eq!(shown("no 13900001201\nand 139 0000 1201"), "no 139****1201 and 139 **** 1201");
        assert_eq!(shown("1767225600000 rows"), "176******0000 rows");
        assert!(shown(&"会".repeat(500)).chars().count() <= QUOTED_CHARS + 1);
        assert_eq!(findings(&["13900001201"], &["x 13900001201"]), [r#"a log line holds a phone number: "x 139****1201""#]);
    }
}
