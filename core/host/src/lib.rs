//! reunion-host
