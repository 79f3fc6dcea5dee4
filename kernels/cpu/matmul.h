/* matmul.h - matrix products by oneDNN, for the kernels that need them. */
#ifndef OCT_MATMUL_H
#define OCT_MATMUL_H
#include <stdint.h>

/* y[m x n] (+)= op(a) op(b) (+ bias[n], where it is not NULL; not together with accumulate).
 * bf16 1: a and b hold bf16, y f32. -1 with the error text set where memory or oneDNN fails. */
int oct_product(float *y, const void *a, const void *b, const float *bias, int64_t m, int64_t n,
                int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16);

/* The same for `batch` products of one size, each factor and result behind the one before. */
int oct_products(float *y, const void *a, const void *b, int64_t batch, int64_t m, int64_t n,
                 int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16);

#endif
