/* rules.h - the optimizers' rules, each written once.
 *
 * A rule is arithmetic on `vf`: a vector in the CPU kernels, a float in the scalar twins and on
 * CUDA. Whoever includes this file has defined vf, vf_all, vf_fma, vf_sqrt and INLINE. Every
 * operation is one of IEEE 754, correctly rounded, and nothing is contracted: so every kernel of a
 * rule gives the same bits.
 *
 * A rule takes the parameter, the gradient and the states as they were, and leaves them as they are
 * after the step. It returns what must stay below OCT_STATE_LIMIT for the step to count; else the
 * caller puts back what was there. */
#ifndef OCT_RULES_H
#define OCT_RULES_H
#include "kernels/optim.h"

/* Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015) and AdamW (Loshchilov
 * and Hutter, "Decoupled Weight Decay Regularization", 2019): g = grad (+ weight_decay p: Adam's
 * coupled decay) m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2 p = (1 - lr
 * weight_decay: AdamW's) p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon) root: the
 * second state is sqrt(v). */
INLINE vf rule_adam(vf *p, vf *m, vf *second, vf g, const oct_rule *r, int coupled, int root)
{
    g = g * r->grad_scale;
    if (coupled) g = vf_fma(vf_all(r->weight_decay), *p, g);
    vf v = root ? *second * *second : *second;
    *m = vf_fma(vf_all(r->beta1_rest), g - *m, *m);
    v = vf_fma(vf_all(r->beta2_rest), vf_fma(g, g, -v), v);
    vf s = vf_sqrt(v);
    *second = root ? s : v;
    vf denominator = vf_fma(s, vf_all(r->root_scale), vf_all(r->epsilon));
    *p = vf_fma(vf_all(-r->step_size), *m / denominator, *p * r->keep);
    return v;
}

#endif
