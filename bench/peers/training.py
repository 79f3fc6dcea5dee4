"""PyTorch's side of bench/training.lua: the steps of a fine-tuning on given rows, without dropout.

    training.py MODEL_FOLDER TASK_FOLDER TASK BATCH WORK_FOLDER

WORK_FOLDER/rows holds the rows of train.tsv (from 0, the header not counted) in the order of
training. Leaves WORK_FOLDER/model, where training begins, and WORK_FOLDER/steps.json.
"""
import json
import shutil
import sys

import torch

from finetuning import FineTuning, accuracy, read, steps_of

model_folder, task_folder, task, batch_size, work = sys.argv[1:6]
batch_size = int(batch_size)
torch.manual_seed(1)
torch.set_num_threads(2)
table, dev = (read(f"{task_folder}/{name}.tsv", task) for name in ("train", "dev"))
train = [table[int(line)] for line in open(f"{work}/rows")]
run = FineTuning(model_folder, 5e-5, steps_of(train, batch_size), fused=False,
                 hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
run.model.save_pretrained(f"{work}/model")
shutil.copy(model_folder + "/vocab.txt", f"{work}/model/vocab.txt")
steps = []
for batch in run.batches(train, batch_size):
    loss, norm, lr = run.step(batch)
    steps.append({"loss": loss.item(), "grad_norm": norm.item(), "lr": lr})
json.dump({"steps": steps, "accuracy": accuracy(run.predictions(dev), dev)},
          open(f"{work}/steps.json", "w"))
