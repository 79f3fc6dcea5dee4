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

/* What is drawn for a group: its words, and the first one again, since they are a ring of bytes. */
enum { GROUP_WORDS = 16 };
typedef struct group_draws {
    uint32_t word[GROUP_WORDS + 1], unused[3];
} group_draws;

/* Drawn at once: two chains of products side by side, since one waits for itself. */
enum { CHAINS = 2, CHAIN_WORDS = 4 * BLOCKS, GROUPS_DRAWN = CHAINS * CHAIN_WORDS / GROUP_WORDS };

/* For `count` groups, rounded up to a multiple of GROUPS_DRAWN, from block `offset` of the
 * optimizer's stream on. */
INLINE void draw(group_draws *draws, int64_t count, const round_keys *keys, uint64_t offset)
{
    const vq low_half = vq_all(0xFFFFFFFFu);
    for (int64_t i = 0; i < count; i += GROUPS_DRAWN, offset += CHAINS * BLOCKS) {
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
                c0[c] = exclusive(upper_halves(p1), c1[c], keys->low[r]);
                c1[c] = p1;
                c2[c] = exclusive(upper_halves(p0), c3[c], keys->high[r]);
                c3[c] = p0;
            }
        for (int c = 0; c < CHAINS; c++) {
            vq words01 = (c0[c] & low_half) | (c1[c] << 32);
            vq words23 = (c2[c] & low_half) | (c3[c] << 32);
            vu ordered[2] = {interleave_low(words01, words23), interleave_high(words01, words23)};
            for (int k = 0; k < 2; k++) {
                int word = c * CHAIN_WORDS + k * LANES;
                group_draws *group = draws + i + word / GROUP_WORDS;
                memcpy(group->word + word % GROUP_WORDS, ordered + k, sizeof *ordered);
                if (word % GROUP_WORDS == 0) group->word[GROUP_WORDS] = ordered[k][0];
            }
        }
    }
}

/* The draws of vector v of a group: half-words, as kernels/optim.h deals them out. */
INLINE vu half_words(const group_draws *draws, int v)
{
    int element = v * LANES;
    const char *at = (const char *)(draws->word + element % GROUP_WORDS) + element / GROUP_WORDS;
#if defined(OCT_ISA_avx512)
    return (vu)_mm512_maskz_loadu_epi16(0x55555555, at);
#else
    vu words;
    memcpy(&words, at, sizeof words);
    return words & 0xFFFF;
#endif
}

/* The same as floats in (1, 2): optim_ref.c. */
INLINE vf one_and_draws(const group_draws *draws, int v)
{
    return (vf)(half_words(draws, v) << 7 | 0x3F800040u);
}

#endif
