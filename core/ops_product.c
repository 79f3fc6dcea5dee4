/* ops_product.c - matrix products: matmul, and linear with its bias and activation fused in. */
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/tape.h"
#include "kernels/kernels.h"

static int precision = OCT_F32;

int oct_set_precision(int dtype)
{
    if (dtype != OCT_F32 && dtype != OCT_BF16)
        return oct_fail("precision: %s, expected f32 or bf16", oct_dtype_name(dtype));
    precision = dtype;
    return 0;
}

int oct_precision(int *dtype)
{
    *dtype = precision;
    return 0;
}

/* ---- matmul ----------------------------------------------------------------------------------------- */

enum { TRANSPOSE_A, TRANSPOSE_B, IN_BF16 };

static int matmul_step(oct_node *node)
{
    const oct_kernels *kernels = oct_kernels_now();
    oct_tensor *a = node->inputs[0], *b = node->inputs[1], *y = node->output;
    int ta = (int)node->integers[TRANSPOSE_A], tb = (int)node->integers[TRANSPOSE_B];
    int bf16 = (int)node->integers[IN_BF16];
    int64_t m = y->shape[0], n = y->shape[1], k = ta ? a->shape[0] : a->shape[1];
    const float *dy = oct_f32(y->grad);
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, a));
    if (grad && !ta) /* da[m x k] = dy b' */
        OCT_TRY(kernels->matmul(grad, dy, oct_f32(b), m, k, n, 0, !tb, accumulate, bf16));
    else if (grad)   /* da[k x m] = b dy' */
        OCT_TRY(kernels->matmul(grad, oct_f32(b), dy, k, m, n, tb, 1, accumulate, bf16));
    OCT_TRY(oct_grad_slot(&grad, &accumulate, b));
    if (grad && !tb) /* db[k x n] = a' dy */
        OCT_TRY(kernels->matmul(grad, oct_f32(a), dy, k, n, m, !ta, 0, accumulate, bf16));
    else if (grad)   /* db[n x k] = dy' a */
        OCT_TRY(kernels->matmul(grad, dy, oct_f32(a), n, k, m, 1, ta, accumulate, bf16));
    return 0;
}

int oct_matmul(oct_tensor **out, oct_tensor *a, oct_tensor *b, int transpose_a, int transpose_b)
{
    OCT_TRY(oct_check(a, "matmul", "the first matrix", OCT_F32));
    OCT_TRY(oct_check(b, "matmul", "the second matrix", OCT_F32));
    if (a->ndim != 2 || b->ndim != 2)
        return oct_fail("matmul: expected two matrices, got %s x %s", oct_shape_text(a),
                        oct_shape_text(b));
    int ta = transpose_a != 0, tb = transpose_b != 0;
    if (a->shape[!ta] != b->shape[tb])
        return oct_fail("matmul: inner sizes differ: %s%s x %s%s", oct_shape_text(a), ta ? "'" : "",
                        oct_shape_text(b), tb ? "'" : "");
    int64_t shape[2] = {a->shape[ta], b->shape[!tb]};
    oct_tensor *y = oct_tensor_make(OCT_F32, 2, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    int bf16 = precision == OCT_BF16;
    oct_tensor *inputs[] = {a, b};
    if (oct_kernels_now()->matmul(oct_f32(y), oct_f32(a), oct_f32(b), shape[0], shape[1],
                                  a->shape[!ta], ta, tb, 0, bf16) != 0)
        return oct_tensor_release(y), -1;
    if (oct_records(inputs, 2)) {
        oct_node *node = oct_tape_add(matmul_step, y, inputs, 2);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[TRANSPOSE_A] = ta;
        node->integers[TRANSPOSE_B] = tb;
        node->integers[IN_BF16] = bf16;
    }
    *out = y;
    return 0;
}

/* ---- linear ----------------------------------------------------------------------------------------- */

enum { ACTIVATION };

static int linear_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *w = node->inputs[1], *bias = node->inputs[2], *y = node->output;
    oct_tensor *z = node->saved[0];
    int activation = (int)node->integers[ACTIVATION], add[3];
    float *dx, *dw, *dbias, *dz = oct_f32(y->grad);
    OCT_TRY(oct_grad_slot(&dx, &add[0], x));
    OCT_TRY(oct_grad_slot(&dw, &add[1], w));
    OCT_TRY(oct_grad_slot(&dbias, &add[2], bias));
    int64_t out = w->shape[0], in = w->shape[1], rows = x->size / in;
    /* dz may take dy's place where nobody will read dy after us. */
    size_t bytes = (size_t)y->size * sizeof(float);
    int own = activation >= 0 && (y->kept || atomic_load(&y->grad->storage->refs) != 1);
    if (own && !(dz = oct_block_new(bytes, OCT_WORKSPACE))) return -1;
    int status = oct_kernels_now()->linear_backward(
        dx, dw, dbias, dz, oct_f32(y->grad), z ? oct_f32(z) : NULL, oct_f32(x), oct_f32(w), rows, out,
        in, activation, add[0] | add[1] << 1 | add[2] << 2, (int)node->integers[IN_BF16]);
    if (own) oct_block_free(dz, bytes, OCT_WORKSPACE);
    return status;
}

int oct_linear(oct_tensor **out, oct_tensor *x, oct_tensor *w, oct_tensor *bias, int activation)
{
    OCT_TRY(oct_check(x, "linear", "x", OCT_F32));
    OCT_TRY(oct_check(w, "linear", "the weight", OCT_F32));
    if (bias) OCT_TRY(oct_check(bias, "linear", "the bias", OCT_F32));
    if (activation < -1 || activation >= OCT_UNARIES)
        return oct_fail("linear: activation %d, expected -1 to %d", activation, OCT_UNARIES - 1);
    if (w->ndim != 2 || x->ndim < 1 || x->shape[x->ndim - 1] != w->shape[1])
        return oct_fail("linear: x is %s, the weight %s; x's last size must be the weight's last",
                        oct_shape_text(x), oct_shape_text(w));
    if (bias && (bias->ndim != 1 || bias->shape[0] != w->shape[0]))
        return oct_fail("linear: the bias is %s, the weight %s; expected a bias [%lld]",
                        oct_shape_text(bias), oct_shape_text(w), (long long)w->shape[0]);
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[0];
    oct_tensor *inputs[] = {x, w, bias};
    int records = oct_records(inputs, 3), bf16 = precision == OCT_BF16;
    oct_tensor *z = NULL, *y = oct_tensor_make(OCT_F32, x->ndim, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    if (records && activation >= 0 &&
        !(z = oct_tensor_make(OCT_F32, x->ndim, shape, OCT_ACTIVATIONS)))
        return oct_tensor_release(y), -1;
    int status = oct_kernels_now()->linear(oct_f32(y), z ? oct_f32(z) : NULL, oct_f32(x), oct_f32(w),
                                           bias ? oct_f32(bias) : NULL, x->size / w->shape[1],
                                           w->shape[0], w->shape[1], activation, bf16);
    if (status == 0 && records) {
        oct_node *node = oct_tape_add(linear_step, y, inputs, 3);
        if (node) {
            node->integers[ACTIVATION] = activation;
            node->integers[IN_BF16] = bf16;
            node->saved[0] = oct_tensor_retain(z);
        } else {
            status = -1;
        }
    }
    oct_tensor_release(z);
    if (status != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}
