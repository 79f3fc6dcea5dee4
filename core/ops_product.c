/* ops_product.c - matrix products: matmul, and linear with its bias and activation fused in. */
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/scope.h"
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

/* ---- factors --------------------------------------------------------------------------------- */

/* x as a product takes it, a new reference: x itself in f32, else x rounded to bf16. A parameter's
 * rounded copy is kept until the parameter changes, so that a step rounds it once. */
static oct_tensor *factor(oct_tensor *x, int bf16)
{
    if (!bf16) return oct_tensor_retain(x);
    if (x->rounded && x->rounded_version == x->storage->version)
        return oct_tensor_retain(x->rounded);
    oct_tensor *rounded = oct_tensor_retain(x->rounded);
    if (!rounded) {
        rounded = oct_tensor_make(OCT_BF16, x->ndim, x->shape,
                                  x->is_parameter ? OCT_WORKSPACE : OCT_ACTIVATIONS);
        if (!rounded) return NULL;
        if (x->is_parameter) {
            oct_scope_leave(rounded);
            x->rounded = oct_tensor_retain(rounded);
        }
    }
    oct_kernels_now()->round_bf16(oct_data(rounded), oct_f32(x), x->size);
    x->rounded_version = x->storage->version;
    return rounded;
}

/* ---- matmul ---------------------------------------------------------------------------------- */

enum { TRANSPOSE_A, TRANSPOSE_B, IN_BF16 };
enum { A, B };                     /* saved factors */

/* y[batch x m x n] = op(a) op(b). */
typedef struct sizes {
    int64_t batch, m, n, k;
} sizes;

/* Of two matrices; of as many products as a's and b's leading sizes, which are the same; or of all
 * rows of a, whatever its leading sizes, and one matrix b. */
static int sizes_of(sizes *s, const oct_tensor *a, const oct_tensor *b, int ta, int tb)
{
    if (a->ndim < 2 || b->ndim < 2)
        return oct_fail("matmul: expected matrices, got %s x %s", oct_shape_text(a),
                        oct_shape_text(b));
    const int64_t *of_a = a->shape + a->ndim - 2, *of_b = b->shape + b->ndim - 2;
    *s = (sizes){1, of_a[ta], of_b[!tb], of_a[!ta]};
    if (s->k != of_b[tb])
        return oct_fail("matmul: inner sizes differ: %s%s x %s%s", oct_shape_text(a), ta ? "'" : "",
                        oct_shape_text(b), tb ? "'" : "");
    if (b->ndim == 2 && (a->ndim == 2 || !ta)) {
        s->m = a->size / s->k;
        return 0;
    }
    int same = a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim - 2; i++) {
        same = a->shape[i] == b->shape[i];
        s->batch *= a->shape[i];
    }
    if (same) return 0;
    return oct_fail("matmul: %s%s x %s%s: expected the same leading sizes, or one matrix on the "
                    "right of what is not transposed",
                    oct_shape_text(a), ta ? "'" : "", oct_shape_text(b), tb ? "'" : "");
}

static int matmul_step(oct_node *node)
{
    const oct_kernels *kernels = oct_kernels_now();
    oct_tensor *y = node->output;
    int ta = (int)node->integers[TRANSPOSE_A], tb = (int)node->integers[TRANSPOSE_B];
    int bf16 = (int)node->integers[IN_BF16];
    const void *a = oct_data(node->saved[A]), *b = oct_data(node->saved[B]), *dy;
    sizes s;
    float *da, *db;
    int add_a, add_b;
    OCT_TRY(sizes_of(&s, node->saved[A], node->saved[B], ta, tb));
    OCT_TRY(oct_grad_slot(&da, &add_a, node->inputs[A]));
    OCT_TRY(oct_grad_slot(&db, &add_b, node->inputs[B]));
    oct_tensor *gradient = factor(y->grad, bf16);
    if (!gradient) return -1;
    dy = oct_data(gradient);
    int status = 0;
    if (da && !ta)       /* da[m x k] = dy b' */
        status = kernels->matmul(da, dy, b, s.batch, s.m, s.k, s.n, 0, !tb, add_a, bf16);
    else if (da)         /* da[k x m] = b dy' */
        status = kernels->matmul(da, b, dy, s.batch, s.k, s.m, s.n, tb, 1, add_a, bf16);
    if (status == 0 && db && !tb)       /* db[k x n] = a' dy */
        status = kernels->matmul(db, a, dy, s.batch, s.k, s.n, s.m, !ta, 0, add_b, bf16);
    else if (status == 0 && db)         /* db[n x k] = dy' a */
        status = kernels->matmul(db, dy, a, s.batch, s.n, s.k, s.m, 1, ta, add_b, bf16);
    oct_tensor_release(gradient);
    return status;
}

int oct_matmul(oct_tensor **out, oct_tensor *a, oct_tensor *b, int transpose_a, int transpose_b)
{
    OCT_TRY(oct_check(a, "matmul", "the first matrix", OCT_F32));
    OCT_TRY(oct_check(b, "matmul", "the second matrix", OCT_F32));
    int ta = transpose_a != 0, tb = transpose_b != 0, bf16 = precision == OCT_BF16;
    sizes s;
    OCT_TRY(sizes_of(&s, a, b, ta, tb));
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, a->shape, sizeof shape);
    shape[a->ndim - 2] = a->shape[a->ndim - 2 + ta];
    shape[a->ndim - 1] = s.n;
    oct_tensor *inputs[] = {a, b};
    oct_tensor *y = oct_tensor_make(OCT_F32, a->ndim, shape, OCT_ACTIVATIONS);
    oct_tensor *fa = y ? factor(a, bf16) : NULL, *fb = fa ? factor(b, bf16) : NULL;
    int status = fb ? oct_kernels_now()->matmul(oct_f32(y), oct_data(fa), oct_data(fb), s.batch,
                                                s.m, s.n, s.k, ta, tb, 0, bf16)
                    : -1;
    if (status == 0 && oct_records(inputs, 2)) {
        oct_node *node = oct_tape_add(matmul_step, y, inputs, 2);
        if (node) {
            node->integers[TRANSPOSE_A] = ta;
            node->integers[TRANSPOSE_B] = tb;
            node->integers[IN_BF16] = bf16;
            node->saved[A] = oct_tensor_retain(fa);
            node->saved[B] = oct_tensor_retain(fb);
        } else {
            status = -1;
        }
    }
    oct_tensor_release(fa);
    oct_tensor_release(fb);
    if (status != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

/* ---- linear ---------------------------------------------------------------------------------- */

enum { ACTIVATION, PRODUCT_IN_BF16 };
enum { X, W, Z };                  /* saved: the factors, and what the activation was applied to */

static int linear_step(oct_node *node)
{
    oct_tensor *w = node->inputs[W], *y = node->output, *z = node->saved[Z];
    int activation = (int)node->integers[ACTIVATION], add[3];
    float *dx, *dw, *dbias, *dz = oct_f32(y->grad);
    OCT_TRY(oct_grad_slot(&dx, &add[0], node->inputs[X]));
    OCT_TRY(oct_grad_slot(&dw, &add[1], w));
    OCT_TRY(oct_grad_slot(&dbias, &add[2], node->inputs[2]));
    int64_t out = w->shape[0], in = w->shape[1], rows = y->size / out;
    /* dz may take dy's place where nobody will read dy after us. */
    size_t bytes = (size_t)y->size * sizeof(float);
    int own = activation >= 0 && (y->kept || atomic_load(&y->grad->storage->refs) != 1);
    if (own && !(dz = oct_block_new(bytes, OCT_WORKSPACE))) return -1;
    int status = oct_kernels_now()->linear_backward(
        dx, dw, dbias, dz, oct_f32(y->grad), z ? oct_f32(z) : NULL, oct_data(node->saved[X]),
        oct_data(node->saved[W]), rows, out, in, activation, add[0] | add[1] << 1 | add[2] << 2,
        (int)node->integers[PRODUCT_IN_BF16]);
    if (own) oct_block_free(dz, bytes, OCT_WORKSPACE);
    return status;
}

static int check_linear(const oct_tensor *x, const oct_tensor *w, const oct_tensor *bias,
                        int activation)
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
    return 0;
}

int oct_linear(oct_tensor **out, oct_tensor *x, oct_tensor *w, oct_tensor *bias, int activation)
{
    OCT_TRY(check_linear(x, w, bias, activation));
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[0];
    oct_tensor *inputs[] = {x, w, bias}, *z = NULL, *fx = NULL, *fw = NULL;
    int records = oct_records(inputs, 3), bf16 = precision == OCT_BF16;
    int keeps_z = records && activation >= 0, status = -1;
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    if ((!keeps_z || (z = oct_tensor_make(OCT_F32, x->ndim, shape, OCT_ACTIVATIONS))) &&
        (fx = factor(x, bf16)) && (fw = factor(w, bf16)))
        status = oct_kernels_now()->linear(oct_f32(y), z ? oct_f32(z) : NULL, oct_data(fx),
                                           oct_data(fw), bias ? oct_f32(bias) : NULL,
                                           x->size / w->shape[1], w->shape[0], w->shape[1],
                                           activation, bf16);
    if (status == 0 && records) {
        oct_node *node = oct_tape_add(linear_step, y, inputs, 3);
        if (node) {
            node->integers[ACTIVATION] = activation;
            node->integers[PRODUCT_IN_BF16] = bf16;
            node->saved[X] = oct_tensor_retain(fx);
            node->saved[W] = oct_tensor_retain(fw);
            node->saved[Z] = oct_tensor_retain(z);
        } else {
            status = -1;
        }
    }
    oct_tensor_release(z);
    oct_tensor_release(fx);
    oct_tensor_release(fw);
    if (status != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}
