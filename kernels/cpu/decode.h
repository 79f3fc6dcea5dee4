/* decode.h - codes to values, GROUP elements at a time.
 *
 * Decoding is a look-up in 256 floats, or in 16. Three ways for 256, by what the processor has:
 * AVX-512 VBMI looks up 64 bytes at once, so a float is put together from its four bytes (4 cycles
 * for 16 elements on Zen 5); AVX-512 without it goes through 8 two-register look-ups (7); AVX2
 * gathers. */
#ifndef OCT_DECODE_H
#define OCT_DECODE_H
#include "kernels/cpu/codes.h"

#if defined(OCT_ISA_avx512)

/* table[code % 128] for 64 codes. By name, since this file is compiled for processors without VBMI
 * too, and an intrinsic of VBMI can only stand in functions that are not. */
INLINE __m512i look_up_bytes(const uint8_t *table, __m512i code)
{
    __m512i bytes = _mm512_loadu_si512(table);
    __asm__("vpermt2b %2, %1, %0"
            : "+v"(bytes) : "v"(code), "m"(*(const __m512i *)(table + 64)));
    return bytes;
}

/* The same, 0 where `some` is not set. */
INLINE __m512i look_up_some(const uint8_t *table, __m512i code, __mmask64 some)
{
    __m512i bytes = _mm512_loadu_si512(table);
    __asm__("vpermt2b %2, %1, %0%{%3%}%{z%}"
            : "+v"(bytes) : "v"(code), "m"(*(const __m512i *)(table + 64)), "Yk"(some));
    return bytes;
}

/* For each lane of 128 bits, unpacking bytes and then words takes four codes to four floats. Codes
 * are first moved so that these four floats come out in their order. Where the negative values
 * mirror the positive ones, half the look-ups will do: of the entries above 0, and 0 and the sign
 * are put in. */
INLINE void decode_bytes(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    __m512i code = _mm512_permutexvar_epi32(FOUR_BY_FOUR, _mm512_loadu_si512(codes)), byte[4];
    __mmask64 upper = _mm512_movepi8_mask(code);
    if (map->mirrored) {
        const __m512i zero = _mm512_set1_epi8(OCT_SIGNED_ZERO), one = _mm512_set1_epi8(1);
        __mmask64 some = _mm512_cmpneq_epi8_mask(code, zero), lower = ~upper;
        /* Code 128 + i, and 126 - i below 0, is entry 1 + i. */
        __m512i entry = _mm512_mask_sub_epi8(code, lower, _mm512_sub_epi8(zero, one), code);
        for (int b = 0; b < 4; b++)
            byte[b] = look_up_some(map->plane[b] + 128, entry, some);
        byte[3] = _mm512_mask_add_epi8(byte[3], lower & some, byte[3], _mm512_set1_epi8(-128));
    } else {
        for (int b = 0; b < 4; b++)
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

/* table[256] at `code`, by two-register look-ups of which each covers 32 floats. */
INLINE vf look_up_256(const float *table, vi index)
{
    __m512i code = (__m512i)index;
    __mmask16 bit5 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(32));
    __mmask16 bit6 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(64));
    __mmask16 bit7 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(128));
    __m512 part[8];
    for (int i = 0; i < 8; i++)
        part[i] = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32 * i), code,
                                         _mm512_loadu_ps(table + 32 * i + 16));
    for (int i = 0; i < 8; i += 2) part[i] = _mm512_mask_mov_ps(part[i], bit5, part[i + 1]);
    for (int i = 0; i < 8; i += 4) part[i] = _mm512_mask_mov_ps(part[i], bit6, part[i + 2]);
    return (vf)_mm512_mask_mov_ps(part[0], bit7, part[4]);
}

/* table[16] at `index`, of which the low 4 bits count. */
INLINE vf look_up_16(const float *table, vi index)
{
    return (vf)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}

INLINE vi load_codes(const uint8_t *codes)
{
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
}

/* Half a byte for each of 64 elements to a byte each. */
INLINE void spread_halves(uint8_t bytes[GROUP], const uint8_t *codes)
{
    __m512i two = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)codes));
    two = _mm512_and_si512(_mm512_or_si512(two, _mm512_slli_epi16(two, 4)),
                           _mm512_set1_epi16(0x0F0F));
    _mm512_storeu_si512(bytes, two);
}

#else

INLINE vf look_up_256(const float *table, vi index) { return look_up(table, index); }

INLINE vf look_up_16(const float *table, vi index)
{
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)index);
    return (vf)_mm256_blendv_ps(low, high, (__m256)(index << 28));
}

INLINE vi load_codes(const uint8_t *codes)
{
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes));
}

INLINE void spread_halves(uint8_t bytes[GROUP], const uint8_t *codes)
{
    for (int i = 0; i < GROUP / 2; i += 16) {
        __m256i two = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + i)));
        two = _mm256_and_si256(_mm256_or_si256(two, _mm256_slli_epi16(two, 4)),
                               _mm256_set1_epi16(0x0F0F));
        _mm256_storeu_si256((__m256i *)(bytes + 2 * i), two);
    }
}

#endif

/* How codes are kept and looked up, known where a loop is compiled. BYTES: 8 bits, by VBMI. */
enum { CODES_8, CODES_8_BYTES, CODES_4 };

/* A group's values before they are scaled. */
INLINE void decode(vf x[VECTORS], const uint8_t *codes, const oct_map *map, const int kind)
{
#if defined(OCT_ISA_avx512)
    if (kind == CODES_8_BYTES) {
        decode_bytes(x, codes, map);
        return;
    }
#endif
    uint8_t bytes[GROUP];
    if (kind == CODES_4) spread_halves(bytes, codes);
    for (int v = 0; v < VECTORS; v++)
        x[v] = kind == CODES_4 ? look_up_16(map->value, load_codes(bytes + v * LANES))
                               : look_up_256(map->value, load_codes(codes + v * LANES));
}

#endif
