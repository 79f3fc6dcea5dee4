/* ops_sequence.c - embedding, and what works on packed sequences: attention, the mean of each. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/tape.h"
#include "kernels/kernels.h"

/* ---- embedding ------------------------------------------------------------------------------- */

static int embedding_step(oct_node *node)
{
    const oct_kernels *kernels = oct_kernels_now();
    oct_tensor *table = node->inputs[0], *ids = node->saved[0];
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, table));
    if (!accumulate) kernels->fill(grad, table->size, 0.0f);
    kernels->embedding_backward(grad, oct_f32(node->output->grad), oct_i32(ids), ids->size,
                                table->shape[1]);
    return 0;
}

int oct_embedding(oct_tensor **out, oct_tensor *table, oct_tensor *ids)
{
    OCT_TRY(oct_check(table, "embedding", "the table", OCT_F32));
    OCT_TRY(oct_check(ids, "embedding", "ids", OCT_I32));
    if (table->ndim != 2 || ids->ndim >= OCT_MAX_DIMS)
        return oct_fail("embedding: the table is %s, ids %s; expected a matrix and at most %d "
                        "dimensions", oct_shape_text(table), oct_shape_text(ids), OCT_MAX_DIMS - 1);
    const int32_t *id = oct_i32(ids);
    for (int64_t i = 0; i < ids->size; i++)
        if (id[i] < 0 || id[i] >= table->shape[0])
            return oct_fail("embedding: id %d at place %lld, expected 0 to %lld", id[i],
                            (long long)i + 1, (long long)table->shape[0] - 1);
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, ids->shape, sizeof shape);
    shape[ids->ndim] = table->shape[1];
    oct_tensor *y = oct_tensor_make(OCT_F32, ids->ndim + 1, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    oct_kernels_now()->embedding(oct_f32(y), oct_f32(table), id, ids->size, table->shape[1]);
    if (oct_records(&table, 1)) {
        oct_node *node = oct_tape_add(embedding_step, y, &table, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->saved[0] = oct_tensor_retain(ids);
    }
    *out = y;
    return 0;
}

/* Fills places[n] and, from the front, values; slots[room], room a power of two and above n, is a
 * hash table by linear probing. Returns how many values there are. */
static int64_t number_ids(int32_t *values, int32_t *places, int32_t *slots, int64_t room,
                          const int32_t *ids, int64_t n)
{
    const uint64_t last = (uint64_t)room - 1;
    int64_t count = 0;
    memset(slots, -1, (size_t)room * sizeof *slots);
    for (int64_t i = 0; i < n; i++) {
        /* The high bits of a product with 2^64 over the golden ratio: runs of ids spread evenly. */
        uint64_t at = ((uint64_t)(uint32_t)ids[i] * 0x9E3779B97F4A7C15u >> 32) & last;
        while (slots[at] >= 0 && values[slots[at]] != ids[i]) at = (at + 1) & last;
        if (slots[at] < 0) {
            slots[at] = (int32_t)count;
            values[count++] = ids[i];
        }
        places[i] = slots[at];
    }
    return count;
}

int oct_distinct(oct_tensor **values, oct_tensor **places, oct_tensor *ids)
{
    OCT_TRY(oct_check(ids, "distinct", "ids", OCT_I32));
    int64_t room = 2, n = ids->size;
    while (room < 2 * n) room *= 2;
    const size_t bytes = (size_t)(room + n) * sizeof(int32_t);
    int32_t *block = oct_block_new(bytes, OCT_WORKSPACE);
    if (!block) return -1;
    oct_tensor *all = oct_tensor_make(OCT_I32, ids->ndim, ids->shape, OCT_ACTIVATIONS);
    int64_t count = all ? number_ids(block + room, oct_i32(all), block, room, oct_i32(ids), n) : 0;
    oct_tensor *found = all ? oct_tensor_make(OCT_I32, 1, &count, OCT_ACTIVATIONS) : NULL;
    if (found) memcpy(oct_i32(found), block + room, (size_t)count * sizeof(int32_t));
    oct_block_free(block, bytes, OCT_WORKSPACE);
    if (!found) return oct_tensor_release(all), -1;
    *values = found;
    *places = all;
    return 0;
}

/* ---- packed sequences ------------------------------------------------------------------------ */

int oct_check_offsets(const char *op, const oct_tensor *offsets, int64_t tokens, int64_t *longest)
{
    OCT_TRY(oct_check(offsets, op, "offsets", OCT_I32));
    const int32_t *at = oct_i32(offsets);
    int64_t sequences = offsets->size - 1;
    *longest = 0;
    if (offsets->ndim != 1 || sequences < 1 || at[0] != 0 || at[sequences] != tokens)
        return oct_fail("%s: offsets %s must go from 0 to the %lld tokens", op,
                        oct_shape_text(offsets), (long long)tokens);
    for (int64_t s = 0; s < sequences; s++) {
        int64_t length = (int64_t)at[s + 1] - at[s];
        if (length < 1)
            return oct_fail("%s: sequence %lld has %lld tokens, expected 1 or more", op,
                            (long long)s + 1, (long long)length);
        if (length > *longest) *longest = length;
    }
    return 0;
}

enum { HEADS, CAUSAL, LONGEST };

static oct_attention_shape attention_shape(const oct_tensor *qkv, const oct_tensor *offsets,
                                           int64_t heads, int64_t longest, int causal,
                                           oct_dropout_mask mask)
{
    int64_t head_size = qkv->shape[1] / 3 / heads;
    return (oct_attention_shape){
        .offsets = oct_i32(offsets), .sequences = offsets->size - 1, .heads = heads,
        .head_size = head_size, .scale = (float)(1.0 / sqrt((double)head_size)), .causal = causal,
        .dropout = mask, .dropout_stride = (longest + 7) / 8 * 8,
    };
}

static int attention_step(oct_node *node)
{
    oct_tensor *qkv = node->inputs[0], *y = node->output;
    oct_tensor *offsets = node->saved[0], *log_sum = node->saved[1];
    oct_dropout_mask mask = {node->numbers[0], node->random_seed, node->random_offset};
    oct_attention_shape shape = attention_shape(qkv, offsets, node->integers[HEADS],
                                                node->integers[LONGEST],
                                                (int)node->integers[CAUSAL], mask);
    const oct_kernels *kernels = oct_kernels_now();
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, qkv));
    if (!accumulate)
        return kernels->attention_backward(grad, oct_f32(y->grad), oct_f32(qkv), oct_f32(y),
                                           oct_f32(log_sum), shape);
    size_t bytes = (size_t)qkv->size * sizeof(float);
    float *fresh = oct_block_new(bytes, OCT_WORKSPACE);
    if (!fresh) return -1;
    int status = kernels->attention_backward(fresh, oct_f32(y->grad), oct_f32(qkv), oct_f32(y),
                                             oct_f32(log_sum), shape);
    if (status == 0) kernels->add_scaled(grad, fresh, qkv->size, 1.0f, 1);
    oct_block_free(fresh, bytes, OCT_WORKSPACE);
    return status;
}

int oct_attention(oct_tensor **out, oct_tensor *qkv, oct_tensor *offsets, int64_t heads, float p,
                  int causal)
{
    OCT_TRY(oct_check(qkv, "attention", "qkv", OCT_F32));
    if (qkv->ndim != 2 || heads < 1 || qkv->shape[1] % (3 * heads) != 0)
        return oct_fail(
            "attention: qkv is %s; expected [tokens x 3 width], width a multiple of the "
            "%lld heads",
            oct_shape_text(qkv), (long long)heads);
    if (qkv->shape[1] / 3 / heads > 256)
        return oct_fail("attention: head size %lld, expected 256 at most",
                        (long long)(qkv->shape[1] / 3 / heads));
    if (!(p >= 0.0f && p < 1.0f)) return oct_fail("attention: p must be at least 0 and below 1");
    int64_t tokens = qkv->shape[0], longest;
    OCT_TRY(oct_check_offsets("attention", offsets, tokens, &longest));
    oct_dropout_mask mask = {p, oct_random_seed(), 0};
    if (p > 0.0f)
        mask.offset = oct_random_take(OCT_STREAM_DROPOUT,
                                      (uint64_t)(tokens * heads * ((longest + 7) / 8)));
    int64_t y_shape[2] = {tokens, qkv->shape[1] / 3}, sums_shape[2] = {tokens, heads};
    oct_tensor *y = oct_tensor_make(OCT_F32, 2, y_shape, OCT_ACTIVATIONS);
    oct_tensor *log_sum = y ? oct_tensor_make(OCT_F32, 2, sums_shape, OCT_ACTIVATIONS) : NULL;
    int status = log_sum ? 0 : -1;
    if (status == 0)
        status = oct_kernels_now()->attention(
            oct_f32(y), oct_f32(log_sum), oct_f32(qkv),
            attention_shape(qkv, offsets, heads, longest, causal != 0, mask));
    if (status == 0 && oct_records(&qkv, 1)) {
        oct_node *node = oct_tape_add(attention_step, y, &qkv, 1);
        if (node) {
            node->saved[0] = oct_tensor_retain(offsets);
            node->saved[1] = oct_tensor_retain(log_sum);
            node->integers[HEADS] = heads;
            node->integers[CAUSAL] = causal != 0;
            node->integers[LONGEST] = longest;
            node->numbers[0] = p;
            node->random_seed = mask.seed;
            node->random_offset = mask.offset;
        } else {
            status = -1;
        }
    }
    oct_tensor_release(log_sum);
    if (status != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

static int segment_mean_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *offsets = node->saved[0];
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
    oct_kernels_now()->segment_mean_backward(dx, oct_f32(node->output->grad), oct_i32(offsets),
                                             offsets->size - 1, x->shape[1], accumulate);
    return 0;
}

int oct_segment_mean(oct_tensor **out, oct_tensor *x, oct_tensor *offsets)
{
    OCT_TRY(oct_check(x, "segment_mean", "x", OCT_F32));
    if (x->ndim != 2)
        return oct_fail("segment_mean: x is %s, expected [tokens x width]", oct_shape_text(x));
    int64_t longest;
    OCT_TRY(oct_check_offsets("segment_mean", offsets, x->shape[0], &longest));
    int64_t shape[2] = {offsets->size - 1, x->shape[1]};
    oct_tensor *y = oct_tensor_make(OCT_F32, 2, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    oct_kernels_now()->segment_mean(oct_f32(y), oct_f32(x), oct_i32(offsets), shape[0], shape[1]);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(segment_mean_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->saved[0] = oct_tensor_retain(offsets);
    }
    *out = y;
    return 0;
}
