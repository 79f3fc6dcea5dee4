/* optim_device.c - the work of a step on a device.
 *
 * What lies in the device's memory is used where it lies. All else is copied into a room there, and
 * what the step has written is copied back: state that is kept in the processor's memory, and, in
 * specs that prove the device's kernels on parameters of the processor, everything. The room is
 * kept from step to step; work that needs more of it than STAGE_BYTES is done some parameters at a
 * time. */
#include "core/device.h"
#include "core/error.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/optim.h"
#include "core/tensor.h"

/* Enough for copies to run at their full speed, and little beside what it saves. */
enum { STAGE_BYTES = 16 << 20, ALIGNMENT = 256 };

/* A parameter has itself, gradient and correction, and for each state values, or codes and scales,
 * and a map. */
enum { COPIES_OF_SLOT = 3 + 4 * OCT_STATES, MAPS = 16 };

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
    char *room;                    /* NULL: what is needed is only added up, in `used` */
    struct {
        const oct_map *here;
        void *there;
    } maps[MAPS];                  /* that have been copied: parameters share them */
    int map_count;
} stage;

static int number_bytes(int format) { return format == OCT_NUMBER_BF16 ? 2 : 4; }

/* ---- copying there --------------------------------------------------------------------------- */

/* The next bytes of the room; NULL where what is needed is only added up. */
static void *take_room(stage *s, int64_t bytes)
{
    int64_t at = s->used;
    s->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return s->room ? s->room + at : NULL;
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

static int put_map(void **place, stage *s, const oct_map *map)
{
    for (int i = 0; i < s->map_count; i++)
        if (s->maps[i].here == map) {
            *place = s->maps[i].there;
            return 0;
        }
    OCT_TRY(put(place, s, map, sizeof *map, 0));
    if (map && s->map_count < MAPS) {
        s->maps[s->map_count].here = map;
        s->maps[s->map_count++].there = *place;
    }
    return 0;
}

static int put_state(oct_slot_state *to, stage *s, const oct_optim_slot *slot,
                     const oct_slot_state *from)
{
    int64_t code_bytes = slot->bits == 4 ? (slot->size + 1) / 2 : slot->size;
    int64_t blocks = slot->whole ? 1 : oct_blocks_of(slot->size, slot->block);
    void *values = from->values, *codes = from->codes, *absmax = from->absmax, *map;
    if (!slot->states_there) {
        OCT_TRY(put(&values, s, from->values, slot->size * (int64_t)sizeof(float), 1));
        OCT_TRY(put(&codes, s, from->codes, code_bytes, 1));
        OCT_TRY(put(&absmax, s, from->absmax, blocks * (int64_t)sizeof(float), 1));
    }
    OCT_TRY(put_map(&map, s, from->map));
    *to = (oct_slot_state){.values = values, .codes = codes, .absmax = absmax, .map = map};
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
    s->used = s->map_count = s->copy_count = 0;
}

/* The part that begins with piece `first`: as many slots as STAGE_BYTES hold, or one. */
static part part_from(stage *s, const oct_optim_work *work, int64_t first)
{
    int64_t pieces = work->units[work->unit_count];
    part p = {first, first};
    begin(s, NULL);
    while (p.end < pieces) {
        int64_t k = work->pieces[p.end].slot;
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

static int put_part(work_there *to, stage *s, const oct_optim_work *work, part p,
                    const results *r)
{
    int64_t count = p.end - p.first, slots = 0;
    void *slots_there, *pieces_there;
    for (int64_t i = p.first; i < p.end; i++) {
        oct_optim_piece piece = work->pieces[i];
        if (i == p.first || piece.slot != work->pieces[i - 1].slot)
            OCT_TRY(put_slot(s->slots + slots++, s, work->slots + piece.slot));
        piece.slot = slots - 1;
        s->pieces[i - p.first] = piece;
    }
    OCT_TRY(put(&slots_there, s, s->slots, slots * (int64_t)sizeof *s->slots, 0));
    OCT_TRY(put(&pieces_there, s, s->pieces, count * (int64_t)sizeof *s->pieces, 0));
    to->work = (oct_device_work){slots_there, pieces_there, count};
    to->left_out = take_room(s, sizeof(uint64_t));
    to->results = take_room(s, count * (int64_t)result_bytes(r));
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
    int64_t pieces = work->units[work->unit_count], most = 0;
    int64_t slots = work->pieces[pieces - 1].slot + 1;
    work_there there;
    s->device = oct_device_kernels_of(device);
    s->slots = oct_malloc((size_t)slots * sizeof *s->slots);
    s->pieces = oct_malloc((size_t)pieces * sizeof *s->pieces);
    s->parts = oct_malloc((size_t)slots * sizeof *s->parts);
    s->copies = oct_malloc((size_t)(slots * COPIES_OF_SLOT + 2) * sizeof *s->copies);
    if (!s->slots || !s->pieces || !s->parts || !s->copies) return -1;
    for (part p = {0}; p.end < pieces;) {
        p = s->parts[s->part_count++] = part_from(s, work, p.end);
        begin(s, NULL);
        (void)put_part(&there, s, work, p, r);
        if (s->used > most) most = s->used;
    }
    return reserve(o, device, most);
}

static int launch(const results *r, const stage *s, const work_there *there, int64_t first)
{
    const oct_device_kernels *d = s->device;
    const oct_device_work *work = &there->work;
    uint64_t left_out;
    int64_t bytes = work->piece_count * (int64_t)result_bytes(r);
    int status = d->fill(there->left_out, 0, sizeof left_out);
    if (status == 0)
        status = r->measures ? d->optim_measure(there->results, work)
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
