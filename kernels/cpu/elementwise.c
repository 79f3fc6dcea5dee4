/* elementwise.c - functions of one and of two operands, element by element. */
#include "kernels/cpu/elementwise.h"

#include <string.h>

#include "kernels/cpu/pieces.h"
#include "kernels/cpu/vector.h"
#include "kernels/kernels.h"

/* ---- one operand ----------------------------------------------------------------------------- */

/* ORDER UNARY: kernels/kernels.h. `op` is a constant wherever this is expanded. */
INLINE vf value(vf x, int op)
{
    switch (op) {
    case OCT_NEG: return -x;
    case OCT_EXP: return vf_exp(x);
    case OCT_LOG: return vf_log(x);
    case OCT_SQRT: return vf_sqrt(x);
    case OCT_ABS: return vf_abs(x);
    case OCT_SQUARE: return x * x;
    case OCT_RECIPROCAL: return 1.0f / x;
    case OCT_TANH: return vf_tanh(x);
    case OCT_SIGMOID: return vf_sigmoid(x);
    case OCT_RELU: return vf_max(vf_all(0.0f), x);             /* NaN stays NaN */
    case OCT_GELU: return vf_gelu(x);
    case OCT_SILU: return x * vf_sigmoid(x);
    default: return x;
    }
}

/* The derivative at x, where y = value(x, op). */
INLINE vf slope(vf x, vf y, int op)
{
    switch (op) {
    case OCT_NEG: return vf_all(-1.0f);
    case OCT_EXP: return y;
    case OCT_LOG: return 1.0f / x;
    case OCT_SQRT: return 0.5f / y;
    case OCT_ABS: {                                            /* 0 at 0 */
        vf sign = vf_select(vf_less(x, vf_all(0.0f)), vf_all(-1.0f), vf_all(0.0f));
        return vf_select(vf_less(vf_all(0.0f), x), vf_all(1.0f), sign);
    }
    case OCT_SQUARE: return x + x;
    case OCT_RECIPROCAL: return -y * y;
    case OCT_TANH: return 1.0f - y * y;
    case OCT_SIGMOID: return y * (1.0f - y);
    case OCT_GELU: return vf_gelu_slope(x);
    case OCT_SILU: {
        vf s = vf_sigmoid(x);
        return vf_fma(x * s, 1.0f - s, s);
    }
    default: return vf_all(1.0f);
    }
}

/* dy times the derivative. Below 0, relu gives 0 even of a gradient that is infinite. */
INLINE vf change(vf dy, vf x, vf y, int op)
{
    if (op == OCT_RELU) return vf_select(vf_less(vf_all(0.0f), x), dy, vf_all(0.0f));
    return dy * slope(x, y, op);
}

/* Expands `call` once for each op with the op as a constant, and runs the one of `op`. */
#define FOR_UNARY(op, call)                                                                        \
    switch (op) {                                                                                  \
    case OCT_NEG: call(OCT_NEG); break;                                                            \
    case OCT_EXP: call(OCT_EXP); break;                                                            \
    case OCT_LOG: call(OCT_LOG); break;                                                            \
    case OCT_SQRT: call(OCT_SQRT); break;                                                          \
    case OCT_ABS: call(OCT_ABS); break;                                                            \
    case OCT_SQUARE: call(OCT_SQUARE); break;                                                      \
    case OCT_RECIPROCAL: call(OCT_RECIPROCAL); break;                                              \
    case OCT_TANH: call(OCT_TANH); break;                                                          \
    case OCT_SIGMOID: call(OCT_SIGMOID); break;                                                    \
    case OCT_RELU: call(OCT_RELU); break;                                                          \
    case OCT_GELU: call(OCT_GELU); break;                                                          \
    case OCT_SILU: call(OCT_SILU); break;                                                          \
    default: break;                                                                                \
    }

INLINE void values(float *y, const float *x, int64_t n, int op)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_store(y + i, value(vf_load(x + i), op));
    if (i < n) vf_store_first(y + i, value(vf_load_first(x + i, n - i), op), n - i);
}

static void values_of(float *y, const float *x, int64_t n, int op)
{
#define CALL(constant) values(y, x, n, constant)
    FOR_UNARY(op, CALL)
#undef CALL
}

void KERNEL(unary)(float *y, const float *x, int64_t n, int op)
{
    IN_PIECES(n, at, count, values_of(y + at, x + at, count, op));
}

INLINE void slopes(float *dx, const float *dy, const float *x, const float *y, int64_t n, int op,
                   int accumulate)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf d = change(vf_load(dy + i), vf_load(x + i), vf_load(y + i), op);
        vf_store(dx + i, accumulate ? vf_load(dx + i) + d : d);
    }
    if (i < n) {
        int64_t rest = n - i;
        vf d = change(vf_load_first(dy + i, rest), vf_load_first(x + i, rest),
                      vf_load_first(y + i, rest), op);
        vf_store_first(dx + i, accumulate ? vf_load_first(dx + i, rest) + d : d, rest);
    }
}

static void slopes_of(float *dx, const float *dy, const float *x, const float *y, int64_t n, int op,
                      int accumulate)
{
#define CALL(constant)                                                                             \
    do {                                                                                           \
        if (accumulate) slopes(dx, dy, x, y, n, constant, 1);                                      \
        else slopes(dx, dy, x, y, n, constant, 0);                                                 \
    } while (0)
    FOR_UNARY(op, CALL)
#undef CALL
}

void KERNEL(unary_backward)(float *dx, const float *dy, const float *x, const float *y, int64_t n,
                            int op, int accumulate)
{
    IN_PIECES(n, at, count, slopes_of(dx + at, dy + at, x + at, y + at, count, op, accumulate));
}

/* ---- activations on rows, for the epilogue of a product -------------------------------------- */

INLINE void biased(float *y, float *z, const float *bias, int64_t width, int op)
{
    int64_t j = 0;
    for (; j + LANES <= width; j += LANES) {
        vf v = vf_load(y + j);
        if (bias) v = v + vf_load(bias + j);
        if (z) vf_store(z + j, v);
        vf_store(y + j, value(v, op));
    }
    if (j < width) {
        int64_t rest = width - j;
        vf v = vf_load_first(y + j, rest);
        if (bias) v = v + vf_load_first(bias + j, rest);
        if (z) vf_store_first(z + j, v, rest);
        vf_store_first(y + j, value(v, op), rest);
    }
}

void KERNEL(bias_activation)(float *y, float *z, const float *bias, int64_t rows, int64_t width,
                             int activation)
{
    for (int64_t row = 0; row < rows; row++, y += width, z = z ? z + width : NULL) {
#define CALL(constant) biased(y, z, bias, width, constant)
        if (activation < 0) CALL(-1);
        else FOR_UNARY(activation, CALL)
#undef CALL
    }
}

INLINE void gradients(float *dz, const float *dy, const float *z, int64_t n, int op)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf x = vf_load(z + i);
        vf_store(dz + i, change(vf_load(dy + i), x, value(x, op), op));
    }
    if (i < n) {
        vf x = vf_load_first(z + i, n - i);
        vf d = change(vf_load_first(dy + i, n - i), x, value(x, op), op);
        vf_store_first(dz + i, d, n - i);
    }
}

void KERNEL(activation_gradient)(float *dz, const float *dy, const float *z, int64_t n,
                                 int activation)
{
    if (activation < 0) {
        if (dz != dy) memcpy(dz, dy, (size_t)n * sizeof *dz);
        return;
    }
#define CALL(constant) gradients(dz, dy, z, n, constant)
    FOR_UNARY(activation, CALL)
#undef CALL
}

/* ---- two operands ---------------------------------------------------------------------------- */

/* a where a lane of `where` has all bits set, b where none. */
INLINE vf either(vi where, vf a, vf b) { return (vf)((where & (vi)a) | (~where & (vi)b)); }

/* ORDER BINARY: kernels/kernels.h. */
INLINE vf combine(vf a, vf b, int op)
{
    switch (op) {
    case OCT_ADD: return a + b;
    case OCT_SUB: return a - b;
    case OCT_MUL: return a * b;
    case OCT_DIV: return a / b;
    case OCT_MAXIMUM: return either((vi)(a > b) | (vi)(a != a), a, b);
    case OCT_MINIMUM: return either((vi)(a < b) | (vi)(a != a), a, b);
    case OCT_WHERE: return either((vi)(b != vf_all(0.0f)), a, vf_all(0.0f));
    case OCT_ELSEWHERE: return either((vi)(b == vf_all(0.0f)), a, vf_all(0.0f));
    case OCT_LESS: return either((vi)(a < b), vf_all(1.0f), vf_all(0.0f));
    case OCT_LESS_EQUAL: return either((vi)(a <= b), vf_all(1.0f), vf_all(0.0f));
    case OCT_GREATER: return either((vi)(a > b), vf_all(1.0f), vf_all(0.0f));
    case OCT_GREATER_EQUAL: return either((vi)(a >= b), vf_all(1.0f), vf_all(0.0f));
    case OCT_EQUAL: return either((vi)(a == b), vf_all(1.0f), vf_all(0.0f));
    case OCT_NOT_EQUAL: return either((vi)(a != b), vf_all(1.0f), vf_all(0.0f));
    default: return a;
    }
}

/* A run of n elements; a step of 0 repeats one element. */
INLINE void run(float *y, const float *a, const float *b, int64_t n, int a_step, int b_step, int op)
{
    vf first_a = vf_all(a[0]), first_b = vf_all(b[0]);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, combine(a_step ? vf_load(a + i) : first_a,
                                b_step ? vf_load(b + i) : first_b, op));
    if (i < n) {
        vf va = a_step ? vf_load_first(a + i, n - i) : first_a;
        vf vb = b_step ? vf_load_first(b + i, n - i) : first_b;
        vf_store_first(y + i, combine(va, vb, op), n - i);
    }
}

static void run_of(float *y, const float *a, const float *b, int64_t n, int64_t a_step,
                   int64_t b_step, int op)
{
    if (((a_step | b_step) & ~(int64_t)1) != 0) {
        for (int64_t i = 0; i < n; i++) run_of(y + i, a + i * a_step, b + i * b_step, 1, 1, 1, op);
        return;
    }
#define CASE(constant)                                                                             \
    case constant:                                                                                 \
        if (a_step && b_step) run(y, a, b, n, 1, 1, constant);                                     \
        else if (a_step) run(y, a, b, n, 1, 0, constant);                                          \
        else if (b_step) run(y, a, b, n, 0, 1, constant);                                          \
        else run(y, a, b, n, 0, 0, constant);                                                      \
        break;
    switch (op) {
    CASE(OCT_ADD) CASE(OCT_SUB) CASE(OCT_MUL) CASE(OCT_DIV) CASE(OCT_MAXIMUM) CASE(OCT_MINIMUM)
    CASE(OCT_WHERE) CASE(OCT_ELSEWHERE) CASE(OCT_LESS) CASE(OCT_LESS_EQUAL) CASE(OCT_EQUAL)
    CASE(OCT_GREATER) CASE(OCT_GREATER_EQUAL) CASE(OCT_NOT_EQUAL)
    default: break;
    }
#undef CASE
}

enum { MOST_DIMS = 8 };

/* Neighbouring dimensions that both operands walk evenly are one; the last is then as long as can
 * be. Returns the number of dimensions left, at least 1. */
static int merge_dimensions(int64_t *size, int64_t *a_step, int64_t *b_step, int ndim,
                            const int64_t *shape, const int64_t *a_strides,
                            const int64_t *b_strides)
{
    int last = 0;
    size[0] = 1, a_step[0] = 0, b_step[0] = 0;
    for (int d = 0; d < ndim && d < MOST_DIMS; d++) {
        if (shape[d] == 1) continue;
        if (size[last] == 1 || (a_step[last] == a_strides[d] * shape[d]
                                && b_step[last] == b_strides[d] * shape[d])) {
            size[last] *= shape[d];
        } else {
            size[++last] = shape[d];
        }
        a_step[last] = a_strides[d];
        b_step[last] = b_strides[d];
    }
    return last + 1;
}

void KERNEL(binary)(float *y, const float *a, const float *b, int ndim, const int64_t *shape,
                    const int64_t *a_strides, const int64_t *b_strides, int op)
{
    int64_t size[MOST_DIMS], a_step[MOST_DIMS], b_step[MOST_DIMS], rows = 1;
    int last = merge_dimensions(size, a_step, b_step, ndim, shape, a_strides, b_strides) - 1;
    for (int d = 0; d < last; d++) rows *= size[d];
    const int64_t n = size[last];
    if (last == 0) {
        IN_PIECES(n, at, count, run_of(y + at, a + at * a_step[0], b + at * b_step[0], count,
                                       a_step[0], b_step[0], op));
        return;
    }
    IN_ROWS(rows, n, row, {
        int64_t place = row, a_at = 0, b_at = 0;
        for (int d = last - 1; d >= 0; d--) {
            a_at += place % size[d] * a_step[d];
            b_at += place % size[d] * b_step[d];
            place /= size[d];
        }
        run_of(y + row * n, a + a_at, b + b_at, n, a_step[last], b_step[last], op);
    });
}

/* ---- by a number ----------------------------------------------------------------------------- */

static void affine_piece(float *y, const float *x, int64_t n, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale + shift;
}

void KERNEL(affine)(float *y, const float *x, int64_t n, float scale, float shift)
{
    IN_PIECES(n, at, count, affine_piece(y + at, x + at, count, scale, shift));
}

static void add_scaled_piece(float *y, const float *x, int64_t n, float scale, int accumulate)
{
    if (accumulate)
        for (int64_t i = 0; i < n; i++) y[i] += x[i] * scale;
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale;
}

void KERNEL(add_scaled)(float *y, const float *x, int64_t n, float scale, int accumulate)
{
    IN_PIECES(n, at, count, add_scaled_piece(y + at, x + at, count, scale, accumulate));
}

static void fill_piece(float *y, int64_t n, float number)
{
    for (int64_t i = 0; i < n; i++) y[i] = number;
}

void KERNEL(fill)(float *y, int64_t n, float number)
{
    IN_PIECES(n, at, count, fill_piece(y + at, count, number));
}

/* Two forms, each exact at the end of its half, as in PyTorch's lerp. */
static void lerp_piece(float *y, const float *x, int64_t n, float weight)
{
    const float rest = 1.0f - weight;
    if (weight < 0.5f)
        for (int64_t i = 0; i < n; i++) y[i] += weight * (x[i] - y[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] - rest * (x[i] - y[i]);
}

void KERNEL(lerp)(float *y, const float *x, int64_t n, float weight)
{
    IN_PIECES(n, at, count, lerp_piece(y + at, x + at, count, weight));
}
