/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 4096, READ_BYTES = 1 << 16 };

static const char byte_order_mark[] = "\xef\xbb\xbf";

static uint64_t fnv1a(const char* bytes, size_t len) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t at = 0; at < len; at++) {
    hash = (hash ^ (unsigned char)bytes[at]) * 0x100000001b3u;
  }
  return hash;
}

static int64_t mtime_ns(const struct stat* status) {
  return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

/* The first bytes of a file, fewer where it has fewer; -1: errno says why. */
static ssize_t read_head(int descriptor, char head[HEAD_BYTES]) {
  size_t len = 0;
  while (len < HEAD_BYTES) {
    ssize_t more = pread(descriptor, head + len, HEAD_BYTES - len, (off_t)len);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) return -1;
    if (more == 0) break;
    len += (size_t)more;
  }
  return (ssize_t)len;
}

static int identify(int descriptor, file_id* id) {
  struct stat status;
  char head[HEAD_BYTES];
  if (fstat(descriptor, &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  if (!S_ISREG(status.st_mode)) return EINVAL;
  ssize_t len = read_head(descriptor, head);
  if (len < 0) return errno;
  id->size = (uint64_t)status.st_size;
  id->mtime_ns = mtime_ns(&status);
  id->head = fnv1a(head, (size_t)len);
  return 0;
}

int lines_open(line_file* file, const char* path, size_t line_bytes_max) {
  memset(file, 0, sizeof *file);
  /* Not to be waited for, where somebody has put a pipe in the file's place. */
  file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (file->descriptor < 0) return errno;
  file->line_bytes_max = line_bytes_max;
  /* A line of the greatest length, what ends it, and room to read on. */
  file->room = line_bytes_max + 2 + READ_BYTES;
  file->buffer = malloc(file->room);
  int failed = file->buffer == NULL ? ENOMEM : identify(file->descriptor, &file->id);
  if (failed != 0) lines_close(file);
  return failed;
}

void lines_close(line_file* file) {
  free(file->buffer);
  file->buffer = NULL;
  if (file->descriptor >= 0) close(file->descriptor);
  file->descriptor = -1;
}

int lines_go_to(line_file* file, uint64_t offset, uint64_t number) {
  if (lseek(file->descriptor, (off_t)offset, SEEK_SET) < 0) return errno;
  file->offset = offset;
  file->number = number;
  return 0;
}

int lines_is_unchanged(const line_file* file) {
  struct stat status;
  if (fstat(file->descriptor, &status) != 0) return 0;
  return (uint64_t)status.st_size == file->id.size && mtime_ns(&status) == file->id.mtime_ns;
}

/* Takes a line out of the buffer, with the line feed that ends it if it has one. */
static lines_step take(line_file* file, size_t len, int is_ended, text_line* out) {
  const char* text = file->buffer + file->start;
  size_t taken = len + (is_ended ? 1 : 0);
  file->start += taken;
  file->offset += taken;
  file->number++;
  if (len > 0 && text[len - 1] == '\r') len--;
  int is_too_long = file->is_too_long || len > file->line_bytes_max;
  file->is_too_long = 0;
  if (is_too_long) return LINES_TOO_LONG;
  if (file->number == 1 && len >= 3 && memcmp(text, byte_order_mark, 3) == 0) {
    text += 3;
    len -= 3;
  }
  out->text = text;
  out->len = len;
  out->is_ended = is_ended;
  return LINES_LINE;
}

static lines_step read_on(line_file* file) {
  memmove(file->buffer, file->buffer + file->start, file->end - file->start);
  file->end -= file->start;
  file->start = 0;
  ssize_t more = read(file->descriptor, file->buffer + file->end, file->room - file->end);
  if (more < 0) return errno == EINTR ? LINES_AGAIN : LINES_FAILED;
  file->end += (size_t)more;
  file->is_at_end = more == 0;
  return LINES_AGAIN;
}

lines_step lines_next(line_file* file, text_line* out) {
  size_t len = file->end - file->start;
  const char* feed = len == 0 ? NULL : memchr(file->buffer + file->start, '\n', len);
  if (feed != NULL) return take(file, (size_t)(feed - (file->buffer + file->start)), 1, out);
  if (file->is_at_end) return len == 0 && !file->is_too_long ? LINES_END : take(file, len, 0, out);
  if (len > file->line_bytes_max + 1) { /* the last byte may be a carriage return */
    file->is_too_long = 1;
    file->offset += len;
    file->start = file->end;
  }
  return read_on(file);
}
