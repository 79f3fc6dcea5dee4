/* recurrent_cell.h - one step of an LSTM or a GRU for a few sequences, forwards and back.
 *
 * Forwards the product with the recurrent weights and the cell are one: a tile holds the gates of
 * LANES units of up to MOST_SEQUENCES sequences in registers, which start as what x gave, and
 * leave as gates, state and output. On the way back the cell's gradients come first, then the
 * product that hands them to the step before. A sequence's numbers do not depend on which others
 * share its tile. */
#ifndef OCT_RECURRENT_CELL_H
#define OCT_RECURRENT_CELL_H
#include "kernels/cpu/recurrent_weights.h"
#include "kernels/cpu/tile.h"

enum { MOST_SEQUENCES = ACCUMULATORS / SLOTS, MOST_BACK = ACCUMULATORS / 2 };

/* One direction of a layer on its way. Rows of `width` numbers, one for each sequence. */
typedef struct walk {
    const oct_recurrent_shape *shape;
    int64_t width;
    int reverse;                   /* from the last token to the first */
    float *weights;                /* w_hh, packed for the way */
    const float *table;            /* [x_rows x 4 width], what rows of x that tokens share add to
                                    * their gates; NULL: it stands in `gates` */
    float *factors[2];             /* h as the product takes it: read and written in turns */
    int turn;                      /* which of them is read next */
    float *carry;                  /* c of an LSTM, h of a GRU */
    float *y, *c;                  /* this direction's columns; c may be NULL */
    int64_t y_row;
    /* On the way back. */
    const float *dy, *dc_of_each;  /* likewise; NULL for zeros */
    const float *cells;
    float *start;                  /* c before the first token */
    float *dh, *dc;                /* handed back from the step behind */
    /* Of the chunk at hand. */
    int64_t from, to;              /* its steps */
    float *gates;                  /* rows of 4 width from step `from` on */
    float *kept_cells;             /* likewise, or NULL */
    float *dgates;
    float *before;                 /* h before each of the chunk's tokens */
} walk;

/* What holds for all sequences at a step. */
typedef struct step {
    int64_t t, rows;               /* sequences under way */
    int64_t place;                 /* rows of the chunk before this step's */
} step;

INLINE int64_t token_of(const walk *k, int64_t t, int64_t row) { return k->shape->begin[row] + t; }

/* To the nearest bf16, ties to even; a NaN stays one. */
INLINE vf vf_round_bf16(vf x)
{
    const vu bits = (vu)x;
    const vu rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
    return vf_select(vf_nan(x), x, (vf)rounded);
}

INLINE vf as_factor(vf x, int bf16) { return bf16 ? vf_round_bf16(x) : x; }

/* Lanes that hold units. */
INLINE int64_t units_from(const walk *k, int64_t unit)
{
    const int64_t left = k->shape->hidden - unit;
    return left > LANES ? LANES : left > 0 ? left : 0;
}

/* A vector of a row's units in tensors of y's shape. */
INLINE void store_units(const walk *k, float *y, const step *s, int64_t row, int64_t unit, vf x)
{
    float *at = y + token_of(k, s->t, row) * k->y_row + unit;
    const int64_t count = units_from(k, unit);
    if (count == LANES) vf_store(at, x);
    else vf_store_first(at, x, count);
}
INLINE vf load_units(const walk *k, const float *y, const step *s, int64_t row, int64_t unit)
{
    const float *at = y + token_of(k, s->t, row) * k->y_row + unit;
    const int64_t count = units_from(k, unit);
    return count == LANES ? vf_load(at) : vf_load_first(at, count);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* The first half of a cell: its state, and what an LSTM's output is gated by, in sum[0] and sum[1].
 */
INLINE void begin_cell(const walk *k, const step *s, int64_t row, int64_t unit, vf *sum, int cell)
{
    float *gates = k->gates + (s->place + row) * SLOTS * k->width + slot_of(unit);
    const vf before = vf_load(k->carry + row * k->width + unit);
    vf state, slots[SLOTS];
    if (cell == OCT_LSTM) {
        const vf i = vf_sigmoid(sum[0]), f = vf_sigmoid(sum[1]), o = vf_sigmoid(sum[3]);
        const vf g = vf_tanh(sum[2]);
        state = vf_fma(f, before, i * g);
        slots[0] = i, slots[1] = f, slots[2] = g, slots[3] = o;
    } else {
        const vf r = vf_sigmoid(sum[0]), z = vf_sigmoid(sum[1]);
        const vf n = vf_tanh(vf_fma(r, sum[3], sum[2]));
        state = vf_fma(z, before - n, n);
        slots[0] = r, slots[1] = z, slots[2] = n, slots[3] = sum[3];
    }
#pragma GCC unroll 4
    for (int v = 0; v < SLOTS; v++) vf_store(gates + v * OCT_RECURRENT_BLOCK, slots[v]);
    sum[0] = state;
    sum[1] = slots[3];
}

INLINE void finish_cell(const walk *k, const step *s, int64_t row, int64_t unit, vf *sum, int cell)
{
    const vf state = sum[0], h = cell == OCT_LSTM ? sum[1] * vf_tanh(state) : state;
    if (cell == OCT_LSTM && k->kept_cells)
        vf_store(k->kept_cells + (s->place + row) * k->width + unit, state);
    vf_store(k->carry + row * k->width + unit, state);
    vf_store(k->factors[!k->turn] + row * k->width + unit, as_factor(h, k->shape->bf16));
    store_units(k, k->y, s, row, unit, h);
    if (k->c) store_units(k, k->c, s, row, unit, state);
}

/* Where the gates of a row start from: what its x adds to them. */
INLINE const float *start_of(const walk *k, const step *s, int64_t row)
{
    const int64_t at = k->table ? k->shape->rows[token_of(k, s->t, row)] : s->place + row;
    return (k->table ? k->table : k->gates) + at * SLOTS * k->width;
}

/* `rows` and `cell` are constants: everything unrolls into registers. */
INLINE void forward_tile(const walk *k, const step *s, int64_t row, int64_t unit, const int rows,
                         const int cell)
{
    const int vectors = cell == OCT_GRU ? 3 : 4;
    const int64_t width = k->width, hidden = k->shape->hidden;
    const float *w = k->weights + unit * hidden * vectors;
    const float *h = k->factors[k->turn] + row * width;
    vf sum[MOST_SEQUENCES][SLOTS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const float *start = start_of(k, s, row + r) + slot_of(unit);
#pragma GCC unroll 4
        for (int v = 0; v < SLOTS; v++) sum[r][v] = vf_load(start + v * OCT_RECURRENT_BLOCK);
    }
    for (int64_t i = 0; i < hidden; i++, w += vectors * LANES) {
        vf terms[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) terms[v] = vf_load(w + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const vf factor = vf_all(h[r * width + i]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                const int slot = cell == OCT_GRU && v == 2 ? 3 : v;
                sum[r][slot] = vf_fma(factor, terms[v], sum[r][slot]);
            }
        }
    }
    /* In halves, of which the second waits for the first: so a row's wait is another's work. */
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) begin_cell(k, s, row + r, unit, sum[r], cell);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) finish_cell(k, s, row + r, unit, sum[r], cell);
}

/* A step for `rows` sequences, at most MOST_SEQUENCES, and the LANES units from `unit` on. */
static void step_forward(const walk *k, const step *s, int64_t row, int64_t rows, int64_t unit)
{
    const int cell = k->shape->cell;
#define TILE(r)                                                                                    \
    case r:                                                                                        \
        if (cell == OCT_GRU) forward_tile(k, s, row, unit, r, OCT_GRU);                            \
        else forward_tile(k, s, row, unit, r, OCT_LSTM);                                           \
        break;
    switch (rows) {
    TILE(1) TILE(2) TILE(3)
#if defined(OCT_ISA_avx512)
    TILE(4) TILE(5) TILE(6)
#endif
    default: __builtin_unreachable();
    }
#undef TILE
}

/* ---- back ------------------------------------------------------------------------------------ */

/* The gradients of the LANES gates from `unit` on, from those of y and of what the step behind
 * handed back. ahead: rows from the sequence's gates of this step to those of the next one on the
 * way, which are asked for: by itself the processor sees too late that they come before. */
INLINE void cell_back(const walk *k, const step *s, int64_t row, int64_t unit, int64_t ahead,
                      int cell)
{
    const int64_t width = k->width, place = s->place + row;
    const float *gates = k->gates + place * SLOTS * width + slot_of(unit);
    float *dgates = k->dgates + place * SLOTS * width + slot_of(unit);
    const int64_t at = row * width + unit;
    vf g[SLOTS], d[SLOTS];
#pragma GCC unroll 4
    for (int v = 0; v < SLOTS; v++) {
        g[v] = vf_load(gates + v * OCT_RECURRENT_BLOCK);
        __builtin_prefetch(gates + ahead * SLOTS * width + v * OCT_RECURRENT_BLOCK);
    }
    vf dh = vf_load(k->dh + at);
    if (k->dy) dh += load_units(k, k->dy, s, row, unit);
    if (cell == OCT_LSTM) {
        /* The sequence's cells one step before in its own direction. */
        const int32_t *first = k->shape->first;
        const int64_t t = k->reverse ? s->t + 1 : s->t - 1;
        const int inside = k->reverse ? t < k->shape->steps && row < first[t + 1] - first[t]
                                      : t >= 0;
        const float *cells = k->cells + (first[s->t] + row) * width + unit;
        const float *before = inside ? cells + ahead * width : k->start + at;
        const vf c = vf_load(cells);
        const vf squashed = vf_tanh(c);
        vf dc = vf_load(k->dc + at);
        if (k->dc_of_each) dc += load_units(k, k->dc_of_each, s, row, unit);
        dc = vf_fma(dh * g[3], 1.0f - squashed * squashed, dc);
        d[0] = dc * g[2] * (g[0] * (1.0f - g[0]));
        d[1] = dc * vf_load(before) * (g[1] * (1.0f - g[1]));
        d[2] = dc * g[0] * (1.0f - g[2] * g[2]);
        d[3] = dh * squashed * (g[3] * (1.0f - g[3]));
        vf_store(k->dc + at, dc * g[1]);
    } else {
        const vf before = vf_load(k->before + place * width + unit);
        d[2] = dh * (1.0f - g[1]) * (1.0f - g[2] * g[2]);
        d[3] = d[2] * g[0];
        d[0] = d[2] * g[3] * (g[0] * (1.0f - g[0]));
        d[1] = dh * (before - g[2]) * (g[1] * (1.0f - g[1]));
        vf_store(k->dh + at, dh * g[1]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < SLOTS; v++)
        vf_store(dgates + v * OCT_RECURRENT_BLOCK, as_factor(d[v], k->shape->bf16));
}

static void cells_back(const walk *k, const step *s, int64_t row, int64_t rows, int64_t unit,
                       int64_t end)
{
    const int64_t next = k->reverse ? s->t + 1 : s->t - 1;
    const int64_t ahead = next >= 0 && next < k->shape->steps
                              ? k->shape->first[next] - k->shape->first[s->t] : 0;
    for (int64_t r = row; r < row + rows; r++)
        for (int64_t u = unit; u < end; u += LANES) {
            if (k->shape->cell == OCT_GRU) cell_back(k, s, r, u, ahead, OCT_GRU);
            else cell_back(k, s, r, u, ahead, OCT_LSTM);
        }
}

/* dh of `rows` sequences, at most MOST_BACK, for the COLUMNS units from `unit` on: through the
 * gates, and of a GRU what went past them. */
static void product_back(const walk *k, const step *s, int64_t row, int64_t rows, int64_t unit)
{
    const int64_t width = k->width, depth = SLOTS * width;
    const float *w = k->weights + unit * depth;
    const float *dgates = k->dgates + (s->place + row) * depth;
    float *dh = k->dh + row * width + unit;
    const int add = k->shape->cell == OCT_GRU, vectors = width - unit >= COLUMNS ? 2 : 1;
#define TILE(r)                                                                                    \
    case r:                                                                                        \
        if (vectors == 2)                                                                          \
            tile(dh, width, dgates, depth, 1, w, 2 * LANES, depth, add, r, 2);                     \
        else                                                                                       \
            tile(dh, width, dgates, depth, 1, w, LANES, depth, add, r, 1);                         \
        break;
    switch (rows) {
    TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined(OCT_ISA_avx512)
    TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif
    default: __builtin_unreachable();
    }
#undef TILE
}

#endif
