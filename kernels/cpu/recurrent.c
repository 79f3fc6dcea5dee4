/* recurrent.c - a layer of an LSTM or a GRU over packed sequences, and its gradient.
 *
 * The steps are cut into chunks whose gates fit the second-level caches. A chunk's rows of x are
 * gathered, one product by oneDNN gives what they add to the gates, and while that is in cache the
 * steps are walked; on the way back the steps come first, and then the products for the gradients
 * of x and of the weights. Both directions are walked at once, each in its own order of chunks.
 * Where there are as many threads as directions, each thread does all of its direction by itself:
 * threads that meet at every product wait for each other, 10 % of the time of two.
 *
 * Where tokens share rows of x, what a row adds to the gates is one product for all its tokens,
 * before the first chunk; on the way back the gradients of a row's gates are summed over its
 * tokens, and the products follow the last chunk. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/octet.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/recurrent_layer.h"

/* Recurrent weights of more floats are parted between the threads. */
enum { WEIGHTS_FOR_ONE = 1 << 16 };

void KERNEL(round_bf16)(uint16_t *y, const float *x, int64_t n);
void KERNEL(dropout)(float *y, const float *x, int64_t n, oct_dropout_mask mask, int accumulate);
void KERNEL(fill)(float *y, int64_t n, float value);
void KERNEL(embedding_backward)(float *dtable, const float *dy, const int32_t *ids, int64_t rows,
                                int64_t width);

/* ---- the threads ----------------------------------------------------------------------------- */

/* Behind a chunk: which of the two states the next step reads. */
static void turn_around(walk *k) { k->turn ^= (int)(k->to - k->from) & 1; }

static void walk_part(layer *l, int d, part p)
{
    if (l->g) walk_back(&l->walks[d], &p);
    else walk_forward(&l->walks[d], &p);
}

/* All walks over their chunks. */
static void walk_chunks(layer *l)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t directions = shape->directions;
    const int64_t work = chunk_rows(&l->walks[0]) * l->width * shape->hidden;
    meeting meetings[2];
    for (int d = 0; d < 2; d++) {
        atomic_init(&meetings[d].waiting, 0);
        atomic_init(&meetings[d].number, 0);
    }
#pragma omp parallel if (work > SERIAL_BELOW)
    {
        const int64_t threads = omp_get_num_threads();
        const int64_t parts = threads > directions ? threads / directions : 1;
        const int by_units = parts > 1 && (shape->sequences < 2 * parts ||
                                           SLOTS * l->width * l->width > WEIGHTS_FOR_ONE);
        for (int64_t i = omp_get_thread_num(); i < directions * parts; i += threads) {
            const int64_t d = i % directions;
            walk_part(l, (int)d, (part){i / directions, parts, by_units, &meetings[d]});
        }
    }
    for (int d = 0; d < directions; d++) turn_around(&l->walks[d]);
}

/* The walk of a direction over its chunk, by the thread at hand. */
static void walk_alone(layer *l, int d)
{
    walk_part(l, d, (part){.number = 0, .parts = 1});
    turn_around(&l->walks[d]);
}

/* Is there a thread for each direction, and nothing that they would have to share? */
static int can_part(const layer *l)
{
    const oct_recurrent_shape *shape = l->shape;
    return shape->directions > 1 && omp_get_max_threads() == shape->directions &&
           !omp_in_parallel() && (shape->rows || together(l)) &&
           shape->tokens * l->width * shape->hidden > SERIAL_BELOW;
}

/* body(l, d) for each direction, side by side. */
static int in_parts(layer *l, int (*body)(layer *l, int d))
{
    int status = 0;
    char text[1024];
#pragma omp parallel for schedule(static, 1)
    for (int d = 0; d < l->shape->directions; d++)
        if (body(l, d) != 0) {
#pragma omp critical
            {
                /* A thread's error text is its own. */
                snprintf(text, sizeof text, "%s", oct_last_error());
                status = -1;
            }
        }
    return status == 0 ? 0 : oct_fail("%s", text);
}

/* ---- rows of a chunk ------------------------------------------------------------------------- */

/* Run the body for each row of the chunk: `row` of step `t`, number `place` in the chunk. */
#define FOR_CHUNK_ROWS(k, t, row, place, ...)                                                      \
    do {                                                                                           \
        const int parallel_ = (k)->to - (k)->from > 1;                                             \
        _Pragma(                                                                                   \
            "omp parallel for schedule(static) if (parallel_)") for (int64_t t = (k)->from;        \
                                                                     t < (k)->to;                  \
                                                                     t++) for (int64_t row = 0,    \
                                                                               rows_ = rows_of(    \
                                                                                   (k)->shape, t,  \
                                                                                   t + 1),         \
                                                                               place = rows_of(    \
                                                                                   (k)->shape,     \
                                                                                   (k)->from, t);  \
                                                                               row < rows_;        \
                                                                               row++, place++)     \
        {                                                                                          \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

/* The mask's part for a row of x. */
static oct_dropout_mask mask_of(const oct_recurrent_shape *shape, int64_t token)
{
    oct_dropout_mask mask = shape->dropout;
    mask.offset += (uint64_t)(token * shape->dropout_stride) / 8;
    return mask;
}

/* l->factors = rows of x as a product takes them. */
static void as_factors(layer *l, const float *x, int64_t rows)
{
    if (l->rounded) KERNEL(round_bf16)(l->rounded, x, rows * l->shape->inputs);
    l->factors = l->rounded ? (const void *)l->rounded : x;
}

/* The same of the chunk's rows, dropped out. */
static void gather_x(layer *l, const walk *k)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t inputs = shape->inputs;
    const int drops = shape->dropout.p > 0;
    FOR_CHUNK_ROWS(k, t, row, place, {
        const int64_t token = token_of(k, t, row);
        const float *from = l->x + token * inputs;
        float *to = l->rows + place * inputs;
        if (drops)
            KERNEL(dropout)(to, from, inputs, mask_of(shape, token), 0);
        else
            memcpy(to, from, (size_t)inputs * sizeof *to);
    });
    as_factors(l, l->rows, chunk_rows(k));
}

/* The same of all the call's rows, where no chunk takes others. */
static void gather_shared_x(layer *l)
{
    if (l->shape->rows) {
        as_factors(l, l->x, l->shape->x_rows);
    } else if (together(l)) {
        enter_chunk(l, 0, 0);
        gather_x(l, &l->walks[0]);
    }
}

/* dx (+)= the chunk's rows in l->rows. */
static void scatter_dx(const layer *l, const walk *k, float *dx, int add)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t inputs = shape->inputs;
    const int drops = shape->dropout.p > 0;
    FOR_CHUNK_ROWS(k, t, row, place, {
        const int64_t token = token_of(k, t, row);
        const float *from = l->rows + place * inputs;
        float *to = dx + token * inputs;
        if (drops)
            KERNEL(dropout)(to, from, inputs, mask_of(shape, token), add);
        else if (add)
            for (int64_t i = 0; i < inputs; i++) to[i] += from[i];
        else
            memcpy(to, from, (size_t)inputs * sizeof *to);
    });
}

/* The rows of x that the chunk's tokens are, by their places. */
static const int32_t *rows_of_places(layer *l, int d)
{
    const walk *k = &l->walks[d];
    int32_t *to = l->row_of_place[d];
    FOR_CHUNK_ROWS(k, t, row, place, { to[place] = k->shape->rows[token_of(k, t, row)]; });
    return to;
}

/* k->before = h before each token of the chunk: y of the token before it, or h_0. */
static void gather_before(const layer *l, const walk *k, const float *h_0)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t hidden = shape->hidden, width = l->width;
    FOR_CHUNK_ROWS(k, t, row, place, {
        const int64_t token = token_of(k, t, row);
        const int inside =
            k->reverse ? t + 1 < shape->steps && row < rows_of(shape, t + 1, t + 2) : t > 0;
        const float *from = inside ? k->y + (k->reverse ? token + 1 : token - 1) * k->y_row
                            : h_0  ? h_0 + shape->order[row] * hidden
                                   : NULL;
        float *to = k->before + place * width;
        if (from) memcpy(to, from, (size_t)hidden * sizeof *to);
        const int64_t filled = from ? hidden : 0;
        if (filled < width) memset(to + filled, 0, (size_t)(width - filled) * sizeof *to);
    });
}

/* ---- forward --------------------------------------------------------------------------------- */

/* w_ih in the order of the rows, as a product takes it. */
static void order_w_ih(layer *l, int d)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t n = SLOTS * l->width * shape->inputs;
    float *ordered = l->ordered[d] ? l->ordered[d] : l->w_ih[d];
    order_rows(ordered, l->weights[d].w_ih, shape->cell, FROM_X, shape->hidden, shape->inputs);
    if (shape->bf16) KERNEL(round_bf16)((uint16_t *)l->w_ih[d], ordered, n);
}

/* gates[rows x 4 width] = what l->factors, rows of x, add to the gates. */
static int gates_of_x(const layer *l, int d, float *gates, int64_t rows)
{
    const oct_recurrent_shape *shape = l->shape;
    return oct_product(gates, l->factors, l->w_ih[d], l->biases[d], rows, SLOTS * l->width,
                       shape->inputs, 0, 1, 0, shape->bf16);
}

static int begin_forward(layer *l, int d)
{
    const oct_recurrent_shape *shape = l->shape;
    const oct_recurrent_weights *w = &l->weights[d];
    const int64_t hidden = shape->hidden;
    const float *h_0 = states_of(l->h_0, shape, d);
    walk *k = &l->walks[d];
    order_w_ih(l, d);
    order_biases(l->biases[d], w->b_ih, w->b_hh, shape->cell, hidden);
    pack_forward(k->weights, w->w_hh, shape->cell, hidden, shape->bf16);
    load_states(k->factors[0], h_0, k, shape->bf16);
    load_states(k->factors[1], h_0, k, shape->bf16);
    load_states(k->carry, shape->cell == OCT_GRU ? h_0 : states_of(l->c_0, shape, d), k, 0);
    k->y = l->y + d * hidden;
    k->c = l->c ? l->c + d * hidden : NULL;
    k->y_row = shape->directions * hidden;
    k->table = l->table[d];
    return shape->rows ? gates_of_x(l, d, l->table[d], shape->x_rows) : 0;
}

/* To a round's chunk, whose gates start as what x adds to them, unless that stands in a table. */
static int begin_chunk(layer *l, int d, int64_t round)
{
    const oct_recurrent_shape *shape = l->shape;
    walk *k = &l->walks[d];
    enter_chunk(l, d, round);
    const int64_t at = d * shape->tokens + shape->first[k->from];
    k->gates = l->all_gates ? l->all_gates + at * SLOTS * l->width : l->gates[d];
    k->kept_cells = l->all_cells ? l->all_cells + at * l->width : NULL;
    if (shape->rows) return 0;
    if (!together(l)) gather_x(l, k);
    return gates_of_x(l, d, k->gates, chunk_rows(k));
}

static void end_forward(layer *l, int d)
{
    const oct_recurrent_shape *shape = l->shape;
    const walk *k = &l->walks[d];
    float *h_n = states_of(l->h_n, shape, d);
    if (l->c_n) store_states(states_of(l->c_n, shape, d), k->carry, k, 0);
    for (int64_t row = 0; row < shape->sequences; row++) {
        const int64_t token = d ? shape->begin[row] : last_token(shape, row);
        memcpy(h_n + shape->order[row] * shape->hidden, k->y + token * k->y_row,
               (size_t)shape->hidden * sizeof *h_n);
    }
}

static int forward_alone(layer *l, int d)
{
    OCT_TRY(begin_forward(l, d));
    for (int64_t round = 0; round < l->chunks; round++) {
        OCT_TRY(begin_chunk(l, d, round));
        walk_alone(l, d);
    }
    end_forward(l, d);
    return 0;
}

static int forward_together(layer *l)
{
    const int directions = (int)l->shape->directions;
    for (int d = 0; d < directions; d++) OCT_TRY(begin_forward(l, d));
    for (int64_t round = 0; round < l->chunks; round++) {
        for (int d = 0; d < directions; d++) OCT_TRY(begin_chunk(l, d, round));
        walk_chunks(l);
    }
    for (int d = 0; d < directions; d++) end_forward(l, d);
    return 0;
}

static int forward(layer *l)
{
    gather_shared_x(l);
    return can_part(l) ? in_parts(l, forward_alone) : forward_together(l);
}

int KERNEL(recurrent)(float *y, float *c, float *h_n, float *c_n, float *gates, float *cells,
                      const float *x, const float *h_0, const float *c_0,
                      const oct_recurrent_weights *weights, const oct_recurrent_shape *shape)
{
    layer l = {.shape = shape, .weights = weights, .x = x, .h_0 = h_0, .c_0 = c_0, .y = y, .c = c,
               .h_n = h_n, .c_n = c_n, .all_gates = gates, .all_cells = cells};
    size_t bytes;
    void *block = open_layer(&l, &bytes);
    if (!block) return -1;
    const int status = forward(&l);
    oct_block_free(block, bytes, OCT_WORKSPACE);
    return status;
}

/* ---- back ------------------------------------------------------------------------------------ */

/* sums[columns] (+)= the sums down x[rows x columns], in runs of 64 rows. */
static void add_column_sums(float *sums, const float *x, int64_t rows, int64_t columns, int add)
{
    enum { STRIP = 4 * LANES, RUN_ROWS = 64 };
    if (!add) memset(sums, 0, (size_t)columns * sizeof *sums);
#pragma omp parallel for schedule(static) if (rows * columns > SERIAL_BELOW)
    for (int64_t from = 0; from < columns; from += STRIP) {
        const int64_t vectors = columns - from < STRIP ? (columns - from) / LANES : STRIP / LANES;
        for (int64_t first = 0; first < rows; first += RUN_ROWS) {
            const int64_t end = first + RUN_ROWS < rows ? first + RUN_ROWS : rows;
            vf sum[STRIP / LANES] = {{0}};
            for (int64_t r = first; r < end; r++)
                for (int64_t v = 0; v < vectors; v++)
                    sum[v] += vf_load(x + r * columns + from + v * LANES);
            for (int64_t v = 0; v < vectors; v++) {
                float *at = sums + from + v * LANES;
                vf_store(at, vf_load(at) + sum[v]);
            }
        }
    }
}

/* A chunk's gradients of the gates as a product takes them. */
static const void *dgates_factor(const layer *l, int d)
{
    return l->shape->bf16 ? (const void *)l->dgates_factor[d] : l->walks[d].dgates;
}

static const void *table_factor(const layer *l, int d)
{
    return l->shape->bf16 ? (const void *)l->table_factor[d] : l->table[d];
}

/* dw_ih (+)= dgates[rows x 4 width]^T l->factors, and the biases' part. */
static int add_to_weights(layer *l, int d, const float *dgates, const void *factor, int64_t rows,
                          int add)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t depth = SLOTS * l->width;
    if (l->g->db_ih[d] || l->g->db_hh[d])
        add_column_sums(l->dbiases[d], dgates, rows, depth, add);
    if (!l->g->dw_ih[d]) return 0;
    return oct_product(l->dw_ih[d], factor, l->factors, NULL, depth, shape->inputs, rows, 1, 0, add,
                       shape->bf16);
}

static void begin_back(layer *l, int d)
{
    const oct_recurrent_shape *shape = l->shape;
    const oct_recurrent_gradients *g = l->g;
    const int64_t hidden = shape->hidden;
    walk *k = &l->walks[d];
    order_w_ih(l, d);
    if (shape->rows) KERNEL(fill)(l->table[d], shape->x_rows * SLOTS * l->width, 0);
    pack_backward(k->weights, l->weights[d].w_hh, shape->cell, hidden, shape->bf16);
    load_states(k->dh, states_of(g->dh_n, shape, d), k, 0);
    if (shape->cell == OCT_LSTM) {
        load_states(k->dc, states_of(g->dc_n, shape, d), k, 0);
        load_states(k->start, states_of(l->c_0, shape, d), k, 0);
        k->cells = l->all_cells + d * shape->tokens * l->width;
    }
    k->y = l->y + d * hidden;
    k->y_row = shape->directions * hidden;
    k->dy = g->dy ? g->dy + d * hidden : NULL;
    k->dc_of_each = g->dc ? g->dc + d * hidden : NULL;
}

/* To a round's chunk; the last one comes first. */
static void begin_chunk_back(layer *l, int d, int64_t round)
{
    const oct_recurrent_shape *shape = l->shape;
    walk *k = &l->walks[d];
    enter_chunk(l, d, l->chunks - 1 - round);
    k->gates = l->all_gates + (d * shape->tokens + shape->first[k->from]) * SLOTS * l->width;
    if (shape->cell == OCT_GRU || l->g->dw_hh[d])
        gather_before(l, k, states_of(l->h_0, shape, d));
}

/* What a chunk that has been walked back adds to the gradients of the weights, or of the rows that
 * its tokens share. */
static int end_chunk_back(layer *l, int d, int64_t round)
{
    const oct_recurrent_shape *shape = l->shape;
    walk *k = &l->walks[d];
    const int64_t rows = chunk_rows(k), depth = SLOTS * l->width;
    const void *before = k->before;
    if (shape->bf16) {
        KERNEL(round_bf16)(l->dgates_factor[d], k->dgates, rows * depth);
        KERNEL(round_bf16)(l->before_factor[d], k->before, rows * l->width);
        before = l->before_factor[d];
    }
    if (l->g->dw_hh[d])
        OCT_TRY(oct_product(l->dw_hh[d], dgates_factor(l, d), before, NULL, depth, l->width, rows,
                            1, 0, round > 0, shape->bf16));
    if (shape->rows) {
        KERNEL(embedding_backward)(l->table[d], k->dgates, rows_of_places(l, d), rows, depth);
        return 0;
    }
    if (!together(l) && l->g->dw_ih[d]) gather_x(l, k);
    return add_to_weights(l, d, k->dgates, dgates_factor(l, d), rows, round > 0);
}

static void bias_back(float *db, const float *sums, const oct_recurrent_shape *shape, int from,
                      int add)
{
    if (db) order_rows_back(db, sums, 1, shape->cell, from, shape->hidden, 1, add);
}

/* What the chunks have summed up, to where it belongs. */
static int end_back(layer *l, int d)
{
    const oct_recurrent_shape *shape = l->shape;
    const oct_recurrent_gradients *g = l->g;
    const walk *k = &l->walks[d];
    const int64_t hidden = shape->hidden, inputs = shape->inputs;
    if (shape->rows) {
        if (shape->bf16)
            KERNEL(round_bf16)(l->table_factor[d], l->table[d],
                               shape->x_rows * SLOTS * l->width);
        OCT_TRY(add_to_weights(l, d, l->table[d], table_factor(l, d), shape->x_rows, 0));
    }
    if (g->dw_ih[d])
        order_rows_back(g->dw_ih[d], l->dw_ih[d], inputs, shape->cell, FROM_X, hidden, inputs,
                        g->add_w_ih[d]);
    if (g->dw_hh[d])
        order_rows_back(g->dw_hh[d], l->dw_hh[d], l->width, shape->cell, FROM_H, hidden, hidden,
                        g->add_w_hh[d]);
    bias_back(g->db_ih[d], l->dbiases[d], shape, FROM_X, g->add_b_ih[d]);
    bias_back(g->db_hh[d], l->dbiases[d], shape, FROM_H, g->add_b_hh[d]);
    if (g->dh_0) store_states(states_of(g->dh_0, shape, d), k->dh, k, g->add_h_0);
    if (g->dc_0) store_states(states_of(g->dc_0, shape, d), k->dc, k, g->add_c_0);
    return 0;
}

/* What the chunks that have been walked back add to the gradient of x. */
static int add_to_dx(layer *l)
{
    const oct_recurrent_shape *shape = l->shape;
    const oct_recurrent_gradients *g = l->g;
    if (!g->dx || shape->rows) return 0;
    for (int d = 0; d < shape->directions; d++) {
        const walk *k = &l->walks[d];
        OCT_TRY(oct_product(l->rows, dgates_factor(l, d), l->w_ih[d], NULL, chunk_rows(k),
                            shape->inputs, SLOTS * l->width, 0, 0, together(l) && d > 0,
                            shape->bf16));
        if (!together(l) || d == shape->directions - 1)
            scatter_dx(l, k, g->dx, g->add_x || (shape->directions > 1 && !together(l)));
    }
    return 0;
}

/* The same where tokens share rows of x, behind the last chunk. */
static int add_tables_to_dx(layer *l)
{
    const oct_recurrent_shape *shape = l->shape;
    if (!l->g->dx || !shape->rows) return 0;
    for (int d = 0; d < shape->directions; d++)
        OCT_TRY(oct_product(l->g->dx, table_factor(l, d), l->w_ih[d], NULL, shape->x_rows,
                            shape->inputs, SLOTS * l->width, 0, 0, l->g->add_x || d > 0,
                            shape->bf16));
    return 0;
}

static int back_alone(layer *l, int d)
{
    begin_back(l, d);
    for (int64_t round = 0; round < l->chunks; round++) {
        begin_chunk_back(l, d, round);
        walk_alone(l, d);
        OCT_TRY(end_chunk_back(l, d, round));
    }
    return end_back(l, d);
}

static int back_together(layer *l)
{
    const oct_recurrent_shape *shape = l->shape;
    const int directions = (int)shape->directions;
    if (l->g->dx && directions > 1 && !l->g->add_x && !shape->rows && !together(l))
        KERNEL(fill)(l->g->dx, shape->tokens * shape->inputs, 0);
    for (int d = 0; d < directions; d++) begin_back(l, d);
    for (int64_t round = 0; round < l->chunks; round++) {
        for (int d = 0; d < directions; d++) begin_chunk_back(l, d, round);
        walk_chunks(l);
        for (int d = 0; d < directions; d++) OCT_TRY(end_chunk_back(l, d, round));
        if (!together(l)) OCT_TRY(add_to_dx(l));
    }
    for (int d = 0; d < directions; d++) OCT_TRY(end_back(l, d));
    return 0;
}

static int back(layer *l)
{
    if (l->g->dw_ih[0] || l->g->dw_ih[1]) gather_shared_x(l);
    OCT_TRY(can_part(l) ? in_parts(l, back_alone) : back_together(l));
    if (together(l)) OCT_TRY(add_to_dx(l));
    return add_tables_to_dx(l);
}

int KERNEL(recurrent_backward)(const oct_recurrent_gradients *g, const float *gates,
                               const float *cells, const float *x, const float *y, const float *h_0,
                               const float *c_0, const oct_recurrent_weights *weights,
                               const oct_recurrent_shape *shape)
{
    layer l = {.shape = shape, .weights = weights, .g = g, .x = x, .h_0 = h_0, .c_0 = c_0,
               .y = (float *)y, .all_gates = (float *)gates, .all_cells = (float *)cells};
    size_t bytes;
    void *block = open_layer(&l, &bytes);
    if (!block) return -1;
    const int status = back(&l);
    oct_block_free(block, bytes, OCT_WORKSPACE);
    return status;
}
