/* adagrad.h - AdaGrad (Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and
 * Stochastic Optimization", JMLR 2011).
 *
 *     v = v + g^2,  direction = g / (sqrt(v) + eps),  step = lr / (1 + (t - 1) lr_decay) */
enum { ADAGRAD_EPS };
enum { adagrad_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf adagrad_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = vf_fma(g, g, squared_state(s[0], root));
    *bound = v;
    return g / (root_of_state(s, v, root) + vf_all(c[ADAGRAD_EPS]));
}

#else

static void adagrad_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[ADAGRAD_EPS] = (float)in->options[0];
    n->step = (float)(in->lr / (1 + (double)(in->step - 1) * in->options[1]));
}

static const oct_rule adagrad_optimizers[] = {
    {.name = "adagrad", .title = "AdaGrad (Duchi, Hazan and Singer, 2011)",
     .state = {{"v", OCT_STATE_SQUARE}},
     .option = {{"eps", 1e-10, 0x1p-126, 0x1p126}, {"lr_decay", 0, 0, 0x1p126}},
     .lr = 1e-2, .decay = OCT_DECAY_COUPLED, .numbers = adagrad_numbers},
    {0},
};

#endif
