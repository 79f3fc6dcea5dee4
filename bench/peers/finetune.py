"""PyTorch's side of bench/finetune.lua: fine-tune BERT on SST-2 as transformers' users do.

    finetune.py MODEL_FOLDER SST2_FOLDER EXAMPLES PRECISION THREADS SEED LEARNING_RATE

Prints one line: real tokens a second in training, peak resident bytes, accuracy on dev.tsv.
"""
import math
import random
import resource
import sys
import time

import torch
from transformers import BertForSequenceClassification, BertTokenizerFast

model_folder, data_folder, examples, precision, threads, seed, lr = sys.argv[1:8]
torch.set_num_threads(int(threads))
torch.manual_seed(int(seed))
random.seed(int(seed))
BATCH, WARMUP, DECAY = 32, 0.06, 0.01


def read(name):
    lines = open(f"{data_folder}/{name}", encoding="utf-8").read().split("\n")[1:]
    return [line.rstrip("\r").split("\t") for line in lines if line]


train, dev = read("train.tsv"), read("dev.tsv")
random.shuffle(train)
train = train[: int(examples)]
tokenizer = BertTokenizerFast(model_folder + "/vocab.txt")
model = BertForSequenceClassification.from_pretrained(model_folder, num_labels=2)
matrices = [p for p in model.parameters() if p.ndim > 1]
vectors = [p for p in model.parameters() if p.ndim <= 1]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
    lr=float(lr), fused=True)
steps = math.ceil(len(train) / BATCH)
warmup = int(WARMUP * steps)
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda s: s / max(1, warmup) if s < warmup else (steps - s) / max(1, steps - warmup))


def batches(rows, size):
    for i in range(0, len(rows), size):
        part = rows[i:i + size]
        batch = tokenizer([r[0] for r in part], padding=True, truncation=True, max_length=128,
                          return_tensors="pt")
        batch["labels"] = torch.tensor([int(r[1]) for r in part])
        yield batch


model.train()
tokens, start = 0, time.time()
for batch in batches(train, BATCH):
    tokens += int(batch["attention_mask"].sum())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
seconds = time.time() - start
model.eval()
with torch.no_grad():
    right = sum(int((model(**b).logits.argmax(1) == b["labels"]).sum()) for b in batches(dev, 64))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(f"{tokens / seconds:.0f} {peak} {right / len(dev):.4f}")
