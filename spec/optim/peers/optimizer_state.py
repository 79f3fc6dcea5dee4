"""Prints spec/optim/peers/optimizer_state.lua: state of PyTorch's and bitsandbytes' optimizers after
three steps, as save_optimizer of docs/optimizer_state.md saves it, and the step that follows.

    python spec/optim/peers/optimizer_state.py > spec/optim/peers/optimizer_state.lua
"""
import re
import textwrap

import bitsandbytes as bnb
import torch

with open("docs/optimizer_state.md") as page:
    exec(re.search(r"```python\n(.*?)```", page.read(), re.S).group(1))
SAVED = {}


def save_file(tensors, path, metadata):
    SAVED.update(tensors=tensors, metadata=metadata)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([[0.5, -0.25, 0.125], [-1.0, 2.0, 0.75]]))
        self.unused = torch.nn.Parameter(torch.tensor([1.0, 2.0]))


def gradient(step):
    scale = torch.tensor([[0.5, 0.3, 0.02], [0.001, 0.1, 2.0]])
    return torch.round(128 * scale * torch.sin(torch.arange(6.0).reshape(2, 3) + step)) / 128


def numbers(values):
    text = ", ".join("%.9g" % value for value in values)
    return "{" + "\n".join(textwrap.wrap(text, 90, subsequent_indent="      ")) + "}"


def show(name, rule, cls, options, theirs):
    torch.manual_seed(0)
    model = Model()
    optimizer = cls(model.parameters(), **theirs)
    for step in range(3):
        model.w.grad = gradient(step)
        optimizer.step()
    save_optimizer(optimizer, model, "")
    before = model.w.detach().flatten().tolist()
    model.w.grad = gradient(3)
    optimizer.step()
    print('  {name = "%s", rule = "%s",\n    options = {%s},' % (name, rule, options))
    for key in ("optimizer", "parameters", "steps"):
        print("    %s = '%s'," % (key, SAVED["metadata"][key]))
    print("    tensors = {")
    for key, t in sorted(SAVED["tensors"].items()):
        if "qmap" in key:
            continue
        print('      ["%s"] = {shape = {%s}, dtype = "%s",' % (
            key, ", ".join(map(str, t.shape)), {torch.float32: "f32", torch.uint8: "u8"}[t.dtype]))
        print("        " + numbers(t.flatten().tolist()) + "},")
    print("    },")
    for key, values in (("before", before), ("gradient", gradient(3).flatten().tolist()),
                        ("after", model.w.detach().flatten().tolist())):
        print("    %s = %s," % (key, numbers(values)))
    print("  },")


T, B = torch.optim, bnb.optim
LR = {"lr": 1e-2}
CASES = [
    ("Adam", "adam", T.Adam, "", {}),
    ("AdamW", "adamw", T.AdamW, "weight_decay = 0.1", {"weight_decay": 0.1}),
    ("AMSGrad", "adam", T.Adam, "", {"amsgrad": True}),
    ("SGD", "sgd", T.SGD, "dampening = 0.5", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD without momentum", "sgd", T.SGD, "momentum = 0", {}),
    ("Adagrad", "adagrad", T.Adagrad, "lr_decay = 0.1", {"lr_decay": 0.1}),
    ("RMSprop", "rmsprop", T.RMSprop, "", {}),
    ("RMSprop, centered", "rmsprop", T.RMSprop, "momentum = 0.9, centered = true",
     {"momentum": 0.9, "centered": True}),
    ("Adamax", "adamax", T.Adamax, "", {}),
    ("NAdam", "nadam", T.NAdam, "", {}),
]
for bits in ("8bit", "32bit"):
    for name, rule, theirs in (
            ("Adam", "adam", {}), ("AdamW", "adamw", {}), ("SGD", "sgd", {"momentum": 0.9}),
            ("RMSprop", "rmsprop", {}), ("Adagrad", "adagrad", {}), ("Lion", "lion", {}),
            ("AdEMAMix", "ademamix", {}), ("LARS", "lars", {"momentum": 0.9})):
        cls = B.AdEMAMix if name + bits == "AdEMAMix32bit" else getattr(B, name + bits)
        CASES.append(("bitsandbytes " + name + bits, rule, cls, "",
                      {**theirs, "min_8bit_size": 1} if bits == "8bit" else theirs))

print("-- Printed by spec/optim/peers/optimizer_state.py with PyTorch %s and bitsandbytes %s."
      % (torch.__version__.split("+")[0], bnb.__version__))
print("-- The map `qmap1` of 8-bit state is the signed dynamic map, `qmap2` the unsigned one.")
print("return {")
for name, rule, cls, options, theirs in CASES:
    show(name, rule, cls, ", ".join(filter(None, ["lr = 1e-2", options])), {**LR, **theirs})
print("}")
