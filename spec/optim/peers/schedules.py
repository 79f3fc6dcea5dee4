"""Prints spec/optim/peers/schedules.lua: what the schedulers of PyTorch and of transformers give.

    python spec/optim/peers/schedules.py > spec/optim/peers/schedules.lua
"""
import textwrap
import warnings

import torch
from torch.optim.lr_scheduler import (CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR,
                                      OneCycleLR, ReduceLROnPlateau)
import transformers
from transformers import optimization as hf

warnings.filterwarnings("ignore")
BASE = 0.5


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)


def factors(make, count):
    opt = optimizer()
    scheduler = make(opt)
    seen = []
    for step in range(count):
        seen.append(opt.param_groups[0]["lr"] / BASE)
        if step + 1 < count:
            opt.step()
            scheduler.step()
    return seen


def plateau(metrics, **options):
    opt = optimizer()
    scheduler = ReduceLROnPlateau(opt, eps=0, **options)
    seen = []
    for metric in metrics:
        scheduler.step(metric)
        seen.append(opt.param_groups[0]["lr"] / BASE)
    return seen


def emit(name, options, values, metrics=None):
    print(f'  {{name = "{name}", options = {{')
    print("\n".join(textwrap.wrap(options, 95, initial_indent="    ", subsequent_indent="    ")))
    print("  },")
    for key, numbers in (("metrics", metrics), ("factors", values)):
        if numbers is None:
            continue
        text, line = [], f"    {key} = {{"
        for number in numbers:
            piece = f"{number}, "
            if len(line) + len(piece) > 99:
                text.append(line.rstrip())
                line = "      "
            line += piece
        print("\n".join(text + [line.rstrip(", ") + "},"]))
    print("  },")


print("-- Printed by spec/optim/peers/schedules.py with PyTorch "
      f"{torch.__version__.split('+')[0]} and transformers {transformers.__version__}.")
print("return {")
emit("constant", "warmup_steps = 4",
     factors(lambda o: hf.get_constant_schedule_with_warmup(o, 4), 8))
emit("linear", "steps = 20, warmup_steps = 6",
     factors(lambda o: hf.get_linear_schedule_with_warmup(o, 6, 20), 24))
emit("linear", "steps = 15, end_factor = 0.25",
     factors(lambda o: LinearLR(o, 1.0, 0.25, 15), 18))
emit("cosine", "steps = 20, warmup_steps = 6",
     factors(lambda o: hf.get_cosine_schedule_with_warmup(o, 6, 20), 21))
emit("cosine", "steps = 15, end_factor = 0.2",
     factors(lambda o: CosineAnnealingLR(o, 15, 0.2 * BASE), 16))
emit("cosine", "steps = 20, warmup_steps = 3, end_factor = 0.1",
     factors(lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(o, 3, 20, min_lr_rate=0.1),
             21))
emit("cosine", "steps = 32, warmup_steps = 2, restarts = 2",
     factors(lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 2, 32, 3), 34))
emit("cosine", "steps = 35, restarts = 2, growth = 2, end_factor = 0.05",
     factors(lambda o: CosineAnnealingWarmRestarts(o, 5, 2, 0.05 * BASE), 35))
emit("inverse_sqrt", "warmup_steps = 5", factors(lambda o: hf.get_inverse_sqrt_schedule(o, 5), 30))
emit("inverse_sqrt", "warmup_steps = 5, timescale = 20",
     factors(lambda o: hf.get_inverse_sqrt_schedule(o, 5, 20), 30))
emit("inverse_sqrt", "", factors(lambda o: hf.get_inverse_sqrt_schedule(o, 0), 12))
emit("polynomial", "steps = 20, warmup_steps = 6, power = 2, end_factor = 0.1",
     factors(lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 6, 20, lr_end=0.1 * BASE,
                                                                    power=2.0), 24))
emit("polynomial", "steps = 12, power = 0.5",
     factors(lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 0, 12, lr_end=0, power=0.5),
             14))
for options, text in (
        ({}, ""), ({"anneal_strategy": "linear"}, ', anneal = "linear"'),
        ({"three_phase": True}, ", three_phase = true"),
        ({"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.45, "div_factor": 10.0,
          "final_div_factor": 100.0},
         ', three_phase = true, anneal = "linear", pct_start = 0.45, div_factor = 10, '
         "final_div_factor = 100"),
        ({"pct_start": 0.0}, ", pct_start = 0"), ({"pct_start": 1.0}, ", pct_start = 1")):
    emit("one_cycle", "steps = 23" + text,
         factors(lambda o: OneCycleLR(o, BASE, 23, cycle_momentum=False, **options), 23))
FALLING = [1, 0.9, 0.9, 0.89995, 0.91, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.79, 0.79, 0.79, 0.79, 0.79,
           float("nan"), 0.79, 0.79, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
RISING = [-1, -0.9, -0.89, -0.89, -0.889, -0.88, 0.1, 0.10001, 0.1001, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2,
          0.2, 0.2, 0.2, 0.2]
for metrics, options, text in (
        (FALLING, {"patience": 2}, "patience = 2"),
        (FALLING, {"patience": 1, "factor": 0.5, "cooldown": 2, "min_lr": 0.2 * BASE},
         "patience = 1, factor = 0.5, cooldown = 2, min_factor = 0.2"),
        (FALLING, {"patience": 0, "factor": 0.7, "threshold": 0.05, "threshold_mode": "abs"},
         'patience = 0, factor = 0.7, threshold = 0.05, threshold_mode = "abs"'),
        (RISING, {"mode": "max", "patience": 1, "factor": 0.5, "threshold": 0.01},
         'mode = "max", patience = 1, factor = 0.5, threshold = 0.01'),
        (RISING, {"mode": "max", "patience": 2, "factor": 0.5, "threshold": 0.02,
                  "threshold_mode": "abs"},
         'mode = "max", patience = 2, factor = 0.5, threshold = 0.02, threshold_mode = "abs"')):
    emit("plateau", text, plateau(metrics, **options), ["0 / 0" if m != m else m for m in metrics])
print("}")
