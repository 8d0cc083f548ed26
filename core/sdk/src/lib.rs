//! reunion-sdk
