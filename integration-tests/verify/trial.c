/* A plugin in plain C, for the tests of `reunion plugins verify`. As it is it keeps the contract; with -DBREAK=n it
 * breaks it in one way, which one case must find. A source, or with -DCHANNEL a channel. */
#define _GNU_SOURCE
#include "reunion_plugin.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef BREAK
#define BREAK 0
#endif

#define MANIFEST_CHANGES 1
#define MANIFEST_THREAD 2
#define SMALL_TABLE_TAKEN 3
#define WRITES_BEHIND_TABLE 4
#define SMALL_CALL_TAKEN 5
#define CREATE_SOCKET 6
#define CREATE_THREAD 7
#define CREATE_READS 8
#define NO_KEY 9
#define ODD_CONFIG_ABORTS 10
#define CHECK_EXITS 11
#define CHECK_CRASHES 12
#define OTHER_SCHEMA 13
#define SECOND_READ_LESS 14
#define RESUME_LOSES 15
#define RESUME_REPEATS 16
#define CANCEL_IGNORED 17
#define CANCEL_OTHER_CLASS 18
#define SLOW_RELEASE 19
#define THREAD_STAYS 20
#define DESCRIPTOR_STAYS 21
#define MEMORY_STAYS 22
#define FOLDER_CHANGES 23
#define HANDLER_CHANGES 24
#define PRINTS 25
#define LOGS_PHONE 26
#define PROCESS_STAYS 27
#define NO_RECEIPT 40
#define TWICE 41
#define DRY_RUN_WRITES 42
#define DRY_RUN_CONTACTS 43
#define NO_DELAY 44
#define PHONE_IN_RECEIPT 45
#define EVENT_CHANGES 46
#define CALLBACK_ERROR 50
#define CALLBACK_5XX 51
#define CALLBACK_CRASHES 52
#define CALLBACK_BELIEVES 53
#define CALLBACK_CHANGES 54
#define CALLBACK_HANGS 55
#define CALLBACK_LOGS 56
#define CALLBACK_HEADER 57
#define CALLBACK_SMALL_TAKEN 58
#define CALLBACK_MISSING 59

#define BATCH_ROWS 500
#define ROWS_MAX 1000000
#define TEXT_BYTES 24
#define EVENTS 3

struct reunion_instance {
  const reunion_host* host;
  volatile int stopped;
  long rows;
  char path[512];
  pthread_t thread;
};

/* ---- small things ---- */

static reunion_str str(const char* text) {
  reunion_str out = {text, strlen(text)};
  return out;
}

/* Static text needs no giving back. */
static reunion_status fail(reunion_error* error, reunion_status status, const char* message, const char* key) {
  if (error->size >= sizeof *error) {
    error->message = str(message);
    error->key = str(key);
  }
  return status;
}

static void release_buf(reunion_buf* self) {
  free(self->ptr);
  self->ptr = NULL;
  self->len = 0;
  self->release = NULL;
}

static void fill_buf(reunion_buf* out, const char* text) {
  out->len = strlen(text);
  out->ptr = malloc(out->len + 1);
  memcpy(out->ptr, text, out->len + 1);
  out->release = release_buf;
}

/* A copy that a zero byte ends. */
static char* copy(reunion_str text) {
  char* out = calloc(1, text.len + 1);
  if (text.len > 0) memcpy(out, text.ptr, text.len);
  return out;
}

/* The number behind a key, or the default. */
static long number_of(const char* json, const char* key, long other) {
  const char* at = strstr(json, key);
  return at == NULL ? other : strtol(at + strlen(key), NULL, 10);
}

static void* wait_for_ever(void* unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}

static void* wait_for_a_moment(void* unused) {
  (void)unused;
  usleep(50000);
  return NULL;
}

static int is_stopped(const reunion_instance* self, const reunion_call* call) {
  return self->stopped || call->cancelled(call);
}

static int is_late(const reunion_call* call) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
  return call->deadline_unix_ms != 0 && now_ms > call->deadline_unix_ms;
}

/* What every call begins with. */
static reunion_status begin(const reunion_instance* self, const reunion_call* call, reunion_error* error) {
  if (call->size < sizeof *call && BREAK != SMALL_CALL_TAKEN) return fail(error, REUNION_INTERNAL, "the call's struct is too small", "");
  if (is_stopped(self, call)) return fail(error, REUNION_CANCELLED, "stopped", "");
  if (is_late(call)) return fail(error, REUNION_TIMEOUT, "the deadline has passed", "");
  return REUNION_OK;
}

/* ---- Arrow: a struct of columns of text or of one 64-bit number, with nulls or without ---- */

#define COLUMNS_MAX 5

typedef struct columns {
  const char* formats[COLUMNS_MAX];
  const char* names[COLUMNS_MAX];
  int count;
} columns;

static void release_child_schema(struct ArrowSchema* self) { self->release = NULL; }

static void release_schema(struct ArrowSchema* self) {
  free(self->private_data);
  self->release = NULL;
}

static void fill_schema(struct ArrowSchema* out, const columns* of) {
  struct {
    struct ArrowSchema children[COLUMNS_MAX];
    struct ArrowSchema* pointers[COLUMNS_MAX];
  }* memory = calloc(1, sizeof *memory);
  memset(out, 0, sizeof *out);
  for (int at = 0; at < of->count; at++) {
    struct ArrowSchema* child = &memory->children[at];
    child->format = of->formats[at];
    child->name = of->names[at];
    child->flags = ARROW_FLAG_NULLABLE;
    child->release = release_child_schema;
    memory->pointers[at] = child;
  }
  out->format = "+s";
  out->name = "";
  out->n_children = of->count;
  out->children = memory->pointers;
  out->private_data = memory;
  out->release = release_schema;
}

/* A column that grows. */
typedef struct column {
  struct ArrowArray array;
  const void* buffers[3];
  uint8_t* valid;
  int32_t* offsets;
  char* text;
  uint64_t* numbers;
} column;

typedef struct batch {
  column columns[COLUMNS_MAX];
  struct ArrowArray* pointers[COLUMNS_MAX];
  const void* no_buffers[1];
  int count;
} batch;

static void release_child_array(struct ArrowArray* self) { self->release = NULL; }

static void release_array(struct ArrowArray* self) {
  batch* memory = self->private_data;
  for (int at = 0; at < memory->count; at++) {
    free(memory->columns[at].valid);
    free(memory->columns[at].offsets);
    free(memory->columns[at].text);
    free(memory->columns[at].numbers);
  }
  free(memory);
  self->release = NULL;
}

static batch* new_batch(const columns* of, size_t rows, size_t text_bytes) {
  batch* out = calloc(1, sizeof *out);
  out->count = of->count;
  for (int at = 0; at < of->count; at++) {
    column* one = &out->columns[at];
    one->valid = calloc(1, rows / 8 + 1);
    if (of->formats[at][0] == 'u') {
      one->offsets = calloc(rows + 1, sizeof *one->offsets);
      one->text = calloc(rows + 1, text_bytes);
    } else {
      one->numbers = calloc(rows + 1, sizeof *one->numbers);
    }
  }
  return out;
}

/* Adds a value to a column; NULL is null. Rows are added one after the other. */
static void add_text(batch* into, int at, const char* text) {
  column* one = &into->columns[at];
  int64_t row = one->array.length++;
  size_t len = text == NULL ? 0 : strlen(text);
  memcpy(one->text + one->offsets[row], text == NULL ? "" : text, len);
  one->offsets[row + 1] = one->offsets[row] + (int32_t)len;
  if (text == NULL) one->array.null_count++;
  else one->valid[row / 8] |= (uint8_t)(1 << (row % 8));
}

#ifdef CHANNEL
static void add_number(batch* into, int at, const uint64_t* number) {
  column* one = &into->columns[at];
  int64_t row = one->array.length++;
  one->numbers[row] = number == NULL ? 0 : *number;
  if (number == NULL) one->array.null_count++;
  else one->valid[row / 8] |= (uint8_t)(1 << (row % 8));
}
#endif

static void fill_array(struct ArrowArray* out, batch* from) {
  memset(out, 0, sizeof *out);
  for (int at = 0; at < from->count; at++) {
    column* one = &from->columns[at];
    one->buffers[0] = one->valid;
    one->buffers[1] = one->offsets != NULL ? (const void*)one->offsets : (const void*)one->numbers;
    one->buffers[2] = one->text;
    one->array.n_buffers = one->offsets != NULL ? 3 : 2;
    one->array.buffers = one->buffers;
    one->array.release = release_child_array;
    from->pointers[at] = &one->array;
  }
  out->length = from->columns[0].array.length;
  out->n_buffers = 1;
  out->buffers = from->no_buffers;
  out->n_children = from->count;
  out->children = from->pointers;
  out->private_data = from;
  out->release = release_array;
}

/* ---- an instance ---- */

static reunion_status create(const reunion_host* host, reunion_str component, reunion_str config_json,
                             reunion_instance** out, reunion_error* error) {
  (void)component;
  if (host->size < sizeof *host) return fail(error, REUNION_INTERNAL, "the host's struct is too small", "");
  char* config = copy(config_json);
  reunion_instance* self = calloc(1, sizeof *self);
  self->host = host;
  self->rows = number_of(config, "\"rows\":", 3000);
  const char* path = strstr(config, "\"path\":\"");
  if (path != NULL) sscanf(path, "\"path\":\"%511[^\"]", self->path);
  free(config);
  if (self->rows == 0 && BREAK == ODD_CONFIG_ABORTS) abort();
  if (self->rows > ROWS_MAX || self->rows < 0) {
    free(self);
    return fail(error, REUNION_INVALID_CONFIG, "there are no more than a million rows", BREAK == NO_KEY ? "" : "rows");
  }
  if (BREAK == CREATE_SOCKET) close(socket(AF_INET, SOCK_STREAM, 0));
  if (BREAK == CREATE_READS) close(open(self->path, O_RDONLY));
  if (BREAK == CREATE_THREAD) pthread_create(&self->thread, NULL, wait_for_a_moment, NULL);
  *out = self;
  return REUNION_OK;
}

static void cancel(reunion_instance* self) { self->stopped = 1; }

static void destroy(reunion_instance* self) {
  if (BREAK == CREATE_THREAD) pthread_join(self->thread, NULL);
  if (BREAK == THREAD_STAYS) pthread_create(&self->thread, NULL, wait_for_ever, NULL);
  if (BREAK == PROCESS_STAYS && fork() == 0) wait_for_ever(NULL);
  if (BREAK == DESCRIPTOR_STAYS) {
    int leaked = open("/dev/null", O_RDONLY);
    (void)leaked;
  }
  if (BREAK == MEMORY_STAYS) {
    char* leaked = malloc(200000);
    memset(leaked, 1, 200000);
  }
  free(self);
}

static reunion_status check(reunion_instance* self, const reunion_call* call, reunion_buf* findings, reunion_error* error) {
  reunion_status status = begin(self, call, error);
  if (status != REUNION_OK) return status;
  if (BREAK == CHECK_EXITS) exit(3);
  if (BREAK == CHECK_CRASHES) *(volatile int*)8 = 0;
  if (BREAK == FOLDER_CHANGES && chdir("/") != 0) return fail(error, REUNION_UNAVAILABLE, "no folder", "");
  if (BREAK == HANDLER_CHANGES) signal(SIGUSR1, SIG_IGN);
  self->host->log(self->host, REUNION_LOG_DEBUG, str("trial"), str(BREAK == LOGS_PHONE ? "row of 13900001201" : "checked"), str("{}"));
  fill_buf(findings, "[]");
  return REUNION_OK;
}

#ifndef CHANNEL

/* ---- a source ---- */

static const columns row_columns = {{"u", "u"}, {"record_id", "phone"}, 2};
static const columns other_columns = {{"u", "u"}, {"record_id", "mobile"}, 2};

typedef struct reading {
  reunion_instance* instance;
  const reunion_call* call;
  long row;
  long batches;
  int resumed;
  int begun;
  int state_due;
} reading;

/* Reads of this process, for the one that gives less the second time. */
static int reads = 0;

static void rows(struct ArrowArray* out, long from, long to) {
  batch* made = new_batch(&row_columns, (size_t)(to - from), TEXT_BYTES);
  for (long row = from; row < to; row++) {
    char text[TEXT_BYTES];
    snprintf(text, sizeof text, "r%ld", row);
    add_text(made, 0, text);
    snprintf(text, sizeof text, "1390000%04ld", row % 10000);
    add_text(made, 1, row % 7 == 0 ? NULL : text);
  }
  fill_array(out, made);
}

static reunion_status next(reunion_stream* self, reunion_item* out, reunion_error* error) {
  reading* state = self->private_data;
  char text[64];
  if (is_stopped(state->instance, state->call)) {
    if (BREAK == CANCEL_IGNORED) wait_for_ever(NULL);
    return fail(error, BREAK == CANCEL_OTHER_CLASS ? REUNION_UNAVAILABLE : REUNION_CANCELLED, "stopped", "");
  }
  if (is_late(state->call)) return fail(error, REUNION_TIMEOUT, "the deadline has passed", "");
  long end = state->instance->rows - (BREAK == SECOND_READ_LESS && reads == 2);
  if (!state->begun) {
    state->begun = 1;
    out->kind = REUNION_ITEM_BEGIN;
    fill_buf(&out->control, state->resumed ? "{\"resumed\":true}" : "{\"resumed\":false}");
  } else if (state->state_due) {
    state->state_due = 0;
    out->kind = REUNION_ITEM_STATE;
    snprintf(text, sizeof text, "{\"row\":%ld}", state->row + (BREAK == RESUME_LOSES));
    fill_buf(&out->control, text);
  } else if (state->row < end) {
    long to = state->row + BATCH_ROWS < end ? state->row + BATCH_ROWS : end;
    out->kind = REUNION_ITEM_BATCH;
    fill_schema(&out->schema, &row_columns);
    rows(&out->array, state->row, to);
    state->row = to;
    state->state_due = ++state->batches % 2 == 0;
    if (BREAK == PRINTS) printf("%ld rows\n", to), fflush(stdout);
  } else {
    out->kind = REUNION_ITEM_END;
    fill_buf(&out->control, "{\"as_of_us\":null}");
  }
  return REUNION_OK;
}

static void release_stream(reunion_stream* self) {
  reading* state = self->private_data;
  if (BREAK == SLOW_RELEASE && state->row < state->instance->rows) usleep(1500000);
  free(state);
  self->private_data = NULL;
  self->release = NULL;
}

static reunion_status schema(reunion_instance* self, const reunion_call* call, struct ArrowSchema* out, reunion_error* error) {
  reunion_status status = begin(self, call, error);
  if (status != REUNION_OK) return status;
  fill_schema(out, BREAK == OTHER_SCHEMA ? &other_columns : &row_columns);
  return REUNION_OK;
}

static reunion_status read_rows(reunion_instance* self, const reunion_call* call, reunion_str request_json,
                                reunion_str state_json, reunion_stream* out, reunion_error* error) {
  reunion_status status = begin(self, call, error);
  if (status != REUNION_OK) return status;
  char* request = copy(request_json);
  char* given = copy(state_json);
  reading* state = calloc(1, sizeof *state);
  reads++;
  state->instance = self;
  state->call = call;
  state->resumed = strstr(request, "\"resume\":true") != NULL && state_json.len > 0;
  if (state->resumed && BREAK != RESUME_REPEATS) state->row = number_of(given, "\"row\":", 0);
  free(request);
  free(given);
  out->private_data = state;
  out->next = next;
  out->release = release_stream;
  return REUNION_OK;
}

static const reunion_source source = {sizeof(reunion_source), 0, check, schema, read_rows};

#define KIND "source"
#define ABI "[1,0]"
#define CAPABILITIES "\"modes\":[\"snapshot\"]"
#define REQUIRED ""

#else

/* ---- a channel: a file for each dispatch, with the ids of its tasks ---- */

static const columns receipt_columns = {
    {"u", "u", "L", "u", "u"}, {"task_id", "verdict", "retry_after_ms", "code", "message"}, 5};
static const columns event_columns = {{"u", "u", "u", "tsu:UTC", "u"}, {"event_id", "task_id", "outcome", "at", "note"}, 5};

typedef struct answering {
  struct ArrowArray batch;
  const columns* columns;
} answering;

static reunion_status next(reunion_stream* self, reunion_item* out, reunion_error* error) {
  answering* state = self->private_data;
  (void)error;
  if (state->batch.release != NULL) {
    out->kind = REUNION_ITEM_BATCH;
    fill_schema(&out->schema, state->columns);
    out->array = state->batch;
    state->batch.release = NULL;
    return REUNION_OK;
  }
  out->kind = REUNION_ITEM_END;
  fill_buf(&out->control, "{\"as_of_us\":null}");
  return REUNION_OK;
}

static void release_stream(reunion_stream* self) {
  answering* state = self->private_data;
  if (state->batch.release != NULL) state->batch.release(&state->batch);
  free(state);
  self->private_data = NULL;
  self->release = NULL;
}

static void answer(reunion_stream* out, batch* from, const columns* columns) {
  answering* state = calloc(1, sizeof *state);
  fill_array(&state->batch, from);
  state->columns = columns;
  out->private_data = state;
  out->next = next;
  out->release = release_stream;
}

static reunion_status describe(reunion_instance* self, reunion_buf* out, reunion_error* error) {
  (void)self, (void)error;
  fill_buf(out, "{\"idempotent\":true,\"reach\":\"files\",\"dispatch_tasks_max\":200}");
  return REUNION_OK;
}

/* The text of a task's id. */
static void id_of(const struct ArrowArray* tasks, int64_t row, char* id) {
  const struct ArrowArray* ids = tasks->children[0];
  const int32_t* offsets = (const int32_t*)ids->buffers[1] + ids->offset + tasks->offset + row;
  snprintf(id, TEXT_BYTES * 2, "%.*s", (int)(offsets[1] - offsets[0]), (const char*)ids->buffers[2] + offsets[0]);
}

/* Writes the file under another name and renames it, so that half a one is never there. */
static int write_list(const reunion_instance* self, reunion_str dispatch_json, const struct ArrowArray* tasks) {
  char* dispatch = copy(dispatch_json);
  char id[TEXT_BYTES * 2] = "", path[1024], part[1040];
  const char* at = strstr(dispatch, "\"dispatch_id\":\"");
  if (at != NULL) sscanf(at, "\"dispatch_id\":\"%40[0-9a-f]", id);
  free(dispatch);
  snprintf(path, sizeof path, "%s/%s.txt", self->path, id);
  snprintf(part, sizeof part, "%s.part", path);
  FILE* file = fopen(BREAK == TWICE ? path : part, BREAK == TWICE ? "a" : "w");
  if (file == NULL) return -1;
  for (int64_t row = 0; row < tasks->length; row++) {
    id_of(tasks, row, id);
    fprintf(file, "%s\n", id);
  }
  if (fclose(file) != 0) return -1;
  return BREAK == TWICE ? 0 : rename(part, path);
}

static reunion_status push(reunion_instance* self, const reunion_call* call, reunion_str dispatch_json,
                           struct ArrowSchema* task_schema, struct ArrowArray* tasks, reunion_stream* out,
                           reunion_error* error) {
  reunion_status status = begin(self, call, error);
  int is_dry = call->size >= sizeof *call && (call->flags & REUNION_CALL_DRY_RUN) != 0;
  if (is_dry && BREAK == DRY_RUN_CONTACTS) close(socket(AF_INET, SOCK_DGRAM, 0));
  if (status == REUNION_OK && (!is_dry || BREAK == DRY_RUN_WRITES) && write_list(self, dispatch_json, tasks) != 0) {
    status = fail(error, REUNION_UNAUTHORIZED, "the list cannot be written", "path");
  }
  if (status == REUNION_OK) {
    batch* receipts = new_batch(&receipt_columns, (size_t)tasks->length, TEXT_BYTES * 2);
    for (int64_t row = 0; row < tasks->length - (BREAK == NO_RECEIPT); row++) {
      char id[TEXT_BYTES * 2];
      const uint64_t delay = 60000;
      int is_put_off = row % 10 == 9;
      id_of(tasks, row, id);
      add_text(receipts, 0, id);
      add_text(receipts, 1, is_put_off ? "not_sent" : "accepted");
      add_number(receipts, 2, is_put_off && BREAK != NO_DELAY ? &delay : NULL);
      add_text(receipts, 3, NULL);
      add_text(receipts, 4, BREAK == PHONE_IN_RECEIPT ? "no 139 0000 0131" : is_put_off ? "later" : NULL);
    }
    answer(out, receipts, &receipt_columns);
  }
  task_schema->release(task_schema);
  tasks->release(tasks);
  return status;
}

static reunion_status poll_events(reunion_instance* self, const reunion_call* call, reunion_str state_json,
                                  reunion_stream* out, reunion_error* error) {
  static int polls = 0;
  (void)state_json;
  reunion_status status = begin(self, call, error);
  if (status != REUNION_OK) return status;
  polls++;
  batch* events = new_batch(&event_columns, EVENTS, TEXT_BYTES * 2);
  for (int event = 0; event < EVENTS; event++) {
    char text[TEXT_BYTES * 2];
    snprintf(text, sizeof text, "e%d", event);
    add_text(events, 0, text);
    snprintf(text, sizeof text, "%032x", event);
    add_text(events, 1, text);
    add_text(events, 2, BREAK == EVENT_CHANGES && polls == 2 ? "refused" : "added");
    add_number(events, 3, NULL);
    add_text(events, 4, NULL);
  }
  answer(out, events, &event_columns);
  return REUNION_OK;
}

/* Takes "task ID" in the body of a POST for a member who was added. */
static reunion_status answer_request(reunion_instance* self, const reunion_call* call, const reunion_http_request* request,
                                     reunion_http_answer* out, reunion_error* error) {
  static const char prefix[] = "task ";
  const size_t id_bytes = 32, prefix_bytes = sizeof prefix - 1;
  static int requests = 0;
  reunion_status status = begin(self, call, error);
  if (status != REUNION_OK) return status;
  if ((request->size < sizeof *request || out->size < sizeof *out) && BREAK != CALLBACK_SMALL_TAKEN) {
    return fail(error, REUNION_INTERNAL, "the struct of the request or of its answer is too small", "");
  }
  if (BREAK == CALLBACK_ERROR && request->body.len > 0) return fail(error, REUNION_INVALID_DATA, "the body makes no sense", "");
  if (BREAK == CALLBACK_CRASHES && request->body.len > 100000) raise(SIGSEGV);
  if (BREAK == CALLBACK_HANGS && request->body.len + request->query.len == 0) sleep(2);
  if (BREAK == CALLBACK_LOGS && self->host->size >= sizeof *self->host) {
    self->host->log(self->host, REUNION_LOG_ERROR, str(""), request->query, str(""));
  }
  int is_post = request->method.len == 4 && memcmp(request->method.ptr, "POST", 4) == 0;
  int is_task = request->body.len == prefix_bytes + id_bytes && memcmp(request->body.ptr, prefix, prefix_bytes) == 0;
  out->status = !is_post ? 405 : !is_task ? 400 : 204;
  if (BREAK == CALLBACK_5XX && !is_task) out->status = 500;
  if (BREAK == CALLBACK_CHANGES && !is_task) out->status = 400 + requests++ % 2;
  fill_buf(&out->headers_json, BREAK == CALLBACK_HEADER ? "[[\"content-length\",\"0\"]]" : "[[\"allow\",\"POST\"]]");
  if (out->status >= 400) fill_buf(&out->body, "POST a task");
  if (is_task || BREAK == CALLBACK_BELIEVES) {
    char text[TEXT_BYTES * 2];
    batch* events = new_batch(&event_columns, 1, TEXT_BYTES * 2);
    snprintf(text, sizeof text, "%.*s", (int)id_bytes, is_task ? (const char*)request->body.ptr + prefix_bytes : "00000000000000000000000000000000");
    add_text(events, 0, text);
    add_text(events, 1, text);
    add_text(events, 2, "added");
    add_number(events, 3, NULL);
    add_text(events, 4, NULL);
    fill_schema(&out->schema, &event_columns);
    fill_array(&out->events, events);
  }
  return REUNION_OK;
}

static const reunion_channel channel = {
    BREAK == CALLBACK_MISSING ? offsetof(reunion_channel, callback) : sizeof(reunion_channel),
    0, describe, check, push, poll_events, answer_request,
};

#define KIND "channel"
#define ABI "[1,1]"
#define CAPABILITIES "\"polls\":true,\"callback\":true"
#define REQUIRED "\"required\":[\"path\"],"

#endif

/* ---- the two symbols ---- */

#define MANIFEST(SUMMARY)                                                                                            \
  "{\"name\":\"trial\",\"version\":\"0.3.1\",\"abi\":" ABI ",\"kind\":\"" KIND "\",\"summary\":\"" SUMMARY "\","      \
  "\"config_schema\":{\"type\":\"object\"," REQUIRED "\"properties\":{"                                              \
  "\"rows\":{\"type\":\"integer\",\"minimum\":0,\"default\":3000,\"description\":\"rows of a read\"},"               \
  "\"path\":{\"type\":\"string\",\"format\":\"path\",\"access\":\"write\",\"description\":\"a file or a folder\"}}}," \
  "\"sample\":\"path = 'x'\\nrows = 5\\n\",\"capabilities\":{" CAPABILITIES "}}"

const char* reunion_manifest_v1(void) {
  static int calls = 0;
  if (BREAK == MANIFEST_THREAD) {
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
  }
  if (BREAK == MANIFEST_CHANGES && calls++ > 0) return MANIFEST("Tries the suite again.");
  return MANIFEST("Tries the suite.");
}

reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  (void)host_minor;
  if (out->size < sizeof *out && BREAK != SMALL_TABLE_TAKEN) return fail(error, REUNION_INTERNAL, "the table is too small", "");
  if (BREAK == WRITES_BEHIND_TABLE) memset((char*)out + out->size, 0, 16);
  out->size = sizeof *out;
  out->minor = REUNION_ABI_MINOR;
  out->create = create;
  out->cancel = cancel;
  out->destroy = destroy;
#ifdef CHANNEL
  out->channel = &channel;
#else
  out->source = &source;
#endif
  return REUNION_OK;
}
