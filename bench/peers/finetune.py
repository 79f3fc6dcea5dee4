"""PyTorch's side of bench/finetune.lua: fine-tune BERT on SST-2 as transformers' users do.

    finetune.py MODEL_FOLDER SST2_FOLDER EXAMPLES PRECISION THREADS SEED LEARNING_RATE

Prints one line: real tokens a second in training, peak resident bytes, accuracy on dev.tsv.
"""
import random
import resource
import sys
import time

import torch

from finetuning import FineTuning, accuracy, read, steps_of

model_folder, data_folder, examples, precision, threads, seed, lr = sys.argv[1:8]
torch.set_num_threads(int(threads))
torch.manual_seed(int(seed))
random.seed(int(seed))
BATCH = 32
train, dev = (read(f"{data_folder}/{name}.tsv", "sst2") for name in ("train", "dev"))
random.shuffle(train)
train = train[: int(examples)]
run = FineTuning(model_folder, float(lr), steps_of(train, BATCH))
tokens, start = 0, time.time()
for batch in run.batches(train, BATCH):
    tokens += int(batch["attention_mask"].sum())
    run.step(batch, precision)
seconds = time.time() - start
score = accuracy(run.predictions(dev), dev)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(f"{tokens / seconds:.0f} {peak} {score:.4f}")
