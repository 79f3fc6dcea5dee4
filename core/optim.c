/* optim.c - optimizers: which parameter has which state, and in which format. */
#include "core/optim.h"

#include <math.h>
#include <string.h>

#include "core/device.h"
#include "core/error.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/tensor.h"

/* ---- making and freeing ---------------------------------------------------------------------- */

int oct_optim_new(oct_optim **out)
{
    oct_optim *o = oct_calloc(1, sizeof *o);
    if (!o) return -1;
    *out = o;
    return 0;
}

void oct_optim_release_member(oct_optim_member *m)
{
    for (int i = 0; i < OCT_STATE_TENSORS; i++) oct_tensor_release(m->tensors[i]);
    for (int j = 0; j < OCT_STATES; j++) oct_map_free((oct_map *)m->maps[j]);
    oct_tensor_release(m->parameter);
    oct_free(m->errors);
    oct_free(m->name);
}

int oct_optim_free(oct_optim *o)
{
    if (!o) return 0;
    for (int64_t i = 0; i < o->count; i++) oct_optim_release_member(o->members + i);
    oct_optim_free_stage(o);
    oct_free(o->members);
    oct_free(o->groups);
    oct_free(o->slots);
    oct_free(o->planned);
    oct_free(o->all.pieces);
    oct_free(o->all.units);
    oct_free(o->first.pieces);
    oct_free(o->first.units);
    oct_free(o->sums);
    oct_free(o->measures);
    oct_free(o->errors);
    oct_free(o);
    return 0;
}

static int grow(void *pointer, int64_t count, size_t bytes)
{
    void *old, *larger;
    memcpy(&old, pointer, sizeof old);
    larger = oct_realloc(old, (size_t)count * bytes);
    if (!larger) return -1;
    memcpy(pointer, &larger, sizeof larger);
    return 0;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static int in_range(double x, double low, double high, int form)
{
    if ((form & (OCT_OPTION_WHOLE | OCT_OPTION_SWITCH)) && x != floor(x)) return 0;
    return (form & OCT_OPTION_ABOVE ? x > low : x >= low) &&
           (form & OCT_OPTION_BELOW ? x < high : x <= high);
}

/* No number in the text: how C prints one depends on the locale. Lua says more. */
static int check_options(const oct_rule *rule, const double *options)
{
    for (int i = 0; rule->option[i].name; i++) {
        const struct oct_rule_option *o = rule->option + i;
        if (!in_range(options[i], o->low, o->high, o->form))
            return oct_fail("optim: option %s of %s is out of range", o->name, rule->name);
    }
    return 0;
}

/* An option without which a rule makes do without a state cannot come once parameters are there:
 * theirs would have to be made. */
static int check_states(const oct_optim *o, int number, const oct_rule *rule, const double *options)
{
    for (int j = 0; j < OCT_STATES; j++) {
        int option = rule->state[j].option;
        if (!option || options[option - 1] == 0) continue;
        /* In every step, where nothing has changed: then nobody lacks it. */
        if (number < o->group_count && o->groups[number].options[option - 1] != 0) continue;
        for (int64_t i = 0; i < o->count; i++)
            if (o->members[i].group == number && !o->members[i].tensors[OCT_STATE_VALUES + j])
                return oct_fail("optim: option %s was 0 when the optimizer was made, so there is "
                                "no state for it: make a new one",
                                rule->option[option - 1].name);
    }
    return 0;
}

int oct_optim_group(oct_optim *o, int number, int rule, double lr, double weight_decay, int decay,
                    const double *options)
{
    if (number < 0 || number >= OCT_GROUPS)
        return oct_fail("optim: group %d, expected 0 to %d", number, OCT_GROUPS - 1);
    if (rule < 0 || rule >= oct_rules())
        return oct_fail("optim: rule %d, expected 0 to %d", rule, oct_rules() - 1);
    if (!in_range(lr, 0, INFINITY, OCT_OPTION_BELOW))
        return oct_fail("optim: lr is out of range, expected 0 or more");
    if (!in_range(weight_decay, 0, INFINITY, OCT_OPTION_BELOW))
        return oct_fail("optim: weight_decay is out of range, expected 0 or more");
    if (decay < OCT_DECAY_COUPLED || decay > OCT_DECAY_OWN)
        return oct_fail("optim: decay %d, expected 0 to 2", decay);
    OCT_TRY(check_options(oct_rule_at(rule), options));
    OCT_TRY(check_states(o, number, oct_rule_at(rule), options));
    if (number >= o->group_count) {
        OCT_TRY(grow(&o->groups, number + 1, sizeof *o->groups));
        memset(o->groups + o->group_count, 0,
               (size_t)(number + 1 - o->group_count) * sizeof *o->groups);
        o->group_count = number + 1;
    }
    oct_optim_group_numbers *g = o->groups + number;
    g->rule = oct_rule_at(rule);
    g->lr = lr;
    g->weight_decay = weight_decay;
    g->decay = decay;
    for (int i = 0; g->rule->option[i].name; i++) g->options[i] = options[i];
    return 0;
}

/* ---- adding a parameter ---------------------------------------------------------------------- */

/* Room for one more member that is cut into so many pieces. */
static int make_room(oct_optim *o, int64_t pieces)
{
    if (o->count == o->room) {
        int64_t room = o->room ? 2 * o->room : 16;
        OCT_TRY(grow(&o->members, room, sizeof *o->members));
        OCT_TRY(grow(&o->slots, room, sizeof *o->slots));
        OCT_TRY(grow(&o->planned, room, sizeof *o->planned));
        o->room = room;
    }
    int64_t room = o->piece_room + pieces;
    OCT_TRY(grow(&o->all.pieces, room, sizeof *o->all.pieces));
    OCT_TRY(grow(&o->all.units, room + 1, sizeof *o->all.units));
    OCT_TRY(grow(&o->first.pieces, room, sizeof *o->first.pieces));
    OCT_TRY(grow(&o->first.units, room + 1, sizeof *o->first.units));
    OCT_TRY(grow(&o->sums, room, sizeof *o->sums));
    OCT_TRY(grow(&o->measures, room, sizeof *o->measures));
    if (o->errors) OCT_TRY(grow(&o->errors, room * OCT_STATES, sizeof *o->errors));
    return 0;
}

/* Let the parameter's device copy its state beside its work. Where that cannot be, copies wait; and
 * for little memory it is not worth a system call. */
static void pin_state(oct_storage *storage, int device)
{
    enum { LEAST = 64 << 10 };
    if (storage->device != OCT_CPU || device == OCT_CPU || storage->bytes < LEAST) return;
    if (oct_device_pin(storage->data, device, (int64_t)storage->bytes))
        storage->pinned_for = device;
}

/* A tensor outside of every scope, each byte `value`. */
static int add_tensor(oct_optim_member *m, int which, int dtype, int ndim, const int64_t *shape,
                      uint8_t value)
{
    oct_tensor *t = oct_tensor_make_kept(m->state_device, dtype, ndim, shape, OCT_OPTIMIZER_STATE);
    if (!t) return -1;
    m->tensors[which] = t;
    pin_state(t->storage, m->parameter->storage->device);
    return oct_device_fill(oct_data(t), m->state_device, value, (int64_t)t->storage->bytes);
}

static int add_state(oct_optim_member *m, int j)
{
    const oct_tensor *p = m->parameter;
    int64_t blocks = m->flags & OCT_FORMAT_WHOLE ? 1 : oct_blocks_of(p->size, m->block);
    int64_t halves = (p->size + 1) / 2;
    if (m->bits == 32) return add_tensor(m, OCT_STATE_VALUES + j, OCT_F32, p->ndim, p->shape, 0);
    uint8_t zero = (uint8_t)m->maps[j]->zero;
    if (m->bits == 4)
        OCT_TRY(
            add_tensor(m, OCT_STATE_VALUES + j, OCT_U8, 1, &halves, (uint8_t)(zero | zero << 4)));
    else
        OCT_TRY(add_tensor(m, OCT_STATE_VALUES + j, OCT_U8, p->ndim, p->shape, zero));
    return add_tensor(m, OCT_STATE_ABSMAX + j, OCT_F32, 1, &blocks, 0);
}

int oct_optim_is_matrix(int64_t *rows, int64_t *columns, const oct_tensor *p)
{
    *rows = p->ndim > 1 ? p->shape[0] : 1;
    *columns = p->size / *rows;
    return *rows > 1 && *columns > 1;
}

static int add_factors(oct_optim_member *m)
{
    const oct_tensor *p = m->parameter;
    int64_t rows, columns;
    if (!oct_optim_is_matrix(&rows, &columns, p))
        return add_tensor(m, OCT_STATE_ROW, OCT_F32, p->ndim, p->shape, 0);
    OCT_TRY(add_tensor(m, OCT_STATE_ROW, OCT_F32, 1, &rows, 0));
    return add_tensor(m, OCT_STATE_COLUMN, OCT_F32, 1, &columns, 0);
}

static int add_tensors(oct_optim_member *m, const oct_optim_group_numbers *g)
{
    const oct_tensor *p = m->parameter;
    for (int j = 0; j < OCT_STATES; j++) {
        const oct_rule_state_kind *state = m->rule->state + j;
        if (!state->name || (state->option && g->options[state->option - 1] == 0)) continue;
        OCT_TRY(add_state(m, j));
    }
    if (m->rule->matrix == OCT_MATRIX_FACTORED) OCT_TRY(add_factors(m));
    int64_t bytes = p->size * m->correction_bits / 8;
    return bytes > 0 ? add_tensor(m, OCT_STATE_CORRECTION, OCT_U8, 1, &bytes, 0) : 0;
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

static int check_parameter(const oct_optim *o, const oct_tensor *p, const char *name)
{
    OCT_TRY(oct_check_anywhere(p, "optim", name, p && p->dtype == OCT_BF16 ? OCT_BF16 : OCT_F32));
    if (!p->is_parameter)
        return oct_fail("optim: tensor \"%s\" %s is no parameter; call :parameter_() on it", name,
                        oct_shape_text(p));
    if (p->storage->device != OCT_CPU && (o->errors || o->kernels != OCT_KERNELS_USUAL))
        return oct_fail("optim: parameter \"%s\" lies on %s, and the optimizer is watched, or has "
                        "kernels of its own, which cpu alone does",
                        name, oct_device_name(p->storage->device));
    if (o->count > 0 && p->storage->device != o->device)
        return oct_fail("optim: parameter \"%s\" lies on %s and \"%s\" on %s, expected all on one "
                        "device",
                        name, oct_device_name(p->storage->device), o->members[0].name,
                        oct_device_name(o->device));
    return check_apart(o, p, name);
}

static int check_format(const oct_tensor *p, const char *name, int bits, int64_t block, int flags,
                        const oct_map *signed_map, const oct_map *unsigned_map, int correction_bits)
{
    if (bits != 4 && bits != 8 && bits != 32)
        return oct_fail("optim: parameter \"%s\": bits is %d, expected 4, 8 or 32", name, bits);
    if (flags < 0 || flags > 7) return oct_fail("optim: flags %d, expected 0 to 7", flags);
    if (block < OCT_BLOCK_MIN || block > OCT_BLOCK_MAX || (block & (block - 1)) != 0)
        return oct_fail("optim: block_size is %lld, expected a power of two from %d to %d",
                        (long long)block, OCT_BLOCK_MIN, OCT_BLOCK_MAX);
    if (correction_bits != 0 && correction_bits != 8 && correction_bits != 16)
        return oct_fail("optim: %d correction bits, expected 0, 8 or 16", correction_bits);
    if (correction_bits != 0 && p->dtype != OCT_BF16)
        return oct_fail("optim: parameter \"%s\" is f32: only bf16 has correction bits", name);
    if (bits == 32) return 0;
    if (!signed_map || !unsigned_map || !signed_map->is_signed || unsigned_map->is_signed)
        return oct_fail("optim: parameter \"%s\": a signed and an unsigned map are needed", name);
    int levels = bits == 4 ? 16 : OCT_CODES;
    if (signed_map->levels != levels || unsigned_map->levels != levels)
        return oct_fail("optim: parameter \"%s\": %d bits want maps of %d values", name, bits,
                        levels);
    return 0;
}

/* Where state lies: with its parameter, or in the processor's memory. */
static int find_state_device(int *device, const oct_tensor *p, const char *name, const char *asked)
{
    *device = p->storage->device;
    if (!asked) return 0;
    if (strcmp(asked, oct_device_name(OCT_CPU)) == 0)
        *device = OCT_CPU;
    else if (strcmp(asked, oct_device_name(*device)) != 0)
        return oct_fail("optim: parameter \"%s\" lies on %s, and state_device is %s, expected the "
                        "same or cpu",
                        name, oct_device_name(*device), asked);
    return 0;
}

int oct_optim_add(oct_optim *o, oct_tensor *p, const char *name, int group, int bits, int64_t block,
                  int flags, oct_map *signed_map, oct_map *unsigned_map, int correction_bits,
                  const char *state_device)
{
    int device;
    OCT_TRY(check_parameter(o, p, name));
    OCT_TRY(find_state_device(&device, p, name, state_device));
    OCT_TRY(check_format(p, name, bits, block, flags, signed_map, unsigned_map, correction_bits));
    if (group < 0 || group >= o->group_count || !o->groups[group].rule)
        return oct_fail("optim: group %d of parameter \"%s\" has no numbers", group, name);
    OCT_TRY(make_room(o, oct_pieces_of(p->size)));
    oct_optim_member m = {
        .parameter = oct_tensor_retain(p),
        .name = oct_strdup(name),
        .group = group,
        .rule = o->groups[group].rule,
        .bits = bits,
        .flags = flags,
        .block = block,
        .correction_bits = correction_bits,
        .state_device = device,
        .random_base = o->random_blocks,
    };
    for (int j = 0; j < OCT_STATES && bits != 32; j++)
        m.maps[j] =
            oct_map_retain(m.rule->state[j].kind == OCT_STATE_SIGNED ? signed_map : unsigned_map);
    if (o->errors) m.errors = oct_calloc(OCT_STATES, sizeof *m.errors);
    if (!m.name || (o->errors && !m.errors) || add_tensors(&m, o->groups + group) != 0) {
        oct_optim_release_member(&m);
        return -1;
    }
    /* Room for draws of states and parameter, whether its format makes them or not: where the
     * format of one parameter is changed, all others go on with the draws that they would have had.
     */
    o->random_blocks += 2 * 4 * (uint64_t)oct_blocks_of(p->size, 64);
    o->piece_room += oct_pieces_of(p->size);
    o->device = p->storage->device;
    oct_optim_fill_slot(o->slots + o->count, &m);
    o->members[o->count++] = m;
    return 0;
}

int oct_optim_watch(oct_optim *o, int on)
{
    if (on && o->device != OCT_CPU)
        return oct_fail("optim: how well state is kept is noted on cpu alone, and the parameters "
                        "lie on %s",
                        oct_device_name(o->device));
    if (!on) {
        oct_free(o->errors);
        o->errors = NULL;
        for (int64_t i = 0; i < o->count; i++) {
            oct_free(o->members[i].errors);
            o->members[i].errors = NULL;
        }
        return 0;
    }
    if (o->errors) return 0;
    oct_optim_error *room = oct_calloc((size_t)o->piece_room * OCT_STATES + 1, sizeof *room);
    if (!room) return -1;
    for (int64_t i = 0; i < o->count; i++) {
        oct_optim_error **errors = &o->members[i].errors;
        if (!*errors) *errors = oct_calloc(OCT_STATES, sizeof **errors);
        if (*errors) continue;
        oct_free(room);
        return -1;
    }
    o->errors = room;
    return 0;
}

int oct_optim_zero_grad(oct_optim *o)
{
    for (int64_t i = 0; i < o->count; i++) OCT_TRY(oct_zero_grad(o->members[i].parameter));
    return 0;
}

int oct_optim_kernels(oct_optim *o, int kind)
{
    if (kind < 0 || kind > OCT_KERNELS_DEVICE)
        return oct_fail("optim: kernels %d, expected 0 to %d", kind, OCT_KERNELS_DEVICE);
    if (kind == OCT_KERNELS_DEVICE && oct_device_newest() == OCT_CPU)
        return oct_fail("optim: no device is open; oct_device_open opens one");
    if (kind != OCT_KERNELS_USUAL && o->device != OCT_CPU)
        return oct_fail("optim: the parameters lie on %s, whose kernels there is no choice of",
                        oct_device_name(o->device));
    o->kernels = kind;
    return 0;
}
