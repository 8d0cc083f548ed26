//! reunion-channel-file
