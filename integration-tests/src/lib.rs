//! What the integration tests, the demo and the benchmarks share: a generator of ERP exports whose
//! truth is known, a small retailer in a folder, and what its state comes to in lines of text.

pub mod dump;
pub mod generator;
pub mod harness;
pub mod powercut;
pub mod scenario;
