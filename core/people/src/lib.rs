//! reunion-people
