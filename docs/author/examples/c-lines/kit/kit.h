/* SPDX-License-Identifier: Apache-2.0
 *
 * kit.h: what every plugin in C needs beside the header. Three small files to copy and to change as you like:
 *   text.c    texts, UTF-8, and reading the JSON documents of the host
 *   answer.c  answers: documents, errors, log lines, and whether a call is to stop
 *   table.c   Arrow: making batches, and reading those of the host
 * Nothing here is global, and everything may be called from any thread. */
#ifndef KIT_H
#define KIT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "reunion_plugin.h"

#if defined(__GNUC__)
#define KIT_PRINTF(message, first) __attribute__((format(printf, message, first)))
#else
#define KIT_PRINTF(message, first)
#endif

/* The bytes of a struct up to the end of this member: of the last one that it had at version 1.0, its size then. */
#define KIT_SIZE(type, member) (offsetof(type, member) + sizeof(((type*)0)->member))

/* Whether a struct that begins with its size has everything up to this member. */
#define KIT_HAS(pointer, type, member) ((pointer)->size >= KIT_SIZE(type, member))

/* ---- text.c ---- */

/* A text that lives at least as long as what it is given to. */
reunion_str kit_str(const char* text);

/* A copy that ends with a zero byte, to be freed. NULL: no memory. */
char* kit_copy(reunion_str text);

int kit_is_utf8(const char* bytes, size_t len);

/* The value of a key of a JSON object, as JSON. 0: it is not there, or this is no object. */
int kit_json(reunion_str object, const char* key, reunion_str* value);

/* The same as a text without zero bytes, to be freed. 0: it is not there, is none, or there is no memory. */
int kit_json_text(reunion_str object, const char* key, char** text);

/* The same as a whole number. */
int kit_json_whole(reunion_str object, const char* key, int64_t* number);

/* The same as true (1) or false (0). */
int kit_json_flag(reunion_str object, const char* key, int* flag);

/* ---- answer.c ---- */

/* Fills the error in, where there is room for it, and answers the status. key: of the config, or "". hint: what to do,
 * or "". Both are static texts. */
reunion_status kit_fail(reunion_error* error, reunion_status status, const char* key, const char* hint,
                        const char* message, ...) KIT_PRINTF(5, 6);

/* The answer to memory that is not there. */
reunion_status kit_no_memory(reunion_error* error);

/* The answer to a host that breaks the contract in this way. */
reunion_status kit_host_broke(reunion_error* error, const char* how);

/* Hands a JSON document out: the findings of a check, say, or an item of a stream. */
reunion_status kit_document(reunion_buf* out, const char* json, reunion_error* error);
reunion_status kit_item_document(reunion_item* out, int32_t kind, const char* json, reunion_error* error);

/* What every component has: a member of your struct reunion_instance. */
typedef struct kit_component {
  const reunion_host* host;
  atomic_int is_stopped; /* by cancel, for good */
  atomic_int is_broken;  /* after an internal error nobody relies on what is in the instance */
} kit_component;

reunion_status kit_component_begin(kit_component* component, const reunion_host* host, reunion_error* error);

/* Whether a call may be worked on: first in every function of the header that is given an instance, and in next.
 * call: NULL in describe. */
reunion_status kit_begin(const kit_component* component, const reunion_call* call, reunion_error* error);

/* Last in every such function, and in next: it remembers an internal error. */
reunion_status kit_finish(kit_component* component, reunion_status status);

/* REUNION_OK, or the answer of a call that is to stop. Look at least every 250 ms. */
reunion_status kit_go_on(const kit_component* component, const reunion_call* call, reunion_error* error);

/* The same, where there is something to be handed out before the answer. */
reunion_status kit_is_to_stop(const kit_component* component, const reunion_call* call);

/* What cancel does. */
void kit_stop(kit_component* component);

/* Writes a line to the host's log, where anybody listens at this level. */
void kit_log(const kit_component* component, int32_t level, const char* message, ...) KIT_PRINTF(3, 4);

/* What reunion_entry_v1 does: fills the table in, which has the members of version 1.0. */
reunion_status kit_entry(const reunion_plugin* table, uint32_t host_minor, reunion_plugin* out, reunion_error* error);

/* ---- table.c ---- */

/* Types of columns, as Arrow writes them. */
#define KIT_TEXT "u"
#define KIT_UINT64 "L"
#define KIT_TIMESTAMP "tsu:UTC" /* microseconds since 1970 UTC */

/* A column: its name and its type, both static. Any value may be null. */
typedef struct kit_field {
  const char* name;
  const char* type;
} kit_field;

/* The columns of REUNION_ITEM_REJECTED, of receipts, and of events. */
enum { KIT_REJECTED_FIELDS = 3, KIT_RECEIPT_FIELDS = 5, KIT_EVENT_FIELDS = 5 };
extern const kit_field kit_rejected_fields[KIT_REJECTED_FIELDS];
extern const kit_field kit_receipt_fields[KIT_RECEIPT_FIELDS];
extern const kit_field kit_event_fields[KIT_EVENT_FIELDS];

/* The schema of a batch with these columns. 0: no memory. */
int kit_schema(const kit_field* fields, size_t count, struct ArrowSchema* out);

/* Rows that are collected before they are handed out. */
typedef struct kit_table {
  const kit_field* fields;
  size_t count;
  struct kit_column* columns;
  size_t rows;
  size_t bytes; /* about */
} kit_table;

/* An empty table. 0: no memory. */
int kit_table_begin(kit_table* table, const kit_field* fields, size_t count);

/* The value of a column in the row that is being made. 0: no memory, or more text than a batch may hold. */
int kit_add_text(kit_table* table, size_t column, const char* bytes, size_t len);
int kit_add_number(kit_table* table, size_t column, int64_t number);

/* The row is complete: columns that were given no value are null in it. 0: no memory. */
int kit_end_row(kit_table* table);

/* Hands the rows out as an item of this kind; the table is empty afterwards. */
reunion_status kit_item_rows(reunion_item* out, int32_t kind, kit_table* table, reunion_error* error);

void kit_table_free(kit_table* table);

/* A column of a batch that was given: its type must be text or a number of 64 bits. NULL: there is none. */
const struct ArrowArray* kit_find(const struct ArrowSchema* schema, const struct ArrowArray* batch, const char* name,
                                  const char* type);

/* A value of such a column, as long as the batch is not released. 0: it is null. */
int kit_text_at(const struct ArrowArray* batch, const struct ArrowArray* column, int64_t row, reunion_str* text);
int kit_number_at(const struct ArrowArray* batch, const struct ArrowArray* column, int64_t row, int64_t* number);

#endif /* KIT_H */
