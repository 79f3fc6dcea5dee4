"""PyTorch's side of spec/nn/recurrent_spec.lua: writes what it holds the recurrent layers against.

    pytorch_figures.py spec/nn/pytorch_figures.safetensors

For an LSTM and a GRU, two layers, both directions, sequences of mixed lengths with initial states:
weights as a state_dict has them, inputs, results, the weights of a loss, and every gradient of it.
"""
import sys

import torch
from safetensors.torch import save_file

INPUTS, HIDDEN, LAYERS, LENGTHS = 5, 7, 2, [3, 1, 4, 9, 2, 9]
tensors = {"offsets": torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32)}
torch.manual_seed(3)
for name in ("LSTM", "GRU"):
    layer = getattr(torch.nn, name)(INPUTS, HIDDEN, LAYERS, bidirectional=True)
    leaves = {"x": torch.randn(sum(LENGTHS), INPUTS)}
    parts = ["h", "c"] if name == "LSTM" else ["h"]
    for part in parts:
        leaves[part + "_0"] = torch.randn(2 * LAYERS, len(LENGTHS), HIDDEN)
    for leaf in leaves.values():
        leaf.requires_grad_()
    packed = torch.nn.utils.rnn.pack_sequence(leaves["x"].split(LENGTHS), enforce_sorted=False)
    initial = tuple(leaves[part + "_0"] for part in parts)
    y, final = layer(packed, initial if name == "LSTM" else initial[0])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    results = {"y": torch.cat([y[:length, i] for i, length in enumerate(LENGTHS)])}
    results.update(zip(parts, final if name == "LSTM" else [final]))
    loss = 0
    for key, result in list(results.items()):
        tensors[f"{name}.loss.{key}"] = torch.randn_like(result)
        loss = loss + (result * tensors[f"{name}.loss.{key}"]).sum()
    loss.backward()
    for key, tensor in {**leaves, **results}.items():
        tensors[f"{name}.{key}"] = tensor.detach().contiguous()
    for key, leaf in [*leaves.items(), *layer.named_parameters()]:
        tensors[f"{name}.gradient.{key}"] = leaf.grad.contiguous()
    for key, parameter in layer.named_parameters():
        tensors[f"{name}.state.{key}"] = parameter.detach()
save_file(tensors, sys.argv[1])
