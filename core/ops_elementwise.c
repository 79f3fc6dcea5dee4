/* ops_elementwise.c - functions of one element, arithmetic with broadcasting, dropout. */
#include "core/error.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/tape.h"
#include "kernels/kernels.h"

/* ORDER UNARY, ORDER BINARY, ORDER REDUCTION */
_Static_assert((int)OCT_OP_SILU == (int)OCT_SILU && (int)OCT_OP_GELU == (int)OCT_GELU, "unary ops");
_Static_assert((int)OCT_OP_DIV == (int)OCT_DIV && (int)OCT_OP_NOT_EQUAL == (int)OCT_NOT_EQUAL,
               "binary ops");
_Static_assert((int)OCT_OP_MAX == (int)OCT_MAX, "reductions");

/* ---- unary ----------------------------------------------------------------------------------- */

/* ORDER UNARY */
static const char *const unary_names[OCT_UNARIES] = {
    "neg",        "exp",  "log",     "sqrt", "abs",  "square",
    "reciprocal", "tanh", "sigmoid", "relu", "gelu", "silu",
};

static int unary_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *y = node->output;
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
    oct_kernels_now()->unary_backward(dx, oct_f32(y->grad), oct_f32(x), oct_f32(y), x->size,
                                      (int)node->integers[0], accumulate);
    return 0;
}

int oct_unary(oct_tensor **out, oct_tensor *x, int op)
{
    if (op < 0 || op >= OCT_UNARIES)
        return oct_fail("unary: op %d, expected 0 to %d", op, OCT_UNARIES - 1);
    OCT_TRY(oct_check(x, unary_names[op], "x", OCT_F32));
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    oct_kernels_now()->unary(oct_f32(y), oct_f32(x), x->size, op);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(unary_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[0] = op;
    }
    *out = y;
    return 0;
}

static int affine_step(oct_node *node)
{
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, node->inputs[0]));
    oct_kernels_now()->add_scaled(dx, oct_f32(node->output->grad), node->output->size,
                                  node->numbers[0], accumulate);
    return 0;
}

int oct_affine(oct_tensor **out, oct_tensor *x, float scale, float shift)
{
    OCT_TRY(oct_check(x, "arithmetic", "x", OCT_F32));
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    oct_kernels_now()->affine(oct_f32(y), oct_f32(x), x->size, scale, shift);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(affine_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->numbers[0] = scale;
    }
    *out = y;
    return 0;
}

/* ---- binary ---------------------------------------------------------------------------------- */

/* ORDER BINARY */
static const char *const binary_names[OCT_BINARIES] = {
    "add", "sub", "mul", "div", "maximum", "minimum", "where",
    "where", "lt",  "le",  "gt",  "ge",      "eq",      "ne",
};

/* Strides of t seen as one of shape[ndim]: 0 along what is broadcast. */
static void broadcast_strides(int64_t *strides, const oct_tensor *t, int ndim)
{
    int64_t stride = 1;
    for (int i = ndim - 1, j = t->ndim - 1; i >= 0; i--, j--) {
        int64_t size = j >= 0 ? t->shape[j] : 1;
        strides[i] = size == 1 ? 0 : stride;
        stride *= size;
    }
}

static int broadcast_shape(int64_t *shape, int *ndim, const char *op, const oct_tensor *a,
                           const oct_tensor *b)
{
    *ndim = a->ndim > b->ndim ? a->ndim : b->ndim;
    for (int i = *ndim - 1, j = a->ndim - 1, k = b->ndim - 1; i >= 0; i--, j--, k--) {
        int64_t p = j >= 0 ? a->shape[j] : 1, q = k >= 0 ? b->shape[k] : 1;
        if (p != q && p != 1 && q != 1)
            return oct_fail("%s: shapes %s and %s do not broadcast", op, oct_shape_text(a),
                            oct_shape_text(b));
        shape[i] = p > q ? p : q;
    }
    return 0;
}

/* x's gradient (+)= `full`, which has the shape of y, summed over what was broadcast. */
static int unbroadcast(oct_tensor *x, const float *full, const oct_tensor *y)
{
    const oct_kernels *kernels = oct_kernels_now();
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
    if (x->size == y->size) {
        kernels->add_scaled(dx, full, x->size, 1.0f, accumulate);
        return 0;
    }
    /* Dimension by dimension, the last first; each sum goes to a fresh workspace. */
    int64_t outer = y->size, inner = 1;
    const float *from = full;
    float *work = NULL;
    size_t work_bytes = 0;
    for (int i = y->ndim - 1, j = x->ndim - 1; i >= 0; i--, j--) {
        int64_t size = y->shape[i], kept = j >= 0 ? x->shape[j] : 1;
        outer /= size;
        if (size == kept) {
            inner *= size;
            continue;
        }
        size_t bytes = (size_t)(outer * inner) * sizeof(float);
        float *sums = oct_block_new(bytes, OCT_WORKSPACE);
        if (!sums) {
            oct_block_free(work, work_bytes, OCT_WORKSPACE);
            return -1;
        }
        kernels->reduce(sums, NULL, from, outer, size, inner, OCT_SUM);
        oct_block_free(work, work_bytes, OCT_WORKSPACE);
        from = work = sums;
        work_bytes = bytes;
    }
    kernels->add_scaled(dx, from, x->size, 1.0f, accumulate);
    oct_block_free(work, work_bytes, OCT_WORKSPACE);
    return 0;
}

/* x's gradient (+)= scale * op(dy, by), where `by` (NULL: nothing) is broadcast to dy's shape. */
static int binary_input_step(oct_tensor *x, oct_tensor *y, oct_tensor *by, int op, float scale)
{
    const oct_kernels *kernels = oct_kernels_now();
    if (!x->requires_grad) return 0;
    if (!by && scale == 1.0f)
        return x->size == y->size ? oct_grad_pass(x, y) : unbroadcast(x, oct_f32(y->grad), y);
    size_t bytes = (size_t)y->size * sizeof(float);
    float *full = oct_block_new(bytes, OCT_WORKSPACE);
    if (!full) return -1;
    if (by) {
        int64_t dy_strides[OCT_MAX_DIMS], by_strides[OCT_MAX_DIMS];
        broadcast_strides(dy_strides, y, y->ndim);
        broadcast_strides(by_strides, by, y->ndim);
        kernels->binary(full, oct_f32(y->grad), oct_f32(by), y->ndim, y->shape, dy_strides,
                        by_strides, op);
        if (scale != 1.0f) kernels->affine(full, full, y->size, scale, 0.0f);
    } else {
        kernels->affine(full, oct_f32(y->grad), y->size, scale, 0.0f);
    }
    int status = unbroadcast(x, full, y);
    oct_block_free(full, bytes, OCT_WORKSPACE);
    return status;
}

/* x's gradient (+)= dy where y = max(x, other), or min, is x's; half of it where both are equal. */
static int extreme_input_step(oct_tensor *x, oct_tensor *other, oct_tensor *y, int op)
{
    const oct_kernels *kernels = oct_kernels_now();
    if (!x->requires_grad) return 0;
    int64_t full[OCT_MAX_DIMS], of_x[OCT_MAX_DIMS], of_other[OCT_MAX_DIMS];
    broadcast_strides(full, y, y->ndim);
    broadcast_strides(of_x, x, y->ndim);
    broadcast_strides(of_other, other, y->ndim);
    size_t bytes = 2 * (size_t)y->size * sizeof(float);
    float *share = oct_block_new(bytes, OCT_WORKSPACE);
    if (!share) return -1;
    float *equal = share + y->size;
    kernels->binary(share, oct_f32(x), oct_f32(other), y->ndim, y->shape, of_x, of_other,
                    op == OCT_MAXIMUM ? OCT_GREATER : OCT_LESS);
    kernels->binary(equal, oct_f32(x), oct_f32(other), y->ndim, y->shape, of_x, of_other,
                    OCT_EQUAL);
    kernels->add_scaled(share, equal, y->size, 0.5f, 1);
    /* What was not taken gets 0, even of a gradient that is infinite. */
    kernels->binary(equal, share, oct_f32(y->grad), y->ndim, y->shape, full, full, OCT_MUL);
    kernels->binary(share, equal, share, y->ndim, y->shape, full, full, OCT_WHERE);
    int status = unbroadcast(x, share, y);
    oct_block_free(share, bytes, OCT_WORKSPACE);
    return status;
}

static int binary_step(oct_node *node)
{
    oct_tensor *a = node->inputs[0], *b = node->inputs[1], *y = node->output;
    int op = (int)node->integers[0];
    switch (op) {
    case OCT_ADD:
        OCT_TRY(binary_input_step(a, y, NULL, 0, 1.0f));
        return binary_input_step(b, y, NULL, 0, 1.0f);
    case OCT_SUB:
        OCT_TRY(binary_input_step(b, y, NULL, 0, -1.0f));
        return binary_input_step(a, y, NULL, 0, 1.0f);
    case OCT_MUL:
        OCT_TRY(binary_input_step(a, y, b, OCT_MUL, 1.0f));
        return binary_input_step(b, y, a, OCT_MUL, 1.0f);
    case OCT_MAXIMUM:
    case OCT_MINIMUM:
        OCT_TRY(extreme_input_step(a, b, y, op));
        return extreme_input_step(b, a, y, op);
    case OCT_WHERE:
    case OCT_ELSEWHERE: return binary_input_step(a, y, b, op, 1.0f);
    default: { /* y = a / b: da = dy / b; db = -dy (y / b), of which the latter is built first */
        OCT_TRY(binary_input_step(a, y, b, OCT_DIV, 1.0f));
        if (!b->requires_grad) return 0;
        int64_t full[OCT_MAX_DIMS], of_b[OCT_MAX_DIMS];
        broadcast_strides(full, y, y->ndim);
        broadcast_strides(of_b, b, y->ndim);
        size_t bytes = (size_t)y->size * sizeof(float);
        float *work = oct_block_new(bytes, OCT_WORKSPACE);
        if (!work) return -1;
        const oct_kernels *kernels = oct_kernels_now();
        kernels->binary(work, oct_f32(y), oct_f32(b), y->ndim, y->shape, full, of_b, OCT_DIV);
        kernels->binary(work, work, oct_f32(y->grad), y->ndim, y->shape, full, full, OCT_MUL);
        kernels->affine(work, work, y->size, -1.0f, 0.0f);
        int status = unbroadcast(b, work, y);
        oct_block_free(work, bytes, OCT_WORKSPACE);
        return status;
    }
    }
}

/* A result of the shape that a and b broadcast to, and how each is walked along it; NULL where they
 * do not, or memory ends. */
static oct_tensor *broadcast_result(int64_t *a_strides, int64_t *b_strides, const char *op,
                                    const oct_tensor *a, const oct_tensor *b)
{
    int64_t shape[OCT_MAX_DIMS] = {0};
    int ndim;
    if (broadcast_shape(shape, &ndim, op, a, b) != 0) return NULL;
    broadcast_strides(a_strides, a, ndim);
    broadcast_strides(b_strides, b, ndim);
    return oct_tensor_make(OCT_F32, ndim, shape, OCT_ACTIVATIONS);
}

static int binary(oct_tensor **out, oct_tensor *a, oct_tensor *b, int op, const char *name)
{
    int64_t a_strides[OCT_MAX_DIMS], b_strides[OCT_MAX_DIMS];
    int has_condition = op == OCT_WHERE || op == OCT_ELSEWHERE;
    oct_tensor *y = broadcast_result(a_strides, b_strides, name, a, b);
    if (!y) return -1;
    oct_kernels_now()->binary(oct_f32(y), oct_f32(a), oct_f32(b), y->ndim, y->shape, a_strides,
                              b_strides, op);
    oct_tensor *inputs[] = {a, b};
    if (op < OCT_LESS && oct_records(inputs, has_condition ? 1 : 2)) {
        oct_node *node = oct_tape_add(binary_step, y, inputs, 2);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[0] = op;
    }
    *out = y;
    return 0;
}

static int holds(int32_t a, int32_t b, int op)
{
    switch (op) {
    case OCT_LESS: return a < b;
    case OCT_LESS_EQUAL: return a <= b;
    case OCT_GREATER: return a > b;
    case OCT_GREATER_EQUAL: return a >= b;
    case OCT_EQUAL: return a == b;
    default: return a != b;
    }
}

/* Of i32, as ids and labels are: all their values count, not the first 24 bits alone. One by one,
 * since they are few. */
static int compare_integers(oct_tensor **out, oct_tensor *a, oct_tensor *b, int op)
{
    int64_t a_strides[OCT_MAX_DIMS], b_strides[OCT_MAX_DIMS];
    oct_tensor *y = broadcast_result(a_strides, b_strides, binary_names[op], a, b);
    if (!y) return -1;
    for (int64_t i = 0; i < y->size; i++) {
        int64_t place = i, at_a = 0, at_b = 0;
        for (int d = y->ndim - 1; d >= 0; d--) {
            at_a += place % y->shape[d] * a_strides[d];
            at_b += place % y->shape[d] * b_strides[d];
            place /= y->shape[d];
        }
        oct_f32(y)[i] = (float)holds(oct_i32(a)[at_a], oct_i32(b)[at_b], op);
    }
    *out = y;
    return 0;
}

int oct_binary(oct_tensor **out, oct_tensor *a, oct_tensor *b, int op)
{
    if (op < 0 || op >= OCT_BINARIES)
        return oct_fail("binary: op %d, expected 0 to %d", op, OCT_BINARIES - 1);
    int integers = op >= OCT_LESS && a && b && a->dtype == OCT_I32 && b->dtype == OCT_I32;
    int dtype = integers ? OCT_I32 : OCT_F32;
    OCT_TRY(oct_check(a, binary_names[op], "the first tensor", dtype));
    OCT_TRY(oct_check(b, binary_names[op], "the second tensor", dtype));
    return integers ? compare_integers(out, a, b, op) : binary(out, a, b, op, binary_names[op]);
}

int oct_where(oct_tensor **out, oct_tensor *condition, oct_tensor *a, oct_tensor *b)
{
    OCT_TRY(oct_check(condition, "where", "the condition", OCT_F32));
    OCT_TRY(oct_check(a, "where", "the first tensor", OCT_F32));
    OCT_TRY(oct_check(b, "where", "the second tensor", OCT_F32));
    oct_tensor *one, *other;
    OCT_TRY(binary(&one, a, condition, OCT_WHERE, "where"));
    int status = binary(&other, b, condition, OCT_ELSEWHERE, "where");
    if (status == 0) {
        status = binary(out, one, other, OCT_ADD, "where");
        oct_tensor_release(other);
    }
    oct_tensor_release(one);
    return status;
}

/* ---- clamp ----------------------------------------------------------------------------------- */

/* y[n] = op(a, b) of runs of n, of which one may be a single number: its stride is 0. */
static void combine(float *y, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                    int64_t n, int op)
{
    oct_kernels_now()->binary(y, a, b, 1, &n, &a_stride, &b_stride, op);
}

static int clamp_step(oct_node *node)
{
    const oct_tensor *x = node->inputs[0], *y = node->output;
    const float *low = &node->numbers[0], *high = &node->numbers[1];
    float *dx;
    int accumulate;
    size_t bytes = 2 * (size_t)x->size * sizeof(float);
    OCT_TRY(oct_grad_slot(&dx, &accumulate, node->inputs[0]));
    float *within = oct_block_new(bytes, OCT_WORKSPACE);
    if (!within) return -1;
    float *passed = within + x->size;
    combine(within, low, 0, oct_f32(x), 1, x->size, OCT_LESS_EQUAL);
    combine(passed, oct_f32(y->grad), 1, within, 1, x->size, OCT_WHERE);
    combine(within, oct_f32(x), 1, high, 0, x->size, OCT_LESS_EQUAL);
    combine(passed, passed, 1, within, 1, x->size, OCT_WHERE);
    oct_kernels_now()->add_scaled(dx, passed, x->size, 1.0f, accumulate);
    oct_block_free(within, bytes, OCT_WORKSPACE);
    return 0;
}

int oct_clamp(oct_tensor **out, oct_tensor *x, float low, float high)
{
    OCT_TRY(oct_check(x, "clamp", "x", OCT_F32));
    if (!(low <= high)) return oct_fail("clamp: from %g to %g, expected low <= high", low, high);
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    combine(oct_f32(y), oct_f32(x), 1, &low, 0, x->size, OCT_MAXIMUM);
    combine(oct_f32(y), oct_f32(y), 1, &high, 0, x->size, OCT_MINIMUM);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(clamp_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->numbers[0] = low;
        node->numbers[1] = high;
    }
    *out = y;
    return 0;
}

/* ---- dropout --------------------------------------------------------------------------------- */

static int dropout_step(oct_node *node)
{
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, node->inputs[0]));
    oct_dropout_mask mask = {node->numbers[0], node->random_seed, node->random_offset};
    oct_kernels_now()->dropout(dx, oct_f32(node->output->grad), node->output->size, mask,
                               accumulate);
    return 0;
}

int oct_dropout(oct_tensor **out, oct_tensor *x, float p)
{
    OCT_TRY(oct_check(x, "dropout", "x", OCT_F32));
    if (!(p >= 0.0f && p < 1.0f)) return oct_fail("dropout: p must be at least 0 and below 1");
    if (p == 0.0f) return oct_reshape(out, x, x->ndim, x->shape);
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    oct_dropout_mask mask = {p, oct_random_seed(),
                             oct_random_take(OCT_STREAM_DROPOUT, (uint64_t)(x->size + 7) / 8)};
    oct_kernels_now()->dropout(oct_f32(y), oct_f32(x), x->size, mask, 0);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(dropout_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->numbers[0] = p;
        node->random_seed = mask.seed;
        node->random_offset = mask.offset;
    }
    *out = y;
    return 0;
}

/* ---- in place -------------------------------------------------------------------------------- */

int oct_lerp(oct_tensor *dst, oct_tensor *src, float weight)
{
    OCT_TRY(oct_check(dst, "lerp", "the destination", OCT_F32));
    OCT_TRY(oct_check(src, "lerp", "the source", OCT_F32));
    if (dst->size != src->size)
        return oct_fail("lerp: sizes differ: destination %s, source %s", oct_shape_text(dst),
                        oct_shape_text(src));
    if (!(weight >= 0.0f && weight <= 1.0f))
        return oct_fail("lerp: the weight is %g, expected 0 to 1", (double)weight);
    if (dst->start != src->start && oct_share_memory(dst, src))
        return oct_fail("lerp: the two tensors share a part of their memory");
    oct_kernels_now()->lerp(oct_f32(dst), oct_f32(src), dst->size, weight);
    oct_wrote(dst->storage);
    return 0;
}
