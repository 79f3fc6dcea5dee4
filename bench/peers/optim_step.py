"""Steps of PyTorch's and bitsandbytes' optimizers, for bench/optimizer.lua to time in turns with
its own. It reads commands from standard input, a line each, and answers a line each:

    begin RULE SIZE TENSORS THREADS DEVICE  ->  the names of the peers that run, with tabs between
    run NAME ROUNDS SECONDS                 ->  nanoseconds a parameter, the best of so many rounds, or of
                                                as many as fit into the seconds (at least one)

What a peer does not support on this machine is named on standard error and left out.
"""
import gc
import sys
import time

import torch

try:
    import bitsandbytes.optim as bnb
except Exception as error:  # the ratio to PyTorch is worth printing without it
    print(f"bitsandbytes is left out: {error}", file=sys.stderr)
    bnb = None

# PyTorch fused where it has that, else foreach; bitsandbytes by name, with the width behind it.
TORCH = {
    "adam": ("torch.Adam(fused)", torch.optim.Adam, dict(lr=1e-3, fused=True)),
    "adamw": ("torch.AdamW(fused)", torch.optim.AdamW, dict(lr=1e-3, fused=True)),
    "sgd": ("torch.SGD(fused)", torch.optim.SGD, dict(lr=1e-3, momentum=0.9, fused=True)),
    "adagrad": ("torch.Adagrad(fused)", torch.optim.Adagrad, dict(lr=1e-3, fused=True)),
    "rmsprop": ("torch.RMSprop(foreach)", torch.optim.RMSprop, dict(lr=1e-3, foreach=True)),
    "adamax": ("torch.Adamax(foreach)", torch.optim.Adamax, dict(lr=1e-3, foreach=True)),
    "nadam": ("torch.NAdam(foreach)", torch.optim.NAdam, dict(lr=1e-3, foreach=True)),
    "adafactor": ("torch.Adafactor(foreach)", torch.optim.Adafactor, dict(lr=1e-3, foreach=True)),
    "muon": ("torch.Muon(bf16)", getattr(torch.optim, "Muon", None), dict(lr=1e-3)),
}
BITSANDBYTES = {
    "adam": ("Adam", {}), "adamw": ("AdamW", {}), "sgd": ("SGD", dict(lr=1e-3, momentum=0.9)),
    "adagrad": ("Adagrad", {}), "rmsprop": ("RMSprop", {}), "lion": ("Lion", {}),
    "ademamix": ("AdEMAMix", {}), "lamb": ("LAMB", {}), "lars": ("LARS", dict(lr=1e-3, momentum=0.9)),
}


def parameters(size, tensors, device):
    """Matrices of 1,024 columns, as bench/optimizer.lua makes them."""
    rows = size // tensors // 1024
    made = [torch.nn.Parameter(torch.randn(rows, 1024, device=device) * 0.02) for _ in range(tensors)]
    for p in made:
        p.grad = torch.randn(rows, 1024, device=device) * 1e-3
    return made


def makers(rule):
    if rule in TORCH and TORCH[rule][1]:
        name, make, options = TORCH[rule]
        yield name, lambda p: make(p, **options)
    if bnb and rule in BITSANDBYTES:
        name, options = BITSANDBYTES[rule]
        for bits in "32bit", "8bit":
            yield "bnb." + name + bits, lambda p, n=name + bits: getattr(bnb, n)(p, **options)


def begin(rule, size, tensors, threads, device):
    torch.set_num_threads(int(threads))
    made = parameters(int(size), int(tensors), device)
    optimizers = {}
    for name, make in makers(rule):
        try:
            optimizer = make(made)
            optimizer.step()  # makes its state
            optimizers[name] = optimizer
        except Exception as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            print(f"{name} does not run here: {text[0][:100]}", file=sys.stderr)
    return optimizers


def step(optimizer):
    """One whole step: on a GPU it goes on after the call."""
    optimizer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_time(optimizer, rounds, seconds):
    step(optimizer)
    fastest, end = float("inf"), time.perf_counter() + seconds
    for _ in range(rounds):
        begun = time.perf_counter()
        step(optimizer)
        done = time.perf_counter()
        fastest = min(fastest, done - begun)
        if done > end:
            break
    return fastest


optimizers, count = {}, 1
for line in sys.stdin:
    command, *words = line.split()
    if command == "begin":
        optimizers = {}
        gc.collect()
        count = int(words[1])
        optimizers = begin(*words)
        print("\t".join(optimizers), flush=True)
    else:
        seconds = best_time(optimizers[words[0]], int(words[1]), float(words[2]))
        print(seconds / count * 1e9, flush=True)
