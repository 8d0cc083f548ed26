//! Probable duplicates: probabilistic record linkage by the model of Fellegi and Sunter, without labels.
//!
//! Where keys cannot decide (a typo in a phone, name and birthday and store alike), pairs of rows are scored: each
//! compared column agrees to a degree, each degree says so many bits for or against one person, and their sum with the
//! prior is the log odds that the two rows are one.
//!
//! 1. [`Plan`]: which columns are compared and how, and by which blocking keys candidates are found.
//! 2. [`Table::read`]: the columns of record batches, each distinct value once.
//! 3. [`train`]: a [`Model`], or the reason why there is none. It can be stored and used for later tables.
//! 4. [`score`]: the probable pairs, each with its reasons; of all rows, or of those that changed.
//! 5. [`clusters`]: groups of rows from pairs.
//!
//! Pure: no I/O, no clock. What comes out depends on the rows alone, not on their order, the cut of the batches, or the
//! number of threads. Rows are named by their place in the batches, counted over all of them from 0, so that no value
//! leaves the table.

mod blocking;
mod clusters;
mod compare;
mod intern;
mod limits;
mod model;
mod name;
mod plan;
mod random;
mod score;
mod table;
mod text;
mod train;

pub use blocking::{BlockingReport, KeyReport};
pub use clusters::{Grouping, clusters};
pub use model::{Level, Model, Session, Training, Unused, Weights};
pub use plan::{BlockingKey, Comparison, KeyPart, Kind, Limits, Part, Plan, PlanError};
pub use score::{Dirty, Pair, Reason, ScoreError, Scored, score};
pub use table::{Rows, Table, TableError};
pub use train::{TrainError, train};
