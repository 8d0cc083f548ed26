/* SPDX-License-Identifier: Apache-2.0
 *
 * The source "lines": the functions that the host calls. lines.c reads the file, kit/ makes batches and answers, and
 * this file says what a line means. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit.h"
#include "lines.h"
#include "manifest.h"

enum {
  CELLS = 5,
  STATE_VERSION = 1,
  CHUNK_BYTES = 4 << 20, /* of one batch, about */
  LOOK_EVERY_LINES = 1024
};

static const kit_field fields[CELLS] = {{"record_id", KIT_TEXT},
                                        {"phone", KIT_TEXT},
                                        {"name", KIT_TEXT},
                                        {"store", KIT_TEXT},
                                        {"updated_at", KIT_TEXT}};

/* One component of the operator's config. */
struct reunion_instance {
  kit_component component;
  char* path;
  int64_t line_bytes_max;
  int64_t batch_rows;
};

/* What a stream hands out next. */
typedef enum item_step { STEP_BEGIN, STEP_READ, STEP_ROWS, STEP_REJECTED, STEP_STATE, STEP_END, STEP_OVER } item_step;

/* One read. */
typedef struct reading {
  reunion_instance* instance;
  const reunion_call* call; /* valid until the stream is released */
  line_file file;
  kit_table rows;
  kit_table rejected;
  item_step step;
  int is_resumed;
  int is_at_end;
} reading;

/* ---- the file ---- */

static reunion_status open_error(const reunion_instance* self, int failed, reunion_error* error) {
  switch (failed) {
    case ENOMEM:
      return kit_no_memory(error);
    case ENOENT:
    case ENOTDIR:
      return kit_fail(error, REUNION_INVALID_DATA, "path", "correct `path`, or put the file there", "%s is not there",
                      self->path);
    case EISDIR:
    case EINVAL:
      return kit_fail(error, REUNION_INVALID_DATA, "path", "name a file", "%s is not a file", self->path);
    case EACCES:
    case EPERM:
      return kit_fail(error, REUNION_UNAUTHORIZED, "path",
                      "give the user that runs the daemon the right to read it, and to enter its folder",
                      "%s may not be read", self->path);
    default:
      return kit_fail(error, REUNION_UNAVAILABLE, "path", "look at the disk or the share that it lies on",
                      "%s cannot be read (error %d of the system)", self->path, failed);
  }
}

static reunion_status open_file(const reunion_instance* self, line_file* file, reunion_error* error) {
  int failed = lines_open(file, self->path, (size_t)self->line_bytes_max);
  return failed == 0 ? REUNION_OK : open_error(self, failed, error);
}

/* ---- lines become rows ---- */

/* Cuts a line at its separators; how many cells it has. */
static size_t cut(const text_line* line, reunion_str cells[CELLS]) {
  const char *at = line->text, *end = line->text + line->len;
  size_t count = 0;
  for (;;) {
    const char* separator = at == end ? NULL : memchr(at, '|', (size_t)(end - at));
    const char* cell_end = separator == NULL ? end : separator;
    if (count < CELLS) cells[count] = (reunion_str){at, (size_t)(cell_end - at)};
    count++;
    if (separator == NULL) return count;
    at = separator + 1;
  }
}

/* Sets a line aside, with its place, a reason of docs/reference/reasons.md, and a word that names nobody. */
static int reject(reading* self, const char* reason, const char* detail) {
  const char* slash = strrchr(self->instance->path, '/');
  char number[24];
  snprintf(number, sizeof number, ":%llu", (unsigned long long)self->file.number);
  reunion_str name = kit_str(slash == NULL ? self->instance->path : slash + 1);
  char* place = malloc(name.len + sizeof number);
  if (place == NULL) return 0;
  memcpy(place, name.ptr, name.len);
  memcpy(place + name.len, number, strlen(number) + 1);
  int is_added = kit_add_text(&self->rejected, 0, place, strlen(place)) &&
                 kit_add_text(&self->rejected, 1, reason, strlen(reason)) &&
                 kit_add_text(&self->rejected, 2, detail, strlen(detail)) && kit_end_row(&self->rejected);
  free(place);
  return is_added;
}

static int add_row(reading* self, const reunion_str cells[CELLS]) {
  for (size_t at = 0; at < CELLS; at++) {
    /* An empty cell is a null. */
    if (cells[at].len > 0 && !kit_add_text(&self->rows, at, cells[at].ptr, cells[at].len)) return 0;
  }
  return kit_end_row(&self->rows);
}

/* A line becomes a row, or is set aside with the reason; an empty one is passed over. 0: no memory. */
static int add_line(reading* self, const text_line* line) {
  reunion_str cells[CELLS];
  char detail[64];
  if (line->len == 0) return 1;
  if (memchr(line->text, '\0', line->len) != NULL) return reject(self, "row_nul", "a zero byte");
  if (!kit_is_utf8(line->text, line->len)) return reject(self, "row_bad_encoding", "the line is not UTF-8");
  size_t count = cut(line, cells);
  if (count == CELLS) return add_row(self, cells);
  snprintf(detail, sizeof detail, "%zu cells, and there should be %d", count, CELLS);
  return reject(self, line->is_ended ? "row_ragged" : "row_truncated", detail);
}

/* Reads lines until there are enough for a batch, or no more. */
static reunion_status collect(reading* self, reunion_error* error) {
  size_t wanted = (size_t)self->instance->batch_rows;
  for (size_t looked = 0; self->rows.rows + self->rejected.rows < wanted && self->rows.bytes < CHUNK_BYTES; looked++) {
    text_line line;
    int is_added = 1;
    lines_step step = lines_next(&self->file, &line);
    if (step == LINES_AGAIN || looked % LOOK_EVERY_LINES == 0) {
      reunion_status status = kit_go_on(&self->instance->component, self->call, error);
      if (status != REUNION_OK) return status;
    }
    if (step == LINES_FAILED) return open_error(self->instance, errno, error);
    if (step == LINES_LINE) is_added = add_line(self, &line);
    if (step == LINES_TOO_LONG) is_added = reject(self, "row_too_long", "longer than line_bytes_max");
    if (!is_added) return kit_no_memory(error);
    if (step == LINES_END) {
      self->is_at_end = 1;
      return REUNION_OK;
    }
  }
  return REUNION_OK;
}

/* ---- resume states ---- */

static reunion_status hand_out_state(const reading* self, reunion_item* out, reunion_error* error) {
  char state[256];
  const line_file* file = &self->file;
  snprintf(state, sizeof state,
           "{\"version\": %d, \"line_bytes_max\": %lld, \"size\": %llu, \"mtime_ns\": %lld, \"head\": \"%016llx\", "
           "\"offset\": %llu, \"line\": %llu}",
           STATE_VERSION, (long long)self->instance->line_bytes_max, (unsigned long long)file->id.size,
           (long long)file->id.mtime_ns, (unsigned long long)file->id.head, (unsigned long long)file->offset,
           (unsigned long long)file->number);
  return kit_item_document(out, REUNION_ITEM_STATE, state, error);
}

static int is_whole(reunion_str state, const char* key, int64_t wanted) {
  int64_t number;
  return kit_json_whole(state, key, &number) && number == wanted;
}

/* Whether a state is of this file as it is now, read as it would be read now. */
static int is_of(const reading* self, reunion_str state) {
  const file_id* id = &self->file.id;
  char *head, expected[17];
  if (!is_whole(state, "version", STATE_VERSION)) return 0;
  if (!is_whole(state, "line_bytes_max", self->instance->line_bytes_max)) return 0;
  if (!is_whole(state, "size", (int64_t)id->size) || !is_whole(state, "mtime_ns", id->mtime_ns)) return 0;
  if (!kit_json_text(state, "head", &head)) return 0;
  snprintf(expected, sizeof expected, "%016llx", (unsigned long long)id->head);
  int is_same = strcmp(head, expected) == 0;
  free(head);
  return is_same;
}

/* Goes on where the state says, if the file is still the same; else the read begins anew. */
static reunion_status resume(reading* self, reunion_str state, reunion_error* error) {
  int64_t offset, number;
  if (!is_of(self, state) || !kit_json_whole(state, "offset", &offset) || !kit_json_whole(state, "line", &number) ||
      offset < 0 || number < 0 || (uint64_t)offset > self->file.id.size) {
    kit_log(&self->instance->component, REUNION_LOG_INFO, "the file is not that of the resume state: it is read anew");
    return REUNION_OK;
  }
  int failed = lines_go_to(&self->file, (uint64_t)offset, (uint64_t)number);
  if (failed != 0) return open_error(self->instance, failed, error);
  self->is_resumed = 1;
  return REUNION_OK;
}

/* ---- the stream ---- */

/* The end says that everything was seen, so that it is not given where the file has changed meanwhile. */
static reunion_status hand_out_end(const reading* self, reunion_item* out, reunion_error* error) {
  char end[64];
  if (!lines_is_unchanged(&self->file)) {
    return kit_fail(error, REUNION_UNAVAILABLE, "path", "write it under another name and rename it when it is complete",
                    "%s changed while it was being read", self->instance->path);
  }
  snprintf(end, sizeof end, "{\"as_of_us\": %lld}", (long long)(self->file.id.mtime_ns / 1000));
  return kit_item_document(out, REUNION_ITEM_END, end, error);
}

/* The next item. A batch, its rejected lines, and the state that covers both follow each other; what is empty is left
 * out. */
static reunion_status next_item(reading* self, reunion_item* out, reunion_error* error) {
  static const char resumed[] = "{\"resumed\": true}", anew[] = "{\"resumed\": false}";
  reunion_status status;
  for (;;) {
    switch (self->step) {
      case STEP_BEGIN:
        self->step = STEP_READ;
        return kit_item_document(out, REUNION_ITEM_BEGIN, self->is_resumed ? resumed : anew, error);
      case STEP_READ:
        status = collect(self, error);
        if (status != REUNION_OK) return status;
        self->step = STEP_ROWS;
        break;
      case STEP_ROWS:
        self->step = STEP_REJECTED;
        if (self->rows.rows > 0) return kit_item_rows(out, REUNION_ITEM_BATCH, &self->rows, error);
        break;
      case STEP_REJECTED:
        self->step = STEP_STATE;
        if (self->rejected.rows > 0) return kit_item_rows(out, REUNION_ITEM_REJECTED, &self->rejected, error);
        break;
      case STEP_STATE:
        self->step = self->is_at_end ? STEP_END : STEP_READ;
        return hand_out_state(self, out, error);
      case STEP_END:
        self->step = STEP_OVER;
        return hand_out_end(self, out, error);
      case STEP_OVER:
        return kit_host_broke(error, "the stream has ended");
    }
  }
}

static reunion_status next(reunion_stream* stream, reunion_item* out, reunion_error* error) {
  reading* self = stream->private_data;
  reunion_status status = kit_begin(&self->instance->component, self->call, error);
  if (status == REUNION_OK) status = next_item(self, out, error);
  if (status != REUNION_OK) self->step = STEP_OVER;
  return kit_finish(&self->instance->component, status);
}

static void free_reading(reading* self) {
  lines_close(&self->file);
  kit_table_free(&self->rows);
  kit_table_free(&self->rejected);
  free(self);
}

static void release_stream(reunion_stream* stream) {
  free_reading(stream->private_data);
  stream->private_data = NULL;
  stream->next = NULL;
  stream->release = NULL;
}

/* ---- the functions of a source ---- */

static reunion_status start(reading* self, reunion_str request, reunion_str state, reunion_error* error) {
  int is_to_resume = 0;
  reunion_status status = open_file(self->instance, &self->file, error);
  if (status != REUNION_OK) return status;
  if (!kit_table_begin(&self->rows, fields, CELLS) ||
      !kit_table_begin(&self->rejected, kit_rejected_fields, KIT_REJECTED_FIELDS)) {
    return kit_no_memory(error);
  }
  kit_json_flag(request, "resume", &is_to_resume);
  return is_to_resume && state.len > 0 ? resume(self, state, error) : REUNION_OK;
}

static reunion_status open_stream(reunion_instance* self, const reunion_call* call, reunion_str request,
                                  reunion_str state, reunion_stream* out, reunion_error* error) {
  if (!KIT_HAS(out, reunion_stream, release)) return kit_host_broke(error, "the stream's struct is too small");
  reading* opened = calloc(1, sizeof *opened);
  if (opened == NULL) return kit_no_memory(error);
  opened->instance = self;
  opened->call = call;
  opened->file.descriptor = -1;
  reunion_status status = start(opened, request, state, error);
  if (status != REUNION_OK) {
    free_reading(opened);
    return status;
  }
  out->private_data = opened;
  out->next = next;
  out->release = release_stream;
  return REUNION_OK;
}

/* A snapshot: every read gives all lines. A read changes nothing, so that a dry run is one like any other. */
static reunion_status read_lines(reunion_instance* self, const reunion_call* call, reunion_str request_json,
                                 reunion_str state_json, reunion_stream* out, reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK) status = open_stream(self, call, request_json, state_json, out, error);
  return kit_finish(&self->component, status);
}

static reunion_status columns(reunion_instance* self, const reunion_call* call, struct ArrowSchema* out,
                              reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK && !kit_schema(fields, CELLS, out)) status = kit_no_memory(error);
  return kit_finish(&self->component, status);
}

/* What there is to say of a file whose first lines came to this. */
static const char* finding(const line_file* file, lines_step step, const text_line* first) {
  reunion_str cells[CELLS];
  if (file->id.size == 0) return "[{\"level\": \"warning\", \"message\": \"the file is empty\"}]";
  if (step == LINES_TOO_LONG || (step == LINES_LINE && cut(first, cells) != CELLS)) {
    return "[{\"level\": \"warning\", \"message\": \"the first line is not card|phone|name|store|updated\"}]";
  }
  return "[]";
}

/* Looks at the first line. */
static reunion_status look(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                           reunion_error* error) {
  line_file file;
  text_line first = {"", 0, 1};
  lines_step step = LINES_AGAIN;
  reunion_status status = open_file(self, &file, error);
  if (status != REUNION_OK) return status;
  while (status == REUNION_OK && step == LINES_AGAIN) {
    step = lines_next(&file, &first);
    if (step == LINES_FAILED) status = open_error(self, errno, error);
    if (step == LINES_AGAIN) status = kit_go_on(&self->component, call, error);
  }
  if (status == REUNION_OK) status = kit_document(findings, finding(&file, step, &first), error);
  lines_close(&file);
  return status;
}

static reunion_status check(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                            reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK) status = look(self, call, findings, error);
  return kit_finish(&self->component, status);
}

/* ---- the component ---- */

static void destroy(reunion_instance* self) {
  free(self->path);
  free(self);
}

static void cancel(reunion_instance* self) { kit_stop(&self->component); }

/* The host has checked the config against the schema and filled in what is not there. */
static reunion_status read_config(reunion_instance* self, reunion_str config, reunion_error* error) {
  if (!kit_json_text(config, "path", &self->path) || self->path[0] == '\0') {
    return kit_fail(error, REUNION_INVALID_CONFIG, "path", "", "expected the path of a file");
  }
  if (!kit_json_whole(config, "line_bytes_max", &self->line_bytes_max) || self->line_bytes_max < 16 ||
      self->line_bytes_max > 1 << 20) {
    return kit_fail(error, REUNION_INVALID_CONFIG, "line_bytes_max", "", "expected a whole number from 16 to 1048576");
  }
  if (!kit_json_whole(config, "batch_rows", &self->batch_rows) || self->batch_rows < 1 ||
      self->batch_rows > REUNION_BATCH_ROWS_MAX) {
    return kit_fail(error, REUNION_INVALID_CONFIG, "batch_rows", "", "expected a whole number from 1 to %d",
                    REUNION_BATCH_ROWS_MAX);
  }
  return REUNION_OK;
}

static reunion_status create(const reunion_host* host, reunion_str component, reunion_str config_json,
                             reunion_instance** out, reunion_error* error) {
  (void)component;
  reunion_instance* self = calloc(1, sizeof *self);
  if (self == NULL) return kit_no_memory(error);
  reunion_status status = kit_component_begin(&self->component, host, error);
  if (status == REUNION_OK) status = read_config(self, config_json, error);
  if (status != REUNION_OK) {
    destroy(self);
    return status;
  }
  *out = self;
  return REUNION_OK;
}

/* ---- the two symbols ---- */

static const reunion_source source = {KIT_SIZE(reunion_source, read), 0, check, columns, read_lines};

static const reunion_plugin plugin = {KIT_SIZE(reunion_plugin, channel), 0, create, cancel, destroy, &source, NULL};

const char* reunion_manifest_v1(void) { return manifest; }

reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  return kit_entry(&plugin, host_minor, out, error);
}
