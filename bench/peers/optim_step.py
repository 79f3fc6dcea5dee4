"""One step of PyTorch's optimizers on the CPU: nanoseconds a parameter, the best of some rounds.

    python bench/peers/optim_step.py PARAMETERS TENSORS ROUNDS THREADS

Prints lines "NAME NANOSECONDS", for bench/optimizer.lua to read.
"""
import sys
import time

import torch

size, tensors, rounds, threads = (int(float(a)) for a in sys.argv[1:5])
torch.set_num_threads(threads)


def parameters():
    made = [torch.nn.Parameter(torch.randn(size // tensors) * 0.02) for _ in range(tensors)]
    for p in made:
        p.grad = torch.randn(size // tensors) * 1e-3
    return made


def best(step):
    step()
    fastest = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - begun)
    return fastest / size * 1e9


print("torch.Adam(fused)", best(torch.optim.Adam(parameters(), lr=1e-3, fused=True).step))
