/* muon.h - Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024;
 * step length as in Liu et al., "Muon is Scalable for LLM Training", 2025).
 *
 *     m = momentum m + (1 - momentum) g
 *     direction = m, or with nesterov momentum m + (1 - momentum) g, made orthogonal (core/muon.c)
 *
 * For matrices; optim.muon gives AdamW what is none. */
enum { MUON_REST, MUON_AHEAD };
enum { muon_states = 1 };

#ifdef OCT_RULE_ARITHMETIC

INLINE vf muon_rule(vf *bound, vf s[OCT_STATES], vf p, vf g, const float *c, int root)
{
    s[0] = vf_fma(vf_all(c[MUON_REST]), g - s[0], s[0]);
    *bound = vf_max(vf_abs(g), vf_abs(s[0]));
    return vf_fma(vf_all(c[MUON_AHEAD]), g - s[0], s[0]);
}

#else

static void muon_numbers(oct_numbers *n, const oct_rule_input *in)
{
    n->c[MUON_REST] = (float)(1 - in->options[0]);
    n->c[MUON_AHEAD] = in->options[1] != 0 ? n->c[MUON_REST] : 0;
}

static const oct_rule muon_optimizers[] = {
    {.name = "muon",
     .title = "Muon (Jordan et al., 2024)",
     .state = {{"m", OCT_STATE_SIGNED, 1}},
     .option = {{"momentum", 0.95, 0, 1, OCT_OPTION_BELOW},
                {"nesterov", 1, 0, 1, OCT_OPTION_SWITCH},
                {"ns_steps", 5, 1, 20, OCT_OPTION_WHOLE},
                {"match_rms", 0, 0, 1, OCT_OPTION_SWITCH}},
     .lr = 1e-3,
     .weight_decay = 0.1,
     .decay = OCT_DECAY_DECOUPLED,
     .matrix = OCT_MATRIX_ORTHOGONAL,
     .numbers = muon_numbers},
    {0},
};

#endif
