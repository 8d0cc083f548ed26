//! Every limit that is not the operator's to set, with the reason for its size.

/// Rows in one batch that crosses the plugin boundary. Large enough that a call costs nothing per
/// row, small enough that a batch fits in a second-level cache.
pub const BATCH_ROWS_MAX: usize = 8192;
/// Bytes of one batch. A source with very wide rows sends fewer of them.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// Batches that wait between two stages of a pull.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of one resume state, manifest, or other control document.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Bytes of one error's message or hint.
pub const ERROR_TEXT_BYTES_MAX: usize = 4 << 10;
/// Rows of one segment file.
pub const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// Columns of a source.
pub const COLUMNS_MAX: usize = 512;
/// Bytes of a member's text that is made of the texts of all its records. What one has thousands of is no label, and a
/// column holds at most two thousand million bytes for all members.
pub const UNION_BYTES_MAX: usize = 4 << 10;
/// Tasks of one dispatch.
pub const DISPATCH_TASKS_MAX: usize = 100_000;
/// Dispatches of one channel that are pushed at the same time. More than the disk or a server of one's own
/// can make use of helps nobody.
pub const PUSHES_AT_ONCE_MAX: usize = 8;
/// Bytes of the body of a request from outside that a channel is given, and of the body of its answer. Many times
/// what platforms send, and little enough that as many as are taken in at the same time do not matter.
pub const CALLBACK_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of such a request's path, query and headers together, and of the headers of an answer.
pub const CALLBACK_HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of such a request, and of an answer.
pub const CALLBACK_HEADERS_MAX: usize = 64;
/// Bytes of the events that come with an answer. Such a body cannot tell of more.
pub const CALLBACK_EVENTS_BYTES_MAX: usize = 4 << 20;
/// Requests that one channel is given at the same time, each on an instance of its own. They mostly compute.
pub const CALLBACKS_AT_ONCE_MAX: usize = 4;
/// Records of one decision about who is who. Nobody has so many cards, and every run reads all decisions.
pub const DECISION_RECORDS_MAX: usize = 1_000;
/// Characters of the reason that an operator gives for a decision.
pub const DECISION_WHY_CHARS_MAX: usize = 500;
/// Probable duplicates that are kept for people to look at, the most probable ones: some megabytes, and more than anybody
/// gets through.
pub const REVIEW_PAIRS_MAX: usize = 20_000;
/// Characters of one rendered message.
pub const MESSAGE_CHARS_MAX: usize = 4_000;
/// Cancel takes effect within this time; a source or channel looks at the flag at least this often.
pub const CANCEL_WITHIN_MS: u64 = 1_000;
