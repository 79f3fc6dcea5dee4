/* fuzz_safetensors.c - any bytes at all as a safetensors file: opened, listed, read whole.
 *
 * The first byte says how: bit 0, the text up to the first 0 is the header and gets its length, so
 * that the fuzzer need not find that by itself; the others, which allocation fails. */
#include "spec/fuzz/input.h"

static void read_all(oct_safetensors *file)
{
    int64_t tensors, metadata, bytes, shape[OCT_MAX_DIMS];
    const char *name, *type;
    int ndim;
    if (oct_safetensors_counts(&tensors, &metadata, file) != 0) abort();
    for (int64_t i = 0; i < metadata; i++)
        if (oct_safetensors_metadata(&name, &type, file, i) != 0) abort();
    for (int64_t i = 0; i < tensors; i++) {
        if (oct_safetensors_info(&name, &type, &ndim, shape, &bytes, file, i) != 0) abort();
        /* -1: the file's own type; else every type it might be asked for. */
        for (int dtype = -1; dtype < OCT_DTYPES; dtype++) {
            oct_tensor *tensor;
            if (oct_safetensors_read(&tensor, file, i, dtype, OCT_PARAMETERS) != 0) continue;
            oct_safetensors_read_into(tensor, file, i);
            oct_tensor_free(tensor);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    input_file input = input_open();
    if (data[0] & 1) {
        const uint8_t *end = memchr(data + 1, 0, size - 1);
        uint64_t header = end ? (uint64_t)(end - data - 1) : size - 1;
        input_add(&input, &header, sizeof header);
        input_add(&input, data + 1, header);
        if (end) input_add(&input, end + 1, size - 2 - header);
    } else {
        input_add(&input, data + 1, size - 1);
    }
    input_fail_allocation(data[0] >> 1);
    oct_safetensors *file;
    if (oct_safetensors_open(&file, input.path) == 0) {
        read_all(file);
        oct_safetensors_close(file);
    }
    input_close(&input);
    return 0;
}
