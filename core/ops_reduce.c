/* ops_reduce.c - sums, means and maxima over a dimension or over all. */
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/tape.h"
#include "kernels/kernels.h"

static void sizes_around(int64_t *outer, int64_t *size, int64_t *inner, const oct_tensor *x,
                         int dim)
{
    *outer = *inner = 1;
    *size = dim < 0 ? x->size : x->shape[dim];
    for (int i = 0; dim >= 0 && i < dim; i++) *outer *= x->shape[i];
    for (int i = dim + 1; dim >= 0 && i < x->ndim; i++) *inner *= x->shape[i];
}

static int reduce_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *y = node->output;
    int op = (int)node->integers[1];
    int64_t outer, size, inner;
    sizes_around(&outer, &size, &inner, x, (int)node->integers[0]);
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
    const oct_kernels *kernels = oct_kernels_now();
    if (op != OCT_MAX) {
        kernels->spread(dx, oct_f32(y->grad), outer, size, inner,
                        op == OCT_MEAN ? 1.0f / (float)size : 1.0f, accumulate);
        return 0;
    }
    if (!accumulate) kernels->fill(dx, x->size, 0.0f);
    const int32_t *at = oct_i32(node->saved[0]);
    const float *dy = oct_f32(y->grad);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            dx[(o * size + at[o * inner + i]) * inner + i] += dy[o * inner + i];
    return 0;
}

int oct_reduce(oct_tensor **out, oct_tensor *x, int dim, int keep, int op)
{
    if (op < 0 || op >= OCT_REDUCTIONS)
        return oct_fail("reduce: op %d, expected 0 to %d", op, OCT_REDUCTIONS - 1);
    static const char *const names[OCT_REDUCTIONS] = {"sum", "mean", "max"}; /* ORDER REDUCTION */
    OCT_TRY(oct_check(x, names[op], "x", OCT_F32));
    if (dim < -1 || dim >= x->ndim)
        return oct_fail("%s: dimension %d of a tensor %s", names[op], dim + 1, oct_shape_text(x));
    int64_t outer, size, inner, shape[OCT_MAX_DIMS];
    sizes_around(&outer, &size, &inner, x, dim);
    if (op == OCT_MAX && size > INT32_MAX)
        return oct_fail("reduce: %lld elements, a maximum takes %d at most", (long long)size,
                        INT32_MAX);
    int ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (dim >= 0 && i != dim) shape[ndim++] = x->shape[i];
        else if (keep) shape[ndim++] = 1;
    }
    oct_tensor *y = oct_tensor_make(OCT_F32, ndim, shape, OCT_ACTIVATIONS), *at = NULL;
    if (!y) return -1;
    if (op == OCT_MAX && !(at = oct_tensor_make(OCT_I32, ndim, shape, OCT_ACTIVATIONS)))
        return oct_tensor_release(y), -1;
    oct_kernels_now()->reduce(oct_f32(y), at ? oct_i32(at) : NULL, oct_f32(x), outer, size, inner,
                              op);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(reduce_step, y, &x, 1);
        if (!node) {
            oct_tensor_release(at);
            return oct_tensor_release(y), -1;
        }
        node->integers[0] = dim;
        node->integers[1] = op;
        node->saved[0] = oct_tensor_retain(at);
    }
    oct_tensor_release(at);
    *out = y;
    return 0;
}

int oct_argmax(oct_tensor **out, oct_tensor *x)
{
    OCT_TRY(oct_check(x, "argmax", "x", OCT_F32));
    if (x->ndim < 1) return oct_fail("argmax: a scalar has no last dimension");
    int64_t width = x->shape[x->ndim - 1], rows = x->size / width;
    if (width > INT32_MAX) return oct_fail("argmax: %lld elements in a row", (long long)width);
    size_t bytes = (size_t)rows * sizeof(float);
    float *largest = oct_block_new(bytes, OCT_WORKSPACE);
    if (!largest) return -1;
    oct_tensor *y = oct_tensor_make(OCT_I32, x->ndim - 1, x->shape, OCT_ACTIVATIONS);
    if (y) {
        oct_kernels_now()->reduce(largest, oct_i32(y), oct_f32(x), rows, width, 1, OCT_MAX);
        *out = y;
    }
    oct_block_free(largest, bytes, OCT_WORKSPACE);
    return y ? 0 : -1;
}

int oct_all_finite(int *finite, oct_tensor *x)
{
    OCT_TRY(oct_check(x, "all_finite", "x", OCT_F32));
    *finite = oct_kernels_now()->all_finite(oct_f32(x), x->size);
    return 0;
}
