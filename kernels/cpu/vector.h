/* vector.h - vectors of f32 as wide as the instruction set, and the functions on them.
 *
 * A kernel is written once against `vf` (LANES floats) and compiled for AVX2 and AVX-512. Plain
 * arithmetic is written with operators (GCC's vector extensions); only what operators cannot say is
 * an intrinsic here. Nothing is contracted: where a fused multiply-add is wanted, vf_fma says so.
 *
 * The errors stated are the largest over all floats (spec/ops/elementwise_spec.lua holds them). */
#ifndef OCT_VECTOR_H
#define OCT_VECTOR_H
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "kernels/cpu/isa.h"

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef float vf_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))

/* ---- loads and stores ------------------------------------------------------------------------ */

INLINE vf vf_load(const float *p) { return *(const vf_anywhere *)p; }
INLINE void vf_store(float *p, vf v) { *(vf_anywhere *)p = v; }

#if defined(OCT_ISA_avx512)

typedef __mmask16 vm;              /* a truth value for each lane */

INLINE vf vf_all(float x) { return (vf)_mm512_set1_ps(x); }
INLINE vi vi_all(int32_t x) { return (vi)_mm512_set1_epi32(x); }
/* The first n lanes, 0 <= n <= LANES; the others read as 0. Touches nothing behind them. */
INLINE vm vm_first(int64_t n) { return (vm)((1u << n) - 1); }
INLINE vf vf_load_first(const float *p, int64_t n)
{
    return (vf)_mm512_maskz_loadu_ps(vm_first(n), p);
}
INLINE void vf_store_first(float *p, vf v, int64_t n)
{
    _mm512_mask_storeu_ps(p, vm_first(n), (__m512)v);
}

INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf vf_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
/* Where one is NaN, or both are zeros, the result is b. */
INLINE vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }

INLINE vm vf_less(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
INLINE vm vf_equal(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
INLINE vm vf_nan(vf a) { return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q); }
INLINE vm vf_at_least(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
INLINE vm vi_less(vi a, vi b) { return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b); }
INLINE vf vf_select(vm m, vf a, vf b)
{
    return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
}
INLINE vm vm_not(vm m) { return (vm)~m; }
INLINE vi vi_select(vm m, vi a, vi b)
{
    return (vi)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a);
}
INLINE int vm_any(vm m) { return m != 0; }

/* y * 2^n for a whole number n of -300 to 300, rounded once. */
INLINE vf vf_scale(vf y, vf n) { return (vf)_mm512_scalef_ps((__m512)y, (__m512)n); }

INLINE vi vf_to_int(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); }
INLINE vf vi_to_float(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
INLINE vd vf_low_double(vf a)
{
    return (vd)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)a));
}
INLINE vd vf_high_double(vf a)
{
    return (vd)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)a, 1));
}

/* Within each four lanes: a0 b0 a1 b1; a2 b2 a3 b3; a0 a1 b0 b1; a2 a3 b2 b3. */
INLINE vf vf_interleave_low(vf a, vf b) { return (vf)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
INLINE vf vf_interleave_high(vf a, vf b) { return (vf)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
INLINE vf vf_interleave_pairs_low(vf a, vf b)
{
    return (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)b);
}
INLINE vf vf_interleave_pairs_high(vf a, vf b)
{
    return (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
}

/* Over the lanes, halves folded onto each other. */
INLINE __m256 vf_fold_add(vf a)
{
    return _mm256_add_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
}
INLINE __m256 vf_fold_max(vf a)
{
    return _mm256_max_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
}

#else

typedef vi vm;

INLINE vf vf_all(float x) { return (vf)_mm256_set1_ps(x); }
INLINE vi vi_all(int32_t x) { return (vi)_mm256_set1_epi32(x); }
INLINE vm vm_first(int64_t n)
{
    return vi_all((int32_t)n) > (vi){0, 1, 2, 3, 4, 5, 6, 7};
}
INLINE vf vf_load_first(const float *p, int64_t n)
{
    return (vf)_mm256_maskload_ps(p, (__m256i)vm_first(n));
}
INLINE void vf_store_first(float *p, vf v, int64_t n)
{
    _mm256_maskstore_ps(p, (__m256i)vm_first(n), (__m256)v);
}

INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE vf vf_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
INLINE vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }

INLINE vm vf_less(vf a, vf b) { return (vm)(a < b); }
INLINE vm vf_equal(vf a, vf b) { return (vm)(a == b); }
INLINE vm vf_nan(vf a) { return (vm)(a != a); }
INLINE vm vf_at_least(vf a, vf b) { return (vm)(a >= b); }
INLINE vm vi_less(vi a, vi b) { return (vm)(a < b); }
INLINE vf vf_select(vm m, vf a, vf b)
{
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
}
INLINE vm vm_not(vm m) { return ~m; }
INLINE vi vi_select(vm m, vi a, vi b)
{
    return (vi)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)m);
}
INLINE int vm_any(vm m) { return _mm256_movemask_ps((__m256)m) != 0; }

INLINE vi vf_to_int(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
INLINE vf vi_to_float(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
/* In two steps, since 2^n itself may be no float; the first is exact. */
INLINE vf vf_scale(vf y, vf n)
{
    vi whole = vf_to_int(n), half = whole >> 1;
    return y * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}
INLINE vd vf_low_double(vf a)
{
    return (vd)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)a));
}
INLINE vd vf_high_double(vf a)
{
    return (vd)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)a, 1));
}

INLINE vf vf_interleave_low(vf a, vf b) { return (vf)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
INLINE vf vf_interleave_high(vf a, vf b) { return (vf)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
INLINE vf vf_interleave_pairs_low(vf a, vf b)
{
    return (vf)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
INLINE vf vf_interleave_pairs_high(vf a, vf b)
{
    return (vf)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}

INLINE __m256 vf_fold_add(vf a) { return (__m256)a; }
INLINE __m256 vf_fold_max(vf a) { return (__m256)a; }

#endif

/* ---- over the lanes -------------------------------------------------------------------------- */

INLINE float vf_sum(vf a)
{
    __m256 b = vf_fold_add(a);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
/* NaN lanes may be lost. */
INLINE float vf_greatest(vf a)
{
    __m256 b = vf_fold_max(a);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
INLINE double vd_sum(vd a)
{
    double sum = 0;
    for (int i = 0; i < LANES / 2; i++) sum += a[i];
    return sum;
}
INLINE double vf_sum_double(vf a) { return vd_sum(vf_low_double(a) + vf_high_double(a)); }

/* ---- functions ------------------------------------------------------------------------------- */

INLINE vf vf_abs(vf x) { return (vf)((vi)x & 0x7FFFFFFF); }
/* `magnitude`, which is not negative, with the sign of `sign`. */
INLINE vf vf_with_sign(vf magnitude, vf sign)
{
    return (vf)((vi)magnitude | ((vi)sign & (int32_t)0x80000000));
}

/* 1 with x's sign; 0 where x is 0. */
INLINE vf vf_sign(vf x)
{
    return vf_select(vf_equal(x, vf_all(0.0f)), vf_all(0.0f), vf_with_sign(vf_all(1.0f), x));
}

/* c[0] + c[1] x + ...; `terms` is a constant, 4 at least. Even and odd powers are summed apart: a
 * chain of half the length, and more than one vector's chain fits into the processor's queue. */
INLINE vf vf_polynomial(vf x, const float *c, const int terms)
{
    const vf square = x * x;
    vf last = vf_all(c[terms - 1]), other = vf_all(c[terms - 2]);
#pragma GCC unroll 16
    for (int k = terms - 3; k >= 0; k -= 2) {
        last = vf_fma(last, square, vf_all(c[k]));
        if (k > 0) other = vf_fma(other, square, vf_all(c[k - 1]));
    }
    return terms % 2 ? vf_fma(other, x, last) : vf_fma(last, x, other);
}

/* e^x, within 1 ulp, denormal results included: x = n ln 2 + r, |r| <= ln 2 / 2, times 2^n. */
INLINE vf vf_exp(vf x)
{
    const float to_whole = 0x1.8p23f;          /* adding it leaves a whole number in the low bits */
    x = vf_min(vf_all(100.0f), vf_max(vf_all(-120.0f), x));
    vf n = vf_fma(x, vf_all(0x1.715476p+0f), vf_all(to_whole)) - to_whole;
    vf r = vf_fma(n, vf_all(-0x1.62e430p-1f), x);
    r = vf_fma(n, vf_all(0x1.05c610p-29f), r);
    vf p = vf_all(1.38146221e-3f);
    p = vf_fma(p, r, vf_all(8.36871006e-3f));
    p = vf_fma(p, r, vf_all(4.1668389e-2f));
    p = vf_fma(p, r, vf_all(0.166665211f));
    p = vf_fma(p, r, vf_all(0.49999994f));
    return vf_scale(vf_fma(p, r * r, r) + 1.0f, n);
}

/* Natural logarithm, within 1 ulp: x = m 2^e, sqrt(1/2) <= m < sqrt(2). */
INLINE vf vf_log(vf x)
{
    static const float c[9] = {
        -0.499999881f, 0.333333254f, -0.250015825f, 0.200019732f, -0.166090831f, 0.14181827f,
        -0.132429898f, 0.129044265f, -0.0762176663f,
    };
    const int32_t root_half = 0x3F3504F3;      /* bits of sqrt(1/2) */
    vm denormal = vf_less(x, vf_all(0x1p-126f));
    vi bits = (vi)vf_select(denormal, x * 0x1p23f, x) - root_half;
    vf e = vi_to_float(bits >> 23) - vf_select(denormal, vf_all(23.0f), vf_all(0.0f));
    vf f = (vf)((bits & 0x7FFFFF) + root_half) - 1.0f;
    vf p = vf_polynomial(f, c, 9);
    p = vf_fma(e, vf_all(-2.12194440e-4f), p * (f * f));
    vf y = vf_fma(e, vf_all(0.693359375f), f + p);
    y = vf_select(vf_less(x, vf_all(INFINITY)), y, x);         /* infinity and NaN stay */
    y = vf_select(vf_equal(x, vf_all(0.0f)), vf_all(-INFINITY), y);
    return vf_select(vf_less(x, vf_all(0.0f)), vf_all(NAN), y);
}

/* Within 1.5 ulp: an odd polynomial below 0.625, else from e^2x. */
INLINE vf vf_tanh(vf x)
{
    vf a = vf_abs(x), u = x * x;
    vf p = vf_all(-5.70497988e-3f);
    p = vf_fma(p, u, vf_all(2.06390806e-2f));
    p = vf_fma(p, u, vf_all(-5.37397116e-2f));
    p = vf_fma(p, u, vf_all(0.133314416f));
    p = vf_fma(p, u, vf_all(-0.333332807f));
    vf small = vf_fma(p * u, x, x);
    vf large = 1.0f - 2.0f / (vf_exp(a + a) + 1.0f);
    return vf_select(vf_less(a, vf_all(0.625f)), small, vf_with_sign(large, x));
}

/* 1 / (1 + e^-x), within 3 ulp; 0 below -88.7, where e^-x is no float. */
INLINE vf vf_sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

/* (1 + erf(x / sqrt 2)) / 2, the share of a normal distribution below x: within 1.5e-7, and exactly
 * 0 or 1 from |x| = 5.42 on. 1/2 + x P(t) with t = 2 (x / 5.42)^2 - 1, so that t fills [-1, 1]. */
INLINE vf vf_normal_share(vf x)
{
    static const float c[16] = {
        0.130445957f, -0.0650940463f, 0.0483472981f, -0.0391299091f, 0.0321058035f, -0.0257762931f,
        0.0198421944f, -0.0143660195f, 0.00961915217f, -0.00623173593f, 0.00408510631f,
        -0.00213177223f, 6.55552198e-4f, -4.29325795e-4f, 4.95525193e-4f, -1.8656881e-4f,
    };
    vf t = vf_fma(x * x, vf_all(6.80818616e-2f), vf_all(-1.0f));
    vf p = vf_polynomial(t, c, 16);
    vf y = vf_fma(x, p, vf_all(0.5f));
    y = vf_select(vf_less(vf_all(5.42f), x), vf_all(1.0f), y);
    return vf_select(vf_less(x, vf_all(-5.42f)), vf_all(0.0f), y);
}

INLINE vf vf_gelu(vf x) { return x * vf_normal_share(x); }
/* Its derivative, the share below x plus x times the density: within 1.5e-7. For x < 0 that is
 * e^(-x^2 / 2) times a function that a polynomial follows well, for x > 0 the rest to 1. */
INLINE vf vf_gelu_slope(vf x)
{
    static const float c[12] = {
        0.49999997f, -0.79788214f, 0.249961987f, -0.132748336f, 0.0617673211f, -0.025228072f,
        0.00877242256f, -0.00245199632f, 5.11834689e-4f, -7.29470776e-5f, 6.214927e-6f,
        -2.35649409e-7f,
    };
    vf a = vf_min(vf_all(14.0f), vf_abs(x));
    vf tail = vf_exp(-0.5f * a * a) * vf_polynomial(a, c, 12);
    return vf_select(vf_less(x, vf_all(0.0f)), tail, 1.0f - tail);
}

#endif
