/* memory.c - allocation that can be told to fail, a cache of blocks, and the accounts.
 *
 * The cache: a training step asks for the same sizes again and again, with packed batches making
 * them differ a little. Sizes are rounded up to one of 8 steps within each power of two (waste at
 * most 12.5 %), and a freed block waits in its class for the next of that class. What waits is
 * bounded: past `cache_limit` over what is in use, freed blocks go back to the system. */
#include "core/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/error.h"
#include "core/octet.h"

/* ---- failure on request ----------------------------------------------------------------------- */

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
    if (nth < 0) return oct_fail("fail_allocation: nth is %lld, expected 0 or more", (long long)nth);
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

/* ---- accounts ---------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t now[OCT_PURPOSES], peak[OCT_PURPOSES], now_all, peak_all;

static void account(int purpose, int64_t bytes)
{
    now[purpose] += bytes;
    now_all += bytes;
    if (now[purpose] > peak[purpose]) peak[purpose] = now[purpose];
    if (now_all > peak_all) peak_all = now_all;
}

int oct_memory(int64_t *now_bytes, int64_t *peak_bytes, int purpose)
{
    if (purpose < -1 || purpose >= OCT_PURPOSES)
        return oct_fail("memory: purpose %d, expected -1 to %d", purpose, OCT_PURPOSES - 1);
    pthread_mutex_lock(&lock);
    *now_bytes = purpose < 0 ? now_all : now[purpose];
    *peak_bytes = purpose < 0 ? peak_all : peak[purpose];
    pthread_mutex_unlock(&lock);
    return 0;
}

int oct_memory_reset_peak(void)
{
    pthread_mutex_lock(&lock);
    memcpy(peak, now, sizeof peak);
    peak_all = now_all;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- blocks ------------------------------------------------------------------------------------ */

enum { ALIGNMENT = 64, SLACK = 64, STEPS = 8, CLASSES = 64 * STEPS, HUGE_PAGE = 2 << 20 };

typedef struct free_block { struct free_block *next; } free_block;
static free_block *cache[CLASSES];
static int64_t cached_bytes;

/* The class of a size, and the size that the class holds. */
static int size_class(size_t bytes, size_t *rounded)
{
    size_t wanted = bytes < 512 ? 512 : bytes;
    int power = 63 - __builtin_clzll(wanted);
    size_t step = ((size_t)1 << power) / STEPS;
    size_t steps = (wanted - ((size_t)1 << power) + step - 1) / step;
    *rounded = ((size_t)1 << power) + steps * step;
    return power * STEPS + (int)steps;
}

static void *system_block(size_t rounded)
{
    size_t alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    size_t total = (rounded + SLACK + alignment - 1) / alignment * alignment;
    void *block = aligned_alloc(alignment, total);
#ifdef MADV_HUGEPAGE
    if (block && alignment == HUGE_PAGE) madvise(block, total, MADV_HUGEPAGE);
#endif
    return block;
}

static int64_t trim_locked(void)
{
    int64_t held = cached_bytes;
    for (int i = 0; i < CLASSES; i++)
        while (cache[i]) {
            free_block *next = cache[i]->next;
            free(cache[i]);
            cache[i] = next;
        }
    cached_bytes = 0;
    return held;
}

void *oct_block_new(size_t bytes, int purpose)
{
    if (told_to_fail() || bytes > (size_t)1 << 62) {
        oct_fail_memory((long long)bytes);
        return NULL;
    }
    size_t rounded;
    int class = size_class(bytes, &rounded);
    pthread_mutex_lock(&lock);
    void *block = cache[class];
    if (block) {
        cache[class] = cache[class]->next;
        cached_bytes -= (int64_t)rounded;
    } else {
        block = system_block(rounded);
        if (!block && trim_locked() > 0) block = system_block(rounded);
    }
    if (block) account(purpose, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
    if (!block) oct_fail_memory((long long)bytes);
    return block;
}

void oct_block_free(void *block, size_t bytes, int purpose)
{
    if (!block) return;
    size_t rounded;
    int class = size_class(bytes, &rounded);
    pthread_mutex_lock(&lock);
    account(purpose, -(int64_t)bytes);
    int64_t limit = now_all / 2 + (64 << 20);
    if (cached_bytes + (int64_t)rounded > limit) {
        pthread_mutex_unlock(&lock);
        free(block);
        return;
    }
    ((free_block *)block)->next = cache[class];
    cache[class] = block;
    cached_bytes += (int64_t)rounded;
    pthread_mutex_unlock(&lock);
}

void oct_block_repurpose(size_t bytes, int from, int to)
{
    pthread_mutex_lock(&lock);
    account(from, -(int64_t)bytes);
    account(to, (int64_t)bytes);
    pthread_mutex_unlock(&lock);
}

int oct_memory_trim(int64_t *held_bytes)
{
    pthread_mutex_lock(&lock);
    int64_t held = trim_locked();
    pthread_mutex_unlock(&lock);
    if (held_bytes) *held_bytes = held;
    return 0;
}
