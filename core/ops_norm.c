/* ops_norm.c - layer norm and softmax: what works along the last dimension. */
#include "core/error.h"
#include "core/memory.h"
#include "core/tape.h"
#include "kernels/kernels.h"

/* ---- layer norm ------------------------------------------------------------------------------ */

static int layer_norm_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *gain = node->inputs[1], *shift = node->inputs[2];
    oct_tensor *y = node->output, *mean = node->saved[0], *rstd = node->saved[1];
    int64_t width = gain->size, rows = x->size / width;
    float *dx, *dgain, *dshift;
    int add[3];
    OCT_TRY(oct_grad_slot(&dx, &add[0], x));
    OCT_TRY(oct_grad_slot(&dgain, &add[1], gain));
    OCT_TRY(oct_grad_slot(&dshift, &add[2], shift));
    size_t bytes = (size_t)(oct_layer_norm_partials(rows) * 2 * width) * sizeof(float);
    float *partial = oct_block_new(bytes, OCT_WORKSPACE);
    if (!partial) return -1;
    oct_kernels_now()->layer_norm_backward(dx, dgain, dshift, oct_f32(y->grad), oct_f32(x),
                                           oct_f32(mean), oct_f32(rstd), oct_f32(gain), rows, width,
                                           partial, add[0] | add[1] << 1 | add[2] << 2);
    oct_block_free(partial, bytes, OCT_WORKSPACE);
    return 0;
}

int oct_layer_norm(oct_tensor **out, oct_tensor *x, oct_tensor *gain, oct_tensor *shift,
                   float epsilon)
{
    OCT_TRY(oct_check(x, "layer_norm", "x", OCT_F32));
    OCT_TRY(oct_check(gain, "layer_norm", "the gain", OCT_F32));
    OCT_TRY(oct_check(shift, "layer_norm", "the shift", OCT_F32));
    if (x->ndim < 1 || gain->ndim != 1 || shift->ndim != 1 || gain->size != x->shape[x->ndim - 1] ||
        shift->size != gain->size)
        return oct_fail(
            "layer_norm: x is %s, the gain %s, the shift %s; the last size of x must be "
            "theirs",
            oct_shape_text(x), oct_shape_text(gain), oct_shape_text(shift));
    if (!(epsilon >= 0)) return oct_fail("layer_norm: epsilon is negative or not a number");
    int64_t width = gain->size, rows = x->size / width;
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    oct_tensor *mean = y ? oct_tensor_make(OCT_F32, 1, &rows, OCT_ACTIVATIONS) : NULL;
    oct_tensor *rstd = mean ? oct_tensor_make(OCT_F32, 1, &rows, OCT_ACTIVATIONS) : NULL;
    int status = rstd ? 0 : -1;
    if (status == 0) {
        oct_kernels_now()->layer_norm(oct_f32(y), oct_f32(mean), oct_f32(rstd), oct_f32(x),
                                      oct_f32(gain), oct_f32(shift), rows, width, epsilon);
        oct_tensor *inputs[] = {x, gain, shift};
        if (oct_records(inputs, 3)) {
            oct_node *node = oct_tape_add(layer_norm_step, y, inputs, 3);
            if (node) {
                node->saved[0] = oct_tensor_retain(mean);
                node->saved[1] = oct_tensor_retain(rstd);
            } else {
                status = -1;
            }
        }
    }
    oct_tensor_release(mean);
    oct_tensor_release(rstd);
    if (status != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

/* ---- softmax --------------------------------------------------------------------------------- */

static int softmax_step(oct_node *node)
{
    oct_tensor *y = node->output;
    int64_t width = y->shape[y->ndim - 1];
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, node->inputs[0]));
    oct_kernels_now()->softmax_backward(dx, oct_f32(y->grad), oct_f32(y), y->size / width, width,
                                        (int)node->integers[0], accumulate);
    return 0;
}

int oct_softmax(oct_tensor **out, oct_tensor *x, int log)
{
    OCT_TRY(oct_check(x, "softmax", "x", OCT_F32));
    if (x->ndim < 1) return oct_fail("softmax: a scalar has no last dimension");
    oct_tensor *y = oct_tensor_make(OCT_F32, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    int64_t width = x->shape[x->ndim - 1];
    oct_kernels_now()->softmax(oct_f32(y), oct_f32(x), x->size / width, width, log != 0);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(softmax_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[0] = log != 0;
    }
    *out = y;
    return 0;
}
