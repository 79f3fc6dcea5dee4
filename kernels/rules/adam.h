/* adam.h - Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm
 * 1) and AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
 * algorithm 2).
 *
 *     m = beta1 m + (1 - beta1) g
 *     v = beta2 v + (1 - beta2) g^2
 *     direction = m / (sqrt(v / (1 - beta2^t)) + eps),  step = lr / (1 - beta1^t) */
enum { ADAM_BETA1_REST, ADAM_BETA2_REST, ADAM_ROOT_SCALE, ADAM_EPS };
enum { adam_states = 2 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf adam_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = squared_state(s[1], root);
    s[0] = vf_fma(vf_all(c[ADAM_BETA1_REST]), g - s[0], s[0]);
    v = vf_fma(vf_all(c[ADAM_BETA2_REST]), vf_fma(g, g, -v), v);
    *bound = v;
    vf r = root_of_state(s + 1, v, root);
    return s[0] / vf_fma(r, vf_all(c[ADAM_ROOT_SCALE]), vf_all(c[ADAM_EPS]));
}

#else

static void adam_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double beta1 = in->options[0], beta2 = in->options[1];
    n->c[ADAM_BETA1_REST] = (float)(1 - beta1);
    n->c[ADAM_BETA2_REST] = (float)(1 - beta2);
    n->c[ADAM_ROOT_SCALE] = (float)(1 / sqrt(1 - oct_power(beta2, in->step)));
    n->c[ADAM_EPS] = (float)in->options[2];
    n->step = (float)(in->lr / (1 - oct_power(beta1, in->step)));
}

#define ADAM_STATES {{"m", OCT_STATE_SIGNED}, {"v", OCT_STATE_SQUARE}}
#define ADAM_BETA(name, usual) {name, usual, 0, 1, OCT_OPTION_BELOW}
#define ADAM_EPS_OPTION(usual) {"eps", usual, 0x1p-126, 0x1p126}

static const oct_rule adam_optimizers[] = {
    {.name = "adam", .title = "Adam (Kingma and Ba, 2015)", .state = ADAM_STATES,
     .option = {ADAM_BETA("beta1", 0.9), ADAM_BETA("beta2", 0.999), ADAM_EPS_OPTION(1e-8)},
     .lr = 1e-3, .decay = OCT_DECAY_COUPLED, .numbers = adam_numbers},
    {.name = "adamw", .title = "AdamW (Loshchilov and Hutter, 2019)", .state = ADAM_STATES,
     .option = {ADAM_BETA("beta1", 0.9), ADAM_BETA("beta2", 0.999), ADAM_EPS_OPTION(1e-8)},
     .lr = 1e-3, .weight_decay = 0.01, .decay = OCT_DECAY_DECOUPLED, .numbers = adam_numbers},
    {0},
};

#endif
