/* The source "my-plugin". What it reads is made up: `add_row` is the place for your own, `check` says whether it can be
 * reached, and a resume state is whatever leads back to where a read was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit.h"

enum { COLUMNS = 3, ROWS_MAX = 100000000, LOOK_EVERY_ROWS = 256 };

static const kit_field fields[COLUMNS] = {{"record_id", KIT_TEXT}, {"phone", KIT_TEXT}, {"name", KIT_TEXT}};

static const char manifest[] =
    "{"
    "\"name\": \"my-plugin\","
    "\"version\": \"0.1.0\","
    "\"abi\": [1, 0],"
    "\"kind\": \"source\","
    "\"summary\": \"Makes members up.\","
    "\"config_schema\": {"
    "  \"type\": \"object\","
    "  \"required\": [\"rows\"],"
    "  \"additionalProperties\": false,"
    "  \"properties\": {"
    "    \"rows\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 100000000,"
    "             \"description\": \"rows of a read\"},"
    "    \"batch_rows\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 8192, \"default\": 1000,"
    "                   \"description\": \"rows of one batch, after which there is a resume state\"}"
    "  }"
    "},"
    "\"sample\": \""
    "## Rows of a read.\\n"
    "rows = 1000\\n"
    "## Rows of one batch, after which there is a resume state.\\n"
    "# batch_rows = 1000\\n"
    "\","
    "\"capabilities\": {"
    "  \"modes\": [\"snapshot\"],"
    "  \"columns\": [\"record_id\", \"phone\", \"name\"],"
    "  \"has_record_id\": true"
    "},"
    /* It opens no connection and no file. Say so when yours does: the host keeps it to what stands here. */
    "\"needs\": {\"network\": false, \"config_paths\": false}"
    "}";

/* One component of the operator's config. */
struct reunion_instance {
  kit_component component;
  int64_t rows;
  int64_t batch_rows;
};

/* What a stream hands out next. */
typedef enum item_step { STEP_BEGIN, STEP_ROWS, STEP_STATE, STEP_END, STEP_OVER } item_step;

/* One read. */
typedef struct reading {
  reunion_instance* instance;
  const reunion_call* call; /* valid until the stream is released */
  kit_table table;
  int64_t row; /* the one that comes next */
  int is_resumed;
  item_step step;
} reading;

/* ---- rows ---- */

/* Row 17 is the same in every read. 0: no memory. */
static int add_row(kit_table* table, int64_t row) {
  char id[32], phone[32], name[32];
  snprintf(id, sizeof id, "M%lld", (long long)row);
  snprintf(phone, sizeof phone, "1390000%04lld", (long long)(row % 10000));
  snprintf(name, sizeof name, "Member %lld", (long long)row);
  /* A value that is not there is left out, and null. A row that cannot be read goes into a table of its own, with
   * kit_rejected_fields, and is handed out as REUNION_ITEM_REJECTED. */
  return kit_add_text(table, 0, id, strlen(id)) && kit_add_text(table, 1, phone, strlen(phone)) &&
         kit_add_text(table, 2, name, strlen(name)) && kit_end_row(table);
}

static reunion_status collect(reading* self, reunion_error* error) {
  const reunion_instance* instance = self->instance;
  for (int64_t count = 0; count < instance->batch_rows && self->row < instance->rows; count++, self->row++) {
    if (count % LOOK_EVERY_ROWS == 0) {
      reunion_status status = kit_go_on(&instance->component, self->call, error);
      if (status != REUNION_OK) return status;
    }
    if (!add_row(&self->table, self->row)) return kit_no_memory(error);
  }
  return REUNION_OK;
}

/* ---- the stream ---- */

static reunion_status hand_out_rows(reading* self, reunion_item* out, reunion_error* error) {
  reunion_status status = collect(self, error);
  if (status != REUNION_OK) return status;
  self->step = STEP_STATE;
  return kit_item_rows(out, REUNION_ITEM_BATCH, &self->table, error);
}

/* It covers exactly the items before it: the host stores both or neither. */
static reunion_status hand_out_state(reading* self, reunion_item* out, reunion_error* error) {
  char state[64];
  snprintf(state, sizeof state, "{\"row\": %lld}", (long long)self->row);
  self->step = self->row < self->instance->rows ? STEP_ROWS : STEP_END;
  return kit_item_document(out, REUNION_ITEM_STATE, state, error);
}

static reunion_status next_item(reading* self, reunion_item* out, reunion_error* error) {
  static const char resumed[] = "{\"resumed\": true}", anew[] = "{\"resumed\": false}";
  switch (self->step) {
    case STEP_BEGIN:
      self->step = self->row < self->instance->rows ? STEP_ROWS : STEP_END;
      return kit_item_document(out, REUNION_ITEM_BEGIN, self->is_resumed ? resumed : anew, error);
    case STEP_ROWS:
      return hand_out_rows(self, out, error);
    case STEP_STATE:
      return hand_out_state(self, out, error);
    case STEP_END: /* only where everything was seen: a row that is missing from a snapshot counts as deleted */
      self->step = STEP_OVER;
      return kit_item_document(out, REUNION_ITEM_END, "{\"as_of_us\": null}", error);
    case STEP_OVER:
      break;
  }
  return kit_host_broke(error, "the stream has ended");
}

static reunion_status next(reunion_stream* stream, reunion_item* out, reunion_error* error) {
  reading* self = stream->private_data;
  reunion_status status = kit_begin(&self->instance->component, self->call, error);
  if (status == REUNION_OK) status = next_item(self, out, error);
  if (status != REUNION_OK) self->step = STEP_OVER;
  return kit_finish(&self->instance->component, status);
}

static void release_stream(reunion_stream* stream) {
  reading* self = stream->private_data;
  kit_table_free(&self->table);
  free(self);
  stream->private_data = NULL;
  stream->next = NULL;
  stream->release = NULL;
}

/* ---- the functions of a source ---- */

/* Where a read that was cut off goes on. In doubt it begins anew. */
static void resume(reading* self, reunion_str request, reunion_str state) {
  int is_to_resume = 0;
  int64_t row;
  if (!kit_json_flag(request, "resume", &is_to_resume) || !is_to_resume) return;
  if (!kit_json_whole(state, "row", &row) || row < 0 || row > self->instance->rows) return;
  self->row = row;
  self->is_resumed = 1;
}

static reunion_status open_stream(reunion_instance* self, const reunion_call* call, reunion_str request,
                                  reunion_str state, reunion_stream* out, reunion_error* error) {
  if (!KIT_HAS(out, reunion_stream, release)) return kit_host_broke(error, "the stream's struct is too small");
  reading* opened = calloc(1, sizeof *opened);
  if (opened == NULL || !kit_table_begin(&opened->table, fields, COLUMNS)) {
    free(opened);
    return kit_no_memory(error);
  }
  opened->instance = self;
  opened->call = call;
  resume(opened, request, state);
  out->private_data = opened;
  out->next = next;
  out->release = release_stream;
  return REUNION_OK;
}

static reunion_status read_rows(reunion_instance* self, const reunion_call* call, reunion_str request_json,
                                reunion_str state_json, reunion_stream* out, reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK) status = open_stream(self, call, request_json, state_json, out, error);
  return kit_finish(&self->component, status);
}

static reunion_status columns(reunion_instance* self, const reunion_call* call, struct ArrowSchema* out,
                              reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  if (status == REUNION_OK && !kit_schema(fields, COLUMNS, out)) status = kit_no_memory(error);
  return kit_finish(&self->component, status);
}

/* Reaches the source and changes nothing. An error has the class that fits (see the header), the key of the config to
 * blame, and a hint. */
static reunion_status check(reunion_instance* self, const reunion_call* call, reunion_buf* findings,
                            reunion_error* error) {
  reunion_status status = kit_begin(&self->component, call, error);
  const char* found = self->rows == 0 ? "[{\"level\": \"warning\", \"message\": \"there are no rows\"}]" : "[]";
  if (status == REUNION_OK) status = kit_document(findings, found, error);
  return kit_finish(&self->component, status);
}

/* ---- the component ---- */

static void destroy(reunion_instance* self) { free(self); }

static void cancel(reunion_instance* self) { kit_stop(&self->component); }

/* The host has checked the config against the schema and filled in what is not there. */
static reunion_status read_config(reunion_instance* self, reunion_str config, reunion_error* error) {
  if (!kit_json_whole(config, "rows", &self->rows) || self->rows < 0 || self->rows > ROWS_MAX) {
    return kit_fail(error, REUNION_INVALID_CONFIG, "rows", "", "expected a whole number from 0 to %d", ROWS_MAX);
  }
  if (!kit_json_whole(config, "batch_rows", &self->batch_rows) || self->batch_rows < 1 ||
      self->batch_rows > REUNION_BATCH_ROWS_MAX) {
    return kit_fail(error, REUNION_INVALID_CONFIG, "batch_rows", "", "expected a whole number from 1 to %d",
                    REUNION_BATCH_ROWS_MAX);
  }
  return REUNION_OK;
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

static const reunion_source source = {KIT_SIZE(reunion_source, read), 0, check, columns, read_rows};

static const reunion_plugin plugin = {KIT_SIZE(reunion_plugin, channel), 0, create, cancel, destroy, &source, NULL};

const char* reunion_manifest_v1(void) { return manifest; }

reunion_status reunion_entry_v1(uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  return kit_entry(&plugin, host_minor, out, error);
}
