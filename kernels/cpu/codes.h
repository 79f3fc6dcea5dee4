/* codes.h - codes to values and values to codes, GROUP elements at a time.
 *
 * The tables are those of kernels/map.h; optim_ref.c says the same in plain words.
 *
 * Decoding is a look-up in 256 floats. Three ways, by what the processor has: AVX-512 VBMI looks up
 * 64 bytes at once, so a float is put together from its four bytes (4 cycles for 16 elements on
 * Zen 5); AVX-512 without it goes through 8 two-register look-ups (7); AVX2 gathers. */
#ifndef OCT_CODES_H
#define OCT_CODES_H
#include <string.h>

#include "kernels/cpu/philox.h"
#include "kernels/map.h"

enum { GROUP = 64, VECTORS = GROUP / LANES };

#if defined(OCT_ISA_avx512)
INLINE int vm_count(vm m) { return __builtin_popcount(m); }
#else
INLINE int vm_count(vm m) { return __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)m)); }
#endif

/* ---- decoding ------------------------------------------------------------------------------------- */

#if defined(OCT_ISA_avx512)

/* table[code % 128] for 64 codes. By name, since this file is compiled for processors without VBMI
 * too, and an intrinsic of VBMI can only stand in functions that are not. */
INLINE __m512i look_up_bytes(const uint8_t *table, __m512i code)
{
    __asm__("vpermi2b %2, %1, %0"
            : "+v"(code) : "v"(_mm512_loadu_si512(table)), "vm"(*(const __m512i *)(table + 64)));
    return code;
}

/* For each lane of 128 bits, unpacking bytes and then words takes four codes to four floats. Codes
 * are first moved so that these four floats come out in their order. */
INLINE void decode_bytes(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i code = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(codes)), byte[4];
    __mmask64 upper = _mm512_movepi8_mask(code);
    for (int b = 0; b < 4; b++) {
        byte[b] = _mm512_mask_mov_epi8(look_up_bytes(map->plane[b], code), upper,
                                       look_up_bytes(map->plane[b] + 128, code));
    }
    __m512i low01 = _mm512_unpacklo_epi8(byte[0], byte[1]);
    __m512i high01 = _mm512_unpackhi_epi8(byte[0], byte[1]);
    __m512i low23 = _mm512_unpacklo_epi8(byte[2], byte[3]);
    __m512i high23 = _mm512_unpackhi_epi8(byte[2], byte[3]);
    x[0] = (vf)_mm512_unpacklo_epi16(low01, low23);
    x[1] = (vf)_mm512_unpackhi_epi16(low01, low23);
    x[2] = (vf)_mm512_unpacklo_epi16(high01, high23);
    x[3] = (vf)_mm512_unpackhi_epi16(high01, high23);
}

INLINE void decode_chain(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    for (int v = 0; v < VECTORS; v++) {
        __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + v * LANES)));
        __mmask16 bit5 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(32));
        __mmask16 bit6 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(64));
        __mmask16 bit7 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(128));
        __m512 part[8];
        for (int i = 0; i < 8; i++)
            part[i] = _mm512_permutex2var_ps(_mm512_loadu_ps(map->value + 32 * i), code,
                                             _mm512_loadu_ps(map->value + 32 * i + 16));
        for (int i = 0; i < 8; i += 2) part[i] = _mm512_mask_mov_ps(part[i], bit5, part[i + 1]);
        for (int i = 0; i < 8; i += 4) part[i] = _mm512_mask_mov_ps(part[i], bit6, part[i + 2]);
        x[v] = (vf)_mm512_mask_mov_ps(part[0], bit7, part[4]);
    }
}

#else

INLINE void decode_gather(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    for (int v = 0; v < VECTORS; v++) {
        __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + v * LANES)));
        x[v] = (vf)_mm256_i32gather_ps(map->value, code, 4);
    }
}

#endif

/* ---- encoding ------------------------------------------------------------------------------------- */

/* The line of the segment that each |x| lies in. */
typedef struct lines { vf slope, offset; } lines;

#if defined(OCT_ISA_avx512)

INLINE lines lines_of(vf magnitude, const oct_map *map, const float *offsets)
{
    __m512i octave = _mm512_srli_epi32(
        _mm512_max_epi32((__m512i)magnitude, _mm512_set1_epi32(OCT_OCTAVE_FIRST << 23)), 23);
    __m512 first = _mm512_permutex2var_ps(_mm512_loadu_ps(map->octave_first), octave,
                                          _mm512_loadu_ps(map->octave_first + 16));
    __m512 second = _mm512_permutex2var_ps(_mm512_loadu_ps(map->octave_second), octave,
                                           _mm512_loadu_ps(map->octave_second + 16));
    __m512i segment = _mm512_permutex2var_epi32(_mm512_loadu_si512(map->octave_segment), octave,
                                                _mm512_loadu_si512(map->octave_segment + 16));
    __mmask16 past_first = _mm512_cmp_ps_mask((__m512)magnitude, first, _CMP_GE_OQ);
    __mmask16 past_second = _mm512_cmp_ps_mask((__m512)magnitude, second, _CMP_GE_OQ);
    const __m512i one = _mm512_set1_epi32(1);
    segment = _mm512_mask_add_epi32(segment, past_first, segment, one);
    segment = _mm512_mask_add_epi32(segment, past_second, segment, one);
    return (lines){(vf)_mm512_permutexvar_ps(segment, _mm512_loadu_ps(map->slope)),
                   (vf)_mm512_permutexvar_ps(segment, _mm512_loadu_ps(offsets))};
}

/* Distance to the nearest whole number, signed. */
INLINE vf from_whole(vf x) { return (vf)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT); }
INLINE vi truncated(vf x) { return (vi)_mm512_cvttps_epi32((__m512)x); }
INLINE vf look_up(const float *table, vi at) { return (vf)_mm512_i32gather_ps((__m512i)at, table, 4); }
/* Entries below a signed map's zero: 127 - x, x saturated to a signed byte. */
INLINE void store_signed(uint8_t *codes, vi x)
{
    __m128i bytes = _mm512_cvtsepi32_epi8((__m512i)x);
    _mm_storeu_si128((__m128i *)codes, _mm_xor_si128(bytes, _mm_set1_epi8(0x7F)));
}
INLINE void store_unsigned(uint8_t *codes, vi x)
{
    _mm_storeu_si128((__m128i *)codes, _mm512_cvtusepi32_epi8((__m512i)x));
}
/* 16 half-words as floats in (1, 2): kernels/cpu/optim_ref.c. */
INLINE vf one_and_draws(const uint16_t *half_words)
{
    __m512i r = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)half_words));
    return (vf)_mm512_or_si512(_mm512_slli_epi32(r, 7), _mm512_set1_epi32(0x3F800040));
}
/* x where magnitude is not 0, else 0. */
INLINE vi unless_zero(vi x, vf magnitude)
{
    __m512i bits = (__m512i)magnitude;
    return (vi)_mm512_maskz_mov_epi32(_mm512_test_epi32_mask(bits, bits), (__m512i)x);
}

#else

INLINE lines lines_of(vf magnitude, const oct_map *map, const float *offsets)
{
    vi segment = {0};
    for (int s = 1; s < OCT_SEGMENTS; s++)
        segment -= (vi)(magnitude >= vf_all(map->start[s]));
    return (lines){(vf)_mm256_i32gather_ps(map->slope, (__m256i)segment, 4),
                   (vf)_mm256_i32gather_ps(offsets, (__m256i)segment, 4)};
}

INLINE vf from_whole(vf x)
{
    return x - (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vi truncated(vf x) { return (vi)_mm256_cvttps_epi32((__m256)x); }
INLINE vf look_up(const float *table, vi at) { return (vf)_mm256_i32gather_ps(table, (__m256i)at, 4); }
INLINE void store_signed(uint8_t *codes, vi x)
{
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x),
                                    _mm256_extracti128_si256((__m256i)x, 1));
    __m128i bytes = _mm_packs_epi16(words, words);
    _mm_storel_epi64((__m128i *)codes, _mm_xor_si128(bytes, _mm_set1_epi8(0x7F)));
}
INLINE void store_unsigned(uint8_t *codes, vi x)
{
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x),
                                    _mm256_extracti128_si256((__m256i)x, 1));
    _mm_storel_epi64((__m128i *)codes, _mm_packus_epi16(words, words));
}
INLINE vf one_and_draws(const uint16_t *half_words)
{
    __m256i r = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)half_words));
    return (vf)_mm256_or_si256(_mm256_slli_epi32(r, 7), _mm256_set1_epi32(0x3F800040));
}
INLINE vi unless_zero(vi x, vf magnitude) { return x & ~(vi)(magnitude == vf_all(0)); }

#endif

INLINE void store_codes(uint8_t *codes, vi entry, vf x, int is_signed)
{
    if (!is_signed) {
        store_unsigned(codes, entry);
        return;
    }
    /* Saturation cuts entry 128 to 127 where x is negative. */
    vi minus = ~((vi)x >> 31);
    store_signed(codes, (entry ^ minus) - minus);
}

/* x[GROUP] times `inverse`, nearest. Where a position lies in doubt, the bound decides; that is a
 * matter of one in some thousand elements, so it is looked for once in the group. */
INLINE void encode_nearest(uint8_t *codes, const float *x, float inverse, const oct_map *map,
                           int is_signed)
{
    vf least = vf_all(1);
    vf position[VECTORS], scaled[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        scaled[v] = vf_load(x + v * LANES) * inverse;
        vf magnitude = vf_abs(scaled[v]);
        lines line = lines_of(magnitude, map, map->nearest);
        position[v] = vf_fma(magnitude, line.slope, line.offset);
        least = vf_min(least, vf_abs(from_whole(position[v])));
        store_codes(codes + v * LANES, truncated(position[v]), scaled[v], is_signed);
    }
    if (__builtin_expect(!vm_any(vf_less(least, vf_all(map->doubt))), 1)) return;
    for (int v = 0; v < VECTORS; v++) {
        vi upper = vf_to_int(position[v]);                     /* the whole number next to it */
        vf nearby = vf_abs(from_whole(position[v]));
        vi exact = upper + (vi)(vf_abs(scaled[v]) < look_up(map->bound, upper));
        vi entry = (vi)vf_select(vf_less(vf_all(map->doubt), nearby),
                                 (vf)truncated(position[v]), (vf)exact);
        store_codes(codes + v * LANES, entry, scaled[v], is_signed);
    }
}

/* Unsigned maps: x[GROUP] times `inverse`, to one of the two neighbours by the draw. */
INLINE void encode_stochastic(uint8_t *codes, const float *x, float inverse,
                              const uint16_t *half_words, const oct_map *map)
{
    for (int v = 0; v < VECTORS; v++) {
        vf scaled = vf_load(x + v * LANES) * inverse;
        lines line = lines_of(scaled, map, map->stochastic);
        vf position = vf_fma(scaled, line.slope, line.offset) + one_and_draws(half_words + v * LANES);
        store_unsigned(codes + v * LANES,
                       unless_zero(truncated(vf_max(position, vf_all(1))), scaled));
    }
}

/* The half-words of elements first .. first + GROUP - 1; first is a multiple of 8. */
INLINE void draw_group(uint16_t half_words[GROUP], uint64_t seed, uint32_t stream, uint64_t offset)
{
    for (int b = 0; b < GROUP / 8; b += BLOCKS) {
        philox_words words = philox(seed, stream, offset + (uint64_t)b);
        memcpy(half_words + 8 * b, &words, sizeof words);
    }
}

#endif
