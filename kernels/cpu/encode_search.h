/* encode_search.h - values to codes in any map (kernels/map.h), by bisection: 8 steps for 256
 * levels, 4 for 16. */
#ifndef OCT_ENCODE_SEARCH_H
#define OCT_ENCODE_SEARCH_H
#include "kernels/cpu/decode.h"
#include "kernels/cpu/draws.h"

/* The last of 16 ascending numbers that x is not below; number 0 is never looked at. */
INLINE vi search_16(const float *table, vf x)
{
    vi code = {0};
    #pragma GCC unroll 4
    for (int step = 8; step > 0; step /= 2) {
        vi next = code + step;
        code = vi_select(vf_at_least(x, look_up_16(table, next)), next, code);
    }
    return code;
}

/* The same of 256. pivots[i]: number 16 i. */
INLINE vi search_256(const float *table, const float pivots[16], vf x)
{
    vi code = search_16(pivots, x) << 4;
    #pragma GCC unroll 4
    for (int step = 8; step > 0; step /= 2) {
        vi next = code + step;
        code = vi_select(vf_at_least(x, look_up_256(table, next)), next, code);
    }
    return code;
}

/* x[count] times `inverse`; draws NULL: to the nearest. `codes` gets a byte, or half a byte, for
 * each element; count is a multiple of GROUP. */
INLINE void encode_search(uint8_t *codes, const float *x, int64_t count, float inverse,
                          const group_draws *draws, const oct_map *map, const int levels)
{
    const float *table = draws ? map->value : map->bound;
    float pivots[16];
    for (int i = 0; i < 16; i++) pivots[i] = table[i * levels / 16];
    for (int64_t i = 0; i < count; i += GROUP) {
        vi found[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            vf y = vf_load(x + i + v * LANES) * inverse;
            vi code = levels == 16 ? search_16(pivots, y) : search_256(table, pivots, y);
            if (draws) {
                vf low = levels == 16 ? look_up_16(map->value, code)
                                      : look_up_256(map->value, code);
                vf gap = levels == 16 ? look_up_16(map->gap_inverse, code)
                                      : look_up_256(map->gap_inverse, code);
                vf position = vf_fma(y - low, gap, one_and_draws(draws + i / GROUP, v));
                code = vi_select(vf_at_least(position, vf_all(2)), code + 1, code);
                vi least = vi_select(vf_less(vf_all(0), y), vi_all(map->least), code);
                code = vi_select(vi_less(code, least), least, code);
                if (map->is_signed)
                    code = vi_select(vf_less(vf_abs(y), vf_all(OCT_CHANCE_LEAST)),
                                    vi_all(map->zero), code);
            }
            found[v] = code;
        }
        if (levels == 16) store_halves(codes + i / 2, found);
        else store_unsigned(codes + i, found);
    }
}

#endif
