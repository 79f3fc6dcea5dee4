/* bf16.h - a float's bits, and bf16, for the core and for every kernel. */
#ifndef OCT_BF16_H
#define OCT_BF16_H
#include <stdint.h>
#include <string.h>

/* To the nearest, ties to even; a NaN stays one. */
static inline uint16_t oct_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000u ? (bits >> 16 | 64) : rounded);
}

static inline float oct_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float oct_from_bf16(uint16_t x) { return oct_from_bits((uint32_t)x << 16); }

#endif
