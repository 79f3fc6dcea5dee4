"""PyTorch's side of bench/encoder.lua: loss, logits and gradients of a BERT classifier on sentences.

    encoder.py MODEL_FOLDER SENTENCES OUTPUT_FOLDER DRAWN DRAWS

SENTENCES holds a label, a TAB and a sentence on each line. Writes into OUTPUT_FOLDER the classifier
(Hugging Face's layout, with the random head that was used) and expected.safetensors; among it, for
the first DRAWN sentences and DRAWS draws of dropout, how far they spread the logits, and the sum of
the gradients over each half of them.
"""
import itertools
import sys

import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification, BertTokenizer

model_folder, sentences, output = sys.argv[1:4]
drawn, draws = map(int, sys.argv[4:6])
rows = [line.rstrip("\n").split("\t") for line in open(sentences, encoding="utf-8", newline="\n")]
labels = torch.tensor([int(label) for label, _ in rows])
torch.manual_seed(0)
model = BertForSequenceClassification.from_pretrained(model_folder, num_labels=2).eval()
tokenizer = BertTokenizer(model_folder + "/vocab.txt")
encoded = tokenizer([text for _, text in rows], truncation=True, max_length=128)
result = model(**tokenizer.pad(encoded, return_tensors="pt"), labels=labels)
result.loss.backward()


def packed(values):
    return torch.tensor(list(itertools.chain(*values)), dtype=torch.int32)


tensors = {
    "ids": packed(encoded["input_ids"]),
    "types": packed(encoded["token_type_ids"]),
    "positions": packed(range(len(ids)) for ids in encoded["input_ids"]),
    "offsets": torch.tensor([0, *itertools.accumulate(map(len, encoded["input_ids"]))], dtype=torch.int32),
    "labels": labels.int(),
    "logits": result.logits.detach(),
    "loss": result.loss.detach(),
}
for name, parameter in model.named_parameters():
    tensors["gradient." + name] = parameter.grad.contiguous()
model.train()
part = tokenizer.pad({key: values[:drawn] for key, values in encoded.items()}, return_tensors="pt")
logits = []
for half in ("first", "second"):
    model.zero_grad()
    for _ in range(draws // 2):
        result = model(**part, labels=labels[:drawn])
        result.loss.backward()
        logits.append(result.logits.detach())
    for name, parameter in model.named_parameters():
        tensors[f"{half}.{name}"] = parameter.grad.clone()
tensors["spread"] = torch.stack(logits).std(0).mean()
model.save_pretrained(output)
save_file(tensors, output + "/expected.safetensors")
