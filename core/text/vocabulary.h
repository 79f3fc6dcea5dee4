/* vocabulary.h - a vocabulary as one piece of memory with a hash table over its tokens.
 *
 * A token's id is its place in the file, from 0. The hash runs byte by byte, so that the hashes of
 * all prefixes of a word fall out of one pass over it. */
#ifndef OCT_TEXT_VOCABULARY_H
#define OCT_TEXT_VOCABULARY_H
#include <stddef.h>
#include <stdint.h>

typedef struct oct_vocabulary_slot {
    uint64_t hash;
    int32_t id;                    /* -1: empty */
    uint32_t bytes;
} oct_vocabulary_slot;

typedef struct oct_vocabulary {
    char *text;                    /* the file's content */
    int64_t *starts;               /* [size] where a token begins in `text` */
    int32_t *lengths;              /* [size] bytes */
    int64_t size;
    int64_t longest;               /* bytes of the longest token */
    oct_vocabulary_slot *slots;
    uint64_t seed;                 /* drawn anew for each vocabulary: no file can aim at it */
    int shift;                     /* slot of a hash: hash >> shift, then linear probing */
    uint64_t mask;
} oct_vocabulary;

/* Read `path`: UTF-8, one token a line; white space at a line's end, CR included, is not part of
 * it. Errors (path and line): an empty line, a token that occurs twice, bytes that are not UTF-8,
 * more than 2^31 - 1 tokens, no token at all. */
int oct_vocabulary_read(oct_vocabulary *vocabulary, const char *path);
void oct_vocabulary_clear(oct_vocabulary *vocabulary);

static inline uint64_t oct_vocabulary_mix(uint64_t hash, uint8_t byte)
{
    return (hash ^ byte) * 0x9E3779B97F4A7C15u;
}
static inline uint64_t oct_vocabulary_hash(const oct_vocabulary *v, const char *token,
                                           int64_t bytes)
{
    uint64_t hash = v->seed;
    for (int64_t i = 0; i < bytes; i++) hash = oct_vocabulary_mix(hash, (uint8_t)token[i]);
    return hash;
}
/* The id of the token prefix + rest (prefix_bytes 0 to 2 of "##"), whose hash is given; -1 where
 * there is none. */
static inline int32_t oct_vocabulary_find(const oct_vocabulary *v, uint64_t hash, const void *rest,
                                          int64_t rest_bytes, int64_t prefix_bytes)
{
    for (uint64_t at = hash >> v->shift;; at = (at + 1) & v->mask) {
        const oct_vocabulary_slot *slot = v->slots + at;
        if (slot->id < 0) return -1;
        if (slot->hash != hash || slot->bytes != rest_bytes + prefix_bytes) continue;
        const char *token = v->text + v->starts[slot->id];
        if (__builtin_memcmp(token + prefix_bytes, rest, (size_t)rest_bytes) == 0 &&
            __builtin_memcmp(token, "##", (size_t)prefix_bytes) == 0)
            return slot->id;
    }
}
/* The id of a whole token, -1 where there is none. */
int32_t oct_vocabulary_id(const oct_vocabulary *vocabulary, const char *token, int64_t bytes);

#endif
