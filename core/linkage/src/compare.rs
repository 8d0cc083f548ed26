//! How alike two rows are: the level of each comparison.

use crate::intern::Interner;
use crate::name;
use crate::plan::{Comparison, Kind, Plan};
use crate::table::{Column, Date, Features, MISSING, Table};
use crate::text::{Difference, difference};

/// The level of a comparison of which one side has no value: it says nothing.
pub(crate) const NO_LEVEL: u8 = 15;
/// Bits of one comparison's level in a pattern.
const LEVEL_BITS: usize = 4;

/// The levels of all comparisons of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pattern(pub u64);

impl Pattern {
    /// The level of one comparison, or [`NO_LEVEL`].
    pub(crate) const fn level(self, comparison: usize) -> u8 {
        (self.0 >> (comparison * LEVEL_BITS)) as u8 & NO_LEVEL
    }
}

/// One comparison on one table.
pub(crate) struct Comparer<'a> {
    pub kind: Kind,
    pub column: &'a Column,
    pub term_frequency: bool,
    /// The column that it is mixed up with, and of each value of this column its number there, [`MISSING`] where it is
    /// not to be found.
    with: Option<(&'a Column, Vec<u32>)>,
}

/// All comparisons of a plan on one table.
pub(crate) struct Comparers<'a>(pub Vec<Comparer<'a>>);

impl<'a> Comparers<'a> {
    /// `None` where the table was not read by this plan.
    pub(crate) fn new(table: &'a Table, plan: &Plan) -> Option<Self> {
        plan.comparisons.iter().map(|comparison| Comparer::new(table, comparison)).collect::<Option<_>>().map(Self)
    }

    pub(crate) fn pattern(&self, a: u32, b: u32) -> Pattern {
        Pattern(self.0.iter().enumerate().fold(0, |pattern, (at, comparer)| pattern | u64::from(comparer.level(a, b)) << (at * LEVEL_BITS)))
    }
}

impl<'a> Comparer<'a> {
    fn new(table: &'a Table, comparison: &Comparison) -> Option<Self> {
        let (_, column) = table.column(&comparison.column)?;
        let with = match &comparison.with {
            Some(name) => {
                let (_, other) = table.column(name)?;
                let mut known = crate::intern::Dictionary::default();
                for value in other.values.iter() {
                    known.id(value);
                }
                Some((other, column.values.iter().map(|value| known.find(value).unwrap_or(MISSING)).collect()))
            }
            None => None,
        };
        Some(Self { kind: comparison.kind, column, term_frequency: comparison.term_frequency, with })
    }

    /// The level of two rows, by their ranks.
    pub(crate) fn level(&self, a: u32, b: u32) -> u8 {
        let (left, right) = (self.column.codes[a as usize], self.column.codes[b as usize]);
        if left == MISSING || right == MISSING {
            return NO_LEVEL;
        }
        if left == right {
            // Two names of which only the surname is known say less than their texts do.
            return match &self.column.features {
                Features::Names(names, _) if names[left as usize].abbreviated => 7,
                _ => 0,
            };
        }
        let swapped = self.with.as_ref().is_some_and(|(other, there)| {
            let is = |code: u32, row: u32| there[code as usize] != MISSING && there[code as usize] == other.codes[row as usize];
            is(left, b) || is(right, a)
        });
        let texts = || (self.column.value(left), self.column.value(right));
        match (self.kind, &self.column.features) {
            (Kind::Name, Features::Names(names, _)) => name::level(&names[left as usize], &names[right as usize], texts),
            (Kind::Date { near_days }, Features::Dates(dates)) => match (&dates[left as usize], &dates[right as usize]) {
                (Some(a), Some(b)) => date(a, b, near_days),
                _ => no_date(texts()),
            },
            (Kind::Set, Features::Sets(elements, ends)) => {
                let of = |code: u32| &elements[if code == 0 { 0 } else { ends[code as usize - 1] }..ends[code as usize]];
                set(of(left), of(right))
            }
            (Kind::Number, Features::Numbers(numbers)) => number(numbers[left as usize], numbers[right as usize]),
            (Kind::LatinName, _) => latin_name(texts(), swapped),
            (Kind::Digits, _) => digits(texts(), swapped),
            (Kind::Text, _) => text(texts(), swapped),
            _ => 1,
        }
    }

    /// How many rows share what makes two rows agree at this level; `None` where the level does not tell.
    pub(crate) fn frequency(&self, level: u8, a: u32, b: u32) -> Option<u32> {
        if !self.term_frequency {
            return None;
        }
        let (left, right) = (self.column.codes[a as usize], self.column.codes[b as usize]);
        match &self.column.features {
            Features::Names(names, counts) if level > 0 => {
                let class = |code: u32| name::class(level, &names[code as usize]).filter(|id| *id != Interner::NONE);
                // Where the classes differ (a name in two scripts and two orders), the more frequent one is the safe one.
                let count = |code: u32| class(code).map(|id| counts[id as usize]);
                Some(count(left)?.max(count(right)?))
            }
            _ if level == 0 => Some(self.column.counts[left as usize]),
            _ => None,
        }
    }

    /// The chance that two rows drawn at random share what makes two rows agree at this level.
    pub(crate) fn chance(&self, level: u8) -> f64 {
        let present = f64::from(self.column.present);
        let of =
            |counts: &mut dyn Iterator<Item = u32>| counts.map(|count| f64::from(count) * f64::from(count.saturating_sub(1))).sum::<f64>();
        let agreeing = match &self.column.features {
            Features::Names(names, counts) if level > 0 => {
                // Each id once, whichever names have it.
                let mut ids: Vec<u32> =
                    names.iter().filter_map(|name| name::class(level, name)).filter(|id| *id != Interner::NONE).collect();
                ids.sort_unstable();
                ids.dedup();
                of(&mut ids.into_iter().map(|id| counts[id as usize]))
            }
            _ => of(&mut self.column.counts.iter().copied()),
        };
        agreeing / (present * (present - 1.0)).max(1.0)
    }
}

fn date(a: &Date, b: &Date, near_days: u16) -> u8 {
    let swapped = |a: &[u8; 8], b: &[u8; 8]| a[..4] == b[..4] && a[4..6] == b[6..] && a[6..] == b[4..6];
    let differing = a.digits.iter().zip(&b.digits).filter(|(a, b)| a != b).count();
    let exchanged = |at: usize| a.digits[at] == b.digits[at + 1] && a.digits[at + 1] == b.digits[at] && a.digits[at] != b.digits[at];
    let near = |(a, b): (i32, i32)| a.abs_diff(b) <= u32::from(near_days);
    match differing {
        _ if swapped(&a.digits, &b.digits) => 1,
        1 => 2,
        2 if (0..7).any(exchanged) => 2,
        _ if a.day.zip(b.day).is_some_and(near) => 3,
        2 if a.digits[4..] != b.digits[4..] => 4,
        _ if a.digits[4..] == b.digits[4..] => 5,
        _ if a.digits[..4] == b.digits[..4] => 6,
        _ => 7,
    }
}

/// Of two texts of which one is no date of eight digits.
fn no_date((a, b): (&str, &str)) -> u8 {
    match difference(a, b) {
        Difference::One | Difference::Transposition => 2,
        Difference::Two => 4,
        Difference::More => 7,
    }
}

fn digits((a, b): (&str, &str), swapped: bool) -> u8 {
    match difference(a, b) {
        _ if swapped => 1,
        Difference::Transposition => 2,
        Difference::One => 3,
        Difference::Two => 4,
        Difference::More => 5,
    }
}

fn latin_name((a, b): (&str, &str), swapped: bool) -> u8 {
    if swapped {
        return 1;
    }
    let initial = |short: &str, long: &str| short.chars().count() == 1 && long.starts_with(short);
    match strsim::jaro_winkler(a, b) {
        _ if initial(a, b) || initial(b, a) => 4,
        likeness if likeness >= 0.92 => 2,
        likeness if likeness >= 0.8 => 3,
        _ => 5,
    }
}

fn text((a, b): (&str, &str), swapped: bool) -> u8 {
    if swapped {
        return 1;
    }
    match strsim::jaro_winkler(a, b) {
        likeness if likeness >= 0.92 => 2,
        likeness if likeness >= 0.8 => 3,
        _ => 4,
    }
}

/// Of two sorted sets.
fn set(a: &[u32], b: &[u32]) -> u8 {
    let common = a.iter().filter(|element| b.binary_search(element).is_ok()).count();
    match (common, a.len() + b.len() - common) {
        (0, _) => 3,
        (common, all) if common == all => 0,
        (common, all) if common * 2 >= all => 1,
        _ => 2,
    }
}

fn number(a: Option<f64>, b: Option<f64>) -> u8 {
    let Some((a, b)) = a.zip(b) else { return 3 };
    let apart = (a - b).abs() / a.abs().max(b.abs()).max(f64::MIN_POSITIVE);
    match apart {
        0.0 => 0,
        apart if apart <= 0.01 => 1,
        apart if apart <= 0.1 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_by_degrees() {
        let levels = Kind::Date { near_days: 10 }.levels();
        let level = |a: &str, b: &str| {
            levels[usize::from(match (Date::new(a), Date::new(b)) {
                (Some(a), Some(b)) => date(&a, &b, 10),
                _ => no_date((a, b)),
            })]
        };
        for (a, b, expected) in [
            ("19850302", "19850203", "day_month_swapped"),
            ("19850302", "19850303", "one_digit"),
            ("19850312", "19850321", "one_digit"),
            ("19850330", "19850402", "near"),
            ("19850302", "19850419", "same_year"),
            ("19850302", "19950311", "other"),
            ("19850302", "19920302", "same_day_of_year"),
            ("19850302", "19880305", "two_digits"),
            ("19850302", "19861127", "other"),
            // Days that no calendar has.
            ("19850302", "19850392", "one_digit"),
            ("19859903", "19850303", "two_digits"),
            ("1985", "19850302", "other"),
            ("1985030", "19850302", "one_digit"),
        ] {
            assert_eq!(level(a, b), expected, "{a} {b}");
            assert_eq!(level(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn digits_texts_sets_and_numbers_agree_by_degrees() {
        let level = |kind: Kind, at: u8| kind.levels()[usize::from(at)];
        assert_eq!(level(Kind::Digits, digits(("13900000012", "13900000021"), false)), "transposition");
        assert_eq!(level(Kind::Digits, digits(("13900000012", "1390000012"), false)), "one_digit");
        assert_eq!(level(Kind::Digits, digits(("13900000012", "13800000022"), false)), "two_edits");
        assert_eq!(level(Kind::Digits, digits(("13900000012", "18612345678"), false)), "other");
        assert_eq!(level(Kind::LatinName, latin_name(("jon", "jonathan"), false)), "similar");
        assert_eq!(level(Kind::LatinName, latin_name(("j", "jonathan"), false)), "initial");
        assert_eq!(level(Kind::LatinName, latin_name(("mary", "ann"), true)), "swapped");
        assert_eq!(level(Kind::Text, text(("forbes street", "forbes stret"), false)), "close");
        assert_eq!(level(Kind::Set, set(&[1, 2], &[2, 3, 4])), "overlap");
        assert_eq!(level(Kind::Set, set(&[1, 2], &[1, 2, 3])), "half");
        assert_eq!(level(Kind::Set, set(&[1], &[2])), "other");
        assert_eq!(level(Kind::Number, number(Some(100.0), Some(100.5))), "within_1_percent");
        assert_eq!(level(Kind::Number, number(Some(100.0), None)), "other");
        assert_eq!(level(Kind::Number, number(Some(0.0), Some(-0.0))), "exact");
    }

    #[test]
    fn every_kind_fits_a_pattern() {
        let kinds =
            [Kind::Name, Kind::LatinName, Kind::Date { near_days: 1 }, Kind::Digits, Kind::Text, Kind::Code, Kind::Set, Kind::Number];
        assert!(kinds.iter().all(|kind| kind.levels().len() < usize::from(NO_LEVEL)));
        let pattern = Pattern(0xf3_20);
        assert_eq!([0, 1, 2, 3].map(|at| pattern.level(at)), [0, 2, 3, NO_LEVEL]);
    }
}
