/* embedding.c - rows of a table by number, and means of the rows of a sequence. */
#include <string.h>

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/row.h"
#include "kernels/kernels.h"

enum { STRIP = 64 };               /* columns of a table that one thread has to itself */

void KERNEL(embedding)(float *y, const float *table, const int32_t *ids, int64_t rows,
                       int64_t width)
{
    IN_ROWS(rows, width, row,
            memcpy(y + row * width, table + ids[row] * width, (size_t)width * sizeof *y));
}

/* A row of the table may be named many times, and its terms are added in the order of the rows: so
 * the threads share out the columns. */
void KERNEL(embedding_backward)(float *dtable, const float *dy, const int32_t *ids, int64_t rows,
                                int64_t width)
{
    const int64_t strips = (width + STRIP - 1) / STRIP;
    IN_ROWS(strips, rows * STRIP, strip, {
        const int64_t from = strip * STRIP;
        const int64_t columns = width - from < STRIP ? width - from : STRIP;
        for (int64_t row = 0; row < rows; row++) {
            float *to = dtable + ids[row] * width + from;
            const float *term = dy + row * width + from;
            FOR_VECTORS(i, columns, count,
                        store(to + i, load(to + i, count) + load(term + i, count), count));
        }
    });
}

void KERNEL(segment_mean)(float *y, const float *x, const int32_t *offsets, int64_t sequences,
                          int64_t width)
{
    const int64_t tokens = sequences > 0 ? offsets[sequences] : 0;
    IN_ROWS(sequences, tokens / sequences * width, s, {
        const int64_t first = offsets[s], rows = offsets[s + 1] - first;
        const float *from = x + first * width;
        float *to = y + s * width;
        FOR_VECTORS(i, width, count, {
            vf sum = load(from + i, count);
            for (int64_t row = 1; row < rows; row++) sum += load(from + row * width + i, count);
            store(to + i, sum / (float)rows, count);
        });
    });
}

void KERNEL(segment_mean_backward)(float *dx, const float *dy, const int32_t *offsets,
                                   int64_t sequences, int64_t width, int accumulate)
{
    const int64_t tokens = sequences > 0 ? offsets[sequences] : 0;
    IN_ROWS(sequences, tokens / sequences * width, s, {
        const int64_t first = offsets[s], end = offsets[s + 1];
        const float *from = dy + s * width;
        for (int64_t row = first; row < end; row++) {
            float *to = dx + row * width;
            FOR_VECTORS(i, width, count, {
                vf d = load(from + i, count) / (float)(end - first);
                store(to + i, accumulate ? load(to + i, count) + d : d, count);
            });
        }
    });
}
