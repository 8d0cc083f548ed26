//! reunion-rules
