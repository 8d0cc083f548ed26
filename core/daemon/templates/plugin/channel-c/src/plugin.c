/* The channel "my-plugin". It puts a file into a folder for each task, named by the task's id: `put` is the place for
 * your own way of handing a task over, and `describe` has to say what is true of it. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"

enum { TEXTS = 8, ID = 0, ID_CHARS = 32, RECEIPTS_AT_ONCE = 64, RETRY_AFTER_MS = 60000 };

/* The columns of a task, but for `due`. */
static const char* const texts[TEXTS] = {"task_id", "campaign", "store",  "staff",
                                         "name",    "phone",    "reason", "message"};

static const char manifest[] =
    "{"
    "\"name\": \"my-plugin\","
    "\"version\": \"0.1.0\","
    "\"abi\": [1, 0],"
    "\"kind\": \"channel\","
    "\"summary\": \"Puts a file into a folder for each task.\","
    "\"config_schema\": {"
    "  \"type\": \"object\","
    "  \"required\": [\"dir\"],"
    "  \"additionalProperties\": false,"
    "  \"properties\": {"
    "    \"dir\": {\"type\": \"string\", \"format\": \"path\", \"access\": \"write\", \"minLength\": 1,"
    "            \"description\": \"the folder that takes a file for each task\"}"
    "  }"
    "},"
    "\"sample\": \""
    "## The folder that takes a file for each task.\\n"
    "dir = \\\"/var/lib/reunion/out/my-plugin\\\"\\n"
    "\","
    /* What it needs of the machine: the host keeps it to what stands here. */
    "\"needs\": {\"network\": false, \"config_paths\": true}"
    "}";

/* One component of the operator's config. */
struct reunion_instance {
  kit_component component;
  char* dir;
};

/* One push. */
typedef struct pushing {
  reunion_instance* instance;
  const reunion_call* call; /* valid until the stream is released */
  struct ArrowSchema schema;
  struct ArrowArray tasks;
  const struct ArrowArray* texts[TEXTS];
  const struct ArrowArray* due;
  int folder;
  int64_t task; /* the one that comes next */
  kit_table receipts;
  int is_over;
} pushing;

/* ---- the folder ---- */

static reunion_status folder_error(const reunion_instance* self, int failed, reunion_error* error) {
  switch (failed) {
    case ENOENT:
    case ENOTDIR:
      return kit_fail(error, REUNION_INVALID_CONFIG, "dir", "make the folder, or correct `dir`",
                      "there is no folder %s", self->dir);
    case EACCES:
    case EPERM:
    case EROFS:
      return kit_fail(error, REUNION_UNAUTHORIZED, "dir",
                      "give the user that runs the daemon the right to write there",
                      "the folder %s may not be written to", self->dir);
    default:
      return kit_fail(error, REUNION_UNAVAILABLE, "dir", "look at the disk or the share that it lies on",
                      "the folder %s cannot be reached (error %d of the system)", self->dir, failed);
  }
}

static reunion_status open_folder(const reunion_instance* self, int* folder, reunion_error* error) {
  *folder = open(self->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*folder < 0) return folder_error(self, errno, error);
  if (faccessat(*folder, ".", W_OK | X_OK, 0) == 0) return REUNION_OK;
  int failed = errno;
  close(*folder);
  *folder = -1;
  return folder_error(self, failed, error);
}

/* ---- a task ---- */

static void write_json_text(FILE* file, reunion_str text) {
  fputc('"', file);
  for (size_t at = 0; at < text.len; at++) {
    unsigned char byte = (unsigned char)text.ptr[at];
    if (byte == '"' || byte == '\\') {
      fprintf(file, "\\%c", byte);
    } else if (byte < 0x20) {
      fprintf(file, "\\u%04x", byte);
    } else {
      fputc(byte, file);
    }
  }
  fputc('"', file);
}

/* A task as JSON; what is null is left out. */
static void write_task(FILE* file, const pushing* self, int64_t task) {
  reunion_str text;
  int64_t due;
  for (size_t at = 0; at < TEXTS; at++) {
    if (!kit_text_at(&self->tasks, self->texts[at], task, &text)) continue;
    fprintf(file, "%s\"%s\": ", at == ID ? "{" : ", ", texts[at]);
    write_json_text(file, text);
  }
  if (kit_number_at(&self->tasks, self->due, task, &due)) fprintf(file, ", \"due_us\": %" PRId64, due);
  fputs("}\n", file);
}

/* Writes a file that is not seen yet, down to the disk. 0, or what errno says. */
static int write_part(const pushing* self, int64_t task, const char* part) {
  int descriptor = openat(self->folder, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) return errno;
  FILE* file = fdopen(descriptor, "w");
  if (file == NULL) {
    int failed = errno;
    close(descriptor);
    return failed;
  }
  write_task(file, self, task);
  int failed = fflush(file) != 0 || fsync(fileno(file)) != 0 ? errno : 0;
  if (fclose(file) != 0 && failed == 0) failed = errno;
  return failed;
}

/* The file appears whole or not at all. A task that was pushed before gets the same file again, so that it reaches the
 * member once. 0, or what errno says: then it was surely not taken. */
static int put(const pushing* self, int64_t task, const char* id) {
  char part[ID_CHARS + 8], name[ID_CHARS + 8];
  snprintf(part, sizeof part, ".%s.part", id);
  snprintf(name, sizeof name, "%s.json", id);
  int failed = write_part(self, task, part);
  if (failed == 0 && renameat(self->folder, part, self->folder, name) != 0) failed = errno;
  if (failed != 0) unlinkat(self->folder, part, 0);
  return failed;
}

/* Nothing else becomes the name of a file. */
static int read_id(const pushing* self, int64_t task, char id[ID_CHARS + 1]) {
  reunion_str text;
  if (!kit_text_at(&self->tasks, self->texts[ID], task, &text) || text.len != ID_CHARS) return 0;
  memcpy(id, text.ptr, ID_CHARS);
  id[ID_CHARS] = '\0';
  return strspn(id, "0123456789abcdef") == ID_CHARS;
}

/* ---- receipts ---- */

/* What became of a task. */
typedef enum task_fate { TAKEN, NOT_TAKEN, NO_ID } task_fate;

static int add_receipt(pushing* self, int64_t task, const char* verdict, int64_t retry_after_ms, const char* message) {
  reunion_str id;
  kit_table* receipts = &self->receipts;
  int is_added = kit_text_at(&self->tasks, self->texts[ID], task, &id) && kit_add_text(receipts, 0, id.ptr, id.len) &&
                 kit_add_text(receipts, 1, verdict, strlen(verdict));
  if (retry_after_ms > 0) is_added = is_added && kit_add_number(receipts, 2, retry_after_ms);
  if (message[0] != '\0') is_added = is_added && kit_add_text(receipts, 4, message, strlen(message));
  return is_added && kit_end_row(receipts);
}

/* accepted: taken, and it outlives a power cut. unknown: it may or may not. busy: surely not taken, through nothing of
 * the task; it is given again. rejected: refused for good. */
static int answer(pushing* self, int64_t task, task_fate fate, int is_durable) {
  switch (fate) {
    case TAKEN:
      return is_durable ? add_receipt(self, task, "accepted", 0, "")
                        : add_receipt(self, task, "unknown", 0, "the disk did not confirm it");
    case NOT_TAKEN:
      return add_receipt(self, task, "busy", RETRY_AFTER_MS, "the folder takes no files now");
    case NO_ID:
      break;
  }
  return add_receipt(self, task, "rejected", 0, "the task's id is none");
}

static task_fate hand_over(const pushing* self, int64_t task) {
  char id[ID_CHARS + 1];
  if (!read_id(self, task, id)) return NO_ID;
  /* A dry run answers as if, and leaves nothing behind. */
  if ((self->call->flags & REUNION_CALL_DRY_RUN) != 0) return TAKEN;
  return put(self, task, id) == 0 ? TAKEN : NOT_TAKEN;
}

/* Hands some tasks over, then makes all of them durable at once. A receipt that is known is handed out, also where the
 * call is to stop. */
static reunion_status hand_out_receipts(pushing* self, reunion_item* out, reunion_error* error) {
  task_fate fates[RECEIPTS_AT_ONCE];
  int64_t first = self->task, count = 0;
  int is_dry = (self->call->flags & REUNION_CALL_DRY_RUN) != 0;
  while (count < RECEIPTS_AT_ONCE && self->task < self->tasks.length) {
    if (kit_is_to_stop(&self->instance->component, self->call) != REUNION_OK) break;
    fates[count++] = hand_over(self, self->task++);
  }
  if (count == 0) return kit_go_on(&self->instance->component, self->call, error);
  int is_durable = is_dry || fsync(self->folder) == 0;
  for (int64_t at = 0; at < count; at++) {
    if (!answer(self, first + at, fates[at], is_durable)) return kit_no_memory(error);
  }
  return kit_item_rows(out, REUNION_ITEM_BATCH, &self->receipts, error);
}

/* ---- the stream ---- */

static reunion_status next_item(pushing* self, reunion_item* out, reunion_error* error) {
  if (self->is_over) return kit_host_broke(error, "the stream has ended");
  if (self->task < self->tasks.length) return hand_out_receipts(self, out, error);
  self->is_over = 1;
  return kit_item_document(out, REUNION_ITEM_END, "{\"as_of_us\": null}", error);
}

static reunion_status next(reunion_stream* stream, reunion_item* out, reunion_error* error) {
  pushing* self = stream->private_data;
  reunion_status status = kit_begin(&self->instance->component, self->call, error);
  if (status == REUNION_OK) status = next_item(self, out, error);
  if (status != REUNION_OK) self->is_over = 1;
  return kit_finish(&self->instance->component, status);
}

static void free_pushing(pushing* self) {
  if (self->schema.release != NULL) self->schema.release(&self->schema);
  if (self->tasks.release != NULL) self->tasks.release(&self->tasks);
  if (self->folder >= 0) close(self->folder);
  kit_table_free(&self->receipts);
  free(self);
}

static void release_stream(reunion_stream* stream) {
  free_pushing(stream->private_data);
  stream->private_data = NULL;
  stream->next = NULL;
  stream->release = NULL;
}

/* ---- push ---- */

static reunion_status find_columns(pushing* self, reunion_error* error) {
  for (size_t at = 0; at < TEXTS; at++) {
    self->texts[at] = kit_find(&self->schema, &self->tasks, texts[at], KIT_TEXT);
    if (self->texts[at] == NULL) return kit_host_broke(error, "the tasks lack a column");
  }
  self->due = kit_find(&self->schema, &self->tasks, "due", KIT_TIMESTAMP);
  return self->due == NULL ? kit_host_broke(error, "the tasks lack a column") : REUNION_OK;
}

static reunion_status start(pushing* self, reunion_stream* out, reunion_error* error) {
  if (!KIT_HAS(out, reunion_stream, release)) return kit_host_broke(error, "the stream's struct is too small");
  if (!kit_table_begin(&self->receipts, kit_receipt_fields, KIT_RECEIPT_FIELDS)) return kit_no_memory(error);
  reunion_status status = find_columns(self, error);
  if (status == REUNION_OK) status = open_folder(self->instance, &self->folder, error);
  if (status != REUNION_OK) return status;
  out->private_data = self;
  out->next = next;
  out->release = release_stream;
  return REUNION_OK;
}

static reunion_status push(reunion_instance* self, const reunion_call* call, reunion_str dispatch_json,
                           struct ArrowSchema* schema, struct ArrowArray* tasks, reunion_stream* out,
                           reunion_error* error) {
  (void)dispatch_json;
  /* The tasks are the plugin's in any case, whatever it answers. */
  pushing given = {.instance = self, .call = call, .schema = *schema, .tasks = *tasks, .folder = -1};
  schema->release = NULL;
  tasks->release = NULL;
  pushing* opened = malloc(sizeof *opened);
  if (opened == NULL) {
    given.schema.release(&given.schema);
    given.tasks.release(&given.tasks);
    return kit_finish(&self->component, kit_no_memory(error));
  }
  *opened = given;
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK) status = start(opened, out, error);
  if (status != REUNION_OK) free_pushing(opened);
  return kit_finish(&self->component, status);
}

/* ---- poll: nobody reports what became of a task later ---- */

static reunion_status next_of_poll(reunion_stream* stream, reunion_item* out, reunion_error* error) {
  (void)stream;
  return kit_item_document(out, REUNION_ITEM_END, "{\"as_of_us\": null}", error);
}

static void release_poll(reunion_stream* stream) {
  stream->next = NULL;
  stream->release = NULL;
}

static reunion_status poll(reunion_instance* self, const reunion_call* call, reunion_str state_json,
                           reunion_stream* out, reunion_error* error) {
  (void)state_json;
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK && !KIT_HAS(out, reunion_stream, release)) {
    status = kit_host_broke(error, "the stream's struct is too small");
  }
  if (status == REUNION_OK) {
    out->next = next_of_poll;
    out->release = release_poll;
  }
  return kit_finish(&self->component, status);
}

/* ---- the other functions of a channel ---- */

/* What it does under its config. `idempotent` is true because a task's file has the task's name: whoever takes files
 * out of the folder has to remember the names, or this is no longer true and has to go. */
static reunion_status describe(reunion_instance* self, reunion_buf* out, reunion_error* error) {
  reunion_status status = kit_begin(&self->component, NULL, error);
  if (status == REUNION_OK) status = kit_document(out, "{\"idempotent\": true, \"reach\": \"files\"}", error);
  return kit_finish(&self->component, status);
}

/* Reaches the channel, and contacts nobody. */
static reunion_status check(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                            reunion_error* error) {
  int folder = -1;
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK) status = open_folder(self, &folder, error);
  if (folder >= 0) close(folder);
  if (status == REUNION_OK) status = kit_document(findings, "[]", error);
  return kit_finish(&self->component, status);
}

/* ---- the component ---- */

static void destroy(reunion_instance* self) {
  free(self->dir);
  free(self);
}

static void cancel(reunion_instance* self) { kit_stop(&self->component); }

/* The host has checked the config against the schema. */
static reunion_status read_config(reunion_instance* self, reunion_str config, reunion_error* error) {
  if (kit_json_text(config, "dir", &self->dir) && self->dir[0] != '\0') return REUNION_OK;
  return kit_fail(error, REUNION_INVALID_CONFIG, "dir", "", "expected the path of a folder");
}

/* No I/O and no threads: it runs in every check of a config. */
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

/* Up to poll, as it was at version 1.0: it answers no requests from outside. */
static const reunion_channel channel = {
    .size = KIT_SIZE(reunion_channel, poll), .describe = describe, .check = check, .push = push, .poll = poll};

static const reunion_plugin plugin = {KIT_SIZE(reunion_plugin, channel), 0, create, cancel, destroy, NULL, &channel};

const char* reunion_manifest_v1(void) { return manifest; }

reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  return kit_entry(&plugin, host_minor, out, error);
}
