//! Matching lists of keys that are mostly in one order, as what a run reads and what the run before wrote are.

use crate::table::{KeyTable, NONE, spread};

/// Places ahead that are looked at where the next key is not the expected one: rows in between are gone or
/// moved to the end.
const WINDOW: usize = 8;
/// Keys in a row that are not found, after which the place of one is searched for among all. Twice as many
/// after a search that led to no more than that, so that keys in no order cost few searches.
const LOST: usize = 32;

/// For each key of `left` its position in `right`, whose keys are distinct; `NONE` where it is not there.
///
/// Keys in the same order cost a comparison each. The others are found by one pass over `right`.
pub(crate) fn positions(left: &[u128], right: &[u128]) -> Vec<u32> {
    let mut found = vec![NONE; left.len()];
    let is_short = left.len() * 8 < right.len();
    let rest = if is_short { (0..left.len() as u32).collect() } else { walk(left, right, &mut found) };
    look_up(left, right, &rest, &mut found);
    found
}

/// Steps through both side by side; gives those of `left` that it did not come by.
fn walk(left: &[u128], right: &[u128], found: &mut [u32]) -> Vec<u32> {
    let mut rest = Vec::new();
    // Keys found since the last search, and keys not found since the last one that was.
    let (mut next, mut run, mut lost, mut patience) = (0, LOST, LOST, LOST);
    for (at, key) in left.iter().enumerate() {
        let ahead = &right[next..(next + WINDOW).min(right.len())];
        let mut place = ahead.iter().position(|other| other == key).map(|skipped| next + skipped);
        if place.is_none() && lost >= patience {
            place = right.iter().position(|other| other == key);
            patience = if run < LOST { patience * 2 } else { LOST };
            (run, lost) = (0, 0);
        }
        match place {
            Some(place) => {
                found[at] = place as u32;
                next = place + 1;
                run += 1;
                lost = 0;
            }
            None => {
                rest.push(at as u32);
                lost += 1;
            }
        }
    }
    rest
}

/// Finds some of `left` by a table of them and one pass over `right`.
fn look_up(left: &[u128], right: &[u128], rest: &[u32], found: &mut [u32]) {
    if rest.is_empty() {
        return;
    }
    let mut wanted = KeySet::with_capacity(rest.len());
    rest.iter().for_each(|at| _ = wanted.insert(left[*at as usize]));
    let mut places = vec![NONE; wanted.len()];
    for (place, key) in (0_u32..).zip(right) {
        if let Some(number) = wanted.find(*key) {
            places[number as usize] = place;
        }
    }
    for at in rest {
        found[*at as usize] = wanted.find(left[*at as usize]).map_or(NONE, |number| places[number as usize]);
    }
}

/// A set of keys for many questions that are mostly answered no: a filter of a few bits a key stands before
/// the table, and stays in a core's cache.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    filter: Vec<u64>,
    table: KeyTable,
}

impl KeySet {
    const BITS_MIN: usize = 1 << 12;

    pub(crate) fn with_capacity(keys: usize) -> Self {
        let bits = (keys * 16).next_power_of_two().max(Self::BITS_MIN);
        Self { filter: vec![0; bits / 64], table: KeyTable::with_capacity(keys) }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.keys.len()
    }

    /// The key's number, and whether it is new.
    pub(crate) fn insert(&mut self, key: u128) -> (u32, bool) {
        if self.table.keys.len() * 16 >= self.filter.len() * 64 {
            self.grow();
        }
        self.mark(key);
        self.table.insert(key)
    }

    fn grow(&mut self) {
        let words = (self.filter.len() * 4).max(Self::BITS_MIN / 64);
        self.filter.clear();
        self.filter.resize(words, 0);
        for at in 0..self.table.keys.len() {
            self.mark(self.table.keys[at]);
        }
    }

    fn mark(&mut self, key: u128) {
        let (word, bit) = self.place(key);
        self.filter[word] |= bit;
    }

    #[inline]
    fn place(&self, key: u128) -> (usize, u64) {
        // Other bits of the hash than the table goes by.
        let hash = (spread(key) >> 20) as usize;
        ((hash / 64) & (self.filter.len() - 1), 1 << (hash % 64))
    }

    /// The key's number, in the order of insertion.
    #[inline]
    pub(crate) fn find(&self, key: u128) -> Option<u32> {
        if self.filter.is_empty() {
            return None;
        }
        let (word, bit) = self.place(key);
        if self.filter[word] & bit == 0 { None } else { self.table.find(key) }
    }

    #[inline]
    pub(crate) fn contains(&self, key: u128) -> bool {
        self.find(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys whose hash is their own.
    fn key(of: u32) -> u128 {
        u128::from(of).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
    }

    fn plain(left: &[u128], right: &[u128]) -> Vec<u32> {
        left.iter().map(|key| right.iter().position(|other| other == key).map_or(NONE, |at| at as u32)).collect()
    }

    #[test]
    fn long_gaps_and_parts_in_another_order_are_bridged() {
        let right: Vec<u128> = (0..4000).map(key).collect();
        let gaps: Vec<u128> = (0..4000).filter(|at| at % 7 != 0 && !(500..900).contains(at)).chain(500..700).map(key).collect();
        assert_eq!(positions(&gaps, &right), plain(&gaps, &right));
        let turned: Vec<u128> = (2000..4000).chain(0..2000).chain(5000..5100).map(key).collect();
        assert_eq!(positions(&turned, &right), plain(&turned, &right));
    }

    #[test]
    fn a_set_grows_with_its_keys() {
        let mut set = KeySet::default();
        assert!(!set.contains(key(1)));
        for at in 0..5000 {
            assert_eq!([set.insert(key(at)), set.insert(key(at))], [(at, true), (at, false)]);
        }
        assert_eq!(set.len(), 5000);
        assert!((0..5000).all(|at| set.find(key(at)) == Some(at)));
        assert!((5000..20_000).all(|at| !set.contains(key(at))));
    }

    proptest! {
        #[test]
        fn positions_are_those_of_a_plain_search(left in prop::collection::vec(0_u32..60, 0..80), right in prop::collection::btree_set(0_u32..60, 0..60), by in any::<prop::sample::Index>()) {
            let left: Vec<u128> = left.into_iter().map(key).collect();
            let mut right: Vec<u128> = right.into_iter().map(key).collect();
            if !right.is_empty() {
                let by = by.index(right.len());
                right.rotate_left(by);
            }
            prop_assert_eq!(positions(&left, &right), plain(&left, &right));
        }
    }
}
