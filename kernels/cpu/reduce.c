/* reduce.c - sums, means and maxima over one dimension, and what turns them back.
 *
 * Sums run in f32 over short runs and in double above them, so that a million terms are as good as
 * a thousand. The cuts are places of the data: any number of threads gives the same bits. */
#include <string.h>

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/row.h"
#include "kernels/kernels.h"

enum { MOST_PARTS = 64 };          /* parts of a long run that are summed apart */

/* Length of the parts that a run of n is cut into, at most MOST_PARTS of them. */
static int64_t part_length(int64_t n, int64_t least)
{
    int64_t length = (n + MOST_PARTS - 1) / MOST_PARTS;
    length = (length + 63) / 64 * 64;
    return length < least ? least : length;
}

/* `total` = the sum over the parts of `run` (from, count), in their order. */
#define SUM_OF_PARTS(total, n, from, count, run)                                                   \
    do {                                                                                           \
        const int64_t length_ = part_length(n, 4 * RUN), parts_ = ((n) + length_ - 1) / length_;   \
        double sums_[MOST_PARTS];                                                                  \
        if (parts_ <= 1) {                                                                         \
            const int64_t from = 0, count = (n);                                                   \
            total = (run);                                                                         \
            break;                                                                                 \
        }                                                                                          \
        _Pragma("omp parallel for schedule(static)")                                               \
        for (int64_t part_ = 0; part_ < parts_; part_++) {                                         \
            const int64_t from = part_ * length_;                                                  \
            const int64_t count = (n) - from < length_ ? (n) - from : length_;                     \
            sums_[part_] = (run);                                                                  \
        }                                                                                          \
        total = 0;                                                                                 \
        for (int64_t part_ = 0; part_ < parts_; part_++) total += sums_[part_];                    \
    } while (0)

/* ---- along contiguous elements --------------------------------------------------------------- */

static double run_sum(const float *x, int64_t n) { return row_sum(x, x, n, vf_all(0)); }

static float run_max(int32_t *at, const float *x, int64_t n)
{
    float most = row_greatest(x, n);
    int nan = 0;
    FOR_VECTORS(i, n, count, nan |= vm_any(vf_nan(load(x + i, count))));
    int64_t place = 0;             /* the first NaN, or the first of the largest */
    for (; place + LANES <= n; place += LANES) {
        const vf v = vf_load(x + place);
        if (vm_any(nan ? vf_nan(v) : vf_equal(v, vf_all(most)))) break;
    }
    while (place < n - 1 && (nan ? x[place] == x[place] : x[place] != most)) place++;
    *at = (int32_t)place;
    return x[place];
}

static void reduce_rows(float *y, int32_t *at, const float *x, int64_t outer, int64_t size, int op)
{
    if (op == OCT_MAX) {
        IN_ROWS(outer, size, row, {
            int32_t place;
            y[row] = run_max(&place, x + row * size, size);
            if (at) at[row] = place;
        });
        return;
    }
    const double divisor = op == OCT_MEAN ? (double)size : 1;
    if (size > 4 * RUN && outer < MOST_PARTS) {
        for (int64_t row = 0; row < outer; row++) {
            double total;
            SUM_OF_PARTS(total, size, from, count, run_sum(x + row * size + from, count));
            y[row] = (float)(total / divisor);
        }
        return;
    }
    IN_ROWS(outer, size, row, y[row] = (float)(run_sum(x + row * size, size) / divisor));
}

/* ---- down columns ---------------------------------------------------------------------------- */

enum { STRIP = 64, STEP = 64 };    /* columns summed together; rows summed in f32 */

/* sums[STRIP] = the sums of `rows` rows of the first `width` <= STRIP columns. */
static void strip_sums(double *sums, const float *x, int64_t rows, int64_t inner, int64_t width)
{
    enum { VECTORS = STRIP / LANES };
    memset(sums, 0, STRIP * sizeof *sums);
    for (int64_t from = 0; from < rows; from += STEP) {
        const int64_t end = rows - from < STEP ? rows : from + STEP;
        float step[STRIP];
        if (width == STRIP) {
            vf sum[VECTORS];
            for (int k = 0; k < VECTORS; k++) sum[k] = vf_all(0);
            for (int64_t s = from; s < end; s++)
                for (int k = 0; k < VECTORS; k++) sum[k] += vf_load(x + s * inner + k * LANES);
            for (int k = 0; k < VECTORS; k++) vf_store(step + k * LANES, sum[k]);
        } else {
            for (int64_t j = 0; j < width; j++) step[j] = 0;
            for (int64_t s = from; s < end; s++)
                for (int64_t j = 0; j < width; j++) step[j] += x[s * inner + j];
        }
        for (int64_t j = 0; j < width; j++) sums[j] += step[j];
    }
}

/* One strip whose rows are many: its parts by several threads. */
static void strip_of_parts(double *sums, const float *x, int64_t rows, int64_t inner, int64_t width)
{
    double part_sums[MOST_PARTS][STRIP];
    const int64_t length = part_length(rows, 4 * STEP), parts = (rows + length - 1) / length;
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t from = part * length;
        strip_sums(part_sums[part], x + from * inner, rows - from < length ? rows - from : length,
                   inner, width);
    }
    memcpy(sums, part_sums[0], sizeof part_sums[0]);
    for (int64_t part = 1; part < parts; part++)
        for (int64_t j = 0; j < width; j++) sums[j] += part_sums[part][j];
}

static void reduce_columns(float *y, const float *x, int64_t outer, int64_t size, int64_t inner,
                           double divisor)
{
    const int64_t strips = (inner + STRIP - 1) / STRIP;
    if (outer * strips < 8 && size * (inner < STRIP ? inner : STRIP) >= SERIAL_BELOW) {
        for (int64_t i = 0; i < outer * strips; i++) {
            const int64_t o = i / strips, from = i % strips * STRIP;
            const int64_t width = inner - from < STRIP ? inner - from : STRIP;
            double sums[STRIP];
            strip_of_parts(sums, x + o * size * inner + from, size, inner, width);
            float *to = y + o * inner + from;
            for (int64_t j = 0; j < width; j++) to[j] = (float)(sums[j] / divisor);
        }
        return;
    }
    IN_ROWS(outer * strips, size * STRIP, i, {
        const int64_t o = i / strips, from = i % strips * STRIP;
        const int64_t width = inner - from < STRIP ? inner - from : STRIP;
        double sums[STRIP];
        strip_sums(sums, x + o * size * inner + from, size, inner, width);
        float *to = y + o * inner + from;
        for (int64_t j = 0; j < width; j++) to[j] = (float)(sums[j] / divisor);
    });
}

/* NaN is greater than all; of equals, the first. */
static void max_columns(float *y, int32_t *at, const float *x, int64_t outer, int64_t size,
                        int64_t inner)
{
    const int64_t strips = (inner + LANES - 1) / LANES;
    IN_ROWS(outer * strips, size * LANES, i, {
        const int64_t o = i / strips, from = i % strips * LANES;
        const int64_t width = inner - from < LANES ? inner - from : LANES;
        const float *column = x + o * size * inner + from;
        vf most = load(column, width);
        vf place = vf_all(0);
        for (int64_t s = 1; s < size; s++) {
            vf v = load(column + s * inner, width);
            vf better = vf_select(vf_nan(v), (vf)vi_all(-1), (vf)(most < v));
            better = vf_select(vf_nan(most), vf_all(0), better);
            most = (vf)(((vi)better & (vi)v) | (~(vi)better & (vi)most));
            place = (vf)(((vi)better & vi_all((int32_t)s)) | (~(vi)better & (vi)place));
        }
        store(y + o * inner + from, most, width);
        if (at) store((float *)at + o * inner + from, place, width);
    });
}

void KERNEL(reduce)(float *y, int32_t *at, const float *x, int64_t outer, int64_t size,
                    int64_t inner, int op)
{
    if (inner == 1) reduce_rows(y, at, x, outer, size, op);
    else if (op == OCT_MAX) max_columns(y, at, x, outer, size, inner);
    else reduce_columns(y, x, outer, size, inner, op == OCT_MEAN ? (double)size : 1);
}

/* ---- over all elements ----------------------------------------------------------------------- */

/* Sixteen sums, whatever the width of a vector: element i adds to sum i % 16, so that every
 * instruction set gives the same bits. */
static double run_squares(const float *x, int64_t n)
{
    enum { SUMS = 16, PARTS = SUMS / LANES };
    vd low[PARTS] = {{0}}, high[PARTS] = {{0}};
    for (int64_t i = 0; i < n; i += SUMS)
        for (int k = 0; k < PARTS && i + k * LANES < n; k++) {
            int64_t at = i + k * LANES, count = n - at < LANES ? n - at : LANES;
            vf y = load(x + at, count);
            vd a = vf_low_double(y), b = vf_high_double(y);
            low[k] += a * a;
            high[k] += b * b;
        }
    double sums[SUMS];
    for (int k = 0; k < PARTS; k++) {
        memcpy(sums + k * LANES, low + k, sizeof *low);
        memcpy(sums + k * LANES + LANES / 2, high + k, sizeof *high);
    }
    for (int half = SUMS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

double KERNEL(sum_squares)(const float *x, int64_t n)
{
    double total;
    SUM_OF_PARTS(total, n, from, count, run_squares(x + from, count));
    return total;
}

static double run_not_finite(const float *x, int64_t n)
{
    vf sum = vf_all(0);            /* x * 0 is 0, or NaN where x is not finite */
    FOR_VECTORS(i, n, count, sum = vf_fma(load(x + i, count), vf_all(0), sum));
    return vm_any(vf_nan(sum));
}

int KERNEL(all_finite)(const float *x, int64_t n)
{
    double found;
    SUM_OF_PARTS(found, n, from, count, run_not_finite(x + from, count));
    return found == 0;
}

/* ---- back ------------------------------------------------------------------------------------ */

static void spread_number(float *dx, float number, int64_t n, int accumulate)
{
    if (accumulate)
        for (int64_t i = 0; i < n; i++) dx[i] += number;
    else
        for (int64_t i = 0; i < n; i++) dx[i] = number;
}

static void spread_row(float *dx, const float *dy, int64_t n, float scale, int accumulate)
{
    if (accumulate)
        for (int64_t i = 0; i < n; i++) dx[i] += scale * dy[i];
    else
        for (int64_t i = 0; i < n; i++) dx[i] = scale * dy[i];
}

void KERNEL(spread)(float *dx, const float *dy, int64_t outer, int64_t size, int64_t inner,
                    float scale, int accumulate)
{
    if (inner > 1) {
        IN_ROWS(outer * size, inner, row, spread_row(dx + row * inner, dy + row / size * inner,
                                                     inner, scale, accumulate));
    } else if (outer == 1) {
        IN_PIECES(size, at, count, spread_number(dx + at, scale * dy[0], count, accumulate));
    } else {
        IN_ROWS(outer, size, row,
                spread_number(dx + row * size, scale * dy[row], size, accumulate));
    }
}
