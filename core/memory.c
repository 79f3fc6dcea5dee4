/* memory.c - allocation that can be told to fail, a cache of blocks, and the accounts.
 *
 * The cache: a training step asks for the same sizes again and again, with packed batches making
 * them differ a little. Sizes are rounded up to one of 8 steps within each power of two (waste at
 * most 12.5 %), and a freed block waits in its class for the next request that it can serve. What
 * waits is bounded by the peak of what was in use; beyond it, the smallest go back to the system.
 */
#include "core/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/device.h"
#include "core/error.h"
#include "core/octet.h"

/* ---- failure on request ---------------------------------------------------------------------- */

static atomic_llong allocations;      /* made since the last oct_fail_allocation */
static atomic_llong fail_at;          /* 0: never */
static atomic_int fail_on_and_on;

static int told_to_fail(void)
{
    long long count = atomic_fetch_add(&allocations, 1) + 1;
    long long at = atomic_load(&fail_at);
    return at != 0 && (count == at || (count > at && atomic_load(&fail_on_and_on)));
}

int oct_fail_allocation(int64_t *made, int64_t nth, int on_and_on)
{
    if (nth < 0)
        return oct_fail("fail_allocation: nth is %lld, expected 0 or more", (long long)nth);
    if (made) *made = atomic_load(&allocations);
    atomic_store(&fail_at, nth);
    atomic_store(&fail_on_and_on, on_and_on);
    atomic_store(&allocations, 0);
    return 0;
}

void *oct_malloc(size_t bytes)
{
    void *pointer = told_to_fail() ? NULL : malloc(bytes ? bytes : 1);
    if (!pointer) oct_fail_memory((long long)bytes);
    return pointer;
}

void *oct_calloc(size_t count, size_t bytes)
{
    void *pointer = told_to_fail() ? NULL : calloc(count ? count : 1, bytes ? bytes : 1);
    if (!pointer) oct_fail_memory((long long)(count * bytes));
    return pointer;
}

void *oct_realloc(void *old, size_t bytes)
{
    void *pointer = told_to_fail() ? NULL : realloc(old, bytes ? bytes : 1);
    if (!pointer) oct_fail_memory((long long)bytes);
    return pointer;
}

char *oct_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = oct_malloc(bytes);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

void oct_free(void *pointer)
{
    free(pointer);
}

/* ---- accounts -------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
enum { ALL = OCT_PURPOSES };
typedef struct accounts {
    int64_t now[OCT_PURPOSES + 1], peak[OCT_PURPOSES + 1]; /* by purpose, and ALL together */
} accounts;
static accounts of_device[OCT_DEVICES];
static accounts *const own = of_device + OCT_CPU;
static int64_t soft_limit = (int64_t)1 << 30;
static int pressure;

static void add(accounts *a, int which, int64_t bytes)
{
    a->now[which] += bytes;
    if (a->now[which] > a->peak[which]) a->peak[which] = a->now[which];
}

static void account(int device, int purpose, int64_t bytes)
{
    add(of_device + device, purpose, bytes);
    add(of_device + device, ALL, bytes);
    if (own->now[ALL] > soft_limit) pressure = 1;
}

int oct_memory(int64_t *now_bytes, int64_t *peak_bytes, const char *name, int purpose)
{
    int device, which = purpose < 0 ? ALL : purpose;
    if (purpose < -1 || purpose >= OCT_PURPOSES)
        return oct_fail("memory: purpose %d, expected -1 to %d", purpose, OCT_PURPOSES - 1);
    OCT_TRY(oct_device_named(&device, name));
    pthread_mutex_lock(&lock);
    *now_bytes = of_device[device].now[which];
    *peak_bytes = of_device[device].peak[which];
    pthread_mutex_unlock(&lock);
    return 0;
}

int oct_memory_reset_peak(void)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < OCT_DEVICES; i++)
        memcpy(of_device[i].peak, of_device[i].now, sizeof of_device[i].peak);
    pthread_mutex_unlock(&lock);
    return 0;
}

int oct_memory_pressure(const int **flag)
{
    *flag = &pressure;
    return 0;
}

int oct_memory_relieved(int64_t least_bytes)
{
    pthread_mutex_lock(&lock);
    soft_limit = own->now[ALL] + own->now[ALL] / 2;
    if (soft_limit < least_bytes) soft_limit = least_bytes;
    pressure = 0;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

enum { ALIGNMENT = 64, SLACK = 64, STEPS = 8, CLASSES = 64 * STEPS, HUGE_PAGE = 2 << 20 };

/* Stands before every block, in a cache line of its own. */
typedef struct header {
    struct header *next;           /* while it waits in the cache */
    int class;
} header;
_Static_assert(sizeof(header) <= ALIGNMENT, "a header fits in front of a block");

/* Under the address sanitizer a block is as large as was asked for and is freed at once, so that it
 * sees what runs over an end or comes too late. */
#ifdef __SANITIZE_ADDRESS__
enum { CACHES = 0 };
#else
enum { CACHES = 1 };
#endif

static header *cache[CLASSES];
static int64_t cached_bytes;

static header *header_of(void *block) { return (header *)((char *)block - ALIGNMENT); }
static void *block_of(header *h) { return (char *)h + ALIGNMENT; }

/* The smallest class that holds so many bytes. */
static int size_class(size_t bytes)
{
    size_t wanted = bytes < 512 ? 512 : bytes;
    int power = 63 - __builtin_clzll(wanted);
    size_t step = ((size_t)1 << power) / STEPS;
    return power * STEPS + (int)((wanted - ((size_t)1 << power) + step - 1) / step);
}

static size_t class_bytes(int class)
{
    size_t power = (size_t)1 << class / STEPS;
    return power + (size_t)(class % STEPS) * (power / STEPS);
}

static header *system_block(int class, size_t wanted)
{
    size_t bytes = (CACHES ? class_bytes(class) : wanted) + ALIGNMENT + SLACK;
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    header *h = NULL;
    if (posix_memalign((void **)&h, alignment, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE) madvise(h, bytes, MADV_HUGEPAGE);
#endif
    h->class = class;
    return h;
}

/* Give cached blocks back to the system, the smallest first, until at most `keep` bytes wait. */
static int64_t trim_locked(int64_t keep)
{
    int64_t before = cached_bytes;
    for (int i = 0; i < CLASSES; i++)
        while (cache[i] && cached_bytes > keep) {
            header *next = cache[i]->next;
            free(cache[i]);
            cache[i] = next;
            cached_bytes -= (int64_t)class_bytes(i);
        }
    return before - cached_bytes;
}

/* A cached block of the class, or one that is at most twice as large: packed batches ask for
 * somewhat other sizes at each step. */
static header *cached_block(int class)
{
    for (int i = class; CACHES && i <= class + STEPS && i < CLASSES; i++)
        if (cache[i]) {
            header *h = cache[i];
            cache[i] = h->next;
            cached_bytes -= (int64_t)class_bytes(i);
            return h;
        }
    return NULL;
}

void *oct_block_new(size_t bytes, int purpose)
{
    if (told_to_fail() || bytes > (size_t)1 << 60) {
        oct_fail_memory((long long)bytes);
        return NULL;
    }
    int class = size_class(bytes);
    pthread_mutex_lock(&lock);
    header *h = cached_block(class);
    if (!h) h = system_block(class, bytes);
    if (!h && trim_locked(0) > 0) h = system_block(class, bytes);
    if (h) account(OCT_CPU, purpose, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
    if (!h) {
        oct_fail_memory((long long)bytes);
        return NULL;
    }
    return block_of(h);
}

void oct_block_free(void *block, size_t bytes, int purpose)
{
    if (!block) return;
    header *h = header_of(block);
    pthread_mutex_lock(&lock);
    account(OCT_CPU, purpose, -(int64_t)bytes);
    h->next = cache[h->class];
    cache[h->class] = h;
    cached_bytes += (int64_t)class_bytes(h->class);
    /* What waits may be as much as was in use at the most beyond what is in use now, and a bit. */
    int64_t limit = CACHES ? own->peak[ALL] - own->now[ALL] + (16 << 20) : 0;
    if (cached_bytes > limit) trim_locked(limit);
    pthread_mutex_unlock(&lock);
}

void *oct_block_new_on(int device, size_t bytes, int purpose)
{
    const oct_device_kernels *k = oct_device_kernels_of(device);
    void *block;
    if (device == OCT_CPU) return oct_block_new(bytes, purpose);
    if (told_to_fail()) {
        oct_fail_memory((long long)bytes);
        return NULL;
    }
    if (k->allocate(&block, (int64_t)bytes) != 0) {
        oct_device_fail(k);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    account(device, purpose, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
    return block;
}

void oct_block_free_on(int device, void *block, size_t bytes, int purpose)
{
    if (device == OCT_CPU) {
        oct_block_free(block, bytes, purpose);
        return;
    }
    if (!block) return;
    /* A device that fails here fails at what comes next, too, which can say so. */
    oct_device_kernels_of(device)->release(block);
    pthread_mutex_lock(&lock);
    account(device, purpose, -(int64_t)bytes);
    pthread_mutex_unlock(&lock);
}

void oct_block_repurpose(int device, size_t bytes, int from, int to)
{
    pthread_mutex_lock(&lock);
    account(device, from, -(int64_t)bytes);
    account(device, to, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
}

int oct_memory_trim(int64_t *held_bytes)
{
    pthread_mutex_lock(&lock);
    int64_t held = trim_locked(0);
    pthread_mutex_unlock(&lock);
    if (held_bytes) *held_bytes = held;
    return 0;
}
