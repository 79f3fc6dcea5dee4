"""Hugging Face's tokenizers on one thread, for bench/tokenizer.lua: the lines of FILE... as they stand.

Usage: tokenizer.py VOCAB FILE...    prints, for each file, seconds of encode_batch, seconds of encode called for
each line, and the sum of all ids, each the least of three."""
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import BertWordPieceTokenizer

tokenizer = BertWordPieceTokenizer(sys.argv[1], lowercase=True)
for path in sys.argv[2:]:
    with open(path, encoding="utf-8", newline="") as f:
        lines = f.read().split("\n")
    if lines[-1] == "":
        lines.pop()
    batch_s = loop_s = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        encoded = tokenizer.encode_batch(lines)
        batch_s = min(batch_s, time.perf_counter() - start)
        start = time.perf_counter()
        for line in lines:
            tokenizer.encode(line)
        loop_s = min(loop_s, time.perf_counter() - start)
    print(f"{batch_s:.6f} {loop_s:.6f} {sum(sum(e.ids) for e in encoded)}", flush=True)
