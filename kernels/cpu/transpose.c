/* transpose.c - two dimensions exchanged, tile by tile. */
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/vector.h"
#include "kernels/kernels.h"

enum { TILE = 16 };

/* Rows first_p on and columns first_q on of one matrix [p x q] of runs of c. */
INLINE void tile(float *y, const float *x, int64_t first_p, int64_t p, int64_t first_q, int64_t q,
                 int64_t x_stride, int64_t y_stride, int64_t c, int accumulate)
{
    int64_t last_p = first_p + TILE < p ? first_p + TILE : p;
    int64_t last_q = first_q + TILE < q ? first_q + TILE : q;
    for (int64_t iq = first_q; iq < last_q; iq++)
        for (int64_t ip = first_p; ip < last_p; ip++) {
            const float *from = x + ip * x_stride + iq * c;
            float *to = y + iq * y_stride + ip * c;
            if (accumulate)
                for (int64_t i = 0; i < c; i++) to[i] += from[i];
            else if (c == 1)
                *to = *from;
            else
                memcpy(to, from, (size_t)c * sizeof *to);
        }
}

void KERNEL(transpose)(float *y, const float *x, int64_t a, int64_t p, int64_t b, int64_t q,
                       int64_t c, int accumulate)
{
    const int64_t tiles = (p + TILE - 1) / TILE;
    IN_ROWS(a * b * tiles, TILE * q * c, unit, {
        int64_t first_p = unit % tiles * TILE, ib = unit / tiles % b, ia = unit / tiles / b;
        float *to = y + (ia * q * b + ib) * p * c;
        const float *from = x + (ia * p * b + ib) * q * c;
        for (int64_t first_q = 0; first_q < q; first_q += TILE)
            if (c == 1 && !accumulate) /* by a loop that knows it */
                tile(to, from, first_p, p, first_q, q, b * q, b * p, 1, 0);
            else
                tile(to, from, first_p, p, first_q, q, b * q * c, b * p * c, c, accumulate);
    });
}
