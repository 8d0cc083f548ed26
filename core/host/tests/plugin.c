/* A plugin in plain C, to test the host from the other side: with -DBREAK=n it breaks the contract in
 * one way, and without it keeps it. */
#include "reunion_plugin.h"

#include <stdlib.h>
#include <string.h>

#ifndef BREAK
#define BREAK 0
#endif
#ifndef MANIFEST_ABI
#define MANIFEST_ABI "[1,0]"
#endif
#ifndef MANIFEST_NAME
#define MANIFEST_NAME "plain"
#endif

#define NO_BEGIN 1
#define ITEM_AFTER_BEGIN 2
#define NOT_UTF8 3
#define UNKNOWN_KIND 4
#define BAD_CONTROL 5
#define LARGE_CONTROL 6
#define NEGATIVE_LENGTH 7
#define NO_STREAM 8
#define NO_INSTANCE 9
#define NO_ARRAY 10
#define TOO_MANY_ROWS 11
#define PHONE_IN_ERROR 12
#define BAD_REJECTED 13
#define UNKNOWN_STATUS 14
#define SMALL_TABLE 20
#define NO_READ 21
#define REFUSES 22
#define NO_MANIFEST 23
#define BAD_MANIFEST 24

/* Live allocations, so that a test can see that everything is given back. */
static int live = 0;

struct reunion_instance {
  const reunion_host* host;
  int stopped;
};

typedef struct reading {
  reunion_instance* instance;
  const reunion_call* call;
  int step;
} reading;

static void* make(size_t bytes) {
  live++;
  return calloc(1, bytes);
}

static void give_back(void* memory) {
  live--;
  free(memory);
}

static reunion_str str(const char* text) {
  reunion_str out = {text, strlen(text)};
  return out;
}

/* Static text needs no giving back. */
static reunion_status fail(reunion_error* error, reunion_status status, const char* message) {
  error->message = str(message);
  return status;
}

static void release_buf(reunion_buf* self) {
  give_back(self->private_data);
  self->ptr = NULL;
  self->len = 0;
  self->release = NULL;
}

static void fill_buf(reunion_buf* out, const char* text, size_t padding) {
  size_t len = strlen(text);
  uint8_t* bytes = make(len + padding);
  memset(bytes, ' ', len + padding);
  memcpy(bytes, text, len);
  out->ptr = bytes;
  out->len = len + padding;
  out->private_data = bytes;
  out->release = release_buf;
}

/* A schema of one utf8 column, all of it static. */
static void release_schema(struct ArrowSchema* self) {
  live--;
  self->release = NULL;
}

static void fill_schema(struct ArrowSchema* out) {
  static struct ArrowSchema column;
  static struct ArrowSchema* children[1] = {&column};
  column.format = "u";
  column.name = "phone";
  column.flags = ARROW_FLAG_NULLABLE;
  column.release = release_schema;
  memset(out, 0, sizeof *out);
  out->format = "+s";
  out->name = "";
  out->n_children = 1;
  out->children = children;
  out->release = release_schema;
  live++;
}

static void release_array(struct ArrowArray* self) {
  give_back(self->private_data);
  self->release = NULL;
}

/* Two rows of text in one piece of memory. */
typedef struct rows {
  struct ArrowArray column;
  struct ArrowArray* children[1];
  const void* buffers[3];
  const void* no_buffers[1];
  int32_t offsets[3];
} rows;

static void release_column(struct ArrowArray* self) { self->release = NULL; }

static void fill_array(struct ArrowArray* out) {
  static const char text[] = "1390000120113900001202";
  static const char bad[] = "\xff\xfe";
  rows* memory = make(sizeof *memory);
  memory->offsets[1] = 11;
  memory->offsets[2] = 22;
  memory->buffers[1] = memory->offsets;
  memory->buffers[2] = text;
  if (BREAK == NOT_UTF8) {
    memory->offsets[1] = 1;
    memory->offsets[2] = 2;
    memory->buffers[2] = bad;
  }
  memory->column.length = 2;
  memory->column.n_buffers = 3;
  memory->column.buffers = memory->buffers;
  memory->column.release = release_column;
  memory->children[0] = &memory->column;
  memset(out, 0, sizeof *out);
  out->length = 2;
  out->n_buffers = 1;
  out->buffers = memory->no_buffers;
  out->n_children = 1;
  out->children = memory->children;
  out->private_data = memory;
  out->release = release_array;
  if (BREAK == NEGATIVE_LENGTH) memory->column.length = -5;
  if (BREAK == TOO_MANY_ROWS) out->length = REUNION_BATCH_ROWS_MAX + 1;
}

static reunion_status next(reunion_stream* self, reunion_item* out, reunion_error* error) {
  reading* state = self->private_data;
  if (state->instance->stopped || state->call->cancelled(state->call)) return fail(error, REUNION_CANCELLED, "stopped");
  switch (state->step++ + (BREAK == NO_BEGIN)) {
    case 0:
      out->kind = REUNION_ITEM_BEGIN;
      fill_buf(&out->control, BREAK == BAD_CONTROL ? "{" : "{\"resumed\":false}", BREAK == LARGE_CONTROL ? 1 << 20 : 0);
      return REUNION_OK;
    case 1:
      if (BREAK == PHONE_IN_ERROR) return fail(error, REUNION_INVALID_DATA, "row of 13900001201\nis bad");
      if (BREAK == UNKNOWN_STATUS) return 4711;
      out->kind = BREAK == UNKNOWN_KIND ? 99 : BREAK == BAD_REJECTED ? REUNION_ITEM_REJECTED : REUNION_ITEM_BATCH;
      if (BREAK == ITEM_AFTER_BEGIN) {
        out->kind = REUNION_ITEM_BEGIN;
        fill_buf(&out->control, "{\"resumed\":true}", 0);
        return REUNION_OK;
      }
      fill_schema(&out->schema);
      if (BREAK != NO_ARRAY) fill_array(&out->array);
      return REUNION_OK;
    case 2:
      out->kind = REUNION_ITEM_STATE;
      fill_buf(&out->control, "{\"row\":2}", 0);
      return REUNION_OK;
    default:
      out->kind = REUNION_ITEM_END;
      fill_buf(&out->control, "{\"as_of_us\":null}", 0);
      return REUNION_OK;
  }
}

static void release_stream(reunion_stream* self) {
  give_back(self->private_data);
  self->private_data = NULL;
  self->release = NULL;
}

static reunion_status read_rows(reunion_instance* self, const reunion_call* call, reunion_str request_json,
                                reunion_str state_json, reunion_stream* out, reunion_error* error) {
  (void)request_json, (void)state_json, (void)error;
  if (BREAK == NO_STREAM) return REUNION_OK;
  reading* state = make(sizeof *state);
  state->instance = self;
  state->call = call;
  out->private_data = state;
  out->next = next;
  out->release = release_stream;
  return REUNION_OK;
}

/* Finds that everything is given back but the instance and this answer. */
static reunion_status check(reunion_instance* self, const reunion_call* call, reunion_buf* findings, reunion_error* error) {
  (void)call, (void)error;
  self->host->log(self->host, REUNION_LOG_WARN, str("plain"), str("checked"), str("{}"));
  int given_back = live == 1;
  fill_buf(findings, given_back ? "[{\"level\":\"info\",\"message\":\"all given back\"}]" : "[]", 0);
  return REUNION_OK;
}

static reunion_status schema(reunion_instance* self, const reunion_call* call, struct ArrowSchema* out, reunion_error* error) {
  (void)self, (void)call, (void)error;
  fill_schema(out);
  return REUNION_OK;
}

static reunion_status create(const reunion_host* host, reunion_str component, reunion_str config_json,
                             reunion_instance** out, reunion_error* error) {
  (void)component, (void)config_json, (void)error;
  if (BREAK == NO_INSTANCE) return REUNION_OK;
  *out = make(sizeof **out);
  (*out)->host = host;
  return REUNION_OK;
}

static void cancel(reunion_instance* self) { self->stopped = 1; }

static void destroy(reunion_instance* self) { give_back(self); }

static const reunion_source source = {sizeof(reunion_source), 0, check, schema, BREAK == NO_READ ? NULL : read_rows};

const char* reunion_manifest_v1(void) {
  if (BREAK == NO_MANIFEST) return NULL;
  if (BREAK == BAD_MANIFEST) return "{\"abi\":[1,0],\"name\":5}";
  return "{\"name\":\"" MANIFEST_NAME "\",\"version\":\"0.3.1\",\"abi\":" MANIFEST_ABI
         ",\"kind\":\"source\",\"summary\":\"Plain C.\",\"config_schema\":{\"type\":\"object\"}}";
}

reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  (void)host_minor;
  if (BREAK == REFUSES) return fail(error, REUNION_UNAVAILABLE, "no licence");
  out->size = BREAK == SMALL_TABLE ? 16 : sizeof *out;
  out->minor = REUNION_ABI_MINOR;
  out->create = create;
  out->cancel = cancel;
  out->destroy = destroy;
  out->source = &source;
  return REUNION_OK;
}
