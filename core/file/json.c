/* json.c - see json.h. */
#include "core/file/json.h"

#include <string.h>

#include "core/error.h"

enum { DEEPEST = 64 };

void oct_json_start(oct_json *json, char *text, size_t bytes)
{
    *json = (oct_json){text, text, text + bytes, 0};
}

static int fail_here(const oct_json *json, const char *expected)
{
    long long at = json->at - json->text;
    if (json->at >= json->end)
        return oct_fail("byte %lld: the text ends, expected %s", at, expected);
    unsigned char c = (unsigned char)*json->at;
    if (c < 0x20 || c > 0x7e) return oct_fail("byte %lld is 0x%02x, expected %s", at, c, expected);
    return oct_fail("byte %lld is '%c', expected %s", at, c, expected);
}

static void skip_space(oct_json *json)
{
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' ||
                                    *json->at == '\t'))
        json->at++;
}

static int next_is(oct_json *json, char c)
{
    skip_space(json);
    if (json->at >= json->end || *json->at != c) return 0;
    json->at++;
    return 1;
}

int oct_json_enter(oct_json *json, char bracket)
{
    if (!next_is(json, bracket)) return fail_here(json, bracket == '{' ? "an object" : "an array");
    if (++json->depth > DEEPEST)
        return oct_fail("byte %lld: values nest more than %d deep",
                        (long long)(json->at - json->text), DEEPEST);
    return 0;
}

int oct_json_more(oct_json *json, char closing, int *first, int *more)
{
    *more = !next_is(json, closing);
    if (!*more) json->depth--;
    else if (!*first && !next_is(json, ',')) return fail_here(json, "a comma");
    *first = 0;
    return 0;
}

/* ---- strings --------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character that starts at `text`, 0 where there is none. */
static size_t character_bytes(const unsigned char *text, size_t bytes)
{
    unsigned c = text[0];
    if (c < 0x80) return 1;
    size_t length = c >= 0xc2 && c <= 0xdf   ? 2
                    : (c & 0xf0) == 0xe0     ? 3
                    : c >= 0xf0 && c <= 0xf4 ? 4
                                             : 0;
    if (length == 0 || length > bytes) return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    if ((c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] > 0x9f)) return 0;
    if ((c == 0xf0 && text[1] < 0x90) || (c == 0xf4 && text[1] > 0x8f)) return 0;
    return length;
}

int oct_is_utf8(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        size_t length = character_bytes((const unsigned char *)text + i, bytes - i);
        if (length == 0) return 0;
        i += length;
    }
    return 1;
}

/* Four hexadecimal digits at `at`; -1 where there are none. */
static int hex4(const oct_json *json, const char *at)
{
    int value = 0;
    if (json->end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* What follows \u: one unit, or two that are a surrogate pair. */
static int unicode_escape(oct_json *json, char **to)
{
    int high = hex4(json, json->at), low;
    if (high < 0) return fail_here(json, "four hexadecimal digits");
    if (high == 0) return fail_here(json, "no \\u0000");
    json->at += 4;
    uint32_t c = (uint32_t)high;
    if (high >= 0xd800 && high <= 0xdfff) {
        int paired = high <= 0xdbff && json->end - json->at >= 6 && json->at[0] == '\\' &&
                     json->at[1] == 'u' && (low = hex4(json, json->at + 2)) >= 0xdc00 &&
                     low <= 0xdfff;
        if (!paired) return fail_here(json, "the second half of a surrogate pair");
        c = 0x10000 + (((uint32_t)high - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        json->at += 6;
    }
    *to = put_utf8(*to, c);
    return 0;
}

static int escape(oct_json *json, char **to)
{
    static const char codes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = json->at < json->end ? *json->at : 0;
    if (c == 'u') {
        json->at++;
        return unicode_escape(json, to);
    }
    const char *code = c ? strchr(codes, c) : NULL;
    if (!code) return fail_here(json, "an escape");
    *(*to)++ = meanings[code - codes];
    json->at++;
    return 0;
}

int oct_json_string(oct_json *json, char **text)
{
    if (!next_is(json, '"')) return fail_here(json, "a string");
    char *start = json->at, *to = start;
    for (;;) {
        if (json->at >= json->end) return fail_here(json, "the end of a string");
        unsigned char c = (unsigned char)*json->at;
        if (c == '"') break;
        if (c < 0x20) return fail_here(json, "no control character in a string");
        if (c == '\\') {
            json->at++;
            OCT_TRY(escape(json, &to));
            continue;
        }
        size_t length = character_bytes((unsigned char *)json->at, (size_t)(json->end - json->at));
        if (length == 0) return fail_here(json, "UTF-8");
        memmove(to, json->at, length);
        to += length;
        json->at += length;
    }
    json->at++;
    /* Unescaped text is never longer: at the furthest, this overwrites the closing quote. */
    *to = 0;
    *text = start;
    return 0;
}

int oct_json_key(oct_json *json, char **text)
{
    OCT_TRY(oct_json_string(json, text));
    return next_is(json, ':') ? 0 : fail_here(json, "a colon");
}

/* ---- numbers and the rest -------------------------------------------------------------------- */

static int is_digit(const oct_json *json)
{
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

int oct_json_size(oct_json *json, int64_t *value)
{
    skip_space(json);
    if (!is_digit(json)) return fail_here(json, "a whole number from 0 on");
    char *start = json->at;
    int64_t sum = 0;
    for (; is_digit(json); json->at++)
        if (__builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, *json->at - '0', &sum))
            return fail_here(json, "a number below 2^63");
    if (*start == '0' && json->at - start > 1) return fail_here(json, "no leading zero");
    char next = json->at < json->end ? *json->at : 0;
    if (next == '.' || next == 'e' || next == 'E') return fail_here(json, "a whole number");
    *value = sum;
    return 0;
}

static int skip_digits(oct_json *json)
{
    if (!is_digit(json)) return fail_here(json, "a digit");
    while (is_digit(json)) json->at++;
    return 0;
}

static int skip_number(oct_json *json)
{
    if (json->at < json->end && *json->at == '-') json->at++;
    char *start = json->at;
    OCT_TRY(skip_digits(json));
    if (*start == '0' && json->at - start > 1) return fail_here(json, "no leading zero");
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        OCT_TRY(skip_digits(json));
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-')) json->at++;
        OCT_TRY(skip_digits(json));
    }
    return 0;
}

static int skip_word(oct_json *json, const char *word)
{
    size_t bytes = strlen(word);
    if ((size_t)(json->end - json->at) < bytes || memcmp(json->at, word, bytes) != 0)
        return fail_here(json, "a value");
    json->at += bytes;
    return 0;
}

static int skip_members(oct_json *json, char opening)
{
    int first = 1, more;
    char closing = opening == '{' ? '}' : ']', *key;
    OCT_TRY(oct_json_enter(json, opening));
    for (;;) {
        OCT_TRY(oct_json_more(json, closing, &first, &more));
        if (!more) return 0;
        if (opening == '{') OCT_TRY(oct_json_key(json, &key));
        OCT_TRY(oct_json_skip(json));
    }
}

int oct_json_skip(oct_json *json)
{
    char *text;
    skip_space(json);
    if (json->at >= json->end) return fail_here(json, "a value");
    switch (*json->at) {
    case '{': case '[': return skip_members(json, *json->at);
    case '"': return oct_json_string(json, &text);
    case 't': return skip_word(json, "true");
    case 'f': return skip_word(json, "false");
    case 'n': return skip_word(json, "null");
    default: return skip_number(json);
    }
}

int oct_json_finish(oct_json *json)
{
    skip_space(json);
    return json->at == json->end ? 0 : fail_here(json, "the end");
}
