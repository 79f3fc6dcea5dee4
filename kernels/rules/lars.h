/* lars.h - LARS (You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017,
 * algorithm 1).
 *
 *     ratio = trust |p| / (|g| + weight_decay |p| + eps), of the whole tensor; 1 where a norm is 0
 *     m = momentum m + lr ratio (g + weight_decay p),  p = p - m */
enum { LARS_MOMENTUM, LARS_GRADIENT, LARS_DECAY };
enum { lars_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf lars_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf pull = vf_fma(vf_all(c[LARS_DECAY]), p, g * c[LARS_GRADIENT]);
    s[0] = vf_fma(vf_all(c[LARS_MOMENTUM]), s[0], pull);
    *bound = vf_max(vf_abs(g), vf_abs(s[0]));
    return s[0];
}

#else

static void lars_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double trust = in->options[1], eps = in->options[2], decay = in->weight_decay, ratio = 1;
    if (in->param_norm > 0 && in->other_norm > 0)
        ratio = trust * in->param_norm / (in->other_norm + decay * in->param_norm + eps);
    n->c[LARS_MOMENTUM] = (float)in->options[0];
    n->c[LARS_GRADIENT] = (float)(in->lr * ratio);
    n->c[LARS_DECAY] = (float)(in->lr * ratio * decay);
    n->step = 1;
}

static const oct_rule lars_optimizers[] = {
    {.name = "lars",
     .title = "LARS (You, Gitman and Ginsburg, 2017)",
     .state = {{"m", OCT_STATE_SIGNED, 1}},
     .option = {{"momentum", 0.9, 0, 1, OCT_OPTION_BELOW},
                {"trust", 1e-3, 0, 0x1p126, OCT_OPTION_ABOVE},
                {"eps", 1e-8, 0, 0x1p126}},
     .lr = 1,
     .decay = OCT_DECAY_OWN,
     .norms = OCT_NORMS_GRADIENT,
     .numbers = lars_numbers},
    {0},
};

#endif
