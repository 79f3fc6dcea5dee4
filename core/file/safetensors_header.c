/* safetensors_header.c - the header of a safetensors file, which is hostile until proven otherwise.
 *
 * What must hold: one JSON object; each tensor has exactly one dtype, shape and pair of offsets;
 * the shape's product times the type's size is what the offsets span; together the tensors cover
 * the data from the first byte to the last, without gap or overlap; no name comes twice. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file/digest.h"
#include "core/file/json.h"
#include "core/file/safetensors.h"
#include "core/memory.h"

static const oct_st_type types[] = {
    {"F32", 4, OCT_F32},   {"F16", 2, OCT_F16}, {"BF16", 2, OCT_BF16}, {"I32", 4, OCT_I32},
    {"U8", 1, OCT_U8},     {"I64", 8, OCT_I32}, {"F64", 8, OCT_F32},   {"BOOL", 1, OCT_U8},
    {"I8", 1, -1},         {"I16", 2, -1},      {"U16", 2, -1},        {"U32", 4, -1},
    {"U64", 8, -1},        {"C64", 8, -1},      {"F8_E4M3", 1, -1},    {"F8_E5M2", 1, -1},
    {"F8_E8M0", 1, -1},
};

const oct_st_type *oct_st_type_of(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

/* ---- one tensor ------------------------------------------------------------------------------ */

static int parse_type(oct_json *json, oct_st_entry *entry)
{
    char *name;
    OCT_TRY(oct_json_string(json, &name));
    entry->type = oct_st_type_of(name);
    return entry->type ? 0 : oct_fail("dtype is \"%.40s\", which is not known", name);
}

static int parse_shape(oct_json *json, oct_st_entry *entry)
{
    int first = 1, more;
    OCT_TRY(oct_json_enter(json, '['));
    for (entry->ndim = 0;;) {
        OCT_TRY(oct_json_more(json, ']', &first, &more));
        if (!more) return 0;
        if (entry->ndim == OCT_MAX_DIMS)
            return oct_fail("its shape has more than %d dimensions", OCT_MAX_DIMS);
        OCT_TRY(oct_json_size(json, &entry->shape[entry->ndim++]));
    }
}

static int parse_offsets(oct_json *json, oct_st_entry *entry)
{
    int first = 1, more;
    int64_t *const ends[] = {&entry->begin, &entry->end};
    OCT_TRY(oct_json_enter(json, '['));
    for (int i = 0; i < 2; i++) {
        OCT_TRY(oct_json_more(json, ']', &first, &more));
        if (!more) return oct_fail("data_offsets has %d numbers, expected 2", i);
        OCT_TRY(oct_json_size(json, ends[i]));
    }
    OCT_TRY(oct_json_more(json, ']', &first, &more));
    return more ? oct_fail("data_offsets has more than 2 numbers") : 0;
}

static int parse_fields(oct_json *json, oct_st_entry *entry)
{
    enum { TYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0, first = 1, more;
    OCT_TRY(oct_json_enter(json, '{'));
    for (;;) {
        OCT_TRY(oct_json_more(json, '}', &first, &more));
        if (!more) break;
        char *key;
        OCT_TRY(oct_json_key(json, &key));
        int field = strcmp(key, "dtype") == 0 ? TYPE : strcmp(key, "shape") == 0 ? SHAPE
                  : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
        if (seen & field) return oct_fail("%s comes twice", key);
        seen |= field;
        OCT_TRY(field == TYPE ? parse_type(json, entry) : field == SHAPE ? parse_shape(json, entry)
              : field == OFFSETS ? parse_offsets(json, entry) : oct_json_skip(json));
    }
    if (!(seen & TYPE)) return oct_fail("dtype is missing");
    if (!(seen & SHAPE)) return oct_fail("shape is missing");
    return seen & OFFSETS ? 0 : oct_fail("data_offsets is missing");
}

/* Size and offsets against each other and against the data. */
static int check_entry(oct_st_entry *entry, int64_t data_bytes)
{
    int64_t bytes;
    entry->size = 1;
    /* In the order of the numbers a 0 may stand behind a product that overflows: still an error. */
    for (int i = 0; i < entry->ndim; i++)
        if (__builtin_mul_overflow(entry->size, entry->shape[i], &entry->size))
            return oct_fail("its sizes multiply to more than 2^63");
    if (__builtin_mul_overflow(entry->size, (int64_t)entry->type->bytes, &bytes))
        return oct_fail("its sizes multiply to more than 2^63 bytes");
    if (entry->begin > entry->end || entry->end > data_bytes)
        return oct_fail("data_offsets [%lld, %lld] leave the file's %lld bytes of data",
                        (long long)entry->begin, (long long)entry->end, (long long)data_bytes);
    if (entry->end - entry->begin != bytes)
        return oct_fail("data_offsets span %lld bytes, but its shape and dtype (%s) make %lld",
                        (long long)(entry->end - entry->begin), entry->type->name,
                        (long long)bytes);
    return 0;
}

/* ---- the object ------------------------------------------------------------------------------ */

/* Room for one more in a list that doubles. */
static void *grown(void *list, int64_t count, size_t item_bytes)
{
    if (count & (count - 1)) return list;            /* full only at the powers of two */
    return oct_realloc(list, (size_t)(count ? 2 * count : 1) * item_bytes);
}

static int parse_metadata(oct_json *json, oct_safetensors *file)
{
    int first = 1, more;
    OCT_TRY(oct_json_enter(json, '{'));
    for (;;) {
        OCT_TRY(oct_json_more(json, '}', &first, &more));
        if (!more) return 0;
        char *key, *value;
        OCT_TRY(oct_json_key(json, &key));
        OCT_TRY(oct_json_string(json, &value));
        oct_st_metadata *list = grown(file->metadata, file->metadata_count, sizeof *list);
        if (!list) return -1;
        file->metadata = list;
        list[file->metadata_count++] = (oct_st_metadata){key, value};
    }
}

static int parse_object(oct_json *json, oct_safetensors *file, int64_t data_bytes)
{
    int first = 1, more, has_metadata = 0;
    OCT_TRY(oct_json_enter(json, '{'));
    for (;;) {
        OCT_TRY(oct_json_more(json, '}', &first, &more));
        if (!more) return oct_json_finish(json);
        char *name;
        OCT_TRY(oct_json_key(json, &name));
        if (strcmp(name, "__metadata__") == 0) {
            if (has_metadata++) return oct_fail("__metadata__ comes twice");
            if (parse_metadata(json, file) != 0) return oct_fail_within("__metadata__");
            continue;
        }
        oct_st_entry *list = grown(file->entries, file->count, sizeof *list);
        if (!list) return -1;
        file->entries = list;
        oct_st_entry *entry = &list[file->count];
        *entry = (oct_st_entry){.name = name};
        if (parse_fields(json, entry) != 0 || check_entry(entry, data_bytes) != 0)
            return oct_fail_within("tensor \"%.100s\"", name);
        file->count++;
    }
}

/* ---- all of them against each other ---------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const oct_st_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const oct_st_entry *)a)->name, ((const oct_st_entry *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const oct_st_metadata *)a)->key, ((const oct_st_metadata *)b)->key);
}

static int check_cover(oct_safetensors *file, int64_t data_bytes)
{
    int64_t covered = 0;
    if (file->count) qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_place);
    for (int64_t i = 0; i < file->count; i++) {
        const oct_st_entry *entry = &file->entries[i];
        if (entry->begin < covered)
            return oct_fail(
                "tensor \"%.100s\" begins at byte %lld and overlaps \"%.100s\", which ends "
                "at %lld",
                entry->name, (long long)entry->begin, file->entries[i - 1].name,
                (long long)covered);
        if (entry->begin > covered)
            return oct_fail("bytes %lld to %lld of the data belong to no tensor",
                            (long long)covered, (long long)entry->begin);
        covered = entry->end;
    }
    if (covered != data_bytes)
        return oct_fail("the tensors end at byte %lld of the data, the file at %lld",
                        (long long)covered, (long long)data_bytes);
    return 0;
}

static int check_names(oct_safetensors *file)
{
    if (file->count) qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_name);
    for (int64_t i = 1; i < file->count; i++)
        if (strcmp(file->entries[i - 1].name, file->entries[i].name) == 0)
            return oct_fail("tensor \"%.100s\" comes twice", file->entries[i].name);
    oct_st_metadata *metadata = file->metadata;
    if (metadata) qsort(metadata, (size_t)file->metadata_count, sizeof *metadata, by_key);
    for (int64_t i = 1; i < file->metadata_count; i++)
        if (strcmp(metadata[i - 1].key, metadata[i].key) == 0)
            return oct_fail("metadata \"%.100s\" comes twice", metadata[i].key);
    return 0;
}

/* ---- checksums ------------------------------------------------------------------------------- */

static int hash_without_seal(char text[OCT_SHA256_TEXT], const char *header, size_t bytes,
                             size_t seal_at)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    size_t after = seal_at + OCT_SHA256_TEXT - 1;
    oct_digest *digest = NULL;
    OCT_TRY(oct_digest_begin(&digest));
    if (oct_digest_add(digest, header, seal_at) != 0 ||
        oct_digest_add(digest, zeros, OCT_SHA256_TEXT - 1) != 0 ||
        oct_digest_add(digest, header + after, bytes - after) != 0) {
        oct_digest_end(NULL, digest);
        return -1;
    }
    return oct_digest_end(text, digest);
}

/* The header's own checksum, where it has one; before parsing, which changes the text. */
static int check_seal(const char *header, size_t bytes)
{
    size_t seal_at = sizeof oct_safetensors_seal - 1;
    if (bytes < seal_at + OCT_SHA256_TEXT || memcmp(header, oct_safetensors_seal, seal_at) != 0 ||
        header[seal_at + OCT_SHA256_TEXT - 1] != '"')
        return 0;
    char text[OCT_SHA256_TEXT];
    OCT_TRY(hash_without_seal(text, header, bytes, seal_at));
    if (memcmp(text, header + seal_at, OCT_SHA256_TEXT - 1) != 0)
        return oct_fail("the header is damaged: it does not match its checksum");
    return 0;
}

/* Metadata are sorted by key, entries by name; "sha256:NAME" is found by a binary search. */
static void find_checksums(oct_safetensors *file)
{
    static const char prefix[] = "sha256:";
    for (int64_t i = 0; i < file->metadata_count; i++) {
        const oct_st_metadata *m = &file->metadata[i];
        if (strncmp(m->key, prefix, sizeof prefix - 1) != 0 || !file->count) continue;
        oct_st_entry wanted = {.name = m->key + sizeof prefix - 1};
        oct_st_entry *entry = bsearch(&wanted, file->entries, (size_t)file->count, sizeof wanted,
                                      by_name);
        if (entry) entry->sha256 = m->value;
    }
}

int oct_st_parse_header(oct_safetensors *file, int64_t header_bytes, int64_t data_bytes)
{
    oct_json json;
    OCT_TRY(check_seal(file->header, (size_t)header_bytes));
    oct_json_start(&json, file->header, (size_t)header_bytes);
    if (parse_object(&json, file, data_bytes) != 0) return oct_fail_within("header");
    OCT_TRY(check_cover(file, data_bytes));
    OCT_TRY(check_names(file));
    find_checksums(file);
    return 0;
}
