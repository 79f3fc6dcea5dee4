/* tile.h - the heart of a product that is too small for oneDNN: a tile of the result in registers.
 */
#ifndef OCT_TILE_H
#define OCT_TILE_H
#include "kernels/cpu/vector.h"

/* Accumulators of a tile; what is left of the 32 or 16 registers holds a row of b and an a. */
#if defined(OCT_ISA_avx512)
enum { ACCUMULATORS = 24 };
#else
enum { ACCUMULATORS = 12 };
#endif
enum { MOST_ROWS = 16 }; /* of a tile */

/* c[rows x vectors] (+)= a b, with a's element (r, k) at a[r * a_row + k * a_column] and b
 * [depth x vectors]. `rows` and `vectors` are constants: everything below unrolls into registers.
 */
INLINE void tile(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_column,
                 const float *b, int64_t b_row, int64_t depth, int accumulate, const int rows,
                 const int vectors)
{
    vf sum[MOST_ROWS][4];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = accumulate ? vf_load(c + r * c_row + v * LANES) : vf_all(0);
    for (int64_t k = 0; k < depth; k++) {
        vf terms[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) terms[v] = vf_load(b + k * b_row + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const vf factor = vf_all(a[r * a_row + k * a_column]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] = vf_fma(factor, terms[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vf_store(c + r * c_row + v * LANES, sum[r][v]);
}

#endif
