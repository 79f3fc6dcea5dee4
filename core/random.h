/* random.h - Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC
 * 2011).
 *
 * A block of four 32-bit numbers is a pure function of (seed, stream, offset): any thread, any
 * device and a resumed run draw the same. Key = seed; counter = {offset low, offset high, stream,
 * 0}. */
#ifndef OCT_RANDOM_H
#define OCT_RANDOM_H
#include <stdint.h>

#ifdef __CUDACC__
#define OCT_EVERYWHERE __host__ __device__
#else
#define OCT_EVERYWHERE
#endif

static inline OCT_EVERYWHERE void oct_philox(uint32_t out[4], uint64_t seed, uint32_t stream,
                                             uint64_t offset)
{
    uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = stream, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The seed of the run. */
uint64_t oct_random_seed(void);
/* Take `blocks` blocks of a stream: returns the first one's offset and moves the stream on. */
uint64_t oct_random_take(int stream, uint64_t blocks);

#endif
