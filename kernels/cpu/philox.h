/* philox.h - core/random.h's numbers, many blocks at a time.
 *
 * Each 64-bit lane runs one counter: a 32x32-bit product fills the lane, and since the next product
 * reads a lane's low half alone, what is left in the high halves needs no clearing. */
#ifndef OCT_PHILOX_H
#define OCT_PHILOX_H
#include "core/octet.h"
#include "kernels/cpu/vector.h"

enum { BLOCKS = LANES / 2 };       /* counters at once */

typedef uint64_t vq __attribute__((vector_size(4 * LANES)));
/* The numbers of BLOCKS blocks in their order: four 32-bit words a block, 8 half-words a block. */
typedef struct philox_words { vu first, second; } philox_words;

#if defined(OCT_ISA_avx512)
INLINE vq vq_all(uint64_t x) { return (vq)_mm512_set1_epi64((long long)x); }
INLINE vq vq_multiply(vq a, vq b) { return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
/* In the lower half of each lane, what was in the upper one. A shuffle: more units do it. */
INLINE vq upper_halves(vq a) { return (vq)_mm512_movehdup_ps((__m512)a); }
INLINE vq exclusive(vq a, vq b, vq c)
{
    return (vq)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}
INLINE vu interleave_low(vq a, vq b) { return (vu)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
INLINE vu interleave_high(vq a, vq b) { return (vu)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }
/* Lane i holds block BLOCK_OF_LANE[i], which is what the interleaving puts in order. */
static const vq BLOCK_OF_LANE = {0, 4, 1, 5, 2, 6, 3, 7};
#else
INLINE vq vq_all(uint64_t x) { return (vq)_mm256_set1_epi64x((long long)x); }
INLINE vq vq_multiply(vq a, vq b) { return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
INLINE vq upper_halves(vq a) { return (vq)_mm256_movehdup_ps((__m256)a); }
INLINE vq exclusive(vq a, vq b, vq c) { return a ^ b ^ c; }
INLINE vu interleave_low(vq a, vq b) { return (vu)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
INLINE vu interleave_high(vq a, vq b) { return (vu)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }
static const vq BLOCK_OF_LANE = {0, 2, 1, 3};
#endif

/* Word i of the block of each lane's offset, in the low half of the lane of c[i]. */
INLINE void philox_lanes(vq c[4], uint64_t seed, uint32_t stream, vq offsets)
{
    vq c0 = offsets, c1 = offsets >> 32, c2 = vq_all(stream), c3 = vq_all(0);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        vq p0 = vq_multiply(c0, vq_all(0xD2511F53u)), p1 = vq_multiply(c2, vq_all(0xCD9E8D57u));
        c0 = exclusive(upper_halves(p1), c1, vq_all(k0));
        c1 = p1;
        c2 = exclusive(upper_halves(p0), c3, vq_all(k1));
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    c[0] = c0, c[1] = c1, c[2] = c2, c[3] = c3;
}

/* Blocks offset to offset + BLOCKS - 1. */
INLINE philox_words philox(uint64_t seed, uint32_t stream, uint64_t offset)
{
    vq c[4];
    philox_lanes(c, seed, stream, vq_all(offset) + BLOCK_OF_LANE);
    vq low = vq_all(0xFFFFFFFFu);
    vq words01 = (c[0] & low) | (c[1] << 32), words23 = (c[2] & low) | (c[3] << 32);
    return (philox_words){interleave_low(words01, words23), interleave_high(words01, words23)};
}

/* ---- dropout --------------------------------------------------------------------------------- */

/* An element is dropped where its half-word is below this; 1 to 65536 where p is not 0. */
INLINE int32_t dropout_threshold(float p) { return (int32_t)((double)p * 65536 + 0.5); }

/* The draws of LANES elements: the low half of `words`, or the high one. */
INLINE vi draws_of(vu words, int half)
{
#if defined(OCT_ISA_avx512)
    return (vi)_mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64((__m512i)words, 1)
                                          : _mm512_castsi512_si256((__m512i)words));
#else
    return (vi)_mm256_cvtepu16_epi32(half ? _mm256_extracti128_si256((__m256i)words, 1)
                                          : _mm256_castsi256_si128((__m256i)words));
#endif
}

/* `v` times `scale` where the draw is not below the threshold, else 0. */
INLINE vf keep(vf v, vi draws, int32_t threshold, float scale)
{
    return vf_select(vi_less(draws, vi_all(threshold)), vf_all(0.0f), v * scale);
}

/* Eight draws in a row, the same places of a block, for each of LANES blocks: block i begins
 * i * step blocks after `offset`, and its draws are in lane i of draws[0] to draws[7]. */
INLINE void draw_eights(vi draws[8], uint64_t seed, uint64_t offset, uint64_t step)
{
#if defined(OCT_ISA_avx512)
    const vq even = {0, 1, 4, 5, 8, 9, 12, 13}, odd = {2, 3, 6, 7, 10, 11, 14, 15};
#else
    const vq even = {0, 1, 4, 5}, odd = {2, 3, 6, 7};
#endif
    vq a[4], b[4];
    philox_lanes(a, seed, OCT_STREAM_DROPOUT, vq_all(offset) + even * step);
    philox_lanes(b, seed, OCT_STREAM_DROPOUT, vq_all(offset) + odd * step);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        /* The low halves of a and b, in pairs: lanes a0 a1 b0 b1, a2 a3 b2 b3, ... */
#if defined(OCT_ISA_avx512)
        vu words = (vu)_mm512_shuffle_ps((__m512)a[i], (__m512)b[i], 0x88);
#else
        vu words = (vu)_mm256_shuffle_ps((__m256)a[i], (__m256)b[i], 0x88);
#endif
        draws[2 * i] = (vi)(words & 0xFFFF);
        draws[2 * i + 1] = (vi)(words >> 16);
    }
}

#endif
