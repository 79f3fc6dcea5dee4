/* fuzz_wordpiece.c - any bytes as a vocabulary, any bytes as text for it.
 *
 * Byte 0: which allocation fails; byte 1: how text is prepared, and bit 4, whether the vocabulary
 * gets the tokens without which none loads; bytes 2 and 3: the vocabulary's length. */
#include "spec/fuzz/input.h"

static void check(const oct_encoding *encoding, int64_t size)
{
    int64_t rows, tokens, longest;
    const int32_t *ids, *firsts;
    const int64_t *offsets;
    if (oct_encoding_size(&rows, &tokens, &longest, encoding) != 0) abort();
    if (oct_encoding_arrays(&ids, &offsets, &firsts, encoding) != 0) abort();
    if (offsets[0] != 0 || offsets[rows] != tokens) abort();
    for (int64_t i = 0; i < tokens; i++)
        if (ids[i] < 0 || ids[i] >= size) abort();
    for (int64_t i = 0; i < rows; i++)
        if (offsets[i + 1] - offsets[i] > longest) abort();
}

static void encode(const oct_wordpiece *wordpiece, const char *text, size_t bytes)
{
    /* The text alone, and cut in two as a pair. */
    const int64_t ends[] = {(int64_t)bytes / 2, (int64_t)bytes};
    int64_t size;
    oct_encoding *encoding;
    if (oct_wordpiece_size(&size, wordpiece) != 0) abort();
    for (int pairs = 0; pairs < 2; pairs++)
        for (int64_t max_length = 0; max_length < 10; max_length += 3) {
            if (oct_encode_texts(&encoding, wordpiece, text, ends, 2, pairs, max_length, 1) != 0)
                continue;
            check(encoding, size);
            oct_encoding_free(encoding);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char needed[] = "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\na\n##b\n";
    if (size < 4) return 0;
    size_t length = (size_t)data[2] | (size_t)data[3] << 8;
    if (length > size - 4) length = size - 4;
    input_file input = input_open();
    if (data[1] & 16) input_add(&input, needed, sizeof needed - 1);
    input_add(&input, data + 4, length);
    input_fail_allocation(data[0]);
    oct_wordpiece *wordpiece;
    if (oct_wordpiece_load(&wordpiece, input.path, data[1] & 15) == 0) {
        encode(wordpiece, (const char *)data + 4 + length, size - 4 - length);
        oct_wordpiece_free(wordpiece);
    }
    input_close(&input);
    return 0;
}
