/* optim_device.c - the work of a step on a device.
 *
 * What lies in the device's memory is used where it lies. All else is copied into a room there, and
 * what the step has written is copied back: state that is kept in the processor's memory, and, in
 * specs that prove the device's kernels on parameters of the processor, everything. The room is
 * kept from step to step; work that needs more of it than STAGE_BYTES is done some parameters at a
 * time. */
#include <string.h>

#include "core/device.h"
#include "core/error.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/optim.h"
#include "core/tensor.h"
#include "rules_list.h"

/* Enough for copies to run at their full speed, and little beside what it saves. */
enum { STAGE_BYTES = 16 << 20, ALIGNMENT = 256 };

/* A parameter has itself, gradient and correction, and for each state values, or codes and scales.
 */
enum { COPIES_OF_SLOT = 3 + 3 * OCT_STATES, MAPS = 16 };

typedef struct copy {
    void *there, *here;
    int64_t bytes;
    int back;                      /* the step writes it */
} copy;

/* Pieces first .. end - 1 of some work, which are all those of their slots. */
typedef struct part {
    int64_t first, end;
} part;

typedef struct stage {
    const oct_device_kernels *device;
    int with_states, writes;       /* what the work is */
    oct_optim_slot *slots;         /* as they lie there, and their pieces */
    oct_optim_piece *pieces;
    part *parts;
    int64_t part_count;
    copy *copies;
    int64_t copy_count, used;
    /* Where the room lies; NULL: what is needed is only added up, in the numbers used. It begins
     * with what is small, which is copied there all at once. */
    char *room, *small;
    int64_t small_bytes, small_used;
    struct {
        const oct_map *here;
        void *there;
    } maps[MAPS];                  /* that have been copied: parameters share them */
    int map_count;
} stage;

static int number_bytes(int format) { return format == OCT_NUMBER_BF16 ? 2 : 4; }

/* ---- copying there --------------------------------------------------------------------------- */

static int64_t aligned(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* The next bytes of the room; NULL where what is needed is only added up. */
static void *take_room(stage *s, int64_t bytes)
{
    int64_t at = s->small_bytes + s->used;
    s->used += aligned(bytes);
    return s->room ? s->room + at : NULL;
}

/* Where a copy of here[bytes] will lie with what is small; NULL likewise. */
static void *put_small(stage *s, const void *here, int64_t bytes)
{
    int64_t at = s->small_used;
    s->small_used += aligned(bytes);
    if (!s->room) return NULL;
    memcpy(s->small + at, here, (size_t)bytes);
    return s->room + at;
}

/* Where here[bytes] lies on the device; NULL is NULL. */
static int put(void **place, stage *s, const void *here, int64_t bytes, int back)
{
    *place = NULL;
    if (!here) return 0;
    *place = take_room(s, bytes);
    if (!s->room) return 0;
    s->copies[s->copy_count++] = (copy){*place, (void *)here, bytes, back && s->writes};
    if (s->device->upload(*place, here, bytes) != 0) return oct_device_fail(s->device);
    return 0;
}

static void *put_map(stage *s, const oct_map *map)
{
    if (!map) return NULL;
    for (int i = 0; i < s->map_count; i++)
        if (s->maps[i].here == map) return s->maps[i].there;
    void *there = put_small(s, map, sizeof *map);
    if (s->map_count < MAPS) {
        s->maps[s->map_count].here = map;
        s->maps[s->map_count++].there = there;
    }
    return there;
}

static int put_state(oct_slot_state *to, stage *s, const oct_optim_slot *slot,
                     const oct_slot_state *from)
{
    int64_t code_bytes = slot->bits == 4 ? (slot->size + 1) / 2 : slot->size;
    int64_t blocks = slot->whole ? 1 : oct_blocks_of(slot->size, slot->block);
    void *values = from->values, *codes = from->codes, *absmax = from->absmax;
    if (!slot->states_there) {
        OCT_TRY(put(&values, s, from->values, slot->size * (int64_t)sizeof(float), 1));
        OCT_TRY(put(&codes, s, from->codes, code_bytes, 1));
        OCT_TRY(put(&absmax, s, from->absmax, blocks * (int64_t)sizeof(float), 1));
    }
    *to = (oct_slot_state){.values = values, .codes = codes, .absmax = absmax};
    to->map = put_map(s, from->map);
    return 0;
}

static int put_slot(oct_optim_slot *to, stage *s, const oct_optim_slot *from)
{
    void *param = from->param, *grad = (void *)from->grad, *correction = from->correction;
    if (!from->params_there) {
        OCT_TRY(put(&param, s, param, from->size * number_bytes(from->param_format), 1));
        OCT_TRY(put(&grad, s, grad, from->size * number_bytes(from->grad_format), 0));
    }
    if (!from->states_there)
        OCT_TRY(put(&correction, s, correction, from->size * from->correction_bits / 8, 1));
    *to = *from;
    to->errors = NULL;
    to->param = param;
    to->grad = grad;
    to->correction = correction;
    for (int j = 0; j < OCT_STATES; j++) {
        to->state[j] = (oct_slot_state){NULL};
        if (s->with_states) OCT_TRY(put_state(to->state + j, s, from, from->state + j));
    }
    return 0;
}

static int take_back(const stage *s)
{
    for (const copy *i = s->copies; i < s->copies + s->copy_count; i++)
        if (i->back && s->device->download(i->here, i->there, i->bytes) != 0)
            return oct_device_fail(s->device);
    return 0;
}

/* ---- some parameters at a time --------------------------------------------------------------- */

/* What the work is, and where its results go. */
typedef struct results {
    int64_t *left_out;             /* NULL: nobody wants to know */
    oct_optim_measure *measures;   /* these two by piece; NULL where the work is another */
    double *sums;
    int of_params;
} results;

static size_t result_bytes(const results *r)
{
    return r->measures ? sizeof *r->measures : r->sums ? sizeof *r->sums : 0;
}

static void begin(stage *s, char *room)
{
    s->room = room;
    s->used = s->small_used = s->map_count = s->copy_count = 0;
}

/* The part that begins with piece `first`: as many slots of one rule as STAGE_BYTES hold, or one.
 */
static part part_from(stage *s, const oct_optim_work *work, int64_t first)
{
    int64_t pieces = work->units[work->unit_count];
    int arithmetic = work->slots[work->pieces[first].slot].arithmetic;
    part p = {first, first};
    begin(s, NULL);
    while (p.end < pieces) {
        int64_t k = work->pieces[p.end].slot;
        if (work->slots[k].arithmetic != arithmetic) break;
        (void)put_slot(s->slots, s, work->slots + k);
        if (p.end > first && s->used > STAGE_BYTES) break;
        while (p.end < pieces && work->pieces[p.end].slot == k) p.end++;
    }
    return p;
}

/* A part's work, with places for its results. */
typedef struct work_there {
    oct_device_work work;
    void *left_out, *results;
} work_there;

/* The states of each rule (kernels/rules.h). */
#define STATES_OF(name) name##_states,
static const int states_of[] = {OCT_FOR_EACH_RULE(STATES_OF)};

static int is_even(const void *there, int64_t bytes) { return (uintptr_t)there % bytes == 0; }

/* As oct_device_work says. there: the slot as it lies on the device. */
static int is_usual(const oct_optim_slot *s, const oct_optim_slot *there)
{
    if (s->param_format != OCT_NUMBER_F32 || s->grad_format != OCT_NUMBER_F32 || s->bits != 8 ||
        !s->stochastic || s->whole || s->block > OCT_USUAL_TILE || !is_even(there->param, 16) ||
        !is_even(there->grad, 16))
        return 0;
    for (int j = 0; j < OCT_STATES; j++) {
        const oct_slot_state *state = s->state + j;
        if (!state->codes != (j >= states_of[s->arithmetic])) return 0;
        if (state->codes && !(state->map->has_lines && is_even(there->state[j].codes, 4))) return 0;
    }
    return 1;
}

/* A part's pieces, of slots numbered as they lie there. A step comes to the usual ones first. */
static void list_pieces(oct_device_work *to, stage *s, const oct_optim_work *work, part p)
{
    to->piece_count = 0;
    for (int others = 0; others < 2; others++) {
        int64_t slot = -1;
        int usual = 0;
        for (int64_t i = p.first; i < p.end; i++) {
            oct_optim_piece piece = work->pieces[i];
            if (i == p.first || piece.slot != work->pieces[i - 1].slot)
                usual = is_usual(work->slots + piece.slot, s->slots + ++slot) && s->writes;
            int64_t count = usual ? piece.count / OCT_USUAL_TILE * OCT_USUAL_TILE : 0;
            if (others) piece.first += count;
            piece.count = others ? piece.count - count : count;
            piece.slot = slot;
            if (piece.count > 0) s->pieces[to->piece_count++] = piece;
        }
        if (!others) to->usual_count = to->piece_count;
    }
}

static int put_part(work_there *to, stage *s, const oct_optim_work *work, part p,
                    const results *r)
{
    const uint64_t none = 0;
    int64_t slots = 0;
    for (int64_t i = p.first; i < p.end; i++)
        if (i == p.first || work->pieces[i].slot != work->pieces[i - 1].slot)
            OCT_TRY(put_slot(s->slots + slots++, s, work->slots + work->pieces[i].slot));
    to->work.arithmetic = s->slots[0].arithmetic;
    list_pieces(&to->work, s, work, p);
    int64_t count = to->work.piece_count;
    to->work.slots = put_small(s, s->slots, slots * (int64_t)sizeof *s->slots);
    to->work.pieces = put_small(s, s->pieces, count * (int64_t)sizeof *s->pieces);
    to->left_out = put_small(s, &none, sizeof none);
    to->results = take_room(s, count * (int64_t)result_bytes(r));
    if (!s->room) return 0;
    if (s->device->upload(s->room, s->small, s->small_used) != 0) return oct_device_fail(s->device);
    return 0;
}

static int reserve(oct_optim *o, int device, int64_t bytes)
{
    if (bytes <= o->stage_bytes && device == o->stage_device) return 0;
    oct_optim_free_stage(o);
    o->stage = oct_block_new_on(device, (size_t)bytes, OCT_WORKSPACE);
    if (!o->stage) return -1;
    o->stage_bytes = bytes;
    o->stage_device = device;
    return 0;
}

void oct_optim_free_stage(oct_optim *o)
{
    oct_block_free_on(o->stage_device, o->stage, (size_t)o->stage_bytes, OCT_WORKSPACE);
    o->stage = NULL;
    o->stage_bytes = 0;
}

/* Memory for all parts, and room on the device for the one that needs most. */
static int prepare(stage *s, oct_optim *o, int device, const oct_optim_work *work,
                   const results *r)
{
    int64_t pieces = work->units[work->unit_count], most = 0, small = 0;
    int64_t slots = work->pieces[pieces - 1].slot + 1;
    work_there there;
    s->device = oct_device_kernels_of(device);
    s->slots = oct_malloc((size_t)slots * sizeof *s->slots);
    s->pieces = oct_malloc((size_t)(2 * pieces) * sizeof *s->pieces);
    s->parts = oct_malloc((size_t)slots * sizeof *s->parts);
    s->copies = oct_malloc((size_t)(slots * COPIES_OF_SLOT) * sizeof *s->copies);
    if (!s->slots || !s->pieces || !s->parts || !s->copies) return -1;
    for (part p = {0}; p.end < pieces;) {
        p = s->parts[s->part_count++] = part_from(s, work, p.end);
        begin(s, NULL);
        (void)put_part(&there, s, work, p, r);
        if (s->used > most) most = s->used;
        if (s->small_used > small) small = s->small_used;
    }
    s->small_bytes = small;
    s->small = oct_malloc((size_t)small);
    return s->small ? reserve(o, device, small + most) : -1;
}

static int launch(const results *r, const stage *s, const work_there *there, int64_t first)
{
    const oct_device_kernels *d = s->device;
    const oct_device_work *work = &there->work;
    uint64_t left_out;
    int64_t bytes = work->piece_count * (int64_t)result_bytes(r);
    int status = r->measures ? d->optim_measure(there->results, work)
                 : r->sums   ? d->optim_squares(there->results, there->left_out, work, r->of_params)
                             : d->optim_step(there->left_out, work);
    if (status == 0 && r->measures)
        status = d->download(r->measures + first, there->results, bytes);
    if (status == 0 && r->sums) status = d->download(r->sums + first, there->results, bytes);
    if (status == 0 && r->left_out) {
        status = d->download(&left_out, there->left_out, sizeof left_out);
        if (status == 0) *r->left_out += (int64_t)left_out;
    }
    return status == 0 ? 0 : oct_device_fail(d);
}

static int run(const results *r, stage *s, oct_optim *o, const oct_optim_work *work)
{
    int device = o->device != OCT_CPU ? o->device : oct_device_newest();
    work_there there;
    int status = prepare(s, o, device, work, r);
    for (int64_t i = 0; status == 0 && i < s->part_count; i++) {
        begin(s, o->stage);
        status = put_part(&there, s, work, s->parts[i], r);
        if (status == 0) status = launch(r, s, &there, s->parts[i].first);
        if (status == 0) status = take_back(s);
    }
    oct_free(s->slots);
    oct_free(s->pieces);
    oct_free(s->parts);
    oct_free(s->copies);
    oct_free(s->small);
    return status;
}

int oct_optim_device_step(int64_t *left_out, oct_optim *o, const oct_optim_work *work)
{
    stage s = {.with_states = 1, .writes = 1};
    results r = {.left_out = left_out};
    *left_out = 0;
    return run(&r, &s, o, work);
}

int oct_optim_device_measure(oct_optim_measure *measures, oct_optim *o, const oct_optim_work *work)
{
    stage s = {.with_states = 1};
    results r = {.measures = measures};
    return run(&r, &s, o, work);
}

int oct_optim_device_squares(double *sums, int64_t *not_finite, oct_optim *o,
                             const oct_optim_work *work, int of_params)
{
    stage s = {.with_states = 0};
    results r = {.sums = sums, .left_out = not_finite, .of_params = of_params};
    *not_finite = 0;
    return run(&r, &s, o, work);
}

/* ---- a member here --------------------------------------------------------------------------- */

int oct_optim_member_here(oct_optim_member *here, const oct_optim_member *m)
{
    *here = *m;
    here->name = NULL;
    here->errors = NULL;
    for (int i = 0; i < OCT_STATE_TENSORS; i++) here->tensors[i] = NULL;
    for (int j = 0; j < OCT_STATES; j++)
        if (m->maps[j]) oct_map_retain(m->maps[j]);
    here->state_device = OCT_CPU;
    OCT_TRY(oct_tensor_here(&here->parameter, m->parameter));
    here->parameter->requires_grad = 1;
    OCT_TRY(oct_tensor_here(&here->parameter->grad, m->parameter->grad));
    for (int i = 0; i < OCT_STATE_TENSORS; i++)
        OCT_TRY(oct_tensor_here(here->tensors + i, m->tensors[i]));
    return 0;
}

int oct_optim_member_back(oct_optim_member *m, const oct_optim_member *here)
{
    for (int i = 0; i < OCT_STATE_TENSORS; i++)
        if (m->tensors[i] != here->tensors[i]) OCT_TRY(oct_copy(m->tensors[i], here->tensors[i]));
    OCT_TRY(oct_copy(m->parameter, here->parameter));
    m->steps = here->steps;
    return 0;
}
