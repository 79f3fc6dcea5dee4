/* optim_device.c - the work of a step on a device.
 *
 * What lies in the device's memory is used where it lies. All else is copied into a room there, and
 * what the step has written is copied back: state that is kept in the processor's memory, and, in
 * specs that prove the device's kernels on parameters of the processor, everything. The room is
 * kept from step to step; work that needs more of it is done in parts, in lanes beside each other,
 * so that one part is copied there while another is worked on and a third one is copied back. */
#include <string.h>

#include "core/device.h"
#include "core/error.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/optim.h"
#include "core/tensor.h"
#include "rules_list.h"

/* What a part copies: enough for copies to run at their full speed, and, in all lanes together,
 * little beside what it saves. */
enum { PART_BYTES = 4 << 20, ALIGNMENT = 256 };

/* A parameter has itself, gradient and correction, and for each state values, or codes and scales.
 */
enum { COPIES_OF_SLOT = 3 + 3 * OCT_STATES, MAPS = 16 };

typedef struct copy {
    void *there, *here;
    int64_t bytes;
    int back;                      /* the step writes it */
} copy;

/* Pieces first .. end - 1 of some work. */
typedef struct part {
    int64_t first, end;
} part;

typedef struct stage {
    const oct_device_kernels *device;
    int with_states, writes;       /* what the work is; a step writes */
    /* Of one part: slots as they lie there; pieces, but in a step how many blocks of threads come
     * before each slot. */
    oct_optim_slot *slots;
    oct_optim_piece *pieces;
    int64_t *usual_starts, *other_starts;
    copy *copies;
    int64_t copy_count;
    struct {
        const oct_map *here;
        void *there;
    } maps[MAPS];                  /* that have been copied: parameters share them */
    int map_count;
    part *parts;
    int64_t part_count;
    /* Where the part's room lies; NULL: what is needed is only added up, in the numbers used. It
     * begins with small_bytes of what is small, which is copied there all at once. */
    char *room, *small;
    int64_t small_bytes, room_bytes, small_used, used;
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

static void *behind(const void *array, int64_t bytes)
{
    return array ? (char *)array + bytes : NULL;
}

/* The size of these elements of a slot, which are whole pieces but for its last one. */
static int64_t code_bytes(const oct_optim_slot *s, int64_t elements)
{
    return s->bits == 4 ? (elements + 1) / 2 : elements;
}

static int put_state(oct_slot_state *to, stage *s, const oct_optim_slot *slot,
                     const oct_slot_state *from, int64_t first, int64_t count)
{
    int64_t number = (int64_t)sizeof(float);
    int64_t blocks = slot->whole ? 1 : oct_blocks_of(count, slot->block);
    void *values = behind(from->values, first * number);
    void *codes = behind(from->codes, code_bytes(slot, first));
    void *absmax = behind(from->absmax, slot->whole ? 0 : first / slot->block * number);
    if (!slot->states_there) {
        OCT_TRY(put(&values, s, values, count * number, 1));
        OCT_TRY(put(&codes, s, codes, code_bytes(slot, count), 1));
        OCT_TRY(put(&absmax, s, absmax, blocks * number, 1));
    }
    *to = (oct_slot_state){.values = values, .codes = codes, .absmax = absmax};
    to->map = put_map(s, from->map);
    return 0;
}

/* Elements first .. first + count - 1 of a slot, as a slot. first: where a piece begins. Where what
 * is needed is only added up, *to holds nothing of use. */
static int put_slot(oct_optim_slot *to, stage *s, const oct_optim_slot *from, int64_t first,
                    int64_t count)
{
    if (!s->room && from->params_there && from->states_there) {
        for (int j = 0; s->with_states && j < OCT_STATES; j++) put_map(s, from->state[j].map);
        return 0;
    }
    int64_t param_bytes = number_bytes(from->param_format);
    int64_t grad_bytes = number_bytes(from->grad_format);
    int64_t correction_bytes = from->correction_bits / 8;
    void *param = behind(from->param, first * param_bytes);
    void *grad = behind(from->grad, first * grad_bytes);
    void *correction = behind(from->correction, first * correction_bytes);
    if (!from->params_there) {
        OCT_TRY(put(&param, s, param, count * param_bytes, 1));
        OCT_TRY(put(&grad, s, grad, count * grad_bytes, 0));
    }
    if (!from->states_there) OCT_TRY(put(&correction, s, correction, count * correction_bytes, 1));
    *to = *from;
    to->errors = NULL;
    to->size = count;
    to->param = param;
    to->grad = grad;
    to->correction = correction;
    /* Four words for 16 elements (kernels/optim.h). */
    to->random_offset += (uint64_t)(first / 16);
    to->param_random_offset += (uint64_t)(first / 16);
    for (int j = 0; j < OCT_STATES; j++) {
        to->state[j] = (oct_slot_state){NULL};
        if (s->with_states)
            OCT_TRY(put_state(to->state + j, s, from, from->state + j, first, count));
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

/* ---- what is usual --------------------------------------------------------------------------- */

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
    for (int j = 0; j < states_of[s->arithmetic]; j++) {
        const oct_slot_state *state = s->state + j;
        if (!state->codes && states_of[s->arithmetic] < OCT_STATES) return 0;
        if (state->codes && !(state->map->has_lines && is_even(there->state[j].codes, 4))) return 0;
    }
    return 1;
}

/* How many blocks of threads come before the slot behind number k, which has so many elements. */
static void add_starts(stage *s, int64_t k, int64_t size, int usual)
{
    int64_t tiles = usual ? size / OCT_USUAL_TILE : 0, rest = size - tiles * OCT_USUAL_TILE;
    s->usual_starts[k + 1] = s->usual_starts[k] + oct_blocks_of(tiles, OCT_USUAL_TILES);
    s->other_starts[k + 1] = s->other_starts[k] + oct_blocks_of(rest, OCT_OTHER_TILE);
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* What the work is, and where its results go. */
typedef struct results {
    int64_t *left_out;
    oct_optim_measure *measures;   /* these two by piece; NULL where the work is another */
    double *sums;
    int of_params;
} results;

static int64_t result_bytes(const results *r)
{
    return (int64_t)(r->measures ? sizeof *r->measures : r->sums ? sizeof *r->sums : 0);
}

/* Elements that a number of pieces hold of a slot, from the first one of them on. */
static int64_t elements_of(const oct_optim_slot *slot, int64_t first, int64_t pieces)
{
    int64_t rest = slot->size - first;
    return pieces * OCT_OPTIM_PIECE < rest ? pieces * OCT_OPTIM_PIECE : rest;
}

/* Pieces i .. end - 1 are those of one slot, or end is where the work ends. */
static int64_t slot_end(const oct_optim_work *work, int64_t i, int64_t end)
{
    const oct_optim_slot *slot = work->slots + work->pieces[i].slot;
    int64_t after = i + oct_pieces_of(slot->size - work->pieces[i].first);
    return after < end ? after : end;
}

static void begin(stage *s, char *room)
{
    s->room = room;
    s->used = s->small_used = s->map_count = s->copy_count = 0;
}

/* The part that begins with piece `first`: of one rule, and as much as PART_BYTES hold of what is
 * to be copied, or one piece. */
static part part_from(stage *s, const oct_optim_work *work, int64_t first)
{
    int64_t pieces = work->units[work->unit_count], room = PART_BYTES;
    const int arithmetic = work->slots[work->pieces[first].slot].arithmetic;
    part p = {first, first};
    while (p.end < pieces) {
        const oct_optim_slot *slot = work->slots + work->pieces[p.end].slot;
        int64_t after = slot_end(work, p.end, pieces), fit = after - p.end;
        if (slot->arithmetic != arithmetic) break;
        begin(s, NULL);
        (void)put_slot(s->slots, s, slot, 0, elements_of(slot, 0, 1));
        if (s->used > 0 && fit > room / s->used) fit = room / s->used;
        if (fit == 0 && p.end == first) fit = 1;
        room -= fit * s->used;
        p.end += fit;
        if (p.end < after) break;
    }
    return p;
}

/* A part's work, with places for its results. */
typedef struct work_there {
    oct_device_work work;
    void *left_out, *results;
} work_there;

static int put_part(work_there *to, stage *s, const oct_optim_work *work, part p)
{
    int64_t slots = 0, pieces = 0;
    for (int64_t i = p.first, after; i < p.end; i = after, slots++) {
        const oct_optim_slot *slot = work->slots + work->pieces[i].slot;
        int64_t first = work->pieces[i].first, size;
        after = slot_end(work, i, p.end);
        size = elements_of(slot, first, after - i);
        OCT_TRY(put_slot(s->slots + slots, s, slot, first, size));
        if (s->writes && s->room) add_starts(s, slots, size, is_usual(slot, s->slots + slots));
        for (int64_t at = 0; !s->writes && at < size; at += OCT_OPTIM_PIECE)
            s->pieces[pieces++] = (oct_optim_piece){slots, at, elements_of(slot, first + at, 1)};
    }
    int64_t starts_bytes = (slots + 1) * (int64_t)sizeof(int64_t);
    to->work = (oct_device_work){
        .slots = put_small(s, s->slots, slots * (int64_t)sizeof *s->slots),
        .pieces = put_small(s, s->pieces, pieces * (int64_t)sizeof *s->pieces),
        .usual_starts = put_small(s, s->usual_starts, starts_bytes),
        .other_starts = put_small(s, s->other_starts, starts_bytes),
        .piece_count = pieces,
        .slot_count = slots,
        .usual_blocks = s->usual_starts[slots],
        .other_blocks = s->other_starts[slots],
        .arithmetic = work->slots[work->pieces[p.first].slot].arithmetic,
    };
    if (!s->room) return 0;
    if (s->device->upload(s->room, s->small, s->small_used) != 0) return oct_device_fail(s->device);
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

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

static int64_t lanes_of(const stage *s)
{
    return s->part_count < OCT_LANES ? s->part_count : OCT_LANES;
}

/* Memory for a part and for the list of them, and room on the device: for all results, and in each
 * lane for the part that needs most. */
static int prepare(stage *s, oct_optim *o, int device, const oct_optim_work *work,
                   const results *r)
{
    int64_t pieces = work->units[work->unit_count], slots = work->pieces[pieces - 1].slot + 1;
    int64_t most = 0, small = 0;
    work_there there;
    s->device = oct_device_kernels_of(device);
    s->slots = oct_malloc((size_t)slots * sizeof *s->slots);
    s->pieces = oct_malloc((size_t)pieces * sizeof *s->pieces);
    s->usual_starts = oct_calloc((size_t)(slots + 1), sizeof *s->usual_starts);
    s->other_starts = oct_calloc((size_t)(slots + 1), sizeof *s->other_starts);
    s->copies = oct_malloc((size_t)(slots * COPIES_OF_SLOT) * sizeof *s->copies);
    s->parts = oct_malloc((size_t)pieces * sizeof *s->parts);
    if (!s->slots || !s->pieces || !s->usual_starts || !s->other_starts || !s->copies || !s->parts)
        return -1;
    for (part p = {0}; p.end < pieces;) {
        p = s->parts[s->part_count++] = part_from(s, work, p.end);
        begin(s, NULL);
        (void)put_part(&there, s, work, p);
        if (s->used > most) most = s->used;
        if (s->small_used > small) small = s->small_used;
    }
    s->small_bytes = small;
    s->room_bytes = small + most;
    s->small = oct_malloc((size_t)small);
    if (!s->small) return -1;
    return reserve(o, device, aligned(sizeof(uint64_t)) + aligned(pieces * result_bytes(r)) +
                                  lanes_of(s) * s->room_bytes);
}

static int launch(const results *r, const stage *s, const work_there *there)
{
    const oct_device_kernels *d = s->device;
    const oct_device_work *work = &there->work;
    int status = r->measures ? d->optim_measure(there->results, work)
                 : r->sums   ? d->optim_squares(there->results, there->left_out, work, r->of_params)
                             : d->optim_step(there->left_out, work);
    return status == 0 ? 0 : oct_device_fail(d);
}

/* All parts, each in the next lane. room: that of the first lane. */
static int run_parts(const results *r, stage *s, const oct_optim_work *work, char *room,
                     work_there there)
{
    char *by_piece = there.results;
    int64_t lanes = lanes_of(s);
    for (int64_t i = 0; i < s->part_count; i++) {
        part p = s->parts[i];
        if (lanes > 1 && s->device->choose_lane((int)(1 + i % lanes)) != 0)
            return oct_device_fail(s->device);
        begin(s, room + i % lanes * s->room_bytes);
        there.results = by_piece + p.first * result_bytes(r);
        OCT_TRY(put_part(&there, s, work, p));
        OCT_TRY(launch(r, s, &there));
        OCT_TRY(take_back(s));
    }
    return 0;
}

/* Leave the lanes when all they do is done; a failure beforehand is the one that counts. */
static int join(const stage *s, int status)
{
    const oct_device_kernels *d = s->device;
    if (lanes_of(s) < 2) return status;
    int waited = d->wait(), left = d->choose_lane(0);
    return status != 0 || (waited == 0 && left == 0) ? status : oct_device_fail(d);
}

static int fetch(const results *r, const stage *s, const work_there *there, int64_t pieces)
{
    const oct_device_kernels *d = s->device;
    void *to = r->measures ? (void *)r->measures : (void *)r->sums;
    uint64_t left_out = 0;
    int status = to ? d->download(to, there->results, pieces * result_bytes(r)) : 0;
    if (status == 0 && r->left_out)
        status = d->download(&left_out, there->left_out, sizeof left_out);
    if (status != 0) return oct_device_fail(d);
    if (r->left_out) *r->left_out = (int64_t)left_out;
    return 0;
}

static int run(const results *r, oct_optim *o, const oct_optim_work *work, stage s)
{
    int device = o->device != OCT_CPU ? o->device : oct_device_newest();
    int64_t pieces = work->units[work->unit_count];
    int status = prepare(&s, o, device, work, r);
    if (status == 0) {
        char *left_out = o->stage, *by_piece = left_out + aligned(sizeof(uint64_t));
        char *room = by_piece + aligned(pieces * result_bytes(r));
        work_there there = {.left_out = left_out, .results = by_piece};
        if (s.device->fill(left_out, 0, sizeof(uint64_t)) != 0) status = oct_device_fail(s.device);
        if (status == 0) status = join(&s, run_parts(r, &s, work, room, there));
        if (status == 0) status = fetch(r, &s, &there, pieces);
    }
    oct_free(s.slots);
    oct_free(s.pieces);
    oct_free(s.usual_starts);
    oct_free(s.other_starts);
    oct_free(s.copies);
    oct_free(s.parts);
    oct_free(s.small);
    return status;
}

int oct_optim_device_step(int64_t *left_out, oct_optim *o, const oct_optim_work *work)
{
    results r = {.left_out = left_out};
    return run(&r, o, work, (stage){.with_states = 1, .writes = 1});
}

int oct_optim_device_measure(oct_optim_measure *measures, oct_optim *o, const oct_optim_work *work)
{
    results r = {.measures = measures};
    return run(&r, o, work, (stage){.with_states = 1});
}

int oct_optim_device_squares(double *sums, int64_t *not_finite, oct_optim *o,
                             const oct_optim_work *work, int of_params)
{
    results r = {.sums = sums, .left_out = not_finite, .of_params = of_params};
    return run(&r, o, work, (stage){0});
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
