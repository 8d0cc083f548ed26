//! Texts: how they are read, and how many edits lie between two.

use std::borrow::Cow;

use crate::limits::EDITS_CHARS_MAX;
use crate::name::is_han;
use crate::plan::Kind;

/// A value as it is compared: half width, lower case, without what its kind does not count. `None` where nothing is left.
pub(crate) fn normalise(kind: Kind, text: &str) -> Option<Cow<'_, str>> {
    let plain = kind != Kind::Name && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let text = if plain { Cow::Borrowed(text) } else { Cow::Owned(folded(text)) };
    let text = match kind {
        Kind::Name if text.chars().any(is_han) => {
            Cow::Owned(text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '·' | '.' | '•' | '・')).collect())
        }
        Kind::Digits if !plain => Cow::Owned(text.chars().filter(|c| c.is_alphanumeric()).collect()),
        Kind::Date { .. } => Cow::Owned(date_digits(&text)),
        _ => text,
    };
    (!text.is_empty()).then_some(text)
}

/// Half width, lower case, one space between words.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.chars() {
        let character = match character {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xfee0).unwrap_or(character),
            '\u{3000}' => ' ',
            other => other,
        };
        if character.is_whitespace() {
            if !folded.is_empty() && !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else {
            folded.extend(character.to_lowercase());
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// `19850302` of `1985-3-2`, `1985/03/02 10:00` and `19850302`.
fn date_digits(text: &str) -> String {
    let day = text.split([' ', 't']).next().unwrap_or(text);
    let parts: Vec<&str> = day.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [year, month, day] if year.len() == 4 => format!("{year}{month:0>2}{day:0>2}"),
        _ => parts.concat(),
    }
}

/// How two texts differ by few edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// One character stands for another, or is missing in one.
    One,
    /// Two neighbours are exchanged.
    Transposition,
    /// Two edits.
    Two,
    /// More.
    More,
}

/// How two texts differ that are not equal.
pub(crate) fn difference(a: &str, b: &str) -> Difference {
    if a.is_ascii() && b.is_ascii() {
        return difference_of(a.as_bytes(), b.as_bytes());
    }
    let (mut a_room, mut b_room) = (['\0'; EDITS_CHARS_MAX], ['\0'; EDITS_CHARS_MAX]);
    match (characters(a, &mut a_room), characters(b, &mut b_room)) {
        (Some(a), Some(b)) => difference_of(a, b),
        _ => Difference::More,
    }
}

fn difference_of<T: PartialEq + Copy + Into<u32>>(a: &[T], b: &[T]) -> Difference {
    let (a, b) = apart(a, b);
    match (a, b) {
        ([], [_]) | ([_], []) | ([_], [_]) => Difference::One,
        ([a1, a2], [b1, b2]) if a1 == b2 && a2 == b1 => Difference::Transposition,
        _ if a.len().abs_diff(b.len()) > 2 || a.len().max(b.len()) > EDITS_CHARS_MAX => Difference::More,
        // Two edits change four of the characters that there are, whatever their order. Counting them is cheap.
        _ if characters_apart(a, b) > 4 => Difference::More,
        _ if edits_of(a, b) <= 2 => Difference::Two,
        _ => Difference::More,
    }
}

/// Edits between two texts, exchanged neighbours counting as one; `None` where the texts are too long.
pub(crate) fn edits(a: &str, b: &str) -> Option<usize> {
    let (mut a_room, mut b_room) = (['\0'; EDITS_CHARS_MAX], ['\0'; EDITS_CHARS_MAX]);
    let (a, b) = apart(characters(a, &mut a_room)?, characters(b, &mut b_room)?);
    Some(edits_of(a, b))
}

/// The characters of a text, where they have room.
fn characters<'a>(text: &str, room: &'a mut [char; EDITS_CHARS_MAX]) -> Option<&'a [char]> {
    let mut length = 0;
    for character in text.chars() {
        *room.get_mut(length)? = character;
        length += 1;
    }
    Some(&room[..length])
}

/// How many characters at least are in one text and not in the other; other characters may count as the same.
fn characters_apart<T: Copy + Into<u32>>(a: &[T], b: &[T]) -> u32 {
    let mut counts = [0_i8; 32];
    a.iter().for_each(|character| counts[(*character).into() as usize % 32] += 1);
    b.iter().for_each(|character| counts[(*character).into() as usize % 32] -= 1);
    counts.iter().map(|count| u32::from(count.unsigned_abs())).sum()
}

/// What lies between the equal beginnings and the equal ends.
fn apart<'a, T: PartialEq>(a: &'a [T], b: &'a [T]) -> (&'a [T], &'a [T]) {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    (&a[..a.len() - end], &b[..b.len() - end])
}

/// Optimal string alignment, with three rows of a fixed length.
fn edits_of<T: PartialEq + Copy>(a: &[T], b: &[T]) -> usize {
    let mut rows = [[0_u8; EDITS_CHARS_MAX + 1]; 3];
    for (at, cell) in rows[0].iter_mut().enumerate() {
        *cell = at as u8;
    }
    for i in 1..=a.len() {
        let (this, last, before) = (i % 3, (i + 2) % 3, (i + 1) % 3);
        rows[this][0] = i as u8;
        for j in 1..=b.len() {
            let changed = rows[last][j - 1] + u8::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[last][j] + 1).min(rows[this][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[before][j - 2] + 1);
            }
            rows[this][j] = least;
        }
    }
    usize::from(rows[a.len() % 3][b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_by_their_kind() {
        let read = |kind, text| normalise(kind, text).map(Cow::into_owned).unwrap_or_default();
        let date = Kind::Date { near_days: 1 };
        for (kind, text, expected) in [
            (Kind::Name, "买买提·阿不都 ", "买买提阿不都"),
            (Kind::Name, "  Wang   WEI ", "wang wei"),
            (Kind::Digits, "１３９-0000 0001", "13900000001"),
            (Kind::Text, "Forbes  Street", "forbes street"),
            (date, "1985-3-2", "19850302"),
            (date, "1985-03-02T10:00:00Z", "19850302"),
            (date, "1985/03/02 10:00", "19850302"),
            (date, "19850302", "19850302"),
            (Kind::Text, " ", ""),
        ] {
            assert_eq!(read(kind, text), expected, "{text}");
        }
    }

    #[test]
    fn differences_are_told_apart() {
        for (a, b, expected) in [
            ("13900000001", "13900000002", Difference::One),
            ("13900000001", "1390000001", Difference::One),
            ("13900000012", "13900000021", Difference::Transposition),
            ("13900000012", "13900000034", Difference::Two),
            ("13900000012", "13700000021", Difference::Two),
            ("13900000012", "13800001234", Difference::More),
            ("王小明", "王小朋", Difference::One),
        ] {
            assert_eq!(difference(a, b), expected, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn edits_are_those_of_the_library(a in "[ab1]{0,12}", b in "[ab1]{0,12}") {
            prop_assert_eq!(edits(&a, &b), Some(strsim::osa_distance(&a, &b)));
        }
    }
}
