/* optim.c - optimizers: which parameter has which state, what a step's numbers are, and the one
 * launch of a kernel that a step is. */
#include "core/octet.h"

#include <math.h>
#include <string.h>

#include "core/error.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/scope.h"
#include "core/tensor.h"
#include "kernels/kernels.h"

enum { GROUPS = 4096 };

typedef struct group {
    double lr, beta1, beta2, epsilon, weight_decay;
} group;

/* A parameter and its state. */
typedef struct member {
    oct_tensor *parameter;
    char *name;
    oct_tensor *state[OCT_STATE_TENSORS];
    int group, bits, format;
    int64_t block;
    int64_t steps;
    uint64_t random_base;          /* its first block within a step's */
} member;

struct oct_optim {
    int rule, kernels;             /* kernels: oct_optim_kernels */
    group *groups;
    int group_count;
    member *members;
    int64_t count, room;
    uint64_t random_blocks;        /* that a step takes */
    /* The work of a step, with room for all members. */
    oct_optim_slot *slots;
    oct_optim_piece *pieces;
    int64_t *units;
    double *sums;
    int64_t piece_room;            /* of pieces, units and sums */
};

/* ---- making and freeing ---------------------------------------------------------------------- */

int oct_optim_new(oct_optim **out, int rule)
{
    if (rule < 0 || rule >= OCT_OPTIM_RULES)
        return oct_fail("optim: rule %d, expected 0 to %d", rule, OCT_OPTIM_RULES - 1);
    oct_optim *o = oct_calloc(1, sizeof *o);
    if (!o) return -1;
    o->rule = rule;
    *out = o;
    return 0;
}

static void release_member(member *m)
{
    for (int i = 0; i < OCT_STATE_TENSORS; i++) oct_tensor_release(m->state[i]);
    oct_tensor_release(m->parameter);
    oct_free(m->name);
}

int oct_optim_free(oct_optim *o)
{
    if (!o) return 0;
    for (int64_t i = 0; i < o->count; i++) release_member(o->members + i);
    oct_free(o->members);
    oct_free(o->groups);
    oct_free(o->slots);
    oct_free(o->pieces);
    oct_free(o->units);
    oct_free(o->sums);
    oct_free(o);
    return 0;
}

/* ---- adding a parameter ---------------------------------------------------------------------- */

static int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }
static int64_t pieces_of(int64_t size) { return blocks_of(size, OCT_OPTIM_PIECE); }

static int grow(void *pointer, int64_t count, size_t bytes)
{
    void *old, *larger;
    memcpy(&old, pointer, sizeof old);
    larger = oct_realloc(old, (size_t)count * bytes);
    if (!larger) return -1;
    memcpy(pointer, &larger, sizeof larger);
    return 0;
}

/* Room for one more member that is cut into so many pieces. */
static int make_room(oct_optim *o, int64_t pieces)
{
    if (o->count == o->room) {
        int64_t room = o->room ? 2 * o->room : 16;
        OCT_TRY(grow(&o->members, room, sizeof *o->members));
        OCT_TRY(grow(&o->slots, room, sizeof *o->slots));
        o->room = room;
    }
    int64_t room = o->piece_room + pieces;
    OCT_TRY(grow(&o->pieces, room, sizeof *o->pieces));
    OCT_TRY(grow(&o->units, room + 1, sizeof *o->units));
    OCT_TRY(grow(&o->sums, room, sizeof *o->sums));
    return 0;
}

/* State of zeros, outside of every scope. */
static oct_tensor *make_state(int dtype, int ndim, const int64_t *shape, uint8_t zero)
{
    oct_tensor *t = oct_tensor_make(dtype, ndim, shape, OCT_OPTIMIZER_STATE);
    if (!t) return NULL;
    t->kept = 1;
    oct_scope_leave(t);
    memset(oct_data(t), zero, t->storage->bytes);
    return t;
}

static int make_states(member *m)
{
    const oct_tensor *p = m->parameter;
    int dtype = m->bits == 8 ? OCT_U8 : OCT_F32;
    int64_t blocks = blocks_of(p->size, m->block);
    for (int i = 0; i < OCT_STATES; i++) {
        uint8_t zero = m->bits == 8 && i == OCT_STATE_M ? OCT_SIGNED_ZERO : 0;
        m->state[i] = make_state(dtype, p->ndim, p->shape, zero);
        if (!m->state[i]) return -1;
        if (m->bits == 32) continue;
        oct_tensor **absmax = m->state + OCT_STATE_M_ABSMAX + i;
        *absmax = make_state(OCT_F32, 1, &blocks, 0);
        if (!*absmax) return -1;
    }
    return 0;
}

static int check_apart(const oct_optim *o, const oct_tensor *p, const char *name)
{
    for (int64_t i = 0; i < o->count; i++) {
        const oct_tensor *q = o->members[i].parameter;
        if (q->storage == p->storage && q->start < p->start + p->size &&
            p->start < q->start + q->size)
            return oct_fail(
                "optim: parameter \"%s\" shares memory with \"%s\": it would be stepped "
                "twice",
                name, o->members[i].name);
    }
    return 0;
}

int oct_optim_add(oct_optim *o, oct_tensor *p, const char *name, int group_number, int bits,
                  int format, int64_t block)
{
    OCT_TRY(oct_check(p, "optim", name, OCT_F32));
    if (!p->is_parameter)
        return oct_fail("optim: tensor \"%s\" %s is no parameter; call :parameter_() on it", name,
                        oct_shape_text(p));
    OCT_TRY(check_apart(o, p, name));
    if (group_number < 0 || group_number >= GROUPS)
        return oct_fail("optim: group %d, expected 0 to %d", group_number, GROUPS - 1);
    if (bits != 8 && bits != 32)
        return oct_fail("optim: parameter \"%s\": bits is %d, expected 8 or 32", name, bits);
    if (format < 0 || format >= OCT_FORMATS)
        return oct_fail("optim: format %d, expected 0 to %d", format, OCT_FORMATS - 1);
    if (block < OCT_BLOCK_MIN || block > OCT_BLOCK_MAX || (block & (block - 1)) != 0)
        return oct_fail("optim: block_size is %lld, expected a power of two from %d to %d",
                        (long long)block, OCT_BLOCK_MIN, OCT_BLOCK_MAX);
    OCT_TRY(make_room(o, pieces_of(p->size)));
    member m = {
        .parameter = p, .name = oct_strdup(name), .group = group_number, .bits = bits,
        .format = format, .block = block, .random_base = o->random_blocks,
    };
    oct_tensor_retain(p);
    if (!m.name || make_states(&m) != 0) {
        release_member(&m);
        return -1;
    }
    if (bits == 8 && format == OCT_FORMAT_OCTET)
        o->random_blocks += 4 * (uint64_t)blocks_of(p->size, 64);
    o->piece_room += pieces_of(p->size);
    o->members[o->count++] = m;
    return 0;
}

/* No number in the text: how C prints one depends on the locale. Lua says more. */
static int check_number(const char *what, double value, double low, double high)
{
    if (value >= low && value < high) return 0;
    return oct_fail("optim: %s is out of range, expected %s", what,
                    high == 1 ? "0 to below 1" : low == 0 ? "0 or more" : "more than 0");
}

int oct_optim_group(oct_optim *o, int number, double lr, double beta1, double beta2, double epsilon,
                    double weight_decay)
{
    if (number < 0 || number >= GROUPS)
        return oct_fail("optim: group %d, expected 0 to %d", number, GROUPS - 1);
    OCT_TRY(check_number("lr", lr, 0, INFINITY));
    OCT_TRY(check_number("the first of betas", beta1, 0, 1));
    OCT_TRY(check_number("the second of betas", beta2, 0, 1));
    OCT_TRY(check_number("weight_decay", weight_decay, 0, INFINITY));
    OCT_TRY(check_number("eps", epsilon, 0x1p-126, INFINITY));
    if (number >= o->group_count) {
        OCT_TRY(grow(&o->groups, number + 1, sizeof *o->groups));
        /* NaN: a group of which nothing was said. */
        for (int i = o->group_count; i < number; i++) o->groups[i] = (group){.lr = NAN};
        o->group_count = number + 1;
    }
    o->groups[number] = (group){lr, beta1, beta2, epsilon, weight_decay};
    return 0;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* x^n by squaring: the same on every machine, which the C library's pow is not. */
static double power(double x, int64_t n)
{
    double result = 1;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2) result *= x;
    return result;
}

static oct_rule rule_of(const oct_optim *o, const member *m, int64_t step, double grad_scale)
{
    const group *g = o->groups + m->group;
    int decoupled = o->rule == OCT_ADAMW;
    return (oct_rule){
        .grad_scale = (float)grad_scale,
        .weight_decay = decoupled ? 0 : (float)g->weight_decay,
        .keep = decoupled ? (float)(1 - g->lr * g->weight_decay) : 1,
        .beta1_rest = (float)(1 - g->beta1), .beta2_rest = (float)(1 - g->beta2),
        .step_size = (float)(g->lr / (1 - power(g->beta1, step))),
        .root_scale = (float)(1 / sqrt(1 - power(g->beta2, step))),
        .epsilon = (float)g->epsilon,
    };
}

static int has_gradient(const oct_tensor *p)
{
    return p->requires_grad && p->grad && !p->grad_is_empty && p->grad->storage;
}

static int check_alive(const oct_optim *o)
{
    for (int64_t i = 0; i < o->count; i++)
        OCT_TRY(oct_check(o->members[i].parameter, "optim", o->members[i].name, OCT_F32));
    return 0;
}

static int check_groups(const oct_optim *o)
{
    for (int64_t i = 0; i < o->count; i++) {
        const member *m = o->members + i;
        if (m->group >= o->group_count || isnan(o->groups[m->group].lr))
            return oct_fail("optim: group %d of parameter \"%s\" has no numbers", m->group,
                            m->name);
    }
    return 0;
}

static void fill_slot(oct_optim_slot *slot, const member *m)
{
    *slot = (oct_optim_slot){
        .param = oct_f32(m->parameter), .grad = oct_f32(m->parameter->grad),
        .size = m->parameter->size, .block = m->block,
        .root = m->format == OCT_FORMAT_OCTET, .stochastic = m->format == OCT_FORMAT_OCTET,
    };
    for (int i = 0; i < OCT_STATES; i++) {
        if (m->bits == 32) {
            slot->state[i] = oct_f32(m->state[i]);
        } else {
            slot->codes[i] = oct_u8(m->state[i]);
            slot->absmax[i] = oct_f32(m->state[OCT_STATE_M_ABSMAX + i]);
            slot->map[i] = oct_map_dynamic(i == OCT_STATE_M);
        }
    }
}

/* Cut what has a gradient into pieces, and bundle pieces into units of about a whole piece's size.
 */
static oct_optim_work plan(oct_optim *o)
{
    oct_optim_work work = {
        .slots = o->slots, .pieces = o->pieces, .units = o->units,
        .plain = o->kernels == OCT_KERNELS_PLAIN,
    };
    int64_t slots = 0, pieces = 0, bundled = OCT_OPTIM_PIECE;
    for (int64_t i = 0; i < o->count; i++) {
        const member *m = o->members + i;
        if (!has_gradient(m->parameter)) continue;
        fill_slot(o->slots + slots, m);
        for (int64_t first = 0; first < m->parameter->size; first += OCT_OPTIM_PIECE) {
            int64_t rest = m->parameter->size - first;
            int64_t count = rest < OCT_OPTIM_PIECE ? rest : OCT_OPTIM_PIECE;
            if (bundled + count > OCT_OPTIM_PIECE) {
                o->units[work.unit_count++] = pieces;
                bundled = 0;
            }
            bundled += count;
            o->pieces[pieces++] = (oct_optim_piece){slots, first, count};
        }
        slots++;
    }
    /* The end of the last unit; an optimizer without parameters has no room for it. */
    if (o->units) o->units[work.unit_count] = pieces;
    return work;
}

int oct_optim_grad_norm(double *norm, int64_t *not_finite, oct_optim *o)
{
    OCT_TRY(check_alive(o));
    oct_optim_work work = plan(o);
    double sum = 0;
    int64_t left_out = 0;
    if (work.unit_count > 0) {
        if (o->kernels == OCT_KERNELS_SCALAR) oct_optim_squares_ref(o->sums, &left_out, &work);
        else oct_kernels_now()->optim_squares(o->sums, &left_out, &work);
        for (int64_t i = 0; i < work.units[work.unit_count]; i++) sum += o->sums[i];
    }
    *norm = sqrt(sum);
    *not_finite = left_out;
    return 0;
}

int oct_optim_step(int64_t *left_out, oct_optim *o, double grad_scale)
{
    if (!isfinite(grad_scale)) return oct_fail("optim: the gradients' scale is not finite");
    OCT_TRY(check_alive(o));
    OCT_TRY(check_groups(o));
    oct_optim_work work = plan(o);
    uint64_t random_offset = oct_random_take(OCT_STREAM_OPTIMIZER, o->random_blocks);
    oct_optim_slot *slot = o->slots;
    for (int64_t i = 0; i < o->count; i++) {
        member *m = o->members + i;
        if (!has_gradient(m->parameter)) continue;
        slot->rule = rule_of(o, m, ++m->steps, grad_scale);
        slot->seed = oct_random_seed();
        slot->random_offset = random_offset + m->random_base;
        m->parameter->storage->version++;
        slot++;
    }
    int64_t count = 0;
    if (work.unit_count > 0)
        count = (o->kernels == OCT_KERNELS_SCALAR ? oct_optim_adam_ref
                                                  : oct_kernels_now()->optim_adam)(&work);
    *left_out = count;
    return 0;
}

int oct_optim_zero_grad(oct_optim *o)
{
    for (int64_t i = 0; i < o->count; i++) OCT_TRY(oct_zero_grad(o->members[i].parameter));
    return 0;
}

int oct_optim_kernels(oct_optim *o, int kind)
{
    if (kind < 0 || kind > OCT_KERNELS_PLAIN)
        return oct_fail("optim: kernels %d, expected 0 to %d", kind, OCT_KERNELS_PLAIN);
    o->kernels = kind;
    return 0;
}

/* ---- state ----------------------------------------------------------------------------------- */

static int check_index(const oct_optim *o, int64_t index)
{
    if (index >= 0 && index < o->count) return 0;
    return oct_fail("optim: parameter %lld, expected 0 to %lld", (long long)index,
                    (long long)o->count - 1);
}

int oct_optim_state(oct_tensor **out, oct_optim *o, int64_t index, int which)
{
    OCT_TRY(check_index(o, index));
    if (which < 0 || which >= OCT_STATE_TENSORS)
        return oct_fail("optim: state %d, expected 0 to %d", which, OCT_STATE_TENSORS - 1);
    *out = oct_tensor_retain(o->members[index].state[which]);
    return 0;
}

int oct_optim_steps(int64_t *steps, oct_optim *o, int64_t index, int64_t set)
{
    OCT_TRY(check_index(o, index));
    if (set < -1) return oct_fail("optim: %lld steps, expected 0 or more", (long long)set);
    if (set >= 0) o->members[index].steps = set;
    *steps = o->members[index].steps;
    return 0;
}

/* 1 where every number is finite and below the limit in magnitude, and none is negative where they
 * must not be. */
static int is_sound(const oct_tensor *t, int negative_too)
{
    const float *x = oct_f32(t);
    for (int64_t i = 0; i < t->size; i++)
        if (!(fabsf(x[i]) < OCT_STATE_LIMIT) || (x[i] < 0 && !negative_too)) return 0;
    return 1;
}

int oct_optim_check(oct_optim *o)
{
    static const char *const names[] = {"m", "v", "m.absmax", "v.absmax"};
    for (int64_t i = 0; i < o->count; i++) {
        const member *m = o->members + i;
        for (int which = 0; which < OCT_STATE_TENSORS; which++) {
            const oct_tensor *t = m->state[which];
            if (!t || t->dtype != OCT_F32 || is_sound(t, which == OCT_STATE_M)) continue;
            return oct_fail("optim: state %s.%s holds a number that no step leaves (NaN, infinite, "
                            "too large%s)", m->name, names[which],
                            which == OCT_STATE_M ? "" : ", or negative");
        }
    }
    return 0;
}

/* ---- maps ------------------------------------------------------------------------------------ */

int oct_quantization_map(float *values, int is_signed)
{
    memcpy(values, oct_map_dynamic(is_signed)->value, sizeof oct_map_dynamic(0)->value);
    return 0;
}

static int check_quantize(int64_t n, int64_t block)
{
    if (n < 0) return oct_fail("quantize: %lld elements, expected 0 or more", (long long)n);
    if (block < OCT_BLOCK_MIN || block > OCT_BLOCK_MAX || (block & (block - 1)) != 0)
        return oct_fail("quantize: a block of %lld, expected a power of two from %d to %d",
                        (long long)block, OCT_BLOCK_MIN, OCT_BLOCK_MAX);
    return 0;
}

int oct_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                 int is_signed, int reference)
{
    OCT_TRY(check_quantize(n, block));
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) < OCT_STATE_LIMIT) || (x[i] < 0 && !is_signed))
            return oct_fail("quantize: element %lld is not a number below 2^126%s", (long long)i,
                            is_signed ? "" : " and not below 0");
    (reference ? oct_quantize_ref : oct_kernels_now()->quantize)(codes, absmax, x, n, block,
                                                               oct_map_dynamic(is_signed));
    return 0;
}

int oct_dequantize(float *x, const uint8_t *codes, const float *absmax, int64_t n, int64_t block,
                   int is_signed, int reference)
{
    OCT_TRY(check_quantize(n, block));
    (reference ? oct_dequantize_ref : oct_kernels_now()->dequantize)(x, codes, absmax, n, block,
                                                                   oct_map_dynamic(is_signed));
    return 0;
}
