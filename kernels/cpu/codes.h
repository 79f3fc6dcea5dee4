/* codes.h - what decoding and encoding share: groups of elements, and bytes put into their order.
 */
#ifndef OCT_CODES_H
#define OCT_CODES_H
#include <string.h>

#include "kernels/cpu/vector.h"
#include "kernels/map.h"

enum { GROUP = 64, VECTORS = GROUP / LANES };

#if defined(OCT_ISA_avx512)

/* Word 4 i + k of 16 goes to 4 k + i. */
#define FOUR_BY_FOUR _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)

INLINE int vm_count(vm m) { return __builtin_popcount(m); }
/* max(|a|, |b|), min(|a|, |b|) */
INLINE vf greater_magnitude(vf a, vf b) { return (vf)_mm512_range_ps((__m512)a, (__m512)b, 11); }
INLINE vf lesser_magnitude(vf a, vf b) { return (vf)_mm512_range_ps((__m512)a, (__m512)b, 10); }
INLINE vf look_up(const float *table, vi at)
{
    return (vf)_mm512_i32gather_ps((__m512i)at, table, 4);
}
INLINE vi truncated(vf x) { return (vi)_mm512_cvttps_epi32((__m512)x); }

INLINE __m512i packed_words(const vi *x)
{
    return _mm512_packs_epi32((__m512i)x[0], (__m512i)x[1]);
}
/* A byte for each element, 127 - x saturated to -128 .. 127. */
INLINE void store_signed(uint8_t *codes, const vi x[VECTORS])
{
    __m512i bytes = _mm512_packs_epi16(packed_words(x), packed_words(x + 2));
    bytes = _mm512_xor_si512(_mm512_permutexvar_epi32(FOUR_BY_FOUR, bytes), _mm512_set1_epi8(0x7F));
    _mm512_storeu_si512(codes, bytes);
}
/* A byte for each element, x saturated to 0 .. 255. */
INLINE void store_unsigned(uint8_t *codes, const vi x[VECTORS])
{
    __m512i bytes = _mm512_packus_epi16(packed_words(x), packed_words(x + 2));
    _mm512_storeu_si512(codes, _mm512_permutexvar_epi32(FOUR_BY_FOUR, bytes));
}
/* Half a byte for each element, 0 <= x <= 15, the even ones low. */
INLINE void store_halves(uint8_t *codes, const vi x[VECTORS])
{
    __m512i bytes = _mm512_packus_epi16(packed_words(x), packed_words(x + 2));
    bytes = _mm512_permutexvar_epi32(FOUR_BY_FOUR, bytes);
    __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x1001));
    _mm256_storeu_si256((__m256i *)codes, _mm512_cvtepi16_epi8(pairs));
}

#else

INLINE int vm_count(vm m) { return __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)m)); }
INLINE vf greater_magnitude(vf a, vf b) { return vf_max(vf_abs(a), vf_abs(b)); }
INLINE vf lesser_magnitude(vf a, vf b) { return vf_min(vf_abs(a), vf_abs(b)); }
INLINE vf look_up(const float *table, vi at)
{
    return (vf)_mm256_i32gather_ps(table, (__m256i)at, 4);
}
INLINE vi truncated(vf x) { return (vi)_mm256_cvttps_epi32((__m256)x); }

INLINE __m256i packed_words(const vi *x)
{
    return _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
}
INLINE __m256i in_order(__m256i bytes)
{
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
INLINE void store_signed(uint8_t *codes, const vi x[VECTORS])
{
    for (int v = 0; v < VECTORS; v += 4) {
        __m256i bytes = _mm256_packs_epi16(packed_words(x + v), packed_words(x + v + 2));
        bytes = _mm256_xor_si256(in_order(bytes), _mm256_set1_epi8(0x7F));
        _mm256_storeu_si256((__m256i *)(codes + v * LANES), bytes);
    }
}
INLINE __m256i unsigned_bytes(const vi *x)
{
    return in_order(_mm256_packus_epi16(packed_words(x), packed_words(x + 2)));
}
INLINE void store_unsigned(uint8_t *codes, const vi x[VECTORS])
{
    for (int v = 0; v < VECTORS; v += 4)
        _mm256_storeu_si256((__m256i *)(codes + v * LANES), unsigned_bytes(x + v));
}
INLINE void store_halves(uint8_t *codes, const vi x[VECTORS])
{
    __m256i pairs[2];
    for (int i = 0; i < 2; i++)
        pairs[i] = _mm256_maddubs_epi16(unsigned_bytes(x + 4 * i), _mm256_set1_epi16(0x1001));
    __m256i bytes = _mm256_packus_epi16(pairs[0], pairs[1]);
    _mm256_storeu_si256((__m256i *)codes, _mm256_permute4x64_epi64(bytes, _MM_SHUFFLE(3, 1, 2, 0)));
}

#endif
#endif
