//! What a plugin must do, tried on it: the suite behind `reunion plugins verify`.
//!
//! Two kinds of process play it. The parent, [`Suite`], never loads the library. For each thing that it tries, an *act*,
//! it starts a child: the same executable, which calls [`act`]. So a plugin that crashes, hangs or exits costs one act,
//! and is a finding like any other.
//!
//! [`suite`] has the cases in order, [`acts`] what a child does for them, [`act`](mod@act) what both say to each other.
//! [`machine`], [`confine`], [`rows`] and [`phones`] see what a plugin does without asking it. Each finding names the
//! rule of `reunion_plugin.h` that it breaks: [`rules`].

mod act;
mod acts;
mod child;
mod confine;
mod machine;
mod phones;
mod report;
mod rows;
mod rules;
mod stage;
mod suite;
mod tasks;

pub use act::act;
pub use child::Program;
pub use report::{Outcome, Report, Row};
pub use suite::Suite;
