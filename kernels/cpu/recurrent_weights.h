/* recurrent_weights.h - how a recurrent layer's weights stand while its kernels use them.
 *
 * The gates of a token are numbers of one row: blocks of OCT_RECURRENT_BLOCK units, within each
 * four slots side by side, so that a unit's gates are a few vectors apart. An LSTM fills the slots
 * with i, f, g, o. A GRU's candidate needs its two halves apart: r, z, the half from x, the half
 * from h; a row of weights for a slot that its product has no part in is zero. Rows of weights are
 * put in that order once for a call, and their gradients back. Units beyond the last are zeros. */
#ifndef OCT_RECURRENT_WEIGHTS_H
#define OCT_RECURRENT_WEIGHTS_H
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/cpu/tile.h"
#include "kernels/kernels.h"

enum { SLOTS = 4, COLUMNS = 2 * LANES };       /* units of a tile on the way back */
enum { FROM_X, FROM_H };
enum { SMALL_WEIGHTS = 1 << 13 };              /* elements; the threads are not woken for less */

INLINE int64_t gates_of(int cell) { return cell == OCT_GRU ? 3 : 4; }

/* Where slot 0 of a unit is; the next ones are OCT_RECURRENT_BLOCK numbers apart. */
INLINE int64_t slot_of(int64_t unit)
{
    return unit / OCT_RECURRENT_BLOCK * SLOTS * OCT_RECURRENT_BLOCK + unit % OCT_RECURRENT_BLOCK;
}

/* The slot's number among a row's for a gate as PyTorch counts them. */
INLINE int64_t row_of(int cell, int from, int64_t gate, int64_t unit)
{
    const int64_t slot = cell == OCT_GRU && from == FROM_H && gate == 2 ? 3 : gate;
    return slot_of(unit) + slot * OCT_RECURRENT_BLOCK;
}

/* As the product takes it in bf16. */
INLINE float to_factor(float x, int bf16)
{
    if (!bf16) return x;
    const uint32_t bits = (uint32_t)oct_to_bf16(x) << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* to[4 width x columns] = w[gates x hidden x columns]; the rest zeros. */
static void order_rows(float *to, const float *w, int cell, int from, int64_t hidden,
                       int64_t columns)
{
    const int64_t width = oct_recurrent_width(hidden), gates = gates_of(cell);
    const size_t bytes = (size_t)columns * sizeof *to;
    if (width > hidden || gates < SLOTS)
        memset(to, 0, (size_t)(SLOTS * width) * bytes);
#pragma omp parallel for schedule(static) if (gates * hidden * columns > SMALL_WEIGHTS)
    for (int64_t row = 0; row < gates * hidden; row++)
        memcpy(to + row_of(cell, from, row / hidden, row % hidden) * columns, w + row * columns,
               bytes);
}

/* dw[gates x hidden x columns] (+)= d[4 width x d_row]. */
static void order_rows_back(float *dw, const float *d, int64_t d_row, int cell, int from,
                            int64_t hidden, int64_t columns, int add)
{
    const int64_t rows = gates_of(cell) * hidden;
#pragma omp parallel for schedule(static) if (rows * columns > SMALL_WEIGHTS)
    for (int64_t row = 0; row < rows; row++) {
        const float *source = d + row_of(cell, from, row / hidden, row % hidden) * d_row;
        float *to = dw + row * columns;
        if (add)
            for (int64_t i = 0; i < columns; i++) to[i] += source[i];
        else
            memcpy(to, source, (size_t)columns * sizeof *to);
    }
}

/* The sum of both biases in the order of a row; each may be NULL. */
static void order_biases(float *to, const float *b_ih, const float *b_hh, int cell, int64_t hidden)
{
    memset(to, 0, (size_t)(SLOTS * oct_recurrent_width(hidden)) * sizeof *to);
    for (int64_t i = 0; i < gates_of(cell) * hidden; i++) {
        if (b_ih) to[row_of(cell, FROM_X, i / hidden, i % hidden)] += b_ih[i];
        if (b_hh) to[row_of(cell, FROM_H, i / hidden, i % hidden)] += b_hh[i];
    }
}

/* Floats of the two packings of w_hh. */
INLINE int64_t packed_forward_floats(int cell, int64_t hidden)
{
    return oct_recurrent_width(hidden) * hidden * gates_of(cell);
}
INLINE int64_t packed_backward_floats(int64_t hidden)
{
    const int64_t width = oct_recurrent_width(hidden);
    return SLOTS * width * width;
}

/* For the way forward: for each vector of units, for each unit that they hear, their gates. */
static void pack_forward(float *to, const float *w_hh, int cell, int64_t hidden, int bf16)
{
    const int64_t gates = gates_of(cell), width = oct_recurrent_width(hidden);
#pragma omp parallel for schedule(static) if (gates * width * hidden > SMALL_WEIGHTS)
    for (int64_t first = 0; first < width; first += LANES) {
        float *at = to + first * hidden * gates;
        for (int64_t k = 0; k < hidden; k++)
            for (int64_t g = 0; g < gates; g++, at += LANES)
                for (int64_t lane = 0; lane < LANES; lane++) {
                    const int64_t unit = first + lane;
                    at[lane] = unit < hidden
                                   ? to_factor(w_hh[(g * hidden + unit) * hidden + k], bf16) : 0;
                }
    }
}

/* For the way back: for each COLUMNS of units that were heard, all rows' parts for them. The last
 * may be LANES wide. */
static void pack_backward(float *to, const float *w_hh, int cell, int64_t hidden, int bf16)
{
    const int64_t width = oct_recurrent_width(hidden), depth = SLOTS * width;
    memset(to, 0, (size_t)packed_backward_floats(hidden) * sizeof *to);
#pragma omp parallel for schedule(static) if (depth * hidden > SMALL_WEIGHTS)
    for (int64_t first = 0; first < hidden; first += COLUMNS) {
        const int64_t columns = width - first < COLUMNS ? width - first : COLUMNS;
        const int64_t count = hidden - first < columns ? hidden - first : columns;
        for (int64_t row = 0; row < gates_of(cell) * hidden; row++) {
            const float *from = w_hh + row * hidden + first;
            float *at = to + first * depth
                        + row_of(cell, FROM_H, row / hidden, row % hidden) * columns;
            for (int64_t i = 0; i < count; i++) at[i] = to_factor(from[i], bf16);
        }
    }
}

#endif
