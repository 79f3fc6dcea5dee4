/* json.h - reads JSON (RFC 8259) where it stands, in one pass, without building a tree.
 *
 * The reader walks a text that the caller owns and may be written to: a string is unescaped in its
 * own place and ended by a 0, so reading takes no memory beyond the text, whatever the text says.
 * Strings are checked to be UTF-8; \u0000 is refused. Every function returns 0, or -1 with "byte N:
 * ..." as the error, after which the reader is of no more use. */
#ifndef OCT_FILE_JSON_H
#define OCT_FILE_JSON_H
#include <stddef.h>
#include <stdint.h>

typedef struct oct_json {
    char *text, *at, *end;
    int depth;
} oct_json;

void oct_json_start(oct_json *json, char *text, size_t bytes);
/* Step into an object ('{') or an array ('['). */
int oct_json_enter(oct_json *json, char bracket);
/* more 1: an element or key comes; 0: the closing bracket has been passed. `first` starts as 1. */
int oct_json_more(oct_json *json, char closing, int *first, int *more);
int oct_json_string(oct_json *json, char **text);
/* A string and the colon after it. */
int oct_json_key(oct_json *json, char **text);
/* A whole number from 0 to 2^63 - 1. */
int oct_json_size(oct_json *json, int64_t *value);
/* Any value, checked and passed over. Nesting beyond 64 is an error. */
int oct_json_skip(oct_json *json);
/* Only white space may be left. */
int oct_json_finish(oct_json *json);

/* 1 where `bytes` bytes are UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
int oct_is_utf8(const char *text, size_t bytes);

#endif
