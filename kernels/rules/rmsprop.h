/* rmsprop.h - RMSprop (Tieleman and Hinton, lecture 6.5 of "Neural Networks for Machine Learning",
 * 2012), centered as in Graves, "Generating Sequences with Recurrent Neural Networks", 2013.
 *
 *     v = alpha v + (1 - alpha) g^2
 *     m = momentum m + g / (sqrt(v) + eps),  direction = m
 *
 * Centered, with a = alpha a + (1 - alpha) g beside, sqrt(v - a^2) stands for sqrt(v). Here v is
 * that difference itself, the same number by another way:
 *
 *     v = alpha (v + (1 - alpha) (g - a)^2),  with the old a
 *
 * which cannot be 0 or less when v or a has been rounded. Kept apart, rounded a^2 comes up to
 * rounded v, and steps of g / eps follow. */
enum { RMSPROP_ALPHA_REST, RMSPROP_EPS, RMSPROP_MOMENTUM, RMSPROP_SQUARE };
enum { rmsprop_states = 3 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf rmsprop_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = squared_state(s[0], root), rest = vf_all(c[RMSPROP_ALPHA_REST]);
    vf away = g - s[1];                                /* a is 0 where it is not kept */
    v = vf_fma(rest, vf_fma(away * c[RMSPROP_SQUARE], away, -v), v);
    vf r = root_of_state(s, v, root);
    s[1] = vf_fma(rest, away, s[1]);
    s[2] = vf_fma(vf_all(c[RMSPROP_MOMENTUM]), s[2], g / (r + vf_all(c[RMSPROP_EPS])));
    *bound = vf_max(v, vf_abs(s[2]));
    return s[2];
}

#else

static void rmsprop_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[RMSPROP_ALPHA_REST] = (float)(1 - in->options[0]);
    n->c[RMSPROP_EPS] = (float)in->options[1];
    n->c[RMSPROP_MOMENTUM] = (float)in->options[2];
    n->c[RMSPROP_SQUARE] = (float)(in->options[3] != 0 ? in->options[0] : 1);
}

static const oct_rule rmsprop_optimizers[] = {
    {.name = "rmsprop", .title = "RMSprop (Tieleman and Hinton, 2012; centered: Graves, 2013)",
     .state = {{"v", OCT_STATE_SQUARE}, {"a", OCT_STATE_SIGNED, 4}, {"m", OCT_STATE_SIGNED, 3}},
     .option = {{"alpha", 0.99, 0, 1, OCT_OPTION_BELOW}, {"eps", 1e-8, 0x1p-126, 0x1p126},
                {"momentum", 0, 0, 1, OCT_OPTION_BELOW}, {"centered", 0, 0, 1, OCT_OPTION_SWITCH}},
     .lr = 1e-2, .decay = OCT_DECAY_COUPLED, .numbers = rmsprop_numbers},
    {0},
};

#endif
