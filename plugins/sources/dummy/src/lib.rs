//! reunion-source-dummy
