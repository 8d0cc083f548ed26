//! reunion-source-file
