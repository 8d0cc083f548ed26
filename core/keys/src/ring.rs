//! The key ring: what the wrapped keys open to under the right master key.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Lookup;

const NONCE_BYTES: usize = 24;
const VERSION_BYTES: usize = 4;

/// The operator's key.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new one from the system's random source.
    ///
    /// # Errors
    /// [`KeyError::Random`] where the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// The key that this text writes: 64 hex digits, spaces and a line end around them allowed.
    ///
    /// # Errors
    /// [`KeyError::NotHex`] for any other text. The text is not repeated.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut()).map_err(|_| KeyError::NotHex { length: text.trim().chars().count() })?;
        Ok(Self(bytes))
    }

    /// The key as 64 hex digits, for the file or credential that keeps it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_ref()))
    }

    /// Eight hex digits that tell one key from another and say nothing of it.
    pub fn fingerprint(&self) -> String {
        let digest =
            Sha256::new().chain_update(b"reunion fingerprint v1").chain_update(self.derive("reunion fingerprint v1").as_ref()).finalize();
        hex::encode(&digest[..4])
    }

    fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.0, info)
    }
}

/// The keys of a state as they are stored: worth nothing without the master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKeys {
    /// Version of this document.
    pub version: u32,
    /// [`MasterKey::fingerprint`] of the key that opens it.
    pub fingerprint: String,
    /// The version of the data key that new files are written under.
    pub current: u32,
    /// Each version of the data key, wrapped, hex.
    pub data: BTreeMap<u32, String>,
    /// The lookup key, wrapped, hex.
    pub lookup: String,
}

/// The keys of a state, open.
pub struct KeyRing {
    current: u32,
    data: BTreeMap<u32, Zeroizing<[u8; 32]>>,
    lookup_key: Zeroizing<[u8; 32]>,
    lookup: Lookup,
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A text that is no key.
    #[error("a master key is 64 hex digits, and this text has {length} characters")]
    NotHex {
        /// Its length, which often says what went wrong.
        length: usize,
    },
    /// Another key than the one that the state was made with.
    #[error("the state belongs to the master key with fingerprint {expected}, and the one given has {given}")]
    WrongKey {
        /// Of the state's key.
        expected: String,
        /// Of the key that was given.
        given: String,
    },
    /// A wrapped key that does not open though the fingerprint is right.
    #[error("the wrapped keys are damaged: {0} does not open")]
    Damaged(&'static str),
    /// Made by a later version of the program.
    #[error("the wrapped keys have version {0}, and this program knows version 1")]
    Version(u32),
    /// The system's random source failed.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// Why a sealed text does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is too short to be one.
    #[error("a sealed text is cut short")]
    Short,
    /// It was sealed under a data key that this state does not have.
    #[error("a text is sealed under version {0} of the data key, which this state does not have")]
    UnknownVersion(u32),
    /// It was changed, or belongs somewhere else.
    #[error("a sealed text was changed or belongs to another place")]
    Damaged,
}

impl KeyRing {
    /// The keys of a new state.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn create(master: &MasterKey) -> Result<(Self, WrappedKeys), KeyError> {
        let data = BTreeMap::from([(1, Zeroizing::new(random()?))]);
        let ring = Self::assemble(1, data, master.derive("reunion lookup v1"));
        let wrapped = ring.wrap(master)?;
        Ok((ring, wrapped))
    }

    /// The keys of a state that is there.
    ///
    /// # Errors
    /// Where the master key is another one, or the document is damaged or of a later version.
    pub fn open(master: &MasterKey, wrapped: &WrappedKeys) -> Result<Self, KeyError> {
        if wrapped.version != 1 {
            return Err(KeyError::Version(wrapped.version));
        }
        let given = master.fingerprint();
        if given != wrapped.fingerprint {
            return Err(KeyError::WrongKey { expected: wrapped.fingerprint.clone(), given });
        }
        let data = wrapped.data.iter().map(|(version, text)| Ok((*version, unwrap(master, &data_label(*version), text, "the data key")?)));
        let data = data.collect::<Result<BTreeMap<_, _>, KeyError>>()?;
        if !data.contains_key(&wrapped.current) {
            return Err(KeyError::Damaged("the current data key"));
        }
        Ok(Self::assemble(wrapped.current, data, unwrap(master, "lookup", &wrapped.lookup, "the lookup key")?))
    }

    fn assemble(current: u32, data: BTreeMap<u32, Zeroizing<[u8; 32]>>, lookup_key: Zeroizing<[u8; 32]>) -> Self {
        let lookup = Lookup::new(&lookup_key);
        Self { current, data, lookup_key, lookup }
    }

    /// The same keys wrapped under a master key, which may be a new one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn wrap(&self, master: &MasterKey) -> Result<WrappedKeys, KeyError> {
        let data = self.data.iter().map(|(version, key)| Ok((*version, wrap(master, &data_label(*version), key)?)));
        Ok(WrappedKeys {
            version: 1,
            fingerprint: master.fingerprint(),
            current: self.current,
            data: data.collect::<Result<_, KeyError>>()?,
            lookup: wrap(master, "lookup", &self.lookup_key)?,
        })
    }

    /// Adds a new version of the data key and makes it the current one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn rotate(&mut self) -> Result<(), KeyError> {
        let next = self.data.keys().next_back().copied().unwrap_or(0) + 1;
        self.data.insert(next, Zeroizing::new(random()?));
        self.current = next;
        Ok(())
    }

    /// Keyed hashes.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// The version that new files are written under.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Every version that the state has, ascending.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.data.keys().copied()
    }

    /// The AES-256 key of Parquet files of this version; `None` where the state has no such version.
    pub fn file_key(&self, version: u32) -> Option<Zeroizing<[u8; 32]>> {
        self.data.get(&version).map(|key| derive(key, "reunion files v1"))
    }

    /// A fingerprint of the current data key, for manifests.
    pub fn data_fingerprint(&self, version: u32) -> Option<String> {
        self.data.get(&version).map(|key| hex::encode(&derive(key, "reunion data fingerprint v1")[..4]))
    }

    /// A text that only this state can read, bound to `place`, so that it cannot be moved elsewhere.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn seal(&self, place: &[u8], text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = &self.data[&self.current];
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut sealed = Vec::with_capacity(VERSION_BYTES + NONCE_BYTES + text.len() + 16);
        sealed.extend_from_slice(&self.current.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend(encrypt(key, &nonce, place, text));
        Ok(sealed)
    }

    /// What [`KeyRing::seal`] sealed for this place.
    ///
    /// # Errors
    /// Where it was not sealed by this state for this place.
    pub fn unseal(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (version, rest) = sealed.split_first_chunk::<VERSION_BYTES>().ok_or(SealError::Short)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Short)?;
        let version = u32::from_be_bytes(*version);
        let key = self.data.get(&version).ok_or(SealError::UnknownVersion(version))?;
        decrypt(key, nonce, place, text).ok_or(SealError::Damaged)
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing(data key version {})", self.current)
    }
}

fn data_label(version: u32) -> String {
    format!("data {version}")
}

fn wrap(master: &MasterKey, label: &str, key: &[u8; 32]) -> Result<String, KeyError> {
    let nonce: [u8; NONCE_BYTES] = random()?;
    let sealed = encrypt(&master.derive("reunion wrap v1"), &nonce, label.as_bytes(), key);
    Ok(hex::encode(nonce) + &hex::encode(sealed))
}

fn unwrap(master: &MasterKey, label: &str, text: &str, what: &'static str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let bytes = hex::decode(text).map_err(|_| KeyError::Damaged(what))?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(KeyError::Damaged(what))?;
    let key = decrypt(&master.derive("reunion wrap v1"), nonce, label.as_bytes(), sealed).map(Zeroizing::new);
    let key = key.and_then(|key| <[u8; 32]>::try_from(key.as_slice()).ok());
    key.map(Zeroizing::new).ok_or(KeyError::Damaged(what))
}

fn encrypt(key: &[u8; 32], nonce: &[u8; NONCE_BYTES], place: &[u8], text: &[u8]) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.encrypt(&XNonce::from(*nonce), Payload { msg: text, aad: place }).expect("the text is far below the cipher's limit")
}

fn decrypt(key: &[u8; 32], nonce: &[u8; NONCE_BYTES], place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place }).ok()
}

fn derive(key: &[u8; 32], info: &str) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, key).expand(info.as_bytes(), derived.as_mut()).expect("32 bytes are within HKDF's limit");
    derived
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn two_fresh_states_hash_alike_and_encrypt_apart() {
        let (a, _) = KeyRing::create(&master(1)).expect("keys");
        let (b, _) = KeyRing::create(&master(1)).expect("keys");
        assert_eq!(a.lookup().id("x", &[]), b.lookup().id("x", &[]));
        let sealed = a.seal(b"here", b"text").expect("sealed");
        assert_eq!(b.unseal(b"here", &sealed), Err(SealError::Damaged));
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let (ring, _) = KeyRing::create(&master(1)).expect("keys");
        let mut sealed = ring.seal(b"here", b"text").expect("sealed");
        assert_eq!(ring.unseal(b"here", &sealed).as_deref(), Ok(&b"text"[..]));
        assert_eq!(ring.unseal(b"there", &sealed), Err(SealError::Damaged));
        assert_eq!(ring.unseal(b"here", &sealed[..20]), Err(SealError::Short));
        *sealed.last_mut().expect("not empty") ^= 1;
        assert_eq!(ring.unseal(b"here", &sealed), Err(SealError::Damaged));
    }

    #[test]
    fn another_master_key_is_refused_by_name() {
        let (_, wrapped) = KeyRing::create(&master(1)).expect("keys");
        let error = KeyRing::open(&master(2), &wrapped).expect_err("the wrong key");
        assert!(
            matches!(&error, KeyError::WrongKey { expected, given } if *expected == wrapped.fingerprint && given != expected),
            "{error}"
        );
    }

    #[test]
    fn rotation_keeps_old_texts_and_all_hashes() {
        let (mut ring, _) = KeyRing::create(&master(1)).expect("keys");
        let old = ring.seal(b"p", b"old").expect("sealed");
        let id = ring.lookup().id("x", &[]);
        ring.rotate().expect("a new data key");
        let wrapped = ring.wrap(&master(2)).expect("wrapped");
        let ring = KeyRing::open(&master(2), &wrapped).expect("opens under the new master key");
        assert_eq!(ring.unseal(b"p", &old).as_deref(), Ok(&b"old"[..]));
        assert_eq!(ring.lookup().id("x", &[]), id, "ids outlive the master key");
        assert_eq!((ring.current(), ring.file_key(1) == ring.file_key(2)), (2, false));
        assert!(ring.file_key(3).is_none());
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        let key = MasterKey::generate().expect("random");
        let text = key.to_hex();
        assert_eq!(MasterKey::from_hex(&format!(" {}\n", *text)).expect("a key").fingerprint(), key.fingerprint());
        assert!(matches!(MasterKey::from_hex("abc"), Err(KeyError::NotHex { length: 3 })));
    }
}
