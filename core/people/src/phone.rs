//! Phone cells: what people and programs write, to a usable number or the reason why it is none.
//!
//! Eleven plain digits are decided by a table without allocating. Everything else is first reduced
//! to a small alphabet (spaces, dashes, quotes and invisible characters of every script fall
//! together), then read as an extension, two numbers, a landline and so on. Numbers of other
//! countries need their `+` or `00` and are decided by rlibphonenumber.

use std::sync::Arc;

use reunion_model::{Phone, Reason};
use rlibphonenumber::enums::NumberLengthType;
use rlibphonenumber::{PhoneNumber, PhoneNumberFormat, PhoneNumberType, ValidationError};

use crate::segments::Segments;

/// Numbers that tills and clerks enter where there is none.
pub const PLACEHOLDERS: [u64; 7] =
    [11_111_111_111, 12_345_678_901, 13_000_000_000, 13_800_000_000, 13_888_888_888, 13_900_000_000, 18_888_888_888];

/// Digits alike in a row from which on a number is taken for made up.
const REPEATED_MIN: usize = 7;
/// Characters of a cell that are looked at; a longer cell holds no single number.
const CELL_SYMBOLS_MAX: usize = 64;
/// Codes that are dialled before a number to make a call cheaper.
const CALL_CODES: [&[u8]; 9] = [b"17951", b"12593", b"17911", b"17901", b"17909", b"17910", b"12520", b"10193", b"17969"];
/// What may stand before the eleven digits of a mobile number.
const COUNTRY_CODES: [&[u8]; 3] = [b"0086", b"86", b"0"];
/// Beginnings of the 13-digit numbers of things.
const THINGS: [&[u8]; 6] = [b"1410", b"1440", b"1441", b"146", b"148", b"1064"];

/// Which numbers are usable. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PhoneRules {
    segments: Arc<Segments>,
    /// Sorted.
    placeholders: Arc<[u64]>,
}

/// A setting of `[phone]` that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhoneRulesError {
    /// A placeholder that is no number of eleven digits.
    #[error("the placeholder \"{0}\" is not a number of 11 digits; write it without spaces, +86 or dashes")]
    Placeholder(String),
    /// A prefix that is not three or four digits long or does not begin with 1.
    #[error("the prefix \"{0}\" is not 3 or 4 digits that begin with 1, such as 194 or 1749")]
    Prefix(String),
}

impl Default for PhoneRules {
    fn default() -> Self {
        Self { segments: Arc::new(Segments::china()), placeholders: PLACEHOLDERS.into() }
    }
}

impl PhoneRules {
    /// The built-in ranges with `allowed` prefixes (3 or 4 digits) added and `denied` ones taken away,
    /// the longer prefix deciding; and this list of placeholders in place of [`PLACEHOLDERS`], unless
    /// it is `None`.
    ///
    /// # Errors
    /// Where a text is not of the form that it should have.
    pub fn new(placeholders: Option<&[String]>, allowed: &[String], denied: &[String]) -> Result<Self, PhoneRulesError> {
        let mut segments = Segments::china();
        let changes = allowed.iter().map(|prefix| (prefix, true)).chain(denied.iter().map(|prefix| (prefix, false)));
        let mut changes = changes.map(|(prefix, allow)| Ok((prefix.len(), parse_prefix(prefix)?, allow))).collect::<Result<Vec<_>, _>>()?;
        changes.sort_by_key(|(length, ..)| *length);
        for (length, prefix, allow) in changes {
            segments.set(prefix, length as u32, allow);
        }
        let mut numbers = match placeholders {
            None => PLACEHOLDERS.to_vec(),
            Some(texts) => texts
                .iter()
                .map(|text| eleven_digits(text.as_bytes()).ok_or_else(|| PhoneRulesError::Placeholder(text.clone())))
                .collect::<Result<_, _>>()?,
        };
        numbers.sort_unstable();
        Ok(Self { segments: Arc::new(segments), placeholders: numbers.into() })
    }

    /// The usable number in a cell, or why there is none.
    ///
    /// # Errors
    /// The [`Reason`] for the quarantine.
    #[inline]
    pub fn parse(&self, cell: &str) -> Result<Phone, Reason> {
        match eleven_digits(cell.as_bytes()) {
            Some(digits) if digits >= 10_000_000_000 => self.china(digits),
            _ => self.decorated(cell),
        }
    }

    /// Decides eleven digits that begin with 1 (or with another digit, which no range allows).
    #[inline]
    fn china(&self, digits: u64) -> Result<Phone, Reason> {
        if self.placeholders.binary_search(&digits).is_ok() {
            Err(Reason::PhonePlaceholder)
        } else if repeats(digits) {
            Err(Reason::PhoneRepeated)
        } else if !self.segments.allows(digits) {
            Err(Reason::PhoneNotMobile)
        } else {
            Ok(Phone::from_china_mobile(digits))
        }
    }

    fn decorated(&self, cell: &str) -> Result<Phone, Reason> {
        let symbols = Symbols::of(cell);
        let text = symbols.trimmed();
        if text.is_empty() {
            return Err(if symbols.as_slice().iter().all(|s| *s == b' ') { Reason::PhoneMissing } else { Reason::PhoneInvalid });
        }
        if !text.iter().any(u8::is_ascii_digit) {
            return Err(Reason::PhoneInvalid);
        }
        if text.contains(&b'*') || is_crossed_out(text) {
            return Err(Reason::PhoneMasked);
        }
        if is_scientific(text) {
            return Err(Reason::PhoneScientific);
        }
        let (main, extended) = split_extension(text)?;
        let main = strip_zero_fraction(main);
        if main.iter().any(|s| !matches!(s, b'0'..=b'9' | b'+' | b'-' | b' ' | b'.')) {
            return Err(Reason::PhoneInvalid);
        }
        let (plus, main) = match main.split_first() {
            Some((b'+', rest)) => (true, rest),
            _ => (false, main),
        };
        if main.contains(&b'+') {
            return Err(Reason::PhoneInvalid);
        }
        let digits = Digits::of(main);
        // With a plus sign the first digits are a country's code, and +1 391… is no Chinese number.
        let abroad = plus && !digits.as_slice().starts_with(b"86");
        if let Some(mobile) = mobile_part(digits.as_slice()).filter(|_| !abroad) {
            return if extended || has_dash_extension(main) { Err(Reason::PhoneRelay) } else { self.china(mobile) };
        }
        if has_dash_extension(main) {
            return Err(Reason::PhoneRelay);
        }
        if digits.length > 12
            && let Some(at) = main.iter().rposition(|s| *s == b'-')
            && unusable(plus, &main[..at]) == Reason::PhoneLandline
        {
            return Err(Reason::PhoneLandline);
        }
        match (plus, digits.as_slice()) {
            (true, digits) | (false, [b'0', b'0', digits @ ..]) if !digits.starts_with(b"86") && digits.len() >= 5 => foreign(digits),
            _ => Err(unusable(plus, main)),
        }
    }
}

fn parse_prefix(text: &str) -> Result<usize, PhoneRulesError> {
    let good = matches!(text.len(), 3 | 4) && text.starts_with('1') && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten().ok_or_else(|| PhoneRulesError::Prefix(text.to_owned()))
}

/// The number that exactly eleven ASCII digits write.
#[inline]
fn eleven_digits(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; 11] = bytes.try_into().ok()?;
    let mut value = 0_u64;
    let mut bad = false;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        bad |= digit > 9;
        value = value * 10 + u64::from(digit);
    }
    (!bad).then_some(value)
}

/// Whether eleven digits hold seven alike in a row. Such a run covers the fifth to the seventh.
#[inline]
fn repeats(digits: u64) -> bool {
    let middle = digits / 10_000 % 1_000;
    middle.is_multiple_of(111) && has_run(digits.to_string().as_bytes())
}

fn has_run(digits: &[u8]) -> bool {
    digits.windows(REPEATED_MIN).any(|window| window.iter().all(|digit| *digit == window[0]))
}

/// A cell reduced to a small alphabet: digits, `+`, `-`, space, `.`, `*` (hidden digit), `#`
/// (extension follows), `/` (another number follows), `,`, `:`, `L` (part of a label such as 手机),
/// lower-case letters, and `?` for anything else.
struct Symbols {
    bytes: [u8; CELL_SYMBOLS_MAX],
    length: usize,
}

impl Symbols {
    fn of(cell: &str) -> Self {
        let mut symbols = Self { bytes: [0; CELL_SYMBOLS_MAX], length: 0 };
        for symbol in cell.chars().filter_map(symbol).take(CELL_SYMBOLS_MAX) {
            symbols.bytes[symbols.length] = symbol;
            symbols.length += 1;
        }
        symbols
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Without labels and stray signs at both ends.
    fn trimmed(&self) -> &[u8] {
        let mut text = self.as_slice();
        loop {
            let before = text.len();
            while let [b' ' | b':' | b'L' | b'-' | b'.' | b'#' | b'/' | b',', rest @ ..] = text {
                text = rest;
            }
            while let [rest @ .., b' ' | b':' | b'L' | b'-' | b'.' | b'#' | b'/' | b','] = text {
                text = rest;
            }
            for label in [b"tel".as_slice(), b"mobile", b"phone", b"mob", b"cell"] {
                text = text.strip_prefix(label).unwrap_or(text);
            }
            if text.len() == before {
                return text;
            }
        }
    }
}

/// What a character stands for; `None` where it means nothing.
fn symbol(character: char) -> Option<u8> {
    Some(match character {
        '0'..='9' => character as u8,
        '０'..='９' => b'0' + (character as u32 - '０' as u32) as u8,
        '+' | '＋' => b'+',
        '-' | '_' | '‐'..='―' | '−' | '－' | '﹣' | 'ー' | '~' => b'-',
        '(' | ')' | '（' | '）' | ']' | '】' => b' ',
        '\'' | '’' | '‘' | '＇' | '`' | '´' | '"' | '“' | '”' => return None,
        '.' | '．' | '。' | '·' => b'.',
        '*' | '＊' | '×' | '•' | '●' | '∗' | '█' => b'*',
        '#' | '＃' | '转' | '轉' | '[' | '【' => b'#',
        '/' | '／' | '\\' | ';' | '；' | '、' | '|' | '｜' | '&' | '或' | '和' => b'/',
        ',' | '，' => b',',
        ':' | '：' | '=' => b':',
        '手' | '机' | '号' | '码' | '电' | '话' | '移' | '动' | '联' | '系' | '方' | '式' => b'L',
        _ if is_invisible(character) => return None,
        _ if character.is_whitespace() => b' ',
        _ if character.is_ascii_alphabetic() => character.to_ascii_lowercase() as u8,
        _ => b'?',
    })
}

/// Characters without width that come along when a number is copied from a phone or a web page.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `138xxxx1234`.
fn is_crossed_out(text: &[u8]) -> bool {
    text.windows(2).any(|pair| pair == b"xx")
}

/// `1.38E+10`.
fn is_scientific(text: &[u8]) -> bool {
    let Some(at) = text.iter().position(|s| *s == b'e') else { return false };
    let (mantissa, exponent) = (&text[..at], &text[at + 1..]);
    let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(|s| s.is_ascii_digit() || *s == b'.');
    digits(mantissa) && digits(exponent)
}

fn digit_count(text: &[u8]) -> usize {
    text.iter().filter(|s| s.is_ascii_digit()).count()
}

/// The first number of a cell, and whether an extension follows it.
fn split_extension(text: &[u8]) -> Result<(&[u8], bool), Reason> {
    let numbers = text.split(|s| matches!(s, b'/' | b',' | b' ')).filter(|part| digit_count(part) >= 11).count();
    let parts = text.split(|s| matches!(s, b'/' | b',')).filter(|part| digit_count(part) >= 7).count();
    let pluses = text.iter().filter(|s| **s == b'+').count();
    let run_together = digit_count(text) == 22 && text.iter().filter(|s| s.is_ascii_digit()).step_by(11).all(|s| *s == b'1');
    if numbers > 1 || parts > 1 || pluses > 1 || run_together {
        return Err(Reason::PhoneMultiple);
    }
    let mark = text.iter().position(|s| matches!(s, b'#' | b'/' | b',')).map(|at| (at, at + 1));
    let letters = || text.windows(3).position(|window| window == b"ext").map(|at| (at, at + 3));
    let cross = || text.iter().position(|s| *s == b'x').map(|at| (at, at + 1));
    match mark.or_else(letters).or_else(cross) {
        Some((at, after)) if (1..=6).contains(&digit_count(&text[after..])) => Ok((text[..at].trim_ascii_end(), true)),
        _ => Ok((text, false)),
    }
}

/// Without the `.0` that spreadsheets put after whole numbers.
fn strip_zero_fraction(text: &[u8]) -> &[u8] {
    match text.iter().position(|s| *s == b'.') {
        Some(at) if text[at + 1..].iter().all(|s| *s == b'0') => &text[..at],
        _ => text,
    }
}

/// A mobile number, a dash, and one to six digits: `13800138000-1234`.
fn has_dash_extension(main: &[u8]) -> bool {
    main.iter()
        .rposition(|s| *s == b'-')
        .is_some_and(|at| (1..=6).contains(&digit_count(&main[at..])) && mobile_part(Digits::of(&main[..at]).as_slice()).is_some())
}

/// The digits of a cell, without what stands between them.
struct Digits {
    bytes: [u8; CELL_SYMBOLS_MAX],
    length: usize,
}

impl Digits {
    fn of(text: &[u8]) -> Self {
        let mut digits = Self { bytes: [0; CELL_SYMBOLS_MAX], length: 0 };
        for digit in text.iter().filter(|s| s.is_ascii_digit()) {
            digits.bytes[digits.length] = *digit;
            digits.length += 1;
        }
        digits
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The eleven digits from 1 on that are left once country, trunk and call-by-call codes are taken off.
fn mobile_part(digits: &[u8]) -> Option<u64> {
    if digits.len() <= 11 {
        return (digits.first() == Some(&b'1')).then(|| eleven_digits(digits)).flatten();
    }
    COUNTRY_CODES.iter().chain(&CALL_CODES).find_map(|code| mobile_part(digits.strip_prefix(*code)?))
}

/// Why a number that is neither a mobile number nor another country's is not usable.
fn unusable(plus: bool, main: &[u8]) -> Reason {
    let digits = Digits::of(main);
    let digits = digits.as_slice();
    let national = if plus { digits.strip_prefix(b"86") } else { digits.strip_prefix(b"0086") };
    unusable_in_china(national.unwrap_or(digits))
}

/// Why digits that are no mobile number of mainland China, without their country code, are not usable.
///
/// Seven or eight digits from 2 to 8 on are a local fixed line; fewer than eleven others lost a digit.
fn unusable_in_china(digits: &[u8]) -> Reason {
    let length = digits.len();
    if length == 0 {
        return Reason::PhoneInvalid;
    }
    if is_service(digits) {
        return Reason::PhoneService;
    }
    if length == 13 && THINGS.iter().any(|prefix| digits.starts_with(prefix)) {
        return Reason::PhoneNotMobile;
    }
    if (digits[0] == b'0' && (10..=12).contains(&length)) || (matches!(length, 7 | 8) && (b'2'..=b'8').contains(&digits[0])) {
        return Reason::PhoneLandline;
    }
    if (9..=11).contains(&length) {
        match lookup(digits, "+86").map(|number| number.get_type()) {
            Some(PhoneNumberType::FixedLine) => return Reason::PhoneLandline,
            Some(PhoneNumberType::TollFree | PhoneNumberType::SharedCost | PhoneNumberType::PremiumRate | PhoneNumberType::UAN) => {
                return Reason::PhoneService;
            }
            _ => {}
        }
    }
    match length {
        ..11 => Reason::PhoneTooShort,
        11 => Reason::PhoneNotMobile,
        12.. => Reason::PhoneTooLong,
    }
}

/// 400 and 800 numbers, the short numbers of carriers, banks and authorities, and senders of messages.
fn is_service(digits: &[u8]) -> bool {
    let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| digits.starts_with(prefix));
    match digits.len() {
        3 => starts(&[b"110", b"119", b"120", b"122"]),
        5 => starts(&[b"100", b"101", b"123", b"121", b"95", b"96"]),
        6..=8 if starts(&[b"95", b"96"]) => true,
        8 => starts(&[b"1010"]),
        10 => starts(&[b"400", b"800"]),
        11 => starts(&[b"0400", b"0800"]),
        12.. => starts(&[b"106"]) && !(digits.len() == 13 && starts(&[b"1064"])),
        _ => false,
    }
}

fn lookup(digits: &[u8], before: &str) -> Option<PhoneNumber> {
    PhoneNumber::parse(format!("{before}{}", std::str::from_utf8(digits).ok()?), None).ok()
}

/// Decides a number of another country, its code first.
fn foreign(digits: &[u8]) -> Result<Phone, Reason> {
    use PhoneNumberType::{FixedLine, FixedLineOrMobile, Mobile, TollFree, UAN, Unknown};
    let number = lookup(digits, "+").ok_or(Reason::PhoneInvalid)?;
    match number.get_type() {
        Mobile | FixedLineOrMobile if has_run(digits) => Err(Reason::PhoneRepeated),
        Mobile | FixedLineOrMobile => {
            let text = number.format_as(PhoneNumberFormat::E164);
            text.trim_start_matches('+').parse().map(Phone::from_e164_digits).map_err(|_| Reason::PhoneInvalid)
        }
        FixedLine => Err(Reason::PhoneLandline),
        TollFree | UAN | PhoneNumberType::SharedCost | PhoneNumberType::PremiumRate => Err(Reason::PhoneService),
        Unknown => Err(match number.is_possible_with_reason() {
            Err(ValidationError::TooShort) => Reason::PhoneTooShort,
            Err(ValidationError::TooLong) => Reason::PhoneTooLong,
            Ok(NumberLengthType::IsPossibleLocalOnly) => Reason::PhoneTooShort,
            _ => Reason::PhoneNotMobile,
        }),
        _ => Err(Reason::PhoneNotMobile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(cell: &str) -> Result<u64, Reason> {
        PhoneRules::default().parse(cell).map(Phone::e164_digits)
    }

    #[test]
    fn every_way_of_writing_a_number_is_read() {
        for cell in [
            "13912345678",
            "+8613912345678",
            "+86 139 1234 5678",
            "+86-139-1234-5678",
            "(+86)13912345678",
            "(86) 139 1234 5678",
            "8613912345678",
            "008613912345678",
            "0086 139 12345678",
            "+86 013912345678",
            "013912345678",
            "0139-1234-5678",
            "17951 13912345678",
            "1259313912345678",
            "17951 0086 13912345678",
            "139-1234-5678",
            " 139 1234 5678 ",
            "139\u{a0}1234\u{2009}5678\u{3000}",
            "139.1234.5678",
            "139—1234−5678",
            "'13912345678",
            "’13912345678",
            "\"13912345678\"",
            "１３９１２３４５６７８",
            "＋８６　１３９－１２３４－５６７８",
            "\u{202d}13912345678\u{202c}",
            "\u{feff}139\u{200b}12345678",
            "13912345678.0",
            "13912345678.00",
            "手机13912345678",
            "手机号码：139 1234 5678",
            "电话:13912345678",
            "Tel: 13912345678",
            "13912345678 手机",
            "13912345678\r\n",
            "13912345678,",
        ] {
            assert_eq!(parse(cell), Ok(8613912345678), "{cell:?}");
        }
    }

    #[test]
    fn every_reason_is_found() {
        use Reason::*;
        for (reason, cells) in [
            (PhoneMissing, vec!["", " ", "\u{3000}\u{a0}", "\u{feff}", "'"]),
            (PhoneInvalid, vec!["无", "null", "N/A", "-", "abc13912345678", "13912345678张三", "+", "139+12345678", "先生", "00000000000"]),
            (PhoneMasked, vec!["138****1234", "138＊＊＊＊1234", "138xxxx1234", "138XXXX1234", "138●●●●1234", "*******1234"]),
            (PhoneScientific, vec!["1.38E+10", "1.38e10", "1E+10", "1.39123E+10"]),
            (
                PhoneRelay,
                vec![
                    "13912345678转123",
                    "13912345678 转 1234",
                    "13912345678-1234",
                    "13912345678,1234",
                    "13912345678 ext. 12",
                    "13912345678[1234]",
                    "13912345678x123",
                    "+86 13912345678#99",
                ],
            ),
            (
                PhoneMultiple,
                vec![
                    "13912345678/13812345678",
                    "13912345678 13812345678",
                    "13912345678、13812345678",
                    "1391234567813812345678",
                    "13912345678;021-64331234",
                    "13912345678,13812345678",
                    "13912345678或13812345678",
                    "+8613912345678+8613812345678",
                ],
            ),
            (
                PhoneLandline,
                vec![
                    "021-64331234",
                    "02164331234",
                    "010 12345678",
                    "0755-12345678",
                    "(021)64331234",
                    "64331234",
                    "6433123",
                    "+86 21 6433 1234",
                    "021-64331234-801",
                    "021-64331234转801",
                    "0086-21-64331234",
                    "+852 2123 4567",
                ],
            ),
            (PhoneService, vec!["400-800-8888", "4008008888", "800-810-1234", "95588", "10086", "12345", "110", "106901234567890"]),
            (PhoneTooShort, vec!["1381234", "1391234567", "0", "139", "91234567", "+86 1391234567"]),
            (PhoneTooLong, vec!["139123456789", "1391234567890", "+86 139123456789", "991391234567890"]),
            (
                PhoneNotMobile,
                vec![
                    "12012345678",
                    "15412345678",
                    "16012345678",
                    "19412345678",
                    "17400123456",
                    "1440012345678",
                    "1064812345678",
                    "98765432109",
                    "14612345678",
                ],
            ),
            (PhonePlaceholder, vec!["13800000000", "13000000000", "11111111111", "+86 138 0000 0000", "12345678901", "18888888888"]),
            (PhoneRepeated, vec!["13999999999", "13911111112", "11111111112", "15555555000"]),
        ] {
            for cell in cells {
                assert_eq!(parse(cell), Err(reason), "{cell:?}");
            }
        }
    }

    #[test]
    fn numbers_of_other_countries_need_their_code() {
        assert_eq!(parse("+852 9123 4567"), Ok(85291234567));
        assert_eq!(parse("0085291234567"), Ok(85291234567));
        assert_eq!(parse("+853 6612 3456"), Ok(85366123456));
        assert_eq!(parse("+886 912 345 678"), Ok(886912345678));
        assert_eq!(parse("+1 650 253 0000"), Ok(16502530000));
        assert_eq!(parse("85291234567"), Err(Reason::PhoneNotMobile));
        assert_eq!(parse("+852 999"), Err(Reason::PhoneTooShort));
        assert_eq!(parse("+999 12345678"), Err(Reason::PhoneInvalid));
    }

    #[test]
    fn the_service_number_of_the_carrier_is_a_number_unless_listed() {
        assert_eq!(parse("13800138000"), Ok(8613800138000));
        let rules = PhoneRules::new(Some(&["13800138000".into()]), &["194".into()], &["1700".into()]).unwrap();
        assert_eq!(rules.parse("13800138000"), Err(Reason::PhonePlaceholder));
        assert_eq!(rules.parse("13800000000"), Err(Reason::PhoneRepeated));
        assert!(rules.parse("19412345678").is_ok() && rules.parse("17012345678").is_ok());
        assert_eq!(rules.parse("17002345678"), Err(Reason::PhoneNotMobile));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let of = |placeholders: &[&str], allowed: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
            PhoneRules::new(Some(&own(placeholders)), &own(allowed), &[]).expect_err("a bad setting").to_string()
        };
        insta::assert_snapshot!(of(&["138 0000 0000"], &[]), @r#"the placeholder "138 0000 0000" is not a number of 11 digits; write it without spaces, +86 or dashes"#);
        insta::assert_snapshot!(of(&[], &["94"]), @r#"the prefix "94" is not 3 or 4 digits that begin with 1, such as 194 or 1749"#);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn no_cell_panics(cell in "\\PC{0,80}") {
            let _ = parse(&cell);
        }

        #[test]
        fn separators_do_not_matter(digits in 13100000000_u64..13999999999, at in proptest::collection::vec(0_usize..12, 0..6), sign in 0_usize..5) {
            let mut text = digits.to_string();
            for at in at {
                text.insert(at.min(text.len()), [' ', '\u{a0}', '\u{200b}', '\'', '.'][sign].to_string().chars().next().unwrap());
                if !text.is_ascii() { break }
            }
            let plain = parse(&digits.to_string());
            // A point with zeros after it is a fraction.
            proptest::prop_assume!(sign != 4);
            proptest::prop_assert_eq!(parse(&text), plain, "{}", text);
        }
    }
}
