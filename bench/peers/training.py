"""PyTorch's side of bench/training.lua: the steps of a fine-tuning on given rows, without dropout.

    training.py MODEL_FOLDER TASK_FOLDER TASK BATCH WORK_FOLDER

WORK_FOLDER/rows holds the rows of train.tsv (from 0, the header not counted) in the order of
training. Leaves WORK_FOLDER/model, where training begins, and WORK_FOLDER/steps.json.
"""
import json
import math
import shutil
import sys

import torch
from transformers import BertForSequenceClassification, BertTokenizerFast

model_folder, task_folder, task, batch_size, work = sys.argv[1:6]
batch_size = int(batch_size)
LR, WARMUP, DECAY = 5e-5, 0.06, 0.01
ROW = {
    "sst2": lambda r: (r[0], None, int(r[1])),
    "mrpc": lambda r: (r[3], r[4], int(r[0])),
    "rte": lambda r: (r[1], r[2], int(r[3] == "not_entailment")),
}[task]


def read(name):
    lines = open(f"{task_folder}/{name}", encoding="utf-8", newline="\n").read().split("\n")[1:]
    return [ROW(line.rstrip("\r").split("\t")) for line in lines if line]


table, dev = read("train.tsv"), read("dev.tsv")
train = [table[int(line)] for line in open(f"{work}/rows")]
torch.manual_seed(1)
torch.set_num_threads(2)
tokenizer = BertTokenizerFast(model_folder + "/vocab.txt")
model = BertForSequenceClassification.from_pretrained(
    model_folder, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
model.save_pretrained(f"{work}/model")
shutil.copy(model_folder + "/vocab.txt", f"{work}/model/vocab.txt")
optimizer = torch.optim.AdamW(
    [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
     {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}], lr=LR)
steps = math.ceil(len(train) / batch_size)
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


model.train()
said = []
for batch in batches(train, batch_size):
    loss = model(**batch).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    said.append({"loss": loss.item(), "grad_norm": norm.item(), "lr": schedule.get_last_lr()[0]})
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
model.eval()
with torch.no_grad():
    right = sum(int((model(**b).logits.argmax(1) == b["labels"]).sum()) for b in batches(dev, 64))
json.dump({"steps": said, "accuracy": right / len(dev)}, open(f"{work}/steps.json", "w"))
