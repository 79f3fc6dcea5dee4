"""PyTorch's side of bench/lstm.lua: ms a training step of LSTMs, or the growth of memory.

    lstm.py CASE VOCABULARY INPUTS HIDDEN LAYERS DIRECTIONS SEQUENCES STEPS ROUNDS DROPOUT

Prints the fastest of ROUNDS steps in ms, and by how much the process's peak memory grew, in bytes.
"""
import resource
import sys
import time

import torch
import torch.nn.functional as F

vocabulary, inputs, hidden, layers, directions, sequences, steps, rounds = map(int, sys.argv[2:-1])
dropout = float(sys.argv[-1])


class Lstm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, inputs)
        self.lstm = torch.nn.LSTM(inputs, hidden, layers, batch_first=True, bidirectional=directions == 2,
                                  dropout=dropout)
        self.out = torch.nn.Linear(directions * hidden, 1)

    def forward(self, ids):
        _, (h, _) = self.lstm(self.embed(ids))
        return self.out(h[-1] if directions == 1 else torch.cat([h[-2], h[-1]], 1)).squeeze(-1)


torch.manual_seed(1)
model = Lstm()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
ids = torch.randint(0, vocabulary, (sequences, steps))
labels = torch.randint(0, 2, (sequences,)).float()


def step():
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(model(ids), labels).backward()
    optimizer.step()


before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = float("inf")
for _ in range(rounds):
    begun = time.perf_counter()
    step()
    best = min(best, time.perf_counter() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(1e3 * best, 1024 * (peak - before), 1024 * peak)
