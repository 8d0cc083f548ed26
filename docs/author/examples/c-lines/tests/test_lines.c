/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls the plugin as the host does. With the sanitizers, which `make test` turns on where there are any, every byte
 * that is not given back is an error too. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

static char folder[] = "/tmp/lines-test-XXXXXX";
static char path[64];

static void write_file(const char* text, size_t len) {
  FILE* file = fopen(path, "wb");
  CHECK(file != NULL && fwrite(text, 1, len, file) == len && fclose(file) == 0);
}

static void write_text(const char* text) { write_file(text, strlen(text)); }

static reunion_instance* component(const reunion_plugin* plugin, int batch_rows) {
  char config[256];
  snprintf(config, sizeof config, "{\"path\": \"%s\", \"line_bytes_max\": 64, \"batch_rows\": %d}", path, batch_rows);
  return test_create(plugin, config);
}

static reunion_stream open_read(const reunion_plugin* plugin, reunion_instance* self, const test_call* call,
                                const char* state) {
  reunion_stream stream = test_stream();
  reunion_error error = test_error();
  const char* request = state[0] == '\0' ? "{\"mode\": \"snapshot\", \"resume\": false, \"overlap_secs\": 0}"
                                         : "{\"mode\": \"snapshot\", \"resume\": true, \"overlap_secs\": 0}";
  reunion_status status =
      plugin->source->read(self, &call->call, kit_str(request), kit_str(state), &stream, &error);
  CHECK_ERROR(status, REUNION_OK, &error, "");
  return stream;
}

/* Reads to the state of this number, or to the end, and lets go; the rows of it, and the state. Whether it ended. */
static int read_part(int batch_rows, const char* from, int states, test_text* rows, test_text* state, int* is_resumed) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin, batch_rows);
  test_call call;
  test_call_begin(&call);
  reunion_stream stream = open_read(&plugin, self, &call, from);
  int seen = 0, is_at_end = 0;
  while (seen < states && !is_at_end) {
    reunion_item item;
    reunion_error error;
    reunion_status status = test_next(&stream, &item, &error);
    CHECK_ERROR(status, REUNION_OK, &error, "");
    reunion_str control = {(const char*)item.control.ptr, item.control.len};
    if (item.kind == REUNION_ITEM_BEGIN) CHECK(kit_json_flag(control, "resumed", is_resumed));
    if (item.kind == REUNION_ITEM_BATCH || item.kind == REUNION_ITEM_REJECTED) test_append_rows(rows, &item);
    if (item.kind == REUNION_ITEM_STATE) {
      seen++;
      state->len = 0;
      test_append(state, control);
    }
    is_at_end = item.kind == REUNION_ITEM_END;
    test_release_item(&item);
  }
  stream.release(&stream);
  CHECK(stream.release == NULL);
  plugin.destroy(self);
  return is_at_end;
}

enum { ALL = 1 << 30 };

static void members_are_read(void) {
  write_text("\xef\xbb\xbf" "C1|13900001201|\xe5\xbc\xa0|S1|2026-01-02\r\n\nC2||||\nC3|13900001203|x||2026-01-03");
  test_text rows = {0}, state = {0};
  int is_resumed = 1;
  CHECK(read_part(8192, "", ALL, &rows, &state, &is_resumed));
  CHECK(!is_resumed);
  CHECK_TEXT(rows.text, "C1,13900001201,\xe5\xbc\xa0,S1,2026-01-02\nC2,,,,\nC3,13900001203,x,,2026-01-03\n");
  free(rows.text);
  free(state.text);
}

static void lines_that_are_none_are_set_aside(void) {
  char text[512];
  size_t len = 0;
  static const char zero[] = "C3|1390000\0|x|S|\n";
  len += (size_t)sprintf(text, "C1|13900001201\nC2|13900001202|\xff|S|\n");
  memcpy(text + len, zero, sizeof zero - 1);
  len += sizeof zero - 1;
  len += (size_t)sprintf(text + len, "%080d\nC4|13900001204|x|S|\na|b|c|d|e|f\nC5|13900", 7);
  write_file(text, len);
  test_text rows = {0}, state = {0};
  int is_resumed;
  CHECK(read_part(8192, "", ALL, &rows, &state, &is_resumed));
  CHECK_TEXT(rows.text,
             "C4,13900001204,x,S,\n"
             "members.txt:1,row_ragged,2 cells, and there should be 5\n"
             "members.txt:2,row_bad_encoding,the line is not UTF-8\n"
             "members.txt:3,row_nul,a zero byte\n"
             "members.txt:4,row_too_long,longer than line_bytes_max\n"
             "members.txt:6,row_ragged,6 cells, and there should be 5\n"
             "members.txt:7,row_truncated,2 cells, and there should be 5\n");
  free(rows.text);
  free(state.text);
}

static void a_line_of_any_length_is_passed_over(void) {
  enum { LONG = 1 << 20 };
  char* text = malloc(LONG + 64);
  CHECK(text != NULL);
  memset(text, 'x', LONG);
  size_t len = LONG + (size_t)sprintf(text + LONG, "\nC1|13900001201|||\n");
  write_file(text, len);
  test_text rows = {0}, state = {0};
  int is_resumed;
  CHECK(read_part(8192, "", ALL, &rows, &state, &is_resumed));
  CHECK_TEXT(rows.text, "C1,13900001201,,,\nmembers.txt:1,row_too_long,longer than line_bytes_max\n");
  write_file(text, LONG); /* it does not end at all */
  rows.len = 0;
  CHECK(read_part(8192, "", ALL, &rows, &state, &is_resumed));
  CHECK_TEXT(rows.text, "members.txt:1,row_too_long,longer than line_bytes_max\n");
  free(rows.text);
  free(state.text);
  free(text);
}

static void a_read_goes_on_at_each_state(void) {
  test_text text = {0};
  char line[64];
  for (int row = 0; row < 100; row++) {
    const char* shape = row % 7 == 3 ? "C%d|1390000%04d\n" : "C%d|1390000%04d|x|S|\r\n";
    snprintf(line, sizeof line, shape, row, row);
    test_append(&text, kit_str(line));
  }
  write_text(text.text);
  test_text whole = {0}, state = {0};
  int is_resumed;
  CHECK(read_part(9, "", ALL, &whole, &state, &is_resumed));
  for (int states = 1; states <= 12; states++) {
    test_text rows = {0}, at = {0};
    CHECK(!read_part(9, "", states, &rows, &at, &is_resumed));
    CHECK(read_part(9, at.text, ALL, &rows, &state, &is_resumed));
    CHECK(is_resumed);
    CHECK_TEXT(rows.text, whole.text);
    free(rows.text);
    free(at.text);
  }
  free(text.text);
  free(whole.text);
  free(state.text);
}

static void another_file_is_read_anew(void) {
  static const char* const changed[] = {"C1|1|||\nC2|2|||\nC3|3|||\n", "C1|1|||\nC2|2|||\nC4|4|||\nC5|5|||\n"};
  static const char* const states[] = {"{}", "[]", "{\"version\": 2}", "{\"version\": 1, \"head\": \"\\ud83d\"}"};
  test_text rows = {0}, state = {0}, later = {0};
  int is_resumed;
  write_text("C1|1|||\nC2|2|||\nC4|4|||\n");
  CHECK(!read_part(1, "", 2, &rows, &state, &is_resumed));
  for (size_t at = 0; at < 2; at++) {
    write_text(changed[at]);
    rows.len = 0;
    CHECK(read_part(1, state.text, ALL, &rows, &later, &is_resumed));
    CHECK(!is_resumed && strncmp(rows.text, "C1,1,,,\n", 8) == 0);
  }
  for (size_t at = 0; at < 4; at++) {
    CHECK(read_part(1, states[at], ALL, &rows, &later, &is_resumed));
    CHECK(!is_resumed);
  }
  free(rows.text);
  free(state.text);
  free(later.text);
}

static void a_file_that_changes_has_no_end(void) {
  reunion_plugin plugin = test_plugin();
  reunion_item item;
  reunion_error error;
  reunion_status status = REUNION_OK;
  test_call call;
  write_text("C1|1|||\n");
  reunion_instance* self = component(&plugin, 1);
  test_call_begin(&call);
  reunion_stream stream = open_read(&plugin, self, &call, "");
  write_text("C1|1|||\nC2|2|||\n");
  while (status == REUNION_OK) {
    status = test_next(&stream, &item, &error);
    if (status == REUNION_OK) CHECK(item.kind != REUNION_ITEM_END);
    test_release_item(&item);
  }
  CHECK_ERROR(status, REUNION_UNAVAILABLE, &error, "path");
  stream.release(&stream);
  plugin.destroy(self);
}

static void what_cannot_be_read_blames_the_path(void) {
  reunion_plugin plugin = test_plugin();
  reunion_buf findings = {0};
  reunion_error error = test_error();
  test_call call;
  remove(path);
  reunion_instance* self = component(&plugin, 1);
  test_call_begin(&call);
  CHECK_ERROR(plugin.source->check(self, &call.call, &findings, &error), REUNION_INVALID_DATA, &error, "path");
  CHECK(mkdir(path, 0700) == 0);
  error = test_error();
  CHECK_ERROR(plugin.source->check(self, &call.call, &findings, &error), REUNION_INVALID_DATA, &error, "path");
  CHECK(rmdir(path) == 0 && mkfifo(path, 0600) == 0);
  error = test_error();
  CHECK_ERROR(plugin.source->check(self, &call.call, &findings, &error), REUNION_INVALID_DATA, &error, "path");
  CHECK(remove(path) == 0);
  plugin.destroy(self);
}

static void check_finding(const reunion_plugin* plugin, reunion_instance* self, const char* wanted) {
  reunion_buf findings = {0};
  reunion_error error = test_error();
  test_call call;
  test_call_begin(&call);
  CHECK_ERROR(plugin->source->check(self, &call.call, &findings, &error), REUNION_OK, &error, "");
  test_text text = {0};
  test_append(&text, (reunion_str){(const char*)findings.ptr, findings.len});
  CHECK(strstr(text.text, wanted) != NULL);
  free(text.text);
  findings.release(&findings);
}

static void a_check_says_what_is_odd(void) {
  reunion_plugin plugin = test_plugin();
  write_text("");
  reunion_instance* self = component(&plugin, 1);
  check_finding(&plugin, self, "is empty");
  write_text("card,phone\n");
  check_finding(&plugin, self, "first line");
  write_text("C1|1|||\n");
  check_finding(&plugin, self, "[]");
  plugin.destroy(self);
}

static void a_config_that_is_wrong_blames_its_key(void) {
  static const char* const cases[][2] = {
      {"{}", "path"},
      {"{\"path\": 5, \"line_bytes_max\": 64, \"batch_rows\": 1}", "path"},
      {"{\"path\": \"\", \"line_bytes_max\": 64, \"batch_rows\": 1}", "path"},
      {"{\"path\": \"/x\\u0000y\", \"line_bytes_max\": 64, \"batch_rows\": 1}", "path"},
      {"{\"path\": \"/x\", \"line_bytes_max\": 1.5, \"batch_rows\": 1}", "line_bytes_max"},
      {"{\"path\": \"/x\", \"line_bytes_max\": 64, \"batch_rows\": 8193}", "batch_rows"}};
  static const reunion_host host = {.size = sizeof host};
  reunion_plugin plugin = test_plugin();
  for (size_t at = 0; at < sizeof cases / sizeof cases[0]; at++) {
    reunion_instance* self = NULL;
    reunion_error error = test_error();
    reunion_status status = plugin.create(&host, kit_str("test"), kit_str(cases[at][0]), &self, &error);
    CHECK_ERROR(status, REUNION_INVALID_CONFIG, &error, cases[at][1]);
    CHECK(self == NULL);
  }
}

static void a_call_stops_when_it_is_told_to(void) {
  reunion_plugin plugin = test_plugin();
  reunion_item item;
  reunion_error error;
  test_call call;
  write_text("C1|1|||\nC2|2|||\n");
  reunion_instance* self = component(&plugin, 1);
  test_call_begin(&call);
  reunion_stream stream = open_read(&plugin, self, &call, "");
  CHECK(test_next(&stream, &item, &error) == REUNION_OK);
  test_release_item(&item);
  atomic_store(&call.is_cancelled, 1);
  CHECK_ERROR(test_next(&stream, &item, &error), REUNION_CANCELLED, &error, "");
  stream.release(&stream);
  /* The call was cancelled, and not the instance. */
  test_call_begin(&call);
  call.call.deadline_unix_ms = 1;
  struct ArrowSchema schema = {0};
  error = test_error();
  CHECK_ERROR(plugin.source->schema(self, &call.call, &schema, &error), REUNION_TIMEOUT, &error, "");
  test_call_begin(&call);
  plugin.cancel(self);
  error = test_error();
  CHECK_ERROR(plugin.source->schema(self, &call.call, &schema, &error), REUNION_CANCELLED, &error, "");
  CHECK(schema.release == NULL);
  plugin.destroy(self);
}

static void structs_of_other_sizes_are_met(void) {
  reunion_plugin plugin = {.size = sizeof plugin - 8};
  reunion_error error = test_error();
  CHECK_ERROR(reunion_entry_v1(0, &plugin, &error), REUNION_INTERNAL, &error, "");
  error = test_error();
  error.size = 16; /* an error that has no room for a message is not touched */
  CHECK(reunion_entry_v1(0, &plugin, &error) == REUNION_INTERNAL && error.release == NULL && error.message.ptr == NULL);
  struct {
    reunion_plugin plugin;
    uint64_t later;
  } larger = {.plugin = {.size = sizeof larger}, .later = 4711};
  error = test_error();
  CHECK(reunion_entry_v1(9, &larger.plugin, &error) == REUNION_OK && larger.later == 4711);
  CHECK(larger.plugin.size == sizeof plugin && larger.plugin.channel == NULL);
  write_text("C1|1|||\n");
  plugin = test_plugin();
  reunion_instance* self = component(&plugin, 1);
  struct ArrowSchema schema = {0};
  test_call call;
  test_call_begin(&call);
  call.call.size = 8;
  error = test_error();
  CHECK_ERROR(plugin.source->schema(self, &call.call, &schema, &error), REUNION_INTERNAL, &error, "");
  /* After an internal error nothing is answered but that. */
  test_call_begin(&call);
  error = test_error();
  CHECK_ERROR(plugin.source->schema(self, &call.call, &schema, &error), REUNION_INTERNAL, &error, "");
  plugin.destroy(self);
}

static void a_column_outlives_its_batch(void) {
  kit_table table;
  reunion_item item = {.size = sizeof item};
  reunion_str text;
  CHECK(kit_table_begin(&table, kit_rejected_fields, KIT_REJECTED_FIELDS));
  CHECK(kit_add_text(&table, 1, "row_nul", 7) && kit_end_row(&table));
  reunion_error error = test_error();
  CHECK_ERROR(kit_item_rows(&item, REUNION_ITEM_REJECTED, &table, &error), REUNION_OK, &error, "");
  struct ArrowArray column = *item.array.children[1];
  struct ArrowSchema field = *item.schema.children[1];
  item.array.children[1]->release = NULL;
  item.schema.children[1]->release = NULL;
  test_release_item(&item);
  kit_table_free(&table);
  struct ArrowArray whole = {.length = 1};
  CHECK(kit_text_at(&whole, &column, 0, &text) && text.len == 7 && memcmp(text.ptr, "row_nul", 7) == 0);
  CHECK_TEXT(field.name, "reason");
  column.release(&column);
  field.release(&field);
}

static void texts_of_a_document_are_read(void) {
  static const char json[] =
      "{\"a\": {\"b\": [1, \"}\", {}]}, \"text\": \"\\u4f1a\\ud83d\\ude00\\n\\\"/\", \"flag\": true, \"n\": -5}";
  reunion_str object = kit_str(json), value;
  char* text;
  int flag = 0;
  int64_t number = 0;
  CHECK(kit_json(object, "a", &value) && value.len == strlen("{\"b\": [1, \"}\", {}]}"));
  CHECK(kit_json_text(object, "text", &text));
  CHECK_TEXT(text, "\xe4\xbc\x9a\xf0\x9f\x98\x80\n\"/");
  free(text);
  CHECK(kit_json_flag(object, "flag", &flag) && flag && kit_json_whole(object, "n", &number) && number == -5);
  CHECK(!kit_json(object, "b", &value) && !kit_json_flag(object, "n", &flag));
  CHECK(!kit_json_whole(object, "text", &number));
  /* Every document that was cut off is answered, and nothing beyond it is looked at. */
  for (size_t len = 0; len < sizeof json - 1; len++) {
    char* cut = malloc(len + 1);
    CHECK(cut != NULL);
    memcpy(cut, json, len);
    CHECK(!kit_json((reunion_str){cut, len}, "none", &value));
    free(cut);
  }
  CHECK(!kit_is_utf8("\xc0\x80", 2) && !kit_is_utf8("\xed\xa0\x80", 3) && !kit_is_utf8("\xe4\xbc", 2));
  CHECK(!kit_is_utf8("\xf4\x90\x80\x80", 4) && kit_is_utf8("\xf0\x9f\x98\x80", 4) && kit_is_utf8("", 0));
}

int main(void) {
  CHECK(mkdtemp(folder) != NULL);
  snprintf(path, sizeof path, "%s/members.txt", folder);
  members_are_read();
  lines_that_are_none_are_set_aside();
  a_line_of_any_length_is_passed_over();
  a_read_goes_on_at_each_state();
  another_file_is_read_anew();
  a_file_that_changes_has_no_end();
  what_cannot_be_read_blames_the_path();
  a_check_says_what_is_odd();
  a_config_that_is_wrong_blames_its_key();
  a_call_stops_when_it_is_told_to();
  structs_of_other_sizes_are_met();
  a_column_outlives_its_batch();
  texts_of_a_document_are_read();
  remove(path);
  CHECK(rmdir(folder) == 0);
  puts("all tests passed");
  return 0;
}
