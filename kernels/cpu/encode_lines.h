/* encode_lines.h - values to codes in a map of lines (kernels/map.h), GROUP elements at a time. */
#ifndef OCT_ENCODE_LINES_H
#define OCT_ENCODE_LINES_H
#include "kernels/cpu/codes.h"
#include "kernels/cpu/draws.h"

/* The line of the segment that a magnitude lies in. */
typedef struct line {
    vf slope, offset;
} line;

/* Below this, positions are all alike: nearest to 0. */
#define OCTAVE_LEAST 0x1p-23f

#if defined(OCT_ISA_avx512)

/* Distance to the nearest whole number, signed. */
INLINE vf from_whole(vf x) { return (vf)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT); }
/* `magnitude`, not negative, with the sign that x has not. */
INLINE vf with_other_sign(vf magnitude, vf x)
{
    return (vf)_mm512_ternarylogic_epi32((__m512i)magnitude, (__m512i)x,
                                         _mm512_set1_epi32((int)0x80000000), 0xF2);
}

/* Tables by which lines are found, held in registers over a block: read from memory they would cost
 * more than all else in encoding. The empty instruction keeps the compiler from reading them again.
 */
#define IN_REGISTER(x) __asm__("" : "+v"(x))

typedef struct tables {
    __m512 first[2], second[2], slope, offset;
    __m512i segment[2];
} tables;

INLINE tables tables_of(const oct_lines *lines)
{
    tables t;
    for (int i = 0; i < 2; i++) {
        t.segment[i] = _mm512_loadu_si512(lines->octave_segment + 16 * i);
        t.first[i] = _mm512_loadu_ps(lines->octave_first + 16 * i);
        t.second[i] = _mm512_loadu_ps(lines->octave_second + 16 * i);
        IN_REGISTER(t.first[i]);
        IN_REGISTER(t.second[i]);
        IN_REGISTER(t.segment[i]);
    }
    t.slope = _mm512_loadu_ps(lines->slope);
    t.offset = _mm512_loadu_ps(lines->offset);
    IN_REGISTER(t.slope);
    IN_REGISTER(t.offset);
    return t;
}

/* `magnitude` is OCTAVE_LEAST or more. */
INLINE line line_of(vf magnitude, const tables *t)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512 y = (__m512)magnitude;
    __m512i octave = _mm512_srli_epi32((__m512i)magnitude, 23);
    __m512 first = _mm512_permutex2var_ps(t->first[0], octave, t->first[1]);
    __m512 second = _mm512_permutex2var_ps(t->second[0], octave, t->second[1]);
    __m512i segment = _mm512_permutex2var_epi32(t->segment[0], octave, t->segment[1]);
    __mmask16 past_first = _mm512_cmp_ps_mask(y, first, _CMP_GE_OQ);
    __mmask16 past_second = _mm512_cmp_ps_mask(y, second, _CMP_GE_OQ);
    segment = _mm512_mask_add_epi32(segment, past_first, segment, one);
    segment = _mm512_mask_add_epi32(segment, past_second, segment, one);
    return (line){(vf)_mm512_permutexvar_ps(segment, t->slope),
                  (vf)_mm512_permutexvar_ps(segment, t->offset)};
}

#else

INLINE vf from_whole(vf x)
{
    return x - (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vf with_other_sign(vf magnitude, vf x)
{
    return (vf)((vi)magnitude | (~(vi)x & (int32_t)0x80000000));
}

/* Sixteen floats in two registers. */
typedef struct sixteen {
    __m256 low, high;
} sixteen;

INLINE sixteen load_sixteen(const float *table)
{
    return (sixteen){_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8)};
}

/* upper: `at` with its bit 3 on top. */
INLINE vf look_up_sixteen(sixteen t, vi at, vi upper)
{
    __m256 low = _mm256_permutevar8x32_ps(t.low, (__m256i)at);
    __m256 high = _mm256_permutevar8x32_ps(t.high, (__m256i)at);
    return (vf)_mm256_blendv_ps(low, high, (__m256)upper);
}

typedef struct tables {
    sixteen end, slope, offset;
    __m256i octave[2];
} tables;

INLINE tables tables_of(const oct_lines *lines)
{
    tables t = {
        load_sixteen(lines->end),
        load_sixteen(lines->slope),
        load_sixteen(lines->offset),
        .octave = {_mm256_broadcastsi128_si256(
                       _mm_loadu_si128((const __m128i *)lines->octave_byte)),
                   _mm256_broadcastsi128_si256(
                       _mm_loadu_si128((const __m128i *)(lines->octave_byte + 16)))},
    };
    return t;
}

/* The octave's first segment by a look-up of bytes, then on past the ends that lie in the octave,
 * of which there are two at most. */
INLINE line line_of(vf magnitude, const tables *t)
{
    /* The low byte of each lane counts; the look-up makes the others 0. */
    __m256i octave = _mm256_or_si256(_mm256_srli_epi32((__m256i)magnitude, 23),
                                     _mm256_set1_epi32((int)0x80808000));
    octave = _mm256_andnot_si256(_mm256_set1_epi32(0xE0), octave);
    __m256i low = _mm256_shuffle_epi8(t->octave[0], octave);
    __m256i high = _mm256_shuffle_epi8(t->octave[1], octave);
    vi segment = (vi)_mm256_blendv_epi8(low, high, _mm256_slli_epi32(octave, 3));
    segment -= (vi)(magnitude >= look_up_sixteen(t->end, segment, segment << 28));
    vi upper = segment << 28;
    segment -= (vi)(magnitude >= look_up_sixteen(t->end, segment, upper));
    upper = segment << 28;
    return (line){look_up_sixteen(t->slope, segment, upper),
                  look_up_sixteen(t->offset, segment, upper)};
}

#endif

/* A whole position as the code's place: signed maps run the other way here, from which 127 - x, the
 * saturated byte, is the code. So entry 128 with a minus becomes 127, which is the last there is.
 */
INLINE vi placed(vf position, vf x, int is_signed)
{
    return truncated(is_signed ? with_other_sign(position, x) : position);
}

INLINE void store_codes(uint8_t *codes, const vi places[VECTORS], int is_signed)
{
    if (is_signed)
        store_signed(codes, places);
    else
        store_unsigned(codes, places);
}

/* Positions that lie in doubt: the bound decides. */
static __attribute__((noinline, cold)) void encode_doubtful(uint8_t *codes, const float *x,
                                                            float inverse, const oct_map *map)
{
    tables t = tables_of(&map->nearest);
    vi places[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        vf scaled = vf_load(x + v * LANES) * inverse;
        vf magnitude = greater_magnitude(scaled, vf_all(OCTAVE_LEAST));
        line l = line_of(magnitude, &t);
        vf position = vf_fma(magnitude, l.slope, l.offset), distance = vf_abs(from_whole(position));
        vi upper = vf_to_int(position); /* the whole number next to it */
        vi exact = upper + (vi)(magnitude < look_up(map->entry_bound, upper));
        position = vf_select(vf_less(vf_all(map->doubt), distance), position, vi_to_float(exact));
        places[v] = placed(position, scaled, map->is_signed);
    }
    store_codes(codes, places, map->is_signed);
}

/* x[count] times `inverse`, nearest; count is a multiple of GROUP. Doubt is a matter of one element
 * in some ten thousand. */
INLINE void encode_lines_nearest(uint8_t *codes, const float *x, int64_t count, float inverse,
                                 const oct_map *map, int is_signed)
{
    tables t = tables_of(&map->nearest);
    for (int64_t i = 0; i < count; i += GROUP) {
        vf least = vf_all(1);
        vi places[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            vf scaled = vf_load(x + i + v * LANES) * inverse;
            vf magnitude = greater_magnitude(scaled, vf_all(OCTAVE_LEAST));
            line l = line_of(magnitude, &t);
            vf position = vf_fma(magnitude, l.slope, l.offset);
            least = lesser_magnitude(least, from_whole(position));
            places[v] = placed(position, scaled, is_signed);
        }
        store_codes(codes + i, places, is_signed);
        if (__builtin_expect(vm_any(vf_less(least, vf_all(map->doubt))), 0))
            encode_doubtful(codes + i, x + i, inverse, map);
    }
}

/* ---- by chance ------------------------------------------------------------------------------- */

/* A vector's magnitude by which its line is found. */
INLINE vf lifted(vf x, vf factor)
{
    return vf_fma(vf_abs(x), factor, vf_all(OCT_CHANCE_LIFT));
}

/* The bits of a place (kernels/map.h). */
INLINE vu place_bits(vf y, line l) { return (vu)vf_fma(y, l.slope, l.offset); }

INLINE vu lesser_bits(vu a, vu b)
{
#if defined(OCT_ISA_avx512)
    return (vu)_mm512_min_epu32((__m512i)a, (__m512i)b);
#else
    return (vu)_mm256_min_epu32((__m256i)a, (__m256i)b);
#endif
}

/* x[count] times `inverse`, to one of the two neighbours. */
INLINE void encode_lines_chance(uint8_t *codes, const float *x, int64_t count, float inverse,
                                const group_draws *draws, const oct_map *map, int is_signed)
{
    tables t = tables_of(&map->chance);
    vf factor = vf_all(inverse * map->chance.scale);
    for (int64_t i = 0; i < count; i += GROUP) {
        vi places[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            vf number = vf_load(x + i + v * LANES), y = lifted(number, factor);
            vu bits = place_bits(y, line_of(y, &t)), drawn = half_words(draws + i / GROUP, v);
            if (is_signed) {
                vi entry = (vi)OCT_PLACE_OF(bits + drawn), other = ~((vi)number >> 31);
                places[v] = (entry ^ other) - other;
            } else {
                bits = lesser_bits(bits, (vu)vi_all(OCT_PLACE_LAST)) + drawn;
                places[v] = (vi)lesser_bits(OCT_PLACE_OF(bits - 0x10000), (vu)number);
            }
        }
        store_codes(codes + i, places, is_signed);
    }
}

#endif
