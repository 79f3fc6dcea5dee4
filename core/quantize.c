/* quantize.c - tensors of numbers to codes and back, outside of an optimizer. */
#include <math.h>

#include "core/error.h"
#include "core/octet.h"
#include "kernels/kernels.h"

static int check_quantize(int64_t n, int64_t block)
{
    if (n < 0) return oct_fail("quantize: %lld elements, expected 0 or more", (long long)n);
    if (block < OCT_BLOCK_MIN || (block & (block - 1)) != 0)
        return oct_fail("quantize: a block of %lld, expected a power of two from %d on",
                        (long long)block, OCT_BLOCK_MIN);
    return 0;
}

int oct_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                 const oct_map *map, int reference)
{
    OCT_TRY(check_quantize(n, block));
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) < OCT_STATE_LIMIT) || (x[i] < 0 && !map->is_signed))
            return oct_fail("quantize: element %lld is not a number below 2^126%s", (long long)i,
                            map->is_signed ? "" : " and not below 0");
    (reference ? oct_quantize_ref : oct_kernels_now()->quantize)(codes, absmax, x, n, block, map);
    return 0;
}

int oct_dequantize(float *x, const uint8_t *codes, const float *absmax, int64_t n, int64_t block,
                   const oct_map *map, int reference)
{
    OCT_TRY(check_quantize(n, block));
    (reference ? oct_dequantize_ref : oct_kernels_now()->dequantize)(x, codes, absmax, n, block,
                                                                     map);
    return 0;
}
