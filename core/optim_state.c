/* optim_state.c - an optimizer's state from outside: its tensors, steps and errors, one by one. */
#include <math.h>

#include "core/error.h"
#include "core/optim.h"
#include "core/tensor.h"

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
    *out = oct_tensor_retain(o->members[index].tensors[which]);
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

int oct_optim_error_sums(double *sums, oct_optim *o, int64_t index, int state)
{
    OCT_TRY(check_index(o, index));
    if (state < 0 || state >= OCT_STATES)
        return oct_fail("optim: state %d, expected 0 to %d", state, OCT_STATES - 1);
    const oct_optim_error *errors = o->members[index].errors;
    oct_optim_error e = errors ? errors[state] : (oct_optim_error){0};
    sums[0] = e.absolute;
    sums[1] = e.relative;
    sums[2] = e.magnitude;
    sums[3] = (double)e.zeros;
    sums[4] = (double)e.not_zero;
    sums[5] = (double)e.saturated;
    return 0;
}

int oct_optim_code_counts(int64_t *zeros, int64_t *saturated, oct_optim *o, int64_t index,
                          int state)
{
    OCT_TRY(check_index(o, index));
    if (state < 0 || state >= OCT_STATES)
        return oct_fail("optim: state %d, expected 0 to %d", state, OCT_STATES - 1);
    const oct_optim_member *m = o->members + index;
    const oct_map *map = m->maps[state];
    oct_tensor *values, *scales;
    *zeros = *saturated = 0;
    if (!m->tensors[OCT_STATE_VALUES + state] || m->bits == 32) return 0;
    OCT_TRY(oct_tensor_here(&values, m->tensors[OCT_STATE_VALUES + state]));
    if (oct_tensor_here(&scales, m->tensors[OCT_STATE_ABSMAX + state]) != 0) {
        oct_tensor_release(values);
        return -1;
    }
    int64_t counts[OCT_CODES] = {0};
    const uint8_t *codes = oct_u8(values);
    const float *absmax = oct_f32(scales);
    for (int64_t i = 0; i < m->parameter->size; i++) {
        int code = m->bits == 4 ? codes[i / 2] >> i % 2 * 4 & 15 : codes[i];
        counts[code]++;
        *zeros += map->value[code] * absmax[m->flags & OCT_FORMAT_WHOLE ? 0 : i / m->block] == 0;
    }
    *saturated = counts[map->levels - 1] + (map->is_signed ? counts[0] : 0);
    oct_tensor_release(values);
    oct_tensor_release(scales);
    return 0;
}

int oct_optim_is_sound(int *sound, const oct_tensor *state, int negative_too)
{
    OCT_TRY(oct_check(state, "optim", "the state", OCT_F32));
    const float *x = oct_f32(state);
    *sound = 0;
    for (int64_t i = 0; i < state->size; i++)
        if (!(fabsf(x[i]) < OCT_STATE_LIMIT) || (x[i] < 0 && !negative_too)) return 0;
    *sound = 1;
    return 0;
}
