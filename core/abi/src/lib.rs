//! reunion-abi
