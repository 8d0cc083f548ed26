//! What the tests of several modules share.

use reunion_keys::{KeyRing, Lookup, MasterKey};

/// The same lookup key in every test.
pub(crate) fn lookup() -> Lookup {
    let master = MasterKey::from_hex(&"07".repeat(32)).unwrap();
    KeyRing::create(&master).unwrap().0.lookup().clone()
}
