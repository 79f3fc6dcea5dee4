/* quantize.c - whole tensors to codes and back, as the optimizers' state is kept. */
#include "kernels/cpu/encode_lines.h"
#include "kernels/cpu/encode_search.h"
#include "kernels/kernels.h"

static float most_of(const float *x, int64_t n)
{
    vf most = vf_all(0);
    for (int64_t i = 0; i < n; i += LANES)
        most =
            greater_magnitude(most, n - i < LANES ? vf_load_first(x + i, n - i) : vf_load(x + i));
    return vf_greatest(most);
}

static void encode(uint8_t *codes, const float *x, int64_t count, float inverse, const oct_map *map)
{
    if (map->has_lines) encode_lines_nearest(codes, x, count, inverse, map, map->is_signed);
    else if (map->levels == 16) encode_search(codes, x, count, inverse, NULL, map, 16);
    else encode_search(codes, x, count, inverse, NULL, map, OCT_CODES);
}

static int64_t code_bytes(int64_t n, const oct_map *map)
{
    return map->levels == 16 ? (n + 1) / 2 : n;
}

static void quantize_block(uint8_t *codes, float *absmax, const float *x, int64_t n,
                           const oct_map *map)
{
    float most = most_of(x, n), inverse = most < OCT_ABSMAX_LEAST ? 0 : 1 / most;
    int64_t whole = n / GROUP * GROUP, rest = n - whole;
    *absmax = inverse != 0 ? most : 0;
    encode(codes, x, whole, inverse, map);
    if (rest == 0) return;
    float values[GROUP] = {0};
    uint8_t bytes[GROUP];
    memcpy(values, x + whole, (size_t)rest * sizeof *x);
    encode(bytes, values, GROUP, inverse, map);
    memcpy(codes + code_bytes(whole, map), bytes, (size_t)code_bytes(rest, map));
}

void KERNEL(quantize)(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                      const oct_map *map)
{
    #pragma omp parallel for schedule(static) if (n > OCT_OPTIM_PIECE)
    for (int64_t b = 0; b < (n + block - 1) / block; b++) {
        int64_t at = b * block, count = n - at < block ? n - at : block;
        quantize_block(codes + code_bytes(at, map), absmax + b, x + at, count, map);
    }
}

void KERNEL(dequantize)(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                        int64_t block, const oct_map *map)
{
    #pragma omp parallel for schedule(static) if (n > OCT_OPTIM_PIECE)
    for (int64_t b = 0; b < (n + block - 1) / block; b++)
        for (int64_t i = b * block; i < n && i < (b + 1) * block; i++) {
            int code = map->levels == 16 ? codes[i / 2] >> i % 2 * 4 & 15 : codes[i];
            x[i] = map->value[code] * absmax[b];
        }
}
