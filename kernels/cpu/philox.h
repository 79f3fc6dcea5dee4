/* philox.h - core/random.h's numbers, many blocks at a time.
 *
 * Each 64-bit lane runs one counter: a 32x32-bit product fills the lane, and since the next product
 * reads a lane's low half alone, what is left in the high halves needs no clearing. */
#ifndef OCT_PHILOX_H
#define OCT_PHILOX_H
#include "kernels/cpu/vector.h"

enum { BLOCKS = LANES / 2 };       /* counters at once */

typedef uint64_t vq __attribute__((vector_size(4 * LANES)));
/* The numbers of BLOCKS blocks in their order: four 32-bit words a block, 8 half-words a block. */
typedef struct philox_words { vu first, second; } philox_words;

#if defined(OCT_ISA_avx512)
INLINE vq vq_all(uint64_t x) { return (vq)_mm512_set1_epi64((long long)x); }
INLINE vq vq_multiply(vq a, vq b) { return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
INLINE vu interleave_low(vq a, vq b) { return (vu)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
INLINE vu interleave_high(vq a, vq b) { return (vu)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }
/* Lane i holds block BLOCK_OF_LANE[i], which is what the interleaving puts in order. */
static const vq BLOCK_OF_LANE = {0, 4, 1, 5, 2, 6, 3, 7};
#else
INLINE vq vq_all(uint64_t x) { return (vq)_mm256_set1_epi64x((long long)x); }
INLINE vq vq_multiply(vq a, vq b) { return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
INLINE vu interleave_low(vq a, vq b) { return (vu)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
INLINE vu interleave_high(vq a, vq b) { return (vu)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }
static const vq BLOCK_OF_LANE = {0, 2, 1, 3};
#endif

/* `offsets`: one for each lane, in the order of BLOCK_OF_LANE. */
INLINE philox_words philox_at(uint64_t seed, uint32_t stream, vq offsets)
{
    vq c0 = offsets, c1 = offsets >> 32, c2 = vq_all(stream), c3 = vq_all(0);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        vq p0 = vq_multiply(c0, vq_all(0xD2511F53u)), p1 = vq_multiply(c2, vq_all(0xCD9E8D57u));
        c0 = (p1 >> 32) ^ c1 ^ vq_all(k0);
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ vq_all(k1);
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vq low = vq_all(0xFFFFFFFFu);
    vq words01 = (c0 & low) | (c1 << 32), words23 = (c2 & low) | (c3 << 32);
    return (philox_words){interleave_low(words01, words23), interleave_high(words01, words23)};
}

/* Blocks offset to offset + BLOCKS - 1. */
INLINE philox_words philox(uint64_t seed, uint32_t stream, uint64_t offset)
{
    return philox_at(seed, stream, vq_all(offset) + BLOCK_OF_LANE);
}

/* ---- dropout --------------------------------------------------------------------------------- */

/* An element is dropped where its half-word is below this; 1 to 65536 where p is not 0. */
INLINE int32_t dropout_threshold(float p) { return (int32_t)((double)p * 65536 + 0.5); }

#if defined(OCT_ISA_avx512)
typedef __m256i half_words;        /* for LANES elements */
INLINE half_words half_words_of(vu words, int half)
{
    return half ? _mm512_extracti64x4_epi64((__m512i)words, 1)
                : _mm512_castsi512_si256((__m512i)words);
}
INLINE half_words half_words_at(const uint16_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE vi widened(half_words halves) { return (vi)_mm512_cvtepu16_epi32(halves); }
#else
typedef __m128i half_words;
INLINE half_words half_words_of(vu words, int half)
{
    return half ? _mm256_extracti128_si256((__m256i)words, 1)
                : _mm256_castsi256_si128((__m256i)words);
}
INLINE half_words half_words_at(const uint16_t *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
INLINE vi widened(half_words halves) { return (vi)_mm256_cvtepu16_epi32(halves); }
#endif

/* `v` times `scale` where the draw is not below the threshold, else 0. */
INLINE vf keep(vf v, half_words draws, int32_t threshold, float scale)
{
    return vf_select(vi_less(widened(draws), vi_all(threshold)), vf_all(0.0f), v * scale);
}

#endif
