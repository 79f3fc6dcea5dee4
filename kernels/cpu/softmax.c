/* softmax.c - softmax, its logarithm, and cross-entropy, over the last dimension. */
#include <math.h>

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/row.h"
#include "kernels/kernels.h"

/* The sum of e^(x - most); the terms go to y unless it is NULL. */
INLINE double exponents(float *y, const float *x, int64_t n, float most)
{
    double sum = 0;
    for (int64_t from = 0; from < n; from += RUN) {
        const int64_t length = n - from < RUN ? n - from : RUN;
        vf terms = vf_all(0);
        FOR_VECTORS(i, length, count, {
            vf e = vf_exp(load(x + from + i, count) - most);
            if (count < LANES) e = vf_select(vm_first(count), e, vf_all(0));
            if (y) store(y + from + i, e, count);
            terms += e;
        });
        sum += vf_sum_double(terms);
    }
    return sum;
}

void KERNEL(softmax)(float *y, const float *x, int64_t rows, int64_t width, int log_)
{
    IN_ROWS(rows, width, row, {
        const float *from = x + row * width;
        float *to = y + row * width;
        const float most = row_greatest(from, width);
        if (log_) {
            const float log_sum = (float)log(exponents(NULL, from, width, most));
            FOR_VECTORS(i, width, count,
                        store(to + i, load(from + i, count) - most - log_sum, count));
        } else {
            const float scale = (float)(1 / exponents(to, from, width, most));
            FOR_VECTORS(i, width, count, store(to + i, load(to + i, count) * scale, count));
        }
    });
}

INLINE void softmax_row_backward(float *dx, const float *dy, const float *y, int64_t width,
                                 int log_, int accumulate)
{
    const vf sum = vf_all((float)(log_ ? row_sum(dy, dy, width, vf_all(0))
                                       : row_dot(dy, y, width, vf_all(0))));
    FOR_VECTORS(i, width, count, {
        vf d = load(dy + i, count), v = load(y + i, count);
        vf g = log_ ? d - vf_exp(v) * sum : v * (d - sum);
        store(dx + i, accumulate ? load(dx + i, count) + g : g, count);
    });
}

void KERNEL(softmax_backward)(float *dx, const float *dy, const float *y, int64_t rows,
                              int64_t width, int log_, int accumulate)
{
    IN_ROWS(rows, width, row, {
        const int64_t at = row * width;
        if (log_) softmax_row_backward(dx + at, dy + at, y + at, width, 1, accumulate);
        else softmax_row_backward(dx + at, dy + at, y + at, width, 0, accumulate);
    });
}

void KERNEL(cross_entropy)(float *losses, const float *logits, const int32_t *labels, int64_t rows,
                           int64_t classes, int32_t ignore)
{
    IN_ROWS(rows, classes, row, {
        const float *x = logits + row * classes;
        losses[row] = 0;
        if (labels[row] != ignore) {
            const float most = row_greatest(x, classes);
            losses[row] = (float)(log(exponents(NULL, x, classes, most))
                                  - ((double)x[labels[row]] - most));
        }
    });
}

void KERNEL(cross_entropy_backward)(float *dlogits, const float *logits, const int32_t *labels,
                                    float scale, int64_t rows, int64_t classes, int32_t ignore,
                                    int accumulate)
{
    IN_ROWS(rows, classes, row, {
        const float *x = logits + row * classes;
        float *dx = dlogits + row * classes;
        if (labels[row] != ignore) {
            const float most = row_greatest(x, classes);
            const float log_sum = (float)log(exponents(NULL, x, classes, most));
            FOR_VECTORS(i, classes, count, {
                vf g = vf_exp(load(x + i, count) - most - log_sum) * scale;
                store(dx + i, accumulate ? load(dx + i, count) + g : g, count);
            });
            dx[labels[row]] -= scale;
        } else if (!accumulate) {
            for (int64_t i = 0; i < classes; i++) dx[i] = 0;
        }
    });
}

/* ---- a logit for each yes or no -------------------------------------------------------------- */

static void binary_losses(float *losses, const float *x, const float *targets, int64_t n)
{
    FOR_VECTORS(i, n, count, {
        const vf logit = load(x + i, count), zero = vf_all(0);
        const vf soft = vf_max(logit, zero) + vf_log(1.0f + vf_exp(-vf_abs(logit)));
        store(losses + i, soft - logit * load(targets + i, count), count);
    });
}

void KERNEL(binary_cross_entropy)(float *losses, const float *x, const float *targets, int64_t n)
{
    IN_PIECES(n, at, count, binary_losses(losses + at, x + at, targets + at, count));
}

static void binary_gradients(float *dx, const float *x, const float *targets, float scale,
                             int64_t n, int accumulate)
{
    FOR_VECTORS(i, n, count, {
        const vf g = (vf_sigmoid(load(x + i, count)) - load(targets + i, count)) * scale;
        store(dx + i, accumulate ? load(dx + i, count) + g : g, count);
    });
}

void KERNEL(binary_cross_entropy_backward)(float *dx, const float *x, const float *targets,
                                           float scale, int64_t n, int accumulate)
{
    IN_PIECES(n, at, count,
              binary_gradients(dx + at, x + at, targets + at, scale, count, accumulate));
}
