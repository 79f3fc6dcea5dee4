/* ops_loss.c - cross-entropy, over classes and of yes or no. */
#include "core/error.h"
#include "core/memory.h"
#include "core/tape.h"
#include "kernels/kernels.h"

static int cross_entropy_step(oct_node *node)
{
    oct_tensor *logits = node->inputs[0], *labels = node->saved[0];
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, logits));
    float scale = *oct_f32(node->output->grad) / (float)node->integers[1];
    oct_kernels_now()->cross_entropy_backward(grad, oct_f32(logits), oct_i32(labels), scale,
                                              logits->shape[0], logits->shape[1],
                                              (int32_t)node->integers[0], accumulate);
    return 0;
}

int oct_cross_entropy(oct_tensor **out, oct_tensor *logits, oct_tensor *labels, int32_t ignore)
{
    OCT_TRY(oct_check(logits, "cross_entropy", "logits", OCT_F32));
    OCT_TRY(oct_check(labels, "cross_entropy", "labels", OCT_I32));
    if (logits->ndim != 2 || labels->ndim != 1 || labels->size != logits->shape[0])
        return oct_fail("cross_entropy: logits %s, labels %s; expected [rows x classes] and [rows]",
                        oct_shape_text(logits), oct_shape_text(labels));
    int64_t rows = logits->shape[0], classes = logits->shape[1], counted = 0;
    const int32_t *label = oct_i32(labels);
    for (int64_t i = 0; i < rows; i++) {
        if (label[i] == ignore) continue;
        if (label[i] < 0 || label[i] >= classes)
            return oct_fail("cross_entropy: label %d in row %lld, expected 0 to %lld", label[i],
                            (long long)i + 1, (long long)classes - 1);
        counted++;
    }
    if (counted == 0) return oct_fail("cross_entropy: every row is to be ignored");
    size_t bytes = (size_t)rows * sizeof(float);
    float *losses = oct_block_new(bytes, OCT_WORKSPACE);
    if (!losses) return -1;
    oct_kernels_now()->cross_entropy(losses, oct_f32(logits), label, rows, classes, ignore);
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) sum += losses[i];
    oct_block_free(losses, bytes, OCT_WORKSPACE);
    oct_tensor *y = oct_tensor_make(OCT_F32, 0, NULL, OCT_ACTIVATIONS);
    if (!y) return -1;
    *oct_f32(y) = (float)(sum / (double)counted);
    if (oct_records(&logits, 1)) {
        oct_node *node = oct_tape_add(cross_entropy_step, y, &logits, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->saved[0] = oct_tensor_retain(labels);
        node->integers[0] = ignore;
        node->integers[1] = counted;
    }
    *out = y;
    return 0;
}

/* ---- yes or no ------------------------------------------------------------------------------- */

static int binary_cross_entropy_step(oct_node *node)
{
    oct_tensor *logits = node->inputs[0], *targets = node->saved[0];
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, logits));
    float scale = *oct_f32(node->output->grad) / (float)logits->size;
    oct_kernels_now()->binary_cross_entropy_backward(grad, oct_f32(logits), oct_f32(targets), scale,
                                                     logits->size, accumulate);
    return 0;
}

int oct_binary_cross_entropy(oct_tensor **out, oct_tensor *logits, oct_tensor *targets)
{
    const char *op = "binary_cross_entropy";
    OCT_TRY(oct_check(logits, op, "logits", OCT_F32));
    OCT_TRY(oct_check(targets, op, "targets", OCT_F32));
    if (logits->size != targets->size)
        return oct_fail("%s: logits %s, targets %s; expected as many", op, oct_shape_text(logits),
                        oct_shape_text(targets));
    const float *target = oct_f32(targets);
    for (int64_t i = 0; i < targets->size; i++)
        if (!(target[i] >= 0.0f && target[i] <= 1.0f))
            return oct_fail("%s: target %g at place %lld, expected 0 to 1", op, (double)target[i],
                            (long long)i + 1);
    size_t bytes = (size_t)logits->size * sizeof(float);
    float *losses = oct_block_new(bytes, OCT_WORKSPACE);
    if (!losses) return -1;
    oct_kernels_now()->binary_cross_entropy(losses, oct_f32(logits), target, logits->size);
    double sum = 0;
    for (int64_t i = 0; i < logits->size; i++) sum += losses[i];
    oct_block_free(losses, bytes, OCT_WORKSPACE);
    oct_tensor *y = oct_tensor_make(OCT_F32, 0, NULL, OCT_ACTIVATIONS);
    if (!y) return -1;
    *oct_f32(y) = (float)(sum / (double)logits->size);
    if (oct_records(&logits, 1)) {
        oct_node *node = oct_tape_add(binary_cross_entropy_step, y, &logits, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->saved[0] = oct_tensor_retain(targets);
    }
    *out = y;
    return 0;
}
