/* rules.h - what a rule of an optimizer is.
 *
 * A rule is one file in kernels/rules/, and nothing else: the build finds it there, and from it
 * come 32-bit, 8-bit and 4-bit state, the scalar twins, AVX2, AVX-512, CUDA, and in Lua the
 * constructors optim.NAME, optim.NAME8 and optim.NAME4 with their options, defaults and checks.
 * docs/optimizers.md writes one step by step. A file says  enum { adam_states = 2 }  and has two
 * parts.
 *
 * 1. Arithmetic, where OCT_RULE_ARITHMETIC is defined: for the file adam.h,
 *
 *        INLINE vf adam_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
 *
 *    on vectors `vf`: vectors of the instruction set in the CPU kernels, single floats in the
 *    scalar twins and on CUDA. The gradient g has been scaled and clipped, and coupled weight decay
 *    has been added. The rule writes the new states over the old ones and returns the direction:
 *    the parameter becomes  p * keep - step * direction.
 *    c[]: the numbers that part 2 has prepared. root, a constant: where 1, a state of kind SQUARE
 *    comes and goes as its root (squared_state and root_of_state do it).
 *    bound: what must stay below OCT_STATE_LIMIT for the step to count, not negative; else element
 *    and state stay as they were, as they do wherever a gradient is not finite.
 *    There are + - * /, vf_all, vf_fma, vf_sqrt, vf_abs, vf_max, vf_min, vf_sign. Every one is
 *    rounded correctly and nothing is contracted, so that all kernels of a rule give the same bits.
 *
 * 2. Description, elsewhere: a NULL-ended list  adam_optimizers[]  of oct_rule, each an optimizer
 * by its published rule, made of this arithmetic. */
#ifndef OCT_RULES_H
#define OCT_RULES_H
#include "kernels/optim.h"

#ifdef OCT_RULE_ARITHMETIC

/* The second moment in a state that holds it, or its root. */
INLINE vf squared_state(vf state, int root) { return root ? state * state : state; }

/* Keep the second moment v in a state; returns its root. */
INLINE vf root_of_state(vf *state, vf v, int root)
{
    vf s = vf_sqrt(v);
    *state = root ? s : v;
    return s;
}

#else
#include <math.h>

#include "core/octet.h"

enum { OCT_RULE_OPTIONS = 12 };

/* Of core/octet.h: a state's values are of either sign (SIGNED), never negative (POSITIVE), or
 * never negative and a square, of which a format may keep the root (SQUARE).
 *
 * Weight decay, where nothing else is said, is added to the gradient (COUPLED), or shrinks the
 * parameter by lr * weight_decay, apart from all else (DECOUPLED), or the rule does it itself, with
 * oct_rule_input.weight_decay, and there is no choice (OWN).
 *
 * What else happens to a matrix: its direction is made orthogonal (ORTHOGONAL, core/muon.c); the
 * gradient is divided by a factored second moment first (FACTORED, core/adafactor.c). */

/* Norms over a whole tensor that the numbers depend on. GRADIENT: of parameter and gradient.
 * DIRECTION: of parameter and direction, for which the rule is run once more beforehand. */
enum { OCT_NORMS_NONE, OCT_NORMS_GRADIENT, OCT_NORMS_DIRECTION };

typedef struct oct_rule_option {
    const char *name;        /* as people know it; NULL ends the list */
    double usual, low, high; /* default; low <= value <= high */
    int form;                /* OCT_OPTION_...: low or high themselves are not allowed (ABOVE,
                              * BELOW, BETWEEN); a whole number; true or false */
} oct_rule_option;

typedef struct oct_rule_state_kind {
    const char *name; /* "m" */
    int kind;         /* OCT_STATE_SIGNED ... */
    int option;       /* 1 + the option that must not be 0 for there to be this state;
                       * 0: it is always there */
} oct_rule_state_kind;

/* What the numbers of a step are made of. */
typedef struct oct_rule_input {
    const double *options; /* in the order of the list */
    double lr, weight_decay;
    int64_t step;                  /* of this parameter, from 1 */
    double param_norm, other_norm; /* where the rule asks for norms, over the tensor; else 0 */
} oct_rule_input;

typedef struct oct_rule {
    const char *name;  /* "adam" */
    const char *title; /* one line: the rule's full name, authors, year */
    oct_rule_state_kind state[OCT_STATES];
    oct_rule_option option[OCT_RULE_OPTIONS + 1];
    double lr, weight_decay; /* defaults */
    int decay, norms, matrix;
    /* Fill in numbers->c, and numbers->step where it is not lr. */
    void (*numbers)(oct_numbers *numbers, const oct_rule_input *in);
    int arithmetic; /* enum oct_arithmetic of the file it stands in; set by the core */
} oct_rule;

/* x^n by squaring: the same on every machine, which the C library's pow is not. */
static inline double oct_power(double x, int64_t n)
{
    double result = 1;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2) result *= x;
    return result;
}

#endif
#endif
