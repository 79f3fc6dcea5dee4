/* lion.h - Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023,
 * program 1).
 *
 *     direction = sign(beta1 m + (1 - beta1) g),  m = beta2 m + (1 - beta2) g */
enum { LION_BETA1_REST, LION_BETA2_REST };
enum { lion_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf lion_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf m = s[0];
    s[0] = vf_fma(vf_all(c[LION_BETA2_REST]), g - m, m);
    *bound = vf_abs(s[0]);
    return vf_sign(vf_fma(vf_all(c[LION_BETA1_REST]), g - m, m));
}

#else

static void lion_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[LION_BETA1_REST] = (float)(1 - in->options[0]);
    n->c[LION_BETA2_REST] = (float)(1 - in->options[1]);
}

static const oct_rule lion_optimizers[] = {
    {.name = "lion", .title = "Lion (Chen et al., 2023)", .state = {{"m", OCT_STATE_SIGNED}},
     .option = {{"beta1", 0.9, 0, 1, OCT_OPTION_BELOW}, {"beta2", 0.99, 0, 1, OCT_OPTION_BELOW}},
     .lr = 1e-4, .decay = OCT_DECAY_DECOUPLED, .numbers = lion_numbers},
    {0},
};

#endif
