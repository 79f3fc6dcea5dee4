/* recurrent.c - a layer of an LSTM or a GRU over packed sequences, and its gradient.
 *
 * The steps are cut into chunks whose gates fit the second-level caches. A chunk's rows of x are
 * gathered, one product by oneDNN gives what they add to the gates, and while that is in cache the
 * steps are walked; on the way back the steps come first, and then the products for the gradients
 * of x and of the weights. Both directions are walked at once, each in its own order of chunks.
 *
 * Where tokens share rows of x, what a row adds to the gates is one product for all its tokens,
 * before the first chunk; on the way back the gradients of a row's gates are summed over its
 * tokens, and the products follow the last chunk. */
#include <omp.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/recurrent_walk.h"

/* Of a chunk's gates, and rows below which a product would be too small. Half the size cost 3 %
 * more on two cores with 1 MiB each, for the threads meet more often. */
enum { CHUNK_BYTES = 2 << 20, CHUNK_ROWS = 512 };
/* Recurrent weights of more floats are parted between the threads. */
enum { WEIGHTS_FOR_ONE = 1 << 16 };

void KERNEL(round_bf16)(uint16_t *y, const float *x, int64_t n);
void KERNEL(dropout)(float *y, const float *x, int64_t n, oct_dropout_mask mask, int accumulate);
void KERNEL(fill)(float *y, int64_t n, float value);
void KERNEL(embedding_backward)(float *dtable, const float *dy, const int32_t *ids, int64_t rows,
                                int64_t width);

/* ---- chunks ---------------------------------------------------------------------------------- */

/* The end of the chunk that begins with step `from`. */
static int64_t chunk_end(const oct_recurrent_shape *shape, int64_t from)
{
    const int64_t fit = CHUNK_BYTES / (SLOTS * oct_recurrent_width(shape->hidden) * 4);
    const int64_t most = fit < CHUNK_ROWS ? CHUNK_ROWS : fit;
    int64_t to = from + 1;
    while (to < shape->steps && rows_of(shape, from, to + 1) <= most) to++;
    return to;
}

/* Sets ends[count] where it is not NULL; *rows: most of a chunk. Returns the number of chunks. */
static int64_t cut(const oct_recurrent_shape *shape, int32_t *ends, int64_t *rows)
{
    int64_t count = 0;
    *rows = 0;
    for (int64_t from = 0, to; from < shape->steps; from = to, count++) {
        to = chunk_end(shape, from);
        if (ends) ends[count] = (int32_t)to;
        if (rows_of(shape, from, to) > *rows) *rows = rows_of(shape, from, to);
    }
    return count;
}

/* A call's memory, taken from one block. */
typedef struct room {
    char *base; /* NULL while it is measured */
    size_t used;
} room;

static void *take(room *r, int64_t count, size_t bytes)
{
    void *at = r->base ? r->base + r->used : NULL;
    r->used += ((size_t)count * bytes + 63) / 64 * 64;
    return at;
}

static float *take_floats(room *r, int64_t count) { return take(r, count, sizeof(float)); }

/* A layer's call. */
typedef struct layer {
    const oct_recurrent_shape *shape;
    const oct_recurrent_weights *weights;
    int64_t width, chunks, chunk_rows;
    int32_t *ends; /* [chunks]: step behind each */
    walk walks[2];
    float *w_ih[2];        /* [4 width x inputs], bf16 where wanted */
    float *ordered;        /* the same before it is rounded; NULL where it is not */
    float *biases[2];      /* [4 width] */
    float *rows, *factors; /* [chunk_rows x inputs]: of x, or of its gradient */
    /* Where tokens share rows of x. */
    int32_t *row_of_place; /* [chunk_rows] */
    float *table[2];       /* [x_rows x 4 width]: of each row the gates, or their gradients */
    uint16_t *x_factor, *table_factor; /* in bf16: x, and a table of gradients */
    /* Forward. */
    float *gates[2]; /* [chunk_rows x 4 width] where they are not kept */
    /* Back. */
    uint16_t *dgates_factor[2]; /* [chunk_rows x 4 width] in bf16 */
    uint16_t *before_factor;    /* [chunk_rows x width] in bf16 */
    float *dw_ih[2], *dw_hh[2]; /* [4 width x inputs], [4 width x width] */
    float *dbiases[2];          /* [4 width] */
} layer;

static void lay_out(layer *l, room *r, int keeps_gates, int backward)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t width = l->width, gates = SLOTS * width, inputs = shape->inputs;
    const int64_t states = shape->sequences * width, chunk = l->chunk_rows;
    const int bf16 = shape->bf16, gru = shape->cell == OCT_GRU;
    l->ends = take(r, l->chunks, sizeof *l->ends);
    if (shape->rows) {
        if (backward) l->row_of_place = take(r, chunk, sizeof *l->row_of_place);
        if (bf16) l->x_factor = take(r, shape->x_rows * inputs, 2);
        if (bf16 && backward) l->table_factor = take(r, shape->x_rows * gates, 2);
    } else {
        l->rows = take_floats(r, chunk * inputs);
        l->factors = bf16 ? take(r, chunk * inputs, 2) : l->rows;
    }
    l->ordered = bf16 ? take_floats(r, gates * inputs) : NULL;
    if (backward) {
        l->before_factor = bf16 ? take(r, chunk * width, 2) : NULL;
    }
    for (int d = 0; d < shape->directions; d++) {
        walk *k = &l->walks[d];
        *k = (walk){.shape = shape, .width = width, .reverse = d};
        l->w_ih[d] = take(r, gates * inputs, bf16 ? 2 : sizeof(float));
        if (shape->rows) l->table[d] = take_floats(r, shape->x_rows * gates);
        if (!backward) {
            l->biases[d] = take_floats(r, gates);
            k->weights = take_floats(r, packed_forward_floats(shape->cell, shape->hidden));
            k->factors[0] = take_floats(r, states);
            k->factors[1] = take_floats(r, states);
            k->carry = take_floats(r, states);
            l->gates[d] = keeps_gates ? NULL : take_floats(r, chunk * gates);
            continue;
        }
        k->weights = take_floats(r, packed_backward_floats(shape->hidden));
        k->dh = take_floats(r, states);
        k->dc = gru ? NULL : take_floats(r, states);
        k->start = gru ? NULL : take_floats(r, states);
        k->dgates = take_floats(r, chunk * gates);
        l->dgates_factor[d] = bf16 ? take(r, chunk * gates, 2) : NULL;
        k->before = take_floats(r, chunk * width);
        l->dw_ih[d] = take_floats(r, gates * inputs);
        l->dw_hh[d] = take_floats(r, gates * width);
        l->dbiases[d] = take_floats(r, gates);
    }
}

/* Makes room for a call; *bytes is to be given back. NULL where memory ends. */
static void *open_layer(layer *l, size_t *bytes, const oct_recurrent_shape *shape,
                        const oct_recurrent_weights *weights, int keeps_gates, int backward)
{
    memset(l, 0, sizeof *l);
    l->shape = shape;
    l->weights = weights;
    l->width = oct_recurrent_width(shape->hidden);
    l->chunks = cut(shape, NULL, &l->chunk_rows);
    room r = {NULL, 0};
    lay_out(l, &r, keeps_gates, backward);
    *bytes = r.used;
    r = (room){oct_block_new(*bytes, OCT_WORKSPACE), 0};
    if (!r.base) return NULL;
    lay_out(l, &r, keeps_gates, backward);
    cut(shape, l->ends, &l->chunk_rows);
    return r.base;
}

/* The chunk that direction d comes to in round `round` of a walk that starts with the first. */
static void enter_chunk(layer *l, int d, int64_t round)
{
    const int64_t chunk = d ? l->chunks - 1 - round : round;
    l->walks[d].from = chunk ? l->ends[chunk - 1] : 0;
    l->walks[d].to = l->ends[chunk];
}

/* Are all directions at the same chunk, and so at the same rows of x? */
static int together(const layer *l) { return l->chunks == 1; }

static int64_t chunk_rows(const walk *k) { return rows_of(k->shape, k->from, k->to); }

/* ---- states ---------------------------------------------------------------------------------- */

/* to[sequences x width], in the order of the walk, = from[sequences x hidden], zeros where NULL. */
static void load_states(float *to, const float *from, const walk *k, int bf16)
{
    const oct_recurrent_shape *shape = k->shape;
    memset(to, 0, (size_t)(shape->sequences * k->width) * sizeof *to);
    if (!from) return;
    for (int64_t row = 0; row < shape->sequences; row++)
        for (int64_t i = 0; i < shape->hidden; i++)
            to[row * k->width + i] = to_factor(from[shape->order[row] * shape->hidden + i], bf16);
}

static void store_states(float *to, const float *from, const walk *k, int add)
{
    const oct_recurrent_shape *shape = k->shape;
    for (int64_t row = 0; row < shape->sequences; row++) {
        float *at = to + shape->order[row] * shape->hidden;
        for (int64_t i = 0; i < shape->hidden; i++)
            at[i] = add ? at[i] + from[row * k->width + i] : from[row * k->width + i];
    }
}

/* Direction d's part of a tensor of states. */
static float *states_of(const float *states, const oct_recurrent_shape *shape, int d)
{
    return states ? (float *)states + d * shape->sequences * shape->hidden : NULL;
}

/* The first token of a sequence in the order of tokens, and the last. */
static int64_t last_token(const oct_recurrent_shape *shape, int64_t row)
{
    int64_t low = 0, high = shape->steps; /* its length: steps that have this row */
    while (low < high) {
        const int64_t t = (low + high) / 2;
        if (rows_of(shape, t, t + 1) > row)
            low = t + 1;
        else
            high = t;
    }
    return shape->begin[row] + low - 1;
}

/* ---- the threads ----------------------------------------------------------------------------- */

/* All walks over their chunks. */
static void walk_chunks(layer *l, int backward)
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
            const part p = {i / directions, parts, by_units, &meetings[d]};
            if (backward)
                walk_back(&l->walks[d], &p);
            else
                walk_forward(&l->walks[d], &p);
        }
    }
    for (int d = 0; d < directions; d++)
        l->walks[d].turn ^= (int)(l->walks[d].to - l->walks[d].from) & 1;
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

/* l->factors = the chunk's rows of x, dropped out, as a product takes them. */
static void gather_x(layer *l, const walk *k, const float *x)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t inputs = shape->inputs;
    const int drops = shape->dropout.p > 0;
    FOR_CHUNK_ROWS(k, t, row, place, {
        const int64_t token = token_of(k, t, row);
        float *to = l->rows + place * inputs;
        if (drops)
            KERNEL(dropout)(to, x + token * inputs, inputs, mask_of(shape, token), 0);
        else
            memcpy(to, x + token * inputs, (size_t)inputs * sizeof *to);
    });
    if (shape->bf16) KERNEL(round_bf16)((uint16_t *)l->factors, l->rows, chunk_rows(k) * inputs);
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
static const int32_t *rows_of_places(layer *l, const walk *k)
{
    FOR_CHUNK_ROWS(k, t, row, place,
                   { l->row_of_place[place] = k->shape->rows[token_of(k, t, row)]; });
    return l->row_of_place;
}

/* x as a product takes it, where tokens share its rows. */
static const void *shared_x(layer *l, const float *x)
{
    const oct_recurrent_shape *shape = l->shape;
    if (!shape->bf16) return x;
    KERNEL(round_bf16)(l->x_factor, x, shape->x_rows * shape->inputs);
    return l->x_factor;
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
    float *ordered = l->ordered ? l->ordered : l->w_ih[d];
    order_rows(ordered, l->weights[d].w_ih, shape->cell, FROM_X, shape->hidden, shape->inputs);
    if (shape->bf16) KERNEL(round_bf16)((uint16_t *)l->w_ih[d], ordered, n);
}

/* What the rows of x that tokens share add to their gates. */
static int fill_tables(layer *l, const float *x)
{
    const oct_recurrent_shape *shape = l->shape;
    const void *factors = shared_x(l, x);
    for (int d = 0; d < shape->directions; d++) {
        OCT_TRY(oct_product(l->table[d], factors, l->w_ih[d], l->biases[d], shape->x_rows,
                            SLOTS * l->width, shape->inputs, 0, 1, 0, shape->bf16));
        l->walks[d].table = l->table[d];
    }
    return 0;
}

/* k->gates = what x adds to the gates of the chunk's tokens, unless that stands in a table. */
static int start_gates(layer *l, int d, const float *x)
{
    const oct_recurrent_shape *shape = l->shape;
    const walk *k = &l->walks[d];
    if (shape->rows) return 0;
    if (d == 0 || !together(l)) gather_x(l, k, x);
    return oct_product(k->gates, l->factors, l->w_ih[d], l->biases[d], chunk_rows(k),
                       SLOTS * l->width, shape->inputs, 0, 1, 0, shape->bf16);
}

int KERNEL(recurrent)(float *y, float *c, float *h_n, float *c_n, float *gates, float *cells,
                      const float *x, const float *h_0, const float *c_0,
                      const oct_recurrent_weights *weights, const oct_recurrent_shape *shape)
{
    layer l;
    size_t bytes;
    void *block = open_layer(&l, &bytes, shape, weights, gates != NULL, 0);
    if (!block) return -1;
    const int64_t row_floats = SLOTS * l.width, hidden = shape->hidden;
    const int directions = (int)shape->directions, gru = shape->cell == OCT_GRU;
    for (int d = 0; d < directions; d++) {
        walk *k = &l.walks[d];
        order_w_ih(&l, d);
        order_biases(l.biases[d], weights[d].b_ih, weights[d].b_hh, shape->cell, hidden);
        pack_forward(k->weights, weights[d].w_hh, shape->cell, hidden, shape->bf16);
        load_states(k->factors[0], states_of(h_0, shape, d), k, shape->bf16);
        load_states(k->factors[1], states_of(h_0, shape, d), k, shape->bf16);
        load_states(k->carry, states_of(gru ? h_0 : c_0, shape, d), k, 0);
        k->y = y + d * hidden;
        k->c = c ? c + d * hidden : NULL;
        k->y_row = directions * hidden;
    }
    int status = shape->rows ? fill_tables(&l, x) : 0;
    for (int64_t round = 0; round < l.chunks && status == 0; round++) {
        for (int d = 0; d < directions && status == 0; d++) {
            walk *k = &l.walks[d];
            enter_chunk(&l, d, round);
            const int64_t at = d * shape->tokens + shape->first[k->from];
            k->gates = gates ? gates + at * row_floats : l.gates[d];
            k->kept_cells = cells ? cells + at * l.width : NULL;
            status = start_gates(&l, d, x);
        }
        if (status == 0) walk_chunks(&l, 0);
    }
    for (int d = 0; d < directions && status == 0; d++) {
        const walk *k = &l.walks[d];
        if (c_n) store_states(states_of(c_n, shape, d), k->carry, k, 0);
        for (int64_t row = 0; row < shape->sequences; row++) {
            const int64_t token = d ? shape->begin[row] : last_token(shape, row);
            memcpy(states_of(h_n, shape, d) + shape->order[row] * hidden, k->y + token * k->y_row,
                   (size_t)hidden * sizeof *y);
        }
    }
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

/* What a chunk that has been walked back adds to the gradients of the weights, or of the rows that
 * its tokens share. */
static int finish_chunk(layer *l, int d, const oct_recurrent_gradients *g, const float *x, int add)
{
    const oct_recurrent_shape *shape = l->shape;
    walk *k = &l->walks[d];
    const int64_t rows = chunk_rows(k), depth = SLOTS * l->width, inputs = shape->inputs;
    const int bf16 = shape->bf16;
    const void *dgates = dgates_factor(l, d), *before = k->before;
    if (bf16) {
        KERNEL(round_bf16)(l->dgates_factor[d], k->dgates, rows * depth);
        KERNEL(round_bf16)(l->before_factor, k->before, rows * l->width);
        before = l->before_factor;
    }
    if ((g->db_ih[d] || g->db_hh[d]) && !shape->rows)
        add_column_sums(l->dbiases[d], k->dgates, rows, depth, add);
    if (g->dw_hh[d])
        OCT_TRY(
            oct_product(l->dw_hh[d], dgates, before, NULL, depth, l->width, rows, 1, 0, add, bf16));
    if (shape->rows) {
        KERNEL(embedding_backward)(l->table[d], k->dgates, rows_of_places(l, k), rows, depth);
        return 0;
    }
    if (!g->dw_ih[d]) return 0;
    if (d == 0 || !together(l)) gather_x(l, k, x);
    return oct_product(l->dw_ih[d], dgates, l->factors, NULL, depth, inputs, rows, 1, 0, add, bf16);
}

/* What the chunks add to the gradient of x. */
static int finish_dx(layer *l, const oct_recurrent_gradients *g)
{
    const oct_recurrent_shape *shape = l->shape;
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

/* The products behind the last chunk, where tokens share rows of x. */
static int finish_tables(layer *l, const oct_recurrent_gradients *g, const float *x)
{
    const oct_recurrent_shape *shape = l->shape;
    const int64_t rows = shape->x_rows, depth = SLOTS * l->width, inputs = shape->inputs;
    const int bf16 = shape->bf16;
    const void *factors = shared_x(l, x);
    for (int d = 0; d < shape->directions; d++) {
        const void *dgates = l->table[d];
        if (g->db_ih[d] || g->db_hh[d])
            add_column_sums(l->dbiases[d], l->table[d], rows, depth, 0);
        if (bf16) {
            KERNEL(round_bf16)(l->table_factor, l->table[d], rows * depth);
            dgates = l->table_factor;
        }
        if (g->dw_ih[d])
            OCT_TRY(oct_product(l->dw_ih[d], dgates, factors, NULL, depth, inputs, rows, 1, 0, 0,
                                bf16));
        if (g->dx)
            OCT_TRY(oct_product(g->dx, dgates, l->w_ih[d], NULL, rows, inputs, depth, 0, 0,
                                g->add_x || d > 0, bf16));
    }
    return 0;
}

static void bias_back(float *db, const float *sums, const oct_recurrent_shape *shape, int from,
                      int add)
{
    if (db) order_rows_back(db, sums, 1, shape->cell, from, shape->hidden, 1, add);
}

/* What the chunks have summed up, to where it belongs. */
static void finish_gradients(layer *l, int d, const oct_recurrent_gradients *g)
{
    const oct_recurrent_shape *shape = l->shape;
    const walk *k = &l->walks[d];
    const int64_t hidden = shape->hidden, inputs = shape->inputs;
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
}

int KERNEL(recurrent_backward)(const oct_recurrent_gradients *g, const float *gates,
                               const float *cells, const float *x, const float *y, const float *h_0,
                               const float *c_0, const oct_recurrent_weights *weights,
                               const oct_recurrent_shape *shape)
{
    layer l;
    size_t bytes;
    void *block = open_layer(&l, &bytes, shape, weights, 1, 1);
    if (!block) return -1;
    const int64_t hidden = shape->hidden;
    const int directions = (int)shape->directions, gru = shape->cell == OCT_GRU;
    if (g->dx && directions > 1 && !g->add_x && !shape->rows && !together(&l))
        KERNEL(fill)(g->dx, shape->tokens * shape->inputs, 0);
    for (int d = 0; d < directions; d++) {
        walk *k = &l.walks[d];
        order_w_ih(&l, d);
        if (shape->rows) KERNEL(fill)(l.table[d], shape->x_rows * SLOTS * l.width, 0);
        pack_backward(k->weights, weights[d].w_hh, shape->cell, hidden, shape->bf16);
        load_states(k->dh, states_of(g->dh_n, shape, d), k, 0);
        if (!gru) {
            load_states(k->dc, states_of(g->dc_n, shape, d), k, 0);
            load_states(k->start, states_of(c_0, shape, d), k, 0);
            k->cells = cells + d * shape->tokens * l.width;
        }
        k->y = (float *)y + d * hidden;
        k->y_row = directions * hidden;
        k->dy = g->dy ? g->dy + d * hidden : NULL;
        k->dc_of_each = g->dc ? g->dc + d * hidden : NULL;
    }
    int status = 0;
    for (int64_t round = 0; round < l.chunks && status == 0; round++) {
        for (int d = 0; d < directions; d++) {
            walk *k = &l.walks[d];
            enter_chunk(&l, d, l.chunks - 1 - round);
            k->gates =
                (float *)gates + (d * shape->tokens + shape->first[k->from]) * SLOTS * l.width;
            if (gru || g->dw_hh[d]) gather_before(&l, k, states_of(h_0, shape, d));
        }
        walk_chunks(&l, 1);
        for (int d = 0; d < directions && status == 0; d++)
            status = finish_chunk(&l, d, g, x, round > 0);
        if (status == 0) status = finish_dx(&l, g);
    }
    if (status == 0 && shape->rows) status = finish_tables(&l, g, x);
    for (int d = 0; d < directions && status == 0; d++) finish_gradients(&l, d, g);
    oct_block_free(block, bytes, OCT_WORKSPACE);
    return status;
}
