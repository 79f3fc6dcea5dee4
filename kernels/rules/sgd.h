/* sgd.h - stochastic gradient descent with momentum (Polyak, 1964; as in Sutskever, Martens, Dahl,
 * Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013), in the
 * form that PyTorch has made usual.
 *
 *     m = momentum m + (1 - dampening) g;  the first step: m = g
 *     direction = m, or with nesterov g + momentum m */
enum { SGD_MOMENTUM, SGD_GRADIENT, SGD_DIRECT, SGD_BUFFERED };
enum { sgd_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf sgd_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    s[0] = vf_fma(vf_all(c[SGD_MOMENTUM]), s[0], g * c[SGD_GRADIENT]);
    *bound = vf_max(vf_abs(g), vf_abs(s[0]));
    return vf_fma(vf_all(c[SGD_BUFFERED]), s[0], g * c[SGD_DIRECT]);
}

#else

static void sgd_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double momentum = in->options[0], dampening = in->options[1];
    int nesterov = in->options[2] != 0;
    n->c[SGD_MOMENTUM] = (float)momentum;
    n->c[SGD_GRADIENT] = in->step == 1 || momentum == 0 ? 1 : (float)(1 - dampening);
    n->c[SGD_DIRECT] = nesterov;
    n->c[SGD_BUFFERED] = nesterov ? (float)momentum : 1;
}

static const oct_rule sgd_optimizers[] = {
    {.name = "sgd",
     .title = "SGD with momentum (Polyak, 1964; Sutskever et al., 2013)",
     .state = {{"m", OCT_STATE_SIGNED, 1}},
     .option = {{"momentum", 0.9, 0, 1, OCT_OPTION_BELOW},
                {"dampening", 0, 0, 1},
                {"nesterov", 0, 0, 1, OCT_OPTION_SWITCH}},
     .lr = 1e-2,
     .decay = OCT_DECAY_COUPLED,
     .numbers = sgd_numbers},
    {0},
};

#endif
