/* unicode.h - UTF-8, and the classes of characters that BERT's tokenizer goes by. */
#ifndef OCT_TEXT_UNICODE_H
#define OCT_TEXT_UNICODE_H
#include <stdint.h>

/* ORDER CLASS: core/text/unicode.c. What becomes of a character beyond ASCII. */
enum {
    OCT_CHAR_PLAIN,                /* part of a word */
    OCT_CHAR_DROPPED,              /* a control, format or private character, or U+FFFD */
    OCT_CHAR_SPACE,
    OCT_CHAR_CHINESE,              /* a word of its own, even before it is decomposed */
    OCT_CHAR_PUNCTUATION,          /* a word of its own */
    OCT_CHAR_MARK                  /* nonspacing: what "strip accents" takes away */
};
int oct_char_class(int32_t character);

/* Canonical decomposition of one character into out[at most 8]; returns how many there are. */
int oct_char_decompose(int32_t character, int32_t out[8]);
/* Canonical combining class: 0 for a starter. */
int oct_char_combining(int32_t character);
/* Full lower-case mapping into out[at most 2]; returns how many there are. */
int oct_char_lower(int32_t character, int32_t out[2]);

/* The character at p (p < end), and where the next one begins; NULL where p does not begin
 * well-formed UTF-8 (over-long forms, surrogates and what lies past U+10FFFF included). */
static inline const uint8_t *oct_utf8_next(const uint8_t *p, const uint8_t *end, int32_t *character)
{
    uint32_t a = p[0];
    if (a < 0x80) {
        *character = (int32_t)a;
        return p + 1;
    }
    int64_t left = end - p;
    if (a >= 0xC2 && a <= 0xDF && left >= 2 && (p[1] & 0xC0) == 0x80) {
        *character = (int32_t)((a & 0x1F) << 6 | (p[1] & 0x3F));
        return p + 2;
    }
    if ((a & 0xF0) == 0xE0 && left >= 3 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80) {
        uint32_t c = (a & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
        *character = (int32_t)c;
        return c >= 0x800 && (c < 0xD800 || c > 0xDFFF) ? p + 3 : 0;
    }
    if (a >= 0xF0 && a <= 0xF4 && left >= 4 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 &&
        (p[3] & 0xC0) == 0x80) {
        uint32_t c = (a & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 |
                     (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
        *character = (int32_t)c;
        return c >= 0x10000 && c <= 0x10FFFF ? p + 4 : 0;
    }
    return 0;
}

/* Write a character as UTF-8 into out[at most 4]; returns how many bytes it took. */
static inline int oct_utf8_write(uint8_t *out, int32_t character)
{
    uint32_t c = (uint32_t)character;
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

/* Offset of the first byte that is not well-formed UTF-8, or `bytes` where all is well. */
int64_t oct_utf8_check(const char *text, int64_t bytes);

#endif
