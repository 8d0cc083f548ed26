//! Numbers distinct keys on all cores.
//!
//! The keys are parted by the upper bits of their hash, so that the table of one part stays in a core's
//! cache and no two threads touch the same one: a table over all keys would miss the cache at each of
//! them. Numbers are given in the order in which keys first come, so the result does not depend on the
//! number of threads.

use std::ops::Range;

use hashbrown::HashTable;
use reunion_model::threads::{cores, on_all_cores, one_by_one};

use crate::table::{KeyTable, NONE, spread};

/// Keys of one part, about: their table takes a quarter of a second-level cache.
const PART_KEYS: usize = 8192;
const PARTS_MAX: usize = 4096;
/// Parts of an index: each is written to at another place while the keys are parted.
const INDEX_PARTS_MAX: usize = 256;

/// The numbers of a list of keys.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    /// For each position its key's number.
    pub(crate) of: Vec<u32>,
    /// For each number the position at which its key first came.
    pub(crate) first: Vec<u32>,
}

/// A list of keys, as its owner has them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys<'a> {
    Wide(&'a [u128]),
    Narrow(&'a [u64]),
    /// Numbers in the order of their bytes.
    Bytes(&'a [[u8; 16]]),
}

impl Keys<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Wide(keys) => keys.len(),
            Self::Narrow(keys) => keys.len(),
            Self::Bytes(keys) => keys.len(),
        }
    }

    #[inline]
    fn for_each(&self, range: Range<usize>, give: impl FnMut(u128)) {
        match self {
            Self::Wide(keys) => keys[range].iter().copied().for_each(give),
            Self::Narrow(keys) => keys[range].iter().copied().map(u128::from).for_each(give),
            Self::Bytes(keys) => keys[range].iter().copied().map(u128::from_be_bytes).for_each(give),
        }
    }
}

/// Lists of keys laid end to end.
struct Lists<'a> {
    lists: &'a [Keys<'a>],
    /// Where each list begins, and the end.
    starts: Vec<usize>,
}

impl<'a> Lists<'a> {
    fn new(lists: &'a [Keys<'a>]) -> Self {
        let mut starts = vec![0];
        for list in lists {
            starts.push(starts[starts.len() - 1] + list.len());
        }
        Self { lists, starts }
    }

    fn len(&self) -> usize {
        self.starts[self.lists.len()]
    }

    /// Gives the keys at these positions, in order.
    #[inline]
    fn for_each(&self, from: usize, to: usize, mut give: impl FnMut(u128)) {
        for (list, start) in self.lists.iter().zip(&self.starts) {
            let clip = |position: usize| position.saturating_sub(*start).min(list.len());
            list.for_each(clip(from)..clip(to), &mut give);
        }
    }
}

/// A key and where it stands. Of the key its hash and its upper half, which together are all of it.
#[derive(Clone, Copy, Default)]
struct Entry {
    hash: u64,
    upper: u64,
    position: u32,
}

/// One share of the keys, put together by part.
struct Share {
    /// Where each part begins, and the end.
    starts: Vec<u32>,
    entries: Vec<Entry>,
}

/// Numbers the keys of several lists as if they were one.
pub(crate) fn number(lists: &[Keys]) -> Numbering {
    let lists = Lists::new(lists);
    let len = lists.len();
    if len < 2 * PART_KEYS {
        return number_few(&lists);
    }
    let parts = (len / PART_KEYS).next_power_of_two().min(PARTS_MAX);
    let size = len.div_ceil(cores());
    let shares = (0..len).step_by(size).collect::<Vec<_>>();
    let shares = on_all_cores(&shares, 1, |from| part(&lists, *from, (from + size).min(len), parts));
    // A few ranges of parts for each thread, so that they end at about the same time.
    let range = parts.div_ceil(cores() * 4);
    let ranges = (0..parts).step_by(range).collect::<Vec<_>>();
    let repeats = one_by_one(&ranges, usize::MAX, |from| {
        let mut found = Vec::new();
        let mut scratch = Scratch::default();
        for part in *from..(from + range).min(parts) {
            find_repeats(&shares, part, &mut scratch, &mut found);
        }
        found
    });
    drop(shares);
    let mut of = (0..len as u32).collect::<Vec<_>>();
    for (position, first) in repeats.into_iter().flatten() {
        of[position as usize] = first;
    }
    give_numbers(of)
}

fn number_few(lists: &Lists) -> Numbering {
    let mut table = KeyTable::with_capacity(lists.len());
    let mut numbering = Numbering::default();
    lists.for_each(0, lists.len(), |key| {
        let (number, new) = table.insert(key);
        if new {
            numbering.first.push(numbering.of.len() as u32);
        }
        numbering.of.push(number);
    });
    numbering
}

fn part(lists: &Lists, from: usize, to: usize, parts: usize) -> Share {
    let mut starts = vec![0_u32; parts + 1];
    lists.for_each(from, to, |key| starts[part_of(spread(key), parts) + 1] += 1);
    for part in 0..parts {
        starts[part + 1] += starts[part];
    }
    let mut cursors = starts.clone();
    let mut entries = vec![Entry::default(); to - from];
    let mut position = from as u32;
    lists.for_each(from, to, |key| {
        let hash = spread(key);
        let cursor = &mut cursors[part_of(hash, parts)];
        entries[*cursor as usize] = Entry { hash, upper: (key >> 64) as u64, position };
        *cursor += 1;
        position += 1;
    });
    Share { starts, entries }
}

/// The positions of a part whose key stands before, and the first position that has it.
fn find_repeats(shares: &[Share], part: usize, scratch: &mut Scratch, found: &mut Vec<(u32, u32)>) {
    let Scratch { entries, slots } = scratch;
    entries.clear();
    for Share { starts, entries: of_share } in shares {
        entries.extend_from_slice(&of_share[starts[part] as usize..starts[part + 1] as usize]);
    }
    let mask = (entries.len() * 2).next_power_of_two() - 1;
    slots.clear();
    slots.resize(mask + 1, NONE);
    for (at, entry) in entries.iter().enumerate() {
        let mut slot = entry.hash as usize & mask;
        loop {
            let held = slots[slot];
            if held == NONE {
                slots[slot] = at as u32;
                break;
            }
            let held = &entries[held as usize];
            if held.hash == entry.hash && held.upper == entry.upper {
                found.push((entry.position, held.position));
                break;
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// What one thread uses for one part after the other.
#[derive(Default)]
struct Scratch {
    entries: Vec<Entry>,
    /// Places in `entries`.
    slots: Vec<u32>,
}

/// From the first position of each key to its number.
fn give_numbers(mut of: Vec<u32>) -> Numbering {
    let mut first = Vec::with_capacity((0_u32..).zip(&of).filter(|(position, first)| position == *first).count());
    for position in 0..of.len() {
        of[position] = if of[position] == position as u32 {
            first.push(position as u32);
            first.len() as u32 - 1
        } else {
            of[of[position] as usize]
        };
    }
    Numbering { of, first }
}

/// Where each key of a list stands, made on all cores: one table for each part of the keys.
#[derive(Debug, Default)]
pub(crate) struct Index {
    parts: Vec<HashTable<u32>>,
}

impl Index {
    pub(crate) fn new(keys: &[u128]) -> Self {
        let parts = (keys.len() / PART_KEYS).next_power_of_two().min(INDEX_PARTS_MAX);
        let mut places = vec![Vec::with_capacity(keys.len() / parts + keys.len() / parts / 8); parts];
        for (place, key) in (0_u32..).zip(keys) {
            places[part_of(spread(*key), parts)].push(place);
        }
        let table = |places: &Vec<u32>| {
            let mut table = HashTable::with_capacity(places.len());
            for place in places {
                let key = keys[*place as usize];
                table.entry(spread(key), |at| keys[*at as usize] == key, |at| spread(keys[*at as usize])).or_insert(*place);
            }
            table
        };
        Self { parts: one_by_one(&places, usize::MAX, table) }
    }

    /// The place of a key in the list that this was made of: the first one.
    #[inline]
    pub(crate) fn find(&self, keys: &[u128], key: u128) -> Option<u32> {
        let hash = spread(key);
        self.parts.get(part_of(hash, self.parts.len()))?.find(hash, |at| keys[*at as usize] == key).copied()
    }
}

/// Which of so many parts, a power of two, a hash belongs to.
fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> 32) as usize & parts.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_keys_are_numbered_as_few_are() {
        let mut seed = 7_u128;
        let mut next = || {
            seed = seed.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            // Phones are small numbers, record keys are hashes of the whole width.
            if seed >> 127 == 0 { (seed >> 64) % 40_000 } else { seed >> 90 << 90 }
        };
        let keys: Vec<u128> = (0..100_000).map(|_| next()).collect();
        let (left, right) = keys.split_at(33_333);
        let bytes = left.iter().map(|key| key.to_be_bytes()).collect::<Vec<_>>();
        for lists in [&[Keys::Wide(&keys)][..], &[Keys::Bytes(&bytes), Keys::Narrow(&[]), Keys::Wide(right)]] {
            let (many, few) = (number(lists), number_few(&Lists::new(lists)));
            assert_eq!((many.of, many.first), (few.of, few.first));
        }
    }

    #[test]
    fn equal_hashes_do_not_make_equal_keys() {
        // These have the same low and high half, the other way round, and so the same hash.
        let keys: Vec<u128> = (0..40_000_u128).flat_map(|key| [key, key << 64]).collect();
        let numbering = number(&[Keys::Wide(&keys)]);
        assert_eq!(numbering.first.len(), keys.len() - 1, "0 alone is its own turn");
    }

    #[test]
    fn an_index_finds_the_first_place_of_each_key() {
        for count in [0, 1, 5, 100_000] {
            let keys: Vec<u128> =
                (0..count).map(|at: u128| (at % 70_000).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).collect();
            let index = Index::new(&keys);
            for (place, key) in keys.iter().enumerate() {
                assert_eq!(index.find(&keys, *key), Some(place as u32 % 70_000));
            }
            assert_eq!(index.find(&keys, 7), None);
        }
        assert_eq!(Index::default().find(&[], 7), None);
    }

    proptest! {
        #[test]
        fn positions_and_numbers_agree(lists in prop::collection::vec(prop::collection::vec(0_u128..50, 0..40), 0..4)) {
            let slices: Vec<Keys> = lists.iter().map(|list| Keys::Wide(list)).collect();
            let Numbering { of, first } = number(&slices);
            let all = lists.concat();
            prop_assert_eq!(of.len(), all.len());
            prop_assert!(first.is_sorted());
            for (position, number) in of.iter().enumerate() {
                let first = first[*number as usize] as usize;
                prop_assert!(first <= position && all[first] == all[position]);
                prop_assert_eq!(all.iter().position(|key| *key == all[position]), Some(first));
            }
        }
    }
}
