/* attention.c - softmax(Q K' scale) V of packed sequences, and its gradient, without the matrix of
 * scores (Dao et al., "FlashAttention", arXiv 2205.14135, in the order that suits a CPU).
 *
 * A task is one head of one sequence and belongs to one thread, which alone writes its rows. Within
 * it the keys are taken in blocks of KEYS and for each the queries in groups of GROUP, whose scores
 * stay in the first-level cache. Scores stand transposed, a row for each key and a lane for each
 * query: then the largest, the sum and all that a query has one of is a vector, and nothing is ever
 * summed across lanes. A sequence of up to KEYS tokens is one block. Beyond, the forward pass
 * corrects what stands for the larger maximum, and the backward pass, which has log_sum, builds
 * each block's probabilities as they were. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/philox.h"
#include "kernels/kernels.h"

enum { KEYS = 128, GROUP = 32 };

/* A thread's workspace; rows of `width` = head_size in whole vectors. */
typedef struct work {
    float *scores, *dscores;       /* [KEYS x GROUP] */
    float *queries_across, *douts_across;      /* [head_size x GROUP]: Q' and dout' of a group */
    float *keys, *values;          /* [KEYS x width]: what does not stand well where it is */
    float *queries, *douts;        /* [GROUP x width] */
    float *result;                 /* [GROUP x width] */
    float *dkeys, *dvalues;        /* [KEYS x width] */
    float *sums;                   /* [longest sequence]: of exponents; of out times dout */
    float *most;                   /* [longest sequence]: largest score so far; log_sum */
} work;

/* Sets the pointers into `base` where it is not NULL; returns the floats wanted. */
static int64_t lay_out(work *w, float *base, int64_t head_size, int64_t longest, int backward)
{
    const int64_t width = whole_vectors(head_size), tokens = (longest + GROUP) / GROUP * GROUP;
    int64_t used = 0;
#define TAKE(field, floats) (w->field = base ? base + used : NULL, used += (floats))
    TAKE(scores, KEYS * GROUP);
    TAKE(queries_across, head_size * GROUP);
    TAKE(keys, KEYS * width);
    TAKE(values, KEYS * width);
    TAKE(result, GROUP * width);
    TAKE(sums, tokens);
    TAKE(most, tokens);
    if (backward) {
        TAKE(dscores, KEYS * GROUP);
        TAKE(douts_across, head_size * GROUP);
        TAKE(queries, GROUP * width);
        TAKE(douts, GROUP * width);
        TAKE(dkeys, KEYS * width);
        TAKE(dvalues, KEYS * width);
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

/* One block of keys with its values, and where their gradients add up. */
typedef struct block {
    int64_t key, keys;
    matrix k, v;
    float *dk, *dv;
    int64_t d_row;
} block;

/* Keys of the block that a group, or the first of its vectors, has to look at. */
INLINE int64_t seen_by(const task *t, const block *b, int64_t last_query)
{
    const int64_t before = last_query + 1 - b->key;
    return t->shape->causal && before < b->keys ? before : b->keys;
}

/* `v` in the lanes of those queries, from `query` on, that see the key; else `other`. */
INLINE vf where_seen(vf v, float other, int causal, int64_t query, int64_t key)
{
    if (!causal) return v;
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return vf_select(vi_less(vi_all((int32_t)(key - query) - 1), lane), v, vf_all(other));
}

/* Draws of the probabilities of LANES queries with eight keys. */
INLINE void draw(vi draws[8], const task *t, int64_t query, int64_t key)
{
    const oct_attention_shape *shape = t->shape;
    const int64_t row = (t->first + query) * shape->heads + t->head;
    const int64_t element = row * shape->dropout_stride + key;
    draw_eights(draws, shape->dropout.seed, shape->dropout.offset + (uint64_t)element / 8,
                (uint64_t)(shape->heads * shape->dropout_stride) / 8);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* The scores of LANES queries with `seen` keys, a row every GROUP floats, become exponents of what
 * they are less than `most`; returns their sum. */
INLINE vf exponents(float *scores, int64_t seen, float scale, vf *most, int causal, int64_t query,
                    int64_t key)
{
    vf largest[4] = {*most, *most, *most, *most};
#define SCORE(k)                                                                                   \
    where_seen(vf_load(scores + (k) * GROUP) * scale, -INFINITY, causal, query, key + (k))
    int64_t k = 0;
    for (; k + 4 <= seen; k += 4)
        for (int i = 0; i < 4; i++) largest[i] = vf_max(SCORE(k + i), largest[i]);
    for (; k < seen; k++) largest[0] = vf_max(SCORE(k), largest[0]);
    *most = vf_max(vf_max(largest[0], largest[1]), vf_max(largest[2], largest[3]));
    vf sum = vf_all(0);
    for (k = 0; k < seen; k++) {
        vf e = vf_exp(SCORE(k) - *most);
        vf_store(scores + k * GROUP, e);
        sum += e;
    }
#undef SCORE
    return sum;
}

INLINE void drop(float *scores, int64_t seen, const task *t, int64_t query, int64_t key)
{
    for (int64_t k = 0; k < seen; k += 8) {
        vi draws[8];
        draw(draws, t, query, key + k);
        for (int i = 0; i < 8 && k + i < seen; i++) {
            float *p = scores + (k + i) * GROUP;
            vf_store(p, keep(vf_load(p), draws[i], t->threshold, t->keep_scale));
        }
    }
}

/* The queries of one group against one block of keys. */
static void attend(const work *w, const task *t, const block *b, float *out, float *log_sum,
                   const float *q, int64_t query, int64_t queries)
{
    const oct_attention_shape *shape = t->shape;
    const int64_t size = shape->head_size, key = b->key;
    const int64_t padded = whole_vectors(queries), width = whole_vectors(size);
    const int64_t seen = seen_by(t, b, query + queries - 1);
    const int last = key + b->keys == t->length;
    float corrections[GROUP], scales[GROUP], logs[GROUP];
    pack_columns(w->queries_across, q + query * t->qkv_row, t->qkv_row, queries, size);
    product(w->scores, GROUP, b->k.at, b->k.row, 1, w->queries_across, padded, seen, padded, size,
            0);
    for (int64_t i = 0; i < padded; i += LANES) {
        const int64_t at = query + i;
        float *scores = w->scores + i;
        const vf before = key ? vf_load(w->most + at) : vf_all(-INFINITY);
        vf most = before;
        vf sum = shape->causal ? exponents(scores, seen, shape->scale, &most, 1, at, key)
                               : exponents(scores, seen, shape->scale, &most, 0, at, key);
        if (key) {
            const vf correction = vf_exp(before - most);
            vf_store(corrections + i, correction);
            sum = vf_fma(vf_load(w->sums + at), correction, sum);
        }
        vf_store(w->sums + at, sum);
        vf_store(w->most + at, most);
        vf_store(scales + i, 1.0f / sum);
        vf_store(logs + i, most + vf_log(sum));
        if (t->threshold) drop(scores, seen, t, at, key);
    }
    /* The first block's result may go where it belongs; a later one is added to what is there. */
    const int in_place = key == 0 && stands(queries, size);
    float *result = in_place ? out + query * t->out_row : w->result;
    const int64_t result_row = in_place ? t->out_row : width;
    product(result, result_row, w->scores, 1, GROUP, b->v.at, b->v.row, queries, width, seen, 0);
    for (int64_t i = 0; i < queries; i++) {
        const int done = last || (shape->causal && query + i < key + b->keys);
        if (done) log_sum[(query + i) * shape->heads] = logs[i];
        if (in_place && !done) continue;
        float *to = out + (query + i) * t->out_row;
        const float *from = result + i * result_row;
        const vf scale = vf_all(done ? scales[i] : 1.0f);
        FOR_VECTORS(j, size, count, {
            vf v = vf_load(from + j);
            if (key) v = vf_fma(load(to + j, count), vf_all(corrections[i]), v);
            store(to + j, v * scale, count);
        });
    }
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
        const block b = {
            .key = key, .keys = keys, .k = packed(w->keys, k, t->qkv_row, keys, size),
            .v = packed(w->values, k + model, t->qkv_row, keys, size),
        };
        /* Causal: the queries before the block do not see it. */
        for (int64_t query = t->shape->causal ? key : 0; query < t->length; query += GROUP)
            attend(w, t, &b, out, log_sum, q, query,
                   t->length - query < GROUP ? t->length - query : GROUP);
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Scores and gradients of probabilities of LANES queries become probabilities, dropped out, and
 * gradients of scores. */
INLINE void gradients(float *scores, float *dscores, int64_t seen, vf log_sum, vf sum,
                      const task *t, int causal, int dropout, int64_t query, int64_t key)
{
    const float scale = t->shape->scale;
    for (int64_t from = 0; from < seen; from += 8) {
        vi draws[8];
        if (dropout) draw(draws, t, query, key + from);
        for (int i = 0; i < 8 && from + i < seen; i++) {
            const int64_t k = from + i;
            vf p = vf_exp(vf_load(scores + k * GROUP) * scale - log_sum), kept;
            vf d = vf_load(dscores + k * GROUP);
            p = kept = where_seen(p, 0, causal, query, key + k);
            if (dropout) {
                kept = keep(p, draws[i], t->threshold, t->keep_scale);
                d = keep(d, draws[i], t->threshold, t->keep_scale);
            }
            vf_store(scores + k * GROUP, kept);
            vf_store(dscores + k * GROUP, p * (d - sum) * scale);
        }
    }
}

/* The gradients that one group of queries has with one block of keys. */
static void attend_backward(const work *w, const task *t, const block *b, float *dq,
                            const float *dout, const float *q, int64_t query, int64_t queries,
                            int accumulate)
{
    const int64_t size = t->shape->head_size, key = b->key;
    const int causal = t->shape->causal;
    const int64_t padded = whole_vectors(queries), width = whole_vectors(size);
    const int64_t seen = seen_by(t, b, query + queries - 1);
    q += query * t->qkv_row;
    dout += query * t->out_row;
    dq += query * t->qkv_row;
    pack_columns(w->queries_across, q, t->qkv_row, queries, size);
    pack_columns(w->douts_across, dout, t->out_row, queries, size);
    product(w->scores, GROUP, b->k.at, b->k.row, 1, w->queries_across, padded, seen, padded, size,
            0);
    product(w->dscores, GROUP, b->v.at, b->v.row, 1, w->douts_across, padded, seen, padded, size,
            0);
    for (int64_t i = 0; i < padded; i += LANES) {
        const vf log_sum = vf_load(w->most + query + i), sum = vf_load(w->sums + query + i);
        float *s = w->scores + i, *d = w->dscores + i;
        if (t->threshold) gradients(s, d, seen, log_sum, sum, t, causal, 1, query + i, key);
        else if (causal) gradients(s, d, seen, log_sum, sum, t, 1, 0, query + i, key);
        else gradients(s, d, seen, log_sum, sum, t, 0, 0, query + i, key);
    }
    const matrix qs = packed(w->queries, q, t->qkv_row, queries, size);
    const matrix ds = packed(w->douts, dout, t->out_row, queries, size);
    product(b->dv, b->d_row, w->scores, GROUP, 1, ds.at, ds.row, seen, width, queries, accumulate);
    product(b->dk, b->d_row, w->dscores, GROUP, 1, qs.at, qs.row, seen, width, queries, accumulate);
    if (stands(queries, size)) {
        product(dq, t->qkv_row, w->dscores, 1, GROUP, b->k.at, b->k.row, queries, width, seen,
                key > 0);
        return;
    }
    product(w->result, width, w->dscores, 1, GROUP, b->k.at, b->k.row, queries, width, seen, 0);
    for (int64_t i = 0; i < queries; i++, dq += t->qkv_row)
        FOR_VECTORS(j, size, count, {
            vf v = vf_load(w->result + i * width + j);
            store(dq + j, key ? load(dq + j, count) + v : v, count);
        });
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
        w->most[i] = log_sum[i * t->shape->heads];
    }
    for (int64_t key = 0; key < t->length; key += KEYS) {
        const int64_t keys = t->length - key < KEYS ? t->length - key : KEYS;
        const int64_t first = t->shape->causal ? key : 0;
        const float *k = q + model + key * t->qkv_row;
        const int in_place = stands(keys, size);
        const block b = {
            .key = key, .keys = keys, .k = packed(w->keys, k, t->qkv_row, keys, size),
            .v = packed(w->values, k + model, t->qkv_row, keys, size),
            .dk = in_place ? dq + model + key * t->qkv_row : w->dkeys,
            .dv = in_place ? dq + 2 * model + key * t->qkv_row : w->dvalues,
            .d_row = in_place ? t->qkv_row : whole_vectors(size),
        };
        /* Causal: the first group has nothing for the keys behind it. */
        if (t->shape->causal)
            for (int64_t r = 0; r < keys; r++) {
                memset(b.dk + r * b.d_row, 0, (size_t)whole_vectors(size) * sizeof(float));
                memset(b.dv + r * b.d_row, 0, (size_t)whole_vectors(size) * sizeof(float));
            }
        for (int64_t query = first; query < t->length; query += GROUP)
            attend_backward(w, t, &b, dq, dout, q, query,
                            t->length - query < GROUP ? t->length - query : GROUP,
                            query > first || t->shape->causal);
        if (in_place) continue;
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

/* Runs the body for each task `t` with the workspace `w` of its thread; the threads fetch some 64
 * portions of them. -1 where memory ends. */
#define FOR_TASKS(shape, backward_, t, w, ...)                                                     \
    do {                                                                                           \
        const int64_t tasks_ = (shape)->sequences * (shape)->heads;                                \
        const int64_t longest_ = longest_sequence(shape);                                          \
        const int64_t tokens_ = tasks_ ? (shape)->offsets[(shape)->sequences] : 0;                 \
        if (tokens_ == 0) return 0;                                                                \
        const int64_t cost_ = tokens_ * (tokens_ / (shape)->sequences + 1) * (shape)->heads;       \
        const int threads_ = tasks_ > 1 && cost_ > 4096 ? omp_get_max_threads() : 1;               \
        const int64_t chunk_ = tasks_ / 64 + 1;                                                    \
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
                _Pragma("omp for schedule(dynamic, chunk_)")                                       \
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
