/* attention.c - softmax(Q K' scale) V of packed sequences, and its gradient, without the matrix of
 * scores (Dao et al., "FlashAttention", arXiv 2205.14135, in the order that suits a CPU).
 *
 * A task is one head of one sequence and belongs to one thread, which alone writes its rows. Within
 * it the keys are taken in blocks of KEYS, packed once, and for each the queries in groups of at
 * most GROUP, whose scores stay in the first-level cache. A sequence of up to KEYS tokens is one
 * block. Beyond, the forward pass corrects what stands for the larger maximum, and the backward
 * pass, which has log_sum, builds each block's probabilities as they were. */
#include <math.h>
#include <omp.h>

#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/pieces.h"
#include "kernels/kernels.h"

enum { KEYS = 128, GROUP = 24 };

/* A thread's workspace; rows of `width` = head_size in whole vectors. */
typedef struct work {
    float *keys_across, *values_across;        /* [head_size x KEYS]: K' and V' of a block */
    float *keys, *values;                      /* [KEYS x width] */
    float *dkeys, *dvalues;                    /* [KEYS x width] */
    float *scores, *dscores;                   /* [GROUP x KEYS] */
    float *queries, *douts, *result;           /* [GROUP x width] */
    float *sums;                               /* [longest sequence] */
    uint16_t *draws;                           /* [GROUP x KEYS] and LANES more */
} work;

/* Sets the pointers into `base` where it is not NULL; returns the floats wanted. */
static int64_t lay_out(work *w, float *base, int64_t head_size, int64_t longest, int backward)
{
    const int64_t width = whole_vectors(head_size);
    int64_t used = 0;
#define TAKE(field, floats) (w->field = base ? (void *)(base + used) : NULL, used += (floats))
    TAKE(keys_across, head_size * KEYS);
    TAKE(values, KEYS * width);
    TAKE(scores, GROUP * KEYS);
    TAKE(result, GROUP * width);
    TAKE(sums, whole_vectors(longest));
    TAKE(draws, (GROUP * KEYS + 4 * LANES) / 2);
    if (backward) {
        TAKE(values_across, head_size * KEYS);
        TAKE(keys, KEYS * width);
        TAKE(dkeys, KEYS * width);
        TAKE(dvalues, KEYS * width);
        TAKE(dscores, GROUP * KEYS);
        TAKE(queries, GROUP * width);
        TAKE(douts, GROUP * width);
    }
#undef TAKE
    return used;
}

/* One head of one sequence. */
typedef struct task {
    const oct_attention_shape *shape;
    int64_t first, length, head;   /* first row */
    int64_t qkv_row, out_row;      /* floats from row to row */
    int32_t threshold;             /* of dropout; 0: none */
    float keep_scale;
} task;

/* How many keys of the block from `key` on, `keys` long, the query sees. */
INLINE int64_t visible(const task *t, int64_t query, int64_t key, int64_t keys)
{
    if (!t->shape->causal) return keys;
    const int64_t before = query + 1 - key;
    return before < 0 ? 0 : before < keys ? before : keys;
}

/* ---- dropout of the probabilities ------------------------------------------------------------ */

/* The half-words for `queries` rows by the block's keys; returns how many a row has. */
static int64_t draw(const work *w, const task *t, int64_t query, int64_t queries, int64_t key,
                    int64_t keys)
{
    const oct_attention_shape *shape = t->shape;
    const int64_t blocks = (keys + 7) / 8, all = queries * blocks;
    uint64_t offsets[GROUP * KEYS / 8 + BLOCKS];
    int64_t n = 0;
    for (int64_t q = 0; q < queries; q++) {
        const int64_t row = (t->first + query + q) * shape->heads + t->head;
        const int64_t element = row * shape->dropout_stride + key;
        const uint64_t offset = shape->dropout.offset + (uint64_t)element / 8;
        for (int64_t b = 0; b < blocks; b++) offsets[n++] = offset + (uint64_t)b;
    }
    for (int i = 0; i < BLOCKS; i++) offsets[n++] = 0;
    for (int64_t i = 0; i < all; i += BLOCKS) {
        vq lanes;
        for (int j = 0; j < BLOCKS; j++) lanes[j] = offsets[i + (int64_t)BLOCK_OF_LANE[j]];
        philox_words words = philox_at(shape->dropout.seed, OCT_STREAM_DROPOUT, lanes);
        vf_store((float *)(w->draws + i * 8), (vf)words.first);
        vf_store((float *)(w->draws + i * 8 + 2 * LANES), (vf)words.second);
    }
    return blocks * 8;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Scores to exponents, in place, for one query: e^(score * scale - most), where `most` is at least
 * the largest. *most comes in as that of the blocks before; *sum is these exponents' sum. */
INLINE void exponents(float *row, int64_t seen, int64_t padded, float scale, float *most,
                      float *sum)
{
    vf largest = vf_all(-INFINITY);
    int64_t k = 0;
    for (; k < seen; k += LANES) {
        vf s = vf_load(row + k) * scale;
        if (seen - k < LANES) s = vf_select(vm_first(seen - k), s, vf_all(-INFINITY));
        largest = vf_max(s, largest);
    }
    const float here = vf_greatest(largest);
    if (here > *most) *most = here;
    vf terms = vf_all(0);
    for (k = 0; k < seen; k += LANES) {
        vf e = vf_exp(vf_load(row + k) * scale - *most);
        if (seen - k < LANES) e = vf_select(vm_first(seen - k), e, vf_all(0));
        vf_store(row + k, e);
        terms += e;
    }
    for (; k < padded; k += LANES) vf_store(row + k, vf_all(0));
    *sum = vf_sum(terms);
}

INLINE void drop_row(float *row, const uint16_t *draws, int64_t padded, const task *t)
{
    for (int64_t k = 0; k < padded; k += LANES)
        vf_store(row + k, keep(vf_load(row + k), half_words_at(draws + k), t->threshold,
                               t->keep_scale));
}

/* The queries of one group against one block of keys, which are packed. */
static void attend(const work *w, const task *t, float *out, float *log_sum, const float *q,
                   int64_t query, int64_t queries, int64_t key, int64_t keys)
{
    const oct_attention_shape *shape = t->shape;
    const int64_t size = shape->head_size;
    const int64_t padded = whole_vectors(keys), width = whole_vectors(size);
    float correction[GROUP];
    product(w->scores, KEYS, q + query * t->qkv_row, t->qkv_row, 1, w->keys_across, padded, queries,
            padded, size, 0);
    for (int64_t i = 0; i < queries; i++) {
        float *most = log_sum + (query + i) * shape->heads, sum, before = key ? *most : -INFINITY;
        *most = before;
        exponents(w->scores + i * KEYS, visible(t, query + i, key, keys), padded, shape->scale,
                  most, &sum);
        correction[i] = key ? vf_exp(vf_all(before - *most))[0] : 0;
        w->sums[query + i] = key ? w->sums[query + i] * correction[i] + sum : sum;
    }
    if (t->threshold) {
        const int64_t row = draw(w, t, query, queries, key, keys);
        for (int64_t i = 0; i < queries; i++)
            drop_row(w->scores + i * KEYS, w->draws + i * row, padded, t);
    }
    product(w->result, width, w->scores, KEYS, 1, w->values, width, queries, width, keys, 0);
    for (int64_t i = 0; i < queries; i++) {
        float *to = out + (query + i) * t->out_row;
        const float *from = w->result + i * width;
        const int last = key + keys == t->length
                      || (shape->causal && key + keys > query + i);
        const float scale = last ? 1 / w->sums[query + i] : 1;
        FOR_VECTORS(j, size, count, {
            vf v = vf_load(from + j);
            if (key) v = vf_fma(load(to + j, count), vf_all(correction[i]), v);
            store(to + j, v * scale, count);
        });
        if (last) {
            float *at = log_sum + (query + i) * shape->heads;
            *at += logf(w->sums[query + i]);
        }
    }
}

/* Where group `g` of `groups` begins. */
INLINE int64_t group_start(int64_t g, int64_t groups, int64_t length)
{
    return length * g / groups;
}

static void forward(const work *w, const task *t, float *out, float *log_sum, const float *qkv)
{
    const int64_t size = t->shape->head_size, model = t->shape->heads * size;
    const float *q = qkv + t->first * t->qkv_row + t->head * size;
    out += t->first * t->out_row + t->head * size;
    log_sum += t->first * t->shape->heads + t->head;
    for (int64_t key = 0; key < t->length; key += KEYS) {
        const int64_t keys = t->length - key < KEYS ? t->length - key : KEYS;
        const float *k = q + model + key * t->qkv_row;
        pack_columns(w->keys_across, k, t->qkv_row, keys, size);
        pack_rows(w->values, k + model, t->qkv_row, keys, size);
        /* Causal: the queries before the block do not see it. */
        const int64_t from = t->shape->causal ? key : 0, left = t->length - from;
        const int64_t groups = (left + GROUP - 1) / GROUP;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t start = group_start(g, groups, left);
            attend(w, t, out, log_sum, q, from + start,
                   group_start(g + 1, groups, left) - start, key, keys);
        }
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Scores and dprobabilities of one query become probabilities (dropped out) and dscores. */
INLINE void gradients(float *scores, float *dscores, const uint16_t *draws, int64_t seen,
                      int64_t padded, float log_sum, float sum, const task *t)
{
    const float scale = t->shape->scale;
    int64_t k = 0;
    for (; k < seen; k += LANES) {
        vf p = vf_exp(vf_load(scores + k) * scale - log_sum), d = vf_load(dscores + k), kept;
        if (seen - k < LANES) p = vf_select(vm_first(seen - k), p, vf_all(0));
        kept = p;
        if (draws) {
            kept = keep(p, half_words_at(draws + k), t->threshold, t->keep_scale);
            d = keep(d, half_words_at(draws + k), t->threshold, t->keep_scale);
        }
        vf_store(scores + k, kept);
        vf_store(dscores + k, p * (d - sum) * scale);
    }
    for (; k < padded; k += LANES) {
        vf_store(scores + k, vf_all(0));
        vf_store(dscores + k, vf_all(0));
    }
}

/* The gradients that one group of queries has with one block of keys. */
static void attend_backward(const work *w, const task *t, float *dq, const float *dout,
                            const float *log_sum, const float *q, int64_t query, int64_t queries,
                            int64_t key, int64_t keys, int first_group)
{
    const oct_attention_shape *shape = t->shape;
    const int64_t size = shape->head_size;
    const int64_t padded = whole_vectors(keys), width = whole_vectors(size);
    pack_rows(w->queries, q + query * t->qkv_row, t->qkv_row, queries, size);
    pack_rows(w->douts, dout + query * t->out_row, t->out_row, queries, size);
    product(w->scores, KEYS, w->queries, width, 1, w->keys_across, padded, queries, padded, size,
            0);
    product(w->dscores, KEYS, w->douts, width, 1, w->values_across, padded, queries, padded, size,
            0);
    const int64_t row = t->threshold ? draw(w, t, query, queries, key, keys) : 0;
    for (int64_t i = 0; i < queries; i++)
        gradients(w->scores + i * KEYS, w->dscores + i * KEYS, row ? w->draws + i * row : NULL,
                  visible(t, query + i, key, keys), padded, log_sum[(query + i) * shape->heads],
                  w->sums[query + i], t);
    product(w->dvalues, width, w->scores, 1, KEYS, w->douts, width, keys, width, queries,
            !first_group);
    product(w->dkeys, width, w->dscores, 1, KEYS, w->queries, width, keys, width, queries,
            !first_group);
    product(w->result, width, w->dscores, KEYS, 1, w->keys, width, queries, width, keys, 0);
    for (int64_t i = 0; i < queries; i++) {
        float *to = dq + (query + i) * t->qkv_row;
        FOR_VECTORS(j, size, count, {
            vf v = vf_load(w->result + i * width + j);
            store(to + j, key ? load(to + j, count) + v : v, count);
        });
    }
}

static void copy_rows(float *to, int64_t to_row, const float *from, int64_t rows, int64_t width)
{
    const int64_t from_row = whole_vectors(width);
    for (int64_t r = 0; r < rows; r++)
        FOR_VECTORS(j, width, count,
                    store(to + r * to_row + j, vf_load(from + r * from_row + j), count));
}

static void backward(const work *w, const task *t, float *dqkv, const float *dout, const float *qkv,
                     const float *out, const float *log_sum)
{
    const int64_t size = t->shape->head_size, model = t->shape->heads * size;
    const float *q = qkv + t->first * t->qkv_row + t->head * size;
    float *dq = dqkv + t->first * t->qkv_row + t->head * size;
    dout += t->first * t->out_row + t->head * size;
    out += t->first * t->out_row + t->head * size;
    log_sum += t->first * t->shape->heads + t->head;
    /* The sum over the keys of probability times its gradient is that of out times its gradient. */
    for (int64_t i = 0; i < t->length; i++) {
        vf sum = vf_all(0);
        FOR_VECTORS(j, size, count, sum = vf_fma(load(dout + i * t->out_row + j, count),
                                                 load(out + i * t->out_row + j, count), sum));
        w->sums[i] = vf_sum(sum);
    }
    for (int64_t key = 0; key < t->length; key += KEYS) {
        const int64_t keys = t->length - key < KEYS ? t->length - key : KEYS;
        const float *k = q + model + key * t->qkv_row;
        pack_columns(w->keys_across, k, t->qkv_row, keys, size);
        pack_columns(w->values_across, k + model, t->qkv_row, keys, size);
        pack_rows(w->keys, k, t->qkv_row, keys, size);
        const int64_t from = t->shape->causal ? key : 0, left = t->length - from;
        const int64_t groups = (left + GROUP - 1) / GROUP;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t start = group_start(g, groups, left);
            attend_backward(w, t, dq, dout, log_sum, q, from + start,
                            group_start(g + 1, groups, left) - start, key, keys, g == 0);
        }
        copy_rows(dq + model + key * t->qkv_row, t->qkv_row, w->dkeys, keys, size);
        copy_rows(dq + 2 * model + key * t->qkv_row, t->qkv_row, w->dvalues, keys, size);
    }
}

/* ---- the tasks ------------------------------------------------------------------------------- */

static int64_t longest_sequence(const oct_attention_shape *shape)
{
    int64_t longest = 0;
    for (int64_t s = 0; s < shape->sequences; s++) {
        const int64_t length = shape->offsets[s + 1] - shape->offsets[s];
        if (length > longest) longest = length;
    }
    return longest;
}

static task task_of(const oct_attention_shape *shape, int64_t number)
{
    const int64_t s = number / shape->heads, model = shape->heads * shape->head_size;
    const float p = shape->dropout.p;
    return (task){.shape = shape, .first = shape->offsets[s],
                  .length = shape->offsets[s + 1] - shape->offsets[s],
                  .head = number % shape->heads, .qkv_row = 3 * model, .out_row = model,
                  .threshold = dropout_threshold(p), .keep_scale = 1.0f / (1.0f - p)};
}

/* Runs the body for each task `t` with the workspace `w` of its thread. -1 where memory ends. */
#define FOR_TASKS(shape, backward_, t, w, ...)                                                     \
    do {                                                                                           \
        const int64_t tasks_ = (shape)->sequences * (shape)->heads;                                \
        const int64_t longest_ = longest_sequence(shape);                                          \
        const int64_t tokens_ = tasks_ ? (shape)->offsets[(shape)->sequences] : 0;                 \
        if (tokens_ == 0) return 0;                                                                \
        const int64_t cost_ = tokens_ * (tokens_ / (shape)->sequences + 1) * (shape)->heads;       \
        const int threads_ = tasks_ > 1 && cost_ > 4096 ? omp_get_max_threads() : 1;               \
        work w_;                                                                                   \
        const int64_t floats_ = lay_out(&w_, NULL, (shape)->head_size, longest_, backward_);       \
        const size_t bytes_ = (size_t)floats_ * sizeof(float) * (size_t)threads_;                  \
        float *base_ = oct_block_new(bytes_, OCT_WORKSPACE);                                       \
        if (!base_) return -1;                                                                     \
        if (threads_ == 1) {                                                                       \
            work w;                                                                                \
            lay_out(&w, base_, (shape)->head_size, longest_, backward_);                           \
            for (int64_t task_ = 0; task_ < tasks_; task_++) {                                     \
                const task t = task_of(shape, task_);                                              \
                __VA_ARGS__;                                                                       \
            }                                                                                      \
        } else {                                                                                   \
            _Pragma("omp parallel num_threads(threads_)")                                          \
            {                                                                                      \
                work w;                                                                            \
                lay_out(&w, base_ + omp_get_thread_num() * floats_, (shape)->head_size, longest_,  \
                        backward_);                                                                \
                _Pragma("omp for schedule(dynamic, 1)")                                            \
                for (int64_t task_ = 0; task_ < tasks_; task_++) {                                 \
                    const task t = task_of(shape, task_);                                          \
                    __VA_ARGS__;                                                                   \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        oct_block_free(base_, bytes_, OCT_WORKSPACE);                                              \
    } while (0)

int KERNEL(attention)(float *out, float *log_sum, const float *qkv, oct_attention_shape shape)
{
    FOR_TASKS(&shape, 0, t, w, forward(&w, &t, out, log_sum, qkv));
    return 0;
}

int KERNEL(attention_backward)(float *dqkv, const float *dout, const float *qkv, const float *out,
                               const float *log_sum, oct_attention_shape shape)
{
    FOR_TASKS(&shape, 1, t, w, backward(&w, &t, dqkv, dout, qkv, out, log_sum));
    return 0;
}
