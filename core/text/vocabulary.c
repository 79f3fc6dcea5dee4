/* vocabulary.c - reading a vocabulary, and the hash table over its tokens. */
#include "core/text/vocabulary.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/octet.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/text/unicode.h"

/* A hash that an attacker could foresee would let a file put all its tokens into one chain. */
static uint64_t fresh_seed(const void *address)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint32_t r[4];
    oct_philox(r, (uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)address, 0, (uint64_t)now.tv_sec);
    return (uint64_t)r[0] << 32 | r[1];
}

static int64_t without_trailing_space(const char *line, int64_t bytes)
{
    while (bytes > 0) {
        int64_t start = bytes - 1;
        while (start > 0 && ((uint8_t)line[start] & 0xC0) == 0x80) start--;
        int32_t c = 0;
        oct_utf8_next((const uint8_t *)line + start, (const uint8_t *)line + bytes, &c);
        int space = c < 0x80 ? c == ' ' || (c >= '\t' && c <= '\r')
                             : c == 0x85 || oct_char_class(c) == OCT_CHAR_SPACE;
        if (!space) break;
        bytes = start;
    }
    return bytes;
}

static int insert(oct_vocabulary *v, int32_t id, const char *path)
{
    const char *token = v->text + v->starts[id];
    uint64_t hash = oct_vocabulary_hash(v, token, v->lengths[id]);
    uint64_t at = hash >> v->shift;
    for (; v->slots[at].id >= 0; at = (at + 1) & v->mask) {
        int32_t other = v->slots[at].id;
        if (v->slots[at].hash == hash && v->lengths[other] == v->lengths[id] &&
            memcmp(v->text + v->starts[other], token, (size_t)v->lengths[id]) == 0)
            return oct_fail("%s line %d: token \"%.60s%s\" stands in line %d already", path, id + 1,
                            token, v->lengths[id] > 60 ? "..." : "", other + 1);
    }
    v->slots[at] = (oct_vocabulary_slot){hash, id, (uint32_t)v->lengths[id]};
    return 0;
}

/* Cut the text into tokens, each ended by a 0 (in place of its line's end) for messages. */
static int cut(oct_vocabulary *v, int64_t bytes, const char *path)
{
    int64_t start = 0;
    for (int64_t id = 0; id < v->size; id++) {
        const char *newline = memchr(v->text + start, '\n', (size_t)(bytes - start));
        int64_t end = newline ? newline - v->text : bytes;
        int64_t length = without_trailing_space(v->text + start, end - start);
        if (length == 0)
            return oct_fail("%s line %lld: empty, expected a token", path, (long long)id + 1);
        if (length > INT32_MAX)
            return oct_fail("%s line %lld: a token of %lld bytes, expected fewer than 2^31", path,
                            (long long)id + 1, (long long)length);
        v->starts[id] = start;
        v->lengths[id] = (int32_t)length;
        if (length > v->longest) v->longest = length;
        v->text[start + length] = 0;
        start = end + 1;
    }
    return 0;
}

static int build(oct_vocabulary *v, const char *path)
{
    int64_t bytes;
    OCT_TRY(oct_file_load(&v->text, &bytes, path, -1));
    int64_t bad = oct_utf8_check(v->text, bytes);
    if (bad < bytes) {
        int64_t line = 1;
        for (int64_t i = 0; i < bad; i++) line += v->text[i] == '\n';
        return oct_fail("%s line %lld: not UTF-8 (byte 0x%02x)", path, (long long)line,
                        (uint8_t)v->text[bad]);
    }
    for (int64_t i = 0; i < bytes; i++) v->size += v->text[i] == '\n';
    if (bytes > 0 && v->text[bytes - 1] != '\n') v->size++;
    if (v->size == 0) return oct_fail("%s: empty, expected a vocabulary of one token a line", path);
    if (v->size > INT32_MAX)
        return oct_fail("%s: %lld tokens, expected at most %d", path, (long long)v->size,
                        INT32_MAX);
    v->starts = oct_malloc((size_t)v->size * sizeof *v->starts);
    v->lengths = oct_malloc((size_t)v->size * sizeof *v->lengths);
    if (!v->starts || !v->lengths) return -1;
    OCT_TRY(cut(v, bytes, path));

    int bits = 4;
    while (((int64_t)1 << bits) < 2 * v->size) bits++;
    v->slots = oct_malloc(((size_t)1 << bits) * sizeof *v->slots);
    if (!v->slots) return -1;
    for (int64_t i = 0; i < (int64_t)1 << bits; i++) v->slots[i].id = -1;
    v->shift = 64 - bits;
    v->mask = ((uint64_t)1 << bits) - 1;
    v->seed = fresh_seed(v->slots);
    for (int64_t id = 0; id < v->size; id++) OCT_TRY(insert(v, (int32_t)id, path));
    return 0;
}

int oct_vocabulary_read(oct_vocabulary *v, const char *path)
{
    memset(v, 0, sizeof *v);
    if (build(v, path) == 0) return 0;
    oct_vocabulary_clear(v);
    return -1;
}

void oct_vocabulary_clear(oct_vocabulary *v)
{
    oct_free(v->text);
    oct_free(v->starts);
    oct_free(v->lengths);
    oct_free(v->slots);
    memset(v, 0, sizeof *v);
}

int32_t oct_vocabulary_id(const oct_vocabulary *v, const char *token, int64_t bytes)
{
    return oct_vocabulary_find(v, oct_vocabulary_hash(v, token, bytes), token, bytes, 0);
}
