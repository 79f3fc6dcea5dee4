/* run.hpp - runs of four neighbouring elements of a slot: read and written by one thread, in one
 * access where all four are there and lie evenly, and so that with 4 bits each byte is one
 * thread's. A run begins with an element whose number is a multiple of four. */
#ifndef OCT_CUDA_RUN_HPP
#define OCT_CUDA_RUN_HPP
#include "kernels/cuda/runtime.hpp"
#include "kernels/optim.h"

enum { RUN = 4 };

template <class T> struct alignas(RUN * sizeof(T)) even_run {
    T x[RUN];
};

/* All four, which lie evenly. */
template <class T> INLINE void load_even(T to[RUN], const T *from)
{
    even_run<T> run = *(const even_run<T> *)from;
    UNROLL for (int i = 0; i < RUN; i++) to[i] = run.x[i];
}

template <class T> INLINE void store_even(T *to, const T from[RUN])
{
    even_run<T> run;
    UNROLL for (int i = 0; i < RUN; i++) run.x[i] = from[i];
    *(even_run<T> *)to = run;
}

/* Numbers first .. first + count - 1 of an array, and zeros behind them. Where count
 * is not above 0 there are none. */
template <class T> INLINE void load_run(T to[RUN], const void *array, int64_t first, int count)
{
    const T *from = (const T *)array + first;
    if (count >= RUN && (uintptr_t)from % sizeof(even_run<T>) == 0)
        load_even(to, from);
    else
        UNROLL for (int i = 0; i < RUN; i++) to[i] = i < count ? from[i] : T(0);
}

template <class T> INLINE void store_run(void *array, int64_t first, int count, const T from[RUN])
{
    T *to = (T *)array + first;
    if (count >= RUN && (uintptr_t)to % sizeof(even_run<T>) == 0)
        store_even(to, from);
    else
        UNROLL for (int i = 0; i < RUN && i < count; i++) to[i] = from[i];
}

/* ---- draws ----------------------------------------------------------------------------------- */

/* The half-words of a run that begins at place `at` of a tile, from the words of the tile, which
 * begin with those of a group of 64 elements (kernels/optim.h). */
INLINE void draw_run(uint32_t half_words[RUN], const uint32_t *words, int at)
{
    const uint32_t *group = words + at / 64 * 16;
    uint32_t word[RUN + 1];
    load_even(word, group + at % 16);
    word[RUN] = group[(at + RUN) % 16];
    UNROLL for (int i = 0; i < RUN; i++)
        half_words[i] = __funnelshift_r(word[i], word[i + 1], at % 64 / 16 * 8) & 0xFFFF;
}

/* ---- magnitudes ------------------------------------------------------------------------------ */

#define ALL_LANES 0xFFFFFFFFu
enum { WARP_LANES = 32 };

INLINE int log2_of(int64_t power_of_two) { return __ffsll(power_of_two) - 1; }

/* The bits of the largest magnitude of a run: they are in the same order. */
INLINE unsigned magnitude_of(const float x[RUN])
{
    float most = 0;
    UNROLL for (int i = 0; i < RUN; i++) most = fmaxf(most, fabsf(x[i]));
    return __float_as_uint(most);
}

/* Lanes of a warp whose runs lie in one quantization block. */
INLINE int lanes_of(int64_t block)
{
    return block / RUN < WARP_LANES ? (int)block / RUN : WARP_LANES;
}

/* The largest of `lanes` neighbouring lanes, a power of two. */
INLINE unsigned lanes_most(unsigned x, int lanes)
{
    if (lanes == WARP_LANES) return __reduce_max_sync(ALL_LANES, x);
    for (int other = lanes / 2; other > 0; other /= 2) {
        unsigned y = __shfl_xor_sync(ALL_LANES, x, other);
        if (y > x) x = y;
    }
    return x;
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* Four codes of a run, a byte each, the first one low. */
typedef uint32_t packed_codes;

INLINE unsigned code_of(packed_codes codes, int i) { return codes >> 8 * i & 0xFF; }

INLINE packed_codes load_codes(const uint8_t *codes, int bits, int64_t first, int count)
{
    uint8_t bytes[RUN];
    if (bits == 8) {
        load_run(bytes, codes, first, count);
    } else {
        UNROLL for (int i = 0; i < RUN; i += 2) {
            unsigned two = i < count ? codes[(first + i) / 2] : 0u;
            bytes[i] = two & 15;
            bytes[i + 1] = (uint8_t)(two >> 4);
        }
    }
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

INLINE void store_codes(uint8_t *to, int bits, int64_t first, int count, packed_codes codes)
{
    if (bits == 8) {
        uint8_t bytes[RUN];
        UNROLL for (int i = 0; i < RUN; i++) bytes[i] = (uint8_t)code_of(codes, i);
        store_run(to, first, count, bytes);
        return;
    }
    UNROLL for (int i = 0; i < RUN; i += 2) {
        if (i >= count) return;
        uint8_t *place = to + (first + i) / 2;
        unsigned upper = i + 1 < count ? code_of(codes, i + 1) << 4 : *place & 0xF0u;
        *place = (uint8_t)(code_of(codes, i) | upper);
    }
}

/* Four numbers, cut to what a byte holds. */
INLINE packed_codes pack_signed(const int x[RUN])
{
#ifdef __CUDACC__
    uint32_t packed;
    asm("{ .reg .b32 upper;\n"
        "cvt.pack.sat.s8.s32.b32 upper, %4, %3, 0;\n"
        "cvt.pack.sat.s8.s32.b32 %0, %2, %1, upper; }"
        : "=r"(packed) : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]));
    return packed;
#else
    packed_codes packed = 0;
    for (int i = 0; i < RUN; i++) {
        int cut = x[i] < -128 ? -128 : x[i] > 127 ? 127 : x[i];
        packed |= (uint32_t)(uint8_t)cut << 8 * i;
    }
    return packed;
#endif
}

/* Four numbers from 0 to 255. */
INLINE packed_codes pack_unsigned(const int x[RUN])
{
    return (uint32_t)x[0] | (uint32_t)x[1] << 8 | (uint32_t)x[2] << 16 | (uint32_t)x[3] << 24;
}

/* ---- gradients and parameters ---------------------------------------------------------------- */

INLINE void load_grads(float g[RUN], const oct_optim_slot &s, int64_t first, int count)
{
    if (s.grad_format == OCT_NUMBER_F32) {
        load_run(g, s.grad, first, count);
        return;
    }
    uint16_t high[RUN];
    load_run(high, s.grad, first, count);
    UNROLL for (int i = 0; i < RUN; i++) g[i] = __uint_as_float((uint32_t)high[i] << 16);
}

INLINE void load_params(float p[RUN], const oct_optim_slot &s, int64_t first, int count)
{
    if (s.param_format == OCT_NUMBER_F32) {
        load_run(p, s.param, first, count);
        return;
    }
    uint16_t high[RUN];
    int8_t byte[RUN];
    int16_t half[RUN];
    load_run(high, s.param, first, count);
    if (s.correction_bits == 8) load_run(byte, s.correction, first, count);
    if (s.correction_bits == 16) load_run(half, s.correction, first, count);
    UNROLL for (int i = 0; i < RUN; i++) {
        uint32_t bits = (uint32_t)high[i] << 16;
        if (s.correction_bits == 8) bits += (uint32_t)byte[i] << 8;
        if (s.correction_bits == 16) bits += (uint32_t)half[i];
        p[i] = __uint_as_float(bits);
    }
}

/* half_words: the elements' draws, where the parameter is rounded by chance; else zeros. */
INLINE void store_params(const oct_optim_slot &s, int64_t first, int count, const float p[RUN],
                         const uint32_t half_words[RUN])
{
    if (s.param_format == OCT_NUMBER_F32) {
        store_run(s.param, first, count, p);
        return;
    }
    uint16_t high[RUN];
    int8_t byte[RUN];
    int16_t half[RUN];
    uint32_t below = s.correction_bits == 16 ? 0 : s.correction_bits == 8 ? 0xFF : 0xFFFF;
    UNROLL for (int i = 0; i < RUN; i++) {
        uint32_t bits = (__float_as_uint(p[i]) + (half_words[i] & below)) & ~below;
        uint32_t upper = s.correction_bits == 0 ? bits >> 16 : (bits + 0x8000u) >> 16;
        high[i] = (uint16_t)upper;
        bits -= upper << 16;
        byte[i] = (int8_t)((int32_t)bits >> 8);
        half[i] = (int16_t)bits;
    }
    store_run(s.param, first, count, high);
    if (s.correction_bits == 8) store_run(s.correction, first, count, byte);
    if (s.correction_bits == 16) store_run(s.correction, first, count, half);
}

#endif
