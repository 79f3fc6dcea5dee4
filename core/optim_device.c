/* optim_device.c - the work of a step on a device.
 *
 * Tensors lie in the processor's memory: what a step needs is copied to the device, and what it has
 * written is copied back. That proves the device's kernels, bit for bit, on whatever is trained; it
 * takes longer than the step on the processor does. */
#include "core/device.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/optim.h"

/* Memory on the device in the place of the processor's. */
typedef struct copy {
    void *device, *host;
    int64_t bytes;
    int back;                      /* the step writes it */
} copy;

enum { COPIES_OF_SLOT = 3 + 4 * OCT_STATES };

typedef struct copies {
    const oct_device_kernels *device;
    copy *list;
    int64_t count;
    oct_optim_slot *slots;
} copies;

/* Put host[bytes] on the device, and return where it lies there; NULL is NULL. */
static int put(void **place, copies *c, const void *host, int64_t bytes, int back)
{
    *place = NULL;
    if (!host) return 0;
    copy *new = c->list + c->count;
    *new = (copy){.host = (void *)host, .bytes = bytes, .back = back};
    if (c->device->allocate(&new->device, bytes) != 0) return oct_device_fail(c->device);
    c->count++;
    if (c->device->upload(new->device, host, bytes) != 0) return oct_device_fail(c->device);
    *place = new->device;
    return 0;
}

static int64_t number_bytes(int format) { return format == OCT_NUMBER_BF16 ? 2 : 4; }

static int put_state(oct_slot_state *to, copies *c, const oct_optim_slot *s,
                     const oct_slot_state *from)
{
    int64_t code_bytes = s->bits == 4 ? (s->size + 1) / 2 : s->size;
    int64_t blocks = s->whole ? 1 : oct_blocks_of(s->size, s->block);
    void *values, *codes, *absmax, *map;
    OCT_TRY(put(&values, c, from->values, s->size * (int64_t)sizeof(float), 1));
    OCT_TRY(put(&codes, c, from->codes, code_bytes, 1));
    OCT_TRY(put(&absmax, c, from->absmax, blocks * (int64_t)sizeof(float), 1));
    OCT_TRY(put(&map, c, from->map, sizeof *from->map, 0));
    *to = (oct_slot_state){.values = values, .codes = codes, .absmax = absmax, .map = map};
    return 0;
}

static int put_slot(oct_optim_slot *to, copies *c, const oct_optim_slot *from)
{
    void *grad;
    *to = *from;
    to->errors = NULL;
    OCT_TRY(put(&to->param, c, from->param, from->size * number_bytes(from->param_format), 1));
    OCT_TRY(put(&grad, c, from->grad, from->size * number_bytes(from->grad_format), 0));
    OCT_TRY(put(&to->correction, c, from->correction, from->size * from->correction_bits / 8, 1));
    to->grad = grad;
    for (int j = 0; j < OCT_STATES; j++)
        OCT_TRY(put_state(to->state + j, c, from, from->state + j));
    return 0;
}

static int64_t slots_of(const oct_optim_work *work)
{
    int64_t slots = 0;
    for (int64_t i = 0; i < work->units[work->unit_count]; i++)
        if (work->pieces[i].slot >= slots) slots = work->pieces[i].slot + 1;
    return slots;
}

static int put_work(oct_optim_work *to, copies *c, const oct_optim_work *from)
{
    int64_t slots = slots_of(from);
    *c = (copies){.device = oct_device_now()};
    c->list = oct_malloc((size_t)(slots * COPIES_OF_SLOT) * sizeof *c->list);
    if (!c->list) return -1;
    c->slots = oct_malloc((size_t)slots * sizeof *c->slots);
    if (!c->slots) return -1;
    for (int64_t k = 0; k < slots; k++) OCT_TRY(put_slot(c->slots + k, c, from->slots + k));
    *to = *from;
    to->slots = c->slots;
    return 0;
}

static int take_back(const copies *c)
{
    for (const copy *i = c->list; i < c->list + c->count; i++)
        if (i->back && c->device->download(i->host, i->device, i->bytes) != 0)
            return oct_device_fail(c->device);
    return 0;
}

/* What a failure before has said stands. */
static int release(copies *c, int status)
{
    for (int64_t i = 0; i < c->count; i++)
        if (c->device->release(c->list[i].device) != 0 && status == 0)
            status = oct_device_fail(c->device);
    oct_free(c->list);
    oct_free(c->slots);
    return status;
}

int oct_device_step(int64_t *left_out, const oct_optim_work *work)
{
    oct_optim_work there;
    copies c;
    int status = put_work(&there, &c, work);
    if (status == 0 && c.device->optim_step(left_out, &there) != 0)
        status = oct_device_fail(c.device);
    if (status == 0) status = take_back(&c);
    return release(&c, status);
}

int oct_device_measure(oct_optim_measure *measures, const oct_optim_work *work)
{
    oct_optim_work there;
    copies c;
    int status = put_work(&there, &c, work);
    if (status == 0 && c.device->optim_measure(measures, &there) != 0)
        status = oct_device_fail(c.device);
    return release(&c, status);
}

int oct_device_squares(double *sums, int64_t *not_finite, const oct_optim_work *work, int of_params)
{
    oct_optim_work there;
    copies c;
    int status = put_work(&there, &c, work);
    if (status == 0 && c.device->optim_squares(sums, not_finite, &there, of_params) != 0)
        status = oct_device_fail(c.device);
    return release(&c, status);
}
