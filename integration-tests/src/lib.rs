//! What the integration tests, the demo and the benchmarks share: a generator of ERP exports whose
//! truth is known.

pub mod generator;
