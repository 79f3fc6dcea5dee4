/* tables.hpp - a map as the threads of a block share it, and a value's code in it.
 *
 * The same codes as kernels/cpu/optim_ref.c finds from end to end: here by bisection, or in a map
 * of lines (kernels/map.h) from a value's cell and one comparison. */
#ifndef OCT_CUDA_TABLES_HPP
#define OCT_CUDA_TABLES_HPP
#include "kernels/cuda/runtime.hpp"
#include "kernels/map.h"

/* How a slot's codes are found: to the nearest; by chance, in a map of lines or in any other. */
enum coding { CODE_NEAREST, CODE_BY_LINE, CODE_BY_GAP };

typedef struct map_tables {
    float value[OCT_CODES];
    float other[OCT_CODES]; /* NEAREST: the bounds; BY_GAP: the inverse gaps */
    struct {
        float slope, offset;
    } line[OCT_SEGMENTS];
    float end[OCT_SEGMENTS];
    uint8_t cell_segment[OCT_CELLS];
    float scale, lift;
    int32_t coding, is_signed, levels, least, zero, top;
} map_tables;

/* By all `threads` of the block, which must wait for each other afterwards. */
INLINE void load_tables(map_tables *to, const oct_map *map, int stochastic, int threads)
{
    const oct_lines *lines = &map->chance;
    int coding = !stochastic ? CODE_NEAREST : map->has_lines ? CODE_BY_LINE : CODE_BY_GAP;
    const float *other = coding == CODE_NEAREST ? map->bound : map->gap_inverse;
    for (int i = (int)threadIdx.x; i < map->levels; i += threads) {
        to->value[i] = map->value[i];
        if (coding != CODE_BY_LINE) to->other[i] = other[i];
    }
    for (int i = (int)threadIdx.x; coding == CODE_BY_LINE && i < OCT_CELLS; i += threads) {
        to->cell_segment[i] = lines->cell_segment[i];
        if (i >= OCT_SEGMENTS) continue;
        to->line[i].slope = lines->slope[i];
        to->line[i].offset = lines->offset[i];
        to->end[i] = lines->end[i];
    }
    if (threadIdx.x != 0) return;
    to->scale = lines->scale;
    to->lift = lines->lift;
    to->coding = coding;
    to->is_signed = map->is_signed;
    to->levels = map->levels;
    to->least = map->least;
    to->zero = map->zero;
    to->top = map->top;
}

/* The last of `count` ascending numbers that x is not below; number 0 is never looked at. count: a
 * power of two. */
INLINE int search(const float *table, int count, float x)
{
    int found = 0;
    for (int step = count / 2; step > 0; step /= 2)
        if (x >= table[found + step]) found += step;
    return found;
}

/* factor: what x is to be multiplied with, the map's scale among it. */
INLINE unsigned code_by_line(float x, float factor, uint32_t half_word, const map_tables *map)
{
    float y = fmaf(fabsf(x), factor, map->lift);
    int segment = map->cell_segment[__float_as_uint(y) >> 21 & (OCT_CELLS - 1)];
    segment += y >= map->end[segment];
    uint32_t bits = __float_as_uint(fmaf(y, map->line[segment].slope, map->line[segment].offset));
    if (!map->is_signed) {
        if (bits > OCT_PLACE_LAST) bits = OCT_PLACE_LAST;
        return x == 0 ? 0 : OCT_PLACE_OF(bits + half_word - 0x10000);
    }
    int entry = (int)OCT_PLACE_OF(bits + half_word), is_negative = signbit(x) ? 1 : 0;
    int last = is_negative ? OCT_SIGNED_ZERO : map->top;
    if (entry > last) entry = last;
    return (unsigned)(OCT_SIGNED_ZERO + (is_negative ? -entry : entry));
}

/* The half-word as a number in (1, 2), the middle of one of 65,536 equal parts. */
INLINE float one_and_draw(uint32_t half_word)
{
    return __uint_as_float(0x3F800000u | half_word << 7 | 0x40u);
}

INLINE unsigned code_by_gap(float x, float draw, const map_tables *map)
{
    int code = search(map->value, map->levels, x);
    if (fmaf(x - map->value[code], map->other[code], draw) >= 2) code++;
    if (x > 0 && code < map->least) code = map->least;
    return (unsigned)(map->is_signed && fabsf(x) < OCT_CHANCE_LEAST ? map->zero : code);
}

/* The code of a value of a block whose scale has this inverse. */
INLINE unsigned code_in(const map_tables *map, float x, float inverse, uint32_t half_word)
{
    if (map->coding == CODE_BY_LINE) return code_by_line(x, inverse * map->scale, half_word, map);
    if (map->coding == CODE_NEAREST) return (unsigned)search(map->other, map->levels, x * inverse);
    return code_by_gap(x * inverse, one_and_draw(half_word), map);
}

#endif
