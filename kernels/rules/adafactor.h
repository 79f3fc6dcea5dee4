/* adafactor.h - Adafactor (Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear
 * Memory Cost", ICML 2018, algorithms 4 to 6).
 *
 *     u = g / sqrt(v), v factored into a row and a column, then u / max(1, RMS(u) / clip): the
 *         gradient that comes here (core/adafactor.c)
 *     m = beta1 m + (1 - beta1) u,  direction = m
 *     step = min(lr, 1 / sqrt(t)) max(eps2, RMS(p)) */
enum { ADAFACTOR_REST };
enum { adafactor_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf adafactor_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    s[0] = vf_fma(vf_all(c[ADAFACTOR_REST]), g - s[0], s[0]);
    *bound = vf_max(vf_abs(g), vf_abs(s[0]));
    return s[0];
}

#else

/* param_norm is here the root of the mean square. */
static void adafactor_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double relative = 1 / sqrt((double)in->step), eps2 = in->options[3];
    n->c[ADAFACTOR_REST] = (float)(1 - in->options[0]);
    n->step = (float)((in->lr < relative ? in->lr : relative) *
                      (in->param_norm > eps2 ? in->param_norm : eps2));
}

static const oct_rule adafactor_optimizers[] = {
    {.name = "adafactor",
     .title = "Adafactor (Shazeer and Stern, 2018)",
     .state = {{"m", OCT_STATE_SIGNED, 1}},
     .option = {{"beta1", 0, 0, 1, OCT_OPTION_BELOW},
                {"beta2_decay", 0.8, 0, 1},
                {"eps1", 1e-30, 0, 1},
                {"eps2", 1e-3, 0, 0x1p126},
                {"clip_threshold", 1, 0, 0x1p126, OCT_OPTION_ABOVE}},
     .lr = 1e-2,
     .decay = OCT_DECAY_DECOUPLED,
     .matrix = OCT_MATRIX_FACTORED,
     .numbers = adafactor_numbers},
    {0},
};

#endif
