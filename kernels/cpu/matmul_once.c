/* matmul_once.c - matrix products by oneDNN, compiled once: oneDNN picks its own instruction set.
 *
 * Packed batches have another number of rows at each step, and a primitive takes up to 3 ms to
 * make. So that number is left open (DNNL_RUNTIME_DIM_VAL) and each primitive is made once per
 * weight. Measured on 430 x 384 x 1536: 417 GFLOP/s so, 450 with all sizes fixed. Where results
 * are few and sums long, oneDNN divides the sums among the threads (docs/design.md). */
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/octet.h"
#include "kernels/cpu/matmul.h"

typedef struct product_key {
    int64_t m, n, k;               /* the open ones are 0 */
    int batched, transpose_a, transpose_b, accumulate, bias, bf16;
} product_key;

typedef struct product {
    struct product *next;
    product_key key;
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_memory_desc_t scratchpad; /* ours, so that any thread may run the product */
    size_t scratchpad_bytes;
    int64_t found;                 /* when it was last, counted in products */
    int users;                     /* threads that run it */
} product;

/* A model's products are some dozens. Where sizes never come again, the oldest are dropped, since
 * each takes some 9 KB. */
enum { BUCKETS = 64, PRODUCTS_MOST = 1024 };
static product *products[BUCKETS];
static int64_t product_count, finds;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dnnl_engine_t engine;

static int failed(const char *what, dnnl_status_t status)
{
    if (status == dnnl_out_of_memory) return oct_fail("out of memory: oneDNN %s", what);
    return oct_fail("matmul: oneDNN could not %s (status %d)", what, (int)status);
}

static int64_t or_open(int64_t size) { return size ? size : DNNL_RUNTIME_DIM_VAL; }

/* `batch` matrices [rows x columns] one behind the other, or their transposes in memory; where not
 * batched, one. Size 0: open. */
static dnnl_status_t describe(dnnl_memory_desc_t *desc, int batched, int64_t batch, int64_t rows,
                              int64_t columns, int transposed, int bf16)
{
    const int64_t width = or_open(transposed ? rows : columns);
    const int r = batched, c = batched + 1; /* where rows and columns stand */
    dnnl_dims_t sizes = {or_open(batch)}, strides = {or_open(rows * columns)};
    sizes[r] = or_open(rows);
    sizes[c] = or_open(columns);
    strides[r] = transposed ? 1 : width;
    strides[c] = transposed ? width : 1;
    return dnnl_memory_desc_init_by_strides(desc, c + 1, sizes, bf16 ? dnnl_bf16 : dnnl_f32,
                                            strides);
}

static dnnl_status_t build(product *p)
{
    const product_key *key = &p->key;
    dnnl_memory_desc_t a, b, y, bias;
    int batched = key->batched;
    dnnl_status_t status = describe(&a, batched, 0, key->m, key->k, key->transpose_a, key->bf16);
    if (!status) status = describe(&b, batched, 0, key->k, key->n, key->transpose_b, key->bf16);
    if (!status) status = describe(&y, batched, 0, key->m, key->n, 0, 0);
    if (!status && key->bias) status = describe(&bias, 0, 0, 1, key->n, 0, 0);
    dnnl_matmul_desc_t desc;
    if (!status) status = dnnl_matmul_desc_init(&desc, &a, &b, key->bias ? &bias : NULL, &y);
    dnnl_primitive_attr_t attr = NULL;
    if (!status) status = dnnl_primitive_attr_create(&attr);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    dnnl_post_ops_t post_ops = NULL;
    if (!status && key->accumulate) {
        status = dnnl_post_ops_create(&post_ops);
        if (!status) status = dnnl_post_ops_append_sum(post_ops, 1.0f);
        if (!status) status = dnnl_primitive_attr_set_post_ops(attr, post_ops);
    }
    dnnl_primitive_desc_t primitive_desc = NULL;
    if (!status) status = dnnl_primitive_desc_create(&primitive_desc, &desc, attr, engine, NULL);
    if (!status) {
        p->scratchpad =
            *dnnl_primitive_desc_query_md(primitive_desc, dnnl_query_scratchpad_md, 0);
        p->scratchpad_bytes = dnnl_memory_desc_get_size(&p->scratchpad);
        status = dnnl_primitive_create(&p->primitive, primitive_desc);
    }
    if (!status) status = dnnl_stream_create(&p->stream, engine, dnnl_stream_default_flags);
    if (primitive_desc) dnnl_primitive_desc_destroy(primitive_desc);
    if (post_ops) dnnl_post_ops_destroy(post_ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return status;
}

static void destroy(product *p)
{
    if (p->stream) dnnl_stream_destroy(p->stream);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    oct_free(p);
}

/* Drop the one that nobody has asked for for the longest time, of those that nobody runs. */
static void drop_oldest(void)
{
    product **oldest = NULL;
    for (int i = 0; i < BUCKETS; i++)
        for (product **p = products + i; *p; p = &(*p)->next)
            if ((*p)->users == 0 && (!oldest || (*p)->found < (*oldest)->found)) oldest = p;
    if (!oldest) return;
    product *gone = *oldest;
    *oldest = gone->next;
    destroy(gone);
    product_count--;
}

static product *find_or_build(const product_key *key)
{
    size_t bucket = (size_t)(key->m * 31 + key->n * 7 + key->k) % BUCKETS;
    for (product *p = products[bucket]; p; p = p->next)
        if (memcmp(&p->key, key, sizeof *key) == 0) return p;
    if (!engine) {
        dnnl_status_t status = dnnl_engine_create(&engine, dnnl_cpu, 0);
        if (status) return failed("start", status), NULL;
    }
    product *p = oct_calloc(1, sizeof *p);
    if (!p) return NULL;
    p->key = *key;
    dnnl_status_t status = build(p);
    if (status) {
        destroy(p);
        return failed("make a product", status), NULL;
    }
    if (product_count == PRODUCTS_MOST) drop_oldest();
    product_count++;
    p->next = products[bucket];
    return products[bucket] = p;
}

/* The product, which stays until leave(). */
static product *find(const product_key *key)
{
    pthread_mutex_lock(&lock);
    product *p = find_or_build(key);
    if (p) {
        p->found = ++finds;
        p->users++;
    }
    pthread_mutex_unlock(&lock);
    return p;
}

static void leave(product *p)
{
    pthread_mutex_lock(&lock);
    p->users--;
    pthread_mutex_unlock(&lock);
}

/* ---- out of reach of signals ----------------------------------------------------------------- */

/* oneDNN's f32 code lets the stack pointer stand at the beginning of its workspace, which lies on
 * the heap (jit_avx512_common_gemm_f32 for k above 84, and that for AVX2). A signal's frame is put
 * below the stack pointer: it would overwrite what lies before that workspace, which is another
 * block of the heap or another thread's part. So no handler, whosever it is, may run on a thread
 * that is in a product. Faults of the program itself stay with their handlers, which find nothing
 * worth keeping. */
static sigset_t all_but_faults(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) sigdelset(&set, faults[i]);
    return set;
}

/* Workers take no signal for as long as they live: a thread that is started inherits the mask of
 * the one that starts it, and those that another kernel started get it here. With two threads there
 * is one worker, which lives for ever; with more, oneDNN may ask for fewer than there are, which
 * ends the others, and the next kernel starts new ones. */
static void deafen_workers(const sigset_t *set)
{
    static _Thread_local int the_first_is_deaf;
    int threads = omp_get_max_threads();
    /* In a parallel region a product has one thread, which has seen to its signals itself. */
    if (threads == 1 || omp_in_parallel() || (threads == 2 && the_first_is_deaf)) return;
#pragma omp parallel num_threads(threads)
    {
        static _Thread_local int deaf;
        if (omp_get_thread_num() > 0 && !deaf) {
            pthread_sigmask(SIG_BLOCK, set, NULL);
            deaf = 1;
        }
    }
    the_first_is_deaf = 1;
}

static dnnl_status_t execute(const product *p, int count, const dnnl_exec_arg_t *args)
{
    sigset_t set = all_but_faults(), before;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    deafen_workers(&set);
    dnnl_status_t status = dnnl_primitive_execute(p->primitive, p->stream, count, args);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* ---------------------------------------------------------------------------------------------- */

/* What a product is of; the sizes as of one that is not batched. */
typedef struct operands {
    float *y;
    const void *a, *b;
    const float *bias;
    int64_t batch, m, n, k;
} operands;

static dnnl_status_t describe_operands(dnnl_memory_desc_t descs[4], const product_key *key,
                                       const operands *o)
{
    int batched = key->batched;
    dnnl_status_t status =
        describe(&descs[0], batched, o->batch, o->m, o->k, key->transpose_a, key->bf16);
    if (!status)
        status = describe(&descs[1], batched, o->batch, o->k, o->n, key->transpose_b, key->bf16);
    if (!status) status = describe(&descs[2], batched, o->batch, o->m, o->n, 0, 0);
    if (!status && key->bias) status = describe(&descs[3], 0, 0, 1, o->n, 0, 0);
    return status;
}

static int run(const product *p, const operands *o)
{
    enum { MOST = 5 };
    void *scratchpad = NULL;
    if (p->scratchpad_bytes && !(scratchpad = oct_block_new(p->scratchpad_bytes, OCT_WORKSPACE)))
        return -1;
    dnnl_memory_desc_t descs[MOST] = {[MOST - 1] = p->scratchpad};
    void *data[MOST] = {(void *)o->a, (void *)o->b, o->y, (void *)o->bias, scratchpad};
    const int names[MOST] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS,
                             DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t args[MOST];
    int made = 0;
    dnnl_status_t status = describe_operands(descs, &p->key, o);
    for (int i = 0; !status && i < MOST; i++) {
        const int optional = names[i] == DNNL_ARG_BIAS || names[i] == DNNL_ARG_SCRATCHPAD;
        if (optional && !data[i]) continue;
        args[made].arg = names[i];
        status = dnnl_memory_create(&args[made].memory, &descs[i], engine, data[i]);
        if (!status) made++;
    }
    if (!status) status = execute(p, made, args);
    for (int i = 0; i < made; i++) dnnl_memory_destroy(args[i].memory);
    oct_block_free(scratchpad, p->scratchpad_bytes, OCT_WORKSPACE);
    return status ? failed("run a product", status) : 0;
}

static int multiply(const operands *o, int batched, int transpose_a, int transpose_b,
                    int accumulate, int bf16)
{
    product_key key;
    memset(&key, 0, sizeof key);   /* compared with memcmp, padding included */
    /* In a batch, sequences' lengths stand where weights' sizes stand in a single product, so that
     * all is left open: one primitive serves, at 80 to 120 % of the speed with all sizes fixed. */
    key.batched = batched;
    key.m = transpose_a && !batched ? o->m : 0;
    key.n = batched ? 0 : o->n;
    key.k = transpose_a || batched ? 0 : o->k;
    key.transpose_a = transpose_a;
    key.transpose_b = transpose_b;
    key.accumulate = accumulate;
    key.bias = o->bias != NULL;
    key.bf16 = bf16;
    product *p = find(&key);
    if (!p) return -1;
    int status = run(p, o);
    leave(p);
    return status;
}

int oct_product(float *y, const void *a, const void *b, const float *bias, int64_t m, int64_t n,
                int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16)
{
    operands o = {y, a, b, bias, 1, m, n, k};
    return multiply(&o, 0, transpose_a, transpose_b, accumulate, bf16);
}

int oct_products(float *y, const void *a, const void *b, int64_t batch, int64_t m, int64_t n,
                 int64_t k, int transpose_a, int transpose_b, int accumulate, int bf16)
{
    operands o = {y, a, b, NULL, batch, m, n, k};
    return multiply(&o, 1, transpose_a, transpose_b, accumulate, bf16);
}
