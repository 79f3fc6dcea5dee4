/* matmul.c - products of f32 matrices in f32 or bf16, and the linear layer with what is fused in.
 *
 * bf16: both factors are rounded to bf16 (nearest even) into workspace, multiplied by the
 * processor's bf16 units and summed in f32. */
#include "kernels/cpu/matmul.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/isa.h"
#include "kernels/kernels.h"

/* Elements that a piece of work holds: some 64 KiB of f32, half of a first-level cache and a bit. */
enum { PIECE = 16384 };

static inline uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000u ? (bits >> 16 | 64) : rounded);
}

/* x[n] in bf16, in a new block of n * 2 bytes of workspace; NULL where memory ends. */
static uint16_t *rounded(const float *x, int64_t n)
{
    uint16_t *r = oct_block_new((size_t)n * sizeof *r, OCT_WORKSPACE);
    if (!r) return NULL;
#pragma omp parallel for schedule(static) if (n > PIECE)
    for (int64_t first = 0; first < n; first += PIECE) {
        int64_t last = first + PIECE < n ? first + PIECE : n;
        for (int64_t i = first; i < last; i++) r[i] = to_bf16(x[i]);
    }
    return r;
}

static void discard(uint16_t *r, int64_t n)
{
    oct_block_free(r, (size_t)n * sizeof *r, OCT_WORKSPACE);
}

int KERNEL(matmul)(float *y, const float *a, const float *b, int64_t m, int64_t n, int64_t k,
                   int transpose_a, int transpose_b, int accumulate, int bf16)
{
    if (!bf16) return oct_product(y, a, b, NULL, m, n, k, transpose_a, transpose_b, accumulate, 0);
    uint16_t *ra = rounded(a, m * k), *rb = ra ? rounded(b, k * n) : NULL;
    int status = rb ? oct_product(y, ra, rb, NULL, m, n, k, transpose_a, transpose_b, accumulate, 1)
                    : -1;
    discard(ra, m * k);
    discard(rb, k * n);
    return status;
}

/* ---- linear ------------------------------------------------------------------------------------------- */

int KERNEL(linear)(float *y, float *z, const float *x, const float *w, const float *bias, int64_t rows,
                   int64_t out, int64_t in, int activation, int bf16)
{
    const void *fx = x, *fw = w;
    uint16_t *rx = NULL, *rw = NULL;
    int status = 0;
    if (bf16) {
        fx = rx = rounded(x, rows * in);
        fw = rw = rx ? rounded(w, out * in) : NULL;
        if (!rw) status = -1;
    }
    /* With an activation the bias is added along with it, while the rows are in cache. */
    if (status == 0)
        status = oct_product(y, fx, fw, activation < 0 ? bias : NULL, rows, out, in, 0, 1, 0, bf16);
    discard(rx, rows * in);
    discard(rw, out * in);
    if (status != 0 || activation < 0) return status;
    int64_t piece = PIECE / out > 0 ? PIECE / out : 1;
#pragma omp parallel for schedule(static) if (rows > piece)
    for (int64_t first = 0; first < rows; first += piece) {
        int64_t count = first + piece < rows ? piece : rows - first;
        KERNEL(bias_activation)(y + first * out, z ? z + first * out : NULL, bias, count, out,
                                activation);
    }
    return 0;
}

/* Column sums of dz[rows x out], in pieces of rows that depend on the sizes alone, added in order. */
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
                            const float *z, const float *x, const float *w, int64_t rows, int64_t out,
                            int64_t in, int activation, int accumulate, int bf16)
{
    if (activation >= 0) {
        int64_t n = rows * out;
#pragma omp parallel for schedule(static) if (n > PIECE)
        for (int64_t first = 0; first < n; first += PIECE)
            KERNEL(activation_gradient)(dz + first, dy + first, z + first,
                                        first + PIECE < n ? PIECE : n - first, activation);
    }
    if (dbias) OCT_TRY(bias_gradient(dbias, dz, rows, out, accumulate >> 2 & 1));
    if (!bf16) {
        if (dx) OCT_TRY(oct_product(dx, dz, w, NULL, rows, in, out, 0, 0, accumulate & 1, 0));
        if (dw) OCT_TRY(oct_product(dw, dz, x, NULL, out, in, rows, 1, 0, accumulate >> 1 & 1, 0));
        return 0;
    }
    uint16_t *rz = rounded(dz, rows * out), *rw = NULL, *rx = NULL;
    int status = rz ? 0 : -1;
    if (status == 0 && dx) {
        rw = rounded(w, out * in);
        status = rw ? oct_product(dx, rz, rw, NULL, rows, in, out, 0, 0, accumulate & 1, 1) : -1;
    }
    if (status == 0 && dw) {
        rx = rounded(x, rows * in);
        status = rx ? oct_product(dw, rz, rx, NULL, out, in, rows, 1, 0, accumulate >> 1 & 1, 1) : -1;
    }
    discard(rz, rows * out);
    discard(rw, out * in);
    discard(rx, rows * in);
    return status;
}
