//! Keyed hashes: the same input gives the same sixteen bytes in every run, and nobody without the key
//! can tell which phone number they stand for.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use reunion_model::{ContactId, Phone, RecordKey};

/// Hashes under the lookup key, each domain apart from the others.
#[derive(Clone)]
pub struct Lookup {
    /// The HMAC with its key absorbed, so that a short message costs two blocks.
    keyed: Hmac<Sha256>,
    row_seed: u64,
}

impl Lookup {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let keyed = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        let seed = Self { keyed: keyed.clone(), row_seed: 0 }.id("row seed", &[]);
        Self { keyed, row_seed: u64::from_be_bytes(seed[..8].try_into().expect("8 of 16 bytes")) }
    }

    /// The first sixteen bytes of the HMAC-SHA256 of `domain` and `parts`, each with its length before
    /// it, so that no two different lists of parts hash the same text.
    pub fn id(&self, domain: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.keyed.clone();
        // Most texts are short: put together first, they cost one call.
        let (mut text, mut length) = ([0; 192], 0);
        for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
            for bytes in [&(part.len() as u64).to_be_bytes(), part] {
                match text.get_mut(length..length + bytes.len()) {
                    Some(room) => {
                        room.copy_from_slice(bytes);
                        length += bytes.len();
                    }
                    None => {
                        mac.update(&text[..std::mem::take(&mut length)]);
                        mac.update(bytes);
                    }
                }
            }
        }
        mac.update(&text[..length]);
        mac.finalize().into_bytes()[..16].try_into().expect("16 of 32 bytes")
    }

    /// The contact point of a phone.
    pub fn contact(&self, phone: Phone) -> ContactId {
        ContactId(self.id("contact", &[&phone.e164_digits().to_be_bytes()]))
    }

    /// The key of the row that has this id in this source. Fast rather than cryptographic: it is made
    /// for every row of every pull, and stays inside encrypted files.
    pub fn record(&self, source: &str, record_id: &str) -> RecordKey {
        self.record_in(&mut Vec::with_capacity(source.len() + 1 + record_id.len()), source, record_id)
    }

    /// The same, with a buffer that the caller keeps from row to row.
    pub fn record_in(&self, buffer: &mut Vec<u8>, source: &str, record_id: &str) -> RecordKey {
        buffer.clear();
        buffer.extend_from_slice(source.as_bytes());
        buffer.push(0);
        buffer.extend_from_slice(record_id.as_bytes());
        RecordKey(self.row_hash(buffer).to_be_bytes())
    }

    /// A 128-bit hash of a row's bytes, seeded by the lookup key. XXH3, which is a fixed specification,
    /// so that what is stored stays comparable.
    pub fn row_hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_seed(bytes, self.row_seed)
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_domains_are_kept_apart() {
        let lookup = Lookup::new(&[7; 32]);
        let ids = [
            lookup.id("a", &[b"bc"]),
            lookup.id("ab", &[b"c"]),
            lookup.id("a", &[b"b", b"c"]),
            lookup.id("a", &[b"bc", b""]),
            Lookup::new(&[8; 32]).id("a", &[b"bc"]),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{at}");
        }
        assert_eq!(lookup.id("a", &[b"bc"]), ids[0]);
    }

    #[test]
    fn a_record_belongs_to_its_source() {
        let lookup = Lookup::new(&[7; 32]);
        assert_ne!(lookup.record("pos", "1"), lookup.record("mall", "1"));
        assert_ne!(lookup.record("pos", "1"), Lookup::new(&[8; 32]).record("pos", "1"));
    }
}
