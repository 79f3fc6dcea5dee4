"""Prints spec/optim/peers/trajectories.lua: where PyTorch's optimizers lead in 50 float32 steps.

    python spec/optim/peers/trajectories.py > spec/optim/peers/trajectories.lua

draws(): x = 1 at first, then x = x * 16807 % 2147483647, each x / 2147483647 - 0.5. A parameter
starts as draws times 2. The gradient of a vector: draws, the i-th (0-based) times 10^-i; of a
matrix: draws.
"""
import inspect
import textwrap

import torch
from torch.optim import _muon

# PyTorch's iteration runs in bfloat16, two digits of which come out as chance would have it.
source = inspect.getsource(_muon._zeropower_via_newtonschulz)
assert "torch.bfloat16" in source
exec(source.replace("torch.bfloat16", "torch.float64"), _muon.__dict__)

STATES = {
    "adam": {"exp_avg": "m", "exp_avg_sq": "v"}, "sgd": {"momentum_buffer": "m"},
    "adagrad": {"sum": "v"},
    "rmsprop": {"square_avg": "v", "grad_avg": "a", "momentum_buffer": "m"},
    "adamax": {"exp_avg": "m", "exp_inf": "u"}, "nadam": {"exp_avg": "m", "exp_avg_sq": "v"},
    "adafactor": {"row_var": "row", "col_var": "column", "variance": "row"},
    "muon": {"momentum_buffer": "m"},
}
STATES["adamw"] = STATES["adam"]
CLASSES = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad, "rmsprop": torch.optim.RMSprop,
    "adamax": torch.optim.Adamax, "nadam": torch.optim.NAdam,
    "adafactor": torch.optim.Adafactor, "muon": torch.optim.Muon,
}


def draws():
    x = 1
    while True:
        x = x * 16807 % 2147483647
        yield x / 2147483647 - 0.5


def numbers(values):
    return "{" + ", ".join(f"{v:.9g}" for v in values) + "}"


def wrapped(text, indent="    "):
    print(textwrap.fill(text, 96, initial_indent=indent, subsequent_indent=indent + "  ",
                        break_long_words=False, break_on_hyphens=False))


def emit(name, rule, options, kwargs, shape=(6,), step="", decay=0.0, scale=1.0, value=None,
         norm=None, torch_rule=None):
    """decay: of the parameter before each step, lr and all; scale, value, norm: of the gradient."""
    draw, size = draws(), torch.Size(shape).numel()
    p = torch.nn.Parameter(torch.tensor([2 * next(draw) for _ in range(size)],
                                        dtype=torch.float64).to(torch.float32).reshape(shape))
    more = {} if rule in ("muon", "adafactor") else {"foreach": False}
    opt = CLASSES[torch_rule or rule]([p], **kwargs, **more)
    largest = {}
    text = f'{{name = "{name}", rule = "{rule}", shape = {numbers(shape)}, options = {{{options}}},'
    wrapped(text + (f" step = {{{step}}}," if step else ""), "  ")
    for t in range(1, 51):
        scales = [10.0 ** -i if len(shape) == 1 else 1 for i in range(size)]
        g = torch.tensor([next(draw) * s for s in scales], dtype=torch.float64)
        p.grad = g.to(torch.float32).reshape(shape) * scale
        if norm:
            torch.nn.utils.clip_grad_norm_(p, norm)
        if value:
            torch.nn.utils.clip_grad_value_(p, value)
        with torch.no_grad():
            p.mul_(1 - decay)
        opt.step()
        for key, ours in STATES[rule].items():
            state = opt.state[p].get(key)
            if state is not None:
                seen = state.abs().flatten()
                largest[ours] = torch.maximum(largest[ours], seen) if ours in largest else seen
        if t in (1, 10, 50):
            wrapped(f"[{t}] = {numbers(p.detach().flatten().tolist())},")
    print("    states = {")
    for key, ours in STATES[rule].items():
        state = opt.state[p].get(key)
        if state is not None:
            wrapped(f"{ours} = {{values = {numbers(state.flatten().tolist())},", "      ")
            wrapped(f"largest = {numbers(largest[ours].tolist())}}},", "        ")
    print("    }},")


print(f"-- Printed by spec/optim/peers/trajectories.py with PyTorch "
      f"{torch.__version__.split('+')[0]}. `largest`: of each\n-- element of a state, over the 50 "
      "steps.\nreturn {")
LR = {"lr": 1e-2}
for RULE in ("adam", "adamw"):
    emit(RULE, RULE, "lr = 1e-2, weight_decay = 0", {**LR, "weight_decay": 0})
    emit(f"{RULE}, weight decay", RULE, "lr = 1e-2, weight_decay = 0.1",
         {**LR, "weight_decay": 0.1})
emit("adam, decoupled", "adam", "lr = 1e-2, weight_decay = 0.1, decoupled = true",
     {**LR, "weight_decay": 0.1, "decoupled_weight_decay": True})
emit("adamw, coupled", "adamw", "lr = 1e-2, weight_decay = 0.1, decoupled = false",
     {**LR, "weight_decay": 0.1}, torch_rule="adam")
emit("adam, other betas and eps", "adam", "lr = 3e-3, betas = {0.8, 0.95}, eps = 1e-4",
     {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-4})
emit("adamw as it is by default, norm clipped", "adamw", "", {}, step="max_norm = 0.2", norm=0.2)
emit("adam, value clipped, gradients scaled", "adam", "lr = 1e-2", LR,
     step="clip_value = 0.1, grad_scale = 0.5", scale=0.5, value=0.1)
emit("sgd, plain", "sgd", "lr = 1e-2, momentum = 0", LR)
emit("sgd, momentum, weight decay", "sgd", "lr = 1e-2, momentum = 0.9, weight_decay = 0.1",
     {**LR, "momentum": 0.9, "weight_decay": 0.1})
emit("sgd, dampening", "sgd", "lr = 1e-2, momentum = 0.8, dampening = 0.3",
     {**LR, "momentum": 0.8, "dampening": 0.3})
emit("sgd, nesterov, weight decay", "sgd",
     "lr = 1e-2, momentum = 0.9, nesterov = true, weight_decay = 0.05",
     {**LR, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05})
emit("sgd, decoupled, value clipped", "sgd",
     "lr = 1e-2, momentum = 0.9, weight_decay = 0.1, decoupled = true", {**LR, "momentum": 0.9},
     decay=1e-3, step="clip_value = 0.2", value=0.2)
emit("adagrad", "adagrad", "lr = 0.1", {"lr": 0.1})
emit("adagrad, lr_decay, weight decay", "adagrad",
     "lr = 0.1, lr_decay = 0.05, weight_decay = 0.1, eps = 1e-3",
     {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "eps": 1e-3})
emit("adagrad, decoupled", "adagrad", "lr = 0.1, weight_decay = 0.1, decoupled = true",
     {"lr": 0.1}, decay=0.01)
emit("rmsprop", "rmsprop", "lr = 1e-2", LR)
emit("rmsprop, momentum, weight decay", "rmsprop",
     "lr = 1e-3, alpha = 0.9, momentum = 0.8, weight_decay = 0.1, eps = 1e-4",
     {"lr": 1e-3, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1, "eps": 1e-4})
emit("rmsprop, centered", "rmsprop", "lr = 1e-3, alpha = 0.95, centered = true",
     {"lr": 1e-3, "alpha": 0.95, "centered": True})
emit("rmsprop, centered, momentum, decoupled", "rmsprop",
     "lr = 1e-3, centered = true, momentum = 0.9, weight_decay = 0.1, decoupled = true",
     {"lr": 1e-3, "centered": True, "momentum": 0.9}, decay=1e-4)
emit("adamax", "adamax", "lr = 1e-2", LR)
emit("adamax, weight decay, other betas and eps", "adamax",
     "lr = 1e-2, betas = {0.8, 0.95}, eps = 1e-3, weight_decay = 0.1",
     {**LR, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1})
emit("adamax, decoupled", "adamax", "lr = 1e-2, weight_decay = 0.1, decoupled = true", LR,
     decay=1e-3)
emit("nadam", "nadam", "lr = 1e-2", LR)
emit("nadam, weight decay, other betas, eps and momentum_decay", "nadam",
     "lr = 1e-2, betas = {0.8, 0.95}, eps = 1e-3, weight_decay = 0.1, momentum_decay = 0.1",
     {**LR, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.1})
emit("nadam, decoupled", "nadam", "lr = 1e-2, weight_decay = 0.1, decoupled = true",
     {**LR, "weight_decay": 0.1, "decoupled_weight_decay": True})
# eps1 means something else in PyTorch (of the root, and a floor): here it is far below everything.
for SHAPE, WHAT in (((4, 6), "a matrix"), ((6,), "a vector")):
    emit(f"adafactor, {WHAT}", "adafactor", "lr = 1e-2", {**LR, "eps": (1e-30, 1e-3)}, SHAPE)
    emit(f"adafactor, {WHAT}, weight decay", "adafactor",
         "lr = 0.2, beta2_decay = 0.5, eps2 = 0.5, clip_threshold = 1.3, weight_decay = 0.1",
         {"lr": 0.2, "beta2_decay": -0.5, "eps": (1e-30, 0.5), "d": 1.3, "weight_decay": 0.1},
         SHAPE)
emit("muon, a wide matrix", "muon", "lr = 1e-2, weight_decay = 0",
     {**LR, "weight_decay": 0}, (3, 5))
emit("muon, a tall matrix", "muon", "lr = 1e-2", LR, (5, 3))
emit("muon, as long as AdamW's steps, without Nesterov", "muon",
     "lr = 1e-2, match_rms = true, nesterov = false, momentum = 0.8, ns_steps = 3",
     {**LR, "adjust_lr_fn": "match_rms_adamw", "nesterov": False, "momentum": 0.8, "ns_steps": 3},
     (4, 6))
print("}")
