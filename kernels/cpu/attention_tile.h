/* attention_tile.h - the small products of attention, and the packing that they want.
 *
 * Within one head of one sequence the matrices are 10 to 128 rows by 32 or 64 columns: less than a
 * call of oneDNN costs to set up. */
#ifndef OCT_ATTENTION_TILE_H
#define OCT_ATTENTION_TILE_H
#include "kernels/cpu/row.h"
#include "kernels/cpu/tile.h"

/* A number of floats, rounded up to whole vectors. */
INLINE int64_t whole_vectors(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

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
    case (v) * 32 + (r):                                                                           \
        tile(to, c_row, from, a_row, a_column, b + at, b_row, depth, accumulate, r, v);            \
        break;
            switch (vectors * 32 + count) {
            TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
            TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1)
            TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2)
            TILE(1, 4) TILE(2, 4) TILE(3, 4)
#if defined(OCT_ISA_avx512)
            TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2)
            TILE(4, 4) TILE(5, 4) TILE(6, 4)
            TILE(13, 1) TILE(14, 1) TILE(15, 1) TILE(16, 1)
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

/* Columns i to i + 3 of LANES / 4 rows that are 4 apart, from `row` on, 4 lanes for each. */
INLINE vf quads(const float *from, int64_t from_row, int64_t row, int64_t rows, int64_t columns)
{
    static const float zeros[4];
    __m128 four[LANES / 4];
#pragma GCC unroll 4
    for (int k = 0; k < LANES / 4; k++) {
        const int64_t r = row + 4 * k;
        const float *at = r < rows ? from + r * from_row : zeros;
        four[k] = columns >= 4 ? _mm_loadu_ps(at)
                               : _mm_maskload_ps(at, _mm_cmpgt_epi32(_mm_set1_epi32((int)columns),
                                                                     _mm_setr_epi32(0, 1, 2, 3)));
    }
#if defined(OCT_ISA_avx512)
    __m512 all = _mm512_insertf32x4(_mm512_castps128_ps512(four[0]), four[1], 1);
    return (vf)_mm512_insertf32x4(_mm512_insertf32x4(all, four[2], 2), four[3], 3);
#else
    return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(four[0]), four[1], 1);
#endif
}

/* to[width x whole_vectors(rows)] = from[rows x width]', filled up with zeros: LANES rows by four
 * columns at a time, which are 4 x 4 matrices side by side, each transposed in its own lanes. */
static void pack_columns(float *to, const float *from, int64_t from_row, int64_t rows,
                         int64_t width)
{
    const int64_t to_row = whole_vectors(rows);
    for (int64_t row = 0; row < rows; row += LANES)
        for (int64_t i = 0; i < width; i += 4) {
            vf r[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                r[k] = quads(from + i, from_row, row + k, rows, width - i);
            const vf low01 = vf_interleave_low(r[0], r[1]), high01 = vf_interleave_high(r[0], r[1]);
            const vf low23 = vf_interleave_low(r[2], r[3]), high23 = vf_interleave_high(r[2], r[3]);
            const vf columns[4] = {
                vf_interleave_pairs_low(low01, low23), vf_interleave_pairs_high(low01, low23),
                vf_interleave_pairs_low(high01, high23), vf_interleave_pairs_high(high01, high23),
            };
            float *at = to + i * to_row + row;
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                if (k < width - i) vf_store(at + k * to_row, columns[k]);
        }
}

/* Rows of whole vectors, `row` floats from one to the next. */
typedef struct matrix {
    const float *at;
    int64_t row;
} matrix;

/* More rows than this, a few KiB apart, would evict each other from the first-level cache. */
enum { DIRECT_ROWS = 64 };

/* Can a matrix be used where it stands? */
INLINE int stands(int64_t rows, int64_t width) { return width % LANES == 0 && rows <= DIRECT_ROWS; }

/* The matrix itself, or its copy in `room`. */
static matrix packed(float *room, const float *from, int64_t from_row, int64_t rows, int64_t width)
{
    if (stands(rows, width)) return (matrix){from, from_row};
    pack_rows(room, from, from_row, rows, width);
    return (matrix){room, whole_vectors(width)};
}

#endif
