//! reunion-integration-tests
