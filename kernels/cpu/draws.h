/* draws.h - the draws of rounding by chance, as kernels/optim.h deals them out. */
#ifndef OCT_DRAWS_H
#define OCT_DRAWS_H
#include <string.h>

#include "core/octet.h"
#include "kernels/cpu/philox.h"

/* The keys of Philox's rounds (kernels/cpu/philox.h), in every lane. */
typedef struct round_keys { vq low[10], high[10]; } round_keys;

INLINE void prepare_keys(round_keys *keys, uint64_t seed)
{
    uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
    for (int r = 0; r < 10; r++, low += 0x9E3779B9u, high += 0xBB67AE85u) {
        keys->low[r] = vq_all(low);
        keys->high[r] = vq_all(high);
    }
}

/* Words drawn at once: two chains of products side by side, since one waits for itself. */
enum { CHAINS = 2, DRAWN = CHAINS * 4 * BLOCKS };

/* `count` words, rounded up to a multiple of DRAWN, from block `offset` of the optimizer's stream
 * on. */
INLINE void draw(uint32_t *words, int64_t count, const round_keys *keys, uint64_t offset)
{
    const vq low_half = vq_all(0xFFFFFFFFu);
    for (int64_t i = 0; i < count; i += DRAWN, offset += CHAINS * BLOCKS) {
        vq c0[CHAINS], c1[CHAINS], c2[CHAINS], c3[CHAINS];
        for (int c = 0; c < CHAINS; c++) {
            c0[c] = vq_all(offset + (uint64_t)c * BLOCKS) + BLOCK_OF_LANE;
            c1[c] = c0[c] >> 32;
            c2[c] = vq_all(OCT_STREAM_OPTIMIZER);
            c3[c] = vq_all(0);
        }
        #pragma GCC unroll 10
        for (int r = 0; r < 10; r++)
            for (int c = 0; c < CHAINS; c++) {
                vq p0 = vq_multiply(c0[c], vq_all(0xD2511F53u));
                vq p1 = vq_multiply(c2[c], vq_all(0xCD9E8D57u));
                c0[c] = (p1 >> 32) ^ c1[c] ^ keys->low[r];
                c1[c] = p1;
                c2[c] = (p0 >> 32) ^ c3[c] ^ keys->high[r];
                c3[c] = p0;
            }
        for (int c = 0; c < CHAINS; c++) {
            vq words01 = (c0[c] & low_half) | (c1[c] << 32);
            vq words23 = (c2[c] & low_half) | (c3[c] << 32);
            vu ordered[2] = {interleave_low(words01, words23), interleave_high(words01, words23)};
            memcpy(words + i + c * 4 * BLOCKS, ordered, sizeof ordered);
        }
    }
}

/* The draws of vector v of a group, from the group's 16 words, as floats in (1, 2): optim_ref.c. */
INLINE vf one_and_draws(const uint32_t *words, int v)
{
    int element = v * LANES, left = (7 - element / 16 * 8) & 31;
    vu w;
    memcpy(&w, words + element % 16, sizeof w);
    w = w << left | w >> (32 - left);
    return (vf)((w & 0x7FFF80u) | 0x3F800040u);
}

#endif
