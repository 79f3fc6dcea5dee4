/* safetensors.h - tensors in a file: https://huggingface.co/docs/safetensors (format 0.4 to 0.6).
 *
 *     8 bytes   N, the header's length, little-endian
 *     N bytes   JSON: {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
 *               "__metadata__": {"KEY": "VALUE", ...}}, padded with spaces
 *     the rest  the tensors' bytes, without a gap
 *
 * Checksums, of Octet's own making and ignored by every other reader: metadata "sha256:NAME" is the
 * SHA-256 of the tensor's bytes, checked whenever the tensor is read; metadata "sha256", the very
 * first thing in the header, is that of the header itself (the N bytes), taken with 64 zeros in its
 * own place. Together they cover every byte of the file behind the first 8, and a damaged length
 * leaves no valid header. */
#ifndef OCT_FILE_SAFETENSORS_H
#define OCT_FILE_SAFETENSORS_H
#include "core/octet.h"

static const char oct_safetensors_seal[] = "{\"__metadata__\":{\"sha256\":\"";

typedef struct oct_st_type {
    const char *name;
    int bytes;                     /* of one element */
    int own;                       /* the type it is read as, OCT_F32 ...; -1: cannot be read */
} oct_st_type;

/* One tensor of the file. Texts lie in the header. */
typedef struct oct_st_entry {
    const char *name;
    const char *sha256;            /* NULL: the file carries none */
    const oct_st_type *type;
    int ndim;
    int64_t shape[OCT_MAX_DIMS];
    int64_t size;                  /* elements */
    int64_t begin, end;            /* bytes, from the data's start */
} oct_st_entry;

typedef struct oct_st_metadata {
    const char *key, *value;
} oct_st_metadata;

struct oct_safetensors {
    int fd;
    int64_t data_start;            /* byte of the file at which the data begin */
    char *path, *header;
    oct_st_entry *entries;         /* in the order of their names */
    oct_st_metadata *metadata;     /* in the order of their keys */
    int64_t count, metadata_count;
};

/* The type of a name; NULL where there is none. */
const oct_st_type *oct_st_type_of(const char *name);
/* Read and check the header of `header_bytes` bytes in front of `data_bytes` bytes of data. Fills
 * `entries` and `metadata`; the header's text is changed by it. */
int oct_st_parse_header(oct_safetensors *file, int64_t header_bytes, int64_t data_bytes);

#endif
