/* recurrent_layer.h - a call of a recurrent layer: its chunks, its memory, and its states. */
#ifndef OCT_RECURRENT_LAYER_H
#define OCT_RECURRENT_LAYER_H
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/recurrent_walk.h"

/* Of a chunk's gates, and rows below which a product would be too small. Half the size cost 3 %
 * more on two cores with 1 MiB each, for the threads meet more often. */
enum { CHUNK_BYTES = 2 << 20, CHUNK_ROWS = 512 };

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
    const oct_recurrent_gradients *g; /* NULL forwards */
    const float *x, *h_0, *c_0;
    float *y, *c, *h_n, *c_n;
    float *all_gates, *all_cells; /* of both directions, where they are kept */
    int64_t width, chunks, chunk_rows;
    int32_t *ends; /* [chunks]: step behind each */
    walk walks[2];
    float *w_ih[2];        /* [4 width x inputs], bf16 where wanted */
    float *ordered[2];     /* the same before it is rounded; NULL where it is not */
    float *biases[2];      /* [4 width] */
    float *rows;           /* [chunk_rows x inputs]: of x, or of its gradient */
    const void *factors;   /* the rows of x as a product takes them, of a chunk or all */
    uint16_t *rounded;     /* those in bf16 */
    /* Where tokens share rows of x. */
    int32_t *row_of_place[2]; /* [chunk_rows] */
    float *table[2];          /* [x_rows x 4 width]: of each row the gates, or their gradients */
    uint16_t *table_factor[2];
    /* Forward. */
    float *gates[2]; /* [chunk_rows x 4 width] where they are not kept */
    /* Back. */
    uint16_t *dgates_factor[2]; /* [chunk_rows x 4 width] in bf16 */
    uint16_t *before_factor[2]; /* [chunk_rows x width] in bf16 */
    float *dw_ih[2], *dw_hh[2]; /* [4 width x inputs], [4 width x width] */
    float *dbiases[2];          /* [4 width] */
} layer;

static void lay_out(layer *l, room *r)
{
    const oct_recurrent_shape *shape = l->shape;
    const int keeps_gates = l->all_gates != NULL, backward = l->g != NULL;
    const int64_t width = l->width, gates = SLOTS * width, inputs = shape->inputs;
    const int64_t states = shape->sequences * width, chunk = l->chunk_rows;
    const int bf16 = shape->bf16, gru = shape->cell == OCT_GRU;
    l->ends = take(r, l->chunks, sizeof *l->ends);
    if (!shape->rows) l->rows = take_floats(r, chunk * inputs);
    if (bf16) l->rounded = take(r, (shape->rows ? shape->x_rows : chunk) * inputs, 2);
    for (int d = 0; d < shape->directions; d++) {
        walk *k = &l->walks[d];
        *k = (walk){.shape = shape, .width = width, .reverse = d};
        l->w_ih[d] = take(r, gates * inputs, bf16 ? 2 : sizeof(float));
        l->ordered[d] = bf16 ? take_floats(r, gates * inputs) : NULL;
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
        l->before_factor[d] = bf16 ? take(r, chunk * width, 2) : NULL;
        if (shape->rows) {
            l->row_of_place[d] = take(r, chunk, sizeof *l->row_of_place[d]);
            l->table_factor[d] = bf16 ? take(r, shape->x_rows * gates, 2) : NULL;
        }
        k->before = take_floats(r, chunk * width);
        l->dw_ih[d] = take_floats(r, gates * inputs);
        l->dw_hh[d] = take_floats(r, gates * width);
        l->dbiases[d] = take_floats(r, gates);
    }
}

/* Makes room for a call; *bytes is to be given back. NULL where memory ends. */
static void *open_layer(layer *l, size_t *bytes)
{
    const oct_recurrent_shape *shape = l->shape;
    l->width = oct_recurrent_width(shape->hidden);
    l->chunks = cut(shape, NULL, &l->chunk_rows);
    room r = {NULL, 0};
    lay_out(l, &r);
    *bytes = r.used;
    r = (room){oct_block_new(*bytes, OCT_WORKSPACE), 0};
    if (!r.base) return NULL;
    lay_out(l, &r);
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

#endif
