//! What can go wrong in the ledger, and what to do about it.

use std::path::PathBuf;

use reunion_keys::{KeyError, SealError};

use crate::lease::Holder;

/// Every operation's result.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// Why an operation of the ledger did not happen. Unless a variant says otherwise nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refused or could not be reached.
    #[error("the ledger failed to {doing}; see whether its database is reachable, has room, and may be written")]
    Store {
        /// The operation, as in "commit a segment".
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The ledger cannot be opened.
    #[error("cannot open the ledger at {location}; see that it exists, is a ledger, and may be written by this user")]
    Open {
        /// The path, or the URL without its password.
        location: String,
        /// What the database said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The tables cannot be made or brought up to date.
    #[error("cannot bring the tables of the ledger at {location} up to date; it may have been made by a later version of this program")]
    Migrate {
        /// The path, or the URL without its password.
        location: String,
        /// What the database said.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The SQLite file cannot be made.
    #[error("cannot make the ledger's file {}; its folder must exist and be writable", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else holds the people lease.
    #[error("another process is at work on this state: {0}")]
    LeaseHeld(Holder),
    /// The lease was taken by somebody else since. What this holder began must be given up.
    #[error("the lease with fence {mine} was lost: the ledger is at fence {now}; end this run and start another")]
    FenceLost {
        /// The fence of the lease that was shown.
        mine: u64,
        /// The fence that holds now.
        now: u64,
    },
    /// The head is not the generation that the new one was built on.
    #[error("the new generation was built on {}, but the head is {}; the run is void, start another", number(*base), number(*found))]
    HeadMoved {
        /// The base that was expected.
        base: Option<u64>,
        /// The head.
        found: Option<u64>,
    },
    /// The dispatch is not this process's to write to: it was closed, or taken over.
    #[error("the dispatch {dispatch} is no longer held by this process; what came of it since is recorded by another")]
    DispatchLost {
        /// Its id.
        dispatch: String,
    },
    /// There is no such thing.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id or name.
        name: String,
    },
    /// There is such a thing already.
    #[error("there is a {what} {name} already")]
    Exists {
        /// What was to be made.
        what: &'static str,
        /// Its id or name.
        name: String,
    },
    /// A segment that does not follow the one before it.
    #[error("segment {given} of pull {pull} does not follow: the next one is {expected}")]
    SegmentOrder {
        /// The pull.
        pull: String,
        /// The number that was given.
        given: u32,
        /// The number that follows.
        expected: u32,
    },
    /// A document larger than what a row should hold.
    #[error("{what} has {bytes} bytes, and at most {bytes_max} are allowed")]
    TooLarge {
        /// The document.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// What was to be decided is no decision about two groups of records.
    #[error("this is no decision about who is who: {0}; nothing was stored")]
    NoDecision(String),
    /// A sealed value that does not open: the row was changed, or the key is another one.
    #[error("{what} in the ledger does not open; see that the master key is that of this state")]
    Sealed {
        /// The value.
        what: &'static str,
        /// Why.
        #[source]
        source: SealError,
    },
    /// A value that this program does not understand.
    #[error("{what} in the ledger cannot be read: {detail}; the row was damaged or written by a later version of this program")]
    Damaged {
        /// The value.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A value could not be sealed.
    #[error("a value for the ledger cannot be sealed")]
    Seal(#[source] KeyError),
}

fn number(generation: Option<u64>) -> String {
    generation.map_or_else(|| "an empty state".into(), |number| format!("generation {number}"))
}
