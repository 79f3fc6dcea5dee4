/* random.c - the seed, where each stream stands, and the order of rows in an epoch. */
#include "core/random.h"

#include "core/error.h"
#include "core/octet.h"

static uint64_t seed_now;
static uint64_t offsets[OCT_STREAMS];

int oct_seed(int64_t seed)
{
    seed_now = (uint64_t)seed;
    for (int i = 0; i < OCT_STREAMS; i++) offsets[i] = 0;
    return 0;
}

int oct_seed_now(int64_t *seed)
{
    *seed = (int64_t)seed_now;
    return 0;
}

uint64_t oct_random_seed(void)
{
    return seed_now;
}

uint64_t oct_random_take(int stream, uint64_t blocks)
{
    uint64_t first = offsets[stream];
    offsets[stream] += blocks;
    return first;
}

int oct_random_offset(int64_t *offset, int stream)
{
    if (stream < 0 || stream >= OCT_STREAMS)
        return oct_fail("random: stream %d, expected 0 to %d", stream, OCT_STREAMS - 1);
    *offset = (int64_t)offsets[stream];
    return 0;
}

int oct_set_random_offset(int stream, int64_t offset)
{
    if (stream < 0 || stream >= OCT_STREAMS)
        return oct_fail("random: stream %d, expected 0 to %d", stream, OCT_STREAMS - 1);
    if (offset < 0) return oct_fail("random: offset %lld is negative", (long long)offset);
    offsets[stream] = (uint64_t)offset;
    return 0;
}

int oct_permutation(int32_t *order, int64_t n, int64_t seed, int64_t epoch)
{
    if (n < 0 || n > INT32_MAX)
        return oct_fail("permutation: %lld rows, expected 0 to %d", (long long)n, INT32_MAX);
    if (epoch < 0) return oct_fail("permutation: epoch %lld is negative", (long long)epoch);
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    /* Fisher and Yates, each draw from its own counter; 64 bits make the bias of the modulus
     * smaller than 2^-32. */
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t r[4];
        oct_philox(r, (uint64_t)seed, OCT_STREAM_DATA, ((uint64_t)epoch << 32) | (uint64_t)i);
        int64_t j = (int64_t)((((uint64_t)r[0] << 32) | r[1]) % (uint64_t)(i + 1));
        int32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    return 0;
}
