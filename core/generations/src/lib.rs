//! reunion-generations
