//! reunion-channel-dummy
