/* element.hpp - one element of an optimizer's step: what is done with it, and the rules.
 *
 * The same arithmetic as kernels/cpu/optim_ref.c, operation by operation, so that the bits are the
 * same. */
#ifndef OCT_CUDA_ELEMENT_HPP
#define OCT_CUDA_ELEMENT_HPP
#include "kernels/cuda/runtime.hpp"

typedef float vf;
INLINE vf vf_all(float x) { return x; }
INLINE vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
INLINE vf vf_sqrt(vf a) { return sqrtf(a); }
INLINE vf vf_abs(vf a) { return fabsf(a); }
/* Where one is NaN, or both are zeros, the result is b, as a vector's is. */
INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
INLINE vf vf_sign(vf a) { return a == 0 ? 0 : copysignf(1, a); }

#define OCT_RULE_ARITHMETIC
#include "core/octet.h"
#include "core/random.h"
#include "rules_list.h"

/* ---- parameters and gradients ---------------------------------------------------------------- */

INLINE float grad_at(const oct_optim_slot &s, int64_t i)
{
    if (s.grad_format == OCT_NUMBER_F32) return ((const float *)s.grad)[i];
    return __uint_as_float((uint32_t)((const uint16_t *)s.grad)[i] << 16);
}

INLINE float param_at(const oct_optim_slot &s, int64_t i)
{
    if (s.param_format == OCT_NUMBER_F32) return ((const float *)s.param)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)s.param)[i] << 16;
    if (s.correction_bits == 8) bits += (uint32_t)((const int8_t *)s.correction)[i] << 8;
    if (s.correction_bits == 16) bits += (uint32_t)((const int16_t *)s.correction)[i];
    return __uint_as_float(bits);
}

/* What to multiply a block's values with; 0 where they are to be kept as zeros. */
INLINE float inverse_of(float absmax) { return absmax < OCT_ABSMAX_LEAST ? 0 : 1 / absmax; }

/* ---- the step of an element ------------------------------------------------------------------ */

/* A rule (kernels/rules.h) as a type: for each rule NAME there is NAME_of. */
#define RULE_TYPE(name)                                                                            \
    struct name##_of {                                                                             \
        enum { STATES = name##_states };                                                           \
        static __device__ __forceinline__ vf direction(vf *bound, vf s[OCT_STATES], vf p, vf g,    \
                                                       const float *c, int root)                   \
        {                                                                                          \
            return name##_rule(bound, s, p, g, c, root);                                           \
        }                                                                                          \
    };
OCT_FOR_EACH_RULE(RULE_TYPE)

/* The new state and parameter; false, with nothing changed, where the element takes no part. root:
 * states of squares hold their roots. */
template <class RULE>
INLINE bool step_element(float *p, float state[OCT_STATES], float g, const oct_numbers &n, int root)
{
    float s[OCT_STATES], bound = 0;
    UNROLL for (int j = 0; j < OCT_STATES; j++) s[j] = state[j];
    g *= n.grad_scale;
    if (n.grad_limit < INFINITY && fabsf(g) < INFINITY)
        g = vf_max(vf_min(g, n.grad_limit), -n.grad_limit);
    if (n.coupled_decay != 0) g = fmaf(n.coupled_decay, *p, g);
    float direction = RULE::direction(&bound, s, *p, g, n.c, root);
    if (!(fabsf(bound) < OCT_STATE_LIMIT)) return false;
    *p = fmaf(-n.step, direction, *p * n.keep);
    UNROLL for (int j = 0; j < OCT_STATES; j++) state[j] = s[j];
    return true;
}

#endif
