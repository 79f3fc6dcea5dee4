/* safetensors_read.c - opening a safetensors file, and reading its tensors straight into the memory
 * they are used from, by the piece, checksum and conversion included while the piece is in the
 * cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file/digest.h"
#include "core/file/safetensors.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/tensor.h"
#include "kernels/bf16.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors files are little-endian");

enum { LONGEST_HEADER_BYTES = 100000000, PIECE_BYTES = 1 << 18 };

/* ---- opening --------------------------------------------------------------------------------- */

static int read_header(oct_safetensors *file, int64_t file_bytes)
{
    uint64_t length;
    if (file_bytes < (int64_t)sizeof length)
        return oct_fail("the file has %lld bytes, expected at least 8", (long long)file_bytes);
    OCT_TRY(oct_read_exactly(file->fd, &length, sizeof length, 0, "safetensors", file->path));
    uint64_t left = (uint64_t)file_bytes - sizeof length;
    if (length > left)
        return oct_fail("the header's length is given as %llu bytes, but the file has %llu",
                        (unsigned long long)length, (unsigned long long)left);
    if (length > LONGEST_HEADER_BYTES)
        return oct_fail("the header's length is given as %llu bytes, expected at most %d",
                        (unsigned long long)length, LONGEST_HEADER_BYTES);
    file->header = oct_malloc((size_t)length + 1);
    if (!file->header) return -1;
    OCT_TRY(oct_read_exactly(file->fd, file->header, (size_t)length, sizeof length, "safetensors",
                             file->path));
    file->data_start = (int64_t)(sizeof length + length);
    return oct_st_parse_header(file, (int64_t)length, file_bytes - file->data_start);
}

int oct_safetensors_open(oct_safetensors **result, const char *path)
{
    int64_t bytes;
    oct_safetensors *file = oct_calloc(1, sizeof *file);
    if (!file) return -1;
    file->fd = -1;
    file->path = oct_strdup(path);
    if (!file->path || oct_open_regular(&file->fd, &bytes, "safetensors", path) != 0) {
        oct_safetensors_close(file);
        return -1;
    }
    if (read_header(file, bytes) != 0) {
        oct_safetensors_close(file);
        return oct_fail_within("safetensors: %.200s", path);
    }
    *result = file;
    return 0;
}

int oct_safetensors_close(oct_safetensors *file)
{
    if (!file) return 0;
    if (file->fd >= 0) oct_sys_close(file->fd);
    oct_free(file->entries);
    oct_free(file->metadata);
    oct_free(file->header);
    oct_free(file->path);
    oct_free(file);
    return 0;
}

int oct_safetensors_counts(int64_t *tensors, int64_t *metadata, oct_safetensors *file)
{
    *tensors = file->count;
    *metadata = file->metadata_count;
    return 0;
}

static const oct_st_entry *find_entry(const oct_safetensors *file, int64_t index)
{
    if (index >= 0 && index < file->count) return &file->entries[index];
    oct_fail("safetensors: %.200s: tensor %lld of %lld", file->path, (long long)index,
             (long long)file->count);
    return NULL;
}

int oct_safetensors_info(const char **name, const char **type, int *ndim, int64_t *shape,
                         int64_t *bytes, oct_safetensors *file, int64_t index)
{
    const oct_st_entry *entry = find_entry(file, index);
    if (!entry) return -1;
    *name = entry->name;
    *type = entry->type->name;
    *ndim = entry->ndim;
    memcpy(shape, entry->shape, sizeof entry->shape);
    *bytes = entry->end - entry->begin;
    return 0;
}

int oct_safetensors_metadata(const char **key, const char **value, oct_safetensors *file,
                             int64_t index)
{
    if (index < 0 || index >= file->metadata_count)
        return oct_fail("safetensors: %.200s: metadata %lld of %lld", file->path, (long long)index,
                        (long long)file->metadata_count);
    *key = file->metadata[index].key;
    *value = file->metadata[index].value;
    return 0;
}

/* ---- conversion ------------------------------------------------------------------------------ */

static void f16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    const float smallest = 1.0f / 16777216.0f;       /* 2^-24, a half's smallest step */
    for (int64_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)(x[i] & 0x8000) << 16, exponent = x[i] >> 10 & 31,
                 fraction = x[i] & 1023;
        if (exponent == 0) y[i] = (sign ? -smallest : smallest) * (float)fraction;
        else if (exponent == 31) y[i] = oct_from_bits(sign | 0x7f800000 | fraction << 13);
        else y[i] = oct_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    }
}

static void bf16_to_f32(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = oct_from_bf16(x[i]);
}

static void f64_to_f32(float *y, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = (float)x[i];
}

static int i64_to_i32(int32_t *y, const int64_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (x[i] < INT32_MIN || x[i] > INT32_MAX)
            return oct_fail("a value is %lld, which 32 bits do not hold", (long long)x[i]);
        y[i] = (int32_t)x[i];
    }
    return 0;
}

static int convert(void *y, int dtype, const void *x, const oct_st_type *type, int64_t n)
{
    if (dtype == OCT_F32 && type->own == OCT_F16) f16_to_f32(y, x, n);
    else if (dtype == OCT_F32 && type->own == OCT_BF16) bf16_to_f32(y, x, n);
    else if (dtype == OCT_F32 && type->own == OCT_F32) f64_to_f32(y, x, n);
    else return i64_to_i32(y, x, n);
    return 0;
}

/* 1 where the file's bytes are the tensor's. */
static int is_plain(const oct_st_type *type, int dtype)
{
    return dtype == type->own && (size_t)type->bytes == oct_dtype_bytes(dtype);
}

static int can_convert(const oct_st_type *type, int dtype)
{
    return is_plain(type, dtype) || dtype == type->own ||
           (dtype == OCT_F32 && (type->own == OCT_F16 || type->own == OCT_BF16));
}

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct reading {
    oct_safetensors *file;
    const oct_st_entry *entry;
    oct_digest *digest;            /* NULL: nothing to compare with */
    char *piece;                   /* NULL: the bytes go straight to their place */
    int dtype;
} reading;

static int read_pieces(reading *r, char *to)
{
    const oct_st_entry *entry = r->entry;
    size_t element_bytes = oct_dtype_bytes(r->dtype);
    int64_t bytes = entry->end - entry->begin;
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t part = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
        char *place = r->piece ? r->piece : to + at;
        OCT_TRY(oct_read_exactly(r->file->fd, place, part, r->file->data_start + entry->begin + at,
                                 "safetensors", r->file->path));
        if (r->digest) OCT_TRY(oct_digest_add(r->digest, place, part));
        if (!r->piece) continue;
        int64_t first = at / entry->type->bytes, n = (int64_t)part / entry->type->bytes;
        OCT_TRY(convert(to + (size_t)first * element_bytes, r->dtype, r->piece, entry->type, n));
    }
    return 0;
}

static int read_checked(reading *r, char *to)
{
    char text[OCT_SHA256_TEXT];
    if (r->entry->sha256) OCT_TRY(oct_digest_begin(&r->digest));
    if (read_pieces(r, to) != 0) {
        oct_digest_end(NULL, r->digest);
        return -1;
    }
    if (!r->digest) return 0;
    OCT_TRY(oct_digest_end(text, r->digest));
    if (strcmp(text, r->entry->sha256) != 0)
        return oct_fail("its bytes are damaged: they do not match their checksum");
    return 0;
}

static int read_entry(oct_safetensors *file, const oct_st_entry *entry, oct_tensor *tensor)
{
    reading r = {.file = file, .entry = entry, .dtype = tensor->dtype};
    if (!is_plain(entry->type, r.dtype) && !(r.piece = oct_malloc(PIECE_BYTES))) return -1;
    oct_wrote(tensor->storage);
    int status = read_checked(&r, oct_data(tensor));
    oct_free(r.piece);
    return status;
}

static int check_type(const oct_st_entry *entry, int dtype)
{
    if (entry->type->own < 0)
        return oct_fail("its dtype %s cannot be read", entry->type->name);
    if (!can_convert(entry->type, dtype))
        return oct_fail("its dtype %s cannot be read as %s", entry->type->name,
                        oct_dtype_name(dtype));
    return 0;
}

static int within(const oct_safetensors *file, const oct_st_entry *entry)
{
    return oct_fail_within("safetensors: %.120s: tensor \"%.100s\"", file->path, entry->name);
}

int oct_safetensors_read(oct_tensor **result, oct_safetensors *file, int64_t index, int dtype,
                         int purpose)
{
    const oct_st_entry *entry = find_entry(file, index);
    if (!entry) return -1;
    int wanted = dtype < 0 ? entry->type->own : dtype;
    if (purpose < 0 || purpose >= OCT_PURPOSES)
        return oct_fail("safetensors: purpose %d, expected 0 to %d", purpose, OCT_PURPOSES - 1);
    if (wanted >= OCT_DTYPES || check_type(entry, wanted) != 0) return within(file, entry);
    oct_tensor *tensor = oct_tensor_make(wanted, entry->ndim, entry->shape, purpose);
    if (!tensor || read_entry(file, entry, tensor) != 0) {
        oct_tensor_release(tensor);
        return within(file, entry);
    }
    *result = tensor;
    return 0;
}

int oct_safetensors_read_into(oct_tensor *tensor, oct_safetensors *file, int64_t index)
{
    const oct_st_entry *entry = find_entry(file, index);
    if (!entry) return -1;
    OCT_TRY(oct_check(tensor, "safetensors", "the tensor to read into", -1));
    oct_tensor shape = {.ndim = (uint8_t)entry->ndim};
    memcpy(shape.shape, entry->shape, sizeof entry->shape);
    if (entry->ndim != tensor->ndim ||
        memcmp(entry->shape, tensor->shape, (size_t)entry->ndim * sizeof *entry->shape) != 0) {
        oct_fail("its shape is %s, expected %s", oct_shape_text(&shape), oct_shape_text(tensor));
        return within(file, entry);
    }
    if (check_type(entry, tensor->dtype) != 0 || read_entry(file, entry, tensor) != 0)
        return within(file, entry);
    return 0;
}
