//! Texts to small numbers.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Many short texts, one after the other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, at: u32) -> &str {
        let at = at as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|at| self.get(at))
    }

    fn push(&mut self, text: &str) -> u32 {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
        self.ends.len() as u32 - 1
    }
}

/// Gives equal texts equal numbers, counted from 0.
#[derive(Default)]
pub(crate) struct Dictionary {
    pub texts: Texts,
    table: HashTable<u32>,
}

impl Dictionary {
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.table.find(xxh3_64(text.as_bytes()), |at| self.texts.get(*at) == text).copied()
    }

    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if let Some(known) = self.find(text) {
            return known;
        }
        let at = self.texts.push(text);
        let Self { texts, table } = self;
        table.insert_unique(xxh3_64(text.as_bytes()), at, |at| xxh3_64(texts.get(*at).as_bytes()));
        at
    }
}

/// Numbers for the texts of several classes, which need not be read again: by their hashes, of 128 bits.
#[derive(Default)]
pub(crate) struct Interner {
    table: hashbrown::HashMap<u128, u32, std::hash::BuildHasherDefault<Already>>,
}

impl Interner {
    /// No text.
    pub(crate) const NONE: u32 = u32::MAX;

    pub(crate) fn id(&mut self, class: &str, text: &str) -> u32 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(class.as_bytes());
        hasher.update(&[0]);
        hasher.update(text.as_bytes());
        let next = self.table.len() as u32;
        *self.table.entry(hasher.digest128()).or_insert(next)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

/// The hash of what is a hash.
#[derive(Default)]
pub(crate) struct Already(u64);

impl std::hash::Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}
