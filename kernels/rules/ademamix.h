/* ademamix.h - AdEMAMix (Pagliardini, Ablin, Grangier, "The AdEMAMix Optimizer: Better, Faster,
 * Older", ICLR 2025, algorithm 1).
 *
 *     m = beta1 m + (1 - beta1) g,  slow = beta3' slow + (1 - beta3') g,  v as Adam's
 *     direction = (m / (1 - beta1^t) + alpha' slow) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * alpha' grows linearly to alpha over `warmup` steps, and beta3' from beta1 to beta3 so that its
 * half-life grows linearly; warmup 0: both are what they are from the first step on. */
enum {
    MIX_BETA1_REST,
    MIX_BETA2_REST,
    MIX_BETA3_REST,
    MIX_ALPHA,
    MIX_MEAN_SCALE,
    MIX_ROOT_SCALE,
    MIX_EPS
};
enum { ademamix_states = 3 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf ademamix_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    vf v = squared_state(s[2], root);
    s[0] = vf_fma(vf_all(c[MIX_BETA1_REST]), g - s[0], s[0]);
    s[1] = vf_fma(vf_all(c[MIX_BETA3_REST]), g - s[1], s[1]);
    v = vf_fma(vf_all(c[MIX_BETA2_REST]), vf_fma(g, g, -v), v);
    *bound = v;
    vf r = root_of_state(s + 2, v, root);
    return vf_fma(vf_all(c[MIX_ALPHA]), s[1], s[0] * c[MIX_MEAN_SCALE]) /
           vf_fma(r, vf_all(c[MIX_ROOT_SCALE]), vf_all(c[MIX_EPS]));
}

#else

/* exp and log are the C library's; what follows is rounded to f32 from far more digits. */
static double mix_beta3(double beta1, double beta3, double done)
{
    if (done >= 1) return beta3;
    double fast = log(0.5) / log(beta1) - 1, slow = log(0.5) / log(beta3) - 1;
    return exp(log(0.5) / ((1 - done) * fast + done * slow + 1));
}

static void ademamix_numbers(oct_numbers *n, const oct_rule_input *in)
{
    double beta1 = in->options[0], beta2 = in->options[1], beta3 = in->options[2];
    double alpha = in->options[3], warmup = in->options[4];
    double done = warmup > 0 ? (double)in->step / warmup : 1;
    n->c[MIX_BETA1_REST] = (float)(1 - beta1);
    n->c[MIX_BETA2_REST] = (float)(1 - beta2);
    n->c[MIX_BETA3_REST] = (float)(1 - mix_beta3(beta1, beta3, done));
    n->c[MIX_ALPHA] = (float)(alpha * (done < 1 ? done : 1));
    n->c[MIX_MEAN_SCALE] = (float)(1 / (1 - oct_power(beta1, in->step)));
    n->c[MIX_ROOT_SCALE] = (float)(1 / sqrt(1 - oct_power(beta2, in->step)));
    n->c[MIX_EPS] = (float)in->options[5];
}

static const oct_rule ademamix_optimizers[] = {
    {.name = "ademamix",
     .title = "AdEMAMix (Pagliardini, Ablin and Grangier, 2025)",
     .state = {{"m", OCT_STATE_SIGNED}, {"slow", OCT_STATE_SIGNED}, {"v", OCT_STATE_SQUARE}},
     .option = {{"beta1", 0.9, 0, 1, OCT_OPTION_BETWEEN},
                {"beta2", 0.999, 0, 1, OCT_OPTION_BELOW},
                {"beta3", 0.9999, 0, 1, OCT_OPTION_BETWEEN},
                {"alpha", 5, 0, 0x1p126},
                {"warmup", 0, 0, 0x1p53, OCT_OPTION_WHOLE},
                {"eps", 1e-8, 0x1p-126, 0x1p126}},
     .lr = 1e-3,
     .weight_decay = 0.01,
     .decay = OCT_DECAY_DECOUPLED,
     .numbers = ademamix_numbers},
    {0},
};

#endif
