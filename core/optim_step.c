/* optim_step.c - a step: its numbers, the cut of its work, and the launches of kernels that it is:
 * one for all parameters, with one before it where norms or a tensor's scale must be known first.
 */
#include <math.h>
#include <string.h>

#include "core/device.h"
#include "core/error.h"
#include "core/optim.h"
#include "core/random.h"
#include "core/tape.h"
#include "core/tensor.h"

int oct_optim_has_gradient(const oct_tensor *p)
{
    return p->requires_grad && p->grad && !p->grad_is_empty && p->grad->storage;
}

oct_numbers oct_optim_numbers(const oct_optim *o, const oct_optim_member *m, oct_step_scale scale,
                              double param_norm, double other_norm)
{
    const oct_optim_group_numbers *g = o->groups + m->group;
    oct_numbers n = {
        .grad_scale = (float)scale.grad_scale,
        .grad_limit = (float)scale.grad_limit,
        .coupled_decay = g->decay == OCT_DECAY_COUPLED ? (float)g->weight_decay : 0,
        .keep = g->decay == OCT_DECAY_DECOUPLED ? (float)(1 - g->lr * g->weight_decay) : 1,
        .step = (float)g->lr,
    };
    oct_rule_input in = {
        .options = g->options,
        .lr = g->lr,
        .weight_decay = g->weight_decay,
        .step = m->steps,
        .param_norm = param_norm,
        .other_norm = other_norm,
    };
    m->rule->numbers(&n, &in);
    return n;
}

static int number_format(const oct_tensor *t)
{
    return t->dtype == OCT_BF16 ? OCT_NUMBER_BF16 : OCT_NUMBER_F32;
}

void oct_optim_fill_slot(oct_optim_slot *slot, const oct_optim_member *m)
{
    const oct_tensor *p = m->parameter, *correction = m->tensors[OCT_STATE_CORRECTION];
    int narrow = m->bits != 32;
    *slot = (oct_optim_slot){
        .param_format = number_format(p),
        .size = p->size,
        .correction = correction ? oct_data(correction) : NULL,
        .correction_bits = m->correction_bits,
        .arithmetic = m->rule->arithmetic,
        .bits = m->bits,
        .block = m->block,
        .root = narrow && (m->flags & OCT_FORMAT_ROOT),
        .stochastic = narrow && (m->flags & OCT_FORMAT_STOCHASTIC),
        .whole = narrow && (m->flags & OCT_FORMAT_WHOLE),
        .norms = m->rule->norms,
        .params_there = p->storage->device != OCT_CPU,
        .states_there = m->state_device != OCT_CPU,
    };
    for (int j = 0; j < OCT_STATES; j++) {
        const oct_tensor *values = m->tensors[OCT_STATE_VALUES + j];
        if (!values) continue;
        if (m->bits == 32) {
            slot->state[j].values = oct_f32(values);
        } else {
            slot->state[j].codes = oct_u8(values);
            slot->state[j].absmax = oct_f32(m->tensors[OCT_STATE_ABSMAX + j]);
            slot->state[j].map = m->maps[j];
        }
    }
}

/* Where parameter and gradient lie now; errors: NULL, or where to note them. */
static void point_slot(oct_optim_slot *slot, const oct_tensor *p, oct_optim_error *errors)
{
    slot->param = oct_data(p);
    slot->grad = oct_data(p->grad);
    slot->grad_format = number_format(p->grad);
    slot->errors = slot->bits != 32 ? errors : NULL;
}

void oct_optim_load_param(float *y, const oct_optim_slot *slot)
{
    for (int64_t i = 0; i < slot->size; i++) y[i] = oct_optim_param_at(slot, i);
}

void oct_optim_load_gradient(float *y, const oct_optim *o, const oct_optim_member *m,
                             const oct_optim_slot *slot, oct_step_scale scale)
{
    const oct_optim_group_numbers *g = o->groups + m->group;
    float by = (float)scale.grad_scale, limit = (float)scale.grad_limit;
    float decay = g->decay == OCT_DECAY_COUPLED ? (float)g->weight_decay : 0;
    for (int64_t i = 0; i < slot->size; i++) y[i] = by * oct_optim_grad_at(slot, i);
    for (int64_t i = 0; limit < INFINITY && i < slot->size; i++)
        if (fabsf(y[i]) < INFINITY) y[i] = fmaxf(fminf(y[i], limit), -limit);
    for (int64_t i = 0; decay != 0 && i < slot->size; i++)
        y[i] = fmaf(decay, oct_optim_param_at(slot, i), y[i]);
}

/* ---- cutting --------------------------------------------------------------------------------- */

static int needs_first_pass(const oct_optim_slot *s)
{
    return s->whole || s->norms == OCT_NORMS_DIRECTION;
}

/* Add a slot's pieces; `bundled`: elements in the unit under way, OCT_OPTIM_PIECE at first. */
static void cut_slot(oct_optim_cut *cut, int64_t *pieces, int64_t *bundled, int64_t slot,
                     int64_t size)
{
    for (int64_t first = 0; first < size; first += OCT_OPTIM_PIECE) {
        int64_t rest = size - first, count = rest < OCT_OPTIM_PIECE ? rest : OCT_OPTIM_PIECE;
        if (*bundled + count > OCT_OPTIM_PIECE) {
            cut->units[cut->unit_count++] = *pieces;
            *bundled = 0;
        }
        *bundled += count;
        cut->pieces[(*pieces)++] = (oct_optim_piece){slot, first, count};
    }
}

/* Cut what has a gradient into pieces, and bundle pieces into units of about a whole piece's size.
 * Returns how many members are planned. matrices 0: without those that are stepped by themselves.
 * only: the one member that is wanted, or -1. */
static int64_t plan(oct_optim *o, int matrices, int64_t only)
{
    int64_t members = 0, pieces = 0, firsts = 0, bundled = OCT_OPTIM_PIECE, first_bundled = bundled;
    o->all.unit_count = o->first.unit_count = 0;
    int64_t end = only < 0 ? o->count : only + 1;
    for (int64_t i = only < 0 ? 0 : only; i < end; i++) {
        const oct_optim_member *m = o->members + i;
        if (!oct_optim_has_gradient(m->parameter)) continue;
        if (!matrices && m->rule->matrix != OCT_MATRIX_PLAIN) continue;
        oct_optim_slot *slot = o->slots + i;
        point_slot(slot, m->parameter, o->errors ? o->errors + pieces * OCT_STATES : NULL);
        o->planned[members++] = i;
        cut_slot(&o->all, &pieces, &bundled, i, slot->size);
        if (needs_first_pass(slot)) cut_slot(&o->first, &firsts, &first_bundled, i, slot->size);
    }
    /* The end of the last unit; an optimizer without parameters has no room for it. */
    if (o->all.units) o->all.units[o->all.unit_count] = pieces;
    if (o->first.units) o->first.units[o->first.unit_count] = firsts;
    if (o->errors) memset(o->errors, 0, (size_t)pieces * OCT_STATES * sizeof *o->errors);
    return members;
}

static oct_optim_work work_of(const oct_optim *o, const oct_optim_cut *cut)
{
    return (oct_optim_work){
        .slots = o->slots,
        .pieces = cut->pieces,
        .units = cut->units,
        .unit_count = cut->unit_count,
        .plain = o->kernels == OCT_KERNELS_PLAIN,
    };
}

static int on_device(const oct_optim *o)
{
    return o->device != OCT_CPU || o->kernels == OCT_KERNELS_DEVICE;
}

static int launch(int64_t *left_out, oct_optim *o, const oct_optim_work *work)
{
    *left_out = 0;
    if (work->unit_count == 0) return 0;
    if (on_device(o)) return oct_optim_device_step(left_out, o, work);
    *left_out = (o->kernels == OCT_KERNELS_SCALAR ? oct_optim_step_ref
                                                  : oct_kernels_now()->optim_step)(work);
    return 0;
}

/* ---- norms ----------------------------------------------------------------------------------- */

static int squares(double *sums, int64_t *not_finite, oct_optim *o, const oct_optim_work *work,
                   int of_params)
{
    *not_finite = 0;
    if (work->unit_count == 0) return 0;
    if (on_device(o)) return oct_optim_device_squares(sums, not_finite, o, work, of_params);
    if (o->kernels == OCT_KERNELS_SCALAR)
        oct_optim_squares_ref(sums, not_finite, work, of_params);
    else
        oct_kernels_now()->optim_squares(sums, not_finite, work, of_params);
    return 0;
}

static int check_alive(const oct_optim *o)
{
    for (int64_t i = 0; i < o->count; i++) {
        const oct_tensor *p = o->members[i].parameter;
        OCT_TRY(oct_check_anywhere(p, "optim", o->members[i].name, p->dtype));
        if (p->storage->device != o->device)
            return oct_fail("optim: parameter \"%s\" lies on %s, and lay on %s when its optimizer "
                            "was made; move it before",
                            o->members[i].name, oct_device_name(p->storage->device),
                            oct_device_name(o->device));
    }
    return 0;
}

int oct_optim_grad_norm(double *norm, int64_t *not_finite, oct_optim *o)
{
    OCT_TRY(check_alive(o));
    plan(o, 1, -1);
    oct_optim_work work = work_of(o, &o->all);
    double sum = 0;
    OCT_TRY(squares(o->sums, not_finite, o, &work, 0));
    for (int64_t i = 0; work.unit_count > 0 && i < work.units[work.unit_count]; i++)
        sum += o->sums[i];
    *norm = sqrt(sum);
    return 0;
}

/* The numbers of all that are planned, mostly the same ones for many; those that depend on norms
 * are set again once these are known. */
static void set_numbers(oct_optim *o, int64_t count, oct_step_scale scale)
{
    const oct_optim_member *last = NULL;
    oct_numbers numbers;
    for (int64_t i = 0; i < count; i++) {
        const oct_optim_member *m = o->members + o->planned[i];
        if (!last || m->group != last->group || m->steps != last->steps)
            numbers = oct_optim_numbers(o, m, scale, 0, 0);
        last = m;
        o->slots[o->planned[i]].numbers = numbers;
    }
}

static void set_numbers_by_norms(oct_optim *o, int64_t member, oct_step_scale scale,
                                 double param_norm, double other_norm)
{
    o->slots[member].numbers =
        oct_optim_numbers(o, o->members + member, scale, param_norm, other_norm);
}

/* LARS: norms of parameters and gradients. */
static int set_gradient_norms(oct_optim *o, int64_t count, oct_step_scale scale)
{
    oct_optim_work work = work_of(o, &o->all);
    int64_t not_finite, pieces = work.unit_count > 0 ? work.units[work.unit_count] : 0, i = 0;
    int any = 0;
    for (int64_t n = 0; n < count; n++)
        any |= o->slots[o->planned[n]].norms == OCT_NORMS_GRADIENT;
    if (!any) return 0;
    OCT_TRY(squares(o->sums, &not_finite, o, &work, 0));
    for (int64_t j = 0; j < pieces; j++) o->measures[j].other_squares = o->sums[j];
    OCT_TRY(squares(o->sums, &not_finite, o, &work, 1));
    for (int64_t n = 0; n < count; n++) {
        int64_t k = o->planned[n];
        double params = 0, gradients = 0;
        for (; i < pieces && work.pieces[i].slot == k; i++) {
            params += o->sums[i];
            gradients += o->measures[i].other_squares;
        }
        if (o->slots[k].norms == OCT_NORMS_GRADIENT)
            set_numbers_by_norms(o, k, scale, sqrt(params),
                                 sqrt(gradients) * fabs(scale.grad_scale));
    }
    return 0;
}

static int measure(oct_optim *o, const oct_optim_work *work)
{
    if (on_device(o)) return oct_optim_device_measure(o->measures, o, work);
    if (o->kernels == OCT_KERNELS_SCALAR)
        oct_optim_measure_ref(o->measures, work);
    else
        oct_kernels_now()->optim_measure(o->measures, work);
    return 0;
}

/* What was measured of the slot whose pieces begin at *piece, which moves on behind them. */
static oct_optim_measure measured(const oct_optim *o, const oct_optim_work *work, int64_t *piece)
{
    int64_t i = *piece, pieces = work->units[work->unit_count], slot = work->pieces[i].slot;
    oct_optim_measure sum = {0};
    for (; i < pieces && work->pieces[i].slot == slot; i++) {
        sum.param_squares += o->measures[i].param_squares;
        sum.other_squares += o->measures[i].other_squares;
        for (int j = 0; j < OCT_STATES; j++)
            sum.absmax[j] = fmaxf(sum.absmax[j], o->measures[i].absmax[j]);
    }
    *piece = i;
    return sum;
}

/* LAMB: norms of parameters and directions. One scale a tensor: what it will be. */
static int run_first_pass(oct_optim *o, oct_step_scale scale)
{
    oct_optim_work work = work_of(o, &o->first);
    if (work.unit_count == 0) return 0;
    OCT_TRY(measure(o, &work));
    for (int64_t i = 0, pieces = work.units[work.unit_count]; i < pieces;) {
        int64_t k = work.pieces[i].slot;
        oct_optim_measure sum = measured(o, &work, &i);
        memcpy(o->slots[k].next_absmax, sum.absmax, sizeof sum.absmax);
        if (o->slots[k].norms == OCT_NORMS_DIRECTION)
            set_numbers_by_norms(o, k, scale, sqrt(sum.param_squares), sqrt(sum.other_squares));
    }
    return 0;
}

static int keep_whole_scale(const oct_optim *o, const oct_optim_slot *s)
{
    for (int j = 0; s->whole && j < OCT_STATES; j++) {
        float scale = s->next_absmax[j] < OCT_ABSMAX_LEAST ? 0 : s->next_absmax[j];
        if (s->state[j].absmax)
            OCT_TRY(oct_device_copy(s->state[j].absmax, s->states_there ? o->device : OCT_CPU,
                                    &scale, OCT_CPU, sizeof scale));
    }
    return 0;
}

static void add_error(oct_optim_error *sum, const oct_optim_error *e)
{
    sum->absolute += e->absolute;
    sum->relative += e->relative;
    sum->magnitude += e->magnitude;
    sum->zeros += e->zeros;
    sum->not_zero += e->not_zero;
    sum->saturated += e->saturated;
}

static void keep_errors(oct_optim *o, int64_t count)
{
    const oct_optim_work work = work_of(o, &o->all);
    for (int64_t n = 0; n < count; n++)
        memset(o->members[o->planned[n]].errors, 0, OCT_STATES * sizeof *o->errors);
    for (int64_t i = 0; work.unit_count > 0 && i < work.units[work.unit_count]; i++)
        for (int j = 0; j < OCT_STATES; j++)
            add_error(o->members[work.pieces[i].slot].errors + j, o->errors + i * OCT_STATES + j);
}

/* Whole pieces of one slot: the room for all of them is there. */
int oct_optim_run(int64_t *left_out, oct_optim *o, const oct_optim_slot *given)
{
    oct_optim_slot slot = *given;
    oct_optim_cut cut = {.pieces = o->first.pieces, .units = o->first.units};
    int64_t pieces = 0, bundled = OCT_OPTIM_PIECE, first = 0;
    cut_slot(&cut, &pieces, &bundled, 0, slot.size);
    cut.units[cut.unit_count] = pieces;
    oct_optim_work work = work_of(o, &cut);
    work.slots = &slot;
    if (slot.whole) {
        OCT_TRY(measure(o, &work));
        oct_optim_measure sum = measured(o, &work, &first);
        memcpy(slot.next_absmax, sum.absmax, sizeof sum.absmax);
    }
    OCT_TRY(launch(left_out, o, &work));
    return keep_whole_scale(o, &slot);
}

/* ---- the step -------------------------------------------------------------------------------- */

static void begin_member(oct_optim_member *m, oct_optim_slot *slot, uint64_t random_offset)
{
    int states_draw = m->bits != 32 && (m->flags & OCT_FORMAT_STOCHASTIC);
    slot->seed = oct_random_seed();
    slot->random_offset = random_offset + m->random_base;
    slot->param_random_offset =
        slot->random_offset + (states_draw ? 4 * (uint64_t)oct_blocks_of(slot->size, 64) : 0);
    m->steps++;
    oct_wrote(m->parameter->storage);
}

static int step_matrix(int64_t *left_out, oct_optim *o, oct_optim_member *m, uint64_t random_offset,
                       oct_step_scale scale)
{
    oct_optim_slot slot;
    int64_t pieces = oct_pieces_of(m->parameter->size);
    oct_optim_fill_slot(&slot, m);
    point_slot(&slot, m->parameter, o->errors);
    begin_member(m, &slot, random_offset);
    if (slot.errors) {
        memset(o->errors, 0, (size_t)pieces * OCT_STATES * sizeof *o->errors);
        memset(m->errors, 0, OCT_STATES * sizeof *m->errors);
    }
    OCT_TRY((m->rule->matrix == OCT_MATRIX_ORTHOGONAL ? oct_muon_step : oct_adafactor_step)(
        left_out, o, m, &slot, scale));
    for (int64_t i = 0; slot.errors && i < pieces * OCT_STATES; i++)
        add_error(m->errors + i % OCT_STATES, slot.errors + i);
    return 0;
}

/* Rules for matrices lean on the processor's products: a matrix of a device is stepped here. */
static int step_matrix_here(int64_t *left_out, oct_optim *o, oct_optim_member *m,
                            uint64_t random_offset, oct_step_scale scale)
{
    oct_optim here = *o;
    oct_optim_member copy;
    if (m->parameter->storage->device == OCT_CPU)
        return step_matrix(left_out, o, m, random_offset, scale);
    here.device = OCT_CPU;
    int status = oct_optim_member_here(&copy, m);
    if (status == 0) status = step_matrix(left_out, &here, &copy, random_offset, scale);
    if (status == 0) status = oct_optim_member_back(m, &copy);
    oct_optim_release_member(&copy);
    return status;
}

static int check_step(const oct_optim *o, oct_step_scale scale)
{
    if (!isfinite(scale.grad_scale)) return oct_fail("optim: the gradients' scale is not finite");
    if (!(scale.grad_limit > 0)) return oct_fail("optim: clip_value is not above 0");
    return check_alive(o);
}

static int run_slots(int64_t *left_out, oct_optim *o, int64_t count, oct_step_scale scale)
{
    set_numbers(o, count, scale);
    OCT_TRY(set_gradient_norms(o, count, scale));
    OCT_TRY(run_first_pass(o, scale));
    oct_optim_work work = work_of(o, &o->all);
    return launch(left_out, o, &work);
}

/* The members that have been planned. Where memory ends they have made no step. */
static int step_slots(int64_t *left_out, oct_optim *o, int64_t count, uint64_t random_offset,
                      oct_step_scale scale)
{
    for (int64_t n = 0; n < count; n++)
        begin_member(o->members + o->planned[n], o->slots + o->planned[n], random_offset);
    if (run_slots(left_out, o, count, scale) != 0) {
        for (int64_t n = 0; n < count; n++) o->members[o->planned[n]].steps--;
        return -1;
    }
    for (int64_t n = 0; o->first.unit_count > 0 && n < count; n++)
        OCT_TRY(keep_whole_scale(o, o->slots + o->planned[n]));
    if (o->errors) keep_errors(o, count);
    return 0;
}

int oct_optim_step(int64_t *left_out, oct_optim *o, double grad_scale, double grad_limit)
{
    oct_step_scale scale = {grad_scale, grad_limit};
    OCT_TRY(check_step(o, scale));
    uint64_t random_offset = oct_random_take(OCT_STREAM_OPTIMIZER, o->random_blocks);
    int64_t total;
    OCT_TRY(step_slots(&total, o, plan(o, 0, -1), random_offset, scale));
    for (int64_t i = 0; i < o->count; i++) {
        oct_optim_member *m = o->members + i;
        int64_t count = 0;
        if (m->rule->matrix == OCT_MATRIX_PLAIN || !oct_optim_has_gradient(m->parameter)) continue;
        OCT_TRY(step_matrix_here(&count, o, m, random_offset, scale));
        total += count;
    }
    *left_out = total;
    return 0;
}

/* ---- a step within backward ------------------------------------------------------------------ */

typedef struct release {
    oct_optim *o;
    uint64_t random_offset;
    oct_step_scale scale;
    int64_t left_out;
} release;

static int step_member(release *r, int64_t index)
{
    oct_optim_member *m = r->o->members + index;
    oct_tensor *p = m->parameter;
    int64_t count = 0;
    if (m->rule->matrix == OCT_MATRIX_PLAIN)
        OCT_TRY(step_slots(&count, r->o, plan(r->o, 0, index), r->random_offset, r->scale));
    else
        OCT_TRY(step_matrix_here(&count, r->o, m, r->random_offset, r->scale));
    r->left_out += count;
    oct_tensor_release(p->grad);
    p->grad = NULL;
    return 0;
}

/* Step those that have a gradient; of `only`, or all where it is NULL. */
static int step_members(void *context, const oct_storage *only)
{
    release *r = context;
    for (int64_t i = 0; i < r->o->count; i++) {
        const oct_tensor *p = r->o->members[i].parameter;
        if ((!only || p->storage == only) && oct_optim_has_gradient(p)) OCT_TRY(step_member(r, i));
    }
    return 0;
}

int oct_optim_step_backward(int64_t *left_out, oct_optim *o, oct_tensor *loss, double grad_scale,
                            double grad_limit)
{
    release r = {.o = o, .scale = {grad_scale, grad_limit}};
    OCT_TRY(check_step(o, r.scale));
    r.random_offset = oct_random_take(OCT_STREAM_OPTIMIZER, o->random_blocks);
    OCT_TRY(oct_backward_with(loss, step_members, &r));
    /* What has its gradient from elsewhere. */
    OCT_TRY(step_members(&r, NULL));
    *left_out = r.left_out;
    return 0;
}
