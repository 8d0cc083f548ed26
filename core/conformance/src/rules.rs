//! The rules that a finding names, in the words of `reunion_plugin.h` and the place where they stand there.

/// Of what a library exports.
pub const SYMBOLS: &str = "reunion_manifest_v1 and reunion_entry_v1: the only two symbols that a plugin exports";
/// Of the text of the manifest.
pub const PURE: &str = "reunion_manifest_v1: pure: no I/O, no threads, the same text each time";
/// Of what the manifest says.
pub const MANIFEST: &str = "reunion_manifest_v1: what each key of the manifest holds";
/// Of the entry function and of structs of other sizes.
pub const SIZES: &str =
    "SIZES AND VERSIONS: touch only members that end within size; a struct smaller than at 1.0 is answered with REUNION_INTERNAL";
/// Of out parameters.
pub const OUT: &str = "OWNERSHIP: out parameters are filled only where the answer is REUNION_OK, and an error only where it is not";
/// Of the entry function.
pub const ENTRY: &str = "reunion_entry_v1: fills in the table, and may be called more than once";
/// Of create.
pub const CREATE: &str = "create: no I/O, no threads";
/// Of configs that are wrong.
pub const CONFIG: &str = "REUNION_INVALID_CONFIG: the config is wrong; key names the place";
/// Of the classes of errors.
pub const ERRORS: &str = "ERRORS: the status is the error's class; REUNION_INTERNAL is a defect of the plugin";
/// Of check.
pub const CHECK: &str = "check: reaches the other side, checks credentials and rights, and changes nothing";
/// Of cancel and deadlines.
pub const STOP: &str = "CANCEL AND DEADLINES: within one second of a cancel, or past the deadline, the call ends";
/// Of the release of a stream.
pub const RELEASE: &str = "release: ends the stream, whether or not it was read to its end, within one second";
/// Of the schema of a source.
pub const SCHEMA: &str = "schema: the columns that a read would give";
/// Of the items of a read.
pub const READ: &str = "read: BEGIN, then BATCH, REJECTED and STATE in any order, then END";
/// Of a snapshot.
pub const SNAPSHOT: &str = "read: a snapshot gives everything, and a row that is missing from it counts as deleted";
/// Of resume states.
pub const STATE: &str = "REUNION_ITEM_STATE: a resume state covers exactly the items before it";
/// Of the receipts of a push.
pub const RECEIPTS: &str = "push: exactly one receipt for each task, in any order";
/// Of what a channel says of pushing again.
pub const IDEMPOTENT: &str = "describe: idempotent: pushing a task again does not reach the member again";
/// Of verdicts that put a task off.
pub const DELAY: &str = "push: not_sent and busy: given again after retry_after_ms, which must be there";
/// Of a dry run.
pub const DRY_RUN: &str = "REUNION_CALL_DRY_RUN: validate and answer as if; contact nobody, leave nothing behind";
/// Of a poll.
pub const POLL: &str = "poll: BATCH, REJECTED and STATE in any order, then END; an event has the same event_id whenever it is reported";
/// Of requests that nobody believes.
pub const CALLBACK: &str = "callback: what is not genuine, not understood or too much is answered with a status of 4xx, and is no error";
/// Of what an answer holds.
pub const CALLBACK_ANSWER: &str =
    "reunion_http_answer: a status of 200 to 599, headers that are not the host's, and events as those of poll";
/// Of a request that comes again.
pub const CALLBACK_AGAIN: &str = "callback: the sender will send it again: answer it in the same way";
/// Of panics.
pub const PANICS: &str =
    "PANICS: nothing unwinds across the line; after a REUNION_INTERNAL every call but cancel and destroy is answered with it";
/// Of destroy.
pub const DESTROY: &str = "destroy: ends the instance, joins the plugin's threads, within one second";
/// Of memory and descriptors.
pub const OWNERSHIP: &str = "OWNERSHIP: whoever allocates releases";
/// Of what belongs to the process.
pub const GLOBAL: &str = "NOTHING GLOBAL: no change of the environment, working folder, umask, locale or signal handlers; no exit; nothing on the standard streams";
/// Of personal data in texts.
pub const PHONES: &str = "ERRORS: messages, hints, findings and log lines hold no phone number, not a part of one";
