//! reunion-ledger
