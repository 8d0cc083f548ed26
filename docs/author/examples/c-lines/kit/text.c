/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts, and the JSON documents of the host. The host has checked that they are JSON; a text that is none is answered
 * with "not there" and harms nobody. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kit.h"

/* Tables within tables. */
enum { DEPTH_MAX = 64 };

reunion_str kit_str(const char* text) {
  reunion_str out = {text, strlen(text)};
  return out;
}

char* kit_copy(reunion_str text) {
  char* copy = malloc(text.len + 1);
  if (copy == NULL) return NULL;
  if (text.len > 0) memcpy(copy, text.ptr, text.len);
  copy[text.len] = '\0';
  return copy;
}

/* How many bytes a character has that begins with this one, and the least that its second may be; 0: none does. */
static size_t character(unsigned char first, unsigned char* low, unsigned char* high) {
  *low = 0x80;
  *high = 0xbf;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) {
    if (first == 0xe0) *low = 0xa0;  /* else it would be longer than it has to be */
    if (first == 0xed) *high = 0x9f; /* half of a pair of UTF-16 */
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (first == 0xf0) *low = 0x90;
    if (first == 0xf4) *high = 0x8f; /* beyond the last */
    return 4;
  }
  return 0;
}

int kit_is_utf8(const char* bytes, size_t len) {
  const unsigned char* text = (const unsigned char*)bytes;
  size_t at = 0;
  while (at < len) {
    unsigned char low, high;
    size_t size = character(text[at], &low, &high);
    if (size == 0 || size > len - at) return 0;
    for (size_t next = 1; next < size; next++) {
      if (text[at + next] < low || text[at + next] > high) return 0;
      low = 0x80;
      high = 0xbf;
    }
    at += size;
  }
  return 1;
}

/* What is left of a document. */
typedef struct unread {
  const char* at;
  const char* end;
} unread;

static int is_one_of(char c, const char* set) { return c != '\0' && strchr(set, c) != NULL; }

static void skip_space(unread* rest) {
  while (rest->at < rest->end && is_one_of(*rest->at, " \t\r\n")) rest->at++;
}

static int take(unread* rest, char wanted) {
  skip_space(rest);
  if (rest->at >= rest->end || *rest->at != wanted) return 0;
  rest->at++;
  return 1;
}

/* A text with its quotes. */
static int skip_text(unread* rest) {
  if (!take(rest, '"')) return 0;
  while (rest->at < rest->end && *rest->at != '"') {
    size_t size = *rest->at == '\\' ? 2 : 1;
    if (size > (size_t)(rest->end - rest->at)) return 0;
    rest->at += size;
  }
  if (rest->at >= rest->end) return 0;
  rest->at++;
  return 1;
}

/* A value of any kind. */
static int skip_value(unread* rest) {
  int depth = 0;
  do {
    skip_space(rest);
    if (rest->at >= rest->end || depth > DEPTH_MAX) return 0;
    switch (*rest->at) {
      case '"':
        if (!skip_text(rest)) return 0;
        break;
      case '{':
      case '[':
        depth++;
        rest->at++;
        break;
      case '}':
      case ']':
        depth--;
        rest->at++;
        break;
      case ',':
      case ':':
        rest->at++;
        break;
      default: /* a number, true, false, null */
        while (rest->at < rest->end && !is_one_of(*rest->at, ",:]} \t\r\n")) rest->at++;
    }
  } while (depth > 0);
  return depth == 0;
}

int kit_json(reunion_str object, const char* key, reunion_str* value) {
  if (object.len == 0) return 0;
  unread rest = {object.ptr, object.ptr + object.len};
  size_t key_len = strlen(key);
  if (!take(&rest, '{')) return 0;
  while (!take(&rest, '}')) {
    skip_space(&rest);
    const char* name = rest.at + 1;
    if (!skip_text(&rest)) return 0;
    size_t name_len = (size_t)(rest.at - 1 - name);
    if (!take(&rest, ':')) return 0;
    skip_space(&rest);
    const char* start = rest.at;
    if (!skip_value(&rest)) return 0;
    if (name_len == key_len && memcmp(name, key, key_len) == 0) {
      value->ptr = start;
      value->len = (size_t)(rest.at - start);
      return 1;
    }
    take(&rest, ',');
  }
  return 0;
}

static int hex4(const char* at, const char* end, unsigned* value) {
  if (end - at < 4) return 0;
  *value = 0;
  for (int digit = 0; digit < 4; digit++) {
    char c = at[digit];
    unsigned number = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                      : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                      : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                             : 16;
    if (number > 15) return 0;
    *value = *value * 16 + number;
  }
  return 1;
}

/* Writes a character and answers how many bytes it has. */
static size_t put_character(char* out, unsigned character) {
  if (character < 0x80) {
    out[0] = (char)character;
    return 1;
  }
  size_t size = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
  for (size_t at = size - 1; at > 0; at--) {
    out[at] = (char)(0x80 | (character & 0x3f));
    character >>= 6;
  }
  out[0] = (char)((size == 2 ? 0xc0u : size == 3 ? 0xe0u : 0xf0u) | character);
  return size;
}

/* The character behind a backslash and a u, which may be written as a pair. 0: it is none. */
static unsigned escaped_character(const char** at, const char* end) {
  unsigned first, second;
  if (!hex4(*at, end, &first)) return 0;
  *at += 4;
  if (first >= 0xdc00 && first <= 0xdfff) return 0;
  if (first < 0xd800 || first > 0xdbff) return first;
  if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u' || !hex4(*at + 2, end, &second)) return 0;
  if (second < 0xdc00 || second > 0xdfff) return 0;
  *at += 6;
  return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

/* One escape, from behind its backslash. A zero byte would end the text in the middle, so that it counts as wrong. */
static size_t put_escape(char* out, const char** at, const char* end) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  if (*at >= end) return 0;
  char name = *(*at)++;
  if (name == 'u') {
    unsigned character = escaped_character(at, end);
    return character == 0 ? 0 : put_character(out, character);
  }
  if (!is_one_of(name, names)) return 0;
  *out = values[strchr(names, name) - names];
  return 1;
}

int kit_json_text(reunion_str object, const char* key, char** text) {
  reunion_str value;
  if (!kit_json(object, key, &value) || value.len < 2 || value.ptr[0] != '"') return 0;
  const char *at = value.ptr + 1, *end = value.ptr + value.len - 1;
  /* An escape is never shorter than what it stands for. */
  char* out = malloc(value.len);
  if (out == NULL) return 0;
  size_t len = 0;
  while (at < end) {
    size_t written = 1;
    if (*at == '\\') {
      at++;
      written = put_escape(out + len, &at, end);
    } else {
      written = *at != '\0';
      out[len] = *at++;
    }
    if (written == 0) {
      free(out);
      return 0;
    }
    len += written;
  }
  out[len] = '\0';
  *text = out;
  return 1;
}

int kit_json_whole(reunion_str object, const char* key, int64_t* number) {
  reunion_str value;
  char digits[24];
  if (!kit_json(object, key, &value) || value.len == 0 || value.len >= sizeof digits) return 0;
  memcpy(digits, value.ptr, value.len);
  digits[value.len] = '\0';
  if (digits[0] != '-' && (digits[0] < '0' || digits[0] > '9')) return 0;
  char* end;
  errno = 0;
  long long parsed = strtoll(digits, &end, 10);
  if (errno != 0 || *end != '\0' || end == digits) return 0;
  *number = parsed;
  return 1;
}

int kit_json_flag(reunion_str object, const char* key, int* flag) {
  reunion_str value;
  if (!kit_json(object, key, &value)) return 0;
  int is_true = value.len == 4 && memcmp(value.ptr, "true", 4) == 0;
  int is_false = value.len == 5 && memcmp(value.ptr, "false", 5) == 0;
  if (is_true || is_false) *flag = is_true;
  return is_true || is_false;
}
