/* param.h - parameters and gradients as floats, whatever they are kept as.
 *
 * A bf16 parameter either is rounded by chance, so that steps shorter than its precision arrive in
 * the mean, or has 8 or 16 further bits beside it: the parameter is then the nearest bf16, and the
 * bits, read as a signed number, are what is missing to the 24 or 32 bits that are kept. */
#ifndef OCT_PARAM_H
#define OCT_PARAM_H
#include "kernels/cpu/codes.h"
#include "kernels/cpu/draws.h"
#include "kernels/optim.h"

static void load_bf16(float *y, const uint16_t *x, int64_t n)
{
    uint32_t *bits = (uint32_t *)y;
    for (int64_t i = 0; i < n; i++) bits[i] = (uint32_t)x[i] << 16;
}

/* Elements at .. at + n - 1. */
static void load_grad(float *y, const oct_optim_slot *s, int64_t at, int64_t n)
{
    if (s->grad_format == OCT_NUMBER_BF16)
        load_bf16(y, (const uint16_t *)s->grad + at, n);
    else
        memcpy(y, (const float *)s->grad + at, (size_t)n * sizeof *y);
}

static void load_param(float *y, const oct_optim_slot *s, int64_t at, int64_t n)
{
    if (s->param_format == OCT_NUMBER_F32) {
        memcpy(y, (const float *)s->param + at, (size_t)n * sizeof *y);
        return;
    }
    load_bf16(y, (const uint16_t *)s->param + at, n);
    uint32_t *bits = (uint32_t *)y;
    if (s->correction_bits == 16)
        for (int64_t i = 0; i < n; i++)
            bits[i] += (uint32_t)((const int16_t *)s->correction)[at + i];
    if (s->correction_bits == 8)
        for (int64_t i = 0; i < n; i++)
            bits[i] += (uint32_t)((const int8_t *)s->correction)[at + i] << 8;
}

/* x[i] += half, then rounded down to a multiple of 2 half, as numbers; those of finite floats. */
static void split_param(uint16_t *param, uint32_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t high = (x[i] + 0x8000u) >> 16;
        param[i] = (uint16_t)high;
        x[i] -= high << 16;
    }
}

/* x[n] becomes the parameter from element `at` on, a multiple of 32. x is written over. */
static void store_param(const oct_optim_slot *s, int64_t at, int64_t n, float *x,
                        const round_keys *keys)
{
    if (s->param_format == OCT_NUMBER_F32) {
        memcpy((float *)s->param + at, x, (size_t)n * sizeof *x);
        return;
    }
    uint32_t *bits = (uint32_t *)x;
    group_draws draws[GROUPS_DRAWN];
    uint16_t *param = (uint16_t *)s->param + at;
    if (s->correction_bits == 16) {
        int16_t *rest = (int16_t *)s->correction + at;
        split_param(param, bits, n);
        for (int64_t i = 0; i < n; i++) rest[i] = (int16_t)bits[i];
        return;
    }
    /* What is below the bits that are kept is rounded by chance. */
    uint32_t below = s->correction_bits == 8 ? 0xFF : 0xFFFF;
    for (int64_t i = 0; i < n; i++) {
        int64_t e = at + i;
        if (i == 0 || e % GROUP == 0)
            draw(draws, 1, keys, s->param_random_offset + (uint64_t)e / GROUP * 4);
        uint16_t drawn;
        memcpy(&drawn, (const char *)(draws->word + e % 16) + e % GROUP / 16, sizeof drawn);
        bits[i] = (bits[i] + (drawn & below)) & ~below;
    }
    if (s->correction_bits == 8) {
        int8_t *rest = (int8_t *)s->correction + at;
        split_param(param, bits, n);
        for (int64_t i = 0; i < n; i++) rest[i] = (int8_t)((int32_t)bits[i] >> 8);
    } else {
        for (int64_t i = 0; i < n; i++) param[i] = (uint16_t)(bits[i] >> 16);
    }
}

#endif
