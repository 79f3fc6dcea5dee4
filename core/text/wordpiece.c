/* wordpiece.c - from bytes to ids in one pass.
 *
 * ASCII takes the short way: a table turns each byte into the word's byte, and the hash of every
 * prefix is kept as it comes, so that most words cost one look into the vocabulary. What lies
 * beyond ASCII goes character by character through beyond_ascii(), which adds to the same word. */
#include "core/text/wordpiece.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/text/unicode.h"

/* The word that is being read. Characters past the limit are not kept. */
typedef struct word {
    int bytes, characters, too_long;
    uint8_t text[OCT_WORD_BYTES];
    uint64_t hash[OCT_WORD_BYTES + 1];     /* of the first n bytes */
} word;

/* Characters that wait for a starter, in the order of their combining class. The nonspacing ones,
 * which is nearly all, are dropped and need no place here. */
typedef struct waiting {
    int count;
    int32_t characters[OCT_WORD_CHARS + 1];
    uint8_t classes[OCT_WORD_CHARS + 1];
} waiting;

int oct_id_list_grow(oct_id_list *list, int64_t more)
{
    int64_t room = list->room * 2 > list->size + more ? list->room * 2 : list->size + more + 1024;
    int32_t *ids = oct_realloc(list->ids, (size_t)room * sizeof *ids);
    if (!ids) return -1;
    list->ids = ids;
    list->room = room;
    return 0;
}

/* ---- a word into its pieces ------------------------------------------------------------------ */

static int is_boundary(const word *w, int at)
{
    return at == w->bytes || (w->text[at] & 0xC0) != 0x80;
}

/* Greedy, longest piece first; all or nothing. There is room for an id for each byte. */
static void add_pieces(oct_id_list *list, const oct_wordpiece *wp, word *w)
{
    const oct_vocabulary *v = &wp->vocabulary;
    int64_t before = list->size;
    int limit = w->bytes < v->longest ? w->bytes : (int)v->longest, prefix = 0;
    for (int start = 0; start < w->bytes;) {
        int end = limit;
        int32_t id = -1;
        for (; end > start; end--) {
            if (!is_boundary(w, end)) continue;
            id = oct_vocabulary_find(v, w->hash[end], w->text + start, end - start, prefix);
            if (id >= 0) break;
        }
        if (id < 0) {
            list->size = before;
            list->ids[list->size++] = wp->unknown;
            return;
        }
        list->ids[list->size++] = id;
        start = end;
        prefix = 2;
        limit = w->bytes - start < v->longest - 2 ? w->bytes : start + (int)(v->longest - 2);
        uint64_t hash = wp->piece_seed;
        for (int i = start; i < limit; i++) {
            hash = oct_vocabulary_mix(hash, w->text[i]);
            w->hash[i + 1] = hash;
        }
    }
}

static int end_word(oct_id_list *list, const oct_wordpiece *wp, word *w)
{
    if (w->bytes == 0 && !w->too_long) return 0;
    OCT_TRY(oct_id_list_reserve(list, OCT_WORD_BYTES));
    if (w->too_long) {
        list->ids[list->size++] = wp->unknown;
    } else {
        int32_t id = oct_vocabulary_find(&wp->vocabulary, w->hash[w->bytes], w->text, w->bytes, 0);
        if (id >= 0)
            list->ids[list->size++] = id;
        else
            add_pieces(list, wp, w);
    }
    w->bytes = w->characters = w->too_long = 0;
    return 0;
}

static void add_to_word(word *w, int32_t character)
{
    if (w->characters == OCT_WORD_CHARS) {
        w->too_long = 1;
        return;
    }
    int n = oct_utf8_write(w->text + w->bytes, character);
    for (int i = 0; i < n; i++) {
        w->hash[w->bytes + 1] = oct_vocabulary_mix(w->hash[w->bytes], w->text[w->bytes]);
        w->bytes++;
    }
    w->characters++;
}

/* ---- beyond ASCII ---------------------------------------------------------------------------- */

static int is_ascii_punctuation(int32_t c)
{
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
}

/* A character that is clean and decomposed: lower case, then punctuation or part of the word. */
static int add_character(oct_id_list *list, const oct_wordpiece *wp, word *w, int32_t character)
{
    int32_t lower[2] = {character, 0};
    int n = wp->flags & OCT_WORDPIECE_LOWER ? oct_char_lower(character, lower) : 1;
    for (int i = 0; i < n; i++) {
        int32_t c = lower[i];
        if (c < 0x80 ? is_ascii_punctuation(c) : oct_char_class(c) == OCT_CHAR_PUNCTUATION) {
            OCT_TRY(end_word(list, wp, w));
            add_to_word(w, c);
            OCT_TRY(end_word(list, wp, w));
        } else {
            add_to_word(w, c);
        }
    }
    return 0;
}

static int add_waiting(oct_id_list *list, const oct_wordpiece *wp, word *w, waiting *late)
{
    for (int i = 0; i < late->count; i++)
        OCT_TRY(add_character(list, wp, w, late->characters[i]));
    late->count = 0;
    return 0;
}

/* Keep a non-starter in canonical order. More than a word may hold make the word too long whatever
 * their order, so the number that waits is bounded. */
static void wait_for_starter(waiting *late, int32_t character, int class)
{
    int at = late->count;
    if (at == OCT_WORD_CHARS + 1) return;
    for (; at > 0 && late->classes[at - 1] > class; at--) {
        late->characters[at] = late->characters[at - 1];
        late->classes[at] = late->classes[at - 1];
    }
    late->characters[at] = character;
    late->classes[at] = (uint8_t)class;
    late->count++;
}

static int add_decomposed(oct_id_list *list, const oct_wordpiece *wp, word *w, waiting *late,
                          int32_t character)
{
    int32_t parts[8];
    int n = oct_char_decompose(character, parts);
    for (int i = 0; i < n; i++) {
        int class = parts[i] < 0x80 ? 0 : oct_char_combining(parts[i]);
        int mark = parts[i] >= 0x80 && oct_char_class(parts[i]) == OCT_CHAR_MARK;
        if (class == 0) OCT_TRY(add_waiting(list, wp, w, late));
        if (mark) continue;
        if (class == 0)
            OCT_TRY(add_character(list, wp, w, parts[i]));
        else
            wait_for_starter(late, parts[i], class);
    }
    return 0;
}

/* Take in the run of characters beyond ASCII at *at, with the ASCII controls that are dropped from
 * its midst, and move *at behind it. */
static int beyond_ascii(oct_id_list *list, const oct_wordpiece *wp, word *w, const uint8_t **at,
                        const uint8_t *end)
{
    waiting late;
    late.count = 0;
    int strip = wp->flags & OCT_WORDPIECE_STRIP_ACCENTS;
    const uint8_t *p = *at;
    while (p < end && wp->byte_kind[*p] <= OCT_BYTE_BEYOND) {
        int kind = wp->byte_kind[*p];
        if (kind != OCT_BYTE_BEYOND && kind != OCT_BYTE_DROPPED) break;
        if (kind == OCT_BYTE_DROPPED) {
            p++;
            continue;
        }
        int32_t c;
        const uint8_t *next = oct_utf8_next(p, end, &c);
        if (!next) {
            *at = p;
            return 1;
        }
        p = next;
        int class = oct_char_class(c);
        if (class == OCT_CHAR_DROPPED) continue;
        int apart = class == OCT_CHAR_SPACE ||
                    (class == OCT_CHAR_CHINESE && wp->flags & OCT_WORDPIECE_CHINESE);
        if (apart) {
            OCT_TRY(add_waiting(list, wp, w, &late));
            OCT_TRY(end_word(list, wp, w));
        }
        if (class == OCT_CHAR_SPACE) continue;
        OCT_TRY(strip ? add_decomposed(list, wp, w, &late, c) : add_character(list, wp, w, c));
        if (apart) OCT_TRY(end_word(list, wp, w));
    }
    OCT_TRY(add_waiting(list, wp, w, &late));
    *at = p;
    return 0;
}

/* ---- a text ---------------------------------------------------------------------------------- */

/* The id of the special token that stands at p, and its length; -1 where there is none. */
static int32_t special_at(int64_t *bytes, const oct_wordpiece *wp, const uint8_t *p,
                          const uint8_t *end)
{
    const struct { const char *text; int64_t bytes; int32_t id; } specials[] = {
        {"[UNK]", 5, wp->unknown}, {"[CLS]", 5, wp->start}, {"[SEP]", 5, wp->separator},
        {"[PAD]", 5, wp->padding}, {"[MASK]", 6, wp->mask},
    };
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        if (specials[i].id < 0 || end - p < specials[i].bytes) continue;
        if (memcmp(p, specials[i].text, (size_t)specials[i].bytes) != 0) continue;
        *bytes = specials[i].bytes;
        return specials[i].id;
    }
    return -1;
}

static int punctuation(oct_id_list *list, const oct_wordpiece *wp, const uint8_t **at,
                       const uint8_t *end)
{
    const uint8_t *p = *at;
    int64_t bytes = 1;
    int32_t id = -1;
    if (*p == '[' && wp->flags & OCT_WORDPIECE_SPECIAL) id = special_at(&bytes, wp, p, end);
    if (id < 0) id = wp->punctuation[*p];
    OCT_TRY(oct_id_list_reserve(list, 1));
    list->ids[list->size++] = id;
    *at = p + bytes;
    return 0;
}

int oct_wordpiece_append(oct_id_list *list, int64_t *bad, const oct_wordpiece *wp, const char *text,
                         int64_t bytes)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + bytes;
    word w;
    w.bytes = w.characters = w.too_long = 0;
    w.hash[0] = wp->vocabulary.seed;
    *bad = -1;
    while (p < end) {
        int kind = wp->byte_kind[*p];
        if (kind > OCT_BYTE_BEYOND) {
            const uint8_t *run = p, *stop = p + (OCT_WORD_CHARS - w.characters);
            if (stop > end) stop = end;
            int n = w.bytes;
            uint64_t hash = w.hash[n];
            while (p < stop && (kind = wp->byte_kind[*p]) > OCT_BYTE_BEYOND) {
                w.text[n++] = (uint8_t)kind;
                hash = oct_vocabulary_mix(hash, (uint8_t)kind);
                w.hash[n] = hash;
                p++;
            }
            w.bytes = n;
            w.characters += (int)(p - run);
            for (; p < end && wp->byte_kind[*p] > OCT_BYTE_BEYOND; p++) w.too_long = 1;
        } else if (kind == OCT_BYTE_SPACE) {
            OCT_TRY(end_word(list, wp, &w));
            p++;
        } else if (kind == OCT_BYTE_PUNCTUATION) {
            OCT_TRY(end_word(list, wp, &w));
            OCT_TRY(punctuation(list, wp, &p, end));
        } else if (kind == OCT_BYTE_DROPPED) {
            p++;
        } else {
            int status = beyond_ascii(list, wp, &w, &p, end);
            if (status > 0) {
                *bad = p - (const uint8_t *)text;
                return oct_fail("byte %lld (0x%02x) is not UTF-8", (long long)*bad, *p);
            }
            if (status < 0) return -1;
        }
    }
    return end_word(list, wp, &w);
}

/* ---- loading --------------------------------------------------------------------------------- */

static int find_specials(oct_wordpiece *wp, const char *path)
{
    const struct { const char *token; int32_t *id; int needed; } specials[] = {
        {"[UNK]", &wp->unknown, 1}, {"[CLS]", &wp->start, 1}, {"[SEP]", &wp->separator, 1},
        {"[PAD]", &wp->padding, 0}, {"[MASK]", &wp->mask, 0},
    };
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        *specials[i].id = oct_vocabulary_id(&wp->vocabulary, specials[i].token,
                                            (int64_t)strlen(specials[i].token));
        if (*specials[i].id < 0 && specials[i].needed)
            return oct_fail("%s: no token %s among %lld lines, expected a BERT vocabulary", path,
                            specials[i].token, (long long)wp->vocabulary.size);
    }
    return 0;
}

static void fill_tables(oct_wordpiece *wp)
{
    for (int c = 0; c < 256; c++) {
        int upper = c >= 'A' && c <= 'Z';
        if (c >= 0x80)
            wp->byte_kind[c] = OCT_BYTE_BEYOND;
        else if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            wp->byte_kind[c] = OCT_BYTE_SPACE;
        else if (c < 0x20 || c == 0x7F)
            wp->byte_kind[c] = OCT_BYTE_DROPPED;
        else if (is_ascii_punctuation(c))
            wp->byte_kind[c] = OCT_BYTE_PUNCTUATION;
        else
            wp->byte_kind[c] = (uint8_t)(upper && wp->flags & OCT_WORDPIECE_LOWER ? c + 32 : c);
    }
    for (int c = 0; c < 128; c++) {
        char sign = (char)c;
        int32_t id = oct_vocabulary_id(&wp->vocabulary, &sign, 1);
        wp->punctuation[c] = id < 0 ? wp->unknown : id;
    }
    wp->piece_seed = oct_vocabulary_hash(&wp->vocabulary, "##", 2);
}

int oct_wordpiece_load(oct_wordpiece **result, const char *path, int flags)
{
    oct_wordpiece *wp = oct_calloc(1, sizeof *wp);
    if (!wp) return -1;
    wp->flags = flags;
    if (oct_vocabulary_read(&wp->vocabulary, path) != 0 || find_specials(wp, path) != 0) {
        oct_wordpiece_free(wp);
        return -1;
    }
    fill_tables(wp);
    *result = wp;
    return 0;
}

int oct_wordpiece_free(oct_wordpiece *wp)
{
    if (wp) oct_vocabulary_clear(&wp->vocabulary);
    oct_free(wp);
    return 0;
}

int oct_wordpiece_size(int64_t *tokens, const oct_wordpiece *wp)
{
    *tokens = wp->vocabulary.size;
    return 0;
}

int oct_wordpiece_id(int32_t *id, const oct_wordpiece *wp, const char *token, int64_t bytes)
{
    *id = oct_vocabulary_id(&wp->vocabulary, token, bytes);
    return 0;
}

int oct_wordpiece_token(const char **token, int64_t *bytes, const oct_wordpiece *wp, int64_t id)
{
    if (id < 0 || id >= wp->vocabulary.size)
        return oct_fail("wordpiece: id %lld, expected 0 to %lld", (long long)id,
                        (long long)wp->vocabulary.size - 1);
    *token = wp->vocabulary.text + wp->vocabulary.starts[id];
    *bytes = wp->vocabulary.lengths[id];
    return 0;
}
