/* muon.c - Muon's step of a matrix: the direction of its momentum, made orthogonal. */
#include <math.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/optim.h"
#include "core/tensor.h"
#include "kernels/rules/muon.h"

/* Numbers that the iteration needs at a time. */
typedef struct matrices {
    float *x, *next;               /* [rows x columns], rows <= columns */
    float *gram, *square;          /* [rows x rows] */
} matrices;

/* Newton and Schulz's iteration with Jordan's coefficients (2024): singular values come to lie
 * between 0.7 and 1.2, which is near enough to 1.
 *     A = x x',  x = a x + (b A + c A A) x */
static int orthogonalize(matrices *r, int64_t rows, int64_t columns, int steps)
{
    const float a = 3.4445f, b = -4.7750f, c = 2.0315f;
    const oct_kernels *k = oct_kernels_now();
    int64_t size = rows * columns, square = rows * rows;
    float norm = (float)sqrt(k->sum_squares(r->x, size));
    k->add_scaled(r->x, r->x, size, 1 / (norm + 1e-7f), 0);
    for (int i = 0; i < steps; i++) {
        OCT_TRY(k->matmul(r->gram, r->x, r->x, 1, rows, rows, columns, 0, 1, 0, 0));
        k->add_scaled(r->square, r->gram, square, b, 0);
        k->add_scaled(r->gram, r->gram, square, sqrtf(c), 0);
        OCT_TRY(k->matmul(r->square, r->gram, r->gram, 1, rows, rows, rows, 0, 0, 1, 0));
        k->add_scaled(r->next, r->x, size, a, 0);
        OCT_TRY(k->matmul(r->next, r->square, r->x, 1, rows, columns, rows, 0, 0, 1, 0));
        float *swap = r->x;
        r->x = r->next;
        r->next = swap;
    }
    return 0;
}

static void transpose(float *y, const float *x, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
}

/* x[rows x columns] made orthogonal in its place; `next` has room for as much, `squares` for twice
 * the square of the smaller side. */
static int make_orthogonal(float *x, float *next, float *squares, int64_t rows, int64_t columns,
                           int steps)
{
    int tall = rows > columns;
    int64_t low = tall ? columns : rows, high = tall ? rows : columns;
    matrices r = {x, next, squares, squares + low * low};
    if (tall) {
        transpose(next, x, rows, columns);
        r.x = next;
        r.next = x;
    }
    if (orthogonalize(&r, low, high, steps) != 0)
        return oct_fail("optim: out of memory for the products of muon");
    if (tall) {
        transpose(r.next, r.x, low, high);
        r.x = r.next;
    }
    if (r.x != x) oct_kernels_now()->add_scaled(x, r.x, rows * columns, 1, 0);
    return 0;
}

/* The momentum moves on, and its direction is left in x, where the parameter would stand. `room` is
 * as large as x. */
static int write_direction(float *x, float *room, int64_t *left_out, oct_optim *o,
                           const oct_optim_member *m, const oct_optim_slot *given,
                           oct_step_scale scale)
{
    oct_optim_slot slot = *given;
    slot.numbers = oct_optim_numbers(o, m, scale, 0, 0);
    if (slot.numbers.coupled_decay != 0) {
        oct_optim_load_gradient(room, o, m, given, scale);
        slot.grad = room;
        slot.grad_format = OCT_NUMBER_F32;
        slot.numbers.grad_scale = 1;
        slot.numbers.grad_limit = INFINITY;
    }
    slot.numbers.coupled_decay = slot.numbers.keep = 0;
    slot.numbers.step = -1;
    slot.param = x;
    slot.param_format = OCT_NUMBER_F32;
    oct_kernels_now()->fill(x, slot.size, 0);
    return oct_optim_run(left_out, o, &slot);
}

/* Elements that had no part in the momentum have none in the step either. */
static void leave_out(float *direction, float *room, const oct_optim *o, const oct_optim_member *m,
                      const oct_optim_slot *slot, oct_step_scale scale)
{
    oct_optim_load_gradient(room, o, m, slot, scale);
    for (int64_t i = 0; i < slot->size; i++)
        if (!(fabsf(room[i]) < OCT_STATE_LIMIT)) direction[i] = NAN;
}

/* p = p * keep - step * direction, in the parameter's own format: the same rule with the direction
 * for a gradient, and without momentum. */
static int apply(oct_optim *o, const oct_optim_slot *given, const float *direction,
                 oct_numbers numbers)
{
    int64_t left_out;
    oct_optim_slot slot = *given;
    for (int j = 0; j < OCT_STATES; j++) slot.state[j] = (oct_slot_state){NULL};
    slot.grad = direction;
    slot.grad_format = OCT_NUMBER_F32;
    slot.bits = 32;
    slot.whole = 0;
    slot.numbers = (oct_numbers){
        .grad_scale = 1, .grad_limit = INFINITY, .keep = numbers.keep, .step = numbers.step,
        .c[MUON_REST] = 1,
    };
    return oct_optim_run(&left_out, o, &slot);
}

int oct_muon_step(int64_t *left_out, oct_optim *o, oct_optim_member *m, oct_optim_slot *slot,
                  oct_step_scale scale)
{
    const double *options = o->groups[m->group].options;
    int64_t rows, columns;
    if (!oct_optim_is_matrix(&rows, &columns, m->parameter))
        return oct_fail("optim: parameter \"%s\" %s is no matrix, which muon's rule needs", m->name,
                        oct_shape_text(m->parameter));
    int64_t low = rows < columns ? rows : columns, high = rows < columns ? columns : rows;
    size_t bytes = (size_t)(2 * slot->size + 2 * low * low) * sizeof(float);
    float *direction = oct_block_new(bytes, OCT_WORKSPACE);
    if (!direction) return -1;
    float *room = direction + slot->size;
    int status = write_direction(direction, room, left_out, o, m, slot, scale);
    if (status == 0)
        status = make_orthogonal(direction, room, room + slot->size, rows, columns,
                                 (int)options[2]);
    if (status == 0) {
        if (*left_out > 0) leave_out(direction, room, o, m, slot, scale);
        oct_numbers numbers = oct_optim_numbers(o, m, scale, 0, 0);
        /* match_rms: as long as AdamW's steps are (Liu et al., 2025); else Jordan's. */
        numbers.step *= options[3] != 0 ? 0.2f * sqrtf((float)high)
                                        : sqrtf(fmaxf(1, (float)rows / (float)columns));
        status = apply(o, slot, direction, numbers);
    }
    oct_block_free(direction, bytes, OCT_WORKSPACE);
    return status;
}
