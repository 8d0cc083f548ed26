/* SPDX-License-Identifier: Apache-2.0
 *
 * Arrow's structs, by https://arrow.apache.org/docs/format/CDataInterface.html. A receiver may keep a column and
 * release the batch that it was in, so that all columns of a batch hold on to the memory that they share. */
#include <stdlib.h>
#include <string.h>

#include "kit.h"

const kit_field kit_rejected_fields[KIT_REJECTED_FIELDS] = {
    {"location", KIT_TEXT},
    {"reason", KIT_TEXT},
    {"detail", KIT_TEXT}};
const kit_field kit_receipt_fields[KIT_RECEIPT_FIELDS] = {
    {"task_id", KIT_TEXT},
    {"verdict", KIT_TEXT},
    {"retry_after_ms", KIT_UINT64},
    {"code", KIT_TEXT},
    {"message", KIT_TEXT}};
const kit_field kit_event_fields[KIT_EVENT_FIELDS] = {
    {"event_id", KIT_TEXT},
    {"task_id", KIT_TEXT},
    {"outcome", KIT_TEXT},
    {"at", KIT_TIMESTAMP},
    {"note", KIT_TEXT}};

static int is_text(const kit_field* field) { return strcmp(field->type, KIT_TEXT) == 0; }

/* ---- a schema ---- */

typedef struct sent_schema {
  atomic_size_t users; /* the batch and its columns, each until it is released */
  struct ArrowSchema** children;
  struct ArrowSchema column[];
} sent_schema;

static void release_schema(struct ArrowSchema* schema) {
  sent_schema* sent = schema->private_data;
  for (int64_t at = 0; at < schema->n_children; at++) {
    struct ArrowSchema* child = schema->children[at];
    if (child->release != NULL) child->release(child);
  }
  schema->release = NULL;
  if (atomic_fetch_sub(&sent->users, 1) == 1) {
    free(sent->children);
    free(sent);
  }
}

static void fill_schema(struct ArrowSchema* out, const char* format, const char* name, sent_schema* sent) {
  memset(out, 0, sizeof *out);
  out->format = format;
  out->name = name;
  out->release = release_schema;
  out->private_data = sent;
}

int kit_schema(const kit_field* fields, size_t count, struct ArrowSchema* out) {
  sent_schema* sent = malloc(sizeof *sent + count * sizeof sent->column[0]);
  struct ArrowSchema** children = malloc((count + 1) * sizeof *children);
  if (sent == NULL || children == NULL) {
    free(sent);
    free(children);
    return 0;
  }
  atomic_init(&sent->users, count + 1);
  sent->children = children;
  for (size_t at = 0; at < count; at++) {
    fill_schema(&sent->column[at], fields[at].type, fields[at].name, sent);
    sent->column[at].flags = ARROW_FLAG_NULLABLE;
    children[at] = &sent->column[at];
  }
  fill_schema(out, "+s", "", sent);
  out->n_children = (int64_t)count;
  out->children = children;
  return 1;
}

/* ---- rows that are collected ---- */

/* A buffer that grows. */
typedef struct growing {
  uint8_t* bytes;
  size_t len;
  size_t room;
} growing;

typedef struct kit_column {
  growing valid;  /* a bit for each row */
  growing values; /* text: where each value ends, from a 0 on; else the numbers */
  growing text;
  size_t rows;
  size_t nulls;
} kit_column;

static int grow(growing* buffer, size_t more) {
  if (more <= buffer->room - buffer->len) return 1;
  size_t room = buffer->room == 0 ? 256 : buffer->room;
  while (room - buffer->len < more) {
    if (room > REUNION_BATCH_BYTES_MAX) return 0;
    room *= 2;
  }
  uint8_t* bytes = realloc(buffer->bytes, room);
  if (bytes == NULL) return 0;
  memset(bytes + buffer->room, 0, room - buffer->room);
  buffer->bytes = bytes;
  buffer->room = room;
  return 1;
}

static int append(growing* buffer, const void* bytes, size_t len) {
  if (!grow(buffer, len)) return 0;
  if (len > 0) memcpy(buffer->bytes + buffer->len, bytes, len);
  buffer->len += len;
  return 1;
}

static int append_end(kit_column* column) {
  int32_t end = (int32_t)column->text.len;
  return append(&column->values, &end, sizeof end);
}

static void column_free(kit_column* column) {
  free(column->valid.bytes);
  free(column->values.bytes);
  free(column->text.bytes);
}

int kit_table_begin(kit_table* table, const kit_field* fields, size_t count) {
  memset(table, 0, sizeof *table);
  table->columns = calloc(count, sizeof *table->columns);
  if (table->columns == NULL) return 0;
  table->fields = fields;
  table->count = count;
  return 1;
}

void kit_table_free(kit_table* table) {
  for (size_t at = 0; at < table->count; at++) column_free(&table->columns[at]);
  free(table->columns);
  memset(table, 0, sizeof *table);
}

/* Notes that the next value of a column is there, or null. */
static int append_valid(kit_column* column, int is_there) {
  if (column->rows % 8 == 0 && !append(&column->valid, "", 1)) return 0;
  if (is_there) column->valid.bytes[column->rows / 8] |= (uint8_t)(1u << (column->rows % 8));
  column->nulls += !is_there;
  column->rows++;
  return 1;
}

int kit_add_text(kit_table* table, size_t column, const char* bytes, size_t len) {
  kit_column* to = &table->columns[column];
  int has_begun = to->values.len > 0 || append_end(to);
  if (!has_begun || !append(&to->text, bytes, len) || !append_end(to)) return 0;
  table->bytes += len;
  return append_valid(to, 1);
}

int kit_add_number(kit_table* table, size_t column, int64_t number) {
  kit_column* to = &table->columns[column];
  return append(&to->values, &number, sizeof number) && append_valid(to, 1);
}

static int append_null(kit_column* column, int is_text) {
  int64_t nothing = 0;
  int is_added = is_text ? (column->values.len > 0 || append_end(column)) && append_end(column)
                         : append(&column->values, &nothing, sizeof nothing);
  return is_added && append_valid(column, 0);
}

int kit_end_row(kit_table* table) {
  for (size_t at = 0; at < table->count; at++) {
    kit_column* column = &table->columns[at];
    if (column->rows == table->rows && !append_null(column, is_text(&table->fields[at]))) return 0;
    table->bytes += sizeof(int64_t);
  }
  table->rows++;
  return 1;
}

/* ---- a batch ---- */

typedef struct sent_column {
  struct ArrowArray array;
  const void* buffers[3];
  kit_column memory;
} sent_column;

typedef struct sent_batch {
  atomic_size_t users; /* the batch and its columns, each until it is released */
  size_t count;
  const void* no_buffers[1];
  struct ArrowArray** children;
  sent_column column[];
} sent_batch;

static void release_batch(struct ArrowArray* array) {
  sent_batch* sent = array->private_data;
  for (int64_t at = 0; at < array->n_children; at++) {
    struct ArrowArray* child = array->children[at];
    if (child->release != NULL) child->release(child);
  }
  array->release = NULL;
  if (atomic_fetch_sub(&sent->users, 1) == 1) {
    for (size_t at = 0; at < sent->count; at++) column_free(&sent->column[at].memory);
    free(sent->children);
    free(sent);
  }
}

static void fill_array(struct ArrowArray* out, size_t rows, const void** buffers, int64_t n_buffers, sent_batch* sent) {
  memset(out, 0, sizeof *out);
  out->length = (int64_t)rows;
  out->n_buffers = n_buffers;
  out->buffers = buffers;
  out->release = release_batch;
  out->private_data = sent;
}

/* Takes the memory of a column over. */
static void send_column(sent_column* out, const kit_field* field, kit_column* from, size_t rows, sent_batch* sent) {
  out->memory = *from;
  memset(from, 0, sizeof *from);
  out->buffers[0] = out->memory.nulls > 0 ? out->memory.valid.bytes : NULL;
  out->buffers[1] = out->memory.values.bytes;
  out->buffers[2] = out->memory.text.bytes;
  fill_array(&out->array, rows, out->buffers, is_text(field) ? 3 : 2, sent);
  out->array.null_count = (int64_t)out->memory.nulls;
}

/* A column of text without rows or without text has buffers all the same. */
static int complete(kit_table* table) {
  for (size_t at = 0; at < table->count; at++) {
    kit_column* column = &table->columns[at];
    if (!is_text(&table->fields[at])) continue;
    if (column->values.len == 0 && !append_end(column)) return 0;
    if (!grow(&column->text, 1)) return 0;
  }
  return 1;
}

/* Takes the rows over. 0: no memory. */
static int send(kit_table* table, reunion_item* out) {
  sent_batch* sent = malloc(sizeof *sent + table->count * sizeof sent->column[0]);
  struct ArrowArray** children = malloc((table->count + 1) * sizeof *children);
  if (sent == NULL || children == NULL || !complete(table) || !kit_schema(table->fields, table->count, &out->schema)) {
    free(sent);
    free(children);
    return 0;
  }
  atomic_init(&sent->users, table->count + 1);
  sent->count = table->count;
  sent->no_buffers[0] = NULL;
  sent->children = children;
  for (size_t at = 0; at < table->count; at++) {
    send_column(&sent->column[at], &table->fields[at], &table->columns[at], table->rows, sent);
    children[at] = &sent->column[at].array;
  }
  fill_array(&out->array, table->rows, sent->no_buffers, 1, sent);
  out->array.n_children = (int64_t)table->count;
  out->array.children = children;
  table->rows = 0;
  table->bytes = 0;
  return 1;
}

reunion_status kit_item_rows(reunion_item* out, int32_t kind, kit_table* table, reunion_error* error) {
  if (!KIT_HAS(out, reunion_item, control)) return kit_host_broke(error, "the item's struct is too small");
  out->kind = kind;
  return send(table, out) ? REUNION_OK : kit_no_memory(error);
}

/* ---- a batch that was given ---- */

const struct ArrowArray* kit_find(const struct ArrowSchema* schema, const struct ArrowArray* batch, const char* name,
                                  const char* type) {
  int64_t buffers = strcmp(type, KIT_TEXT) == 0 ? 3 : 2;
  if (batch->n_children != schema->n_children) return NULL;
  for (int64_t at = 0; at < schema->n_children; at++) {
    const struct ArrowSchema* field = schema->children[at];
    if (field->name == NULL || strcmp(field->name, name) != 0) continue;
    const struct ArrowArray* column = batch->children[at];
    return strcmp(field->format, type) == 0 && column->n_buffers == buffers ? column : NULL;
  }
  return NULL;
}

/* Where a row's value stands in the buffers. */
static int64_t place(const struct ArrowArray* batch, const struct ArrowArray* column, int64_t row) {
  return batch->offset + column->offset + row;
}

static int is_null(const struct ArrowArray* column, int64_t at) {
  const uint8_t* valid = column->buffers[0];
  return valid != NULL && !(valid[at / 8] >> (at % 8) & 1);
}

int kit_text_at(const struct ArrowArray* batch, const struct ArrowArray* column, int64_t row, reunion_str* text) {
  int64_t at = place(batch, column, row);
  if (is_null(column, at)) return 0;
  const int32_t* offsets = column->buffers[1];
  text->len = (size_t)(offsets[at + 1] - offsets[at]);
  text->ptr = text->len == 0 ? "" : (const char*)column->buffers[2] + offsets[at];
  return 1;
}

int kit_number_at(const struct ArrowArray* batch, const struct ArrowArray* column, int64_t row, int64_t* number) {
  int64_t at = place(batch, column, row);
  if (is_null(column, at)) return 0;
  *number = ((const int64_t*)column->buffers[1])[at];
  return 1;
}
