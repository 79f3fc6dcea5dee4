"""What the PyTorch sides of the fine-tunings share: tasks of GLUE, batches, and how users train.

AdamW with a decay of .01 on matrices, 6 % warm-up, linear decay to 0, clipping at 1.
"""
import math
from typing import NamedTuple

import torch
from transformers import BertForSequenceClassification, BertTokenizerFast


class Example(NamedTuple):
    text: str
    pair: str | None
    label: int


EXAMPLE = {
    "sst2": lambda row: Example(row[0], None, int(row[1])),
    "mrpc": lambda row: Example(row[3], row[4], int(row[0])),
    "rte": lambda row: Example(row[1], row[2], int(row[3] == "not_entailment")),
}


def read(path, task):
    """The examples of a TSV file of GLUE; quotes in it are plain characters."""
    lines = open(path, encoding="utf-8", newline="\n").read().split("\n")[1:]
    return [EXAMPLE[task](line.rstrip("\r").split("\t")) for line in lines if line.strip()]


class FineTuning:
    """A BERT with two classes, its tokenizer and what trains it for `steps` steps."""

    def __init__(self, model_folder, lr, steps, fused=True, **config):
        self.tokenizer = BertTokenizerFast(model_folder + "/vocab.txt")
        self.model = BertForSequenceClassification.from_pretrained(
            model_folder, num_labels=2, **config)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
            lr=lr, fused=fused)
        warmup = int(0.06 * steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda s: s / max(1, warmup) if s < warmup
            else (steps - s) / max(1, steps - warmup))
        self.model.train()

    def batches(self, examples, size):
        for i in range(0, len(examples), size):
            texts, pairs, labels = zip(*examples[i:i + size])
            batch = self.tokenizer(
                list(texts), list(pairs) if pairs[0] is not None else None, padding=True,
                truncation=True, max_length=128, return_tensors="pt")
            batch["labels"] = torch.tensor(labels)
            yield batch

    def step(self, batch, precision="f32"):
        """One step; gives loss, norm of the gradient before clipping, and learning rate."""
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = self.model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        lr = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss, norm, lr

    def predictions(self, examples):
        """The class of each example, i64 [examples]."""
        self.model.eval()
        with torch.no_grad():
            said = [self.model(**batch).logits.argmax(1) for batch in self.batches(examples, 64)]
        self.model.train()
        return torch.cat(said)


def steps_of(examples, batch):
    return math.ceil(len(examples) / batch)


def accuracy(predictions, examples):
    labels = torch.tensor([e.label for e in examples])
    return float((predictions == labels).float().mean())


def f1(predictions, examples):
    labels = torch.tensor([e.label for e in examples])
    both = int(((predictions == 1) & (labels == 1)).sum())
    return 2 * both / max(1, int(predictions.sum() + labels.sum()))
