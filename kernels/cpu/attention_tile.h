/* attention_tile.h - the small products of attention, and the packing that they want.
 *
 * Within one head of one sequence the matrices are 10 to 128 rows by 32 or 64 columns: less than a
 * call of oneDNN costs to set up. Here a tile of the result stays in registers. */
#ifndef OCT_ATTENTION_TILE_H
#define OCT_ATTENTION_TILE_H
#include "kernels/cpu/row.h"

/* Accumulators of a tile; what is left of the 32 or 16 registers holds a row of b and an a. */
#if defined(OCT_ISA_avx512)
enum { ACCUMULATORS = 24 };
#else
enum { ACCUMULATORS = 12 };
#endif
enum { MOST_ROWS = 12 };           /* of a tile */

/* A number of floats, rounded up to whole vectors. */
INLINE int64_t whole_vectors(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* `rows` and `vectors` are constants: everything below unrolls into registers. */
INLINE void tile(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_column,
                 const float *b, int64_t b_row, int64_t depth, int accumulate, const int rows,
                 const int vectors)
{
    vf sum[MOST_ROWS][4];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = accumulate ? vf_load(c + r * c_row + v * LANES) : vf_all(0);
    for (int64_t k = 0; k < depth; k++) {
        vf terms[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) terms[v] = vf_load(b + k * b_row + v * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const vf factor = vf_all(a[r * a_row + k * a_column]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = vf_fma(factor, terms[v], sum[r][v]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vf_store(c + r * c_row + v * LANES, sum[r][v]);
}

/* c[rows x width] (+)= a b, with a's element (r, k) at a[r * a_row + k * a_column] and b
 * [depth x width]; width in whole vectors. */
static void product(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_column,
                    const float *b, int64_t b_row, int64_t rows, int64_t width, int64_t depth,
                    int accumulate)
{
    for (int64_t at = 0; at < width;) {
        const int64_t left = (width - at) / LANES;
        const int vectors = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const int64_t fit = ACCUMULATORS / vectors, most = fit < MOST_ROWS ? fit : MOST_ROWS;
        const int64_t tiles = (rows + most - 1) / most;
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t first = rows * t / tiles, count = rows * (t + 1) / tiles - first;
            float *to = c + first * c_row + at;
            const float *from = a + first * a_row;
#define TILE(r, v)                                                                                 \
    case (v) * 16 + (r):                                                                           \
        tile(to, c_row, from, a_row, a_column, b + at, b_row, depth, accumulate, r, v);            \
        break;
            switch (vectors * 16 + count) {
            TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
            TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1)
            TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2)
            TILE(1, 4) TILE(2, 4) TILE(3, 4)
#if defined(OCT_ISA_avx512)
            TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2)
            TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif
            default: __builtin_unreachable();
            }
#undef TILE
        }
        at += vectors * LANES;
    }
}

/* to[rows x whole_vectors(width)] = from[rows x width], filled up with zeros. */
static void pack_rows(float *to, const float *from, int64_t from_row, int64_t rows, int64_t width)
{
    const int64_t to_row = whole_vectors(width);
    for (int64_t r = 0; r < rows; r++)
        FOR_VECTORS(i, width, count,
                    vf_store(to + r * to_row + i, load(from + r * from_row + i, count)));
}

INLINE void transpose_8x8(__m256 r[8])
{
    __m256 a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

/* to[width x whole_vectors(rows)] = from[rows x width]', filled up with zeros. */
static void pack_columns(float *to, const float *from, int64_t from_row, int64_t rows,
                         int64_t width)
{
    const int64_t to_row = whole_vectors(rows);
    for (int64_t i = 0; i < width; i += 8) {
        const int64_t columns = width - i < 8 ? width - i : 8;
        const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)columns),
                                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        for (int64_t j = 0; j < to_row; j += 8) {
            __m256 block[8];
#pragma GCC unroll 8
            for (int r = 0; r < 8; r++)
                block[r] = j + r < rows ? _mm256_maskload_ps(from + (j + r) * from_row + i, inside)
                                        : _mm256_setzero_ps();
            transpose_8x8(block);
#pragma GCC unroll 8
            for (int r = 0; r < 8; r++)
                if (r < columns) _mm256_storeu_ps(to + (i + r) * to_row + j, block[r]);
        }
    }
}

#endif
