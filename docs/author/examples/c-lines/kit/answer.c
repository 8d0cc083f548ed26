/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers to the host. What is handed out is freed by the release that goes along with it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit.h"

enum { MESSAGE_BYTES_MAX = 512 };

/* Writes a message, cut between two characters where it is too long. */
static void write_message(char out[MESSAGE_BYTES_MAX], const char* message, va_list arguments) {
  if (vsnprintf(out, MESSAGE_BYTES_MAX, message, arguments) < 0) out[0] = '\0';
  for (size_t len = strlen(out); len > 0 && !kit_is_utf8(out, len); len--) out[len - 1] = '\0';
}

static void release_error(reunion_error* error) {
  free(error->private_data);
  error->private_data = NULL;
  error->release = NULL;
}

reunion_status kit_fail(reunion_error* error, reunion_status status, const char* key, const char* hint,
                        const char* message, ...) {
  if (error == NULL || !KIT_HAS(error, reunion_error, release)) return status;
  char text[MESSAGE_BYTES_MAX];
  va_list arguments;
  va_start(arguments, message);
  write_message(text, message, arguments);
  va_end(arguments);
  error->key = kit_str(key);
  error->hint = kit_str(hint);
  char* copy = kit_copy(kit_str(text));
  if (copy == NULL) {
    error->message = kit_str("there is no memory to say what happened");
    return status;
  }
  error->message = kit_str(copy);
  error->private_data = copy;
  error->release = release_error;
  return status;
}

reunion_status kit_no_memory(reunion_error* error) {
  return kit_fail(error, REUNION_INTERNAL, "", "give the machine more memory", "there is no memory left");
}

reunion_status kit_host_broke(reunion_error* error, const char* how) {
  return kit_fail(error, REUNION_INTERNAL, "", "report this to the authors of the host",
                  "the host broke the contract: %s", how);
}

static void release_buf(reunion_buf* buf) {
  free(buf->private_data);
  buf->ptr = NULL;
  buf->len = 0;
  buf->private_data = NULL;
  buf->release = NULL;
}

reunion_status kit_document(reunion_buf* out, const char* json, reunion_error* error) {
  char* copy = kit_copy(kit_str(json));
  if (copy == NULL) return kit_no_memory(error);
  out->ptr = (uint8_t*)copy;
  out->len = strlen(copy);
  out->private_data = copy;
  out->release = release_buf;
  return REUNION_OK;
}

reunion_status kit_item_document(reunion_item* out, int32_t kind, const char* json, reunion_error* error) {
  if (!KIT_HAS(out, reunion_item, control)) return kit_host_broke(error, "the item's struct is too small");
  out->kind = kind;
  return kit_document(&out->control, json, error);
}

reunion_status kit_component_begin(kit_component* component, const reunion_host* host, reunion_error* error) {
  if (!KIT_HAS(host, reunion_host, reserved)) return kit_host_broke(error, "the host's struct is too small");
  component->host = host;
  atomic_init(&component->is_stopped, 0);
  atomic_init(&component->is_broken, 0);
  return REUNION_OK;
}

static uint64_t now_unix_ms(void) {
  struct timespec now;
  if (timespec_get(&now, TIME_UTC) != TIME_UTC || now.tv_sec < 0) return 0;
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

reunion_status kit_is_to_stop(const kit_component* component, const reunion_call* call) {
  if (atomic_load(&component->is_stopped) || call->cancelled(call)) return REUNION_CANCELLED;
  return call->deadline_unix_ms != 0 && now_unix_ms() >= call->deadline_unix_ms ? REUNION_TIMEOUT : REUNION_OK;
}

reunion_status kit_go_on(const kit_component* component, const reunion_call* call, reunion_error* error) {
  switch (kit_is_to_stop(component, call)) {
    case REUNION_CANCELLED:
      return kit_fail(error, REUNION_CANCELLED, "", "", "the host cancelled the call");
    case REUNION_TIMEOUT:
      return kit_fail(error, REUNION_TIMEOUT, "", "", "the call's deadline has passed");
    default:
      return REUNION_OK;
  }
}

reunion_status kit_begin(const kit_component* component, const reunion_call* call, reunion_error* error) {
  if (atomic_load(&component->is_broken)) {
    return kit_fail(error, REUNION_INTERNAL, "", "", "the component failed in an earlier call and is used no more");
  }
  if (call == NULL) return REUNION_OK;
  if (!KIT_HAS(call, reunion_call, private_data)) return kit_host_broke(error, "the call's struct is too small");
  return kit_go_on(component, call, error);
}

reunion_status kit_finish(kit_component* component, reunion_status status) {
  if (status == REUNION_INTERNAL) atomic_store(&component->is_broken, 1);
  return status;
}

void kit_stop(kit_component* component) { atomic_store(&component->is_stopped, 1); }

void kit_log(const kit_component* component, int32_t level, const char* message, ...) {
  const reunion_host* host = component->host;
  if (level > host->log_level_max) return;
  char text[MESSAGE_BYTES_MAX];
  va_list arguments;
  va_start(arguments, message);
  write_message(text, message, arguments);
  va_end(arguments);
  host->log(host, level, kit_str(""), kit_str(text), kit_str(""));
}

reunion_status kit_entry(const reunion_plugin* table, uint32_t host_minor, reunion_plugin* out, reunion_error* error) {
  if (!KIT_HAS(out, reunion_plugin, channel)) {
    return kit_fail(error, REUNION_INTERNAL, "", "upgrade the host",
                    "the plugin needs ABI 1.0, and the host (minor version %u) has no room for its table", host_minor);
  }
  out->size = KIT_SIZE(reunion_plugin, channel);
  out->minor = 0;
  out->create = table->create;
  out->cancel = table->cancel;
  out->destroy = table->destroy;
  out->source = table->source;
  out->channel = table->channel;
  return REUNION_OK;
}
