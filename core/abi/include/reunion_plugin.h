/* SPDX-License-Identifier: Apache-2.0
 *
 * reunion_plugin.h: the boundary between Reunion and its plugins, version 1.1.
 *
 * A plugin is a shared library that exports two functions, reunion_manifest_v1 and
 * reunion_entry_v1, at the end of this file. It reads members out of somewhere (a source) or
 * hands tasks to somewhere (a channel). Control is JSON, data is Arrow. This header is the
 * specification; a Rust author uses the SDK, which keeps these rules for them.
 * docs/author/ leads there, in Rust and in C.
 *
 * WHERE IT RUNS. The host starts a process for each component of the operator's config. It loads this
 * one library, makes one instance (for a channel, more where "THREADS" says so), and ends with the
 * component. An operator can have it in the host's own process; the rules are the same, and what this
 * section says of the process does not hold.
 *   - The working folder is "/". Standard input is empty, standard output leads nowhere; lines on
 *     standard error end in the host's log, cut. One more descriptor is open, the host's: leave it alone.
 *   - The environment is PATH, TZ, LANG, LC_ALL, LC_CTYPE, SSL_CERT_FILE and SSL_CERT_DIR, as far as the
 *     host has them, and TMPDIR, a folder of the component's own. No HOME, and no secret: the config alone
 *     carries those.
 *   - SIGPIPE, SIGTERM, SIGINT and SIGHUP are ignored. There are no core files and no new privileges. What "needs"
 *     in the manifest does not name is refused, with EACCES, EPERM or ENOSYS, as far as the kernel can.
 *   - The operator limits memory, open files, and the time that an answer may take. A process that takes
 *     more, and one that breaks the times below, is killed with all that it has started.
 *   - The library is looked at in another process first, which may do nothing: there the host calls
 *     reunion_manifest_v1 and reunion_entry_v1. One that crashes there is not used until its file changes.
 *
 * OWNERSHIP. Whoever allocates releases, through a callback; no allocator crosses the line.
 *   - reunion_str is borrowed: valid until the function that it was passed to returns (for the
 *     texts of a struct: as long as the struct). Not ended by a zero byte. UTF-8.
 *   - reunion_buf, reunion_error, reunion_stream and the two Arrow structs are owned by whoever
 *     holds them, who calls their release exactly once, from any thread. Release sets itself to
 *     NULL; NULL means that there is nothing to release.
 *   - Out parameters are made by the caller: zeroed, and size set where there is one. The callee
 *     fills them only where it answers REUNION_OK, but for reunion_error, which it fills only
 *     where it does not.
 *   - No pointer may be NULL unless its comment says so.
 *
 * SIZES AND VERSIONS. The major version is in the names of the two symbols. A greater minor version
 * appends members to structs, and functions to tables; it changes, moves and reuses nothing.
 *   - A struct that may grow begins with its size in bytes, set by the side that allocates it. The
 *     other side touches only members that end within size, and treats the others as zero.
 *   - A side that gets a struct smaller than it was when there first was one (at 1.0, where nothing else is said)
 *     answers REUNION_INTERNAL.
 *   - Members named reserved are 0.
 *   - The manifest's abi is the version that the plugin needs. A host takes a plugin of its own
 *     major version whose minor is not greater than its own. A plugin that was built for a greater
 *     minor and can do with less names the less.
 *   - 1.1 added callback, and with it reunion_bytes, reunion_http_request and reunion_http_answer.
 *   - An item of a kind, or a flag, that one side does not know is an error of the other.
 *
 * THREADS. The host makes at most one call at a time on an instance and on the stream that the
 * instance has open, from any thread; a thread is not the same from one call to the next. At most
 * one stream of an instance is open, and no other call is made meanwhile. Exceptions:
 *   - cancel comes from any thread at any moment between create and destroy, also while a call runs;
 *   - poll, and the stream that it made, run beside push and its stream where the manifest says
 *     "concurrent_poll". Otherwise the host makes a second instance for poll;
 *   - different instances are called at the same time: a channel has further ones for "pushes_at_once", and
 *     others again for callback, as many as there are requests at the same time, up to
 *     REUNION_CALLBACKS_AT_ONCE_MAX. On these nothing else is called. They are in the same process as those that
 *     push, or in another one: what one instance keeps in memory the others need not see.
 * A plugin may have threads of its own, from the first call after create on. They are joined when destroy
 * returns. A callback of the host is callable from any thread, does not block, and calls nothing of the
 * plugin.
 *
 * TIME. Every call but cancel may block. The host waits for it this long, then kills the process:
 *   - 30 seconds for loading the library, reunion_entry_v1, create and describe together;
 *   - for check, for schema, for callback, for read, push and poll up to their first item, and for each next after
 *     that: what the operator allows, by default two hours for a source and ten minutes for a channel;
 *   - one second for release, for destroy, and for every call after cancel.
 *
 * CANCEL AND DEADLINES. Within one second of cancel(instance), or of call->cancelled() becoming 1,
 * the running call or next returns REUNION_CANCELLED. cancel is for good: later calls on the
 * instance return REUNION_CANCELLED too. A receipt that is known is handed out first. Releasing a
 * stream before its end is a cancel of that stream: where a next runs, call->cancelled() becomes 1 for
 * it, and release comes when it has returned. The instance is usable afterwards. Past deadline_unix_ms
 * an answer is of no use: return REUNION_TIMEOUT, with the same rule.
 *
 * ERRORS. The status is the error's class, and the class decides what the host does with the
 * component; what becomes of a task is said by its receipt alone. Any call may answer any class, where its
 * comment does not say less. The instance may be called again after each but REUNION_CANCELLED by cancel
 * and REUNION_INTERNAL; a stream ends with its first error. An answer that breaks a rule of this header
 * counts as REUNION_INTERNAL. Messages, hints, findings, log lines and resume states hold no personal data
 * (no phone number, not a part of one) and no secret.
 *
 * PANICS. Nothing unwinds across the line: no Rust panic, no C++ exception, no longjmp. A call in which
 * the plugin panics answers REUNION_INTERNAL, and the instance is poisoned: the host makes no call on it
 * but cancel and destroy, and on its streams but release, and the plugin answers any other with
 * REUNION_INTERNAL.
 *
 * AFTER A FAILURE. A REUNION_INTERNAL, a crash, a time that has passed or a limit that was broken end the
 * process, and with it all instances in it. The call that ran has failed: a source's rows since the last
 * state that was stored come again, and tasks without a receipt count as unknown. The next call makes the
 * component anew in another process, with the same config, after a second; the delay doubles with each
 * further failure, and after five within an hour, or what the operator allows, the component is left
 * alone. Another file in the library's place is loaded by a new process too, at the next call.
 *
 * NOTHING GLOBAL. A plugin does not change the environment, working folder, umask, locale, limits or
 * signal handlers, does not exit or abort, does not fork without starting another program at once, closes
 * no descriptor that it did not open, and writes nothing to the standard streams. A program that it starts
 * may do no more than the plugin, and ends with its process. The library is never unloaded: neither by the
 * host nor, with dlclose, by itself. Its terminators (atexit, destructors) may not run.
 */
#ifndef REUNION_PLUGIN_H
#define REUNION_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define REUNION_ABI_MAJOR 1u
#define REUNION_ABI_MINOR 1u

#ifdef __cplusplus
extern "C" {
#endif

/* The Arrow C Data interface, as its specification gives it:
 * https://arrow.apache.org/docs/format/CDataInterface.html */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
  const char* format;
  const char* name;
  const char* metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema** children;
  struct ArrowSchema* dictionary;
  void (*release)(struct ArrowSchema*);
  void* private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void** buffers;
  struct ArrowArray** children;
  struct ArrowArray* dictionary;
  void (*release)(struct ArrowArray*);
  void* private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

/* Limits. What is beyond them counts as REUNION_INTERNAL, with an error that names the rule. */
#define REUNION_BATCH_ROWS_MAX 8192            /* rows of one item */
#define REUNION_BATCH_BYTES_MAX 67108864       /* bytes of one item */
#define REUNION_COLUMNS_MAX 512                /* columns of one item */
#define REUNION_DISPATCH_TASKS_MAX 100000      /* tasks of one push */
#define REUNION_CONTROL_BYTES_MAX 1048576      /* bytes of a JSON document */
#define REUNION_ERROR_TEXT_BYTES_MAX 4096      /* bytes of a message or hint; longer ones are cut */
#define REUNION_CALLBACKS_AT_ONCE_MAX 4        /* requests that a channel is given at the same time */
#define REUNION_CALLBACK_BODY_BYTES_MAX 1048576   /* bytes of the body of a request, and of an answer */
#define REUNION_CALLBACK_HEAD_BYTES_MAX 32768     /* bytes of path, query and headers; of an answer's headers */
#define REUNION_CALLBACK_HEADERS_MAX 64           /* headers of a request, and of an answer */
#define REUNION_CALLBACK_EVENTS_BYTES_MAX 4194304 /* bytes of the events with an answer */

/* What a call came to. A status that is not listed counts as REUNION_INTERNAL. */
typedef int32_t reunion_status;
enum {
  REUNION_OK = 0,
  /* The operator must act: trying again does not help before that. */
  REUNION_INVALID_CONFIG = 1, /* the config is wrong; key names the place */
  REUNION_UNAUTHORIZED = 2,   /* credentials or rights are missing */
  REUNION_INVALID_DATA = 3,   /* what was read or given makes no sense */
  /* Nobody must act: tried again later by itself, not before retry_after_ms. */
  REUNION_RATE_LIMITED = 20, /* too many calls */
  REUNION_UNAVAILABLE = 21,  /* cannot be reached now */
  REUNION_TIMEOUT = 22,      /* took too long */
  /* The host asked to stop. */
  REUNION_CANCELLED = 40,
  /* A defect of the plugin, or a panic in it. The instance is not used again: see AFTER A FAILURE. */
  REUNION_INTERNAL = 60
};

/* Levels of reunion_host.log. */
enum {
  REUNION_LOG_ERROR = 1, /* the component cannot do its work */
  REUNION_LOG_WARN = 2,  /* it can, and somebody should look */
  REUNION_LOG_INFO = 3,  /* worth a line in normal operation; use it seldom */
  REUNION_LOG_DEBUG = 4,
  REUNION_LOG_TRACE = 5
};

/* Borrowed text. ptr may be NULL where len is 0. */
typedef struct reunion_str {
  const char* ptr;
  size_t len;
} reunion_str;

/* Borrowed bytes, as reunion_str is text. */
typedef struct reunion_bytes {
  const uint8_t* ptr;
  size_t len;
} reunion_bytes;

/* Owned bytes: a JSON document of this header, where nothing else is said. */
typedef struct reunion_buf {
  uint8_t* ptr;
  size_t len;
  void* private_data; /* the maker's own */
  void (*release)(struct reunion_buf* self);
} reunion_buf;

/* An error. */
typedef struct reunion_error {
  uint32_t size;
  int32_t vendor_code;     /* the vendor's own code; 0: none */
  uint64_t retry_after_ms; /* try again no sooner than this; 0: not known */
  reunion_str message;     /* one line: what was seen */
  reunion_str hint;        /* what to do; empty: not known */
  reunion_str key;         /* the key of the config to blame, dotted; empty: none */
  void* private_data;      /* the callee's own */
  void (*release)(struct reunion_error* self);
} reunion_error;

/* The host, as one component sees it. Valid as long as the process, also after destroy. */
typedef struct reunion_host {
  uint32_t size;
  uint32_t minor;     /* the host's minor version */
  void* private_data; /* the host's own */
  /* Writes a log event, or drops it: 200 at once pass, and 20 a second after that; the log says how many did
   * not. From any thread, also outside of calls; never blocks. target: the place in the plugin's code, or empty.
   * fields_json is an object of further fields, or empty. */
  void (*log)(const struct reunion_host* self, int32_t level, reunion_str target, reunion_str message,
              reunion_str fields_json);
  int32_t log_level_max; /* events above this level are dropped: spare the work */
  uint32_t reserved;
} reunion_host;

/* Validate and answer as if; contact nobody, leave nothing behind. */
#define REUNION_CALL_DRY_RUN 1u

/* One call. Made by the host, valid until the call has returned and the stream that it made, if any,
 * is released. */
typedef struct reunion_call {
  uint32_t size;
  uint32_t flags;            /* REUNION_CALL_DRY_RUN */
  uint64_t deadline_unix_ms; /* milliseconds since 1970 UTC; 0: none */
  reunion_str run_id;        /* for the ids of outgoing requests; may be empty */
  /* 1 where the call is to stop, else 0; it stays 1. Cheap, from any thread, as long as the call is valid; look at
   * it at least every 250 ms. */
  int32_t (*cancelled)(const struct reunion_call* self);
  void* private_data; /* the host's own */
} reunion_call;

/* Kinds of reunion_item, and the control document of each. */
enum {
  /* First item of a read. {"resumed": true} where it goes on from the state that it was given, so that
   * the rows up to it still count; {"resumed": false} where it begins anew. */
  REUNION_ITEM_BEGIN = 1,
  /* Rows of a source, receipts of a push, or events of a poll. */
  REUNION_ITEM_BATCH = 2,
  /* Rows that could not be read: location (utf8: "pos.csv:17"), reason (utf8: a code of the
   * quarantine), detail (utf8, may be null: one line without personal data). */
  REUNION_ITEM_REJECTED = 3,
  /* A resume state: any JSON document. It covers exactly the items before it, and is given back to a
   * later read or poll. The host stores both together or neither. */
  REUNION_ITEM_STATE = 4,
  /* Last item: the stream is complete. {"as_of_us": n} with the microseconds since 1970 UTC at which
   * the data was true, or null; with "unchanged": true what a read says that was asked with may_be_unchanged. */
  REUNION_ITEM_END = 5
};

/* One item of a stream. BATCH and REJECTED fill schema (a struct: format "+s", one child for each
 * column) and array (no row of which is null as a whole); the others fill control. The caller owns
 * all three afterwards. Two batches of a read may have different columns. */
typedef struct reunion_item {
  uint32_t size;
  int32_t kind;
  struct ArrowSchema schema;
  struct ArrowArray array;
  reunion_buf control;
} reunion_item;

/* A stream, pulled by the host at its own pace: what is not asked for is not made. The host asks for a few items more
 * than it has stored. It may let go of a stream at any time, and its process may end at any instruction: all that
 * counts then is the last state that was stored. */
typedef struct reunion_stream {
  uint32_t size;
  uint32_t reserved;
  void* private_data; /* the plugin's own */
  /* Fills in the next item; blocks until there is one, which it should not for longer than an answer may take: a
   * batch need not be full. After END, or after any status but REUNION_OK, only release is called. */
  reunion_status (*next)(struct reunion_stream* self, reunion_item* out, reunion_error* error);
  /* Ends the stream, whether or not it was read to its end, while no next runs on it. Within one second. What it had
   * open is closed, and threads that worked for it have ended or no longer touch the call. */
  void (*release)(struct reunion_stream* self);
} reunion_stream;

/* A request of HTTP/1.1 from outside, as it came: anybody may have sent it. Since 1.1. */
typedef struct reunion_http_request {
  uint32_t size;
  uint32_t reserved;
  reunion_str method;       /* "GET", "POST" or any other, in the letters in which it came */
  reunion_str path;         /* what follows the channel's own address: empty, or "/..."; percent-encoded, as it came */
  reunion_str query;        /* what follows "?", percent-encoded, as it came; empty: none */
  reunion_str headers_json; /* a list of [name, value]: names in lower case; those of one name in their order */
  reunion_bytes body;       /* as it came; empty: none */
} reunion_http_request;

/* The answer to it. The caller makes it empty; what is filled in is the caller's afterwards. Since 1.1. */
typedef struct reunion_http_answer {
  uint32_t size;
  int32_t status;           /* 200 to 599 */
  reunion_buf headers_json; /* a list of [name, value]; no bytes: none. Not those of the connection and of the body's
                             * length: connection, content-length, date, keep-alive, te, trailer, transfer-encoding,
                             * upgrade. Values are of printable ASCII */
  reunion_buf body;         /* bytes, of any kind; none: no body */
  /* What the request told of tasks: one batch with the columns of poll, of up to REUNION_BATCH_ROWS_MAX rows. Both
   * released: nothing. */
  struct ArrowSchema schema;
  struct ArrowArray events;
} reunion_http_answer;

/* One component of the operator's config, as its plugin keeps it. */
typedef struct reunion_instance reunion_instance;

/* What a source does. A read without its END is no complete read: nothing is deleted on it. */
typedef struct reunion_source {
  uint32_t size;
  uint32_t reserved;
  /* Reaches the source, checks credentials and rights, and changes nothing. findings: a list of
   * {"level": "info" or "warning", "message": "..."}, mostly empty. May do I/O and block; answers the class
   * with which a read would fail, and INVALID_CONFIG for a config that only the other side shows to be wrong. */
  reunion_status (*check)(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                          reunion_error* error);
  /* The columns that a read would give, as a struct. May do I/O and block. */
  reunion_status (*schema)(reunion_instance* self, const reunion_call* call, struct ArrowSchema* out,
                           reunion_error* error);
  /* Reads: BEGIN, then BATCH, REJECTED and STATE in any order, then END.
   * request_json: {"mode": "incremental" or "snapshot", "resume": bool, "overlap_secs": whole number,
   * "may_be_unchanged": bool}; pass over what a newer host adds. An incremental read of a source whose cursor is a time begins overlap_secs
   * before the time that the last one came to, so that rows committed late are not missed. With resume, state_json
   * is the latest state of a read that did not reach its END, to be gone on with if what was read is still the
   * same; in doubt it begins anew. Without, a new read begins and state_json is the latest state of the last read
   * that ended. An empty state_json: there is none. A state of another version of the plugin, or of another config,
   * begins anew, and is no error. An incremental read gives what is new or changed since; a snapshot gives
   * everything, and a row that is missing from it counts as deleted. With may_be_unchanged the host has every row
   * of the snapshot that state_json is of: a source that knows that nothing has changed since may send BEGIN and
   * then END with "unchanged": true, and nothing between them. One that cannot know passes over it; a host that
   * did not ask takes such an END for a fault.
   * May do I/O and block, here or in next. A read may be repeated after any error, with the same state. */
  reunion_status (*read)(reunion_instance* self, const reunion_call* call, reunion_str request_json,
                         reunion_str state_json, reunion_stream* out, reunion_error* error);
} reunion_source;

/* What a channel does. */
typedef struct reunion_channel {
  uint32_t size;
  uint32_t reserved;
  /* What it does under its config. Pure: no I/O, no threads, the same each time; once after create. Answers
   * nothing but REUNION_INTERNAL for an error. All keys are optional:
   *   group_by            columns whose values are equal within one dispatch; [] : any tasks go together
   *   dispatch_tasks_max  tasks of one dispatch; 0: no limit of its own
   *   idempotent          pushing a task again does not reach the member again
   *   consent             the purpose it needs the member's consent for: "sms", "call", "message", null
   *   reach               "files", "loopback" or "network"
   *   needs               columns that must not be null
   *   pushes_at_once      dispatches that may be pushed at the same time, each on an instance of its own;
   *                       0 and 1: one after the other. The host pushes several at once only where the
   *                       channel is idempotent and reaches no further than files */
  reunion_status (*describe)(reunion_instance* self, reunion_buf* out, reunion_error* error);
  /* As of a source, for a push. Contacts nobody. */
  reunion_status (*check)(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                          reunion_error* error);
  /* Takes the tasks of one dispatch. schema and tasks become the plugin's in any case. Columns: task_id,
   * campaign, store, staff, name, phone, reason, message (utf8), due (timestamp, microseconds, UTC).
   * dispatch_json: {"dispatch_id", "run", "ordinal", "date"}. After a crash the same dispatch is pushed
   * again.
   * The stream yields BATCH items of receipts, as soon as each is known, then END. Columns: task_id,
   * verdict (utf8), retry_after_ms (uint64), code, message (utf8); the last three may be null. Verdicts:
   *   accepted  taken: it is not given to the channel again
   *   rejected  refused for good
   *   not_sent  not taken: it is given again after retry_after_ms, which must be there
   *   busy      not taken, through nothing of the task: the channel is at its limit, or down. As not_sent,
   *             and the try does not count
   *   unknown   it may or may not have been taken
   * Exactly one receipt for each task, in any order. A task without one counts as unknown: an error
   * says something of the component, never of a task. Receipts that came before it stand.
   * May do I/O and block, here or in next. A dry run answers a receipt for each task too. */
  reunion_status (*push)(reunion_instance* self, const reunion_call* call, reunion_str dispatch_json,
                         struct ArrowSchema* schema, struct ArrowArray* tasks, reunion_stream* out,
                         reunion_error* error);
  /* Asks what became of tasks after they were accepted: BATCH, REJECTED and STATE in any order, then END.
   * Columns: event_id (utf8: the same whenever the same event is reported), task_id (utf8), outcome
   * (utf8: added, refused, wrong_number or do_not_call), at (timestamp, microseconds, UTC, may be null),
   * note (utf8, may be null). state_json: the latest state, or empty; with one that it does not know, it begins
   * anew. A channel that never hears back yields END at once. May do I/O and block, here or in next. */
  reunion_status (*poll)(reunion_instance* self, const reunion_call* call, reunion_str state_json,
                         reunion_stream* out, reunion_error* error);
  /* Since 1.1. Answers a request of HTTP that came for this channel: a platform tells what became of a task, or wants to
   * see that the address is this channel's. Called only where the manifest says "callback", and then it must be there;
   * otherwise it may be NULL, or lie beyond size.
   *   - Anybody may have sent the request. Whether it is genuine is the plugin's to find out, before it believes a
   *     word of it. What is not genuine, not understood or too much is answered with a status of 4xx, and is no error.
   *   - The host stores the events, each once by its event_id as those of poll, and only then sends the answer.
   *     Where they cannot be stored it answers 503 in its place. So a request that is not answered was perhaps taken,
   *     and the sender will send it again: give the same events the same ids, and answer it in the same way.
   *   - An error is answered with 503 and retry_after_ms, of whatever class it is, so that the sender tries again. Its
   *     texts go to the operator and not to the sender. So is a panic, after which see PANICS, and an answer that
   *     breaks a rule.
   *   - Senders wait a few seconds, often five. The call has a deadline for that: what would take longer is left to
   *     the next poll. May do I/O and block until then. Never a dry run.
   *   - It runs beside push, poll and other requests, on an instance that is for requests alone: see THREADS. cancel
   *     ends it as any call.
   *   - The request is borrowed until the call returns. No log line and no error holds a part of it that may be
   *     personal data or a secret: not its path, query or headers either. */
  reunion_status (*callback)(reunion_instance* self, const reunion_call* call, const reunion_http_request* request,
                             reunion_http_answer* out, reunion_error* error);
} reunion_channel;

/* The table that reunion_entry_v1 fills in. No function of it, and of the table that it points to, may
 * be NULL, but for callback. */
typedef struct reunion_plugin {
  uint32_t size;  /* in: the bytes that the host has room for; out: the bytes that were filled in */
  uint32_t minor; /* the minor version that the plugin was built with */
  /* Makes the component of this name. config_json is its config, which fits the manifest's schema, with
   * the schema's defaults filled in, paths made absolute and secrets put in. No I/O, no threads: it runs in every
   * check of a config. Answers INVALID_CONFIG for what no schema can say, with the key to blame, or INTERNAL; out
   * is not touched then. */
  reunion_status (*create)(const reunion_host* host, reunion_str component, reunion_str config_json,
                           reunion_instance** out, reunion_error* error);
  /* Stops what runs on the instance, for good: it sets a flag that calls look at. From any thread, beside any
   * call, any number of times. Returns at once: does not block, and waits for nobody. */
  void (*cancel)(reunion_instance* self);
  /* Ends the instance: after its last call has returned and its last stream is released, also after an internal
   * error. Closes what it has open and joins its threads, within one second. */
  void (*destroy)(reunion_instance* self);
  const reunion_source* source;   /* static; NULL in a channel */
  const reunion_channel* channel; /* static; NULL in a source */
} reunion_plugin;

#if defined(_WIN32)
#define REUNION_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define REUNION_EXPORT __attribute__((visibility("default")))
#else
#define REUNION_EXPORT
#endif

/* The only two symbols that a plugin exports. */

/* The manifest: JSON, static, ended by a zero byte. Pure: no I/O, no threads, the same text each time.
 *   name           as in the config: plugin = "file". The library is libreunion_{kind}_{name}.so, with
 *                  underscores for the name's dashes
 *   version        the plugin's own
 *   abi            [1, 0]: the version that it needs; [1, 1] for the capability callback
 *   kind           "source" or "channel"
 *   summary        one sentence
 *   config_schema  JSON Schema of the component's config, of these keywords: type, properties, required,
 *                  additionalProperties, enum, minimum, maximum, minLength, items, oneOf; and
 *                  description, default, format
 *   sample         optional: a commented sample of the config, TOML
 *   capabilities   optional: modes, columns, has_record_id, polls, concurrent_poll; since 1.1 callback, true in a
 *                  channel that answers requests from outside
 *   needs          optional: {"network": bool, "config_paths": bool}: what it needs of the machine. A plugin that
 *                  says so is kept to it where the kernel can: no network without the one; without the other no
 *                  files but the system's libraries and settings, with it those that the config names in texts of
 *                  "format": "path", to be written only where their schema has "access": "write" too */
REUNION_EXPORT const char* reunion_manifest_v1(void);

/* Fills in the table. Pure, as the manifest; may be called more than once, from any thread. host_minor: the host's
 * minor version. An error of any class refuses to start; INTERNAL where the host's structs are too small. */
REUNION_EXPORT reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error);

#ifdef __cplusplus
}
#endif

#endif /* REUNION_PLUGIN_H */
