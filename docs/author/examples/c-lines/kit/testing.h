/* SPDX-License-Identifier: Apache-2.0
 *
 * testing.h: a small host in the program of the tests, which calls the plugin as the real one does. It is no part of
 * the plugin. */
#ifndef KIT_TESTING_H
#define KIT_TESTING_H

#include "kit.h"

/* Ends the program where something does not hold. */
#define CHECK(condition) test_check((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_TEXT(left, right) test_check_text(left, right, __FILE__, __LINE__)
void test_check(int holds, const char* what, const char* file, int line);
void test_check_text(const char* left, const char* right, const char* file, int line);

/* The plugin's table, and an instance of it. The config has every key. */
reunion_plugin test_plugin(void);
reunion_instance* test_create(const reunion_plugin* plugin, const char* config);

/* A call without a deadline, which stays where it is. */
typedef struct test_call {
  reunion_call call;
  atomic_int is_cancelled;
} test_call;
void test_call_begin(test_call* call);

/* An error to be filled in. */
reunion_error test_error(void);

/* Fails unless the status is this and the error blames this key; gives the error back. */
#define CHECK_ERROR(status, wanted, error, key) test_check_error(status, wanted, error, key, __FILE__, __LINE__)
void test_check_error(reunion_status status, reunion_status wanted, reunion_error* error, const char* key,
                      const char* file, int line);

/* An empty stream, and the next item of one that was filled in. */
reunion_stream test_stream(void);
reunion_status test_next(reunion_stream* stream, reunion_item* item, reunion_error* error);
void test_release_item(reunion_item* item);

/* A text that grows, to be freed. */
typedef struct test_text {
  char* text;
  size_t len;
} test_text;
void test_append(test_text* to, reunion_str text);

/* Appends the rows of a batch: their texts with commas between them, and a line feed. Numbers and nulls are empty. */
void test_append_rows(test_text* to, const reunion_item* item);

/* Appends the items of a stream that yields no error, up to its END, and releases it: a line for each row, and one for
 * the control document of each other item. */
void test_append_items(test_text* to, reunion_stream* stream);

/* The tasks of a dispatch, numbered from 1, in an item's schema and array. */
void test_tasks(reunion_item* out, size_t count);

#endif /* KIT_TESTING_H */
