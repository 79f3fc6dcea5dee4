/* optim.h - what a step of an optimizer is, as the kernels see it.
 *
 * A slot is a parameter with its gradient and state. A step runs over many slots at once: they are
 * cut into pieces, consecutive small pieces are bundled into units, and a unit is what a thread
 * takes. The cuts depend on the sizes alone. */
#ifndef OCT_OPTIM_H
#define OCT_OPTIM_H
#include <stdint.h>

#include "kernels/map.h"

enum { OCT_STATES = 2 };           /* states a rule may have */
enum {
    OCT_BLOCK_MIN = 32, OCT_BLOCK_MAX = 4096,
    OCT_OPTIM_PIECE = 8 * OCT_BLOCK_MAX
};

/* Rounding by chance. An element has one draw for both states, so that m and sqrt(v) tend to be
 * rounded the same way and their quotient varies less. 64 elements share the 16 words of 4 Philox
 * blocks: element i has the low 16 bits of word i % 16 of blocks random_offset + 4 (i / 64) and the
 * 3 behind it, the word turned right by 8 (i % 64 / 16) bits. So a draw is uniform; two that come
 * from one word have at most a byte in common, the upper one of the one being the lower one of the
 * other.
 *
 * Why m too: to the nearest, an m below 0.003 of its block's largest is rounded back up after each
 * decay by a tenth, for ever, and moves a parameter whose gradient has ended ever further. */

/* An element takes no part in a step that would bring its second moment to this or beyond, or to
 * NaN: neither it nor its state changes, and the step counts it. So does every gradient that is
 * infinite or NaN. 2^126 rather than the largest float, so that its reciprocal is a normal one. */
#define OCT_STATE_LIMIT 0x1p126f

/* A block whose largest magnitude is below this is kept as zeros: its reciprocal is no float. */
#define OCT_ABSMAX_LEAST 0x1p-126f

/* Numbers of a rule for one slot and step. Adam, AdamW: kernels/rules.h. */
typedef struct oct_rule {
    float grad_scale;              /* of the gradient, before all else */
    float weight_decay;            /* coupled: added to the gradient, times the parameter */
    float keep;                    /* decoupled: 1 - lr * weight decay */
    float beta1_rest, beta2_rest;  /* 1 - beta1, 1 - beta2 */
    float step_size;               /* lr / (1 - beta1^t) */
    float root_scale;              /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
} oct_rule;

typedef struct oct_optim_slot {
    float *param;                  /* [size] */
    const float *grad;             /* [size] */
    int64_t size;
    oct_rule rule;
    /* 32-bit state: [size] each; codes[0] is NULL then */
    float *state[OCT_STATES];
    /* 8-bit state: codes [size] and absmax [blocks] */
    uint8_t *codes[OCT_STATES];
    float *absmax[OCT_STATES];
    const oct_map *map[OCT_STATES];
    int64_t block;                 /* elements; a power of two */
    int32_t root;                  /* the second state is sqrt(v), not v */
    int32_t stochastic;            /* states are rounded by chance, not to the nearest: below */
    uint64_t seed, random_offset;
} oct_optim_slot;

typedef struct oct_optim_piece {
    int64_t slot, first, count;    /* elements first .. first + count - 1; first is a multiple of
                                    * OCT_OPTIM_PIECE, count is it too but for the slot's last */
} oct_optim_piece;

typedef struct oct_optim_work {
    const oct_optim_slot *slots;
    const oct_optim_piece *pieces;
    const int64_t *units; /* [unit_count + 1]: unit u is pieces units[u] .. units[u+1] - 1 */
    int64_t unit_count;
    int32_t plain;                 /* specs: leave out what not every processor of the set has */
} oct_optim_work;

/* Instruction sets of these kernels: AVX2 and AVX-512 stand in the table (kernels/kernels.h); the
 * scalar twins are for the specs. All give the same bits. */
int64_t oct_optim_adam_ref(const oct_optim_work *work);
void oct_optim_squares_ref(double *sums, int64_t *left_out, const oct_optim_work *work);
void oct_quantize_ref(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                      const oct_map *map);
void oct_dequantize_ref(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                        int64_t block, const oct_map *map);

#endif
