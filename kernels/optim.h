/* optim.h - what a step of an optimizer is, as the kernels see it.
 *
 * A slot is a parameter with its gradient and state. A step runs over many slots at once: they are
 * cut into pieces, consecutive small pieces are bundled into units, and a unit is what a thread
 * takes. The cuts depend on the sizes alone. */
#ifndef OCT_OPTIM_H
#define OCT_OPTIM_H
#include <stdint.h>

#include "kernels/bf16.h"
#include "kernels/map.h"

enum { OCT_STATES = 3, OCT_CONSTANTS = 10 }; /* that a rule may have */
enum { OCT_BLOCK_MIN = 32, OCT_BLOCK_MAX = 4096, OCT_OPTIM_PIECE = 8 * OCT_BLOCK_MAX };

/* Rounding by chance. An element has one draw for all its states, so that m and sqrt(v) tend to be
 * rounded the same way and their quotient varies less. 64 elements share the 16 words of 4 Philox
 * blocks, random_offset + 4 (i / 64) and the 3 behind it, which are a ring of 64 bytes, each word's
 * lowest one first: element i has the two bytes from number 4 (i % 16) + i % 64 / 16 on, the first
 * one low. So a draw is uniform; two have at most a byte in common, the upper one of the one being
 * the lower one of the other. A parameter that is rounded by chance draws in the same way from
 * param_random_offset on.
 *
 * Why m too: to the nearest, an m below 0.003 of its block's largest is rounded back up after each
 * decay by a tenth, for ever, and moves a parameter whose gradient has ended ever further. */

/* An element takes no part in a step that would bring its state to this or beyond, or to NaN:
 * neither it nor its state changes, and the step counts it. So does every gradient that is infinite
 * or NaN. 2^126 rather than the largest float, so that its reciprocal is a normal one. */
#define OCT_STATE_LIMIT 0x1p126f

/* A block whose largest magnitude is below this is kept as zeros: its reciprocal is no float. */
#define OCT_ABSMAX_LEAST 0x1p-126f

/* The numbers of a rule for one slot and step; in kernels/rules.h what happens with them. */
typedef struct oct_numbers {
    float grad_scale;       /* of the gradient, before all else */
    float grad_limit;       /* then it is clipped to +- this; infinity: it is not */
    float coupled_decay;    /* then, where not 0, this times the parameter is added */
    float keep, step;       /* the parameter becomes p * keep - step * direction */
    float c[OCT_CONSTANTS]; /* the rule's own */
} oct_numbers;

/* One state of a slot; all NULL where the rule makes do without it. */
typedef struct oct_slot_state {
    float *values;  /* 32 bits: [size] */
    uint8_t *codes; /* 8 bits: [size]; 4 bits: [(size + 1) / 2], the even ones low */
    float *absmax;  /* [blocks]; [1] where the slot's scale is the tensor's */
    const oct_map *map;
} oct_slot_state;

/* How well a step's new state was kept, summed over elements and added to what is there. */
typedef struct oct_optim_error {
    double absolute;         /* |kept - meant| */
    double relative;         /* the same over |meant|, where that is not 0 */
    double magnitude;        /* |meant| */
    int64_t zeros, not_zero; /* kept as 0 though not 0; not 0 */
    int64_t saturated;       /* at the largest code of a side */
} oct_optim_error;

/* What a first pass over a piece finds; the largest magnitudes are of the states as they will be.
 */
typedef struct oct_optim_measure {
    double param_squares, other_squares;
    float absmax[OCT_STATES];
} oct_optim_measure;

enum oct_number_format { OCT_NUMBER_F32, OCT_NUMBER_BF16 };

typedef struct oct_optim_slot {
    void *param;      /* [size] */
    const void *grad; /* [size] */
    int32_t param_format, grad_format;
    /* A bf16 parameter's further bits: [size] signed bytes or half-words, to be added to the 32
     * bits of the parameter, shifted to where they end (8) or are (16). NULL and 0: it is rounded
     * by chance. */
    void *correction;
    int32_t correction_bits;
    int32_t arithmetic;   /* enum oct_arithmetic */
    int32_t bits;         /* of the states: 32, 8 or 4 */
    int32_t root;         /* states of squares hold their roots */
    int32_t stochastic;   /* states are rounded by chance, not to the nearest */
    int32_t whole;        /* one scale for the whole tensor: found by a first pass */
    int32_t norms;        /* what a first pass sums: OCT_NORMS_... of kernels/rules.h */
    int32_t params_there; /* the core's: param and grad, or states and correction, lie on the */
    int32_t states_there; /* step's device already */
    int64_t size, block;  /* elements; block: a power of two */
    oct_slot_state state[OCT_STATES];
    float next_absmax[OCT_STATES]; /* where whole: as the first pass has found it */
    oct_numbers numbers;
    uint64_t seed, random_offset, param_random_offset;
    oct_optim_error *errors; /* [pieces of the slot][OCT_STATES], or NULL */
} oct_optim_slot;

/* Element i of a slot's gradient and of its parameter, whose further bits count. */
static inline float oct_optim_grad_at(const oct_optim_slot *s, int64_t i)
{
    if (s->grad_format == OCT_NUMBER_F32) return ((const float *)s->grad)[i];
    return oct_from_bf16(((const uint16_t *)s->grad)[i]);
}
static inline float oct_optim_param_at(const oct_optim_slot *s, int64_t i)
{
    if (s->param_format == OCT_NUMBER_F32) return ((const float *)s->param)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)s->param)[i] << 16;
    if (s->correction_bits == 8) bits += (uint32_t)((const int8_t *)s->correction)[i] << 8;
    if (s->correction_bits == 16) bits += (uint32_t)((const int16_t *)s->correction)[i];
    return oct_from_bits(bits);
}

typedef struct oct_optim_piece {
    int64_t slot, first, count; /* elements first .. first + count - 1; first is a multiple of
                                 * OCT_OPTIM_PIECE, count is it too but for the slot's last */
} oct_optim_piece;

typedef struct oct_optim_work {
    const oct_optim_slot *slots;
    const oct_optim_piece *pieces;
    const int64_t *units; /* [unit_count + 1]: unit u is pieces units[u] .. units[u+1] - 1 */
    int64_t unit_count;
    int32_t plain; /* specs: leave out what not every processor of the set has */
} oct_optim_work;

/* Scalar twins, for the specs. All kernels give the same bits. */
int64_t oct_optim_step_ref(const oct_optim_work *work);
void oct_optim_measure_ref(oct_optim_measure *measures, const oct_optim_work *work);
void oct_optim_squares_ref(double *sums, int64_t *left_out, const oct_optim_work *work,
                           int of_params);
void oct_quantize_ref(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                      const oct_map *map);
void oct_dequantize_ref(float *x, const uint8_t *codes, const float *absmax, int64_t n,
                        int64_t block, const oct_map *map);

#endif
