/* optim.c - one step of an optimizer: parameter, gradient and state in one pass over memory.
 *
 * With 8-bit or 4-bit state a block is gone through twice while it lies in the first-level cache:
 * decode, apply the rule, write the parameter, and find the new absmax; then encode. */
#include <string.h>

#include "kernels/cpu/decode.h"
#include "kernels/cpu/encode_bytes.h"
#include "kernels/cpu/encode_lines.h"
#include "kernels/cpu/encode_search.h"
#include "kernels/cpu/param.h"
#include "kernels/optim.h"

#define OCT_RULE_ARITHMETIC
#include "rules_list.h"

/* What differs between the loops that are made from the code below, known where they are compiled.
 */
typedef struct kind {
    int states; /* that the rule has */
    int root;   /* as in oct_optim_slot */
    int codes;  /* CODES_8 ... */
} kind;

typedef vf (*rule)(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root);

/* Elements under way, in the first-level cache. */
typedef struct block_state {
    float values[OCT_STATES][OCT_BLOCK_MAX];
    group_draws draws[OCT_BLOCK_MAX / GROUP + GROUPS_DRAWN];
    round_keys keys;
    float most[OCT_STATES]; /* largest magnitudes of the new state */
    int64_t left_out;
    int dry;          /* a first pass: no state is encoded */
    int64_t from, to; /* those outside are padding */
} block_state;

/* ---- a group of elements --------------------------------------------------------------------- */

/* Where a bound, which is not negative, would reach the limit, or is NaN. */
INLINE vm beyond_limit(vf bound) { return vm_not(vf_less(bound, vf_all(OCT_STATE_LIMIT))); }

/* The larger of two that are not negative, by their bits, which are in order, NaN's too. */
INLINE vu greater_bits(vu a, vf b)
{
#if defined(OCT_ISA_avx512)
    return (vu)_mm512_max_epu32((__m512i)a, (__m512i)b);
#else
    return (vu)_mm256_max_epu32((__m256i)a, (__m256i)b);
#endif
}

/* An infinite gradient stays infinite. */
INLINE vf clipped(vf g, float limit)
{
    vm finite = vf_less(vf_abs(g), vf_all(INFINITY));
    return vf_select(finite, vf_max(vf_min(g, vf_all(limit)), vf_all(-limit)), g);
}

/* What the rule is given of a gradient. */
INLINE vf gradient(vf g, vf p, const oct_numbers *n)
{
    g = g * n->grad_scale;
    if (n->grad_limit < INFINITY) g = clipped(g, n->grad_limit);
    return n->coupled_decay != 0 ? vf_fma(vf_all(n->coupled_decay), p, g) : g;
}

/* The parameter after the step; s becomes the new state. kept: p * keep. */
INLINE vf stepped(vf *bound, vf s[OCT_STATES], vf p, vf kept, vf g, const oct_numbers *n, int root,
                  const rule apply)
{
    vf direction = apply(bound, s, p, g, n->c, root);
    return vf_fma(vf_all(-n->step), direction, kept);
}

/* Ask for what lies some blocks of the usual size ahead: left alone, the processor looks ahead too
 * little for streams that halt and go. */
INLINE void fetch_numbers(const float *p, const float *grad)
{
    enum { AHEAD = 512 };
    for (int at = AHEAD; at < AHEAD + GROUP; at += 16) {
        __builtin_prefetch(p + at, 1, 2);
        __builtin_prefetch(grad + at, 0, 2);
    }
}
INLINE void fetch_codes(const uint8_t *codes)
{
    enum { AHEAD = 1024 };
    __builtin_prefetch(codes + AHEAD, 1, 2);
}

/* A group's gradients and kept parameters. What a step mostly goes without is asked for once, not
 * for each vector: it would be a sixth of the arithmetic. */
INLINE void prepare_group(vf g[VECTORS], vf kept[VECTORS], const float *grad, const float *p,
                          const oct_numbers *n)
{
    for (int v = 0; v < VECTORS; v++) g[v] = vf_load(grad + v * LANES);
    for (int v = 0; v < VECTORS; v++) kept[v] = vf_load(p + v * LANES);
    if (n->grad_scale != 1)
        for (int v = 0; v < VECTORS; v++) g[v] *= n->grad_scale;
    if (__builtin_expect(n->grad_limit < INFINITY, 0))
        for (int v = 0; v < VECTORS; v++) g[v] = clipped(g[v], n->grad_limit);
    if (n->coupled_decay != 0)
        for (int v = 0; v < VECTORS; v++) g[v] = vf_fma(vf_all(n->coupled_decay), kept[v], g[v]);
    if (n->keep != 1)
        for (int v = 0; v < VECTORS; v++) kept[v] *= n->keep;
}

/* Padding has no state, whatever its codes say. */
static __attribute__((noinline, cold)) void clear_padding(float x[GROUP], int64_t from, int64_t to)
{
    for (int64_t i = 0; i < GROUP; i++)
        if (i < from || i >= to) x[i] = 0;
}

INLINE void decode_group(vf x[VECTORS], const uint8_t *codes, int64_t i, float scale,
                         const oct_map *map, kind k)
{
    codes += k.codes == CODES_4 ? i / 2 : i;
    fetch_codes(codes);
    decode(x, codes, map, k.codes);
    for (int v = 0; v < VECTORS; v++) x[v] *= scale;
}

/* What goes round with a block. */
typedef struct block_place {
    float *p;
    const float *g;
    uint8_t *codes[OCT_STATES]; /* NULL where the rule makes do without */
    float *absmax[OCT_STATES];
} block_place;

/* A group that holds padding, or elements which take no part: these keep the old values. */
INLINE void step_group_in_part(block_state *b, const oct_optim_slot *s, const block_place *at,
                               int64_t i, kind k, const rule apply)
{
    vf old[OCT_STATES][VECTORS] = {{{0}}};
    for (int j = 0; j < k.states; j++) {
        if (!at->codes[j]) continue;
        decode_group(old[j], at->codes[j], i, *at->absmax[j], s->state[j].map, k);
        memcpy(b->values[j] + i, old[j], sizeof old[j]);
        clear_padding(b->values[j] + i, b->from - i, b->to - i);
        memcpy(old[j], b->values[j] + i, sizeof old[j]);
    }
    for (int v = 0; v < VECTORS; v++) {
        int64_t e = i + v * LANES;
        vf state[OCT_STATES], bound, p = vf_load(at->p + e);
        for (int j = 0; j < k.states; j++) state[j] = old[j][v];
        vf g = gradient(vf_load(at->g + e), p, &s->numbers);
        vf new_p = stepped(&bound, state, p, p * s->numbers.keep, g, &s->numbers, k.root, apply);
        vm bad = beyond_limit(bound);
        b->left_out += vm_count(bad);
        /* A first pass wants directions: none, where there is no step. */
        vf_store(at->p + e, vf_select(bad, b->dry ? vf_all(0) : p, new_p));
        for (int j = 0; j < k.states; j++)
            vf_store(b->values[j] + e, vf_select(bad, old[j][v], state[j]));
    }
    /* A rule may give state to an element of padding, too. */
    for (int j = 0; j < k.states; j++)
        clear_padding(b->values[j] + i, b->from - i, b->to - i);
}

/* ---- a block of 8-bit or 4-bit state --------------------------------------------------------- */

static __attribute__((noinline)) void encode(uint8_t *codes, const float *x, int64_t count,
                                             float inverse, const group_draws *draws,
                                             const oct_map *map)
{
    if (map->levels == 16) {
        encode_search(codes, x, count, inverse, draws, map, 16);
    } else if (!map->has_lines) {
        encode_search(codes, x, count, inverse, draws, map, OCT_CODES);
    } else if (!draws) {
        if (map->is_signed)
            encode_lines_nearest(codes, x, count, inverse, map, 1);
        else
            encode_lines_nearest(codes, x, count, inverse, map, 0);
    } else if (map->is_signed) {
        encode_lines_chance(codes, x, count, inverse, draws, map, 1);
    } else {
        encode_lines_chance(codes, x, count, inverse, draws, map, 0);
    }
}

#if defined(OCT_ISA_avx512)
static VBMI __attribute__((noinline)) void encode_bytes(uint8_t *codes, const float *x,
                                                        int64_t count, float inverse,
                                                        const group_draws *draws,
                                                        const oct_map *map)
{
    if (!draws || !map->has_lines)
        encode(codes, x, count, inverse, draws, map);
    else if (map->is_signed)
        encode_bytes_chance(codes, x, count, inverse, draws, map, 1);
    else
        encode_bytes_chance(codes, x, count, inverse, draws, map, 0);
}
#endif

/* What to multiply a block's values with before they are encoded; 0 where all become 0. */
INLINE float inverse_of(float absmax) { return absmax < OCT_ABSMAX_LEAST ? 0 : 1 / absmax; }

/* Add up what was lost between values and codes. */
static __attribute__((noinline, cold)) void note_errors(oct_optim_error *e, const float *x,
                                                        const uint8_t *codes, int64_t from,
                                                        int64_t to, float absmax,
                                                        const oct_map *map)
{
    for (int64_t i = from; i < to; i++) {
        int code = map->levels == 16 ? codes[i / 2] >> i % 2 * 4 & 15 : codes[i];
        double meant = (double)x[i], kept = (double)map->value[code] * (double)absmax;
        double lost = fabs(kept - meant);
        e->absolute += lost;
        e->magnitude += fabs(meant);
        e->saturated += absmax > 0 && (code == map->levels - 1 || (map->is_signed && code == 0));
        if (meant == 0) continue;
        e->not_zero++;
        e->relative += lost / fabs(meant);
        e->zeros += kept == 0;
    }
}

/* One block of `count` elements, a multiple of GROUP, of which the first is the slot's `element`, a
 * multiple of GROUP too. */
INLINE void step_block(block_state *b, const oct_optim_slot *s, const block_place *place,
                       int64_t element, int64_t count, kind k, const rule apply)
{
    const oct_numbers numbers = s->numbers;
    const int64_t from = b->from, to = b->to;
    float *p = place->p;
    const float *grad = place->g;
    float scale[OCT_STATES];
    vf most[OCT_STATES];
    for (int j = 0; j < k.states; j++) {
        scale[j] = place->codes[j] ? *place->absmax[j] : 0;
        most[j] = vf_all(0);
    }
    for (int64_t i = 0; i < count; i += GROUP) {
        vf x[OCT_STATES][VECTORS], g[VECTORS], new_p[VECTORS];
        vu worst = {0};
        for (int j = 0; j < k.states; j++) {
            if (place->codes[j])
                decode_group(x[j], place->codes[j], i, scale[j], s->state[j].map, k);
            else
                for (int v = 0; v < VECTORS; v++) x[j][v] = vf_all(0);
        }
        fetch_numbers(p + i, grad + i);
        prepare_group(g, new_p, grad + i, p + i, &numbers);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            vf state[OCT_STATES], bound;
            for (int j = 0; j < k.states; j++) state[j] = x[j][v];
            new_p[v] = stepped(&bound, state, vf_load(p + i + v * LANES), new_p[v], g[v], &numbers,
                               k.root, apply);
            worst = greater_bits(worst, bound);
            for (int j = 0; j < k.states; j++) x[j][v] = state[j];
        }
        int in_part = vm_any(beyond_limit((vf)worst)) || i < from || i + GROUP > to;
        if (__builtin_expect(in_part, 0)) {
            step_group_in_part(b, s, place, i, k, apply);
            for (int j = 0; j < k.states; j++)
                for (int v = 0; v < VECTORS; v++)
                    most[j] = greater_magnitude(most[j], vf_load(b->values[j] + i + v * LANES));
            continue;
        }
        for (int v = 0; v < VECTORS; v++) vf_store(p + i + v * LANES, new_p[v]);
        for (int j = 0; j < k.states; j++) {
            /* Only rules of many states mostly do without some: to ask costs those of few more. */
            if (k.states > 2 && !place->codes[j]) continue;
            for (int v = 0; v < VECTORS; v++) {
                vf_store(b->values[j] + i + v * LANES, x[j][v]);
                most[j] = greater_magnitude(most[j], x[j][v]);
            }
        }
    }
    for (int j = 0; j < k.states; j++) b->most[j] = vf_greatest(most[j]);
    if (b->dry) return;
    if (s->stochastic)
        draw(b->draws, count / GROUP, &b->keys, s->random_offset + (uint64_t)element / GROUP * 4);
    for (int j = 0; j < k.states; j++) {
        if (!place->codes[j]) continue;
        float absmax = s->whole ? s->next_absmax[j] : b->most[j], inverse = inverse_of(absmax);
        if (inverse == 0) absmax = 0;
        const group_draws *draws = s->stochastic ? b->draws : NULL;
#if defined(OCT_ISA_avx512)
        if (k.codes == CODES_8_BYTES)
            encode_bytes(place->codes[j], b->values[j], count, inverse, draws, s->state[j].map);
        else
#endif
            encode(place->codes[j], b->values[j], count, inverse, draws, s->state[j].map);
        /* A whole tensor's scale is still needed to decode the other blocks. */
        if (!s->whole) *place->absmax[j] = absmax;
        if (__builtin_expect(s->errors != NULL, 0))
            note_errors(s->errors + element / OCT_OPTIM_PIECE * OCT_STATES + j, b->values[j],
                        place->codes[j], b->from, b->to, absmax, s->state[j].map);
    }
}

typedef void (*block_loop)(block_state *b, const oct_optim_slot *s, const block_place *at,
                           int64_t element, int64_t count);

/* Bytes of n codes. */
static size_t code_bytes(int64_t n, const oct_optim_slot *s)
{
    return (size_t)(s->bits == 4 ? (n + 1) / 2 : n);
}

/* A block through copies: of no whole number of groups, with padding around it, or of numbers that
 * are no floats. In a first pass the directions are left in p[0] on. */
static void step_copy(block_state *b, const oct_optim_slot *s, float *p, int64_t block,
                      int64_t element, int64_t count, block_loop step)
{
    float g[OCT_BLOCK_MAX];
    uint8_t codes[OCT_STATES][OCT_BLOCK_MAX];
    block_place at = {.p = p, .g = g};
    int64_t before = element % GROUP, whole = (before + count + GROUP - 1) / GROUP * GROUP;
    size_t first = code_bytes(before, s), bytes = code_bytes(count, s);
    for (int64_t i = 0; i < whole; i++) p[i] = g[i] = 0;
    load_param(p + before, s, element, count);
    load_grad(g + before, s, element, count);
    for (int j = 0; j < OCT_STATES; j++) {
        const oct_slot_state *state = s->state + j;
        if (!state->codes) continue;
        memset(codes[j], 0, code_bytes(whole, s));
        memcpy(codes[j] + first, state->codes + code_bytes(element, s), bytes);
        at.codes[j] = codes[j];
        at.absmax[j] = state->absmax + block;
    }
    b->from = before;
    b->to = before + count;
    step(b, s, &at, element - before, whole);
    if (b->dry) {
        memmove(p, p + before, (size_t)count * sizeof *p);
        return;
    }
    store_param(s, element, count, p + before, &b->keys);
    for (int j = 0; j < OCT_STATES; j++) {
        if (!at.codes[j]) continue;
        uint8_t *to = s->state[j].codes + code_bytes(element, s);
        /* The half behind an odd number of elements is nobody's, and stays. */
        if (s->bits == 4 && count % 2)
            codes[j][first + bytes - 1] =
                (uint8_t)((to[bytes - 1] & 0xF0) | (codes[j][first + bytes - 1] & 15));
        memcpy(to, codes[j] + first, bytes);
    }
}

static int64_t step_blocks(const oct_optim_slot *s, int64_t from, int64_t count, block_loop step)
{
    block_state b;
    b.left_out = b.dry = 0;
    int direct = s->param_format == OCT_NUMBER_F32 && s->grad_format == OCT_NUMBER_F32;
    if (s->stochastic || !direct) prepare_keys(&b.keys, s->seed);
    for (int64_t at = from, end = from + count; at < end; at += s->block) {
        int64_t n = end - at < s->block ? end - at : s->block, block = s->whole ? 0 : at / s->block;
        if (direct && n % GROUP == 0 && at % GROUP == 0) {
            block_place place = {.p = (float *)s->param + at, .g = (const float *)s->grad + at};
            for (int j = 0; j < OCT_STATES; j++)
                if (s->state[j].codes) {
                    place.codes[j] = s->state[j].codes + code_bytes(at, s);
                    place.absmax[j] = s->state[j].absmax + block;
                }
            b.from = 0;
            b.to = n;
            step(&b, s, &place, at, n);
        } else {
            float p[OCT_BLOCK_MAX];
            step_copy(&b, s, p, block, at, n, step);
        }
    }
    return b.left_out;
}

/* ---- 32-bit state ---------------------------------------------------------------------------- */

/* dry: in a first pass, where p becomes the direction, or 0 where there is no step. */
INLINE int64_t step_values(float *p, const float *g, float *const values[OCT_STATES], int64_t count,
                           const oct_numbers *given, int dry, kind k, const rule apply)
{
    const oct_numbers numbers = *given;
    int64_t left_out = 0, whole = count / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        vf old[OCT_STATES], state[OCT_STATES], bound, old_p = vf_load(p + i);
        for (int j = 0; j < k.states; j++)
            state[j] = old[j] = values[j] ? vf_load(values[j] + i) : vf_all(0);
        vf new_p = stepped(&bound, state, old_p, old_p * numbers.keep,
                           gradient(vf_load(g + i), old_p, &numbers), &numbers, 0, apply);
        vm bad = beyond_limit(bound);
        if (__builtin_expect(vm_any(bad), 0)) {
            new_p = vf_select(bad, dry ? vf_all(0) : old_p, new_p);
            for (int j = 0; j < k.states; j++) state[j] = vf_select(bad, old[j], state[j]);
            left_out += vm_count(bad);
        }
        vf_store(p + i, new_p);
        for (int j = 0; j < k.states; j++)
            if (values[j]) vf_store(values[j] + i, state[j]);
    }
    int64_t n = count - whole;
    if (n == 0) return left_out;
    vf old[OCT_STATES], state[OCT_STATES], bound, old_p = vf_load_first(p + whole, n);
    for (int j = 0; j < k.states; j++)
        state[j] = old[j] = values[j] ? vf_load_first(values[j] + whole, n) : vf_all(0);
    vf new_p = stepped(&bound, state, old_p, old_p * numbers.keep,
                       gradient(vf_load_first(g + whole, n), old_p, &numbers), &numbers, 0, apply);
    vm bad = beyond_limit(bound);
    left_out += vm_count(bad);
    vf_store_first(p + whole, vf_select(bad, dry ? vf_all(0) : old_p, new_p), n);
    for (int j = 0; j < k.states; j++)
        if (values[j]) vf_store_first(values[j] + whole, vf_select(bad, old[j], state[j]), n);
    return left_out;
}

typedef int64_t (*value_loop)(float *p, const float *g, float *const values[OCT_STATES],
                              int64_t count, const oct_numbers *numbers, int dry);

static int64_t step_32(const oct_optim_slot *s, int64_t from, int64_t count, value_loop step)
{
    float *values[OCT_STATES] = {NULL};
    if (s->param_format == OCT_NUMBER_F32 && s->grad_format == OCT_NUMBER_F32) {
        for (int j = 0; j < OCT_STATES; j++)
            if (s->state[j].values) values[j] = s->state[j].values + from;
        return step((float *)s->param + from, (const float *)s->grad + from, values, count,
                    &s->numbers, 0);
    }
    enum { CHUNK = 1024 };
    float p[CHUNK], g[CHUNK];
    round_keys keys;
    int64_t left_out = 0;
    prepare_keys(&keys, s->seed);
    for (int64_t at = from, end = from + count; at < end; at += CHUNK) {
        int64_t n = end - at < CHUNK ? end - at : CHUNK;
        load_param(p, s, at, n);
        load_grad(g, s, at, n);
        for (int j = 0; j < OCT_STATES; j++)
            if (s->state[j].values) values[j] = s->state[j].values + at;
        left_out += step(p, g, values, n, &s->numbers, 0);
        store_param(s, at, n, p, &keys);
    }
    return left_out;
}

/* ---- a loop for each rule and kind ----------------------------------------------------------- */

#define BLOCK_LOOP(name, rule_name, ...)                                                           \
    static __attribute__((noinline)) void name(block_state *b, const oct_optim_slot *s,            \
                                               const block_place *at, int64_t element,             \
                                               int64_t count)                                      \
    {                                                                                              \
        step_block(b, s, at, element, count, (kind){rule_name##_states, __VA_ARGS__},              \
                   rule_name##_rule);                                                              \
    }
#define LOOPS(name)                                                                                \
    static int64_t name##_32(float *p, const float *g, float *const values[OCT_STATES],            \
                             int64_t count, const oct_numbers *numbers, int dry)                   \
    {                                                                                              \
        return step_values(p, g, values, count, numbers, dry, (kind){name##_states, 0, 0},         \
                           name##_rule);                                                           \
    }                                                                                              \
    BLOCK_LOOP(name##_8, name, 0, CODES_8)                                                         \
    BLOCK_LOOP(name##_8_root, name, 1, CODES_8)                                                    \
    BLOCK_LOOP(name##_4, name, 0, CODES_4)                                                         \
    BLOCK_LOOP(name##_4_root, name, 1, CODES_4)
OCT_FOR_EACH_RULE(LOOPS)

#define LOOPS_32(name) name##_32,
#define LOOPS_8(name) {name##_8, name##_8_root},
#define LOOPS_4(name) {name##_4, name##_4_root},
static const value_loop loops_32[] = {OCT_FOR_EACH_RULE(LOOPS_32)};
static const block_loop loops_8[][2] = {OCT_FOR_EACH_RULE(LOOPS_8)};
static const block_loop loops_4[][2] = {OCT_FOR_EACH_RULE(LOOPS_4)};

#if defined(OCT_ISA_avx512)
#define LOOPS_BY_BYTES(name)                                                                       \
    BLOCK_LOOP(name##_8_bytes, name, 0, CODES_8_BYTES)                                             \
    BLOCK_LOOP(name##_8_root_bytes, name, 1, CODES_8_BYTES)
OCT_FOR_EACH_RULE(LOOPS_BY_BYTES)
#define LOOPS_8_BYTES(name) {name##_8_bytes, name##_8_root_bytes},
static const block_loop loops_8_bytes[][2] = {OCT_FOR_EACH_RULE(LOOPS_8_BYTES)};
#endif

static block_loop loop_of(const oct_optim_slot *s, int plain)
{
    if (s->bits == 4) return loops_4[s->arithmetic][s->root];
#if defined(OCT_ISA_avx512)
    if (!plain && __builtin_cpu_supports("avx512vbmi"))
        return loops_8_bytes[s->arithmetic][s->root];
#endif
    return loops_8[s->arithmetic][s->root];
}

/* ---- a first pass ---------------------------------------------------------------------------- */

/* Sixteen sums in double, whatever the width of a vector: element i adds to sum i % 16. */
static double squares_of(const float *x, int64_t n, int64_t *not_finite)
{
    enum { SUMS = 16, PARTS = SUMS / LANES };
    vd low[PARTS] = {{0}}, high[PARTS] = {{0}};
    for (int64_t i = 0; i < n; i += SUMS)
        for (int v = 0; v < PARTS; v++) {
            int64_t at = i + v * LANES, count = n - at < LANES ? n - at : LANES;
            if (count <= 0) break;
            vf y = count == LANES ? vf_load(x + at) : vf_load_first(x + at, count);
            vm finite = vf_less(vf_abs(y), vf_all(INFINITY));
            *not_finite += LANES - vm_count(finite);
            y = vf_select(finite, y, vf_all(0));
            vd a = vf_low_double(y), b = vf_high_double(y);
            low[v] += a * a;
            high[v] += b * b;
        }
    double sums[SUMS];
    for (int v = 0; v < PARTS; v++) {
        memcpy(sums + v * LANES, low + v, sizeof *low);
        memcpy(sums + v * LANES + LANES / 2, high + v, sizeof *high);
    }
    for (int half = SUMS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

/* The step of a piece on copies. The parameter's place holds directions then: keep is 0, step -1.
 */
static void measure_piece(oct_optim_measure *m, const oct_optim_slot *given, int64_t from,
                          int64_t count, int plain)
{
    oct_optim_slot s = *given;
    s.numbers.keep = 0;
    s.numbers.step = -1;
    block_state b;
    b.left_out = 0;
    b.dry = 1;
    *m = (oct_optim_measure){0};
    for (int64_t at = from, end = from + count; at < end; at += s.block) {
        int64_t n = end - at < s.block ? end - at : s.block, not_finite = 0;
        float p[OCT_BLOCK_MAX];
        load_param(p, &s, at, n);
        m->param_squares += squares_of(p, n, &not_finite);
        if (s.bits == 32) {
            float g[OCT_BLOCK_MAX], *values[OCT_STATES] = {NULL};
            load_grad(g, &s, at, n);
            for (int j = 0; j < OCT_STATES; j++)
                if (s.state[j].values) {
                    values[j] = b.values[j];
                    memcpy(values[j], s.state[j].values + at, (size_t)n * sizeof(float));
                }
            loops_32[s.arithmetic](p, g, values, n, &s.numbers, 1);
        } else {
            step_copy(&b, &s, p, s.whole ? 0 : at / s.block, at, n, loop_of(&s, plain));
            for (int j = 0; j < OCT_STATES; j++)
                if (s.state[j].codes && b.most[j] > m->absmax[j]) m->absmax[j] = b.most[j];
        }
        m->other_squares += squares_of(p, n, &not_finite);
    }
}

/* ---- all parameters -------------------------------------------------------------------------- */

int64_t KERNEL(optim_step)(const oct_optim_work *work)
{
    int64_t left_out = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : left_out)
    for (int64_t u = 0; u < work->unit_count; u++)
        for (int64_t i = work->units[u]; i < work->units[u + 1]; i++) {
            const oct_optim_piece *piece = work->pieces + i;
            const oct_optim_slot *s = work->slots + piece->slot;
            left_out += s->bits == 32
                            ? step_32(s, piece->first, piece->count, loops_32[s->arithmetic])
                            : step_blocks(s, piece->first, piece->count, loop_of(s, work->plain));
        }
    return left_out;
}

void KERNEL(optim_measure)(oct_optim_measure *measures, const oct_optim_work *work)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t u = 0; u < work->unit_count; u++)
        for (int64_t i = work->units[u]; i < work->units[u + 1]; i++) {
            const oct_optim_piece *piece = work->pieces + i;
            measure_piece(measures + i, work->slots + piece->slot, piece->first, piece->count,
                          work->plain);
        }
}

/* sums[piece]: of the gradient's squares, or of the parameter's. */
void KERNEL(optim_squares)(double *sums, int64_t *left_out, const oct_optim_work *work,
                           int of_params)
{
    enum { CHUNK = 4096 };
    int64_t total = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : total)
    for (int64_t u = 0; u < work->unit_count; u++)
        for (int64_t i = work->units[u]; i < work->units[u + 1]; i++) {
            const oct_optim_piece *piece = work->pieces + i;
            const oct_optim_slot *s = work->slots + piece->slot;
            int f32 = (of_params ? s->param_format : s->grad_format) == OCT_NUMBER_F32;
            const float *values = of_params ? s->param : s->grad;
            sums[i] = 0;
            for (int64_t at = 0; at < piece->count; at += CHUNK) {
                float x[CHUNK];
                int64_t n = piece->count - at < CHUNK ? piece->count - at : CHUNK;
                if (!f32) (of_params ? load_param : load_grad)(x, s, piece->first + at, n);
                sums[i] += squares_of(f32 ? values + piece->first + at : x, n, &total);
            }
        }
    *left_out = total;
}
