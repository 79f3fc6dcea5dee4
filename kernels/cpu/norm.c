/* norm.c - layer norm (Ba, Kiros, Hinton, arXiv 1607.06450). */
#include <math.h>
#include <string.h>

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/row.h"
#include "kernels/kernels.h"

void KERNEL(layer_norm)(float *y, float *mean, float *rstd, const float *x, const float *gain,
                        const float *shift, int64_t rows, int64_t width, float epsilon)
{
    IN_ROWS(rows, width, row, {
        const float *from = x + row * width;
        float *to = y + row * width;
        const float middle = (float)(row_sum(from, from, width, vf_all(0)) / (double)width);
        const double squares = row_square_distance(from, from, width, vf_all(middle));
        const float scale = (float)(1 / sqrt(squares / (double)width + epsilon));
        FOR_VECTORS(i, width, count, {
            vf v = (load(from + i, count) - middle) * scale;
            store(to + i, vf_fma(v, load(gain + i, count), load(shift + i, count)), count);
        });
        mean[row] = middle;
        rstd[row] = scale;
    });
}

/* One row: dx, and dgain and dshift added to where they are wanted. */
INLINE void row_backward(float *dx, float *dgain, float *dshift, const float *dy, const float *x,
                         float mean, float rstd, const float *gain, int64_t width, int accumulate)
{
    /* With g = dy * gain and h = (x - mean) * rstd: dx = rstd (g - average(g) - h average(g h)). */
    vf sum_g = vf_all(0), sum_gh = vf_all(0);
    FOR_VECTORS(i, width, count, {
        vf d = load(dy + i, count), h = (load(x + i, count) - mean) * rstd;
        if (count < LANES) h = vf_select(vm_first(count), h, vf_all(0));
        vf g = d * load(gain + i, count);
        sum_g += g;
        sum_gh = vf_fma(g, h, sum_gh);
        if (dgain) {
            store(dgain + i, vf_fma(d, h, load(dgain + i, count)), count);
            store(dshift + i, load(dshift + i, count) + d, count);
        }
    });
    const vf average_g = vf_all((float)(vf_sum_double(sum_g) / (double)width));
    const vf average_gh = vf_all((float)(vf_sum_double(sum_gh) / (double)width));
    FOR_VECTORS(i, width, count, {
        vf h = (load(x + i, count) - mean) * rstd;
        vf g = load(dy + i, count) * load(gain + i, count);
        vf d = (g - average_g - h * average_gh) * rstd;
        store(dx + i, accumulate ? load(dx + i, count) + d : d, count);
    });
}

static void add_partials(float *sum, const float *partial, int64_t pieces, int64_t width,
                         int64_t from, int64_t count, int accumulate)
{
    for (int64_t j = from; j < from + count; j++) {
        double total = 0;
        for (int64_t p = 0; p < pieces; p++) total += partial[p * 2 * width + j];
        sum[j] = accumulate ? sum[j] + (float)total : (float)total;
    }
}

void KERNEL(layer_norm_backward)(float *dx, float *dgain, float *dshift, const float *dy,
                                 const float *x, const float *mean, const float *rstd,
                                 const float *gain, int64_t rows, int64_t width, float *partial,
                                 int accumulate)
{
    const int64_t pieces = oct_layer_norm_partials(rows);
    const int wanted = dgain || dshift;
    IN_ROWS(pieces, 64 * width, piece, {
        float *sums = partial + piece * 2 * width;
        if (wanted) memset(sums, 0, (size_t)(2 * width) * sizeof *sums);
        for (int64_t row = rows * piece / pieces; row < rows * (piece + 1) / pieces; row++) {
            const int64_t at = row * width;
            row_backward(dx + at, wanted ? sums : NULL, sums + width, dy + at, x + at, mean[row],
                         rstd[row], gain, width, accumulate & 1);
        }
    });
    if (!wanted) return;
    const int64_t strips = (width + 63) / 64;
    IN_ROWS(strips, 64 * pieces, strip, {
        const int64_t from = strip * 64;
        const int64_t count = width - from < 64 ? width - from : 64;
        if (dgain) add_partials(dgain, partial, pieces, width, from, count, accumulate & 2);
        if (dshift)
            add_partials(dshift, partial + width, pieces, width, from, count, accumulate & 4);
    });
}
