"""Fine-tune BERT on a task of GLUE with PyTorch as transformers' users do: the scores beside Octet's.

    glue.py MODEL_FOLDER GLUE_FOLDER TASK EPOCHS SEED

TASK is sst2, mrpc or rte. AdamW, lr 5e-5, decay .01 of matrices, 6 % warm-up and linear decay,
clipping at 1, batches of 32, f32. Prints accuracy and F1 on dev.tsv after each epoch.
"""
import math
import random
import sys

import torch
from transformers import BertForSequenceClassification, BertTokenizerFast

model_folder, glue_folder, task, epochs, seed = sys.argv[1:6]
torch.manual_seed(int(seed))
random.seed(int(seed))
LR, BATCH, WARMUP, DECAY = 5e-5, 32, 0.06, 0.01
FOLDER, ROW = {
    "sst2": ("SST-2", lambda r: (r[0], None, int(r[1]))),
    "mrpc": ("MRPC", lambda r: (r[3], r[4], int(r[0]))),
    "rte": ("RTE", lambda r: (r[1], r[2], int(r[3] == "not_entailment"))),
}[task]


def read(name):
    lines = open(f"{glue_folder}/{FOLDER}/{name}", encoding="utf-8").read().split("\n")[1:]
    return [ROW(line.rstrip("\r").split("\t")) for line in lines if line.strip()]


train, dev = read("train.tsv"), read("dev.tsv")
tokenizer = BertTokenizerFast(model_folder + "/vocab.txt")
model = BertForSequenceClassification.from_pretrained(model_folder, num_labels=2)
optimizer = torch.optim.AdamW(
    [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
     {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}],
    lr=LR, fused=True)
steps = int(epochs) * math.ceil(len(train) / BATCH)
warmup = int(WARMUP * steps)
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda s: s / max(1, warmup) if s < warmup else (steps - s) / max(1, steps - warmup))


def batches(rows, size):
    for i in range(0, len(rows), size):
        part = rows[i:i + size]
        batch = tokenizer([r[0] for r in part],
                          [r[1] for r in part] if part[0][1] is not None else None,
                          padding=True, truncation=True, max_length=128, return_tensors="pt")
        batch["labels"] = torch.tensor([r[2] for r in part])
        yield batch


def evaluate():
    model.eval()
    with torch.no_grad():
        said = torch.cat([model(**batch).logits.argmax(1) for batch in batches(dev, 64)])
    model.train()
    labels = torch.tensor([r[2] for r in dev])
    both = int(((said == 1) & (labels == 1)).sum())
    return float((said == labels).float().mean()), 2 * both / max(1, int(said.sum() + labels.sum()))


model.train()
for epoch in range(int(epochs)):
    order = list(range(len(train)))
    random.shuffle(order)
    for batch in batches([train[i] for i in order], BATCH):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print("epoch %d: accuracy %.4f, F1 %.4f" % (epoch + 1, *evaluate()), flush=True)
