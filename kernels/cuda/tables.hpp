/* tables.hpp - a map as the threads of a block share it, and a value's code in it.
 *
 * The same codes as kernels/cpu/optim_ref.c finds from end to end: here by bisection, or in a map
 * of lines (kernels/map.h) from a value's cell and one comparison. */
#ifndef OCT_CUDA_TABLES_HPP
#define OCT_CUDA_TABLES_HPP
#include "kernels/cuda/run.hpp"
#include "kernels/cuda/runtime.hpp"
#include "kernels/map.h"

/* ---- maps of lines, by chance ---------------------------------------------------------------- */

typedef struct line {
    float slope, offset;
} line;

/* Where a cell begins there holds line `first`; from `end` on, the next one. */
typedef struct alignas(8) cell {
    float end;
    int first;
} cell;

typedef struct line_tables {
    cell cells[OCT_CELLS];
    alignas(8) line lines[OCT_SEGMENTS];
} line_tables;

/* By all threads of the block, of which there is one for each cell at least. They must wait for
 * each other afterwards. */
INLINE void share_lines(line_tables *to, const oct_lines *lines)
{
    int i = (int)threadIdx.x;
    if (i < OCT_CELLS) {
        int first = lines->cell_segment[i];
        to->cells[i].first = first;
        to->cells[i].end = lines->end[first];
    }
    if (i < OCT_SEGMENTS) {
        to->lines[i].slope = lines->slope[i];
        to->lines[i].offset = lines->offset[i];
    }
}

/* The bits of a value's place (kernels/map.h). */
INLINE uint32_t place_bits(float x, float factor, const line_tables *map)
{
    float y = fmaf(fabsf(x), factor, OCT_CHANCE_LIFT);
    const cell c = map->cells[__float_as_uint(y) >> 21 & (OCT_CELLS - 1)];
    const line l = map->lines[c.first + (y >= c.end)];
    return __float_as_uint(fmaf(y, l.slope, l.offset));
}

INLINE packed_codes signed_codes(const float x[RUN], float factor, const uint32_t half_words[RUN],
                                 const line_tables *map)
{
    int place[RUN];
    UNROLL for (int i = 0; i < RUN; i++) {
        int entry = (int)OCT_PLACE_OF(place_bits(x[i], factor, map) + half_words[i]);
        place[i] = signbit(x[i]) ? entry : -entry;
    }
    /* Code 127 - place, from -128 on; 128 of the negative side has been cut to 127. */
    return pack_signed(place) ^ 0x7F7F7F7Fu;
}

INLINE packed_codes unsigned_codes(const float x[RUN], float factor,
                                   const uint32_t half_words[RUN], const line_tables *map)
{
    int code[RUN];
    UNROLL for (int i = 0; i < RUN; i++) {
        uint32_t bits = place_bits(x[i], factor, map), number = __float_as_uint(x[i]);
        if (bits > OCT_PLACE_LAST) bits = OCT_PLACE_LAST;
        bits = OCT_PLACE_OF(bits + half_words[i] - 0x10000);
        /* 0 stays 0; the bits of anything else are more than a code. */
        code[i] = (int)(bits < number ? bits : number);
    }
    return pack_unsigned(code);
}

/* factor: what the values are to be multiplied with, the map's scale among it. */
INLINE packed_codes codes_by_line(const float x[RUN], float factor,
                                  const uint32_t half_words[RUN], const line_tables *map,
                                  bool is_signed)
{
    return is_signed ? signed_codes(x, factor, half_words, map)
                     : unsigned_codes(x, factor, half_words, map);
}

/* ---- any map --------------------------------------------------------------------------------- */

/* How a slot's codes are found: to the nearest; by chance, in a map of lines or in any other. */
enum coding { CODE_NEAREST, CODE_BY_LINE, CODE_BY_GAP };

typedef struct map_tables {
    float value[OCT_CODES];
    float other[OCT_CODES]; /* NEAREST: the bounds; BY_GAP: the inverse gaps */
    line_tables lines;      /* BY_LINE */
    float scale;
    int32_t coding, is_signed, levels, least, zero;
} map_tables;

/* As share_lines. */
INLINE void share_tables(map_tables *to, const oct_map *map, int stochastic)
{
    int coding = !stochastic ? CODE_NEAREST : map->has_lines ? CODE_BY_LINE : CODE_BY_GAP;
    const float *other = coding == CODE_NEAREST ? map->bound : map->gap_inverse;
    int i = (int)threadIdx.x;
    if (i < map->levels) {
        to->value[i] = map->value[i];
        to->other[i] = other[i];
    }
    if (coding == CODE_BY_LINE) share_lines(&to->lines, &map->chance);
    if (i != 0) return;
    to->scale = map->chance.scale;
    to->coding = coding;
    to->is_signed = map->is_signed;
    to->levels = map->levels;
    to->least = map->least;
    to->zero = map->zero;
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

/* The codes of a run of a block whose scale has this inverse. */
INLINE packed_codes codes_in(const map_tables *map, const float x[RUN], float inverse,
                             const uint32_t half_words[RUN])
{
    packed_codes codes = 0;
    if (map->coding == CODE_BY_LINE)
        return codes_by_line(x, inverse * map->scale, half_words, &map->lines, map->is_signed);
    UNROLL for (int i = 0; i < RUN; i++) {
        float y = x[i] * inverse;
        unsigned code = map->coding == CODE_NEAREST
                            ? (unsigned)search(map->other, map->levels, y)
                            : code_by_gap(y, one_and_draw(half_words[i]), map);
        codes |= code << 8 * i;
    }
    return codes;
}

#endif
