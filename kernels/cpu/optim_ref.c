/* optim_ref.c - the optimizers' kernels as plain as they can be said; the fast ones are held to
 * them.
 *
 * One thread, one element after the other, the nearest code by comparing with all bounds. */
#include <math.h>
#include <string.h>

#define INLINE static inline
typedef float vf;
INLINE vf vf_all(float x) { return x; }
INLINE vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
INLINE vf vf_sqrt(vf a) { return sqrtf(a); }
INLINE vf vf_abs(vf a) { return fabsf(a); }
/* Where one is NaN, or both are zeros, the result is b, as a vector's is. */
INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
INLINE vf vf_sign(vf a) { return a == 0 ? 0 : copysignf(1, a); }

#define OCT_RULE_ARITHMETIC
#include "core/octet.h"
#include "core/random.h"
#include "rules_list.h"

/* ---- codes ----------------------------------------------------------------------------------- */

static uint8_t code_nearest(float x, const oct_map *map)
{
    int code = 0;
    while (code + 1 < map->levels && x >= map->bound[code + 1]) code++;
    return (uint8_t)code;
}

/* The half-word as a number in (1, 2), the middle of one of 65,536 equal parts. */
static float one_and_draw(uint32_t half_word)
{
    uint32_t bits = 0x3F800000u | half_word << 7 | 0x40u;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* factor: what x is to be multiplied with, map->chance.scale among it. */
static uint8_t code_by_line(float x, float factor, uint32_t half_word, const oct_map *map)
{
    const oct_lines *lines = &map->chance;
    float y = fmaf(fabsf(x), factor, lines->lift), place;
    uint32_t bits;
    int segment = 0;
    while (y >= lines->end[segment]) segment++;
    place = fmaf(y, lines->slope[segment], lines->offset[segment]);
    memcpy(&bits, &place, sizeof bits);
    if (!map->is_signed) {
        if (bits > OCT_PLACE_LAST) bits = OCT_PLACE_LAST;
        return (uint8_t)(x == 0 ? 0 : OCT_PLACE_OF(bits + half_word - 0x10000));
    }
    int entry = OCT_PLACE_OF(bits + half_word);
    if (!signbit(x)) return (uint8_t)(OCT_SIGNED_ZERO + (entry < map->top ? entry : map->top));
    return (uint8_t)(OCT_SIGNED_ZERO - (entry < OCT_SIGNED_ZERO ? entry : OCT_SIGNED_ZERO));
}

static uint8_t code_by_gap(float x, float draw, const oct_map *map)
{
    int code = 0;
    while (code + 1 < map->levels && x >= map->value[code + 1]) code++;
    if (fmaf(x - map->value[code], map->gap_inverse[code], draw) >= 2) code++;
    if (x > 0 && code < map->least) code = map->least;
    if (map->is_signed && fabsf(x) < OCT_CHANCE_LEAST) code = map->zero;
    return (uint8_t)code;
}

static uint32_t draw_of(uint64_t seed, uint64_t random_offset, int64_t element)
{
    uint32_t word[2], byte = (uint32_t)element % 64 / 16;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t words[4], number = ((uint32_t)element + i) % 16;
        oct_philox(words, seed, OCT_STREAM_OPTIMIZER,
                   random_offset + (uint64_t)element / 64 * 4 + number / 4);
        word[i] = words[number % 4];
    }
    return (uint32_t)((word[0] | (uint64_t)word[1] << 32) >> 8 * byte & 0xFFFF);
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

static int code_at(const uint8_t *codes, int64_t i, const oct_map *map)
{
    return map->levels == 16 ? codes[i / 2] >> i % 2 * 4 & 15 : codes[i];
}

static void set_code(uint8_t *codes, int64_t i, uint8_t code, const oct_map *map)
{
    if (map->levels != 16)
        codes[i] = code;
    else
        codes[i / 2] =
            (uint8_t)(i % 2 ? (codes[i / 2] & 15) | code << 4 : (codes[i / 2] & 0xF0) | code);
}

void oct_quantize_ref(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                      const oct_map *map)
{
    for (int64_t at = 0; at < n; at += block, absmax++) {
        int64_t count = n - at < block ? n - at : block;
        float most = largest(x + at, count), inverse = inverse_of(most);
        *absmax = inverse != 0 ? most : 0;
        for (int64_t i = at; i < at + count; i++)
            set_code(codes, i, code_nearest(x[i] * inverse, map), map);
    }
}

void oct_dequantize_ref(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                        int64_t block, const oct_map *map)
{
    for (int64_t i = 0; i < n; i++) x[i] = map->value[code_at(codes, i, map)] * absmax[i / block];
}

/* ---- parameters ------------------------------------------------------------------------------ */

static void set_param(const oct_optim_slot *s, int64_t i, float x)
{
    if (s->param_format == OCT_NUMBER_F32) {
        ((float *)s->param)[i] = x;
        return;
    }
    uint32_t bits, below = s->correction_bits == 16 ? 0 : s->correction_bits == 8 ? 0xFF : 0xFFFF;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + (draw_of(s->seed, s->param_random_offset, i) & below)) & ~below;
    uint32_t high = s->correction_bits == 0 ? bits >> 16 : (bits + 0x8000u) >> 16;
    ((uint16_t *)s->param)[i] = (uint16_t)high;
    bits -= high << 16;
    if (s->correction_bits == 8) ((int8_t *)s->correction)[i] = (int8_t)((int32_t)bits >> 8);
    if (s->correction_bits == 16) ((int16_t *)s->correction)[i] = (int16_t)bits;
}

/* ---- a step ---------------------------------------------------------------------------------- */

#define CASE(name)                                                                                 \
    case OCT_RULE_##name:                                                                          \
        return name##_rule(bound, s, p, g, c, root);
static float direction_of(int arithmetic, float *bound, float s[OCT_STATES], float p, float g,
                          const float *c, int root)
{
    switch (arithmetic) {
        OCT_FOR_EACH_RULE(CASE)
    }
    return 0;
}

/* One element's new state and parameter; 0, with nothing changed, where it takes no part. */
static int step_element(float *p, float state[OCT_STATES], float g, const oct_optim_slot *slot)
{
    const oct_numbers *n = &slot->numbers;
    float s[OCT_STATES], bound = 0;
    memcpy(s, state, sizeof s);
    g *= n->grad_scale;
    if (n->grad_limit < INFINITY && fabsf(g) < INFINITY)
        g = vf_max(vf_min(g, n->grad_limit), -n->grad_limit);
    if (n->coupled_decay != 0) g = fmaf(n->coupled_decay, *p, g);
    float direction =
        direction_of(slot->arithmetic, &bound, s, *p, g, n->c, slot->bits != 32 && slot->root);
    if (!(fabsf(bound) < OCT_STATE_LIMIT)) return 0;
    *p = fmaf(-n->step, direction, *p * n->keep);
    memcpy(state, s, sizeof s);
    return 1;
}

/* Elements at .. at + count - 1, of one block: their new parameters and states. Returns how many
 * take no part; in a first pass, p of these is 0. */
static int64_t compute(float *p, float values[OCT_STATES][OCT_BLOCK_MAX], const oct_optim_slot *s,
                       int64_t at, int64_t count, int dry)
{
    int64_t left_out = 0;
    for (int64_t i = 0; i < count; i++) {
        float x[OCT_STATES] = {0};
        for (int j = 0; j < OCT_STATES; j++) {
            const oct_slot_state *state = s->state + j;
            if (state->values) x[j] = state->values[at + i];
            if (state->codes)
                x[j] = state->map->value[code_at(state->codes, at + i, state->map)] *
                       state->absmax[s->whole ? 0 : at / s->block];
        }
        p[i] = oct_optim_param_at(s, at + i);
        if (!step_element(p + i, x, oct_optim_grad_at(s, at + i), s)) {
            left_out++;
            if (dry) p[i] = 0;
        }
        for (int j = 0; j < OCT_STATES; j++) values[j][i] = x[j];
    }
    return left_out;
}

static void keep_codes(const oct_optim_slot *s, int j, const float *x, int64_t at, int64_t count)
{
    const oct_slot_state *state = s->state + j;
    const oct_map *map = state->map;
    float absmax = s->whole ? s->next_absmax[j] : largest(x, count), inverse = inverse_of(absmax);
    for (int64_t i = 0; i < count; i++) {
        uint8_t code;
        if (!s->stochastic) {
            code = code_nearest(x[i] * inverse, map);
        } else {
            uint32_t draw = draw_of(s->seed, s->random_offset, at + i);
            code = map->has_lines ? code_by_line(x[i], inverse * map->chance.scale, draw, map)
                                  : code_by_gap(x[i] * inverse, one_and_draw(draw), map);
        }
        set_code(state->codes, at + i, code, map);
    }
    if (!s->whole) state->absmax[at / s->block] = inverse == 0 ? 0 : absmax;
}

static int64_t step_block(const oct_optim_slot *s, int64_t at, int64_t count)
{
    float p[OCT_BLOCK_MAX], values[OCT_STATES][OCT_BLOCK_MAX];
    int64_t left_out = compute(p, values, s, at, count, 0);
    for (int64_t i = 0; i < count; i++) set_param(s, at + i, p[i]);
    for (int j = 0; j < OCT_STATES; j++) {
        if (s->state[j].values)
            memcpy(s->state[j].values + at, values[j], (size_t)count * sizeof *p);
        if (s->state[j].codes) keep_codes(s, j, values[j], at, count);
    }
    return left_out;
}

int64_t oct_optim_step_ref(const oct_optim_work *work)
{
    int64_t left_out = 0;
    for (int64_t k = 0; k < work->units[work->unit_count]; k++) {
        const oct_optim_piece *piece = work->pieces + k;
        const oct_optim_slot *s = work->slots + piece->slot;
        int64_t end = piece->first + piece->count;
        for (int64_t at = piece->first; at < end; at += s->block)
            left_out += step_block(s, at, end - at < s->block ? end - at : s->block);
    }
    return left_out;
}

/* ---- sums over pieces ------------------------------------------------------------------------ */

/* Sixteen sums in double, element i to sum i % 16, then folded by halves: as a vector does it. */
static double squares_of(const float *x, int64_t n, int64_t *not_finite)
{
    double part[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        int finite = fabsf(x[i]) < INFINITY;
        *not_finite += !finite;
        part[i % 16] += finite ? (double)x[i] * x[i] : 0;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}

void oct_optim_measure_ref(oct_optim_measure *measures, const oct_optim_work *work)
{
    for (int64_t k = 0; k < work->units[work->unit_count]; k++) {
        const oct_optim_piece *piece = work->pieces + k;
        oct_optim_slot s = work->slots[piece->slot];
        oct_optim_measure *m = measures + k;
        int64_t end = piece->first + piece->count, not_finite = 0;
        s.numbers.keep = 0;
        s.numbers.step = -1;
        *m = (oct_optim_measure){0};
        for (int64_t at = piece->first; at < end; at += s.block) {
            float p[OCT_BLOCK_MAX], values[OCT_STATES][OCT_BLOCK_MAX];
            int64_t n = end - at < s.block ? end - at : s.block;
            for (int64_t i = 0; i < n; i++) p[i] = oct_optim_param_at(&s, at + i);
            m->param_squares += squares_of(p, n, &not_finite);
            compute(p, values, &s, at, n, 1);
            m->other_squares += squares_of(p, n, &not_finite);
            for (int j = 0; j < OCT_STATES; j++)
                if (s.state[j].codes && largest(values[j], n) > m->absmax[j])
                    m->absmax[j] = largest(values[j], n);
        }
    }
}

void oct_optim_squares_ref(double *sums, int64_t *left_out, const oct_optim_work *work,
                           int of_params)
{
    enum { CHUNK = 4096 };
    int64_t count = 0;
    for (int64_t k = 0; k < work->units[work->unit_count]; k++) {
        const oct_optim_piece *piece = work->pieces + k;
        const oct_optim_slot *s = work->slots + piece->slot;
        sums[k] = 0;
        for (int64_t at = 0; at < piece->count; at += CHUNK) {
            float x[CHUNK];
            int64_t n = piece->count - at < CHUNK ? piece->count - at : CHUNK;
            for (int64_t i = 0, e = piece->first + at; i < n; i++, e++)
                x[i] = of_params ? oct_optim_param_at(s, e) : oct_optim_grad_at(s, e);
            sums[k] += squares_of(x, n, &count);
        }
    }
    *left_out = count;
}
