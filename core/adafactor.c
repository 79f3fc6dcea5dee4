/* adafactor.c - Adafactor's second moment, of a matrix kept as the mean of each row and each
 * column, and the gradient divided by its root. */
#include <math.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/optim.h"
#include "core/tensor.h"

/* What is gone through for one parameter. */
typedef struct factored {
    float *update;       /* [size]: the gradient, then the squares, then the update */
    float *squares;      /* [size] */
    float *row, *column; /* scratch, [rows] and [columns] */
    int64_t size, rows, columns;
    int is_matrix;
} factored;

/* moment = decay moment + (1 - decay) now; then factor = 1 / sqrt(moment / scale). */
static void move_on(float *moment, const float *now, int64_t n, float decay)
{
    for (int64_t i = 0; i < n; i++) moment[i] = fmaf(decay, moment[i] - now[i], now[i]);
}

static void inverse_roots(float *factor, const float *moment, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) factor[i] = 1 / sqrtf(fmaxf(moment[i] / scale, 0x1p-120f));
}

static double mean_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    return sum / (double)n;
}

/* The mean of each row of the gradient's squares plus eps1, in double: every instruction set gives
 * the same bits, which reduce's sums along a row do not. */
static void row_means(const factored *f, double eps1)
{
    const oct_kernels *k = oct_kernels_now();
#pragma omp parallel for schedule(static) if (f->rows >= 16)
    for (int64_t i = 0; i < f->rows; i++)
        f->row[i] =
            (float)(k->sum_squares(f->update + i * f->columns, f->columns) / (double)f->columns +
                    eps1);
}

static void divide_matrix(factored *f, float *row_moment, float *column_moment, float decay,
                          double eps1)
{
    const oct_kernels *k = oct_kernels_now();
    row_means(f, eps1);
    k->reduce(f->column, NULL, f->squares, 1, f->rows, f->columns, OCT_MEAN);
    move_on(row_moment, f->row, f->rows, decay);
    move_on(column_moment, f->column, f->columns, decay);
    inverse_roots(f->row, row_moment, f->rows, (float)mean_of(row_moment, f->rows));
    inverse_roots(f->column, column_moment, f->columns, 1);
    const int64_t shape[] = {f->rows, f->columns}, whole[] = {f->columns, 1};
    const int64_t by_row[] = {1, 0}, by_column[] = {0, 1};
    k->binary(f->update, f->update, f->row, 2, shape, whole, by_row, OCT_MUL);
    k->binary(f->update, f->update, f->column, 2, shape, whole, by_column, OCT_MUL);
}

static void divide_vector(factored *f, float *moment, float decay)
{
    move_on(moment, f->squares, f->size, decay);
    inverse_roots(f->squares, moment, f->size, 1);
    const int64_t whole[] = {1};
    oct_kernels_now()->binary(f->update, f->update, f->squares, 1, &f->size, whole, whole, OCT_MUL);
}

/* The root of the mean square of the parameter. room[size]. */
static double param_rms(const oct_optim_slot *slot, float *room)
{
    const float *values = slot->param;
    if (slot->param_format != OCT_NUMBER_F32) {
        oct_optim_load_param(room, slot);
        values = room;
    }
    return sqrt(oct_kernels_now()->sum_squares(values, slot->size) / (double)slot->size);
}

/* A gradient that is not finite would spoil rows and columns: the parameter is passed over. */
static int64_t count_not_finite(const float *x, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += !(fabsf(x[i]) < INFINITY);
    return count;
}

/* f->update: the gradient. */
static int step_with(oct_optim *o, oct_optim_member *m, oct_optim_slot *slot, factored *f)
{
    int64_t left_out;
    const oct_kernels *k = oct_kernels_now();
    const double *options = o->groups[m->group].options;
    double decay = m->steps == 1 ? 0 : 1 - exp(-options[1] * log((double)m->steps));
    double rms = param_rms(slot, f->squares);
    k->unary(f->squares, f->update, f->size, OCT_SQUARE);
    k->affine(f->squares, f->squares, f->size, 1, (float)options[2]);
    float *row = oct_f32(m->tensors[OCT_STATE_ROW]);
    if (f->is_matrix)
        divide_matrix(f, row, oct_f32(m->tensors[OCT_STATE_COLUMN]), (float)decay, options[2]);
    else
        divide_vector(f, row, (float)decay);
    double length = sqrt(k->sum_squares(f->update, f->size) / (double)f->size);
    oct_step_scale scale = {1 / fmax(1, length / options[4]), INFINITY};
    slot->grad = f->update;
    slot->grad_format = OCT_NUMBER_F32;
    slot->numbers = oct_optim_numbers(o, m, scale, rms, 0);
    slot->numbers.coupled_decay = 0;
    return oct_optim_run(&left_out, o, slot);
}

int oct_adafactor_step(int64_t *left_out, oct_optim *o, oct_optim_member *m, oct_optim_slot *slot,
                       oct_step_scale scale)
{
    factored f = {.size = slot->size};
    f.is_matrix = oct_optim_is_matrix(&f.rows, &f.columns, m->parameter);
    size_t bytes = (size_t)(2 * f.size + f.rows + f.columns) * sizeof(float);
    f.update = oct_block_new(bytes, OCT_WORKSPACE);
    if (!f.update) return -1;
    f.squares = f.update + f.size;
    f.row = f.squares + f.size;
    f.column = f.row + f.rows;
    oct_optim_load_gradient(f.update, o, m, slot, scale);
    *left_out =
        oct_kernels_now()->all_finite(f.update, f.size) ? 0 : count_not_finite(f.update, f.size);
    int status = 0;
    if (*left_out == 0)
        status = step_with(o, m, slot, &f);
    else
        m->steps--;
    oct_block_free(f.update, bytes, OCT_WORKSPACE);
    return status;
}
