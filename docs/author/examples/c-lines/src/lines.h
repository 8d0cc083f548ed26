/* SPDX-License-Identifier: Apache-2.0
 *
 * The lines of a text file, one after the other, in memory that does not grow with the file. Nothing here knows of
 * plugins. */
#ifndef LINES_H
#define LINES_H

#include <stddef.h>
#include <stdint.h>

/* What tells the content of a file from another that has the same path. */
typedef struct file_id {
  uint64_t size;
  int64_t mtime_ns; /* nanoseconds since 1970 UTC */
  uint64_t head;    /* a hash of the first 4 KiB */
} file_id;

/* A file that is being read. */
typedef struct line_file {
  int descriptor;
  file_id id;
  size_t line_bytes_max;
  char* buffer;
  size_t room;
  size_t start; /* what of the buffer is not read yet */
  size_t end;
  uint64_t offset; /* of the line that comes next, in bytes */
  uint64_t number; /* of the last line, the first being 1 */
  int is_at_end;
  int is_too_long; /* within a line that is passed over */
} line_file;

/* A line without what ends it, valid until the next is read. */
typedef struct text_line {
  const char* text;
  size_t len;
  int is_ended; /* the file did not end within it */
} text_line;

/* What an attempt at a line came to. Each reads from the file once at most, so that whoever reads can stop in
 * between. */
typedef enum lines_step {
  LINES_LINE,
  LINES_TOO_LONG, /* a line of more than line_bytes_max, passed over */
  LINES_AGAIN,    /* ask again */
  LINES_END,
  LINES_FAILED /* errno says why */
} lines_step;

/* Opens a file. 0, or what errno says: EISDIR for a folder, EINVAL for what is no file, ENOMEM. */
int lines_open(line_file* file, const char* path, size_t line_bytes_max);

/* Goes on behind the line of this number, which ends at this offset. 0, or what errno says. */
int lines_go_to(line_file* file, uint64_t offset, uint64_t number);

lines_step lines_next(line_file* file, text_line* out);

/* Whether the file has the size and time that it had when it was opened. */
int lines_is_unchanged(const line_file* file);

void lines_close(line_file* file);

#endif /* LINES_H */
