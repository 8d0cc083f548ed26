//! The keys of a state: one master key wraps a versioned data key and a lookup key.
//!
//! - The **master key** is the operator's: 32 bytes as 64 hex digits. It encrypts nothing but the
//!   other keys, so changing it rewrites one small file.
//! - The **data key** encrypts everything that lies in the state. It has versions; what was written
//!   under an older one stays readable.
//! - The **lookup key** makes keyed hashes: ids of members and tasks, and the form in which a phone is
//!   looked up. It is derived from the master key when the state is made and stored wrapped, so that it
//!   outlives a change of the master key, and so that two fresh states with the same master key give
//!   the same ids.
//!
//! No I/O: the wrapped keys are a document that the caller stores.

mod lookup;
mod ring;

pub use lookup::Lookup;
pub use ring::{KeyError, KeyRing, MasterKey, SealError, WrappedKeys};
