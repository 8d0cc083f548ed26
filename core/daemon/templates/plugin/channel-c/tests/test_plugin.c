/* Calls the plugin as the host does. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

static char folder[] = "/tmp/my-plugin-test-XXXXXX";

static reunion_instance* component(const reunion_plugin* plugin) {
  char config[128];
  snprintf(config, sizeof config, "{\"dir\": \"%s\"}", folder);
  return test_create(plugin, config);
}

/* Files in the folder. With `remove_all` they are gone afterwards. */
static int files(int remove_all) {
  int count = 0;
  DIR* open_folder = opendir(folder);
  CHECK(open_folder != NULL);
  for (struct dirent* entry = readdir(open_folder); entry != NULL; entry = readdir(open_folder)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    count++;
    if (remove_all) CHECK(unlinkat(dirfd(open_folder), entry->d_name, 0) == 0);
  }
  closedir(open_folder);
  return count;
}

static reunion_status push(const reunion_plugin* plugin, reunion_instance* self, const test_call* call, size_t count,
                           reunion_stream* stream, reunion_error* error) {
  static const char dispatch[] =
      "{\"dispatch_id\": \"00000000000000000000000000000001\", \"run\": \"0000000a\", \"ordinal\": 1,"
      " \"date\": \"2026-03-25\"}";
  reunion_item tasks;
  test_tasks(&tasks, count);
  *stream = test_stream();
  *error = test_error();
  reunion_status status = plugin->channel->push(self, &call->call, kit_str(dispatch), &tasks.schema, &tasks.array,
                                                stream, error);
  CHECK(tasks.schema.release == NULL && tasks.array.release == NULL);
  return status;
}

/* The receipts of a push that yields no error, as lines. */
static char* push_all(const reunion_plugin* plugin, reunion_instance* self, const test_call* call, size_t count) {
  reunion_stream stream;
  reunion_error error;
  test_text items = {0};
  CHECK_ERROR(push(plugin, self, call, count, &stream, &error), REUNION_OK, &error, "");
  test_append_items(&items, &stream);
  return items.text;
}

static void a_task_becomes_a_file_however_often_it_is_pushed(void) {
  char path[128], text[512] = "";
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  test_call call;
  test_call_begin(&call);
  for (int times = 0; times < 2; times++) {
    char* items = push_all(&plugin, self, &call, 2);
    CHECK_TEXT(items,
               "00000000000000000000000000000001,accepted,,,\n"
               "00000000000000000000000000000002,accepted,,,\n"
               "{\"as_of_us\": null}\n");
    free(items);
    CHECK(files(0) == 2);
  }
  snprintf(path, sizeof path, "%s/00000000000000000000000000000002.json", folder);
  FILE* file = fopen(path, "r");
  CHECK(file != NULL && fread(text, 1, sizeof text - 1, file) > 0 && fclose(file) == 0);
  CHECK_TEXT(text,
             "{\"task_id\": \"00000000000000000000000000000002\", \"campaign\": \"warm-add\","
             " \"name\": \"\xe5\xbc\xa0\\\"\\u000a\", \"phone\": \"13900000002\", \"message\": \"\","
             " \"due_us\": 1774389600000000}\n");
  CHECK(files(1) == 2);
  plugin.destroy(self);
}

static void every_task_has_a_receipt(void) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  test_call call;
  test_call_begin(&call);
  char* items = push_all(&plugin, self, &call, 150);
  size_t receipts = 0;
  for (const char* at = items; (at = strstr(at, ",accepted,")) != NULL; at++) receipts++;
  CHECK(receipts == 150 && files(1) == 150);
  free(items);
  items = push_all(&plugin, self, &call, 0);
  CHECK_TEXT(items, "{\"as_of_us\": null}\n");
  free(items);
  plugin.destroy(self);
}

static void a_dry_run_leaves_nothing_behind(void) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  test_call call;
  test_call_begin(&call);
  call.call.flags = REUNION_CALL_DRY_RUN;
  char* items = push_all(&plugin, self, &call, 1);
  CHECK(strstr(items, ",accepted,") != NULL && files(0) == 0);
  free(items);
  plugin.destroy(self);
}

static void what_is_known_is_handed_out_before_a_push_stops(void) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  reunion_stream stream;
  reunion_error error;
  reunion_item item;
  test_call call;
  test_call_begin(&call);
  CHECK_ERROR(push(&plugin, self, &call, 100, &stream, &error), REUNION_OK, &error, "");
  CHECK_ERROR(test_next(&stream, &item, &error), REUNION_OK, &error, "");
  int64_t receipts = item.array.length;
  test_release_item(&item);
  plugin.cancel(self);
  CHECK_ERROR(test_next(&stream, &item, &error), REUNION_CANCELLED, &error, "");
  stream.release(&stream);
  CHECK(files(1) == (int)receipts);
  CHECK_ERROR(push(&plugin, self, &call, 1, &stream, &error), REUNION_CANCELLED, &error, "");
  CHECK(stream.release == NULL);
  plugin.destroy(self);
}

static void a_folder_that_takes_nothing_puts_tasks_off(void) {
  char path[128];
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  test_call call;
  test_call_begin(&call);
  /* A folder stands where the file is to be. */
  snprintf(path, sizeof path, "%s/00000000000000000000000000000001.json", folder);
  CHECK(mkdir(path, 0700) == 0);
  char* items = push_all(&plugin, self, &call, 2);
  CHECK_TEXT(items,
             "00000000000000000000000000000001,busy,,,the folder takes no files now\n"
             "00000000000000000000000000000002,accepted,,,\n"
             "{\"as_of_us\": null}\n");
  free(items);
  CHECK(rmdir(path) == 0 && files(1) == 1);
  plugin.destroy(self);
}

static void a_folder_that_is_not_there_blames_its_key(void) {
  static const reunion_host host = {.size = sizeof host};
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = test_create(&plugin, "{\"dir\": \"/nowhere/at/all\"}");
  reunion_instance* none = NULL;
  reunion_buf findings = {0};
  reunion_stream stream;
  reunion_error error = test_error();
  test_call call;
  test_call_begin(&call);
  CHECK_ERROR(plugin.channel->check(self, &call.call, &findings, &error), REUNION_INVALID_CONFIG, &error, "dir");
  CHECK_ERROR(push(&plugin, self, &call, 1, &stream, &error), REUNION_INVALID_CONFIG, &error, "dir");
  plugin.destroy(self);
  error = test_error();
  reunion_status status = plugin.create(&host, kit_str("test"), kit_str("{\"dir\": 5}"), &none, &error);
  CHECK_ERROR(status, REUNION_INVALID_CONFIG, &error, "dir");
}

static void a_poll_ends_at_once(void) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = component(&plugin);
  reunion_stream stream = test_stream();
  reunion_error error = test_error();
  reunion_buf about = {0};
  test_text items = {0};
  test_call call;
  test_call_begin(&call);
  CHECK_ERROR(plugin.channel->describe(self, &about, &error), REUNION_OK, &error, "");
  about.release(&about);
  CHECK_ERROR(plugin.channel->poll(self, &call.call, kit_str(""), &stream, &error), REUNION_OK, &error, "");
  test_append_items(&items, &stream);
  CHECK_TEXT(items.text, "{\"as_of_us\": null}\n");
  free(items.text);
  plugin.destroy(self);
}

int main(void) {
  CHECK(mkdtemp(folder) != NULL);
  a_task_becomes_a_file_however_often_it_is_pushed();
  every_task_has_a_receipt();
  a_dry_run_leaves_nothing_behind();
  what_is_known_is_handed_out_before_a_push_stops();
  a_folder_that_takes_nothing_puts_tasks_off();
  a_folder_that_is_not_there_blames_its_key();
  a_poll_ends_at_once();
  CHECK(rmdir(folder) == 0);
  puts("all tests passed");
  return 0;
}
