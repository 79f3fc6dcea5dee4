/* nadam.h - NAdam (Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016), with
 * PyTorch's numbers: Adam whose direction looks a step ahead, by a momentum that grows to beta1.
 *
 *     mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2),  M_t = mu_1 ... mu_t
 *     m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *     direction = ((1 - mu_t) / (1 - M_t) g + mu_t+1 / (1 - M_t+1) m)
 *                 / (sqrt(v / (1 - beta2^t)) + eps) */
enum { NADAM_BETA1_REST, NADAM_BETA2_REST, NADAM_ROOT_SCALE, NADAM_EPS, NADAM_G, NADAM_M };
enum { nadam_states = 2 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf nadam_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = squared_state(s[1], root);
    s[0] = vf_fma(vf_all(c[NADAM_BETA1_REST]), g - s[0], s[0]);
    v = vf_fma(vf_all(c[NADAM_BETA2_REST]), vf_fma(g, g, -v), v);
    *bound = v;
    vf r = root_of_state(s + 1, v, root);
    vf ahead = vf_fma(vf_all(c[NADAM_G]), g, s[0] * c[NADAM_M]);
    return ahead / vf_fma(r, vf_all(c[NADAM_ROOT_SCALE]), vf_all(c[NADAM_EPS]));
}

#else

static double nadam_mu(double beta1, double decay, int64_t t)
{
    return beta1 * (1 - exp((double)t * decay * log(0.96)) / 2);
}

/* mu_1 ... mu_t, or 0 where 1 minus it is 1: some hundred factors. */
static double nadam_product(double beta1, double decay, int64_t t)
{
    double by = exp(decay * log(0.96)), power = by, product = 1;
    for (int64_t i = 1; i <= t && product > 0x1p-60; i++, power *= by)
        product *= beta1 * (1 - power / 2);
    return product > 0x1p-60 ? product : 0;
}

static void nadam_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double beta1 = in->options[0], beta2 = in->options[1], decay = in->options[3];
    double mu = nadam_mu(beta1, decay, in->step), next = nadam_mu(beta1, decay, in->step + 1);
    double product = nadam_product(beta1, decay, in->step);
    n->c[NADAM_BETA1_REST] = (float)(1 - beta1);
    n->c[NADAM_BETA2_REST] = (float)(1 - beta2);
    n->c[NADAM_ROOT_SCALE] = (float)(1 / sqrt(1 - oct_power(beta2, in->step)));
    n->c[NADAM_EPS] = (float)in->options[2];
    n->c[NADAM_G] = (float)((1 - mu) / (1 - product));
    n->c[NADAM_M] = (float)(next / (1 - product * next));
}

static const oct_rule nadam_optimizers[] = {
    {.name = "nadam", .title = "NAdam (Dozat, 2016)",
     .state = {{"m", OCT_STATE_SIGNED}, {"v", OCT_STATE_SQUARE}},
     .option = {{"beta1", 0.9, 0, 1, OCT_OPTION_BELOW}, {"beta2", 0.999, 0, 1, OCT_OPTION_BELOW},
                {"eps", 1e-8, 0x1p-126, 0x1p126}, {"momentum_decay", 4e-3, 0, 1}},
     .lr = 2e-3, .decay = OCT_DECAY_COUPLED, .numbers = nadam_numbers},
    {0},
};

#endif
