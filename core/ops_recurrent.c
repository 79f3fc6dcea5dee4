/* ops_recurrent.c - a layer of an LSTM or a GRU over packed sequences. */
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/tape.h"
#include "kernels/kernels.h"

/* Inputs of a node: x, h_0, c_0, and of each direction four weights. */
enum { X, H_0, C_0, WEIGHTS };
enum { W_IH, W_HH, B_IH, B_HH, WEIGHTS_EACH };
enum { MOST_INPUTS = WEIGHTS + 2 * WEIGHTS_EACH };
/* Saved, and integers. */
enum { ORDER, GATES, CELLS, ROWS };
enum { CELL, IN_BF16, SEQUENCES, STEPS };

/* ---- the order of the walk ------------------------------------------------------------------- */

/* A tensor of order[sequences], begin[sequences], first[steps + 1]: see oct_recurrent_shape.
 * Sequences of the same length keep their order. */
static oct_tensor *walk_order(const int32_t *offsets, int64_t sequences, int64_t steps)
{
    int64_t size = 2 * sequences + steps + 1;
    oct_tensor *made = oct_tensor_make(OCT_I32, 1, &size, OCT_ACTIVATIONS);
    if (!made) return NULL;
    int32_t *order = oct_i32(made), *begin = order + sequences, *first = begin + sequences;
    /* first[length - 1] counts the sequences of that length, then says where the next one goes: all
     * that are longer stand before it. */
    memset(first, 0, (size_t)(steps + 1) * sizeof *first);
    for (int64_t s = 0; s < sequences; s++) first[offsets[s + 1] - offsets[s] - 1]++;
    int32_t longer = 0;
    for (int64_t t = steps - 1; t >= 0; t--) {
        const int32_t count = first[t];
        first[t] = longer;
        longer += count;
    }
    for (int64_t s = 0; s < sequences; s++) {
        const int32_t place = first[offsets[s + 1] - offsets[s] - 1]++;
        order[place] = (int32_t)s;
        begin[place] = offsets[s];
    }
    /* Now first[t] is the number of sequences longer than t: turned into the sums before it. */
    int32_t rows = 0;
    for (int64_t t = 0; t <= steps; t++) {
        const int32_t under_way = first[t];
        first[t] = rows;
        rows += under_way;
    }
    return made;
}

static int64_t tokens_of(const oct_tensor *x, const oct_tensor *rows)
{
    return rows ? rows->size : x->shape[0];
}

static oct_recurrent_shape shape_of(int cell, int bf16, const oct_tensor *x, const oct_tensor *w_hh,
                                    const oct_tensor *rows, const oct_tensor *order,
                                    int64_t sequences, int64_t steps, int64_t directions,
                                    oct_dropout_mask mask)
{
    const int32_t *at = oct_i32(order);
    return (oct_recurrent_shape){
        .cell = cell, .bf16 = bf16, .tokens = tokens_of(x, rows), .sequences = sequences,
        .steps = steps, .rows = rows ? oct_i32(rows) : NULL, .x_rows = x->shape[0],
        .inputs = x->shape[1], .hidden = w_hh->shape[1], .directions = directions, .order = at,
        .begin = at + sequences, .first = at + 2 * sequences, .dropout = mask,
        .dropout_stride = (x->shape[1] + 7) / 8 * 8,
    };
}

static float *f32_or_null(const oct_tensor *t) { return t ? oct_f32(t) : NULL; }

static void weights_of(oct_recurrent_weights weights[2], oct_tensor *const *inputs,
                       int64_t directions)
{
    for (int64_t d = 0; d < directions; d++) {
        oct_tensor *const *of = inputs + WEIGHTS + d * WEIGHTS_EACH;
        weights[d] = (oct_recurrent_weights){oct_f32(of[W_IH]), oct_f32(of[W_HH]),
                                             f32_or_null(of[B_IH]), f32_or_null(of[B_HH])};
    }
}

/* ---- back ------------------------------------------------------------------------------------ */

static int recurrent_step(oct_node *node)
{
    oct_tensor *const *inputs = node->inputs;
    int64_t directions = (node->count - WEIGHTS) / WEIGHTS_EACH;
    oct_dropout_mask mask = {node->numbers[0], node->random_seed, node->random_offset};
    oct_recurrent_shape shape = shape_of(
        (int)node->integers[CELL], (int)node->integers[IN_BF16], inputs[X],
        inputs[WEIGHTS + W_HH], node->saved[ROWS], node->saved[ORDER],
        node->integers[SEQUENCES], node->integers[STEPS], directions, mask);
    oct_recurrent_weights weights[2];
    weights_of(weights, inputs, directions);
    oct_recurrent_gradients g = {
        .dy = oct_grad_of(node->output), .dc = oct_grad_of(node->also[2]),
        .dh_n = oct_grad_of(node->also[0]), .dc_n = oct_grad_of(node->also[1]),
    };
    OCT_TRY(oct_grad_slot(&g.dx, &g.add_x, inputs[X]));
    OCT_TRY(oct_grad_slot(&g.dh_0, &g.add_h_0, inputs[H_0]));
    OCT_TRY(oct_grad_slot(&g.dc_0, &g.add_c_0, inputs[C_0]));
    for (int64_t d = 0; d < directions; d++) {
        oct_tensor *const *of = inputs + WEIGHTS + d * WEIGHTS_EACH;
        OCT_TRY(oct_grad_slot(&g.dw_ih[d], &g.add_w_ih[d], of[W_IH]));
        OCT_TRY(oct_grad_slot(&g.dw_hh[d], &g.add_w_hh[d], of[W_HH]));
        OCT_TRY(oct_grad_slot(&g.db_ih[d], &g.add_b_ih[d], of[B_IH]));
        OCT_TRY(oct_grad_slot(&g.db_hh[d], &g.add_b_hh[d], of[B_HH]));
    }
    return oct_kernels_now()->recurrent_backward(
        &g, oct_f32(node->saved[GATES]), f32_or_null(node->saved[CELLS]), oct_f32(inputs[X]),
        oct_f32(node->output), f32_or_null(inputs[H_0]), f32_or_null(inputs[C_0]), weights,
        &shape);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static const char *cell_name(int cell) { return cell == OCT_GRU ? "gru" : "lstm"; }

static int check_weights(const char *op, oct_tensor *const *of, int64_t gates, int64_t inputs,
                         int64_t hidden)
{
    static const char *const names[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    const int64_t columns[] = {inputs, hidden, 0, 0};
    for (int i = 0; i < WEIGHTS_EACH; i++) {
        if (!of[i] && i >= B_IH) continue;
        OCT_TRY(oct_check(of[i], op, names[i], OCT_F32));
        int ndim = i >= B_IH ? 1 : 2;
        if (of[i]->ndim == ndim && of[i]->shape[0] == gates * hidden
            && (ndim == 1 || of[i]->shape[1] == columns[i]))
            continue;
        if (ndim == 1)
            return oct_fail("%s: %s is %s, expected [%lld]", op, names[i], oct_shape_text(of[i]),
                            (long long)(gates * hidden));
        return oct_fail("%s: %s is %s, expected [%lld x %lld]", op, names[i],
                        oct_shape_text(of[i]), (long long)(gates * hidden), (long long)columns[i]);
    }
    return 0;
}

static int check_state(const char *op, const char *name, const oct_tensor *state,
                       int64_t directions, int64_t sequences, int64_t hidden)
{
    if (!state) return 0;
    OCT_TRY(oct_check(state, op, name, OCT_F32));
    if (state->ndim == 3 && state->shape[0] == directions && state->shape[1] == sequences
        && state->shape[2] == hidden)
        return 0;
    return oct_fail("%s: %s is %s, expected [%lld x %lld x %lld] (directions, sequences, hidden)",
                    op, name, oct_shape_text(state), (long long)directions, (long long)sequences,
                    (long long)hidden);
}

static int check_rows(const char *op, const oct_tensor *x, const oct_tensor *rows, float p)
{
    if (!rows) return 0;
    OCT_TRY(oct_check(rows, op, "rows", OCT_I32));
    if (p > 0.0f) return oct_fail("%s: dropout of x goes with a row for each token", op);
    const int32_t *at = oct_i32(rows);
    for (int64_t t = 0; t < rows->size; t++)
        if (at[t] < 0 || at[t] >= x->shape[0])
            return oct_fail("%s: token %lld is row %d of x, expected 0 to %lld", op,
                            (long long)t + 1, at[t], (long long)x->shape[0] - 1);
    return 0;
}

static int check_recurrent(int cell, oct_tensor *const *inputs, const oct_tensor *rows,
                           const oct_tensor *offsets, int64_t directions, float p, int64_t *steps)
{
    const char *op = cell_name(cell);
    const oct_tensor *x = inputs[X], *w_hh = inputs[WEIGHTS + W_HH];
    OCT_TRY(oct_check(x, op, "x", OCT_F32));
    if (x->ndim != 2) return oct_fail("%s: x is %s, expected [tokens x inputs]", op,
                                      oct_shape_text(x));
    OCT_TRY(oct_check(w_hh, op, "weight_hh", OCT_F32));
    if (w_hh->ndim != 2)
        return oct_fail("%s: weight_hh is %s, expected a matrix", op, oct_shape_text(w_hh));
    int64_t hidden = w_hh->shape[1], gates = cell == OCT_GRU ? 3 : 4;
    for (int64_t d = 0; d < directions; d++)
        OCT_TRY(check_weights(op, inputs + WEIGHTS + d * WEIGHTS_EACH, gates, x->shape[1],
                              hidden));
    OCT_TRY(check_rows(op, x, rows, p));
    OCT_TRY(oct_check_offsets(op, offsets, tokens_of(x, rows), steps));
    OCT_TRY(check_state(op, "h_0", inputs[H_0], directions, offsets->size - 1, hidden));
    OCT_TRY(check_state(op, "c_0", inputs[C_0], directions, offsets->size - 1, hidden));
    if (!(p >= 0.0f && p < 1.0f)) return oct_fail("%s: p must be at least 0 and below 1", op);
    return 0;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* All that a call makes; what is left of it is released together. */
typedef struct results {
    oct_tensor *y, *h_n, *c_n, *c, *order, *gates, *cells;
} results;

static void release_results(results *r)
{
    oct_tensor_release(r->y);
    oct_tensor_release(r->h_n);
    oct_tensor_release(r->c_n);
    oct_tensor_release(r->c);
    oct_tensor_release(r->order);
    oct_tensor_release(r->gates);
    oct_tensor_release(r->cells);
    *r = (results){0};
}

static int make_results(results *r, int cell, int with_c, int records, int64_t tokens,
                        const oct_tensor *offsets, int64_t hidden, int64_t directions,
                        int64_t steps)
{
    const int64_t sequences = offsets->size - 1;
    const int64_t width = oct_recurrent_width(hidden);
    const int64_t y[] = {tokens, directions * hidden}, state[] = {directions, sequences, hidden};
    const int64_t gates[] = {directions, tokens, 4 * width}, cells[] = {directions, tokens, width};
    const int lstm = cell == OCT_LSTM;
    int made = (r->y = oct_tensor_make(OCT_F32, 2, y, OCT_ACTIVATIONS))
        && (r->h_n = oct_tensor_make(OCT_F32, 3, state, OCT_ACTIVATIONS))
        && (!lstm || (r->c_n = oct_tensor_make(OCT_F32, 3, state, OCT_ACTIVATIONS)))
        && (!with_c || (r->c = oct_tensor_make(OCT_F32, 2, y, OCT_ACTIVATIONS)))
        && (r->order = walk_order(oct_i32(offsets), sequences, steps))
        && (!records || (r->gates = oct_tensor_make(OCT_F32, 3, gates, OCT_ACTIVATIONS)))
        && (!records || !lstm
            || (r->cells = oct_tensor_make(OCT_F32, 3, cells, OCT_ACTIVATIONS)));
    return made ? 0 : -1;
}

static int record(const results *r, oct_tensor *const *inputs, int64_t count, oct_tensor *rows,
                  const oct_recurrent_shape *shape)
{
    oct_node *node = oct_tape_add(recurrent_step, r->y, inputs, count);
    if (!node) return -1;
    oct_tape_also(node, r->h_n);
    if (r->c_n) oct_tape_also(node, r->c_n);
    if (r->c) oct_tape_also(node, r->c);
    node->saved[ORDER] = oct_tensor_retain(r->order);
    node->saved[GATES] = oct_tensor_retain(r->gates);
    node->saved[CELLS] = oct_tensor_retain(r->cells);
    node->saved[ROWS] = oct_tensor_retain(rows);
    node->integers[CELL] = shape->cell;
    node->integers[IN_BF16] = shape->bf16;
    node->integers[SEQUENCES] = shape->sequences;
    node->integers[STEPS] = shape->steps;
    node->numbers[0] = shape->dropout.p;
    node->random_seed = shape->dropout.seed;
    node->random_offset = shape->dropout.offset;
    return 0;
}

static int recurrent(results *r, int cell, int with_c, oct_tensor *x, oct_tensor *rows,
                     oct_tensor *offsets, oct_tensor *h_0, oct_tensor *c_0, oct_tensor **given,
                     int64_t directions, float p)
{
    oct_tensor *inputs[MOST_INPUTS] = {x, h_0, c_0};
    const int64_t count = WEIGHTS + directions * WEIGHTS_EACH;
    int64_t steps;
    if (directions != 1 && directions != 2)
        return oct_fail("%s: %lld directions, expected 1 or 2", cell_name(cell),
                        (long long)directions);
    memcpy(inputs + WEIGHTS, given, (size_t)(directions * WEIGHTS_EACH) * sizeof *given);
    OCT_TRY(check_recurrent(cell, inputs, rows, offsets, directions, p, &steps));
    const oct_tensor *w_hh = inputs[WEIGHTS + W_HH];
    const int records = oct_records(inputs, count);
    int precision;
    oct_precision(&precision);
    OCT_TRY(make_results(r, cell, with_c, records, tokens_of(x, rows), offsets, w_hh->shape[1],
                         directions, steps));
    oct_dropout_mask mask = {p, oct_random_seed(), 0};
    if (p > 0.0f)
        mask.offset = oct_random_take(OCT_STREAM_DROPOUT,
                                      (uint64_t)(x->shape[0] * ((x->shape[1] + 7) / 8)));
    const oct_recurrent_shape shape = shape_of(cell, precision == OCT_BF16, x, w_hh, rows, r->order,
                                               offsets->size - 1, steps, directions, mask);
    oct_recurrent_weights weights[2];
    weights_of(weights, inputs, directions);
    OCT_TRY(oct_kernels_now()->recurrent(
        oct_f32(r->y), f32_or_null(r->c), oct_f32(r->h_n), f32_or_null(r->c_n),
        f32_or_null(r->gates), f32_or_null(r->cells), oct_f32(x), f32_or_null(h_0),
        f32_or_null(c_0), weights, &shape));
    return records ? record(r, inputs, count, rows, &shape) : 0;
}

int oct_lstm(oct_tensor **y, oct_tensor **h_n, oct_tensor **c_n, oct_tensor **c, oct_tensor *x,
             oct_tensor *rows, oct_tensor *offsets, oct_tensor *h_0, oct_tensor *c_0,
             oct_tensor **weights, int64_t directions, float p)
{
    results r = {0};
    int status = recurrent(&r, OCT_LSTM, c != NULL, x, rows, offsets, h_0, c_0, weights, directions,
                           p);
    if (status == 0) {
        *y = oct_tensor_retain(r.y);
        *h_n = oct_tensor_retain(r.h_n);
        *c_n = oct_tensor_retain(r.c_n);
        if (c) *c = oct_tensor_retain(r.c);
    }
    release_results(&r);
    return status;
}

int oct_gru(oct_tensor **y, oct_tensor **h_n, oct_tensor *x, oct_tensor *rows, oct_tensor *offsets,
            oct_tensor *h_0, oct_tensor **weights, int64_t directions, float p)
{
    results r = {0};
    int status = recurrent(&r, OCT_GRU, 0, x, rows, offsets, h_0, NULL, weights, directions, p);
    if (status == 0) {
        *y = oct_tensor_retain(r.y);
        *h_n = oct_tensor_retain(r.h_n);
    }
    release_results(&r);
    return status;
}
