/* matmul.c - products of f32 matrices in f32 or bf16, and the linear layer with what is fused in.
 *
 * bf16: the factors come rounded to bf16, are multiplied by the processor's bf16 units and summed
 * in f32. */
#include "kernels/cpu/matmul.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/isa.h"
#include "kernels/bf16.h"
#include "kernels/kernels.h"

/* Elements that a piece of work holds: some 64 KiB of f32, half of a first-level cache and a bit.
 */
enum { PIECE = 16384 };

void KERNEL(round_bf16)(uint16_t *y, const float *x, int64_t n)
{
#pragma omp parallel for schedule(static) if (n > PIECE)
    for (int64_t first = 0; first < n; first += PIECE) {
        int64_t last = first + PIECE < n ? first + PIECE : n;
        for (int64_t i = first; i < last; i++) y[i] = oct_to_bf16(x[i]);
    }
}

int KERNEL(matmul)(float *y, const void *a, const void *b, int64_t batch, int64_t m, int64_t n,
                   int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16)
{
    if (batch == 1)
        return oct_product(y, a, b, NULL, m, n, k, transpose_a, transpose_b, accumulate, bf16);
    /* Few large ones go one by one, with all threads; others are shared out, each to one thread.
     * The cuts depend on the sizes alone, and within them oneDNN must not depend on the threads
     * either: in a parallel region it has one. */
    enum { FEW = 16, LARGE = 1 << 21, PIECE_WORK = 1 << 18 };
    const int64_t work = m * n * k, bytes = bf16 ? sizeof(uint16_t) : sizeof(float);
    const char *as = a, *bs = b;
    if (batch < FEW && work >= LARGE) {
        for (int64_t i = 0; i < batch; i++)
            OCT_TRY(oct_product(y + i * m * n, as + i * m * k * bytes, bs + i * k * n * bytes, NULL,
                                m, n, k, transpose_a, transpose_b, accumulate, bf16));
        return 0;
    }
    const int64_t piece = work < PIECE_WORK ? PIECE_WORK / work : 1;
    char why[1024] = ""; /* a thread's error text is its own */
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < batch; i += piece) {
        omp_set_num_threads(1); /* of regions within this one */
        if (oct_products(y + i * m * n, as + i * m * k * bytes, bs + i * k * n * bytes,
                         batch - i < piece ? batch - i : piece, m, n, k, transpose_a, transpose_b,
                         accumulate, bf16) != 0) {
#pragma omp critical(oct_matmul_failed)
            snprintf(why, sizeof why, "%s", oct_last_error());
        }
    }
    return why[0] ? oct_fail("%s", why) : 0;
}

/* ---- linear ---------------------------------------------------------------------------------- */

int KERNEL(linear)(float *y, float *z, const void *x, const void *w, const float *bias,
                   int64_t rows, int64_t out, int64_t in, int activation, int bf16)
{
    /* With an activation the bias is added along with it, while the rows are in cache. */
    OCT_TRY(oct_product(y, x, w, activation < 0 ? bias : NULL, rows, out, in, 0, 1, 0, bf16));
    if (activation < 0) return 0;
    int64_t piece = PIECE / out > 0 ? PIECE / out : 1;
#pragma omp parallel for schedule(static) if (rows > piece)
    for (int64_t first = 0; first < rows; first += piece) {
        int64_t count = first + piece < rows ? piece : rows - first;
        KERNEL(bias_activation)(y + first * out, z ? z + first * out : NULL, bias, count, out,
                                activation);
    }
    return 0;
}

/* Column sums of dz[rows x out], in pieces of rows that depend on the sizes alone, added in order.
 */
static int bias_gradient(float *dbias, const float *dz, int64_t rows, int64_t out, int accumulate)
{
    enum { ROWS = 64 };
    int64_t pieces = (rows + ROWS - 1) / ROWS;
    size_t bytes = (size_t)(pieces * out) * sizeof(float);
    float *sums = oct_block_new(bytes, OCT_WORKSPACE);
    if (!sums) return -1;
#pragma omp parallel for schedule(static) if (rows * out > PIECE)
    for (int64_t p = 0; p < pieces; p++) {
        float *sum = sums + p * out;
        int64_t last = (p + 1) * ROWS < rows ? (p + 1) * ROWS : rows;
        memcpy(sum, dz + p * ROWS * out, (size_t)out * sizeof *sum);
        for (int64_t r = p * ROWS + 1; r < last; r++)
            for (int64_t c = 0; c < out; c++) sum[c] += dz[r * out + c];
    }
    for (int64_t p = 1; p < pieces; p++)
        for (int64_t c = 0; c < out; c++) sums[c] += sums[p * out + c];
    for (int64_t c = 0; c < out; c++) dbias[c] = accumulate ? dbias[c] + sums[c] : sums[c];
    oct_block_free(sums, bytes, OCT_WORKSPACE);
    return 0;
}

int KERNEL(linear_backward)(float *dx, float *dw, float *dbias, float *dz, const float *dy,
                            const float *z, const void *x, const void *w, int64_t rows, int64_t out,
                            int64_t in, int activation, int accumulate, int bf16)
{
    int64_t n = rows * out;
    if (activation >= 0) {
#pragma omp parallel for schedule(static) if (n > PIECE)
        for (int64_t first = 0; first < n; first += PIECE)
            KERNEL(activation_gradient)(dz + first, dy + first, z + first,
                                        first + PIECE < n ? PIECE : n - first, activation);
    }
    if (dbias) OCT_TRY(bias_gradient(dbias, dz, rows, out, accumulate >> 2 & 1));
    uint16_t *rounded = NULL;
    const void *factor = dz;
    if (bf16) {
        rounded = oct_block_new((size_t)n * sizeof *rounded, OCT_WORKSPACE);
        if (!rounded) return -1;
        KERNEL(round_bf16)(rounded, dz, n);
        factor = rounded;
    }
    int status = 0;
    if (dx) status = oct_product(dx, factor, w, NULL, rows, in, out, 0, 0, accumulate & 1, bf16);
    if (dw && status == 0)
        status = oct_product(dw, factor, x, NULL, out, in, rows, 1, 0, accumulate >> 1 & 1, bf16);
    oct_block_free(rounded, (size_t)n * sizeof *rounded, OCT_WORKSPACE);
    return status;
}
