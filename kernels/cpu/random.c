/* random.c - dropout, and tensors of random numbers. */
#include <math.h>
#include <string.h>

#include "core/octet.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/pieces.h"
#include "kernels/kernels.h"

/* ---- dropout --------------------------------------------------------------------------------- */

INLINE void put(float *y, vf v, int64_t n, int accumulate)
{
    if (n >= LANES) vf_store(y, accumulate ? vf_load(y) + v : v);
    else vf_store_first(y, accumulate ? vf_load_first(y, n) + v : v, n);
}

INLINE vf get(const float *x, int64_t n)
{
    return n >= LANES ? vf_load(x) : vf_load_first(x, n);
}

INLINE void drop(float *y, const float *x, int64_t n, oct_dropout_mask mask, int accumulate)
{
    const int32_t threshold = dropout_threshold(mask.p);
    const float scale = 1.0f / (1.0f - mask.p);
    for (int64_t i = 0; i < n; i += 4 * LANES) {
        philox_words words = philox(mask.seed, OCT_STREAM_DROPOUT, mask.offset + (uint64_t)i / 8);
#define QUARTER(at, source, half)                                                                  \
        if (i + (at) < n) {                                                                        \
            vf v = keep(get(x + i + (at), n - i - (at)), draws_of(words.source, half), threshold,  \
                        scale);                                                                    \
            put(y + i + (at), v, n - i - (at), accumulate);                                        \
        }
        QUARTER(0, first, 0)
        QUARTER(LANES, first, 1)
        QUARTER(2 * LANES, second, 0)
        QUARTER(3 * LANES, second, 1)
#undef QUARTER
    }
}

static void drop_piece(float *y, const float *x, int64_t n, oct_dropout_mask mask, uint64_t at,
                       int accumulate)
{
    mask.offset += at / 8;
    if (accumulate) drop(y, x, n, mask, 1);
    else drop(y, x, n, mask, 0);
}

void KERNEL(add_scaled)(float *y, const float *x, int64_t n, float scale, int accumulate);

void KERNEL(dropout)(float *y, const float *x, int64_t n, oct_dropout_mask mask, int accumulate)
{
    if (dropout_threshold(mask.p) == 0) {
        KERNEL(add_scaled)(y, x, n, 1.0f / (1.0f - mask.p), accumulate);
        return;
    }
    IN_PIECES(n, at, count,
              drop_piece(y + at, x + at, count, mask, (uint64_t)at, accumulate));
}

/* ---- uniform and normal ---------------------------------------------------------------------- */

static void uniform_piece(float *y, int64_t n, float low, float high, uint64_t seed,
                          uint64_t offset)
{
    /* 24 bits of a word; the product may round up to `high`, which is outside. */
    const vf width = vf_all((high - low) * 0x1p-24f), last = vf_all(nextafterf(high, low));
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        philox_words words = philox(seed, OCT_STREAM_INIT, offset + (uint64_t)i / 4);
        for (int half = 0; half < 2 && i + half * LANES < n; half++) {
            vf u = vi_to_float((vi)((half ? words.second : words.first) >> 8));
            put(y + i + half * LANES, vf_min(vf_fma(u, width, vf_all(low)), last),
                n - i - half * LANES, 0);
        }
    }
}

void KERNEL(uniform)(float *y, int64_t n, float low, float high, uint64_t seed, uint64_t offset)
{
    IN_PIECES(n, at, count,
              uniform_piece(y + at, count, low, high, seed, offset + (uint64_t)at / 4));
}

/* cos(2 pi w / 2^32), within 2e-7. With a = |w| as a signed number it is
 * -sin(2 pi (a - 2^30) / 2^32), whose argument is within a quarter of a turn of 0. */
INLINE vf cosine_of_turn(vu w)
{
    vu magnitude = (vu)vi_all(0) - w;
    magnitude = (vu)vf_select(vi_less((vi)w, vi_all(0)), (vf)magnitude, (vf)w);
    vf x = vi_to_float((vi)(magnitude - 0x40000000u)) * 0x1p-32f, u = x * x;
    vf p = vf_all(39.7109184f);
    p = vf_fma(p, u, vf_all(-76.5749893f));
    p = vf_fma(p, u, vf_all(81.6022339f));
    p = vf_fma(p, u, vf_all(-41.3416786f));
    p = vf_fma(p, u, vf_all(6.28318548f));
    return -(p * x);
}

static void normal_piece(float *y, int64_t n, float mean, float deviation, uint64_t seed,
                         uint64_t offset)
{
    vu quarter_turn_in_odd_lanes;
    for (int i = 0; i < LANES; i++) quarter_turn_in_odd_lanes[i] = i & 1 ? 0x40000000u : 0;
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        philox_words words = philox(seed, OCT_STREAM_INIT, offset + (uint64_t)i / 4);
        for (int half = 0; half < 2 && i + half * LANES < n; half++) {
            vu word = half ? words.second : words.first;
#if defined(OCT_ISA_avx512)
            vu even = (vu)_mm512_moveldup_ps((__m512)word);
            vu odd = (vu)_mm512_movehdup_ps((__m512)word);
#else
            vu even = (vu)_mm256_moveldup_ps((__m256)word);
            vu odd = (vu)_mm256_movehdup_ps((__m256)word);
#endif
            /* The even word is the radius, in (0, 1]; the odd one the angle: cosine, then sine. */
            vf radius = (vi_to_float((vi)(even >> 1)) + 0.5f) * 0x1p-31f;
            radius = vf_sqrt(-2.0f * vf_log(radius));
            vf draw = radius * cosine_of_turn(odd - quarter_turn_in_odd_lanes);
            put(y + i + half * LANES, vf_fma(draw, vf_all(deviation), vf_all(mean)),
                n - i - half * LANES, 0);
        }
    }
}

void KERNEL(normal)(float *y, int64_t n, float mean, float deviation, uint64_t seed,
                    uint64_t offset)
{
    IN_PIECES(n, at, count,
              normal_piece(y + at, count, mean, deviation, seed, offset + (uint64_t)at / 4));
}
