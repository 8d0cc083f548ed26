/* Calls the plugin as the host does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing.h"

static const char config[] = "{\"rows\": 5, \"batch_rows\": 2}";

/* All items of a read that goes on from this state, or begins. */
static char* read_from(const char* state) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = test_create(&plugin, config);
  reunion_stream stream = test_stream();
  reunion_error error = test_error();
  test_call call;
  test_text items = {0};
  test_call_begin(&call);
  const char* request = state[0] == '\0' ? "{\"mode\": \"snapshot\", \"resume\": false, \"overlap_secs\": 0}"
                                         : "{\"mode\": \"snapshot\", \"resume\": true, \"overlap_secs\": 0}";
  reunion_status status =
      plugin.source->read(self, &call.call, kit_str(request), kit_str(state), &stream, &error);
  CHECK_ERROR(status, REUNION_OK, &error, "");
  test_append_items(&items, &stream);
  plugin.destroy(self);
  return items.text;
}

static void members_are_read(void) {
  char* items = read_from("");
  CHECK_TEXT(items,
             "{\"resumed\": false}\n"
             "M0,13900000000,Member 0\n"
             "M1,13900000001,Member 1\n"
             "{\"row\": 2}\n"
             "M2,13900000002,Member 2\n"
             "M3,13900000003,Member 3\n"
             "{\"row\": 4}\n"
             "M4,13900000004,Member 4\n"
             "{\"row\": 5}\n"
             "{\"as_of_us\": null}\n");
  free(items);
}

static void a_read_goes_on_at_its_state(void) {
  char* items = read_from("{\"row\": 4}");
  CHECK_TEXT(items, "{\"resumed\": true}\nM4,13900000004,Member 4\n{\"row\": 5}\n{\"as_of_us\": null}\n");
  free(items);
  items = read_from("{\"row\": 6}");
  CHECK(strncmp(items, "{\"resumed\": false}\nM0,", 22) == 0);
  free(items);
}

static void a_config_that_is_wrong_blames_its_key(void) {
  static const reunion_host host = {.size = sizeof host};
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = NULL;
  reunion_error error = test_error();
  reunion_status status = plugin.create(&host, kit_str("test"), kit_str("{\"rows\": -1}"), &self, &error);
  CHECK_ERROR(status, REUNION_INVALID_CONFIG, &error, "rows");
}

static void a_call_stops_when_it_is_told_to(void) {
  reunion_plugin plugin = test_plugin();
  reunion_instance* self = test_create(&plugin, config);
  reunion_buf findings = {0};
  reunion_error error = test_error();
  test_call call;
  test_call_begin(&call);
  CHECK_ERROR(plugin.source->check(self, &call.call, &findings, &error), REUNION_OK, &error, "");
  findings.release(&findings);
  plugin.cancel(self);
  CHECK_ERROR(plugin.source->check(self, &call.call, &findings, &error), REUNION_CANCELLED, &error, "");
  plugin.destroy(self);
}

int main(void) {
  members_are_read();
  a_read_goes_on_at_its_state();
  a_config_that_is_wrong_blames_its_key();
  a_call_stops_when_it_is_told_to();
  puts("all tests passed");
  return 0;
}
