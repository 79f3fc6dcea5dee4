/* element.hpp - one element of an optimizer's step: codes, draws, formats of numbers, the rule.
 *
 * The same arithmetic as kernels/cpu/optim_ref.c, operation by operation, so that the bits are the
 * same; what is searched there from end to end is searched here by bisection. */
#ifndef OCT_CUDA_ELEMENT_HPP
#define OCT_CUDA_ELEMENT_HPP
#include "kernels/cuda/runtime.hpp"

typedef float vf;
INLINE vf vf_all(float x) { return x; }
INLINE vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
INLINE vf vf_sqrt(vf a) { return sqrtf(a); }
INLINE vf vf_abs(vf a) { return fabsf(a); }
/* Where one is NaN, or both are zeros, the result is b, as a vector's is. */
INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
INLINE vf vf_sign(vf a) { return a == 0 ? 0 : copysignf(1, a); }

#define OCT_RULE_ARITHMETIC
#include "core/octet.h"
#include "core/random.h"
#include "rules_list.h"

/* ---- draws ----------------------------------------------------------------------------------- */

/* The half-word of an element, whose group of 64 has these 16 words. */
INLINE uint32_t draw_of(const uint32_t *group_words, int64_t element)
{
    uint64_t word = group_words[element % 16], next = group_words[(element + 1) % 16];
    return (uint32_t)((word | next << 32) >> (int)(element % 64 / 16 * 8)) & 0xFFFF;
}

/* The half-word as a number in (1, 2), the middle of one of 65,536 equal parts. */
INLINE float one_and_draw(uint32_t half_word)
{
    return __uint_as_float(0x3F800000u | half_word << 7 | 0x40u);
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* The last of `count` ascending numbers that x is not below; number 0 is never looked at. count: a
 * power of two. */
INLINE int search(const float *table, int count, float x)
{
    int found = 0;
    for (int step = count / 2; step > 0; step /= 2)
        if (x >= table[found + step]) found += step;
    return found;
}

INLINE int code_nearest(float x, const oct_map *map) { return search(map->bound, map->levels, x); }

/* factor: what x is to be multiplied with, map->chance.scale among it. */
INLINE int code_by_line(float x, float factor, uint32_t half_word, const oct_map *map)
{
    const oct_lines *lines = &map->chance;
    float y = fmaf(fabsf(x), factor, lines->lift);
    int segment = search(lines->start, OCT_SEGMENTS, y);
    float place = fmaf(y, lines->slope[segment], lines->offset[segment]);
    uint32_t bits = __float_as_uint(place);
    if (!map->is_signed) {
        if (bits > OCT_PLACE_LAST) bits = OCT_PLACE_LAST;
        return x == 0 ? 0 : (int)OCT_PLACE_OF(bits + half_word - 0x10000);
    }
    int entry = (int)OCT_PLACE_OF(bits + half_word);
    if (!signbit(x)) return OCT_SIGNED_ZERO + (entry < map->top ? entry : map->top);
    return OCT_SIGNED_ZERO - (entry < OCT_SIGNED_ZERO ? entry : OCT_SIGNED_ZERO);
}

INLINE int code_by_gap(float x, float draw, const oct_map *map)
{
    int code = search(map->value, map->levels, x);
    if (fmaf(x - map->value[code], map->gap_inverse[code], draw) >= 2) code++;
    if (x > 0 && code < map->least) code = map->least;
    return map->is_signed && fabsf(x) < OCT_CHANCE_LEAST ? map->zero : code;
}

/* What to multiply a block's values with; 0 where they are to be kept as zeros. */
INLINE float inverse_of(float absmax) { return absmax < OCT_ABSMAX_LEAST ? 0 : 1 / absmax; }

INLINE int code_at(const uint8_t *codes, int64_t i, int bits)
{
    return bits == 4 ? codes[i / 2] >> i % 2 * 4 & 15 : codes[i];
}

INLINE void set_code(uint8_t *codes, int64_t i, int code, int bits)
{
    if (bits != 4) codes[i] = (uint8_t)code;
    else codes[i / 2] = (uint8_t)(i % 2 ? (codes[i / 2] & 15) | code << 4
                                        : (codes[i / 2] & 0xF0) | code);
}

/* ---- parameters and gradients ---------------------------------------------------------------- */

INLINE float grad_at(const oct_optim_slot &s, int64_t i)
{
    if (s.grad_format == OCT_NUMBER_F32) return ((const float *)s.grad)[i];
    return __uint_as_float((uint32_t)((const uint16_t *)s.grad)[i] << 16);
}

INLINE float param_at(const oct_optim_slot &s, int64_t i)
{
    if (s.param_format == OCT_NUMBER_F32) return ((const float *)s.param)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)s.param)[i] << 16;
    if (s.correction_bits == 8) bits += (uint32_t)((const int8_t *)s.correction)[i] << 8;
    if (s.correction_bits == 16) bits += (uint32_t)((const int16_t *)s.correction)[i];
    return __uint_as_float(bits);
}

/* draw: the element's half-word, where the parameter is rounded by chance. */
INLINE void set_param(const oct_optim_slot &s, int64_t i, float x, uint32_t draw)
{
    if (s.param_format == OCT_NUMBER_F32) {
        ((float *)s.param)[i] = x;
        return;
    }
    uint32_t below = s.correction_bits == 16 ? 0 : s.correction_bits == 8 ? 0xFF : 0xFFFF;
    uint32_t bits = (__float_as_uint(x) + (draw & below)) & ~below;
    uint32_t high = s.correction_bits == 0 ? bits >> 16 : (bits + 0x8000u) >> 16;
    ((uint16_t *)s.param)[i] = (uint16_t)high;
    bits -= high << 16;
    if (s.correction_bits == 8) ((int8_t *)s.correction)[i] = (int8_t)((int32_t)bits >> 8);
    if (s.correction_bits == 16) ((int16_t *)s.correction)[i] = (int16_t)bits;
}

/* ---- the step of an element ------------------------------------------------------------------ */

typedef vf (*rule)(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root);

/* The new state and parameter; false, with nothing changed, where the element takes no part. */
template <rule apply>
INLINE bool step_element(float *p, float state[OCT_STATES], float g, const oct_optim_slot &slot)
{
    const oct_numbers &n = slot.numbers;
    float s[OCT_STATES], bound = 0;
    for (int j = 0; j < OCT_STATES; j++) s[j] = state[j];
    g *= n.grad_scale;
    if (n.grad_limit < INFINITY && fabsf(g) < INFINITY)
        g = vf_max(vf_min(g, n.grad_limit), -n.grad_limit);
    if (n.coupled_decay != 0) g = fmaf(n.coupled_decay, *p, g);
    float direction = apply(&bound, s, *p, g, n.c, slot.bits != 32 && slot.root);
    if (!(fabsf(bound) < OCT_STATE_LIMIT)) return false;
    *p = fmaf(-n.step, direction, *p * n.keep);
    for (int j = 0; j < OCT_STATES; j++) state[j] = s[j];
    return true;
}

#endif
