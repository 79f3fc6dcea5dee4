/* adamax.h - AdaMax (Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
 * algorithm 2), with PyTorch's place for eps.
 *
 *     m = beta1 m + (1 - beta1) g,  u = max(beta2 u, |g| + eps)
 *     direction = m / u,  step = lr / (1 - beta1^t) */
enum { ADAMAX_BETA1_REST, ADAMAX_BETA2, ADAMAX_EPS };
enum { adamax_states = 2 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf adamax_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    s[0] = vf_fma(vf_all(c[ADAMAX_BETA1_REST]), g - s[0], s[0]);
    s[1] = vf_max(s[1] * c[ADAMAX_BETA2], vf_abs(g) + vf_all(c[ADAMAX_EPS]));
    *bound = s[1];
    return s[0] / s[1];
}

#else

static void adamax_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[ADAMAX_BETA1_REST] = (float)(1 - in->options[0]);
    n->c[ADAMAX_BETA2] = (float)in->options[1];
    n->c[ADAMAX_EPS] = (float)in->options[2];
    n->step = (float)(in->lr / (1 - oct_power(in->options[0], in->step)));
}

static const oct_rule adamax_optimizers[] = {
    {.name = "adamax", .title = "AdaMax (Kingma and Ba, 2015)",
     .state = {{"m", OCT_STATE_SIGNED}, {"u", OCT_STATE_POSITIVE}},
     .option = {{"beta1", 0.9, 0, 1, OCT_OPTION_BELOW}, {"beta2", 0.999, 0, 1, OCT_OPTION_BELOW},
                {"eps", 1e-8, 0x1p-126, 0x1p126}},
     .lr = 2e-3, .decay = OCT_DECAY_COUPLED, .numbers = adamax_numbers},
    {0},
};

#endif
