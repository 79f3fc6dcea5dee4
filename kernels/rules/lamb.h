/* lamb.h - LAMB (You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76
 * minutes", ICLR 2020, algorithm 2).
 *
 *     m and v as Adam's, both with their bias corrected
 *     direction = m / (sqrt(v) + eps) + weight_decay p
 *     step = lr |p| / |direction|, of the whole tensor; lr where a norm is 0 */
enum { LAMB_BETA1_REST, LAMB_BETA2_REST, LAMB_ROOT_SCALE, LAMB_EPS, LAMB_MEAN_SCALE, LAMB_DECAY };
enum { lamb_states = 2 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf lamb_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = squared_state(s[1], root);
    s[0] = vf_fma(vf_all(c[LAMB_BETA1_REST]), g - s[0], s[0]);
    v = vf_fma(vf_all(c[LAMB_BETA2_REST]), vf_fma(g, g, -v), v);
    *bound = v;
    vf r = root_of_state(s + 1, v, root);
    vf ratio = s[0] * c[LAMB_MEAN_SCALE] / vf_fma(r, vf_all(c[LAMB_ROOT_SCALE]),
                                                  vf_all(c[LAMB_EPS]));
    return vf_fma(vf_all(c[LAMB_DECAY]), p, ratio);
}

#else

static void lamb_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double beta1 = in->options[0], beta2 = in->options[1];
    n->c[LAMB_BETA1_REST] = (float)(1 - beta1);
    n->c[LAMB_BETA2_REST] = (float)(1 - beta2);
    n->c[LAMB_ROOT_SCALE] = (float)(1 / sqrt(1 - oct_power(beta2, in->step)));
    n->c[LAMB_MEAN_SCALE] = (float)(1 / (1 - oct_power(beta1, in->step)));
    n->c[LAMB_EPS] = (float)in->options[2];
    n->c[LAMB_DECAY] = (float)in->weight_decay;
    if (in->param_norm > 0 && in->other_norm > 0)
        n->step = (float)(in->lr * in->param_norm / in->other_norm);
}

static const oct_rule lamb_optimizers[] = {
    {.name = "lamb", .title = "LAMB (You et al., 2020)",
     .state = {{"m", OCT_STATE_SIGNED}, {"v", OCT_STATE_SQUARE}},
     .option = {{"beta1", 0.9, 0, 1, OCT_OPTION_BELOW}, {"beta2", 0.999, 0, 1, OCT_OPTION_BELOW},
                {"eps", 1e-6, 0x1p-126, 0x1p126}},
     .lr = 1e-3, .weight_decay = 0.01, .decay = OCT_DECAY_OWN, .norms = OCT_NORMS_DIRECTION,
     .numbers = lamb_numbers},
    {0},
};

#endif
