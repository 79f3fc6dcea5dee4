/* optim.c - one step of an optimizer: parameter, gradient and state in one pass over memory.
 *
 * With 8-bit state a block is gone through twice while it lies in the first-level cache: decode,
 * apply the rule, write the parameter, and find the new absmax; then encode. */
#include "kernels/cpu/codes.h"

#include <string.h>

#include "core/octet.h"
#include "kernels/optim.h"
#include "kernels/rules.h"

/* What differs between the loops that are made from the code below, known where they are compiled.
 */
typedef struct kind {
    int coupled;                   /* weight decay is added to the gradient */
    int root, stochastic;          /* as in oct_optim_slot */
    int bytes;                     /* decode by VBMI */
} kind;

/* Elements under way, in the first-level cache. */
typedef struct block_state {
    float first[OCT_BLOCK_MAX], second[OCT_BLOCK_MAX];
    uint32_t words[OCT_BLOCK_MAX / 4 + DRAWN];         /* drawn */
    round_keys keys;
    int64_t left_out;
} block_state;

/* ---- 8-bit state ----------------------------------------------------------------------------- */

#if defined(OCT_ISA_avx512)
#define DECODE(x, codes, map) \
    do { if (k.bytes) decode_bytes(x, codes, map); else decode_chain(x, codes, map); } while (0)
#else
#define DECODE(x, codes, map) decode_gather(x, codes, map)
#endif

/* Where v would reach the limit, or is NaN. */
INLINE vm beyond_limit(vf v)
{
#if defined(OCT_ISA_avx512)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(OCT_STATE_LIMIT), _CMP_NLT_UQ);
#else
    return ~(v < vf_all(OCT_STATE_LIMIT));
#endif
}

/* The same for many at once: v is not negative, so that its bits, NaN's too, are in order. */
INLINE vu greater_bits(vu a, vu b)
{
#if defined(OCT_ISA_avx512)
    return (vu)_mm512_max_epu32((__m512i)a, (__m512i)b);
#else
    return (vu)_mm256_max_epu32((__m256i)a, (__m256i)b);
#endif
}

INLINE void decode_group(vf first[VECTORS], vf second[VECTORS], const uint8_t *first_codes,
                         const uint8_t *second_codes, const oct_optim_slot *s, float first_scale,
                         float second_scale, kind k)
{
    DECODE(first, first_codes, s->map[0]);
    DECODE(second, second_codes, s->map[1]);
    for (int v = 0; v < VECTORS; v++) {
        first[v] *= first_scale;
        second[v] *= second_scale;
    }
}

/* A group that holds elements which take no part. Returns how many. */
static __attribute__((noinline, cold)) int64_t
step_group_in_part(float *first_out, float *second_out, float *p, const float *g,
                   const uint8_t *first_codes, const uint8_t *second_codes, const oct_optim_slot *s,
                   float first_scale, float second_scale)
{
    const kind k = {0};
    int64_t left_out = 0;
    vf first[VECTORS], second[VECTORS];
    decode_group(first, second, first_codes, second_codes, s, first_scale, second_scale, k);
    for (int v = 0; v < VECTORS; v++) {
        int at = v * LANES;
        vf old_p = vf_load(p + at), new_p = old_p, new_first = first[v], new_second = second[v];
        vm bad = beyond_limit(rule_adam(&new_p, &new_first, &new_second, vf_load(g + at), &s->rule,
                                        s->rule.weight_decay != 0, s->root));
        vf_store(p + at, vf_select(bad, old_p, new_p));
        vf_store(first_out + at, vf_select(bad, first[v], new_first));
        vf_store(second_out + at, vf_select(bad, second[v], new_second));
        left_out += vm_count(bad);
    }
    return left_out;
}

/* Keep a block's largest magnitude; what to multiply its values with, 0 where all become 0. */
INLINE float keep_absmax(float *absmax, vf most)
{
    float greatest = vf_greatest(most);
    int none = greatest < OCT_ABSMAX_LEAST;
    *absmax = none ? 0 : greatest;
    return none ? 0 : 1 / greatest;
}

/* One block of `count` elements, a multiple of GROUP, of which the first is the slot's `element`, a
 * multiple of GROUP too. */
INLINE void step_block(block_state *b, const oct_optim_slot *s, float *p, const float *g,
                       uint8_t *first_codes, uint8_t *second_codes, int64_t block, int64_t element,
                       int64_t count, kind k)
{
    float *first_absmax = s->absmax[0] + block, *second_absmax = s->absmax[1] + block;
    const float first_scale = *first_absmax, second_scale = *second_absmax;
    const oct_rule rule = s->rule;
    vf most_first = vf_all(0), most_second = vf_all(0);
    for (int64_t i = 0; i < count; i += GROUP) {
        vf first[VECTORS], second[VECTORS], new_p[VECTORS];
        vu worst = {0};
        decode_group(first, second, first_codes + i, second_codes + i, s, first_scale, second_scale,
                     k);
        for (int v = 0; v < VECTORS; v++) {
            int64_t at = i + v * LANES;
            new_p[v] = vf_load(p + at);
            worst = greater_bits(worst, (vu)rule_adam(new_p + v, first + v, second + v,
                                                      vf_load(g + at), &rule, k.coupled, k.root));
        }
        if (__builtin_expect(vm_any(beyond_limit((vf)worst)), 0)) {
            b->left_out += step_group_in_part(b->first + i, b->second + i, p + i, g + i,
                                              first_codes + i, second_codes + i, s, first_scale,
                                              second_scale);
            for (int v = 0; v < VECTORS; v++) {
                most_first = greater_magnitude(most_first, vf_load(b->first + i + v * LANES));
                most_second = vf_max(most_second, vf_load(b->second + i + v * LANES));
            }
        } else {
            for (int v = 0; v < VECTORS; v++) {
                vf_store(p + i + v * LANES, new_p[v]);
                vf_store(b->first + i + v * LANES, first[v]);
                vf_store(b->second + i + v * LANES, second[v]);
                most_first = greater_magnitude(most_first, first[v]);
                most_second = vf_max(most_second, second[v]);
            }
        }
    }
    float first_inverse = keep_absmax(first_absmax, most_first);
    float second_inverse = keep_absmax(second_absmax, most_second);
    if (k.stochastic) {
        draw(b->words, count / 4, &b->keys, s->random_offset + (uint64_t)element / 64 * 4);
        encode_by_chance(first_codes, second_codes, b->first, b->second, count, first_inverse,
                         second_inverse, b->words, s->map[0], s->map[1], k.bytes);
    } else {
        encode_nearest(first_codes, b->first, count, first_inverse, s->map[0], 1);
        encode_nearest(second_codes, b->second, count, second_inverse, s->map[1], 0);
    }
}

/* A block that is no whole number of groups: through copies, with zeros around it that stay zeros.
 */
INLINE void step_part(block_state *b, const oct_optim_slot *s, int64_t block, int64_t element,
                      int64_t count, kind k)
{
    float p[OCT_BLOCK_MAX], g[OCT_BLOCK_MAX];
    uint8_t first[OCT_BLOCK_MAX], second[OCT_BLOCK_MAX];
    int64_t before = element % GROUP, whole = (before + count + GROUP - 1) / GROUP * GROUP;
    size_t floats = (size_t)count * sizeof(float);
    for (int64_t i = 0; i < whole; i++) {
        p[i] = g[i] = 0;
        first[i] = OCT_SIGNED_ZERO;
        second[i] = 0;
    }
    memcpy(p + before, s->param + element, floats);
    memcpy(g + before, s->grad + element, floats);
    memcpy(first + before, s->codes[0] + element, (size_t)count);
    memcpy(second + before, s->codes[1] + element, (size_t)count);
    step_block(b, s, p, g, first, second, block, element - before, whole, k);
    memcpy(s->param + element, p + before, floats);
    memcpy(s->codes[0] + element, first + before, (size_t)count);
    memcpy(s->codes[1] + element, second + before, (size_t)count);
}

INLINE int64_t step_blocks(const oct_optim_slot *s, int64_t from, int64_t count, kind k)
{
    block_state b;
    b.left_out = 0;
    if (k.stochastic) prepare_keys(&b.keys, s->seed);
    for (int64_t at = from, end = from + count; at < end; at += s->block) {
        int64_t n = end - at < s->block ? end - at : s->block, block = at / s->block;
        if (n % GROUP == 0)
            step_block(&b, s, s->param + at, s->grad + at, s->codes[0] + at, s->codes[1] + at,
                       block, at, n, k);
        else
            step_part(&b, s, block, at, n, k);
    }
    return b.left_out;
}

/* A loop for each kind. */
#define STEP_8(name, ...)                                                                          \
    static int64_t name(const oct_optim_slot *s, int64_t from, int64_t count)            \
    {                                                                                              \
        return step_blocks(s, from, count, (kind){__VA_ARGS__});                                   \
    }
#define STEPS_8(suffix, bytes)                                                                     \
    STEP_8(octet_##suffix, 0, 1, 1, bytes)                                                         \
    STEP_8(octet_coupled_##suffix, 1, 1, 1, bytes)                                                 \
    STEP_8(paper_##suffix, 0, 0, 0, bytes)                                                         \
    STEP_8(paper_coupled_##suffix, 1, 0, 0, bytes)                                                 \
    static int64_t step_8_##suffix(const oct_optim_slot *s, int64_t from, int64_t count)           \
    {                                                                                              \
        int coupled = s->rule.weight_decay != 0;                                                   \
        if (s->root) return (coupled ? octet_coupled_##suffix : octet_##suffix)(s, from, count);   \
        return (coupled ? paper_coupled_##suffix : paper_##suffix)(s, from, count);                \
    }

STEPS_8(plain, 0)
#if defined(OCT_ISA_avx512)
STEPS_8(bytes, 1)
#endif

static int64_t step_8(const oct_optim_slot *s, int64_t from, int64_t count, int plain)
{
#if defined(OCT_ISA_avx512)
    if (!plain && __builtin_cpu_supports("avx512vbmi")) return step_8_bytes(s, from, count);
#endif
    return step_8_plain(s, from, count);
}

/* ---- 32-bit state ---------------------------------------------------------------------------- */

INLINE int64_t step_32_of(const oct_optim_slot *s, int64_t from, int64_t count, int coupled)
{
    int64_t left_out = 0;
    for (int64_t i = from, end = from + count; i < end; i += LANES) {
        int64_t n = end - i < LANES ? end - i : LANES;
        float *p = s->param + i, *first = s->state[0] + i, *second = s->state[1] + i;
        if (n == LANES) {
            vf old_p = vf_load(p), old_first = vf_load(first), old_second = vf_load(second);
            vf new_p = old_p, new_first = old_first, new_second = old_second;
            vm bad = beyond_limit(rule_adam(&new_p, &new_first, &new_second, vf_load(s->grad + i),
                                            &s->rule, coupled, 0));
            if (__builtin_expect(vm_any(bad), 0)) {
                new_p = vf_select(bad, old_p, new_p);
                new_first = vf_select(bad, old_first, new_first);
                new_second = vf_select(bad, old_second, new_second);
                left_out += vm_count(bad);
            }
            vf_store(p, new_p);
            vf_store(first, new_first);
            vf_store(second, new_second);
        } else {
            vf old_p = vf_load_first(p, n), old_first = vf_load_first(first, n);
            vf old_second = vf_load_first(second, n), new_p = old_p, new_first = old_first;
            vf new_second = old_second, g = vf_load_first(s->grad + i, n);
            vm bad =
                beyond_limit(rule_adam(&new_p, &new_first, &new_second, g, &s->rule, coupled, 0));
            left_out += vm_count(bad);
            vf_store_first(p, vf_select(bad, old_p, new_p), n);
            vf_store_first(first, vf_select(bad, old_first, new_first), n);
            vf_store_first(second, vf_select(bad, old_second, new_second), n);
        }
    }
    return left_out;
}

static int64_t step_32(const oct_optim_slot *s, int64_t from, int64_t count)
{
    return s->rule.weight_decay != 0 ? step_32_of(s, from, count, 1)
                                     : step_32_of(s, from, count, 0);
}

/* ---- all parameters -------------------------------------------------------------------------- */

int64_t KERNEL(optim_adam)(const oct_optim_work *work)
{
    int64_t left_out = 0;
    #pragma omp parallel for schedule(dynamic, 1) reduction(+ : left_out)
    for (int64_t u = 0; u < work->unit_count; u++)
        for (int64_t i = work->units[u]; i < work->units[u + 1]; i++) {
            const oct_optim_piece *piece = work->pieces + i;
            const oct_optim_slot *s = work->slots + piece->slot;
            left_out += s->codes[0] ? step_8(s, piece->first, piece->count, work->plain)
                                    : step_32(s, piece->first, piece->count);
        }
    return left_out;
}

/* Sixteen sums in double, whatever the width of a vector: element i adds to sum i % 16. */
static double squares_of(const float *g, int64_t n, int64_t *left_out)
{
    enum { SUMS = 16, PARTS = SUMS / LANES };
    vd low[PARTS] = {{0}}, high[PARTS] = {{0}};
    for (int64_t i = 0; i < n; i += SUMS)
        for (int v = 0; v < PARTS; v++) {
            int64_t at = i + v * LANES, count = n - at < LANES ? n - at : LANES;
            if (count <= 0) break;
            vf x = count == LANES ? vf_load(g + at) : vf_load_first(g + at, count);
            vm finite = vf_less(vf_abs(x), vf_all(INFINITY));
            *left_out += LANES - vm_count(finite);
            x = vf_select(finite, x, vf_all(0));
            vd a = vf_low_double(x), b = vf_high_double(x);
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

void KERNEL(optim_squares)(double *sums, int64_t *left_out, const oct_optim_work *work)
{
    int64_t total = 0;
    #pragma omp parallel for schedule(dynamic, 1) reduction(+ : total)
    for (int64_t u = 0; u < work->unit_count; u++)
        for (int64_t i = work->units[u]; i < work->units[u + 1]; i++) {
            const oct_optim_piece *piece = work->pieces + i;
            sums[i] =
                squares_of(work->slots[piece->slot].grad + piece->first, piece->count, &total);
        }
    *left_out = total;
}
