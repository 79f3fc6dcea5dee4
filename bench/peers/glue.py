"""Fine-tune BERT on a task of GLUE with PyTorch as transformers' users do: the scores beside Octet's.

    glue.py MODEL_FOLDER GLUE_FOLDER TASK EPOCHS SEED

TASK is sst2, mrpc or rte; lr 5e-5, batches of 32, f32. Prints after each epoch the mean loss in
training, and accuracy and F1 on dev.tsv.
"""
import random
import sys

import torch

from finetuning import FineTuning, accuracy, f1, read, steps_of

model_folder, glue_folder, task, epochs, seed = sys.argv[1:6]
torch.manual_seed(int(seed))
random.seed(int(seed))
BATCH = 32
folder = f"{glue_folder}/" + {"sst2": "SST-2", "mrpc": "MRPC", "rte": "RTE"}[task]
train, dev = (read(f"{folder}/{name}.tsv", task) for name in ("train", "dev"))
run = FineTuning(model_folder, 5e-5, int(epochs) * steps_of(train, BATCH))
for epoch in range(int(epochs)):
    order = list(range(len(train)))
    random.shuffle(order)
    losses = [float(run.step(batch)[0].detach())
              for batch in run.batches([train[i] for i in order], BATCH)]
    said = run.predictions(dev)
    print("epoch %d: loss %.4f, accuracy %.4f, F1 %.4f" % (
        epoch + 1, sum(losses) / len(losses), accuracy(said, dev), f1(said, dev)), flush=True)
