/* elementwise.h - activations for callers that are inside a parallel region already: both are
 * serial. `activation` is the unary op, -1 for none. */
#ifndef OCT_ELEMENTWISE_H
#define OCT_ELEMENTWISE_H
#include <stdint.h>

#include "kernels/cpu/isa.h"

/* y[rows x width] holds a product: z = y + bias, y = f(z). `bias` and `z` may
 * be NULL. */
void KERNEL(bias_activation)(float *y, float *z, const float *bias, int64_t rows, int64_t width,
                             int activation);
/* dz[n] = dy[n] * f'(z[n]); dz may be dy. */
void KERNEL(activation_gradient)(float *dz, const float *dy, const float *z, int64_t n,
                                 int activation);

#endif
