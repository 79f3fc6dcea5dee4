/* safetensors_write.c - writing a safetensors file, whole or not at all.
 *
 * Tensors are written from the memory they live in. They come in the order of their types' sizes,
 * the widest first, then of their names: since nothing may lie between two tensors, that is what
 * keeps each aligned to its type when the file is mapped by another reader. The same tensors give
 * the same bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file/digest.h"
#include "core/file/json.h"
#include "core/file/safetensors.h"
#include "core/file/save.h"
#include "core/memory.h"
#include "core/tensor.h"

typedef struct saved_tensor {
    char *name;
    oct_tensor *tensor;
    char sha256[OCT_SHA256_TEXT];
} saved_tensor;

typedef struct saved_metadata {
    char *key, *value;
} saved_metadata;

struct oct_safetensors_writer {
    saved_tensor *tensors;
    saved_metadata *metadata;
    int64_t count, metadata_count;
};

/* ---- gathering ------------------------------------------------------------------------------- */

int oct_safetensors_writer_new(oct_safetensors_writer **result)
{
    oct_safetensors_writer *writer = oct_calloc(1, sizeof *writer);
    if (!writer) return -1;
    *result = writer;
    return 0;
}

int oct_safetensors_writer_free(oct_safetensors_writer *writer)
{
    if (!writer) return 0;
    for (int64_t i = 0; i < writer->count; i++) {
        oct_free(writer->tensors[i].name);
        oct_tensor_release(writer->tensors[i].tensor);
    }
    for (int64_t i = 0; i < writer->metadata_count; i++) {
        oct_free(writer->metadata[i].key);
        oct_free(writer->metadata[i].value);
    }
    oct_free(writer->tensors);
    oct_free(writer->metadata);
    oct_free(writer);
    return 0;
}

static int check_text(const char *what, const char *text)
{
    if (oct_is_utf8(text, strlen(text))) return 0;
    return oct_fail("safetensors: %s \"%.100s\" is not UTF-8", what, text);
}

int oct_safetensors_writer_metadata(oct_safetensors_writer *writer, const char *key,
                                    const char *value)
{
    OCT_TRY(check_text("metadata key", key));
    OCT_TRY(check_text("metadata value", value));
    if (strncmp(key, "sha256", 6) == 0 && (key[6] == 0 || key[6] == ':'))
        return oct_fail("safetensors: metadata \"%.100s\" is kept for the checksums", key);
    saved_metadata *list = oct_realloc(writer->metadata,
                                       (size_t)(writer->metadata_count + 1) * sizeof *list);
    if (!list) return -1;
    writer->metadata = list;
    saved_metadata added = {oct_strdup(key), oct_strdup(value)};
    if (!added.key || !added.value) {
        oct_free(added.key);
        oct_free(added.value);
        return -1;
    }
    list[writer->metadata_count++] = added;
    return 0;
}

int oct_safetensors_writer_add(oct_safetensors_writer *writer, const char *name, oct_tensor *tensor)
{
    OCT_TRY(check_text("tensor name", name));
    if (strcmp(name, "__metadata__") == 0)
        return oct_fail("safetensors: a tensor cannot be named __metadata__");
    OCT_TRY(oct_check(tensor, "safetensors", name, -1));
    saved_tensor *list = oct_realloc(writer->tensors, (size_t)(writer->count + 1) * sizeof *list);
    if (!list) return -1;
    writer->tensors = list;
    saved_tensor added = {.name = oct_strdup(name), .tensor = tensor};
    if (!added.name) return -1;
    oct_tensor_retain(tensor);
    list[writer->count++] = added;
    return 0;
}

/* ---- the header ------------------------------------------------------------------------------ */

/* A text that grows; once an allocation has failed it stays as it is, and `failed` tells. */
typedef struct growing {
    char *text;
    size_t bytes, capacity;
    int failed;
} growing;

static void put(growing *g, const char *text, size_t bytes)
{
    if (g->failed) return;
    if (g->bytes + bytes > g->capacity) {
        size_t capacity = 2 * (g->bytes + bytes) + 4096;
        char *larger = oct_realloc(g->text, capacity);
        if (!larger) {
            g->failed = 1;
            return;
        }
        g->text = larger;
        g->capacity = capacity;
    }
    memcpy(g->text + g->bytes, text, bytes);
    g->bytes += bytes;
}

static void put_text(growing *g, const char *text)
{
    put(g, text, strlen(text));
}

static void put_number(growing *g, int64_t number)
{
    char text[24];
    put(g, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
}

/* Inside quotes. */
static void put_escaped(growing *g, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[8];
        if (c == '"' || c == '\\')
            put(g, escape, (size_t)snprintf(escape, sizeof escape, "\\%c", c));
        else if (c < 0x20) put(g, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
        else put(g, text, 1);
    }
}

static void put_pair(growing *g, const char *separator, const char *prefix, const char *key,
                     const char *value)
{
    put_text(g, separator);
    put_text(g, "\"");
    put_text(g, prefix);
    put_escaped(g, key);
    put_text(g, "\":\"");
    put_escaped(g, value);
    put_text(g, "\"");
}

static int64_t bytes_of(const oct_tensor *tensor)
{
    return tensor->size * (int64_t)oct_dtype_bytes(tensor->dtype);
}

static void put_tensor(growing *g, const char *separator, const saved_tensor *saved, int64_t begin)
{
    static const char *const names[OCT_DTYPES] = {"F32", "F16", "BF16", "I32", "U8"};
    const oct_tensor *tensor = saved->tensor;
    put_text(g, separator);
    put_text(g, "\"");
    put_escaped(g, saved->name);
    put_text(g, "\":{\"dtype\":\"");
    put_text(g, names[tensor->dtype]);
    put_text(g, "\",\"shape\":[");
    for (int i = 0; i < tensor->ndim; i++) {
        if (i) put_text(g, ",");
        put_number(g, tensor->shape[i]);
    }
    put_text(g, "],\"data_offsets\":[");
    put_number(g, begin);
    put_text(g, ",");
    put_number(g, begin + bytes_of(tensor));
    put_text(g, "]}");
}

static void put_metadata(growing *g, const oct_safetensors_writer *writer, int checksums)
{
    const char *separator = "";
    put_text(g, "{\"__metadata__\":{");
    if (checksums) {
        /* oct_safetensors_seal and 64 zeros, which the header's own checksum is put over. */
        put_text(g, "\"sha256\":\"");
        for (int i = 0; i < OCT_SHA256_TEXT - 1; i++) put_text(g, "0");
        put_text(g, "\"");
        separator = ",";
    }
    for (int64_t i = 0; i < writer->metadata_count; i++) {
        put_pair(g, separator, "", writer->metadata[i].key, writer->metadata[i].value);
        separator = ",";
    }
    for (int64_t i = 0; checksums && i < writer->count; i++)
        put_pair(g, ",", "sha256:", writer->tensors[i].name, writer->tensors[i].sha256);
    put_text(g, "}");
}

/* Length and header, padded so that the data begin at a multiple of 64. */
static int build_header(growing *g, const oct_safetensors_writer *writer, int checksums)
{
    uint64_t length = 0;
    put(g, (char *)&length, sizeof length);
    put_metadata(g, writer, checksums);
    int64_t begin = 0;
    for (int64_t i = 0; i < writer->count; i++) {
        put_tensor(g, ",", &writer->tensors[i], begin);
        begin += bytes_of(writer->tensors[i].tensor);
    }
    put_text(g, "}");
    while (g->bytes % 64 && !g->failed) put_text(g, " ");
    if (g->failed) return -1;
    length = g->bytes - sizeof length;
    memcpy(g->text, &length, sizeof length);
    if (!checksums) return 0;
    char text[OCT_SHA256_TEXT];
    OCT_TRY(oct_sha256(text, g->text + sizeof length, (int64_t)length));
    memcpy(g->text + sizeof length + sizeof oct_safetensors_seal - 1, text, OCT_SHA256_TEXT - 1);
    return 0;
}

/* ---- saving ---------------------------------------------------------------------------------- */

static int by_width_and_name(const void *a, const void *b)
{
    const saved_tensor *x = a, *y = b;
    size_t x_bytes = oct_dtype_bytes(x->tensor->dtype), y_bytes = oct_dtype_bytes(y->tensor->dtype);
    if (x_bytes != y_bytes) return x_bytes > y_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const saved_tensor *)a)->name, ((const saved_tensor *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const saved_metadata *)a)->key, ((const saved_metadata *)b)->key);
}

static int prepare(oct_safetensors_writer *writer, int checksums)
{
    saved_tensor *tensors = writer->tensors;
    saved_metadata *metadata = writer->metadata;
    if (tensors) qsort(tensors, (size_t)writer->count, sizeof *tensors, by_name);
    for (int64_t i = 1; i < writer->count; i++)
        if (strcmp(tensors[i - 1].name, tensors[i].name) == 0)
            return oct_fail("tensor \"%.100s\" comes twice", tensors[i].name);
    if (metadata) qsort(metadata, (size_t)writer->metadata_count, sizeof *metadata, by_key);
    for (int64_t i = 1; i < writer->metadata_count; i++)
        if (strcmp(metadata[i - 1].key, metadata[i].key) == 0)
            return oct_fail("metadata \"%.100s\" comes twice", metadata[i].key);
    for (int64_t i = 0; i < writer->count; i++) {
        oct_tensor *tensor = tensors[i].tensor;
        OCT_TRY(oct_check(tensor, "save", tensors[i].name, -1));
        if (checksums) OCT_TRY(oct_sha256(tensors[i].sha256, oct_data(tensor), bytes_of(tensor)));
    }
    if (tensors) qsort(tensors, (size_t)writer->count, sizeof *tensors, by_width_and_name);
    return 0;
}

static int write_all(oct_writer *file, const growing *header, const oct_safetensors_writer *writer)
{
    OCT_TRY(oct_writer_write(file, header->text, (int64_t)header->bytes));
    for (int64_t i = 0; i < writer->count; i++) {
        const oct_tensor *tensor = writer->tensors[i].tensor;
        OCT_TRY(oct_writer_write(file, oct_data(tensor), bytes_of(tensor)));
    }
    return 0;
}

static int save_with_header(const growing *header, const char *path,
                            const oct_safetensors_writer *writer)
{
    oct_writer *file = NULL;
    OCT_TRY(oct_writer_open(&file, path));
    if (write_all(file, header, writer) != 0) {
        oct_writer_abandon(file);
        return -1;
    }
    return oct_writer_commit(file);
}

int oct_safetensors_writer_save(oct_safetensors_writer *writer, const char *path, int checksums)
{
    if (prepare(writer, checksums) != 0) return oct_fail_within("safetensors: %.200s", path);
    growing header = {0};
    int status = build_header(&header, writer, checksums);
    if (status == 0) status = save_with_header(&header, path, writer);
    oct_free(header.text);
    return status;
}
