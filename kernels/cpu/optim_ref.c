/* optim_ref.c - the optimizers' kernels as plain as they can be said; the fast ones are held to
 * them.
 *
 * One thread, one element after the other, the nearest code by bisection. */
#include <math.h>
#include <string.h>

#define INLINE static inline
typedef float vf;
INLINE vf vf_all(float x) { return x; }
INLINE vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
INLINE vf vf_sqrt(vf a) { return sqrtf(a); }

#include "core/octet.h"
#include "core/random.h"
#include "kernels/rules.h"

/* ---- codes ----------------------------------------------------------------------------------- */

static int nearest_entry(float magnitude, const oct_map *map)
{
    int low = 0, high = map->top;  /* bound[low] <= magnitude < bound[high + 1] */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (magnitude < map->bound[middle]) high = middle - 1;
        else low = middle;
    }
    return low;
}

/* The code of an entry on the side that x's sign says. */
static uint8_t code_of(int entry, float x, const oct_map *map)
{
    if (!map->is_signed) return (uint8_t)entry;
    if (!signbit(x)) return (uint8_t)(OCT_SIGNED_ZERO + entry);
    return (uint8_t)(OCT_SIGNED_ZERO - (entry < OCT_SIGNED_ZERO ? entry : OCT_SIGNED_ZERO));
}

static uint8_t code_nearest(float x, const oct_map *map)
{
    return code_of(nearest_entry(fabsf(x), map), x, map);
}

/* The half-word as a number in (1, 2), the middle of one of 65,536 equal parts. */
static float one_and_draw(uint32_t half_word)
{
    uint32_t bits = 0x3F800000u | half_word << 7 | 0x40u;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* x has been multiplied with map->chance.scale too. */
static uint8_t code_by_chance(float x, float draw, const oct_map *map)
{
    const oct_lines *lines = &map->chance;
    float magnitude = fabsf(x);
    int segment = 0;
    while (magnitude >= lines->end[segment]) segment++;
    float position = fmaf(magnitude, lines->slope[segment], lines->offset[segment]) + draw;
    int entry = position > (float)map->top ? map->top : (int)position;
    return code_of(x == 0 ? 0 : entry, x, map);
}

static float draw_of(const oct_optim_slot *slot, int64_t element)
{
    uint32_t words[4], lane = (uint32_t)element % 16, turn = (uint32_t)element % 64 / 16 * 8;
    oct_philox(words, slot->seed, OCT_STREAM_OPTIMIZER,
               slot->random_offset + (uint64_t)element / 64 * 4 + lane / 4);
    uint64_t word = words[lane % 4];
    return one_and_draw((uint32_t)((word | word << 32) >> turn) & 0xFFFF);
}

/* What to multiply a block's values with; 0 where they are to be kept as zeros. */
static float inverse_of(float absmax) { return absmax < OCT_ABSMAX_LEAST ? 0 : 1 / absmax; }

static float largest(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(x[i]) > most) most = fabsf(x[i]);
    return most;
}

void oct_quantize_ref(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                      const oct_map *map)
{
    for (int64_t at = 0; at < n; at += block, absmax++) {
        int64_t count = n - at < block ? n - at : block;
        float most = largest(x + at, count), inverse = inverse_of(most);
        *absmax = inverse != 0 ? most : 0;
        for (int64_t i = at; i < at + count; i++) codes[i] = code_nearest(x[i] * inverse, map);
    }
}

void oct_dequantize_ref(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                        int64_t block, const oct_map *map)
{
    for (int64_t i = 0; i < n; i++) x[i] = map->value[codes[i]] * absmax[i / block];
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* One element; 1 where it was left out. */
static int step_element(float *p, float *m, float *second, float g, const oct_rule *rule, int root)
{
    float new_p = *p, new_m = *m, new_second = *second;
    float v = rule_adam(&new_p, &new_m, &new_second, g, rule, rule->weight_decay != 0, root);
    if (!(v < OCT_STATE_LIMIT)) return 1;
    *p = new_p;
    *m = new_m;
    *second = new_second;
    return 0;
}

static int64_t step_block(const oct_optim_slot *s, int64_t at, int64_t count)
{
    float m[OCT_BLOCK_MAX], second[OCT_BLOCK_MAX];
    int64_t block = at / s->block, left_out = 0;
    oct_dequantize_ref(m, s->codes[0] + at, s->absmax[0] + block, count, s->block, s->map[0]);
    oct_dequantize_ref(second, s->codes[1] + at, s->absmax[1] + block, count, s->block, s->map[1]);
    for (int64_t i = 0; i < count; i++)
        left_out += step_element(s->param + at + i, m + i, second + i, s->grad[at + i], &s->rule,
                                 s->root);
    float *state[OCT_STATES] = {m, second};
    for (int k = 0; k < OCT_STATES; k++) {
        uint8_t *codes = s->codes[k] + at;
        float *absmax = s->absmax[k] + block;
        oct_quantize_ref(codes, absmax, state[k], count, s->block, s->map[k]);
        if (!s->stochastic) continue;
        float factor = inverse_of(*absmax) * s->map[k]->chance.scale;
        for (int64_t i = 0; i < count; i++)
            codes[i] = code_by_chance(state[k][i] * factor, draw_of(s, at + i), s->map[k]);
    }
    return left_out;
}

int64_t oct_optim_adam_ref(const oct_optim_work *work)
{
    int64_t left_out = 0;
    for (int64_t k = 0; k < work->units[work->unit_count]; k++) {
        const oct_optim_piece *piece = work->pieces + k;
        const oct_optim_slot *s = work->slots + piece->slot;
        int64_t end = piece->first + piece->count;
        if (s->codes[0]) {
            for (int64_t at = piece->first; at < end; at += s->block)
                left_out += step_block(s, at, end - at < s->block ? end - at : s->block);
        } else {
            for (int64_t i = piece->first; i < end; i++)
                left_out += step_element(s->param + i, s->state[0] + i, s->state[1] + i, s->grad[i],
                                         &s->rule, 0);
        }
    }
    return left_out;
}

/* ---- the norm -------------------------------------------------------------------------------- */

/* Sixteen sums in double, element i to sum i % 16, then folded by halves: as a vector does it. */
void oct_optim_squares_ref(double *sums, int64_t *left_out, const oct_optim_work *work)
{
    int64_t count = 0;
    for (int64_t k = 0; k < work->units[work->unit_count]; k++) {
        const oct_optim_piece *piece = work->pieces + k;
        const float *g = work->slots[piece->slot].grad + piece->first;
        double part[16] = {0};
        for (int64_t i = 0; i < piece->count; i++) {
            int finite = fabsf(g[i]) < INFINITY;
            count += !finite;
            part[i % 16] += finite ? (double)g[i] * g[i] : 0;
        }
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) part[i] += part[i + half];
        sums[k] = part[0];
    }
    *left_out = count;
}
