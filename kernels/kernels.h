/* kernels.h - the one table through which the core reaches the arithmetic of a device.
 *
 * A kernel knows nothing of tensors, tapes or errors: pointers, sizes, numbers. Matrices are
 * row-major and contiguous. A kernel uses the threads it is given by OpenMP and gives the same
 * result for any number of them: work is cut at places that depend on the sizes alone.
 * `accumulate` 0: overwrite the result; 1: add to it. */
#ifndef OCT_KERNELS_H
#define OCT_KERNELS_H
#include <stdint.h>

#include "kernels/optim.h"

/* Elementwise. ORDER UNARY, ORDER BINARY: core/ops_elementwise.c, kernels/cpu/elementwise.c. */
enum oct_unary {
    OCT_NEG,
    OCT_EXP,
    OCT_LOG,
    OCT_SQRT,
    OCT_ABS,
    OCT_SQUARE,
    OCT_RECIPROCAL,
    OCT_TANH,
    OCT_SIGMOID,
    OCT_RELU,
    OCT_GELU,
    OCT_SILU,
    OCT_UNARIES
};
/* MAXIMUM, MINIMUM: NaN where either is. WHERE: a where b is not 0, else 0; ELSEWHERE: a where b is
 * 0, else 0. From LESS on: 1 where it is true, else 0. */
enum oct_binary {
    OCT_ADD,
    OCT_SUB,
    OCT_MUL,
    OCT_DIV,
    OCT_MAXIMUM,
    OCT_MINIMUM,
    OCT_WHERE,
    OCT_ELSEWHERE,
    OCT_LESS,
    OCT_LESS_EQUAL,
    OCT_GREATER,
    OCT_GREATER_EQUAL,
    OCT_EQUAL,
    OCT_NOT_EQUAL,
    OCT_BINARIES
};
enum oct_reduction { OCT_SUM, OCT_MEAN, OCT_MAX, OCT_REDUCTIONS };

/* Dropout's mask is drawn again in the backward pass instead of being kept: the draw of element i
 * is 16 bits of Philox block offset + i / 8 of the stream (half-word i % 8, low halves first), and
 * the element is dropped where it is below p * 65536, rounded to nearest. */
typedef struct oct_dropout_mask {
    float p; /* 0: no dropout */
    uint64_t seed, offset;
} oct_dropout_mask;

/* A batch of sequences without padding: the tokens of sequence s are rows offsets[s] to
 * offsets[s + 1] - 1. Attention looks at a sequence's own rows alone. */
typedef struct oct_attention_shape {
    const int32_t *offsets; /* [sequences + 1], the first 0 */
    int64_t sequences, heads, head_size;
    float scale;              /* of the scores, 1 / sqrt(head_size) */
    int causal;               /* 1: a token sees itself and those before it */
    oct_dropout_mask dropout; /* of the probabilities; element (row * heads + head) * stride + k,
                               * k the key's place within its sequence */
    int64_t dropout_stride;   /* longest sequence, rounded up to a multiple of 8 */
} oct_attention_shape;

/* A layer of an LSTM (Hochreiter and Schmidhuber 1997) or a GRU (Cho et al. 2014) over packed
 * sequences, in one direction or both. Sequences are walked side by side, the longest first, so
 * that those under way at step t are always the first ones; what the layer keeps of a token stands
 * in a row of that order, step by step. `width` is oct_recurrent_width(hidden). */
enum oct_cell { OCT_LSTM, OCT_GRU };
typedef struct oct_recurrent_shape {
    int cell, bf16;
    int64_t tokens, sequences, steps; /* steps: of the longest sequence */
    int64_t inputs, hidden, directions;
    const int32_t *order;     /* [sequences]: which sequence is walked as which */
    const int32_t *begin;     /* [sequences]: first token of the sequence walked as which */
    const int32_t *first;     /* [steps + 1]: rows before those of step t */
    const int32_t *rows;      /* [tokens]: which row of x each token is; NULL: each has its own.
                               * Not together with dropout. */
    int64_t x_rows;
    oct_dropout_mask dropout; /* of x; element token * stride + column */
    int64_t dropout_stride;   /* inputs, rounded up to a multiple of 8 */
} oct_recurrent_shape;

/* Of one direction, in PyTorch's layout: w_ih [gates x hidden x inputs], w_hh [gates x hidden x
 * hidden], b_ih and b_hh [gates x hidden]; gates i f g o, or r z n. Biases may be NULL. */
typedef struct oct_recurrent_weights {
    const float *w_ih, *w_hh, *b_ih, *b_hh;
} oct_recurrent_weights;

/* Gradients. Of the results: dy and dc [tokens x directions hidden]; dh_n and dc_n [directions x
 * sequences x hidden]; each may be NULL, for zeros. Of the rest, each NULL where it is not wanted.
 * `add`: 1 where a value stands there already. */
typedef struct oct_recurrent_gradients {
    const float *dy, *dc, *dh_n, *dc_n;
    float *dx, *dh_0, *dc_0;
    float *dw_ih[2], *dw_hh[2], *db_ih[2], *db_hh[2];
    int add_x, add_h_0, add_c_0, add_w_ih[2], add_w_hh[2], add_b_ih[2], add_b_hh[2];
} oct_recurrent_gradients;

/* Hidden units, rounded up to whole blocks; the gates of a token are 4 width numbers. */
enum { OCT_RECURRENT_BLOCK = 16 };
static inline int64_t oct_recurrent_width(int64_t hidden)
{
    return (hidden + OCT_RECURRENT_BLOCK - 1) / OCT_RECURRENT_BLOCK * OCT_RECURRENT_BLOCK;
}

typedef struct oct_kernels {
    const char *isa;

    /* elementwise.c: y[n] = f(x[n]); dx[n] (+)= dy[n] * f'(x[n]), y = f(x) given too */
    void (*unary)(float *y, const float *x, int64_t n, int op);
    void (*unary_backward)(float *dx, const float *dy, const float *x, const float *y, int64_t n,
                           int op, int accumulate);
    /* y = op(a, b) over `ndim` dimensions of `shape`; strides in elements, 0 where broadcast */
    void (*binary)(float *y, const float *a, const float *b, int ndim, const int64_t *shape,
                   const int64_t *a_strides, const int64_t *b_strides, int op);
    /* y = x * scale + shift; y (+)= x * scale */
    void (*affine)(float *y, const float *x, int64_t n, float scale, float shift);
    void (*add_scaled)(float *y, const float *x, int64_t n, float scale, int accumulate);
    void (*fill)(float *y, int64_t n, float value);
    /* y = (1 - weight) y + weight x; exactly y at weight 0 and x at weight 1 */
    void (*lerp)(float *y, const float *x, int64_t n, float weight);
    /* y = x where kept, scaled by 1 / (1 - p), else 0 */
    void (*dropout)(float *y, const float *x, int64_t n, oct_dropout_mask mask, int accumulate);
    /* uniform in [low, high); normal by Box and Muller; element i from block offset + i / 4 */
    void (*uniform)(float *y, int64_t n, float low, float high, uint64_t seed, uint64_t offset);
    void (*normal)(float *y, int64_t n, float mean, float deviation, uint64_t seed,
                   uint64_t offset);

    /* reduce.c: x is [outer x size x inner], y [outer x inner]; MAX also gives the place in `at` */
    void (*reduce)(float *y, int32_t *at, const float *x, int64_t outer, int64_t size,
                   int64_t inner, int op);
    /* sum of squares in double, summed in pieces of a fixed size */
    double (*sum_squares)(const float *x, int64_t n);
    /* 1 where every element is finite */
    int (*all_finite)(const float *x, int64_t n);
    /* dx[outer x size x inner] (+)= scale * dy[outer x inner] */
    void (*spread)(float *dx, const float *dy, int64_t outer, int64_t size, int64_t inner,
                   float scale, int accumulate);

    /* transpose.c: y[a x q x b x p x c] (+)= x[a x p x b x q x c], of four bytes each */
    void (*transpose)(float *y, const float *x, int64_t a, int64_t p, int64_t b, int64_t q,
                      int64_t c, int accumulate);

    /* matmul.c. bf16 1: the two factors hold bf16 and are multiplied as such, the sums are f32;
     * 0: all is f32. -1 where memory or oneDNN fails. */
    /* y[n] = x[n] rounded to bf16, to the nearest, ties to even */
    void (*round_bf16)(uint16_t *y, const float *x, int64_t n);
    /* y[batch x m x n] (+)= op(a) op(b), product by product; a is [batch x m x k], or [batch x k x
     * m] where transpose_a; likewise b */
    int (*matmul)(float *y, const void *a, const void *b, int64_t batch, int64_t m, int64_t n,
                  int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16);
    /* y[rows x out] = f(x[rows x in] w[out x in]' + bias); activation -1: no f, else the unary op,
     * and `z`, where it is not NULL, keeps what f was applied to. `bias` may be NULL. */
    int (*linear)(float *y, float *z, const void *x, const void *w, const float *bias, int64_t rows,
                  int64_t out, int64_t in, int activation, int bf16);
    /* dx[rows x in] (+)= dz w, dw[out x in] (+)= dz' x, dbias[out] (+)= column sums of dz, where
     * dz[rows x out] = dy * f'(z) is built in `dz` (may be dy itself where there is no f). Each of
     * dx, dw, dbias may be NULL; accumulate bits: 1 dx, 2 dw, 4 dbias. bf16: x and w hold bf16, and
     * dz is rounded into workspace. */
    int (*linear_backward)(float *dx, float *dw, float *dbias, float *dz, const float *dy,
                           const float *z, const void *x, const void *w, int64_t rows, int64_t out,
                           int64_t in, int activation, int accumulate, int bf16);

    /* norm.c: y = (x - mean) * rstd * gain + shift over rows of `width`; mean and rstd are [rows]
     */
    void (*layer_norm)(float *y, float *mean, float *rstd, const float *x, const float *gain,
                       const float *shift, int64_t rows, int64_t width, float epsilon);
    /* dgain and dshift may be NULL. accumulate bits: 1 dx, 2 dgain, 4 dshift. `partial` is
     * workspace of oct_layer_norm_partials(rows) * 2 * width floats. */
    void (*layer_norm_backward)(float *dx, float *dgain, float *dshift, const float *dy,
                                const float *x, const float *mean, const float *rstd,
                                const float *gain, int64_t rows, int64_t width, float *partial,
                                int accumulate);

    /* softmax.c: over the last dimension; log 1 gives log-softmax */
    void (*softmax)(float *y, const float *x, int64_t rows, int64_t width, int log);
    void (*softmax_backward)(float *dx, const float *dy, const float *y, int64_t rows,
                             int64_t width, int log, int accumulate);
    /* losses[rows] = -log softmax(logits)[label], 0 where the label is `ignore` */
    void (*cross_entropy)(float *losses, const float *logits, const int32_t *labels, int64_t rows,
                          int64_t classes, int32_t ignore);
    /* dlogits (+)= scale * (softmax(logits) - onehot(label)) */
    void (*cross_entropy_backward)(float *dlogits, const float *logits, const int32_t *labels,
                                   float scale, int64_t rows, int64_t classes, int32_t ignore,
                                   int accumulate);

    /* losses[n] = log(1 + e^x) - target x, which is cross-entropy with sigmoid(x), and its
     * gradient: dx (+)= scale * (sigmoid(x) - target) */
    void (*binary_cross_entropy)(float *losses, const float *x, const float *targets, int64_t n);
    void (*binary_cross_entropy_backward)(float *dx, const float *x, const float *targets,
                                          float scale, int64_t n, int accumulate);

    /* embedding.c: y[rows x width] = table[ids[row]]; dtable[id] += dy of the rows that have it, in
     * the order of the rows. Ids have been checked. */
    void (*embedding)(float *y, const float *table, const int32_t *ids, int64_t rows,
                      int64_t width);
    void (*embedding_backward)(float *dtable, const float *dy, const int32_t *ids, int64_t rows,
                               int64_t width);
    /* y[s] = mean of the rows of sequence s, and its reverse; a sequence has at least one row */
    void (*segment_mean)(float *y, const float *x, const int32_t *offsets, int64_t sequences,
                         int64_t width);
    void (*segment_mean_backward)(float *dx, const float *dy, const int32_t *offsets,
                                  int64_t sequences, int64_t width, int accumulate);

    /* attention.c: qkv is [tokens x 3 x heads x head_size]; out [tokens x heads x head_size];
     * log_sum[tokens x heads] is the log of the sum of exponents of a row of scores, kept so that
     * the backward pass can build the probabilities again. -1 where memory ends. */
    int (*attention)(float *out, float *log_sum, const float *qkv, oct_attention_shape shape);
    int (*attention_backward)(float *dqkv, const float *dout, const float *qkv, const float *out,
                              const float *log_sum, oct_attention_shape shape);

    /* recurrent.c: y[tokens x directions hidden], and an LSTM's cells c likewise, NULL where they
     * are not wanted; h_n, h_0, and for an LSTM c_n, c_0, [directions x sequences x hidden], h_0
     * and c_0 may be NULL for zeros. Kept for the way back, or NULL:
     * gates [directions x tokens x 4 width], and for an LSTM cells [directions x tokens x width].
     * -1 where memory or oneDNN fails. */
    int (*recurrent)(float *y, float *c, float *h_n, float *c_n, float *gates, float *cells,
                     const float *x, const float *h_0, const float *c_0,
                     const oct_recurrent_weights *weights, const oct_recurrent_shape *shape);
    int (*recurrent_backward)(const oct_recurrent_gradients *gradients, const float *gates,
                              const float *cells, const float *x, const float *y, const float *h_0,
                              const float *c_0, const oct_recurrent_weights *weights,
                              const oct_recurrent_shape *shape);

    /* optim.c: a step of all pieces of the work; returns how many elements were left out. */
    int64_t (*optim_step)(const oct_optim_work *work);
    /* measures[piece]: what a first pass finds for a slot of quantized state, or of rules that
     * depend on norms of the direction */
    void (*optim_measure)(oct_optim_measure *measures, const oct_optim_work *work);
    /* sums[piece]: the sum of the squares of the gradient's finite elements, or the parameter's;
     * left_out: how many are not finite */
    void (*optim_squares)(double *sums, int64_t *left_out, const oct_optim_work *work,
                          int of_params);
    /* quantize.c: x[n] to codes[n] and absmax[blocks], nearest, and back */
    void (*quantize)(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                     const oct_map *map);
    void (*dequantize)(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                       int64_t block, const oct_map *map);
} oct_kernels;

/* Rows of partial sums that layer_norm_backward wants for so many rows. */
static inline int64_t oct_layer_norm_partials(int64_t rows)
{
    int64_t pieces = (rows + 63) / 64;
    return pieces < 64 ? pieces : 64;
}

extern const oct_kernels oct_kernels_avx2, oct_kernels_avx512;

/* The table in use. */
const oct_kernels *oct_kernels_now(void);

#endif
