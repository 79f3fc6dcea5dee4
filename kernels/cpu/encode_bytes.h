/* encode_bytes.h - rounding by chance in a map of lines (kernels/map.h), by AVX-512 VBMI.
 *
 * What encode_lines.h does, with look-ups of bytes: a line by one look-up from its cell, which
 * holds one line's start at most, and the codes picked out of the sums as bytes. */
#ifndef OCT_ENCODE_BYTES_H
#define OCT_ENCODE_BYTES_H
#include "kernels/cpu/encode_lines.h"

#if defined(OCT_ISA_avx512)

/* This file is compiled for processors without VBMI too. */
#define VBMI __attribute__((target("avx512vbmi")))

typedef struct cell_tables {
    __m512i segment[2];
    __m512 end, slope, offset;
} cell_tables;

INLINE VBMI cell_tables cell_tables_of(const oct_lines *lines)
{
    cell_tables t = {
        {_mm512_loadu_si512(lines->cell_segment), _mm512_loadu_si512(lines->cell_segment + 64)},
        _mm512_loadu_ps(lines->end), _mm512_loadu_ps(lines->slope), _mm512_loadu_ps(lines->offset)};
    IN_REGISTER(t.segment[0]);
    IN_REGISTER(t.segment[1]);
    IN_REGISTER(t.end);
    IN_REGISTER(t.slope);
    IN_REGISTER(t.offset);
    return t;
}

INLINE VBMI line line_of_cell(vf magnitude, const cell_tables *t)
{
    /* The lowest byte of each lane counts; a look-up of floats reads 4 bits of it. */
    __m512i segment = _mm512_srli_epi32((__m512i)magnitude, 21);
    segment = _mm512_permutex2var_epi8(t->segment[0], segment, t->segment[1]);
    __m512 end = _mm512_permutexvar_ps(segment, t->end);
    __mmask16 past = _mm512_cmp_ps_mask((__m512)magnitude, end, _CMP_GE_OQ);
    segment = _mm512_mask_add_epi32(segment, past, segment, _mm512_set1_epi32(1));
    return (line){(vf)_mm512_permutexvar_ps(segment, t->slope),
                  (vf)_mm512_permutexvar_ps(segment, t->offset)};
}

/* One byte of each word of four vectors; `places`: those of the first two, and of the others. */
INLINE VBMI __m512i one_byte_each(const vu x[4], __m512i places)
{
    __m512i low = _mm512_permutex2var_epi8((__m512i)x[0], places, (__m512i)x[1]);
    __m512i high = _mm512_permutex2var_epi8((__m512i)x[2], places, (__m512i)x[3]);
    return _mm512_mask_mov_epi8(low, 0xFFFFFFFF00000000u, high);
}

#define FOUR(n) n, n + 4, n + 8, n + 12
#define SIXTEEN(n) FOUR(n), FOUR(n + 16), FOUR(n + 32), FOUR(n + 48)
static const uint8_t __attribute__((aligned(64)))
    THIRD_BYTES[64] = {SIXTEEN(2), SIXTEEN(66), SIXTEEN(2), SIXTEEN(66)},
    FOURTH_BYTES[64] = {SIXTEEN(3), SIXTEEN(67), SIXTEEN(3), SIXTEEN(67)};
#undef FOUR
#undef SIXTEEN

INLINE VBMI void encode_bytes_chance(uint8_t *codes, const float *x, int64_t count, float inverse,
                                     const group_draws *draws, const oct_map *map, int is_signed)
{
    cell_tables t = cell_tables_of(&map->chance);
    __m512i third = _mm512_load_si512(THIRD_BYTES), fourth = _mm512_load_si512(FOURTH_BYTES);
    const __m512i zero = _mm512_set1_epi8(OCT_SIGNED_ZERO);
    vf factor = vf_all(inverse * map->chance.scale);
    IN_REGISTER(third);
    IN_REGISTER(fourth);
    for (int64_t i = 0; i < count; i += GROUP) {
        vu numbers[VECTORS], sums[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            vf number = vf_load(x + i + v * LANES);
            vf y = is_signed ? lifted(number, factor)
                             : vf_fma(number, factor, vf_all(OCT_CHANCE_LIFT));
            __m512i bits = (__m512i)place_bits(y, line_of_cell(y, &t));
            numbers[v] = (vu)number;
            if (!is_signed) { /* 0 has place 1, which is code 0 */
                __mmask16 some = _mm512_test_epi32_mask((__m512i)number, (__m512i)number);
                bits = _mm512_min_epu32(bits, _mm512_set1_epi32(OCT_PLACE_LAST));
                bits = _mm512_mask_mov_epi32(_mm512_set1_epi32(0x10000), some, bits);
            }
            sums[v] = (vu)bits + half_words(draws + i / GROUP, v);
        }
        __m512i code = one_byte_each(sums, third);
        if (is_signed) {
            __mmask64 minus = _mm512_movepi8_mask(one_byte_each(numbers, fourth));
            code = _mm512_mask_subs_epu8(_mm512_adds_epu8(zero, code), minus, zero, code);
        } else {
            code = _mm512_sub_epi8(code, _mm512_set1_epi8(1));
        }
        _mm512_storeu_si512(codes + i, code);
    }
}

#endif
#endif
