/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void test_check(int holds, const char* what, const char* file, int line) {
  if (holds) return;
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  exit(1);
}

void test_check_text(const char* left, const char* right, const char* file, int line) {
  if (strcmp(left, right) == 0) return;
  fprintf(stderr, "%s:%d: these differ:\n%s\n--- and ---\n%s\n", file, line, left, right);
  exit(1);
}

static void log_line(const reunion_host* self, int32_t level, reunion_str target, reunion_str message,
                     reunion_str fields_json) {
  (void)self, (void)level, (void)target, (void)fields_json;
  CHECK(kit_is_utf8(message.ptr, message.len));
}

reunion_plugin test_plugin(void) {
  reunion_plugin plugin = {.size = sizeof plugin};
  reunion_error error = test_error();
  CHECK(reunion_entry_v1(REUNION_ABI_MINOR, &plugin, &error) == REUNION_OK);
  return plugin;
}

reunion_instance* test_create(const reunion_plugin* plugin, const char* config) {
  static const reunion_host host = {.size = sizeof host, .log = log_line, .log_level_max = REUNION_LOG_TRACE};
  reunion_instance* instance = NULL;
  reunion_error error = test_error();
  reunion_status status = plugin->create(&host, kit_str("test"), kit_str(config), &instance, &error);
  CHECK_ERROR(status, REUNION_OK, &error, "");
  CHECK(instance != NULL);
  return instance;
}

static int32_t is_cancelled(const reunion_call* self) { return atomic_load((atomic_int*)self->private_data); }

void test_call_begin(test_call* call) {
  memset(&call->call, 0, sizeof call->call);
  atomic_init(&call->is_cancelled, 0);
  call->call.size = sizeof call->call;
  call->call.cancelled = is_cancelled;
  call->call.private_data = &call->is_cancelled;
}

reunion_error test_error(void) {
  reunion_error error = {.size = sizeof error};
  return error;
}

void test_check_error(reunion_status status, reunion_status wanted, reunion_error* error, const char* key,
                      const char* file, int line) {
  if (status != wanted) {
    fprintf(stderr, "%s:%d: status %d where %d was expected: %.*s\n", file, line, (int)status, (int)wanted,
            (int)error->message.len, error->message.len == 0 ? "" : error->message.ptr);
    exit(1);
  }
  test_check(status == REUNION_OK || error->message.len > 0, "an error has a message", file, line);
  size_t len = strlen(key);
  test_check(error->key.len == len && (len == 0 || memcmp(error->key.ptr, key, len) == 0), key, file, line);
  if (error->release != NULL) error->release(error);
}

reunion_stream test_stream(void) {
  reunion_stream stream = {.size = sizeof stream};
  return stream;
}

reunion_status test_next(reunion_stream* stream, reunion_item* item, reunion_error* error) {
  memset(item, 0, sizeof *item);
  item->size = sizeof *item;
  *error = test_error();
  return stream->next(stream, item, error);
}

void test_release_item(reunion_item* item) {
  if (item->schema.release != NULL) item->schema.release(&item->schema);
  if (item->array.release != NULL) item->array.release(&item->array);
  if (item->control.release != NULL) item->control.release(&item->control);
}

void test_append(test_text* to, reunion_str text) {
  char* grown = realloc(to->text, to->len + text.len + 1);
  CHECK(grown != NULL);
  if (text.len > 0) memcpy(grown + to->len, text.ptr, text.len);
  to->len += text.len;
  grown[to->len] = '\0';
  to->text = grown;
}

void test_append_rows(test_text* to, const reunion_item* item) {
  for (int64_t row = 0; row < item->array.length; row++) {
    for (int64_t at = 0; at < item->schema.n_children; at++) {
      reunion_str text;
      const struct ArrowArray* column = item->array.children[at];
      if (at > 0) test_append(to, kit_str(","));
      CHECK(column->length == item->array.length);
      if (strcmp(item->schema.children[at]->format, KIT_TEXT) != 0) continue;
      if (kit_text_at(&item->array, column, row, &text)) test_append(to, text);
    }
    test_append(to, kit_str("\n"));
  }
}

void test_append_items(test_text* to, reunion_stream* stream) {
  int32_t kind = REUNION_ITEM_BEGIN;
  while (kind != REUNION_ITEM_END) {
    reunion_item item;
    reunion_error error;
    reunion_status status = test_next(stream, &item, &error);
    CHECK_ERROR(status, REUNION_OK, &error, "");
    kind = item.kind;
    if (kind == REUNION_ITEM_BATCH || kind == REUNION_ITEM_REJECTED) {
      test_append_rows(to, &item);
    } else {
      test_append(to, (reunion_str){(const char*)item.control.ptr, item.control.len});
      test_append(to, kit_str("\n"));
    }
    test_release_item(&item);
  }
  stream->release(stream);
}

void test_tasks(reunion_item* out, size_t count) {
  enum { TASK_FIELDS = 9, DUE = 8 };
  static const kit_field fields[TASK_FIELDS] = {
      {"task_id", KIT_TEXT}, {"campaign", KIT_TEXT}, {"store", KIT_TEXT},   {"staff", KIT_TEXT},   {"name", KIT_TEXT},
      {"phone", KIT_TEXT},   {"reason", KIT_TEXT},   {"message", KIT_TEXT}, {"due", KIT_TIMESTAMP}};
  kit_table table;
  reunion_error error = test_error();
  CHECK(kit_table_begin(&table, fields, TASK_FIELDS));
  for (size_t task = 1; task <= count; task++) {
    char id[33], phone[32];
    snprintf(id, sizeof id, "%032zx", task);
    snprintf(phone, sizeof phone, "1390000%04zu", task % 10000);
    /* store, staff and reason are null */
    CHECK(kit_add_text(&table, 0, id, 32) && kit_add_text(&table, 1, "warm-add", 8));
    CHECK(kit_add_text(&table, 4, "\xe5\xbc\xa0\"\n", 5) && kit_add_text(&table, 5, phone, 11));
    CHECK(kit_add_text(&table, 7, "", 0) && kit_add_number(&table, DUE, 1774389600000000) && kit_end_row(&table));
  }
  memset(out, 0, sizeof *out);
  out->size = sizeof *out;
  CHECK_ERROR(kit_item_rows(out, REUNION_ITEM_BATCH, &table, &error), REUNION_OK, &error, "");
  kit_table_free(&table);
}
